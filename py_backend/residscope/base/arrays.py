"""Converts a user's array to a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def tensor_of(array: object) -> Tensor:
    """Return a tensor unchanged, or an array or a list as a tensor on the CPU.

    Without `device="cpu"`, `torch.as_tensor` would use the default device (`torch.set_default_device`). That device may
    differ from the cache's device. It may also be `meta`, which holds no numbers.

    Raises:
        TypeError, ValueError, RuntimeError: If `array` is not an array of numbers, or its numbers cannot be read.
    """
    import torch

    if unreadable_kind(array):
        raise ValueError(kind_of(array))
    return array if isinstance(array, torch.Tensor) else torch.as_tensor(array, device="cpu")


def unreadable_kind(value: object) -> str | None:
    """Return the kind of a tensor whose numbers cannot be read by index. None for all other values."""
    import torch

    if not isinstance(value, torch.Tensor):
        return None
    if value.is_meta:
        return "tensor on the `meta` device, which holds no numbers"
    if value.is_nested:
        return "nested tensor"
    if value.layout != torch.strided:
        return "sparse tensor"
    return "quantized tensor" if value.is_quantized else None


def kind_of(value: object) -> str:
    """Return the kind of a value, in words that follow "a"."""
    return unreadable_kind(value) or type(value).__name__


def as_list(value: object) -> Any:
    """Return an array or a tensor as a list, or as a number if it has no axes. Other values are returned unchanged."""
    read = getattr(value, "tolist", None)
    return value if read is None else read()
