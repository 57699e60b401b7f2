"""How large rounding may be: it scales with what is really summed, so that a target in any unit is judged the same."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from residscope.terms import AttentionScore, Target

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-4
"""Differences up to this are not reported for logits and attention scores.

Both enter a softmax, so this changes a probability or an attention weight by at most 0.01 %, and no view shows it.
"""

SMALLEST_SHARE = 1e-5
"""Differences up to this share of what is summed are not reported for any other target.

Such a target has the unit of its direction, which may be of any length, so no fixed number is small. The share is about
80 rounding steps of float32. Clean caches in float32 (12 small models, the demo model) differ by up to 7, on a CPU.
"""


def floor_of(target: Target) -> float:
    """The difference up to which nothing is reported for a target; 0 if its unit is arbitrary (`SMALLEST_SHARE`)."""
    of_softmax = isinstance(target.inner, AttentionScore) or (target.inner is None and target.direction is None)
    return SMALLEST if of_softmax and not target.through else 0.0


def rounding(
    step: float, row_rounding: float, *, rows: float, total: float, products: float, layers: int, floor: float
) -> float:
    """The largest difference that counts as rounding.

    Rounding has two sources. That of the rows is independent, so its squares add up. That of the stream comes from each
    of the model's additions: each coordinate is rounded there by its own size, and enters the sum by its product.

    Args:
        step: The relative rounding step of the stream and of what all rows share.
        row_rounding: The rounding of the rows, by the precision of each.
        rows: The root of the sum of the rows' squares, and of what is added to them.
        total: The sum of the rows.
        products: The length of the products of the stream's coordinates with the direction.
        layers: The number of the model's layers.
        floor: Differences up to this are not reported; 0: up to a share of what is summed.
    """
    of_stream = step * 0.5 * math.sqrt(2 * layers) * products
    smallest = _smallest(floor, math.hypot(rows, total, products))
    return max(smallest, 2 * max(row_rounding, step * rows) + of_stream)


def source_tolerance(step: float, contributions: Tensor, source: int, floor: float) -> float:
    """The largest difference between a head's contribution and its sum over sources that counts as rounding.

    Args:
        step: The relative rounding step of the activations that are read.
        contributions: The source contributions.
        source: The axis of the sources.
        floor: Differences up to this are not reported; 0: up to a share of the contributions.
    """
    size = float(contributions.norm(dim=source).max())
    return max(_smallest(floor, size), 2 * step * size)


def _smallest(floor: float, size: float) -> float:
    return floor or SMALLEST_SHARE * size
