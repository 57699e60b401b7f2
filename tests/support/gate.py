"""Makes work take as long as a test needs: before each layer's heads, the work waits for the test's permission."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from residscope.attribution import row_values
from residscope.serving import jobs, service


class Gate:
    """Stops work before each layer's heads, until `let_through` is called. Any cache counts as large."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._permits, self.waits = threading.Semaphore(0), threading.Semaphore(0)
        heads = row_values.layer_heads

        def slow(*given: Any) -> Any:
            self.waits.release()
            assert self._permits.acquire(timeout=20)
            return heads(*given)

        monkeypatch.setattr(row_values, "layer_heads", slow)
        monkeypatch.setattr(row_values, "_AT_ONCE", 0)  # otherwise all layers' heads may be one product
        monkeypatch.setattr(jobs, "MOMENT", 0.01)
        monkeypatch.setattr(service, "_LARGE", 0)

    def reached(self) -> None:
        """Wait until work is stopped before a layer."""
        assert self.waits.acquire(timeout=20)

    def let_through(self, layers: int = 1) -> None:
        """Let the work compute this many layers."""
        self._permits.release(layers)


def workers() -> list[threading.Thread]:
    """Return the threads that do long work."""
    return [thread for thread in threading.enumerate() if thread.name == "residscope-work"]
