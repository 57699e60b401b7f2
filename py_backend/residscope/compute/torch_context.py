"""Runs computations with PyTorch settings that do not depend on the user's settings.

The settings are saved and restored in the same frame, in a `finally`, by functions written in C. So they are restored
even after an interrupt. An interrupt inside a context manager written in Python could prevent this, and the user's
thread would stay without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def in_torch_context(device: torch.device, work: Callable[[], T]) -> T:
    """Call `work` without gradients and without `autocast`, which would round sums.

    Both settings belong to the current thread. The user's settings are restored afterwards.
    """
    import torch

    kinds = sorted({"cpu", device.type})
    grad, cast = (
        torch.is_grad_enabled(),
        [torch.is_autocast_enabled(kind) for kind in kinds if _supports_autocast(kind)],
    )
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for kind in kinds:
                with suppress(RuntimeError):  # a device without autocast
                    stack.enter_context(torch.autocast(kind, enabled=False))
            return work()
    finally:
        torch._C._set_grad_enabled(grad)  # pyright: ignore[reportPrivateUsage]
        for kind, enabled in zip(filter(_supports_autocast, kinds), cast, strict=True):
            torch.set_autocast_enabled(kind, enabled)


def without_gradients(work: Callable[[], T]) -> T:
    """Call `work` without gradients."""
    import torch

    before = torch.is_grad_enabled()
    try:
        with torch.no_grad():
            return work()
    finally:
        torch._C._set_grad_enabled(before)  # pyright: ignore[reportPrivateUsage]


def on_one_thread(work: Callable[[], T]) -> T:
    """Call `work`, which consists of many small steps, without PyTorch's other threads.

    PyTorch would spread each step over all cores and wait for the slowest core. While a cell of the user keeps the
    cores busy, this is ten times slower than one thread. On idle cores it is hardly faster. `torch.set_num_threads`
    cannot be limited to the current thread. So if a user's thread uses PyTorch for the first time during `work`, its
    number of PyTorch threads is 1, and stays 1 afterwards. A thread that has used PyTorch before keeps its number.
    """
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        return work()
    finally:
        torch.set_num_threads(before)


def _supports_autocast(kind: str) -> bool:
    """Whether a type of device supports `autocast`."""
    import torch

    try:
        torch.is_autocast_enabled(kind)
    except (RuntimeError, TypeError):  # PyTorch before 2.4 does not accept a device type here
        return False
    return True
