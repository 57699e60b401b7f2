"""Messages about segments of a prompt: which there are, and how much each segment reads each segment."""

from __future__ import annotations

import msgspec

from residscope.terms import Number, SegmentBy, Segmented, Target, Weighting
from residscope.wire.message import Listed, Reply, Request


class ReadSegments(Request, frozen=True, tag="segments"):
    """The segments of one prompt, and the rules that find several segments in its text.

    Attributes:
        by: The rule, or the user's ranges. None: only the rules are looked for.
        prompt: The prompt. None: the only one.
    """

    is_kept = True

    by: Segmented | None = None
    prompt: Number | None = None


class SegmentLabel(msgspec.Struct, frozen=True):
    """A segment. `named` is False if neither a rule nor the user made it: it has the tokens between other segments."""

    name: str
    start: int
    end: int
    named: bool = True


class SegmentRule(msgspec.Struct, frozen=True):
    """A rule that finds several segments in the prompt's text, and their number."""

    by: SegmentBy
    count: int


class SegmentsReply(Reply, frozen=True, tag="segments"):
    """The segments of a prompt, in the order of the text. They cover its real tokens without overlap.

    `turns` are the turns if the prompt is a chat, whatever rule was requested.
    """

    rules: list[SegmentRule]
    turns: list[SegmentLabel]
    segments: list[SegmentLabel]
    notes: list[str]


class MapSegments(Request, frozen=True, tag="segment-map"):
    """How much each segment reads each segment, for one head. The buffers of the reply are float32.

    Buffer 0 is [destination, source]. Buffer 1 is [destination], what is read from padding, which is in no segment.
    Buffer 2 is [source], what all later positions read of each segment on average (NaN for the last segment).
    """

    is_kept = True

    layer: Number
    head: Number
    by: Segmented
    target: Target
    prompt: Number | None = None
    weighting: Weighting = "pattern"


class SegmentMapReply(Reply, frozen=True, tag="segment-map"):
    """How much each segment reads each segment, for one head. `meaning` is what a value is, in words."""

    layer: int
    head: int
    segments: list[SegmentLabel]
    meaning: str
    notes: list[str]


class RankSegmentHeads(Request, frozen=True, tag="segment-heads"):
    """The heads through which one segment reads another most. Buffer 0 is float32 [head].

    Attributes:
        destination: The segment that reads. None: all positions after the segment that is read. A negative index counts
            from the end.
        source: The segment that is read.
        k: The number of heads.
    """

    takes_long = "large caches"
    is_kept = True

    by: Segmented
    target: Target
    prompt: Number | None = None
    weighting: Weighting = "pattern"
    destination: Number | None = -1
    source: Number = -2
    k: Listed = 8


class SegmentHeadsReply(Reply, frozen=True, tag="segment-heads"):
    """The heads through which one segment reads another, the head with the value farthest from zero first.

    `count` is the number of all heads. `destination` and `source` are the indices of the segments, counted from the
    start. `destination` is None for all positions after `source`.
    """

    destination: int | None
    source: int
    heads: list[str]
    count: int
    meaning: str
    notes: list[str]


Requests = ReadSegments | MapSegments | RankSegmentHeads
Replies = SegmentsReply | SegmentMapReply | SegmentHeadsReply
