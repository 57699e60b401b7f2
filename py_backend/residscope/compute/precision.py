"""The precision of sums, and the rounding step of other precisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def step_of(kind: Any) -> float:
    """Return the relative rounding step of a dtype. 0 for whole numbers, which are exact."""
    import torch

    return float(torch.finfo(kind).eps) if kind.is_floating_point else 0.0


def working(tensor: Tensor) -> Tensor:
    """Return `tensor` in the working precision, that of all sums: float32, or float64 if it is float64 already."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()
