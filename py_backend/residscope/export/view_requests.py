"""What the views ask, of what is on screen and one gesture further.

The views themselves go by `widgets/src/state/questions.ts`; `tests/wire/view_requests.json` holds both to the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

import msgspec

from residscope.cache.component_names import parse
from residscope.patterns.downsampling import Part
from residscope.terms import Component, Decomposition, NormConvention, Position, Score, Span, Weighting
from residscope.wire.protocol import (
    AnyRequest,
    Attribute,
    BlendAttention,
    CacheFacts,
    Describe,
    Holds,
    MapPositions,
    Picture,
    RankNeurons,
    ReadAttention,
    ReadThumbnails,
    ReadTokenLens,
    ReadTokens,
    ScoreHeads,
    Shown,
    Suggest,
    Tab,
    WriteCode,
)

Asks = list[AnyRequest]
Group = tuple["str | None", Asks]
"""Requests that are of use together, and what lacks without them; None where they are on screen."""

# What the target editor suggests; the token lens' tiles and how many tokens it lists; the position map's heads.
_PREDICTIONS, _TALL, _WIDE, _LISTED, _MAPPED = 24, 4, 32, 10, 48


@dataclass(frozen=True)
class Views:
    """The views of one selection in one cache."""

    shown: Shown
    facts: CacheFacts

    @property
    def last(self) -> list[int]:
        """Where each prompt is read: at its last real token, or at the very last where padding counts as real."""
        found = self.facts.last
        return found if self.shown.padding == "found" else [self.facts.positions - 1] * len(found)

    def place(self, prompt: int | None, position: Position) -> tuple[int | None, Position]:
        """Prompt and position as requests name them: "last" where it is that one."""
        last = set(self.last) if prompt is None else {self.last[prompt]}
        return prompt, "last" if last == {position} else position

    @property
    def prompts(self) -> list[int | None]:
        """All there are, the mean among them, the one on screen first."""
        several = len(self.facts.last) > 1
        every = [None, *range(len(self.facts.last))] if several else [None, 0]
        return sorted(every, key=lambda prompt: prompt != self.shown.prompt)

    def figures(
        self, prompt: int | None, position: Position, norms: Sequence[NormConvention] = get_args(NormConvention)
    ) -> Asks:
        """What the charts show, the lens by each of these conventions."""
        target, at = self.shown.target, self.place(prompt, position)
        return [
            ReadTokens(prompt),
            *(Attribute(by, target, *at) for by in ("head", "layer")),
            *(Attribute("accumulated", target, *at, norm) for norm in norms),
        ]

    def attention(self, heads: Iterable[str], prompt: int | None, weighting: Weighting) -> Asks:
        """A card for each head."""
        at = self.place(prompt, self.shown.position)
        asks: Asks = []
        for head in heads:
            ask = ReadAttention(*parse(head), self.shown.target, *at, weighting)
            asks.append(ask)
            if Part.of(self.facts.positions).step > 1:  # below a down-sampled map stands what the destination reads
                row = self._destination(prompt)
                asks += [] if row is None else [msgspec.structs.replace(ask, rows=Span(row, row + 1))]
        return asks

    def _destination(self, prompt: int | None) -> int | None:
        """The position that is read, where that is one."""
        last = set(self.last) if prompt is None else {self.last[prompt]}
        if self.shown.position != "last":
            return self.shown.position % self.facts.positions
        return last.pop() if len(last) == 1 else None

    def in_small(self, weighting: Weighting) -> Asks:
        """All heads as thumbnails."""
        target, prompt = self.shown.target, self.shown.prompt
        return [ReadThumbnails(layer, target, prompt, weighting) for layer in range(self.facts.layers)]

    def in_one(self, weighting: Weighting) -> Asks:
        """All heads, or those of a layer, as a text; of a long prompt what one token reads, cell by cell."""
        target, prompt = self.shown.target, self.shown.prompt
        at = self._destination(prompt) or 0
        rows = Span(at, at + 1) if Part.of(self.facts.positions).step > 1 else None
        return [BlendAttention(layer, target, prompt, weighting, rows) for layer in [None, *range(self.facts.layers)]]

    def each_prompt(self) -> Asks:
        """What each prompt has, of the whole and of a head: it comes with the mean."""
        shown = self.shown
        at = self.place(shown.prompt, shown.position)[1]
        return [Attribute(by, shown.target, None, at) for by in ("accumulated", "head")]

    def neurons(self, layer: int | None, prompt: int | None) -> AnyRequest:
        """The ranking of a layer's neurons, or of all."""
        shown = self.shown
        return RankNeurons(shown.target, layer, shown.top_k, *self.place(prompt, shown.position))

    def position_map(self, by: Decomposition, ranked: list[str], prompt: int | None) -> AnyRequest:
        """The map of what components add at each position."""
        shown = self.shown
        norm = shown.norm if by == "accumulated" else "frozen"
        heads = ranked[:_MAPPED] if by == "head" else []
        return MapPositions(by, shown.target, prompt, norm, heads)

    def suggestions(self, prompt: int | None) -> AnyRequest:
        """What the target editor suggests."""
        return Suggest(*self.place(prompt, self.shown.position), _PREDICTIONS)

    def code(self, picture: Picture, ranked: list[str]) -> AnyRequest:
        """The code of a picture, on its own tab, with the heads that are in it."""
        shown = self.shown
        on = picture if picture in get_args(Tab) else shown.tab
        heads = shown.heads
        if picture == "prompts":  # of the whole
            heads = []
        if picture == "positions" and shown.by == "head":
            heads = ranked[:_MAPPED]
        return WriteCode(picture, msgspec.structs.replace(shown, tab=on, heads=heads))

    def token_lens(self, points: list[Component]) -> Asks:
        """The token lens in tiles, the deepest first."""
        names = [point.label for point in points]
        rows = [names[at : at + _TALL] for at in range(0, len(names), _TALL)]
        end = self.facts.positions
        columns = [(start, min(end, start + _WIDE)) for start in range(0, end, _WIDE)]
        return [
            ReadTokenLens(row, *column, self.shown.target, _LISTED, self.shown.prompt)
            for row in reversed(rows)
            for column in reversed(columns)
        ]


def on_screen(views: Views, norms: Sequence[NormConvention] = get_args(NormConvention)) -> Asks:
    """What no picture can do without: the charts' figures, and what they are coloured and ranked by."""
    shown = views.shown
    return [Describe(), *views.figures(shown.prompt, shown.position, norms), *choices(views)]


def choices(views: Views) -> Asks:
    """What the charts are coloured and ranked by."""
    shown = views.shown
    asks: Asks = []
    if shown.score:
        asks.append(ScoreHeads(shown.score, shown.prompt))
    if shown.ranking == "neurons":
        asks.append(views.neurons(shown.layer, shown.prompt))
    return asks


def of_the_tab(views: Views, ranked: list[str], points: list[Component]) -> list[Group]:
    """What the tab in sight asks, beside the charts and the pinned heads; the requests of a group are of use alone."""
    shown = views.shown
    match shown.tab:
        case "attention":
            return list(_each(_SMALL, views.in_small(shown.weighting) if shown.presentation == "all" else []))
        case "positions":
            nothing = shown.by == "head" and not ranked
            return [] if nothing else [(None, [views.position_map(shown.by, ranked, shown.prompt)])]
        case "token-lens":
            return list(_each(_LENS, views.token_lens(without_mid(points))))
        case "prompts":
            return [(None, views.each_prompt())] if len(views.facts.last) > 1 else []


def without_mid(points: list[Component]) -> list[Component]:
    """The lens' points without those behind each layer's attention."""
    return [point for point in points if point.kind != "mid"]


def at_once(views: Views) -> Asks:
    """What a panel that opens asks, in that order."""
    shown = views.shown
    cards = shown.tab == "attention" and shown.presentation == "matrix"
    asks = views.attention(shown.heads if cards else [], shown.prompt, shown.weighting)
    return asks + on_screen(views, [shown.norm])


def wanted(
    views: Views, ranked: list[str], by_worth: list[str], points: list[Component], holds: Holds = "all"
) -> Iterator[Group]:
    """The rest, group by group: first the tab on screen, then what is one gesture away.

    Args:
        views: The views.
        ranked: The pinned heads, then those in the ranking.
        by_worth: All heads, the strongest first.
        points: The logit lens' points.
        holds: How much is wanted. Of what is left out for that, a group without requests tells.
    """
    shown = views.shown
    current = views.prompts[0]
    yield from of_the_tab(views, ranked, points)
    yield from _each("the attention of some pinned heads", views.attention(shown.heads, current, shown.weighting))
    yield from _each("the attention of some heads", views.attention(ranked, current, shown.weighting))
    for least, groups in (
        ("heads", _of_all_heads(views, ranked, by_worth)),
        ("all", _of_all_layers(views, points)),
        ("heads", _elsewhere(views, ranked)),
    ):
        if _LEVELS.index(holds) >= _LEVELS.index(least):
            yield from groups
        else:
            yield from ((what, []) for what in dict.fromkeys(what for what, _ in groups))


_LEVELS: tuple[Holds, ...] = get_args(Holds)
_LENS, _SMALL, _ONE = "some of the token lens", "some heads in small", "some heads in one"


def _of_all_heads(views: Views, ranked: list[str], by_worth: list[str]) -> Iterator[Group]:
    """What is one gesture away among heads and prompts."""
    shown = views.shown
    current, *others = views.prompts
    maps: list[Decomposition] = ["layer", "accumulated", "head"]
    for prompt in others:
        yield "some prompts", views.figures(prompt, shown.position)
    yield from _each("the attention of some heads", views.attention(by_worth, current, shown.weighting))
    for weighting in get_args(Weighting):
        yield from _each("the other weightings of attention", views.attention(ranked, current, weighting))
    for prompt in others:
        asks = views.attention(ranked, prompt, shown.weighting)
        yield from _each("the attention in some of the other prompts", asks)
    yield from _each("some position maps", [views.position_map(by, ranked, at) for at in views.prompts for by in maps])
    yield from _each(_SMALL, views.in_small(shown.weighting))
    yield from _each(_ONE, views.in_one(shown.weighting))


def _of_all_layers(views: Views, points: list[Component]) -> Iterator[Group]:
    """What takes as long as all the others together, and is looked at less: vocabulary, weights, neurons."""
    shown, facts = views.shown, views.facts
    current, *others = views.prompts
    for some in (without_mid(points), points):
        yield from _each(_LENS, views.token_lens(some))
    yield from _each("some head scores", [ScoreHeads(score, at) for at in views.prompts for score in get_args(Score)])
    neurons = [(layer, current) for layer in [None, *range(facts.layers)]] + [
        (shown.layer, prompt) for prompt in others
    ]
    yield from _each("some layers' neurons", [views.neurons(*place) for place in neurons])


def _elsewhere(views: Views, ranked: list[str]) -> Iterator[Group]:
    """The other positions, and what the menus list."""
    current = views.prompts[0]
    for position in range(views.facts.positions):
        yield "some positions", views.figures(current, position)
    yield from _each("the model's predictions", [views.suggestions(at) for at in views.prompts])
    for weighting in get_args(Weighting):
        yield from _each(_SMALL, views.in_small(weighting))
    yield from _each("the code", [views.code(picture, ranked) for picture in get_args(Picture)])


def _each(what: str, asks: Asks) -> Iterator[Group]:
    """Each by itself: some may be there without the others."""
    return ((what, [ask]) for ask in asks)
