"""The state of tensors at one time, for noticing changes: identities, PyTorch's counters and addresses."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TensorKey = tuple[tuple[object, ...], ...]
"""Names, identities, versions and addresses of tensors."""


class Snapshot:
    """The state of some tensors at one time. It does not keep them alive.

    Args:
        tensors: The tensors.
        key: The key of the tensors (`key_of_tensors`).
        extra: Another value that must stay the same.
        on_deleted: Called when one of the tensors is deleted.
    """

    def __init__(
        self, tensors: list[Tensor], key: TensorKey, extra: object = None, on_deleted: Callable[[], None] = lambda: None
    ) -> None:
        self.key, self.extra = key, extra
        self._deleted, self._on_deleted = False, on_deleted
        self._references: list[object] = []
        for tensor in tensors:
            with suppress(TypeError):  # other objects may not allow weak references
                self._references.append(weakref.ref(tensor, self._mark_deleted))

    def _mark_deleted(self, _tensor: object, ending: Callable[[], bool] = sys.is_finalizing) -> None:
        self._deleted = True
        if not ending():  # when Python ends, the functions that `on_deleted` would call are already gone
            self._on_deleted()

    @property
    def counted(self) -> bool:
        """Whether PyTorch counts the changes of all these tensors."""
        return None not in self.key[2]

    def matches(self, key: TensorKey, extra: object = None) -> bool:
        """Return whether the tensors that now have this key are the same tensors, unchanged."""
        return not self._deleted and extra == self.extra and key == self.key

    def is_prefix_of(self, key: TensorKey, extra: object) -> bool:
        """Return whether these tensors are unchanged. Others may have been added after them."""
        pairs = zip(self.key, key, strict=True)
        return not self._deleted and extra == self.extra and all(now[: len(then)] == then for then, now in pairs)


def key_of_tensors(tensors: list[Tensor], names: tuple[str, ...] = (), *, with_address: bool = False) -> TensorKey:
    """The key of these tensors. It differs after a change. `with_address` adds the addresses of their values."""
    import torch

    version: Callable[[Tensor], int] = torch.Tensor._version.__get__  # pyright: ignore
    # Tensor subclasses of the user may override the methods that are called here.
    with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage]
        try:
            versions = tuple(map(version, tensors))
        except (RuntimeError, TypeError):  # PyTorch does not count changes of tensors that were made in inference mode
            versions = tuple(_or_none(version, tensor) for tensor in tensors)
        try:
            addresses = tuple(map(torch.Tensor.data_ptr, tensors)) if with_address else ()
        except (RuntimeError, TypeError):  # a tensor without memory
            addresses = tuple(_or_none(torch.Tensor.data_ptr, tensor) for tensor in tensors)
    return names, tuple(map(id, tensors)), versions, addresses


def _or_none(read: Callable[[Tensor], int], tensor: Tensor) -> int | None:
    try:
        return read(tensor)
    except (RuntimeError, TypeError):
        return None
