"""Estimates and patches of what heads read (`at="q"`, `"k"`, `"v"`, `"pattern"`).

Expected: the model's own hooked runs, finite differences, autograd, and values computed by hand.
"""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from functools import partial

import numpy
import pytest
import torch
from transformer_lens import ActivationCache

import residscope
from residscope import ResidscopeError
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
PARTS = ("q", "k", "v", "pattern")
NO_RUNS = {"bert", "modernbert-decoder", "opt-projected", "deepseek_v4", "hrm_text"}
NO_HEADS = {"mamba", "falcon_mamba", "mamba2", "zamba2", "nemotron_h", "recurrent_gemma", "rwkv", "jetmoe"}
LATENT = {"deepseek_v2", "deepseek_v3", "glm4_moe_lite", "glm_moe_dsa", "youtu"}
GATED_QUERY = {"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}  # `hook_q` holds the query and then the gate
COPIED = "ignore:A hook on .* returned a modified tensor"  # in some models, the pattern's hook gets only a copy
MANY = ["gpt2", "llama", "gemma2", "bloom", "falcon-alibi", "gpt_neox", "gpt_oss", "mistral-window", "olmo2", "qwen3",
        "cohere"]  # fmt: skip


def difference(logits):
    chosen = logits[:, -1].gather(1, ANSWERS)
    return chosen[:, 0] - chosen[:, 1]


def others(model, seed=5):
    torch.manual_seed(seed)
    tokens = torch.randint(3, tiny.VOCAB, (3, 7))
    with torch.no_grad():
        return tokens, model.run_with_cache(tokens)[1]


def exact(name):
    """Return a model in float64 with two runs. (Two families stay in float32, because their experts need it.)"""
    model = tiny.boot(name)
    if name not in ("gpt_oss", "llama4_text"):
        model = model.to(torch.float64)
    tokens, _, cache = tiny.run(model)
    return model, tokens, cache, others(model)[1]


def activation(cache, layer, part):
    names = [f"blocks.{layer}.attn.{end}" for end in (["v_norm.hook_out"] * (part == "v") + [f"hook_{part}"])]
    return next(name for name in names if name in cache)


def read_instead(model, tokens, layer, name, value):
    """Return the `z` of a layer in a hooked run in which the layer's heads read another value."""
    held = {}

    def put(own, hook):  # noqa: ARG001
        return value.to(own).reshape(own.shape)

    z = f"blocks.{layer}.attn.hook_z"
    hooks = [(name, put), (z, lambda own, hook: held.update(z=own.detach().clone()))]  # noqa: ARG005
    with torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=hooks)
    return held["z"]


def one_head(model, tokens, layer, head, count, z):
    """Return the target of a hooked run in which one head has this `z`."""

    def put(own, hook):  # noqa: ARG001
        new = own.flatten(2).unflatten(2, (count, -1)).clone()
        new[:, :, head] = z.flatten(2).unflatten(2, (count, -1))[:, :, head]
        return new.reshape(own.shape)

    with torch.no_grad():
        return difference(model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", put)]))


@pytest.mark.filterwarnings(COPIED)
@pytest.mark.parametrize("name", [name for name in tiny.FAMILIES if name not in NO_RUNS | NO_HEADS | {"bitnet"}])
def test_a_head_with_another_runs_inputs_writes_the_same_as_in_the_models_own_run(booted, name):
    model, tokens, logits, cache = booted(name)
    _, other = others(model)
    for part in PARTS:
        if name in LATENT and part in ("q", "k"):
            with pytest.raises(ResidscopeError, match="has latent attention"):
                residscope.patch(cache, other, ANSWERS, at=part, progress=False)
            continue
        found = residscope.patch(cache, other, ANSWERS, at=part, progress=False)
        assert found.at == part
        there = ~found.effects.isnan().any(-1)
        assert there.any()
        assert torch.equal(there, found.measured)
        for layer in there.any(1).nonzero().flatten().tolist()[-2:]:
            key = activation(cache, layer, part)
            value = other[key]
            if part == "q" and name in GATED_QUERY:
                value, half = cache[key].reshape(3, 7, 4, -1).clone(), cache[key][0, 0].numel() // 8
                value[..., :half] = other[key].reshape(3, 7, 4, -1)[..., :half]
            z = read_instead(model, tokens, layer, key, value)
            if part == "pattern" and torch.equal(z, cache[f"blocks.{layer}.attn.hook_z"].reshape(z.shape)):
                continue  # in this model, the pattern's hook gets only a copy
            head, count = 1, int(there[layer].sum())
            expected = one_head(model, tokens, layer, head, count, z) - difference(logits)
            torch.testing.assert_close(found.effects[layer, head], expected, atol=2e-5, rtol=2e-4)


@pytest.mark.parametrize("name", MANY)
def test_the_estimate_of_a_small_change_equals_the_models_own_runs(name):
    model, tokens, cache, other = exact(name)
    # In the difference of a step forward and a step back, second-order terms cancel. Some norms are in float32.
    near = [{key: value + step * (other[key] - value) if value.is_floating_point() else value
             for key, value in cache.cache_dict.items()} for step in (0.003, -0.003)]  # fmt: skip
    for part in PARTS:
        found = [residscope.estimate(cache, ActivationCache(one, model), ANSWERS, at=part) for one in near]
        assert not found[0].measured.any()
        mine = found[0].effects - found[1].effects
        for layer in (0, 2):
            key = activation(cache, layer, part)
            z = [read_instead(model, tokens, layer, key, one[key]) for one in near]
            if torch.equal(*z):
                assert part == "pattern"  # in this model, the pattern's hook gets only a copy
                continue
            for head in (0, 3):
                forward, back = (one_head(model, tokens, layer, head, 4, one) for one in z)
                gap = (mine[layer, head] - (forward - back)).abs().max()
                assert gap < 2e-3 * mine.abs().max(), (part, layer, head)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "bloom", "gpt_oss"])
@pytest.mark.parametrize("part", ["v", "pattern"])
def test_values_and_patterns_are_the_gradient_times_the_change(name, part):
    model, tokens, cache, other = exact(name)
    found = residscope.estimate(cache, other, ANSWERS, at=part, positions="each")
    whole = residscope.estimate(cache, other, ANSWERS, at=part)
    close = partial(torch.testing.assert_close, atol=1e-5, rtol=1e-5)  # norms of some models compute only in float32
    close(found.effects.nansum(2), whole.effects)
    for layer in range(3):
        held, key = {}, activation(cache, layer, part)

        def keep(own, hook, held=held):  # noqa: ARG001
            held["own"] = own.detach().clone().requires_grad_()
            return held["own"]

        logits = model.run_with_hooks(tokens, fwd_hooks=[(key, keep)])
        [slope] = torch.autograd.grad(difference(logits).sum(), held["own"])
        change = (slope.reshape(other[key].shape) * (other[key] - cache[key])).sum(-1)
        expected = change.permute(1, 2, 0) if part == "pattern" else change.permute(2, 1, 0)
        mine = found.effects[layer]
        mine = mine.unflatten(0, (len(expected), -1)).sum(1)  # the sum of the heads that share a value
        close(mine, expected)


@pytest.mark.parametrize("sharp", [1.0, 1e4])
def test_estimates_use_the_value_of_a_saturated_softmax_and_not_its_slope(sharp):
    model = tiny.boot("gpt2")
    with torch.no_grad():
        attention = model.blocks[1].attn.original_component
        attention.c_attn.weight[:, :24] *= sharp
        attention.c_attn.bias[:24] *= sharp
    model = model.to(torch.float64)
    tokens, _, cache = tiny.run(model)
    _, other = others(model)
    found = residscope.estimate(cache, other, ANSWERS, at="q").effects[1]
    held = {}

    def keep(name):
        def hook(own, hook):  # noqa: ARG001
            held[name] = own.detach().clone().requires_grad_()
            return held[name]

        return hook

    names = {part: f"blocks.1.attn.hook_{part}" for part in ("q", "z")}
    logits = model.run_with_hooks(tokens, fwd_hooks=[(names["q"], keep("q"))])
    [of_q] = torch.autograd.grad(difference(logits).sum(), held["q"])
    logits = model.run_with_hooks(tokens, fwd_hooks=[(names["z"], keep("z"))])
    [of_z] = torch.autograd.grad(difference(logits).sum(), held["z"])
    change = (other[names["q"]] - cache[names["q"]]).reshape(of_q.shape)
    linear = (of_q * change).reshape(3, 7, 4, 6).sum((1, -1)).T
    by_hand = _by_hand(cache, other[names["q"]], of_z.reshape(3, 7, 4, 6))
    torch.testing.assert_close(found, by_hand, atol=1e-9, rtol=1e-6)
    if sharp > 1:
        assert linear.abs().max() < 0.05 * found.abs().max()
        assert found.abs().max() > 0.02


def _by_hand(cache, query, slope):
    """Return slope · (softmax with another query − the cached pattern) @ v of layer 1, computed in NumPy."""
    q, k, v = (one.numpy() for one in (query, cache["blocks.1.attn.hook_k"], cache["blocks.1.attn.hook_v"]))
    result = numpy.zeros((4, 3))
    for prompt in range(3):
        for head in range(4):
            for at in range(7):
                scores = [q[prompt, at, head] @ k[prompt, source, head] / 6**0.5 for source in range(at + 1)]
                new = numpy.exp(numpy.array(scores) - max(scores))
                new /= new.sum()
                old = cache["blocks.1.attn.hook_pattern"][prompt, head, at, : at + 1].numpy()
                change = (new - old) @ v[prompt, : at + 1, head]
                result[head, prompt] += slope[prompt, at, head].numpy() @ change
    return torch.tensor(result)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt_oss", "gemma2", "bloom"])
@pytest.mark.parametrize("sharp", [1.0, 60.0])
def test_estimates_for_each_key_equal_those_for_its_position_alone(name, sharp):
    model = tiny.boot(name)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.k.original_component.weight *= sharp
    model = model if name == "gpt_oss" else model.to(torch.float64)
    _, _, cache = tiny.run(model)
    _, other = others(model)
    each = residscope.estimate(cache, other, ANSWERS, at="k", positions="each").effects
    assert each.shape == (3, 4, 7, 3)
    for place in (0, 3, 6):
        alone = residscope.estimate(cache, other, ANSWERS, at="k", positions=[place]).effects
        torch.testing.assert_close(each[:, :, place], alone, atol=1e-4 if name == "gpt_oss" else 1e-9, rtol=1e-4)
    query = residscope.estimate(cache, other, ANSWERS, at="q", positions="each").effects
    torch.testing.assert_close(query.sum(2), residscope.estimate(cache, other, ANSWERS, at="q").effects)


@pytest.mark.parametrize("part", PARTS)
def test_estimates_at_some_positions_and_measuring_the_largest(booted, part):
    model, tokens, logits, cache = booted("gpt2")
    _, other = others(model)
    options = {"source": other, "target": ANSWERS, "at": part, "progress": False}
    found = residscope.patch(cache, positions=[2, 6], **options)
    key = activation(cache, 1, part)
    value, at = cache[key].clone(), (slice(None), slice(None), [2, 6]) if part == "pattern" else (slice(None), [2, 6])
    value[at] = other[key][at]
    z = read_instead(model, tokens, 1, key, value)
    torch.testing.assert_close(
        found.effects[1, 2], one_head(model, tokens, 1, 2, 4, z) - difference(logits), atol=1e-5, rtol=1e-4
    )
    last = residscope.patch(cache, positions="last", **options)
    measured, mixed = residscope.patch(cache, **options), residscope.effects(cache, measure=4, **options)
    assert int(mixed.measured.sum()) == 4
    torch.testing.assert_close(mixed.effects[mixed.measured], measured.effects[mixed.measured], atol=1e-5, rtol=1e-4)
    if part in ("q", "pattern"):  # a query has an effect only at its own position
        each = residscope.patch(cache, positions="each", **options)
        torch.testing.assert_close(each.effects[:, :, 6], last.effects, atol=1e-5, rtol=1e-4)
    else:
        with pytest.raises(ResidscopeError, match="are not measured in runs"):
            residscope.patch(cache, positions="each", **options)


@pytest.mark.parametrize("source", ["zero", "mean", "tokens", "one prompt"])
@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_each_kind_of_source_for_the_inputs(booted, source, name):
    model, tokens, logits, cache = booted(name)
    other_tokens, other = others(model)
    given = {"zero": "zero", "mean": "mean", "tokens": other_tokens, "one prompt": (other, 1)}[source]
    for part in PARTS:
        key = activation(cache, 1, part)
        value = {"zero": other[key] * 0, "mean": cache[key].mean(0, keepdim=True).expand_as(cache[key]),
                 "tokens": other[key], "one prompt": other[key][1:2].expand_as(cache[key])}[source]  # fmt: skip
        z = read_instead(model, tokens, 1, key, value)
        found = residscope.patch(cache, given, ANSWERS, at=part, progress=False)
        expected = one_head(model, tokens, 1, 2, 4, z) - difference(logits)
        torch.testing.assert_close(found.effects[1, 2], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_padded_prompt_has_the_estimates_of_the_prompt_alone(name, side):
    model = tiny.boot(name)
    model.tokenizer.padding_side = side
    prompt, source = torch.tensor([[5, 9, 12, 7, 20]]), torch.tensor([[8, 9, 30, 7, 21]])
    full = torch.tensor([[11, 5, 9, 12, 7, 20, 13], [6, 5, 19, 3, 7, 20, 13]])
    real, mask = slice(2, 7) if side == "left" else slice(0, 5), torch.ones(2, 7, dtype=torch.long)
    mask[0] = 0
    mask[0, real] = 1

    def padded(ids, row):
        rows = torch.stack([torch.zeros(7, dtype=torch.long), full[row]])
        rows[0, real] = ids[0]
        return rows

    with torch.no_grad():
        cache, other = (
            model.run_with_cache(padded(ids, row), attention_mask=mask)[1] for row, ids in enumerate((prompt, source))
        )
        alone, other_alone = (model.run_with_cache(ids)[1] for ids in (prompt, source))
    for part in PARTS:
        for positions in ("all", "each"):
            options = {"at": part, "positions": positions}
            found = residscope.estimate(cache, other, (5, 6), attention_mask=mask, **options).effects
            expected = residscope.estimate(alone, other_alone, (5, 6), **options).effects
            mine = found[:, :, real, :1] if positions == "each" else found[..., :1]
            torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-3)
            if positions == "each":
                assert found[:, :, [at for at in range(7) if not mask[0, at]], 0].isnan().all()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss", "bloom"])
def test_in_bfloat16_estimates_are_those_of_float32_up_to_its_rounding(booted, name):
    model, tokens, _, cache = booted(name)
    _, other = others(model)
    coarse = tiny.boot(name).to(torch.bfloat16)
    with torch.no_grad():
        caches = [coarse.run_with_cache(ids)[1] for ids in (tokens, others(model)[0])]
    for part in PARTS:
        expected = residscope.estimate(cache, other, ANSWERS, at=part).effects
        found = residscope.estimate(*caches, ANSWERS, at=part).effects
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.1 * expected.norm(), part


def test_attention_that_was_too_small_for_its_format_can_come_back():
    """The cached query is so large that most attention rounds to 0 in float32. The other run's query is not."""
    model = tiny.boot("gpt2")
    with torch.no_grad():
        attention = model.blocks[1].attn.original_component
        attention.c_attn.weight[:, 6:12] *= 3000
        attention.c_attn.bias[6:12] *= 3000
    tokens, logits, cache = tiny.run(model)
    _, other = others(model)
    key = "blocks.1.attn.hook_q"
    assert (cache["blocks.1.attn.hook_pattern"][:, 1] == 0).sum() > 63 + 30
    near = {**other.cache_dict, key: other[key] / 3000}
    found = residscope.patch(cache, ActivationCache(near, model), ANSWERS, at="q", progress=False)
    z = read_instead(model, tokens, 1, key, near[key])
    expected = one_head(model, tokens, 1, 1, 4, z) - difference(logits)
    torch.testing.assert_close(found.effects[1, 1], expected, atol=1e-4, rtol=1e-3)


def _edited(pattern, hook):  # noqa: ARG001
    return pattern * 0.5 + 0.5 / pattern.shape[-1]


def test_inputs_that_cannot_be_recomputed_are_refused_in_a_sentence(booted):
    model, tokens, _, cache = booted("gpt2")
    with pytest.raises(ResidscopeError, match=r'`at="w"` is not known: use "z", .*"q", "k", "v", "pattern"'):
        residscope.estimate(cache, cache, ANSWERS, at="w")
    with pytest.raises(ResidscopeError, match="A path begins at heads or sublayers"):
        residscope.patch(cache, cache, ANSWERS, at="q", path="logits")
    few = {key: value for key, value in cache.cache_dict.items() if not key.endswith("hook_q")}
    with pytest.raises(ResidscopeError, match=r"`blocks\.0\.attn\.hook_q` is not in this cache"):
        residscope.estimate(ActivationCache(few, model), cache, ANSWERS, at="q")
    _, _, other_cache = booted("bitnet")[1:]
    with pytest.raises(ResidscopeError, match="not their pattern times their values in this model"):
        residscope.estimate(other_cache, other_cache, ANSWERS, at="v")
    model.add_hook("blocks.1.attn.hook_pattern", _edited)
    try:
        with torch.no_grad():
            edited = model.run_with_cache(tokens)[1]
        found = residscope.estimate(edited, cache, ANSWERS, at="q")
        assert found.effects[1].isnan().all()
        assert found.effects[0].isfinite().all()
        assert any("There are no effects of L1H0, L1H1, L1H2, … (4 heads)" in note for note in found.notes)
    finally:
        model.reset_hooks()


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_refused_heads_keep_no_cache_in_memory(booted, part):
    model, _, _, cache = booted("gpt2")
    held = {name: tensor.clone() for name, tensor in cache.cache_dict.items()}
    held["blocks.1.attn.hook_pattern"] = _edited(held["blocks.1.attn.hook_pattern"], None)
    alive = [weakref.ref(tensor) for tensor in held.values()]
    gc.collect()
    gc.disable()  # an error that is kept must not be in a reference cycle with the frames of its traceback
    try:
        with suppress(ResidscopeError):
            residscope.estimate(ActivationCache(held, model), cache, ANSWERS, at=part)
        del held
        assert not any(reference() is not None for reference in alive)
    finally:
        gc.enable()


def test_an_unchanged_source_has_no_effect_at_all(booted):
    for name in ("gpt_oss", "llama4_text", "gemma2"):
        cache = booted(name)[-1]
        for part in PARTS:
            for positions in ("all", "each"):
                found = residscope.estimate(cache, cache, ANSWERS, at=part, positions=positions)
                assert torch.equal(found.effects, found.effects * 0), (name, part)
                assert f"Estimate of patching({part}, " in repr(found)
