"""What a benchmark says: one row for each piece of work, beside something else, and the goal. Nothing here asserts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: What was done, and its shape.
        beside: What was done beside it in the same run, with its version.
        ours: What Residscope took: "3.1 ms".
        theirs: What the other side took.
        figure: What the goal is about: "12 ×".
        goal: The goal in words: "≥ 6 ×".
        met: Whether it was reached; None where there is none.
        note: What a reader should know.
    """

    work: str
    beside: str
    ours: str
    theirs: str
    figure: str
    goal: str
    met: bool | None
    note: str = ""


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    heads = ("work", "beside", "Residscope", "the other", "figure", "goal", "")
    marks = {True: "✓", False: "✗", None: ""}
    lines = [[r.work, r.beside, r.ours, r.theirs, f"**{r.figure}**", r.goal, marks[r.met]] for r in rows]
    table = [heads, ["---"] * len(heads), *lines]
    notes = [f"- {r.work}: {r.note}" for r in rows if r.note]
    return "\n".join([*("| " + " | ".join(line) + " |" for line in table), "", *notes]).rstrip()


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows for JSON."""
    return [asdict(row) for row in rows]


def seconds(work: Callable[[], object]) -> float:
    """How long it takes, once."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def side_by_side(times: int, *works: Callable[[], object], each: int = 1) -> list[float]:
    """The median times of pieces of work in seconds, run in turn so that a busy machine slows all alike.

    Each is run once before, uncounted; in its turn it is run `each` times, as somebody does who works with it.
    """
    for work in works:
        work()
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(times):
        for own, work in zip(taken, works, strict=True):
            own += [seconds(work) for _ in range(each)]
    return [statistics.median(own) for own in taken]


def spoken(taken: float) -> str:
    """A time in words: "0.35 ms", "12 ms", "1.4 s"."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if taken * factor >= 1:
            return f"{taken * factor:.3g} {unit}"
    return f"{taken * 1e3:.2g} ms"
