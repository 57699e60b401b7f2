"""Checks targets inside the model.

The model must have the named heads, neurons and points. A head of a path must write to the stream before the point
where its output is read.
"""

from __future__ import annotations

from operator import index
from typing import Any, get_args

from residscope.base.legible import cut
from residscope.base.numbered import named_layers
from residscope.cache.component_names import name, parse_point
from residscope.cache.input_maps import check_neuron
from residscope.cache.points import FINAL, Point, attention_point, mlp_point, raw_point
from residscope.cache.structure import Structure
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.terms import AttentionScore, NeuronInput, Side, StreamDirection, Target

Inner = AttentionScore | NeuronInput | StreamDirection
"""A target that is read before the end of the stream."""


_WORDS = {"destination": ' or "last"', "versus": ', "most", "mean" or None'}
"""Values that an argument may have besides a number."""


def is_inner(target: Target) -> bool:
    """Whether a target is read before the end of the stream."""
    return target.inner is not None or bool(target.through)


def point_of(view: CacheView, inner: Inner | None) -> Point:
    """Return the point where a target is read. The heads of a path (`through`) are ignored."""
    match inner:
        case None:
            return FINAL
        case NeuronInput():
            return mlp_point(view, inner.layer)
        case StreamDirection():
            return raw_point(view, parse_point(inner.at))
        case AttentionScore():
            return attention_point(view, inner.layer)


def position_in(view: CacheView, argument: str, given: Any) -> int:
    """Return a position that a user wrote, counted from the start.

    Args:
        view: The cache.
        argument: The name of the argument: `source`, `destination` or `versus`.
        given: The value that the user wrote.

    Raises:
        ResidscopeError: If it is not a number, or is outside the prompt.
    """
    try:
        if isinstance(given, bool):
            raise TypeError
        position = index(given)
    except TypeError:
        words = _WORDS.get(argument, "")
        raise ResidscopeError(
            "position",
            f"`{argument}={cut(repr(given), 80)}` is not a position: give one number{words}. It is used for all "
            "prompts. To use another position in each prompt, run the prompts separately.",
        ) from None
    return _inside(view, argument, position) % view.n_pos


def check_inner(view: CacheView, inner: Inner) -> None:
    """Refuse a target whose neuron, point, head or positions do not exist in this model and cache."""
    match inner:
        case NeuronInput():
            check_neuron(view, inner.layer, inner.index, inner.part)
        case StreamDirection():
            place = raw_point(view, parse_point(inner.at)).place
            if inner.feature is not None and inner.feature.norm:
                points = [] if place.layer is None else [f(view, place.layer) for f in (mlp_point, attention_point)]
                if not any(point.place == place and point.norm == inner.feature.norm for point in points):
                    raise ResidscopeError(
                        "feature",
                        "The feature is said to be read through a norm, but this model has no such norm after "
                        f"`{inner.at}`: leave the norm out.",
                    )
        case AttentionScore():
            _check_score(view, inner)


def check_through(view: CacheView, target: Target) -> None:
    """Refuse heads that do not write before the point where their output would be read."""
    count = Structure(view, point=point_of(view, target.inner).place).layers
    where, last = "the target is read", len(target.through) - 1
    for step, through in enumerate(target.through):
        view.check_head(through.layer, through.head)
        if through.source is not None:
            _inside(view, "source", through.source)
        elif step != last:
            raise ResidscopeError(
                "source", f"{name(through.layer, through.head)} needs one source: only the last head may have none."
            )
        if through.layer >= count:
            others = f"only heads in {named_layers(range(count))} do" if count else "no head does"
            raise ResidscopeError(
                "order",
                f"{name(through.layer, through.head)} does not write to the stream before the point where {where}: "
                f"{others}.",
            )
        where, count = f"{name(through.layer, through.head)} reads its source", through.layer


def _check_score(view: CacheView, score: AttentionScore) -> None:
    view.check_head(score.layer, score.head)
    if score.side not in get_args(Side):
        raise ResidscopeError("side", f'`side={score.side!r}` is not known: use "query" or "key".')
    last = None if score.destination == "last" else _inside(view, "destination", score.destination) % view.n_pos
    for argument, position in (("source", score.source), ("versus", score.versus)):
        if position is None or isinstance(position, str):
            continue
        at = _inside(view, argument, position) % view.n_pos
        if last is not None and at > last:
            raise ResidscopeError(
                "position",
                f"`{argument}={position}` is after the destination, {last}: attention reads earlier positions.",
            )
    if score.versus == score.source:
        raise ResidscopeError("versus", f"`versus={score.source}` is the source itself: give another source.")


def _inside(view: CacheView, argument: str, position: int) -> int:
    if not -view.n_pos <= position < view.n_pos:
        raise ResidscopeError(
            "position",
            f"`{argument}={position}` is outside the prompt: it has {view.n_pos} positions, 0 to {view.n_pos - 1}.",
        )
    return position
