"""The key side of a score that is compared with the mean. The score is then read at all sources.

The score is Σ_t c_t · u_t · k_t. Here k_t is the key at source t before its rotation, and u_t is the query, rotated
back accordingly. The weight c_t is 1 at the source of the score and 0 elsewhere, minus the attention to t. With the
projection W of keys and the norm's scale s_t, the functional at source t is c_t · W · u_t / s_t.

Without a rotation, this functional has the same direction at every source, so an activation is first summed over
sources. With a rotation, the functional differs between sources, but has only d_head dimensions before W. So the
outer products of `z` and u_t are first summed over sources, which gives a matrix [head · d_head, d_head]. It is then
multiplied by W_O · W element by element, and summed for each head.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.attention_score import HeadScore
from residscope.attribution.plan import BIAS_KIND, Plan, Rows, components_in
from residscope.attribution.readout import Readout
from residscope.attribution.sublayer_parts import bias_of, head_outputs
from residscope.cache.output_maps import out_weight
from residscope.cache.structure import Terms
from residscope.compute.memo import size_of
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.compute.projection import distinct, dots
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def mean_key_readout(score: HeadScore) -> Readout:
    """Return a readout of only the key at the source. It is used to find the structure."""
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
    """Return the contribution of biases: of the projection, of norms on keys, and of the norm before attention."""
    found, norm = score.projected("key"), score.scores.reader.norm
    raw = score.keys.pull(score.key_functionals)
    constant = score.offsets(score.keys, score.key_functionals, raw, found).sum(-1)
    if norm.bias is None:
        return constant
    return constant + (raw.sum(1) @ found.map.matrix.T.to(raw)) @ norm.bias.to(raw) * found.factor


def mean_key_rows(score: HeadScore, readout: Readout, plan: Plan, read_by: HeadScore | None = None) -> Rows:
    """Return the rows of a plan, read at all sources.

    Args:
        score: The score in the run that wrote the rows.
        readout: A readout of this run. It gives the output paths of layers.
        plan: The rows.
        read_by: The same score in another run with prompts of the same length. If given, the rows are read by the
            functional of that run.
    """
    import torch

    view, by = score.view, read_by or score
    weights, units = (part.to(view.like) for part in _functional(by))
    every = Readout(
        view, None, readout.directions, readout.offset, point=readout.point, measured_in=readout.measured_in
    )
    components: list[Component] = []
    values: list[Tensor] = []
    biases: dict[Component, Tensor] = {}
    for layer in plan.split:
        report_progress(len(values), len(plan.split) + len(plan.terms))
        rows, bias = _heads(every, layer, weights, units, None if read_by else (score.target.layer, score.target.head))
        values.append(rows)
        components += components_in(view, layer, "attn", len(rows))
        if bias is not None:
            biases[Component(BIAS_KIND["attn"], layer)] = bias
    count = len(components) if plan.split else None
    rows = [*values, *(bias[None] for bias in biases.values()), _terms(every, plan.terms.values(), weights, units)]
    components = [*components, *biases, *plan.terms]
    return Rows(components, torch.cat(rows)[..., None], count, missing=plan.missing, split=plan.split)


def mean_key_vectors(score: HeadScore, readout: Readout, plan: Plan) -> Float[Tensor, "batch component d_head"]:
    """Return what each row of a plan adds to the key at the source, minus what it adds to the mean key.

    The mean key is the mean of the keys of all sources, weighted by attention.
    """
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
    """The projection of keys, together with the weight and the centring of the norm that attention reads through."""
    found, norm = score.projected("key"), score.scores.reader.norm
    weight = found.map.matrix.to(score.view.like) * found.factor
    weight = weight if norm.weight is None else weight * norm.weight[:, None]
    return norm.centre(weight.T).T if norm.divides else weight


def _functional(score: HeadScore) -> tuple[Float[Tensor, "batch d_model key"], Float[Tensor, "batch pos key"]]:
    """The functional at each source, divided by the norm's scale, as two factors: matrix @ vector.

    All sources share the matrix, and each source has its own vector. Sources after the last source with a weight other
    than 0 are left out. At position 0 every weight is 0, because the head reads only the source: one source is kept.
    """
    reader, weight = score.scores.reader, _weight(score)
    apart = score.keys.pull_apart(score.query_alone)
    if apart is None:
        weights, units = weight.expand(score.view.batch, *weight.shape), score.keys.pull(score.key_functionals)
    else:
        weights, units = (apart[0] @ weight.T)[..., None], (apart[1] * score.weights)[..., None]
    units = units / reader.scale(score.key_positions)[..., None] if reader.norm.divides else units
    count = max([1, *(score.weights != 0).any(0).nonzero().flatten().add(1).tolist()])
    return weights, units[:, :count]


def _heads(
    readout: Readout,
    layer: int,
    weights: Float[Tensor, "batch d_model key"],
    units: Float[Tensor, "batch pos key"],
    reader: tuple[int, int] | None,
) -> tuple[Float[Tensor, "head batch"], Float[Tensor, " batch"] | None]:
    """The contribution of each head of a layer, and of the attention's bias, to the score of the head `reader`.

    If `reader` is None, the rows are read by another run's functional, and nothing is memoised.
    """
    view, path = readout.view, readout.output_path(layer, "attn")
    W_O, count = out_weight(view, layer), units.shape[1]
    assert W_O is not None  # because the layer is split
    added, norm_bias = bias_of(readout, layer, "attn")
    constant = None if norm_bias is None else path.factor * (_summed(weights, units) @ norm_bias.to(units))
    weights = distinct(weights) * path.factor
    if path.norm is not None:
        norm, scale = path.norm
        weights = weights if norm.weight is None else weights * norm.weight[:, None]
        weights, units = norm.centre(weights.mT).mT, units / scale[:, :count, None]
    # `made` returns [head · d_head, d_head of the keys]. This size does not depend on the prompt's length.
    made = partial(_through, W_O, weights)
    size = W_O.shape[0] * W_O.shape[1] * weights.shape[-1]
    # With a rotation, `through` is the same for all sources and destinations.
    if reader is not None and units.shape[-1] > 1 and size <= _KEPT:
        key = ("written into keys", *reader, layer, path.factor, weights.dtype)
        through = view.root.memo.once(key, made, size_of)
    else:
        through = made()
    z = head_outputs(view, None, layer, (W_O.shape[0], W_O.shape[1]))[:, :count]
    z = rearrange(working(z), "batch pos head unit -> batch (head unit) pos")
    products = (z @ units) * through
    rows = rearrange(products, "batch (head unit) key -> head batch unit key", head=len(W_O)).sum((-1, -2))
    if added is not None:
        own = _summed(weights, units) @ added.to(units)
        constant = own if constant is None else constant + own
    return rows, constant


_KEPT = 200_000
"""At most this many values of a layer are memoised, for the next request about the same head."""


def _through(W_O: Tensor, weights: Tensor) -> Float[Tensor, "batch unit key"]:
    """What each unit of each head's `z` writes into the keys."""
    return W_O.flatten(0, 1).to(weights) @ weights


def _summed(weights: Tensor, units: Tensor) -> Float[Tensor, "batch d_model"]:
    """The sum of the functionals of all sources."""
    return (weights @ units.sum(1)[..., None])[..., 0]


def _terms(
    readout: Readout,
    sums: Collection[Terms],
    weights: Float[Tensor, "batch d_model key"],
    units: Float[Tensor, "batch pos key"],
) -> Float[Tensor, "row batch"]:
    """The contribution of each sum of activations."""
    total, count = units.new_zeros(len(sums), len(units)), units.shape[1]
    for prompt in range(len(units)):
        direction = units[prompt] @ weights[prompt].T  # [pos, d_model], of one prompt at a time
        for row, terms in enumerate(sums):
            for name, factor in terms:
                held = readout.view.get(name)
                rows = held[prompt if len(held) > 1 else 0, :count]
                total[row, prompt] += factor * dots(rows[:, None], direction).sum()
    return total
