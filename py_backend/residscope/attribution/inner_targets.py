"""Targets that a user writes as objects: the input of a neuron or feature, a direction, or a head's score or output.

These objects do not refer to a model. `targets.Targets.resolve` checks them for a cache.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal

from residscope.terms import NeuronPart, Position, Side, Versus


@dataclass(frozen=True, eq=False, repr=False)
class InnerTarget:
    """A target object for `answers=` of `attribute`."""

    @property
    def key_parts(self) -> tuple[object, ...]:
        """The kind of the target and all its arguments, for `compute.memo.key_of`."""
        return type(self).__name__, *(getattr(self, field.name) for field in fields(self))

    def __repr__(self) -> str:
        """The call that makes this target, without arguments that have their default."""
        given = [(field, getattr(self, field.name)) for field in fields(self)]
        changed = [(field.name, value) for field, value in given if field.default is MISSING or value != field.default]
        name = {"Score": "attention", "Next": "next_token"}.get(type(self).__name__, type(self).__name__.lower())
        return f"targets.{name}({', '.join(f'{key}={value!r}' for key, value in changed)})"


@dataclass(frozen=True, eq=False, repr=False)
class Neuron(InnerTarget):
    """The input of an MLP neuron."""

    neuron: object
    part: NeuronPart = "pre"


@dataclass(frozen=True, eq=False, repr=False)
class Direction(InnerTarget):
    """A direction at a point of the stream."""

    vector: object
    at: str


@dataclass(frozen=True, eq=False, repr=False)
class Feature(InnerTarget):
    """What a feature of an SAE or a transcoder reads, before its nonlinearity."""

    sae: Any
    feature: object


@dataclass(frozen=True, eq=False, repr=False)
class Output(InnerTarget):
    """What a head adds to another target by reading a source."""

    head: object
    of: Any
    source: int | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Score(InnerTarget):
    """The attention score of a head."""

    head: object
    destination: Position
    source: int
    versus: Versus = "most"
    side: Side = "query"


@dataclass(frozen=True, eq=False, repr=False)
class Next(InnerTarget):
    """At each position, the logit of the token that follows."""

    versus: Literal["runner-up"] | None = None


def next_token(versus: Literal["runner-up"] | None = None) -> Next:
    """Return a target: at each position, the logit of the token that really follows.

    Args:
        versus: `"runner-up"`: the logit of the most likely other token at that position is subtracted. None: nothing
            is subtracted.

    Returns:
        A target for `attribute`. With `position="all"` each position has its own answer, and all are computed in one
        pass: `.values` is `[component, batch, pos]`. Where there is no next token (at padding, and at the last
        real token), the values are NaN. At a single position the target is the logit of
        this position's next token.
    """
    return Next(versus)


def neuron(neuron: object, part: NeuronPart = "pre") -> Neuron:
    """Return a target: what an MLP neuron reads at a position, before its activation function.

    Args:
        neuron: The neuron, such as `"L5N123"` or `(5, 123)`.
        part: `"pre"`: the input of the activation function. In a gated MLP, `"gate"` means the same as `"pre"`, and
            `"up"` is the factor by which the activation is multiplied.

    Returns:
        A target for `attribute`. Rows and constant sum to the cached `mlp.hook_pre` (`"up"`: `mlp.hook_pre_linear`).
    """
    return Neuron(neuron, part)


def feature(sae: object, feature: int | str) -> Feature:
    """Return a target: what a feature of an SAE or a transcoder reads at a position, before its nonlinearity.

    This number is x · W_enc[:, feature] plus biases. It is compared with the SAE's own `encode` where the feature is
    active. The SAE must encode the stream, or what an MLP or attention reads.

    Args:
        sae: The SAE or transcoder, as for `sae=` of `attribute`.
        feature: The feature: `1234` or `"F1234"`.

    Returns:
        A target for `attribute`. Rows and constant sum to what the feature reads in the cached activation.
    """
    return Feature(sae, feature)


def direction(vector: object, at: str = "final_post") -> Direction:
    """Return a target: the stream at a point, projected onto a direction (a probe, a steering vector, or any other).

    Args:
        vector: The direction, `[d_model]` or one for each prompt, `[batch, d_model]`.
        at: A point of the stream. At `"8_pre"` (before layer 8) and `"8_mid"` (between its attention and its MLP), the
            stream is projected without a norm. At `"final_post"`, the output of the final norm, which the unembedding
            reads, is projected.

    Returns:
        A target for `attribute`. Rows and constant sum to the projection onto the direction.
    """
    return Direction(vector, at)


def output(head: object, of: object, source: int | None = None) -> Output:
    """Return a target: what a head contributes to another target, through what the head reads at its source.

    The head's attention A is frozen at the cached pattern. The value is A[destination, source] · v[source] · W_O · g,
    where g is the direction along which the other target reads the stream.

    Args:
        head: The head, such as `"L23H3"`.
        of: The target that the head writes to: answers in any form, or a target inside the model. The head writes at
            `position=` of `attribute`. If `of` is another `output`, this head writes to the source that the
            head of that `output` reads.
        source: The position that the head reads. None: every source. The rows are then `[component, batch, source]`.

    Returns:
        A target for `attribute`. Rows and constant sum to the head's source contribution, as in `by="source"`.
    """
    return Output(head, of, source)


def attention(head: object, destination: Position, source: int, versus: Versus = "most", side: Side = "query") -> Score:
    """Return a target: the attention score of a head from a destination to a source, before the softmax.

    Args:
        head: The head, such as `"L23H3"`.
        destination: The position that attends, or `"last"`.
        source: The position that is attended to.
        versus: What the source is compared with: another source, `"most"` (the source with the most attention, apart
            from this one), or `"mean"` (the mean over sources, weighted by attention). None: the score is not compared.
            With attention sinks, the weights of the mean are divided by their sum, which is then less than 1.
        side: `"query"`: the rows are components at the destination. `"key"`: components at the source. Each
            side alone sums to the target.

    Returns:
        A target for `attribute`. If the source is compared with another one, rows and constant sum to the difference
        of the two scores, which is log A[destination, source] − log A[destination, versus].
    """
    return Score(head, destination, source, versus, side)
