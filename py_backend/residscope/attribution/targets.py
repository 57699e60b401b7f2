"""Turns answers, in any form that a user may write, into one linear functional for each prompt.

The normal form is `terms.Target`. It holds contrasts of tokens (one for all prompts or one per prompt), the key of a
direction, a target inside the model, or `next_token` (each position has its own next token). `functional` turns
contrasts and directions at the end of the stream into u and β, so that target = (final norm's output) · u + β.
`target_reading` does the same for targets inside the model, and `own_targets` gives `next_token` its tokens.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any, cast, get_args
from uuid import uuid4

import msgspec

from residscope.attribution.answer_forms import (
    check_columns,
    contrast_of,
    entries,
    has_target,
    is_array,
    shortened,
    unpacked,
)
from residscope.attribution.feature_target import feature_input
from residscope.attribution.inner_checks import check_inner, check_through, position_in
from residscope.attribution.inner_targets import (
    Direction,
    Feature,
    InnerTarget,
    Neuron,
    Next,
    Output,
    Score,
    attention,
    direction,
    feature,
    neuron,
    next_token,
    output,
)
from residscope.attribution.written_answers import as_answers
from residscope.base.arrays import tensor_of, unreadable_kind
from residscope.cache.component_names import parse, parse_neuron, parse_point
from residscope.cache.unembedding import Output as LogitsOutput
from residscope.cache.unembedding import unembedding_of_stream
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary, quote
from residscope.compute.precision import working
from residscope.errors import ResidscopeError
from residscope.terms import (
    Answers,
    AttentionScore,
    NeuronInput,
    NeuronPart,
    NextToken,
    StreamDirection,
    Target,
    Through,
)

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

__all__ = [
    "NO_TARGET",
    "TARGET_CELLS",
    "Targets",
    "as_answers",
    "attention",
    "direction",
    "explain",
    "feature",
    "is_array",
    "neuron",
    "next_token",
    "output",
]

TARGET_CELLS = 4_000_000
"""The limit for a target that a view sends: number of prompts × largest number of tokens in one prompt."""

COLUMN_VALUES = 1 << 24
"""At most this many values of the unembedding's columns for a target's tokens are in memory at once."""

NO_TARGET = (
    "No target is chosen, and the model's own predictions are not known, because the cache holds neither logits nor "
    "the final residual stream: choose an answer (`answers=`), or pass `logits=`."
)

_DIRECTIONS_KEPT = 8


@dataclass(frozen=True)
class Targets:
    """Resolves answers for one cache.

    Attributes:
        view: The cache.
        vocabulary: The tokens of the cache's model.
        directions: The directions that were given as tensors, by key. The caller may keep them longer than the view.
        notes: How answers were understood, if that is not obvious.
    """

    view: CacheView
    vocabulary: Vocabulary
    directions: dict[str, Float[Tensor, "batch d_model"]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list[str])
    _last_weights: list[Any] = field(default_factory=list[Any])  # a request needs the same weights several times

    @classmethod
    def of(cls, view: CacheView, directions: dict[str, Any] | None = None) -> Targets:
        """Return the resolver for one cache.

        Each resolver has a new vocabulary, because the user may change the tokenizer at any time.
        """
        return cls(view, Vocabulary(view.model), {} if directions is None else directions)

    @cached_property
    def output(self) -> LogitsOutput:
        """The scale and the soft-cap between the unembedding's output and the model's logits."""
        return LogitsOutput.of(self.view.model)

    def resolve(self, answers: Answers) -> Target:
        """Convert answers to the normal form.

        Args:
            answers: One of these forms:

                - One answer for all prompts: a token (string or id), or a tuple `(answer, distractor)`. Each side of
                  the tuple may be a set or a list of tokens. Their mean is then taken. A token that is repeated in a
                  list counts twice; without a distractor, write a tuple in a set, `{(5, 5, 6)}`.
                - One answer per prompt: a list of such answers, a tensor of ids, an array of texts or a pandas table,
                  `[batch]` or `[batch, 2]`.
                - A direction: floats, `[d_model]` or `[batch, d_model]`.
                - A target inside the model: `neuron`, `feature`, `direction`, `output` or `attention`.
                - `next_token`: each position has its own next token.
                - A `Target`.

        Raises:
            ResidscopeError: If a string is not one token, an id is outside the vocabulary, the number of answers is
                not the number of prompts, or the form is ambiguous.
        """
        if isinstance(answers, Target):
            return self._checked(answers)
        if isinstance(answers, InnerTarget):
            return self._checked(self._inner(answers))
        if has_target(answers):
            raise ResidscopeError(
                "answers",
                "A target inside the model cannot be part of a list, a set or a pair. It is read in all prompts: "
                "attribute one target at a time.",
            )
        answers = unpacked(answers)
        if is_array(answers):
            if (kind := unreadable_kind(answers)) is not None:
                raise ResidscopeError("answers", f"The answers are a {kind}: give an ordinary tensor of numbers.")
            answers = tensor_of(answers)
            if answers.is_floating_point():
                return Target([], self._direction(answers.detach()))
            answers = entries(answers)
        if isinstance(answers, list):
            answers = cast("list[Any]", answers)
            self._check_count(len(answers), answers)
            return Target([contrast_of(answer, self.vocabulary, self.notes) for answer in answers])
        if isinstance(answers, tuple):
            check_columns(cast("tuple[object, ...]", answers), self.view.batch)
        return Target([contrast_of(answers, self.vocabulary, self.notes)])

    def _checked(self, target: Target) -> Target:
        """Check that a target in the normal form fits this cache. A view may have sent it."""
        if target.next_token is not None:
            if target.inner is not None or target.contrasts or target.direction is not None:
                raise ResidscopeError("answers", "The next token cannot be combined with another target.")
            if target.through:
                check_through(self.view, target)
            return target
        if target.inner is not None:
            check_inner(self.view, target.inner)
            if isinstance(target.inner, StreamDirection):
                self.given_direction(target.inner.key)
        if target.through:
            check_through(self.view, target)
        if target.direction is not None:
            self.given_direction(target.direction)
        if target.direction is not None or target.inner is not None:
            return target
        if not target.contrasts:
            raise ResidscopeError("no-target", NO_TARGET)
        self._check_count(len(target.contrasts))
        tokens = max(len(contrast.answer) + len(contrast.distractor) for contrast in target.contrasts)
        if len(target.contrasts) * tokens > TARGET_CELLS:
            raise ResidscopeError(
                "too-large",
                f"{len(target.contrasts):,} prompts × {tokens:,} tokens are {len(target.contrasts) * tokens:,}, but a "
                f"target may have at most {TARGET_CELLS:,}: give fewer tokens for each prompt.",
            )
        for contrast in target.contrasts:
            if not contrast.answer:
                raise ResidscopeError("answers", "The target names no token: choose an answer.")
            for token in (*contrast.answer, *contrast.distractor):
                self.vocabulary.check_id(token.id)  # only the id, because decoding it in every request is slow
        return target

    def only(self, target: Target, prompts: range) -> tuple[Targets, Target]:
        """Return a resolver for only a range of the prompts, and the same target for these prompts."""
        part = slice(prompts.start, prompts.stop)
        key = target.inner.key if isinstance(target.inner, StreamDirection) else target.direction
        directions = {} if key is None else {key: self.given_direction(key)[part]}
        contrasts = target.contrasts if len(target.contrasts) == 1 else target.contrasts[part]
        few = msgspec.structs.replace(target, contrasts=contrasts, own=False)
        return Targets(self.view.only(prompts), self.vocabulary, directions), few

    def adopt(self, target: Target, other: Targets) -> None:
        """Keep the direction of a target that was resolved by another panel of the same cache."""
        key = target.inner.key if isinstance(target.inner, StreamDirection) else target.direction
        if key is not None:
            self._keep(key, other.given_direction(key))

    def _keep(self, key: str, direction: Tensor) -> None:
        if key not in self.directions:
            while len(self.directions) >= _DIRECTIONS_KEPT:
                self.directions.pop(next(iter(self.directions)))
            self.directions[key] = direction

    def functional(self, target: Target) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
        """Return u and β for logits or a direction: target = (final norm's output) · u + β (before a soft-cap).

        Source: TransformerLens' `tokens_to_residual_directions`. Here sets of tokens, the bias and a logit scale are
        included, and the result has the working precision.
        """
        if target.next_token is not None:
            raise ResidscopeError(
                "next-token",
                "Each position has its own next token, but here one token is needed for all positions: name a token. "
                '`residscope.attribute` accepts `targets.next_token()`, at one position or at all (`position="all"`).',
            )
        if target.direction is not None:
            u = self.given_direction(target.direction)
            return u, u.new_zeros(u.shape[0])
        W_U, b_U = unembedding_of_stream(self.view)
        ids, alpha = self.weights(target)
        ids, alpha = ids.to(W_U.device), alpha.to(W_U.device)
        width = max(1, COLUMN_VALUES // (len(ids) * len(W_U)))
        parts = (
            (working(W_U.T[some]) * weights[..., None]).sum(1)  # [prompt, token, d_model] → [prompt, d_model]
            for some, weights in zip(ids.split(width, 1), alpha.split(width, 1), strict=True)
        )
        u = reduce(operator.add, parts)
        beta = u.new_zeros(u.shape[0]) if b_U is None else (b_U[ids] * alpha).sum(-1)
        like, scale = self.view.like, self.output.scale
        u, beta = ((value if scale == 1 else value * scale) for value in (u.to(like), beta.to(like)))
        return u.expand(self.view.batch, -1), beta.expand(self.view.batch)

    def chosen(self, target: Target, logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, "batch pos token"]:
        """Return the logits of the target's tokens."""
        self.check_width(logits)
        ids = self.weights(target)[0].to(logits.device)
        ids = ids.expand(logits.shape[0], -1)[:, None, :].expand(-1, logits.shape[1], -1)
        return working(
            (logits if logits.element_size() > 1 else working(logits)).gather(-1, ids)
        )  # float8 cannot be gathered

    def check_width(self, logits: Tensor) -> None:
        """Raise a `ResidscopeError` if logits that the user passed do not cover the vocabulary."""
        if logits.shape[-1] < self.vocabulary.size:
            raise ResidscopeError(
                "logits-shape",
                f"`logits` has {logits.shape[-1]} tokens, but the model's vocabulary has {self.vocabulary.size}.",
            )

    def mixed(self, target: Target, logits: Float[Tensor, "batch pos token"]) -> Float[Tensor, "batch pos"]:
        """Return the target, given the logits of its tokens: Σ α · logit."""
        return (logits * self.weights(target)[1].to(logits.device)[:, None, :]).sum(-1)

    def weights(self, target: Target) -> tuple[Tensor, Tensor]:
        """Return the target's token ids and their weights α, `[prompts or 1, tokens]`.

        A prompt with fewer tokens than another one has weight 0 in the rest of its row.
        """
        if not self._last_weights or self._last_weights[0] is not target:
            self._last_weights[:] = [target, _weights(target)]
        return self._last_weights[1]

    def given_direction(self, key: str) -> Float[Tensor, "batch d_model"]:
        """Return a direction that was given earlier as a tensor."""
        if key not in self.directions:
            raise ResidscopeError(
                "direction",
                "The kernel no longer has this direction: choose it again, or set `panel.target` again.",
            )
        return self.directions[key]

    # --- targets inside the model ------------------------------------------------------------------------------------
    def _inner(self, given: InnerTarget) -> Target:
        """The normal form of a target object. `_checked` then compares it with the model."""
        if isinstance(given, Neuron):
            if given.part not in get_args(NeuronPart):
                raise ResidscopeError("neuron", f'`part={given.part!r}` is not known: use "pre", "gate" or "up".')
            return Target([], inner=NeuronInput(*parse_neuron(given.neuron), given.part))
        if isinstance(given, Next):
            if given.versus not in (None, "runner-up"):
                raise ResidscopeError("answers", f'`versus={given.versus!r}` is not known: use "runner-up" or None.')
            return Target([], next_token=NextToken(given.versus))
        if isinstance(given, Direction):
            place, vector = parse_point(given.at), unpacked(given.vector)
            if not is_array(vector) or unreadable_kind(vector) is not None or not tensor_of(vector).is_floating_point():
                raise ResidscopeError("direction", f"`vector={shortened(vector)}` is not a tensor of floats [d_model].")
            key = self._direction(tensor_of(vector).detach())
            return Target([], key) if place.layer is None else Target([], inner=StreamDirection(key, place.label))
        if isinstance(given, Feature):
            place, direction, facts, notes = feature_input(self.view, given.sae, given.feature)
            self.notes.extend(note for note in notes if note not in self.notes)
            return Target([], inner=StreamDirection(self._direction(direction), place.label, facts))
        if isinstance(given, Output):
            of, (layer, head) = self.resolve(given.of), parse(given.head)
            source = None if given.source is None else position_in(self.view, "source", given.source)
            return msgspec.structs.replace(of, through=[*of.through, Through(layer, head, source)])
        assert isinstance(given, Score)
        view, versus, destination = self.view, given.versus, given.destination
        if not isinstance(destination, str) or destination != "last":
            destination = position_in(view, "destination", destination)
        if versus is not None and (not isinstance(versus, str) or versus not in ("most", "mean")):
            versus = position_in(view, "versus", versus)
        source, (layer, head) = position_in(view, "source", given.source), parse(given.head)
        return Target([], inner=AttentionScore(layer, head, destination, source, versus, given.side))

    # --- forms of answers --------------------------------------------------------------------------------------------
    def _check_count(self, count: int, answers: list[Any] | None = None) -> None:
        if count in (1, self.view.batch):
            return
        hint = ""
        if answers and count == 2 and all(isinstance(answer, str | int) for answer in answers):
            hint = f" For one pair (answer, distractor) use a tuple: ({answers[0]!r}, {answers[1]!r})."
        raise ResidscopeError(
            "answers-length",
            f"{count} answers were given for {self.view.batch} prompts: give one for all, or one per prompt.{hint}",
        )

    def _direction(self, direction: Tensor) -> str:
        """Keep a direction, and return its key."""
        u = working(direction if direction.ndim == 2 else direction.unsqueeze(0))
        d_model = int(self.view.cfg.d_model)
        if u.ndim != 2 or u.shape[1] != d_model:
            raise ResidscopeError(
                "direction",
                f"A direction is [{d_model}] or [batch, {d_model}], but this one is {list(direction.shape)}. If these "
                "are token ids, give them as whole numbers: `.long()`, or `.astype(int)`.",
            )
        if not bool(u.isfinite().all()):
            raise ResidscopeError("direction", "The direction contains NaN or infinity.")
        self._check_count(u.shape[0])
        # A copy, so that the chosen direction stays the same if the user changes the tensor later.
        u = u.to(self.view.like, copy=True).expand(self.view.batch, -1)
        same = (key for key, known in self.directions.items() if known.shape == u.shape and bool((known == u).all()))
        key = next(same, None)
        if key is None:
            key = f"direction-{uuid4().hex[:12]}"
            self._keep(key, u)
        return key


def _weights(target: Target) -> tuple[Tensor, Tensor]:
    import torch

    rows = [
        [(t.id, 1 / len(c.answer)) for t in c.answer] + [(t.id, -1 / len(c.distractor)) for t in c.distractor]
        for c in target.contrasts
    ]
    width = max(len(row) for row in rows)
    # Flat lists: torch takes three times as long for a list of lists.
    padded = [token for row in rows for token in (*row, *[(row[0][0], 0.0)] * (width - len(row)))]
    ids = torch.tensor([id for id, _ in padded], device="cpu").view(-1, width)
    alpha = torch.tensor([alpha for _, alpha in padded], dtype=torch.float64, device="cpu").view(-1, width)
    return ids, alpha.float()


def explain(text: str, model: object) -> str:
    """Return how a model's tokenizer splits a string, and what to use as a target if the string is not one token.

    Args:
        text: A text such as `" Mary"`. Words inside a sentence begin with a space.
        model: A model with a tokenizer, or a cache with such a model.

    Raises:
        ResidscopeError: If the model has no tokenizer.
    """
    check = Vocabulary(getattr(model, "model", model) if hasattr(model, "cache_dict") else model).check(text)
    if not check.single:
        return check.message
    return f"{quote(text)} is one token in this model, id {check.tokens[0].id}. {check.message}".rstrip()
