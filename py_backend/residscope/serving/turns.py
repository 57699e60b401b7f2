"""Turns: moments in which the user's model may be run for a view, on the kernel's main thread, between two cells.

A run is made in many short turns, so that the user's next cell never waits long. A turn is only given while no cell is
running. There are two kinds of turns: a silent request that the kernel has queued among the cells (`take`), and the
answer to a view's request, if the host knows that no cell is running (`granted`). Nothing else runs a model for a view.
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
    """An object that runs the model when it gets a turn."""

    def step(self) -> None:
        """Run the model for a moment. No error is raised."""
        ...


def register(token: str, taker: Taker) -> None:
    """Let `take` find a taker, as long as the taker exists."""
    _takers[token] = taker


def take(token: str) -> None:
    """Take the turn with this token.

    Nothing happens if no taker has this token, if this is not the main thread, or if another thread runs a cell.
    """
    taker = _takers.get(token)
    is_main = threading.current_thread() is threading.main_thread()
    if taker is not None and is_main and not is_cell_on_other_thread():
        taker.step()


RUN_CELL = frozenset(("run_cell", "run_cell_async"))
"""The methods of IPython's shell that run a cell."""


def is_cell_on_other_thread() -> bool:
    """Return whether another thread runs a cell, for example for a console on a subshell."""
    frames: dict[int, FrameType] = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
    # This function's own frame would refer to itself by `frames`. Then it and the variables of all its callers, such as
    # a cache, would stay in memory until Python's garbage collector runs.
    del frames[threading.get_ident()]
    return any(map(in_cell, frames.values()))


def in_cell(frame: FrameType | None) -> bool:
    """Return whether a frame, or one of its callers, runs a cell."""
    while frame is not None:
        if frame.f_code.co_name in RUN_CELL and "IPython" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


@contextmanager
def granted() -> Generator[None, None, None]:
    """Let requests on this thread take a turn within this block. The host must know that no cell is running."""
    before = is_granted()
    _here.granted = threading.current_thread() is threading.main_thread()
    try:
        yield
    finally:
        _here.granted = before


def is_granted() -> bool:
    """Return whether a request on this thread may take a turn."""
    return getattr(_here, "granted", False)
