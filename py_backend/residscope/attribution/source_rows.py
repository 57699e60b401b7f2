"""The rows of a decomposition by sources: what heads move from each source token into the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residscope.attribution.decomposition import Part
from residscope.attribution.head_inputs import gated, read_names
from residscope.attribution.head_split import Checked, check_split, unchecked
from residscope.attribution.readout import Functional, Readout
from residscope.attribution.result import Attribution
from residscope.attribution.rounding import source_tolerance
from residscope.attribution.sources import not_from_sources, sources, wanted_heads
from residscope.cache.component_names import name
from residscope.cache.finite import check_finite
from residscope.cache.norms import odd_final_norm
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed
from residscope.terms import Component

if TYPE_CHECKING:
    from torch import Tensor


def source_rows(readout: Readout, heads: object, to_explain: Tensor | None) -> Part:
    """Return the source contributions of heads. `measured` is the contribution of each head, from `hook_z`."""
    view = readout.view
    named = wanted_heads(view, heads)
    wanted = [(layer, head) for layer, head in named if layer < readout.structure.layers]
    later = [name(*head) for head in named if head not in wanted]
    layers = sorted({layer for layer, _ in wanted})
    if not wanted:
        raise ResidscopeError("order", _after_point(readout, later))
    notes = changed(view) + check_split(view, layers, Checked(), lambda: (readout, to_explain))
    values, measured = sources(readout, wanted)  # [source, destination, head, batch], [destination, head, batch]
    unexplained = measured - values.sum(0)
    check_finite(view, unexplained)  # NaN or infinity in any value remains in this difference
    step = view.rounding_step(*(name for at in layers for name in read_names(view, at)))
    tolerance = source_tolerance(step, values, 0, readout.floor)
    notes += gated(view, layers) + unchecked(view, layers) + odd_final_norm(view)
    if bool((unexplained.abs() > tolerance).any()):
        notes.append(not_from_sources(float(unexplained.abs().max())))
    if later:
        notes.append(_after_point(readout, later))
    places = [wanted.index(head) if head in wanted else len(wanted) for head in named]

    def shaped(part: Tensor, axis: int = 0) -> Tensor:
        part = _with_zeros(part, places) if later else part
        return part if readout.positions is None else part.squeeze(axis)

    result = Attribution(
        shaped(values, 1),
        [Component("source", index=position) for position in range(view.n_pos)],
        shaped(measured),
        shaped(measured) * 0,
        shaped(unexplained),
        by="source",
        measured_from="the contribution of each head by its own output (hook_z)",
        tolerance=tolerance,
        notes=notes,
        axes=("source", "destination", "head", "batch") if readout.positions is None else ("source", "head", "batch"),
        heads=[name(*head) for head in named],
    )

    def read(functional: Functional) -> Tensor:
        return shaped(sources(readout.by(functional), wanted)[0], 1)

    return Part(result, readout.functional, readout.functional.divisor, None, read)


def _with_zeros(values: Tensor, places: list[int]) -> Tensor:
    """Values by head, `[..., head, batch]`, in the order of `places`. An index after the last head stands for 0."""
    import torch

    zero = values.new_zeros(*values.shape[:-2], 1, values.shape[-1])
    return torch.cat([values, zero], dim=-2)[..., places, :]


def _after_point(readout: Readout, heads: Sequence[str]) -> str:
    one = len(heads) == 1
    return (
        f"{', '.join(heads)} {'does' if one else 'do'} not write before the point `{readout.point.place.label}`, where "
        f"the target is read: {'its contribution is' if one else 'their contributions are'} 0."
    )
