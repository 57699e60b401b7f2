"""Gives turns, between two cells, to runs of the user's model. `serving.turns` explains what a turn is.

JupyterLab and Notebook request a turn by a silent request that the kernel queues among the cells:
`getattr(sys.modules.get("residscope.hosts.turns"), "take", …)("token")`. The request runs code, because ipykernel
answers comm messages even while an asynchronous cell waits. A host that can only send messages gets a turn when a
message is answered while no cell is running.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Generator
from contextlib import contextmanager

from residscope.serving import turns


def take(token: str) -> None:
    """Take the turn with this token. The silent request calls this function."""
    turns.take(token)


@contextmanager
def answering() -> Generator[None, None, None]:
    """Provide a block for answering a message. The message may take a turn, unless a cell is running."""
    if _is_cell_running():
        yield
        return
    with turns.granted():
        yield


def _is_cell_running() -> bool:
    """Whether an IPython cell has begun and not ended.

    A message can be answered while a cell runs in two ways: the cell itself handles messages, or it is asynchronous and
    waits. Without IPython (marimo), messages are answered between cells.
    """
    if turns.in_cell(inspect.currentframe()):
        return True
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no event loop is running on this thread
        return False
    return any(_runs_cell(task.get_coro()) for task in tasks)


def _runs_cell(awaited: object) -> bool:
    """Whether a suspended coroutine, or one for which it waits, runs a cell."""
    while awaited is not None:
        code = getattr(awaited, "cr_code", None) or getattr(awaited, "gi_code", None)
        if code is not None and code.co_name in turns.RUN_CELL:
            return True
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return False
