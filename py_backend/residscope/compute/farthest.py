"""The values that are farthest from 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def farthest_first(values: Tensor, k: int) -> list[int]:
    """Return the places of the k values farthest from 0 in the flattened values, the farthest first.

    NaN is left out. (`topk` would rank it first.)
    """
    distance = values.flatten().abs().nan_to_num(-1.0)
    return distance.topk(min(max(k, 0), int((distance >= 0).sum()))).indices.tolist()
