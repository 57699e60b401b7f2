"""The Jupyter comm of a sidebar: each message holds a `protocol.Question`, each reply its `protocol.Answer`.

Pull-only: the kernel speaks when it is asked, inside the handler, since ipykernel sends a comm's next message to the
shell that last published on it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from . import __version__, protocol
from .desk import Desk

TARGET = "residscope"
VERSION = __version__
WIRE = protocol.wire()

_desk = Desk()


def attach() -> None:
    """Make the target known to the running kernel; once more does no harm."""
    from comm import get_comm_manager

    get_comm_manager().register_target(TARGET, _open)


def _open(comm: Any, _message: Any) -> None:
    # The comm's own `handle_msg` fires IPython's `pre_execute` and `post_execute`. On a subshell, beside a running
    # cell, matplotlib's callback would then show and close the figures that the cell is still drawing.
    comm.handle_msg = partial(_answer, comm)
    comm.on_close(partial(_close, comm))


def _answer(comm: Any, message: dict[str, Any]) -> None:
    answer, buffers = _desk.answer(message["content"].get("data"))
    comm.send(answer, buffers=buffers)


def _close(comm: Any, _message: Any) -> None:
    """Let it go at once, and not at the next collection: these two hold it, and it holds them."""
    comm.on_close(None)
    del comm.handle_msg
