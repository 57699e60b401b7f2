"""Answers the questions of a sidebar: which caches there are, and about each of them. It keeps none of them alive."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from uuid import uuid4

from residscope.errors import ResidscopeError
from residscope.serving.service import Service
from residscope.session.cache_reference import GONE
from residscope.session.cache_summary import row
from residscope.session.caches import name_of
from residscope.session.change_tracking import TrackedCache, known, track
from residscope.session.discovery import Search, search
from residscope.wire.envelope import Buffers, answered
from residscope.wire.protocol import AnyReply, CacheRef, CacheRow, CachesReply, GiveUp, ListCaches, Question

KERNEL = uuid4().hex[:12]
"""Another one after every restart."""

_CHANGED = "This cache was changed since this picture was made, which shows what it was: read it again."


class Dispatcher:
    """Answers questions about the caches in the user's namespace, whoever carries them.

    Args:
        guard: What stands around answering the list of caches. It is also asked for when a notebook was only opened,
            and the user has run nothing: nothing may be imported from the notebook's folder meanwhile.
    """

    def __init__(self, guard: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self._guard = guard

    def answer(self, message: Any) -> tuple[dict[str, Any], Buffers]:
        """Answer one message.

        Args:
            message: A `protocol.Question` as plain objects.

        Returns:
            A `protocol.Answer` as plain objects, and its buffers. Raises nothing but the user's KeyboardInterrupt.
        """
        # A question about a cache comes after the user's cells: a tokenizer of theirs may import from the folder now.
        with nullcontext() if _about_a_cache(message) else self._guard():
            return answered(message, self._reply)

    def _reply(self, question: Question) -> tuple[AnyReply, Buffers]:
        if isinstance(question.ask, ListCaches):
            return _rows(search()), []
        if question.cache is None:
            raise ResidscopeError("protocol", "This request names no cache: reload the page.")
        seen = _seen(question.cache)
        if isinstance(question.ask, GiveUp):  # also where the cache was changed since: all the less it is wanted
            return _service(seen).reply(question.ask)
        _in_state(seen, question.cache, weights=True)
        try:
            reply = _service(seen).reply(question.ask, question.id, about=question.cache, looked=True)
        except ResidscopeError as error:
            if error.code == "unsteady":
                _in_state(seen, question.cache)
            raise
        # A running cell may have changed it while this was computed: whoever computed it has looked again (`steady`).
        _check_state(seen.state, question.cache)
        return reply


def _about_a_cache(message: Any) -> bool:
    """Whether a message, which may be nonsense, is a question about one of the user's caches."""
    if not isinstance(message, dict) or message.get("cache") is None:
        return False
    ask = message.get("ask")
    return not (isinstance(ask, dict) and ask.get("kind") == "caches")


def _rows(searched: Search) -> CachesReply:
    looks: dict[int, int] = {}  # each model's weights are looked at once
    rows: list[CacheRow] = []
    notes = list(searched.notes)
    for found in searched.found:
        try:
            rows.append(row(found.cache, found.names, track(found.cache, seen=looks)))
        except Exception as error:  # an odd one, or one that a cell is changing, must not hide the others
            notes.append(f"`{found.names[0]}` could not be read ({type(error).__name__}: {error}).")
    return CachesReply(KERNEL, rows, notes)


def _seen(ref: CacheRef) -> TrackedCache:
    seen = known(ref.id)
    if seen is None:
        raise ResidscopeError("gone", GONE)
    return seen


def _in_state(seen: TrackedCache, ref: CacheRef, *, weights: bool = False) -> None:
    """Look at the cache that a question is about, and at its model's weights where that is wanted, which takes longer.

    Raises:
        ResidscopeError: If it is gone, or its activations are not as they were. Weights may have changed: a note tells.
    """
    cache = seen.cache
    if cache is None:
        raise ResidscopeError("gone", GONE)
    _check_state(seen.look(cache).state if weights else str(seen.changes(cache)), ref)


def _check_state(state: str, ref: CacheRef) -> None:
    if state.split(".")[0] != ref.state.split(".")[0]:
        raise ResidscopeError("changed", _CHANGED)


def _service(seen: TrackedCache) -> Service:
    """The service for a cache, made when it is first asked about; it goes with the cache."""
    if "service" not in seen.kept:
        cache = seen.cache
        if cache is None:
            raise ResidscopeError("gone", GONE)
        seen.kept["service"] = Service(cache, name_of(cache), tight=False)
    return seen.kept["service"]
