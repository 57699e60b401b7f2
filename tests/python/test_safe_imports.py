"""What a thread imports while it leaves the working directory out, and what others see meanwhile."""

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
    """The working directory, with a module in it; what a test imports is forgotten again."""
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
    """Whether an import finds it, and a question of whether it is there says the same."""
    importlib.invalidate_caches()
    there = importlib.util.find_spec(name) is not None
    with nullcontext() if there else pytest.raises(ModuleNotFoundError, match=name):
        importlib.import_module(name)
    return there


def elsewhere(body) -> None:
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()


@pytest.mark.parametrize("entry", ["", ".", "../notebooks", "{here}", "{here}/../link", "{here}/."])
def test_the_working_directory_is_left_out_however_it_is_written(folder, monkeypatch, entry):
    entry = entry.format(here=folder)
    monkeypatch.setattr(sys, "path", [7, Path(folder), entry, b"", *sys.path])
    before = [*sys.path]
    with SafeImports():
        assert not importable()
        assert sys.path == before
        seen: list[bool] = []
        elsewhere(lambda: seen.append(importlib.util.find_spec(NAME) is not None))
    assert seen == [True]
    assert importable()


def test_other_places_stay(folder, monkeypatch):
    """A folder and an archive elsewhere; a folder in the working directory that the environment names."""
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


def test_a_module_that_is_loaded_stays_and_goes_on_importing(folder, monkeypatch):
    package = folder / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "later.py").write_text("")
    monkeypatch.syspath_prepend("")
    assert importable("own_package")
    with SafeImports():
        assert importable("own_package.later")


def test_a_working_directory_that_is_gone_is_no_obstacle(folder, monkeypatch):
    monkeypatch.syspath_prepend("")
    (folder / f"{NAME}.py").unlink()
    folder.rmdir()
    with SafeImports():
        assert not importable()
        assert importable("wave" if "wave" not in sys.modules else "chunk")
    os.chdir(folder.parent)


def test_threads_come_and_go_in_any_order(monkeypatch):
    """Also with another list of finders, which a cell may set meanwhile; each sees its own imports."""
    monkeypatch.syspath_prepend("")
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    finders, before = sys.meta_path, [*sys.meta_path]
    first, second = SafeImports(), SafeImports()
    entered, leave, seen = threading.Event(), threading.Event(), []

    def other() -> None:
        second.__enter__()
        entered.set()
        leave.wait()
        seen.append(importable())
        second.__exit__()
        seen.append(importable())

    thread = threading.Thread(target=other)
    first.__enter__()
    thread.start()
    entered.wait()
    first.__exit__()
    assert PathFinder in sys.meta_path
    sys.meta_path = [*finders]
    leave.set()
    thread.join()
    assert seen == [False, True]
    assert all(now is then for now, then in zip(finders, before, strict=True))
    assert all(now is then for now, then in zip(sys.meta_path, before, strict=True))


@pytest.mark.parametrize(("cache", "loaded"), [(None, False), ({"id": "x", "state": "0"}, True)])
def test_only_a_question_about_a_cache_may_load_what_lies_beside_the_notebook(monkeypatch, cache, loaded):
    """As a tokenizer of the user's own may do at its first use."""
    monkeypatch.syspath_prepend("")
    for name in ("search", "_tracked"):
        monkeypatch.setattr(f"residscope.serving.dispatcher.{name}", lambda *_: importlib.import_module(NAME))
    kind = "describe" if cache else "caches"
    Dispatcher(SafeImports).answer({"id": "1", "ask": {"kind": kind}, "cache": cache})
    assert (NAME in sys.modules) is loaded
