"""A user's array as a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def tensor_of(array: Any) -> Tensor:
    """The tensor itself, or what an array or a list holds as one on the processor.

    `torch.as_tensor` would move it to the process' default device (`torch.set_default_device`): to another than the
    cache's, or to `meta`, which holds no figures.

    Raises:
        TypeError, ValueError, RuntimeError: If it is no array of numbers, or holds none that can be read.
    """
    import torch

    if unreadable(array):
        raise ValueError(kind_of(array))
    return array if isinstance(array, torch.Tensor) else torch.as_tensor(array, device="cpu")


def unreadable(value: Any) -> str | None:
    """What kind of tensor it is, where it holds no figures that can be taken row by row; else None."""
    import torch

    if not isinstance(value, torch.Tensor):
        return None
    if value.is_meta:
        return "tensor on the `meta` device, which holds no figures"
    if value.is_nested:
        return "nested tensor"
    if value.layout != torch.strided:
        return "sparse tensor"
    return "quantized tensor" if value.is_quantized else None


def kind_of(value: Any) -> str:
    """What something is, behind "a"."""
    return unreadable(value) or type(value).__name__
