"""Whether the weights are still those that a cache was first seen with: figures that need them say where not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .identity import Sight, sight

if TYPE_CHECKING:
    from .cache import CacheView

WEIGHTS_CHANGED = (
    "The model's weights were changed after this cache was first seen: its activations are the old model's, the "
    "weights the new one's."
)


def seen(cache: Any, model: Any = None) -> Sight | None:
    """What is known of an `ActivationCache`, compared with what is there now; None for other mappings."""
    return sight(cache, model) if isinstance(getattr(cache, "cache_dict", None), Mapping) else None


def weights_changed(view: CacheView) -> list[str]:
    """A note for figures that need the weights, where these were changed since the cache was first seen."""
    return [WEIGHTS_CHANGED] if view.seen is not None and view.seen.weights_changed else []
