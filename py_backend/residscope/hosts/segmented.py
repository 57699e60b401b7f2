"""Converts a division into segments from the form that a user writes to the form of the wire, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast, get_args

import msgspec

from residscope.base.legible import shown
from residscope.cache.segments import Segments
from residscope.errors import ResidscopeError
from residscope.terms import MOST_OF_NAME, MOST_RANGES, SegmentBy, Segmented, SegmentRange

_FORM = (
    '`segments` takes None, "sentence", "line", "turn", "tag", ranges such as `[("question", 0, 12)]`, or what '
    "`residscope.segments` returns."
)


def as_segmented(given: Any) -> Segmented | None:
    """Convert what a user wrote to the form of the wire. Whether a prompt has such segments is not checked.

    Raises:
        ResidscopeError: If `given` has an unknown form.
    """
    if given is None:
        return None
    if isinstance(given, str) and given in get_args(SegmentBy):
        return cast("SegmentBy", given)
    if isinstance(given, Segments):
        given = [SegmentRange(segment.name[:MOST_OF_NAME], segment.start, segment.end)
                 for segment in given if segment.named]  # fmt: skip
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ResidscopeError("segments", f"`segments={shown(repr(given))}` is not known: {_FORM}")
    entries = [entry if isinstance(entry, dict | SegmentRange) else _triple(entry) for entry in list[Any](given)]
    if not 0 < len(entries) <= MOST_RANGES:
        raise ResidscopeError(
            "segments", f"`segments` has {len(entries):,} named segments, but a panel shows 1 to {MOST_RANGES:,}."
        )
    try:
        return msgspec.convert(msgspec.to_builtins(entries), Segmented)
    except (msgspec.ValidationError, TypeError) as error:
        raise ResidscopeError("segments", f"`segments` has an unknown form ({error}): {_FORM}") from error


def _triple(entry: Any) -> dict[str, Any]:
    if isinstance(entry, str) or not isinstance(entry, Iterable) or len(parts := list[Any](entry)) != 3:
        raise ResidscopeError("segments", f"{shown(repr(entry))} is not a triple (name, start, end): {_FORM}")
    name, *places = parts
    start, end = (at.__index__() if hasattr(at, "__index__") and not isinstance(at, bool) else at for at in places)
    return {"name": name, "start": start, "end": end}


def as_given(by: Segmented) -> SegmentBy | list[tuple[str, int, int]]:
    """Convert segments from the form of the wire to the form that `residscope.segments` takes."""
    return by if isinstance(by, str) else [(one.name, one.start, one.end) for one in by]
