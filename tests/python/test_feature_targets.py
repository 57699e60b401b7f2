"""A feature's input as a target. Expected: the SAE's own `encode` (if the feature is active), or values in float64."""

from __future__ import annotations

import pytest
import torch

import residscope
from residscope import ResidscopeError, targets
from tests.support import saes

POINTS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "mlp.hook_in")


def made(kind, cache, name: str, **cfg):
    width = cache[name].shape[-1]
    if name.endswith("mlp.hook_in"):
        cfg |= {"hook_name_out": name.replace("mlp.hook_in", "hook_mlp_out"), "apply_b_dec_to_input": False}
    return kind(width, hook_name=name, **cfg)


@pytest.mark.parametrize("by", ["layer", "head", "neuron", "accumulated"])
@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "granite"])
def test_rows_sum_to_the_features_input(booted, name, point, by):
    _, _, _, cache = booted(name)
    for layer in (1, 2):
        at = f"blocks.{layer}.{point}"
        if at not in cache:
            pytest.skip("this version of TransformerLens has no such hook")
        sae = made(saes.Sae, cache, at, apply_b_dec_to_input=point != "mlp.hook_in")
        with torch.no_grad():
            before, after = sae.before(cache[at]), sae.encode(cache[at])
        for position in (4, "all"):
            result = residscope.attribute(cache, targets.feature(sae, 11), by=by, position=position)
            own = before[..., 11] if position == "all" else before[:, 4, 11]
            torch.testing.assert_close(result.measured, own, atol=1e-5, rtol=1e-5)
            total = result.values[-1] if by == "accumulated" else result.values.sum(0)
            torch.testing.assert_close(total + result.constant, own, atol=2e-5, rtol=2e-5)
            assert result.unexplained.abs().max() <= result.tolerance
            active = after[..., 11] > 0 if position == "all" else after[:, 4, 11] > 0
            torch.testing.assert_close(
                result.measured[active], (after if position == "all" else after[:, 4])[..., 11][active]
            )


@pytest.mark.parametrize("subtracted", [True, False])
@pytest.mark.parametrize("kind", [saes.Sae, saes.TopK, saes.RescaledTopK, saes.JumpReLU, saes.Gated])
def test_the_input_of_an_active_feature_is_its_activation_in_every_kind_of_sae(booted, kind, subtracted):
    _, _, _, cache = booted("llama")
    sae = made(kind, cache, "blocks.1.hook_resid_mid", apply_b_dec_to_input=subtracted)
    with torch.no_grad():
        activations = sae.encode(cache["blocks.1.hook_resid_mid"])
    compared, notes = 0, []
    for feature in range(0, saes.FEATURES, 3):
        result = residscope.attribute(cache, targets.feature(sae, f"F{feature}"), by="layer", position="all")
        active = activations[..., feature] != 0
        compared += int(active.sum())
        torch.testing.assert_close(result.measured[active], activations[..., feature][active], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(result.values.sum(0) + result.constant, result.measured, atol=2e-5, rtol=2e-5)
        notes += result.notes
    assert compared > 20
    expected = {saes.Sae: "", saes.JumpReLU: "above its threshold", saes.Gated: "or a gate"}.get(kind, "k largest")
    assert any(expected in note for note in notes)


def test_a_row_is_the_component_times_the_encoder(booted):
    _, _, _, cache = booted("llama")
    sae = made(saes.Sae, cache, "blocks.2.hook_resid_pre")
    result = residscope.attribute(cache, targets.feature(sae, 5), by="head", position=3)
    encoder = sae.W_enc.detach().double()[:, 5]
    for label, value in zip(result.labels, result.values, strict=True):
        if label.startswith("L"):
            layer, head = int(label[1]), int(label[3])
            z = cache[f"blocks.{layer}.attn.hook_z"][:, 3, head].double()
            expected = z @ cache.model.blocks[layer].attn.W_O[head].detach().double() @ encoder * (layer < 2)
            torch.testing.assert_close(value.double(), expected, atol=1e-5, rtol=1e-5)
    constant = float(sae.b_enc[5].detach() - sae.b_dec.detach() @ sae.W_enc.detach()[:, 5])
    torch.testing.assert_close(result.constant.double(), torch.full((3,), constant).double(), atol=1e-5, rtol=1e-5)


def test_at_the_end_of_the_stream_there_is_no_norm(booted):
    _, _, _, cache = booted("llama")
    at = "blocks.2.hook_resid_post"
    sae = made(saes.Sae, cache, at)
    result = residscope.attribute(cache, targets.feature(sae, 5), by="layer")
    own = sae.before(cache[at])[:, -1, 5].detach()
    torch.testing.assert_close(result.values.sum(0) + result.constant, own, atol=1e-5, rtol=1e-5)
    assert "2_mlp_out" in result.labels


def test_a_feature_is_explained_by_features_of_an_earlier_sae(booted):
    _, _, _, cache = booted("llama")
    early, late = made(saes.TopK, cache, "blocks.1.hook_mlp_out"), made(saes.Sae, cache, "blocks.2.hook_resid_pre")
    result = residscope.attribute(cache, targets.feature(late, 5), by="feature", sae=early)
    torch.testing.assert_close(result.values.sum(0) + result.constant, result.measured, atol=1e-5, rtol=1e-5)
    row = next(row for row in result.components if row.kind == "feature")
    activation = early.encode(cache["blocks.1.hook_mlp_out"][:, -1])[:, row.index]
    expected = activation * (early.W_dec[row.index] @ late.W_enc[:, 5])
    torch.testing.assert_close(result.values[result.labels.index(row.label)], expected.detach(), atol=1e-5, rtol=1e-5)


def test_a_feature_target_is_described_in_words(booted):
    from residscope.attribution.target_words import in_words, unit_of

    _, _, _, cache = booted("llama")
    sae = made(saes.Sae, cache, "blocks.2.hook_resid_pre")
    result = residscope.attribute(cache, targets.feature(sae, 5), by="layer")
    assert in_words(result.target) == "feature F5 of `blocks.2.hook_resid_pre` before its activation"
    assert unit_of(result.target) == "input of the feature"
    assert repr(targets.feature("sae", 5)) == "targets.feature(sae='sae', feature=5)"
    assert "feature" in result.to_plotly().to_json()


def test_feature_targets_without_an_exact_decomposition_are_refused(booted):
    _, _, _, cache = booted("llama")
    stream = made(saes.Sae, cache, "blocks.1.hook_resid_pre")
    dead = made(saes.Sae, cache, "blocks.1.hook_resid_pre")
    dead.encode = lambda x: x.new_zeros(*x.shape[:-1], saes.FEATURES)
    unlike = made(saes.Sae, cache, "blocks.1.hook_resid_pre")
    unlike.encode = lambda x: saes.Sae.encode(unlike, x).pow(2)
    other = saes.Sae(24, hook_name="blocks.1.attn.hook_in", hook_name_out="blocks.1.hook_mlp_out")
    cached = {name: cache[name] for name in cache} | {"blocks.1.attn.hook_in": torch.randn(3, 7, 24)}
    cases = {
        "has no feature 60": (cache, stream, 60),
        "is not a feature": (cache, stream, "L1N3"),
        "normalises its input": (cache, made(saes.Normed, cache, "blocks.1.hook_resid_pre"), 3),
        "neither the stream": (cache, made(saes.Sae, cache, "blocks.1.hook_mlp_out"), 3),
        "nor what an MLP": (cached, other, 3),
        "not active at any": (cache, dead, 3),
        "for example because": (cache, unlike, 3),
    }
    for words, (given, sae, feature) in cases.items():
        with pytest.raises(ResidscopeError, match=words):
            residscope.attribute(given, targets.feature(sae, feature), by="layer", model=cache.model)
    with pytest.raises(ResidscopeError, match="cannot be part of a list"):
        residscope.attribute(cache, [targets.feature(stream, 1)] * 3, by="layer")


def test_many_caches_can_be_resumed_only_with_the_same_sae(booted, tmp_path):
    _, _, _, cache = booted("llama")
    sae, other = made(saes.Sae, cache, "blocks.2.hook_resid_pre"), made(saes.Sae, cache, "blocks.2.hook_resid_pre")
    other.W_enc.data *= 2
    options = {"by": "layer", "progress": False, "resume": str(tmp_path / "kept")}
    whole = residscope.attribute_many([cache], targets.feature(sae, 5), **options)
    again = residscope.attribute_many([cache], targets.feature(sae, 5), **options)
    torch.testing.assert_close(whole.values, again.values)
    with pytest.raises(ResidscopeError, match="answers"):
        residscope.attribute_many([cache], targets.feature(other, 5), **options)


def test_views_and_other_functions_accept_a_feature_target(booted):
    from residscope.serving.service import Service
    from residscope.wire.decompositions import Attribute

    _, _, _, cache = booted("llama")
    sae = made(saes.Sae, cache, "blocks.2.hook_resid_pre")
    target = targets.feature(sae, 5)
    service = Service(cache)
    reply, _ = service.reply(Attribute("head", service.targets().resolve(target)))
    own = residscope.attribute(cache, target)
    assert reply.measured == pytest.approx(float(own.measured.mean()), abs=1e-5)
    sources = residscope.attribute(cache, target, by="source", heads=["L1H1"]).values.sum(0)[0]
    torch.testing.assert_close(sources, own.grid[1, 1], atol=1e-5, rtol=1e-5)
    moved = residscope.attribute(cache, targets.output("L1H1", of=target, source=2), by="layer")
    torch.testing.assert_close(moved.values.sum(0) + moved.constant, moved.measured, atol=1e-5, rtol=1e-5)
    assert float(residscope.compare(cache, cache, target, by="layer").values.abs().max()) == 0
