"""What was asked, in words that can be compared: of a file that is gone on with, and of the model behind the items."""

from __future__ import annotations

from collections.abc import Iterable
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

    from ..applied import unusable
    from ..norms import weight_of

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


def _sequence(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str) and not hasattr(value, "tolist")
