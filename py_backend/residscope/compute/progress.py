"""Progress of long work: code that takes long reports it, and is stopped if the work was cancelled.

A report goes to the listener of the current thread. Without a listener it is ignored.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

_here = threading.local()


class GivenUpError(BaseException):
    """The work was cancelled. A `BaseException`, so that no `except Exception` on the way catches it."""


class Progress(NamedTuple):
    """How many of `total` parts are done. `total` is 0 if it is not known."""

    done: int
    total: int


class Listener(Protocol):
    """Receives the progress of the work on a thread."""

    def step(self, done: int | None, total: int) -> None:
        """Handle a report (see `report_progress`)."""
        ...


def listen(listener: Listener) -> None:
    """Send all further reports of this thread to `listener`."""
    _here.listener = listener


def report_progress(done: int | None = None, total: int = 0) -> None:
    """Report that `done` of `total` parts are done, if that is known.

    Raises:
        GivenUpError: If the work was cancelled.
    """
    listener: Listener | None = getattr(_here, "listener", None)
    if listener is not None:
        listener.step(None if getattr(_here, "silent", False) else done, total)


@contextmanager
def silent() -> Generator[None, None, None]:
    """Report no numbers within this block, because its work is one step of larger work."""
    before, _here.silent = getattr(_here, "silent", False), True
    try:
        yield
    finally:
        _here.silent = before
