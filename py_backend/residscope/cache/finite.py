"""Figures that are no numbers are refused, with the place where the cache is not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


def check_finite(view: CacheView, *figures: Tensor | None) -> None:
    """Refuse figures that are not all finite; the sentence says where the cache is not."""
    if not all(bool(figure.isfinite().all()) for figure in figures if figure is not None):
        place = view.first_not_finite() or "its values overflow when they are summed"
        raise ResidscopeError(
            "not-finite", f"The cache holds NaN or infinity: {place}. Attributions of it would mean nothing."
        )
