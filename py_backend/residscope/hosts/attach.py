"""What a host sends to a kernel as text: makes Residscope's comm known there, and leaves no trace.

A host reads this file and has the kernel run `exec(<this text>, {"__name__": "residscope-attach"})`, silently and
without history, on a subshell where there is one; so it must do without the rest of Residscope until that is found.
What came of it the host reads off `sys.modules`: `residscope.__version__`, and `residscope.hosts.comm.WIRE` once
attached.

Opening a notebook must run nothing, and this runs when one is opened: so nothing is imported from the working directory
meanwhile, which is the notebook's folder and stands on `sys.path` (see `SafeImports`).

Nothing is raised, since that would change what `%debug` opens. And no callback of `post_execute` is called on this
thread, though IPython means to when this code ends: beside a cell that runs on the main thread matplotlib's would show
and close its half-drawn figures.
"""

# Only what every ipykernel has loaded by now, and therefore no `from __future__`: of a module that is not loaded yet
# the notebook's folder may have one of the same name.
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
    """Attach, if there is a Residscope to attach."""
    try:
        with SafeImports():
            _attach()
    except Exception:  # not ours, or not whole: `residscope.hosts.comm` has no WIRE then, and the host says so
        pass


def _attach() -> None:
    from importlib import import_module
    from importlib.util import find_spec

    import_module("IPython.display")  # the host's next expression takes it from there
    spec = find_spec("residscope")
    # Looked for without importing what may be another's `residscope`: a folder on the path, a script.
    ours = spec and spec.origin and spec.submodule_search_locations
    if ours and PathFinder.find_spec("residscope.hosts", ours):
        import_module("residscope.hosts.comm").attach()
        import_module("residscope.hosts.execute")  # a host that can only have code run asks that, and imports nothing


# --- imports ---------------------------------------------------------------------------------------------------------
class SafeImports:
    """While it is entered, this thread imports nothing from the working directory.

    What is loaded already stays as it is. `sys.path` does not change, nor does what other threads import. In
    `sys.meta_path` a stand-in takes the place of Python's search of `sys.path`. It is not put before it: another thread
    that is just going through the list would leave a finder out when it is taken out again. Other finders are asked as
    always: an environment has them for packages that lie in a place of their own.
    """

    def __init__(self) -> None:
        self._joined: list[tuple[list[Any], Search]] = []

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
                self._joined.append((finders, search))
                search.threads.append(_this_thread())
        except BaseException:  # an interrupt
            self.__exit__()
            raise
        finally:
            _imp.release_lock()

    def __exit__(self, *_: object) -> None:
        _imp.acquire_lock()
        try:
            for finders, search in self._joined:
                if (thread := _this_thread()) in search.threads:
                    search.threads.remove(thread)
                if not search.threads:
                    for among in (finders, sys.meta_path):  # two lists, where a cell has set another one meanwhile
                        _replace(search, search.finder, among)
        finally:
            _imp.release_lock()


class Search:
    """Stands in for a finder that searches `sys.path`. For some threads it leaves the working directory out."""

    residscope_search = True
    """How a stand-in is known that was made by another copy of this text."""

    def __init__(self, finder: "Any") -> None:
        self.finder = finder
        self.threads: list[tuple[int, int]] = []

    def find_spec(
        self, name: str, path: "Iterable[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """Find a module; `path` is the one of the package that it is in, if it is in one."""
        if _this_thread() not in self.threads:
            return self.finder.find_spec(name, path, target)
        safe = _top_level() if path is None else _inside(name.rpartition(".")[0], path)
        spec: Any = self.finder.find_spec(name, safe, target)
        if hasattr(getattr(spec, "submodule_search_locations", None), "_last_parent_path"):
            # A namespace package. The user's own imports must also find its parts in the working directory: so it is
            # made to look for its folders again when it is next asked for them.
            spec.submodule_search_locations._last_parent_path = ()
        return spec

    # A running cell may look at `sys.meta_path`: what it does with the finder, it can do with the stand-in.
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
        # Some import hooks look for Python's own finder by `inspect.isclass`.
        return type(self.finder)


def _this_thread() -> tuple[int, int]:
    return os.getpid(), get_ident()  # a forked process has the list too, and may use a thread's number again


def _searches_path(finder: "Any") -> bool:
    if issubclass(finder if isinstance(finder, type) else type(finder), PathFinder):
        return True
    return getattr(getattr(finder, "find_spec", None), "__func__", None) is PathFinder.find_spec.__func__


def _replace(old: object, new: object, finders: "list[Any]") -> None:
    """Put one finder in the place of another, in one step: the list never gets shorter or longer."""
    for at, finder in enumerate(finders):
        if finder is old:
            finders[at] = new


def _top_level() -> list[str]:
    """The entries of `sys.path` that neither are the working directory nor are found from it."""
    entries: list[Any] = [*sys.path]  # it may hold anything; what is not text Python passes over, too
    return [entry for entry in entries if isinstance(entry, str) and Path(entry).is_absolute() and not _is_here(entry)]


def _inside(package: str, path: "Iterable[Any]") -> list[str]:
    """The folders of a package, without those that it has because the working directory is on `sys.path`."""
    own = getattr(sys.modules.get(package), "__file__", None)
    home = Path(own).parent if isinstance(own, str) else None  # it was imported from there, so it stays
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
    """Whether a folder is the working directory, however it is written."""
    try:
        return Path(folder).samefile(os.curdir)
    except (OSError, ValueError):  # one of the two is not there
        return False


# --- callbacks -------------------------------------------------------------------------------------------------------
class Unheard(UserList["Callable[..., Any]"]):
    """Stands before a list of callbacks, and shows it to all threads but this one, which finds it empty, once.

    All else (callbacks that come and go meanwhile) is done to the list behind.
    """

    def __init__(self, callbacks: "dict[str, list[Callable[..., Any]]]") -> None:
        self.data = callbacks[EVENT]
        self._callbacks, self._thread = callbacks, get_ident()

    def __getitem__(self, at: "Any") -> "Any":
        """IPython takes `callbacks[:]` and calls each."""
        if get_ident() != self._thread:
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
