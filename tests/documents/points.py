"""`npm run docs`: targets inside the model, on every decoder family, compared with the model's own forward pass."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from tests.support import tiny
from tests.support.point_families import COLUMNS, Row, measured, scores
from tests.support.score_families import COLUMNS as SCORES

EXACT, RIGHT = 1e-5, 1e-4
"""Limits of agreement, relative to the largest row: EXACT for what the rows leave unexplained, RIGHT for each row."""


def main(path: Path) -> None:
    """Run everything and write the document."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = {family: measured(family) | scores(family) for family in tiny.FAMILIES}
    path.write_text("\n".join(written(found)) + "\n", encoding="utf-8")
    print(path)


def written(found: dict[str, dict[str, Row]]) -> list[str]:
    """Return the document."""
    columns = [*COLUMNS, *SCORES]
    remarks: dict[str, int] = {}
    lines: list[str] = []
    for family, rows in found.items():
        said = dict.fromkeys(note for row in rows.values() if _is_odd(row) for note in row.said)
        numbers = ", ".join(str(remarks.setdefault(note, len(remarks) + 1)) for note in said)
        lines.append(f"| {family} | {' | '.join(rows[column].cell for column in columns)} | {numbers} |")
    return [
        "# Targets inside the model",
        "",
        "What a neuron reads (`neuron`, `up`), a head's source contribution (`output`), a direction in the residual",
        "stream, and an attention score by its query and by its key, on tiny random models of "
        f"{len(found)} families. Made by",
        "`npm run docs`; do not edit.",
        "",
        "The first number of a cell is what the rows leave unexplained. The second is the largest difference between a",
        "row and its expected value. Both are relative to the largest row. The expected values come from the model's",
        "own forward: if a component is removed from what is read, with the norm's scale frozen, the target changes by",
        "the component's row. A dash: no component could be removed. **Bold**: more than rounding; the last column has",
        "the reason.",
        "",
        f"Exact (rows sum to {EXACT:g}, and each is right to {RIGHT:g}), of {len(found)} families: "
        + ", ".join(f"{column} {_exact(found, column)}" for column in columns)
        + ". Refused: "
        + ", ".join(f"{column} {sum(rows[column].refused for rows in found.values())}" for column in columns)
        + ".",
        "",
        f"| family | {' | '.join(columns)} | remarks |",
        f"|---|{'---|' * (len(columns) + 1)}",
        *lines,
        "",
        *(f"{number}. {note}" for note, number in remarks.items()),
    ]


def _is_odd(row: Row) -> bool:
    """Return whether a cell needs a remark."""
    return row.refused or not (row.left < EXACT and (row.off or 0.0) < RIGHT)


def _exact(found: dict[str, dict[str, Row]], column: str) -> int:
    return sum(not _is_odd(rows[column]) for rows in found.values())


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2] / "py_backend/docs/points.md")
