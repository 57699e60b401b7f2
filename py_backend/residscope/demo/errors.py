"""What the demo says when it cannot go on."""

from __future__ import annotations

from residscope.errors import ResidscopeError


class DemoError(ResidscopeError):
    """The demo cannot go on; the message is one sentence that names the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__("demo", message)
