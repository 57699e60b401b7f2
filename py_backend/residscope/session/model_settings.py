"""The model's tokenizer, configuration and mode. Results depend on them, besides activations and weights."""

from __future__ import annotations

from itertools import compress
from typing import Any

from residscope.cache.layer_state import SCALARS
from residscope.cache.segment_text import special_ids
from residscope.compute.memo import NoKeyError, unique_id

SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id", "padding_side")


def settings_of(model: object) -> tuple[object, ...]:
    """Return what results depend on besides activations and weights: tokenizer, configuration and mode.

    For the tokenizer these are its identity, special tokens, padding side and number of tokens. A swap of two tokens'
    ids is not noticed here. It does no harm, because a result for a text is stored under the text's token ids.

    Raises:
        NoKeyError: If the tokenizer cannot be identified, or raises an error.
    """
    tokenizer: Any = getattr(model, "tokenizer", None)
    inner = getattr(getattr(model, "original_model", None), "config", None)
    try:
        size = len(tokenizer) if hasattr(tokenizer, "__len__") else None
        special = tuple(_plain(getattr(tokenizer, name, None)) for name in SPECIAL)
        others = frozenset(special_ids(tokenizer))
    except Exception as error:  # the tokenizer may be the user's code
        raise NoKeyError from error
    models = model, getattr(model, "original_model", None)
    modes = tuple(getattr(module, "training", None) is True for module in models)
    return unique_id(tokenizer), size, special, others, modes, _scalars(getattr(model, "cfg", None)), _scalars(inner)


def _scalars(config: object) -> tuple[object, ...]:
    held: dict[str, Any] = dict(getattr(config, "__dict__", {}))
    kinds = list(map(type, held.values()))
    return tuple(compress(zip(held, kinds, held.values(), strict=True), map(_KINDS.__contains__, kinds)))


_KINDS = frozenset(SCALARS)


def _plain(value: object) -> object:
    return value if type(value) in SCALARS else str(value)
