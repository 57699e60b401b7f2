"""Answers the requests of the charts: contributions of components, and the strongest neurons."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from residscope.attribution.inner_facts import inner_facts
from residscope.attribution.missing import lacking
from residscope.attribution.on_padding import check_not_on_padding
from residscope.attribution.result import strongest
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.serving.request_context import RequestContext
from residscope.serving.run_warnings import warnings_in
from residscope.serving.shown_prompts import ShownPrompts
from residscope.terms import Component, ComponentTable
from residscope.wire.decompositions import Attribute, AttributionReply, NeuronsReply, RankNeurons
from residscope.wire.envelope import Buffers, float32, number

if TYPE_CHECKING:
    from torch import Tensor

_PER_PROMPT = 500_000
"""With a mean over prompts, the values of each prompt are also sent, unless there are more values than this."""


def attribution(context: RequestContext, request: Attribute) -> tuple[AttributionReply, Buffers]:
    """Answer with a decomposition of the target into components."""
    import torch

    view = context.view
    prompt = view.check_prompt(request.prompt)
    target, where = context.asked(request.target, request.position, prompt)
    norm, refusal = request.norm if request.by == "accumulated" else "frozen", None
    check_not_on_padding(view, target, where, prompt)
    prompts = ShownPrompts.at(view, request, where, prompt)
    try:
        transport = request.transport if request.by == "accumulated" else "plain"
        result = context.decomposed(target, request.by, where, norm, transport=transport)
    except ResidscopeError as error:
        if request.by != "head" or error.code not in ("no-heads", "missing-activation"):
            raise
        # The heads have no separate outputs. The map stays empty, the note has the reason, and the rows are layers.
        try:
            result, refusal = context.decomposed(target, "layer", where), str(error)
        except ResidscopeError:
            raise error from None

    def optional(per_prompt: Tensor) -> float | None:
        return number(prompts.of(per_prompt))

    notes = [refusal] if refusal else list[str]()
    notes += [note for note in result.notes if note not in (refusal or "")]
    notes += prompts.notes
    reply = AttributionReply(
        by=request.by,
        components=ComponentTable.of(result.components),
        measured=optional(result.measured),
        constant=float(prompts.of(result.constant)),
        unexplained=optional(result.unexplained),
        # In the mean over prompts, errors of opposite signs would cancel. So the worst prompt is shown instead.
        worst=number(prompts.worst(result.unexplained)) if prompt is None else optional(result.unexplained),
        tolerance=result.tolerance,
        measured_from=result.measured_from,
        own=result.own,
        prompts=prompts.count,
        notes=notes,
        refusal=refusal,
        missing=lacking(result.by, result.missing),
        inner=inner_facts(view, target, where, prompt or 0),
        warnings=warnings_in(notes),
    )
    values = result.values
    if request.by == "head":  # the whole map, with NaN in layers without attention
        parts = 0 if refusal else result.parts
        shape = (view.n_layers * view.n_heads, view.batch)
        heads = values.new_full(shape, math.nan) if refusal else result.grid.flatten(0, 1)
        rows = ComponentTable.of([*_every_head(view), *result.components[parts:]])
        reply = msgspec.structs.replace(reply, components=rows)
        values = torch.cat([heads, values[parts:]])
    buffers = [float32(prompts.of(values))]
    if prompt is None and view.batch > 1:
        # The logit lens shows row + constant. The constant may differ between prompts, so it adds to the deviation.
        varying = values + result.constant if request.by == "accumulated" else values
        buffers.append(float32(prompts.std(varying)))
        if values.numel() <= _PER_PROMPT:
            buffers += [float32(prompts.with_gaps(each)) for each in (values, result.constant)]
            reply = msgspec.structs.replace(reply, per_prompt=True)
    return reply, buffers


def neurons(context: RequestContext, request: RankNeurons) -> tuple[NeuronsReply, Buffers]:
    """Answer with the strongest neurons of a layer, or of all layers."""
    view = context.view
    prompt = view.check_prompt(request.prompt)
    target, where = context.asked(request.target, request.position, prompt)
    check_not_on_padding(view, target, where, prompt)
    prompts = ShownPrompts.at(view, request, where, prompt)
    result = context.decomposed(target, "neuron", where, layers=request.layer)
    rows = prompts.of(result.values)
    neuron_values = rows[: result.parts]
    chosen = strongest(neuron_values, request.k)
    biases = [i for i, row in enumerate(result.components[result.parts :], result.parts) if row.kind == "mlp_bias"]
    reply = NeuronsReply(
        components=ComponentTable.of(result.components[i] for i in chosen),
        count=result.parts,
        layers=1 if request.layer is not None else len({row.layer for row in result.components[: result.parts]}),
        total=float(neuron_values.sum()),
        bias=float(rows[biases].sum()),
        notes=result.notes + list(prompts.notes),
    )
    return reply, [float32(neuron_values[chosen])]


def _every_head(view: CacheView) -> list[Component]:
    return [Component("head", layer, head) for layer in range(view.n_layers) for head in range(view.n_heads)]
