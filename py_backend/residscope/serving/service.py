"""Answers requests about one cache: with numbers in binary buffers, or with a failure and its reason in a sentence."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from residscope.attribution.predictions import suggestions, top_two
from residscope.attribution.target_words import in_words
from residscope.attribution.targets import Targets
from residscope.base.chapters import chapter
from residscope.base.legible import encodable
from residscope.cache import padding, positions
from residscope.cache.component_names import parse
from residscope.cache.lens_maps import LensMaps
from residscope.cache.token_labels import token_labels
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.compute.memo import NoKeyError, key_of, size_of
from residscope.compute.progress import Progress
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.serving import (
    answer_charts,
    answer_compare,
    answer_features,
    answer_next,
    answer_run_maps,
    answer_segments,
    answer_views,
    answer_why,
)
from residscope.serving.answer_runs import RunRequests
from residscope.serving.jobs import JobQueue
from residscope.serving.known_saes import KnownSaes
from residscope.serving.request_context import RequestContext
from residscope.session import answers
from residscope.session.cache_reference import CacheReference
from residscope.session.cache_summary import common_facts
from residscope.session.change_notes import steady
from residscope.session.change_tracking import TrackedCache, track
from residscope.session.class_kinds import peek
from residscope.session.model_settings import settings_of
from residscope.terms import CacheLike, ComponentTable, MaskLike, ModelLike, Padding, Target, is_chosen
from residscope.wire.envelope import Buffers, Reply, answered
from residscope.wire.protocol import (
    AnswersReply,
    AnyReply,
    AnyRequest,
    Attribute,
    BlendAttention,
    CacheFacts,
    CacheRef,
    ChapterReply,
    CheckToken,
    ChooseFeature,
    ChooseTarget,
    CodeReply,
    Compare,
    CompareAttention,
    CompareTokenLens,
    Describe,
    FindAnswers,
    GivenUp,
    GiveUp,
    LensFacts,
    ListCaches,
    MapPositions,
    MapSegments,
    MeasureEffects,
    PageReply,
    PairPositions,
    Presence,
    RankNeurons,
    RankSegmentHeads,
    ReadAttention,
    ReadChapter,
    ReadFeatures,
    ReadFeatureTokens,
    ReadHeadTokens,
    ReadNextTokens,
    ReadPairs,
    ReadSegments,
    ReadThumbnails,
    ReadTokenLens,
    ReadTokens,
    ResolveAnswers,
    ResolvedReply,
    RunWithout,
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
    """Answers the views' requests about one cache, over any transport.

    Args:
        cache: The user's `ActivationCache`.
        name: The name of the cache's variable.
        logits: The model's output, if the cache does not hold it.
        tokens: Token ids, if the cache does not hold them.
        model: The model, if `cache.model` was deleted.
        attention_mask: 1 for each real token, 0 for padding, if known.
        generated_from: The position of the first generated token, if known.
        lens: Maps of the stream to its end, as in `attribute`.
        saes: The SAEs and transcoders that were given, by name. Those in the namespace are found, too.
        keeps_alive: Whether to keep the cache alive.

    Attributes:
        hold: The reference to the cache, and to the model and logits that were given.
        saes: The SAEs and transcoders whose features can be shown.

    Raises:
        ResidscopeError: If `cache` cannot be read at all.
    """

    def __init__(
        self,
        cache: CacheLike,
        name: str = "cache",
        logits: Tensor | None = None,
        tokens: Tensor | None = None,
        model: ModelLike = None,
        *,
        attention_mask: MaskLike = None,
        generated_from: object = None,
        lens: object = None,
        saes: Mapping[str, object] | None = None,
        keeps_alive: bool = True,
    ) -> None:
        self.hold = CacheReference(cache, model, logits, keeps_alive=keeps_alive)
        self.name, self.tokens, self.attention_mask = encodable(name), tokens, attention_mask
        view = self.view()
        self._generated_from = _index_of(view, generated_from)
        self.lens, self._lens = lens, LensMaps.of(lens)
        if self._lens is not None:
            self._lens.on(view)  # raises if the maps do not fit this cache
        self._logits(view)  # raises if the logits are not this cache's
        _ = view.attention_mask
        self._directions: dict[str, object] = {}
        self.saes = KnownSaes(saes)
        self._tracked = track(cache, model)
        # Handlers may run on a subshell thread while the user's cell runs. Only one request is computed at a time.
        self._jobs = JobQueue(self.hold.there)
        self._runs = RunRequests(
            self._open,
            self.targets,
            lambda: self._look().current_state,
            self._jobs.run_short,
            lambda: self.hold.get().cache,
        )
        self._size: tuple[str | None, int] = (
            None,
            0,
        )  # a state of the cache, and the largest number of bytes that a request may read in this state

    def view(self, counted: Padding = "found") -> CacheView:
        """Return a new view of the cache, which may have changed since the last request."""
        held = self.hold.get()
        view = CacheView(held.cache, model=held.model, tokens=self.tokens, attention_mask=self.attention_mask)
        view.padding_is_real = counted == "none"
        return view

    def _open(self, counted: Padding) -> CacheView:
        """A view of the cache with the results of change tracking, as they were last compared."""
        held = self.hold.get()
        view = CacheView(held.cache, held.model, self.tokens, self._tracked, self.attention_mask)
        view.padding_is_real = counted == "none"
        return view

    def _what_if(self, ask: Compare | CompareAttention | CompareTokenLens | PairPositions) -> Any:
        return self._runs.what_if(ask.against, ask.padding)

    def targets(self, view: CacheView | None = None) -> Targets:
        """Return the resolver of targets for the cache in its present state."""
        return Targets.of(view or self.view(), self._directions)

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
            return self._tracked.state, settings, self.saes.settled(self.view())
        except NoKeyError:
            return None

    def choose(self, target: Target) -> None:
        """Store the target, so that other views of this cache can offer it."""
        self._tracked.kept["panel"] = (weakref.ref(self), target)

    def _panel(self) -> tuple[Service, Target] | None:
        """The inline panel of the same cache, and the target that the user chose there. None if there is none."""
        reference, target = self._tracked.kept.get("panel", (lambda: None, None))
        panel: Service | None = reference()
        if panel is None or panel is self or target.own or not is_chosen(target):
            return None
        return (panel, target) if panel.hold.there() else None

    def release(self) -> None:
        """Release the cache and everything that belongs to it."""
        self.hold.release()
        self.tokens = self.attention_mask = self.lens = self._lens = None
        self._directions.clear()
        self.saes.given.clear()
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
            view = self.view()
            self._size = state, view.nbytes + 12 * view.n_layers * int(view.cfg.d_model) ** 2 * view.stream.itemsize
        return self._size[1] > _LARGE

    def _reply(self, view: CacheView, ask: AnyRequest) -> tuple[AnyReply, Buffers]:
        view.padding_is_real = ask.padding == "none"
        key = self._key(ask) if ask.is_kept else None
        if key is None:
            return self._handle(view, ask)
        return view.cache_memo.once(key, lambda: self._handle(view, ask), size_of)

    def _handle(self, view: CacheView, ask: AnyRequest) -> tuple[AnyReply, Buffers]:
        """Call the handler of a request. The request's class declares its cost, and whether its reply is kept."""
        match ask:
            case Describe():
                return self._facts(view), []
            case ReadTokens():
                return TokensReply(token_labels(view, view.check_prompt(ask.prompt))), []
            case Attribute():
                return answer_charts.attribution(self._context(view), ask)
            case Compare():
                return answer_compare.comparison(self._context(view), ask, self._key(ask), self._what_if(ask))
            case CompareAttention():
                return answer_run_maps.attention(self._context(view), ask, self._key(ask), self._what_if(ask))
            case CompareTokenLens():
                return answer_run_maps.token_lens(self._context(view), ask, self._what_if(ask))
            case PairPositions():
                return answer_run_maps.pairing(self._context(view), ask, self._what_if(ask))
            case ReadAttention():
                return answer_views.attention(self._context(view), ask)
            case ReadThumbnails():
                return answer_views.thumbnails(self._context(view), ask)
            case BlendAttention():
                return answer_views.blend(self._context(view), ask)
            case ScoreHeads():
                return answer_views.scores(self._context(view), ask)
            case MapPositions():
                return answer_views.position_rows(self._context(view), ask)
            case ReadTokenLens():
                return answer_views.token_lens(self._context(view), ask), []
            case ReadNextTokens():
                return answer_next.next_tokens(self._context(view), ask)
            case RankNeurons():
                return answer_charts.neurons(self._context(view), ask)
            case ReadPairs():
                return answer_why.pairs(self._context(view), ask)
            case ReadHeadTokens():
                return answer_why.head_tokens(self._context(view), ask), []
            case ReadSegments():
                return answer_segments.segments(self._context(view), ask), []
            case MapSegments():
                return answer_segments.segment_map(self._context(view), ask)
            case RankSegmentHeads():
                return answer_segments.segment_heads(self._context(view), ask)
            case ReadFeatures():
                return answer_features.features(self._context(view), self.saes.of(view), ask)
            case ReadFeatureTokens():
                return answer_features.feature_tokens(self._context(view), self.saes.of(view), ask)
            case ChooseFeature():
                return answer_features.feature_target(self._context(view), self.saes.of(view), ask), []
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
            case MeasureEffects():
                return self._runs.known(ask)  # only the making of a page sends this request here
            case RunWithout() | ReadChapter() | ListCaches() | Presence() | GiveUp():
                raise ResidscopeError("protocol", "This channel has one cache and no list: reload the page.")

    def default_target(self) -> Target:
        """The model's two top predictions for each prompt at its last real token.

        Without logits or a stream that gives them, the target is empty. Attention can still be shown.
        """
        view = self.view()
        try:
            return top_two(view, self._logits(view))
        except ResidscopeError as error:
            if error.code != "no-logits":
                raise
            return Target([])

    # --- one method per request --------------------------------------------------------------------------------------
    def _facts(self, view: CacheView) -> CacheFacts:
        decided = padding.detected_padding(view)
        return CacheFacts(
            name=self.name,
            model=view.model_name,
            **common_facts(view),
            last=list(decided.last),
            has_tokens=view.tokens is not None,
            padding=decided.count,
            points=ComponentTable.of(view.points()),
            generated_from=self._generated_from,
            lens=self._lens_facts(view),
            saes=self.saes.listed(view),
        )

    def _lens_facts(self, view: CacheView) -> LensFacts | None:
        """The name and the formula of the lens. If it no longer fits, only its name; requests then say why."""
        if self._lens is None:
            return None
        try:
            return LensFacts(self._lens.name, self._lens.on(view).formula)
        except ResidscopeError:
            return LensFacts(self._lens.name, "")

    def _context(self, view: CacheView) -> RequestContext:
        return RequestContext(self.targets(view), self._logits(view), self._lens)

    def _key(self, ask: AnyRequest) -> tuple[Hashable, ...] | None:
        """The memo key of a request. None if the given arguments have no key."""
        try:
            lens = self._lens if getattr(ask, "transport", "plain") == "transported" else None
            given = key_of((self.hold.get().logits, self.tokens, self.attention_mask, lens))
        except NoKeyError:
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
                    "answers", "The panel of this cache is closed, or now shows the model's own target."
                )
            panel, target = found
            targets.adopt(target, panel.targets())
            given = target
        else:
            given = answers.answers_in(ask.name, view.batch, int(view.cfg.d_model))
        # Resolved twice: targets from a view are checked more strictly than those from Python.
        return ResolvedReply(ask.name, targets.resolve(targets.resolve(given)), list(targets.notes))

    def _code(self, view: CacheView, ask: WriteCode) -> CodeReply:
        from residscope.export.code import Given, code

        view.padding_is_real = ask.shown.padding == "none"
        held = self.hold.get()
        own = (self.attention_mask, self.lens, self.saes.of(view))
        given = Given(held.cache, self.name, held.logits, self.tokens, held.model, *own)
        return CodeReply(code(self.targets(view), ask, given))

    def _page(self, view: CacheView, ask: WritePage) -> tuple[PageReply, Buffers]:
        from residscope.export.page import file_name, page
        from residscope.export.snapshot import snapshot

        self._check(view, ask.shown)
        held = snapshot(partial(self._reply, view), self.name, ask.shown, ask.holds)
        return PageReply(file_name(self.name, ask.shown, view.batch)), [page(held).encode()]

    def _check(self, view: CacheView, shown: Shown) -> None:
        """Raise an error if the selection does not fit this cache, before many pictures are computed for a page."""
        self.targets(view).resolve(shown.target)
        view.check_prompt(shown.prompt)
        positions.resolve(view, shown.position)
        for head in shown.heads:
            view.check_head(*parse(head))
        if shown.layer is not None:
            view.check_layer(shown.layer)

    def _logits(self, view: CacheView) -> Tensor | None:
        """The model's output, if it was given."""
        given = self.hold.get().logits
        return None if given is None else view.whole_logits(given)


_LARGE = 2_000_000_000
"""If activations and weights have more bytes than this, a request may take long."""


def _index_of(view: CacheView, generated_from: Any) -> int | None:
    """The position of the first generated token, counted from the start.

    Raises:
        ResidscopeError: If there is no such position.
    """
    if generated_from is None:
        return None
    if isinstance(generated_from, bool) or not hasattr(generated_from, "__index__"):
        raise ResidscopeError(
            "generated-from",
            f"`generated_from={generated_from!r}` is not a position: give the index of the first generated token, "
            "which is the length of the prompt in tokens.",
        )
    where = positions.resolve(view, generated_from.__index__())
    return None if where is None else int(where[0])
