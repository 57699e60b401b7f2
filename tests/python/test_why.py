"""Targets inside the model in views: in replies, in the panel, in copied code, in a saved page."""

from __future__ import annotations

import re

import msgspec
import numpy as np
import pytest
import torch

import residscope
from residscope import ResidscopeError
from residscope import targets as T  # noqa: N812
from residscope.export.snapshot import snapshot
from residscope.export.view_requests import PAIRED
from residscope.serving.service import Service
from residscope.wire.decompositions import Attribute
from residscope.wire.shown import Shown, Step, WriteCode
from tests.support import tiny
from tests.support.copied import pictured, pictured_attention, ran, written
from tests.support.rows import labels_of

PAIR = ("w5", "w9")
PROBE = torch.linspace(-1, 1, 24)
TARGETS = {
    "query": T.attention("L2H1", 5, 2, versus=0),
    "key": T.attention("L2H1", "last", 2, side="key"),
    "raw key": T.attention("L2H1", 5, 2, versus=None, side="key"),
    "mean": T.attention("L2H1", 5, 2, versus="mean"),
    "output": T.output("L2H1", of=PAIR, source=2),
    "path": T.output("L1H0", of=T.output("L2H1", of=PAIR, source=4), source=1),
    "feeds": T.output("L1H0", of=T.attention("L2H1", 5, 2), source=3),
    "neuron": T.neuron("L2N7"),
    "up": T.neuron("L1N7", part="up"),
    "direction": T.direction(PROBE, at="2_mid"),
}
WORDS = {
    "query": "L2H1 at position 5 reads position 2 rather than position 0",
    "key": "L2H1 at the last token reads position 2 rather than its strongest other source (key side)",
    "raw key": "the attention score of L2H1 at position 5 for position 2 (key side)",
    "mean": "L2H1 at position 5 reads position 2 rather than what it reads on average",
    "output": "what L2H1 (from position 2) contributes to “w5” − “w9”",
    "path": "what L1H0 (from position 1) contributes to what L2H1 (from position 4) contributes to “w5” − “w9”",
    "feeds": "what L1H0 (from position 3) contributes to “L2H1 at position 5 reads position 2 rather than its "
    "strongest other source”",
    "neuron": "L2N7 before its activation",
    "up": "the linear factor of L1N7",
    "direction": "a direction at 2_mid",
}


@pytest.fixture(scope="module")
def cache():
    """A cache of three prompts of seven tokens."""
    return tiny.run(tiny.boot("llama"))[2]


@pytest.fixture(scope="module")
def service(cache):
    return Service(cache)


@pytest.fixture
def panel(cache):
    panel = residscope.inspect(cache, PAIR, show=False)
    yield panel
    panel.close()


def answered(service, kind, **fields):
    answer, buffers = service.answer({"id": "1", "ask": {"kind": kind, **fields}})
    arrays = [np.frombuffer(buffer, np.float32) for buffer in buffers] if kind in ("attribute", "pairs") else []
    return answer.get("reply") or answer["failure"], arrays


# --- replies ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("prompt", [None, 1])
@pytest.mark.parametrize("by", ["head", "layer", "accumulated"])
@pytest.mark.parametrize("name", TARGETS)
def test_a_reply_has_the_rows_of_attribute_and_the_positions_of_its_target(cache, service, name, by, prompt):
    target = msgspec.to_builtins(service.targets().resolve(TARGETS[name]))
    reply, [rows, *_] = answered(service, "attribute", by=by, target=target, prompt=prompt)
    result = residscope.attribute(cache, TARGETS[name], by=by)
    expected = result.mean() if prompt is None else result.values[:, prompt]
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    assert labels_of(reply) == result.labels
    assert abs(reply["unexplained"]) <= reply["tolerance"]
    facts = reply["inner"]
    point = {"path": "1_pre", "feeds": "1_pre", "neuron": "2_mid", "up": "1_mid", "direction": "2_mid"}
    assert facts["point"] == point.get(name, "2_pre")
    pattern = cache["pattern", 2][prompt or 0, 1]
    if name in ("query", "key", "raw key", "mean"):
        where, source = facts["destination"], facts["source"]
        assert (where, source) == (6 if name == "key" else 5, 2)
        assert facts["attention"] == pytest.approx(float(pattern[where, source]))
        if name in ("query", "key"):
            assert facts["versus_attention"] == pytest.approx(float(pattern[where, facts["versus"]]))
        if name == "key":
            others = pattern[6].clone()
            others[2] = -1
            assert facts["versus"] == int(others.argmax())
    if name == "output":
        assert (facts["destination"], facts["source"]) == (6, 2)
        assert facts["attention"] == pytest.approx(float(pattern[6, 2]))
    if name == "path":
        earlier = cache["pattern", 1][prompt or 0, 0]
        assert (facts["destination"], facts["source"]) == (4, 1)
        assert facts["attention"] == pytest.approx(float(earlier[4, 1]))


@pytest.mark.parametrize("side", ["query", "key"])
def test_pairs_sum_to_the_sides_and_to_the_log_of_the_ratio_of_attention(cache, service, side):
    target = T.attention("L2H1", 5, 2, versus=0, side=side)
    reply, [cells] = answered(service, "pairs", target=msgspec.to_builtins(service.targets().resolve(target)), k=4)
    cells = cells.reshape(5, 5)
    pattern = cache["pattern", 2][:, 1, 5].double()
    ratio = float((pattern[:, 2] / pattern[:, 0]).log().mean())
    assert reply["measured"] == pytest.approx(ratio, abs=1e-5)
    assert cells.sum() == pytest.approx(ratio, abs=1e-5)
    names = labels_of({"components": reply[side]})
    rows = residscope.attribute(cache, target).mean()
    labels = residscope.attribute(cache, target).labels
    own = {label: float(value) for label, value in zip(labels, rows, strict=True)}
    assert {names[0]} <= {label for label, value in own.items() if abs(value) == max(map(abs, own.values()))}
    margins = cells.sum(1 if side == "query" else 0)
    np.testing.assert_allclose(margins[:4], [own[label] for label in names], atol=1e-5)
    assert reply["query_others"] == len(residscope.pairs(cache, target).query) - 4


@pytest.mark.parametrize("prompt", [None, 2])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "qwen3_5_text", "granite"])
def test_the_tokens_that_a_head_promotes_are_those_to_which_it_contributes_most(family, prompt):
    if family not in tiny.FAMILIES:
        family = "qwen3_next"
    cache = tiny.run(tiny.boot(family))[2]
    layer = next(at for at in (2, 1, 3) if f"blocks.{at}.attn.hook_z" in cache.cache_dict)
    reply, _ = answered(Service(cache), "head-tokens", layer=layer, head=1, prompt=prompt, source=2, k=2)
    pattern = cache["pattern", layer][:, 1, -1, 2]
    for tokens, of in (("output_top", None), ("output_bottom", None), ("source_top", 2), ("source_bottom", 2)):
        assert len(reply[tokens]) == 2
        for entry in reply[tokens]:
            by = {"by": "head"} if of is None else {"by": "source", "heads": [(layer, 1)]}
            result = residscope.attribute(cache, entry["token"]["id"], position=6, **by)
            rows = result.grid[layer, 1] if of is None else result.values[of, 0] / pattern
            expected = float(rows.mean() if prompt is None else rows[prompt])
            assert entry["value"] == pytest.approx(expected, abs=1e-4, rel=1e-4)


@pytest.mark.parametrize("name", TARGETS)
def test_targets_at_one_position_have_no_position_map(cache, service, name):
    target = msgspec.to_builtins(service.targets().resolve(TARGETS[name]))
    for fields in ({"by": "layer"}, {"by": "head", "heads": ["L1H1", "L2H3"]}):
        reply, _ = answered(service, "positions", target=target, prompt=1, **fields)
        if name in ("neuron", "up", "direction"):
            result = residscope.attribute(cache, TARGETS[name], by=fields["by"], position="all")
            assert set(labels_of(reply)) <= set(result.labels)
        else:
            assert reply["code"] == "position"
            assert "read at fixed positions" in reply["message"]
    reply, _ = answered(service, "token-lens", target=target, points=["1_pre"], start=0, stop=2)
    assert reply["kind"] == "token-lens"
    source = {"layer": 1, "head": 1, "weighting": "contribution", "prompt": 1}
    reply, _ = answered(service, "attention", target=target, **source)
    late = name in ("path", "feeds", "up")
    kinds = [part["what"] for part in reply["parts"]]
    if name == "key":  # the two compared sources have different functionals
        assert any("several positions" in note for note in reply["notes"])
    elif late and name != "up":
        assert any("do not write before the point `1_pre`" in note for note in reply["notes"])
        assert any("The pattern and the value weighting do not depend on the target" in note for note in reply["notes"])
    else:
        assert "contribution" in kinds


def test_views_show_one_source_at_a_time(service, panel):
    every = T.output("L2H1", of=PAIR)
    target = msgspec.to_builtins(service.targets().resolve(every))
    assert answered(service, "attribute", by="head", target=target)[0]["code"] == "source"
    with pytest.raises(ResidscopeError, match="one source"):
        panel.target = every


# --- the panel -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", TARGETS)
def test_the_panel_accepts_and_returns_a_target_inside_the_model(cache, panel, name):
    panel.target = TARGETS[name]
    before = panel.wire_target
    assert before["inner"] or before["through"]
    given = panel.target
    result, expected = (residscope.attribute(cache, one).values for one in (given, TARGETS[name]))
    assert torch.equal(result, expected)
    panel.target = PAIR
    panel.target = given
    assert panel.wire_target == before
    assert (panel.position == 5) == (name in ("query", "raw key", "mean"))


def test_the_trail_is_a_list_of_targets_that_python_reads_and_sets(panel):
    assert panel.trail == []
    panel.trail = [PAIR, TARGETS["query"], TARGETS["output"]]
    assert (panel.step, panel.shown.step) == (2, 2)
    assert [step.position for step in panel.shown.trail] == [6, 5, 6]
    assert panel.wire_target["through"]
    panel.step = 1
    assert panel.position == 5
    assert panel.wire_target["inner"]["kind"] == "attention"
    panel.step = 0
    assert (panel.target, panel.position) == (PAIR, 6)
    panel.trail = panel.trail[:2]
    assert (len(panel.trail), panel.step, panel.position) == (2, 1, 5)
    panel.target = PAIR
    assert (panel.trail, panel.step) == ([], 0)


def test_a_target_inside_the_model_set_in_python_is_appended_to_the_trail(panel):
    panel.target, panel.position = PAIR, 4
    panel.target = TARGETS["query"]
    assert (panel.step, [step.position for step in panel.shown.trail]) == (1, [4, 5])
    assert panel.trail[0] == PAIR
    panel.target = TARGETS["neuron"]
    assert next(step.target.inner for step in panel.shown.trail) is None
    assert (panel.step, len(panel.trail), panel.shown.step) == (2, 3, 2)
    panel.step = 1
    panel.target = TARGETS["up"]  # the later step is replaced
    assert (panel.step, len(panel.trail)) == (2, 3)
    panel.step = 0
    assert (panel.target, panel.position) == (PAIR, 4)
    panel.target = ("w7", "w3")
    assert (panel.trail, panel.step) == ([], 0)


def test_setting_the_position_of_a_shown_score_moves_its_destination(cache, panel):
    panel.target = PAIR
    panel.target = TARGETS["query"]
    panel.position = 4
    assert (panel.wire_target["inner"]["destination"], panel.wire_target["inner"]["source"]) == (4, 2)
    assert (panel.step, [step.position for step in panel.shown.trail]) == (2, [6, 5, 4])
    expected = residscope.attribute(cache, T.attention("L2H1", 4, 2, versus=0))
    assert torch.equal(residscope.attribute(cache, panel.target).values, expected.values)
    panel.position = "last"
    assert (panel.position, panel.wire_target["inner"]["destination"]) == (6, "last")
    panel.step = 1
    assert (panel.position, panel.wire_target["inner"]["destination"]) == (5, 5)
    panel.target = T.attention("L2H1", 5, 2, versus=4)
    panel.position = 3  # the compared source, 4, comes after this position
    assert panel.wire_target["inner"]["versus"] == "most"


@pytest.mark.parametrize(
    ("name", "at", "sentence"),
    [
        ("query", 1, "of L2H1 for source 2, which is after the destination 1"),
        ("feeds", 3, "destination of L2H1 belongs to the target that is shown"),
    ],
)
def test_a_position_at_which_the_target_does_not_exist_is_refused(panel, name, at, sentence):
    panel.target = TARGETS[name]
    before, position = panel.shown, panel.position
    with pytest.raises(ResidscopeError, match=sentence):
        panel.position = at
    assert (panel.shown, panel.position) == (before, position)


def test_a_trail_sent_by_a_view_is_accepted_unchanged(panel):
    steps = [Step(panel._service.targets().resolve(TARGETS[name]), 5) for name in ("output", "query")]
    plain = msgspec.to_builtins(steps)
    for message in ({"position": 5}, {"wire_target": plain[1]["target"]}, {"trail": plain}, {"step": 1}):
        panel.set_state(message)
    assert panel.shown.trail == steps
    assert panel.shown.step == 1
    assert panel.get_state(["trail"])["trail"] == plain
    panel.set_state({"wire_target": plain[0]["target"]})
    panel.set_state({"step": 0})
    assert (panel.shown.step, panel.shown.target) == (0, steps[0].target)


@pytest.mark.parametrize(
    ("trait", "wrong", "sentence"),
    [
        ("trail", 5, "is a list of targets"),
        ("trail", [PAIR, ("w5", "no such token at all")], "token"),
        ("trail", [PAIR] * 40, "at most 32"),
        ("step", 3, "There is no step 3"),
        ("target", T.neuron("L9N1"), "layer"),
        ("target", T.attention("L2H1", 2, 5), "after the destination"),
        ("target", T.attention("L2H9", 5, 2), "no head L2H9"),
    ],
)
def test_a_wrong_trail_or_target_is_refused_in_a_sentence(panel, trait, wrong, sentence):
    before = panel.shown
    with pytest.raises(ResidscopeError, match=sentence):
        setattr(panel, trait, wrong)
    assert panel.shown == before


# --- exports ---------------------------------------------------------------------------------------------------------
CODED = [
    ("lens", {}), ("layers", {}), ("heads", {}), ("ranking", {}), ("ranking", {"ranking": "neurons"}),
    ("attention", {"weighting": "contribution", "heads": ["L0H1"]}), ("positions", {"by": "layer"}),
    ("token-lens", {}), ("prompts", {}), ("why", {"prompt": 1}), ("why", {"why": "pairs"}),
]  # fmt: skip


@pytest.mark.parametrize("name", TARGETS)
def test_the_code_of_each_step_gives_what_is_shown(cache, service, name):
    target = service.targets().resolve(TARGETS[name])
    for picture, options in CODED:
        shown = Shown(target, **{"prompt": 0, "top_k": 3, "tab": "why"} | options)
        refused = (picture == "positions" and name not in ("neuron", "up", "direction")) or (
            picture == "attention" and name == "key"
        )
        code = written(service, picture, shown)
        if refused:
            with pytest.raises(ResidscopeError):
                exec(compile(code, "cell", "exec"), {"cache": cache})
            continue
        namespace = {"cache": cache}
        if "direction" in code:
            namespace["direction"] = PROBE
        if picture != "why":
            values = ran(code, **namespace)
            if picture == "attention":
                expected, step = pictured_attention(service, shown)
                assert (np.abs(values - expected) <= step + 1e-6).all()
            else:
                np.testing.assert_allclose(values, pictured(service, picture, shown), atol=1e-6, rtol=1e-6)
            continue
        exec(compile(code, "cell", "exec"), namespace)
        assert namespace["figure"].to_json()
        if shown.why == "pairs" and "residscope.pairs" in code:
            assert namespace["values"].sum() == pytest.approx(float(namespace["attribution"].measured[0]), abs=1e-5)
            target = msgspec.to_builtins(shown.target)
            reply, _ = answered(service, "pairs", target=target, prompt=shown.prompt, k=PAIRED)
            layout = namespace["figure"].layout
            for side, axis in (("query", layout.yaxis), ("key", layout.xaxis)):
                assert list(axis.ticktext) == labels_of({"components": reply[side]})
            continue
        sides = [target]
        if "side=" in code:
            sides = [
                msgspec.structs.replace(target, inner=msgspec.structs.replace(target.inner, side=side))
                for side in ("query", "key")
            ]
        assert len(namespace["values"]) == (1 if target.through else len(sides))
        if target.through:
            sides = [target]
        for values, side in zip(namespace["values"], sides, strict=True):
            _, [rows, *_] = service.reply(Attribute("head", side, shown.prompt))
            np.testing.assert_allclose(values, np.frombuffer(rows, np.float32), atol=1e-6)


def test_the_code_of_both_sides_also_has_what_the_head_moves(cache, service):
    resolve = service.targets().resolve
    trail = [Step(resolve(PAIR), 5), Step(resolve(TARGETS["query"]), 5)]
    shown = Shown(trail[1].target, 0, 5, trail=trail, step=1, tab="why")
    code = service.reply(WriteCode("why", shown))[0].code
    namespace = {"cache": cache}
    exec(compile(code, "cell", "exec"), namespace)
    sources = residscope.attribute(cache, PAIR, by="source", heads=["L2H1"], position=5)
    moved = namespace["attribution"][2]
    assert float(moved.measured[0]) == pytest.approx(float(sources.values[2, 0, 0]), abs=1e-6)
    assert [trace.xaxis for trace in namespace["figure"].data] == ["x", "x2", "x3"]


@pytest.mark.parametrize("name", TARGETS)
def test_titles_and_file_names_name_the_target(cache, service, name):
    from residscope.attribution.target_words import in_words
    from residscope.export.page import file_name

    target = service.targets().resolve(TARGETS[name])
    assert in_words(target) == WORDS[name]
    words = re.sub(r"[^\w-]+", "-", WORDS[name])
    assert file_name("cache", Shown(target), 3).startswith(f"cache-{words[:48].strip('-')}")
    result = residscope.attribute(cache, TARGETS[name], by="layer")
    figure = result.to_plotly()
    title = WORDS[name].replace("“w5” − “w9”", "“w5” minus “w9”")
    assert title in figure.layout.title.text
    units = {"output": "logits", "path": "logits", "neuron": "input of the neuron", "up": "input of the neuron"}
    units["direction"] = "along the direction"
    assert figure.layout.yaxis.title.text == units.get(name, "attention score")
    assert result.to_csv().count("\n") == len(result.labels) + 1


def test_a_page_holds_the_present_step_and_says_what_is_missing(service):
    resolve = service.targets().resolve
    trail = [Step(resolve(PAIR)), Step(resolve(TARGETS["query"]), 5)]
    shown = Shown(trail[1].target, 0, 5, trail=trail, step=1, tab="why", heads=["L1H1"])
    made = snapshot(service.reply, "cache", shown, "view")
    kinds = [entry.ask["kind"] for entry in made.entries]
    assert {"attribute", "head-tokens", "tokens"} <= set(kinds)
    assert all(entry.failure is None for entry in made.entries if entry.ask["kind"] in ("attribute", "head-tokens"))
    sides = [entry for entry in made.entries if (entry.ask.get("target") or {}).get("inner")]
    assert sides
    assert made.selection.trail == trail
    assert "some of the other steps of the trail" in made.lacks
    whole = snapshot(service.reply, "cache", shown, "heads")
    assert "some of the other steps of the trail" not in whole.lacks
    first = msgspec.to_builtins(trail[0].target)
    assert any(entry.ask.get("by") == "head" and entry.ask.get("target") == first for entry in whole.entries)


@pytest.mark.parametrize("name", TARGETS)
def test_many_caches_can_have_a_target_inside_the_model(cache, name, tmp_path):
    file = tmp_path / "many.npz"
    many = residscope.attribute_many([cache, cache], TARGETS[name], progress=False, resume=file)
    one = residscope.attribute(cache, TARGETS[name])
    np.testing.assert_allclose(many.values, torch.cat([one.values, one.values], 1), atol=1e-6)
    assert residscope.attribute_many([cache, cache], TARGETS[name], progress=False, resume=file).labels == one.labels
    changed = PROBE.clone()
    changed[12] += 1e-3
    other = T.direction(changed, at="2_mid") if name == "direction" else T.neuron("L0N0")
    with pytest.raises(ResidscopeError, match="was made with"):
        residscope.attribute_many([cache, cache], other, progress=False, resume=file)
