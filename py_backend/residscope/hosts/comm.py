"""The Jupyter comm of a sidebar: each message holds a `protocol.Question`, each reply its `protocol.Answer`.

Pull-only: the kernel speaks when it is asked, inside the handler, since ipykernel sends a comm's next message to the
shell that last published on it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from residscope import __version__
from residscope.hosts.attach import SafeImports
from residscope.serving.dispatcher import Dispatcher
from residscope.wire import protocol
from residscope.wire.envelope import deliver

TARGET = "residscope"
VERSION = __version__
WIRE = protocol.wire()

_dispatcher = Dispatcher(SafeImports)


def attach() -> None:
    """Make the target known to the running kernel; once more does no harm."""
    from comm import get_comm_manager

    manager = get_comm_manager()
    _sweep(manager)
    manager.register_target(TARGET, _open)


def _sweep(manager: Any) -> None:
    """Close the comms of pages that went without closing them: their subshell is gone."""
    from IPython.core.getipython import get_ipython

    thread = getattr(getattr(get_ipython(), "kernel", None), "shell_channel_thread", None)
    if thread is None or not hasattr(getattr(thread, "manager", None), "list_subshell"):
        return
    there = set(thread.manager.list_subshell())
    for id, comm in list(manager.comms.items()):
        on = getattr(comm, "_reply_subshell_id", None)
        if comm.target_name == TARGET and on is not None and on not in there:
            comm._closed = True  # nobody would hear it closing
            manager.comms.pop(id, None)
            _close(comm, None)


def _open(comm: Any, _message: Any) -> None:
    # The comm's own `handle_msg` fires IPython's `pre_execute` and `post_execute`. On a subshell, beside a running
    # cell, matplotlib's callback would then show and close the figures that the cell is still drawing.
    comm.handle_msg = partial(_answer, comm)
    comm.on_close(partial(_close, comm))


def _answer(comm: Any, message: dict[str, Any]) -> None:
    deliver(message["content"].get("data"), _dispatcher.answer, lambda said, buffers: comm.send(said, buffers=buffers))


def _close(comm: Any, _message: Any) -> None:
    """Let it go at once, and not at the next collection: these two hold it, and it holds them."""
    comm.on_close(None)
    del comm.handle_msg
