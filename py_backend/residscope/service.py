"""Request → reply. Every request is answered: with numbers as binary buffers, or with a failure in a sentence."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from .cache import CacheView
from .errors import ResidscopeError
from .protocol import (
    Answer,
    AnyReply,
    AnyRequest,
    AttentionReply,
    Attribute,
    AttributionReply,
    CacheFacts,
    CheckToken,
    Describe,
    Failure,
    Prediction,
    Question,
    ReadAttention,
    ReadTokens,
    Suggest,
    Suggestions,
    Target,
    TokenLabel,
    TokensReply,
)

if TYPE_CHECKING:
    from torch import Tensor

Buffers = list[bytes]


class Service:
    """Answers the views' requests about one cache, whoever carries them.

    Args:
        cache: The user's `ActivationCache`.
        name: The variable it is known by.
        logits: The model's output, where the cache does not hold it.
        tokens: Token ids, where the cache does not hold them.
        model: The model, where `cache.model` is gone.

    Raises:
        ResidscopeError: If `cache` cannot be read at all.
    """

    def __init__(
        self, cache: Any, name: str = "cache", logits: Any = None, tokens: Any = None, model: Any = None
    ) -> None:
        from .targets import Targets

        self._cache, self._model = cache, model
        self.name, self.logits, self.tokens = name, logits, tokens
        self.targets = Targets(self.view())
        # Handlers may run on a subshell thread beside the user's cell; one request at a time is computed.
        self._lock = threading.Lock()

    def view(self) -> CacheView:
        """A fresh view of the cache: it may have changed since the last request."""
        return CacheView(self._cache, model=self._model, tokens=self.tokens)

    def answer(self, message: Any) -> tuple[dict[str, Any], Buffers]:
        """Answer one message of a view.

        Args:
            message: A `protocol.Question` as plain objects.

        Returns:
            A `protocol.Answer` as plain objects, and its buffers. Never raises.
        """
        import torch

        id = str(message.get("id", "")) if isinstance(message, dict) else ""
        try:
            question = msgspec.convert(message, Question)
            # Grad mode is thread-local: a subshell's thread has its own.
            with self._lock, torch.no_grad():
                reply, buffers = self.reply(question.ask)
            return msgspec.to_builtins(Answer(id, reply=reply)), buffers
        except ResidscopeError as error:
            failure = Failure(error.code, str(error))
        except msgspec.ValidationError as error:
            failure = Failure("protocol", f"The kernel does not understand this request ({error}): reload the page.")
        except Exception as error:  # every request is answered, whatever happens
            failure = Failure("internal", f"Residscope failed on this request: {type(error).__name__}: {error}")
        return msgspec.to_builtins(Answer(id, failure=failure)), []

    def reply(self, ask: AnyRequest) -> tuple[AnyReply, Buffers]:
        """Answer one request.

        Raises:
            ResidscopeError: If it cannot be answered; the sentence says why.
        """
        view = self.view()
        self.targets.view = view
        match ask:
            case Describe():
                return self._facts(view), []
            case ReadTokens():
                return TokensReply(self._tokens(view, view.check_prompt(ask.prompt))), []
            case Attribute():
                return self._attribution(view, ask)
            case ReadAttention():
                return self._attention(view, ask)
            case Suggest():
                return self._suggestions(view, ask), []
            case CheckToken():
                return self.targets.vocabulary.check(ask.text), []

    def default_target(self) -> Target:
        """The model's own two top predictions, for each prompt, at its last real token."""
        from .protocol import Contrast

        view = self.view()
        top = self._logits(view, None).topk(2, dim=-1).indices[:, 0].tolist()
        token = self.targets.vocabulary.token
        return Target([Contrast([token(first)], [token(second)]) for first, second in top])

    # --- one method a request ----------------------------------------------------------------------------------------
    def _facts(self, view: CacheView) -> CacheFacts:
        stream = view.stream
        return CacheFacts(
            name=self.name,
            model=view.model_name,
            layers=view.n_layers,
            heads=view.n_heads,
            prompts=view.batch,
            positions=view.n_pos,
            dtype=str(stream.dtype).removeprefix("torch."),
            device=str(stream.device),
            bytes=view.nbytes,
            missing=view.missing(),
            last=view.last_positions(),
            has_tokens=view.tokens is not None,
        )

    def _tokens(self, view: CacheView, prompt: int | None) -> list[TokenLabel]:
        tokens = view.tokens
        if tokens is None:
            return [TokenLabel(str(position)) for position in range(view.n_pos)]
        text = self.targets.vocabulary.text
        if prompt is None and view.batch > 1:
            return [_common(column, text) for column in tokens.T.tolist()]
        row, last = tokens[prompt or 0].tolist(), view.last_positions()[prompt or 0]
        return [TokenLabel(text(id), id, padding=position > last) for position, id in enumerate(row)]

    def _attribution(self, view: CacheView, ask: Attribute) -> tuple[AttributionReply, Buffers]:
        from .attribution import decompose

        target, prompt = self.targets.resolve(ask.target), view.check_prompt(ask.prompt)
        where = view.positions("last" if ask.position is None else ask.position)
        result = decompose(view, self.targets, target, ask.by, where, self.logits, ask.norm)

        def of(per_prompt: Tensor) -> Tensor:
            return per_prompt.mean(-1) if prompt is None else per_prompt[..., prompt]

        def known(per_prompt: Tensor) -> float | None:
            value = float(of(per_prompt))
            return None if math.isnan(value) else value  # JSON has no NaN

        reply = AttributionReply(
            by=ask.by,
            labels=result.labels,
            measured=known(result.measured),
            constant=float(of(result.constant)),
            unexplained=known(result.unexplained),
            tolerance=result.tolerance,
            measured_from=result.measured_from,
            prompts=view.batch if prompt is None else 1,
            notes=result.notes,
        )
        return reply, [_float32(of(result.values))]

    def _attention(self, view: CacheView, ask: ReadAttention) -> tuple[AttentionReply, Buffers]:
        from . import attention
        from .readout import Readout

        pattern = attention.pattern(view, ask.layer, ask.head, ask.prompt)
        buffers, notes = [_float16(pattern)], []
        prompt = view.check_prompt(ask.prompt)
        try:
            where = view.positions("last" if ask.position is None else ask.position)
            readout = Readout(view, where, *self.targets.functional(self.targets.resolve(ask.target)))
            worth = attention.brings(readout, ask.layer, ask.head)
            buffers.append(_float32(worth.mean(0) if prompt is None else worth[prompt]))
        except ResidscopeError as error:  # attention is still worth seeing; the note says what is missing
            notes.append(str(error))
        return AttentionReply(ask.layer, ask.head, view.n_pos, len(buffers) > 1, notes), buffers

    def _suggestions(self, view: CacheView, ask: Suggest) -> Suggestions:
        logits = self._logits(view, ask.position).squeeze(1)
        probabilities = logits.softmax(-1)
        prompt = view.check_prompt(ask.prompt)
        row = probabilities.mean(0) if prompt is None else probabilities[prompt]
        top = row.topk(min(max(ask.k, 1), 100, row.shape[0]))
        token = self.targets.vocabulary.token
        return Suggestions(
            [Prediction(token(id), p) for id, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
        )

    def _logits(self, view: CacheView, position: int | None) -> Tensor:
        """All logits at one position of each prompt: the given ones, else the cache's, else from the stream."""
        from .readout import logit_rows

        where = view.positions("last" if position is None else position)
        return logit_rows(view, where) if self.logits is None else view.take(self.logits.detach(), where)


def _common(column: list[int], text: Any) -> TokenLabel:
    """What stands at one position in all prompts: the token, or what varies."""
    different = list(dict.fromkeys(column))
    if len(different) == 1:
        return TokenLabel(text(different[0]), different[0])
    return TokenLabel("", varies=[text(id) for id in different[:12]])


def _float32(tensor: Tensor) -> bytes:
    return tensor.float().cpu().contiguous().numpy().tobytes()


def _float16(tensor: Tensor) -> bytes:
    return tensor.half().cpu().contiguous().numpy().tobytes()
