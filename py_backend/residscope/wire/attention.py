"""Messages about attention: maps of one head or of many, and scores of heads."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from residscope.terms import Number, Pool, Position, Score, Span, Target, Weighting
from residscope.wire.message import Reply, Request


class AttentionBuffer(msgspec.Struct, frozen=True):
    """Describes one buffer: a map [destination, source] in units of `scale`, or one row of it, float32 [source].

    A map is float16, or float32 if it is `wide`. For a `triangle`, only the cells on and below the diagonal are sent,
    row by row. The others are 0. In the mean over prompts, a cell whose destination or source is padding in every
    prompt is NaN. `"value"` is attention × ‖v W_O‖. `"contribution"` is the source contribution to the
    target at the destination, in logits. `"reads"` and `"brings"` are the rows of the pattern and of the contribution
    at the requested destination (for the mean over prompts, at each prompt's own destination).
    """

    what: Literal["pattern", "value", "contribution", "reads", "brings"]
    scale: float = 1.0
    wide: bool = False
    triangle: bool = False


class ReadAttention(Request, frozen=True, tag="attention"):
    """The attention of one head, and its source contributions. The reply lists its buffers.

    The reply contains `"pattern"` and the map of the requested weighting, and `"contribution"` if it is small. If a
    weighting cannot be computed, a note says why. `rows` and `columns` limit the map to some destinations and sources.
    A map with more than 512 × 512 cells is down-sampled: each block of `step` × `step` cells becomes one cell, by the
    method `pool`. A single destination or source is never down-sampled.
    """

    is_kept = True

    layer: Number
    head: Number
    target: Target
    prompt: Number | None = None
    position: Position = "last"
    weighting: Weighting = "pattern"
    rows: Span | None = None
    columns: Span | None = None
    pool: Pool = "peak"


class AttentionReply(Reply, frozen=True, tag="attention"):
    """Attention of one head, in one prompt or averaged over prompts.

    The maps have ⌈rows / step⌉ × ⌈columns / step⌉ values (None: all positions), each for `step` × `step` cells.
    """

    layer: int
    head: int
    positions: int
    parts: list[AttentionBuffer]
    notes: list[str]
    rows: Span | None = None
    columns: Span | None = None
    step: int = 1
    pool: Pool = "peak"


class ReadThumbnails(Request, frozen=True, tag="thumbnails"):
    """The maps of all heads of a layer, each at most `side` cells wide. Each block shows its cell farthest from zero.

    Buffer 0 is int8 [head, side, side]. Its unit is 1/127 of the head's entry in `limits`. −128 is an empty cell.
    """

    takes_long = "large caches"

    layer: Number
    target: Target
    prompt: Number | None = None
    weighting: Weighting = "pattern"
    side: Annotated[int, Meta(ge=1, le=256)] = 32


class ThumbnailsReply(Reply, frozen=True, tag="thumbnails"):
    """Thumbnails of all heads of a layer, `side` × `side` cells each. `limits` are the heads' largest absolute values.

    A limit is None if there is no such head, its pattern was not cached, its source contributions cannot be determined
    (`notes` give the reason), or a value is infinite. The head's cells are then 0.
    """

    layer: int
    side: int
    positions: int
    limits: list[float | None]
    notes: list[str]


class BlendAttention(Request, frozen=True, tag="blend"):
    """The mean of the maps of all heads of a layer (None: of the model). For contributions, the sum.

    `part` of the reply describes buffer 0. `rows` and `columns` are as in `ReadAttention`.
    """

    takes_long = "large caches"

    layer: Number | None
    target: Target
    prompt: Number | None = None
    weighting: Weighting = "pattern"
    rows: Span | None = None
    columns: Span | None = None


class BlendReply(Reply, frozen=True, tag="blend"):
    """The attention of many heads in one map. For `rows`, `columns` and `step` see `AttentionReply`."""

    positions: int
    heads: int
    part: AttentionBuffer
    notes: list[str]
    rows: Span | None = None
    columns: Span | None = None
    step: int = 1


class ScoreHeads(Request, frozen=True, tag="scores"):
    """A score of each head. Buffer 0 is float32 [layer × head], NaN if a score cannot be determined."""

    takes_long = "large caches"

    score: Score
    prompt: Number | None = None


class ScoresReply(Reply, frozen=True, tag="scores"):
    """A score for each head. `meaning` is what it measures, in a sentence. `low` and `high` are its limits."""

    score: Score
    meaning: str
    low: float
    high: float
    notes: list[str]


Requests = ReadAttention | ReadThumbnails | BlendAttention | ScoreHeads
Replies = AttentionReply | ThumbnailsReply | BlendReply | ScoresReply
