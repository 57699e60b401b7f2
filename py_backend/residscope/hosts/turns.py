"""Gives turns to runs of the user's model (`serving.turns`): when the kernel is between two cells.

JupyterLab and Notebook ask for a turn with a silent request that the kernel queues among the cells:
`getattr(sys.modules.get("residscope.hosts.turns"), "take", …)("token")`. It is an execute request, because ipykernel
answers comm messages even while an asynchronous cell waits. A host that can only send messages gets turns while they
are answered, if `CellWatch` knows that no cell is running.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from residscope.serving import turns

__all__ = ["answering", "take", "watch_cells"]


def take(token: str) -> None:
    """Take the turn that this token names; called by the silent request."""
    turns.take(token)


class CellWatch:
    """Notices when the cells of a running IPython begin and end."""

    def __init__(self, shell: Any) -> None:
        self.is_running = True  # it is made while a cell runs
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)

    def _begin(self, _info: Any = None) -> None:
        self.is_running = True

    def _end(self, _result: Any = None) -> None:
        self.is_running = False


_watches: weakref.WeakKeyDictionary[Any, CellWatch] = weakref.WeakKeyDictionary()


def watch_cells() -> None:
    """Begin to notice cells. Called while a cell runs; it may be called several times."""
    shell = _shell()
    if shell is not None and shell not in _watches:
        _watches[shell] = CellWatch(shell)


@contextmanager
def answering() -> Generator[None, None, None]:
    """A block that answers a message. It may take a turn if it is known that no cell is running."""
    shell = _shell()
    watch = None if shell is None else _watches.get(shell)
    if shell is not None and (watch is None or watch.is_running):
        yield
        return
    with turns.granted():  # without IPython (marimo), messages are answered between cells, too
        yield


def _shell() -> Any:
    from IPython.core.getipython import get_ipython

    return get_ipython()
