"""The precision in which sums are computed, and how coarsely a dtype rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def step_of(kind: torch.dtype) -> float:
    """Return the relative rounding step of a dtype (its machine epsilon). 0 for integer dtypes, which are exact."""
    import torch

    return float(torch.finfo(kind).eps) if kind.is_floating_point else 0.0


def working(tensor: Tensor) -> Tensor:
    """Return `tensor` in the precision that is used for all sums: float64 if it is float64, otherwise float32."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()
