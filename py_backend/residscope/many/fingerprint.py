"""What was asked, in words that can be compared: of a file that is gone on with, and of the model behind the items."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from typing import Any


def question(answers: Any, **options: Any) -> dict[str, str]:
    """The question: equal words for equal figures.

    Args:
        answers: Those of all items; an item's own are its own affair.
        options: The options of `attribute_many` that figures depend on.
    """
    # Of options it does not matter what kind of sequence they are; of answers a tuple is a pair, a list is one each.
    plain = {name: list(value) if _sequence(value) else value for name, value in options.items()}
    return {"answers": words(answers)} | {name: words(value) for name, value in plain.items()}


def words(value: Any) -> str:
    """A value in words; arrays by their shape and contents."""
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        listed = repr(value.tolist())
        if len(listed) <= 60:
            return f"array({listed})"
        return f"array{list(value.shape)} {sha256(listed.encode()).hexdigest()[:16]}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(words(part) for part in value)) + "}"
    if isinstance(value, tuple | list):
        opening, closing = "()" if isinstance(value, tuple) else "[]"
        return opening + ", ".join(words(part) for part in value) + closing
    return f'"{value}"' if isinstance(value, str) else repr(value)


def mark(cache: Any, model: Any) -> str:
    """Which model made a cache, told by its name and some of its weights: training moves them."""
    import torch

    from residscope.cache.weights import unusable, weight_of

    model = model if model is not None else getattr(cache, "model", None)
    name = str(getattr(getattr(model, "cfg", None), "model_name", ""))
    found = [weight_of(model, *names) for names in (("embed", "W_E"), ("unembed", "W_U"))]
    rows = [
        w[..., : min(4, w.shape[0]), :].detach().flatten()[:256].float()
        for w in found
        if w is not None and unusable(w) is None
    ]
    if not rows:
        return name
    # As text of few digits: the same weights in another process, or on another device, are the same.
    some = ",".join(f"{value:.6g}" for value in torch.cat([row.cpu() for row in rows]).tolist())
    return f"{name} {sha256(some.encode()).hexdigest()[:12]}"


_WORDS = 256  # of a vocabulary


def tokenizer_mark(cache: Any, model: Any, answers: Any) -> tuple[tuple[str, str], ...]:
    """Which tokenizer figures were made with, in names and values: it tells padding, and which token a word is.

    Args:
        cache: One item's.
        model: The model, where `cache.model` is not it.
        answers: Those of all items: their words' tokens are compared, and some of the vocabulary.
    """
    from residscope.attribution.attribute import words_in
    from residscope.cache.vocabulary import Vocabulary
    from residscope.session.change_tracking import SPECIAL

    model = model if model is not None else getattr(cache, "model", None)
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None:
        return (("tokenizer", "None"),)
    found: dict[str, str] = {}
    with suppress(Exception):  # it is the user's code
        found |= {name: repr(getattr(tokenizer, name, None)) for name in SPECIAL}
    with suppress(Exception):
        count = len(tokenizer)
        found["number of tokens"] = str(count)
        ids = range(0, count, max(1, count // _WORDS))
        found[_VOCABULARY] = _short_hash(tokenizer.convert_ids_to_tokens(list(ids)))
    with suppress(Exception):
        checked = map(Vocabulary(model).check, words_in(answers))
        found[_ANSWERS] = _short_hash([[token.id for token in check.tokens] for check in checked])
    return tuple(found.items())


_VOCABULARY, _ANSWERS = "vocabulary", "answers"
_HASHED = {_VOCABULARY: "some of its words were others", _ANSWERS: "the answers were other tokens"}


def what_differs(then: tuple[tuple[str, str], ...], now: tuple[tuple[str, str], ...]) -> str:
    """How a tokenizer differs from another, in words."""
    was, is_ = dict(then), dict(now)
    names = [name for name in {**was, **is_} if was.get(name) != is_.get(name)]
    if "tokenizer" in names:
        return "there is none now" if "tokenizer" in is_ else "there was none"
    plain = [f"{name} was {was.get(name)}, and is {is_.get(name)}" for name in names if name not in _HASHED]
    return "; ".join(plain or [_HASHED[name] for name in names])


def _short_hash(value: Any) -> str:
    return sha256(repr(value).encode()).hexdigest()[:12]


def _sequence(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str) and not hasattr(value, "tolist")
