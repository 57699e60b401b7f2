"""The requests of the views: for what is on screen, and for what is one click away.

The views themselves use `widgets/src/state/questions.ts`; `tests/wire/view_requests.json` tests that both agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

import msgspec

from residscope.cache.component_names import parse
from residscope.patterns.downsampling import Part
from residscope.terms import (
    AttentionScore,
    Component,
    NeuronInput,
    NormConvention,
    Position,
    ShownBy,
    Side,
    Span,
    StreamDirection,
    Target,
    Through,
    Transport,
    Weighting,
    is_chosen,
)
from residscope.wire.attention import BlendAttention, ReadAttention, ReadThumbnails, ScoreHeads
from residscope.wire.caches import CacheFacts, Describe, ReadTokens
from residscope.wire.causes import MeasureEffects
from residscope.wire.comparisons import Compare, CompareAttention, CompareTokenLens, PairPositions
from residscope.wire.decompositions import Attribute, MapPositions, RankNeurons, ReadPairs
from residscope.wire.features import ReadFeatures, ReadFeatureTokens
from residscope.wire.predictions import ReadHeadTokens, ReadNextTokens, ReadTokenLens
from residscope.wire.protocol import AnyRequest
from residscope.wire.segments import MapSegments, RankSegmentHeads, ReadSegments
from residscope.wire.shown import Shown
from residscope.wire.targets import Suggest

Requests = list[AnyRequest]
Group = tuple["str | None", Requests]
"""Requests that are only useful together, and what is missing without them, in words (None: they are on screen)."""

_PREDICTIONS = 24  # suggestions in the target editor
_TALL, _WIDE, _LISTED = 4, 32, 10  # points and positions in a tile of the token lens, and tokens in a cell of a tile
MAPPED = 48  # heads in the position map
PAIRED = 8  # components on a side of the pair map
_WRITTEN = 5  # tokens that a head writes
MOST_COMPARED = 6  # heads whose attention in two runs is shown

FEWEST_POSITIONS = 32
"""In a prompt with fewer positions, segments are looked for only if they are chosen."""


@dataclass(frozen=True)
class Views:
    """The requests of the views for one selection in one cache."""

    shown: Shown
    facts: CacheFacts

    @property
    def end(self) -> list[int]:
        """The last position of each prompt: its last real token, or the last of all if padding counts as real."""
        last = self.facts.last
        return last if self.shown.padding == "found" else [self.facts.positions - 1] * len(last)

    @property
    def last(self) -> list[int]:
        """The last position of each prompt at which the target can be read."""
        return self.end if self.shown.target.next_token is None else [max(at - 1, 0) for at in self.end]

    def place(self, prompt: int | None, position: Position) -> tuple[int | None, Position]:
        """Return prompt and position as in requests: the last position of a prompt becomes "last".

        With a next-token target, "last" becomes an index instead, if the prompts have the same last position.
        """
        last = set(self.last) if prompt is None else {self.last[prompt]}
        if self.shown.target.next_token is not None:
            return prompt, last.pop() if position == "last" and len(last) == 1 else position
        return prompt, "last" if last == {position} else position

    @property
    def prompts(self) -> list[int | None]:
        """All prompts, and None for the mean. The one on screen is first."""
        several = len(self.facts.last) > 1
        every = [None, *range(len(self.facts.last))] if several else [None, 0]
        return sorted(every, key=lambda prompt: prompt != self.shown.prompt)

    def figures(
        self, prompt: int | None, position: Position, norms: Sequence[NormConvention] = get_args(NormConvention)
    ) -> Requests:
        """Return the requests of the charts, with the logit lens for each of these norm conventions."""
        target, at = self.shown.target, self.place(prompt, position)
        return [
            ReadTokens(prompt),
            *(Attribute(by, target, *at) for by in ("head", "layer")),
            *(Attribute("accumulated", target, *at, norm, self.transport) for norm in norms),
        ]

    @property
    def transport(self) -> Transport:
        """Whether the stream is mapped to its end.

        The plain lens is shown if no lens was given, for two compared runs, and for a target that is read before the
        end of the stream.
        """
        target = self.shown.target
        is_plain = self.facts.lens is None or self.shown.against is not None
        return "plain" if is_plain or target.inner is not None or target.through else self.shown.transport

    def attention(self, heads: Iterable[str], prompt: int | None, weighting: Weighting) -> Requests:
        """Return the requests of a card for each head."""
        at = self.place(prompt, self.shown.position)
        requests: Requests = []
        for head in heads:
            request = ReadAttention(*parse(head), self.shown.target, *at, weighting)
            requests.append(request)
            if Part.of(self.facts.positions).step > 1:  # a down-sampled map also shows the row of the destination
                row = self._destination(prompt)
                requests += [] if row is None else [msgspec.structs.replace(request, rows=Span(row, row + 1))]
        return requests

    def _destination(self, prompt: int | None) -> int | None:
        """The destination position. None if it differs between prompts."""
        last = set(self.last) if prompt is None else {self.last[prompt]}
        if self.shown.position != "last":
            return self.shown.position % self.facts.positions
        return last.pop() if len(last) == 1 else None

    def in_small(self, weighting: Weighting) -> Requests:
        """Return the requests of all heads as thumbnails."""
        target, prompt = self.shown.target, self.shown.prompt
        return [ReadThumbnails(layer, target, prompt, weighting) for layer in range(self.facts.layers)]

    def in_one(self, weighting: Weighting) -> Requests:
        """Return the requests of the combined attention of heads. For a long prompt, only of the destination's row."""
        target, prompt = self.shown.target, self.shown.prompt
        at = self._destination(prompt) or 0
        rows = Span(at, at + 1) if Part.of(self.facts.positions).step > 1 else None
        return [BlendAttention(layer, target, prompt, weighting, rows) for layer in [None, *range(self.facts.layers)]]

    def each_prompt(self) -> Requests:
        """Return the requests for the values in each prompt. The replies hold them together with the mean."""
        shown = self.shown
        at = self.place(shown.prompt, shown.position)[1]
        return [Attribute(by, shown.target, None, at) for by in ("accumulated", "head")]

    def segments(self, prompt: int | None) -> Requests:
        """Return the request of the segments of a prompt.

        Empty in the mean over prompts, and for a short prompt if no segments are chosen.
        """
        by, facts = self.shown.segments, self.facts
        is_mean = prompt is None and len(facts.last) > 1
        if is_mean or (by is None and facts.positions < FEWEST_POSITIONS):
            return []
        return [ReadSegments(by, prompt)]

    def segment_maps(self, heads: Iterable[str]) -> Requests:
        """Return the requests of the map segment × segment of each head. Empty without segments."""
        shown = self.shown
        if shown.segments is None or not self.segments(shown.prompt):
            return []
        about = (shown.segments, shown.target, shown.prompt, shown.weighting)
        return [MapSegments(*parse(head), *about) for head in heads]

    def segment_heads(self) -> Requests:
        """Return the request of the heads through which the last segment reads the one before it."""
        shown = self.shown
        if shown.segments is None or not self.segments(shown.prompt):
            return []
        return [RankSegmentHeads(shown.segments, shown.target, shown.prompt, shown.weighting)]

    def neurons(self, layer: int | None, prompt: int | None) -> AnyRequest:
        """Return the request of the ranking of the neurons of a layer, or of all layers."""
        shown = self.shown
        return RankNeurons(shown.target, layer, shown.top_k, *self.place(prompt, shown.position))

    def position_map(self, by: ShownBy, ranked: list[str], prompt: int | None) -> AnyRequest:
        """Return the request of the map of contributions at each position."""
        shown = self.shown
        norm = shown.norm if by == "accumulated" else "frozen"
        heads = ranked[:MAPPED] if by == "head" else []
        transport = self.transport if by == "accumulated" else "plain"
        return MapPositions(by, shown.target, prompt, norm, heads, transport)

    def feeding(self) -> AnyRequest | None:
        """Return the request for what each head adds to the query, key or value of the head in `feeds`, if any."""
        shown, feeds = self.shown, self.shown.feeds
        if feeds is None:
            return None
        at = self.place(shown.prompt, shown.position)
        if feeds.by == "value":
            target = _through(shown.target, feeds.layer, feeds.head, feeds.source)
        else:
            inner = AttentionScore(feeds.layer, feeds.head, at[1], feeds.source, side=feeds.by)
            target = Target([], inner=inner)
        return Attribute("head", target, *at)

    def comparisons(self, prompt: int | None) -> Requests:
        """Return the requests of the charts of two runs. Empty without a comparison."""
        shown = self.shown
        if shown.against is None:
            return []
        at = self.place(prompt, shown.position)
        norms: dict[ShownBy, NormConvention] = {"head": "frozen", "layer": "frozen", "accumulated": shown.norm}
        requests: Requests = [Compare(by, shown.target, shown.against, *at, norm) for by, norm in norms.items()]
        return requests if shown.against.without else [*requests, PairPositions(shown.against, prompt)]

    def effects(self, prompt: int | None) -> Requests:
        """Return the requests of the effects in the head map. Empty if it shows direct effects or something else."""
        shown = self.shown
        if shown.effect == "direct" or shown.score is not None or shown.feeds is not None:
            return []
        against = shown.against if shown.replaced_by == "other" else None
        at = self.place(prompt, shown.position)
        return [MeasureEffects(shown.target, "heads", shown.replaced_by, against, *at)]

    def attention_of_runs(self) -> Requests:
        """Return the requests of the attention of pinned heads in two runs. Empty without a comparison."""
        shown = self.shown
        if shown.against is None:
            return []
        return [CompareAttention(*parse(head), shown.against, shown.prompt) for head in shown.heads[:MOST_COMPARED]]

    def why(self) -> Requests:
        """Return the requests of the tab "why": the rows of a target inside the model, and what its head writes."""
        shown = self.shown
        target, at = shown.target, self.place(shown.prompt, shown.position)
        inner = target.inner
        if target.through:
            head = target.through[-1]
            behind = msgspec.structs.replace(target, through=target.through[:-1])
            read = _read_at(behind, at[1])
            rows = Attribute("head", target, *at)
            if read is None:
                return [rows]
            return [rows, ReadHeadTokens(head.layer, head.head, shown.prompt, read, head.source, _WRITTEN)]
        if not isinstance(inner, AttentionScore):
            return [] if inner is None else [Attribute("head", target, *at)]
        requests: Requests = [ReadPairs(target, shown.prompt, PAIRED)]
        if shown.why == "sides":
            requests = [Attribute("head", _of_side(target, inner, side), *at) for side in get_args(Side)]
            moved = self.moved()
            if moved is not None:
                requests.append(moved)
        tokens = ReadHeadTokens(inner.layer, inner.head, shown.prompt, inner.destination, inner.source, _WRITTEN)
        return [*requests, tokens]

    def heads_own_row(self) -> Requests:
        """If the target is a head's contribution to another target, return the request for the other's rows.

        One of these rows is the head's. Empty for any other target.
        """
        shown, through = self.shown, self.shown.target.through
        if not through or through[-1].source is None:
            return []
        behind = msgspec.structs.replace(shown.target, through=through[:-1])
        return [Attribute("head", behind, *self.place(shown.prompt, shown.position))]

    def moved(self) -> AnyRequest | None:
        """Return the request for what the head of an attention score adds to the target of an earlier step.

        This step is the nearest earlier one whose target is not about this head. None if the head does not write to
        that target.
        """
        shown, inner = self.shown, self.shown.target.inner
        if not isinstance(inner, AttentionScore) or not 0 < shown.step < len(shown.trail):
            return None
        if _chosen(shown.trail[shown.step].target) != _chosen(shown.target):  # the trail is of another target
            return None
        earlier = (step for step in reversed(shown.trail[: shown.step]) if not _is_about_head(step.target, inner))
        before = next(earlier, None)
        if before is None:
            return None
        if before.target.next_token is not None and before.position == "last":  # differs between prompts
            return None
        read = _read_at(before.target, before.position)
        if read is None or not inner.layer < _layer_of(before.target, self.facts.parallel):
            return None
        if self.place(shown.prompt, read) != self.place(shown.prompt, inner.destination):
            return None
        target = _through(before.target, inner.layer, inner.head, inner.source)
        return Attribute("head", target, *self.place(shown.prompt, before.position))

    def features(self) -> Requests:
        """Return the requests of the tab "features": the rows of an SAE, and the activations of the chosen feature."""
        shown = self.shown
        at = self.place(shown.prompt, shown.position)
        known = {sae.name: sae.state for sae in self.facts.saes}
        state = next(iter(known.values()), None) if shown.sae is None else known.get(shown.sae)
        requests: Requests = []
        if is_chosen(shown.target):
            requests.append(ReadFeatures(shown.target, *at, shown.sae, state=state))
        if shown.feature is not None:
            requests.append(ReadFeatureTokens(shown.feature, shown.prompt, shown.sae, state))
        return requests

    def suggestions(self, prompt: int | None) -> AnyRequest:
        """Return the request of the suggestions in the target editor."""
        return Suggest(*self.place(prompt, self.shown.position), _PREDICTIONS)

    def token_lens(self, points: list[Component]) -> Requests:
        """Return the requests of the token lens in tiles, the deepest first."""
        names = [point.label for point in points]
        rows = [names[at : at + _TALL] for at in range(0, len(names), _TALL)]
        end = self.facts.positions
        columns = [(start, min(end, start + _WIDE)) for start in range(0, end, _WIDE)]
        return [self._lens_tile(row, *column) for row in reversed(rows) for column in reversed(columns)]

    def _lens_tile(self, points: list[str], start: int, stop: int) -> AnyRequest:
        """A tile of the token lens, of both runs if the second one or the difference is shown."""
        target, prompt, against = self.shown.target, self.shown.prompt, self.shown.against
        if against is None or self.shown.run == "first":
            return ReadTokenLens(points, start, stop, target, _LISTED, prompt, transport=self.transport)
        return CompareTokenLens(points, start, stop, target, against, _LISTED, prompt)


def _chosen(target: Target) -> Target:
    """The target without `own`, the mark that it is the default."""
    return msgspec.structs.replace(target, own=False)


def _through(target: Target, layer: int, head: int, source: int) -> Target:
    """A new target: what a head contributes to `target` from one source."""
    return msgspec.structs.replace(target, through=[*target.through, Through(layer, head, source)], own=False)


def _is_about_head(target: Target, score: AttentionScore) -> bool:
    """Whether the target is a contribution of this head, or this head's attention score."""
    of = target.through[-1] if target.through else target.inner
    return isinstance(of, Through | AttentionScore) and (of.layer, of.head) == (score.layer, score.head)


def _of_side(target: Target, inner: AttentionScore, side: Side) -> Target:
    return msgspec.structs.replace(target, inner=msgspec.structs.replace(inner, side=side))


def _read_at(target: Target, position: Position) -> Position | None:
    """The position at which a target reads the stream. None if it reads at every source."""
    if target.through:
        return target.through[-1].source
    if isinstance(target.inner, AttentionScore):
        return target.inner.destination if target.inner.side == "query" else target.inner.source
    return position


def _layer_of(target: Target, parallel: Sequence[int]) -> float:
    """The first layer whose heads come too late to contribute to a target. Infinite if there is none.

    In `parallel` layers, the MLP reads the same stream as the heads.
    """
    if target.through:
        return target.through[-1].layer
    match target.inner:
        case AttentionScore():
            return target.inner.layer
        case NeuronInput():
            return target.inner.layer + (target.inner.layer not in parallel)
        case StreamDirection():
            layer, _, point = target.inner.at.partition("_")
            return int(layer) + (point == "mid") if layer.isdecimal() else float("inf")
        case None:
            return float("inf")


def on_screen(views: Views, norms: Sequence[NormConvention] = get_args(NormConvention)) -> Requests:
    """Return the requests that every view needs: the data of the charts, their colours and their order."""
    shown = views.shown
    return [Describe(), *views.figures(shown.prompt, shown.position, norms), *choices(views)]


def choices(views: Views) -> Requests:
    """Return the requests that colour and order the charts."""
    shown = views.shown
    requests: Requests = []
    if shown.target.next_token is not None and not shown.target.through:
        requests.append(ReadNextTokens(shown.target, shown.prompt))
    if shown.score:
        requests.append(ScoreHeads(shown.score, shown.prompt))
    if shown.ranking == "neurons":
        requests.append(views.neurons(shown.layer, shown.prompt))
    feeding = views.feeding()
    requests += [] if feeding is None else [feeding]
    requests += views.segments(shown.prompt)
    return requests + views.comparisons(shown.prompt) + views.effects(shown.prompt)


def without_mid(points: list[Component]) -> list[Component]:
    """Return the points of the logit lens without the points between each layer's attention and MLP."""
    return [point for point in points if point.kind != "mid"]
