"""Reads a saved file without trusting it: only the expected arrays, and only if the whole file is consistent.

The header is read first. It determines which arrays the file must have, and their shapes. An array is not read if its
own header names another shape.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from residscope.many.accumulator import ItemFacts, ResultLayout
from residscope.terms import By, Component, ComponentTable

_ATTRIBUTIONS, _ABLATIONS = "residscope attribute_many 2", "residscope ablate_many 2"

_FREE_BYTES, _MAX_RATIO = 16_000_000, 16
"""An unpacked file may have `_FREE_BYTES` plus `_MAX_RATIO` times the size of the packed file. A file that is not
compressed is always smaller than this limit."""

_COMPONENT_AXES = (("component", "batch"), ("component", "batch", "pos"))
_EFFECT_AXES = (("component", "batch", "effect"), ("set", "batch", "effect"))
_SOURCE_AXES = (("source", "head", "batch"), ("source", "destination", "head", "batch"))
_BLOCK_BYTES = 1 << 20
_ARRAYS_BY_ITEM = ("items", "prompts", "facts")
_DTYPE_BYTES = {"<f2": 2, "<f4": 4, "<f8": 8, "<i4": 4, "<i8": 8, "|u1": 1}
_FLOAT_DTYPES, _EXACT_DTYPES, _INTEGER_DTYPES, _BYTE_DTYPES = ("<f2", "<f4", "<f8"), ("<f8",), ("<i4", "<i8"), ("|u1",)
_ARRAY_HEADER = re.compile(
    rb"\{'descr': '([<|][a-z]\d)', 'fortran_order': (True|False), 'shape': \(((?:\d{1,15}, ?)*\d{0,15})\), \} *\n"
)

Count = Annotated[int, Meta(ge=0, le=1 << 53)]


class InconsistentFileError(ValueError):
    """A file is not consistent. The message is the beginning of a sentence that ends with "cannot be right"."""


class LayoutHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `ResultLayout` in a file's header."""

    by: By | Literal["ablation"]
    components: ComponentTable
    axes: tuple[str, ...]
    sizes: tuple[Count, ...]
    heads: list[str]
    parts: Count | None
    grid: tuple[Count, Count] | None

    @classmethod
    def of(cls, layout: ResultLayout) -> LayoutHeader:
        """Return the header of a layout."""
        rows = ComponentTable.of(layout.components)
        return cls(layout.by, rows, layout.axes, layout.sizes, layout.heads, layout.parts, layout.grid)

    def layout(self) -> ResultLayout:
        """Return the layout.

        Raises:
            InconsistentFileError: If the header is not consistent.
        """
        known = {"source": _SOURCE_AXES, "ablation": _EFFECT_AXES}.get(self.by, _COMPONENT_AXES)
        _require(self.axes in known and len(self.sizes) == len(self.axes) - 2, "its axes")
        _require(len(self.heads) == (self.sizes[-1] if self.by == "source" else 0), "its heads")
        _require(self.by != "ablation" or (self.sizes == (3,) and self.parts is None), "its effects")
        try:
            rows = self.components.components()
        except (ValueError, IndexError):
            raise InconsistentFileError("its rows") from None
        _require(len(rows) > 0 and (self.parts or 0) <= len(rows) and all(row.is_whole for row in rows), "its rows")
        _require(self.grid is None or _fits(self.grid, rows[: self.parts], len(rows)), "its grid")
        return ResultLayout(self.by, rows, self.axes, self.sizes, self.heads, self.parts, self.grid)


def form_of(by: str) -> str:
    """Return the name of the file format for results with this `by`."""
    return _ABLATIONS if by == "ablation" else _ATTRIBUTIONS


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The header of a file."""

    form: Literal["residscope attribute_many 2", "residscope ablate_many 2"]
    question: dict[str, str]
    layout: LayoutHeader = msgspec.field(name="frame")
    facts: list[ItemFacts]
    skipped: list[tuple[Count, str]]
    count: Count


class SavedFile(msgspec.Struct, frozen=True):
    """The content of a file. Its arrays fit its header."""

    header: Header
    layout: ResultLayout
    arrays: dict[str, Any]


def contents(path: Path) -> SavedFile:
    """Read a file.

    Raises:
        InconsistentFileError: If it is not a consistent saved file.
        Exception: Damaged bytes may raise any exception.
    """
    if not path.is_file():
        raise FileNotFoundError("it is not a file")
    with _LimitedReader(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        names = _names(archive, _FREE_BYTES + _MAX_RATIO * path.stat().st_size)
        _require("header" in names, "its arrays")
        header = msgspec.json.decode(bytes(_array(archive, "header", _BYTE_DTYPES, (None,))), type=Header)
        layout, sums = header.layout.layout(), "mean" in names
        counts = {"counts"} if layout.by == "ablation" else set[str]()
        own = {"mean", "squares"} | counts if sums else {"values"}
        _require(names == {"header", *_ARRAYS_BY_ITEM, *layout.columns} | own, "its arrays")
        _require(header.form == form_of(layout.by), "its form")
        _require(header.question.get("by") == f'"{layout.by}"', "its question")
        _require(header.question.get("keep") == ('"summary"' if sums else '"values"'), "its question")
        _require(
            all(math.isfinite(facts.tolerance) and facts.tolerance >= 0 for facts in header.facts), "its tolerances"
        )
        arrays = {name: _array(archive, name, _INTEGER_DTYPES, (None,)) for name in _ARRAYS_BY_ITEM}
        _check_numbers(arrays, len(header.facts))
        prompts = sum(arrays["prompts"].tolist())
        _require(header.count == (prompts if sums else 0), "its number of prompts")
        whole, column = layout.shape(prompts), layout.column_shape(prompts)
        arrays |= {name: _array(archive, name, _FLOAT_DTYPES, column) for name in layout.columns}
        without_prompts = whole[: layout.prompt_axis] + whole[layout.prompt_axis + 1 :]
        summary = {"mean": (_EXACT_DTYPES, without_prompts), "squares": (_EXACT_DTYPES, without_prompts)}
        summary |= dict.fromkeys(counts, (("<i8",), without_prompts))
        expected = summary if sums else {"values": (_FLOAT_DTYPES, whole)}
        arrays |= {name: _array(archive, name, *wanted) for name, wanted in expected.items()}
        if sums and counts:
            _require(bool(((arrays["counts"] >= 0) & (arrays["counts"] <= prompts)).all()), "its `counts`")
    return SavedFile(header, layout, arrays)


class _LimitedReader(io.BufferedReader):
    """Reads at most `_BLOCK_BYTES` of a file at once, so that a huge zip directory is refused."""

    def read(self, size: int | None = -1, /) -> bytes:
        _require(size is None or size <= _BLOCK_BYTES, "its directory")
        return super().read(_BLOCK_BYTES if size is None or size < 0 else size)


def _names(archive: zipfile.ZipFile, room: int) -> set[str]:
    """The names of the arrays. Each must occur once, and unpacked they must have at most `room` bytes in all."""
    listed = [info.filename.removesuffix(".npy") for info in archive.infolist() if info.filename.endswith(".npy")]
    _require(len(listed) == len(archive.infolist()) and len(set(listed)) == len(listed), "its arrays")
    plain = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    _require(
        all(info.compress_type in plain and not info.flag_bits & 1 for info in archive.infolist()), "how it is packed"
    )
    unpacked = sum(info.file_size for info in archive.infolist())
    _require(
        unpacked <= room, f"that it unpacks to {unpacked / 1e6:,.0f} MB (for its size at most {room / 1e6:,.0f} MB)"
    )
    return set(listed)


def _array(archive: zipfile.ZipFile, name: str, kinds: tuple[str, ...], shape: Any) -> Any:
    """Read an array. Refuse it if it does not have one of these dtypes and this shape (None: any length)."""
    import numpy as np

    info, what = archive.getinfo(f"{name}.npy"), f"its `{name}`"
    with archive.open(info) as file:
        start = file.read(10)
        _require(start[:8] == b"\x93NUMPY\x01\x00" and len(start) == 10, what)
        length = int.from_bytes(start[8:], "little")
        found = _ARRAY_HEADER.fullmatch(file.read(length)) if length <= 1024 else None
        if found is None:
            raise InconsistentFileError(what)
        kind, sizes = found[1].decode(), tuple(int(size) for size in found[3].split(b",") if size.strip())
        _require(kind in kinds and len(sizes) == len(shape), what)
        _require(all(wanted in (None, size) for wanted, size in zip(shape, sizes, strict=True)), what)
        size = math.prod(sizes) * _DTYPE_BYTES[kind]
        _require(info.file_size == 10 + length + size, what)
        data = bytearray(size)
        done = 0
        while block := file.read(_BLOCK_BYTES):  # to the end, because the checksum is checked there
            _require(done + len(block) <= size, what)
            data[done : done + len(block)] = block
            done += len(block)
        _require(done == size, what)
    return np.frombuffer(data, kind).reshape(sizes, order="F" if found[2] == b"True" else "C")


def _check_numbers(arrays: dict[str, Any], count: int) -> None:
    """Check that each item occurs once, in order, with its number of prompts and with the index of its facts.

    Args:
        arrays: The arrays of the file.
        count: The number of facts in the header.
    """
    items, prompts, facts = (arrays[name] for name in _ARRAYS_BY_ITEM)
    _require(0 < len(items) == len(prompts) == len(facts), "its number of items")
    _require(items[0] >= 0 and bool((items[1:] > items[:-1]).all()), "the numbers of its items")
    _require(bool((prompts > 0).all()) and int(prompts.max()) <= 1 << 31, "its numbers of prompts")
    _require(bool((facts >= 0).all()) and bool((facts < count).all()), "its facts about items")


def _fits(grid: tuple[int, int], heads: list[Component], rows: int) -> bool:
    """Whether these heads fit in a grid. The grid may have empty cells, because some layers have no attention."""
    are_heads = all(head.kind == "head" for head in heads)
    inside = are_heads and all(layer < grid[0] and index < grid[1] for layer, index in (head.place for head in heads))
    return inside and grid[0] * grid[1] <= 64 * rows


def _require(is_right: bool, what: str) -> None:
    if not is_right:
        raise InconsistentFileError(what)
