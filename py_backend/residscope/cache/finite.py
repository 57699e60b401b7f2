"""Refuses results with NaN or infinity, and names the place in the cache with the first such value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


def check_finite(view: CacheView, *results: Tensor | None) -> None:
    """Raise an error if a result is not finite. The message says where the cache is not finite."""
    if not all(bool(result.isfinite().all()) for result in results if result is not None):
        place = view.first_not_finite()
        what = (
            "The cache is finite, but a sum of its values is not, or a weight is not"
            if place is None
            else (f"The cache holds NaN or infinity: {place}")
        )
        raise ResidscopeError("not-finite", f"{what}. Attributions of this cache would be meaningless.")
