"""Answers the request for next tokens: how each was predicted, and what each layer and head adds to its logit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from residscope.attribution.decompose import Query
from residscope.attribution.missing import lacking
from residscope.attribution.next_tokens import predicted
from residscope.attribution.own_targets import NONE_LAST, by_head, decomposed
from residscope.attribution.result import Attribution
from residscope.attribution.targets import Targets
from residscope.cache.component_names import parse_neuron
from residscope.cache.positions import assumed
from residscope.cache.token_labels import padding_in_mean
from residscope.errors import ResidscopeError
from residscope.serving.request_context import RequestContext
from residscope.terms import Target
from residscope.wire.envelope import Buffers, float32, number
from residscope.wire.predictions import NextTokensReply, ReadNextTokens

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MOST_POSITIONS = 16_384
"""The largest number of positions in a reply."""

MOST_BYTES = 1_000_000
"""A larger map of all heads is not sent."""


def next_tokens(context: RequestContext, request: ReadNextTokens) -> tuple[NextTokensReply, Buffers]:
    """Answer with the log-probability, the rank and the runner-up of each token, and what adds to its logit."""
    view, prompt, logits = context.view, context.view.check_prompt(request.prompt), context.logits
    if request.target.next_token is None:
        raise ResidscopeError("next-token", "The target is not the token that came next: choose this target first.")
    if view.n_pos > MOST_POSITIONS:
        raise ResidscopeError(
            "too-large",
            f"The prompt has {view.n_pos:,} positions, and the tokens above are coloured up to {MOST_POSITIONS:,}: "
            "attribute a part of it in Python.",
        )
    means = "the mean at a position is over the prompts in which a token follows it"
    notes = assumed(view) + padding_in_mean(view, prompt, means=means)
    targets, target = context.targets, context.targets.resolve(msgspec.structs.replace(request.target, through=[]))
    if prompt is not None:  # so that the other prompts are not computed
        targets, target = targets.only(target, range(prompt, prompt + 1))
        logits = None if logits is None else logits[prompt : prompt + 1]
    found = predicted(targets, logits)
    count = int(found.real.sum())
    if count == 0:
        raise ResidscopeError("position", "There is no next token here: the prompt has only one token.")
    is_single = targets.view.batch == 1
    rank = found.rank.float().masked_fill(~found.real, float("nan"))
    names = targets.vocabulary.text
    runner_up = [names(id) if has else "" for id, has in zip(found.runner_up[0].tolist(), found.real[0].tolist(),
                 strict=True)] if is_single else []  # fmt: skip
    if request.neurons:
        rows, refusal = None, list[str]()
        layers, heads = _neurons(targets, target, logits, request.neurons), b""
    else:
        rows, refusal = _rows(targets, target, logits)
        layers, heads = _maps(rows, targets)
    left = None if rows is None else rows.unexplained.to(found.real.device)[found.real]
    known = left is not None and bool(left.isfinite().all())
    reply = NextTokensReply(
        positions=view.n_pos,
        runner_up=runner_up,
        count=count,
        adding=int((left.abs() <= rows.tolerance).sum()) if known and left is not None and rows is not None else None,
        worst=number(left.abs().max()) if known and left is not None else None,
        tolerance=0.0 if rows is None else rows.tolerance,
        notes=([] if rows is None else [note for note in rows.notes if note not in (*notes, NONE_LAST)])
        + notes
        + refusal,
        missing=[] if rows is None else lacking(rows.by, rows.missing),
    )
    ranks = rank[0] if is_single else rank.new_full((view.n_pos,), float("nan"))
    return reply, [float32(_mean(found.log_prob, 0)), float32(ranks), float32(layers), heads]


def _rows(targets: Targets, target: Target, logits: Tensor | None) -> tuple[Attribution | None, list[str]]:
    """The rows at every position, by head if possible, otherwise by layer, and the reason why they are not by head."""
    try:
        return by_head(targets, target, logits), []
    except ResidscopeError as error:
        if error.code not in ("no-heads", "missing-activation"):
            raise
        refusal = [str(error)]
    try:
        return decomposed(targets.view, targets, Query(target, "layer", None), logits), refusal
    except ResidscopeError:
        return None, refusal


def _maps(rows: Attribution | None, targets: Targets) -> tuple[Float[Tensor, "layer pos"], bytes]:
    """What each layer adds at each position, and what each head adds (empty if this is too large, or not known)."""
    view = targets.view
    layers = view.like.new_full((view.n_layers, view.n_pos), float("nan"))
    if rows is None:
        return layers, b""
    values = _mean(rows.values, 1)
    for layer in range(view.n_layers):
        of_layer = [i for i, row in enumerate(rows.components) if row.layer == layer]
        if of_layer:
            layers[layer] = values[of_layer].sum(0)
    if rows.by != "head" or 4 * view.n_layers * view.n_heads * view.n_pos > MOST_BYTES:
        return layers, b""
    return layers, float32(_mean(rows.grid, 2))


def _mean(values: Tensor, axis: int) -> Tensor:
    """The mean over the prompts in which a token follows. In the others, the value is NaN."""
    return values.nanmean(axis)


def _neurons(targets: Targets, target: Target, logits: Tensor | None, names: list[str]) -> Float[Tensor, "neuron pos"]:
    """What some neurons add at each position."""
    import torch

    view, places = targets.view, [parse_neuron(name) for name in names]
    rows: dict[tuple[int, int], Tensor] = {}
    for layer in sorted({layer for layer, _ in places}):
        found = decomposed(targets.view, targets, Query(target, "neuron", None, layers=view.check_layer(layer)), logits)
        of_layer = {row.place: i for i, row in enumerate(found.components[: found.parts])}
        for place in places:
            if place[0] == layer and place not in of_layer:
                raise ResidscopeError("neuron", f"Layer {layer} of this model has no neuron {place[1]}.")
        rows |= {place: _mean(found.values[of_layer[place]], 0) for place in places if place[0] == layer}
    return torch.stack([rows[place] for place in places])
