"""A cache with hostile tokens: a careless page would run them as code, show them in another order, or hang."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tests.support import tiny

CALL = "window.hacked=true"
TOKENS = [
    f"<img src=x onerror={CALL}>",
    f"</script><script>{CALL}</script>",
    f"\"'><svg onload={CALL}>",
    f"${{{CALL}}}`\\",
    "<b>bold</b>",
    "&lt;i&gt;",
    " שלום",
    "مرحبا",
    "\u202egnirts",  # right-to-left override
    "🙂",
    "👩‍👩‍👧",
    "\n",
    "\t \r",
    "<0xE2>",  # a byte fallback
    "\x00\x07",
    "=1+1",
    "x" * 10_000,
]


def cache(family: str = "llama") -> tuple[Any, Any]:
    """Return a tiny model whose vocabulary has the hostile tokens, and the cache of one prompt with all of them."""
    model = tiny.boot(family)
    words = {text: id for id, text in enumerate(TOKENS)}
    words |= {f"w{id}": id for id in range(len(TOKENS), tiny.VOCAB)}
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w20")))
    tokens = torch.arange(len(TOKENS))[None]
    with torch.no_grad():
        return model, model.run_with_cache(tokens)[1]
