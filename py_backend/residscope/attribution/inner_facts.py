"""Facts about a target inside the model, in one prompt: the point and the positions where it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residscope.attribution.attention_score import HeadScore
from residscope.attribution.head_inputs import some_pattern
from residscope.attribution.inner_checks import is_inner, point_of
from residscope.cache.points import attention_point
from residscope.cache.view import CacheView
from residscope.terms import AttentionScore, InnerFacts, Target

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


def inner_facts(view: CacheView, target: Target, where: Int[Tensor, " batch"] | None, prompt: int) -> InnerFacts | None:
    """Return the facts about a target in one prompt, at one position. None if the target is not inside the model."""
    if not is_inner(target):
        return None
    inner, destination = target.inner, 0 if where is None else int(where[prompt])
    if isinstance(inner, AttentionScore):
        score = HeadScore(view, inner)
        if not target.through:
            return score.facts(prompt)
        destination = int((score.destination if inner.side == "query" else score.source)[prompt])
    if not target.through:
        return InnerFacts(point_of(view, inner).place.label, destination)
    for through in target.through[:-1]:
        assert through.source is not None  # only the last head may read all sources
        destination = through.source % view.n_pos
    last = target.through[-1]
    point = attention_point(view, last.layer).place.label
    if last.source is None:
        return InnerFacts(point, destination)
    source = last.source % view.n_pos
    return InnerFacts(
        point, destination, source, attention=_attention(view, prompt, last.layer, last.head, destination, source)
    )


def _attention(view: CacheView, prompt: int, layer: int, head: int, destination: int, source: int) -> float:
    import torch

    row = some_pattern(view.only(range(prompt, prompt + 1)), torch.tensor([destination], device="cpu"), layer, [head])
    return float(row[0, 0, 0, source])
