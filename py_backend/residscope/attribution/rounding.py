"""How large rounding may be. The limit grows with the summed numbers, so that the unit of a target does not matter."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from residscope.terms import AttentionScore, Target

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-4
"""Differences up to this are not reported for logits and attention scores.

Logits and scores enter a softmax. So such a difference changes a probability or an attention weight by at most 0.01 %,
which no view shows.
"""

SMALLEST_SHARE = 1e-5
"""Differences up to this share of the summed numbers are not reported for any other target.

The unit of such a target depends on the length of its direction, which is arbitrary. So no fixed limit is suitable. The
share is about 80 rounding steps of float32. In unedited caches in float32 (12 small models, the demo model, on a CPU),
the differences are up to 7 steps.
"""


def floor_of(target: Target) -> float:
    """Return the largest difference that is not reported for a target. 0 if its unit is arbitrary."""
    of_softmax = isinstance(target.inner, AttentionScore) or (target.inner is None and target.direction is None)
    return SMALLEST if of_softmax and not target.through else 0.0


def rounding(
    step: float, row_rounding: float, *, rows: float, total: float, products: float, layers: int, floor: float
) -> float:
    """Return the largest difference that counts as rounding.

    Rounding has two sources. The rounding errors of the rows are independent, so their squares add up. The rounding of
    the stream comes from each of the model's additions: each coordinate is rounded in proportion to its size, and its
    error is multiplied by the coordinate of the direction.

    Args:
        step: The relative rounding step of the stream and of everything that all rows share.
        row_rounding: The rounding of the rows, computed from the precision of each row.
        rows: The square root of the sum of squares of the rows and the constant.
        total: The sum of the rows.
        products: The length of the vector of products, stream coordinate times direction coordinate.
        layers: The number of the model's layers.
        floor: Differences up to this are not reported. 0: the limit is a share of the summed numbers.
    """
    of_stream = step * 0.5 * math.sqrt(2 * layers) * products
    smallest = _smallest(floor, math.hypot(rows, total, products))
    return max(smallest, 2 * max(row_rounding, step * rows) + of_stream)


def source_tolerance(step: float, contributions: Tensor, source: int, floor: float) -> float:
    """Return the largest difference that counts as rounding between a head's contribution and its sum over sources.

    Args:
        step: The relative rounding step of the activations that are read.
        contributions: The source contributions.
        source: The axis of the sources.
        floor: Differences up to this are not reported. 0: the limit is a share of the contributions.
    """
    size = float(contributions.norm(dim=source).max())
    return max(_smallest(floor, size), 2 * step * size)


def _smallest(floor: float, size: float) -> float:
    return floor or SMALLEST_SHARE * size
