"""Answers, in any form a person writes them → one linear functional of the logits per prompt.

The normal form is `protocol.Target`: token contrasts, one for all prompts or one per prompt (or the key of a
direction). `functional` turns it into u and β, so that target = (final norm's output) · u + β.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from residscope.base.arrays import tensor_of, unreadable
from residscope.base.legible import cut
from residscope.cache.unembedding import Output, unembedding_of_stream
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary, quote
from residscope.compute.precision import working
from residscope.errors import ResidscopeError
from residscope.terms import Contrast, Target, Token

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


TARGET_CELLS = 4_000_000
"""So many tokens a target that a view sends has at most: prompts × the tokens of the one that has most."""

NO_TARGET = (
    "No target is chosen, and the cache holds neither logits nor the final residual stream that would tell the model's "
    "own predictions: choose an answer (`answers=`), or pass `logits=`."
)

_DIRECTIONS_KEPT = 8


@dataclass(frozen=True)
class Targets:
    """Resolves answers for one cache. Directions that were given as tensors outlive the view.

    Attributes:
        view: The cache.
        vocabulary: The tokens of its model.
        directions: The directions that were given as tensors, by their keys.
        said: What a reader should know of how answers were read.
    """

    view: CacheView
    vocabulary: Vocabulary
    directions: dict[str, Float[Tensor, "batch d_model"]] = field(default_factory=dict)
    said: list[str] = field(default_factory=list[str])
    _weighed: list[Any] = field(default_factory=list[Any])  # the last target's, which a request needs several times

    @classmethod
    def of(cls, view: CacheView, directions: dict[str, Any] | None = None) -> Targets:
        """For one cache.

        The vocabulary is not kept longer than that: a tokenizer may be given other words at any time, unseen.
        """
        return cls(view, Vocabulary(view.model), {} if directions is None else directions)

    @cached_property
    def output(self) -> Output:
        """What the model does to what its unembedding writes."""
        return Output.of(self.view.model)

    def resolve(self, answers: Any) -> Target:
        """Bring answers into the normal form.

        Args:
            answers: One answer for all prompts: a token (string or id), a pair `(answer, distractor)` as a tuple, where
                each side may be a set or a list of tokens (their mean). Or a list of such, one per prompt; a tensor of
                ids, an array of texts or a pandas table, `[batch]` or `[batch, 2]`; a direction `[d_model]` or
                `[batch, d_model]` of floats; a `Target`.

        Raises:
            ResidscopeError: If a string is not one token, an id is outside the vocabulary, the number of answers is
                not the number of prompts, or the form has two meanings.
        """
        if isinstance(answers, Target):
            return self._checked(answers)
        answers = _unpacked(answers)
        if is_array(answers):
            if (kind := unreadable(answers)) is not None:
                raise ResidscopeError("answers", f"The answers were given as a {kind}: give plain numbers.")
            answers = tensor_of(answers)
            if answers.is_floating_point():
                return self._direction(answers.detach())
            answers = _entries(answers)
        if isinstance(answers, list):
            answers = cast("list[Any]", answers)
            self._check_count(len(answers), answers)
            return Target([self._contrast(answer) for answer in answers])
        if isinstance(answers, tuple):
            self._check_columns(cast("tuple[Any, ...]", answers))
        return Target([self._contrast(answers)])

    def _checked(self, target: Target) -> Target:
        """A target in the normal form, as a view sends it, with tokens that this model has."""
        if target.direction is not None:
            self.held(target.direction)
            return target
        if not target.contrasts:
            raise ResidscopeError("no-target", NO_TARGET)
        self._check_count(len(target.contrasts))
        tokens = max(len(contrast.answer) + len(contrast.distractor) for contrast in target.contrasts)
        if len(target.contrasts) * tokens > TARGET_CELLS:
            raise ResidscopeError(
                "too-large",
                f"{len(target.contrasts):,} prompts × {tokens:,} tokens are {len(target.contrasts) * tokens:,}, and a "
                f"target may have at most {TARGET_CELLS:,}: name fewer tokens for each prompt.",
            )
        for contrast in target.contrasts:
            if not contrast.answer:
                raise ResidscopeError("answers", "The target names no token: choose an answer.")
            for token in (*contrast.answer, *contrast.distractor):
                self.vocabulary.check_id(token.id)  # comes with every request: checked, not decoded again
        return target

    def only(self, target: Target, prompts: range) -> tuple[Targets, Target]:
        """The same question about a run of the prompts alone."""
        part = slice(prompts.start, prompts.stop)
        held = {} if target.direction is None else {target.direction: self.held(target.direction)[part]}
        contrasts = target.contrasts if len(target.contrasts) == 1 else target.contrasts[part]
        return Targets(self.view.only(prompts), self.vocabulary, held), Target(contrasts, target.direction)

    def functional(self, target: Target) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
        """The target's u and β: target = (final norm's output) · u + β, in logits (before a soft-cap).

        Source: TransformerLens' `tokens_to_residual_directions`, with sets, the bias, a logit scale, and in working
        precision.
        """
        if target.direction is not None:
            u = self.held(target.direction)
            return u, u.new_zeros(u.shape[0])
        W_U, b_U = unembedding_of_stream(self.view)
        ids, alpha = self.weights(target)
        ids, alpha = ids.to(W_U.device), alpha.to(W_U.device)
        u = (working(W_U.T[ids]) * alpha[..., None]).sum(1)  # [prompt, token, d_model] → [prompt, d_model]
        beta = u.new_zeros(u.shape[0]) if b_U is None else (b_U[ids] * alpha).sum(-1)
        like, scale = self.view.like, self.output.scale
        u, beta = ((figure if scale == 1 else figure * scale) for figure in (u.to(like), beta.to(like)))
        return u.expand(self.view.batch, -1), beta.expand(self.view.batch)

    def chosen(self, target: Target, logits: Float[Tensor, "batch pos d_vocab"]) -> Float[Tensor, "batch pos token"]:
        """The logits of the target's tokens."""
        if logits.shape[-1] < self.vocabulary.size:
            raise ResidscopeError(
                "logits-shape",
                f"`logits` has {logits.shape[-1]} tokens, but the model's vocabulary has {self.vocabulary.size}.",
            )
        ids = self.weights(target)[0].to(logits.device)
        ids = ids.expand(logits.shape[0], -1)[:, None, :].expand(-1, logits.shape[1], -1)
        return working(
            (logits if logits.element_size() > 1 else working(logits)).gather(-1, ids)
        )  # float8 cannot be gathered

    def mixed(self, target: Target, logits: Float[Tensor, "batch pos token"]) -> Float[Tensor, "batch pos"]:
        """The target, from the logits of its tokens: Σ α · logit."""
        return (logits * self.weights(target)[1].to(logits.device)[:, None, :]).sum(-1)

    def weights(self, target: Target) -> tuple[Tensor, Tensor]:
        """Token ids and their weights α, `[prompts or 1, tokens]`, padded with weight 0."""
        if not self._weighed or self._weighed[0] is not target:
            self._weighed[:] = [target, _weights(target)]
        return self._weighed[1]

    def held(self, key: str) -> Float[Tensor, "batch d_model"]:
        """A direction given earlier as a tensor."""
        if key not in self.directions:
            raise ResidscopeError(
                "direction",
                "The kernel does not hold that direction any more: choose it again, or set `panel.target` again.",
            )
        return self.directions[key]

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

    def _check_columns(self, pair: tuple[Any, ...]) -> None:
        """Refuse a pair of lists that may be two columns, an entry for each prompt, as well as two sets of tokens."""
        lengths = [len(side) if isinstance(side, list) else 0 for side in pair]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if len(pair) == 2 and self.view.batch > 1 and self.view.batch in lengths:
            raise ResidscopeError(
                "answers",
                f"{_short(pair)} can be read in two ways, since there are {self.view.batch} prompts. Write one pair "
                "for each prompt as a list, `list(zip(answers, distractors))`, or sets of tokens, of which the mean is "
                "taken in every prompt, as `({…}, {…})`.",
            )

    def _contrast(self, answer: Any) -> Contrast:
        if is_array(answer) and answer.ndim == 1 and len(answer) == 2:  # a row of the course's `[batch, 2]`
            answer = tuple(answer.tolist())
        if isinstance(answer, tuple):
            if len(answer) != 2:
                raise ResidscopeError(
                    "answers", f"A pair is (answer, distractor), but {answer!r} has {len(answer)} parts."
                )
            if any(isinstance(side, tuple) for side in answer):
                raise ResidscopeError(
                    "answers", f"{answer!r} holds pairs: give several prompts' pairs as a list, [(…, …), (…, …)]."
                )
            return Contrast(self._tokens(answer[0]), self._tokens(answer[1]))
        if isinstance(answer, list):
            raise ResidscopeError(
                "answers",
                f"{answer!r} could be a pair or a set: write a pair as a tuple, (answer, distractor), "
                "and a set as {…}.",
            )
        return Contrast(self._tokens(answer), [])

    def _tokens(self, side: Any) -> list[Token]:
        """One side of a contrast: a token, or a list or set of tokens (their mean)."""
        if isinstance(side, str):
            check = self.vocabulary.require(side)
            if check.tokens[0].text != side.replace("▁", " ") and check.message not in self.said:
                self.said.append(check.message)
            return check.tokens
        if is_array(side) and side.ndim == 0:
            side = side.item()
        if isinstance(side, int) and not isinstance(side, bool):
            return [self.vocabulary.token(side)]
        if is_array(side) or hasattr(side, "to_numpy"):
            raise ResidscopeError(
                "answers",
                "A side of a pair is one token or a set of tokens, not an array or a column of a table: give a pair "
                "for each prompt as a list, `list(zip(answers, distractors))`, or ids of all prompts as one tensor, "
                "`torch.stack([answers, distractors], dim=1)`.",
            )
        if isinstance(side, list | set | frozenset | tuple):
            if not side:
                raise ResidscopeError("answers", "A side of the answers is empty: give at least one token.")
            return [token for part in side for token in self._tokens(part)]
        raise ResidscopeError(
            "answers",
            f"{_short(side)} is not an answer{_kind(side)}: give a token as text or id, a pair (answer, distractor), a "
            "list of one per prompt or a tensor of ids, [batch] or [batch, 2].",
        )

    def _direction(self, direction: Tensor) -> Target:
        u = working(direction if direction.ndim == 2 else direction.unsqueeze(0))
        d_model = int(self.view.cfg.d_model)
        if u.ndim != 2 or u.shape[1] != d_model:
            raise ResidscopeError(
                "direction",
                f"A direction is [{d_model}] or [batch, {d_model}], but this one is {list(direction.shape)}. If these "
                "are token ids, give them as whole numbers: `.long()`, or `.astype(int)`.",
            )
        if not bool(u.isfinite().all()):
            raise ResidscopeError("direction", "The direction holds NaN or infinity.")
        self._check_count(u.shape[0])
        # A copy: what is written into the user's tensor later is another direction than the one that was chosen.
        u = u.to(self.view.like, copy=True).expand(self.view.batch, -1)
        same = (key for key, held in self.directions.items() if held.shape == u.shape and bool((held == u).all()))
        key = next(same, None)
        if key is None:
            key = f"direction-{uuid4().hex[:12]}"
            while len(self.directions) >= _DIRECTIONS_KEPT:
                self.directions.pop(next(iter(self.directions)))
            self.directions[key] = u
        return Target([], key)


def _weights(target: Target) -> tuple[Tensor, Tensor]:
    import torch

    rows = [
        [(t.id, 1 / len(c.answer)) for t in c.answer] + [(t.id, -1 / len(c.distractor)) for t in c.distractor]
        for c in target.contrasts
    ]
    width = max(len(row) for row in rows)
    padded = [row + [(row[0][0], 0.0)] * (width - len(row)) for row in rows]
    ids = torch.tensor([[id for id, _ in row] for row in padded], device="cpu")
    alpha = [[alpha for _, alpha in row] for row in padded]
    return ids, torch.tensor(alpha, dtype=torch.float64, device="cpu").float()


def explain(text: str, model: Any) -> str:
    """How a model's tokenizer cuts a string, and what to use as a target where it is not one token.

    Args:
        text: Such as `" Mary"`; mind the leading space of words inside a sentence.
        model: A model with a tokenizer, or a cache that knows its model.

    Raises:
        ResidscopeError: If the model has no tokenizer.
    """
    check = Vocabulary(getattr(model, "model", model) if hasattr(model, "cache_dict") else model).check(text)
    if not check.single:
        return check.message
    return f"{quote(text)} is one token in this model, id {check.tokens[0].id}. {check.message}".rstrip()


def in_words(target: Target) -> str:
    """A target in a few words: `“·Mary” − “·John”`, `8 pairs`."""
    if target.direction is not None:
        return "a direction"
    if len(target.contrasts) > 1:
        return f"{len(target.contrasts):,} {'pairs' if any(c.distractor for c in target.contrasts) else 'answers'}"
    sides = [", ".join(quote(cut(token.text)) for token in side[:_NAMED]) + " …" * (len(side) > _NAMED)
             for side in (target.contrasts[0].answer, target.contrasts[0].distractor) if side]  # fmt: skip
    return " − ".join(sides)


_NAMED = 3
"""So many tokens of a side are named in words."""


def is_array(value: Any) -> bool:
    """A torch tensor, a numpy array, or one of their numbers."""
    return not isinstance(value, str) and hasattr(value, "ndim") and hasattr(value, "tolist")


def _unpacked(answers: Any) -> Any:
    """Columns of tables and numpy's arrays as lists of what is in them; directions stay an array."""
    if isinstance(answers, range):
        return list(answers)
    if hasattr(answers, "to_numpy") and hasattr(answers, "ndim"):  # pandas
        answers = answers.to_numpy()
    kind = getattr(getattr(answers, "dtype", None), "kind", None)  # torch's types have none
    if kind is None or isinstance(answers, str):  # a torch tensor, or not an array; numpy has texts of its own
        return answers
    return answers.astype("float64") if kind == "f" else _entries(answers)  # in the order of bytes that torch reads


def _entries(answers: Any) -> list[Any]:
    """An array of ids or texts as answers: one for each prompt, or a pair for each."""
    rows, shape = answers.tolist(), list(answers.shape)
    if not shape:
        return [rows]
    if len(shape) == 1:
        return rows
    if len(shape) == 2 and shape[1] in (1, 2):
        return [tuple(row) if len(row) == 2 else row[0] for row in rows]
    raise ResidscopeError(
        "answers", f"An array of answers is [batch] or [batch, 2], but this one has the shape {shape}."
    )


def _short(value: Any) -> str:
    """What was given, as Python writes it, or as much of it as can be read."""
    return cut(repr(value), 80)


def _kind(value: Any) -> str:
    """What else to say of a value of the wrong kind."""
    if isinstance(value, Mapping):
        return ", but a dict"
    return " (write `list(…)` around it)" if isinstance(value, Iterator) else ""


def friendly(target: Target, vocabulary: Vocabulary) -> Any:
    """A target as a person would write it: `" Mary"`, `(" Mary", " John")`, a set, or one of these for each prompt."""

    def side(tokens: list[Token]) -> Any:
        # A token is named by its text where the text leads back to it, else by its id.
        names = [t.text if vocabulary.tokenizer and vocabulary.encode(t.text) == [t.id] else t.id for t in tokens]
        # A set, since a list may be read as one answer per prompt; but a token that is named twice counts twice.
        return names[0] if len(names) == 1 else set(names) if len(set(names)) == len(names) else names

    def one(contrast: Contrast) -> Any:
        answer = side(contrast.answer)
        return (answer, side(contrast.distractor)) if contrast.distractor else answer

    written = [one(contrast) for contrast in target.contrasts]
    alone = len(written) == 1 and not (isinstance(written[0], tuple) and any(isinstance(s, list) for s in written[0]))
    return written[0] if alone else written
