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


_WITHOUT_FLOAT64 = frozenset({"mps"})
"""The types of devices that have no float64: Apple's GPUs (MPS)."""


def widest(device: torch.device) -> torch.dtype:
    """Return the finest floating-point dtype of a device: float64, or float32 if the device has no float64."""
    import torch

    return torch.float32 if device.type in _WITHOUT_FLOAT64 else torch.float64


def in_float64(tensor: Tensor) -> Tensor:
    """Return `tensor` in float64, on its own device. If this device has no float64, return a copy on the CPU.

    For large tensors use `widest` instead, because the copy would take long.
    """
    tensor = tensor.cpu() if tensor.device.type in _WITHOUT_FLOAT64 else tensor
    return tensor.double()


def working(tensor: Tensor) -> Tensor:
    """Return `tensor` in the precision that is used for all sums: float64 if it is float64, otherwise float32."""
    import torch

    return tensor if tensor.dtype == torch.float64 else tensor.float()
