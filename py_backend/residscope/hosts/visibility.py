"""Tracks which views show a panel. The cache is kept alive while there is a view.

ipywidgets keeps every panel until the kernel ends. So a panel must release its cache itself after its output was
cleared or its cell was run again.

`residscope.inspect` also sends, in advance, the replies to the requests that the first view will make. They are
withdrawn when a view is shown, or after some seconds without a view.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from residscope.serving.service import Service
from residscope.wire.working import Presence


class PanelViews:
    """The views of one panel, as they report their state.

    Args:
        service: The panel's service, which holds the reference to its cache.
        send_opening: Sends the first replies to the first view. `{}` withdraws them.
    """

    release_seconds = 3.0
    """The cache is released after this many seconds without a view.

    The wait is needed because moving a cell removes its view and shows a new one.
    """

    withdrawal_seconds = 10.0
    """The first replies are withdrawn after this many seconds if there is no view yet."""

    def __init__(self, service: Service, send_opening: Callable[[dict[str, object]], None]) -> None:
        self._service = service
        self._send_opening = send_opening
        self._shown: set[str] = set()
        self._release_timer: threading.Timer | None = None
        self._withdrawal_timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def update(self, presence: Presence) -> None:
        """Note that a view was shown or hidden, or that its page is being closed.

        The kernel cannot tell whether a page closes or reloads. So the cache is not released in either case.
        """
        with self._lock:
            shown = presence.state == "shown"
            (self._shown.add if shown else self._shown.discard)(presence.view)
            if self._shown:
                _cancel(self._release_timer)
                self._release_timer = None
            if shown:
                self._service.hold.keep_alive()
                self._withdraw()
            elif presence.state == "hidden" and not self._shown and self._release_timer is None:
                self._release_timer = _start_timer(self.release_seconds, self._release)

    def replace(self, service: Service) -> None:
        """Use another cache's service from now on. The new cache is kept alive if the former one was."""
        with self._lock:
            if self._release_timer is None and not self._service.hold.is_kept_alive:
                service.stop_keeping_alive()
            self._service = service
            self._withdraw()  # these replies are of the former cache

    def expect(self, opening: dict[str, object]) -> None:
        """Send the first replies for the first view, unless a view is already shown."""
        with self._lock:
            if not self._shown:
                _cancel(self._withdrawal_timer)
                self._send_opening(opening)
                self._withdrawal_timer = _start_timer(self.withdrawal_seconds, self._withdraw)

    def end(self) -> None:
        """Cancel both timers."""
        _cancel(self._release_timer)
        _cancel(self._withdrawal_timer)

    def _withdraw(self) -> None:
        """Withdraw the first replies, because the cache may change before a later view is shown."""
        _cancel(self._withdrawal_timer)
        self._send_opening({})

    def _release(self) -> None:
        with self._lock:
            self._release_timer = None
            if not self._shown:
                self._service.stop_keeping_alive()


def _start_timer(seconds: float, work: Callable[[], None]) -> threading.Timer:
    """Start a timer that calls `work` after some seconds, unless it is cancelled or Python ends before."""
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()
    return timer


def _cancel(timer: threading.Timer | None) -> None:
    if timer is not None:
        timer.cancel()
