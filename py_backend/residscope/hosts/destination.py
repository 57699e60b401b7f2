"""Moves an attention score to another destination, when `position` of a panel is set in Python."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from residscope.cache.component_names import name
from residscope.errors import ResidscopeError
from residscope.terms import AttentionScore, Position, Target


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
    versus = "most" if isinstance(score.versus, int) and score.versus > first else score.versus
    to: Position = "last" if position == last else position
    return msgspec.structs.replace(target, inner=msgspec.structs.replace(score, destination=to, versus=versus))
