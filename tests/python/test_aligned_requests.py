"""Requests of the views about two runs of different lengths whose positions are paired by token.

The replies are compared with `residscope.compare(…, align="by token")`, or with values computed by hand from
TransformerLens' cache and weights.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import torch

import residscope
from residscope import ResidscopeError
from residscope.serving.service import Service
from residscope.terms import Against
from residscope.wire.comparisons import Compare, CompareAttention, CompareTokenLens, PairPositions
from residscope.wire.shown import Shown, WriteCode
from tests.python.test_compared_requests import maps_of
from tests.support import tiny

PAIR = ("w5", "w9")
ALIGNED = Against("longer", 0, align="by token")
BESIDE = {0: 0, 1: 1, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7}
"""Expected pairs: position in the shorter run, position in the longer run, which has one more token at position 2."""


@pytest.fixture
def run(monkeypatch):
    """A run of three prompts, and a run of the first prompt with one more token."""
    model = tiny.boot("llama")
    tokens, _, cache = tiny.run(model)
    with_more = torch.cat([tokens[:1, :2], tokens[:1, 4:5] + 1, tokens[:1, 2:]], 1)
    with torch.no_grad():
        _, longer = model.run_with_cache(with_more)
    names = {"cache": cache, "longer": longer, "model": model, "residscope": residscope}
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: types.SimpleNamespace(user_ns=names))
    return types.SimpleNamespace(model=model, tokens=tokens, cache=cache, longer=longer, names=names)


def answer_of(service: Service, request: Any) -> tuple[Any, Any]:
    """Return a reply and its buffers, both typed `Any`, because each kind of reply has other fields."""
    return service.reply(request)


def test_the_pairs_are_the_tokens_that_both_runs_have(run):
    service = Service(run.cache)
    reply, _ = answer_of(service, PairPositions(ALIGNED, 0))
    assert {pair.first: pair.second for pair in reply.pairs} == BESIDE
    assert (reply.how, reply.first_length, reply.second_length, reply.different) == ("token", 7, 8, 0)
    unpaired, _ = answer_of(service, PairPositions(Against("longer", 0), 0))
    assert (unpaired.how, unpaired.pairs) == ("none", None)
    other, _ = answer_of(service, PairPositions(Against(None, 1), 0))
    differ = int((run.tokens[0] != run.tokens[1]).sum())
    assert (other.how, other.pairs, other.different) == ("index", None, differ)


def test_without_an_alignment_the_failure_names_the_button_that_aligns(run):
    service, against = Service(run.cache), Against("longer", 0)
    target = service.targets().resolve(PAIR)
    asks = [
        Compare("head", target, against, 0, 3),
        CompareAttention(1, 2, against, 0),
        CompareTokenLens(["1_pre"], 0, 3, target, against, 2, 0),
    ]
    for ask in asks:
        with pytest.raises(residscope.ResidscopeError, match=r"7 and 8 tokens.*“Align by token”") as error:
            answer_of(service, ask)
        assert error.value.code == "align"
    answer_of(service, Compare("head", target, against, 0))  # the last tokens can be compared without an alignment


def test_a_token_without_a_partner_is_refused(run):
    service = Service(run.longer)
    run.names["shorter"] = run.cache
    target = service.targets().resolve(PAIR)
    with pytest.raises(residscope.ResidscopeError, match=r"Position 2 .* select a token that is matched") as error:
        answer_of(service, Compare("head", target, Against("shorter", 0, align="by token"), 0, 2))
    assert error.value.code == "aligned"


@pytest.mark.parametrize("position", [1, 3, "last"])
@pytest.mark.parametrize("by", ["head", "layer", "accumulated"])
def test_the_charts_are_those_of_compare(run, by, position):
    service = Service(run.cache)
    reply, buffers = answer_of(service, Compare(by, service.targets().resolve(PAIR), ALIGNED, 0, position))
    truth = residscope.compare(run.cache, run.longer, PAIR, by=by, position=position, prompt=0, align="by token")
    parts = [truth.first.values, truth.second.values, truth.written, truth.read]
    for buffer, part in zip(buffers, parts, strict=True):
        values = np.frombuffer(buffer, np.float32)
        np.testing.assert_allclose(values[~np.isnan(values)], part[:, 0], atol=1e-5)
    assert reply.difference.measured == pytest.approx(float(truth.measured), abs=1e-6)


def test_the_attention_is_that_of_both_caches_at_the_pairs(run):
    reply, buffers = answer_of(Service(run.cache), CompareAttention(1, 2, ALIGNED, 0))
    assert {pair.first: pair.second for pair in reply.pairs} == BESIDE
    first, second, difference = maps_of(reply, buffers)
    places = list(BESIDE.values())
    truth = run.cache["pattern", 1][0, 2], run.longer["pattern", 1][0, 2][places][:, places]
    for shown, expected in zip((first, second), truth, strict=True):
        np.testing.assert_allclose(shown, expected, atol=1e-6)
    np.testing.assert_allclose(difference, truth[1] - truth[0], atol=1e-6)
    assert any("position 2 of the second run" in note for note in reply.notes)


def test_the_token_lens_of_both_runs_by_hand(run):
    service, model = Service(run.cache), run.model
    points = ["1_pre", "final_post"]
    target = service.targets().resolve(PAIR)
    reply, _ = answer_of(service, CompareTokenLens(points, 1, 5, target, ALIGNED, 3, 0))
    assert reply.beside == [BESIDE[at] for at in range(1, 5)]
    answer = model.tokenizer.convert_tokens_to_ids(PAIR[0])
    weight, unembed = model.ln_final.weight.detach().double(), model.W_U.detach().double()

    def probabilities(cache, point, at):
        layers = model.cfg.n_layers
        stream = (cache["resid_pre", 1] if point == "1_pre" else cache["resid_post", layers - 1])[0, at].double()
        scale = (stream.square().mean() + model.cfg.eps).sqrt()
        return ((stream / scale * weight) @ unembed).softmax(-1)

    for row, point in enumerate(points):
        for column, at in enumerate(range(1, 5)):
            cells = (reply.first[row][column], run.cache, at), (reply.second[row][column], run.longer, BESIDE[at])
            for cell, cache, place in cells:
                expected = probabilities(cache, point, place)
                assert cell.answer == pytest.approx(float(expected[answer]), abs=1e-6)
                assert cell.rank == int((expected > expected[answer]).sum()) + 1
                assert cell.probabilities == pytest.approx(expected.topk(3).values.tolist(), abs=1e-6)


def test_the_token_lens_has_no_cell_where_the_second_run_has_no_paired_token(run):
    run.names["shorter"] = run.cache
    service = Service(run.longer)
    against = Against("shorter", 0, align="by token")
    target = service.targets().resolve(PAIR)
    reply, _ = answer_of(service, CompareTokenLens(["1_pre"], 0, 8, target, against, 2, 0))
    assert reply.beside == [0, 1, None, 2, 3, 4, 5, 6]
    assert [cell is None for cell in reply.second[0]] == [at == 2 for at in range(8)]
    whole = residscope.compare_token_lens(run.longer, run.cache, PAIR, prompt=0, with_prompt=0, align="by token")
    row = whole.points.index("1_pre")
    shown = [b.answer - a.answer for a, b in zip(reply.first[0], reply.second[0], strict=True) if b is not None]
    assert shown == pytest.approx(whole.answer_probability[row].tolist(), abs=1e-6)


@pytest.mark.parametrize("shown_run", ["first", "second", "difference"])
@pytest.mark.parametrize("picture", ["lens", "layers", "heads", "runs", "token-lens"])
def test_the_code_gives_what_is_shown(run, picture, shown_run):
    service = Service(run.cache, "cache")
    target = service.targets().resolve(PAIR)
    shown = Shown(target, 0, 3, top_k=3, against=ALIGNED, run=shown_run)
    code = answer_of(service, WriteCode(picture, shown))[0].code
    is_plain = picture == "token-lens" and shown_run == "first"
    assert ('align="by token"' in code) != is_plain
    namespace = dict(run.names)
    exec(compile(code, "cell", "exec"), namespace)
    assert namespace["figure"].to_json()
    if picture == "heads":
        _, [first, second, written, read] = answer_of(service, Compare("head", target, ALIGNED, 0, 3))
        floats = [np.frombuffer(buffer, np.float32) for buffer in (first, second, written, read)]
        rows = {"first": floats[0], "second": floats[1], "difference": floats[2] + floats[3]}[shown_run]
        np.testing.assert_allclose(namespace["values"].flatten(), rows[: namespace["values"].numel()], atol=1e-5)
    if picture == "token-lens" and shown_run != "first":
        reply, _ = answer_of(service, CompareTokenLens(["1_pre"], 0, 7, target, ALIGNED, 5, 0))
        values = namespace["values"][namespace["attribution"].points.index("1_pre")]
        expected = (
            [cell.probabilities for cell in reply.second[0]]
            if shown_run == "second"
            else [b.answer - a.answer for a, b in zip(reply.first[0], reply.second[0], strict=True)]
        )
        np.testing.assert_allclose(values, expected, atol=1e-5)


def measured(service: Service, against: Against, of: str = "heads", prompt: int | None = 0) -> tuple[Any, Any]:
    """Return the reply to a request for the effects of another run's activations, after all effects are measured."""
    from residscope.serving import turns
    from residscope.wire.causes import MeasureEffects

    target = service.targets().resolve(PAIR)
    ask = MeasureEffects(target, of, "other", against, prompt)
    for _ in range(10_000):  # turns are short, and the machine may be busy
        with turns.granted():
            reply, buffers = answer_of(service, ask)
        if reply.state == "done":
            return reply, [np.frombuffer(buffer, "f4") for buffer in buffers]
    raise AssertionError("The effects were not measured.")


def test_patches_from_a_run_whose_tokens_are_shifted_are_refused(run):
    """Position 3 of the shifted run is matched with position 2. A patch by index would put in another token."""
    model, tokens = run.model, run.tokens
    shifted = torch.cat([tokens[:1, :2], tokens[:1, 4:5] + 1, tokens[:1, 2:-1]], 1)  # the same length, shifted by one
    other = tokens[:1].clone()
    other[0, 3] = (other[0, 3] + 7) % 60 + 3  # another token in the same place
    with torch.no_grad():
        run.names["shifted"], run.names["other"] = (model.run_with_cache(ids)[1] for ids in (shifted, other))
        one = model.run_with_cache(tokens[:1])[1]
        run.names["several"] = model.run_with_cache(torch.cat([tokens[1:2], other]))[1]
    run.names["one"] = one
    service = Service(one)
    for of in ("heads", "stream"):
        with pytest.raises(ResidscopeError, match="position 2 is matched with position 3 of the other run") as error:
            measured(service, Against("shifted", 0, align="by token"), of)
        assert error.value.code == "aligned"
        # In this run, each position is matched with the same position.
        aligned, values = measured(service, Against("other", 0, align="by token"), of)
        plain, expected = measured(service, Against("other", 0), of)
        assert aligned.state == plain.state == "done"
        _, from_end = measured(service, Against("several", -1, align="by token"), of)
        for found, wanted in zip(
            [*values, *from_end], [*expected, *expected], strict=True
        ):  # batches depend on the time, so rounding differs
            np.testing.assert_allclose(found, wanted, atol=1e-5)
