"""The wire: every message between a view and the kernel, their unions, and their envelopes.

Each request gets one reply, matched by `id`. Tensors are sent as binary buffers with the reply, never inside it. The
messages are defined by subject in the other modules of this folder, each request above its reply. This module lists
them all, so other folders import them from here. `widgets/src/wire/protocol.gen.ts` is generated from it
(`npm run protocol`); the tests check that it is current.
"""

from __future__ import annotations

import msgspec

from residscope.wire.attention import AttentionBuffer as AttentionBuffer
from residscope.wire.attention import (
    AttentionReply,
    BlendAttention,
    BlendReply,
    ReadAttention,
    ReadThumbnails,
    ScoreHeads,
    ScoresReply,
    ThumbnailsReply,
)
from residscope.wire.caches import CacheFacts, CacheRef, CachesReply, Describe, ListCaches, ReadTokens, TokensReply
from residscope.wire.caches import CacheRow as CacheRow
from residscope.wire.caches import LensFacts as LensFacts
from residscope.wire.causes import EffectsReply, MeasureEffects, RunWithout, WithoutReply
from residscope.wire.comparisons import (
    AttentionComparisonReply,
    Compare,
    CompareAttention,
    CompareTokenLens,
    ComparisonReply,
    PairingReply,
    PairPositions,
    TokenLensComparisonReply,
)
from residscope.wire.comparisons import PositionPair as PositionPair
from residscope.wire.comparisons import RunSum as RunSum
from residscope.wire.decompositions import (
    Attribute,
    AttributionReply,
    MapPositions,
    NeuronsReply,
    PairsReply,
    PositionsReply,
    RankNeurons,
    ReadPairs,
)
from residscope.wire.decompositions import WarningKind as WarningKind
from residscope.wire.features import (
    ChooseFeature,
    FeaturesReply,
    FeatureTargetReply,
    FeatureTokensReply,
    ReadFeatures,
    ReadFeatureTokens,
)
from residscope.wire.features import KnownSae as KnownSae
from residscope.wire.message import MOST_OF_ID as MOST_OF_ID
from residscope.wire.message import HeadNames as HeadNames
from residscope.wire.message import Id
from residscope.wire.message import Listed as Listed
from residscope.wire.message import Reply as Reply
from residscope.wire.message import Request as Request
from residscope.wire.predictions import (
    HeadTokensReply,
    NextTokensReply,
    ReadHeadTokens,
    ReadNextTokens,
    ReadTokenLens,
    TokenLensReply,
)
from residscope.wire.predictions import LensCell as LensCell
from residscope.wire.predictions import TokenValue as TokenValue
from residscope.wire.segments import (
    MapSegments,
    RankSegmentHeads,
    ReadSegments,
    SegmentHeadsReply,
    SegmentMapReply,
    SegmentsReply,
)
from residscope.wire.segments import SegmentLabel as SegmentLabel
from residscope.wire.segments import SegmentRule as SegmentRule
from residscope.wire.shown import MOST_OF_TRAIL as MOST_OF_TRAIL
from residscope.wire.shown import CodeReply, PageReply, WriteCode, WritePage
from residscope.wire.shown import Feeds as Feeds
from residscope.wire.shown import Holds as Holds
from residscope.wire.shown import Picture as Picture
from residscope.wire.shown import Presentation as Presentation
from residscope.wire.shown import Shown as Shown
from residscope.wire.shown import Step as Step
from residscope.wire.shown import Tab as Tab
from residscope.wire.targets import (
    AnswersReply,
    CheckToken,
    ChooseTarget,
    FindAnswers,
    ResolveAnswers,
    ResolvedReply,
    Suggest,
    Suggestions,
    TargetReply,
    TokenCheck,
)
from residscope.wire.targets import Variable as Variable
from residscope.wire.working import ChapterReply, GivenUp, GiveUp, Presence, PresenceReply, ReadChapter, Working

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
    | ReadFeatures
    | ReadFeatureTokens
    | ChooseFeature
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
    | FeaturesReply
    | FeatureTokensReply
    | FeatureTargetReply
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
