"""Request → reply. Every request is answered: with numbers as binary buffers, or with a failure in a sentence."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from residscope.attribution.predictions import suggestions, top_two
from residscope.attribution.targets import Targets, in_words
from residscope.base.legible import whole
from residscope.cache import padding, positions
from residscope.cache.component_names import parse
from residscope.cache.token_labels import token_labels
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.compute.memo import UnknownError, key_of, size_of
from residscope.compute.progress import Progress
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.serving import answer_charts, answer_views
from residscope.serving.jobs import JobQueue
from residscope.serving.request_context import RequestContext
from residscope.session import answers
from residscope.session.cache_reference import CacheReference
from residscope.session.cache_summary import basics
from residscope.session.change_notes import steady
from residscope.session.change_tracking import TrackedCache, settings_of, track
from residscope.session.discovery import peek
from residscope.terms import ComponentTable, Padding, Target
from residscope.wire.envelope import Buffers, answered
from residscope.wire.protocol import (
    AnswersReply,
    AnyReply,
    AnyRequest,
    Attribute,
    BlendAttention,
    CacheFacts,
    CacheRef,
    CheckToken,
    ChooseTarget,
    CodeReply,
    Describe,
    FindAnswers,
    GivenUp,
    GiveUp,
    ListCaches,
    MapPositions,
    PageReply,
    Presence,
    RankNeurons,
    ReadAttention,
    ReadThumbnails,
    ReadTokenLens,
    ReadTokens,
    ResolveAnswers,
    ResolvedReply,
    ScoreHeads,
    Shown,
    Suggest,
    Suggestions,
    TargetReply,
    TokenCheck,
    TokensReply,
    Variable,
    Working,
    WriteCode,
    WritePage,
)

if TYPE_CHECKING:
    from torch import Tensor


class Service:
    """Answers the views' requests about one cache, whoever carries them.

    Args:
        cache: The user's `ActivationCache`.
        name: The variable it is known by.
        logits: The model's output, where the cache does not hold it.
        tokens: Token ids, where the cache does not hold them.
        model: The model, where `cache.model` is gone.
        attention_mask: 1 for each real token and 0 for padding, where that is known.
        tight: Whether to keep the cache alive.

    Attributes:
        hold: How it holds the cache, and the model and logits that were given.

    Raises:
        ResidscopeError: If `cache` cannot be read at all.
    """

    def __init__(
        self,
        cache: Any,
        name: str = "cache",
        logits: Any = None,
        tokens: Any = None,
        model: Any = None,
        *,
        attention_mask: Any = None,
        tight: bool = True,
    ) -> None:
        self.hold = CacheReference(cache, model, logits, tight=tight)
        self.name, self.tokens, self.attention_mask = whole(name), tokens, attention_mask
        view = self.view()
        self._logits(view)  # refuses what is not this cache's
        _ = view.attention_mask
        self._directions: dict[str, Any] = {}
        self._tracked = track(cache, model)
        # Handlers may run on a subshell thread beside the user's cell; one request at a time is computed.
        self._work = JobQueue(self.hold.there)
        self._size: tuple[str | None, int] = (None, 0)  # bytes to read at most, in a state of the cache

    def view(self, counted: Padding = "found") -> CacheView:
        """A fresh view of the cache: it may have changed since the last request."""
        held = self.hold.get()
        view = CacheView(held.cache, model=held.model, tokens=self.tokens, attention_mask=self.attention_mask)
        view.padding_is_real = counted == "none"
        return view

    def targets(self, view: CacheView | None = None) -> Targets:
        """Resolves answers for the cache as it is now."""
        return Targets.of(view or self.view(), self._directions)

    def settled(self) -> object:
        """What tells the cache, its weights and its model's settings from what they were; None where nothing does.

        The cache is not compared again with what it was: the last request did that.
        """
        held = self.hold.get()
        try:
            return self._tracked.state, settings_of(peek(held.cache, "model") if held.model is None else held.model)
        except UnknownError:
            return None

    def choose(self, target: Target) -> None:
        """Let other views of the cache know what is attributed in this one."""
        self._tracked.kept["panel"] = (weakref.ref(self), target)

    def _panel(self) -> tuple[Service, Target] | None:
        """The inline panel of the same cache, and what somebody chose there; None where nobody did."""
        way, target = self._tracked.kept.get("panel", (lambda: None, None))
        panel: Service | None = way()
        if panel is None or panel is self or target.own or not (target.contrasts or target.direction):
            return None
        return (panel, target) if panel.hold.there() else None

    def release(self) -> None:
        """Let go of the cache and of everything that belongs to it."""
        self.hold.release()
        self.tokens = self.attention_mask = None
        self._directions.clear()
        self._work.give_up_all()

    def answer(self, message: Any) -> tuple[dict[str, Any], Buffers]:
        """Answer one message of a view.

        Args:
            message: A `protocol.Question` as plain objects.

        Returns:
            A `protocol.Answer` as plain objects, and its buffers. Raises nothing but the user's KeyboardInterrupt.
        """
        return answered(message, lambda question: self.reply(question.ask, question.id))

    def reply(
        self, ask: AnyRequest, id: str | None = None, *, about: CacheRef | None = None, looked: bool = False
    ) -> tuple[AnyReply, Buffers]:
        """Answer one request, one at a time; or say how far it is, where it takes long.

        Args:
            ask: The request.
            id: Names it, when it is asked again. Without one nobody can ask again: it is done to its end.
            about: The state of the cache that the request is about, where it names one.
            looked: Whether the cache was just compared with what it was when first seen.

        Raises:
            ResidscopeError: If it cannot be answered; the sentence says why.
        """
        if isinstance(ask, GiveUp):
            self._work.give_up(ask.id)
            return GivenUp(), []
        if id and (self._work.known(id) or self._takes_long(ask)):
            question = msgspec.msgpack.encode((ask, about))
            found = self._work.long(id, question, partial(self._answer, ask, looked))
            return (Working(found.done, found.total), []) if isinstance(found, Progress) else found
        return self._work.short(partial(self._answer, ask, looked))

    def finish(self, ask: AnyRequest, told: Callable[[Progress], None]) -> tuple[AnyReply, Buffers]:
        """Answer one request that takes long, to its end; an interrupt, or `release`, ends it.

        Args:
            ask: The request.
            told: Is told now and then how far it is.

        Raises:
            ResidscopeError: If it cannot be answered; the sentence says why.
        """
        return self._work.whole(partial(self._answer, ask, False), told)

    def ahead(self, shown: Shown) -> dict[str, Any]:
        """What a view of this selection asks first, and the answers; nothing where that may take long.

        Returns:
            An `export.snapshot.Snapshot` of what is on screen as plain objects, or an empty dictionary.
        """
        from residscope.export.snapshot import opening

        with suppress(Exception):  # the view asks all the same, and is told
            before = self._look().now
            if not self._large():
                made = opening(partial(self.reply, looked=True), self.name, shown)
                return made if self._tracked.now == before else {}  # else its parts are of different states
        return {}

    def _look(self, quick: bool = False) -> TrackedCache:
        held = self.hold.get()
        return self._tracked.look(held.cache, held.model, quick=quick)

    def _answer(self, ask: AnyRequest, looked: bool) -> tuple[AnyReply, Buffers]:
        seen = self._tracked if looked else self._look()
        key = self._key(ask) if ask.is_kept else None
        known = None if key is None else seen.memo[0].get(*key)
        return steady(self._look, partial(self._answer_once, ask), seen) if known is None else known

    def _answer_once(self, ask: AnyRequest) -> tuple[AnyReply, Buffers]:
        held = self.hold.get()
        given = {"tokens": self.tokens, "attention_mask": self.attention_mask}
        view = CacheView(held.cache, model=held.model, seen=self._tracked, **given)
        del held  # long work must not keep the cache alive
        # Grad mode and autocast are the thread's: a subshell's thread has its own.
        return in_torch_context(view.stream.device, lambda: self._reply(view, ask))

    def _takes_long(self, ask: AnyRequest) -> bool:
        return ask.takes_long == "always" or (ask.takes_long == "large caches" and self._large())

    def _large(self) -> bool:
        """Whether a request may have to read so much that it takes longer than a moment."""
        state = self._tracked.state
        if self._size[0] != state:
            view = self.view()
            self._size = state, view.nbytes + 12 * view.n_layers * int(view.cfg.d_model) ** 2 * view.stream.itemsize
        return self._size[1] > _LARGE

    def _reply(self, view: CacheView, ask: AnyRequest) -> tuple[AnyReply, Buffers]:
        view.padding_is_real = ask.padding == "none"
        key = self._key(ask) if ask.is_kept else None
        return self._handle(view, ask) if key is None else view.memo.once(key, lambda: self._handle(view, ask), size_of)

    def _handle(self, view: CacheView, ask: AnyRequest) -> tuple[AnyReply, Buffers]:
        """The registry: each request's handler. What it may cost, and whether it is kept, stands with the request."""
        match ask:
            case Describe():
                return self._facts(view), []
            case ReadTokens():
                return TokensReply(token_labels(view, view.check_prompt(ask.prompt))), []
            case Attribute():
                return answer_charts.attribution(self._scene(view), ask)
            case ReadAttention():
                return answer_views.attention(self._scene(view), ask)
            case ReadThumbnails():
                return answer_views.thumbnails(self._scene(view), ask)
            case BlendAttention():
                return answer_views.blend(self._scene(view), ask)
            case ScoreHeads():
                return answer_views.scores(self._scene(view), ask)
            case MapPositions():
                return answer_views.position_rows(self._scene(view), ask)
            case ReadTokenLens():
                return answer_views.token_lens(self._scene(view), ask), []
            case RankNeurons():
                return answer_charts.neurons(self._scene(view), ask)
            case Suggest():
                prompt = view.check_prompt(ask.prompt)
                return Suggestions(suggestions(view, prompt, ask.position, ask.k, self._logits(view))), []
            case CheckToken():
                read = Vocabulary(view.model).check(ask.text)
                return TokenCheck(read.text, read.tokens, read.single, read.message, read.suggestions), []
            case ChooseTarget():
                return TargetReply(top_two(view, self._logits(view))), []
            case FindAnswers():
                return self._answers(view), []
            case ResolveAnswers():
                return self._resolved(view, ask), []
            case WriteCode():
                return self._code(view, ask), []
            case WritePage():
                return self._page(view, ask)
            case ListCaches() | Presence() | GiveUp():
                raise ResidscopeError("protocol", "This channel has one cache and no list: reload the page.")

    def default_target(self) -> Target:
        """The model's own two top predictions, for each prompt, at its last real token.

        Without logits, and without a stream to read them from, there is none: an empty target, and attention is still
        there to be seen.
        """
        view = self.view()
        try:
            return top_two(view, self._logits(view))
        except ResidscopeError as error:
            if error.code != "no-logits":
                raise
            return Target([])

    # --- one method a request ----------------------------------------------------------------------------------------
    def _facts(self, view: CacheView) -> CacheFacts:
        decided = padding.detected_padding(view)
        return CacheFacts(
            name=self.name,
            model=view.model_name,
            **basics(view),
            last=list(decided.last),
            has_tokens=view.tokens is not None,
            padding=decided.count,
            points=ComponentTable.of(view.points()),
        )

    def _scene(self, view: CacheView) -> RequestContext:
        return RequestContext(self.targets(view), self._logits(view))

    def _key(self, ask: AnyRequest) -> tuple[Hashable, ...] | None:
        """What stands for a question about this cache; None where nothing does."""
        try:
            given = key_of((self.hold.get().logits, self.tokens, self.attention_mask))
        except UnknownError:
            return None
        return "answer", given, msgspec.msgpack.encode(ask)

    def _answers(self, view: CacheView) -> AnswersReply:
        listed = answers.fitting(view.batch, int(view.cfg.d_model))
        panel = self._panel()
        variables = [Variable(name, words) for name, words in listed.variables]
        return AnswersReply(variables, None if panel is None else in_words(panel[1]), listed.notes)

    def _resolved(self, view: CacheView, ask: ResolveAnswers) -> ResolvedReply:
        targets = self.targets(view)
        if ask.name is None:
            found = self._panel()
            if found is None:
                raise ResidscopeError(
                    "answers", "The panel of this cache is gone, or shows the model's own target now."
                )
            panel, target = found
            given = target if target.direction is None else panel.targets().given_direction(target.direction)
        else:
            given = answers.named(ask.name, view.batch, int(view.cfg.d_model))
        # Once more, since what a view sends is held to more than what Python gives.
        return ResolvedReply(ask.name, targets.resolve(targets.resolve(given)), list(targets.notes))

    def _code(self, view: CacheView, ask: WriteCode) -> CodeReply:
        from residscope.export.code import Given, code

        view.padding_is_real = ask.shown.padding == "none"
        held = self.hold.get()
        given = Given(held.cache, self.name, held.logits, self.tokens, held.model, self.attention_mask)
        return CodeReply(code(self.targets(view), ask, given))

    def _page(self, view: CacheView, ask: WritePage) -> tuple[PageReply, Buffers]:
        from residscope.export.page import file_name, page
        from residscope.export.snapshot import snapshot

        self._check(view, ask.shown)
        held = snapshot(partial(self._reply, view), self.name, ask.shown, ask.holds)
        return PageReply(file_name(self.name, ask.shown, view.batch)), [page(held).encode()]

    def _check(self, view: CacheView, shown: Shown) -> None:
        """Refuse a selection that is not one of this cache, whole: a page has many pictures of it."""
        self.targets(view).resolve(shown.target)
        view.check_prompt(shown.prompt)
        positions.resolve(view, shown.position)
        for head in shown.heads:
            view.check_head(*parse(head))
        if shown.layer is not None:
            view.check_layer(shown.layer)

    def _logits(self, view: CacheView) -> Tensor | None:
        """The model's output, where it was given."""
        given = self.hold.get().logits
        return None if given is None else view.whole_logits(given)


_LARGE = 2_000_000_000
"""With more bytes of activations and weights than this, a request may take longer than a moment."""
