"""How far long work has come: code that takes long reports it, and ends when nobody waits for the result any more.

A report goes to the listener of the thread it is made on; without one it is lost.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

_here = threading.local()


class GivenUpError(BaseException):
    """Nobody wants the result any more. No error that code on the way could take for one of its own."""


class Progress(NamedTuple):
    """How far work is; `total` is 0 where that is not known."""

    done: int
    total: int


class Listener(Protocol):
    """Who is told how far the work of a thread has come."""

    def step(self, done: int | None, total: int) -> None:
        """See `report_progress`."""
        ...


def listen(listener: Listener) -> None:
    """Reports that are made on this thread go to `listener` from now on."""
    _here.listener = listener


def report_progress(done: int | None = None, total: int = 0) -> None:
    """So far the work has come: `done` parts of `total`, where that is known.

    Raises:
        GivenUpError: If nobody waits for it any more.
    """
    listener: Listener | None = getattr(_here, "listener", None)
    if listener is not None:
        listener.step(None if getattr(_here, "silent", False) else done, total)


@contextmanager
def silent() -> Generator[None, None, None]:
    """Within this, steps are parts of a larger step: their own progress is not reported."""
    before, _here.silent = getattr(_here, "silent", False), True
    try:
        yield
    finally:
        _here.silent = before
