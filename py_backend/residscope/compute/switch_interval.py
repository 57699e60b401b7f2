"""How requests get their turns beside a cell that computes in pure Python.

PyTorch lets go of the interpreter's lock in each operation, and so does ipykernel at each step of a message. A loop in
pure Python takes the lock, and gives it back only after Python's switch interval of 5 ms, each time again: a request of
200 operations, which computes for 10 ms, was seen to take from 70 ms to 30 s. So the interval is shortened while a
request is answered, and for a moment after it, in which the answer travels and the next click may come. The interval is
the process's; it only matters to the user's cell while another thread wants to go on.
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
"""Seconds after which Python asks a running thread to let another one go on, while a request is answered."""

AFTER = 0.0001
"""The same for the moment after it."""

LINGER = 2.0
"""Seconds that this moment lasts."""

_lock = threading.Lock()
_answering: set[object] = set()
_until = 0.0
_usual: float | None = None
_ours: set[int] = set()
"""The intervals that were set here since, in microseconds, as Python keeps them."""
_restorer: threading.Thread | None = None


def _in_child() -> None:
    """A forked process has none of our threads: nobody else would give it the usual interval back."""
    global _lock, _usual, _restorer
    _lock, _restorer = threading.Lock(), None
    _answering.clear()
    if _usual is not None:
        sys.setswitchinterval(_usual)
        _usual = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def switching_often(work: Callable[[], T]) -> T:
    """Shorten Python's switch interval meanwhile and for a moment after it. One that the user sets meanwhile stays."""
    global _until
    me = object()
    try:
        _begin(me)
        return work()
    finally:  # first what an interrupt cannot come before: then `_restore` does the rest in any case
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
            restorer = threading.Thread(target=_restore, name="residscope-brisk", daemon=True)
            restorer.start()  # first: nothing is changed that nobody would change back
            _restorer = restorer
        if _usual is None:
            _ours.clear()
            _usual = sys.getswitchinterval()
        _set(min(_usual, TURN))


def _set(seconds: float) -> None:
    now = _micros(sys.getswitchinterval())
    if now in _ours or not _ours:
        _ours.update((now, _micros(seconds)))  # first: an interrupt may come as soon as it is set
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
