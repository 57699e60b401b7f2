"""Attention in its three weightings. Expected values: from vectors in the stream, in float64."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from transformer_lens import ActivationCache

import residscope
from residscope import ResidscopeError
from residscope.patterns import weighting as weightings
from residscope.serving.service import Service
from residscope.terms import Score
from residscope.wire.attention import BlendAttention, ReadAttention, ReadThumbnails, ScoreHeads
from residscope.wire.decompositions import MapPositions
from residscope.wire.predictions import ReadTokenLens
from residscope.wire.targets import ChooseTarget, Suggest
from tests.support import tiny
from tests.support.brute import Brute, logit_scale

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
GATES = {"qwen3_5_text": torch.sigmoid, "laguna": torch.nn.functional.softplus, "afmoe": torch.sigmoid}
FAMILIES = ["gpt2", "llama", "llama-multi-query", "gemma2", "granite", "cohere", "qwen3_5_text", "laguna", "afmoe"]
HEADS = {"qwen3_5_text": ["1.0", "L3H3"]}  # only layers 1 and 3 have heads


@pytest.fixture(scope="module", params=FAMILIES)
def small(request):
    model = tiny.boot(request.param)
    return request.param, model, *tiny.run(model)


def wanted(family: str) -> list[tuple[int, int]]:
    return [(1, 0), (3, 3)] if family in HEADS else [(0, 0), (1, 3), (2, 1)]


def vectors(family: str, model, cache, layer: int, head: int) -> torch.Tensor:
    """Return the vectors that a head adds, [batch, destination, source, d_model], in float64."""
    where = f"blocks.{layer}.attn"
    pattern = cache[f"{where}.hook_pattern"][:, head].double()
    v, W_O = cache[f"{where}.hook_v"].double(), model.blocks[layer].attn.W_O.detach().double()
    v = v[:, :, head // (W_O.shape[0] // v.shape[2])]
    read = pattern[..., None] * v[:, None]  # [batch, destination, source, d_head]
    if family in GATES:
        name = next(n for n in ("gate.hook_out", "hook_q_gate", "hook_gate") if f"{where}.{n}" in cache)
        gate = GATES[family](cache[f"{where}.{name}"].double()).flatten(2).unflatten(-1, (W_O.shape[0], -1))[:, :, head]
        read = read * gate[:, :, None]
    return read @ W_O[head]


def test_the_expected_vectors_sum_to_the_heads_own_output(small):
    family, model, _, _, cache = small
    for layer, head in wanted(family):
        z, W_O = cache[f"blocks.{layer}.attn.hook_z"], model.blocks[layer].attn.W_O.detach()
        own = z.flatten(2).unflatten(-1, (W_O.shape[0], -1))[:, :, head].double() @ W_O[head].double()
        torch.testing.assert_close(vectors(family, model, cache, layer, head).sum(2), own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prompt", [None, 2])
def test_each_weighting_follows_its_definition(small, prompt):
    family, model, _, logits, cache = small
    heads = wanted(family)
    scale = logit_scale(logits, cache)

    def shown(maps: torch.Tensor) -> torch.Tensor:
        return maps.mean(0) if prompt is None else maps[prompt]

    expected: dict[str, list] = {"pattern": [], "value": [], "contribution": []}
    for layer, head in heads:
        added = vectors(family, model, cache, layer, head)
        worth = torch.zeros(added.shape[:3], dtype=torch.float64)
        for to in range(7):
            truth = Brute(model, cache, ANSWERS, to, scale)
            for source in range(7):
                worth[:, to, source] = truth.contribution(truth.written(layer, "ln1_post", added[:, to, source]))
        expected["pattern"].append(shown(cache["pattern", layer][:, head].double()))
        expected["value"].append(shown(added.norm(dim=-1)))
        expected["contribution"].append(shown(worth))
    for weighting, maps in expected.items():
        result = residscope.attention(cache, heads, prompt=prompt, weighting=weighting, answers=ANSWERS)
        truth = torch.stack(maps)
        near = 2e-5 * float(truth.abs().max())
        torch.testing.assert_close(
            result.values.double(), truth, atol=near, rtol=2e-4, msg=lambda m, w=weighting: w + m
        )
        assert result.heads == [f"L{layer}H{head}" for layer, head in heads]
        assert any("gate what they have read" in note for note in result.notes) == (
            family in GATES and weighting != "pattern"
        )


@pytest.mark.parametrize("weighting", ["pattern", "value", "contribution"])
def test_computing_a_few_cells_at_a_time_gives_the_same_values(ioi, monkeypatch, weighting):
    heads = ["L3H1", "L23H3", "L3H0", "L29H8"]  # in any order, of any layers
    whole = residscope.attention(ioi.cache, heads, weighting=weighting, answers=ioi.answers)
    assert whole.values.shape == (4, 15, 15)
    monkeypatch.setattr(weightings, "CELLS", 500)
    few = residscope.attention(ioi.cache, heads, weighting=weighting, answers=ioi.answers)
    torch.testing.assert_close(few.values, whole.values, atol=1e-5, rtol=1e-5)
    alone = residscope.attention(ioi.cache, "L3H0", prompt=5, weighting=weighting, answers=ioi.answers)
    every = [residscope.attention(ioi.cache, "L3H0", prompt=i, weighting=weighting, answers=ioi.answers).values[0]
             for i in range(8)]  # fmt: skip
    torch.testing.assert_close(alone.values[0], every[5])
    torch.testing.assert_close(torch.stack(every).mean(0), whole.values[2], atol=1e-5, rtol=1e-5)


def test_contributions_are_the_sources_of_attribute_and_sum_to_the_head(ioi):
    heads = ["L23H3", "L29H0"]
    maps = residscope.attention(ioi.cache, heads, prompt=3, weighting="contribution", answers=ioi.answers)
    brought = residscope.attribute(ioi.cache, ioi.answers, by="source", heads=heads, position="all").values[..., 3]
    torch.testing.assert_close(maps.values, brought.permute(2, 1, 0), atol=1e-5, rtol=0)
    grid = residscope.attribute(ioi.cache, ioi.answers, position="all").grid[..., 3, :]
    torch.testing.assert_close(maps.values.sum(-1), torch.stack([grid[23, 3], grid[29, 0]]), atol=1e-4, rtol=0)


def test_without_answers_the_target_is_the_models_own_two_top_predictions(ioi):
    top = ioi.logits[:, -1].topk(2).indices
    said = residscope.attention(ioi.cache, "L23H3", weighting="contribution", answers=top)
    for given in (None, ioi.logits):
        own = residscope.attention(ioi.cache, "L23H3", weighting="contribution", logits=given)
        torch.testing.assert_close(own.values, said.values)


def test_a_result_says_what_it_is(ioi):
    result = residscope.attention(ioi.cache, ["L23H3", "L29H0"], prompt=0, weighting="value")
    assert result.tokens == ioi.model.to_str_tokens(ioi.tokens[0])
    assert result.meaning == "attention × ‖v W_O‖"
    frame = result.to_frame()
    assert float(frame.loc[("L29H0", 14), 4]) == pytest.approx(float(result.values[1, 14, 4]))
    head, to, source, value = result.top(1)[0]
    assert value == pytest.approx(float(result.values.max()))
    assert f"{head} {result.tokens[to]!r} ({to}) reads {result.tokens[source]!r} ({source})" in repr(result)
    mean = residscope.attention(ioi.cache, "L23H3")
    assert mean.tokens[2:4] == ["∗", " and"]
    assert "mean over prompts" in repr(mean)


def test_the_users_model_and_cache_are_not_changed(ioi):
    before = {name: (id(tensor), tensor._version) for name, tensor in ioi.cache.items()}
    with torch.enable_grad():
        for weighting in ("pattern", "value", "contribution"):
            assert not residscope.attention(ioi.cache, "L23H3", weighting=weighting).values.requires_grad
        assert torch.is_grad_enabled()
    assert before == {name: (id(tensor), tensor._version) for name, tensor in ioi.cache.items()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": "L3H9"}, "no head L3H9"),
        ({"heads": []}, "No head is given"),
        ({"prompt": 8}, "There is no prompt 8"),
        ({"weighting": "colour"}, '"pattern", "value", "contribution"'),
        ({"weighting": "contribution", "answers": " Josephine"}, "2 tokens"),
    ],
    ids=str,
)
def test_impossible_arguments_are_refused_in_a_sentence(ioi, options, said):
    with pytest.raises(ResidscopeError, match=said):
        residscope.attention(ioi.cache, **{"heads": "L3H0"} | options)


def test_missing_or_non_finite_activations_are_named():
    model = tiny.boot("llama")
    held = dict(tiny.run(model)[2].items())
    no_values = ActivationCache({n: t for n, t in held.items() if not n.endswith("hook_v")}, model)
    with pytest.raises(ResidscopeError, match=r"`blocks.1.attn.hook_v` is not in this cache"):
        residscope.attention(no_values, "L1H0", weighting="value")
    assert residscope.attention(no_values, "L1H0").values.shape == (1, 7, 7)
    no_pattern = ActivationCache({n: t for n, t in held.items() if not n.endswith("hook_pattern")}, model)
    with pytest.raises(ResidscopeError, match=r"`blocks.1.attn.hook_pattern` is not in this cache"):
        residscope.attention(no_pattern, "L1H0")
    odd = held["blocks.1.attn.hook_v"].clone()
    odd[2] = torch.nan
    broken = ActivationCache(held | {"blocks.1.attn.hook_v": odd}, model)
    for weighting in ("value", "contribution"):
        with pytest.raises(ResidscopeError, match="NaN or infinity"):
            residscope.attention(broken, "L1H0", weighting=weighting, answers=5)
    assert residscope.attention(broken, "L1H0", prompt=0, weighting="value").values.isfinite().all()


def test_attention_that_changes_its_output_before_w_o_has_a_note():
    for weighting, words in (("value", "changes pattern @ v before"), ("contribution", "is not pattern @ v")):
        result = residscope.attention(tiny.run(tiny.boot("bitnet"))[2], "L1H0", weighting=weighting, answers=5)
        assert any(words in note for note in result.notes)


def test_contributions_of_layers_whose_heads_do_not_add_up_are_refused():
    cache = tiny.run(tiny.boot("bert"))[2]
    assert residscope.attention(cache, "L1H0", weighting="value").values.shape == (1, 7, 7)
    with pytest.raises(ResidscopeError, match="cannot be determined"):
        residscope.attention(cache, "L1H0", weighting="contribution", answers=5)


@pytest.mark.parametrize("family", GATES)
def test_a_filtered_cache_does_not_hide_a_gate(family):
    """Weighted maps are refused if the cache lacks the gate, or `hook_z`, which shows how the gate is applied."""
    model = tiny.boot(family)
    tokens, _, cache = tiny.run(model)
    head = HEADS.get(family, ["L1H0"])[0]
    for lacks in (["hook_z"], ["gate"], ["hook_z", "gate"]):
        with torch.no_grad():
            _, part = model.run_with_cache(
                tokens, names_filter=lambda name, lacks=lacks: not (".attn." in name and any(n in name for n in lacks))
            )
        for weighting in ("value", "contribution"):
            with pytest.raises(ResidscopeError, match="is not in this cache"):
                residscope.attention(part, head, weighting=weighting, answers=5)
        torch.testing.assert_close(residscope.attention(part, head).values, residscope.attention(cache, head).values)


def test_the_users_default_device_changes_nothing():
    """The default device is `meta`: a tensor that is made there by mistake has no values, so reading it fails."""
    cache = tiny.run(tiny.boot("llama"))[2]

    def replies() -> list[object]:
        service = Service(cache)
        target = service.targets().resolve((5, 6))
        asks = [
            ReadAttention(1, 0, target, None, "last", "contribution"), ReadThumbnails(1, target, None, "value"),
            BlendAttention(None, target, 1, "contribution"), MapPositions("layer", target, None),
            ReadTokenLens(["1_pre", "final_post"], 0, 7, target), Suggest(None, "last", 5), ChooseTarget(),
            *(ScoreHeads(score, None) for score in get_args(Score)),
        ]  # fmt: skip
        return [service.reply(ask) for ask in asks]

    expected = replies()
    with torch.device("meta"):
        assert replies() == expected


def test_a_layer_that_is_refused_halfway_adds_nothing_to_the_sum(monkeypatch):
    model = tiny.boot("llama")
    held = dict(tiny.run(model)[2].items())
    odd = held["blocks.1.attn.hook_pattern"].clone()
    odd[:, 3] = torch.nan
    cache = ActivationCache(held | {"blocks.1.attn.hook_pattern": odd}, model)
    monkeypatch.setattr(weightings, "CELLS", 49)  # one head at a time, so the fourth is refused after three were summed
    service = Service(cache)
    reply, [buffer] = service.reply(BlendAttention(None, service.targets().resolve(5), None, "pattern"))
    assert (reply.heads, len(reply.notes)) == (8, 1)
    mean = torch.cat([held[f"blocks.{layer}.attn.hook_pattern"].mean(0) for layer in (0, 2)]).mean(0)
    found = torch.zeros(7, 7)
    found[torch.ones(7, 7, dtype=torch.bool).tril()] = torch.frombuffer(bytearray(buffer), dtype=torch.float32)
    assert (reply.part.wide, reply.part.triangle) == (True, True)
    torch.testing.assert_close(found, mean)
