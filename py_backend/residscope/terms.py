"""The terms of the field as types: targets, decompositions, weightings, scores, components. Imports no module of ours.

They are `msgspec` structures and literals, because views and kernels exchange them directly (`wire/protocol.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# Larger than any view needs, and small enough to answer. Limits that depend on the model are checked where a request
# is answered.
_MOST = 1_000_000_000

MOST_OF_NAME = 200
"""The most characters of a name."""

MOST_OF_SIDE = 10_000
"""The most tokens of one side of a contrast."""

MOST_WITHOUT = 64
"""The most heads that are replaced in one run on screen."""

Name = Annotated[str, Meta(max_length=MOST_OF_NAME)]
"""The name of a head, a point of the stream, a direction, a variable or a state."""

Text = Annotated[str, Meta(max_length=20_000)]
"""The text of a token, or a text that a user typed."""

Number = Annotated[int, Meta(ge=-_MOST, le=_MOST)]
"""The index of a prompt, position, layer or head, or the id of a token."""

Position = Number | Literal["last"]
"""The position of a target: an index, or each prompt's last real token."""

By = Literal["accumulated", "layer", "head", "neuron", "source"]
Decomposition = Literal["accumulated", "layer", "head"]
NormConvention = Literal["frozen", "recomputed"]
Weighting = Literal["pattern", "value", "contribution"]
Score = Literal["previous", "first", "duplicate", "induction", "entropy", "copying"]
FigureKind = Literal["heatmap", "lens", "layers", "ranking", "scatter", "sources", "prompts", "sides"]
"""The kind of plotly figure for a decomposition."""

Run = Literal["first", "second", "difference"]
"""Of two compared runs: the one that is shown, the one that it is compared with, or the second minus the first."""

Effect = Literal["direct", "total", "indirect", "estimate"]
"""What a component adds to the target: through the stream alone; in runs without it; the difference of both; what a
gradient estimates of the total effect."""

ReplacedBy = Literal["zero", "mean", "other"]
"""What takes the place of an activation in a run: zero, the mean over prompts, or the activation of a compared run."""

Pool = Literal["peak", "mean"]
Padding = Literal["found", "none"]
"""Whether the padding that was found is left out (`found`), or all tokens count as real (`none`)."""


class Token(msgspec.Struct, frozen=True):
    """One entry of the model's vocabulary."""

    id: Number
    text: Text


class Contrast(msgspec.Struct, frozen=True):
    """Mean logit of `answer` minus mean logit of `distractor` (no distractor: the plain logit of `answer`)."""

    answer: Annotated[list[Token], Meta(max_length=MOST_OF_SIDE)]
    distractor: Annotated[list[Token], Meta(max_length=MOST_OF_SIDE)]


Side = Literal["query", "key"]
"""The side of an attention score that is decomposed. Either side sums to the whole score."""

NeuronPart = Literal["pre", "gate", "up"]
"""What is read of a neuron: its input to the activation function (`pre`; in a gated MLP `gate` is the same), or the
linear factor of a gated MLP (`up`)."""

Versus = Number | Literal["most", "mean"] | None
"""What a source is compared with: another source, the source that the head reads most of the others (`"most"`), what
it reads on average (`"mean"`), or nothing (None: the raw score)."""


class AttentionScore(msgspec.Struct, frozen=True, tag_field="kind", tag="attention"):
    """The attention score of a head from a destination to a source, read by its query or by its key."""

    layer: Number
    head: Number
    destination: Position
    source: Number
    versus: Versus = "most"
    side: Side = "query"


class NeuronInput(msgspec.Struct, frozen=True, tag_field="kind", tag="neuron"):
    """What an MLP neuron reads, before its activation function."""

    layer: Number
    index: Number
    part: NeuronPart = "pre"


class StreamDirection(msgspec.Struct, frozen=True, tag_field="kind", tag="direction"):
    """A direction at a point of the stream (`"8_pre"`, `"8_mid"`, `"final_post"`), by its key in the kernel."""

    key: Name
    at: Name


class NextToken(msgspec.Struct, frozen=True):
    """At each position, the logit of the token that really follows it; each position has its own answer.

    Attributes:
        versus: `"runner-up"`: minus the logit of the most likely other token there. None: the plain logit.
    """

    versus: Literal["runner-up"] | None = None


class Through(msgspec.Struct, frozen=True):
    """A head, and the source that it reads. `source=None` is every source (only in Python, and only as the last)."""

    layer: Number
    head: Number
    source: Number | None


class Target(msgspec.Struct, frozen=True):
    """What is attributed: one contrast for all prompts, or one for each; or the key of a direction in the kernel.

    Attributes:
        contrasts: Contrasts of logits; empty if the target is another one.
        direction: The key of a direction at the output of the final norm.
        own: Whether it is the default, made from the model's own two top predictions.
        inner: A target inside the model, instead of logits.
        next_token: At each position the token that follows it, instead of the same contrasts at all of them.
        through: What heads contribute to the target, each by what it reads from one source: the first head writes to
            the target itself, each other one to what the head before it reads at its source.
    """

    contrasts: Annotated[list[Contrast], Meta(max_length=65_536)]
    direction: Name | None = None
    own: bool = False
    inner: AttentionScore | NeuronInput | StreamDirection | None = None
    through: Annotated[list[Through], Meta(max_length=64)] = []
    next_token: NextToken | None = None


class Against(msgspec.Struct, frozen=True):
    """The run that the shown one is compared with: another prompt, another cache, or the same run without some heads.

    Attributes:
        cache: The other cache, by its name in the user's namespace (`runs["clean"]`); None: the same cache.
        prompt: Its prompt. None (only of another cache): the prompt that is shown, or the mean if that is shown.
        without: Heads (`"L23H3"`). If there are any, the other run is this cache's, with them replaced.
        replaced_by: What takes the place of their output.
    """

    cache: Name | None = None
    prompt: Number | None = None
    without: Annotated[list[Name], Meta(max_length=MOST_WITHOUT)] = []
    replaced_by: Literal["zero", "mean"] = "zero"


class InnerFacts(msgspec.Struct, frozen=True):
    """What a target inside the model is in this cache, for the prompt that is shown (the first, for the mean).

    Attributes:
        point: The point of the stream that it is read from (`"23_pre"`): later components are not in it.
        destination: The position where it is read, or the destination of an attention score.
        source: The source, if it has one.
        versus: The source that it is compared with, if there is one.
        attention: The attention that the head pays to the source.
        versus_attention: The attention that it pays to the source that it is compared with.
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
    """A token at a position. If prompts differ there, `text` is empty and `varies` lists some of the tokens."""

    text: str
    id: int | None = None
    varies: list[str] = []
    padding: bool = False


ComponentKind = Literal[
    "embed", "pos_embed",
    "attn_out", "mlp_out", "mixer_out", "per_layer_out", "layer_out", "attn_bias", "mlp_bias",
    "head", "neuron",
    "pre", "mid", "final_post",
    "source",
    "position_bias", "soft_cap", "biases",
]  # fmt: skip
"""An embedding; a sublayer or a bias; a head or neuron; a point of the stream; a source position; of an attention score
what its position bias adds, what its soft-cap takes, or what biases add."""

WITHOUT_LAYER: frozenset[ComponentKind] = frozenset(
    ("embed", "pos_embed", "final_post", "source", "position_bias", "soft_cap", "biases")
)
"""The kinds that belong to no layer."""

_LETTERS = {"head": "H", "neuron": "N"}


class Component(msgspec.Struct, frozen=True, gc=False):
    """A component: what a row of a decomposition stands for.

    Attributes:
        kind: Its kind, in TransformerLens' words.
        layer: Its layer; None if it belongs to no layer.
        index: The index of a head or neuron in its layer, or the position of a source; None for other kinds.
    """

    kind: ComponentKind
    layer: int | None = None
    index: int | None = None

    @property
    def label(self) -> str:
        """Its name: `L0H0`, `L0N0`, `0_attn_out`, `0_pre`, `embed`; a source by its position.

        `widgets/src/wire/components.ts` has the same rule.
        """
        if self.kind in _LETTERS:
            return f"L{self.layer}{_LETTERS[self.kind]}{self.index}"
        if self.kind == "source":
            return str(self.index)
        return self.kind if self.layer is None else f"{self.layer}_{self.kind}"

    @property
    def place(self) -> tuple[int, int]:
        """Layer and index of a head or a neuron."""
        assert self.layer is not None
        assert self.index is not None
        return self.layer, self.index

    @property
    def is_whole(self) -> bool:
        """Whether it has a layer and an index exactly if its kind needs them; data from a file may not."""
        has_layer = self.kind not in WITHOUT_LAYER
        has_index = self.kind in _LETTERS or self.kind == "source"
        return (self.layer is not None) == has_layer and (self.index is not None) == has_index


Place = Annotated[int, Meta(ge=0, le=_MOST)]
"""The kind, layer or index of a row, as a number."""


class ComponentTable(msgspec.Struct, frozen=True):
    """Components as columns, for messages and files, where thousands of rows need only a few numbers each.

    Attributes:
        kinds: The kinds that occur.
        kind: For each component, the place of its kind in `kinds`.
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
            IndexError: If a place is outside `kinds`.
        """
        columns = zip(self.kind, self.layer, self.index, strict=True)
        return [Component(self.kinds[kind], layer, index) for kind, layer, index in columns]


class Prediction(msgspec.Struct, frozen=True):
    """A token that the model predicts, with its probability (for one prompt, or averaged over prompts)."""

    token: Token
    probability: float
