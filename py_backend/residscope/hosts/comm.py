"""The Jupyter comm of a sidebar. Each message holds a `protocol.Question`, and each reply its `protocol.Answer`.

The kernel sends messages only as replies, within the handler. Otherwise ipykernel would send them to the shell that
last published on the comm.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from residscope import __version__
from residscope.hosts import turns as turns  # loaded here, because the silent request that takes a turn imports nothing
from residscope.hosts.attach import SafeImports
from residscope.serving.dispatcher import Dispatcher
from residscope.wire import protocol
from residscope.wire.envelope import deliver

TARGET = "residscope"
VERSION = __version__
WIRE = protocol.wire()

_dispatcher = Dispatcher(SafeImports)


def attach() -> None:
    """Register the comm target in the running kernel. This function may be called several times."""
    from comm import get_comm_manager

    manager = get_comm_manager()
    _close_orphans(manager)
    manager.register_target(TARGET, _open)


def _close_orphans(manager: Any) -> None:
    """Close comms whose subshell no longer exists, because their page ended without closing them."""
    from IPython.core.getipython import get_ipython

    thread = getattr(getattr(get_ipython(), "kernel", None), "shell_channel_thread", None)
    if thread is None or not hasattr(getattr(thread, "manager", None), "list_subshell"):
        return
    subshells = set(thread.manager.list_subshell())
    for id, comm in list(manager.comms.items()):
        subshell = getattr(comm, "_reply_subshell_id", None)
        if comm.target_name == TARGET and subshell is not None and subshell not in subshells:
            comm._closed = True  # no close message: nobody would receive it
            manager.comms.pop(id, None)
            _close(comm, None)


def _open(comm: Any, _message: object) -> None:
    # The comm's own `handle_msg` triggers IPython's `pre_execute` and `post_execute`. On a subshell, while a cell runs,
    # matplotlib's callback would then show and close the figures that the cell is still drawing.
    comm.handle_msg = partial(_answer, comm)
    comm.on_close(partial(_close, comm))


def _answer(comm: Any, message: dict[str, Any]) -> None:
    deliver(
        message["content"].get("data"), _dispatcher.answer, lambda answer, buffers: comm.send(answer, buffers=buffers)
    )


def _close(comm: Any, _message: object) -> None:
    """Break the reference cycles, so that the comm is freed now and not by the garbage collector."""
    comm.on_close(None)
    del comm.handle_msg
