"""Attention scores as targets: the rows of each side (query, key) sum to the score.

Each row equals the change of the score by an intervention on its component.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import residscope
from residscope import ResidscopeError, targets
from residscope.attribution.attention_score import HeadScore
from residscope.cache.view import CacheView
from residscope.terms import AttentionScore, Component
from tests.support import score_families, tiny

FAMILIES = (
    "gpt2", "llama", "gptj", "gpt_neox", "bloom", "qwen3", "olmo2", "gemma2", "cohere2", "gpt_oss", "hunyuan_v1_dense",
    "granite", "qwen3_next",
)  # fmt: skip
SIDES = ("query", "key")


def scored(cache, side="query", versus=4, layer=2, by="layer", **options):
    return residscope.attribute(cache, targets.attention((layer, 1), 6, 5, versus, side), by=by, **options)


def gap(result):
    """Return the largest unexplained value, relative to the largest row."""
    return float((result.values.sum(0) + result.constant - result.measured).abs().max() / result.values.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_both_sides_sum_to_the_score_and_a_row_is_the_change_without_its_component(family):
    found = score_families.score_columns(family)
    assert max(found["sum"].values()) <= 1e-5
    assert max(found["rows"], found["intervention"]) <= 1e-5
    assert found["compared"] >= 6


@pytest.mark.parametrize("family", ["youtu", "zamba2", "gemma4_text-shared"])
def test_scores_that_cannot_be_attributed_are_refused_in_a_sentence(family):
    found = score_families.score_columns(family)
    assert len(found.get("refused", found.get("refused in a layer", ""))) > 40


@pytest.mark.parametrize("layer", [2, 3])
def test_a_factor_of_the_queries_is_that_of_their_destination(layer):
    """In Llama 4, layers without rotary positions multiply queries by a factor that depends on their position."""
    model = copy.deepcopy(tiny.boot("llama4_text"))
    for block in model.blocks:  # by default, the factor is 1 before position 8192
        block.attn.original_component.floor_scale, block.attn.original_component.attn_scale = 2, 0.7
    tokens, _, cache = tiny.run(model)
    found = score_families._columns(model, tokens, cache, layer)
    assert max(*found["sum"].values(), found["rows"], found["intervention"]) <= 1e-5
    told = [note for note in found["notes"] if "differs between destinations" in note]
    assert len(told) == (layer == 3)
    if layer == 3:
        with pytest.raises(ResidscopeError, match="fewer than 3 sources"):
            residscope.attribute(cache, targets.attention("L3H1", 1, 0, versus=None))


def test_a_table_of_biases_by_distance_as_in_t5_is_refused():
    model = tiny.boot("gpt2")
    table = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    place = torch.arange(7)
    biases = table[:, (place[:, None] - place[None]).clamp(min=0)]
    with model.hooks([("blocks.2.attn.hook_attn_scores", lambda scores, **_: scores + biases)]):
        _, _, cache = tiny.run(model)
    with pytest.raises(ResidscopeError, match=r"none of the rules .*no table of biases by distance, as in T5"):
        scored(cache)
    assert gap(scored(cache, layer=1)) <= 1e-5


@pytest.mark.parametrize("versus", ["most", "mean", None])
def test_sums_of_pairs_are_the_rows_of_each_side(versus):
    _, _, cache = tiny.run(tiny.boot("gpt2"))
    found = residscope.pairs(cache, targets.attention("2.1", 6, 5, versus))
    biases = Component("biases")
    torch.testing.assert_close(found.values.sum((0, 1)), found.measured, atol=1e-5, rtol=1e-5)
    for side, names, axis in (("query", found.query, 1), ("key", found.key, 0)):
        rows = scored(cache, side, versus, by="head")
        margins = dict(zip(names, found.values.sum(axis), strict=True))
        torch.testing.assert_close(margins.pop(biases), rows.constant, atol=1e-5, rtol=1e-5)
        known = dict(zip(rows.components, rows.values, strict=True))
        for component, margin in margins.items():
            torch.testing.assert_close(margin, known[component], atol=1e-5, rtol=1e-5)
    frame = found.to_frame(0)
    assert frame.loc["L1H0", "0_mlp_out"] == pytest.approx(float(found.of(0)[found.query_labels.index("L1H0"),
                                                                   found.key_labels.index("0_mlp_out")]))  # fmt: skip
    assert found.top(1, 0)[0][2] == pytest.approx(float(found.of(0).flatten()[found.of(0).abs().argmax()]))
    assert "score" in str(found.to_plotly(0, k=4).to_dict()["layout"]["title"])


@pytest.mark.parametrize("by", ["layer", "head", "accumulated"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_first_position_reads_only_itself_so_nothing_makes_it_differ_from_its_mean(family, side, by):
    found = residscope.attribute(tiny.run(tiny.boot(family))[2], targets.attention("2.1", 0, 0, "mean", side), by=by)
    assert not any(part.any() for part in (found.values, found.constant, found.measured))


def test_the_demo_models_strongest_head_reads_the_repeated_name_by_these_components(ioi):
    facts = HeadScore(CacheView(ioi.cache), AttentionScore(23, 3, 14, 10)).facts(0)
    assert (facts.destination, facts.source, facts.versus) == (14, 10, 0)
    assert (round(facts.attention, 2), round(facts.versus_attention, 2)) == (0.60, 0.22)
    raw = residscope.attribute(ioi.cache, targets.attention("L23H3", 14, 10, None))
    assert raw.measured[0] == pytest.approx(3.1851, abs=1e-4)
    expected = {
        "query": {"L21H5": -1.13, "21_mlp_out": 0.71, "18_mlp_out": 0.68, "L22H4": 0.62},
        "key": {"11_mlp_out": -2.00, "18_mlp_out": 0.84, "22_mlp_out": 0.61, "L16H1": -0.39},
    }
    for side, rows in expected.items():
        result = residscope.attribute(ioi.cache, targets.attention("L23H3", 14, 10, side=side))
        assert result.measured[0] == pytest.approx(facts_ratio(facts), abs=1e-4)
        known = dict(zip(result.labels, result.values[:, 0].tolist(), strict=True))
        assert {row: round(known[row], 2) for row in rows} == rows


def facts_ratio(facts):
    return float(torch.tensor(facts.attention / facts.versus_attention).log())


# --- padding, filtered caches, soft-caps, adapters, wrong arguments ---------------------------------------------------
@pytest.mark.parametrize("family", ["llama", "bloom", "gpt2"])
@pytest.mark.parametrize("pad", [0, 2])
def test_padding_on_the_left_changes_nothing(family, pad):
    model = tiny.boot(family)
    model.tokenizer.pad_token_id = pad
    model.tokenizer.padding_side = "left"
    tokens = torch.randint(3, tiny.VOCAB, (2, 7), generator=torch.Generator().manual_seed(3))
    tokens[1, :3] = pad
    mask = torch.ones_like(tokens)
    mask[1, :3] = 0
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, attention_mask=mask)
        _, alone = model.run_with_cache(tokens[1:, 3:])
    for side in SIDES:
        padded = scored(cache, side, attention_mask=mask)
        own = residscope.attribute(alone, targets.attention((2, 1), 3, 2, 1, side), by="layer")
        assert gap(padded) <= 1e-5
        assert "source 5 is token 5 of prompt 0, but token 2 of prompt 1" in " ".join(padded.notes)
        assert not any("One source index is used" in note for note in own.notes)
        torch.testing.assert_close(padded.values[:, 1], own.values[:, 0], atol=1e-4, rtol=1e-4)
    with pytest.raises(ResidscopeError, match=r"is padding in prompt 1"):
        residscope.attribute(cache, targets.attention((2, 1), 6, 1), by="layer", attention_mask=mask)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_destination_or_source_on_padding_is_refused(side):
    model = tiny.boot("llama")
    tokens = torch.randint(3, tiny.VOCAB, (2, 7), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(tokens)
    mask[1, slice(3) if side == "left" else slice(4, None)] = 0
    model.tokenizer.padding_side = side
    with torch.no_grad():
        cache = model.run_with_cache(tokens, attention_mask=mask)[1]
    at = 1 if side == "left" else 5
    answers = (5, 9)

    def attributed(target, position="last"):
        return residscope.attribute(cache, target, by="layer", position=position, attention_mask=mask)

    scores = [targets.attention("2.1", at, 0, versus) for versus in ("most", "mean", None)]
    outputs = [targets.output("2.1", answers, 3)] if side == "right" else []
    for target, position in [*((score, "last") for score in scores), *((output, at) for output in outputs)]:
        with pytest.raises(ResidscopeError, match=r"(destination|source) is padding in prompt 1"):
            attributed(target, position)
    with pytest.raises(ResidscopeError, match=r"destination is padding in prompt 1"):
        residscope.pairs(cache, scores[0], attention_mask=mask)
    if side == "left":
        output = residscope.attribute(cache, targets.output("2.1", answers, 5), by="layer", attention_mask=mask)
        assert "source 5 is token 5 of prompt 0, but token 2 of prompt 1" in " ".join(output.notes)
        for target in (targets.output("2.1", answers, at),
                       targets.output("1.0", targets.output("2.1", answers, 5), at)):  # fmt: skip
            with pytest.raises(ResidscopeError, match=r"source is padding in prompt 1"):
                attributed(target)
    attributed(targets.output("2.1", answers, 3))


def test_queries_and_keys_that_were_not_cached_are_computed_from_the_stream():
    model = tiny.boot("llama")
    whole = tiny.run(model)[2]
    few = {
        name: tensor for name, tensor in whole.items() if not name.endswith(("hook_q", "hook_k", "hook_attn_scores"))
    }
    filtered = residscope.attribute(few, targets.attention((2, 1), 6, 5, 4), by="layer", model=model)
    torch.testing.assert_close(filtered.values, scored(whole).values, atol=1e-5, rtol=1e-4)
    assert gap(filtered) <= 1e-5
    del few["blocks.2.attn.hook_pattern"]
    with pytest.raises(ResidscopeError, match="hook_pattern"):
        residscope.attribute(few, targets.attention((2, 1), 6, 5, 4), by="layer", model=model)


@pytest.mark.parametrize("factor", [1, 20, 1e6])
def test_soft_capped_scores_are_attributed_before_the_cap(factor):
    model = tiny.boot("gemma2")
    for block in model.blocks:
        block.attn.original_component.attn_logit_softcapping = 1.0
        with torch.no_grad():
            block.attn.q.original_component.weight.mul_(factor)
    cache = tiny.run(model)[2]
    if factor == 1e6:
        with pytest.raises(ResidscopeError, match="are at the model's soft-cap"):
            scored(cache)
        return
    capped = cache["blocks.2.attn.hook_attn_scores"][:, 1, 6].double()
    for side in SIDES:
        result = scored(cache, side, None)
        rows = dict(zip(result.components, result.values, strict=True))
        before = result.values.sum(0) + result.constant - rows[Component("soft_cap")]
        torch.testing.assert_close(before.tanh(), capped[:, 5].float(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(scored(cache, side).measured, (capped[:, 5] - capped[:, 4]).float())
        assert gap(result) <= 1e-5


def test_a_model_in_bfloat16_is_right_up_to_its_rounding():
    model = tiny.boot("qwen3").to(torch.bfloat16)
    cache = tiny.run(model)[2]
    for side in SIDES:
        result = scored(cache, side)
        assert result.unexplained.abs().max() <= max(result.tolerance, 0.05 * float(result.values.abs().max()))


class Lora(nn.Module):
    """An adapter: adds a product of low rank to a layer's weight."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.base_layer = base
        self.down = nn.Parameter(torch.randn(base.in_features, 2, generator=generator))
        self.up = nn.Parameter(torch.randn(2, base.out_features, generator=generator))

    def forward(self, x):
        return self.base_layer(x) + x @ self.down @ self.up


def test_an_adapter_on_the_queries_counts():
    model = tiny.boot("llama")
    bridge = model.blocks[2].attn.q
    bridge.set_original_component(Lora(bridge.original_component))
    cache = tiny.run(model)[2]
    for side in SIDES:
        assert gap(scored(cache, side)) <= 1e-5


def test_weights_that_changed_after_the_run_are_refused():
    model = tiny.boot("llama")
    cache = tiny.run(model)[2]
    before = scored(cache)
    with torch.no_grad():
        model.blocks[2].attn.q.original_component.weight.mul_(1.5).add_(0.1)
    with pytest.raises(ResidscopeError, match="weights have changed since"):
        scored(dict(cache.cache_dict), model=model)
    assert gap(before) <= 1e-5


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (targets.attention("2.1", 4, 5), "after"),
        (targets.attention("2.1", 0, 0), "one source only"),
        (targets.attention("2.1", 6, 5, 5), "itself"),
        (targets.attention("2.9", 6, 5), "head"),
        (targets.attention("2.1", 60, 5), "outside"),
    ],
)
def test_a_score_that_does_not_exist_is_refused(target, words):
    cache = tiny.run(tiny.boot("gpt2"))[2]
    with pytest.raises(ResidscopeError, match=words):
        residscope.attribute(cache, target)


def test_a_source_outside_the_window_is_refused():
    cache = tiny.run(tiny.boot("mistral-window"))[2]
    with pytest.raises(ResidscopeError, match="masked"):
        residscope.attribute(cache, targets.attention("2.1", 6, 2))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("versus", [3, "mean"])
def test_an_edited_pattern_is_noted_even_if_one_prompt_has_almost_no_attention(versus, side):
    model = tiny.boot("llama")

    def edit(pattern, **_):
        pattern = pattern.clone()
        pattern[0, 1, :, 3] *= 0.01
        pattern[2, 1, :, 3] *= 1e-32
        return pattern

    assert "softmax" not in " ".join(scored(tiny.run(model)[2], side, versus).notes)
    with model.hooks(fwd_hooks=[("blocks.2.attn.hook_pattern", edit)]):
        cache = tiny.run(model)[2]
    paid, scores = cache["blocks.2.attn.hook_pattern"][:, 1, 6], cache["blocks.2.attn.hook_attn_scores"][:, 1, 6]
    note = next(note for note in scored(cache, side, versus).notes if "not the softmax of its scores" in note)
    if versus == 3:
        off = float(((paid[0, 5] / paid[0, 3]).log() - (scores[0, 5] - scores[0, 3])).abs())
        assert f"differs by {off:.2g} " in note
        assert "in prompt 0" in note


def test_the_cache_and_the_random_state_stay_as_they_were():
    cache = tiny.run(tiny.boot("qwen3"))[2]
    before = {name: tensor.clone() for name, tensor in cache.items()}
    state = torch.get_rng_state()
    for side in SIDES:
        scored(cache, side, "mean")
    residscope.pairs(cache, targets.attention("2.1", 6, 5))
    assert torch.equal(torch.get_rng_state(), state)
    assert set(before) == set(cache.keys())
    assert all(torch.equal(before[name], tensor) for name, tensor in cache.items())
