"""Code that a host sends to a kernel as text. It registers Residscope's comm there, and leaves no trace.

A host reads this file and makes the kernel run `exec(<this text>, {"__name__": "residscope-attach"})`, silently and
without history, on a subshell if there is one. So this code must find Residscope before it can use modules of it.
The host reads the result from `sys.modules`: `residscope.__version__`, and, if attaching succeeded,
`residscope.hosts.comm.WIRE`.

This code runs when a notebook is opened, and opening a notebook must not run any code of the notebook's folder. The
folder is the working directory and is on `sys.path`. So nothing is imported from it while this code runs (see
`SafeImports`).

Nothing is raised, because an exception would change what `%debug` opens. IPython calls the `post_execute` callbacks
when this code ends. On this thread they are skipped: while a cell runs on the main thread, matplotlib's callback would
show and close the half-drawn figures of that cell.
"""

# Every ipykernel has already loaded these modules. The import of any other module could find a file of the same name in
# the notebook's folder. This includes `__future__`, so some annotations below are texts.
import _imp
import os
import sys
from _frozen_importlib_external import PathFinder
from _thread import get_ident
from collections import UserList
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

EVENT = "post_execute"


def attach() -> None:
    """Attach, if Residscope is installed."""
    try:
        with SafeImports():
            _attach()
    except Exception:
        # `residscope` is another package, or broken. `residscope.hosts.comm` then has no WIRE, and the host reports it.
        pass


def _attach() -> None:
    from importlib import import_module
    from importlib.util import find_spec

    import_module("IPython.display")  # the host's next expression uses it from `sys.modules`
    spec = find_spec("residscope")
    # The spec is searched without importing, because `residscope` may be another folder on the path, or a script.
    folders = spec and spec.origin and spec.submodule_search_locations
    if folders and PathFinder.find_spec("residscope.hosts", folders):
        import_module("residscope.hosts.comm").attach()
        import_module("residscope.hosts.execute")  # a host that can only run code takes it from `sys.modules` later


# --- imports ---------------------------------------------------------------------------------------------------------
class SafeImports:
    """A context in which this thread imports nothing from the working directory.

    Modules that are loaded stay loaded. `sys.path` does not change, and other threads import as before. In
    `sys.meta_path`, a stand-in replaces Python's finder for `sys.path`. The list keeps its length, because another
    thread that iterates over it could otherwise skip a finder. Other finders are used as before: an environment may
    have them for packages in special places.
    """

    def __init__(self) -> None:
        self._entered: list[tuple[list[Any], Search]] = []

    def __enter__(self) -> None:
        _imp.acquire_lock()  # another host may attach at the same time, with its own copy of this text
        try:
            finders: list[Any] = sys.meta_path
            for finder in [*finders]:
                search = finder
                if not getattr(type(finder), "residscope_search", False):
                    if not _searches_path(finder):
                        continue
                    search = Search(finder)
                    _replace(finder, search, finders)
                self._entered.append((finders, search))
                search.threads.append(_this_thread())
        except BaseException:  # an interrupt
            self.__exit__()
            raise
        finally:
            _imp.release_lock()

    def __exit__(self, *_: object) -> None:
        _imp.acquire_lock()
        try:
            for finders, search in self._entered:
                if (thread := _this_thread()) in search.threads:
                    search.threads.remove(thread)
                if not search.threads:
                    for finder_list in (finders, sys.meta_path):  # two lists if a cell has assigned a new one
                        _replace(search, search.finder, finder_list)
        finally:
            _imp.release_lock()


class Search:
    """A stand-in for a finder that searches `sys.path`. For some threads it skips the working directory."""

    residscope_search = True
    """Marks a stand-in, so that other copies of this code recognise it."""

    def __init__(self, finder: "Any") -> None:
        self.finder = finder
        self.threads: list[tuple[int, int]] = []

    def find_spec(
        self, name: str, path: "Iterable[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Find a module. `path` is the path of its package, or None for a top-level module."""
        if _this_thread() not in self.threads:
            return self.finder.find_spec(name, path, target)
        safe = _top_level() if path is None else _inside(name.rpartition(".")[0], path)
        spec: Any = self.finder.find_spec(name, safe, target)
        if hasattr(getattr(spec, "submodule_search_locations", None), "_last_parent_path"):
            # A namespace package. The user's imports must also find its parts in the working directory. So its list of
            # folders is marked as out of date, and Python searches the folders again at the next use.
            spec.submodule_search_locations._last_parent_path = ()
        return spec

    # A running cell may use `sys.meta_path`, so the stand-in must behave like the finder.
    def __getattr__(self, name: str) -> "Any":
        return getattr(self.finder, name)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self.finder

    def __hash__(self) -> int:
        return hash(self.finder)

    def __repr__(self) -> str:
        return repr(self.finder)

    @property
    def __class__(self) -> "Any":  # pyright: ignore[reportIncompatibleMethodOverride]
        # Some import hooks find Python's own finder with `inspect.isclass`.
        return type(self.finder)


def _this_thread() -> tuple[int, int]:
    return os.getpid(), get_ident()  # a forked process inherits the list, and may reuse a thread's number


def _searches_path(finder: "Any") -> bool:
    if issubclass(finder if isinstance(finder, type) else type(finder), PathFinder):
        return True
    return getattr(getattr(finder, "find_spec", None), "__func__", None) is PathFinder.find_spec.__func__


def _replace(old: object, new: object, finders: "list[Any]") -> None:
    """Replace a finder in one step, so that the list never gets shorter or longer."""
    for index, finder in enumerate(finders):
        if finder is old:
            finders[index] = new


def _top_level() -> list[str]:
    """The absolute entries of `sys.path` that are not the working directory."""
    entries: list[Any] = [*sys.path]  # it may hold anything; like Python, skip what is not text
    return [entry for entry in entries if isinstance(entry, str) and Path(entry).is_absolute() and not _is_here(entry)]


def _inside(package: str, path: "Iterable[Any]") -> list[str]:
    """The folders of a package, without those that were found only because the working directory is on `sys.path`."""
    file = getattr(sys.modules.get(package), "__file__", None)
    home = Path(file).parent if isinstance(file, str) else None  # the package was already imported from there
    safe: list[str] = []
    for entry in path:
        if isinstance(entry, str):
            folder = root = Path(entry)
            for _ in package.split("."):
                root = root.parent
            if folder == home or (folder.is_absolute() and not _is_here(root)):
                safe.append(entry)
    return safe


def _is_here(folder: "str | Path") -> bool:
    """Whether a path leads to the working directory."""
    try:
        return Path(folder).samefile(os.curdir)
    except (OSError, ValueError):  # one of the two does not exist
        return False


# --- callbacks -------------------------------------------------------------------------------------------------------
class SkippedCallbacks(UserList["Callable[..., Any]"]):
    """Wraps a list of callbacks. At the first read by this thread it is empty. Other threads see the whole list.

    Every other operation, such as adding or removing a callback, is done to the wrapped list.
    """

    def __init__(self, callbacks: "dict[str, list[Callable[..., Any]]]") -> None:
        self.data = callbacks[EVENT]
        self._callbacks, self._thread = callbacks, get_ident()

    def __getitem__(self, index: "Any") -> "Any":
        """Return an empty list once to this thread. IPython reads `callbacks[:]` and calls each callback."""
        if get_ident() != self._thread:
            return self.data[index]
        self._thread = 0
        if self._callbacks.get(EVENT) is self:
            self._callbacks[EVENT] = self.data
        return []


def skip_callbacks() -> None:
    """Make IPython skip the callbacks when this code ends."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    callbacks = getattr(getattr(get_ipython and get_ipython(), "events", None), "callbacks", None)
    if isinstance(callbacks, dict) and EVENT in callbacks:
        callbacks[EVENT] = SkippedCallbacks(callbacks)


if __name__ == "residscope-attach":
    attach()
    skip_callbacks()
