"""Selections, and the views' requests for them, made in Python. TypeScript must make the same requests.

`python -m tests.support.view_cases` writes `tests/wire/view_requests.json`; `widgets/test/questions.test.ts` reads it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from residscope.export.open_tabs import of_the_tab
from residscope.export.view_requests import Requests, Views, choices
from residscope.terms import (
    Against,
    AttentionScore,
    Component,
    Contrast,
    NeuronInput,
    NextToken,
    SegmentRange,
    StreamDirection,
    Target,
    Through,
    Token,
)
from residscope.wire.caches import CacheFacts, Describe, LensFacts
from residscope.wire.features import KnownSae
from residscope.wire.shown import Feeds, Shown, Step

FILE = Path(__file__).parents[1] / "wire" / "view_requests.json"

TARGET = Target([Contrast([Token(5, " Mary")], [Token(9, " John")])])
READS = Target([], inner=AttentionScore(4, 3, "last", 2))
AT_END = Target([], inner=AttentionScore(4, 3, 3, 2))
MOVES = Target(TARGET.contrasts, through=[Through(4, 3, 2)])
NEXT = Target([], next_token=NextToken("runner-up"))
NEXT_MOVES = Target([], through=[Through(4, 3, 2)], next_token=NextToken("runner-up"))
EARLIER = Target([], inner=AttentionScore(2, 1, 2, 0, None))
SAME_LAYER = Target([], inner=AttentionScore(3, 1, 2, 0, None))
NEURON, DIRECTION = Target([], inner=NeuronInput(3, 7)), Target([], inner=StreamDirection("probe", "2_mid"))
RANKED = [f"L{layer}H{head}" for head in range(9) for layer in range(6)]
"""More heads than a position map shows."""
POINTS = [*(Component(kind, layer) for layer in range(4) for kind in ("pre", "mid")), Component("final_post")]


def facts(positions: int, *last: int) -> CacheFacts:
    """Return the facts about a cache of six layers and nine heads, whose prompts end at these positions."""
    return CacheFacts("cache", "m", 6, 9, len(last), positions, "float32", "cpu", 0, [], list(last), True)


def with_saes(about: CacheFacts) -> CacheFacts:
    """Return the facts about a cache for which two SAEs are known."""
    saes = [KnownSae("sae", "blocks.2.hook_mlp_out", "a.0"), KnownSae("early", "blocks.1.hook_resid_pre", "b.3")]
    return msgspec.structs.replace(about, saes=saes)


APART, TOGETHER, ONE, WIDE, LONG = facts(7, 6, 3), facts(6, 5, 5), facts(7, 6), facts(70, 69, 50), facts(600, 599, 300)
PARALLEL = msgspec.structs.replace(APART, parallel=[3])
LENS = msgspec.structs.replace(APART, lens=LensFacts("tuned lens", "h + A h + b"))

CASES: dict[str, tuple[CacheFacts, Shown]] = {
    "the mean of prompts that end apart": (APART, Shown(TARGET, heads=["L1H2", "L0H3"])),
    "one prompt, at its end": (APART, Shown(TARGET, 1, 3, heads=["L1H2"])),
    "one prompt, before its end": (APART, Shown(TARGET, 1, 2, heads=["L1H2"], norm="recomputed")),
    "prompts that end together": (TOGETHER, Shown(TARGET, position=5, weighting="value", heads=["L5H8"])),
    "padding that counts as tokens": (APART, Shown(TARGET, 1, 6, padding="none", heads=["L1H2"])),
    "a score and neurons": (ONE, Shown(TARGET, 0, score="copying", ranking="neurons", layer=2, top_k=7)),
    "neurons of all layers": (TOGETHER, Shown(TARGET, 1, 4, ranking="neurons")),
    "thumbnails of all heads": (APART, Shown(TARGET, presentation="all", weighting="contribution")),
    "thumbnails chosen, another tab open": (APART, Shown(TARGET, presentation="all", tab="positions")),
    "a text": (APART, Shown(TARGET, 0, presentation="text", heads=["L0H0", "L0H1"])),
    "positions": (APART, Shown(TARGET, 0, tab="positions", norm="recomputed")),
    "positions of the lens": (APART, Shown(TARGET, tab="positions", by="accumulated", norm="recomputed")),
    "positions of heads": (APART, Shown(TARGET, 1, tab="positions", by="head", norm="recomputed")),
    "the token lens": (APART, Shown(TARGET, 1, 2, tab="token-lens", norm="frozen")),
    "the token lens with all points": (APART, Shown(TARGET, tab="token-lens", lens_rows="points")),
    "a wide token lens": (WIDE, Shown(TARGET, tab="token-lens")),
    "each prompt": (APART, Shown(TARGET, 1, 3, tab="prompts", norm="recomputed")),
    "the prompts tab with one prompt": (ONE, Shown(TARGET, tab="prompts")),
    "the Why tab for logits": (APART, Shown(TARGET, tab="why")),
    "why a head reads a token": (APART, Shown(READS, 1, tab="why", trail=[Step(TARGET), Step(READS)], step=1)),
    "why a head reads a token, with its destination as an index": (
        APART,
        Shown(AT_END, 1, tab="why", trail=[Step(TARGET), Step(AT_END, 3)], step=1),
    ),
    "why a head reads a token, after what it moves": (
        APART,
        Shown(READS, 1, tab="why", trail=[Step(TARGET), Step(MOVES), Step(READS)], step=2),
    ),
    "pairs of components of a score": (
        APART,
        Shown(READS, 1, tab="why", why="pairs", trail=[Step(TARGET), Step(READS)], step=1),
    ),
    "why an earlier head reads a token, in a trail": (
        APART,
        Shown(EARLIER, 1, tab="why", trail=[Step(TARGET), Step(MOVES), Step(EARLIER, 2), Step(READS)], step=2),
    ),
    "why an earlier head reads a token, without a trail": (APART, Shown(EARLIER, 1, tab="why")),
    "why an earlier head reads a token, after a neuron": (
        APART,
        Shown(EARLIER, 1, 2, tab="why", trail=[Step(NEURON, 2), Step(EARLIER)], step=1),
    ),
    "why a head reads a token, after a neuron of its layer": (
        APART,
        Shown(SAME_LAYER, 1, 2, tab="why", trail=[Step(NEURON, 2), Step(SAME_LAYER)], step=1),
    ),
    "why a head reads a token, after a neuron that reads the same stream": (
        PARALLEL,
        Shown(SAME_LAYER, 1, 2, tab="why", trail=[Step(NEURON, 2), Step(SAME_LAYER)], step=1),
    ),
    "why a head reads a token, after a direction": (
        APART,
        Shown(READS, 1, tab="why", trail=[Step(DIRECTION), Step(READS)], step=1),
    ),
    "a trail without the target": (APART, Shown(READS, 1, tab="why", trail=[Step(TARGET), Step(EARLIER)], step=1)),
    "what a head moves": (APART, Shown(MOVES, 1, tab="why", trail=[Step(TARGET), Step(MOVES)], step=1)),
    "a neuron": (APART, Shown(NEURON, 0, 2, tab="why")),
    "heads that feed a query": (APART, Shown(TARGET, 0, 2, feeds=Feeds(4, 3, 1, "query"))),
    "heads that feed a key, at the end": (APART, Shown(TARGET, feeds=Feeds(4, 3, 1, "key"))),
    "against another prompt": (APART, Shown(TARGET, 1, 2, against=Against(None, 0), norm="recomputed")),
    "two runs, head by head": (
        APART,
        Shown(TARGET, 0, heads=["L1H2"], tab="runs", against=Against("clean", 1)),
    ),
    "two runs by token": (
        APART,
        Shown(TARGET, 0, heads=["L1H2"], tab="runs", against=Against("clean", 1, align="by token")),
    ),
    "the token lens of two runs": (APART, Shown(TARGET, 1, tab="token-lens", against=Against(None, 0))),
    "the token lens of the first of two runs": (
        APART,
        Shown(TARGET, 1, tab="token-lens", against=Against(None, 0), run="first"),
    ),
    "against another cache, all prompts": (TOGETHER, Shown(TARGET, against=Against('runs["clean"]'), run="second")),
    "total effects": (APART, Shown(TARGET, 1, 2, effect="total", replaced_by="mean", against=Against(None, 0))),
    "effects of another run's heads, all prompts": (
        TOGETHER,
        Shown(TARGET, effect="indirect", replaced_by="other", against=Against("clean")),
    ),
    "effects, but a score is shown": (APART, Shown(TARGET, effect="estimate", score="copying")),
    "against a run without a head": (APART, Shown(TARGET, against=Against(without=["L1H2"]), effect="total")),
    "heads that feed a value": (APART, Shown(MOVES, 0, feeds=Feeds(3, 3, 1, "value"))),
    "the next token": (APART, Shown(NEXT, 1, tab="positions", by="head")),
    "the next token, before the last": (APART, Shown(NEXT, 1, 1, heads=["L1H2"], tab="token-lens")),
    "the next token, all prompts": (APART, Shown(NEXT, tab="prompts")),
    "the next token, prompts that end together": (TOGETHER, Shown(NEXT, position=4)),
    "what a head moves to the next token": (
        APART,
        Shown(NEXT_MOVES, 1, 2, tab="why", trail=[Step(NEXT, 2), Step(NEXT_MOVES, 2)], step=1),
    ),
    "why a head reads a token, after a next token": (
        APART,
        Shown(EARLIER, 1, 2, tab="why", trail=[Step(NEXT, 2), Step(EARLIER, 2)], step=1),
    ),
    "segments": (APART, Shown(TARGET, 1, segments="turn", tab="segments", heads=["L1H2"], weighting="value")),
    "segments that the user gave": (
        ONE,
        Shown(TARGET, tab="segments", segments=[SegmentRange("question", 0, 3), SegmentRange("answer", 3, 7)]),
    ),
    "segments, but the mean of prompts": (WIDE, Shown(TARGET, segments="line", tab="segments", heads=["L1H2"])),
    "a prompt that is long enough for segments": (WIDE, Shown(TARGET, 0)),
    "a lens, in the charts": (LENS, Shown(TARGET, 1, transport="transported", norm="recomputed")),
    "a lens, in the token lens": (LENS, Shown(TARGET, 1, tab="token-lens", transport="transported")),
    "a lens, in the position map": (LENS, Shown(TARGET, tab="positions", by="accumulated", transport="transported")),
    "a lens, but the plain one is chosen": (LENS, Shown(TARGET, tab="token-lens")),
    "a lens, in the position map of layers": (LENS, Shown(TARGET, 0, tab="positions", transport="transported")),
    "a lens, each prompt": (LENS, Shown(TARGET, 1, tab="prompts", transport="transported")),
    "a lens, and a neuron": (LENS, Shown(NEURON, 0, tab="token-lens", transport="transported")),
    "a lens, and two runs": (
        LENS,
        Shown(TARGET, 0, tab="token-lens", transport="transported", against=Against(None, 1), run="first"),
    ),
    "no lens, but the selection has one": (APART, Shown(TARGET, tab="token-lens", transport="transported")),
    "features": (with_saes(APART), Shown(TARGET, 1, 3, tab="features")),
    "features of a chosen SAE, all prompts": (
        with_saes(TOGETHER),
        Shown(TARGET, position=5, tab="features", sae="early", feature=7),
    ),
    "features without an SAE": (APART, Shown(TARGET, tab="features", feature=7)),
    "a long prompt": (LONG, Shown(TARGET, 1, heads=["L2H2"])),
    "a long prompt, before its end": (LONG, Shown(TARGET, 1, 7, heads=["L2H2"], presentation="text")),
    "the mean of long prompts": (LONG, Shown(TARGET, heads=["L2H2"], presentation="text")),
    "a long prompt whose padding counts": (LONG, Shown(TARGET, 1, padding="none", heads=["L2H2"])),
}


def asked(views: Views) -> dict[str, Requests]:
    """Return the requests, by the names of the functions in `widgets/src` that make the same requests."""
    shown = views.shown
    return {
        "charts": [Describe(), *views.figures(shown.prompt, shown.position, [shown.norm])],
        "choices": choices(views),
        "cards": views.attention(shown.heads, shown.prompt, shown.weighting),
        "ofTheTab": [ask for _, asks in of_the_tab(views, RANKED, POINTS) for ask in asks],
        "inSmall": views.in_small(shown.weighting),
        "inOne": views.in_one(shown.weighting),
        "lensTiles": views.token_lens(POINTS),
        "suggestions": [views.suggestions(shown.prompt)],
    }


def written() -> list[dict[str, Any]]:
    """Return the cases as plain data.

    A request leaves out fields with their default value, and its target if that is the selected target.
    """
    return [
        {
            "name": name,
            "shown": msgspec.to_builtins(shown),
            "facts": msgspec.to_builtins(about),
            "ranked": RANKED,
            "points": [point.label for point in POINTS],
            "asks": {
                group: [_short(ask, shown.target) for ask in asks] for group, asks in asked(Views(shown, about)).items()
            },
        }
        for name, (about, shown) in CASES.items()
    ]


def _short(ask: msgspec.Struct, selected: Target) -> dict[str, Any]:
    usual = {field.encode_name: field.default for field in msgspec.structs.fields(ask)}
    plain: dict[str, Any] = msgspec.to_builtins(ask)
    if plain.get("target") == msgspec.to_builtins(selected):
        del plain["target"]
    return {name: value for name, value in plain.items() if value != usual.get(name, ask)}


def text() -> str:
    """Return the text of the file."""
    return "[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in written()) + "\n]\n"


if __name__ == "__main__":
    FILE.write_text(text())
