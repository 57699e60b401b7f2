"""The wire: every message between a view and the kernel, and nothing else.

One request, one reply, matched by `id`. Numbers travel as binary buffers beside the reply, never inside it.
`widgets/src/protocol.gen.ts` is generated from this file (`npm run protocol`); the tests check that it is current.
"""

from __future__ import annotations

from typing import Literal

import msgspec

By = Literal["accumulated", "layer", "head", "neuron", "source"]
Norm = Literal["frozen", "recomputed"]


class Token(msgspec.Struct, frozen=True):
    """One entry of the model's vocabulary."""

    id: int
    text: str


class Contrast(msgspec.Struct, frozen=True):
    """Mean logit of `answer` minus mean logit of `distractor` (no distractor: the plain logit of `answer`)."""

    answer: list[Token]
    distractor: list[Token]


class Target(msgspec.Struct, frozen=True):
    """What is attributed: one contrast for all prompts, or one for each; or a direction that the kernel holds."""

    contrasts: list[Contrast]
    direction: str | None = None


# --- requests -------------------------------------------------------------------------------------------------------
class Request(msgspec.Struct, frozen=True, tag_field="kind"):
    """What a view may ask. `prompt=None` is the mean over prompts, `position=None` each prompt's last real token."""


class Describe(Request, frozen=True, tag="describe"):
    """The facts of the cache."""


class ReadTokens(Request, frozen=True, tag="tokens"):
    """The tokens of one prompt, or what all prompts have in common."""

    prompt: int | None = None


class Attribute(Request, frozen=True, tag="attribute"):
    """One decomposition, for one prompt or averaged; buffer 0 of the reply is float32 [component]."""

    by: Literal["accumulated", "layer", "head"]
    target: Target
    prompt: int | None = None
    position: int | None = None
    norm: Norm = "frozen"


class ReadAttention(Request, frozen=True, tag="attention"):
    """Where a head looks; buffers: 0 = float16 [destination, source], 1 = float32 [source], what each source brings."""

    layer: int
    head: int
    target: Target
    prompt: int | None = None
    position: int | None = None


class RankNeurons(Request, frozen=True, tag="neurons"):
    """The strongest MLP neurons of one layer (None: of all), k each way; buffer 0 is float32 [label], their worth."""

    target: Target
    layer: int | None = None
    k: int = 5
    prompt: int | None = None
    position: int | None = None


class Suggest(Request, frozen=True, tag="suggest"):
    """The model's own top predictions at a position."""

    prompt: int | None = None
    position: int | None = None
    k: int = 8


class CheckToken(Request, frozen=True, tag="check"):
    """Is this text one token of the model?"""

    text: str


class ChooseTarget(Request, frozen=True, tag="target"):
    """What to attribute where nobody has said: the model's own two top predictions at each prompt's last token."""


class ListCaches(Request, frozen=True, tag="caches"):
    """Every `ActivationCache` that the user's namespace reaches: variables, and one level into containers."""


class Presence(Request, frozen=True, tag="presence"):
    """An inline panel's view tells that it is on a page, no more on it, or that its page goes away (a reload)."""

    view: str
    state: Literal["shown", "hidden", "away"]


AnyRequest = (
    Describe
    | ReadTokens
    | Attribute
    | ReadAttention
    | RankNeurons
    | Suggest
    | CheckToken
    | ChooseTarget
    | ListCaches
    | Presence
)


# --- replies --------------------------------------------------------------------------------------------------------
class Reply(msgspec.Struct, frozen=True, tag_field="kind"):
    """What the kernel answers; each request's reply bears the request's kind."""


class CacheFacts(Reply, frozen=True, tag="describe"):
    """Facts of the cache and its model. `last` is the last real position of each prompt."""

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


class TokenLabel(msgspec.Struct, frozen=True):
    """A token at a position. Where prompts differ, `text` is empty and `varies` lists some of what stands there."""

    text: str
    id: int | None = None
    varies: list[str] = []
    padding: bool = False


class TokensReply(Reply, frozen=True, tag="tokens"):
    """The tokens of a prompt, a label per position."""

    tokens: list[TokenLabel]


class AttributionReply(Reply, frozen=True, tag="attribute"):
    """A decomposition: Σ rows + constant + unexplained = measured (for `accumulated` the last row, not the sum).

    For `head` the first layers × heads rows are the map; NaN where a layer has no attention heads. Where none has,
    `refusal` says why, and the rows are the layers'.

    `own` says whether `measured` is the model's own output, or only what the final stream in the cache gives.
    `worst` is the largest gap of any prompt. It, `measured` and `unexplained` are None where the cache has nothing to
    measure against.
    """

    by: By
    labels: list[str]
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


class AttentionReply(Reply, frozen=True, tag="attention"):
    """Attention of one head (mean over prompts when none was named). `brings` says whether buffer 1 is there."""

    layer: int
    head: int
    positions: int
    brings: bool
    notes: list[str]


class NeuronsReply(Reply, frozen=True, tag="neurons"):
    """The strongest neurons, positive before negative, strongest first, as `L5N123`.

    Over all `count` neurons of `layers` layers: Σ neurons = `total`; with their `bias` that is what their MLPs add.
    """

    labels: list[str]
    count: int
    layers: int
    total: float
    bias: float
    notes: list[str]


class Prediction(msgspec.Struct, frozen=True):
    """A token that the model predicts, with its probability (mean over prompts when none was named)."""

    token: Token
    probability: float


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


class CacheRef(msgspec.Struct, frozen=True):
    """One cache of a kernel, as it was.

    `state` is `CACHE.WEIGHTS.ADDED`: each part changes whenever the activations, the model's weights, or what was added
    to the cache do.
    """

    id: str
    state: str


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


AnyReply = (
    CacheFacts
    | TokensReply
    | AttributionReply
    | AttentionReply
    | NeuronsReply
    | Suggestions
    | TokenCheck
    | TargetReply
    | CachesReply
    | PresenceReply
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

    id: str
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
