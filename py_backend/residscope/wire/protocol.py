"""The wire: every message between a view and the kernel, and nothing else.

One request, one reply, matched by `id`. Numbers travel as binary buffers beside the reply, never inside it.
`widgets/src/protocol.gen.ts` is generated from this file (`npm run protocol`); the tests check that it is current.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from residscope.terms import (
    By,
    ComponentTable,
    Decomposition,
    Name,
    NormConvention,
    Number,
    Padding,
    Pool,
    Position,
    Prediction,
    Score,
    Span,
    Target,
    Text,
    Token,
    TokenLabel,
    Weighting,
)

# What a request may ask at most: more than any view asks, of any cache, and little enough to answer. What depends on
# the model is checked where the request is answered.
MOST_OF_ID = 200
"""So many characters an id has at most."""

Id = Annotated[str, Meta(min_length=1, max_length=MOST_OF_ID)]
"""What a question is known by, to its answer and when it is asked again. Whoever asks makes it up, so that no two
clients have the same."""

HeadNames = Annotated[list[Name], Meta(max_length=16_384)]
"""Some heads: all there are in a large model."""

Listed = Annotated[int, Meta(ge=1, le=50)]
"""So many are listed."""

Presentation = Literal["matrix", "text", "all"]
Tab = Literal["attention", "positions", "token-lens", "prompts"]
Holds = Literal["view", "heads", "all"]
Picture = Literal["lens", "layers", "heads", "ranking", "attention", "positions", "token-lens", "prompts"]


# --- requests -------------------------------------------------------------------------------------------------------
class Request(msgspec.Struct, frozen=True, tag_field="kind", kw_only=True):
    """What a view may ask. `prompt=None` is the mean over prompts."""

    padding: Padding = "found"

    takes_long: ClassVar[Literal["never", "large caches", "always"]] = "never"
    """Whether the answer may take longer than a moment: then it is a job, with progress, that can be given up."""
    is_kept: ClassVar[bool] = False
    """Whether the answer is kept: a pointer comes back to a head it has passed, two views may show the same."""


class Describe(Request, frozen=True, tag="describe"):
    """The facts of the cache."""


class ReadTokens(Request, frozen=True, tag="tokens"):
    """The tokens of one prompt, or what all prompts have in common."""

    prompt: Number | None = None


class Attribute(Request, frozen=True, tag="attribute"):
    """One decomposition, for one prompt or averaged; buffer 0 of the reply is float32 [component].

    In the mean over several prompts buffer 1 is the standard deviation, float32 [component]. Unless there are too many
    figures (`per_prompt`) buffer 2 is what each prompt has, float32 [component, prompt], and buffer 3 each prompt's
    constant, float32 [prompt].
    """

    takes_long = "large caches"
    is_kept = True

    by: Decomposition
    target: Target
    prompt: Number | None = None
    position: Position = "last"
    norm: NormConvention = "frozen"


class ReadAttention(Request, frozen=True, tag="attention"):
    """Where a head looks, and what each source brings to the target. The reply says which buffers there are.

    `"pattern"` is always there, and the map of the weighting asked for; `"contribution"` also where it is small. Only
    some destinations (`rows`) and sources (`columns`) are computed where they are named. What has more cells than
    travel (512 × 512, or as many) comes down-sampled, `step` × `step` cells in one: `pool` says how. One destination,
    or one source, never does.
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
    """All heads of a layer, each at most `side` cells wide (the cell that is farthest from zero stands for its block).

    Buffer 0 is int8 [head, side, side], in 127ths of each head's `limits`.
    """

    takes_long = "large caches"

    layer: Number
    target: Target
    prompt: Number | None = None
    weighting: Weighting = "pattern"
    side: Annotated[int, Meta(ge=1, le=256)] = 32


class BlendAttention(Request, frozen=True, tag="blend"):
    """The mean over all heads of a layer (None: of the model); of contributions, the sum.

    Buffer 0 is what `part` says, in units of its `scale`. `rows` and `columns` are those of `ReadAttention`.
    """

    takes_long = "large caches"

    layer: Number | None
    target: Target
    prompt: Number | None = None
    weighting: Weighting = "pattern"
    rows: Span | None = None
    columns: Span | None = None


class ScoreHeads(Request, frozen=True, tag="scores"):
    """How much each head is of a known kind; buffer 0 is float32 [layer × head], NaN where it cannot be determined."""

    takes_long = "large caches"

    score: Score
    prompt: Number | None = None


class MapPositions(Request, frozen=True, tag="positions"):
    """What each component adds at each position, to the target there; buffer 0 is float32 [component, position].

    `heads` names the rows of `by="head"`. Buffer 1 is float32 [position], the model's own figure (NaN: not known).
    """

    takes_long = "large caches"

    by: Decomposition
    target: Target
    prompt: Number | None = None
    norm: NormConvention = "frozen"
    heads: HeadNames = []


class ReadTokenLens(Request, frozen=True, tag="token-lens"):
    """The likeliest tokens at some points of the stream (`"3_pre"`, `"3_mid"`, `"final_post"`), for some positions.

    In the mean over prompts probabilities are averaged.
    """

    takes_long = "large caches"

    points: Annotated[list[Name], Meta(max_length=4_096)]
    start: Number
    stop: Number
    target: Target
    k: Listed = 5
    prompt: Number | None = None
    norm: NormConvention = "recomputed"


class RankNeurons(Request, frozen=True, tag="neurons"):
    """The strongest MLP neurons of one layer (None: of all), k each way; buffer 0 is float32 [component]."""

    takes_long = "large caches"

    target: Target
    layer: Number | None = None
    k: Listed = 5
    prompt: Number | None = None
    position: Position = "last"


class Suggest(Request, frozen=True, tag="suggest"):
    """The model's own top predictions at a position."""

    prompt: Number | None = None
    position: Position = "last"
    k: Annotated[int, Meta(ge=1, le=100)] = 8


class CheckToken(Request, frozen=True, tag="check"):
    """Is this text one token of the model?"""

    text: Text


class ChooseTarget(Request, frozen=True, tag="target"):
    """What to attribute where nobody has said: the model's own two top predictions at each prompt's last token."""


class FindAnswers(Request, frozen=True, tag="answers"):
    """What lies in the kernel that fits as a target of this cache: variables, and what an inline panel of it has."""


class ResolveAnswers(Request, frozen=True, tag="resolve"):
    """The target that one of these is: a variable, by the name under which it was listed, or (None) the panel's."""

    name: Name | None = None


class Shown(msgspec.Struct, frozen=True):
    """All that is selected in a view: what its pictures are pictures of."""

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


class WriteCode(Request, frozen=True, tag="code"):
    """The Python code that gives exactly what one picture shows."""

    takes_long = "large caches"

    picture: Picture
    shown: Shown


class WritePage(Request, frozen=True, tag="page"):
    """The view as a stand-alone HTML page; buffer 0 of the reply is its text, UTF-8."""

    takes_long = "always"

    shown: Shown
    holds: Holds = "heads"


class ListCaches(Request, frozen=True, tag="caches"):
    """Every `ActivationCache` that the user's namespace reaches: variables, and two levels into containers."""


class Presence(Request, frozen=True, tag="presence"):
    """An inline panel's view tells that it is on a page, no more on it, or that its page goes away (a reload)."""

    view: Id
    state: Literal["shown", "hidden", "away"]


class GiveUp(Request, frozen=True, tag="give-up"):
    """The answer to an earlier question, by its id, is not wanted any more."""

    id: Id


AnyRequest = (
    Describe
    | ReadTokens
    | Attribute
    | ReadAttention
    | ReadThumbnails
    | BlendAttention
    | ScoreHeads
    | MapPositions
    | ReadTokenLens
    | RankNeurons
    | Suggest
    | CheckToken
    | ChooseTarget
    | FindAnswers
    | ResolveAnswers
    | WriteCode
    | WritePage
    | ListCaches
    | Presence
    | GiveUp
)


# --- replies --------------------------------------------------------------------------------------------------------
class Reply(msgspec.Struct, frozen=True, tag_field="kind"):
    """What the kernel answers; each request's reply bears the request's kind."""


class CacheFacts(Reply, frozen=True, tag="describe"):
    """Facts of the cache and its model.

    `last` is the last real position of each prompt, `points` are those of the residual stream that were cached.
    `padding` tokens were treated as padding: `last` and these are what was found, whatever a request counts as real.
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


class TokensReply(Reply, frozen=True, tag="tokens"):
    """The tokens of a prompt, a label per position."""

    tokens: list[TokenLabel]


class AttributionReply(Reply, frozen=True, tag="attribute"):
    """A decomposition: Σ rows + constant + unexplained = measured (for `accumulated` the last row, not the sum).

    For `head` the first layers × heads rows are the map; NaN where a layer has no attention heads. Where none has,
    `refusal` says why, and the rows are the layers'.

    `missing` says which kinds of rows were not cached ("MLPs"): then the rows are exact, but not complete.
    `own` says whether `measured` is the model's own output, or only what the final stream in the cache gives.
    `worst` is the largest gap of any prompt. It, `measured` and `unexplained` are None where the cache has nothing to
    measure against.
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


class AttentionBuffer(msgspec.Struct, frozen=True):
    """What one buffer holds: a map [destination, source] in units of `scale`, or one row of it, float32 [source].

    A map is float16, or float32 where it is `wide`; of a `triangle` only what stands at and below the diagonal travels,
    row by row: the rest is 0. `"value"` is attention × ‖v W_O‖, `"contribution"` what the source adds to the target at
    the destination, in logits. At the destination that was asked for (in the mean: at each prompt's own) `"reads"` is
    the row of the pattern, `"brings"` that of the contribution.
    """

    what: Literal["pattern", "value", "contribution", "reads", "brings"]
    scale: float = 1.0
    wide: bool = False
    triangle: bool = False


class AttentionReply(Reply, frozen=True, tag="attention"):
    """Attention of one head (mean over prompts when none was named).

    Its maps have ⌈rows / step⌉ × ⌈columns / step⌉ figures (None: all positions), each for `step` × `step` cells.
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


class ThumbnailsReply(Reply, frozen=True, tag="thumbnails"):
    """All heads of a layer in small. `limits` is each head's largest absolute value; `side` × `side` cells each.

    A limit is None where there is no such attention: the layer has fewer heads, or none, or it was not cached, or what
    it brings cannot be determined (`notes` say which). The cells are 0 there.
    """

    layer: int
    side: int
    positions: int
    limits: list[float | None]
    notes: list[str]


class BlendReply(Reply, frozen=True, tag="blend"):
    """Many heads' attention in one; for `rows`, `columns` and `step` see `AttentionReply`."""

    positions: int
    heads: int
    part: AttentionBuffer
    notes: list[str]
    rows: Span | None = None
    columns: Span | None = None
    step: int = 1


class ScoresReply(Reply, frozen=True, tag="scores"):
    """A score for each head. `meaning` says in a sentence what it measures, `low` and `high` end its scale."""

    score: Score
    meaning: str
    low: float
    high: float
    notes: list[str]


class PositionsReply(Reply, frozen=True, tag="positions"):
    """A map component × position; Σ rows + constant = the model's own figure (for `accumulated` the last row).

    `missing` says which kinds of rows were not cached: then the others do not add up to it.
    """

    by: By
    components: ComponentTable
    positions: int
    notes: list[str]
    missing: list[str] = []


class LensCell(msgspec.Struct, frozen=True):
    """The likeliest tokens at one point and position; the answer's probability and rank there (1 is the likeliest)."""

    tokens: list[str]
    probabilities: list[float]
    answer: float | None = None
    rank: int | None = None


class TokenLensReply(Reply, frozen=True, tag="token-lens"):
    """A window of the token lens: `cells[point][position - start]`."""

    points: list[str]
    start: int
    cells: list[list[LensCell]]
    notes: list[str]


class NeuronsReply(Reply, frozen=True, tag="neurons"):
    """The strongest neurons, positive before negative, strongest first.

    Over all `count` neurons of `layers` layers: Σ neurons = `total`; with their `bias` that is what their MLPs add.
    """

    components: ComponentTable
    count: int
    layers: int
    total: float
    bias: float
    notes: list[str]


class Suggestions(Reply, frozen=True, tag="suggest"):
    """The model's top predictions, likeliest first."""

    predictions: list[Prediction]


class TokenCheck(Reply, frozen=True, tag="check"):
    """How a text is tokenised; `single` when it is exactly one token, else `message` says why not."""

    text: str
    tokens: list[Token]
    single: bool
    message: str
    suggestions: list[Token]


class TargetReply(Reply, frozen=True, tag="target"):
    """What to attribute."""

    target: Target


class Variable(msgspec.Struct, frozen=True):
    """A variable that fits as answers, by what one would write to get it; `words` say what it is, `[8, 2] ids`."""

    name: str
    words: str


class AnswersReply(Reply, frozen=True, tag="answers"):
    """What fits, in the namespace's order; `panel` says in words what an inline panel's target is, if there is one."""

    variables: list[Variable]
    panel: str | None
    notes: list[str]


class ResolvedReply(Reply, frozen=True, tag="resolve"):
    """What to attribute, and what a reader should know of how the answers were read."""

    name: str | None
    target: Target
    notes: list[str]


class CodeReply(Reply, frozen=True, tag="code"):
    """Python code."""

    code: str


class PageReply(Reply, frozen=True, tag="page"):
    """A page; `name` is what to call its file."""

    name: str


class CacheRef(msgspec.Struct, frozen=True):
    """One cache of a kernel, as it was.

    `state` is `CACHE.WEIGHTS.ADDED`: each part changes whenever the activations, the model's weights, or what was added
    to the cache do.
    """

    id: Name
    state: Name


class CacheRow(msgspec.Struct, frozen=True):
    """One cache that the namespace reaches, read off metadata alone.

    `names` are all the ways to it (`cache`, `runs["clean"]`), plain variables first. `age` is in seconds since
    Residscope first saw it; `changed` and `weights_changed` say what has happened to it and to its model's weights
    since then. `problem` says why it cannot be inspected.
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
    """All caches, in the namespace's order. `kernel` differs after every restart; `notes` say what was left out."""

    kernel: str
    caches: list[CacheRow]
    notes: list[str]


class PresenceReply(Reply, frozen=True, tag="presence"):
    """Noted."""


class GivenUp(Reply, frozen=True, tag="give-up"):
    """Nobody works on it any more."""


class Working(Reply, frozen=True, tag="working"):
    """Not yet: so many parts of `total` are done (0 where that is not known). Ask again, with the same id."""

    done: int
    total: int


AnyReply = (
    CacheFacts
    | TokensReply
    | AttributionReply
    | AttentionReply
    | ThumbnailsReply
    | BlendReply
    | ScoresReply
    | PositionsReply
    | TokenLensReply
    | NeuronsReply
    | Suggestions
    | TokenCheck
    | TargetReply
    | AnswersReply
    | ResolvedReply
    | CodeReply
    | PageReply
    | CachesReply
    | PresenceReply
    | GivenUp
    | Working
)


class Failure(msgspec.Struct, frozen=True):
    """Why a request could not be answered: a stable code, and a sentence that names the remedy."""

    code: str
    message: str


class Question(msgspec.Struct, frozen=True):
    """A request in its envelope. `cache` says which one is meant, where the channel carries requests about several.

    A request about a cache that was changed since is refused (`changed`), so that no picture is put together from two
    states. Weights that were changed since are told in a note: a model may be in training while it is looked at.
    """

    id: Id
    ask: AnyRequest
    cache: CacheRef | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reply in its envelope: exactly one of `reply` and `failure`."""

    id: str
    reply: AnyReply | None = None
    failure: Failure | None = None


def schema() -> dict[str, object]:
    """The JSON schema of the whole wire, from which the TypeScript types are generated."""
    roots, components = msgspec.json.schema_components([Question, Answer], ref_template="#/$defs/{name}")
    return {"title": "Wire", "anyOf": list(roots), "$defs": components}


def wire() -> str:
    """What tells one wire from another: two sides that give the same understand each other."""
    from hashlib import sha256

    return sha256(msgspec.json.encode(schema(), order="sorted")).hexdigest()[:12]


if __name__ == "__main__":
    import sys

    sys.stdout.write(msgspec.json.format(msgspec.json.encode({**schema(), "$comment": wire()}), indent=2).decode())
