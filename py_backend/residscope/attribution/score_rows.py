"""Combines the decompositions of a score's parts, whose sum is the score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from residscope.attribution.attention_score import HeadScore
from residscope.attribution.result import Attribution
from residscope.terms import Component

if TYPE_CHECKING:
    from torch import Tensor


def summed(parts: Sequence[Attribution], score: HeadScore) -> Attribution:
    """Add up decompositions that are read at several positions, and add the rows that no component writes.

    Args:
        parts: The decomposition of each part of the score, all with the same kind of rows.
        score: The score.
    """
    first, *others = parts
    components, values, split = united(parts)
    measured, constant, unexplained = first.measured, first.constant, first.unexplained
    for part in others:
        measured, constant = measured + part.measured, constant + part.constant
        unexplained = unexplained + part.unexplained
    notes = _notes(parts, score)
    through = first.target is not None and bool(first.target.through)
    if first.by != "source" and not through:
        notes = score.notes() + notes
        components, values, constant, measured = _with_extra(score, first.by, components, values, constant, measured)
    missing = [name for part in parts for name in part.missing]
    return replace(
        first,
        values=values,
        components=components,
        measured=measured,
        constant=constant,
        unexplained=unexplained,
        tolerance=max(first.tolerance, sum(part.tolerance**2 for part in parts) ** 0.5),
        notes=list(dict.fromkeys(notes)),
        missing=list(dict.fromkeys(missing)),
        own=first.own and (through or score.own),
        measured_from=first.measured_from if through or first.by == "source" else score.measured_from,
        _parts=split,
    )


def _notes(parts: Sequence[Attribution], score: HeadScore) -> list[str]:
    """The notes of all parts. If a note does not hold for all parts, the source of its part is named."""
    notes: list[str] = []
    for i, part in enumerate(parts):
        places = sorted(set(score.key_positions[:, i].tolist())) if len(parts) > 1 else []
        others = "the other source" if i else "the source"
        where = f"source {places[0]}" if len(places) == 1 else others
        notes += [note if all(note in other.notes for other in parts) else f"At {where}: {note}" for note in part.notes]
    return notes


def _with_extra(
    score: HeadScore, by: str, components: list[Component], values: Tensor, constant: Tensor, measured: Tensor
) -> tuple[list[Component], Tensor, Tensor, Tensor]:
    """Add the position bias and the change by the soft-cap: as rows, or for `"accumulated"` to the constant."""
    import torch

    extra = score.extra
    if not extra:
        return components, values, constant, measured
    added = torch.stack(list(extra.values())).to(values)
    if by == "accumulated":
        constant = constant + added.sum(0)
    else:
        components, values = [*components, *extra], torch.cat([values, added])
    return components, values, constant, measured + added.sum(0)


def united(parts: Sequence[Attribution]) -> tuple[list[Component], Tensor, int | None]:
    """Return the sum of the parts' rows. A layer that only one part splits has both split rows and a whole row."""
    import torch

    first, *others = parts
    is_split = first.by in ("head", "neuron")
    if all(part.components == first.components for part in others):
        values = sum((part.values for part in others), start=first.values)
        return first.components, values, first.parts if is_split else None
    counts = [part.parts if is_split else 0 for part in parts]
    heads = [row for part, count in zip(parts, counts, strict=True) for row in part.components[:count]]
    rest = [row for part, count in zip(parts, counts, strict=True) for row in part.components[count:]]
    heads, rest = list(dict.fromkeys(heads)), list(dict.fromkeys(rest))
    components = [*heads, *rest]
    places = {row: place for place, row in enumerate(components)}
    values = first.values.new_zeros(len(components), *first.values.shape[1:])
    for part in parts:
        index = torch.tensor([places[row] for row in part.components], device=values.device)
        values.index_add_(0, index, part.values)
    return components, values, len(heads) if is_split else None
