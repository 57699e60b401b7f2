"""Targets in the form that a user would write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from residscope.attribution.inner_targets import Direction, Neuron, Next, Output, Score
from residscope.cache.component_names import name
from residscope.cache.vocabulary import Vocabulary
from residscope.terms import (
    AttentionScore,
    Component,
    Contrast,
    FeatureInput,
    NeuronInput,
    StreamDirection,
    Target,
    Token,
)


def as_answers(target: Target, vocabulary: Vocabulary, direction: Callable[[str], Any] | None = None) -> Any:
    """Return a target in the form that a user would write, such as `" Mary"`, `(" Mary", " John")`, a set, a list.

    `Targets.resolve` reads it back as the same target, for any number of prompts.

    Args:
        target: The target.
        vocabulary: The tokens of the model.
        direction: Returns the direction that is kept with a key. None: the key is written.
    """

    def side(tokens: list[Token]) -> Any:
        names = [vocabulary.written(token.id) for token in tokens]
        if len(names) == 1:
            return names[0]
        # A set stands only for different tokens in the order of their ids. Other tokens are written as a list.
        ids = [token.id for token in tokens]
        return set(names) if ids == sorted(set(ids)) else names

    def one(contrast: Contrast) -> Any:
        answer = side(contrast.answer)
        if contrast.distractor:
            return answer, side(contrast.distractor)
        return {tuple(answer)} if isinstance(answer, list) else answer  # a list would be one answer for each prompt

    if target.through:
        *before, last = target.through
        of = as_answers(msgspec.structs.replace(target, through=before), vocabulary, direction)
        return Output(name(last.layer, last.head), of, last.source)
    match target.inner:
        case NeuronInput(layer, number, part):
            return Neuron(Component("neuron", layer, number).label, part)
        case AttentionScore(layer, head, destination, source, versus, which):
            return Score(name(layer, head), destination, source, versus, which)
        case StreamDirection(feature=FeatureInput()):
            return target  # it can be resolved again as long as its direction is kept
        case StreamDirection(key, at):
            return Direction(key if direction is None else direction(key), at)
        case None:
            pass
    if target.next_token is not None:
        return Next(target.next_token.versus)
    if target.direction is not None:
        return target.direction if direction is None else direction(target.direction)
    written = [one(contrast) for contrast in target.contrasts]
    # A pair that contains a list is itself put into a list: alone, it could be read as two columns.
    alone = len(written) == 1 and not (isinstance(written[0], tuple) and any(isinstance(s, list) for s in written[0]))
    return written[0] if alone else written
