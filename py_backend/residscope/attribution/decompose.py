"""The decompositions behind `attribute`: from a target to rows that sum to it.

Σ rows + constant + unexplained = measured, for each prompt (for `"accumulated"` the last row replaces the sum).
`unexplained` is only rounding if the rows cover everything that the model does; otherwise a note says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from residscope.attribution import components
from residscope.attribution.component_vectors import read_rows
from residscope.attribution.components import Plan, Rows
from residscope.attribution.head_inputs import gated, read_names
from residscope.attribution.head_split import Checked, check_split, unchecked
from residscope.attribution.missing import check_cached, missing_notes
from residscope.attribution.model_value import model_value, output_notes
from residscope.attribution.readout import Readout
from residscope.attribution.reconcile import expected_sum, gap, reasons, reconcile, stream_tolerance
from residscope.attribution.result import Attribution
from residscope.attribution.sources import not_from_sources, source_tolerance, sources, wanted_heads
from residscope.attribution.targets import Targets
from residscope.attribution.word_spaces import without_space
from residscope.cache.component_names import name
from residscope.cache.finite import check_finite
from residscope.cache.norms import odd_final_norm
from residscope.cache.structure import Structure, named_layers, neuron_weight, out_weight, why_unread
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed
from residscope.terms import By, Component, NormConvention, Target

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


@dataclass(frozen=True)
class Query:
    """What is decomposed, and how.

    Attributes:
        target: The target.
        by: The components.
        where: A position of each prompt, at which the target is read; None is every position.
        norm: The convention for the final norm's scale, for `"accumulated"`.
        layers: The layers of the neurons, for `"neuron"`; None is all layers.
        heads: The heads whose sources are the rows, for `"source"`.

    Raises:
        ResidscopeError: If options contradict each other.
    """

    target: Target
    by: By
    where: Int[Tensor, " batch"] | None
    norm: NormConvention = "frozen"
    layers: int | Sequence[int] | None = None
    heads: Any = None

    def __post_init__(self) -> None:
        _check(self.by, self.norm, self.layers, self.heads)


def decompose(view: CacheView, targets: Targets, query: Query, logits: Tensor | None = None) -> Attribution:
    """Decompose a target.

    Args:
        view: The cache.
        targets: Resolves targets in it.
        query: What is decomposed, and how.
        logits: The model's output `[batch, pos, d_vocab]`, if it was given.

    Raises:
        ResidscopeError: If something that is needed was not cached, or is not finite.
    """
    target, by, where, norm = query.target, query.by, query.where, query.norm
    # If the scale is recomputed at each point, the final one is not needed; a run that stopped early has none.
    frozen = not (by == "accumulated" and norm == "recomputed")
    check_cached(view, by, frozen=frozen)
    readout = Readout(view, where, *targets.functional(target), frozen=frozen)
    measured = model_value(readout, targets, target, logits)
    constant = readout.functional.constant + measured.cap_change
    if by == "source":
        result = _sources(readout, query.heads, None if measured.value is None else measured.value - constant)
        notes = result.notes + without_space(targets, target, where, logits)
        return replace(result, notes=notes, target=target, model=view.model_name)
    wanted = components.wanted_layers(view, query.layers) if by == "neuron" else []
    to_explain = None if measured.value is None else measured.value - constant
    if by == "accumulated":
        structure = readout.structure
        rows = read_rows(readout, components.accumulated(structure, recomputed=norm == "recomputed"))
        total = rows.values[-1]
        if Component("final_post") not in rows.components:  # the model's output is not its prediction at this point
            to_explain = None
        largest = gap(to_explain, total)
        finite = math.isfinite(largest) and bool(rows.values.isfinite().all())  # every row, not only the last
        tolerance = stream_tolerance(readout, total, logits)
    else:
        build = partial(_rows, readout, by, wanted)
        result = reconcile(readout, build, expected_sum(readout, to_explain), to_explain, logits)
        structure, rows, tolerance, largest = result.structure, result.rows, result.tolerance, result.unexplained
        total, finite = rows.values.sum(0), result.finite
    if not finite:
        check_finite(view, rows.values, total, constant, measured.value)
    value = total.new_full(constant.shape, float("nan")) if measured.value is None else measured.value
    unexplained = value - total - constant
    notes = changed(view) + without_space(targets, target, where, logits) + output_notes(targets, target, measured)
    notes += structure.notes() + _unsplit_notes(structure, by, wanted) + missing_notes(structure, by, rows)
    notes += view.memo.once(("cut",), lambda: ([cut for cut in (view.cut(),) if cut],))[0]
    if norm == "frozen" and largest > tolerance:
        why = reasons(readout, structure, value - constant, tolerance, None if by == "accumulated" else rows)
        notes += [reason for reason in why if reason not in notes]
    columns = (rows.values, value, constant, unexplained)
    columns = columns if where is None else tuple(t.squeeze(-1) for t in columns)
    return Attribution(
        columns[0],
        rows.components,
        *columns[1:],
        by=by,
        measured_from=measured.source,
        own=measured.own,
        tolerance=tolerance,
        notes=notes,
        axes=("component", "batch", "pos") if where is None else ("component", "batch"),
        missing=list(rows.missing),
        target=target,
        model=view.model_name,
        _parts=rows.parts,
        _grid=(view.n_layers, view.n_heads) if by == "head" else None,
    )


def _sources(readout: Readout, heads: Any, to_explain: Tensor | None) -> Attribution:
    """The source contributions of heads; `measured` is the contribution of each head by its `z`."""
    view = readout.view
    wanted = wanted_heads(view, heads)
    layers = sorted({layer for layer, _ in wanted})
    notes = changed(view) + check_split(view, layers, Checked(), lambda: (readout, to_explain))
    values, measured = sources(readout, wanted)  # [source, destination, head, batch], [destination, head, batch]
    unexplained = measured - values.sum(0)
    check_finite(view, unexplained)  # NaN or infinity in a value remains in the sum
    tolerance = source_tolerance(
        view.rounding_step(*(name for at in layers for name in read_names(view, at))), values, 0
    )
    notes += gated(view, layers) + unchecked(view, layers) + odd_final_norm(view)
    if bool((unexplained.abs() > tolerance).any()):
        notes.append(not_from_sources(float(unexplained.abs().max())))
    if readout.positions is not None:
        values, measured, unexplained = values.squeeze(1), measured.squeeze(0), unexplained.squeeze(0)
    return Attribution(
        values,
        [Component("source", index=position) for position in range(view.n_pos)],
        measured,
        measured * 0,
        unexplained,
        by="source",
        measured_from="the contribution of each head by its own output (hook_z)",
        tolerance=tolerance,
        notes=notes,
        axes=("source", "destination", "head", "batch") if readout.positions is None else ("source", "head", "batch"),
        heads=[name(*head) for head in wanted],
    )


def _rows(
    readout: Readout, by: Literal["layer", "neuron", "head"], wanted: Sequence[int], structure: Structure
) -> Rows:
    """The rows of a decomposition whose rows sum to the target."""

    def plan() -> Plan:
        match by:
            case "layer":
                return components.layers(structure)
            case "neuron":
                return components.neurons(structure, wanted)
            case "head":
                return components.heads(structure)

    return read_rows(readout, readout.view.memo.once(("plan", by, *wanted, structure.key), plan))


def _unsplit_notes(structure: Structure, by: By, wanted: Sequence[int]) -> list[str]:
    """Notes on the layers that have no heads or neurons."""
    view = structure.view
    return list(view.memo.once(("unsplit notes", by, *wanted), lambda: tuple(_none_in(view, by, wanted))))


def _none_in(view: CacheView, by: By, wanted: Sequence[int]) -> list[str]:
    if by == "head":
        others = [layer for layer in range(view.n_layers) if out_weight(view, layer) is None]
        note = "There are no attention heads in {}: the mixer there is one row."
        unread = {layer: why_unread(view, layer, "attn") for layer in others}
    else:
        others = [layer for layer in wanted if neuron_weight(view, layer) is None]
        note = "There are no plain neurons in {}: the MLP is one row."
        unread = {layer: why_unread(view, layer, "mlp") for layer in others}
    notes = (
        [note.format(named_layers(without))] if (without := [layer for layer in others if not unread[layer]]) else []
    )
    unreadable = [layer for layer in others if unread[layer]]
    return [*notes, f"In {named_layers(unreadable)} this is one row: {unread[unreadable[0]]}"] if unreadable else notes


def _check(by: str, norm: str, layers: Any, heads: Any) -> None:
    """Refuse options that contradict each other."""
    if by not in get_args(By):
        choice = ", ".join(f'"{name}"' for name in get_args(By))
        raise ResidscopeError("by", f'`by="{by}"` is not known: use {choice}.')
    if norm not in get_args(NormConvention):
        raise ResidscopeError("norm", f'`norm="{norm}"` is not known: use "frozen" or "recomputed".')
    if norm == "recomputed" and by != "accumulated":
        raise ResidscopeError(
            "norm", f'`norm="recomputed"` is only for the logit lens (`by="accumulated"`), not for `by="{by}"`.'
        )
    if layers is not None and by != "neuron":
        raise ResidscopeError(
            "layers", f'`layers=` is only for neurons (`by="neuron"`); `by="{by}"` always uses all layers.'
        )
    if heads is not None and by != "source":
        raise ResidscopeError(
            "heads", f'`heads=` is only for source contributions (`by="source"`), not for `by="{by}"`.'
        )
