"""The terms of the field as types: targets, decompositions, weightings, scores, components.

This module imports no other module of Residscope. The types are `msgspec` structures and literals, because views and
kernels exchange them directly (`wire/protocol.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# Larger than any number that a view needs. The code that answers a request checks limits that depend on the model.
_MOST = 1_000_000_000

MOST_OF_NAME = 200
"""The most characters of a name."""

MOST_OF_SIDE = 10_000
"""The most tokens of one side of a contrast."""

MOST_WITHOUT = 64
"""The most heads that are replaced in one run for a view."""

Name = Annotated[str, Meta(max_length=MOST_OF_NAME)]
"""The name of a head, a point of the stream, a direction, a variable or a state."""

Text = Annotated[str, Meta(max_length=20_000)]
"""The text of a token, or a text that a user typed."""

Number = Annotated[int, Meta(ge=-_MOST, le=_MOST)]
"""The index of a prompt, position, layer or head, or the id of a token."""

Position = Number | Literal["last"]
"""The position of a target: an index, or each prompt's last real token."""

By = Literal["accumulated", "layer", "head", "neuron", "source", "feature"]
ShownBy = Literal["accumulated", "layer", "head"]
"""The decompositions that every chart and map of the panel can show."""
NormConvention = Literal["frozen", "recomputed"]
Transport = Literal["plain", "transported"]
"""How the logit lens reads the stream at a point: as it is, or mapped to the end of the stream (`LensMaps`)."""
Weighting = Literal["pattern", "value", "contribution"]
Score = Literal["previous", "first", "duplicate", "induction", "entropy", "copying"]
FigureKind = Literal["heatmap", "lens", "layers", "ranking", "scatter", "sources", "prompts", "sides"]
"""The kind of a plotly figure of a decomposition."""

Run = Literal["first", "second", "difference"]
"""Of two compared runs: the shown run (first), the other run (second), or second minus first (difference)."""

Effect = Literal["direct", "total", "indirect", "estimate"]
"""What a component adds to the target. Direct: through the stream alone. Total: measured by runs without the component.
Indirect: total minus direct. Estimate: the total effect, estimated with a gradient."""

ReplacedBy = Literal["zero", "mean", "other"]
"""What takes the place of an activation in a run: zero, the mean over prompts, or the activation of a compared run."""

Replaced = Literal["heads", "stream"]
"""What is replaced in runs for a view: the output of each head, or the stream before each layer at each position."""

SegmentBy = Literal["sentence", "line", "turn", "tag"]
"""A rule that finds segments in a prompt's text."""

MOST_RANGES = 1_000
"""The most segments that are shown or received."""


class SegmentRange(msgspec.Struct, frozen=True):
    """A segment that the user gave: a named range of positions. `end` is the position after the last one."""

    name: Name
    start: Number
    end: Number


Segmented = SegmentBy | Annotated[list[SegmentRange], Meta(min_length=1, max_length=MOST_RANGES)]
"""How a prompt is divided into segments: by a rule, or into the user's ranges."""

Reduce = Literal["sum", "mean"]
"""How the positions of a segment become one number."""

Pool = Literal["peak", "mean"]
"""What a cell of a downsampled map shows: its value farthest from 0, or its mean."""

Padding = Literal["found", "none"]
"""Whether the padding that was found is left out (`found`), or all tokens count as real (`none`)."""


# --- what users may pass ---------------------------------------------------------------------------------------------
# These values come in types of several libraries, so type checkers accept any object. Each function checks its
# arguments when it is called, and raises an error that says what is wrong.

CacheLike = object
"""A TransformerLens `ActivationCache`, an object with attributes `cache_dict` and `model`, or a dictionary from
names of activations to tensors (with `model=`)."""

ModelLike = object
"""A TransformerLens model: `HookedTransformer`, `TransformerBridge`, or another object with `cfg` and `blocks`. None:
the cache's own model."""

MaskLike = object
"""1 for each real token and 0 for padding, `[batch, pos]`: a tensor, an array, lists, or the output of a tokenizer.
None: padding is detected."""

Answers = object
"""A target, in any form that a user may write. One for all prompts: a token (its text or id), a pair `(answer,
distractor)` of tokens or of sets of tokens, a direction (floats, `[d_model]`), or a target of `residscope.targets`. One
per prompt: a list of tokens or pairs, ids or texts `[batch]` or `[batch, 2]` (tensor, array or pandas table), or
directions `[batch, d_model]`. Also a `Target`. `attribution/targets.py` reads it."""

Heads = object
"""A head (`"L23H3"`, `"23.3"` or `(23, 3)`), or several. `cache/component_names.py` reads it."""

PositionsLike = object
"""Positions that are changed in a run: a number, several numbers, `"last"` or `"all"`."""

ReplacementLike = object
"""What takes the place of activations in a run: `"zero"`, `"mean"`, another cache, one prompt of it as a pair (cache,
prompt), or token ids. `causes/replacement.py` reads it."""

SaeLike = object
"""An SAE or a transcoder with `encode`, `decode` and `W_dec`. Or a tuple: the SAE, the name of the activation that it
encodes, and (for a transcoder) the name of the activation that it reconstructs."""


class Token(msgspec.Struct, frozen=True):
    """One entry of the model's vocabulary."""

    id: Number
    text: Text


class Contrast(msgspec.Struct, frozen=True):
    """Mean logit of `answer` minus mean logit of `distractor` (no distractor: the plain logit of `answer`)."""

    answer: Annotated[list[Token], Meta(max_length=MOST_OF_SIDE)]
    distractor: Annotated[list[Token], Meta(max_length=MOST_OF_SIDE)]


Side = Literal["query", "key"]
"""The side of an attention score that is decomposed. The rows of either side sum to the whole score."""

NeuronPart = Literal["pre", "gate", "up"]
"""The number that is read from a neuron. `pre`: the input of its activation function. In a gated MLP, `gate` means the
same as `pre`, and `up` is the linear factor."""

Versus = Number | Literal["most", "mean"] | None
"""What the score of a source is compared with. A number: the score of this other source. `"most"`: the score of the
other source with the most attention. `"mean"`: the head's mean score. None: the score is not compared."""


class AttentionScore(msgspec.Struct, frozen=True, tag_field="kind", tag="attention"):
    """The attention score of a head from a destination to a source, decomposed on the query or the key side."""

    layer: Number
    head: Number
    destination: Position
    source: Number
    versus: Versus = "most"
    side: Side = "query"


class NeuronInput(msgspec.Struct, frozen=True, tag_field="kind", tag="neuron"):
    """A number that an MLP neuron computes from the MLP's input. `part` says which number (see `NeuronPart`)."""

    layer: Number
    index: Number
    part: NeuronPart = "pre"


class FeatureInput(msgspec.Struct, frozen=True):
    """What a feature of an SAE or a transcoder reads, before its nonlinearity.

    Attributes:
        index: The feature.
        sae: The class of the SAE.
        read: The activation that the SAE encodes.
        norm: The norm between the stream and this activation (`"blocks.3.ln2"`). Empty without a norm.
        unweighted: Whether the activation comes before the weight and the bias of this norm.
        offset: What the biases add.
    """

    index: Number
    sae: Name
    read: Name
    norm: Name
    unweighted: bool
    offset: float


class StreamDirection(msgspec.Struct, frozen=True, tag_field="kind", tag="direction"):
    """The stream at a point (`"8_pre"`, `"8_mid"`, `"final_post"`), projected on a direction that the kernel keeps.

    Attributes:
        key: The direction.
        at: The point.
        feature: The feature that has this direction as its encoder. None for any other direction.
    """

    key: Name
    at: Name
    feature: FeatureInput | None = None


class NextToken(msgspec.Struct, frozen=True):
    """At each position, the logit of the token that really follows. So each position has its own answer.

    Attributes:
        versus: `"runner-up"`: the logit of the most likely other token at this position is subtracted. None: nothing
            is subtracted.
    """

    versus: Literal["runner-up"] | None = None


class Through(msgspec.Struct, frozen=True):
    """A head of a path, and the source that it reads.

    If `source` is None (only in Python, for the last head), the head reads all sources.
    """

    layer: Number
    head: Number
    source: Number | None


class Target(msgspec.Struct, frozen=True):
    """What is attributed: contrasts of logits (one for all prompts, or one for each), or another number in the model.

    Attributes:
        contrasts: Contrasts of logits. Empty if the target is of another kind.
        direction: The key of a direction at the output of the final norm.
        own: Whether this is the default target, made from the model's two most likely tokens.
        inner: A target inside the model, instead of logits.
        next_token: The token that follows each position, instead of the same contrasts at all positions.
        through: The heads of a path to the target, each with the source that it reads. The first head writes to the
            target. Each further head writes to the source that the head before it reads.
    """

    contrasts: Annotated[list[Contrast], Meta(max_length=65_536)]
    direction: Name | None = None
    own: bool = False
    inner: AttentionScore | NeuronInput | StreamDirection | None = None
    through: Annotated[list[Through], Meta(max_length=64)] = []
    next_token: NextToken | None = None


def is_chosen(target: Target) -> bool:
    """Return whether a target was chosen. Before that, a view has an empty target."""
    return bool(target.contrasts or target.direction or target.inner or target.next_token)


class Against(msgspec.Struct, frozen=True):
    """The run that is compared with the shown run: another prompt, another cache, or the same run without some heads.

    Attributes:
        cache: The name of the other cache in the user's namespace (`runs["clean"]`). None: the same cache.
        prompt: The prompt of the other run. None (only for another cache, or with `without`): the same prompt as in the
            shown run, or the mean over prompts if the mean is shown.
        without: Heads (`"L23H3"`). If there are any, the other run is the shown cache's run with these heads replaced.
        replaced_by: What takes the place of these heads' output.
        align: How positions are matched. None: by index. `"by token"`: by the tokens that both prompts have in the
            same order.
    """

    cache: Name | None = None
    prompt: Number | None = None
    without: Annotated[list[Name], Meta(max_length=MOST_WITHOUT)] = []
    replaced_by: Literal["zero", "mean"] = "zero"
    align: Literal["by token"] | None = None


class InnerFacts(msgspec.Struct, frozen=True):
    """Facts about a target inside the model, in the shown prompt (in the first prompt if the mean is shown).

    Attributes:
        point: The point of the stream where the target is read (`"23_pre"`). Only earlier components contribute.
        destination: The position where the target is read, or the destination of an attention score.
        source: The source, if the target has one.
        versus: The source that `source` is compared with, if any.
        attention: The attention that the head pays to `source`.
        versus_attention: The attention that the head pays to `versus`.
    """

    point: str
    destination: int
    source: int | None = None
    versus: int | None = None
    attention: float | None = None
    versus_attention: float | None = None


class Span(msgspec.Struct, frozen=True):
    """Positions from `start` up to, but not including, `stop`."""

    start: Number
    stop: Number


class TokenLabel(msgspec.Struct, frozen=True):
    """The token at a position. If it differs between prompts, `text` is empty, and `varies` lists some of the tokens.

    `special` is whether the token is a special token of the tokenizer, such as the end of a chat's turn.
    """

    text: str
    id: int | None = None
    varies: list[str] = []
    padding: bool = False
    special: bool = False


ComponentKind = Literal[
    "embed", "pos_embed",
    "attn_out", "mlp_out", "mixer_out", "per_layer_out", "layer_out", "attn_bias", "mlp_bias",
    "head", "neuron",
    "pre", "mid", "final_post",
    "source",
    "position_bias", "soft_cap", "biases",
    "feature", "error", "b_dec", "skip", "other_features",
]  # fmt: skip
"""What a component is: an embedding, a sublayer or a bias, a head or neuron, a point of the stream, or a source. An
attention score also has terms for its position bias, its soft-cap and biases. The activation that an SAE reconstructs
is divided into features, the error of the reconstruction, the decoder's bias, and a transcoder's skip connection."""

WITHOUT_LAYER: frozenset[ComponentKind] = frozenset(
    (
        "embed", "pos_embed", "final_post", "source", "position_bias", "soft_cap", "biases",
        "feature", "error", "b_dec", "skip", "other_features",
    )
)  # fmt: skip
"""The kinds that belong to no layer."""

_LETTERS = {"head": "H", "neuron": "N"}


class Component(msgspec.Struct, frozen=True, gc=False):
    """What a row of a decomposition stands for.

    Attributes:
        kind: The kind, in TransformerLens' words.
        layer: The layer. None if the component belongs to no layer.
        index: The index of a head or neuron in its layer, of a feature in its SAE, or the position of a source. None
            for other kinds.
    """

    kind: ComponentKind
    layer: int | None = None
    index: int | None = None

    @property
    def label(self) -> str:
        """The component's name: `L0H0`, `L0N0`, `F0`, `0_attn_out`, `0_pre`, `embed`. For a source: its position.

        `widgets/src/wire/components.ts` makes the same names.
        """
        if self.kind in _LETTERS:
            return f"L{self.layer}{_LETTERS[self.kind]}{self.index}"
        if self.kind == "source":
            return str(self.index)
        if self.kind == "feature":
            return f"F{self.index}"
        return self.kind if self.layer is None else f"{self.layer}_{self.kind}"

    @property
    def place(self) -> tuple[int, int]:
        """Layer and index of a head or a neuron."""
        assert self.layer is not None
        assert self.index is not None
        return self.layer, self.index

    @property
    def is_whole(self) -> bool:
        """Whether layer and index are set exactly if the kind needs them. Data from a file may be wrong."""
        has_layer = self.kind not in WITHOUT_LAYER
        has_index = self.kind in _LETTERS or self.kind in ("source", "feature")
        return (self.layer is not None) == has_layer and (self.index is not None) == has_index


Place = Annotated[int, Meta(ge=0, le=_MOST)]
"""The kind, layer or index of a row, as a number."""


class ComponentTable(msgspec.Struct, frozen=True):
    """Components as columns, to save space in messages and files.

    Attributes:
        kinds: The kinds that occur.
        kind: For each component, the index of its kind in `kinds`.
        layer: For each component, its layer.
        index: For each component, its index.
    """

    kinds: list[ComponentKind]
    kind: list[Place]
    layer: list[Place | None]
    index: list[Place | None]

    @classmethod
    def of(cls, components: Iterable[Component]) -> ComponentTable:
        """The table of these components."""
        rows = list(components)
        kinds: list[ComponentKind] = list(dict.fromkeys(row.kind for row in rows))
        places = {kind: place for place, kind in enumerate(kinds)}
        return cls(kinds, [places[row.kind] for row in rows], [row.layer for row in rows], [row.index for row in rows])

    @classmethod
    def empty(cls) -> ComponentTable:
        """An empty table."""
        return cls([], [], [], [])

    def components(self) -> list[Component]:
        """The components of the table.

        Raises:
            ValueError: If its columns differ in length.
            IndexError: If an index is outside `kinds`.
        """
        columns = zip(self.kind, self.layer, self.index, strict=True)
        return [Component(self.kinds[kind], layer, index) for kind, layer, index in columns]


class Prediction(msgspec.Struct, frozen=True):
    """A token that the model predicts, with its probability (for one prompt, or averaged over prompts)."""

    token: Token
    probability: float
