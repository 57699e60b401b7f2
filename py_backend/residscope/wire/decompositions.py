"""Messages with the contributions of components to a target."""

from __future__ import annotations

from typing import Literal

from residscope.terms import (
    By,
    ComponentTable,
    InnerFacts,
    NormConvention,
    Number,
    Position,
    ShownBy,
    Target,
    Transport,
)
from residscope.wire.message import HeadNames, Listed, Reply, Request

WarningKind = Literal["attended-to-padding", "weights-changed", "training-mode"]
"""A reason to doubt all numbers of a run. Its sentence is one of the notes. Views show it at once in a few words."""


class Attribute(Request, frozen=True, tag="attribute"):
    """One decomposition, for one prompt or averaged. Buffer 0 of the reply is float32 [component].

    For the mean over several prompts, buffer 1 is the standard deviation, float32 [component]: for `accumulated` that
    of row + constant, otherwise that of the row. Unless there are too many values (`per_prompt`), buffer 2 has the rows
    of each prompt, float32 [component, prompt], and buffer 3 the constant of each prompt, float32 [prompt]. The mean
    leaves out prompts in which the position is padding: their values in buffers 2 and 3 are NaN.
    """

    takes_long = "large caches"
    is_kept = True

    by: ShownBy
    target: Target
    prompt: Number | None = None
    position: Position = "last"
    norm: NormConvention = "frozen"
    transport: Transport = "plain"


class AttributionReply(Reply, frozen=True, tag="attribute"):
    """A decomposition: Σ rows + constant + unexplained = measured (for `accumulated` the last row, not the sum).

    For `head` the first layers × heads rows are the map, with NaN in a layer without attention heads. If no layer has
    heads, `refusal` is the reason, and the rows are those of `layer`.

    `missing` names the kinds of rows that were not cached ("MLPs"). The other rows are exact, but not complete.
    `own` is whether `measured` is the model's own output. If not, it was computed from the final stream in the cache.
    `worst` is the largest unexplained value of any prompt. `worst`, `measured` and `unexplained` are None if the cache
    does not give the measured value. `inner` describes a target inside the model. `warnings` are the kinds of those
    `notes` that concern every number of this run. `prompts` is the number of prompts in the mean.
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
    warnings: list[WarningKind] = []


class MapPositions(Request, frozen=True, tag="positions"):
    """The contribution of each component at each position, to the target at this position.

    `heads` names the rows of `by="head"`. Buffer 0 is float32 [component, position].
    Buffer 1 is float32 [position], the measured value (NaN: not known).
    """

    takes_long = "large caches"

    by: ShownBy
    target: Target
    prompt: Number | None = None
    norm: NormConvention = "frozen"
    heads: HeadNames = []
    transport: Transport = "plain"


class PositionsReply(Reply, frozen=True, tag="positions"):
    """A map component × position. Σ rows + constant = the measured value (for `accumulated` the last row + constant).

    `missing` names the kinds of rows that were not cached. The other rows then do not sum to the measured value.
    """

    by: By
    components: ComponentTable
    positions: int
    notes: list[str]
    missing: list[str] = []


class RankNeurons(Request, frozen=True, tag="neurons"):
    """The strongest MLP neurons of one layer (None: all layers), k of each sign. Buffer 0 is float32 [component]."""

    takes_long = "large caches"

    target: Target
    layer: Number | None = None
    k: Listed = 5
    prompt: Number | None = None
    position: Position = "last"


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


Requests = Attribute | MapPositions | RankNeurons | ReadPairs
Replies = AttributionReply | PositionsReply | NeuronsReply | PairsReply
