"""Answers requests about one cache: with numbers in binary buffers, or with a failure and its reason in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from residscope.base.chapters import chapter
from residscope.cache.view import CacheView
from residscope.compute.memo import NoKeyError
from residscope.compute.progress import Progress
from residscope.compute.torch_context import in_torch_context
from residscope.serving.answer_runs import RunRequests
from residscope.serving.handlers import Handlers
from residscope.serving.jobs import JobQueue
from residscope.session.change_notes import steady
from residscope.session.change_tracking import TrackedCache
from residscope.session.class_kinds import peek
from residscope.session.model_settings import settings_of
from residscope.terms import CacheLike, MaskLike, Padding
from residscope.wire.caches import CacheRef
from residscope.wire.causes import MeasureEffects, RunWithout
from residscope.wire.envelope import Buffers, Reply, answered
from residscope.wire.protocol import AnyReply, AnyRequest
from residscope.wire.shown import Shown
from residscope.wire.working import ChapterReply, GivenUp, GiveUp, ReadChapter, Working

if TYPE_CHECKING:
    from torch import Tensor


class Service(Handlers):
    """Answers the views' requests about one cache, over any transport.

    The arguments are those of `GivenCache`. Only one request is computed at a time; long ones run as jobs.
    """

    def _prepare(self) -> None:
        # Handlers may run on a subshell thread while the user's cell runs. Only one request is computed at a time.
        self._jobs = JobQueue(self.hold.there)
        self._runs = RunRequests(
            self._open,
            self.targets,
            lambda: self._look().current_state,
            self._jobs.run_short,
            lambda: self.hold.get().cache,
        )
        # A state of the cache, and the largest number of bytes that a request may read in this state.
        self._size: tuple[str | None, int] = (None, 0)

    def _open(self, counted: Padding) -> CacheView:
        """A view of the cache, with the tracked changes as of the last comparison."""
        held = self.hold.get()
        view = CacheView(held.cache, held.model, self.tokens, self._tracked, self.attention_mask)
        view.padding_is_real = counted == "none"
        return view

    def succeeding(
        self,
        cache: CacheLike,
        logits: Tensor | None = None,
        tokens: Tensor | None = None,
        attention_mask: MaskLike = None,
    ) -> Service:
        """Return a service for another cache under the same name, with this service's model, lens, SAEs and directions.

        Raises:
            ResidscopeError: If `cache` cannot be read at all.
        """
        model = None if getattr(cache, "model", None) is not None else self.hold.get().model
        lens, saes = self.lens, self.saes.given
        other = Service(cache, self.name, logits, tokens, model, attention_mask=attention_mask, lens=lens, saes=saes)
        other._directions = dict(self._directions)
        return other

    def settled(self) -> object:
        """Return a value that differs after a change of the cache, the model's weights or settings, or the SAEs.

        None if the settings are not known. The cache is not compared again here, because the last request did that.
        """
        held = self.hold.get()
        try:
            settings = settings_of(peek(held.cache, "model") if held.model is None else held.model)
            return self._tracked.state, settings, self.saes.settled(self._open("found"))
        except NoKeyError:
            return None

    def state(self, *, compare: bool) -> object:
        """Return a value that differs after a change of the cache, the weights or the model's settings.

        Args:
            compare: Whether to compare them with their last known state. If not, the value is of the last comparison.
        """
        return (self._look() if compare else self._tracked).current_state

    def stop_keeping_alive(self) -> None:
        """Stop keeping the cache alive. Runs that are not finished release its tensors."""
        self.hold.stop_keeping_alive()
        self._runs.measuring.pause()

    def release(self) -> None:
        """Release the cache and everything that belongs to it."""
        super().release()
        self._jobs.cancel_all()
        self._runs.measuring.forget()

    def answer(self, message: Any) -> Reply:
        """Answer one message of a view.

        Args:
            message: A `protocol.Question` as plain objects.

        Returns:
            A `protocol.Answer` as plain objects, and its buffers. No error is raised except KeyboardInterrupt.
        """
        return answered(
            message, lambda question: self.reply(question.ask, question.id, gives_turns=question.gives_turns)
        )

    def reply(
        self,
        ask: AnyRequest,
        id: str | None = None,
        *,
        about: CacheRef | None = None,
        looked: bool = False,
        gives_turns: bool = False,
    ) -> tuple[AnyReply, Buffers]:
        """Answer one request, after the requests before it. For a long job, return the progress.

        Args:
            ask: The request.
            id: Identifies the request when it is sent again. A request without an id is computed to its end.
            about: The state of the cache to which the request refers, if any.
            looked: Whether the cache was just checked for changes.
            gives_turns: Whether the view makes the kernel take turns (`protocol.Question`).

        Raises:
            ResidscopeError: If the request cannot be answered. The message says why.
        """
        if isinstance(ask, GiveUp):
            self._jobs.cancel(ask.id)
            return GivenUp(), []
        if isinstance(ask, ReadChapter):
            return ChapterReply(ask.name, chapter(ask.name)), []
        if isinstance(ask, MeasureEffects | RunWithout):
            if isinstance(ask, MeasureEffects):
                return self._runs.effects(ask, gives_turns=gives_turns)
            return self._runs.without(ask, gives_turns=gives_turns), []
        if id and (self._jobs.has(id) or self._takes_long(ask)):
            question = msgspec.msgpack.encode((ask, about))
            result = self._jobs.run_long(id, question, partial(self._answer, ask, looked))
            return (Working(result.done, result.total), []) if isinstance(result, Progress) else result
        return self._jobs.run_short(partial(self._answer, ask, looked))

    def finish(self, ask: AnyRequest, on_progress: Callable[[Progress], None]) -> tuple[AnyReply, Buffers]:
        """Answer one long request, computed to its end. An interrupt or `release` ends it early.

        Args:
            ask: The request.
            on_progress: Called regularly with the progress.

        Raises:
            ResidscopeError: If the request cannot be answered. The message says why.
        """
        return self._jobs.run_to_end(partial(self._answer, ask, False), on_progress)

    def ahead(self, shown: Shown) -> dict[str, Any]:
        """Return the first requests of a view with this selection, and their replies. Empty if this may take long.

        Returns:
            An `export.snapshot.Snapshot` of what is on screen, as plain objects, or an empty dictionary.
        """
        from residscope.export.snapshot import opening

        with suppress(Exception):  # the view sends the requests anyway, and gets the failure
            before = self._look().current_state
            if not self._large():
                made = opening(partial(self.reply, looked=True), self.name, shown)
                return made if self._tracked.current_state == before else {}  # all replies must be of the same state
        return {}

    def _look(self, quick: bool = False) -> TrackedCache:
        held = self.hold.get()
        return self._tracked.compare(held.cache, held.model, quick=quick)

    def _answer(self, ask: AnyRequest, looked: bool) -> tuple[AnyReply, Buffers]:
        seen = self._tracked if looked else self._look()
        key = self._key(ask) if ask.is_kept else None
        known = None if key is None else seen.memo[0].get(*key)
        return steady(self._look, partial(self._answer_once, ask), seen) if known is None else known

    def _answer_once(self, ask: AnyRequest) -> tuple[AnyReply, Buffers]:
        held = self.hold.get()
        view = CacheView(held.cache, held.model, self.tokens, self._tracked, self.attention_mask)
        del held  # a long job must not keep the cache alive
        # Grad mode and autocast belong to a thread, and a subshell has its own thread.
        return in_torch_context(view.stream.device, lambda: self._reply(view, ask))

    def _takes_long(self, ask: AnyRequest) -> bool:
        return ask.takes_long == "always" or (ask.takes_long == "large caches" and self._large())

    def _large(self) -> bool:
        """Whether a request may read so much that it takes long."""
        state = self._tracked.state
        if self._size[0] != state:
            view = self._open("found")
            self._size = state, view.nbytes + 12 * view.n_layers * int(view.cfg.d_model) ** 2 * view.stream.itemsize
        return self._size[1] > _LARGE


_LARGE = 2_000_000_000
"""If activations and weights have more bytes than this, a request may take long."""
