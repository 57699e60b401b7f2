"""The table of a benchmark: one row for each piece of work, with a comparison and a goal. A missed goal is no error."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        work: The work and its shape.
        beside: What the work is compared with in the same run, with the version of its library.
        ours: The cost with Residscope: "3.1 ms".
        theirs: The cost on the other side.
        figure: The number to which the goal refers: "12 ×".
        goal: The goal as text: "≥ 6 ×".
        met: Whether the goal was reached. None without a goal.
        note: A remark for readers.
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
    """Return the rows as a Markdown table."""
    heads = ("work", "beside", "Residscope", "the other", "figure", "goal", "")
    marks = {True: "✓", False: "✗", None: ""}
    lines = [[r.work, r.beside, r.ours, r.theirs, f"**{r.figure}**", r.goal, marks[r.met]] for r in rows]
    table = [heads, ["---"] * len(heads), *lines]
    notes = [f"- {r.work}: {r.note}" for r in rows if r.note]
    return "\n".join([*("| " + " | ".join(line) + " |" for line in table), "", *notes]).rstrip()


def plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the rows for JSON."""
    return [asdict(row) for row in rows]


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def side_by_side(times: int, *works: Callable[[], object], each: int = 1) -> list[float]:
    """Return the median times of pieces of work in seconds. They run in turn, so that a busy machine slows all of them.

    Each piece of work runs once before the measurement. In each turn, it runs `each` times in succession.
    """
    for work in works:
        work()
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(times):
        for own, work in zip(taken, works, strict=True):
            own += [seconds(work) for _ in range(each)]
    return [statistics.median(own) for own in taken]


def spoken(taken: float) -> str:
    """Return a time as text: "0.35 ms", "12 ms", "1.4 s"."""
    for factor, unit in ((1, "s"), (1e3, "ms")):
        if taken * factor >= 1:
            return f"{taken * factor:.3g} {unit}"
    return f"{taken * 1e3:.2g} ms"
