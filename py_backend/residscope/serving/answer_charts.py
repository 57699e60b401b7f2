"""Requests for the charts: what each component adds, and the strongest neurons."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from residscope.attribution.missing import lacking
from residscope.attribution.result import strongest
from residscope.cache import positions
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.serving.request_context import RequestContext
from residscope.terms import Component, ComponentTable, Position
from residscope.wire.envelope import Buffers, float32, number
from residscope.wire.protocol import Attribute, AttributionReply, NeuronsReply, RankNeurons

if TYPE_CHECKING:
    from torch import Tensor

_PER_PROMPT = 500_000
"""So many figures may travel with a mean, that a view can show what each prompt has."""


def attribution(scene: RequestContext, ask: Attribute) -> tuple[AttributionReply, Buffers]:
    """A decomposition."""
    import torch

    view, targets = scene.view, scene.targets
    prompt = view.check_prompt(ask.prompt)
    where = positions.resolve(view, ask.position)
    norm = ask.norm if ask.by == "accumulated" else "frozen"
    target, refusal = targets.resolve(ask.target), None
    try:
        result = scene.decomposed(target, ask.by, where, norm)
    except ResidscopeError as error:
        if ask.by != "head" or error.code not in ("no-heads", "missing-activation"):
            raise
        # No head can be distinguished from the others: the map is empty, the sentence a note, and the layers add up.
        try:
            result, refusal = scene.decomposed(target, "layer", where), str(error)
        except ResidscopeError:
            raise error from None

    def of(per_prompt: Tensor) -> Tensor:
        return _shown(per_prompt, prompt)

    def known(per_prompt: Tensor) -> float | None:
        return number(of(per_prompt))

    reply = AttributionReply(
        by=ask.by,
        components=ComponentTable.of(result.components),
        measured=known(result.measured),
        constant=float(of(result.constant)),
        unexplained=known(result.unexplained),
        # In the mean over prompts errors of opposite signs would cancel: the worst prompt is what is judged.
        worst=number(result.unexplained.abs().max()) if prompt is None else known(result.unexplained),
        tolerance=result.tolerance,
        measured_from=result.measured_from,
        own=result.own,
        prompts=view.batch if prompt is None else 1,
        notes=([refusal] if refusal else [])
        + [note for note in result.notes if note not in (refusal or "")]
        + (positions.assumed(view) if ask.position == "last" else [])
        + (_on_padding(view, ask.position) if prompt is None else []),
        refusal=refusal,
        missing=lacking(result.by, result.missing),
    )
    values = result.values
    if ask.by == "head":  # the whole map, also where layers without attention leave it empty
        parts = 0 if refusal else result.parts
        shape = (view.n_layers * view.n_heads, view.batch)
        heads = values.new_full(shape, math.nan) if refusal else result.grid.flatten(0, 1)
        rows = ComponentTable.of([*_every_head(view), *result.components[parts:]])
        reply = msgspec.structs.replace(reply, components=rows)
        values = torch.cat([heads, values[parts:]])
    buffers = [float32(of(values))]
    if prompt is None and view.batch > 1:
        buffers.append(float32(values.std(-1)))  # as `Attribution.std`
        if values.numel() <= _PER_PROMPT:
            buffers += [float32(values), float32(result.constant)]
            reply = msgspec.structs.replace(reply, per_prompt=True)
    return reply, buffers


def neurons(scene: RequestContext, ask: RankNeurons) -> tuple[NeuronsReply, Buffers]:
    """The strongest neurons of a layer, or of all."""
    view, targets = scene.view, scene.targets
    prompt = view.check_prompt(ask.prompt)
    where = positions.resolve(view, ask.position)
    target = targets.resolve(ask.target)
    result = scene.decomposed(target, "neuron", where, layers=ask.layer)
    rows = _shown(result.values, prompt)
    own = rows[: result.parts]
    chosen = strongest(own, min(max(ask.k, 1), 50))
    biases = [i for i, row in enumerate(result.components[result.parts :], result.parts) if row.kind == "mlp_bias"]
    reply = NeuronsReply(
        components=ComponentTable.of(result.components[i] for i in chosen),
        count=result.parts,
        layers=1 if ask.layer is not None else len({row.layer for row in result.components[: result.parts]}),
        total=float(own.sum()),
        bias=float(rows[biases].sum()),
        notes=result.notes + (positions.assumed(view) if ask.position == "last" else []),
    )
    return reply, [float32(own[chosen])]


def _on_padding(view: CacheView, position: Position) -> list[str]:
    """Notes where the mean takes in positions that are some prompts' padding."""
    if position == "last":
        return []
    at = position % view.n_pos
    before, behind = sum(at < first for first in positions.first(view)), sum(at > end for end in positions.last(view))
    said = ((before, "before the beginning"), (behind, "behind the end"))
    return [
        f"Position {position} lies {where} of {count} of {view.batch} prompts: their padding is in the mean."
        for count, where in said
        if count
    ]


def _shown(per_prompt: Tensor, prompt: int | None) -> Tensor:
    """The figures of one prompt, or their mean; the prompts are the last axis."""
    return per_prompt.mean(-1) if prompt is None else per_prompt[..., prompt]


def _every_head(view: CacheView) -> list[Component]:
    return [Component("head", layer, head) for layer in range(view.n_layers) for head in range(view.n_heads)]
