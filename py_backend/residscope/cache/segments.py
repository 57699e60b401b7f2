"""Segments of a prompt: named ranges of positions that cover its real tokens without overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import index
from typing import Any

from residscope.base.legible import shown
from residscope.errors import ResidscopeError

REST = "…"
"""The name of a segment whose tokens are covered by no rule and by no range of the user."""

_FORM = '`by=` takes "sentence", "line", "turn", "tag", or ranges such as `[("question", 0, 12)]`.'


@dataclass(frozen=True)
class Segment:
    """A range of positions of one prompt.

    Attributes:
        name: The name: the beginning of the text, the role of a turn, the name of a tag, or the user's name.
        start: The first position, counted from the start of the row.
        end: The position after the last position.
        named: Whether a rule or the user made the segment. False for the tokens before, between and after such
            segments: their name is "…", or their own text if they are only special tokens such as `<bos>`.
    """

    name: str
    start: int
    end: int
    named: bool = True

    def __len__(self) -> int:
        """The number of tokens."""
        return self.end - self.start


@dataclass(frozen=True)
class Segments(Sequence[Segment]):
    """The segments of one prompt, in the order of the text. They cover its real tokens: padding is in no segment.

    Index it as a list (`segments[0]`), or find a segment by its name (`segments.find("question")`).

    Attributes:
        items: The segments.
        prompt: The index of the prompt.
        n_pos: The number of positions of the cache.
        notes: Notes on how the segments were found, in sentences.
    """

    items: tuple[Segment, ...]
    prompt: int
    n_pos: int
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """The number of segments."""
        return len(self.items)

    def __getitem__(self, at: Any) -> Any:
        """Return a segment by its index, or several by a slice."""
        return self.items[at]

    def __iter__(self) -> Iterator[Segment]:
        """Yield the segments in the order of the text."""
        return iter(self.items)

    @property
    def names(self) -> list[str]:
        """The names, in the order of the text."""
        return [segment.name for segment in self.items]

    def find(self, segment: int | str) -> int:
        """Return the index of a segment, given by its index or by its name.

        Raises:
            ResidscopeError: If there is no such segment, or several have this name.
        """
        if isinstance(segment, str):
            found = [at for at, name in enumerate(self.names) if name == segment]
            if len(found) == 1:
                return found[0]
            if found:
                some = ", ".join(map(str, found[:8]))
                raise ResidscopeError(
                    "segment", f"{len(found)} segments have the name “{shown(segment)}” ({some}): give the index."
                )
            known = ", ".join(f"“{shown(name)}”" for name in dict.fromkeys(self.names[:12]))
            raise ResidscopeError("segment", f"There is no segment “{shown(segment)}”. The names are: {known}.")
        at = _whole(segment)
        if at is None or not -len(self) <= at < len(self):
            raise ResidscopeError(
                "segment", f"There is no segment {shown(repr(segment))}: there are {len(self)}, 0 to {len(self) - 1}."
            )
        return at % len(self)

    def at(self, position: int) -> int | None:
        """Return the index of the segment that has this position. None if no segment has it, as for padding."""
        return next((at for at, segment in enumerate(self.items) if segment.start <= position < segment.end), None)

    def __repr__(self) -> str:
        """Return a readable summary."""
        parts = ", ".join(f"{shown(segment.name)!r} {segment.start}–{segment.end - 1}" for segment in self.items[:8])
        more = f", and {len(self) - 8} more" if len(self) > 8 else ""
        notes = "".join(f"; note: {note}" for note in self.notes)
        return f"Segments({len(self)} of prompt {self.prompt}: {parts}{more}{notes})"


def given_ranges(by: object, first: int, last: int, n_pos: int, prompt: int) -> list[Segment]:
    """Return the user's ranges as segments, in the order of the text.

    Args:
        by: Triples (name, start, end). `end` is the position after the last position of the range.
        first: The first real position of the prompt.
        last: The last real position of the prompt.
        n_pos: The number of positions of the cache.
        prompt: The index of the prompt, for messages.

    Raises:
        ResidscopeError: If a range is empty, outside the prompt, on padding, or overlaps another one; or if a name is
            not a text.
    """
    if isinstance(by, str) or not isinstance(by, Iterable):
        raise ResidscopeError("segments", f"`by={shown(repr(by))}` is not known: {_FORM}")
    segments = [_given(entry, first, last, n_pos, prompt) for entry in list[object](by)]
    if not segments:
        raise ResidscopeError("segments", f"`by=` has no ranges: {_FORM}")
    segments.sort(key=lambda segment: segment.start)
    for one, other in pairwise(segments):
        if other.start < one.end:
            raise ResidscopeError(
                "segments",
                f"The segments {_words(one)} and {_words(other)} overlap: each token belongs to one segment. The end "
                "of a range is the position after its last token.",
            )
    return segments


def _given(entry: object, first: int, last: int, n_pos: int, prompt: int) -> Segment:
    parts: list[Any] = list(entry) if isinstance(entry, tuple | list) else []  # pyright: ignore[reportUnknownArgumentType]
    if len(parts) != 3:
        raise ResidscopeError("segments", f"{shown(repr(entry))} is not a range: write (name, start, end).")
    name, start, end = parts[0], _whole(parts[1]), _whole(parts[2])
    if not isinstance(name, str) or not name:
        raise ResidscopeError("segments", f"{shown(repr(name))} is not a name for a segment: give a text.")
    if start is None or end is None:
        raise ResidscopeError(
            "segments", f"The range of “{shown(name)}” is {shown(repr(entry))}: start and end must be whole numbers."
        )
    segment = Segment(name, start, end)
    if start >= end:
        raise ResidscopeError(
            "segments", f"The segment {_words(segment)} is empty: its end must be larger than its start."
        )
    if start < 0 or end > n_pos:
        raise ResidscopeError(
            "segments",
            f"The segment {_words(segment)} is outside the prompt: it has {n_pos} positions, so ranges lie within 0 to "
            f"{n_pos}.",
        )
    if start < first or end > last + 1:
        raise ResidscopeError(
            "segments",
            f"The segment {_words(segment)} has padding: the real tokens of prompt {prompt} are those from {first} to "
            f"{last}, so ranges lie within {first} to {last + 1}.",
        )
    return segment


def _words(segment: Segment) -> str:
    return f"“{shown(segment.name)}” ({segment.start} to {segment.end})"


def _whole(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else index(value)
    except (TypeError, RuntimeError):
        return None


def same_segments(segments: Segments | Sequence[Segments]) -> list[Segments]:
    """Return one `Segments` for each prompt. Their segments must have the same names, in the same order.

    Raises:
        ResidscopeError: If `segments` does not come from `residscope.segments`, or the names differ.
    """
    several: Any = segments if isinstance(segments, Iterable) else ()  # pyright: ignore[reportUnnecessaryIsInstance]
    given: list[Any] = [segments] if isinstance(segments, Segments) else list(several)
    if not given or not all(isinstance(each, Segments) for each in given):
        raise ResidscopeError(
            "segments", "`segments` takes what `residscope.segments` returns, or a list of these, one for each prompt."
        )
    other = next((each for each in given if each.names != given[0].names), None)
    if other is not None:
        raise ResidscopeError(
            "segments",
            f"The segments of prompt {given[0].prompt} and of prompt {other.prompt} differ in number or names, so they "
            "do not fit in one result: use one prompt at a time, or give ranges with the same names.",
        )
    return given
