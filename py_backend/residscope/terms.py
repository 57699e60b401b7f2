"""The words of the domain: what is attributed, how it is parted, weighed, scored. Nothing of ours is imported here.

They are `msgspec` structures and literals, because views and kernels exchange them as they are (`wire/protocol.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

# More than any view asks of any cache, and little enough to answer. What depends on the model is checked where a
# request is answered.
_MOST = 1_000_000_000

MOST_OF_NAME = 200
"""So many characters a name has at most."""

MOST_OF_SIDE = 10_000
"""So many tokens one side of a contrast has at most."""

Name = Annotated[str, Meta(max_length=MOST_OF_NAME)]
"""What a head, a point of the stream, a held direction, a variable or a state is called."""

Text = Annotated[str, Meta(max_length=20_000)]
"""What a token writes, or a person has typed."""

Number = Annotated[int, Meta(ge=-_MOST, le=_MOST)]
"""Which prompt, position, layer, head or token."""

Position = Number | Literal["last"]
"""Where a target is read: an index, or each prompt's last real token."""

By = Literal["accumulated", "layer", "head", "neuron", "source"]
Decomposition = Literal["accumulated", "layer", "head"]
NormConvention = Literal["frozen", "recomputed"]
Weighting = Literal["pattern", "value", "contribution"]
Score = Literal["previous", "first", "duplicate", "induction", "entropy", "copying"]
FigureKind = Literal["heatmap", "lens", "layers", "ranking", "scatter", "sources", "prompts"]
"""How a decomposition is drawn, as a figure of plotly."""

Pool = Literal["peak", "mean"]
Padding = Literal["found", "none"]
"""Whether what was treated as padding is left out, or counts as real."""


class Token(msgspec.Struct, frozen=True):
    """One entry of the model's vocabulary."""

    id: Number
    text: Text


class Contrast(msgspec.Struct, frozen=True):
    """Mean logit of `answer` minus mean logit of `distractor` (no distractor: the plain logit of `answer`)."""

    answer: Annotated[list[Token], Meta(max_length=MOST_OF_SIDE)]
    distractor: Annotated[list[Token], Meta(max_length=MOST_OF_SIDE)]


class Target(msgspec.Struct, frozen=True):
    """What is attributed: one contrast for all prompts, or one for each; or a direction that the kernel holds.

    `own` says that nobody chose it: it is the model's own two top predictions.
    """

    contrasts: Annotated[list[Contrast], Meta(max_length=65_536)]
    direction: Name | None = None
    own: bool = False


class Span(msgspec.Struct, frozen=True):
    """Positions from `start` up to, not including, `stop`."""

    start: Number
    stop: Number


class TokenLabel(msgspec.Struct, frozen=True):
    """A token at a position. Where prompts differ, `text` is empty and `varies` lists some of what stands there."""

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
]  # fmt: skip
"""What a row is of: an embedding; what a layer adds; one of its parts; a point of the stream; a source position."""

_LETTERS = {"head": "H", "neuron": "N"}


class Component(msgspec.Struct, frozen=True, gc=False):
    """What a row is of.

    Attributes:
        kind: What it is, in TransformerLens' words.
        layer: Its layer; None where it is of no layer.
        index: Which one of its layer (a head, a neuron), or the position of a source; None where it is the only one.
    """

    kind: ComponentKind
    layer: int | None = None
    index: int | None = None

    @property
    def label(self) -> str:
        """What it is called: `L0H0`, `L0N0`, `0_attn_out`, `0_pre`, `embed`; a source by its position.

        `widgets/src/wire/components.ts` has the same rule.
        """
        if self.kind in _LETTERS:
            return f"L{self.layer}{_LETTERS[self.kind]}{self.index}"
        if self.kind == "source":
            return str(self.index)
        return self.kind if self.layer is None else f"{self.layer}_{self.kind}"

    @property
    def place(self) -> tuple[int, int]:
        """Layer and index of what has both: a head, a neuron."""
        assert self.layer is not None
        assert self.index is not None
        return self.layer, self.index

    @property
    def is_whole(self) -> bool:
        """Whether it has a layer and an index exactly where its kind has them: what comes from a file may not."""
        has_layer = self.kind not in ("embed", "pos_embed", "final_post", "source")
        has_index = self.kind in _LETTERS or self.kind == "source"
        return (self.layer is not None) == has_layer and (self.index is not None) == has_index


Place = Annotated[int, Meta(ge=0, le=_MOST)]
"""Which kind, layer or index a row has."""


class ComponentTable(msgspec.Struct, frozen=True):
    """Components as columns, as they travel and are kept: thousands of rows are a few numbers each.

    Attributes:
        kinds: The kinds that occur.
        kind: For each component, which one of `kinds` it is.
        layer: For each component, its layer.
        index: For each component, its index.
    """

    kinds: list[ComponentKind]
    kind: list[Place]
    layer: list[Place | None]
    index: list[Place | None]

    @classmethod
    def of(cls, components: Iterable[Component]) -> ComponentTable:
        """The table of some components."""
        rows = list(components)
        kinds: list[ComponentKind] = list(dict.fromkeys(row.kind for row in rows))
        places = {kind: place for place, kind in enumerate(kinds)}
        return cls(kinds, [places[row.kind] for row in rows], [row.layer for row in rows], [row.index for row in rows])

    @classmethod
    def empty(cls) -> ComponentTable:
        """The table of none."""
        return cls([], [], [], [])

    def components(self) -> list[Component]:
        """The components of the table.

        Raises:
            ValueError: If its columns differ in length.
            IndexError: If it names a kind that it does not have.
        """
        columns = zip(self.kind, self.layer, self.index, strict=True)
        return [Component(self.kinds[kind], layer, index) for kind, layer, index in columns]


class Prediction(msgspec.Struct, frozen=True):
    """A token that the model predicts, with its probability (mean over prompts when none was named)."""

    token: Token
    probability: float
