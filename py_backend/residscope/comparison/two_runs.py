"""The decompositions of two runs, and their difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from residscope.attribution.attribute import check_asked, with_notes
from residscope.attribution.decompose import Query, decomposition, joined
from residscope.attribution.decomposition import Decomposition
from residscope.attribution.result import Attribution
from residscope.cache import positions
from residscope.cache.positions import Positions
from residscope.cache.view import CacheView
from residscope.comparison.alignment import Align, Alignment, Pairs, alignment_of
from residscope.comparison.matching import NOT_WRITTEN, POSITION_AXES, left_out, selected, selections
from residscope.comparison.notes import named_positions, of_runs, target_notes, token_notes
from residscope.comparison.result import Comparison
from residscope.comparison.runs import Run, told_of
from residscope.comparison.same_shape import check_same_ids
from residscope.errors import ResidscopeError
from residscope.terms import AttentionScore, Target

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int
    from torch import Tensor


@dataclass(frozen=True)
class _Side:
    """The target in one of the runs, and the position at which it is read.

    Attributes:
        name: "first" or "second".
        run: The run.
        target: The target in this run.
        where: The position of each prompt. None: every position.
        position: The position as the user gave it. In the second run, the matched positions may take its place.
    """

    name: Literal["first", "second"]
    run: Run
    target: Target
    where: Int[Tensor, " batch"] | None
    position: Positions

    def decomposed(self, query: Query) -> _Decomposed:
        """Return the decomposition of this run."""
        run, where = self.run, self.where
        asked = replace(query, target=self.target, where=where, again=True)
        with told_of(self.name):
            check_asked(run.view, self.target, where, self.position)
            found = decomposition(run.view, run.targets, asked, run.logits)
            return _Decomposed(self, found, with_notes(run.targets, found.result, self.position, run.logits))


@dataclass(frozen=True)
class _Decomposed:
    """A decomposition of one of the runs, and its result with all notes."""

    side: _Side
    found: Decomposition
    result: Attribution


def compared(
    one: tuple[Run, Target], two: tuple[Run, Target], query: Query, position: Positions, align: Align | None
) -> Comparison:
    """Compare a target in two runs with the same number of prompts.

    Args:
        one: The first run, and the target in it.
        two: The second run, and the target in it.
        query: The decomposition.
        position: Where the target is read in the first run.
        align: Which positions are matched.
    """
    (first, target), (second, other) = one, two
    vocabularies = first.targets.vocabulary, second.targets.vocabulary
    notes = check_same_ids(target, *vocabularies)
    check_same_ids(other, *vocabularies)
    alignment, named = alignment_of(first, second, align), bool(named_positions(target))
    other = alignment.of_target(other) if named else other
    where = positions.resolve(first.view, position)
    beside = _beside(second, position, where, alignment)
    sides = (
        _Side("first", first, target, where, position),
        _Side(
            "second",
            second,
            other,
            beside,
            position if beside is None or isinstance(position, str) else beside.tolist(),
        ),
    )
    found = _alike([side.decomposed(query) for side in sides], query)
    if found[0].found.parts[0].score is not None:
        _check_all_sources(alignment)
    axes = found[0].result.axes
    pairs = alignment.common() if any(axis in POSITION_AXES for axis in axes) else None
    if pairs is not None or named or not isinstance(position, str):
        notes += alignment.notes
    places = _places(target, where, beside)
    notes += token_notes(first, second, (target, other), places, pairs, axes)
    notes += target_notes((target, other), (found[0].found.score, found[1].found.score), alignment)
    result = _difference(found, None if alignment.is_index else pairs, alignment, notes, places)
    if where is None or beside is None:
        if pairs is None or not ("pos" in axes or "destination" in axes):
            return result
        return _at_all_positions(result, first.view, second.view, pairs)
    # At one position, a prompt that is left out of one run is left out of both, so that the means add up.
    every = [positions.are_padding(run.view, at) for run, at in ((first, where), (second, beside))]
    padded = [one for one in every if one is not None]
    either = padded[0] | padded[-1] if padded else None
    runs = [replace(run, padding=either) for run in (result.first, result.second)]
    return replace(result, padding=either, first=runs[0], second=runs[1])


def _at_all_positions(result: Comparison, first: CacheView, second: CacheView, pairs: Pairs) -> Comparison:
    """The comparison with the padding that means leave out. Padding in either run is padding of the difference."""
    own, others = (
        ~positions.real(view)[:, list(places)]
        for view, places in zip((first, second), zip(*pairs, strict=True), strict=True)
    )
    return replace(
        result,
        padding=own | others,
        first=replace(result.first, padding=own),
        second=replace(result.second, padding=others),
    )


def _alike(found: list[_Decomposed], query: Query) -> list[_Decomposed]:
    """The decompositions, with the same rows in both runs: components that share a row in one run share it in both."""
    every = [structure for one in found for structure in one.found.structures]
    alike = replace(query, like=every)
    return [
        one
        if all(joined(structure, every) == structure for structure in one.found.structures)
        else one.side.decomposed(alike)
        for one in found
    ]


def _beside(second: Run, position: Positions, where: Tensor | None, alignment: Alignment) -> Tensor | None:
    """Where the target is read in the second run: at the matched positions. "last" and "all" are those of this run."""
    import torch

    if where is None or isinstance(position, str):
        with told_of("second"):
            return positions.resolve(second.view, position)
    places: list[int] = where.tolist()
    return torch.tensor([alignment.second(prompt, at) for prompt, at in enumerate(places)], device="cpu")


def _difference(
    found: Sequence[_Decomposed], pairs: Pairs | None, alignment: Alignment, notes: list[str], where: Pairs
) -> Comparison:
    """The difference, second − first, with its two parts."""
    one, device = found[0].result, found[0].result.values.device
    two = _moved(found[1].result, device)
    crossed = [
        found[0].found.read_by(found[1].found, lambda values: _placed(values, pairs, alignment.lengths[0])),
        found[1]
        .found.read_by(found[0].found, lambda values: _placed(values, _exchanged(pairs), alignment.lengths[1]))
        .to(device),
    ]
    pick_one, pick_two, rows = selections(one, two, pairs)
    by_other = pick_one.of(crossed[0], one.axes), pick_two.of(crossed[1], two.axes)
    first, second = selected(one, pick_one, rows[0]), selected(two, pick_two, rows[1])
    values, turned = second.values - first.values, by_other[1] - by_other[0]
    written, read = (values + turned) / 2, (values - turned) / 2
    for at, row in enumerate(rows[0]):
        if row.kind in NOT_WRITTEN:
            written[at], read[at] = 0, values[at]
    measured, constant, unexplained = (
        getattr(second, name) - getattr(first, name) for name in ("measured", "constant", "unexplained")
    )
    if pairs is not None:
        notes = notes + alignment.left_out()
    return Comparison(
        values=values,
        components=rows[0],
        measured=measured,
        constant=constant,
        unexplained=unexplained,
        by=one.by,
        measured_from=_both(one.measured_from, two.measured_from),
        tolerance=one.tolerance + two.tolerance,
        notes=notes + left_out(one, two, rows[0]) + of_runs(one.notes, two.notes),
        own=one.own and two.own,
        axes=one.axes,
        heads=one.heads,
        missing=list(dict.fromkeys([*one.missing, *two.missing])),
        target=one.target,
        model=_both(one.model, two.model),
        written=written,
        read=read,
        first=first,
        second=second,
        positions=_all_pairs(one, pairs, alignment),
        where=where,
        _parts=first._parts,  # pyright: ignore[reportPrivateUsage]
        _grid=first._grid,  # pyright: ignore[reportPrivateUsage]
    )


def _moved(result: Attribution, device: torch.device) -> Attribution:
    """The same decomposition, with all tensors on another device."""
    names = ("values", "measured", "constant", "unexplained")
    return replace(result, **{name: getattr(result, name).to(device) for name in names})


def _all_pairs(result: Attribution, pairs: Pairs | None, alignment: Alignment) -> Pairs:
    """The pairs of positions along the axes of positions. Empty without such an axis."""
    if not any(axis in POSITION_AXES for axis in result.axes):
        return []
    return alignment.common() if pairs is None else pairs


def _exchanged(pairs: Pairs | None) -> Pairs | None:
    return None if pairs is None else [(two, one) for one, two in pairs]


def _placed(values: Tensor, pairs: Pairs | None, length: int) -> Tensor:
    """Values at another run's positions, moved to the matched positions of this run. 1 at positions without a match."""
    if pairs is None:
        return values
    placed = values.new_ones(*values.shape[:-1], length)
    placed[..., [pair[0] for pair in pairs]] = values[..., [pair[1] for pair in pairs]]
    return placed


def _both(one: str, two: str) -> str:
    return one if one == two else f"{one}; in the second run {two}"


def _places(target: Target, where: Tensor | None, beside: Tensor | None) -> Pairs:
    """Where the target is read in each prompt, in both runs.

    Empty if the target is read at every position, or is an attention score, which has its own positions.
    """
    if where is None or beside is None or isinstance(target.inner, AttentionScore):
        return []
    return list(zip(where.tolist(), beside.tolist(), strict=True))


def _check_all_sources(alignment: Alignment) -> None:
    """Refuse runs that are not matched index by index, because the score is read at all sources at once."""
    if not alignment.is_index:
        raise ResidscopeError(
            "align",
            "On the key side, a score that is compared with the mean is read at all sources. So the two runs need the "
            'same length and the same padding, without `align=`. Compare with one source (`versus="most"`), or use '
            '`side="query"`.',
        )
