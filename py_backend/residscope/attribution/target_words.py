"""A target in words: `“·Mary” − “·John”`, `L23H3 at position 14 reads position 10 rather than position 0`."""

from __future__ import annotations

from residscope.base.legible import cut
from residscope.cache.component_names import name
from residscope.cache.vocabulary import quote
from residscope.terms import AttentionScore, Component, NeuronInput, NextToken, Position, StreamDirection, Target

_NAMED = 3
"""At most this many tokens of one side are named."""


def in_words(target: Target) -> str:
    """Return a target in a few words."""
    return inside(target, of_logits(target))


def of_logits(target: Target) -> str:
    """Return a target's contrasts or direction in a few words: `“·Mary” − “·John”`, `8 pairs`, `a direction`."""
    if target.direction is not None:
        return "a direction"
    if target.next_token is not None:
        return of_next_token(target.next_token)
    if len(target.contrasts) > 1:
        return f"{len(target.contrasts):,} {'pairs' if any(c.distractor for c in target.contrasts) else 'answers'}"
    if not target.contrasts:
        return "nothing"
    sides = [", ".join(quote(cut(token.text)) for token in side[:_NAMED]) + " …" * (len(side) > _NAMED)
             for side in (target.contrasts[0].answer, target.contrasts[0].distractor) if side]  # fmt: skip
    return " − ".join(sides)


def of_next_token(own: NextToken) -> str:
    """Return a next-token target in a few words."""
    return "what came next" if own.versus is None else "what came next − runner-up"


def inside(target: Target, logits: str) -> str:
    """Return a target in words. The target may be inside the model.

    Args:
        target: The target.
        logits: The target's contrasts in words.
    """
    words = logits if target.inner is None else _of_inner(target.inner)
    if target.through and isinstance(target.inner, AttentionScore):
        words = f"“{words}”"  # it may be a whole sentence
    for through in target.through:
        source = "" if through.source is None else f" (from {_named(through.source)})"
        words = f"what {name(through.layer, through.head)}{source} contributes to {words}"
    return words


def sentence(words: str) -> str:
    """Return words with a capital letter, as the beginning of a sentence."""
    return words[:1].upper() + words[1:]


def unit_of(target: Target | None) -> str:
    """Return the unit of a target's rows."""
    match None if target is None else target.inner:
        case AttentionScore():
            return "attention score"
        case NeuronInput():
            return "input of the neuron"
        case StreamDirection(feature=None):
            return "along the direction"
        case StreamDirection():
            return "input of the feature"
        case None:
            return "logits" if target is None or target.direction is None else "along the direction"


def _of_inner(inner: AttentionScore | NeuronInput | StreamDirection) -> str:
    match inner:
        case AttentionScore():
            return _of_attention(inner)
        case NeuronInput(part="up"):
            return f"the linear factor of {_neuron(inner)}"
        case NeuronInput():
            return f"{_neuron(inner)} before its activation"
        case StreamDirection(feature=None):
            return f"a direction at {inner.at}"
        case StreamDirection(feature=feature):
            assert feature is not None
            return f"feature F{feature.index} of `{feature.read}` before its activation"


def _of_attention(score: AttentionScore) -> str:
    """An attention score in words."""
    side = " (key side)" if score.side == "key" else ""
    head, source = name(score.layer, score.head), _named(score.source)
    if score.versus is None:
        return f"the attention score of {head} {_at(score.destination)} for {source}{side}"
    others = {"most": "its strongest other source", "mean": "what it reads on average"}
    other = others[score.versus] if isinstance(score.versus, str) else _named(score.versus)
    return f"{head} {_at(score.destination)} reads {source} rather than {other}{side}"


def _neuron(inner: NeuronInput) -> str:
    return Component("neuron", inner.layer, inner.index).label


def _at(position: Position) -> str:
    return "at the last token" if position == "last" else f"at {_named(position)}"


def _named(position: int) -> str:
    return f"position {position}".replace("-", "−")
