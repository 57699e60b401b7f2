"""Targets inside the model, as a person writes them: what a neuron, a direction or a head reads.

They are small objects without a model. `targets.Targets.resolve` checks them against a cache.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from residscope.terms import NeuronPart, Position, Side, Versus


@dataclass(frozen=True, eq=False, repr=False)
class InnerTarget:
    """A target inside the model, for `answers=` of `attribute`."""

    @property
    def key_parts(self) -> tuple[Any, ...]:
        """What it was made of, its kind and all its arguments, for `compute.memo.key_of`."""
        return type(self).__name__, *(getattr(self, field.name) for field in fields(self))

    def __repr__(self) -> str:
        """The call that makes it, without arguments that are the default."""
        given = [(field, getattr(self, field.name)) for field in fields(self)]
        changed = [(field.name, value) for field, value in given if field.default is MISSING or value != field.default]
        name = {"Score": "attention", "Next": "next_token"}.get(type(self).__name__, type(self).__name__.lower())
        return f"targets.{name}({', '.join(f'{key}={value!r}' for key, value in changed)})"


@dataclass(frozen=True, eq=False, repr=False)
class Neuron(InnerTarget):
    """What an MLP neuron reads."""

    neuron: Any
    part: NeuronPart = "pre"


@dataclass(frozen=True, eq=False, repr=False)
class Direction(InnerTarget):
    """A direction at a point of the stream."""

    vector: Any
    at: str


@dataclass(frozen=True, eq=False, repr=False)
class Output(InnerTarget):
    """What a head contributes to another target, by what it reads from a source."""

    head: Any
    of: Any
    source: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Score(InnerTarget):
    """The attention score of a head."""

    head: Any
    destination: Position
    source: int
    versus: Versus = "most"
    side: Side = "query"


@dataclass(frozen=True, eq=False, repr=False)
class Next(InnerTarget):
    """At each position, the token that follows it."""

    versus: Literal["runner-up"] | None = None


def next_token(versus: Literal["runner-up"] | None = None) -> Next:
    """At each position, the logit of the token that really follows it: what wrote each token of an answer.

    Args:
        versus: `"runner-up"`: minus the logit of the most likely other token at that position. None: the plain logit.

    Returns:
        A target for `attribute`. With `position="all"` each position has its own answer, and all are computed in one
        pass: `.values` is `[component, batch, pos]`. The last real token of a prompt, and padding, have no next token:
        their values are NaN. At one position it is that token's logit, as if it were given as an answer.
    """
    return Next(versus)


def neuron(neuron: Any, part: NeuronPart = "pre") -> Neuron:
    """What an MLP neuron reads at a position, before its activation function.

    Args:
        neuron: Its name, such as `"L5N123"` or `(5, 123)`.
        part: `"pre"` is the input of its activation function. In a gated MLP, `"gate"` is the same, and `"up"` is the
            factor by which the activation is multiplied.

    Returns:
        A target for `attribute`; rows and constant sum to the cached `mlp.hook_pre` (`"up"`: `mlp.hook_pre_linear`).
    """
    return Neuron(neuron, part)


def direction(vector: Any, at: str = "final_post") -> Direction:
    """A direction in the residual stream: a probe, a steering vector, or any other.

    Args:
        vector: The direction, `[d_model]` or one for each prompt, `[batch, d_model]`.
        at: A point of the stream. At `"8_pre"` (before layer 8) and `"8_mid"` (between its attention and its MLP) the
            direction reads the stream itself, not the output of a norm. At `"final_post"` it reads the output of the
            final norm, as the unembedding does.

    Returns:
        A target for `attribute`; rows and constant sum to what is read there, projected onto the direction.
    """
    return Direction(vector, at)


def output(head: Any, of: Any, source: int | None = None) -> Output:
    """What a head contributes to another target, by what was written at its source before the head's layer.

    The head's attention is frozen at its cached pattern: A[destination, source] · (its value) · W_O · the target.

    Args:
        head: The head, such as `"L23H3"`.
        of: The target that the head writes to, at the position that is attributed: answers in any form, or a target
            inside the model. If it is itself an `output`, the head writes to what that head reads at its source.
        source: The position that the head reads. None is every source: the rows are then `[component, batch, source]`.

    Returns:
        A target for `attribute`; rows and constant sum to the source contribution of the head, as `by="source"` has it.
    """
    return Output(head, of, source)


def attention(head: Any, destination: Position, source: int, versus: Versus = "most", side: Side = "query") -> Score:
    """Why a head attends from a destination to a source: its attention score, before the softmax.

    Either side sums to the whole score by itself.

    Args:
        head: The head, such as `"L23H3"`.
        destination: The position that attends, or `"last"`.
        source: The position that is attended to.
        versus: What the source is compared with: another source, `"most"` (the source that the head attends to most, of
            the others), or `"mean"` (what it attends to on average, with its attention divided by the sum over the
            tokens, which is less than 1 with attention sinks). None is the score itself.
        side: `"query"`: what was written at the destination; `"key"`: what was written at the source.

    Returns:
        A target for `attribute`. With another source, rows and constant sum to the difference of the two scores, which
        is log A[destination, source] − log A[destination, versus].
    """
    return Score(head, destination, source, versus, side)
