"""A file to resume is not trusted: a damaged or forged file is refused in a sentence, without using much memory."""

from __future__ import annotations

import io
import json
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import residscope
from residscope import ResidscopeError
from tests.support import many_worker, tiny

Files = dict[str, bytes]
many = partial(residscope.attribute_many, progress=False)
NEVER: Any = [lambda: pytest.fail("a cache was made for an item, although none is needed")] * 3

QUESTIONS = {
    "values": {},
    "summary": {"keep": "summary"},
    "positions": {"position": "all", "by": "layer"},
    "sources": {"by": "source", "heads": ["0.0", "2.1"], "position": "all"},
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> dict[str, Path]:
    """Valid files, one for each kind of call."""
    model, folder = tiny.boot("native"), tmp_path_factory.mktemp("kept")
    pairs = [many_worker.item(model, number) for number in range(3)]
    paths = {name: folder / f"{name}.npz" for name in QUESTIONS}
    for name, path in paths.items():
        many(pairs, **QUESTIONS[name], resume=path)
    return paths


@pytest.fixture
def good(kept, tmp_path) -> Path:
    """A copy of a valid file."""
    return Path(shutil.copy(kept["values"], tmp_path / "kept.npz"))


def refused(path: Path, **question: Any) -> str:
    """Check that the file is refused as expected, without much memory. Return the message."""
    tracemalloc.start()
    try:
        with pytest.raises(ResidscopeError) as caught:
            many(NEVER, resume=path, **question)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    said = str(caught.value)
    assert caught.value.code == "resume"
    assert said.startswith(f"{str(path)!r} is not a file that `attribute_many` saved, or it is damaged (")
    assert said.endswith("): delete it to begin again, or give `resume` another name.")
    assert "\n" not in said
    assert len(said) < 600
    return said


def unpacked(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: Files | list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in files.items() if isinstance(files, dict) else files:
            archive.writestr(name, data)


def array(values: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values), **options)
    return file.getvalue()


def header_of(files: Files) -> dict[str, Any]:
    return json.loads(np.load(io.BytesIO(files["header.npy"])).tobytes())


def with_header(files: Files, header: Any) -> Files:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return files | {"header.npy": array(np.frombuffer(text, np.uint8))}


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", QUESTIONS)
def test_a_good_file_is_resumed_exactly_even_if_it_was_compressed(kept, name, kind, tmp_path):
    files, path = unpacked(kept[name]), tmp_path / "again.npz"
    packed(path, files, kind)
    question = QUESTIONS[name]
    found, expected = (many(NEVER, resume=one, **question) for one in (path, kept[name]))
    assert torch.equal(found.mean(), expected.mean())
    assert torch.equal(found.measured, expected.measured)
    assert (found.items, found.labels, found.notes) == (expected.items, expected.labels, expected.notes)
    once_more = tmp_path / "once more.npz"
    shutil.copy(path, once_more)
    model = tiny.boot("native")
    longer = many([*NEVER, many_worker.item(model, 3)], resume=once_more, **question)
    assert longer.items[: len(found.items)] == found.items
    assert many([*NEVER, *NEVER[:1]], resume=once_more, **question).items == longer.items


@pytest.mark.parametrize("part", [i / 24 for i in range(24)] + [0.999, 1 - 1e-6])
def test_a_truncated_file_is_refused(good, part):
    whole = good.read_bytes()
    good.write_bytes(whole[: int(len(whole) * part)])
    refused(good)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
def test_flipped_bytes_are_refused_or_change_nothing(kept, tmp_path, flips):
    whole = bytearray(kept["values"].read_bytes())
    for place, bits in flips:
        whole[int(place * len(whole))] ^= bits
    path = tmp_path / "kept.npz"
    path.write_bytes(whole)
    try:
        found = many(NEVER, resume=path).values
    except ResidscopeError as error:
        found = error.code
    # Changed bits may have no effect, for example in the time of a member of the zip file.
    same = many(NEVER, resume=kept["values"]).values
    assert found == "resume" if isinstance(found, str) else torch.equal(found, same)


def frame(**fields: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda header: header | {"frame": header["frame"] | fields}


def rows(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda header: frame(components=(table := header["frame"]["components"]) | change(table))(header)


HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda _: [],
    "no JSON": lambda _: b"{",
    "deep": lambda _: b"[" * 1_000_000,
    "deep in an unknown field": lambda header: json.dumps(header | {"more": 0}).encode()[:-2] + b"[" * 1_000_000,
    "another form": lambda header: header | {"form": "residscope attribute_many 1"},
    "no question": lambda header: {name: value for name, value in header.items() if name != "question"},
    "a question of numbers": lambda header: header | {"question": {"by": 1}},
    "another decomposition": lambda header: header | {"question": header["question"] | {"by": '"layer"'}},
    "a summary": lambda header: header | {"question": header["question"] | {"keep": '"summary"'}},
    "a count": lambda header: header | {"count": 5},
    "a negative count": lambda header: header | {"count": -1},
    "no frame": lambda header: header | {"frame": None},
    "an unknown decomposition": frame(by="colour"),
    "no rows": rows(lambda _: {"kinds": [], "kind": [], "layer": [], "index": []}),
    "fewer rows": rows(lambda table: {name: table[name][1:] for name in ("kind", "layer", "index")}),
    "rows that are texts": rows(lambda table: {"kind": [table["kinds"][at] for at in table["kind"]]}),
    "rows of unknown kinds": rows(lambda table: {"kinds": ["colour" for _ in table["kinds"]]}),
    "rows of kinds that are not there": rows(
        lambda table: {"kind": [at + len(table["kinds"]) for at in table["kind"]]}
    ),
    "rows of kinds with negative indices": rows(
        lambda table: {"kind": [at - len(table["kinds"]) for at in table["kind"]]}
    ),
    "more layers than rows": rows(lambda table: {"layer": [*table["layer"], 0]}),
    "rows of no layer": rows(lambda table: {"layer": [None for _ in table["layer"]]}),
    "rows of no index": rows(lambda table: {"index": [None for _ in table["index"]]}),
    "another axis": frame(axes=["batch"]),
    "an axis twice": frame(axes=["batch", "batch"]),
    "an axis too many": frame(axes=["component", "batch", "pos"]),
    "a huge axis": frame(axes=["component", "batch", "pos"], sizes=[1 << 50]),
    "a negative size": frame(sizes=[-1]),
    "heads": frame(heads=["L0H0"]),
    "more parts than rows": frame(parts=10_000),
    "a huge grid": frame(grid=[1 << 30, 1 << 30]),
    "a small grid": frame(grid=[1, 1]),
    "a grid of text": frame(grid="ab"),
    "no facts": lambda header: header | {"facts": []},
    "an endless tolerance": lambda header: json.dumps(
        header | {"facts": [[*one[:2], float("inf"), *one[3:]] for one in header["facts"]]}
    ).encode(),
    "a negative tolerance": lambda header: header | {"facts": [[*one[:2], -1.0, *one[3:]] for one in header["facts"]]},
    "facts with missing fields": lambda header: header | {"facts": [one[:3] for one in header["facts"]]},
    "notes that are a number": lambda header: header | {"facts": [[*one[:3], 5, one[4]] for one in header["facts"]]},
    "skipped without a number": lambda header: header | {"skipped": [["one", "why"]]},
    "a skipped item with a negative number": lambda header: header | {"skipped": [[-1, "why"]]},
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_fit_is_refused(good, change):
    files = unpacked(good)
    packed(good, with_header(files, change(header_of(files))))
    refused(good)


@pytest.mark.parametrize("more", [-1, 1])
def test_a_summary_whose_number_of_prompts_does_not_fit_its_items_is_refused(kept, more, tmp_path):
    files, path = unpacked(kept["summary"]), tmp_path / "kept.npz"
    header = header_of(files)
    packed(path, with_header(files, header | {"count": header["count"] + more}))
    assert "its number of prompts cannot be right" in refused(path, keep="summary")


def test_a_file_without_rows_is_refused_even_if_it_is_consistent(good):
    files = unpacked(good)
    values = np.load(io.BytesIO(files["values.npy"]))
    none = {"kinds": [], "kind": [], "layer": [], "index": []}
    empty = frame(components=none, parts=None, grid=None)(header_of(files))
    packed(good, with_header(files, empty) | {"values.npy": array(values[:0])})
    assert "its rows cannot be right" in refused(good)


def test_arrays_in_fortran_order_are_read(kept, tmp_path):
    files, path = unpacked(kept["positions"]), tmp_path / "kept.npz"
    values = np.load(io.BytesIO(files["values.npy"]))
    turned = array(np.asfortranarray(values))
    assert b"'fortran_order': True" in turned
    packed(path, files | {"values.npy": turned})
    np.testing.assert_array_equal(many(NEVER, **QUESTIONS["positions"], resume=path).values.numpy(), values)


def replaced(name: str, make: Callable[[Any], bytes]) -> Callable[[Files], Files]:
    return lambda files: files | {f"{name}.npy": make(np.load(io.BytesIO(files[f"{name}.npy"])))}


def declared(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    """Return the header of an array without its data."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


ARRAYS: dict[str, Callable[[Files], Files | list[tuple[str, bytes]]]] = {
    "one more": lambda files: files | {"more.npy": array([1])},
    "another file": lambda files: files | {"run.py": b"1 / 0"},
    "one twice": lambda files: [*files.items(), ("items.npy", files["items.npy"])],
    "one less": lambda files: {name: data for name, data in files.items() if name != "constant.npy"},
    "no header": lambda files: {name: data for name, data in files.items() if name != "header.npy"},
    "arrays of both a summary and values": lambda files: (
        files | {"mean.npy": array([1.0]), "squares.npy": array([1.0])}
    ),
    "objects": replaced("facts", lambda old: array(old.astype(object))),
    "text": replaced("items", lambda old: array(old.astype(str))),
    "fields": replaced("items", lambda old: array(old.view([("a", "<i8")]))),
    "numbers with fractions": replaced("items", lambda old: array(old.astype(float))),
    "an item twice": replaced("items", lambda old: array(old * 0)),
    "an item before the first": replaced("items", lambda old: array(old - 1)),
    "items out of order": replaced("items", lambda old: array(old[::-1].copy())),
    "fewer items": replaced("items", lambda old: array(old[1:])),
    "items of two axes": replaced("items", lambda old: array(old[None])),
    "more prompts": replaced("prompts", lambda old: array(old + 1)),
    "a negative number of prompts": replaced("prompts", lambda old: array(old - 5)),
    "a negative number of prompts, with the right sum": replaced("prompts", lambda old: array(np.add(old, [-2, 0, 2]))),
    "more prompts than anybody has": replaced("prompts", lambda old: array(old + (1 << 62))),
    "facts that are not there": replaced("facts", lambda old: array(old + 99)),
    "facts before the first": replaced("facts", lambda old: array(old - 1)),
    "values of another shape": replaced("values", lambda old: array(old.T.copy())),
    "values that are integers": replaced("values", lambda old: array(old.astype(int))),
    "fewer measured": replaced("measured", lambda old: array(old[1:])),
    "more data than declared": replaced("values", lambda old: array(old) + b"more"),
    "less data than declared": replaced("values", lambda old: array(old)[:-1]),
    "a huge shape": replaced("values", lambda _: declared((1 << 31, 1 << 31))),
    "a huge number of items": replaced("items", lambda _: declared((1 << 40,), "<i8")),
    "a shape that is a list": replaced("facts", lambda _: declared((3,)).replace(b"(3,)", b"[3] ")),
    "a later version": replaced("items", lambda old: array(old, version=(2, 0))),
    "a zip in it": lambda files: files | {"values.npy": zipped(files)},
    "all in a zip": lambda files: {"values.npy": zipped(files)},
    "nothing": lambda _: {},
}


def zipped(files: Files) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("change", ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_do_not_fit_are_refused(good, change):
    packed(good, change(unpacked(good)))
    refused(good)


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(good, kind):
    packed(good, unpacked(good), kind)
    assert "how it is packed" in refused(good)


@pytest.mark.parametrize("member", ["header", "values", "items", "more"])
def test_a_decompression_bomb_is_not_unpacked(good, member):
    """The file has 300 MB of zeros in 300 kB. The array is not read, and the message names the limit."""
    zeros = np.zeros(75_000_000 if member != "header" else 300_000_000, "<f4" if member != "header" else np.uint8)
    files = unpacked(good) | {f"{member}.npy": array(zeros)}
    del zeros
    packed(good, files, zipfile.ZIP_DEFLATED)
    del files
    assert good.stat().st_size < 400_000
    assert "it unpacks to 300 MB (for its size at most 2" in refused(good)


def test_a_decompression_bomb_with_less_data_than_it_declares_is_not_unpacked(good):
    files = unpacked(good)
    header, prompts = header_of(files), 10_000_000
    rows = len(header["frame"]["components"]["kind"])
    zeros = np.zeros(prompts, np.float32)
    files |= {f"{name}.npy": array(zeros) for name in ("measured", "constant", "unexplained")}
    files |= {"items.npy": array([0]), "facts.npy": array([0]), "prompts.npy": array([prompts])}
    files["values.npy"] = declared((rows, prompts)) + bytes(4 * prompts)  # data for only one row
    packed(good, files, zipfile.ZIP_DEFLATED)
    del files, zeros
    assert "it unpacks to" in refused(good)


def test_a_directory_of_very_many_names_is_not_read(good):
    with zipfile.ZipFile(good, "w") as archive:
        for number in range(40_000):
            archive.writestr(f"{number}.npy", b"")
    assert "its directory" in refused(good)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    assert "it is not a file" in refused(tmp_path / "pipe.npz")


def test_no_planted_link_is_written_through(tmp_path):
    outside, path = tmp_path / "outside", tmp_path / "mine" / "kept.npz"
    path.parent.mkdir()
    outside.write_text("precious")
    planted = path.with_name(f".kept.npz.{os.getpid()}.new")
    planted.symlink_to(outside)
    pairs = [many_worker.item(tiny.boot("native"), 0)]
    many(pairs, resume=path)
    assert outside.read_text() == "precious"
    assert sorted(path.parent.iterdir()) == [planted, path]
    assert many(NEVER[:1], resume=path).items == [0]
    assert path.stat().st_mode == outside.stat().st_mode  # the permissions of a new file
