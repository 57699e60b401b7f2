"""For a target inside the model: the error for a missing activation names all activations that are missing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from residscope.attribution.components import activations_for
from residscope.attribution.head_inputs import read_names
from residscope.attribution.inner_checks import is_inner, point_of
from residscope.cache.points import Point, attention_point
from residscope.cache.structure import Structure
from residscope.cache.view import CacheView
from residscope.cache.view_refusals import not_cached
from residscope.errors import ResidscopeError, without_frames
from residscope.terms import AttentionScore, By, StreamDirection, Target


@contextmanager
def naming_all(view: CacheView, target: Target, by: By) -> Generator[None, None, None]:
    """Raise the error for a missing activation again, with the names of all activations that are missing.

    Errors for targets at the end of the stream are not changed.

    Args:
        view: The cache.
        target: The target.
        by: The decomposition.
    """
    try:
        yield
    except ResidscopeError as error:
        if not error.names or not is_inner(target):
            raise
        names = [name for name in _needed(view, target, by) if not view.has(name)]
        without_frames(error)
        raise not_cached(*dict.fromkeys([*names, *error.names])) from None


def _needed(view: CacheView, target: Target, by: By) -> list[str]:
    """The activations from which the target and the rows are read.

    Where either of two activations is enough, only one is named. The activations of rows are named only if none of them
    was cached.
    """
    point, names = point_of(view, target.inner), list[str]()
    if isinstance(target.inner, AttentionScore):
        attention = f"blocks.{target.inner.layer}.attn"
        names.append(view.first(f"{attention}.hook_pattern", f"{attention}.hook_attn_scores")
                     or f"{attention}.hook_pattern")  # fmt: skip
        names.append(point.stream(view))
    elif not isinstance(target.inner, StreamDirection):
        names += _scale(view, point)
    for through in target.through:
        normed, *others = (f"blocks.{through.layer}.attn.{ending}" for ending in ("v_norm.hook_out", "hook_v"))
        names += [name for name in read_names(view, through.layer) if name not in (normed, *others)]
        names += [] if view.has(normed) else others
        point = attention_point(view, through.layer)
        names += _scale(view, point)
    count = Structure(view, point=point.place).layers
    rows = [name for name in activations_for(view, by) if int(name.split(".")[1]) < count]
    return names if any(map(view.has, rows)) else [*names, *rows]


def _scale(view: CacheView, point: Point) -> list[str]:
    """The name of the scale of a point's norm. Empty if it was cached, or can be computed from the cached stream."""
    divides = point.parameters(view).divides
    return [point.scale_name] if divides and not point.has_scale(view) and not view.has(point.stream(view)) else []
