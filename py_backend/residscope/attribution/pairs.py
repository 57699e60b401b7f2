"""`pairs`: an attention score as a sum over pairs of components.

score = Σ_ij τ · q̂_i · k̂_j. Here q̂_i is what component i adds to the query at the destination, and k̂_j is what
component j adds to the key at the source. τ is the scale of the scores. The scale of every norm is frozen. The biases
are one component on each side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from einops import einsum

from residscope.attribution import components
from residscope.attribution.attention_score import HeadScore
from residscope.attribution.component_vectors import LARGEST, read_rows, size_of_vectors, vectors_of
from residscope.attribution.mean_key import mean_key_readout, mean_key_vectors
from residscope.attribution.missing import missing_notes
from residscope.attribution.needed import naming_all
from residscope.attribution.on_padding import check_not_on_padding, shared_places
from residscope.attribution.pair_map import Pairs
from residscope.attribution.plan import Plan
from residscope.attribution.readout import Readout
from residscope.attribution.reconcile import expected_sum, reconcile
from residscope.attribution.rounding import SMALLEST
from residscope.attribution.targets import Targets
from residscope.cache.finite import check_finite
from residscope.cache.positions import assumed
from residscope.cache.structure import Structure
from residscope.cache.view import CacheView
from residscope.compute.batching import blocks
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed, seen, steadily
from residscope.terms import Answers, AttentionScore, CacheLike, Component, MaskLike, ModelLike, Side, Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from residscope.attribution.plan import Rows

__all__ = ["Pairs", "pairs"]

PairsBy = Literal["head", "layer"]

BIASES = Component("biases")
"""What the biases of the projection, and of the norms before and after it, add to a query or key."""


def pairs(
    cache: CacheLike,
    target: Answers,
    by: PairsBy = "head",
    *,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
) -> Pairs:
    """Attribute an attention score to pairs of components: one writes at the destination, one at the source.

    The sum over a row is the component's row of `attribute` with `side="query"`. The sum over a column is the
    component's row with `side="key"`.

    Args:
        cache: An `ActivationCache`.
        target: An attention score, `residscope.targets.attention(…)`. Its side does not matter.
        by: `"head"` (heads, MLPs, embeddings) or `"layer"` (sublayers and embeddings).
        tokens: Token ids, if the cache does not hold them. They are used to find padding.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected, see
            `docs/padding.md`.
        model: The model, if `cache.model` was deleted.

    Returns:
        The pairs. `.values` is `[query component, key component, batch]`.

    Raises:
        ResidscopeError: With a message that says what is wrong and what to do.

    Source: the QK circuit of "A Mathematical Framework for Transformer Circuits", for one score, with norms, biases and
    rotations as they were in the run.
    """
    if by not in ("head", "layer"):
        raise ResidscopeError("by", f'`by="{by}"` is not possible for pairs: use "head" or "layer".')
    looked = seen(cache, model)

    def work() -> Pairs:
        view = CacheView(cache, model=model, tokens=tokens, seen=looked, attention_mask=attention_mask)

        def computed() -> Pairs:
            return pairs_of(view, Targets.of(view).resolve(target), by)

        return in_torch_context(view.stream.device, computed)

    return steadily(cache, model, looked, work)


def pairs_of(view: CacheView, target: Target, by: PairsBy = "head", prompt: int | None = None) -> Pairs:
    """Return `pairs` for a resolved target. If `prompt` is given, only this prompt is checked for padding."""
    inner = target.inner
    if not isinstance(inner, AttentionScore) or target.through:
        raise ResidscopeError("attention", "Pairs are only for an attention score: `residscope.targets.attention(…)`.")
    score = HeadScore(view, msgspec.structs.replace(inner, side="query"))
    check_not_on_padding(view, target, None, prompt)
    with naming_all(view, target, by):
        score.check()
        return _pairs(score, by, target)


def _pairs(score: HeadScore, by: PairsBy, target: Target) -> Pairs:
    import torch

    view = score.view
    structure, rows = _structure(score, by)
    plan = components.plan_of(structure, by, [])
    maps: list[Tensor] = []
    names: list[Component] = []
    for prompts in blocks(range(view.batch), max(1, LARGEST // max(1, size_of_vectors(view, plan) // view.batch))):
        few = score.only(range(prompts[0], prompts[-1] + 1))
        names, query, key = _sides(few, plan)
        maps.append(einsum(query, key, "batch query d, batch key d -> query key batch") * few.scale)
    values = torch.cat(maps, -1)
    for extra, value in score.extra.items():
        wider = values.new_zeros(values.shape[0] + 1, values.shape[1] + 1, values.shape[2])
        wider[:-1, :-1], wider[-1, -1] = values, value
        values, names = wider, [*names, extra]
    measured = score.measured
    unexplained = measured - values.sum((0, 1))
    if not bool(unexplained.isfinite().all()):
        check_finite(view, values.flatten(0, 1), measured)
    sides = [values.sum(axis).pow(2).sum(0).sqrt().max() for axis in (0, 1)]
    tolerance = max(SMALLEST, 4 * view.rounding_step(*score.activations) * float(max(sides)))
    notes = score.notes() + changed(view) + structure.notes() + missing_notes(structure, by, rows)
    notes += shared_places(view, target) + assumed(view)
    if float(unexplained.abs().max()) > tolerance:
        notes.append(
            f"{float(unexplained.abs().max()):.2g} of the score is not the sum of the pairs. The notes of `attribute` "
            "for either side of this target say where this part arises."
        )
    return Pairs(
        values,
        names,
        list(names),
        measured,
        unexplained,
        score.measured_from,
        tolerance,
        list(dict.fromkeys(notes)),
        score.own,
        target,
        view.model_name,
    )


def _structure(score: HeadScore, by: PairsBy) -> tuple[Structure, Rows]:
    """The structure with which the rows of both sides sum to the stream, and the rows of the query side."""
    found: list[Structure] = []
    rows: list[Rows] = []
    for readout in _readouts(score):

        def build(structure: Structure, readout: Readout = readout) -> Rows:
            return read_rows(readout, components.plan_of(structure, by, []))

        result = reconcile(readout, build, expected_sum(readout, None))
        found.append(result.structure)
        rows.append(result.rows)
    first = found[0]
    if all(one.key == first.key for one in found):
        return first, rows[0]
    whole, attn, mlp = (
        frozenset[int]().union(*sets)
        for sets in zip(*((one.whole, one.unsplit_attn, one.unsplit_mlp) for one in found), strict=True)
    )
    entered = any(one.entered for one in found)
    return Structure(score.view, whole, entered, attn - whole, mlp - whole, first.point), rows[0]


def _readouts(score: HeadScore) -> list[Readout]:
    """The readouts of both sides, the query side first."""
    point, readouts = score.scores.reader.point, list[Readout]()
    sides: tuple[Side, ...] = ("query", "key")
    for side in sides:
        one = HeadScore(score.view, msgspec.structs.replace(score.target, side=side))
        if one.reads_all:
            readouts.append(mean_key_readout(one))
            continue
        readouts += [
            Readout(score.view, part.positions, part.direction, part.offset, point=point, measured_in=score.activations)
            for part in one.readings
        ]
    return readouts


def _sides(
    score: HeadScore, plan: Plan
) -> tuple[list[Component], Float[Tensor, "batch component d_head"], Float[Tensor, "batch component d_head"]]:
    """The components, and what each adds to the query and to the key (minus the key that it is compared with)."""
    import torch

    names, queries = _written(score, "query", score.destination, plan)
    query = score.queries.linear(queries[:, None])[:, 0]
    sources = score.key_positions
    if score.target.versus == "mean":
        key = mean_key_vectors(score, mean_key_readout(_keyed(score)), plan)
    else:
        written = [_written(score, "key", sources[:, i], plan)[1] for i in range(sources.shape[1])]
        stacked = score.keys.linear(torch.stack(written, 1))  # [batch, read, component, d_head]
        key = (stacked * score.weights[..., None, None]).sum(1)
    biases = [_biases(score, side) for side in ("query", "key")]
    if all(bias is None for bias in biases):
        return names, query, key
    query, key = (
        torch.cat([side, (side[:, :1] * 0 if bias is None else bias[:, None])], 1)
        for side, bias in zip((query, key), biases, strict=True)
    )
    return [*names, BIASES], query, key


def _keyed(score: HeadScore) -> HeadScore:
    return HeadScore(score.view, msgspec.structs.replace(score.target, side="key"))


def _written(
    score: HeadScore, side: Side, positions: Int[Tensor, " batch"], plan: Plan
) -> tuple[list[Component], Float[Tensor, "batch component d_head"]]:
    """What each component adds to the output of the projection, at one position of each prompt."""
    found, reader = score.projected(side), score.scores.reader
    nothing = score.view.like.new_zeros(score.view.batch, int(score.view.cfg.d_model))
    readout = Readout(score.view, positions, nothing, nothing[:, 0], point=reader.point)
    vectors = vectors_of(readout, plan)
    norm, values = reader.norm, vectors.values
    if norm.divides:
        values = norm.centre(values) / reader.scale(positions[:, None])[..., None]
        values = values if norm.weight is None else values * norm.weight
    return vectors.components, values @ found.map.matrix.to(values) * found.factor


def _biases(score: HeadScore, side: Side) -> Float[Tensor, "batch d_head"] | None:
    """What biases add to the query, or to the key (minus the key that it is compared with). None without biases."""
    found, norm = score.projected(side), score.scores.reader.norm
    vectors = score.queries if side == "query" else score.keys
    raw = vectors.raw.new_zeros(vectors.raw.shape[-1])
    if norm.bias is not None:
        raw = raw + norm.bias.to(raw) @ found.map.matrix.to(raw) * found.factor
    if found.map.bias is not None:
        raw = raw + found.map.bias.to(raw)
    added = vectors.added
    if not bool(raw.any()) and not bool(added.any()):
        return None
    used = vectors.linear(raw.expand(vectors.raw.shape)) + added
    return used[:, 0] if side == "query" else (used * score.weights[..., None]).sum(1)
