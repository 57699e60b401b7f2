"""Requests of the views about two runs. A reply is that of `residscope.compare` for the caches as they are now.

Expected: `residscope.compare`, TransformerLens' patterns, and for one cell a value computed by hand from the cache.
"""

from __future__ import annotations

import types

import msgspec
import numpy as np
import pytest
import torch

import residscope
from residscope.cache.component_names import name as head_name
from residscope.hosts.panel import Panel
from residscope.serving.dispatcher import Dispatcher
from residscope.serving.service import Service
from residscope.terms import Against
from residscope.wire.caches import ListCaches
from residscope.wire.comparisons import Compare, CompareAttention
from residscope.wire.protocol import Question
from residscope.wire.shown import Shown, WriteCode
from tests.support import recorded, tiny

PAIR = ("w5", "w9")
REST = {"without": [], "replaced_by": "zero", "align": None}
"""The fields of `panel.against` except `cache` and `prompt`, with their defaults."""


@pytest.fixture
def run(monkeypatch):
    """A tiny model and two of its runs, of three prompts each, in the user's namespace."""
    model = tiny.boot("llama")
    tokens, logits, cache = tiny.run(model)
    with torch.no_grad():
        _, other = model.run_with_cache(tokens.roll(1, 0))
    names = {"cache": cache, "runs": {"clean": other}, "model": model, "tokens": tokens, "residscope": residscope}
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns=names))
    return types.SimpleNamespace(model=model, tokens=tokens, logits=logits, cache=cache, other=other, names=names)


def asked(service: Service, by: str, against: Against, prompt=None, position="last", norm="frozen"):
    target = service.targets().resolve(PAIR)
    reply, buffers = service.reply(Compare(by, target, against, prompt, position, norm))
    return reply, [np.frombuffer(buffer, np.float32) for buffer in buffers]


CASES = {
    "another prompt": (Against(None, 1), 2, {"prompt": 2, "with_prompt": 1}),
    "another cache": (Against('runs["clean"]'), 2, {"prompt": 2}),
    "another cache's prompt": (Against('runs["clean"]', 0), 2, {"prompt": 2, "with_prompt": 0}),
    "another cache, all prompts": (Against('runs["clean"]'), None, {}),
}


@pytest.mark.parametrize("position", ["last", 3])
@pytest.mark.parametrize(("by", "norm"), [("head", "frozen"), ("layer", "frozen"), ("accumulated", "recomputed")])
@pytest.mark.parametrize("case", CASES)
def test_the_reply_equals_compare(run, case, by, norm, position):
    against, prompt, options = CASES[case]
    other = None if against.cache is None else run.other
    truth = residscope.compare(run.cache, other, PAIR, by=by, norm=norm, position=position, **options)
    reply, buffers = asked(Service(run.cache), by, against, prompt, position, norm)
    parts = [truth.first.values, truth.second.values, truth.written, truth.read]
    for buffer, part in zip(buffers, parts, strict=True):
        np.testing.assert_allclose(buffer[~np.isnan(buffer)], part.mean(-1), atol=1e-5)
    for name, of in (("first", truth.first), ("second", truth.second), ("difference", truth)):
        told = getattr(reply, name)
        assert told.measured == pytest.approx(float(of.measured.mean()), abs=1e-6)
        assert told.constant == pytest.approx(float(of.constant.mean()), abs=1e-6)
        assert abs(told.worst) <= told.tolerance
    assert reply.read == pytest.approx(float(truth.read_total.mean()), abs=1e-5)
    rows = np.nansum(buffers[2] + buffers[3]) if by != "accumulated" else (buffers[2] + buffers[3])[-1]
    assert rows + reply.difference.constant == pytest.approx(reply.difference.measured, abs=1e-4)


def test_a_cell_of_the_map_is_z_times_the_weights_of_each_run(run):
    """Expected: computed in float64. (The final norm of this model only scales.)"""
    _, [first, second, written, read] = asked(Service(run.cache), "head", Against('runs["clean"]'), 0)
    a, b = (run.model.tokenizer.convert_tokens_to_ids(word) for word in PAIR)
    column = (run.model.W_U[:, a] - run.model.W_U[:, b]).detach().double() * run.model.ln_final.weight.detach().double()
    end = run.tokens.shape[1] - 1
    for rows, cache in ((first, run.cache), (second, run.other)):
        z = cache["z", 1][0, end, 2].double() @ run.model.W_O[1, 2].detach().double()
        by_hand = float(z @ column / cache["ln_final.hook_scale"][0, end].double())
        assert rows[run.model.cfg.n_heads + 2] == pytest.approx(by_hand, abs=1e-5)
    np.testing.assert_allclose(second - first, written + read, atol=1e-5)


@pytest.mark.parametrize(
    ("against", "prompt", "code", "words"),
    [
        (Against("gone"), 0, "against", "no activation cache `gone`"),
        (Against("model"), 0, "against", "no activation cache `model`"),
        (Against("__import__('os').getcwd()"), 0, "against", "no activation cache"),
        (Against(None, 1), None, "against", "choose a prompt"),
        (Against(), 0, "against", "neither another cache nor another prompt"),
        (Against(None, 9), 0, "prompt", "There is no prompt 9"),
        (Against("large"), 0, "compare-shapes", "different shapes"),
        (Against("short"), None, "against", "choose one prompt here.*`panel.against = "),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_with_the_reason(run, against, prompt, code, words):
    run.names["large"] = recorded.run()[1]  # a model with fewer heads
    with torch.no_grad():
        run.names["short"] = run.model.run_with_cache(run.tokens[:1])[1]
    with pytest.raises(residscope.ResidscopeError, match=words) as error:
        asked(Service(run.cache), "head", against, prompt)
    assert error.value.code == code


def test_a_reply_is_memoised_until_either_cache_changes(run, monkeypatch):
    from residscope.serving import answer_compare

    made = []
    usual = answer_compare._reply
    monkeypatch.setattr(answer_compare, "_reply", lambda *given: made.append(1) or usual(*given))
    service, against = Service(run.cache), Against('runs["clean"]')
    first = asked(service, "head", against, 0)[1]
    np.testing.assert_array_equal(first, asked(service, "head", against, 0)[1])
    assert len(made) == 1
    for cache, place in ((run.other, 1), (run.cache, 0)):
        with torch.no_grad():
            _, third = run.model.run_with_cache(run.tokens.roll(2, 0))
            for name, tensor in cache.cache_dict.items():
                tensor.copy_(third[name])
        after = asked(service, "head", against, 0)[1]
        assert not np.allclose(after[place], first[place], equal_nan=True)
        truth = residscope.compare(run.cache, run.other, PAIR, prompt=0)
        np.testing.assert_allclose(after[0][: truth.parts], truth.first.values[: truth.parts, 0], atol=1e-5)
        np.testing.assert_allclose(after[1][: truth.parts], truth.second.values[: truth.parts, 0], atol=1e-5)
    run.names["runs"]["clean"] = run.cache  # now the name leads to another cache
    np.testing.assert_allclose(*asked(service, "head", against, 0)[1][:2], equal_nan=True)
    count = len(made)
    run.names["runs"]["clean"] = run.other
    asked(service, "head", against, 0)
    assert len(made) == count  # neither cache has changed since


def test_a_reply_does_not_keep_the_other_cache_alive(run):
    import gc
    import weakref

    reference = weakref.ref(run.other)
    asked(Service(run.cache), "head", Against('runs["clean"]'), 0)
    del run.other
    run.names["runs"].clear()
    gc.collect()
    assert reference() is None


def test_a_panel_lists_the_caches_that_it_can_be_compared_with(run):
    panel = Panel(Service(run.cache, "cache"), PAIR)
    reply, _ = panel._reply(Question("1", ListCaches()))
    assert [row.names for row in reply.caches] == [["cache"], ['runs["clean"]']]
    panel.close()


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (1, {"cache": None, "prompt": 1}),
        ('runs["clean"]', {"cache": 'runs["clean"]', "prompt": None}),
        (('runs["clean"]', 2), {"cache": 'runs["clean"]', "prompt": 2}),
        ({"prompt": 0}, {"cache": None, "prompt": 0}),
        (Against("later"), {"cache": "later", "prompt": None}),  # the form in which a view restores a selection
        (None, None),
    ],
)
def test_against_can_be_set_from_python_in_several_forms(run, given, plain):
    panel = Panel(Service(run.cache, "cache"), PAIR)
    panel.against = given
    assert panel.against == (None if plain is None else plain | REST)
    assert panel.shown.against == msgspec.convert(plain, Against | None)
    panel.close()


def test_against_takes_a_cache_itself(run):
    panel = Panel(Service(run.cache, "cache"), PAIR)
    panel.against = run.other
    assert panel.against == {"cache": 'runs["clean"]', "prompt": None} | REST
    panel.against = run.other, 1
    assert panel.against == {"cache": 'runs["clean"]', "prompt": 1} | REST
    panel.close()


@pytest.mark.parametrize("given", [9, "nothing", {"cache": 3}, object(), 1.5, (1, 2, 3), ('runs["clean"]', "x")])
def test_wrong_values_of_against_are_refused(run, given):
    panel = Panel(Service(run.cache, "cache"), PAIR)
    with pytest.raises(residscope.ResidscopeError):
        panel.against = given
    assert panel.against is None
    panel.close()


@pytest.mark.parametrize("shown_run", ["first", "second", "difference"])
@pytest.mark.parametrize("picture", ["lens", "layers", "heads", "ranking", "runs"])
@pytest.mark.parametrize("case", CASES)
def test_the_code_gives_what_is_shown(run, case, picture, shown_run):
    against, prompt, _ = CASES[case]
    service = Service(run.cache, "cache")
    target = service.targets().resolve(PAIR)
    shown = Shown(target, prompt, norm="recomputed", top_k=3, against=against, run=shown_run)
    code = service.reply(WriteCode(picture, shown))[0].code
    assert "stands for" not in code
    namespace = dict(run.names)
    exec(compile(code, "cell", "exec"), namespace)
    assert namespace["figure"].to_json()
    values = namespace["values"]
    by = {"lens": "accumulated", "layers": "layer"}.get(picture, "head")
    reply, [first, second, written, read] = asked(service, by, against, prompt, norm="recomputed")
    rows = {"first": first, "second": second, "difference": written + read}[shown_run]
    if picture == "lens":
        np.testing.assert_allclose(values[0], first + reply.first.constant, atol=1e-5)
        np.testing.assert_allclose(values[1], second + reply.second.constant, atol=1e-5)
    elif picture == "runs":
        shape = run.model.cfg.n_layers, run.model.cfg.n_heads
        for map, of in zip(values, (first, second), strict=True):
            np.testing.assert_allclose(map, of[: shape[0] * shape[1]].reshape(shape), atol=1e-5)
    elif picture == "layers":
        np.testing.assert_allclose(values[0], first, atol=1e-5)
        np.testing.assert_allclose(values[1], second, atol=1e-5)
    else:
        shape = run.model.cfg.n_layers, run.model.cfg.n_heads
        heads = rows[: shape[0] * shape[1]]
        if picture == "heads":
            np.testing.assert_allclose(values, heads.reshape(shape), atol=1e-5)
        elif shown_run == "difference":
            strongest = np.sort(np.abs(heads))[::-1][:6]  # heads without a difference are not listed
            np.testing.assert_allclose(np.abs(values), strongest[: len(values)], atol=1e-5)
            assert len(values) == 6 or np.abs(strongest[len(values) :]).max() < 1e-6
            check_rows(namespace["figure"], heads, np.argsort(-np.abs(heads), kind="stable")[: len(values)])
        else:
            order = np.sort(heads)
            expected = [*(v for v in order[::-1][:3] if v > 0), *(v for v in order[:3] if v < 0)]
            np.testing.assert_allclose(values, expected, atol=1e-5)
            order = [*np.argsort(-heads)[:3], *np.argsort(heads)[:3]]
            check_rows(namespace["figure"], heads, [n for n in order if heads[n] != 0][: len(values)])


def check_rows(figure, heads: np.ndarray, order) -> None:
    """Check that the figure lists these heads in this order, as the panel does (`widgets/src/state/ranked.ts`)."""
    [bars] = figure.data
    np.testing.assert_allclose(bars.x, heads[order], atol=1e-5)
    labels = [head_name(n // 4, n % 4) for n in order]
    same = [n for n, label in enumerate(figure.layout.yaxis.ticktext) if label == labels[n]]
    # Rounding may change the order of two heads with equal values.
    assert all(n in same or np.isclose(np.abs(heads), abs(bars.x[n]), atol=1e-5).sum() > 1 for n in range(len(labels)))


def maps_of(reply, buffers) -> list[np.ndarray]:
    """Return the three maps of a reply about a short prompt."""
    found = []
    for part, buffer in zip(reply.parts, buffers, strict=True):
        assert part.wide
        values = np.frombuffer(buffer, np.float32)
        square = np.zeros((reply.positions, reply.positions), np.float32)
        if part.triangle:
            square[np.tril_indices(reply.positions)] = values
        else:
            square = values.reshape(square.shape)
        found.append(square)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_attention_of_a_head_in_both_runs_is_that_of_their_caches(run, case):
    against, prompt, options = CASES[case]
    reply, buffers = Service(run.cache).reply(CompareAttention(1, 2, against, prompt))
    first, second, difference = maps_of(reply, buffers)
    other = run.cache if against.cache is None else run.other
    at = (prompt, options.get("with_prompt", prompt))
    truth = [
        cache["pattern", 1][:, 2].mean(0) if place is None else cache["pattern", 1][place, 2]
        for cache, place in zip((run.cache, other), at, strict=True)
    ]
    np.testing.assert_allclose(first, truth[0], atol=1e-6)
    np.testing.assert_allclose(second, truth[1], atol=1e-6)
    np.testing.assert_allclose(difference, truth[1] - truth[0], atol=1e-6)
    same = case == "another cache's prompt"  # prompt 0 of the other cache is prompt 2 of this one
    assert same or any("different tokens" in note for note in reply.notes)


@pytest.mark.parametrize("case", CASES)
def test_the_code_of_the_attention_in_both_runs_gives_the_maps_that_are_shown(run, case):
    against, prompt, _ = CASES[case]
    service = Service(run.cache, "cache")
    shown = Shown(service.targets().resolve(PAIR), prompt, heads=["L1H2", "L0H3"], tab="runs", against=against)
    code = service.reply(WriteCode("attention-of-runs", shown))[0].code
    namespace = dict(run.names)
    exec(compile(code, "cell", "exec"), namespace)
    for at, (layer, head) in enumerate(((1, 2), (0, 3))):
        maps = maps_of(*service.reply(CompareAttention(layer, head, against, prompt)))
        for values, expected in zip(namespace["values"], maps, strict=True):
            np.testing.assert_allclose(values[at], expected, atol=1e-6)
    np.testing.assert_allclose(namespace["figure"].data[0].z, namespace["values"][2][0], atol=1e-6)


def test_the_code_of_an_effect_is_that_of_the_comparison_if_that_is_shown(run):
    """Effects are those of the first run, so the views show none for the second run, or for the difference."""
    service = Service(run.cache, "cache")
    shown = Shown(service.targets().resolve(PAIR), against=Against('runs["clean"]'), effect="total")
    for picture in ("heads", "ranking", "runs"):
        for at in ("first", "second", "difference"):
            code = service.reply(WriteCode(picture, msgspec.structs.replace(shown, run=at)))[0].code
            assert ("residscope.ablate(" in code) == (at == "first")
            assert ("residscope.compare(" in code) == (at != "first")
        code = service.reply(WriteCode(picture, msgspec.structs.replace(shown, run="first", score="previous")))[0].code
        assert "residscope.ablate(" not in code


def test_a_block_of_a_long_prompts_map_shows_its_largest_difference(run, monkeypatch):
    from residscope.patterns import downsampling

    monkeypatch.setattr(downsampling, "MAX_SENT", 16)  # so that seven tokens give blocks of 2 × 2
    reply, buffers = Service(run.cache).reply(CompareAttention(1, 2, Against(None, 1), 0))
    assert reply.step == 2
    whole = np.pad((run.cache["pattern", 1][1, 2] - run.cache["pattern", 1][0, 2]).numpy(), (0, 1))
    blocks = whole.reshape(4, 2, 4, 2).swapaxes(1, 2).reshape(4, 4, 4)
    sent = np.frombuffer(buffers[2], np.float32)
    square = np.zeros((4, 4))
    square[np.tril_indices(4)] = sent
    # In the second row, which attends to two tokens, both differences are equally large, with opposite signs.
    np.testing.assert_allclose(np.abs(square), np.abs(blocks).max(-1), atol=1e-6)
    assert np.isclose(blocks, square[..., None], atol=1e-6).any(-1).all()


def test_attention_that_cannot_be_compared_cell_by_cell_is_refused(run, monkeypatch):
    from residscope.serving import answer_run_maps

    with torch.no_grad():
        run.names["short"] = run.model.run_with_cache(run.tokens[:, :5])[1]
    service = Service(run.cache)
    for against, code in ((Against("short"), "align"), (Against("gone"), "against"), (Against(), "against")):
        with pytest.raises(residscope.ResidscopeError) as error:
            service.reply(CompareAttention(1, 2, against, 0))
        assert error.value.code == code
    with pytest.raises(residscope.ResidscopeError, match="no head L9H2"):
        service.reply(CompareAttention(9, 2, Against(None, 1), 0))
    monkeypatch.setattr(answer_run_maps, "MOST_POSITIONS", 6)
    with pytest.raises(residscope.ResidscopeError, match="not compared on screen"):
        service.reply(CompareAttention(1, 2, Against(None, 1), 0))


def test_a_page_holds_the_comparison_that_is_shown(run):
    from residscope.export.snapshot import snapshot

    service = Service(run.cache, "cache")
    target = service.targets().resolve(PAIR)
    shown = Shown(target, 0, heads=["L1H2"], tab="runs", against=Against('runs["clean"]'))
    held = snapshot(service.reply, "cache", shown, "view")
    compared = [entry.ask["by"] for entry in held.entries if entry.ask["kind"] == "compare" and entry.reply]
    assert sorted(compared) == ["accumulated", "head", "layer"]
    assert [entry.ask["head"] for entry in held.entries if entry.ask["kind"] == "compare-attention"] == [2]


def test_a_sidebar_gets_the_comparison_too(run):
    dispatcher = Dispatcher()
    listed, _ = dispatcher.answer({"id": "1", "ask": {"kind": "caches"}})
    ref = listed["reply"]["caches"][0]["ref"]
    target = msgspec.to_builtins(Service(run.cache).targets().resolve(PAIR))
    ask = {"kind": "compare", "by": "head", "target": target, "prompt": 0, "against": {"cache": 'runs["clean"]'}}
    answer, buffers = dispatcher.answer({"id": "2", "ask": ask, "cache": ref})
    truth = residscope.compare(run.cache, run.other, PAIR, prompt=0)
    assert answer["reply"]["difference"]["measured"] == pytest.approx(float(truth.measured[0]), abs=1e-6)
    assert len(buffers) == 4
