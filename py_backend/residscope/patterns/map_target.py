"""Finds the target of contribution-weighted maps, and checks the argument `weighting=`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residscope.attribution.predictions import top_two
from residscope.attribution.stream_target import StreamTarget
from residscope.attribution.target_words import unit_of
from residscope.attribution.targets import Targets
from residscope.attribution.word_spaces import without_space
from residscope.cache import positions
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.patterns.weighting import MEANINGS
from residscope.terms import Weighting

if TYPE_CHECKING:
    from torch import Tensor


def check_weighting(weighting: object) -> None:
    """Refuse a weighting that is not known.

    Raises:
        ResidscopeError: If the weighting is not known.
    """
    if not isinstance(weighting, str) or weighting not in MEANINGS:
        known = ", ".join(f'"{name}"' for name in MEANINGS)
        raise ResidscopeError("weighting", f'`weighting="{weighting}"` is not known: use {known}.')


def meaning_of(weighting: Weighting, stream_target: StreamTarget | None) -> str:
    """Return what a value of a map is, in words: `attention`, `contribution to the target, logits`."""
    meaning = MEANINGS[weighting]
    return meaning if stream_target is None else f"{meaning}, {unit_of(stream_target.target)}"


def map_target(
    view: CacheView, weighting: Weighting, answers: object, logits: Tensor | None
) -> tuple[StreamTarget | None, list[str]]:
    """Return the target of `"contribution"`, and notes on it. None for other weightings.

    Args:
        view: The cache.
        weighting: The weighting.
        answers: The target as the user gave it. None: the model's two top predictions.
        logits: The model's output, if it was given.

    Raises:
        ResidscopeError: If `answers` is not a target of this model.
    """
    if weighting != "contribution":
        return None, []
    targets = Targets.of(view)
    given = None if logits is None else view.whole_logits(logits)
    target = top_two(view, given) if answers is None else targets.resolve(answers)
    stream_target = StreamTarget(targets, target, positions.resolve(view, "last"))
    return stream_target, targets.notes + without_space(targets, target, stream_target.where, logits)
