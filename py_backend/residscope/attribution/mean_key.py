"""The key side of a score compared with the mean: what was written at all sources, each with its weight.

Σ_t c_t · u_t · k_t with c = 1 at the source minus the attention. The functional at source t is W · u_t / s_t. Its
direction differs from source to source, but lies in the d_head dimensions of the head's keys. So an activation is first
multiplied with the u_t of all sources, which gives [d_model, d_head], and then with the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.attention_score import HeadScore
from residscope.attribution.components import BIAS_KIND, Plan, Rows, bias_of, components_in, head_outputs
from residscope.attribution.readout import Readout
from residscope.cache.structure import out_weight
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def mean_key_readout(score: HeadScore) -> Readout:
    """A readout of the key at the source alone, for the structure of the layers before."""
    found = score.projected("key")
    raw = score.keys.pull(score.key_functionals)
    import torch

    prompts = torch.arange(len(raw), device=raw.device)
    at_source = raw[prompts, score.source.to(raw.device)]
    direction = at_source @ found.map.matrix.T.to(raw) * found.factor
    offset = direction.new_zeros(len(direction))
    point = score.scores.reader.point
    return Readout(score.view, score.source, direction, offset, point=point, measured_in=score.activations)


def mean_key_constant(score: HeadScore) -> Float[Tensor, " batch"]:
    """What biases add: of the projection, of norms on the keys, and of the norm that attention reads through."""
    found, norm = score.projected("key"), score.scores.reader.norm
    raw = score.keys.pull(score.key_functionals)
    constant = score.offsets(score.keys, score.key_functionals, raw, found).sum(-1)
    if norm.bias is None:
        return constant
    return constant + (raw.sum(1) @ found.map.matrix.T.to(raw)) @ norm.bias.to(raw) * found.factor


def mean_key_rows(score: HeadScore, readout: Readout, plan: Plan, read_by: HeadScore | None = None) -> Rows:
    """The rows of a plan for the keys of all sources.

    Args:
        score: The score in the run that wrote the rows.
        readout: The output paths of its layers.
        plan: The rows.
        read_by: The same score in another run of this length, by whose functional they are read.
    """
    import torch

    view, by = score.view, read_by or score
    reader = by.scores.reader
    weight, units = _weight(by), by.keys.pull(by.key_functionals)
    units = units / reader.scale(by.key_positions)[..., None] if reader.norm.divides else units
    weight, units = weight.to(view.like), units.to(view.like)
    every = Readout(
        view, None, readout.directions, readout.offset, point=readout.point, measured_in=readout.measured_in
    )
    components: list[Component] = []
    values: list[Tensor] = []
    biases: dict[Component, Tensor] = {}
    for layer in plan.split:
        report_progress(len(values), len(plan.split) + len(plan.terms))
        rows, bias = _heads(every, layer, weight, units)
        values.append(rows)
        components += components_in(layer, "attn", len(rows))
        if bias is not None:
            biases[Component(BIAS_KIND["attn"], layer)] = bias
    count = len(components) if plan.split or (plan.part == "attn" and components) else None
    sums = [_terms(every, terms, weight, units) for terms in plan.terms.values()]
    rows = [*values, *(bias[None] for bias in biases.values()), *(one[None] for one in sums)]
    components = [*components, *biases, *plan.terms]
    return Rows(components, torch.cat(rows)[..., None], count, missing=plan.missing, split=plan.split)


def mean_key_vectors(score: HeadScore, readout: Readout, plan: Plan) -> Float[Tensor, "batch component d_head"]:
    """What each row of a plan puts into the key at the source, minus into those of all sources by the attention."""
    import torch

    view, reader = score.view, score.scores.reader
    weight, scale = _weight(score), None
    if reader.norm.divides:
        scale = reader.scale(score.key_positions)
    every = Readout(
        view, None, readout.directions, readout.offset, point=readout.point, measured_in=readout.measured_in
    )

    def read(raw: Float[Tensor, "batch pos ... d_head"]) -> Float[Tensor, "batch ... d_head"]:
        weights = score.weights if scale is None else score.weights / scale
        extra = [1] * (raw.ndim - 2)
        return (score.keys.linear(raw) * weights.reshape(*weights.shape, *extra)).sum(1)

    heads: list[Tensor] = []
    biases: list[Tensor] = []
    for layer in plan.split:
        report_progress(len(heads), len(plan.split) + len(plan.terms))
        W_O, path = out_weight(view, layer), every.output_path(layer, "attn")
        assert W_O is not None  # because the layer is split
        added, norm_bias = bias_of(every, layer, "attn")
        own, behind = weight * path.factor, None
        if path.norm is not None:
            norm, behind = path.norm
            own = own if norm.weight is None else own * norm.weight[:, None]
            own = norm.centre(own.T).T
        z = working(head_outputs(view, None, layer, (W_O.shape[0], W_O.shape[1])))
        raw = torch.einsum("bphu,huk->bphk", z, W_O.to(own) @ own)
        heads.append(read(raw if behind is None else raw / behind[..., None, None]))
        if added is None and norm_bias is None:
            continue
        bias = raw[:, :, 0] * 0
        if added is not None:
            part = (added.to(own) @ own).expand_as(bias)
            bias = bias + (part if behind is None else part / behind[..., None])
        if norm_bias is not None:
            bias = bias + (norm_bias.to(weight) * path.factor) @ weight
        biases.append(read(bias)[:, None])
    terms = [
        read(sum(((working(view.get(n)) @ weight) * f for n, f in one), start=score.keys.raw * 0))[:, None]
        for one in plan.terms.values()
    ]
    return torch.cat([*heads, *biases, *terms], 1)


def _weight(score: HeadScore) -> Float[Tensor, "d_model d_head"]:
    """The projection of keys, with the weight and the centring of the norm that attention reads through."""
    found, norm = score.projected("key"), score.scores.reader.norm
    weight = found.map.matrix.to(score.view.like) * found.factor
    weight = weight if norm.weight is None else weight * norm.weight[:, None]
    return norm.centre(weight.T).T if norm.divides else weight


def _heads(readout: Readout, layer: int, weight: Tensor, units: Tensor) -> tuple[Tensor, Tensor | None]:
    """The contribution of each head of a layer, `[head, batch]`, and of the attention's bias."""
    view, path = readout.view, readout.output_path(layer, "attn")
    W_O = out_weight(view, layer)
    assert W_O is not None  # because the layer is split
    added, norm_bias = bias_of(readout, layer, "attn")
    constant = None if norm_bias is None else path.factor * ((units.sum(1) @ weight.T) @ norm_bias.to(units))
    weight = weight * path.factor
    if path.norm is not None:
        norm, scale = path.norm
        weight = weight if norm.weight is None else weight * norm.weight[:, None]
        weight, units = norm.centre(weight.T).T, units / scale[..., None]
    # [head d_head, d_head of the keys]: small, whatever the length of the prompt
    through = rearrange(W_O, "head unit d_model -> (head unit) d_model").to(weight) @ weight
    z = working(head_outputs(view, None, layer, (W_O.shape[0], W_O.shape[1])))
    z = rearrange(z, "batch pos head unit -> batch (head unit) pos")
    products = (z @ units) * through
    rows = rearrange(products, "batch (head unit) key -> head batch unit key", head=len(W_O)).sum((-1, -2))
    if added is not None:
        own = (units.sum(1) @ weight.T) @ added.to(units)
        constant = own if constant is None else constant + own
    return rows, constant


def _terms(
    readout: Readout, terms: tuple[tuple[str, float], ...], weight: Tensor, units: Tensor
) -> Float[Tensor, " batch"]:
    """The contribution of a sum of activations."""
    view, total = readout.view, units.new_zeros(len(units))
    for name, factor in terms:
        held = view.get(name)
        for prompt in range(len(units)):
            direction = units[prompt] @ weight.T  # [pos, d_model], of one prompt at a time
            rows = working(held[prompt if len(held) > 1 else 0])
            total[prompt] += factor * (rows * direction).sum()
    return total
