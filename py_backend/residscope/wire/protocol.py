"""The wire: the unions of all messages between a view and the kernel, and their envelopes.

Each request gets one reply, matched by `id`. Tensors are sent as binary buffers with the reply, never inside it. The
messages are defined by subject in the other modules of this folder, each request above its reply, and each module ends
with the unions of its own. `widgets/src/wire/protocol.gen.ts` is generated from this module (`npm run protocol`); the
tests check that it is current.
"""

from __future__ import annotations

import msgspec

from residscope.wire import (
    attention,
    caches,
    causes,
    comparisons,
    decompositions,
    features,
    predictions,
    segments,
    shown,
    targets,
    working,
)
from residscope.wire.caches import CacheRef
from residscope.wire.message import Id

AnyRequest = (
    attention.Requests
    | caches.Requests
    | causes.Requests
    | comparisons.Requests
    | decompositions.Requests
    | features.Requests
    | predictions.Requests
    | segments.Requests
    | shown.Requests
    | targets.Requests
    | working.Requests
)

AnyReply = (
    attention.Replies
    | caches.Replies
    | causes.Replies
    | comparisons.Replies
    | decompositions.Replies
    | features.Replies
    | predictions.Replies
    | segments.Replies
    | shown.Replies
    | targets.Replies
    | working.Replies
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
