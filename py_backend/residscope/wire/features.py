"""Messages about the features of SAEs and transcoders."""

from __future__ import annotations

import msgspec

from residscope.terms import ComponentTable, Name, Number, Position, Target
from residscope.wire.message import Listed, Reply, Request


class KnownSae(msgspec.Struct, frozen=True):
    """An SAE or a transcoder that was given, or that is in the namespace and fits the model.

    Attributes:
        name: Its name in requests: a variable's name, if it has one.
        site: The activation that it reconstructs. Empty if that is not known.
        state: Differs for another SAE, and after a change of this SAE's weights or settings. Empty if it is not known.
    """

    name: str
    site: str
    state: str = ""


class ReadFeatures(Request, frozen=True, tag="features"):
    """The rows of an SAE or a transcoder: its error, its bias, and the k active features that contribute most.

    Buffer 0 of the reply is float32 [component], the contributions. Buffer 1 is float32 [component], the activations of
    the features (NaN for other rows). For the mean over prompts, both are means.

    Attributes:
        sae: The name of the SAE (see `CacheFacts.saes`). None: the first one.
        state: The SAE's state, as the view knows it: a view sends the request again when the state differs. The kernel
            always reads the present SAE.
    """

    takes_long = "large caches"

    target: Target
    prompt: Number | None = None
    position: Position = "last"
    sae: Name | None = None
    k: Listed = 50
    state: Name | None = None


class FeaturesReply(Reply, frozen=True, tag="features"):
    """The rows of an SAE. They sum to the rows of `by="layer"` whose place they take.

    Attributes:
        sae: The name of the SAE.
        cls: The class of the SAE.
        read: The activation that the SAE encodes.
        site: The activation that it reconstructs.
        row: The row of `by="layer"` that the SAE's rows replace. If it is a point of the stream, they replace all rows
            before this point.
        components: The error, `b_dec`, and other rows that are not features; then the features, the strongest first.
        links: For each component, the address of its page on Neuronpedia. Empty if there is none.
        active: The number of active features.
        others: The sum of the active features that are not listed.
        total: The sum of all rows of the SAE.
        measured: The sum of the rows of `by="layer"` that the SAE's rows replace. None if it is not known.
        worst: The largest difference between the two sums (`total`, `measured`) in a prompt. None if it is not known.
        tolerance: The largest difference that counts as rounding.
        prompts: The number of prompts in the mean.
        notes: Notes on these values.
    """

    sae: str
    cls: str
    read: str
    site: str
    row: ComponentTable
    components: ComponentTable
    links: list[str]
    active: int
    others: float
    total: float
    measured: float | None
    worst: float | None
    tolerance: float
    prompts: int
    notes: list[str]


class ReadFeatureTokens(Request, frozen=True, tag="feature-tokens"):
    """The activation of one feature at each position. Buffer 0 of the reply is float32 [position], NaN at padding.

    For the mean over prompts, each position has the mean over the prompts in which it is not padding. `state` is as in
    `ReadFeatures`.
    """

    takes_long = "always"

    feature: Number
    prompt: Number | None = None
    sae: Name | None = None
    state: Name | None = None


class FeatureTokensReply(Reply, frozen=True, tag="feature-tokens"):
    """The activation of a feature at each position. `site` is the activation that the SAE reconstructs."""

    sae: str
    site: str
    feature: int
    positions: int
    notes: list[str]


class ChooseFeature(Request, frozen=True, tag="feature-target"):
    """What a feature reads before its nonlinearity, as a target."""

    feature: Number
    sae: Name | None = None


class FeatureTargetReply(Reply, frozen=True, tag="feature-target"):
    """The target that is the input of a feature, and notes on when the feature is active."""

    target: Target
    notes: list[str]


Requests = ReadFeatures | ReadFeatureTokens | ChooseFeature
Replies = FeaturesReply | FeatureTokensReply | FeatureTargetReply
