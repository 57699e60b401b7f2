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
        TypeError, ValueError, RuntimeError: If it is no array of numbers.
    """
    import torch

    return array if isinstance(array, torch.Tensor) else torch.as_tensor(array, device="cpu")
