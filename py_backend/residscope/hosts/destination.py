"""Moves an attention score to another destination: the `position` that is set in Python, or a new last position."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from residscope.cache import positions
from residscope.cache.component_names import name
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.terms import AttentionScore, Position, Target
from residscope.wire.shown import Step


def at_destination(target: Target, position: Position, ends: Sequence[int]) -> Target:
    """Return the same attention score at another destination. Any other target is returned unchanged.

    The score is compared with the same other source, unless that source is after the new destination.

    Args:
        target: The target that is shown.
        position: The destination, counted from the start. "last" only if prompts end at different positions.
        ends: The last position of each prompt.

    Raises:
        ResidscopeError: If the target has a fixed destination, or the new destination is before its source.
    """
    score = target.inner
    last = ends[0] if len(set(ends)) == 1 else "last"
    if not isinstance(score, AttentionScore):
        return target
    if position == (last if score.destination == "last" else score.destination):
        return target
    head = name(score.layer, score.head)
    if target.through:
        raise ResidscopeError(
            "position",
            f"The destination of {head} belongs to the target that is shown, so `position=` cannot be set. Set "
            "`panel.target`, or go to another step of the trail: `panel.step`.",
        )
    first = min(ends) if position == "last" else position
    if score.source > first:
        raise ResidscopeError(
            "position",
            f"The target is the attention score of {head} for source {score.source}, which is after the destination "
            f"{first}: a head reads only earlier positions. Choose a later position, or set `panel.target`.",
        )
    return _moved(target, score, "last" if position == last else position, first)


def at_new_end(step: Step, former: set[int], view: CacheView) -> Step:
    """Return a step with its position and its destination at the last position, if they were at the former one.

    Any other destination stays. Any other position stays, too, unless the cache does not have it. A score whose source
    is after the new last position stays where it is.

    Args:
        step: A target and its position.
        former: The former last position of each prompt.
        view: The cache with the new last position.
    """
    target, position = step.target, step.position
    score, end = target.inner, min(positions.last(view))
    if isinstance(score, AttentionScore) and former == {score.destination}:
        if score.source > end:
            return step
        target = _moved(target, score, "last", end)
    # No token follows the last one, so a next-token target has an earlier last position.
    after = 0 if target.next_token is None else 1
    if position != "last" and ({max(at - after, 0) for at in former} == {position} or position >= view.n_pos - after):
        position = "last"
    return Step(target, position)


def _moved(target: Target, score: AttentionScore, to: Position, end: int) -> Target:
    """The target with its score at the destination `to`. The source that it is compared with is not after `end`."""
    versus = "most" if isinstance(score.versus, int) and score.versus > end else score.versus
    return msgspec.structs.replace(target, inner=msgspec.structs.replace(score, destination=to, versus=versus))
