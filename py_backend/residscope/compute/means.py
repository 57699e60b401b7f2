"""Means over prompts that leave out padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor


def mean_over(values: Tensor, axis: int, left_out: Bool[Tensor, ...] | None) -> Tensor:
    """Return the mean over an axis. With `left_out`, NaN is left out, too. If nothing is left, the mean is NaN.

    Args:
        values: The values.
        axis: The axis of prompts.
        left_out: Which values are padding, as the last axes of `values`. None: no value is left out.
    """
    if left_out is None:
        return values.mean(axis)
    return values.masked_fill(left_out.to(values.device), float("nan")).nanmean(axis)
