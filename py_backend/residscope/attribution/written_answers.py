"""Targets in the form that a user would write."""

from __future__ import annotations

from collections.abc import Mapping
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


def as_answers(target: Target, vocabulary: Vocabulary, directions: Mapping[str, Any] | None = None) -> Any:
    """Return a target in the form that a user would write, such as `" Mary"`, `(" Mary", " John")`, a set, a list."""

    def side(tokens: list[Token]) -> Any:
        # The text is used only if it encodes to exactly this token, otherwise the id.
        names = [t.text if vocabulary.tokenizer and vocabulary.encode(t.text) == [t.id] else t.id for t in tokens]
        # A set, because a list could mean one answer per prompt. A repeated token counts twice, so it needs a list.
        return names[0] if len(names) == 1 else set(names) if len(set(names)) == len(names) else names

    def one(contrast: Contrast) -> Any:
        answer = side(contrast.answer)
        return (answer, side(contrast.distractor)) if contrast.distractor else answer

    if target.through:
        *before, last = target.through
        of = as_answers(msgspec.structs.replace(target, through=before), vocabulary, directions)
        return Output(name(last.layer, last.head), of, last.source)
    match target.inner:
        case NeuronInput(layer, number, part):
            return Neuron(Component("neuron", layer, number).label, part)
        case AttentionScore(layer, head, destination, source, versus, which):
            return Score(name(layer, head), destination, source, versus, which)
        case StreamDirection(feature=FeatureInput()):
            return target  # it can be resolved again as long as its direction is kept
        case StreamDirection(key, at):
            return Direction(key if directions is None else directions[key], at)
        case None:
            pass
    if target.next_token is not None:
        return Next(target.next_token.versus)
    written = [one(contrast) for contrast in target.contrasts]
    alone = len(written) == 1 and not (isinstance(written[0], tuple) and any(isinstance(s, list) for s in written[0]))
    return written[0] if alone else written
