"""Models of well-known shapes with random weights, and caches of theirs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = TemporaryDirectory(prefix="residscope-shapes-")  # goes with the process
THREADS = 2


@cache
def gpt2_small() -> Any:
    """12 layers × 12 heads, d_model 768, d_mlp 3072, 50,257 tokens; norm weights and biases moved off their start."""
    from transformer_lens.model_bridge import TransformerBridge

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    config = AutoConfig.for_model("gpt2", n_positions=2048)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "ln_" in name or name.endswith("bias"):
                weight.add_(0.1 * torch.randn_like(weight))
    folder = Path(ROOT.name) / "gpt2"
    model.save_pretrained(folder)
    _tokenizer(config.vocab_size, folder)
    return TransformerBridge.boot_transformers(str(folder))


def run(model: Any, batch: int, positions: int) -> tuple[Any, torch.Tensor]:
    """A cache of random prompts, and a pair of answers for each prompt, `[batch, 2]`.

    The logits are left out where they alone would take gigabytes.
    """
    torch.manual_seed(1)
    tokens = torch.randint(0, model.cfg.d_vocab, (batch, positions))
    large = tokens.numel() * model.cfg.d_vocab > 1e8
    outputs = ("unembed.hook_out", "hook_unembed") if large else ()
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: name not in outputs)
    return cache, torch.randint(0, model.cfg.d_vocab, (batch, 2))


def _tokenizer(size: int, folder: Path) -> None:
    """A word for each id: a bridge loads a tokenizer from the model's folder."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<s>": 0, **{f"w{i}": i for i in range(1, size)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<s>")), bos_token="<s>", eos_token="<s>"
    )
    tokenizer.save_pretrained(folder)
