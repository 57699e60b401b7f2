"""`segment_attention`: how much each head attends to each segment, without whole attention maps in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residscope.attribution.head_inputs import source_count
from residscope.attribution.sources import wanted_heads
from residscope.base.numbered import named_layers
from residscope.cache.component_names import name
from residscope.cache.segments import Segments
from residscope.cache.view import CacheView
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.patterns.map_target import check_weighting, map_target, meaning_of
from residscope.patterns.segment_maps import SegmentAttention, all_notes, check_square, segment_sums, summed_meaning
from residscope.patterns.weighting import WeightedAttention
from residscope.session.change_notes import seen, steadily
from residscope.terms import Answers, CacheLike, Heads, MaskLike, ModelLike, Weighting

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["SegmentAttention", "segment_attention"]


def segment_attention(
    cache: CacheLike,
    segments: Segments,
    heads: Heads = None,
    *,
    weighting: Weighting = "pattern",
    answers: Answers = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
) -> SegmentAttention:
    """Compute how much each segment attends to each segment, for each head.

    The result is that of `residscope.attention(…).by_segment(segments)`. But whole maps are never in memory: each
    map is computed once, in blocks.

    Args:
        cache: An `ActivationCache`.
        segments: The segments of the prompt, from `residscope.segments`. They also say which prompt this is.
        heads: Heads such as `["9.9", "L9H6", (10, 7)]`, or a single one. None: all heads.
        weighting: As in `residscope.attention`. Values are summed over the sources of a segment. For `"pattern"`
            and `"value"`, the sums are averaged over the destinations of a segment. For `"contribution"`, the sums are
            added up over these destinations, in the target's unit.
        answers: The target of `"contribution"`, as in `residscope.attention`.
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`.
        model: The model, if `cache.model` was deleted.
        logits: The model's output. Without `answers`, it is needed if the cache holds neither the logits nor the
            final stream.

    Returns:
        The maps. `.values` is `[head, destination, source]`. `.top(destination, source)` ranks heads for a pair of
        segments. `.vertical` shows how much all later positions attend to each segment.

    Raises:
        ResidscopeError: With a message that says what is wrong and what to do.
    """
    check_weighting(weighting)
    if not isinstance(segments, Segments):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ResidscopeError("segments", "`segments` takes what `residscope.segments` returns.")
    tracked = seen(cache, model)

    def work() -> SegmentAttention:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)

        def compute() -> SegmentAttention:
            view.check_prompt(segments.prompt)
            stream_target, notes = map_target(view, weighting, answers, logits)
            return segment_maps(
                WeightedAttention(view, weighting, segments.prompt, stream_target), segments, heads, notes
            )

        return in_torch_context(view.stream.device, compute)

    return steadily(cache, model, tracked, work)


def segment_maps(
    maps: WeightedAttention, segments: Segments, heads: object = None, notes: Sequence[str] = ()
) -> SegmentAttention:
    """Sum the maps of heads over segments, for a caller that already has a view.

    Args:
        maps: The maps of the prompt of the segments.
        segments: The segments.
        heads: As in `segment_attention`.
        notes: Notes on the target.

    Raises:
        ResidscopeError: As in `segment_attention`.
    """
    import torch

    wanted, of_heads = _wanted(maps, heads)
    found = _by_head(maps, segments, wanted)
    values, padding = (torch.stack([found[head][at] for head in wanted]) for at in (0, 1))
    return SegmentAttention(
        values,
        [name(*head) for head in wanted],
        segments,
        maps.weighting,
        summed_meaning(maps.weighting, meaning_of(maps.weighting, maps.stream_target)),
        padding,
        all_notes([*notes, *maps.notes, *of_heads], segments, padding),
        None if maps.stream_target is None else maps.stream_target.target,
        maps.view.model_name,
    )


def _wanted(maps: WeightedAttention, heads: object) -> tuple[list[tuple[int, int]], list[str]]:
    """The heads that the user named, or all heads before the target's point. Also notes on the layers left out."""
    view, target = maps.view, maps.stream_target
    if heads is not None:
        return wanted_heads(view, heads), []
    found: list[tuple[int, int]] = []
    without: list[int] = []
    late: list[int] = []
    for layer in range(view.n_layers):
        if target is not None and not target.is_before(layer):
            late.append(layer)
            continue
        pattern = f"blocks.{layer}.attn.hook_pattern"
        if view.has(pattern):
            found += [(layer, head) for head in range(view.get(pattern).shape[1])]
        else:
            without.append(layer)
    if not found and target is not None and late:
        target.check(late[0])  # raises with the name of the point
    if not found:
        view.get("blocks.0.attn.hook_pattern")  # raises with the activation's name
    notes = [f"No attention was found in {named_layers(without)}."] if without else []
    if target is not None and late:
        notes.append(
            f"Without {named_layers(late)}, because the target is read at `{target.point.label}`, before their heads "
            "write."
        )
    return found, notes


def _by_head(
    maps: WeightedAttention, segments: Segments, wanted: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], tuple[Tensor, Tensor]]:
    """For each head, its map and its attention to padding. Heads of a layer are computed together."""
    found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    for layer in sorted({layer for layer, _ in wanted}):
        pattern = maps.view.get(f"blocks.{layer}.attn.hook_pattern")
        check_square(segments, pattern.shape[-2], source_count(maps.view, layer))
        own = sorted({head for of, head in wanted if of == layer})
        for few, strips in maps.strips(layer, own):
            values, padding = segment_sums(strips, segments, maps.weighting)
            found |= {(layer, head): (values[at], padding[at]) for at, head in enumerate(few)}
    return found
