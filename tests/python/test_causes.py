"""Causes: a replay equals the cached run or is refused, and effects equal those of the model's own hooked runs.

The user's state is not changed.
"""

from __future__ import annotations

import copy
import gc
import random
import threading
from collections import UserDict
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from types import MappingProxyType

import numpy
import pytest
import torch
from packaging.version import Version
from transformer_lens import ActivationCache

import residscope
from residscope import ResidscopeError
from residscope.causes import last_position, path_sweep, runner, sweep
from residscope.causes.hooks import hooks
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
WHOLE = {"gemma4_text-shared", "glm_moe_dsa"}  # their blocks pass on more than the stream, so the whole model is run
if Version(version("transformers")) < Version("5.21"):  # the last versions for Python 3.10
    WHOLE |= {"gemma4_text", "gemma4_text-cap-5", "gemma4_text-heads", "gemma4_text-experts"}
REFUSED = {  # families in which no head can be ablated, with the reason
    "bert": "does more after its last block",
    "modernbert-decoder": "does more after its last block",
    "opt-projected": "projects the stream",
    "deepseek_v4": "cannot be checked",
    "hrm_text": "has no `blocks`",
    **dict.fromkeys(("mamba", "falcon_mamba", "mamba2", "zamba2", "nemotron_h", "recurrent_gemma", "rwkv", "jetmoe"),
                    "`attn.hook_z` is not in this cache"),
}  # fmt: skip


def difference(logits, answers=ANSWERS):
    chosen = logits[:, -1].gather(1, answers)
    return chosen[:, 0] - chosen[:, 1]


def without_head(z, hook, head, where=slice(None), value=0.0, count=None):  # noqa: ARG001
    own = z.clone() if count is None else z.flatten(2).unflatten(2, (count, -1)).clone()
    own[:, where, head] = value
    return own.reshape(z.shape)


def hooked(model, tokens, layer, head, **options):
    """Return the target of the model's own run in which a head is replaced."""
    change = partial(without_head, head=head, **options)
    with torch.no_grad():
        return difference(model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", change)]))


def others(model, seed=5):
    torch.manual_seed(seed)
    tokens = torch.randint(3, tiny.VOCAB, (3, 7))
    with torch.no_grad():
        return tokens, *model.run_with_cache(tokens)


@pytest.mark.parametrize("name", list(tiny.FAMILIES))
def test_a_replay_is_the_cached_run_and_effects_are_those_of_hooked_runs(name):
    model = tiny.boot(name)
    tokens, logits, cache = tiny.run(model)
    if name in REFUSED:
        with pytest.raises(ResidscopeError, match=REFUSED[name]):
            residscope.ablate(cache, ANSWERS, progress=False)
        return
    found = residscope.ablate(cache, ANSWERS, progress=False)
    assert found.replayed.endswith(", as in the cache")
    assert "rounding" not in found.replayed  # equal to the last bit
    torch.testing.assert_close(found.before, difference(logits), atol=1e-5, rtol=1e-5)
    there = ~found.total.isnan().any(-1)
    for layer, head in there.nonzero().tolist()[-5:]:
        expected = hooked(model, tokens, layer, head, count=int(there[layer].sum())) - difference(logits)
        torch.testing.assert_close(found.total[layer, head], expected, atol=1e-5, rtol=1e-4)
    assert any("whole model" in note for note in found.notes) == (name in WHOLE)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "granite", "olmo2", "cohere"])
def test_direct_effects_are_minus_the_rows_and_the_last_mlp_has_no_indirect_effect(booted, name):
    _, _, _, cache = booted(name)
    found = residscope.ablate(cache, ANSWERS, progress=False)
    if name != "gemma2":  # with its soft-cap, rows are those before the cap
        torch.testing.assert_close(-found.direct, residscope.attribute(cache, ANSWERS).grid, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.indirect, found.total - found.direct)
    rows = residscope.attribute(cache, ANSWERS, by="layer")
    for of in ("attn_out", "mlp_out") if name != "gemma2" else ():
        whole = residscope.ablate(cache, ANSWERS, of=of, progress=False)
        expected = rows.values[[rows.labels.index(label) for label in whole.labels]]
        torch.testing.assert_close(-whole.direct, expected, atol=1e-5, rtol=1e-4)
    last = residscope.ablate(
        cache, ANSWERS, of="mlp_out", layers=-1, norm="recomputed", positions="last", progress=False
    )
    torch.testing.assert_close(last.total, last.direct, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["llama", "bloom", "gemma2", "granite", "mistral-window"])
def test_patching_the_whole_stream_gives_the_other_runs_target(booted, name):
    model, _, logits, cache = booted(name)
    _, other_logits, other = others(model)
    found = residscope.patch(cache, source=other, target=ANSWERS, at="resid_pre", progress=False)
    torch.testing.assert_close(found.effects[0], difference(other_logits) - difference(logits), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.source, difference(other_logits), atol=1e-5, rtol=1e-5)
    assert found.axes == ("layer", "batch")
    nearly_one = found.normalized[0][found.normalized[0].isfinite()]
    torch.testing.assert_close(nearly_one, torch.ones_like(nearly_one), atol=1e-3, rtol=0)
    same = residscope.patch(cache, source=cache, target=ANSWERS, at="resid_pre", progress=False)
    assert same.effects.abs().max() < 1e-5
    assert bool(same.normalized.isnan().all())
    assert any("not normalised" in note for note in same.notes)


@pytest.mark.parametrize(("at", "theirs"), [
    ("resid_pre", "get_act_patch_resid_pre"), ("attn_out", "get_act_patch_attn_out"),
    ("mlp_out", "get_act_patch_mlp_out"), ("z", "get_act_patch_attn_head_out_all_pos"),
])  # fmt: skip
def test_patching_agrees_with_transformer_lens(booted, at, theirs):
    from transformer_lens import patching

    model, tokens, logits, cache = booted("gpt2")
    _, _, other = others(model)
    with torch.no_grad():
        expected = getattr(patching, theirs)(model, tokens, other, lambda out: difference(out).mean())
    each = {} if at == "z" else {"positions": "each"}
    found = residscope.patch(cache, source=other, target=ANSWERS, at=at, progress=False, **each)
    torch.testing.assert_close(found.effects.mean(-1) + difference(logits).mean(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "at"), [
    ("gpt2", "z"), ("llama", "resid_pre"), ("gemma2", "z"), ("rwkv", "resid_pre"), ("granite", "attn_out"),
])  # fmt: skip
def test_estimates_are_the_limit_of_small_patches(booted, name, at):
    model, _, _, cache = booted(name)
    _, _, other = others(model)
    step = 2**-8
    near = {key: value + step * (other[key] - value) if value.is_floating_point() else value
            for key, value in cache.cache_dict.items()}  # fmt: skip
    options = {"target": ANSWERS, "at": at, "positions": "each"}
    measured = residscope.patch(cache, source=ActivationCache(near, model), progress=False, **options)
    found = residscope.estimate(cache, source=other, **options)
    assert not found.measured.any()
    assert found.effects.shape == measured.effects.shape
    error = (measured.effects / step - found.effects).norm() / found.effects.norm()
    assert error < 0.03, error
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("name", ["llama", "gemma2"])
@pytest.mark.parametrize("padded", [False, True])
def test_estimates_are_the_same_inside_inference_mode(name, padded):
    model = tiny.boot(name)
    model.tokenizer.padding_side = "left"
    tokens, _, _ = tiny.run(model)
    mask = torch.ones_like(tokens)
    mask[1, : 2 * padded] = 0

    def caches():
        return [model.run_with_cache(ids * mask, attention_mask=mask)[1] for ids in (tokens, tokens.flip(1))]

    cache, source = caches()
    expected = residscope.estimate(cache, source, ANSWERS, attention_mask=mask).effects
    with torch.inference_mode():
        inside = caches()
        residscope.attribute(inside[0], ANSWERS)  # memoises tensors that were made in inference mode
        for pair in ([cache, source], inside):
            found = residscope.estimate(*pair, ANSWERS, attention_mask=mask).effects
            torch.testing.assert_close(found, expected, equal_nan=True)
            assert torch.is_inference_mode_enabled()
    torch.testing.assert_close(residscope.estimate(*inside, ANSWERS, attention_mask=mask).effects, expected)


def test_weights_made_inside_inference_mode_are_refused_by_an_estimate_in_a_sentence():
    model = tiny.boot("llama")
    with torch.inference_mode():
        model.unembed.original_component.weight = torch.nn.Parameter(model.unembed.weight.clone(), requires_grad=False)
    _, _, cache = tiny.run(model)
    with pytest.raises(ResidscopeError, match=r"weights were made inside `torch\.inference_mode\(\)`"):
        residscope.estimate(cache, "zero", ANSWERS)
    assert residscope.ablate(cache, ANSWERS, "L0H0", progress=False).total.isfinite().all()


def test_the_largest_estimates_are_measured_and_the_others_stay_estimates(booted):
    model, _, _, cache = booted("llama")
    options = {"source": others(model)[2], "target": ANSWERS, "at": "z"}
    mixed = residscope.effects(cache, measure=5, progress=False, **options)
    measured, estimates = residscope.patch(cache, progress=False, **options), residscope.estimate(cache, **options)
    assert int(mixed.measured.sum()) == 5
    assert bool(measured.measured.all())
    torch.testing.assert_close(mixed.effects[mixed.measured], measured.effects[mixed.measured], atol=1e-5, rtol=1e-4)
    assert torch.equal(mixed.effects[~mixed.measured], estimates.effects[~mixed.measured])
    size = estimates.effects.mean(-1).abs()
    assert size[mixed.measured].min() >= size[~mixed.measured].max()


@pytest.mark.parametrize("name", ["gpt2", "bloom", "gemma2", "mistral-window", "falcon-alibi", "qwen3", "gpt_oss"])
def test_for_the_last_position_only_that_position_is_run(booted, name, monkeypatch):
    model, tokens, logits, cache = booted(name)
    made = []
    monkeypatch.setattr(sweep, "last_runner", lambda *given: made.append(last(*given)) or made[-1])
    found = residscope.ablate(cache, ANSWERS, positions="last", progress=False)
    # In TransformerLens 3.9, Falcon with ALiBi gives other logits with its key/value cache. Then whole runs are made.
    assert (made[0] is not None) == _agrees_with_past(model, tokens, logits)
    for layer, head in [(0, 0), (1, 2), (2, 3)]:
        expected = hooked(model, tokens, layer, head, where=-1) - difference(logits)
        torch.testing.assert_close(found.total[layer, head], expected, atol=1e-5, rtol=1e-4)


def _agrees_with_past(model, tokens, logits):
    """Return whether the model gives the same logits when it uses its key/value cache."""
    with torch.no_grad():
        _, past = model(tokens[:, :-1], return_type="logits_and_cache", use_cache=True)
        again, _ = model(tokens[:, -1:], return_type="logits_and_cache", past_key_values=past)
    return torch.allclose(again[:, -1], logits[:, -1], atol=1e-4)


last = sweep.last_runner


def test_a_key_value_cache_that_a_model_writes_into_is_copied_for_each_run(booted, monkeypatch):
    *_, cache = booted("llama")
    expected = residscope.ablate(cache, ANSWERS, positions="last", progress=False).total
    runners, of, copied = [], last_position._Copied.of, []
    monkeypatch.setattr(sweep, "last_runner", lambda *given: runners.append(last(*given)) or runners[-1])
    monkeypatch.setattr(last_position._Copied, "of", lambda *given: copied.append(given[1]) or of(*given))
    with torch.inference_mode():  # in this mode, PyTorch does not count writes to a tensor
        found = residscope.ablate(cache, ANSWERS, positions="last", progress=False).total
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    each = len(copied)
    copied.clear()
    residscope.ablate(cache, ANSWERS, positions="last", progress=False)
    assert len(copied) < each
    runner = runners[-1]
    before = runner.past(2)
    tensor = next(iter(last_position._tensors(before).values()))
    tensor.zero_()
    again = next(iter(last_position._tensors(runner.past(2)).values()))
    assert again.abs().max() > 0


@pytest.mark.parametrize("replace", ["mean", "cache", "tokens", "cache of one prompt", "tokens of one prompt"])
def test_each_kind_of_replacement(booted, replace):
    model, tokens, logits, cache = booted("llama")
    other_tokens = others(model)[0][: 1 if "one prompt" in replace else None]
    other = model.run_with_cache(other_tokens)[1]
    z = (cache if replace == "mean" else other)["blocks.1.attn.hook_z"][:, :, 2]
    value = z.mean(0, keepdim=True) if replace == "mean" else z
    given = {"mean": "mean", "cache": other, "tokens": other_tokens}[replace.split()[0]]
    found = residscope.ablate(cache, ANSWERS, "L1H2", replace=given, progress=False)
    expected = hooked(model, tokens, 1, 2, value=value) - difference(logits)
    torch.testing.assert_close(found.total[0], expected, atol=1e-5, rtol=1e-4)
    assert ("All prompts get the activations of the only prompt" in " ".join(found.notes)) == ("one prompt" in replace)
    alone = residscope.ablate(cache, ANSWERS, ["0.1", "1.2"], replace=given, positions=[2, -1], together=True)
    assert alone.total.shape == (3,)
    assert alone.labels == ["L0H1 + L1H2"]


def test_runs_are_split_if_memory_is_small(booted, monkeypatch):
    _, _, _, cache = booted("llama")
    whole = residscope.ablate(cache, ANSWERS, progress=False)
    monkeypatch.setattr(runner, "MEMORY", 1)
    parts = residscope.ablate(cache, ANSWERS, progress=False)
    torch.testing.assert_close(whole.total, parts.total, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("given", [True, False])
def test_padding_is_not_changed_and_each_prompt_has_its_own_effects(booted, side, given):
    model, tokens, _, _ = booted("llama")
    real = [7, 5, 4]
    padded, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.long)
    for row, count in enumerate(real):
        part = slice(7 - count, 7) if side == "left" else slice(0, count)
        padded[row, part], mask[row, part] = tokens[row, :count], 1
    with torch.no_grad():
        _, cache = model.run_with_cache(padded, attention_mask=mask)
    options = {"attention_mask": mask} if given else {}
    found = residscope.ablate(cache, ANSWERS, replace="zero", progress=False, **options)
    at_end = residscope.ablate(cache, ANSWERS, positions="last", progress=False, **options)
    for row, count in enumerate(real):
        with torch.no_grad():
            _, alone = model.run_with_cache(tokens[row : row + 1, :count])
        for positions, both in (("all", found), ("last", at_end)):
            expected = residscope.ablate(alone, ANSWERS[row : row + 1], positions=positions, progress=False)
            torch.testing.assert_close(both.total[..., row], expected.total[..., 0], atol=2e-5, rtol=1e-3)
    mean = residscope.ablate(cache, ANSWERS, "L0H0", replace="mean", progress=False, **options)
    assert any("not padding" in note for note in mean.notes)


def padded_on_the_left(model, after=0):
    """Return prompts of 7, 5 and 4 tokens, their mask, their cache, and the cache of other prompts with this mask.

    Their last `after` tokens become padding, too.
    """
    model.tokenizer.padding_side = "left"
    tokens, mask = tiny.run(model)[0], torch.ones(3, 7, dtype=torch.long)
    for row, count in enumerate((7, 5, 4)):
        mask[row, : 7 - count] = mask[row, 7 - after :] = 0
    with torch.no_grad():
        cache, other = (model.run_with_cache(t * mask, attention_mask=mask)[1] for t in (tokens, tokens.flip(1)))
    return tokens, mask, cache, other


PLACE = 2  # the first token of prompt 1, and padding in prompt 2
REPLACED = {
    "heads": ("ablate", {}),
    "MLPs": ("ablate", {"of": "mlp_out"}),
    "heads together": ("ablate", {"heads": ["0.1", "1.2"], "together": True}),
    "heads along a path": ("ablate", {"heads": ["0.1", "0.2"], "path": "L1H2.v"}),
    "heads past all layers": ("ablate", {"heads": ["0.1", "0.2"], "path": "logits", "norm": "frozen"}),
    "other heads": ("patch", {}),
    "another stream": ("patch", {"at": "resid_pre"}),
    "other keys": ("patch", {"at": "k"}),
    "other heads along a path": ("patch", {"path": "L1H2.k"}),
    "other heads, estimated": ("estimate", {}),
    "other values, estimated": ("estimate", {"at": "v"}),
    "other heads, estimated and then measured": ("effects", {"measure": 12}),
}


def replaced(call, cache, other, **options):
    """Return a result, and its effects."""
    name, own = REPLACED[call]
    given = [cache, ANSWERS] if name == "ablate" else [cache, other, ANSWERS]
    found = getattr(residscope, name)(*given, **own, **options)
    return found, found.total if name == "ablate" else found.effects


@pytest.mark.parametrize("call", REPLACED)
def test_a_prompt_in_which_the_positions_are_padding_has_no_effect_and_is_left_out_of_means(call):
    model = tiny.boot("gpt2").double()
    tokens, mask, cache, other = padded_on_the_left(model)
    found, values = replaced(call, cache, other, positions=[PLACE], attention_mask=mask)
    for row, count in enumerate((7, 5)):  # each prompt by itself, in a batch of three equal rows
        with torch.no_grad():
            own, source = (t[[row] * 3] for t in (tokens * mask, tokens.flip(1) * mask))
            alone, from_alone = (model.run_with_cache(t[:, 7 - count :])[1] for t in (own, source))
        _, expected = replaced(call, alone, from_alone, positions=[PLACE - 7 + count])
        torch.testing.assert_close(values[..., row], expected[..., row], atol=1e-8, rtol=1e-6, equal_nan=True)
    if call == "heads":
        with torch.no_grad():
            chosen = model(tokens[1:2, 2:])[:, -1, [7, 8]].diff()
            cut = partial(without_head, head=2, where=[0])
            changed = model.run_with_hooks(tokens[1:2, 2:], fwd_hooks=[("blocks.0.attn.hook_z", cut)])
        torch.testing.assert_close(values[0, 2, 1:2], (chosen - changed[:, -1, [7, 8]].diff())[0])
    assert bool(values[..., 2].isnan().all())
    if hasattr(found, "direct"):
        assert bool(found.direct[..., 2].isnan().all())
        assert bool(found.indirect[..., 2].isnan().all())
    rows = values.reshape(len(found.labels), 3)
    mean = rows[:, :2].mean(-1)
    means = found.of("total") if hasattr(found, "total") else found.of()
    torch.testing.assert_close(means, mean, equal_nan=True)
    at = int(mean.abs().nan_to_num(-1).argmax())
    assert found.top(1) == [(found.labels[at], pytest.approx(float(mean[at])))]
    column = found.to_frame()["total" if hasattr(found, "total") else "effect"]
    assert column.iloc[at] == pytest.approx(float(mean[at]))
    assert found.top(1, 2) == []
    said = "In 1 of 3 prompts (2) nothing was replaced, because the chosen positions are padding there."
    assert sum(said in note for note in found.notes) == 1
    assert "left out of means" in " ".join(found.notes)


def of_other_lengths(model, pad):
    """Return two lists of prompts (of 6 and 5, and of 4 and 5 tokens), padded on the left to 7, with their masks."""
    model.tokenizer.padding_side = "left"
    torch.manual_seed(0)
    made = []
    for lengths in ((6, 5), (4, 5)):
        prompts = [torch.randint(3, 60, (1, length)) for length in lengths]
        rows = [torch.cat([torch.full((1, 7 - p.shape[1]), pad), p], 1) for p in prompts]
        mask = torch.cat([torch.arange(7)[None] >= 7 - p.shape[1] for p in prompts]).long()
        made.append((prompts, torch.cat(rows), mask))
    return made


@pytest.mark.parametrize("pad", [0, 61])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_other_prompts_with_more_padding_are_run_as_without_it(name, pad):
    model = tiny.boot(name)
    (own, tokens, mask), (other, other_tokens, other_mask) = of_other_lengths(model, pad)
    with torch.no_grad():
        cache, other_cache = (
            model.run_with_cache(t, attention_mask=m)[1] for t, m in ((tokens, mask), (other_tokens, other_mask))
        )
    expected = []
    for mine, theirs in zip(own, other, strict=True):  # each prompt by itself
        with torch.no_grad():
            z = model.run_with_cache(theirs)[1]["blocks.1.attn.hook_z"].reshape(1, theirs.shape[1], 4, -1)[:, -1, 1]

            def put(value, hook, z=z):  # noqa: ARG001
                changed = value.clone().reshape(1, value.shape[1], 4, -1)
                changed[:, -1, 1] = z
                return changed.reshape(value.shape)

            runs = [model.run_with_hooks(mine, fwd_hooks=[("blocks.1.attn.hook_z", put)]), model(mine)]
        expected.append([(run[0, -1, 7] - run[0, -1, 8]).item() for run in runs])
    for source in (other_tokens, other_cache):
        found = residscope.ablate(cache, (7, 8), ["1.1"], replace=source, positions="last", attention_mask=mask)
        assert found.total[0].tolist() == pytest.approx([changed - whole for changed, whole in expected], abs=1e-5)


def test_an_activation_of_padding_is_never_put_in():
    found = {}
    for pad in (0, 61):
        model = tiny.boot("llama")
        (_, tokens, mask), (_, other_tokens, other_mask) = of_other_lengths(model, pad)
        with torch.no_grad():
            cache = model.run_with_cache(tokens, attention_mask=mask)[1]
            other = model.run_with_cache(other_tokens, attention_mask=other_mask)[1]
        each = residscope.patch(cache, other, (7, 8), at="resid_pre", positions="each", attention_mask=mask)
        whole = residscope.ablate(cache, (7, 8), ["0.1"], replace=other, attention_mask=mask)
        found[pad] = each, whole
        said = "In 1 of 2 prompts (0) the replacement at positions between 1 and 2 is an activation of padding."
        assert all(sum(said in note for note in one.notes) == 1 for one in found[pad])
        with pytest.raises(residscope.ResidscopeError, match=r"is an activation of padding\. Choose other"):
            residscope.without(cache, ["0.1"], replace=other, attention_mask=mask)
    for each, whole in found.values():
        assert each.effects[1].isnan().T.tolist() == [[True, True, True, *[False] * 4], [True, True, *[False] * 5]]
        assert whole.total.isnan().tolist() == whole.direct.isnan().tolist() == [[True, False]]
        assert float(whole.of("total")[0]) == float(whole.total[0, 1])
    torch.testing.assert_close(found[0][0].effects, found[61][0].effects, equal_nan=True)


@pytest.mark.parametrize("at", ["q", "k", "v", "pattern", "resid_pre"])
def test_padding_of_the_other_prompts_matters_only_where_something_is_replaced(at):
    model = tiny.boot("llama")
    (_, tokens, mask), (_, other_tokens, other_mask) = of_other_lengths(model, 0)
    with torch.no_grad():
        cache = model.run_with_cache(tokens, attention_mask=mask)[1]
        other = model.run_with_cache(other_tokens, attention_mask=other_mask)[1]
    for places, gone in (([4], [False, False]), ([2], [True, False]), ("all", [True, False])):
        found = residscope.patch(cache, other, (7, 8), at=at, positions=places, attention_mask=mask)
        assert found.effects.flatten(0, -2).isnan().all(0).tolist() == gone
        assert bool(found.measured.all())
    right, right_other = (torch.stack([row.roll(int(m.sum())) for row, m in zip(t, ms, strict=True)]) for t, ms in
                          ((tokens, mask), (other_tokens, other_mask)))  # fmt: skip
    with torch.no_grad():
        cache, other = (model.run_with_cache(t)[1] for t in (right, right_other))
    mask = mask.flip(1)
    read_before = residscope.patch(cache, other, (7, 8), at=at, position=3, attention_mask=mask)
    assert not bool(read_before.effects.isnan().any())


@pytest.mark.parametrize("masked", ["a hole", "tokens of two kinds", "a first token like padding"])
def test_the_cached_tokens_themselves_change_nothing(masked):
    model = tiny.boot("llama")
    (_, tokens, mask), _ = of_other_lengths(model, 0)
    if masked == "a hole":
        mask[0, 4] = 0
    else:
        tokens[1, {"tokens of two kinds": 1, "a first token like padding": 2}[masked]] = 55 if "two" in masked else 0
    with torch.no_grad():
        cache = model.run_with_cache(tokens, attention_mask=mask)[1]
    found = residscope.ablate(cache, (7, 8), ["1.1"], replace=tokens, attention_mask=mask)
    assert found.total.abs().max() < 1e-6


def test_nan_at_padding_enters_no_effect():
    model = tiny.boot("gpt2").double()
    tokens, mask = tiny.run(model)[0], torch.ones(3, 7, dtype=torch.long)
    for row, count in enumerate((7, 5, 4)):
        mask[row, count:] = 0
    real, last = mask.bool(), mask.sum(1) - 1
    model.add_hook(
        "blocks.2.attn.hook_z",
        lambda z, hook: z.masked_fill(~real.reshape(3, 7, *[1] * (z.ndim - 2)), float("nan")),  # noqa: ARG005
    )
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens * mask, attention_mask=mask)
        _, other = model.run_with_cache(tokens.flip(1) * mask, attention_mask=mask)
    assert bool(cache["blocks.2.attn.hook_z"].isnan().any())

    def target(logits):
        chosen = logits[torch.arange(3), last].gather(1, ANSWERS)
        return chosen[:, 0] - chosen[:, 1]

    def own_run(head, value, where):
        def put(z, hook):  # noqa: ARG001
            z = z.flatten(2).unflatten(2, (4, -1)).clone()
            z[:, :, head] = torch.where(where[..., None], value, z[:, :, head])
            return z.flatten(2)

        with torch.no_grad():
            fwd_hooks = [("blocks.2.attn.hook_z", put)]
            return target(model.run_with_hooks(tokens * mask, attention_mask=mask, fwd_hooks=fwd_hooks))

    z = cache["blocks.2.attn.hook_z"].flatten(2).unflatten(2, (4, -1))
    mean = torch.stack([z[:count, at].mean(0) for at, count in enumerate(mask.sum(0).tolist())])
    options = {"attention_mask": mask, "progress": False}
    found = residscope.ablate(cache, ANSWERS, ["2.1"], replace="mean", **options)
    torch.testing.assert_close(found.total[0], own_run(1, mean[None, :, 1], real) - target(logits))
    assert bool(found.direct.isfinite().all())
    for at in ("z", "v", "pattern"):
        patched = residscope.patch(cache, other, ANSWERS, at=at, **options)
        assert bool(patched.effects.isfinite().all())
    longer = other["blocks.2.attn.hook_z"].roll(1, 0)  # NaN where prompt 0 is read, because prompt 2 is padded there
    source = ActivationCache(dict(other.cache_dict) | {"blocks.2.attn.hook_z": longer}, model)
    first = residscope.ablate(cache, ANSWERS, ["2.1"], replace=source, positions=[0], **options)
    assert bool((first.direct == 0).all())  # nothing is replaced where the target is read
    edges = residscope.ablate(cache, ANSWERS, ["2.1"], edges=("last", "each"), together=True, **options)
    whole = residscope.ablate(cache, ANSWERS, ["2.1"], positions="last", **options)
    torch.testing.assert_close(edges.total, whole.total[0])


def test_positions_that_are_padding_in_every_prompt_are_refused():
    model = tiny.boot("gpt2")
    _, mask, cache, _ = padded_on_the_left(model, after=1)
    options = {"positions": [6], "attention_mask": mask}
    for call in (
        lambda: residscope.ablate(cache, ANSWERS, **options),
        lambda: residscope.patch(cache, "zero", ANSWERS, **options),
        lambda: residscope.estimate(cache, "zero", ANSWERS, **options),
        lambda: residscope.without(cache, ["0.1"], **options),
    ):
        with pytest.raises(ResidscopeError, match="are padding in every prompt, so nothing would be replaced"):
            call()


def test_positions_one_by_one_have_no_effect_at_padding_and_the_largest_mean_is_measured_first():
    model = tiny.boot("gpt2").double()
    _, mask, cache, other = padded_on_the_left(model, after=1)
    options = {"at": "resid_pre", "positions": "each", "attention_mask": mask}
    found = residscope.patch(cache, other, ANSWERS, **options)
    assert torch.equal(found.effects.isnan(), (mask == 0).T.expand(3, -1, -1))
    assert torch.equal(found.measured, (mask.sum(0) > 0).expand(3, -1))
    assert any("In 3 of 3 prompts" in note and "left out of means" in note for note in found.notes)
    guess = residscope.estimate(cache, other, ANSWERS, **options).of()
    some = residscope.effects(cache, other, ANSWERS, measure=4, **options)
    assert set(some.measured.flatten().nonzero().flatten().tolist()) == set(
        guess.abs().nan_to_num(-1).topk(4).indices.tolist()
    )


def _trained(model, cache):
    with torch.no_grad():
        model.blocks[1].mlp.out.weight.mul_(1.5)
    return "weights were changed", cache


def _left_hooked(model, cache):
    model.add_hook("blocks.1.hook_resid_pre", lambda x, hook: x * 1.2)  # noqa: ARG005
    return "hooks on the model", cache


def _had_hooks(model, _cache):
    change = partial(without_head, head=1)
    with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", change)]):
        return "No reason was found", model.run_with_cache(tiny.run(model)[0])[1]


def _training(model, cache):
    model.blocks[0].extra = torch.nn.Dropout(0.1)
    model.train()
    return "draws random numbers", cache


def _cast(model, _cache):
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        cache = model.run_with_cache(tiny.run(model)[0])[1]
    return "autocast", cache


def _without_ids(model, cache):
    kept = {key: value for key, value in cache.cache_dict.items() if "embed" not in key}
    return "holds no token ids", ActivationCache(kept, model)


def _other_ids(model, cache):
    return "differs from the token ids", (cache, {"tokens": others(model)[0]})


@pytest.mark.parametrize(
    "spoil", [_trained, _left_hooked, _had_hooks, _training, _cast, _without_ids, _other_ids], ids=lambda f: f.__name__
)
def test_a_run_that_is_not_the_cached_one_is_refused_with_its_reason(spoil):
    model = tiny.boot("llama")
    _, _, cache = tiny.run(model)
    residscope.attribute(cache, ANSWERS)
    reason, given = spoil(model, cache)
    given, options = given if isinstance(given, tuple) else (given, {})
    with pytest.raises(ResidscopeError, match=reason) as error:
        residscope.ablate(given, ANSWERS, progress=False, **options)
    assert error.value.code == "replay"


def _hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def _held():
    """Return how many numbers all live tensors hold together."""
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return sum(tensor.numel() for tensor in tensors)


def test_runs_that_end_in_any_way_change_no_state():
    model = tiny.boot("llama")
    tokens, logits, cache = tiny.run(model)
    residscope.ablate(cache, ANSWERS, progress=False)
    torch.manual_seed(3)
    random.seed(3)
    numpy.random.seed(3)
    states = torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].tolist()
    count, attributes = _hook_count(model), {n: dict(vars(m)) for n, m in model.named_modules()}
    copies = {key: value.clone() for key, value in cache.cache_dict.items()}
    calls, failing = [0], [None]

    def users_hook(module, args, output):  # noqa: ARG001
        _ = torch.rand(1), random.random(), numpy.random.rand()
        calls[0] += 1
        if failing[0] is not None and calls[0] > number // 10 % 6:  # fails in the replay or later
            raise failing[0]

    handle, heads = model.blocks[1].mlp.register_forward_hook(users_hook), [(at // 3, at % 3) for at in range(6)]
    outcomes = set()
    for number in range(100):
        calls[0] = 0
        failing[0] = {3: KeyboardInterrupt(), 5: ValueError("mine"), 7: MemoryError()}.get(number % 10)
        with torch.set_grad_enabled(number % 2 == 0), torch.autocast("cpu", enabled=number % 3 == 0):
            before = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
            try:
                _ = (
                    residscope.ablate(cache, ANSWERS, heads, progress=False)
                    if number % 4
                    else residscope.estimate(cache, "zero", ANSWERS)
                )
                outcomes.add("measured")
            except BaseException as error:
                outcomes.add(type(error).__name__)
            assert (torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")) == before
    handle.remove()
    assert outcomes == {"measured", "KeyboardInterrupt", "ValueError", "MemoryError"}
    assert _hook_count(model) == count
    assert (random.getstate(), numpy.random.get_state()[1].tolist()) == states[1:]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(torch.equal(cache[key], value) for key, value in copies.items())
    assert all(weight.grad is None for weight in model.parameters())
    for name, module in model.named_modules():
        now = {key: value for key, value in vars(module).items() if isinstance(value, bool | int | float | str)}
        assert now == {key: value for key, value in attributes[name].items() if key in now}
    with torch.no_grad():
        assert torch.equal(model(tokens), logits)
    held = _held()
    residscope.ablate(cache, ANSWERS, progress=False)
    assert _held() <= held


def test_an_interrupted_call_keeps_the_measured_effects(booted, monkeypatch):
    _, _, _, cache = booted("llama")
    whole = residscope.ablate(cache, ANSWERS, progress=False)
    done = sweep.Sweep._of

    def interrupted(self, patches):
        if any(patch.layer == 2 for patch in patches):
            raise KeyboardInterrupt
        return done(self, patches)

    monkeypatch.setattr(sweep.Sweep, "_of", interrupted)
    with pytest.raises(KeyboardInterrupt) as error:
        residscope.ablate(cache, ANSWERS, progress=False)
    assert torch.equal(error.value.partial.total[:2], whole.total[:2])
    assert bool(error.value.partial.total[2].isnan().all())


@pytest.mark.parametrize("call", ["patch", "patch with a path", "effects", "patch each"])
def test_an_interrupted_patching_says_which_effects_were_measured(booted, monkeypatch, call):
    model, tokens, _, cache = booted("llama")
    source = model.run_with_cache(tokens.flip(0))[1]
    options = {
        "patch": {},
        "patch with a path": {"path": "L2H1.q"},
        "effects": {"measure": 5},
        "patch each": {"at": "resid_pre", "positions": "each"},
    }[call]
    ask = partial(getattr(residscope, call.split()[0]), cache, source, ANSWERS, progress=False, **options)
    whole, done, counts = ask(), sweep.Sweep._of, []
    estimates = residscope.estimate(cache, source, ANSWERS).effects
    own = path_sweep.PathSweep._of

    def interrupted(of, self, patches):
        counts.append(len(patches))
        if len(counts) > 1:
            raise KeyboardInterrupt
        return of(self, patches)

    monkeypatch.setattr(sweep.Sweep, "_of", lambda self, patches: interrupted(done, self, patches))
    monkeypatch.setattr(path_sweep.PathSweep, "_of", lambda self, patches: interrupted(own, self, patches))
    with pytest.raises(KeyboardInterrupt) as error:
        ask()
    part = error.value.partial
    assert int(part.measured.sum()) == counts[0] < int(whole.measured.sum())
    assert torch.equal(part.effects[part.measured], whole.effects[part.measured])
    if call == "effects":
        assert torch.equal(part.effects[~part.measured], estimates[~part.measured])
    else:
        assert bool(part.effects[~part.measured].isnan().all())
    assert (part.path, part.labels) == (whole.path, whole.labels)


def test_hooks_do_nothing_on_another_thread(booted):
    model, tokens, logits, _ = booted("llama")
    got = []

    def run():
        with torch.no_grad():
            got.append(model(tokens))

    with hooks() as own:
        own.after(model.blocks[0].attn, lambda output: output * 0)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        run()
    assert torch.equal(got[0], logits)
    assert not torch.equal(got[1], logits)


@pytest.mark.parametrize("draws", [False, True])
def test_random_draws_of_another_thread_are_kept_unless_the_model_itself_draws(draws):
    """After the replay, while runs are made, another thread draws random numbers and sets `training` of a module."""
    model, made = tiny.boot("llama"), []
    part = next(part for part in model.original_model.modules() if type(part).__name__ == "LlamaRotaryEmbedding")
    forward, other = part.forward, threading.Event()

    def drawing(*args, **options):
        _ = torch.rand(1) if draws else None
        return forward(*args, **options)

    part.forward = drawing
    try:
        _, _, cache = tiny.run(model)
        residscope.ablate(cache, ANSWERS, "L0H0", progress=False)
        states = torch.get_rng_state(), numpy.random.get_state(), random.getstate()

        def meanwhile():
            made.extend([torch.rand(1), numpy.random.rand(), random.random()])
            model.blocks[0].mlp.train()
            other.set()

        def choose(*given):  # after the replay
            threading.Thread(target=meanwhile).start()
            assert other.wait(60)
            return last(*given)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sweep, "last_runner", choose)
            residscope.ablate(cache, ANSWERS, positions="last", progress=False)
        now = torch.get_rng_state(), numpy.random.get_state(), random.getstate()
        assert len(made) == 3
        assert torch.equal(states[0], now[0]) == draws
        assert states[1][2] != now[1][2]
        assert states[2] != now[2]
        assert model.blocks[0].mlp.training
    finally:
        part.forward = forward
        model.eval()


@pytest.mark.parametrize(("call", "words"), [
    (lambda c: residscope.ablate(c, ANSWERS, of="pattern"), "is not known"),
    (lambda c: residscope.ablate(c, ANSWERS, "L0H9"), "has no head"),
    (lambda c: residscope.ablate(c, ANSWERS, replace="nothing"), "is not known"),
    (lambda c: residscope.ablate(c, ANSWERS, replace=torch.zeros(2, 7, dtype=torch.long)), "one prompt for each"),
    (lambda c: residscope.ablate(c, ANSWERS, positions=9), "outside the prompt"),
    (lambda c: residscope.ablate(c, ANSWERS, position="all"), "at one position"),
    (lambda c: residscope.ablate(c, residscope.targets.neuron("L0N1")), "inside the model"),
    (lambda c: residscope.patch(c, c, ANSWERS, at="mlp"), "is not known"),
    (lambda c: residscope.patch(c, None, ANSWERS), "`source=` takes another cache"),
    (lambda c: residscope.ablate(c, ANSWERS, positions=[True]), "whole numbers"),
    (lambda c: residscope.ablate(c, ANSWERS, layers=1), "give `heads=`"),
])  # fmt: skip
def test_wrong_arguments_are_refused_in_a_sentence(booted, call, words):
    with pytest.raises(ResidscopeError, match=words):
        call(booted("llama")[3])


@pytest.mark.parametrize("positions", ["all", "last"])
@pytest.mark.parametrize("by", ["index", "mean of the batch"])
def test_a_layer_that_mixes_or_numbers_prompts_gives_the_effects_of_hooked_runs(by, positions, monkeypatch):
    """No hook shows this: the layer's function was replaced. Copies of the batch must then not be run at once."""
    model = tiny.boot("llama")
    layer = model.blocks[0].mlp.original_component
    forward = layer.forward

    def mixing(x):
        y = forward(x)
        if by == "index":
            return y * torch.where(torch.arange(len(y)) == 1, 3.0, 1.0)[:, None, None]
        return y - y.mean(0, keepdim=True)

    monkeypatch.setattr(layer, "forward", mixing)
    tokens, _, cache = tiny.run(model)
    own = residscope.ablate(cache, ANSWERS, ["1.0", "1.1"], replace=cache, progress=False)
    assert float(own.total.abs().max()) < 1e-6
    found = residscope.ablate(cache, ANSWERS, positions=positions, progress=False)
    where = slice(None) if positions == "all" else slice(-1, None)
    for at, head in ((0, 1), (1, 2), (2, 0)):

        def zero(value, hook, head=head):  # noqa: ARG001
            value[:, where, head] = 0
            return value

        with torch.no_grad():
            changed = model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.{at}.attn.hook_z", zero)])[:, -1]
        expected = changed.gather(1, ANSWERS[:, :1]) - changed.gather(1, ANSWERS[:, 1:])
        torch.testing.assert_close(found.total[at, head], expected[:, 0] - found.before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["bamba", "jamba", "gpt2"])
def test_in_bfloat16_a_run_with_its_own_activations_has_no_effect(family):
    model = tiny.boot(family)
    try:
        model.to(torch.bfloat16)
        cache = tiny.run(model)[2]
        found = residscope.patch(cache, cache, ANSWERS, positions="last", progress=False)
        assert float(found.effects.abs().nan_to_num().max()) == 0  # NaN in layers without attention
        assert bool(found.effects.isfinite().any())
    finally:
        model.to(torch.float32)


def test_a_direction_is_refused_where_the_model_projects_the_stream_before_the_unembedding():
    model = tiny.boot("opt-projected")
    cache, direction = tiny.run(model)[2], torch.ones(int(model.cfg.d_model))
    for call in (residscope.attribute, residscope.ablate):
        with pytest.raises(ResidscopeError, match="projects the stream in between"):
            call(cache, direction)


def test_a_source_is_read_by_its_own_model_or_not_at_all():
    model = tiny.boot("llama")
    tokens, _, cache = tiny.run(model)
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        logits = other(tokens.roll(1, 0))[:, -1]
        wanted = ("hook_z", "hook_resid_post", "hook_in", "hook_embed")
        few = other.run_with_cache(tokens.roll(1, 0), names_filter=lambda name: name.endswith(wanted))[1]
        only_z = model.run_with_cache(tokens.roll(1, 0), names_filter=lambda name: name.endswith("hook_z"))[1]
    expected = (logits.gather(1, ANSWERS[:, :1]) - logits.gather(1, ANSWERS[:, 1:]))[:, 0]
    torch.testing.assert_close(residscope.patch(cache, few, ANSWERS, progress=False).source, expected)
    found = residscope.patch(cache, only_z, ANSWERS, progress=False)
    assert found.source is None
    assert any("its target is not known" in note for note in found.notes)
    with pytest.raises(ResidscopeError, match="the target in the source is not known"):
        found.of(normalized=True)
    without = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_resid_post"))[1]
    with pytest.raises(ResidscopeError, match=r"In the cache of `source=`: `blocks.0.attn.hook_z` is not"):
        residscope.patch(cache, without, ANSWERS, progress=False)


@pytest.mark.parametrize("kind", [dict, UserDict, MappingProxyType])
def test_any_mapping_of_activations_is_a_source_with_normalized_effects(booted, kind):
    model, _, logits, cache = booted("llama")
    _, source_logits, source = others(model)
    found = residscope.patch(cache, kind(source.cache_dict), ANSWERS, at="resid_pre", progress=False)
    torch.testing.assert_close(found.source, difference(source_logits), atol=1e-5, rtol=1e-4)
    stream = source["blocks.1.hook_resid_pre"]
    with torch.no_grad():
        run = model.run_with_hooks(
            tiny.run(model)[0],
            fwd_hooks=[("blocks.1.hook_resid_pre", lambda own, hook: stream)],  # noqa: ARG005
        )
    expected = (difference(run) - difference(logits)) / (difference(source_logits) - difference(logits))
    torch.testing.assert_close(found.normalized[1], expected, atol=1e-4, rtol=1e-3)
    assert "target from" in found.direction


def test_a_run_of_several_prompts_for_one_prompt_is_refused_with_what_to_do(booted):
    model, tokens, _, several = booted("llama")
    with torch.no_grad():
        _, single = model.run_with_cache(tokens[1:2])
    given = {"progress": False}
    for call in (
        lambda other: residscope.patch(single, other, 5, **given),
        lambda other: residscope.ablate(single, 5, replace=other, **given),
        lambda other: residscope.estimate(single, other, 5),
    ):
        with pytest.raises(ResidscopeError, match=r"\(other, 0\)"):
            call(several)
        assert len(call((several, 0)).before) == 1


def test_results_are_tables_and_figures(booted):
    model, _, _, cache = booted("llama")
    found = residscope.ablate(cache, ANSWERS, progress=False)
    assert list(found.to_frame().columns) == ["total", "direct", "indirect"]
    name, value = found.top(1)[0]
    assert found.to_frame()["total"][name] == pytest.approx(value)
    assert "an unchanged run gives" in repr(found)
    patched = residscope.patch(cache, others(model)[2], ANSWERS, at="resid_pre", positions="each", progress=False)
    assert patched.labels[8] == "1_pre@1"
    with suppress(ImportError):
        import plotly  # noqa: F401

        assert found.to_plotly().data[0].z[1][2] == pytest.approx(float(found.total[1, 2].mean()))
        assert len(found.to_plotly("scatter").data[1].x) == 12
        assert len(patched.to_plotly(normalized=True).data[0].z) == 3
        bars = found.to_plotly("bars", effect="indirect").data[0]
        assert bars.y[0] == pytest.approx(float(found.indirect[0, 0].mean()))


@pytest.mark.parametrize("place", ["hook_embed", "blocks.0.hook_mlp_out", "blocks.1.hook_resid_pre"])
@pytest.mark.parametrize("kind", ["one prompt", "stored"])
def test_hooks_that_treat_prompts_differently_see_the_batch_as_it_was_cached(place, kind):
    model = tiny.boot("llama")
    torch.manual_seed(3)
    stored = torch.randn(3, 7, 24)

    def one_prompt(x, hook):  # noqa: ARG001
        x = x.clone()
        x[0] = 0
        return x

    model.add_hook(place, one_prompt if kind == "one prompt" else lambda x, hook: x + stored)  # noqa: ARG005
    tokens, logits, cache = tiny.run(model)
    before = difference(logits)
    for options in ({}, {"heads": ["0.1", "0.2"]}, {"positions": "last"}):
        heads = [(0, 1), (0, 2)] if "heads" in options else [(layer, head) for layer in range(3) for head in range(4)]
        where = slice(-1, None) if "positions" in options else slice(None)
        expected = torch.stack([hooked(model, tokens, *head, where=where, count=4) - before for head in heads])
        found = residscope.ablate(cache, ANSWERS, **options)
        torch.testing.assert_close(found.total.reshape(expected.shape), expected, rtol=1e-3, atol=1e-5)
    assert "which may treat its prompts differently" in " ".join(found.notes)
    another = residscope.ablate(cache, ANSWERS, replace=tokens[:1].flip(1))
    assert bool(another.total.isfinite().all())


def test_recording_hooks_of_libraries_do_not_count_as_the_users_hooks(booted):
    _, _, _, cache = booted("llama")
    assert not residscope.ablate(cache, ANSWERS).notes


def test_a_mask_may_be_given_for_a_run_without_a_mask():
    model = tiny.boot("llama")
    tokens, _, _ = tiny.run(model)
    tokens[1, -2:] = 2  # padding with EOS, and the model was run without a mask
    mask = torch.ones_like(tokens)
    mask[1, -2:] = 0
    logits, cache = model.run_with_cache(tokens)
    found = residscope.ablate(cache, ANSWERS, heads=["1.1"], attention_mask=mask)
    chosen = logits[torch.arange(3), torch.tensor([6, 4, 6])].gather(1, ANSWERS)
    torch.testing.assert_close(found.before, (chosen[:, 0] - chosen[:, 1]).detach(), rtol=1e-4, atol=1e-5)


def test_missing_repeated_or_unknown_names_are_refused(booted):
    _, tokens, _, cache = booted("llama")
    for options, words in (
        ({"of": "mlp_out", "layers": [1, -2]}, "names layer 1 twice"),
        ({"heads": ["1.1", "L1H1"]}, "names L1H1 twice"),
        ({"of": "mlp_out", "layers": [], "together": True}, "names no layer"),
        ({"heads": 3}, "3 is not a head"),
        ({"replace": tokens + tiny.VOCAB}, "outside the vocabulary"),
        ({"replace": tokens * 0 - 1}, "outside the vocabulary"),
    ):
        with pytest.raises(ResidscopeError, match=words):
            residscope.ablate(cache, ANSWERS, **options)


def test_a_changed_unembedding_is_named():
    model = tiny.boot("llama")
    _, _, cache = tiny.run(model)
    next(model.unembed.parameters()).data[5] += 1
    with pytest.raises(ResidscopeError, match="a layer whose activations this cache does not hold"):
        residscope.ablate(cache, ANSWERS, heads=["0.1"])


def test_a_cache_that_was_converted_to_bfloat16_can_be_used(booted):
    model, _, logits, cache = booted("llama")
    coarse = {name: part.bfloat16() if part.is_floating_point() else part for name, part in cache.items()}
    found = residscope.ablate(ActivationCache(coarse, model), ANSWERS, heads=["0.1"])
    torch.testing.assert_close(found.before, difference(logits), rtol=1e-3, atol=1e-3)


def test_a_source_of_another_model_is_noted(booted):
    _, _, _, cache = booted("llama")
    other = tiny.run(tiny.boot("llama"))[2]
    assert "from another model" in " ".join(residscope.patch(cache, other, ANSWERS).notes)


def test_other_prompts_with_the_same_padding_are_run_with_the_mask_of_the_cached_run():
    model = tiny.boot("llama")
    model.tokenizer.padding_side = "left"
    tokens, _, _ = tiny.run(model)
    mask = torch.ones_like(tokens)
    mask[1, :2] = 0
    runs = [tokens * mask, others(model)[0] * mask]
    caches = [model.run_with_cache(prompts, attention_mask=mask)[1] for prompts in runs]
    by_tokens = residscope.ablate(caches[0], ANSWERS, heads=["1.1"], replace=runs[1])
    by_cache = residscope.ablate(caches[0], ANSWERS, heads=["1.1"], replace=caches[1])
    torch.testing.assert_close(by_tokens.total, by_cache.total)
    assert "with an attention mask that leaves out their padding" in " ".join(by_tokens.notes)
    unpadded = residscope.ablate(caches[0], ANSWERS, heads=["1.1"], replace=others(model)[0])
    assert "without an attention mask" in " ".join(unpadded.notes)
