"""Messages about predicted tokens: the token lens, the next tokens, and what a head writes."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from residscope.terms import Name, NormConvention, Number, Position, Target, Token, Transport
from residscope.wire.message import Listed, Reply, Request


class LensCell(msgspec.Struct, frozen=True):
    """The likeliest tokens at one point and position, and the answer's probability and rank (1 is the likeliest)."""

    tokens: list[str]
    probabilities: list[float]
    answer: float | None = None
    rank: int | None = None


class ReadTokenLens(Request, frozen=True, tag="token-lens"):
    """The likeliest tokens at some points of the stream (`"3_pre"`, `"3_mid"`, `"final_post"`), for some positions.

    For the mean over prompts, probabilities are averaged. A cell is empty if its position is padding in every prompt.
    """

    takes_long = "large caches"

    points: Annotated[list[Name], Meta(max_length=4_096)]
    start: Number
    stop: Number
    target: Target
    k: Listed = 5
    prompt: Number | None = None
    norm: NormConvention = "recomputed"
    transport: Transport = "plain"


class TokenLensReply(Reply, frozen=True, tag="token-lens"):
    """A range of positions of the token lens: `cells[point][position - start]`."""

    points: list[str]
    start: int
    cells: list[list[LensCell]]
    notes: list[str]


class ReadNextTokens(Request, frozen=True, tag="next-tokens"):
    """The token that follows each position: how likely it was, and what each layer and head adds to its logit.

    The target must have a `next_token`. The buffers of the reply are float32. Buffer 0 is [position], the
    natural logarithm of the token's probability. Buffer 1 is [position], its rank (1 is the likeliest). Buffer 2 is
    [layer × position], what each layer adds. Buffer 3 is [layer × head × position], what each head adds. It is empty if
    the heads have no separate outputs, or if it would be larger than 1 MB (`MapPositions` then has the values of some
    heads). If `neurons` are named (`"L5N123"`), buffer 2 is [neuron × position], and buffer 3 is empty. Numbers are NaN
    where no token follows, and in layers or heads without a value. In a mean over prompts, all ranks are NaN, and
    a position has the mean over the prompts in which a token follows.
    """

    takes_long = "large caches"
    is_kept = True

    target: Target
    prompt: Number | None = None
    neurons: Annotated[list[Name], Meta(max_length=100)] = []


class NextTokensReply(Reply, frozen=True, tag="next-tokens"):
    """How each token was predicted at the position before it.

    Attributes:
        positions: The number of positions.
        runner_up: At each position the most likely other token; empty if there is none, and in a mean over prompts.
        count: The number of positions that have a next token, in all prompts that are shown.
        adding: At how many of them the rows sum to the measured value. None if nothing is measured there.
        worst: The largest unexplained value at a position.
        tolerance: The largest unexplained value that counts as rounding.
        missing: The kinds of rows that were not cached.
        notes: Notes on these values.
    """

    positions: int
    runner_up: list[str]
    count: int
    adding: int | None
    worst: float | None
    tolerance: float
    notes: list[str]
    missing: list[str] = []


class TokenValue(msgspec.Struct, frozen=True):
    """A token, and the number that is added to its logit."""

    token: Token
    value: float


class ReadHeadTokens(Request, frozen=True, tag="head-tokens"):
    """The tokens whose logits a head raises and lowers most: by its output at a position, and from one source alone.

    `source=None` means the source with the most attention from this position.
    """

    takes_long = "large caches"
    is_kept = True

    layer: Number
    head: Number
    prompt: Number | None = None
    position: Position = "last"
    source: Number | None = None
    k: Listed = 5


class HeadTokensReply(Reply, frozen=True, tag="head-tokens"):
    """The tokens whose logits a head raises and lowers most, computed with the cached scale of the final norm.

    `output_top` and `output_bottom` are for the head's output at the position. `source_top` and `source_bottom` are for
    W_OV applied to what the head reads at `source`, as if its attention to this source were 1.
    """

    layer: int
    head: int
    source: int | None
    output_top: list[TokenValue]
    output_bottom: list[TokenValue]
    source_top: list[TokenValue]
    source_bottom: list[TokenValue]
    notes: list[str]


Requests = ReadTokenLens | ReadNextTokens | ReadHeadTokens
Replies = TokenLensReply | NextTokensReply | HeadTokensReply
