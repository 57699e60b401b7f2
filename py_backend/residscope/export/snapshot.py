"""What a panel shows, and what its views would ask next, as plain data: a panel over it needs no kernel.

Requests are stateless, so a record of questions and answers stands for the kernel, as far as it reaches. Its other side
is `widgets/src/snapshot.ts`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timezone
from typing import Any, get_args

import msgspec

from ..envelope import Buffers, answered
from ..heads import name, parse
from ..protocol import (
    AnyReply,
    AnyRequest,
    Attribute,
    Describe,
    Failure,
    MapPositions,
    Picture,
    RankNeurons,
    ReadAttention,
    ReadTokens,
    Score,
    ScoreHeads,
    Shown,
    Suggest,
    Weighting,
    WriteCode,
)

Answering = Callable[[AnyRequest], tuple[AnyReply, Buffers]]

BUDGET = 8_000_000
"""Bytes of a snapshot before it is compressed."""

PATIENCE = 20.0
"""Seconds after which nothing more is asked than what is on screen."""

PREDICTIONS = 24
"""So many are suggested in the target editor."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request and what came back. Its `target` is left out where it is the selection's."""

    ask: dict[str, Any]
    reply: dict[str, Any] | None = None
    failure: Failure | None = None
    buffers: list[bytes] = []


class Snapshot(msgspec.Struct, frozen=True):
    """A panel as plain data; as JSON its buffers are base64.

    Attributes:
        name: The cache's.
        selection: What is selected in it.
        saved: When it was made, as an ISO date.
        defaults: What a request means by what it leaves out, by its kind.
        lacks: What it would hold, too, if there were room, in words.
        entries: What was asked and answered.
    """

    name: str
    selection: Shown
    saved: str
    defaults: dict[str, dict[str, Any]]
    lacks: list[str]
    entries: list[Entry]


def snapshot(
    answer: Answering, cache_name: str, shown: Shown, *, budget: int | None = None, patience: float | None = None
) -> Snapshot:
    """Ask what the views would ask: first what is on screen, then what is one gesture away, while there is room.

    Args:
        answer: Answers one request.
        cache_name: The cache's name.
        shown: What is selected.
        budget: Bytes that there is room for, `BUDGET` by default.
        patience: Seconds after which nothing more is asked than what is on screen, `PATIENCE` by default.
    """
    record = _Record(answer, shown, budget or BUDGET, time.monotonic() + (patience or PATIENCE))
    for what, asks in _wanted(record, shown):
        record.take(what, asks)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Snapshot(cache_name, shown, now, _defaults(), record.lacks, record.entries)


class _Record:
    """Questions and answers, until the room or the patience is used up."""

    def __init__(self, answer: Answering, shown: Shown, room: int, until: float) -> None:
        self._answer, self._target, self._room, self._until = answer, msgspec.to_builtins(shown.target), room, until
        self._asked: set[bytes] = set()
        self.entries: list[Entry] = []
        self.lacks: list[str] = []

    def take(self, what: str | None, asks: Iterable[AnyRequest]) -> None:
        """Ask these, and take all their answers or none: then `what` is said to lack. Without it they are needed."""
        if what in self.lacks:
            return
        taken: dict[bytes, Entry] = {}
        for ask in asks:
            key = msgspec.json.encode(ask)
            if key in self._asked:
                continue
            if what and time.monotonic() > self._until:
                self.lacks.append(what)
                return
            taken[key] = self.ask(ask)
        size = sum(len(msgspec.json.encode(entry)) for entry in taken.values())
        if what and size > self._room:
            self.lacks.append(what)
            return
        self._room -= size
        self._asked.update(taken)
        self.entries.extend(taken.values())

    def ask(self, ask: AnyRequest) -> Entry:
        """One question and its answer; a refusal is an answer, too."""
        plain: dict[str, Any] = msgspec.to_builtins(ask)
        said, buffers = answered({"id": "", "ask": plain}, lambda question: self._answer(question.ask))
        if plain.get("target") == self._target:
            del plain["target"]
        failure = msgspec.convert(said["failure"], Failure) if said.get("failure") else None
        return Entry(plain, said.get("reply"), failure, buffers)


def _wanted(record: _Record, shown: Shown) -> Iterator[tuple[str | None, list[AnyRequest]]]:
    """What is asked, group by group: first, without words, what is on screen."""
    facts = record.ask(Describe()).reply or {}
    last: list[int] = facts.get("last", [])
    common = last[0] if len(set(last)) == 1 else None
    current, target = shown.prompt, shown.target

    def place(prompt: int | None, position: int | None) -> tuple[int | None, int | None]:
        """A view names no position where it is the last one."""
        end = common if prompt is None else last[prompt]
        return prompt, None if position == end else position

    def figures(prompt: int | None, position: int | None) -> list[AnyRequest]:
        at = place(prompt, position)
        return [
            ReadTokens(prompt),
            *(Attribute(by, target, *at) for by in ("head", "layer", "accumulated")),
            Attribute("accumulated", target, *at, "recomputed"),
        ]

    def neurons(layer: int | None, prompt: int | None) -> RankNeurons:
        return RankNeurons(target, layer, shown.top_k, *place(prompt, shown.position))

    def attention(names: Iterable[str], prompt: int | None, weighting: Weighting) -> list[AnyRequest]:
        at = place(prompt, shown.position)
        return [ReadAttention(*parse(head), target, *at, weighting) for head in names]

    here, pinned, weighting = figures(current, shown.position), shown.heads, shown.weighting
    yield None, [Describe(), *here]
    yield None, [ScoreHeads(shown.score, current)] if shown.score else []
    yield None, [neurons(shown.layer, current)] if shown.ranking == "neurons" else []
    if shown.tab == "positions":
        yield None, [_position_map(shown, shown.by, current)]
    yield from _each("the attention of some pinned heads", attention(pinned, current, weighting))

    by_worth = _strongest(record, here[1], facts)
    ranked = list(dict.fromkeys([*pinned, *by_worth[: 2 * shown.top_k]]))
    prompts = [None, *range(len(last))] if len(last) > 1 else [current]
    others = [prompt for prompt in prompts if prompt != current]
    yield from _each("the attention of some heads", attention(ranked, current, weighting))
    for prompt in others:
        yield "some prompts", figures(prompt, shown.position)
    for other in get_args(Weighting):
        yield from _each("the other weightings", attention(ranked, current, other))
    for prompt in others:
        yield from _each("the attention in some other prompts", attention(ranked, prompt, weighting))
    yield from _each("the attention of some heads", attention(by_worth, current, weighting))
    yield from _each(
        "some position maps", [_position_map(shown, by, current) for by in ("layer", "accumulated", "head")]
    )
    yield from _each(
        "some head scores", [ScoreHeads(score, at) for at in [current, *others] for score in get_args(Score)]
    )
    yield from _each(
        "some layers' neurons", [neurons(layer, current) for layer in [None, *range(facts.get("layers", 0))]]
    )
    for position in range(facts.get("positions", 0)):
        yield "some positions", figures(current, position)
    yield from _each("the model's predictions", [Suggest(*place(at, shown.position), PREDICTIONS) for at in prompts])
    yield from _each("the code", [WriteCode(picture, shown) for picture in get_args(Picture)])


def _each(what: str, asks: list[AnyRequest]) -> Iterator[tuple[str, list[AnyRequest]]]:
    """Each by itself: some may be there without the others."""
    return ((what, [ask]) for ask in asks)


def _position_map(shown: Shown, by: Any, prompt: int | None) -> MapPositions:
    return MapPositions(by, shown.target, prompt, heads=shown.heads if by == "head" else [])


def _strongest(record: _Record, ask: AnyRequest, facts: dict[str, Any]) -> list[str]:
    """All heads, the strongest first; without those that are not there."""
    import numpy as np

    every = [name(layer, head) for layer in range(facts.get("layers", 0)) for head in range(facts.get("heads", 0))]
    buffers = record.ask(ask).buffers
    worth = np.frombuffer(buffers[0], np.float32)[: len(every)] if buffers else np.empty(0)
    order = np.argsort(-np.abs(worth), kind="stable").tolist()  # NaN last
    return [every[i] for i in order if not np.isnan(worth[i])]


def _defaults() -> dict[str, dict[str, Any]]:
    """What each kind of request means by a field that it leaves out; None is left out everywhere."""
    kinds: dict[str, Any] = {kind.__struct_config__.tag: _usual(kind) for kind in get_args(AnyRequest)}
    for kind in ("code", "page"):
        kinds[kind]["shown"] = _usual(Shown)
    return kinds


def _usual(struct: type[msgspec.Struct]) -> dict[str, Any]:
    usual: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        made = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if made is not msgspec.NODEFAULT and made is not None:
            usual[field.encode_name] = msgspec.to_builtins(made)
    return usual
