"""Everything that is selected in a view, and the messages that write it down as code or as a page."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from residscope.terms import (
    Against,
    Effect,
    Name,
    NormConvention,
    Number,
    Padding,
    Position,
    ReplacedBy,
    Run,
    Score,
    Segmented,
    ShownBy,
    Target,
    Transport,
    Weighting,
)
from residscope.wire.message import HeadNames, Listed, Reply, Request

Presentation = Literal["matrix", "text", "all"]
Tab = Literal["attention", "positions", "token-lens", "prompts", "why", "runs", "segments", "features"]
Holds = Literal["view", "heads", "all"]
Picture = Literal["lens", "layers", "heads", "ranking", Tab, "attention-of-runs", "stream"]
"""The pictures. The last two are parts of the tab "runs"."""


class Step(msgspec.Struct, frozen=True):
    """A step of the trail: a target, and the position where it is read."""

    target: Target
    position: Position = "last"


class Feeds(msgspec.Struct, frozen=True):
    """A colouring of the head map: what each earlier head adds to the query, key or value of one head, for one source.

    Over all components, the values for query or key sum to the attention score, those for value to the source
    contribution.
    """

    layer: Number
    head: Number
    source: Number
    by: Literal["query", "key", "value"]


MOST_OF_TRAIL = 32
"""The largest number of steps of a trail."""


class Shown(msgspec.Struct, frozen=True):
    """Everything that is selected in a view. It determines the view's pictures.

    Attributes:
        trail: The targets that were chosen one after another. `target` is the target of the present step,
            `trail[step]`. Empty if there is only one target.
        step: The index of the present step in the trail.
        why: How the tab "why" decomposes an attention score: into two sides, or into pairs of components.
        feeds: Colours the head map by what feeds a head. None: no such colouring.
        against: The run that the shown one is compared with. None: no comparison.
        run: Which of the two runs the head map and the ranking show, or their difference.
        effect: Which effect of the heads the head map and the ranking show.
        replaced_by: What takes the place of a head's output in the runs that measure effects.
        segments: How the prompt is divided into segments. None: the tokens are shown one by one.
        transport: Whether the logit lens maps the stream to its end, if the user gave a lens.
        sae: The SAE whose features the tab "features" shows. None: the first one.
        feature: The feature of this SAE whose activations colour the tokens. None: no such colouring.
        lens_rows: Whether the token lens has one row for each layer, or one for each cached point of the stream.
    """

    target: Target
    prompt: Number | None = None
    position: Position = "last"
    heads: HeadNames = []
    norm: NormConvention = "frozen"
    top_k: Listed = 5
    ranking: Literal["heads", "neurons"] = "heads"
    layer: Number | None = None
    weighting: Weighting = "pattern"
    score: Score | None = None
    tab: Tab = "attention"
    presentation: Presentation = "matrix"
    by: ShownBy = "layer"
    padding: Padding = "found"
    trail: Annotated[list[Step], Meta(max_length=MOST_OF_TRAIL)] = []
    step: Annotated[int, Meta(ge=0, le=31)] = 0
    why: Literal["sides", "pairs"] = "sides"
    feeds: Feeds | None = None
    against: Against | None = None
    run: Run = "difference"
    effect: Effect = "direct"
    replaced_by: ReplacedBy = "zero"
    segments: Segmented | None = None
    transport: Transport = "plain"
    sae: Name | None = None
    feature: Number | None = None
    lens_rows: Literal["layers", "points"] = "layers"


class WriteCode(Request, frozen=True, tag="code"):
    """Python code that computes exactly the values in one picture."""

    takes_long = "large caches"

    picture: Picture
    shown: Shown


class CodeReply(Reply, frozen=True, tag="code"):
    """Python code."""

    code: str


class WritePage(Request, frozen=True, tag="page"):
    """The view as a stand-alone HTML page. Buffer 0 of the reply is the text of the page, UTF-8."""

    takes_long = "always"

    shown: Shown
    holds: Holds = "heads"


class PageReply(Reply, frozen=True, tag="page"):
    """A page. `name` is the suggested name of its file."""

    name: str


Requests = WriteCode | WritePage
Replies = CodeReply | PageReply
