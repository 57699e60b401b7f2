"""The requests in a saved page: those of the open view, and those after one more click.

`widgets/src/state/questions.ts` makes the views' requests. Here the expected requests are written by hand.
"""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

import residscope
from residscope.export.snapshot import Snapshot, snapshot
from residscope.export.view_requests import Views
from residscope.serving.service import Service
from residscope.terms import Contrast, Position, Span, Target, Token
from residscope.wire.attention import BlendAttention, ReadAttention
from residscope.wire.caches import CacheFacts
from residscope.wire.decompositions import MapPositions
from residscope.wire.shown import Shown
from tests.support import tiny, view_cases

PAIR = ("w5", "w9")
NORMS, BYS = ("frozen", "recomputed"), ("layer", "accumulated", "head")
WEIGHTINGS = ("pattern", "value", "contribution")
SCORES = ("previous", "first", "duplicate", "induction", "entropy", "copying")
TABS = ("attention", "positions", "token-lens", "prompts")
"""The tabs whose code can always be written."""
PICTURES = ("lens", "layers", "heads", "ranking", *TABS)
EVERY = [(layer, head) for layer in range(3) for head in range(4)]
POINTS = ["0_pre", "0_mid", "1_pre", "1_mid", "2_pre", "2_mid", "final_post"]
FIELDS = {
    "describe": (),
    "tokens": ("prompt",),
    "attribute": ("by", "norm", "prompt", "position"),
    "attention": ("layer", "head", "weighting", "prompt", "position"),
    "thumbnails": ("layer", "weighting", "prompt", "side"),
    "blend": ("layer", "weighting", "prompt"),
    "scores": ("score", "prompt"),
    "positions": ("by", "norm", "prompt", "heads"),
    "token-lens": ("points", "start", "stop", "k", "norm", "prompt"),
    "neurons": ("layer", "k", "prompt", "position"),
    "suggest": ("prompt", "position", "k"),
    "code": ("picture",),
}
LENS, SCORED, NEURONS = "some of the token lens", "some head scores", "some layers' neurons"
LACKS = {
    "view": [
        "some prompts", "the attention of some heads", "the other weightings of attention",
        "the attention in some of the other prompts", "some position maps", "some thumbnails of heads",
        "some attention combined over heads",
        LENS, SCORED, NEURONS, "some positions", "the model's predictions", "the code",
    ],
    "heads": [LENS, SCORED, NEURONS],
    "all": [],
}  # fmt: skip


def run(positions: int, shorter: int) -> SimpleNamespace:
    """Return a run of two prompts. The second is shorter by `shorter` tokens."""
    model = tiny.boot("llama")
    tokens = torch.arange(5, 5 + 2 * positions).remainder(40).add(5).reshape(2, positions)
    tokens[:, 3] = tokens[:, 1]  # without a repeated token, two scores would be refused
    tokens[1, positions - shorter :] = 0
    return SimpleNamespace(cache=model.run_with_cache(tokens)[1])


@pytest.fixture(scope="module")
def odd():
    """Seven positions, of which the second prompt has four."""
    return run(7, 3)


@pytest.fixture(scope="module")
def even():
    """Six positions, of which the second prompt has four."""
    return run(6, 2)


def saved(cache: Any, holds: str, **selection: Any) -> Snapshot:
    service = Service(cache)
    shown = Shown(service.targets().resolve(PAIR), **selection)
    return snapshot(service.reply, "cache", shown, holds, budget=10**9, patience=600.0)


def requests(page: Snapshot) -> set[tuple[Any, ...]]:
    """Return kind and fields of all requests. Check that each occurs once, has a reply, and has the page's padding."""
    assert not [entry.failure for entry in page.entries if entry.failure]
    assert {entry.ask["padding"] for entry in page.entries} == {page.selection.padding}
    listed = [(ask["kind"], *(fixed(ask[field]) for field in FIELDS[ask["kind"]])) for ask in asks(page)]
    assert len(set(listed)) == len(listed)
    return set(listed)


def asks(page: Snapshot) -> list[dict[str, Any]]:
    return [entry.ask for entry in page.entries]


def fixed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def charts(prompt: int | None, position: Position = "last") -> set[tuple[Any, ...]]:
    at = (prompt, position)
    rows = {("attribute", by, "frozen", *at) for by in ("head", "layer")}
    return {("tokens", prompt)} | rows | {("attribute", "accumulated", norm, *at) for norm in NORMS}


def attention(heads: Any, weightings: Any, prompt: int | None, position: Position = "last") -> set[tuple[Any, ...]]:
    return {("attention", *head, weighting, prompt, position) for head, weighting in product(heads, weightings)}


def thumbnails(weightings: Any, prompt: int | None) -> set[tuple[Any, ...]]:
    return {("thumbnails", layer, weighting, prompt, 32) for layer in range(3) for weighting in weightings}


def maps(prompts: Any, norm: str, heads: list[str]) -> set[tuple[Any, ...]]:
    norms, rows = {"accumulated": norm}, {"head": tuple(heads)}
    return {("positions", by, norms.get(by, "frozen"), prompt, rows.get(by, ())) for by in BYS for prompt in prompts}


def lens(points: list[str], prompt: int | None, positions: int) -> set[tuple[Any, ...]]:
    """Return the requests of the token lens: tiles of four points, for up to 32 positions."""
    tiles = [tuple(points[at : at + 4]) for at in range(0, len(points), 4)]
    return {("token-lens", tile, 0, positions, 10, "recomputed", prompt) for tile in tiles}


def listed(run: Any, prompt: int | None, position: Position = "last", padding: str = "found") -> list[str]:
    """Return the heads with the largest and with the most negative contribution."""
    real = {"attention_mask": torch.ones(2, 6)} if padding == "none" else {}
    heads = residscope.attribute(run.cache, PAIR, position=position, **real)
    return [name for name, _ in heads.top(1, prompt)]


def places(heads: list[str]) -> list[tuple[int, int]]:
    return [(int(head[1]), int(head[3])) for head in heads]


def test_a_page_of_the_view_holds_charts_pinned_heads_and_listed_heads(odd):
    page = saved(odd.cache, "view", heads=["L1H2"], top_k=1)
    heads = {(1, 2), *places(listed(odd, None))}
    assert len(heads) in (2, 3)
    assert requests(page) == {("describe",)} | charts(None) | attention(heads, ["pattern"], None)
    assert page.lacks == LACKS["view"]


@pytest.mark.parametrize(
    ("selection", "more"),
    [
        ({"tab": "positions"}, {("positions", "layer", "frozen", 1, ())}),
        (
            {"tab": "positions", "by": "accumulated", "norm": "recomputed"},
            {("positions", "accumulated", "recomputed", 1, ())},
        ),
        ({"tab": "token-lens"}, {("token-lens", ("0_pre", "1_pre", "2_pre", "final_post"), 0, 7, 10, "recomputed", 1)}),
        ({"tab": "token-lens", "lens_rows": "points"}, lens(POINTS, 1, 7)),
        ({"presentation": "all"}, {("thumbnails", layer, "value", 1, 32) for layer in range(3)}),
        ({"presentation": "text"}, set()),
        ({"score": "copying"}, {("scores", "copying", 1)}),
        ({"ranking": "neurons", "layer": 2}, {("neurons", 2, 1, 1, 2)}),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_page_of_the_view_holds_the_tab_that_is_open(odd, selection, more):
    page = saved(odd.cache, "view", prompt=1, position=2, top_k=1, weighting="value", **selection)
    heads = places(listed(odd, 1, 2))
    assert requests(page) == {("describe",)} | charts(1, 2) | attention(heads, ["value"], 1, 2) | more


@pytest.mark.parametrize("little", [{"budget": 1}, {"patience": 1e-9}], ids=["room", "time"])
def test_a_page_lists_what_had_no_room_or_time_and_always_has_the_charts(odd, little):
    service = Service(odd.cache)
    shown = Shown(service.targets().resolve(PAIR), tab="positions", heads=["L1H2"])
    page = snapshot(service.reply, "cache", shown, "view", **{"patience": 600.0} | little)
    assert requests(page) == {("describe",), ("positions", "layer", "frozen", None, ())} | charts(None)
    first, second, *others = page.lacks
    assert (first, second) == ("the attention of some pinned heads", "the attention of some heads")
    assert {second, *others} == set(LACKS["view"])


@pytest.mark.parametrize("holds", ["heads", "all"])
@pytest.mark.parametrize(
    ("run", "prompt", "position", "padding"),
    [
        ("odd", None, "last", "found"),
        ("odd", 0, 3, "found"),
        ("odd", 1, 2, "found"),
        ("even", None, "last", "none"),
        ("even", 0, 2, "none"),
    ],
)
def test_a_page_holds_the_replies_that_are_one_click_away(request, holds, run, prompt, position, padding):
    found = request.getfixturevalue(run)
    positions = {"odd": 7, "even": 6}[run]
    last: dict[int | None, int | None] = {None: None, 0: 6, 1: 3} if run == "odd" else dict.fromkeys([None, 0, 1], 5)
    others = [other for other in (None, 0, 1) if other != prompt]
    at = {one: "last" if position == last[one] else position for one in (None, 0, 1)}
    page = saved(found.cache, holds, prompt=prompt, position=position, padding=padding, top_k=1, heads=["L2H0"])
    names = list(dict.fromkeys(["L2H0", *listed(found, prompt, position, padding)]))
    ranked = places(names)

    expected = {("describe",)} | charts(prompt, position)
    expected |= attention(EVERY, ["pattern"], prompt, position) | attention(ranked, WEIGHTINGS, prompt, position)
    for other in others:
        expected |= charts(other, at[other]) | attention(ranked, ["pattern"], other, at[other])
    expected |= maps([None, 0, 1], "frozen", names) | thumbnails(WEIGHTINGS, prompt)
    expected |= {("blend", layer, "pattern", prompt) for layer in (None, 0, 1, 2)}
    for place in range(positions):
        expected |= charts(prompt, "last" if place == last[prompt] else place)
    expected |= {("suggest", one, at[one], 24) for one in (None, 0, 1)} | {("code", picture) for picture in PICTURES}
    if holds == "all":
        expected |= lens([point for point in POINTS if "mid" not in point], prompt, positions)
        expected |= lens(POINTS, prompt, positions)
        expected |= {("scores", score, one) for score in SCORES for one in (None, 0, 1)}
        expected |= {("neurons", layer, 1, prompt, position) for layer in (None, 0, 1, 2)}
        expected |= {("neurons", None, 1, other, at[other]) for other in others}
    assert requests(page) == expected
    assert page.lacks == LACKS[holds]


@pytest.mark.parametrize(("position", "asked"), [("last", "last"), (2, 2)])
def test_a_page_of_the_prompts_holds_the_replies_with_all_prompts(odd, position, asked):
    """Two replies hold all prompts: the logit lens, which ends at the target, and all heads.

    The heads are for the head under the pointer.
    """
    page = saved(odd.cache, "view", tab="prompts", prompt=1, position=position)
    wanted = {("attribute", by, "frozen", None, asked) for by in ("accumulated", "head")}
    assert wanted == {one for one in requests(page) if one[0] == "attribute" and one[2:] == ("frozen", None, asked)}
    assert all(len(entry.buffers) == 4 for entry in page.entries if entry.ask.get("prompt", 0) is None)


@pytest.mark.parametrize("selection", [{}, {"tab": "token-lens", "by": "head", "weighting": "value"}])
def test_a_page_holds_the_code_of_each_picture_with_its_heads(odd, selection):
    """A request for a picture in a tab selects this tab, because the selection is a part of the request."""
    page = saved(odd.cache, "heads", prompt=0, heads=["L1H2"], top_k=1, **selection)
    names = list(dict.fromkeys(["L1H2", *listed(odd, 0)]))
    shown = msgspec.to_builtins(page.selection)
    tabs = {picture: {"tab": picture} for picture in TABS}
    heads = {"prompts": {"heads": []}, "positions": {"heads": names} if "by" in selection else {}}
    found = {ask["picture"]: ask["shown"] for ask in asks(page) if ask["kind"] == "code"}
    assert found == {
        picture: shown | tabs.get(picture, {}) | heads.get(picture, {}) for picture in PICTURES
    }  # fmt: skip


def test_a_wide_token_lens_comes_in_tiles():
    model = tiny.boot("llama")
    page = saved(tiny.run(model, 1, 40)[2], "view", tab="token-lens")
    tiles = [ask for ask in asks(page) if ask["kind"] == "token-lens"]
    assert [(ask["points"], ask["start"], ask["stop"]) for ask in tiles] == [
        (["0_pre", "1_pre", "2_pre", "final_post"], 32, 40), (["0_pre", "1_pre", "2_pre", "final_post"], 0, 32),
    ]  # fmt: skip


def test_the_file_of_expected_requests_is_current():
    """After a change, run `python -m tests.support.view_cases`."""
    assert view_cases.FILE.read_text() == view_cases.text()


def facts(positions: int, *last: int, layers: int = 1) -> CacheFacts:
    return CacheFacts("cache", "model", layers, 60, len(last), positions, "float32", "cpu", 0, [], list(last), True)


TARGET = Target([Contrast([Token(5, "w5")], [Token(9, "w9")])])


@pytest.mark.parametrize(
    ("positions", "shown", "row"),
    [
        (512, Shown(TARGET), None),
        (513, Shown(TARGET), 512),
        (513, Shown(TARGET, position=7), 7),
        (513, Shown(TARGET, position=-2), 511),
    ],
)
def test_a_page_of_a_long_prompt_holds_the_attention_from_the_destination(positions, shown, row):
    """The maps of a long prompt are down-sampled, but the row of the destination has all its cells."""
    found = Views(shown, facts(positions, positions - 1)).attention(["L0H3"], None, "value")
    place = shown.position
    whole = ReadAttention(0, 3, TARGET, None, place, "value")
    line = [] if row is None else [ReadAttention(0, 3, TARGET, None, place, "value", rows=Span(row, row + 1))]
    assert found == [whole, *line]


def test_the_mean_of_long_prompts_with_different_ends_has_no_destination():
    views = Views(Shown(TARGET), facts(600, 599, 300))
    assert views.attention(["L0H3"], None, "pattern") == [ReadAttention(0, 3, TARGET)]
    assert views.attention(["L0H3"], 1, "pattern") == [
        ReadAttention(0, 3, TARGET, 1), ReadAttention(0, 3, TARGET, 1, rows=Span(300, 301)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (Shown(TARGET, 0), Span(599, 600)),
        (Shown(TARGET, 1), Span(300, 301)),
        (Shown(TARGET, 1, padding="none"), Span(599, 600)),
        (Shown(TARGET, 0, 7), Span(7, 8)),
        (Shown(TARGET), Span(0, 1)),
    ],
)
def test_combined_attention_of_a_long_prompt_is_requested_for_one_destination(shown, line):
    """The text shows what one token reads: the destination if there is a single one, otherwise the first token."""
    found = Views(shown, facts(600, 599, 300, layers=2)).in_one("value")
    assert found == [BlendAttention(layer, TARGET, shown.prompt, "value", rows=line) for layer in (None, 0, 1)]


def test_a_position_map_requests_at_most_48_heads():
    names = [f"L0H{head}" for head in range(60)]
    found = Views(Shown(TARGET), facts(7, 6)).position_map("head", names, 0)
    assert found == MapPositions("head", TARGET, 0, "frozen", names[:48])
