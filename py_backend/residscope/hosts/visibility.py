"""Which views show a panel: while there is one its cache is kept alive, and its first one is given first answers.

ipywidgets keeps every panel until the kernel ends, so a panel whose output was cleared, or whose cell was run again,
must let go by itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from residscope.session.cache_reference import CacheReference
from residscope.wire.protocol import Presence


class Views:
    """The views of one panel, as they tell of themselves.

    Args:
        hold: How the panel holds its cache.
        send_along: Gives the first view what it asks first, or takes that back with `{}`.
    """

    grace = 3.0
    """Seconds without a view after which the cache is not kept alive any more: a cell that is moved gets a new view."""

    fresh = 10.0
    """Seconds within which the first view must come to draw what was sent along."""

    def __init__(self, hold: CacheReference, send_along: Callable[[dict[str, Any]], None]) -> None:
        self._hold = hold
        self._send_along = send_along
        self._shown: set[str] = set()
        self._leaving: threading.Timer | None = None
        self._expiry: threading.Timer | None = None
        self._lock = threading.Lock()

    def note(self, presence: Presence) -> None:
        """A view tells that it is on a page, no more on it, or that its page goes away.

        A page that goes away may come back (a reload): then nothing is let go.
        """
        with self._lock:
            shown = presence.state == "shown"
            (self._shown.add if shown else self._shown.discard)(presence.view)
            if self._shown:
                _cancel(self._leaving)
                self._leaving = None
            if shown:
                self._hold.tighten()
                self._expire()
            elif presence.state == "hidden" and not self._shown and self._leaving is None:
                self._leaving = _later(self.grace, self._leave)

    def expect(self, opening: dict[str, Any]) -> None:
        """Send this along for the view that comes now, unless one was quicker."""
        with self._lock:
            if not self._shown:
                _cancel(self._expiry)
                self._send_along(opening)
                self._expiry = _later(self.fresh, self._expire)

    def end(self) -> None:
        """Nothing happens later any more."""
        _cancel(self._leaving)
        _cancel(self._expiry)

    def _expire(self) -> None:
        """What was sent along was for a view that comes at once: for a later one the cache may be another."""
        _cancel(self._expiry)
        self._send_along({})

    def _leave(self) -> None:
        with self._lock:
            self._leaving = None
            if not self._shown:
                self._hold.loosen()


def _later(seconds: float, work: Callable[[], None]) -> threading.Timer:
    """Do something later, unless it is cancelled or Python ends."""
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()
    return timer


def _cancel(timer: threading.Timer | None) -> None:
    if timer is not None:
        timer.cancel()
