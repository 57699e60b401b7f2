"""A map of components and positions: the contribution of each component to the target at each position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from residscope.attribution.decompose import Query
from residscope.attribution.missing import lacking, later_note
from residscope.attribution.own_targets import by_head, decomposed
from residscope.attribution.sources import wanted_heads
from residscope.attribution.stream_target import StreamTarget
from residscope.attribution.sublayer_parts import layer_heads
from residscope.attribution.target_reading import measured_value, target_reading
from residscope.attribution.target_words import in_words, sentence
from residscope.attribution.targets import Targets
from residscope.cache.finite import check_finite
from residscope.cache.lens_maps import LensMaps
from residscope.cache.positions import assumed, real
from residscope.cache.token_labels import padding_in_mean
from residscope.cache.view import CacheView
from residscope.compute.means import mean_over
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed
from residscope.terms import AttentionScore, Component, NormConvention, ShownBy, Target

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class PositionMap:
    """The contribution of each component to the target at each position, in the target's unit.

    At each position, a mean over prompts leaves out padding. It is NaN where every prompt has padding.

    `measured` is the model's own value at each position, or NaN if that value is not known. For `by="layer"`, the sum
    of the rows + constant = measured. For `by="accumulated"`, the last row + constant = measured.
    """

    components: list[Component]
    values: Float[Tensor, "component position"]
    measured: Float[Tensor, " position"]
    notes: list[str]
    missing: list[str] = field(default_factory=list)


def position_map(
    targets: Targets,
    target: Target,
    by: ShownBy,
    prompt: int | None,
    logits: Tensor | None = None,
    norm: NormConvention = "frozen",
    heads: Sequence[str] = (),
    lens: LensMaps | None = None,
) -> PositionMap:
    """Return the contribution of each component at each position.

    Args:
        targets: Resolves the target.
        target: The target. It is the same at all positions, or the next token of each position.
        by: `"layer"`, `"accumulated"`, or `"head"` (only the heads in `heads`).
        prompt: The prompt. None: the mean over prompts.
        logits: The model's output, if it was given.
        norm: For `"accumulated"`: `"frozen"` or `"recomputed"`.
        heads: For `"head"`: the labels of the heads. Each head is one row.
        lens: For `"accumulated"`: the maps of the stream to its end.

    Raises:
        ResidscopeError: For the same reasons as `attribute`.
    """
    if target.through or isinstance(target.inner, AttentionScore):
        raise ResidscopeError(
            "position",
            f"{sentence(in_words(target))} is read at fixed positions, so it has no value at other positions: choose "
            "another view, or another target, such as a neuron.",
        )
    notes = assumed(targets.view) + padding_in_mean(targets.view, prompt)
    if prompt is not None:  # so that the other prompts are not computed
        targets, target = targets.only(target, range(prompt, prompt + 1))
        logits = None if logits is None else logits[prompt : prompt + 1]
    if by == "head" and target.next_token is not None:
        return _own_heads(targets, target, heads, logits, notes)
    if by == "head":
        return _heads(targets, target, heads, logits, notes)
    norm, lens = (norm, lens) if by == "accumulated" else ("frozen", None)
    result = decomposed(targets.view, targets, Query(target, by, None, norm, lens=lens), logits)
    values, measured = _mean(targets.view, result.values, 1), _mean(targets.view, result.measured, 0)
    return PositionMap(result.components, values, measured, result.notes + notes, lacking(by, result.missing))


def _own_heads(
    targets: Targets, target: Target, heads: Sequence[str], logits: Tensor | None, notes: list[str]
) -> PositionMap:
    """Rows of heads, where each position has its own target."""
    import torch

    view, wanted = targets.view, wanted_heads(targets.view, list(heads)) if heads else []
    result = by_head(targets, target, logits)
    grid, measured = _mean(view, result.grid, 2), _mean(view, result.measured, 0)
    for layer, head in wanted:
        view.check_head(layer, head)
    rows = [grid[layer, head] for layer, head in wanted]
    values = torch.stack(rows) if rows else measured.new_zeros(0, view.n_pos)
    return PositionMap([Component("head", *head) for head in wanted], values, measured, result.notes + notes)


def _heads(
    targets: Targets, target: Target, heads: Sequence[str], logits: Tensor | None, notes: list[str]
) -> PositionMap:
    import torch

    view = targets.view
    stream_target = StreamTarget(targets, target, None)
    reading = target_reading(targets, target, None, logits)
    readout = reading.readout()
    value = measured_value(reading, readout, targets, target, logits).value
    measured = view.like.new_full((view.n_pos,), float("nan")) if value is None else _mean(view, value, 0)
    notes = changed(view) + reading.notes + notes
    if not heads:
        return PositionMap([], measured.new_zeros(0, view.n_pos), measured, notes)
    wanted = wanted_heads(view, list(heads))
    rows: dict[tuple[int, int], Tensor] = {}
    if not all(stream_target.is_before(layer) for layer, _ in wanted):
        notes = [*notes, later_note(readout.structure)]
    for layer in sorted({layer for layer, _ in wanted}):
        if not stream_target.is_before(layer):
            rows |= {head: view.like.new_zeros(view.n_pos) for head in wanted if head[0] == layer}
            continue
        notes = notes + [note for note in stream_target.check(layer) if note not in notes]
        contributions, _ = layer_heads(readout, layer)
        for head in [head for at, head in wanted if at == layer]:
            if head >= len(contributions):
                raise ResidscopeError("head", f"Layer {layer} of this model has only {len(contributions)} heads.")
            check_finite(view, contributions[head])
            rows[layer, head] = _mean(view, contributions[head], 0)
    values = torch.stack([rows[head] for head in wanted])
    return PositionMap([Component("head", *head) for head in wanted], values, measured, notes)


def _mean(view: CacheView, values: Tensor, axis: int) -> Tensor:
    """The mean over prompts without padding. One prompt stays as it is."""
    return mean_over(values, axis, None if view.batch == 1 else ~real(view))
