"""The error that the demo raises."""

from __future__ import annotations

from residscope.errors import ResidscopeError


class DemoError(ResidscopeError):
    """The demo cannot continue. The message is one sentence that says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__("demo", message)
