"""Contributions add up, and agree with an independent brute force and with TransformerLens."""

from __future__ import annotations

import pytest
import torch

import residscope
from tests.support import tiny
from tests.support.brute import Brute, logit_scale

RAW_ONLY = {"olmo2"}  # TransformerLens has no compatibility mode for this family
CHOSEN = ["gpt2", "gptj", "gpt_neox", "phi", "llama", "qwen2", "cohere", "granite", "gemma2", "olmo2"]
TINY = [(family, mode) for family in CHOSEN for mode in (False, True) if not (mode and family in RAW_ONLY)]


@pytest.fixture(scope="module", params=TINY, ids=lambda p: f"{p[0]}-{'compatible' if p[1] else 'raw'}")
def small(request):
    family, compatible = request.param
    model = tiny.boot(family, compatible=compatible)
    return model, *tiny.run(model), torch.tensor([[5, 6], [7, 8], [9, 10]])


@pytest.mark.parametrize("by", ["head", "layer", "accumulated"])
@pytest.mark.parametrize("position", ["last", 2, [1, 4, 6], "all"], ids=str)
def test_rows_constant_and_unexplained_sum_to_the_models_own_value(small, by, position):
    _model, _, logits, cache, answers = small
    result = residscope.attribute(cache, answers, by=by, position=position)
    assert result.unexplained.abs().max() < 2e-5 * result.values.abs().sum(0).max()
    difference = logits[torch.arange(3), :, answers[:, 0]] - logits[torch.arange(3), :, answers[:, 1]]
    at = {"last": [6] * 3, 2: [2] * 3}.get(position, position) if not isinstance(position, list) else position
    expected = difference if at == "all" else difference[torch.arange(3), at]
    torch.testing.assert_close(result.measured, expected)


@pytest.mark.parametrize("position", [None, "first", 1.5, True, ["last"]], ids=str)
def test_a_wrong_position_is_refused_with_the_valid_forms(small, position):
    """None is refused, too, because some users would take it for "all" and others for "last"."""
    cache, answers = small[3:]
    wanted = (
        r'give an index, one for each prompt, "last" \(each prompt\'s last real token\) or "all" \(every position\)'
    )
    with pytest.raises(residscope.ResidscopeError, match=wanted):
        residscope.attribute(cache, answers, position=position)
    with pytest.raises(residscope.ResidscopeError, match=wanted):
        residscope.inspect(cache, answers, position=position, show=False)


@pytest.mark.parametrize("prompt", [8, -9])
def test_every_result_refuses_a_prompt_that_is_not_there_in_the_same_words(small, prompt):
    cache, answers = small[3:]
    count = len(answers)
    prompt += count - 8
    found = residscope.attribute(cache, answers)
    calls = (
        lambda: found.top(3, prompt),
        lambda: residscope.pairs(cache, residscope.targets.attention("L1H0", 3, 1)).of(prompt),
        lambda: residscope.ablate(cache, answers, heads=["L0H0"], progress=False).top(3, prompt=prompt),
        lambda: residscope.attention(cache, "L0H0", prompt=prompt),
    )
    for call in calls:
        with pytest.raises(residscope.ResidscopeError) as refused:
            call()
        assert str(refused.value) == f"There is no prompt {prompt}: the prompts are 0 to {count - 1}."
        assert refused.value.code == "prompt"


def test_every_row_agrees_with_float64_brute_force(small):
    model, _, logits, cache, answers = small
    truth = Brute(model, cache, answers, 6, logit_scale(logits, cache))
    expected = truth.rows()
    for by in ("head", "layer"):
        result = residscope.attribute(cache, answers, by=by)
        scale = result.values.abs().max().item()
        for label, row in zip(result.labels, result.values, strict=True):
            torch.testing.assert_close(row.double(), expected[label], atol=1e-5 * scale, rtol=1e-4, msg=label)
    written = cache["unembed.hook_out"][:, 6].gather(1, answers) * logit_scale(logits, cache)
    cap = result.measured - (written[:, 0] - written[:, 1])  # the change by a soft-cap is part of the constant
    torch.testing.assert_close(result.constant.double(), truth.constant + cap, atol=1e-4, rtol=1e-4)
    assert (cap.abs().max() > 1e-3) == any("soft-caps" in note for note in result.notes)


def test_heads_and_bias_of_a_layer_are_its_attention_row(small):
    model, _, _, cache, answers = small
    heads, layers = (residscope.attribute(cache, answers, by=by) for by in ("head", "layer"))
    for layer in range(model.cfg.n_layers):
        bias = f"{layer}_attn_bias"
        total = heads.grid[layer].sum(0)
        total = total + heads.values[heads.labels.index(bias)] if bias in heads.labels else total
        torch.testing.assert_close(total, layers.values[layers.labels.index(f"{layer}_attn_out")], atol=1e-4, rtol=1e-4)


def test_steps_of_the_frozen_lens_are_the_layer_rows(small):
    model, _, _, cache, answers = small
    lens, layers = (residscope.attribute(cache, answers, by=by) for by in ("accumulated", "layer"))
    points = dict(zip(lens.labels, lens.values, strict=True))
    rows = dict(zip(layers.labels, layers.values, strict=True))
    for layer in range(model.cfg.n_layers):
        after = points.get(f"{layer + 1}_pre", points["final_post"])
        if f"{layer}_mid" in points:
            first = points[f"{layer}_mid"] - points[f"{layer}_pre"]
            torch.testing.assert_close(first, rows[f"{layer}_attn_out"], atol=1e-4, rtol=1e-4)
        step = rows[f"{layer}_attn_out"] + rows[f"{layer}_mlp_out"]
        torch.testing.assert_close(after - points[f"{layer}_pre"], step, atol=1e-4, rtol=1e-4)


def test_recomputed_lens_is_the_models_own_norm_and_unembedding(small):
    model, _, logits, cache, answers = small
    scale = logit_scale(logits, cache)
    constant = Brute(model, cache, answers, 6, scale).constant
    lens = residscope.attribute(cache, answers, by="accumulated", norm="recomputed")
    for layer in range(model.cfg.n_layers):
        with torch.no_grad():
            stream = cache[f"blocks.{layer}.hook_resid_pre"]
            logits = model.unembed(model.ln_final(stream))[:, -1] * scale
        said = logits.gather(1, answers)
        value = lens.values[lens.labels.index(f"{layer}_pre")] + constant
        torch.testing.assert_close(value.float(), said[:, 0] - said[:, 1], atol=2e-4, rtol=2e-4)


def test_the_demo_model_in_all_eight_prompts(ioi):
    logits = ioi.logits[:, -1].gather(1, ioi.answer_tokens)
    expected = Brute(ioi.model, ioi.cache, ioi.answer_tokens, position=14).rows()
    for by in ("head", "layer", "accumulated"):
        result = residscope.attribute(ioi.cache, ioi.answers, by=by)
        torch.testing.assert_close(result.measured, logits[:, 0] - logits[:, 1])
        assert result.unexplained.abs().max() <= 1e-4
        if by != "accumulated":
            brute_rows = torch.stack([expected[label] for label in result.labels])
            torch.testing.assert_close(result.values.double(), brute_rows, atol=1e-4, rtol=0)


def test_the_demo_model_in_compatibility_mode_agrees_with_the_tutorials_code(compatible_ioi):
    ioi = compatible_ioi
    directions = ioi.model.tokens_to_residual_directions(ioi.answer_tokens)
    difference = directions[:, 0] - directions[:, 1]
    mine = residscope.attribute(ioi.cache, ioi.answer_tokens, by="head").grid
    stack = ioi.cache.stack_head_results(layer=-1, pos_slice=-1)
    stack = ioi.cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1)
    theirs = (stack * difference).sum(-1).unflatten(0, (ioi.model.cfg.n_layers, ioi.model.cfg.n_heads))
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=0)


def test_the_users_model_and_cache_are_not_changed(ioi):
    cache, model = ioi.cache, ioi.model
    before = {name: (id(tensor), tensor._version, tensor.sum().item()) for name, tensor in cache.items()}
    weights = {name: (id(p), p._version, p.requires_grad) for name, p in model.named_parameters()}
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for by in ("head", "layer", "accumulated"):
                assert not residscope.attribute(cache, ioi.answers, by=by).values.requires_grad
            assert torch.is_grad_enabled() is grad
    assert before == {name: (id(t), t._version, t.sum().item()) for name, t in cache.items()}
    assert weights == {name: (id(p), p._version, p.requires_grad) for name, p in model.named_parameters()}


def test_neurons_and_bias_of_a_layer_are_its_mlp_row(small):
    model, _, logits, cache, answers = small
    neurons, layers = (residscope.attribute(cache, answers, by=by) for by in ("neuron", "layer"))
    assert neurons.unexplained.abs().max() < 2e-5 * neurons.values.abs().sum(0).max()
    for layer in range(model.cfg.n_layers):
        one = residscope.attribute(cache, answers, by="neuron", layers=layer)
        rows = dict(zip(one.labels, one.values, strict=True))
        mine = [label for label in one.labels if label.startswith(f"L{layer}N") or label == f"{layer}_mlp_bias"]
        total = torch.stack([rows[label] for label in mine]).sum(0)
        torch.testing.assert_close(total, layers.values[layers.labels.index(f"{layer}_mlp_out")], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one.measured - one.unexplained, neurons.measured - neurons.unexplained)
        assert all(label.startswith(f"L{layer}N") for label, _ in one.top(4))
    truth = Brute(model, cache, answers, 6, logit_scale(logits, cache))
    vectors = truth.at("blocks.1.mlp.hook_post")[:, 3, None] * model.blocks[1].mlp.W_out[3].detach()
    expected = truth.contribution(truth.written(1, "ln2_post", vectors))
    torch.testing.assert_close(neurons.values[neurons.labels.index("L1N3")].double(), expected, atol=1e-5, rtol=1e-4)


def test_source_contributions_sum_to_the_head(small):
    _model, _, _, cache, answers = small
    heads = ["0.0", "L1H3", (2, 1)]
    grid = residscope.attribute(cache, answers, by="head", position="all").grid
    own = torch.stack([grid[0, 0], grid[1, 3], grid[2, 1]])  # [head, batch, destination]
    last = residscope.attribute(cache, answers, by="source", heads=heads)
    assert last.values.shape == (7, 3, 3)
    assert last.heads == ["L0H0", "L1H3", "L2H1"]
    torch.testing.assert_close(last.values.sum(0), own[:, :, -1], atol=1e-4, rtol=1e-4)
    every = residscope.attribute(cache, answers, by="source", heads=heads, position="all")
    assert every.values.shape == (7, 7, 3, 3)  # source, destination, head, batch
    torch.testing.assert_close(every.values[:, -1], last.values)
    torch.testing.assert_close(every.values.sum(0), own.permute(2, 0, 1), atol=1e-4, rtol=1e-4)
    assert every.unexplained.abs().max() <= every.tolerance


def test_in_bfloat16_unexplained_is_within_a_small_tolerance(ioi):
    from transformer_lens import ActivationCache

    rounded = {n: t.bfloat16() if t.is_floating_point() else t for n, t in ioi.cache.items()}
    result = residscope.attribute(ActivationCache(rounded, ioi.model), ioi.answers)
    assert result.unexplained.abs().max() <= result.tolerance < 0.3
    exact = residscope.attribute(ioi.cache, ioi.answers)
    assert exact.tolerance < 1e-3
    torch.testing.assert_close(result.grid, exact.grid, atol=0.05, rtol=0.05)


def test_the_users_logits_are_the_measured_value(ioi):
    given = residscope.attribute(ioi.cache, ioi.answers, logits=ioi.logits + 1)
    torch.testing.assert_close(given.measured, residscope.attribute(ioi.cache, ioi.answers).measured)
    assert given.measured_from == "the given logits"
    single = residscope.attribute(ioi.cache, " Mary", logits=ioi.logits + 1)
    torch.testing.assert_close(single.unexplained, torch.ones(8), atol=1e-3, rtol=0)


@pytest.mark.parametrize("position", ["last", "all"])
def test_spread_and_table(ioi, position):
    result = residscope.attribute(ioi.cache, ioi.answers, by="layer", position=position)
    frame = result.to_frame()
    torch.testing.assert_close(torch.tensor(frame.to_numpy()), result.values.flatten(1))
    row = frame.loc["23_attn_out"] if position == "last" else frame.loc["23_attn_out"].unstack()[14]
    at_the_end = result.values[result.labels.index("23_attn_out")].reshape(8, -1)[:, -1]
    assert row.tolist() == pytest.approx(at_the_end.tolist())
    spread = result.std()[result.labels.index("23_attn_out")].reshape(-1)[-1]
    assert float(spread) == pytest.approx(float(row.std()), rel=1e-5)


def test_top_names_the_strongest_heads_of_both_signs(ioi):
    result = residscope.attribute(ioi.cache, ioi.answers)
    means = result.grid.mean(-1).flatten()
    top = result.top(3)
    assert [value for _, value in top[:3]] == pytest.approx(means.topk(3).values.tolist())
    assert [value for _, value in top[3:]] == pytest.approx((-means).topk(3).values.neg().tolist())
    assert top[0][0] == f"L{int(means.argmax()) // 9}H{int(means.argmax()) % 9}"
    assert 'by="head"' in repr(result)
