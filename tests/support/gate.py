"""Makes work long without waiting for time: it stands before each layer's heads until it is let on."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from residscope.attribution import components
from residscope.serving import jobs, service


class Gate:
    """Holds work up before each layer's heads, until it is let on; any cache counts as large."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._on, self.waits = threading.Semaphore(0), threading.Semaphore(0)
        heads = components.layer_heads

        def slow(*given: Any) -> Any:
            self.waits.release()
            assert self._on.acquire(timeout=20)
            return heads(*given)

        monkeypatch.setattr(components, "layer_heads", slow)
        monkeypatch.setattr(jobs, "MOMENT", 0.01)
        monkeypatch.setattr(service, "_LARGE", 0)

    def reached(self) -> None:
        """Wait until work stands before a layer."""
        assert self.waits.acquire(timeout=20)

    def on(self, layers: int = 1) -> None:
        """Let it do some layers."""
        self._on.release(layers)


def workers() -> list[threading.Thread]:
    """The threads that work on what takes long."""
    return [thread for thread in threading.enumerate() if thread.name == "residscope-work"]
