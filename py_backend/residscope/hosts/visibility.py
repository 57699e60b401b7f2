"""Which views show a panel. While there is one, the cache is kept alive; the first one gets its first replies at once.

ipywidgets keeps every panel until the kernel ends. So a panel whose output was cleared, or whose cell was run again,
must release its cache itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from residscope.session.cache_reference import CacheReference
from residscope.wire.protocol import Presence


class Views:
    """The views of one panel, as they report themselves.

    Args:
        hold: The panel's reference to its cache.
        send_opening: Sends the first replies to the first view; `{}` withdraws them.
    """

    grace = 3.0
    """Seconds without a view after which the cache is released. (A cell that is moved gets a new view.)"""

    fresh = 10.0
    """Seconds after which the first replies are withdrawn if no view has come."""

    def __init__(self, hold: CacheReference, send_opening: Callable[[dict[str, Any]], None]) -> None:
        self._hold = hold
        self._send_opening = send_opening
        self._shown: set[str] = set()
        self._leaving: threading.Timer | None = None
        self._expiry: threading.Timer | None = None
        self._lock = threading.Lock()

    def update(self, presence: Presence) -> None:
        """Note that a view is on a page, has left it, or that its page is being closed.

        A page that is closed may come back (a reload), so the cache is not released then.
        """
        with self._lock:
            shown = presence.state == "shown"
            (self._shown.add if shown else self._shown.discard)(presence.view)
            if self._shown:
                _cancel(self._leaving)
                self._leaving = None
            if shown:
                self._hold.keep_alive()
                self._expire()
            elif presence.state == "hidden" and not self._shown and self._leaving is None:
                self._leaving = _later(self.grace, self._leave)

    def expect(self, opening: dict[str, Any]) -> None:
        """Send the first replies for the view that comes next, unless one is already there."""
        with self._lock:
            if not self._shown:
                _cancel(self._expiry)
                self._send_opening(opening)
                self._expiry = _later(self.fresh, self._expire)

    def end(self) -> None:
        """Cancel everything that was to happen later."""
        _cancel(self._leaving)
        _cancel(self._expiry)

    def _expire(self) -> None:
        """Withdraw the first replies: the cache may have changed before a later view comes."""
        _cancel(self._expiry)
        self._send_opening({})

    def _leave(self) -> None:
        with self._lock:
            self._leaving = None
            if not self._shown:
                self._hold.stop_keeping_alive()


def _later(seconds: float, work: Callable[[], None]) -> threading.Timer:
    """Call this later, unless it is cancelled or Python ends first."""
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()
    return timer


def _cancel(timer: threading.Timer | None) -> None:
    if timer is not None:
        timer.cancel()
