"""Notes on caches whose activations or weights were changed since the cache was first seen.

This module also repeats a computation if cache or weights change meanwhile. So no result mixes two states.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from residscope.errors import ResidscopeError
from residscope.session.change_tracking import TrackedCache, track

if TYPE_CHECKING:
    from residscope.cache.view import CacheView

T = TypeVar("T")

CACHE_CHANGED = "This cache was changed after it was first seen: the values are those of the cache as it is now."
WEIGHTS_CHANGED = (
    "The model's weights were changed after this cache was first seen (their values, or how a layer, an adapter or a "
    "setting uses them): the activations are from the old model, the weights from the new one."
)
OTHER_MODEL = (
    "This cache was first seen with another model. If the weights of the two models differ, the activations do not "
    "belong to these weights."
)
UNSTEADY = (
    "{} changed during this computation, and again each time it was repeated: the result would mix different states. "
    "Try again when no running cell and no thread changes them."
)

_MAX_ATTEMPTS = 3
"""A computation is tried at most this many times."""


def seen(cache: object, model: object = None) -> TrackedCache | None:
    """Return the tracked cache of an `ActivationCache`, compared with its present state. None for other mappings."""
    return track(cache, model) if isinstance(getattr(cache, "cache_dict", None), Mapping) else None


def changed(view: CacheView) -> list[str]:
    """Return notes for results from activations and weights, if one of them changed since the cache was first seen."""
    return weights_changed(view) + cache_changed(view)


def cache_changed(view: CacheView) -> list[str]:
    """Return a note for results from activations, if the activations changed since the cache was first seen."""
    return [CACHE_CHANGED] if view.seen is not None and view.seen.changed else []


def weights_changed(view: CacheView) -> list[str]:
    """Return notes for results from weights, if the weights or the model changed since the cache was first seen."""
    if view.seen is None:
        return []
    return [WEIGHTS_CHANGED] * view.seen.weights_changed + [OTHER_MODEL] * view.seen.other_model


_SHORT_COMPUTATION = 0.05
"""After a computation of fewer seconds, only PyTorch's counters are compared, because comparing values is slow."""


def steady(compare: Callable[[bool], TrackedCache], make: Callable[[], T], compared: TrackedCache | None = None) -> T:
    """Return the result of `make`. If the cache or the weights change while `make` runs, `make` is called again.

    Args:
        compare: Compares cache and weights with their last state. Its argument is whether to compare only the counters.
        make: Computes the result.
        compared: The result of `compare`, if it was called just now.

    Raises:
        ResidscopeError: If the cache or the weights change each time, or if `make` raises this error.
    """
    before, what = (compared or compare(False)).current_state, ""
    for _ in range(_MAX_ATTEMPTS):
        start = time.monotonic()
        try:
            result = make()
        except Exception:
            if (now := compare(time.monotonic() - start < _SHORT_COMPUTATION).current_state) == before:
                raise
        else:
            if (now := compare(time.monotonic() - start < _SHORT_COMPUTATION).current_state) == before:
                return result
        what, before = _what_changed(before, now), now
    raise ResidscopeError("unsteady", UNSTEADY.format(what))


def steadily(cache: object, model: object, compared: TrackedCache | None, make: Callable[[], T]) -> T:
    """Call `steady` for a public function that has just called `seen` for this cache and model.

    For a mapping that is neither a cache nor a dictionary, only call `make`.
    """
    if compared is None and not isinstance(cache, dict):
        return make()
    known = compared or track(cache, model)
    return steady(lambda quick: known.compare(cache, model, quick=quick), make, known)


def _what_changed(before: tuple[object, ...], now: tuple[object, ...]) -> str:
    """What changed, as the beginning of a sentence."""
    names = ("This cache was", "The model's weights were", "The model's tokenizer or settings were")
    return next((name for name, then, is_ in zip(names, before, now, strict=True) if then != is_), names[0])
