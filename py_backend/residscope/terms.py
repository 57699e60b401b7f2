"""The words of the domain: what is attributed, how it is parted, weighed, scored. Nothing of ours is imported here.

They are `msgspec` structures and literals, because views and kernels exchange them as they are (`wire/protocol.py`).
"""

from __future__ import annotations

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


class Prediction(msgspec.Struct, frozen=True):
    """A token that the model predicts, with its probability (mean over prompts when none was named)."""

    token: Token
    probability: float
