"""Whether activations and weights are still those that a cache was first seen with: figures say where they are not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .identity import Sight, sight

if TYPE_CHECKING:
    from .cache import CacheView

CACHE_CHANGED = "This cache was changed after it was first seen: the figures are those of the cache as it is now."
WEIGHTS_CHANGED = (
    "The model's weights were changed after this cache was first seen: its activations are the old model's, the "
    "weights the new one's."
)
OTHER_MODEL = (
    "This cache was first seen with another model than this one: where their weights differ, the activations are not "
    "those of the weights."
)


def seen(cache: Any, model: Any = None) -> Sight | None:
    """What is known of an `ActivationCache`, compared with what is there now; None for other mappings."""
    return sight(cache, model) if isinstance(getattr(cache, "cache_dict", None), Mapping) else None


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
