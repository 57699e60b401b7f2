"""Messages about caches: which there are, facts about one, and its tokens."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from residscope.terms import ComponentTable, Name, Number, TokenLabel
from residscope.wire.features import KnownSae
from residscope.wire.message import Reply, Request


class Describe(Request, frozen=True, tag="describe"):
    """Facts about the cache."""


class LensFacts(msgspec.Struct, frozen=True):
    """The lens that the user gave: its name, and its formula (`h + A h + b`)."""

    name: str
    formula: str


class CacheFacts(Reply, frozen=True, tag="describe"):
    """Facts about the cache and its model.

    `last` is the last real position of each prompt, `points` are the cached points of the residual stream. `padding` is
    the number of detected padding tokens. `padding` and `last` do not depend on the `padding` of the request.
    `generated_from` is the position of the first generated token, and `lens` the maps of the stream to its end, if the
    user gave them. `saes` are the SAEs and transcoders whose features can be shown. `parallel` are the layers whose MLP
    reads the stream before the layer, as their attention does.
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
    saes: list[KnownSae] = []
    parallel: list[Number] = []


class ReadTokens(Request, frozen=True, tag="tokens"):
    """The tokens of one prompt, or the tokens that all prompts have in common."""

    prompt: Number | None = None


class TokensReply(Reply, frozen=True, tag="tokens"):
    """The tokens of a prompt, one label for each position."""

    tokens: list[TokenLabel]


class ListCaches(Request, frozen=True, tag="caches"):
    """Every `ActivationCache` in the user's namespace: in variables, and up to two levels deep in containers.

    `since` says which caches are compared with their last known state. None: all. 0: if they have very many activations
    together, only some, so that the reply comes soon. The reply's `unread` counts the others: as long as it is not 0, a
    request with the reply's `since` compares more of them.
    """

    since: Annotated[int, Meta(ge=0)] | None = None


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
    since Residscope first saw it. `changed` is whether the cache was changed since then. `weights_changed` is
    whether the model's weights were changed since then, or the cache has another model now. `problem` is the reason if
    the cache cannot be inspected.
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
    """All caches, in the namespace's order. `kernel` changes at every restart. `notes` name what was left out.

    `unread` caches have rows of an earlier comparison (see `ListCaches`).
    """

    kernel: str
    caches: list[CacheRow]
    notes: list[str]
    unread: int = 0
    since: int = 0


Requests = Describe | ReadTokens | ListCaches
Replies = CacheFacts | TokensReply | CachesReply
