"""From a target to rows that add up to it: the decompositions behind `attribute`.

Σ rows + constant + unexplained = measured, for each prompt (for `"accumulated"` the last row stands for the sum);
`unexplained` is rounding where the rows cover all that the model does, and where they do not, a note says why.
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
from residscope.attribution.missing import absent, check_cached
from residscope.attribution.model_value import model_value, notes
from residscope.attribution.readout import Readout
from residscope.attribution.reconcile import gap, reasons, reconcile, rounding, stream_goal
from residscope.attribution.result import Attribution
from residscope.attribution.sources import not_by_reading, rounding_in, sources, wanted_heads
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
        norm: The convention of the final norm, for `"accumulated"`.
        layers: Whose neurons, for `"neuron"`; None is all layers.
        heads: Whose sources, for `"source"`.

    Raises:
        ResidscopeError: If options do not go together.
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
        query: What is asked.
        logits: The model's output `[batch, pos, d_vocab]`, where it was given.

    Raises:
        ResidscopeError: If something that is needed was not cached, or is not finite.
    """
    target, by, where, norm = query.target, query.by, query.where, query.norm
    # Recomputed at each point, the norm's scale at the end is not needed, and a run that stopped early has none.
    held = not (by == "accumulated" and norm == "recomputed")
    check_cached(view, by, held=held)
    readout = Readout(view, where, *targets.functional(target), held=held)
    measured = model_value(readout, targets, target, logits)
    constant = readout.functional.constant + measured.bent
    if by == "source":
        brought = _sources(readout, query.heads, None if measured.value is None else measured.value - constant)
        said = brought.notes + without_space(targets, target, where, logits)
        return replace(brought, notes=said, target=target, model=view.model_name)
    wanted = components.wanted_layers(view, query.layers) if by == "neuron" else []
    own = None if measured.value is None else measured.value - constant
    if by == "accumulated":
        structure = readout.structure
        rows = read_rows(readout, components.accumulated(structure, recomputed=norm == "recomputed"))
        total = rows.values[-1]
        if (
            Component("final_post") not in rows.components
        ):  # what the model says at its end is not what it would say here
            own = None
        left = gap(own, total)
        finite = math.isfinite(left) and bool(rows.values.isfinite().all())  # the last one is not their sum
        tolerance = rounding(readout, total, logits)
    else:
        fitted = reconcile(readout, partial(_rows, readout, by, wanted), stream_goal(readout, own), own, logits)
        structure, rows, tolerance, left = fitted.structure, fitted.rows, fitted.tolerance, fitted.left
        total, finite = rows.values.sum(0), fitted.finite
    if not finite:
        check_finite(view, rows.values, total, constant, measured.value)
    value = total.new_full(constant.shape, float("nan")) if measured.value is None else measured.value
    unexplained = value - total - constant
    said = changed(view) + without_space(targets, target, where, logits) + notes(targets, target, measured)
    said += structure.notes() + _without(structure, by, wanted) + absent(structure, by, rows)
    said += view.memo.once(("cut",), lambda: ([cut for cut in (view.cut(),) if cut],))[0]
    if norm == "frozen" and left > tolerance:
        why = reasons(readout, structure, value - constant, tolerance, None if by == "accumulated" else rows)
        said += [reason for reason in why if reason not in said]
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
        notes=said,
        axes=("component", "batch", "pos") if where is None else ("component", "batch"),
        missing=list(rows.missing),
        target=target,
        model=view.model_name,
        _parts=rows.parts,
        _grid=(view.n_layers, view.n_heads) if by == "head" else None,
    )


def _sources(readout: Readout, heads: Any, own: Tensor | None) -> Attribution:
    """What heads bring from each source; measured against what they are worth by their `z`."""
    view = readout.view
    wanted = wanted_heads(view, heads)
    layers = sorted({layer for layer, _ in wanted})
    said = changed(view) + check_split(view, layers, Checked(), lambda: (readout, own))
    values, measured = sources(readout, wanted)  # [source, destination, head, batch], [destination, head, batch]
    unexplained = measured - values.sum(0)
    check_finite(view, unexplained)  # a figure that is none leaves none in its sum
    tolerance = rounding_in(view.rounding_step(*(name for at in layers for name in read_names(view, at))), values, 0)
    said += gated(view, layers) + unchecked(view, layers) + odd_final_norm(view)
    if bool((unexplained.abs() > tolerance).any()):
        said.append(not_by_reading(float(unexplained.abs().max())))
    if readout.positions is not None:
        values, measured, unexplained = values.squeeze(1), measured.squeeze(0), unexplained.squeeze(0)
    return Attribution(
        values,
        [Component("source", index=position) for position in range(view.n_pos)],
        measured,
        measured * 0,
        unexplained,
        by="source",
        measured_from="what each head is worth by its own output (hook_z)",
        tolerance=tolerance,
        notes=said,
        axes=("source", "destination", "head", "batch") if readout.positions is None else ("source", "head", "batch"),
        heads=[name(*head) for head in wanted],
    )


def _rows(
    readout: Readout, by: Literal["layer", "neuron", "head"], wanted: Sequence[int], structure: Structure
) -> Rows:
    """The rows of a decomposition into parts."""

    def plan() -> Plan:
        match by:
            case "layer":
                return components.layers(structure)
            case "neuron":
                return components.neurons(structure, wanted)
            case "head":
                return components.heads(structure)

    return read_rows(readout, readout.view.memo.once(("plan", by, *wanted, structure.key), plan))


def _without(structure: Structure, by: By, wanted: Sequence[int]) -> list[str]:
    """A note on the layers that have no such parts at all."""
    view = structure.view
    return list(view.memo.once(("without", by, *wanted), lambda: tuple(_none_in(view, by, wanted))))


def _none_in(view: CacheView, by: By, wanted: Sequence[int]) -> list[str]:
    if by == "head":
        others = [layer for layer in range(view.n_layers) if out_weight(view, layer) is None]
        said = "There are no attention heads in {}: what mixes there is one row."
        unread = {layer: why_unread(view, layer, "attn") for layer in others}
    else:
        others = [layer for layer in wanted if neuron_weight(view, layer) is None]
        said = "There are no plain neurons in {}: the MLP is one row."
        unread = {layer: why_unread(view, layer, "mlp") for layer in others}
    notes = [said.format(named_layers(bare))] if (bare := [layer for layer in others if not unread[layer]]) else []
    closed = [layer for layer in others if unread[layer]]
    return [*notes, f"In {named_layers(closed)} this is one row: {unread[closed[0]]}"] if closed else notes


def _check(by: str, norm: str, layers: Any, heads: Any) -> None:
    """Refuse options that do not go together."""
    if by not in get_args(By):
        choice = ", ".join(f'"{name}"' for name in get_args(By))
        raise ResidscopeError("by", f'`by="{by}"` is not known: use {choice}.')
    if norm not in get_args(NormConvention):
        raise ResidscopeError("norm", f'`norm="{norm}"` is not known: use "frozen" or "recomputed".')
    if norm == "recomputed" and by != "accumulated":
        raise ResidscopeError(
            "norm", f'`norm="recomputed"` is a convention of the logit lens (`by="accumulated"`); `by="{by}"` has none.'
        )
    if layers is not None and by != "neuron":
        raise ResidscopeError("layers", f'`layers=` chooses neurons (`by="neuron"`); `by="{by}"` takes all layers.')
    if heads is not None and by != "source":
        raise ResidscopeError("heads", f'`heads=` chooses whose sources are shown (`by="source"`), not `by="{by}"`.')
