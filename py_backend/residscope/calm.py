"""How Residscope computes, whatever the user's code has switched on around it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def calm(device: torch.device) -> Generator[None, None, None]:
    """Without gradients, and in the precision that was asked for: an `autocast` around the call would round the sums.

    Both are properties of the thread, and the user's are back afterwards.
    """
    import torch

    with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast(device.type, enabled=False):
        yield
