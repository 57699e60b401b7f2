"""What a host sends to a kernel as text: makes Residscope's comm known there, and leaves no trace.

A host reads this file and has the kernel run `exec(<this text>, {"__name__": "residscope-attach"})`, silently and
without history, on a subshell where there is one; so it must do without the rest of Residscope until that is found.
What came of it the host reads off `sys.modules`: `residscope.__version__`, and `residscope.comm.WIRE` once attached.

Nothing is raised, since that would change what `%debug` opens. And no callback of `post_execute` is called on this
thread, though IPython means to when this code ends: beside a cell that runs on the main thread matplotlib's would show
and close its half-drawn figures.
"""

from __future__ import annotations

import sys
import threading
from collections import UserList
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

EVENT = "post_execute"


def attach() -> None:
    """Attach, if there is a Residscope to attach."""
    try:
        spec = find_spec("residscope")
        # Looked for without importing what may be another's `residscope`: a folder beside the notebook, a script.
        ours = spec and spec.origin and spec.submodule_search_locations
        if ours and PathFinder.find_spec("residscope.comm", ours):
            import_module("residscope.comm").attach()
    except Exception:  # not ours, or not whole: `residscope.comm` has no WIRE then, and the host says so
        pass


class Unheard(UserList[Callable[..., Any]]):
    """Stands before a list of callbacks, and shows it to all threads but this one, which finds it empty, once.

    All else (callbacks that come and go meanwhile) is done to the list behind.
    """

    def __init__(self, callbacks: dict[str, list[Callable[..., Any]]]) -> None:
        self.data = callbacks[EVENT]
        self._callbacks, self._thread = callbacks, threading.get_ident()

    def __getitem__(self, at: Any) -> Any:
        """IPython takes `callbacks[:]` and calls each."""
        if threading.get_ident() != self._thread:
            return self.data[at]
        self._thread = 0
        if self._callbacks.get(EVENT) is self:
            self._callbacks[EVENT] = self.data
        return []


def hush() -> None:
    """Let the callbacks of the code that ends here be unheard."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    callbacks = getattr(getattr(get_ipython and get_ipython(), "events", None), "callbacks", None)
    if isinstance(callbacks, dict) and EVENT in callbacks:
        callbacks[EVENT] = Unheard(callbacks)


if __name__ == "residscope-attach":
    attach()
    hush()
