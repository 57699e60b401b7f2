"""The error that the demo raises."""

from __future__ import annotations

from residscope.errors import ResidscopeError


class DemoError(ResidscopeError):
    """The demo cannot continue. The message says why, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__("demo", message)
