"""The rows and positions that two decompositions have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from residscope.attribution.result import Attribution
from residscope.errors import ResidscopeError
from residscope.terms import Component, ComponentKind

if TYPE_CHECKING:
    from torch import Tensor

NOT_WRITTEN: tuple[ComponentKind, ...] = ("position_bias", "soft_cap")
"""Kinds of rows that no component writes to the stream."""

_ZERO_IF_ABSENT: tuple[ComponentKind, ...] = ("attn_bias", "mlp_bias", *NOT_WRITTEN)
"""A row of one of these kinds counts as 0 in a run without it. Rows of other kinds are left out if only one run has
them."""

POSITION_AXES = ("pos", "destination", "source")


@dataclass(frozen=True)
class Selection:
    """Some rows of a decomposition, in another order, and some positions.

    Attributes:
        rows: The index of each row. None for a row of zeros.
        places: The positions, in this order, along each axis of positions. None: all positions.
    """

    rows: list[int | None]
    places: list[int] | None

    def of(self, values: Tensor, axes: Sequence[str]) -> Tensor:
        """Return the selected values of a tensor with these axes."""
        import torch

        if self.places is not None:
            index = torch.tensor(self.places, device=values.device)
            for axis, name in enumerate(axes):
                values = values.index_select(axis, index) if name in POSITION_AXES else values
        if axes[0] != "component" or self.rows == list(range(len(values))):
            return values
        places = [len(values) if row is None else row for row in self.rows]
        values = torch.cat([values, values.new_zeros(1, *values.shape[1:])])
        return values[torch.tensor(places, device=values.device)]


def selections(
    first: Attribution, second: Attribution, pairs: Sequence[tuple[int, int]] | None
) -> tuple[Selection, Selection, tuple[list[Component], list[Component]]]:
    """Return the parts of each decomposition that are compared, and their rows.

    Args:
        first: The decomposition of the first run.
        second: The decomposition of the second run.
        pairs: The matched positions. None: positions with the same index.

    Raises:
        ResidscopeError: If the two runs have no row in common.
    """
    places = [None if pairs is None else [pair[at] for pair in pairs] for at in (0, 1)]
    if first.by == "source":
        one, two = (
            of.components if at is None else [of.components[i] for i in at]
            for of, at in zip((first, second), places, strict=True)
        )
        return Selection([], places[0]), Selection([], places[1]), (one, two)
    known = [{row: at for at, row in enumerate(one.components)} for one in (first, second)]
    every = list(dict.fromkeys([*first.components, *second.components]))
    rows = [row for row in every if row.kind in _ZERO_IF_ABSENT or all(row in one for one in known)]
    if not rows:
        raise ResidscopeError(
            "compare-rows",
            f"The two runs have no row in common: the first has {', '.join(first.labels[:3])}, the second "
            f"{', '.join(second.labels[:3])}. Cache the same activations in both.",
        )
    one, two = (Selection([of.get(row) for row in rows], at) for of, at in zip(known, places, strict=True))
    return one, two, (rows, rows)


def selected(result: Attribution, selection: Selection, rows: list[Component]) -> Attribution:
    """Return a decomposition with only these rows and positions. Other rows become part of `unexplained`."""
    values = selection.of(result.values, result.axes)
    measured, constant = (selection.of(part, result.axes[1:]) for part in (result.measured, result.constant))
    total = values[-1] if result.by == "accumulated" else values.sum(0)
    unexplained = selection.of(result.unexplained, result.axes[1:])
    if not set(rows).issuperset(result.components):
        unexplained = measured - total - constant
    parts = None if result.by not in ("head", "neuron") else sum(row.kind == result.by for row in rows)
    return replace(
        result,
        values=values,
        components=rows,
        measured=measured,
        constant=constant,
        unexplained=unexplained,
        _parts=parts,
    )


def left_out(first: Attribution, second: Attribution, rows: list[Component]) -> list[str]:
    """Return a note on rows that only one run has."""
    if first.by == "source":
        return []
    known = set(rows)
    only = [[row.label for row in one.components if row not in known] for one in (first, second)]
    if not any(only):
        return []
    listed = [
        f"the {name} run has {', '.join(labels[:4])}{f' and {len(labels) - 4} more' if len(labels) > 4 else ''}"
        for name, labels in zip(("first", "second"), only, strict=True)
        if labels
    ]
    kind = "points" if first.by == "accumulated" else "rows"
    then = "" if first.by == "accumulated" else ", and what they contribute is part of `unexplained`"
    return [f"Only one run has some {kind}: {' and '.join(listed)}. They are left out{then}."]
