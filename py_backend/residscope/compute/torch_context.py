"""How Residscope computes, whatever the user's code has switched on around it.

What is switched is given back in a `finally` of the very frame that notes what it was, by functions that are not
Python's own: between these an interrupt cannot come. With a context manager it could, and would leave the user's thread
without gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def in_torch_context(device: torch.device, work: Callable[[], T]) -> T:
    """Without gradients, and in the precision that was asked for: an `autocast` around the call would round the sums.

    Both are properties of the thread, and the user's are back afterwards.
    """
    import torch

    kinds = sorted({"cpu", device.type})
    grad, cast = torch.is_grad_enabled(), [torch.is_autocast_enabled(kind) for kind in kinds if _casts(kind)]
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for kind in kinds:
                with suppress(RuntimeError):  # a device that knows no autocast
                    stack.enter_context(torch.autocast(kind, enabled=False))
            return work()
    finally:
        torch._C._set_grad_enabled(grad)  # pyright: ignore[reportPrivateUsage]
        for kind, enabled in zip(filter(_casts, kinds), cast, strict=True):
            torch.set_autocast_enabled(kind, enabled)


def without_gradients(work: Callable[[], T]) -> T:
    """Without gradients alone."""
    import torch

    before = torch.is_grad_enabled()
    try:
        with torch.no_grad():
            return work()
    finally:
        torch._C._set_grad_enabled(before)  # pyright: ignore[reportPrivateUsage]


def on_one_thread(work: Callable[[], T]) -> T:
    """Run what is many small steps on this thread alone.

    Torch would spread each step over all cores and wait for the last of them: beside a cell that keeps them busy that
    is ten times slower, and on idle ones hardly quicker. Threads that have used torch keep their number. One that first
    uses it within these milliseconds takes over this one's, and keeps it: torch offers no way that is only one's own.
    """
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        return work()
    finally:
        torch.set_num_threads(before)


def _casts(kind: str) -> bool:
    """Whether a kind of device knows `autocast`."""
    import torch

    try:
        torch.is_autocast_enabled(kind)
    except (RuntimeError, TypeError):  # PyTorch before 2.4 takes no name of one
        return False
    return True
