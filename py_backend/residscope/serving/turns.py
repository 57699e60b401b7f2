"""Turns: moments in which the user's model may be run for a view, on the kernel's main thread, between two cells.

A run is made in many short turns, so that the user's next cell never waits long. Who gives a turn knows that no cell is
running: a silent request that the kernel has queued among the cells, or the host's own check. Nothing else runs a model
for a view.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol
from weakref import WeakValueDictionary

_here = threading.local()
_takers: WeakValueDictionary[str, Taker] = WeakValueDictionary()


class Taker(Protocol):
    """Something that runs the model when it is its turn."""

    def step(self) -> None:
        """Run the model for a moment. Nothing is raised."""
        ...


def register(token: str, taker: Taker) -> None:
    """Let `take` find a taker, as long as it exists."""
    _takers[token] = taker


def take(token: str) -> None:
    """Take the turn that this token names. Nothing happens if nobody waits for it, or on another thread."""
    taker = _takers.get(token)
    is_main = threading.current_thread() is threading.main_thread()
    if taker is not None and is_main and not _is_cell_on_other_thread():
        taker.step()


RUN_CELL = frozenset(("run_cell", "run_cell_async"))
"""The methods of IPython's shell that run a cell."""


def _is_cell_on_other_thread() -> bool:
    """Whether another thread runs a cell, as a console on a subshell does."""
    frames: dict[int, FrameType] = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
    return any(in_cell(frame) for thread, frame in frames.items() if thread != threading.get_ident())


def in_cell(frame: FrameType | None) -> bool:
    """Whether a frame, or one that called it, runs a cell."""
    while frame is not None:
        if frame.f_code.co_name in RUN_CELL and "IPython" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


@contextmanager
def granted() -> Generator[None, None, None]:
    """A block in which requests on this thread may take a turn: the host knows that no cell is running."""
    before = is_granted()
    _here.granted = threading.current_thread() is threading.main_thread()
    try:
        yield
    finally:
        _here.granted = before


def is_granted() -> bool:
    """Whether a request on this thread may take a turn."""
    return getattr(_here, "granted", False)
