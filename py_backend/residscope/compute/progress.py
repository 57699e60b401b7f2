"""Progress of long work. Slow code calls `report_progress`, which raises an error if the work was cancelled.

A report goes to the listener of the current thread. Without a listener the report is ignored.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, Protocol

_of_this_thread = threading.local()


class WorkCancelledError(BaseException):
    """The work was cancelled. It is a `BaseException`, so that no `except Exception` catches it."""


class Progress(NamedTuple):
    """How many of `total` parts are done. `total` is 0 if it is not known."""

    done: int
    total: int


class Listener(Protocol):
    """Receives the progress of the work on a thread."""

    def step(self, done: int | None, total: int) -> None:
        """Handle a report (see `report_progress`)."""
        ...


def set_listener(listener: Listener) -> None:
    """Send all further reports of this thread to `listener`."""
    _of_this_thread.listener = listener


@contextmanager
def listening(listener: Listener) -> Generator[None, None, None]:
    """Send the reports of this thread to `listener` within this block."""
    before: Listener | None = getattr(_of_this_thread, "listener", None)
    _of_this_thread.listener = listener
    try:
        yield
    finally:
        _of_this_thread.listener = before


def report_progress(done: int | None = None, total: int = 0) -> None:
    """Report that `done` of `total` parts are done, if that is known.

    Raises:
        WorkCancelledError: If the work was cancelled.
    """
    listener: Listener | None = getattr(_of_this_thread, "listener", None)
    if listener is not None:
        listener.step(None if getattr(_of_this_thread, "silent", False) else done, total)


@contextmanager
def silent() -> Generator[None, None, None]:
    """Report no numbers within this block, because its work is only one step of larger work."""
    before, _of_this_thread.silent = getattr(_of_this_thread, "silent", False), True
    try:
        yield
    finally:
        _of_this_thread.silent = before


def progress_bar(**options: object) -> Any:
    """Return a tqdm bar without tqdm's own thread, which would go on running after the work."""
    return _bar_class()(**options, miniters=1)


@cache
def _bar_class() -> Any:
    from tqdm.auto import tqdm

    return type("Bar", (tqdm,), {"monitor_interval": 0})
