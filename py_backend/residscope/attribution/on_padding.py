"""Refuses targets inside the model whose destination or source is padding, which does not belong to the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residscope.attribution.attention_score import HeadScore
from residscope.cache.padding import padding
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.terms import AttentionScore, Target

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


def check_not_on_padding(
    view: CacheView, target: Target, where: Int[Tensor, " batch"] | None, prompt: int | None = None
) -> None:
    """Refuse a head's destination or source that is padding.

    Args:
        view: The cache.
        target: The target.
        where: The destination in each prompt, used if the target is a head's contribution. None: every position.
        prompt: The prompt that is shown. None: all prompts.

    Raises:
        ResidscopeError: If a destination or a source is padding in one of these prompts.
    """
    for what, places in _places(view, target, where):
        ends = padding(view)
        for at in range(view.batch) if prompt is None else (prompt,):
            begin, end = ends.first[at], ends.last[at]
            if begin <= places[at] <= end:
                continue
            in_prompt = f" in prompt {at}" if view.batch > 1 else ""
            others = ", or attribute prompts of different lengths separately" if view.batch > 1 else ""
            raise ResidscopeError(
                "position",
                f"The {what} is padding{in_prompt} (its tokens are {begin} to {end}): choose a token of the prompt"
                f"{others}.",
            )


def shared_places(view: CacheView, target: Target) -> list[str]:
    """Return a note if one source index means different tokens, because padding on the left shifts prompts."""
    first = padding(view).first
    sources = [through.source for through in target.through if through.source is not None]
    sources = [target.inner.source, *sources] if isinstance(target.inner, AttentionScore) else sources
    if not sources or len(set(first)) == 1:
        return []
    other = next(prompt for prompt, begin in enumerate(first) if begin != first[0])
    source = sources[0] % view.n_pos
    return [
        "One source index is used for all prompts, but because of padding they begin at different positions: "
        f"source {source} is token {source - first[0]} of prompt 0, but token {source - first[other]} of prompt "
        f"{other} (counted from 0)."
    ]


def _places(view: CacheView, target: Target, where: Int[Tensor, " batch"] | None) -> list[tuple[str, list[int]]]:
    """The destinations and sources of the heads that a target names."""
    found: list[tuple[str, list[int]]] = []
    if isinstance(target.inner, AttentionScore):
        score = HeadScore(view, target.inner)
        found += [("destination", score.destination.tolist()), ("source", score.source.tolist())]
    elif target.through and where is not None:
        found.append(("destination", where.tolist()))
    sources = [through.source for through in target.through if through.source is not None]
    return [*found, *(("source", [source % view.n_pos] * view.batch) for source in sources)]
