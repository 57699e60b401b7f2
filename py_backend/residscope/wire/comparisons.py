"""Messages that compare two runs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from residscope.terms import Against, By, ComponentTable, Name, NormConvention, Number, Position, ShownBy, Target
from residscope.wire.attention import AttentionBuffer
from residscope.wire.decompositions import WarningKind
from residscope.wire.message import Listed, Reply, Request
from residscope.wire.predictions import LensCell


class RunSum(msgspec.Struct, frozen=True):
    """The sums of the rows of a run, or of the difference of two runs, as in `AttributionReply`.

    For a difference, `tolerance`, `worst` and `warnings` are for both runs together.
    """

    measured: float | None
    constant: float
    unexplained: float | None
    worst: float | None
    tolerance: float
    measured_from: str
    own: bool
    warnings: list[WarningKind] = []


class Compare(Request, frozen=True, tag="compare"):
    """One decomposition of two runs. The buffers of the reply are float32 [component].

    Buffer 0 has the values of the first run (the shown one), buffer 1 those of the second. Their difference, second
    minus first, is buffer 2 (the part from different writing) plus buffer 3 (the part from different reading).
    """

    takes_long = "large caches"

    by: ShownBy
    target: Target
    against: Against
    prompt: Number | None = None
    position: Position = "last"
    norm: NormConvention = "frozen"


class ComparisonReply(Reply, frozen=True, tag="compare"):
    """Two runs row by row. For each run, and for the difference, Σ rows + constant + unexplained = measured.

    For `head` and `missing` see `AttributionReply`. `read` is the part of the measured difference that comes from
    different reading, summed over all rows. It includes the difference of the constants.
    """

    by: By
    components: ComponentTable
    first: RunSum
    second: RunSum
    difference: RunSum
    read: float
    prompts: int
    notes: list[str]
    refusal: str | None = None
    missing: list[str] = []


class PositionPair(msgspec.Struct, frozen=True):
    """A position of the first run, and the matched position of the second run."""

    first: int
    second: int


class CompareAttention(Request, frozen=True, tag="compare-attention"):
    """The attention pattern of one head in two runs, and their difference. The reply lists its three buffers.

    The maps are down-sampled as in `ReadAttention`. For the difference, each block shows its cell farthest from zero.
    """

    takes_long = "large caches"

    layer: Number
    head: Number
    against: Against
    prompt: Number | None = None


class AttentionComparisonReply(Reply, frozen=True, tag="compare-attention"):
    """Attention of one head in two runs: `parts` are its pattern in the first run, in the second, and second − first.

    Each map has ⌈positions / step⌉² values. `positions` is the number of pairs of matched positions. `pairs` lists
    them, unless all positions are matched by their index.
    """

    layer: int
    head: int
    positions: int
    parts: list[AttentionBuffer]
    notes: list[str]
    step: int = 1
    pairs: list[PositionPair] | None = None


class CompareTokenLens(Request, frozen=True, tag="compare-token-lens"):
    """The token lens of two runs. Points and positions are those of the first run; see `ReadTokenLens`."""

    takes_long = "large caches"

    points: Annotated[list[Name], Meta(max_length=4_096)]
    start: Number
    stop: Number
    target: Target
    against: Against
    k: Listed = 5
    prompt: Number | None = None
    norm: NormConvention = "recomputed"


class TokenLensComparisonReply(Reply, frozen=True, tag="compare-token-lens"):
    """A range of positions of the token lens in two runs: `first[point][position - start]`, and `second` likewise.

    `beside` has the matched position of the second run for each position. If there is none, this entry and the cells of
    `second` are None. The cells of `second` are also None at points that the second run does not have.
    """

    points: list[str]
    start: int
    first: list[list[LensCell]]
    second: list[list[LensCell | None]]
    beside: list[int | None]
    notes: list[str]


class PairPositions(Request, frozen=True, tag="pairing"):
    """Which positions of the shown run are matched with which positions of the compared run."""

    against: Against
    prompt: Number | None = None


class PairingReply(Reply, frozen=True, tag="pairing"):
    """How the positions of two runs are matched.

    Attributes:
        how: `index`: by index. `padding`: by their place in the prompt without its padding. `token`: by the tokens that
            both prompts have. `none`: not at all, because the lengths differ and no alignment was chosen.
        pairs: None if the positions are matched by index, or not at all, or differently in different prompts.
        first_length: The number of real tokens of the compared prompt (the first one) in the first run.
        second_length: The same in the second run.
        different: How many pairs have different tokens.
        has_tokens: Whether the tokens of both runs are known.
    """

    how: Literal["index", "padding", "token", "none"]
    pairs: list[PositionPair] | None
    first_length: int
    second_length: int
    different: int
    has_tokens: bool


Requests = Compare | CompareAttention | CompareTokenLens | PairPositions
Replies = ComparisonReply | AttentionComparisonReply | TokenLensComparisonReply | PairingReply
