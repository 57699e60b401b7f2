"""Shortens Python's switch interval, so that requests are answered quickly while a cell of pure Python runs.

PyTorch releases the interpreter lock (GIL) in each operation, and ipykernel releases it at each step of a message. A
loop in pure Python then takes the lock, and keeps it for Python's switch interval of 5 ms. In measurements, a
request of 200 operations with 10 ms of computing took between 70 ms and 30 s. So the interval is shortened while a
request is answered, and for a short time afterwards, when the reply is sent and the next request may follow. The
interval applies to the whole process, but it slows down the user's cell only while another thread is waiting.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ANSWERING_INTERVAL = 0.00001
"""The switch interval in seconds while a request is answered."""

AFTERWARDS_INTERVAL = 0.0001
"""The switch interval in seconds for a short time after a request."""

AFTERWARDS_SECONDS = 2.0
"""How many seconds after a request the interval stays at `AFTERWARDS_INTERVAL`."""

_lock = threading.Lock()
_answering: set[object] = set()
_shortened_until = 0.0
_usual_interval: float | None = None
"""The interval in seconds that is restored. None: the interval is not shortened."""
_set_here: set[int] = set()
"""The usual interval and all intervals that this module has set, in microseconds. Any other was set by the user."""
_restorer: threading.Thread | None = None


def _restore_in_child() -> None:
    """Restore the usual interval in a forked process. The thread that would restore it is not forked."""
    global _lock, _usual_interval, _restorer
    _lock, _restorer = threading.Lock(), None
    _answering.clear()
    if _usual_interval is not None:
        sys.setswitchinterval(_usual_interval)
        _usual_interval = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_restore_in_child)


def switching_often(work: Callable[[], T]) -> T:
    """Call `work` with a shorter switch interval. An interval that the user sets during this time is not changed.

    The interval is restored a short time after `work`.

    Args:
        work: Answers a request.
    """
    global _shortened_until
    request = object()
    try:
        _begin(request)
        return work()
    finally:
        # First, so that no interrupt can prevent it: `_restore` waits until `_answering` is empty.
        _answering.discard(request)
        with _lock:
            _shortened_until = time.monotonic() + AFTERWARDS_SECONDS
            if not _answering and _usual_interval is not None:
                _set(min(_usual_interval, AFTERWARDS_INTERVAL))


def _begin(request: object) -> None:
    global _usual_interval, _restorer
    with _lock:
        _answering.add(request)
        if _restorer is None:
            restorer = threading.Thread(target=_restore, name="residscope-switch-interval", daemon=True)
            restorer.start()  # started before the interval changes, so that the interval is always restored
            _restorer = restorer
        if _usual_interval is None:
            _set_here.clear()
            _usual_interval = sys.getswitchinterval()
        _set(min(_usual_interval, ANSWERING_INTERVAL))


def _set(seconds: float) -> None:
    now = _micros(sys.getswitchinterval())
    if now in _set_here or not _set_here:
        _set_here.update((now, _micros(seconds)))  # first, because an interrupt may follow
        sys.setswitchinterval(seconds)


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _restore() -> None:
    global _usual_interval, _restorer
    while True:
        time.sleep(AFTERWARDS_SECONDS / 4)
        with _lock:
            if not _answering and time.monotonic() >= _shortened_until:
                if _usual_interval is not None:
                    _set(_usual_interval)
                _usual_interval = _restorer = None
                return
