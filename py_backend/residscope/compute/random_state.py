"""Restores the user's random generators after a call of the user's code."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextmanager
def random_state_restored(device: torch.device) -> Generator[None, None, None]:
    """Restore the state of every random generator afterwards: PyTorch's, Python's and NumPy's."""
    import random
    import sys

    import torch

    numpy = sys.modules.get("numpy")
    restored = [partial(random.setstate, random.getstate())]
    if numpy is not None:
        restored.append(partial(numpy.random.set_state, numpy.random.get_state()))
    if device.type == "mps":
        restored.append(partial(torch.mps.set_rng_state, torch.mps.get_rng_state()))
    forked = device.type if device.type in ("cuda", "xpu") else "cpu"
    with ExitStack() as stack:
        for restore in restored:
            stack.callback(restore)
        if forked == "cpu":
            stack.enter_context(torch.random.fork_rng([]))
        else:
            stack.enter_context(torch.random.fork_rng([device], device_type=forked))
        yield
