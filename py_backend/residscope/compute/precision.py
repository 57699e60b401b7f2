"""The precision of sums, and what counts as rounding in another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def step_of(kind: Any) -> float:
    """The relative rounding step of a precision; whole numbers are exact."""
    import torch

    return float(torch.finfo(kind).eps) if kind.is_floating_point else 0.0


def working(tensor: Tensor) -> Tensor:
    """`tensor` in the precision of all sums: float32, or float64 where it is float64 already."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()
