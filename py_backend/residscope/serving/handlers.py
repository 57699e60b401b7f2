"""Computes the reply to each kind of request about one cache: `_handle` calls the handler of the request."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from residscope.attribution.predictions import suggestions, top_two
from residscope.attribution.target_words import in_words
from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.component_names import parse
from residscope.cache.token_labels import token_labels
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.compute.memo import size_of
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
from residscope.serving.given_cache import GivenCache
from residscope.session import answers
from residscope.terms import Target, is_chosen
from residscope.wire.attention import BlendAttention, ReadAttention, ReadThumbnails, ScoreHeads
from residscope.wire.caches import Describe, ListCaches, ReadTokens, TokensReply
from residscope.wire.causes import MeasureEffects, RunWithout
from residscope.wire.comparisons import Compare, CompareAttention, CompareTokenLens, PairPositions
from residscope.wire.decompositions import Attribute, MapPositions, RankNeurons, ReadPairs
from residscope.wire.envelope import Buffers
from residscope.wire.features import ChooseFeature, ReadFeatures, ReadFeatureTokens
from residscope.wire.predictions import ReadHeadTokens, ReadNextTokens, ReadTokenLens
from residscope.wire.protocol import AnyReply, AnyRequest
from residscope.wire.segments import MapSegments, RankSegmentHeads, ReadSegments
from residscope.wire.shown import CodeReply, PageReply, Shown, WriteCode, WritePage
from residscope.wire.targets import (
    AnswersReply,
    CheckToken,
    ChooseTarget,
    FindAnswers,
    ResolveAnswers,
    ResolvedReply,
    Suggest,
    Suggestions,
    TargetReply,
    TokenCheck,
    Variable,
)
from residscope.wire.working import GiveUp, Presence, ReadChapter


class Handlers(GivenCache):
    """Computes the reply to one request about a cache in its present state. `Service` decides when."""

    _runs: RunRequests

    def choose(self, target: Target) -> None:
        """Store the target, so that other views of this cache can offer it."""
        self._tracked.kept["panel"] = (weakref.ref(self), target)

    def _panel(self) -> tuple[GivenCache, Target] | None:
        """The inline panel of the same cache, and the target that the user chose there. None if either is missing."""
        reference, target = self._tracked.kept.get("panel", (lambda: None, None))
        panel: GivenCache | None = reference()
        if panel is None or panel is self or target.own or not is_chosen(target):
            return None
        return (panel, target) if panel.hold.there() else None

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
                return TargetReply(self._default(view)), []
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

    def _what_if(self, ask: Compare | CompareAttention | CompareTokenLens | PairPositions) -> Any:
        return self._runs.what_if(ask.against, ask.padding)

    # --- one method per request --------------------------------------------------------------------------------------
    def _default(self, view: CacheView) -> Target:
        """The target of this cache's inline panel, if it is about logits. Otherwise the two top predictions."""
        found = self._panel()
        if found is None or found[1].inner is not None or found[1].through:
            return top_two(view, self._logits(view))
        return self._as_in(found, self.targets(view))

    @staticmethod
    def _as_in(found: tuple[GivenCache, Target], targets: Targets) -> Target:
        panel, target = found
        targets.adopt(target, panel.targets())
        return _checked(target, targets)

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
            return ResolvedReply(None, self._as_in(found, targets), list(targets.notes))
        given = answers.answers_in(ask.name, view.batch, int(view.cfg.d_model))
        return ResolvedReply(ask.name, _checked(given, targets), list(targets.notes))

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


def _checked(answers: object, targets: Targets) -> Target:
    """Resolve answers, and check the result as strictly as a target that a view sends."""
    return targets.resolve(targets.resolve(answers))
