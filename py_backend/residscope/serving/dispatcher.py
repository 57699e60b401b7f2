"""Answers the requests of a sidebar: the list of caches, and requests about one cache. No cache is kept alive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple
from uuid import uuid4

from residscope.errors import ResidscopeError
from residscope.serving.measuring import pause_untracked
from residscope.serving.service import Service
from residscope.session.cache_reference import GONE
from residscope.session.cache_summary import row
from residscope.session.caches import name_of
from residscope.session.change_tracking import TrackedCache, known, next_comparison, track, tracked
from residscope.session.discovery import Search, search
from residscope.wire.caches import CacheRef, CacheRow, CachesReply, ListCaches
from residscope.wire.envelope import Buffers, Reply, answered
from residscope.wire.protocol import AnyReply, Question
from residscope.wire.working import GiveUp

KERNEL = uuid4().hex[:12]
"""Identifies this kernel process. It changes with every restart."""

_AT_ONCE = 12_000
"""The first list of a series compares about this many activations, which takes 6 ms."""

_CHANGED = "This cache was changed after this picture was made: read it again."


class Dispatcher:
    """Answers requests about the caches in the user's namespace, over any transport.

    Args:
        guard: A context in which the list of caches is computed. A host requests the list as soon as a notebook is
            opened, before the user has run anything. So nothing may be imported from the notebook's folder then.
    """

    def __init__(self, guard: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self._guard = guard

    def answer(self, message: object) -> Reply:
        """Answer one message.

        Args:
            message: A `protocol.Question` as plain objects.

        Returns:
            A `protocol.Answer` as plain objects, and its buffers. No error is raised except KeyboardInterrupt.
        """
        # Requests about a cache come only after the user's cells have run. A tokenizer may then import from the
        # notebook's folder.
        with nullcontext() if _about_a_cache(message) else self._guard():
            return answered(message, self._reply)

    def _reply(self, question: Question) -> tuple[AnyReply, Buffers]:
        if isinstance(question.ask, ListCaches):
            return listed(question.ask.since), []
        if question.cache is None:
            raise ResidscopeError("protocol", "This request names no cache: reload the page.")
        tracked = _tracked(question.cache)
        if isinstance(question.ask, GiveUp):  # even if the cache has changed: nobody needs the result then
            return _service(tracked).reply(question.ask)
        _check_unchanged(tracked, question.cache, weights=True)
        try:
            given: dict[str, Any] = {"about": question.cache, "looked": True, "gives_turns": question.gives_turns}
            reply = _service(tracked).reply(question.ask, question.id, **given)
        except ResidscopeError as error:
            if error.code == "unsteady":
                _check_unchanged(tracked, question.cache)
            raise
        # A running cell may have changed the cache during the computation. `steady` has then compared it again.
        _check_state(tracked.state, question.cache)
        return reply


def listed(since: int | None = None) -> CachesReply:
    """Return all caches in the user's namespace. `since` is that of `ListCaches`."""
    return _rows(search(), since)


def _about_a_cache(message: object) -> bool:
    """Whether a message, which may be malformed, is about one of the user's caches."""
    if not isinstance(message, dict) or message.get("cache") is None:
        return False
    request = message.get("ask")
    return not (isinstance(request, dict) and request.get("kind") == "caches")


def _rows(searched: Search, since: int | None) -> CachesReply:
    weights: dict[int, int] = {}  # each model's weights are compared only once
    rows: list[CacheRow] = []
    notes = list(searched.notes)
    pause_untracked()
    due, unread, since = _due([found.cache for found in searched.found], since)
    for found in searched.found:
        try:
            tracking = track(found.cache, seen=weights) if id(found.cache) in due else tracked(found.cache)
            rows.append(row(found.cache, found.names, tracking))
        except Exception as error:  # an unreadable cache, or one that a cell is changing, must not hide the others
            notes.append(f"`{found.names[0]}` could not be read ({type(error).__name__}: {error}).")
    return CachesReply(KERNEL, rows, notes, unread, since)


class _Due(NamedTuple):
    """Which caches a list compares: their addresses, how many are left for the next list, and that list's `since`."""

    addresses: set[int]
    unread: int
    since: int


def _due(caches: list[Any], since: int | None) -> _Due:
    """Choose the caches to compare: all new ones, and of the others as many as `ListCaches` says.

    The first list of a series begins with the caches that a view has shown. Each further list compares about as many
    activations as all lists of the series before it. So there are few lists, however many caches there are.
    """
    if since is None:
        return _Due(set(map(id, caches)), 0, 0)
    now = next_comparison()
    begin = since if 0 < since < now else now  # a kernel that was restarted may get a later number: a new series
    all_of_them = [(tracked(cache), id(cache)) for cache in caches]
    old = [pair for pair in all_of_them if pair[0].compared < begin]
    left = _AT_ONCE
    if begin != now:
        left = max(left, sum(one.activations for one, _ in all_of_them if one.compared >= begin))
    else:
        old.sort(key=lambda pair: "service" not in pair[0].kept)
    due: set[int] = set()
    for one, address in old:
        if left > 0 or not one.compared:
            due.add(address)
            left -= one.activations
    return _Due(due, len(old) - len(due), begin)


def _tracked(ref: CacheRef) -> TrackedCache:
    tracked = known(ref.id)
    if tracked is None:
        raise ResidscopeError("gone", GONE)
    return tracked


def _check_unchanged(tracked: TrackedCache, ref: CacheRef, *, weights: bool = False) -> None:
    """Compare the cache, and with `weights` also its model's weights (slower), with the state in a request.

    Raises:
        ResidscopeError: If the cache was deleted, or its activations have changed. (If weights changed, the reply has
            a note.)
    """
    cache = tracked.cache
    if cache is None:
        raise ResidscopeError("gone", GONE)
    _check_state(tracked.compare(cache).state if weights else str(tracked.changes(cache)), ref)


def _check_state(state: str, ref: CacheRef) -> None:
    if state.split(".")[0] != ref.state.split(".")[0]:
        raise ResidscopeError("changed", _CHANGED)


def _service(tracked: TrackedCache) -> Service:
    """The service for a cache, created at its first request. It is deleted together with the cache."""
    if "service" not in tracked.kept:
        cache = tracked.cache
        if cache is None:
            raise ResidscopeError("gone", GONE)
        tracked.kept["service"] = Service(cache, name_of(cache), keeps_alive=False)
    return tracked.kept["service"]
