"""The requests that a new panel and a saved page need: for what is on screen, and for what is one click away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import msgspec

from residscope.export.effects_code import is_caused
from residscope.export.open_tabs import LENS, SEGMENTS, SMALL, Scene, each, of_the_tab, open_tab
from residscope.export.view_requests import MOST_COMPARED, Group, Requests, Views, on_screen, without_mid
from residscope.terms import Component, Score, ShownBy, Weighting
from residscope.wire.attention import ScoreHeads
from residscope.wire.decompositions import Attribute
from residscope.wire.protocol import AnyRequest
from residscope.wire.shown import Holds, Picture, WriteCode


def at_once(views: Views) -> Requests:
    """What a new panel requests first, in this order."""
    shown = views.shown
    cards = shown.tab == "attention" and shown.presentation == "matrix"
    requests = views.attention(shown.heads if cards else [], shown.prompt, shown.weighting)
    return requests + on_screen(views, [shown.norm])


def wanted(
    views: Views, ranked: list[str], strongest: list[str], points: list[Component], holds: Holds = "all"
) -> Iterator[Group]:
    """The other requests, in groups: first the open tab, then what is one click away.

    Args:
        views: The views.
        ranked: The pinned heads, then the heads in the ranking.
        strongest: All heads that have a value, the strongest first.
        points: The logit lens' points.
        holds: How much is wanted. A group that is not wanted is given without requests.
    """
    shown = views.shown
    current = views.prompts[0]
    yield from of_the_tab(views, ranked, points)
    yield from each("the attention of some pinned heads", views.attention(shown.heads, current, shown.weighting))
    yield from each("the attention of some heads", views.attention(ranked, current, shown.weighting))
    for least, groups in (
        ("heads", _of_other_steps(views, ranked, points)),
        ("heads", _of_all_heads(views, ranked, strongest)),
        ("all", _of_all_layers(views, points)),
        ("heads", _other_positions_and_menus(views, ranked)),
    ):
        if _LEVELS.index(holds) >= _LEVELS.index(least):
            yield from groups
        else:
            yield from ((what, []) for what in dict.fromkeys(what for what, _ in groups))


_LEVELS: tuple[Holds, ...] = get_args(Holds)
_STEPS = "some of the other steps of the trail"
_ONE = "some attention combined over heads"


def _of_other_steps(views: Views, ranked: list[str], points: list[Component]) -> Iterator[Group]:
    """What the other steps of the trail show: their charts, and the open tab."""
    shown = views.shown
    for number, step in enumerate(shown.trail):
        if number == shown.step:
            continue
        selected = {"target": step.target, "position": step.position, "step": number}
        other = Views(msgspec.structs.replace(shown, **selected), views.facts)
        yield _STEPS, other.figures(shown.prompt, step.position)
        for _, requests in of_the_tab(other, ranked, points):
            yield _STEPS, requests


def _of_all_heads(views: Views, ranked: list[str], strongest: list[str]) -> Iterator[Group]:
    """What is one click away: all heads and all prompts."""
    shown = views.shown
    current, *others = views.prompts
    for prompt in others:
        yield "some prompts", views.figures(prompt, shown.position) + views.segments(prompt)
    yield from each("the attention of some heads", views.attention(strongest, current, shown.weighting))
    for weighting in get_args(Weighting):
        yield from each("the other weightings of attention", views.attention(ranked, current, weighting))
    for prompt in others:
        requests = views.attention(ranked, prompt, shown.weighting)
        yield from each("the attention in some of the other prompts", requests)
    yield from each(
        "some position maps",
        [views.position_map(by, ranked, at) for at in views.prompts for by in get_args(ShownBy)],
    )
    if shown.tab == "segments":
        yield from each(SEGMENTS, views.segment_maps(strongest))
    yield from each(SMALL, views.in_small(shown.weighting))
    yield from each(_ONE, views.in_one(shown.weighting))


def _of_all_layers(views: Views, points: list[Component]) -> Iterator[Group]:
    """Slow and less used requests: token lens, head scores and neurons. Together they take as long as all others."""
    shown, facts = views.shown, views.facts
    current, *others = views.prompts
    for some in (without_mid(points), points):
        yield from each(LENS, views.token_lens(some))
    yield from each("some head scores", [ScoreHeads(score, at) for at in views.prompts for score in get_args(Score)])
    neurons = [(layer, current) for layer in [None, *range(facts.layers)]] + [
        (shown.layer, prompt) for prompt in others
    ]
    yield from each("some layers' neurons", [views.neurons(*place) for place in neurons])


def _other_positions_and_menus(views: Views, ranked: list[str]) -> Iterator[Group]:
    """The other positions, and the data of the menus."""
    current = views.prompts[0]
    for position in range(views.facts.positions):
        yield "some positions", views.figures(current, position)
    yield from each("the model's predictions", [views.suggestions(at) for at in views.prompts])
    for weighting in get_args(Weighting):
        yield from each(SMALL, views.in_small(weighting))
    codes = [_code(views, picture, ranked) for picture in get_args(Picture)]
    yield from each("the code", [code for code in codes if code is not None])


def _code(views: Views, picture: Picture, ranked: list[str]) -> AnyRequest | None:
    """The request for a picture's code, as if the picture's own tab were open. None if the picture has no code now."""
    effect = views.shown.effect if is_caused(views.shown) else "direct"
    shown = msgspec.structs.replace(views.shown, feeds=None, effect=effect)
    match picture:
        case "lens" | "layers" | "ranking":
            return WriteCode(picture, shown)
        case "heads":
            feeding = views.feeding()  # if not None, the head map shows what feeds a head
            if isinstance(feeding, Attribute):  # such a map is of one run, with direct effects
                shown = msgspec.structs.replace(shown, target=feeding.target, against=None)
            return WriteCode(picture, shown)
        case "attention-of-runs":
            heads = shown.heads[:MOST_COMPARED]
            if shown.against is None or not heads:
                return None
            return WriteCode(picture, msgspec.structs.replace(shown, tab="runs", heads=heads))
        case "stream":
            return None  # a page does not show it, because it needs runs of the model
        case tab:
            view = open_tab(tab)
            if view.has_code is not None and not view.has_code(shown):
                return None
            heads = shown.heads if view.heads is None else view.heads(Scene(views, ranked, []))
            return WriteCode(tab, msgspec.structs.replace(shown, tab=tab, heads=heads))
