"""Shortens Python's switch interval, so that requests are answered quickly while a cell of pure Python runs.

PyTorch releases the interpreter lock (GIL) in each operation, and ipykernel does so at each step of a message. A loop
in pure Python then takes the lock and keeps it for Python's switch interval of 5 ms, each time. A request of 200
operations, which computes for 10 ms, was measured to take from 70 ms to 30 s. So the interval is shortened while a
request is answered, and for a moment after it, in which the reply is sent and the next click may follow. The interval
applies to the whole process, but it affects the user's cell only while another thread is waiting.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

TURN = 0.00001
"""The switch interval in seconds while a request is answered."""

AFTER = 0.0001
"""The switch interval in seconds for a moment after a request."""

LINGER = 2.0
"""How long this moment lasts, in seconds."""

_lock = threading.Lock()
_answering: set[object] = set()
_until = 0.0
_usual: float | None = None
_ours: set[int] = set()
"""The intervals that this module has set, in microseconds. Any other interval was set by the user."""
_restorer: threading.Thread | None = None


def _in_child() -> None:
    """Restore the usual interval in a forked process, where the thread that would do so does not exist."""
    global _lock, _usual, _restorer
    _lock, _restorer = threading.Lock(), None
    _answering.clear()
    if _usual is not None:
        sys.setswitchinterval(_usual)
        _usual = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def switching_often(work: Callable[[], T]) -> T:
    """Call `work` with a shorter switch interval, also for a moment after it. An interval that the user sets stays."""
    global _until
    me = object()
    try:
        _begin(me)
        return work()
    finally:  # this comes first because an interrupt cannot prevent it; `_restore` then does the rest in any case
        _answering.discard(me)
        with _lock:
            _until = time.monotonic() + LINGER
            if not _answering and _usual is not None:
                _set(min(_usual, AFTER))


def _begin(me: object) -> None:
    global _usual, _restorer
    with _lock:
        _answering.add(me)
        if _restorer is None:
            restorer = threading.Thread(target=_restore, name="residscope-switch-interval", daemon=True)
            restorer.start()  # before the interval changes, so that it is always restored
            _restorer = restorer
        if _usual is None:
            _ours.clear()
            _usual = sys.getswitchinterval()
        _set(min(_usual, TURN))


def _set(seconds: float) -> None:
    now = _micros(sys.getswitchinterval())
    if now in _ours or not _ours:
        _ours.update((now, _micros(seconds)))  # before the interval changes, because an interrupt may follow
        sys.setswitchinterval(seconds)


def _micros(seconds: float) -> int:
    return round(seconds * 1e6)


def _restore() -> None:
    global _usual, _restorer
    while True:
        time.sleep(LINGER / 4)
        with _lock:
            if not _answering and time.monotonic() >= _until:
                if _usual is not None:
                    _set(_usual)
                _usual = _restorer = None
                return
