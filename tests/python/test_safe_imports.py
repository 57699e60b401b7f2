"""Inside `SafeImports`, a thread imports nothing from the working directory. Other threads import as usual."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import zipfile
from contextlib import nullcontext
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from residscope.hosts.attach import SafeImports
from residscope.serving.dispatcher import Dispatcher

NAME = "beside_the_notebook"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A working directory with a module. Modules that a test imports are unloaded afterwards."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / f"{NAME}.py").write_text("")
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    monkeypatch.chdir(folder)
    loaded = set(sys.modules)
    yield folder
    for name in set(sys.modules) - loaded:
        del sys.modules[name]


def importable(name: str = NAME) -> bool:
    """Return whether `import` finds this module, and check that `find_spec` agrees."""
    importlib.invalidate_caches()
    is_found = importlib.util.find_spec(name) is not None
    with nullcontext() if is_found else pytest.raises(ModuleNotFoundError, match=name):
        importlib.import_module(name)
    return is_found


def in_another_thread(body) -> None:
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()


@pytest.mark.parametrize("entry", ["", ".", "../notebooks", "{here}", "{here}/../link", "{here}/."])
def test_the_working_directory_is_left_out_in_every_spelling(folder, monkeypatch, entry):
    entry = entry.format(here=folder)
    monkeypatch.setattr(sys, "path", [7, Path(folder), entry, b"", *sys.path])
    before = [*sys.path]
    with SafeImports():
        assert not importable()
        assert sys.path == before
        seen: list[bool] = []
        in_another_thread(lambda: seen.append(importlib.util.find_spec(NAME) is not None))
    assert seen == [True]
    assert importable()


def test_other_folders_are_still_searched(folder, monkeypatch):
    """Tested with a folder and an archive elsewhere, and a subfolder of the working directory that is on `sys.path`."""
    for place, name in ((folder.parent / "elsewhere", "from_elsewhere"), (folder / "source", "from_source")):
        place.mkdir()
        (place / f"{name}.py").write_text("")
        monkeypatch.syspath_prepend(place)
    with zipfile.ZipFile(folder.parent / "archive.zip", "w") as archive:
        archive.writestr("from_archive.py", "")
    monkeypatch.syspath_prepend(folder.parent / "archive.zip")
    with SafeImports():
        assert importable("from_elsewhere")
        assert importable("from_source")
        assert importable("from_archive")


def test_a_package_that_is_loaded_can_still_import_its_modules(folder, monkeypatch):
    package = folder / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "later.py").write_text("")
    monkeypatch.syspath_prepend("")
    assert importable("own_package")
    with SafeImports():
        assert importable("own_package.later")


def test_a_deleted_working_directory_raises_no_error(folder, monkeypatch):
    monkeypatch.syspath_prepend("")
    (folder / f"{NAME}.py").unlink()
    folder.rmdir()
    with SafeImports():
        assert not importable()
        assert importable("wave" if "wave" not in sys.modules else "chunk")
    os.chdir(folder.parent)


def test_threads_may_enter_and_leave_in_any_order(monkeypatch):
    """Threads may do so even if a cell replaces the list of finders in between."""
    monkeypatch.syspath_prepend("")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    finders, before = sys.meta_path, [*sys.meta_path]
    first, second = SafeImports(), SafeImports()
    entered, leave, seen = threading.Event(), threading.Event(), []

    def second_thread() -> None:
        second.__enter__()
        entered.set()
        leave.wait()
        seen.append(importable())
        second.__exit__()
        seen.append(importable())

    thread = threading.Thread(target=second_thread)
    first.__enter__()
    thread.start()
    entered.wait()
    first.__exit__()
    assert PathFinder in sys.meta_path
    sys.meta_path = [*finders]
    leave.set()
    thread.join()
    assert seen == [False, True]
    assert all(after is earlier for after, earlier in zip(finders, before, strict=True))
    assert all(after is earlier for after, earlier in zip(sys.meta_path, before, strict=True))


@pytest.mark.parametrize(("cache", "loaded"), [(None, False), ({"id": "x", "state": "0"}, True)])
def test_only_a_request_about_a_cache_may_import_from_the_working_directory(monkeypatch, cache, loaded):
    """A request about a cache may run code of the user, such as a tokenizer that imports a module at its first use."""
    monkeypatch.syspath_prepend("")
    for name in ("search", "_tracked"):
        monkeypatch.setattr(f"residscope.serving.dispatcher.{name}", lambda *_: importlib.import_module(NAME))
    kind = "describe" if cache else "caches"
    Dispatcher(SafeImports).answer({"id": "1", "ask": {"kind": kind}, "cache": cache})
    assert (NAME in sys.modules) is loaded
