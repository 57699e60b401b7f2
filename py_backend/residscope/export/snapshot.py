"""A snapshot: the replies that a panel's views need now, and those that they may need next, as plain data.

Requests have no state, so recorded requests with their replies can replace the kernel.
`widgets/src/snapshot/snapshot.ts` replays them.
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
from residscope.export.page_requests import at_once, wanted
from residscope.export.view_requests import Group, Requests, Views, on_screen
from residscope.terms import ComponentTable
from residscope.wire.caches import CacheFacts, Describe
from residscope.wire.envelope import Buffers, answered
from residscope.wire.predictions import ReadTokenLens
from residscope.wire.protocol import AnyReply, AnyRequest, Failure
from residscope.wire.shown import Holds, Shown

Answering = Callable[[AnyRequest], tuple[AnyReply, Buffers]]

BUDGET = 8_000_000
"""The largest size of a snapshot in bytes, before compression."""

OPENING = 1_000_000
"""At most this many bytes of buffers are sent to a new panel before it requests them."""

PATIENCE = 20.0
"""After this many seconds, only what is on screen is computed."""


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request and its reply or failure. The request's `target` is left out if it equals the selection's."""

    ask: dict[str, Any]
    reply: dict[str, Any] | None = None
    failure: Failure | None = None
    buffers: list[bytes] = []


class Snapshot(msgspec.Struct, frozen=True):
    """A panel as plain data. In JSON, the buffers are base64.

    Attributes:
        name: The name of the cache.
        selection: What is selected in the panel.
        saved: When the snapshot was made: date and time in UTC, in ISO format.
        defaults: For each kind of request, the values of fields that a request may leave out.
        lacks: What was left out for lack of room or time, in words.
        entries: The requests with their replies.
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
    """Record the requests of the views: first what is on screen, then what is one click away, while there is room.

    Args:
        answer: Answers one request.
        cache_name: The cache's name.
        shown: What is selected.
        holds: How much is included beyond what is on screen.
        budget: The largest size of the snapshot in bytes. By default `BUDGET`.
        patience: After this many seconds, only what is on screen is computed. By default `PATIENCE`.
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
    done, total = 0, sum(len(requests) for _, requests in groups)
    together = _lens_in_one(groups)
    for what, requests in groups:
        report_progress(done, total)
        with silent():
            if together and requests and isinstance(requests[0], ReadTokenLens):
                record.warm(together.pop(), what)
            record.take(what, requests)
        done += len(requests)
    return Snapshot(cache_name, shown, _now(), _defaults(), record.lacks, record.entries)


def opening(answer: Answering, cache_name: str, shown: Shown) -> dict[str, object]:
    """Return a snapshot of only the first requests of a new panel, as plain objects with binary buffers.

    Requests that fail are left out, and also replies whose buffers do not fit in `OPENING`.
    """
    facts, _ = answer(Describe())
    assert isinstance(facts, CacheFacts)
    entries: list[Entry] = []
    room = OPENING
    for request in at_once(Views(shown, facts)):
        request = _with_padding(request, shown)
        try:
            reply, buffers = (facts, []) if isinstance(request, Describe) else answer(request)
        except ResidscopeError:
            continue
        size = sum(map(len, buffers))
        if size <= room:
            room -= size
            plain_reply = msgspec.json.decode(msgspec.json.encode(reply))  # NaN is null, as on the wire
            entries.append(Entry(_plain(request, msgspec.to_builtins(shown.target)), plain_reply, buffers=buffers))
    made = Snapshot(cache_name, shown, _now(), _defaults(), [], entries)
    return msgspec.to_builtins(made, builtin_types=(bytes,))


class _Record:
    """Records requests and replies until room or time is used up."""

    def __init__(self, answer: Answering, shown: Shown, room: int, until: float) -> None:
        self._answer, self._target, self._room, self._until = answer, msgspec.to_builtins(shown.target), room, until
        self._shown = shown
        self._asked: set[bytes] = set()
        self.entries: list[Entry] = []
        self.lacks: list[str] = []

    def take(self, what: str | None, requests: Requests) -> None:
        """Record all of these requests, or add `what` to `lacks`. If `what` is None, the requests are required."""
        if what in self.lacks:
            return
        if what and not requests:
            self.lacks.append(what)
            return
        taken: dict[bytes, Entry] = {}
        for request in (_with_padding(request, self._shown) for request in requests):
            key = msgspec.json.encode(request)
            if key in self._asked:
                continue
            if what and time.monotonic() > self._until:
                self.lacks.append(what)
                return
            report_progress()
            taken[key] = self.entry(request)
        size = sum(len(msgspec.json.encode(entry)) for entry in taken.values())
        if what and size > self._room:
            self.lacks.append(what)
            return
        self._room -= size
        self._asked.update(taken)
        self.entries.extend(taken.values())

    def warm(self, request: AnyRequest, what: str | None) -> None:
        """Answer one large request in advance, and do not record it. The smaller requests after it use its results."""
        if what not in self.lacks and time.monotonic() < self._until:
            self.entry(_with_padding(request, self._shown))

    def entry(self, request: AnyRequest) -> Entry:
        """Return a request with its reply, or with its failure."""
        question = {"id": "snapshot", "ask": msgspec.to_builtins(request)}
        answer, buffers = answered(question, lambda decoded: self._answer(decoded.ask))
        failure = msgspec.convert(answer["failure"], Failure) if answer.get("failure") else None
        return Entry(_plain(request, self._target), answer.get("reply"), failure, buffers)


_FEW_ROWS = 100
"""A request for fewer rows of the token lens takes nearly as long as one for this many."""


def _lens_in_one(groups: list[Group]) -> list[AnyRequest]:
    """A list with one request for the whole token lens, if its tiles are small and have the same positions.

    Otherwise an empty list.
    """
    tiles = [request for _, requests in groups for request in requests if isinstance(request, ReadTokenLens)]
    if not tiles or {(tile.start, tile.stop) for tile in tiles} != {(tiles[0].start, tiles[0].stop)}:
        return []
    few = max(len(tile.points) for tile in tiles) * (tiles[0].stop - tiles[0].start) < _FEW_ROWS
    points = list(dict.fromkeys(point for tile in tiles for point in tile.points))
    return [msgspec.structs.replace(tiles[0], points=points)] if few else []


def _with_padding(request: AnyRequest, shown: Shown) -> AnyRequest:
    """A request with the selection's padding."""
    return request if request.padding == shown.padding else msgspec.structs.replace(request, padding=shown.padding)


def _plain(request: AnyRequest, target: dict[str, Any]) -> dict[str, Any]:
    """A request as plain objects, without its target if that equals the selection's target."""
    plain: dict[str, Any] = msgspec.to_builtins(request)
    if plain.get("target") == target:
        del plain["target"]
    return plain


def _strongest(buffers: Buffers, views: Views) -> tuple[list[str], list[str]]:
    """The pinned heads followed by the ranked heads, and all heads that have a value, strongest first."""
    import numpy as np

    shown, facts = views.shown, views.facts
    every = [name(layer, head) for layer in range(facts.layers) for head in range(facts.heads)]
    values = np.frombuffer(buffers[0], np.float32)[: len(every)] if buffers else np.full(len(every), np.nan)
    order = [i for i in np.argsort(-np.abs(values), kind="stable").tolist() if not np.isnan(values[i])]
    by_sign = ([every[i] for i in order if values[i] * sign > 0][: shown.top_k] for sign in (1, -1))
    return list(dict.fromkeys([*shown.heads, *(head for heads in by_sign for head in heads)])), [
        every[i] for i in order
    ]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    """For each kind of request, the values of fields that a request may leave out, unless the value is None."""
    kinds: dict[str, Any] = {kind.__struct_config__.tag: _field_defaults(kind) for kind in get_args(AnyRequest)}
    for kind in ("code", "page"):
        kinds[kind]["shown"] = _field_defaults(Shown)
    return kinds


def _field_defaults(struct: type[msgspec.Struct]) -> dict[str, Any]:
    defaults: dict[str, object] = {}
    for field in msgspec.structs.fields(struct):
        value = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if value is not msgspec.NODEFAULT and value is not None:
            defaults[field.encode_name] = msgspec.to_builtins(value)
    return defaults
