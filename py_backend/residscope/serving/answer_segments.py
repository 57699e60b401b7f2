"""Answers how a prompt is divided into segments, which segments a head reads, and which heads read a segment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from residscope.attribution.segments import rules_of, segments_of
from residscope.cache.segments import Segment, Segments
from residscope.compute.memo import NoKeyError, key_of, size_of
from residscope.errors import ResidscopeError
from residscope.patterns.segment_attention import segment_maps
from residscope.patterns.segment_maps import SegmentAttention
from residscope.serving.request_context import RequestContext
from residscope.terms import MOST_RANGES, Segmented
from residscope.wire.envelope import Buffers, float32
from residscope.wire.segments import (
    MapSegments,
    RankSegmentHeads,
    ReadSegments,
    SegmentHeadsReply,
    SegmentLabel,
    SegmentMapReply,
    SegmentRule,
    SegmentsReply,
)

MOST_MAPPED = 64
"""The largest number of segments in a map on screen."""


def segments(context: RequestContext, request: ReadSegments) -> SegmentsReply:
    """Answer with the segments of a prompt, and the rules that find several segments in its text."""
    prompt = _prompt(context, request.prompt)
    found = rules_of(context.view, prompt)
    rules = [SegmentRule(by, len(every)) for by, every in found.items()]
    turns = [one for one in labels(found.get("turn", ())) if one.named]
    if request.by is None:
        return SegmentsReply(rules, turns, [], [])
    chosen = found_by(context, request.by, prompt)
    return SegmentsReply(rules, turns, labels(chosen), list(chosen.notes))


def segment_map(context: RequestContext, request: MapSegments) -> tuple[SegmentMapReply, Buffers]:
    """Answer with how much each segment reads each segment, for one head."""
    maps = _maps(context, request, [(request.layer, request.head)])
    reply = SegmentMapReply(request.layer, request.head, labels(maps.segments), maps.meaning, maps.notes)
    return reply, [float32(maps.values[0]), float32(maps.padding[0]), float32(maps.vertical[0])]


def segment_heads(context: RequestContext, request: RankSegmentHeads) -> tuple[SegmentHeadsReply, Buffers]:
    """Answer with the heads whose attention to a segment is strongest, from one segment or from all later positions."""
    maps = _of_all_heads(context, request)
    source = maps.segments.find(request.source)
    destination = None if request.destination is None else maps.segments.find(request.destination)
    if destination is None:
        ranked, meaning = maps.top_vertical(source, request.k), f"{maps.meaning}, mean over all later positions"
    else:
        ranked, meaning = maps.top(destination, source, request.k), maps.meaning
    reply = SegmentHeadsReply(destination, source, [head for head, _ in ranked], len(maps.heads), meaning, maps.notes)
    return reply, [float32(maps.values.new_tensor([value for _, value in ranked]))]


def _of_all_heads(context: RequestContext, request: RankSegmentHeads) -> SegmentAttention:
    """The maps of all heads, memoised, so that a request for another cell is fast."""
    memo, about = context.view.memo, msgspec.structs.replace(request, destination=None, source=0, k=1)
    try:
        key = ("segment heads", msgspec.msgpack.encode(about), key_of(context.logits))
    except NoKeyError:
        return _maps(context, request, None)
    found: SegmentAttention | None = memo.get(*key)
    if found is None:
        found = _maps(context, request, None)
        memo.put(*key, value=found, size=size_of(found.values))
    return found


def found_by(context: RequestContext, by: Segmented, prompt: int) -> Segments:
    """Return the segments of a prompt by a rule, or the user's ranges.

    Raises:
        ResidscopeError: If there are no segments or too many, or a range cannot be used.
    """
    given: Any = by if isinstance(by, str) else [(one.name, one.start, one.end) for one in by]
    found = segments_of(context.view, prompt, given)
    if len(found) > MOST_RANGES:
        raise ResidscopeError(
            "too-large",
            f"The prompt has {len(found):,} such segments, and the views show up to {MOST_RANGES:,}: choose another "
            "rule, or use `residscope.segments` in Python.",
        )
    return found


def labels(found: Iterable[Segment]) -> list[SegmentLabel]:
    """Return the segments for a message."""
    return [SegmentLabel(segment.name, segment.start, segment.end, segment.named) for segment in found]


def _prompt(context: RequestContext, prompt: int | None) -> int:
    chosen = context.view.check_prompt(prompt)
    if chosen is None and context.view.batch > 1:
        raise ResidscopeError("prompt", "Segments are those of one prompt: choose a prompt.")
    return chosen or 0


def _maps(
    context: RequestContext, request: MapSegments | RankSegmentHeads, heads: list[tuple[int, int]] | None
) -> SegmentAttention:
    prompt = _prompt(context, request.prompt)
    found = found_by(context, request.by, prompt)
    if len(found) > MOST_MAPPED:
        raise ResidscopeError(
            "too-large",
            f"The prompt has {len(found):,} segments, and this map shows up to {MOST_MAPPED}: choose another rule, or "
            "use `residscope.segment_attention` in Python.",
        )
    return segment_maps(context.maps(request.weighting, request.target, prompt), found, heads)
