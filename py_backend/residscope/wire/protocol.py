"""The wire: every message between a view and the kernel.

Each request gets one reply, matched by `id`. Tensors are sent as binary buffers with the reply, never inside it.
`widgets/src/wire/protocol.gen.ts` is generated from this file (`npm run protocol`); the tests check that it is current.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from residscope.terms import (
    Against,
    By,
    ComponentTable,
    Decomposition,
    Effect,
    InnerFacts,
    Name,
    NormConvention,
    Number,
    Padding,
    Pool,
    Position,
    Prediction,
    Replaced,
    ReplacedBy,
    Run,
    Score,
    SegmentBy,
    Segmented,
    Span,
    Target,
    Text,
    Token,
    TokenLabel,
    Transport,
    Weighting,
)

# The limits are larger than any view needs. Limits that depend on the model are checked where a request is answered.
MOST_OF_ID = 200
"""The most characters of an id."""

Id = Annotated[str, Meta(min_length=1, max_length=MOST_OF_ID)]
"""Identifies a request in its reply, and when the request is sent again. The client chooses the id. No two clients use
the same id."""

HeadNames = Annotated[list[Name], Meta(max_length=16_384)]
"""Names of heads. The limit is enough for all heads of a large model."""

Listed = Annotated[int, Meta(ge=1, le=50)]
"""The number of listed entries."""

Presentation = Literal["matrix", "text", "all"]
Tab = Literal["attention", "positions", "token-lens", "prompts", "why", "runs", "segments"]
Holds = Literal["view", "heads", "all"]
Picture = Literal["lens", "layers", "heads", "ranking", Tab]


# --- requests -------------------------------------------------------------------------------------------------------
class Request(msgspec.Struct, frozen=True, tag_field="kind", kw_only=True):
    """A request of a view. `prompt=None` means the mean over prompts."""

    padding: Padding = "found"

    takes_long: ClassVar[Literal["never", "large caches", "always"]] = "never"
    """Whether the reply may take long. The request is then a job with progress, which can be cancelled."""
    is_kept: ClassVar[bool] = False
    """Whether the reply is memoised, because a view may request it again, or two views may show it."""


class Describe(Request, frozen=True, tag="describe"):
    """Facts about the cache."""


class ReadTokens(Request, frozen=True, tag="tokens"):
    """The tokens of one prompt, or the tokens that all prompts have in common."""

    prompt: Number | None = None


class Attribute(Request, frozen=True, tag="attribute"):
    """One decomposition, for one prompt or averaged. Buffer 0 of the reply is float32 [component].

    For the mean over several prompts, buffer 1 is the standard deviation, float32 [component]. Unless there are too
    many values (`per_prompt`), buffer 2 has the rows of each prompt, float32 [component, prompt], and buffer 3 the
    constant of each prompt, float32 [prompt].
    """

    takes_long = "large caches"
    is_kept = True

    by: Decomposition
    target: Target
    prompt: Number | None = None
    position: Position = "last"
    norm: NormConvention = "frozen"
    transport: Transport = "plain"


class Compare(Request, frozen=True, tag="compare"):
    """One decomposition of two runs. The buffers of the reply are float32 [component].

    Buffer 0 has the values of the first run (the shown one), buffer 1 those of the second. Their difference, second
    minus first, is buffer 2 (the part from different writing) plus buffer 3 (the part from different reading).
    """

    takes_long = "large caches"

    by: Decomposition
    target: Target
    against: Against
    prompt: Number | None = None
    position: Position = "last"
    norm: NormConvention = "frozen"


class CompareAttention(Request, frozen=True, tag="compare-attention"):
    """The attention pattern of one head in two runs, and their difference. The reply lists its three buffers.

    The maps are down-sampled as in `ReadAttention`. For the difference, each block shows its cell farthest from zero.
    """

    takes_long = "large caches"

    layer: Number
    head: Number
    against: Against
    prompt: Number | None = None


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


class PairPositions(Request, frozen=True, tag="pairing"):
    """Which positions of the shown run are matched with which positions of the compared run."""

    against: Against
    prompt: Number | None = None


class MeasureEffects(Request, frozen=True, tag="effects"):
    """The effects on the target if heads, or the stream at a layer and position, are replaced in runs of the model.

    Runs are made only in turns on the kernel's main thread, between cells. Each turn takes a moment. The reply has the
    effects that are known so far. The view sends the request again until nothing is left to measure. The buffers are
    float32 [layer × head], or [layer × position] for the stream: the total effect, the direct effect, and the estimate
    of the total effect. NaN means not known (yet). For `"zero"` and `"mean"`, values are what the component adds: minus
    the change of the target. For `"other"`, they are the change of the target.

    Attributes:
        of: What is replaced.
        replaced_by: What takes its place.
        against: The compared run, for `"other"`.
        measure: Whether to continue measuring. If not, the reply only has what is known.
        stop: Whether to make no more runs. Ignored with `measure`.
    """

    target: Target
    of: Replaced = "heads"
    replaced_by: ReplacedBy = "zero"
    against: Against | None = None
    prompt: Number | None = None
    position: Position = "last"
    measure: bool = True
    stop: bool = False


class RunWithout(Request, frozen=True, tag="without"):
    """Runs the model without some heads, so that `Compare` can compare this run. For turns see `MeasureEffects`."""

    against: Against


class ReadAttention(Request, frozen=True, tag="attention"):
    """The attention of one head, and its source contributions. The reply lists its buffers.

    The reply always contains `"pattern"` and the map of the requested weighting, and also `"contribution"` if it is
    small. `rows` and `columns` limit the map to some destinations and sources. A map with more than 512 × 512 cells is
    down-sampled: each block of `step` × `step` cells becomes one cell, by the method `pool`. A single destination or
    source is never down-sampled.
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


class ReadThumbnails(Request, frozen=True, tag="thumbnails"):
    """The maps of all heads of a layer, each at most `side` cells wide. Each block shows its cell farthest from zero.

    Buffer 0 is int8 [head, side, side]. Its unit is 1/127 of the head's entry in `limits`.
    """

    takes_long = "large caches"

    layer: Number
    target: Target
    prompt: Number | None = None
    weighting: Weighting = "pattern"
    side: Annotated[int, Meta(ge=1, le=256)] = 32


class BlendAttention(Request, frozen=True, tag="blend"):
    """The mean of the maps of all heads of a layer (None: of the model). For contributions, the sum.

    `part` describes buffer 0. `rows` and `columns` are as in `ReadAttention`.
    """

    takes_long = "large caches"

    layer: Number | None
    target: Target
    prompt: Number | None = None
    weighting: Weighting = "pattern"
    rows: Span | None = None
    columns: Span | None = None


class ScoreHeads(Request, frozen=True, tag="scores"):
    """A score of each head. Buffer 0 is float32 [layer × head], NaN if a score cannot be determined."""

    takes_long = "large caches"

    score: Score
    prompt: Number | None = None


class MapPositions(Request, frozen=True, tag="positions"):
    """The contribution of each component at each position, to the target at this position.

    `heads` names the rows of `by="head"`. Buffer 0 is float32 [component, position].
    Buffer 1 is float32 [position], the measured value (NaN: not known).
    """

    takes_long = "large caches"

    by: Decomposition
    target: Target
    prompt: Number | None = None
    norm: NormConvention = "frozen"
    heads: HeadNames = []
    transport: Transport = "plain"


class ReadTokenLens(Request, frozen=True, tag="token-lens"):
    """The likeliest tokens at some points of the stream (`"3_pre"`, `"3_mid"`, `"final_post"`), for some positions.

    For the mean over prompts, probabilities are averaged.
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


class ReadNextTokens(Request, frozen=True, tag="next-tokens"):
    """The token that follows each position: how likely it was, and what each layer and head adds to its logit.

    The target has each position's own next token. The buffers of the reply are float32. Buffer 0 is [position], the
    natural logarithm of the token's probability. Buffer 1 is [position], its rank (1 is the likeliest). Buffer 2 is
    [layer × position], what each layer adds. Buffer 3 is [layer × head × position], what each head adds; it is empty if
    it would be larger than 1 MB (then `MapPositions` has single heads). If `neurons` are named (`"L5N123"`), buffer 2
    is [neuron × position], and buffer 3 is empty. A number is NaN where no token follows, in layers or heads without a
    value, and if it is the rank in a mean over prompts.
    """

    takes_long = "large caches"
    is_kept = True

    target: Target
    prompt: Number | None = None
    neurons: Annotated[list[Name], Meta(max_length=100)] = []


class RankNeurons(Request, frozen=True, tag="neurons"):
    """The strongest MLP neurons of one layer (None: all layers), k of each sign. Buffer 0 is float32 [component]."""

    takes_long = "large caches"

    target: Target
    layer: Number | None = None
    k: Listed = 5
    prompt: Number | None = None
    position: Position = "last"


class ReadPairs(Request, frozen=True, tag="pairs"):
    """The attention score of the target by pairs of components: the k strongest on the query side and on the key side.

    Buffer 0 of the reply is float32 [query + 1, key + 1]. The last row and the last column are the sums of all
    other components, so the cells sum to the whole score.
    """

    takes_long = "large caches"
    is_kept = True

    target: Target
    prompt: Number | None = None
    k: Listed = 8


class ReadHeadTokens(Request, frozen=True, tag="head-tokens"):
    """The tokens whose logits a head's output at a position raises and lowers most, and the same for one source alone.

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


class ReadSegments(Request, frozen=True, tag="segments"):
    """The segments of one prompt, and the rules that find several segments in its text.

    Attributes:
        by: The rule, or the user's ranges. None: only the rules are looked for.
        prompt: The prompt. None: the only one.
    """

    is_kept = True

    by: Segmented | None = None
    prompt: Number | None = None


class MapSegments(Request, frozen=True, tag="segment-map"):
    """How much each segment reads each other one, by one head. The buffers of the reply are float32.

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


class RankSegmentHeads(Request, frozen=True, tag="segment-heads"):
    """The heads by which one segment reads another one most. Buffer 0 is float32 [head].

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


class Suggest(Request, frozen=True, tag="suggest"):
    """The model's own top predictions at a position."""

    prompt: Number | None = None
    position: Position = "last"
    k: Annotated[int, Meta(ge=1, le=100)] = 8


class CheckToken(Request, frozen=True, tag="check"):
    """Checks whether a text is one token of the model."""

    text: Text


class ChooseTarget(Request, frozen=True, tag="target"):
    """The default target: the model's own two top predictions at each prompt's last token."""


class FindAnswers(Request, frozen=True, tag="answers"):
    """Possible answers for this cache in the kernel: variables, and the target of an inline panel."""


class ResolveAnswers(Request, frozen=True, tag="resolve"):
    """The target that a variable holds (`name` is from `AnswersReply`), or that the inline panel shows (None)."""

    name: Name | None = None


class Step(msgspec.Struct, frozen=True):
    """A step of the trail: a target, and the position where it is read."""

    target: Target
    position: Position = "last"


class Feeds(msgspec.Struct, frozen=True):
    """A colouring of the head map: what each earlier head adds to an input of one head that reads one source.

    `by` is this input: the head's query or key (values add up to its attention score), or its value (values add up to
    its source contribution).
    """

    layer: Number
    head: Number
    source: Number
    by: Literal["query", "key", "value"]


MOST_OF_TRAIL = 32
"""The largest number of steps of a trail."""


class Shown(msgspec.Struct, frozen=True):
    """Everything that is selected in a view. It determines the view's pictures.

    Attributes:
        trail: The targets that were chosen one after another. The present step is `trail[step]`, with the target
            `target`. Empty if there is only one target.
        step: The index of the present step in the trail.
        why: How the tab "why" decomposes an attention score: into two sides, or into pairs of components.
        feeds: Colours the head map by what feeds a head. None: no such colouring.
        against: The run that the shown one is compared with. None: no comparison.
        run: Which of the two runs the head map and the ranking show, or their difference.
        effect: Which effect of the heads the head map and the ranking show.
        replaced_by: What takes the place of a head's output in the runs that measure effects.
        segments: How the prompt is divided into segments. None: the tokens are shown one by one.
        transport: Whether the logit lens maps the stream to its end, if the user gave a lens.
    """

    target: Target
    prompt: Number | None = None
    position: Position = "last"
    heads: HeadNames = []
    norm: NormConvention = "frozen"
    top_k: Listed = 5
    ranking: Literal["heads", "neurons"] = "heads"
    layer: Number | None = None
    weighting: Weighting = "pattern"
    score: Score | None = None
    tab: Tab = "attention"
    presentation: Presentation = "matrix"
    by: Decomposition = "layer"
    padding: Padding = "found"
    trail: Annotated[list[Step], Meta(max_length=MOST_OF_TRAIL)] = []
    step: Annotated[int, Meta(ge=0, le=31)] = 0
    why: Literal["sides", "pairs"] = "sides"
    feeds: Feeds | None = None
    against: Against | None = None
    run: Run = "difference"
    effect: Effect = "direct"
    replaced_by: ReplacedBy = "zero"
    segments: Segmented | None = None
    transport: Transport = "plain"


class WriteCode(Request, frozen=True, tag="code"):
    """Python code that computes exactly the values in one picture."""

    takes_long = "large caches"

    picture: Picture
    shown: Shown


class WritePage(Request, frozen=True, tag="page"):
    """The view as a stand-alone HTML page. Buffer 0 of the reply is the text of the page, UTF-8."""

    takes_long = "always"

    shown: Shown
    holds: Holds = "heads"


class ReadChapter(Request, frozen=True, tag="chapter"):
    """The text of a chapter of the documentation, by its name."""

    name: Name


class ListCaches(Request, frozen=True, tag="caches"):
    """Every `ActivationCache` in the user's namespace: in variables, and up to two levels deep in containers."""


class Presence(Request, frozen=True, tag="presence"):
    """Reports that an inline panel's view was shown or removed, or that its page closes or reloads."""

    view: Id
    state: Literal["shown", "hidden", "away"]


class GiveUp(Request, frozen=True, tag="give-up"):
    """Cancels the job of an earlier request, by its id."""

    id: Id


AnyRequest = (
    Describe
    | ReadTokens
    | Attribute
    | Compare
    | CompareAttention
    | CompareTokenLens
    | PairPositions
    | MeasureEffects
    | RunWithout
    | ReadAttention
    | ReadThumbnails
    | BlendAttention
    | ScoreHeads
    | MapPositions
    | ReadTokenLens
    | ReadNextTokens
    | RankNeurons
    | ReadPairs
    | ReadHeadTokens
    | ReadSegments
    | MapSegments
    | RankSegmentHeads
    | Suggest
    | CheckToken
    | ChooseTarget
    | FindAnswers
    | ResolveAnswers
    | WriteCode
    | WritePage
    | ReadChapter
    | ListCaches
    | Presence
    | GiveUp
)


# --- replies --------------------------------------------------------------------------------------------------------
class Reply(msgspec.Struct, frozen=True, tag_field="kind"):
    """A reply of the kernel, of the same kind as its request."""


class LensFacts(msgspec.Struct, frozen=True):
    """The maps of the stream to its end that the user gave: their name, and what they compute (`h + A h + b`)."""

    name: str
    formula: str


class CacheFacts(Reply, frozen=True, tag="describe"):
    """Facts about the cache and its model.

    `last` is the last real position of each prompt, `points` are the cached points of the residual stream. `padding` is
    the number of detected padding tokens. `padding` and `last` do not depend on the `padding` of the request.
    `generated_from` is the position of the first generated token, and `lens` the maps of the stream to its end, if the
    user gave them.
    """

    name: str
    model: str
    layers: int
    heads: int
    prompts: int
    positions: int
    dtype: str
    device: str
    bytes: int
    missing: list[str]
    last: list[int]
    has_tokens: bool
    padding: int = 0
    points: ComponentTable = msgspec.field(default_factory=ComponentTable.empty)
    generated_from: int | None = None
    lens: LensFacts | None = None


class TokensReply(Reply, frozen=True, tag="tokens"):
    """The tokens of a prompt, one label for each position."""

    tokens: list[TokenLabel]


class AttributionReply(Reply, frozen=True, tag="attribute"):
    """A decomposition: Σ rows + constant + unexplained = measured (for `accumulated` the last row, not the sum).

    For `head` the first layers × heads rows are the map, with NaN in a layer without attention heads. If no layer has
    heads, `refusal` is the reason, and the rows are those of `layer`.

    `missing` names the kinds of rows that were not cached ("MLPs"). The other rows are exact, but not complete.
    `own` is whether `measured` is the model's own output. If not, it was computed from the final stream in the cache.
    `worst` is the largest unexplained value of any prompt. `worst`, `measured` and `unexplained` are None if the cache
    does not give the measured value. `inner` describes a target inside the model.
    """

    by: By
    components: ComponentTable
    measured: float | None
    constant: float
    unexplained: float | None
    worst: float | None
    tolerance: float
    measured_from: str
    own: bool
    prompts: int
    notes: list[str]
    refusal: str | None = None
    per_prompt: bool = False
    missing: list[str] = []
    inner: InnerFacts | None = None


class RunSum(msgspec.Struct, frozen=True):
    """The sums of the rows of a run, or of the difference of two runs, as in `AttributionReply`.

    For a difference, `tolerance` and `worst` are for both runs together.
    """

    measured: float | None
    constant: float
    unexplained: float | None
    worst: float | None
    tolerance: float
    measured_from: str
    own: bool


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


class AttentionBuffer(msgspec.Struct, frozen=True):
    """Describes one buffer: a map [destination, source] in units of `scale`, or one row of it, float32 [source].

    A map is float16, or float32 if it is `wide`. For a `triangle`, only the cells on and below the diagonal are sent,
    row by row. The others are 0. `"value"` is attention × ‖v W_O‖. `"contribution"` is the source contribution to the
    target at the destination, in logits. `"reads"` and `"brings"` are the rows of the pattern and of the contribution
    at the requested destination (for the mean over prompts, at each prompt's own destination).
    """

    what: Literal["pattern", "value", "contribution", "reads", "brings"]
    scale: float = 1.0
    wide: bool = False
    triangle: bool = False


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


class PositionPair(msgspec.Struct, frozen=True):
    """A position of the first run, and the matched position of the second run."""

    first: int
    second: int


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


class PairingReply(Reply, frozen=True, tag="pairing"):
    """How the positions of two runs are matched.

    Attributes:
        how: `index`: by index. `padding`: by their place in the prompt without its padding. `token`: by the tokens that
            both prompts have. `none`: not at all, because the lengths differ and no alignment was chosen.
        pairs: None if the positions are matched by index, or not at all, or differently in different prompts.
        first_length: How many tokens the (first) compared prompt has in the first run, without padding.
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


class EffectsReply(Reply, frozen=True, tag="effects"):
    """The effects so far (see `MeasureEffects`).

    Attributes:
        of: What is replaced.
        state: Whether all is measured (`done`), measuring waits for a turn (`waiting`), or it was stopped.
        turn: The token with which `residscope.hosts.turns.take` takes the turn. None if measuring does not wait.
        done: The number of measured effects.
        total: The number of all effects. 0 before it is known.
        before: The target in the unchanged run. None before it is known.
        replayed: The comparison of the unchanged run with the cache, in words. Empty before it is known.
        replaced_by: What takes the place of the activation, in words.
        prompts: The number of prompts in the mean.
        notes: Notes on these numbers.
    """

    of: Replaced
    state: Literal["waiting", "done", "stopped"]
    turn: str | None
    done: int
    total: int
    before: float | None
    replayed: str
    replaced_by: str
    prompts: int
    notes: list[str]


class WithoutReply(Reply, frozen=True, tag="without"):
    """Whether there is a run without these heads, and how the unchanged run compares with the cache."""

    state: Literal["waiting", "done"]
    turn: str | None
    replayed: str
    notes: list[str]


class ThumbnailsReply(Reply, frozen=True, tag="thumbnails"):
    """Thumbnails of all heads of a layer, `side` × `side` cells each. `limits` are the heads' largest absolute values.

    A limit is None if there is no such head, its pattern was not cached, or its source contributions cannot be
    determined (`notes` give the reason). Its cells are then 0.
    """

    layer: int
    side: int
    positions: int
    limits: list[float | None]
    notes: list[str]


class BlendReply(Reply, frozen=True, tag="blend"):
    """The attention of many heads in one map. For `rows`, `columns` and `step` see `AttentionReply`."""

    positions: int
    heads: int
    part: AttentionBuffer
    notes: list[str]
    rows: Span | None = None
    columns: Span | None = None
    step: int = 1


class ScoresReply(Reply, frozen=True, tag="scores"):
    """A score for each head. `meaning` is what it measures, in a sentence. `low` and `high` are its limits."""

    score: Score
    meaning: str
    low: float
    high: float
    notes: list[str]


class PositionsReply(Reply, frozen=True, tag="positions"):
    """A map component × position. Σ rows + constant = the measured value (for `accumulated` the last row + constant).

    `missing` names the kinds of rows that were not cached. The other rows then do not sum to the measured value.
    """

    by: By
    components: ComponentTable
    positions: int
    notes: list[str]
    missing: list[str] = []


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


class LensCell(msgspec.Struct, frozen=True):
    """The likeliest tokens at one point and position, and the answer's probability and rank (1 is the likeliest)."""

    tokens: list[str]
    probabilities: list[float]
    answer: float | None = None
    rank: int | None = None


class TokenLensReply(Reply, frozen=True, tag="token-lens"):
    """A range of positions of the token lens: `cells[point][position - start]`."""

    points: list[str]
    start: int
    cells: list[list[LensCell]]
    notes: list[str]


class TokenLensComparisonReply(Reply, frozen=True, tag="compare-token-lens"):
    """A range of positions of the token lens in two runs: `first[point][position - start]`, and `second` likewise.

    `beside` has the matched position of the second run for each position. If there is none, this entry and the cells of
    `second` are None.
    """

    points: list[str]
    start: int
    first: list[list[LensCell]]
    second: list[list[LensCell | None]]
    beside: list[int | None]
    notes: list[str]


class NeuronsReply(Reply, frozen=True, tag="neurons"):
    """The strongest neurons, positive before negative, strongest first.

    `total` is the sum over all `count` neurons of `layers` layers. `total` + `bias` is the contribution of their
    MLPs.
    """

    components: ComponentTable
    count: int
    layers: int
    total: float
    bias: float
    notes: list[str]


class PairsReply(Reply, frozen=True, tag="pairs"):
    """An attention score by pairs of components, the strongest of each side first.

    `query_others` and `key_others` are the numbers of components in the last row and the last column. `measured` is the
    cached score, to which all cells sum.
    """

    query: ComponentTable
    key: ComponentTable
    query_others: int
    key_others: int
    measured: float | None
    notes: list[str]


class TokenValue(msgspec.Struct, frozen=True):
    """A token, and the number that is added to its logit."""

    token: Token
    value: float


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


class SegmentLabel(msgspec.Struct, frozen=True):
    """A segment. `named` is False for the tokens between those that a rule or the user made."""

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

    `turns` are the turns, if it is a chat, whatever rule was asked for.
    """

    rules: list[SegmentRule]
    turns: list[SegmentLabel]
    segments: list[SegmentLabel]
    notes: list[str]


class SegmentMapReply(Reply, frozen=True, tag="segment-map"):
    """How much each segment reads each other one, by one head. `meaning` is what a value is, in words."""

    layer: int
    head: int
    segments: list[SegmentLabel]
    meaning: str
    notes: list[str]


class SegmentHeadsReply(Reply, frozen=True, tag="segment-heads"):
    """The heads by which one segment reads another one, the farthest from zero first, of all `count` heads.

    `destination` and `source` are the indices of the segments, counted from the start. `destination` is None for all
    positions after `source`.
    """

    destination: int | None
    source: int
    heads: list[str]
    count: int
    meaning: str
    notes: list[str]


class Suggestions(Reply, frozen=True, tag="suggest"):
    """The model's top predictions, likeliest first."""

    predictions: list[Prediction]


class TokenCheck(Reply, frozen=True, tag="check"):
    """How a text is tokenised. `single`: whether it is exactly one token. If not, `message` gives the reason."""

    text: str
    tokens: list[Token]
    single: bool
    message: str
    suggestions: list[Token]


class TargetReply(Reply, frozen=True, tag="target"):
    """A target."""

    target: Target


class Variable(msgspec.Struct, frozen=True):
    """A variable with possible answers. `name` is a Python expression, `words` a description such as `[8, 2] ids`."""

    name: str
    words: str


class AnswersReply(Reply, frozen=True, tag="answers"):
    """Possible answers, in the namespace's order. `panel` describes the target of an inline panel, if there is one."""

    variables: list[Variable]
    panel: str | None
    notes: list[str]


class ResolvedReply(Reply, frozen=True, tag="resolve"):
    """A target, and notes on how the answers were understood."""

    name: str | None
    target: Target
    notes: list[str]


class CodeReply(Reply, frozen=True, tag="code"):
    """Python code."""

    code: str


class PageReply(Reply, frozen=True, tag="page"):
    """A page. `name` is the suggested name of its file."""

    name: str


class ChapterReply(Reply, frozen=True, tag="chapter"):
    """A chapter of the documentation, as Markdown."""

    name: str
    text: str


class CacheRef(msgspec.Struct, frozen=True):
    """One cache of a kernel, in one state.

    `state` is `CACHE.WEIGHTS.ADDED`. The parts change when activations change, when the model's weights change, and
    when something is added to the cache.
    """

    id: Name
    state: Name


class CacheRow(msgspec.Struct, frozen=True):
    """One cache in the namespace, described from metadata only.

    `names` are all expressions for it (`cache`, `runs["clean"]`), plain variables first. `age` is the time in seconds
    since Residscope first saw it. `changed` and `weights_changed`: whether the cache, or its model's weights, were
    changed since then. `problem` is the reason if the cache cannot be inspected.
    """

    ref: CacheRef
    names: list[str]
    model: str
    layers: int
    heads: int
    prompts: int
    positions: int
    dtype: str
    device: str
    bytes: int
    missing: list[str]
    age: float
    changed: bool = False
    weights_changed: bool = False
    problem: str | None = None


class CachesReply(Reply, frozen=True, tag="caches"):
    """All caches, in the namespace's order. `kernel` changes at every restart. `notes` name what was left out."""

    kernel: str
    caches: list[CacheRow]
    notes: list[str]


class PresenceReply(Reply, frozen=True, tag="presence"):
    """Confirms a presence message."""


class GivenUp(Reply, frozen=True, tag="give-up"):
    """Confirms that the job is cancelled."""


class Working(Reply, frozen=True, tag="working"):
    """The job is not finished: `done` of `total` steps are done (0: not known). Send the request again, with its id."""

    done: int
    total: int


AnyReply = (
    CacheFacts
    | TokensReply
    | AttributionReply
    | ComparisonReply
    | AttentionReply
    | AttentionComparisonReply
    | TokenLensComparisonReply
    | PairingReply
    | EffectsReply
    | WithoutReply
    | ThumbnailsReply
    | BlendReply
    | ScoresReply
    | PositionsReply
    | TokenLensReply
    | NextTokensReply
    | NeuronsReply
    | PairsReply
    | HeadTokensReply
    | SegmentsReply
    | SegmentMapReply
    | SegmentHeadsReply
    | Suggestions
    | TokenCheck
    | TargetReply
    | AnswersReply
    | ResolvedReply
    | CodeReply
    | PageReply
    | ChapterReply
    | CachesReply
    | PresenceReply
    | GivenUp
    | Working
)


class Failure(msgspec.Struct, frozen=True):
    """The reason why a request could not be answered: a stable code, and a sentence that says what to do."""

    code: str
    message: str


class Question(msgspec.Struct, frozen=True):
    """A request in its envelope. `cache` names the cache, if the channel serves several.

    `gives_turns`: whether the view makes the kernel take the turns in which the model is run (`EffectsReply.turn`). If
    not, the kernel takes a turn while it answers a request that needs one, if no cell is running.

    If the cache is no longer in the state that `cache` names, the request is refused (`changed`). So no picture mixes
    two states. If only the weights were changed, the reply has a note, because a model may be trained while it is
    inspected.
    """

    id: Id
    ask: AnyRequest
    cache: CacheRef | None = None
    gives_turns: bool = False


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reply in its envelope: exactly one of `reply` and `failure`."""

    id: str
    reply: AnyReply | None = None
    failure: Failure | None = None


def schema() -> dict[str, object]:
    """Return the JSON schema of the whole wire, from which the TypeScript types are generated."""
    roots, components = msgspec.json.schema_components([Question, Answer], ref_template="#/$defs/{name}")
    return {"title": "Wire", "anyOf": list(roots), "$defs": components}


def wire() -> str:
    """Return a digest of the schema. Two sides with the same digest understand each other."""
    from hashlib import sha256

    return sha256(msgspec.json.encode(schema(), order="sorted")).hexdigest()[:12]


if __name__ == "__main__":
    import sys

    sys.stdout.write(msgspec.json.format(msgspec.json.encode({**schema(), "$comment": wire()}), indent=2).decode())
