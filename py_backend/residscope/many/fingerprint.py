"""Describes options, model and tokenizer as short texts, to check whether a saved file fits the present call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from residscope.attribution.inner_targets import InnerTarget
from residscope.cache.view import is_cache


def question(answers: object, **options: Any) -> dict[str, str]:
    """Return the options of a call as text. Results may be combined only if these texts are equal.

    Args:
        answers: The answers for all items. An item's own answers are not part of the text.
        options: The options of `attribute_many` or `ablate_many` that results depend on.
    """
    # In options the type of a sequence does not matter. In answers it does: a tuple is a pair, a list has an answer for
    # each prompt.
    plain = {name: list(value) if _is_sequence(value) else value for name, value in options.items()}
    return {"answers": as_text(answers)} | {name: as_text(value) for name, value in plain.items()}


def as_text(value: Any) -> str:
    """Return a value as text. A large array is replaced by its shape and a hash."""
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        listed = repr(value.tolist())
        if len(listed) <= 60:
            return f"array({listed})"
        return f"array{list(value.shape)} {sha256(listed.encode()).hexdigest()[:16]}"
    if is_cache(value):
        return _cache_as_text(value)
    if isinstance(value, InnerTarget):
        kind, *parts = value.key_parts
        return f"{kind}({', '.join(as_text(part) for part in parts)})"
    if hasattr(value, "W_dec") and hasattr(value, "encode"):
        return _sae_as_text(value)
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(as_text(part) for part in value)) + "}"
    if isinstance(value, tuple | list):
        opening, closing = "()" if isinstance(value, tuple) else "[]"
        return opening + ", ".join(as_text(part) for part in value) + closing
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _sae_as_text(sae: object) -> str:
    """Return an SAE as its class and a hash of some of its weights."""
    listed: list[str] = []
    for name in ("W_dec", "W_enc", "b_dec", "b_enc", "threshold"):
        weight = getattr(sae, name, None)
        if weight is not None and hasattr(weight, "detach"):
            flat = weight.detach().flatten()
            some = flat[:: max(1, len(flat) // _COMPARED)].float().cpu().tolist()
            listed.append(f"{name} {list(weight.shape)} {','.join(f'{value:.4g}' for value in some)}")
    return f"{type(sae).__name__} {_short_hash(listed)}"


def _cache_as_text(cache: Any) -> str:
    """Return a cache as a hash of its names and of some of its numbers."""
    listed: list[str] = []
    for name, tensor in sorted(getattr(cache, "cache_dict", cache).items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // _COMPARED)].float().cpu().tolist()
        listed.append(f"{name} {list(tensor.shape)} {','.join(f'{value:.4g}' for value in some)}")
    return f"cache {_short_hash(listed)}"


def model_fingerprint(cache: object, model: object) -> str:
    """Return the name of a cache's model, and a hash of some weights of its embedding and its unembedding.

    Training changes the hash if it changes these weights. If they cannot be read, only the name is returned.
    """
    import torch

    from residscope.cache.weights import unusable, weight_of

    model = model if model is not None else getattr(cache, "model", None)
    name = str(getattr(getattr(model, "cfg", None), "model_name", ""))
    weights = [weight_of(model, *names) for names in (("embed", "W_E"), ("unembed", "W_U"))]
    rows = [
        w[..., : min(4, w.shape[0]), :].detach().flatten()[:256].float()
        for w in weights
        if w is not None and unusable(w) is None
    ]
    if not rows:
        return name
    # Rounded, because weights that were prepared on another device may differ in their last digits.
    rounded = ",".join(f"{value:.6g}" for value in torch.cat([row.cpu() for row in rows]).tolist())
    return f"{name} {sha256(rounded.encode()).hexdigest()[:12]}"


_COMPARED = 256
"""About this many tokens of a vocabulary, or numbers of a tensor, go into a hash."""


def tokenizer_fingerprint(cache: object, model: object, answers: object) -> tuple[tuple[str, str], ...]:
    """Return names and values: special tokens, padding side, and hashes of the vocabulary and of the answers' tokens.

    Args:
        cache: The cache of an item.
        model: The model, if it is not `cache.model`.
        answers: The answers for all items. Their token ids go into a hash.
    """
    from residscope.attribution.attribute import words_in
    from residscope.cache.vocabulary import Vocabulary
    from residscope.session.model_settings import SPECIAL

    model = model if model is not None else getattr(cache, "model", None)
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return (("tokenizer", "None"),)
    found: dict[str, str] = {}
    with suppress(Exception):  # the tokenizer may be the user's code
        found |= {name: repr(getattr(tokenizer, name, None)) for name in SPECIAL}
    with suppress(Exception):
        count = len(tokenizer)
        found["number of tokens"] = str(count)
        ids = range(0, count, max(1, count // _COMPARED))
        found[_VOCABULARY] = _short_hash(tokenizer.convert_ids_to_tokens(list(ids)))
    with suppress(Exception):
        checked = map(Vocabulary(model).check, words_in(answers))
        found[_ANSWERS] = _short_hash([[token.id for token in check.tokens] for check in checked])
    return tuple(found.items())


_VOCABULARY, _ANSWERS = "vocabulary", "answers"
_HASHED = {_VOCABULARY: "some of its tokens were different", _ANSWERS: "the words of the answers became other tokens"}


def what_differs(saved: tuple[tuple[str, str], ...], present: tuple[tuple[str, str], ...]) -> str:
    """Return how the present tokenizer differs from that of the saved results, in words."""
    before, after = dict(saved), dict(present)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if "tokenizer" in names:
        return "there is none now" if "tokenizer" in after else "there was none"
    plain = [f"{name} was {before.get(name)}, now it is {after.get(name)}" for name in names if name not in _HASHED]
    return "; ".join(plain or [_HASHED[name] for name in names])


def _short_hash(value: object) -> str:
    return sha256(repr(value).encode()).hexdigest()[:12]


def _is_sequence(value: object) -> bool:
    whole = isinstance(value, str | Mapping) or hasattr(value, "tolist") or hasattr(value, "cache_dict")
    return isinstance(value, Iterable) and not whole
