"""Rolls up the sources or positions of an attribution into one number for each segment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from residscope.base.packages import pandas
from residscope.cache.positions import is_about_mean, mean_note
from residscope.cache.segments import Segments, same_segments
from residscope.compute.farthest import farthest_first
from residscope.errors import ResidscopeError
from residscope.terms import By, Reduce

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from pandas import DataFrame
    from torch import Tensor

_ROLLED = {"source": "segment", "pos": "segment", "destination": "destination segment"}
"""The axes that are rolled up, and the names of the axes that take their place."""


@dataclass(frozen=True, eq=False)
class SegmentAttribution:
    """An attribution whose sources or positions are rolled up into segments. Made by `Attribution.by_segment`.

    As in the attribution, the sum of the rows + constant + unexplained = measured. If the rows are source segments,
    `padding` must be added to their sum.

    Attributes:
        values: For `by="source"` `[segment, head, batch]`, with `position="all"` `[segment, destination segment, head,
            batch]`. Otherwise `[component, batch, segment]`.
        axes: The names of the axes of `values`.
        labels: The labels along the first axis: names of segments, or labels of components.
        segments: The segments of each prompt, in the order of the axis `batch`.
        by: The decomposition.
        reduce: How the positions of a segment became one number: `"sum"` or `"mean"`. Sources are always summed.
        measured: The model's own value, with the axes of `values` after the first one.
        constant: The constant, with the axes of `measured`.
        unexplained: measured − Σ rows − constant (for source segments, also − `padding`), with the axes of `measured`.
        padding: For sources: the contribution of sources that are padding, which belong to no segment. Otherwise None.
        tolerance: Values of `unexplained` up to this are rounding. For means, this is the attribution's tolerance.
            If `unexplained` is summed, the tolerance is multiplied by the square root of the longest segment's length,
            because the errors of positions are independent.
        heads: For `by="source"`: the heads along the second-last axis of `values`.
        notes: Notes on these values, in sentences.
        on_padding: For sources at one position: in which prompts this position is padding, `[batch]`. Means over
            prompts leave them out. None: in no prompt, or there is only one prompt.
    """

    values: Float[Tensor, " row *each"]
    axes: tuple[str, ...]
    labels: list[str]
    segments: list[Segments]
    by: By
    reduce: Reduce
    measured: Float[Tensor, "*each"]
    constant: Float[Tensor, "*each"]
    unexplained: Float[Tensor, "*each"]
    padding: Float[Tensor, "*each"] | None
    tolerance: float
    heads: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    on_padding: Bool[Tensor, " batch"] | None = None

    def names(self, axis: str) -> list[str]:
        """Return the labels along an axis, such as `"segment"`. Prompts are numbers.

        Raises:
            ResidscopeError: If there is no such axis.
        """
        if axis not in self.axes:
            known = ", ".join(f'"{one}"' for one in self.axes)
            raise ResidscopeError("axis", f'There is no axis "{axis}": there are {known}.')
        if axis == "batch":
            return [str(each.prompt) for each in self.segments]
        if axis in _ROLLED.values():
            return self.segments[0].names
        return self.heads if axis == "head" else self.labels

    def mean(self) -> Float[Tensor, " row ..."]:
        """Return the mean over the prompts in which a cell has a value, and the target is not read at padding."""
        values, axis = self.values, self.axes.index("batch")
        if self.on_padding is not None:
            values = values.movedim(axis, -1)[..., ~self.on_padding.to(values.device)].movedim(-1, axis)
        return values.nanmean(axis)

    def top(self, k: int = 3) -> list[tuple[str, ...]]:
        """Return the k cells farthest from 0 in `mean`.

        Returns:
            A tuple for each cell: its label along each axis except `batch`, then its value. The cell farthest from 0 is
            first.
        """
        mean = self.mean()
        others = [axis for axis in self.axes if axis != "batch"]
        flat = mean.flatten()
        found: list[tuple[Any, ...]] = []
        for cell in farthest_first(flat, k):
            value, places = float(flat[cell]), list[int]()
            for size in reversed(mean.shape):
                places.insert(0, cell % size)
                cell //= size
            labels = [self.names(axis)[place] for axis, place in zip(others, places, strict=True)]
            found.append((*labels, value))
        return found

    def to_frame(self) -> DataFrame:
        """Return a pandas table: a row for each label of the first axis, a column for each cell of the other axes.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        names = [{"batch": "prompt"}.get(axis, axis) for axis in self.axes[1:]]
        columns = pd.MultiIndex.from_product([self.names(axis) for axis in self.axes[1:]], names=names)
        index = pd.Index(self.labels, name=self.axes[0])
        return pd.DataFrame(self.values.flatten(1).cpu().numpy(), index=index, columns=columns)

    def __repr__(self) -> str:
        shape = " × ".join(f"{size} {axis}" for axis, size in zip(self.axes, self.values.shape, strict=True))
        cells = "; ".join(f"{', '.join(map(repr, labels))} {value:+.3f}" for *labels, value in self.top(2))
        how = (
            ""
            if not any(axis in ("pos", "segment", "destination segment") for axis in self.axes[1:])
            else (f", {self.reduce} over the positions of a segment")
        )
        return (
            f'SegmentAttribution(by="{self.by}", {shape}{how}; {cells}'
            f"{''.join(f'; note: {note}' for note in self.notes)})"
        )


class _Rows(Protocol):
    """The fields of an `Attribution` that are read here. A protocol, because `result` imports this module."""

    @property
    def values(self) -> Tensor: ...
    @property
    def measured(self) -> Tensor: ...
    @property
    def constant(self) -> Tensor: ...
    @property
    def unexplained(self) -> Tensor: ...
    @property
    def axes(self) -> tuple[str, ...]: ...
    @property
    def by(self) -> By: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def heads(self) -> list[str]: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def padding(self) -> Tensor | None: ...


def rolled_up(
    rows: _Rows, labels: list[str], segments: Segments | Sequence[Segments], reduce: Reduce
) -> SegmentAttribution:
    """Return an attribution with its sources or positions rolled up into segments.

    Args:
        rows: The attribution.
        labels: The labels along its first axis.
        segments: The segments of one prompt, which is then the only prompt of the result. Or the segments of several
            prompts, with the same names.
        reduce: How the positions of a segment become one number. Sources are always summed.

    Raises:
        ResidscopeError: If the attribution has neither sources nor positions, or the segments belong to another cache.
    """
    import torch

    given = same_segments(segments)
    if reduce not in ("sum", "mean"):
        raise ResidscopeError("reduce", f'`reduce="{reduce}"` is not known: use "sum" or "mean".')
    chosen = [axis for axis in rows.axes if axis in _ROLLED]
    if not chosen:
        raise ResidscopeError(
            "segments",
            "This attribution has one position and no sources, so there is nothing to roll up: compute it with "
            '`by="source"`, or with `position="all"`.',
        )
    size = rows.values.shape[rows.axes.index(chosen[0])]
    for each in given:
        check_shape(each, size, rows.values.shape[rows.axes.index("batch")])
    parts = [_one(rows, each, reduce) for each in given]
    axes = tuple(_ROLLED.get(axis, axis) for axis in rows.axes)
    at = axes.index("batch")
    values, measured, constant, unexplained = (
        torch.stack([part[name] for part in parts], at - (name != "values"))
        for name in ("values", "measured", "constant", "unexplained")
    )
    has_padding = "padding" in parts[0]
    padding = torch.stack([part["padding"] for part in parts], at - 1) if has_padding else None
    # `unexplained` lacks the first axis. Along the others it is summed, or the mean is taken, like the values.
    added = any(axis == "source" or (axis in _ROLLED and reduce == "sum") for axis in rows.axes[1:])
    longest = max(len(segment) for each in given for segment in each) if added else 1
    on_padding, notes = _on_padding(rows, given)
    notes += dict.fromkeys(note for each in given for note in each.notes if note not in notes)
    read = padding if padding is None or on_padding is None else padding[..., ~on_padding.to(padding.device)]
    if read is not None and bool((read.abs() > rows.tolerance).any()):
        most = float(read.abs().nan_to_num(0.0).max())
        notes.append(f"Heads also read padding: {most:.2g} of a head's contribution is in no segment (see `.padding`).")
    missing = sum(int(part["missing"]) for part in parts)
    if missing:
        many = "1 position has" if missing == 1 else f"{missing} positions have"
        notes.append(f"{many} no value, because no token follows, and {'is' if missing == 1 else 'are'} left out.")
    return SegmentAttribution(
        values,
        axes,
        given[0].names if axes[0] == "segment" else labels,
        given,
        rows.by,
        reduce,
        measured,
        constant,
        unexplained,
        padding,
        rows.tolerance * math.sqrt(longest),
        rows.heads,
        notes,
        on_padding,
    )


def _on_padding(rows: _Rows, given: Sequence[Segments]) -> tuple[Tensor | None, list[str]]:
    """In which of the given prompts the position is padding, and the notes of the attribution, for these prompts."""
    if rows.padding is None or rows.padding.ndim > 1:  # at every position: segments are without padding
        return None, list(rows.notes)
    every, prompts = rows.padding, [each.prompt for each in given]
    padded = every[prompts]
    if sorted(prompts) == list(range(len(every))):
        return padded if len(every) > 1 else None, list(rows.notes)
    kept, count = [note for note in rows.notes if not is_about_mean(note)], int(padded.sum())
    if not count:
        return None, kept
    if len(given) == 1:
        return None, [*kept, "The position at which this prompt is read is padding."]
    return padded, [*kept, mean_note("The position", count, len(given))]


def check_shape(segments: Segments, positions: int, prompts: int) -> None:
    """Refuse segments that belong to a cache of another shape.

    Raises:
        ResidscopeError: If the number of positions differs, or there is no such prompt.
    """
    if segments.n_pos != positions:
        raise ResidscopeError(
            "segments",
            f"These segments are those of a cache with {segments.n_pos} positions, but this one has {positions}: call "
            "`residscope.segments` for this cache.",
        )
    if segments.prompt >= prompts:
        raise ResidscopeError(
            "segments", f"These segments are those of prompt {segments.prompt}, but there are only {prompts} prompts."
        )


def _one(rows: _Rows, segments: Segments, reduce: Reduce) -> dict[str, Tensor]:
    """The rolled-up tensors of one prompt, without the axis `batch`."""
    at = rows.axes.index("batch")
    axes = [axis for axis in rows.axes if axis != "batch"]
    values = rows.values.select(at, segments.prompt)
    found = {
        name: tensor.select(at - 1, segments.prompt)
        for name, tensor in (
            ("measured", rows.measured),
            ("constant", rows.constant),
            ("unexplained", rows.unexplained),
        )
    }
    missing = values.new_zeros(())
    if rows.axes[0] == "source":
        found["padding"] = outside(values, 0, segments)
        values = rolled(values, 0, segments)
    place = next((axes.index(axis) for axis in axes[1:] if axis in _ROLLED), None)
    if place is not None:
        sums_only = axes[place] == "source"
        if sums_only:
            found["padding"] = outside(found["measured"], place - 1, segments)
        empty = values.isnan().all(0)  # no token follows, so this position has no target
        real = rolled((~empty).to(values), place - 1, segments)
        inside = values.new_zeros(values.shape[place])
        for segment in segments:
            inside[segment.start : segment.end] = 1
        shape = [-1 if axis == place - 1 else 1 for axis in range(empty.ndim)]
        lost = (empty & inside.bool().view(shape)).movedim(place - 1, 0)
        missing = lost.reshape(len(lost), -1).any(1).sum()  # a position counts once, not once for each head
        values = _reduced(values.masked_fill(empty, 0), place, segments, real, mean=reduce == "mean" and not sums_only)
        for name, tensor in found.items():
            if name == "padding" and sums_only:
                continue
            kept = tensor.masked_fill(empty, 0)
            found[name] = _reduced(kept, place - 1, segments, real, mean=reduce == "mean" and not sums_only)
    return {"values": values, "missing": missing, **found}


def rolled(tensor: Tensor, axis: int, segments: Segments) -> Tensor:
    """Return the sum over each segment's positions along an axis."""
    import torch

    parts = [tensor.narrow(axis, segment.start, len(segment)).sum(axis) for segment in segments]
    return torch.stack(parts, axis)


def outside(tensor: Tensor, axis: int, segments: Segments) -> Tensor:
    """Return the sum over the positions that are in no segment. These positions are padding."""
    first, end = segments[0].start, segments[-1].end
    before, after = tensor.narrow(axis, 0, first), tensor.narrow(axis, end, tensor.shape[axis] - end)
    return before.sum(axis) + after.sum(axis)


def _reduced(tensor: Tensor, axis: int, segments: Segments, real: Tensor, *, mean: bool) -> Tensor:
    """The sum or the mean over the positions with a value. NaN if a segment has no position with a value."""
    summed = rolled(tensor, axis, segments)
    count = real if summed.ndim == real.ndim else real[None]
    return summed / count if mean else summed.masked_fill(count == 0, float("nan"))
