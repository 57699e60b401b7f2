"""The tolerance depends only on the precision of the terms of a sum."""

from __future__ import annotations

import pytest
import torch
from transformer_lens import ActivationCache

import residscope
from tests.support import tiny
from tests.support.brute import Brute

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
STRAYS = {
    "SAE activations in bfloat16": {"sae_acts": torch.zeros(3, 7, 100, dtype=torch.bfloat16)},
    "attention scores in float16": {"blocks.0.attn.hook_attn_scores": torch.zeros(3, 4, 7, 7, dtype=torch.float16)},
    "output of a norm in bfloat16": {"blocks.1.ln1.hook_normalized": torch.zeros(3, 7, 24).bfloat16()},
    "unknown tensor in float8": {"quantised": torch.zeros(3, 7, 100).to(torch.float8_e4m3fn)},
}


def _broken(names: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return activations in which one head's `z` is changed, without the two activations that would show it."""
    edited = {name: tensor.clone() for name, tensor in names.items()}
    del edited["blocks.1.hook_attn_out"], edited["blocks.1.hook_resid_mid"]
    z = edited["blocks.1.attn.hook_z"]
    z[:, :, 2] += 0.05 * torch.randn(z[:, :, 2].shape, generator=torch.Generator().manual_seed(0))
    return edited


@pytest.fixture(scope="module")
def llama():
    model = tiny.boot("llama")
    return model, tiny.run(model)[2]


@pytest.mark.parametrize("stray", STRAYS)
def test_a_tensor_outside_the_sum_does_not_hide_a_broken_head(llama, stray):
    model, cache = llama
    result = residscope.attribute(ActivationCache(_broken(dict(cache.items())) | STRAYS[stray], model), ANSWERS)
    assert result.unexplained.abs().max() > result.tolerance
    assert result.notes
    whole = residscope.attribute(ActivationCache(dict(cache.items()) | STRAYS[stray], model), ANSWERS)
    assert whole.unexplained.abs().max() <= whole.tolerance <= 1e-3


def test_a_coarse_tensor_in_the_sum_raises_the_tolerance_by_no_more_than_its_own_rounding(llama):
    model, cache = llama
    coarse = {name: cache[name].bfloat16() for name in ("blocks.0.hook_mlp_out",)}
    whole = residscope.attribute(ActivationCache(dict(cache.items()) | coarse, model), ANSWERS)
    assert 1e-4 < whole.unexplained.abs().max() <= whole.tolerance
    row = whole.values[whole.labels.index("0_mlp_out")].abs().max()
    assert whole.tolerance <= 4 * torch.finfo(torch.bfloat16).eps * row


@pytest.mark.parametrize("stray", STRAYS)
def test_a_tensor_outside_the_sum_does_not_hide_a_broken_source(llama, stray):
    model, cache = llama
    edited = dict(cache.items()) | STRAYS[stray]
    edited["blocks.1.attn.hook_z"] = edited["blocks.1.attn.hook_z"] * 1.002
    del edited["blocks.1.hook_attn_out"]
    result = residscope.attribute(ActivationCache(edited, model), ANSWERS, by="source", heads="1.1")
    assert result.unexplained.abs().max() > result.tolerance
    valued = residscope.attention(ActivationCache(edited, model), "1.1", weighting="value", prompt=0)
    assert any("before `W_O`" in note for note in valued.notes)


def test_heads_with_a_coarser_precision_than_the_rest_still_add_up(llama):
    model, cache = llama
    coarse = {"blocks.1.attn.hook_z": cache["blocks.1.attn.hook_z"].bfloat16()}
    held = ActivationCache(dict(cache.items()) | coarse, model)
    read = cache["pattern", 1][:, 1, -1, :, None] * cache["v", 1][:, :, 0]  # heads 0 and 1 share values
    written = read.double() @ model.W_O[1, 1].detach().double()  # [batch, source, d_model]
    for answers in ((3, 4), (3, 6), (4, 5)):
        brute = Brute(model, cache, torch.tensor([answers] * 3), 6)
        true = torch.stack([brute.contribution(vectors) for vectors in written.unbind(1)])
        found = residscope.attribute(held, answers, by="source", heads="1.1")
        torch.testing.assert_close(found.values[:, 0].double(), true, atol=2e-5, rtol=1e-4)
        assert not found.notes


@pytest.mark.parametrize("family", ["afmoe", "qwen3_5_text"])
def test_a_gate_with_a_coarser_precision_than_the_rest_is_found(family):
    model = tiny.boot(family)
    cache = tiny.run(model)[2]
    gates = (f"blocks.1.attn.{name}" for name in ("gate.hook_out", "hook_q_gate"))
    coarse = {name: cache[name].bfloat16() for name in gates if name in cache}
    assert len(coarse) == 1
    held = ActivationCache(dict(cache.items()) | coarse, model)
    found = residscope.attribute(held, ANSWERS, by="source", heads="1.1")
    brute = Brute(model, cache, ANSWERS, 6)
    z = brute.at("blocks.1.attn.hook_z")[:, 1]
    true = brute.contribution(brute.written(1, "ln1_post", z @ model.blocks[1].attn.W_O[1].detach().double()))
    near = torch.finfo(torch.bfloat16).eps * found.values.abs().max()
    torch.testing.assert_close(found.values.sum(0)[0].double(), true, atol=float(near), rtol=0)
    assert found.unexplained.abs().max() <= found.tolerance
    [note] = found.notes
    assert "gate what they have read" in note


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("position", ["last", "all"])
def test_errors_of_sources_are_distinguished_from_rounding_in_each_precision(llama, dtype, position):
    """Differences that rounding explains have no note. A difference of a fifth of a source contribution has one."""
    model, cache = llama
    held = {name: t.to(dtype) if t.is_floating_point() else t for name, t in cache.items()}
    heads = ["L1H1", "L0H0"]
    whole = residscope.attribute(ActivationCache(held, model), ANSWERS, by="source", heads=heads, position=position)
    exact = residscope.attribute(cache, ANSWERS, by="source", heads=heads, position=position)
    brought = exact.values.norm(dim=0).max()
    assert whole.unexplained.abs().max() <= whole.tolerance <= max(1e-4, 2.1 * torch.finfo(dtype).eps * brought)
    assert not any("is not pattern @ v" in note for note in whole.notes)
    at = exact.values[..., 0, :].abs().amax(tuple(range(1, exact.values[..., 0, :].ndim))).argmax()
    edited = held["blocks.1.attn.hook_v"].clone()
    edited[:, at] *= 1.2
    del held["blocks.1.hook_attn_out"]
    broken = ActivationCache(held | {"blocks.1.attn.hook_v": edited}, model)
    found = residscope.attribute(broken, ANSWERS, by="source", heads=heads, position=position)
    missing = 0.2 * exact.values[at, ..., 0, :]
    torch.testing.assert_close(found.unexplained[..., 0, :], -missing, atol=2 * whole.tolerance, rtol=0.1)
    assert found.unexplained.abs().max() > found.tolerance
    assert any("is not pattern @ v" in note for note in found.notes)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_a_cache_in_float8_has_the_values_of_its_numbers(llama, kind):
    model, cache = llama
    coarse = {name: t.to(kind) if t.is_floating_point() else t for name, t in cache.items()}
    held = ActivationCache(coarse, model)
    unembed = model.W_U.detach()
    target = unembed[:, ANSWERS[:, 0]] - unembed[:, ANSWERS[:, 1]]  # [d_model, prompt]
    way = model.ln_final.weight.detach()[:, None] * target / coarse["ln_final.hook_scale"].float()[:, -1].T
    logits = coarse["unembed.hook_out"].float()[:, -1]
    result = residscope.attribute(held, ANSWERS, by="accumulated")
    stream = coarse["blocks.1.hook_resid_pre"].float()[:, -1]
    row = result.values[result.labels.index("1_pre")]
    torch.testing.assert_close(row, (stream.T * way).sum(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.measured, logits.gather(1, ANSWERS).diff(dim=1)[:, 0].neg())
    for by in ("layer", "accumulated"):  # heads may not add up in float8, and then a message says so
        assert residscope.attribute(held, ANSWERS, by=by).values.isfinite().all()


@pytest.mark.parametrize(("kind", "off"), [(torch.float8_e4m3fn, "6%"), (torch.float8_e5m2, "12%")], ids=str)
def test_refusals_say_that_float8_is_too_coarse(llama, kind, off):
    model, cache = llama
    odd = {name: 8 * t if name.endswith(("1.attn.hook_z", "1.mlp.hook_post")) else t for name, t in cache.items()}
    coarse = {name: t.to(kind) if t.is_floating_point() else t for name, t in odd.items()}
    kept = {name: t.bfloat16() if t.is_floating_point() else t for name, t in cache.items()}

    def said(held, by, **options):
        try:
            return " ".join(residscope.attribute(ActivationCache(held, model), ANSWERS, by=by, **options).notes)
        except residscope.ResidscopeError as error:
            return str(error)

    for by, options in (("head", {}), ("neuron", {}), ("source", {"heads": "1.1"})):
        found = said(coarse, by, **options)
        assert f"kept in {str(kind)[6:]}, numbers of 8 bits with a rounding error of up to {off}" in found
        assert "`.to(torch.bfloat16)`" in found  # the next line checks that this advice helps
        assert said(kept, by, **options) == ""
        for untrue in ("the model does more", "a hook", "training", "scales them", "of this model"):
            assert untrue not in found


@pytest.mark.parametrize("by", ["layer", "accumulated", "head"])
def test_the_rounding_of_given_logits_in_bfloat16_has_no_note(llama, by):
    model, cache = llama
    logits = cache["unembed.hook_out"].bfloat16()
    found = residscope.attribute(cache, ANSWERS, by=by, logits=logits)
    own = logits[:, -1].float().gather(1, ANSWERS)
    torch.testing.assert_close(found.measured, own[:, 0] - own[:, 1], atol=1e-6, rtol=0)
    assert 1e-3 < found.unexplained.abs().max() <= found.tolerance  # more than the rounding of float32
    assert found.notes == []
    edited = dict(cache.items())
    edited["blocks.1.attn.hook_z"] = 2 * edited["blocks.1.attn.hook_z"]
    del edited["blocks.1.hook_attn_out"], edited["blocks.1.hook_resid_mid"]
    broken = residscope.attribute(ActivationCache(edited, model), ANSWERS, logits=logits)
    assert any("arises in layer 1:" in note for note in broken.notes)  # larger differences are still reported


def test_rounding_is_named_as_the_cause_only_if_every_place_was_compared(llama):
    model, cache = llama
    # If the stream around the layer was cached, the layer is named.
    found = residscope.attribute(ActivationCache(_broken(dict(cache.items())), model), ANSWERS)
    assert any("arises in layer 1:" in note for note in found.notes)
    # If the stream was not cached, the missing activation is named.
    ends = ("hook_z", "hook_mlp_out", "hook_embed", "hook_scale", "2.hook_resid_post", "unembed.hook_out")
    held = {name: tensor for name, tensor in _broken(dict(cache.items())).items() if name.endswith(ends)}
    unknown = residscope.attribute(ActivationCache(held, model), ANSWERS)
    assert unknown.unexplained.abs().max() > unknown.tolerance
    assert any("cannot be determined" in note and "`blocks.1.hook_resid_pre`" in note for note in unknown.notes)
    # In neither case is rounding given as the cause.
    assert not any("no single place" in note for note in found.notes + unknown.notes)
