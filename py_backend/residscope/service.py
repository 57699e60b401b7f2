"""Request → reply. Every request is answered: with numbers as binary buffers, or with a failure in a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from . import pictures, positions
from .attribution import Checked
from .cache import CacheView
from .calm import calm
from .envelope import Buffers, answered, float32, number
from .errors import ResidscopeError
from .facts import basics
from .heads import name
from .hold import Hold
from .identity import sight
from .kept import Kept
from .labels import token_labels
from .longer import GivenUpError, Task, Turns
from .predictions import suggestions, top_two
from .protocol import (
    AnyReply,
    AnyRequest,
    Attribute,
    AttributionReply,
    BlendAttention,
    CacheFacts,
    CheckToken,
    ChooseTarget,
    CodeReply,
    Describe,
    GivenUp,
    GiveUp,
    ListCaches,
    MapPositions,
    NeuronsReply,
    PageReply,
    Presence,
    RankNeurons,
    ReadAttention,
    ReadThumbnails,
    ReadTokenLens,
    ReadTokens,
    ScoreHeads,
    Suggest,
    Suggestions,
    Target,
    TargetReply,
    TokensReply,
    Working,
    WriteCode,
    WritePage,
)
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from torch import Tensor

    from .targets import Targets


class Service:
    """Answers the views' requests about one cache, whoever carries them.

    Args:
        cache: The user's `ActivationCache`.
        name: The variable it is known by.
        logits: The model's output, where the cache does not hold it.
        tokens: Token ids, where the cache does not hold them.
        model: The model, where `cache.model` is gone.
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
        tight: bool = True,
    ) -> None:
        self.hold = Hold(cache, model, logits, tight=tight)
        self.name, self.tokens = name, tokens
        self._logits(self.view())  # refuses what is not this cache's
        self._directions: dict[str, Any] = {}
        self._sight = sight(cache, model)
        self._checked: tuple[object, Checked] | None = None
        self._ways: tuple[object, Kept] | None = None
        self._answers: tuple[object, Kept] | None = None
        # Handlers may run on a subshell thread beside the user's cell; one request at a time is computed.
        self._turns = Turns()
        self._tasks: dict[str, Task] = {}
        self._size: tuple[str | None, int] = (None, 0)  # bytes to read at most, in a state of the cache

    def view(self) -> CacheView:
        """A fresh view of the cache: it may have changed since the last request."""
        held = self.hold.get()
        return CacheView(held.cache, model=held.model, tokens=self.tokens)

    def targets(self, view: CacheView | None = None) -> Targets:
        """Resolves answers for the cache as it is now."""
        from .targets import Targets

        view = view or self.view()
        return Targets(view, Vocabulary(view.model), self._directions)

    def release(self) -> None:
        """Let go of the cache and of everything that belongs to it."""
        self.hold.release()
        self.tokens = None
        self._directions.clear()
        self._checked = self._ways = self._answers = None
        for task in list(self._tasks.values()):
            task.give_up()

    def answer(self, message: Any) -> tuple[dict[str, Any], Buffers]:
        """Answer one message of a view.

        Args:
            message: A `protocol.Question` as plain objects.

        Returns:
            A `protocol.Answer` as plain objects, and its buffers. Never raises.
        """
        return answered(message, lambda question: self.reply(question.ask, question.id))

    def reply(self, ask: AnyRequest, id: str = "", *, looked: bool = False) -> tuple[AnyReply, Buffers]:
        """Answer one request, one at a time; or say how far it is, where it takes long.

        Args:
            ask: The request.
            id: Names it, when it is asked again.
            looked: Whether the cache was just compared with what it was when first seen.

        Raises:
            ResidscopeError: If it cannot be answered; the sentence says why.
        """
        if isinstance(ask, GiveUp):
            task = self._tasks.pop(ask.id, None)
            if task is not None:
                task.give_up()
            return GivenUp(), []
        if id in self._tasks or (isinstance(ask, _MAY_TAKE_LONG) and self._large()):
            return self._worked_on(ask, id, looked)
        with self._turns.mine():
            return self._answer(ask, looked)

    def ahead(self, ask: AnyRequest) -> None:
        """Answer what a view is about to ask, so that it is there; nothing that may take long. Nothing is raised."""
        with suppress(Exception):  # the view asks all the same, and is told
            if not self._large():
                self.reply(ask)

    def _worked_on(self, ask: AnyRequest, id: str, looked: bool) -> tuple[AnyReply, Buffers]:
        """The answer, where it is there after a moment; else how far it is."""
        for other, task in list(self._tasks.items()):
            if task.forgotten:
                self._tasks.pop(other, None)
        task = self._tasks.get(id)
        if task is None:
            task = self._tasks[id] = Task(partial(self._answer, ask, looked), self._turns, self.hold.there)
        if not task.wait():
            return Working(task.done, task.total), []
        self._tasks.pop(id, None)
        try:
            return task.result()
        except GivenUpError:
            raise ResidscopeError(
                "given-up", "This was given up: nobody asked for it for a while. Ask again."
            ) from None

    def _answer(self, ask: AnyRequest, looked: bool) -> tuple[AnyReply, Buffers]:
        held = self.hold.get()
        if not looked:
            self._sight.look(held.cache, held.model)
        view = CacheView(held.cache, model=held.model, tokens=self.tokens, seen=self._sight)
        del held  # long work must not keep the cache alive
        # Grad mode and autocast are the thread's: a subshell's thread has its own.
        with calm(view.stream.device):
            return self._reply(view, ask)

    def _large(self) -> bool:
        """Whether a request may have to read so much that it takes longer than a moment."""
        state = self._sight.state
        if self._size[0] != state:
            view = self.view()
            self._size = state, view.nbytes + 12 * view.n_layers * int(view.cfg.d_model) ** 2 * view.stream.itemsize
        return self._size[1] > _LARGE

    def _reply(self, view: CacheView, ask: AnyRequest) -> tuple[AnyReply, Buffers]:
        match ask:
            case Describe():
                return self._facts(view), []
            case ReadTokens():
                return TokensReply(token_labels(view, view.check_prompt(ask.prompt))), []
            case Attribute():
                return self._once(ask, lambda: self._attribution(view, ask))
            case ReadAttention():  # a pointer comes back to a head that it has passed, and two views may show the same
                return self._once(ask, lambda: pictures.attention(self._scene(view), ask))
            case ReadThumbnails():
                return pictures.thumbnails(self._scene(view), ask)
            case BlendAttention():
                return pictures.blend(self._scene(view), ask)
            case ScoreHeads():
                return pictures.scores(self._scene(view), ask)
            case MapPositions():
                return pictures.position_rows(self._scene(view), ask)
            case ReadTokenLens():
                return pictures.token_lens(self._scene(view), ask), []
            case RankNeurons():
                return self._neurons(view, ask)
            case Suggest():
                prompt = view.check_prompt(ask.prompt)
                return Suggestions(suggestions(view, prompt, ask.position, ask.k, self._logits(view))), []
            case CheckToken():
                return Vocabulary(view.model).check(ask.text), []
            case ChooseTarget():
                return TargetReply(top_two(view, self._logits(view))), []
            case WriteCode():
                return self._code(view, ask), []
            case WritePage():
                return self._page(view, ask)
            case ListCaches() | Presence() | GiveUp():
                raise ResidscopeError("protocol", "This channel has one cache and no list: reload the page.")

    def default_target(self) -> Target:
        """The model's own two top predictions, for each prompt, at its last real token."""
        view = self.view()
        return top_two(view, self._logits(view))

    # --- one method a request ----------------------------------------------------------------------------------------
    def _facts(self, view: CacheView) -> CacheFacts:
        return CacheFacts(
            name=self.name,
            model=view.model_name,
            **basics(view),
            last=positions.last(view),
            has_tokens=view.tokens is not None,
        )

    def _attribution(self, view: CacheView, ask: Attribute) -> tuple[AttributionReply, Buffers]:
        import torch

        from .attribution import decompose

        targets, prompt = self.targets(view), view.check_prompt(ask.prompt)
        where = positions.resolve(view, "last" if ask.position is None else ask.position)
        norm = ask.norm if ask.by == "accumulated" else "frozen"
        target, refusal, logits = targets.resolve(ask.target), None, self._logits(view)
        try:
            result = decompose(view, targets, target, ask.by, where, logits, norm)
        except ResidscopeError as error:
            if error.code != "no-heads":
                raise
            # No head can be told from the others: the map is empty, the sentence a note, and the layers add up.
            result, refusal = decompose(view, targets, target, "layer", where, logits), str(error)

        def of(per_prompt: Tensor) -> Tensor:
            return _shown(per_prompt, prompt)

        def known(per_prompt: Tensor) -> float | None:
            return number(of(per_prompt))

        reply = AttributionReply(
            by=ask.by,
            labels=result.labels,
            measured=known(result.measured),
            constant=float(of(result.constant)),
            unexplained=known(result.unexplained),
            # In the mean over prompts errors of opposite signs would cancel: the worst prompt is what is judged.
            worst=number(result.unexplained.abs().max()) if prompt is None else known(result.unexplained),
            tolerance=result.tolerance,
            measured_from=result.measured_from,
            own=result.own,
            prompts=view.batch if prompt is None else 1,
            notes=([refusal] if refusal else [])
            + [_WEIGHTS_CHANGED] * self._sight.weights_changed
            + [_CACHE_CHANGED] * self._sight.changed
            + [note for note in result.notes if note not in (refusal or "")]
            + (positions.assumed(view) if ask.position is None else [])
            + (_past_the_end(view, ask.position) if prompt is None else []),
            refusal=refusal,
        )
        values = result.values
        if ask.by == "head":  # the whole map, also where layers without attention leave it empty
            parts = 0 if refusal else result.parts
            shape = (view.n_layers * view.n_heads, view.batch)
            heads = values.new_full(shape, math.nan) if refusal else result.grid.flatten(0, 1)
            reply = msgspec.structs.replace(reply, labels=[*_every_head(view), *result.labels[parts:]])
            values = torch.cat([heads, values[parts:]])
        buffers = [float32(of(values))]
        if prompt is None and view.batch > 1:
            buffers.append(float32(values.std(-1)))  # as `Attribution.std`
            if values.numel() <= _PER_PROMPT:
                buffers += [float32(values), float32(result.constant)]
                reply = msgspec.structs.replace(reply, per_prompt=True)
        return reply, buffers

    def _scene(self, view: CacheView) -> pictures.Scene:
        return pictures.Scene(self.targets(view), self._logits(view), self._checked_for, self._ways_to)

    def _checked_for(self, target: Target, where: Tensor | None) -> Checked:
        """What was found of the layers for this target, at these positions, in the cache and the weights as they are.

        It is the same for every head, and most of the work: clicking from head to head it is done once.
        """
        key = (self._sight.state, target, None if where is None else where.tolist())
        if self._checked is None or self._checked[0] != key:
            self._checked = key, Checked()
        return self._checked[1]

    def _ways_to(self, target: Target) -> Kept:
        """What was worked out on the way to this target, in the cache and the weights as they are."""
        key = (self._sight.state, target)
        if self._ways is None or self._ways[0] != key:
            self._ways = key, Kept()
        return self._ways[1]

    def _once(self, ask: AnyRequest, make: Callable[[], tuple[AnyReply, Buffers]]) -> tuple[AnyReply, Buffers]:
        """The answer that was given before, while the cache and the weights are as they were; else a new one."""
        if self.hold.get().logits is not None:  # of which nobody tells whether it was changed
            return make()
        if self._answers is None or self._answers[0] != self._sight.state:
            self._answers = self._sight.state, Kept(_ANSWERS)
        return self._answers[1].get(msgspec.msgpack.encode(ask), make)

    def _neurons(self, view: CacheView, ask: RankNeurons) -> tuple[NeuronsReply, Buffers]:
        from .attribution import decompose
        from .result import strongest

        prompt, targets = view.check_prompt(ask.prompt), self.targets(view)
        where = positions.resolve(view, "last" if ask.position is None else ask.position)
        target, logits = targets.resolve(ask.target), self._logits(view)
        result = decompose(view, targets, target, "neuron", where, logits, layers=ask.layer)
        rows = _shown(result.values, prompt)
        neurons = rows[: result.parts]
        chosen = strongest(neurons, min(max(ask.k, 1), 50))
        biases = [i for i, label in enumerate(result.labels) if label.endswith("_mlp_bias")]
        reply = NeuronsReply(
            labels=[result.labels[i] for i in chosen],
            count=result.parts,
            layers=len({label.split("N")[0] for label in result.labels[: result.parts]}),
            total=float(neurons.sum()),
            bias=float(rows[biases].sum()),
            notes=result.notes,
        )
        return reply, [float32(neurons[chosen])]

    def _code(self, view: CacheView, ask: WriteCode) -> CodeReply:
        from .export.code import Given, code

        held = self.hold.get()
        given = Given(held.cache, self.name, held.logits, self.tokens, held.model)
        return CodeReply(code(self.targets(view), ask, given))

    def _page(self, view: CacheView, ask: WritePage) -> tuple[PageReply, Buffers]:
        from .export.page import file_name, page
        from .export.snapshot import snapshot

        held = snapshot(partial(self._reply, view), self.name, ask.shown)
        return PageReply(file_name(self.name)), [page(held).encode()]

    def _logits(self, view: CacheView) -> Tensor | None:
        """The model's output, where it was given."""
        given = self.hold.get().logits
        return None if given is None else view.whole_logits(given)


_LARGE = 2_000_000_000
"""With more bytes of activations and weights than this, a request may take longer than a moment."""

_MAY_TAKE_LONG = (
    Attribute
    | RankNeurons
    | MapPositions
    | ReadTokenLens
    | ScoreHeads
    | BlendAttention
    | ReadThumbnails
    | WriteCode
    | WritePage
)

_ANSWERS = 4_000_000
"""Bytes of answers that are kept for a cache."""

_PER_PROMPT = 500_000
"""So many figures may travel with a mean, that a view can show what each prompt has."""

_WEIGHTS_CHANGED = (
    "The model's weights were changed after this cache was first seen: its activations are the old model's, the "
    "weights the new one's."
)
_CACHE_CHANGED = "This cache was changed after it was first seen: the figures are those of the cache as it is now."


def _past_the_end(view: CacheView, position: int | None) -> list[str]:
    """A note where the mean takes in positions that are some prompts' padding."""
    past = 0 if position is None else sum(position % view.n_pos > last for last in positions.last(view))
    if not past:
        return []
    return [f"Position {position} lies behind the end of {past} of {view.batch} prompts: their padding is in the mean."]


def _shown(per_prompt: Tensor, prompt: int | None) -> Tensor:
    """The figures of one prompt, or their mean; the prompts are the last axis."""
    return per_prompt.mean(-1) if prompt is None else per_prompt[..., prompt]


def _every_head(view: CacheView) -> list[str]:
    return [name(layer, head) for layer in range(view.n_layers) for head in range(view.n_heads)]
