"""How Residscope computes, whatever the user's code has switched on around it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def calm(device: torch.device) -> Generator[None, None, None]:
    """Without gradients, and in the precision that was asked for: an `autocast` around the call would round the sums.

    Both are properties of the thread, and the user's are back afterwards.
    """
    import torch

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for kind in {"cpu", device.type}:
            with suppress(RuntimeError):  # a device that knows no autocast
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def alone() -> Generator[None, None, None]:
    """Run what is many small steps on this thread alone.

    Torch would spread each step over all cores and wait for the last of them: beside a cell that keeps them busy that
    is ten times slower, and on idle ones hardly quicker. Threads that have used torch keep their number. One that first
    uses it within these milliseconds takes over this one's, and keeps it: torch offers no way that is only one's own.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
