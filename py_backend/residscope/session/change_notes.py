"""Whether activations and weights are still those that a cache was first seen with: figures say where they are not.

And whether they stay as they are while figures are worked out: no figures are put together from two states.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from residscope.errors import ResidscopeError
from residscope.session.change_tracking import TrackedCache, track

if TYPE_CHECKING:
    from residscope.cache.view import CacheView

T = TypeVar("T")

CACHE_CHANGED = "This cache was changed after it was first seen: the figures are those of the cache as it is now."
WEIGHTS_CHANGED = (
    "The model's weights were changed after this cache was first seen (their figures, or what a layer, an adapter or a "
    "setting makes of them): its activations are the old model's, the weights the new one's."
)
OTHER_MODEL = (
    "This cache was first seen with another model than this one: where their weights differ, the activations are not "
    "those of the weights."
)
UNSTEADY = (
    "{} changed while this was worked out, and again when it was started again: its parts would belong to different "
    "states. Ask again when nothing changes them any more (a running cell, a thread)."
)

_TIMES = 3
"""So many times an answer is begun."""


def seen(cache: Any, model: Any = None) -> TrackedCache | None:
    """What is known of an `ActivationCache`, compared with what is there now; None for other mappings."""
    return track(cache, model) if isinstance(getattr(cache, "cache_dict", None), Mapping) else None


def changed(view: CacheView) -> list[str]:
    """Notes for figures that need activations and weights, where either were changed since the cache was first seen."""
    return weights_changed(view) + cache_changed(view)


def cache_changed(view: CacheView) -> list[str]:
    """A note for figures that need activations, where these were changed since the cache was first seen."""
    return [CACHE_CHANGED] if view.seen is not None and view.seen.changed else []


def weights_changed(view: CacheView) -> list[str]:
    """A note for figures that need the weights, where these are not those that the cache was first seen with."""
    if view.seen is None:
        return []
    return [WEIGHTS_CHANGED] * view.seen.weights_changed + [OTHER_MODEL] * view.seen.other_model


_MOMENT = 0.05
"""Behind work of fewer seconds the counters alone are compared again: samples would take as long as the work."""


def steady(look: Callable[[bool], TrackedCache], make: Callable[[], T], looked: TrackedCache | None = None) -> T:
    """What `make` makes of a cache that stays as it is meanwhile; where it does not, it is made again.

    Args:
        look: Compares the cache, and its model's weights, with what they were; by their counters alone where it is told
            that only a moment has gone by.
        make: Works out figures of the cache as it is.
        looked: What it gave, where that was done just now.

    Raises:
        ResidscopeError: If they never stay as they are; or what `make` raises.
    """
    before, what = (looked or look(False)).now, ""
    for _ in range(_TIMES):
        start = time.monotonic()
        try:
            made = make()
        except Exception:
            if (now := look(time.monotonic() - start < _MOMENT).now) == before:
                raise
        else:
            if (now := look(time.monotonic() - start < _MOMENT).now) == before:
                return made
        what, before = _what(before, now), now
    raise ResidscopeError("unsteady", UNSTEADY.format(what))


def steadily(cache: Any, model: Any, looked: TrackedCache | None, make: Callable[[], T]) -> T:
    """The same for a function that is given a cache, and perhaps the model, and has just `seen` them."""
    if looked is None and not isinstance(cache, dict):
        return make()
    known = looked or track(cache, model)
    return steady(lambda quick: known.look(cache, model, quick=quick), make, known)


def _what(before: tuple[object, ...], now: tuple[object, ...]) -> str:
    """What was changed, as the beginning of a sentence."""
    names = ("This cache was", "The model's weights were", "The model's tokenizer or settings were")
    return next((name for name, then, is_ in zip(names, before, now, strict=True) if then != is_), names[0])
