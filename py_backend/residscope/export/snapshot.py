"""What a panel shows, and what its views would ask next, as plain data: a panel over it needs no kernel.

Requests are stateless, so a record of questions and answers stands for the kernel, as far as it reaches. Its other side
is `widgets/src/snapshot.ts`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import cache
from typing import Any, get_args

import msgspec

from residscope.cache.component_names import name
from residscope.compute.progress import report_progress, silent
from residscope.errors import ResidscopeError
from residscope.export.view_requests import Asks, Group, Views, at_once, on_screen, wanted
from residscope.terms import ComponentTable
from residscope.wire.envelope import Buffers, answered
from residscope.wire.protocol import AnyReply, AnyRequest, CacheFacts, Describe, Failure, Holds, ReadTokenLens, Shown

Answering = Callable[[AnyRequest], tuple[AnyReply, Buffers]]

BUDGET = 8_000_000
"""Bytes of a snapshot before it is compressed."""

OPENING = 1_000_000
"""Bytes of buffers that go to a panel unasked."""

PATIENCE = 20.0
"""Seconds after which nothing more is asked than what is on screen."""


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
    answer: Answering,
    cache_name: str,
    shown: Shown,
    holds: Holds = "all",
    *,
    budget: int | None = None,
    patience: float | None = None,
) -> Snapshot:
    """Ask what the views would ask: first what is on screen, then what is one gesture away, while there is room.

    Args:
        answer: Answers one request.
        cache_name: The cache's name.
        shown: What is selected.
        holds: How much of what is one gesture away.
        budget: Bytes that there is room for, `BUDGET` by default.
        patience: Seconds after which nothing more is asked than what is on screen, `PATIENCE` by default.
    """
    record = _Record(answer, shown, budget or BUDGET, time.monotonic() + (patience or PATIENCE))
    facts, _ = answer(Describe())
    assert isinstance(facts, CacheFacts)
    views = Views(shown, facts)
    with silent():
        record.take(None, on_screen(views))
    heads, lens = record.entries[2], record.entries[4]
    table = (lens.reply or {}).get("components")
    points = [] if table is None else msgspec.convert(table, ComponentTable).components()
    groups = list(wanted(views, *_strongest(heads.buffers, views), points, holds))
    done, total = 0, sum(len(asks) for _, asks in groups)
    together = _lens_in_one(groups)
    for what, asks in groups:
        report_progress(done, total)
        with silent():
            if together and asks and isinstance(asks[0], ReadTokenLens):
                record.warm(together.pop(), what)
            record.take(what, asks)
        done += len(asks)
    return Snapshot(cache_name, shown, _now(), _defaults(), record.lacks, record.entries)


def opening(answer: Answering, cache_name: str, shown: Shown) -> dict[str, Any]:
    """What a panel that opens asks alone, as plain objects with the buffers as they are; of refusals nothing."""
    facts, _ = answer(Describe())
    assert isinstance(facts, CacheFacts)
    entries: list[Entry] = []
    room = OPENING
    for ask in at_once(Views(shown, facts)):
        ask = _counted(ask, shown)
        try:
            reply, buffers = (facts, []) if isinstance(ask, Describe) else answer(ask)
        except ResidscopeError:
            continue
        size = sum(map(len, buffers))
        if size <= room:
            room -= size
            said = msgspec.json.decode(msgspec.json.encode(reply))  # NaN is null, as on the wire
            entries.append(Entry(_plain(ask, msgspec.to_builtins(shown.target)), said, buffers=buffers))
    made = Snapshot(cache_name, shown, _now(), _defaults(), [], entries)
    return msgspec.to_builtins(made, builtin_types=(bytes,))


class _Record:
    """Questions and answers, until the room or the patience is used up."""

    def __init__(self, answer: Answering, shown: Shown, room: int, until: float) -> None:
        self._answer, self._target, self._room, self._until = answer, msgspec.to_builtins(shown.target), room, until
        self._shown = shown
        self._asked: set[bytes] = set()
        self.entries: list[Entry] = []
        self.lacks: list[str] = []

    def take(self, what: str | None, asks: Asks) -> None:
        """Ask these, and take all their answers or none: then `what` is said to lack. Without it they are needed."""
        if what in self.lacks:
            return
        if what and not asks:
            self.lacks.append(what)
            return
        taken: dict[bytes, Entry] = {}
        for ask in (_counted(ask, self._shown) for ask in asks):
            key = msgspec.json.encode(ask)
            if key in self._asked:
                continue
            if what and time.monotonic() > self._until:
                self.lacks.append(what)
                return
            report_progress()
            taken[key] = self.ask(ask)
        size = sum(len(msgspec.json.encode(entry)) for entry in taken.values())
        if what and size > self._room:
            self.lacks.append(what)
            return
        self._room -= size
        self._asked.update(taken)
        self.entries.extend(taken.values())

    def warm(self, ask: AnyRequest, what: str | None) -> None:
        """Have the parts of some answers worked out together: they are kept for a moment, and this answer is not."""
        if what not in self.lacks and time.monotonic() < self._until:
            self.ask(_counted(ask, self._shown))

    def ask(self, ask: AnyRequest) -> Entry:
        """One question and its answer; a refusal is an answer, too."""
        asked = {"id": "snapshot", "ask": msgspec.to_builtins(ask)}
        said, buffers = answered(asked, lambda question: self._answer(question.ask))
        failure = msgspec.convert(said["failure"], Failure) if said.get("failure") else None
        return Entry(_plain(ask, self._target), said.get("reply"), failure, buffers)


_FEW = 100
"""Rows of the token lens: fewer of them take nearly as long."""


def _lens_in_one(groups: list[Group]) -> list[AnyRequest]:
    """The one request that has all of the token lens, where its tiles are small."""
    tiles = [ask for _, asks in groups for ask in asks if isinstance(ask, ReadTokenLens)]
    if not tiles or {(tile.start, tile.stop) for tile in tiles} != {(tiles[0].start, tiles[0].stop)}:
        return []
    few = max(len(tile.points) for tile in tiles) * (tiles[0].stop - tiles[0].start) < _FEW
    points = list(dict.fromkeys(point for tile in tiles for point in tile.points))
    return [msgspec.structs.replace(tiles[0], points=points)] if few else []


def _counted(ask: AnyRequest, shown: Shown) -> AnyRequest:
    """The same request, with what the selection counts as real."""
    return ask if ask.padding == shown.padding else msgspec.structs.replace(ask, padding=shown.padding)


def _plain(ask: AnyRequest, target: dict[str, Any]) -> dict[str, Any]:
    """A request as plain objects, without the selection's target."""
    plain: dict[str, Any] = msgspec.to_builtins(ask)
    if plain.get("target") == target:
        del plain["target"]
    return plain


def _strongest(buffers: Buffers, views: Views) -> tuple[list[str], list[str]]:
    """The pinned heads and then those in the ranking; and all heads, the strongest first, without what is not there."""
    import numpy as np

    shown, facts = views.shown, views.facts
    every = [name(layer, head) for layer in range(facts.layers) for head in range(facts.heads)]
    worth = np.frombuffer(buffers[0], np.float32)[: len(every)] if buffers else np.full(len(every), np.nan)
    order = [i for i in np.argsort(-np.abs(worth), kind="stable").tolist() if not np.isnan(worth[i])]
    ways = ([every[i] for i in order if worth[i] * way > 0][: shown.top_k] for way in (1, -1))
    return list(dict.fromkeys([*shown.heads, *(head for way in ways for head in way)])), [every[i] for i in order]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@cache
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
