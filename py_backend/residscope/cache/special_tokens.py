"""Reads the tokenizer's special tokens. They are read at each use, because the user may set them later."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index

from residscope.cache.tokenizer import attribute
from residscope.cache.view import CacheView


@dataclass(frozen=True)
class SpecialTokens:
    """The tokenizer's special tokens and settings at this moment.

    Attributes:
        pad: The padding token.
        bos: The beginning-of-sequence token.
        eos: The end-of-text token.
        pad_is_ordinary: Whether the padding token is an ordinary token of the vocabulary.
        adds_eos: Whether the tokenizer adds an end of text to each prompt.
        adds_bos: Whether TransformerLens adds BOS to each prompt.
        has_tokenizer: Whether the model has a tokenizer.
        pads_left: Whether the tokenizer pads on the left.
        others: All other added tokens of the tokenizer. Most of them are special tokens, such as the unknown token.
    """

    pad: int | None = None
    bos: int | None = None
    eos: int | None = None
    pad_is_ordinary: bool = False
    adds_eos: bool = False
    adds_bos: bool = True
    has_tokenizer: bool = False
    pads_left: bool = False
    others: frozenset[int] = frozenset()

    @classmethod
    def of(cls, view: CacheView) -> SpecialTokens:
        """Read special tokens and settings from the tokenizer of the cache's model."""
        tokenizer = getattr(view.model, "tokenizer", None)
        pad, bos, eos = (_id(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id"))
        added = attribute(tokenizer, "added_tokens_decoder")
        ordinary = isinstance(added, dict) and pad is not None and pad not in (*added, bos, eos)
        adds_eos = attribute(tokenizer, "add_eos_token") is True
        adds_bos = getattr(view.cfg, "default_prepend_bos", True) is not False
        left = attribute(tokenizer, "padding_side") == "left"
        others = frozenset(added) - {pad, bos, eos} if isinstance(added, dict) else frozenset()
        return cls(pad, bos, eos, ordinary, adds_eos, adds_bos, tokenizer is not None, left, others)


def special_ids(view: CacheView) -> frozenset[int]:
    """Return the ids of all tokens that the tokenizer lists as special. Empty without a tokenizer."""
    listed = attribute(getattr(view.model, "tokenizer", None), "all_special_ids")
    return frozenset(id for id in listed if isinstance(id, int)) if isinstance(listed, list | tuple) else frozenset()


def _id(tokenizer: object, name: str) -> int | None:
    value = attribute(tokenizer, name)
    if isinstance(value, bool):
        return None
    try:
        return index(value)
    except (TypeError, RuntimeError):
        return None
