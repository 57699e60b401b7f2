"""Reads a saved file that is not trusted: only the expected arrays, and only if all of it is consistent.

The header is read first. It determines which arrays there must be, and their shapes. An array whose own header says
otherwise is not read.
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

from residscope.many.accumulator import Frame, ItemFacts
from residscope.terms import By, Component, ComponentTable

FORM = "residscope attribute_many 2"

ROOM, TIMES = 16_000_000, 16
"""Unpacked, a file has at most `ROOM` bytes plus `TIMES` its own size. A file that is not compressed always fits."""

_COMPONENTS = (("component", "batch"), ("component", "batch", "pos"))
_SOURCES = (("source", "head", "batch"), ("source", "destination", "head", "batch"))
_BLOCK = 1 << 20
_PER_PROMPT = ("measured", "constant", "unexplained")
_NUMBERS = ("items", "prompts", "facts")
_KINDS = {"<f2": 2, "<f4": 4, "<f8": 8, "<i4": 4, "<i8": 8, "|u1": 1}
_FLOATS, _EXACT, _WHOLE, _BYTES = ("<f2", "<f4", "<f8"), ("<f8",), ("<i4", "<i8"), ("|u1",)
_ARRAY = re.compile(
    rb"\{'descr': '([<|][a-z]\d)', 'fortran_order': (True|False), 'shape': \(((?:\d{1,15}, ?)*\d{0,15})\), \} *\n"
)

Count = Annotated[int, Meta(ge=0, le=1 << 53)]


class UnfitError(ValueError):
    """What is wrong with a file, as the beginning of "… cannot be right"."""


class FrameHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A `Frame` in a file's header."""

    by: By
    components: ComponentTable
    axes: tuple[str, ...]
    sizes: tuple[Count, ...]
    heads: list[str]
    parts: Count | None
    grid: tuple[Count, Count] | None

    @classmethod
    def of(cls, frame: Frame) -> FrameHeader:
        """The header of a frame."""
        rows = ComponentTable.of(frame.components)
        return cls(frame.by, rows, frame.axes, frame.sizes, frame.heads, frame.parts, frame.grid)

    def frame(self) -> Frame:
        """Return the frame.

        Raises:
            UnfitError: If it is not consistent.
        """
        known = _SOURCES if self.by == "source" else _COMPONENTS
        _must(self.axes in known and len(self.sizes) == len(self.axes) - 2, "its axes")
        _must(len(self.heads) == (self.sizes[-1] if self.by == "source" else 0), "its heads")
        try:
            rows = self.components.components()
        except (ValueError, IndexError):
            raise UnfitError("its rows") from None
        _must(len(rows) > 0 and (self.parts or 0) <= len(rows) and all(row.is_whole for row in rows), "its rows")
        _must(self.grid is None or _fits(self.grid, rows[: self.parts], len(rows)), "its grid")
        return Frame(self.by, rows, self.axes, self.sizes, self.heads, self.parts, self.grid)


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The header of a file."""

    form: Literal["residscope attribute_many 2"]
    question: dict[str, str]
    frame: FrameHeader
    facts: list[ItemFacts]
    skipped: list[tuple[Count, str]]
    count: Count


class Kept(msgspec.Struct, frozen=True):
    """The content of a file, whose arrays fit its header."""

    header: Header
    frame: Frame
    arrays: dict[str, Any]


def contents(path: Path) -> Kept:
    """Read a file.

    Raises:
        UnfitError: If it is not a consistent saved file.
        Exception: Whatever reading damaged bytes may raise.
    """
    if not path.is_file():
        raise FileNotFoundError("it is not a file")
    with _LimitedReader(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        names = _names(archive, ROOM + TIMES * path.stat().st_size)
        header = msgspec.json.decode(bytes(_array(archive, "header", _BYTES, (None,))), type=Header)
        frame, sums = header.frame.frame(), "mean" in names
        _must(("values" in names) != sums, "its arrays")
        _must(header.question.get("by") == f'"{frame.by}"', "its question")
        _must(header.question.get("keep") == ('"summary"' if sums else '"values"'), "its question")
        _must(all(math.isfinite(facts.tolerance) and facts.tolerance >= 0 for facts in header.facts), "its tolerances")
        arrays = {name: _array(archive, name, _WHOLE, (None,)) for name in _NUMBERS}
        _check_numbers(arrays, len(header.facts))
        prompts = sum(arrays["prompts"].tolist())
        _must(header.count == (prompts if sums else 0), "its number of prompts")
        whole = [len(frame.components), *frame.sizes]
        whole.insert(frame.prompts, prompts)
        arrays |= {name: _array(archive, name, _FLOATS, whole[1:]) for name in _PER_PROMPT}
        without_prompts = whole[: frame.prompts] + whole[frame.prompts + 1 :]
        summary = {"mean": (_EXACT, without_prompts), "squares": (_EXACT, without_prompts)}
        expected = summary if sums else {"values": (_FLOATS, whole)}
        arrays |= {name: _array(archive, name, *wanted) for name, wanted in expected.items()}
    return Kept(header, frame, arrays)


class _LimitedReader(io.BufferedReader):
    """A file of which at most `_BLOCK` bytes are read at once, so that a huge zip directory is refused."""

    def read(self, size: int | None = -1, /) -> bytes:
        _must(size is None or size <= _BLOCK, "its directory")
        return super().read(_BLOCK if size is None or size < 0 else size)


def _names(archive: zipfile.ZipFile, room: int) -> set[str]:
    """The names of the arrays. It checks that these are exactly the expected ones, each once."""
    listed = [info.filename.removesuffix(".npy") for info in archive.infolist() if info.filename.endswith(".npy")]
    required, others = {"header", *_NUMBERS, *_PER_PROMPT}, [{"values"}, {"mean", "squares"}]
    _must(len(listed) == len(archive.infolist()) and len(set(listed)) == len(listed), "its arrays")
    _must(required <= set(listed) and set(listed) - required in others, "its arrays")
    plain = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    _must(
        all(info.compress_type in plain and not info.flag_bits & 1 for info in archive.infolist()), "how it is packed"
    )
    unpacked = sum(info.file_size for info in archive.infolist())
    _must(unpacked <= room, f"that it unpacks to {unpacked / 1e6:,.0f} MB (for its size at most {room / 1e6:,.0f} MB)")
    return set(listed)


def _array(archive: zipfile.ZipFile, name: str, kinds: tuple[str, ...], shape: Any) -> Any:
    """An array. Its data are read only if it has one of these dtypes and this shape (None: any length)."""
    import numpy as np

    info, what = archive.getinfo(f"{name}.npy"), f"its `{name}`"
    with archive.open(info) as file:
        start = file.read(10)
        _must(start[:8] == b"\x93NUMPY\x01\x00" and len(start) == 10, what)
        length = int.from_bytes(start[8:], "little")
        found = _ARRAY.fullmatch(file.read(length)) if length <= 1024 else None
        if found is None:
            raise UnfitError(what)
        kind, sizes = found[1].decode(), tuple(int(size) for size in found[3].split(b",") if size.strip())
        _must(kind in kinds and len(sizes) == len(shape), what)
        _must(all(wanted in (None, size) for wanted, size in zip(shape, sizes, strict=True)), what)
        size = math.prod(sizes) * _KINDS[kind]
        _must(info.file_size == 10 + length + size, what)
        data = bytearray(size)
        done = 0
        while block := file.read(_BLOCK):  # to the end, because the checksum is checked there
            _must(done + len(block) <= size, what)
            data[done : done + len(block)] = block
            done += len(block)
        _must(done == size, what)
    return np.frombuffer(data, kind).reshape(sizes, order="F" if found[2] == b"True" else "C")


def _check_numbers(arrays: dict[str, Any], count: int) -> None:
    """Check that each item occurs once, in order, with its number of prompts and an index into `count` facts."""
    items, prompts, facts = (arrays[name] for name in _NUMBERS)
    _must(0 < len(items) == len(prompts) == len(facts), "its number of items")
    _must(items[0] >= 0 and bool((items[1:] > items[:-1]).all()), "the numbers of its items")
    _must(bool((prompts > 0).all()) and int(prompts.max()) <= 1 << 31, "its numbers of prompts")
    _must(bool((facts >= 0).all()) and bool((facts < count).all()), "its facts about items")


def _fits(grid: tuple[int, int], heads: list[Component], rows: int) -> bool:
    """Whether these heads fit in a grid. Layers without attention have other rows instead."""
    are_heads = all(head.kind == "head" for head in heads)
    inside = are_heads and all(layer < grid[0] and index < grid[1] for layer, index in (head.place for head in heads))
    return inside and grid[0] * grid[1] <= 64 * rows


def _must(fits: bool, what: str) -> None:
    if not fits:
        raise UnfitError(what)
