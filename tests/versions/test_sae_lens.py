"""SAEs and transcoders of SAELens with random weights. Rows of features come from an SAE's `encode` and `decode`."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import pytest
import torch

import residscope
from residscope import ResidscopeError, targets
from tests.support import hooked

sae_lens: Any = import_module("sae_lens")

FEATURES = 60
STANDARD = ("Standard", "TopK", "JumpReLU", "Gated")
SITES = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")
TRANSCODERS = ("Transcoder", "SkipTranscoder", "JumpReLUTranscoder")


def made(kind: str, site: str, **fields):
    """Return a random SAE of SAELens for a site of layer 1."""
    options = {"d_in": 24, "d_sae": FEATURES, "metadata": sae_lens.saes.sae.SAEMetadata(hook_name=f"blocks.1.{site}")}
    if kind == "TopK":
        options["k"] = 6
    if kind in TRANSCODERS:
        options |= {"d_out": 24, "apply_b_dec_to_input": False}
        options["metadata"].hook_name_out = "blocks.1.hook_mlp_out"
    if site == "attn.hook_z":
        options["reshape_activations"] = "hook_z"
    place = sae_lens if kind.startswith(STANDARD) else sae_lens.saes.transcoder
    name = kind if kind in TRANSCODERS else f"{kind}SAE"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(place, f"{name}Config")(**options | fields)
        sae = getattr(place, name)(config)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter_name, parameter in sae.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.3)
            if parameter_name == "threshold":
                parameter.abs_()
    return sae


def checked(cache, sae, site: str, **options):
    """Check that all rows sum to the target, and the rows of the SAE (with its error) to the row of its site."""
    result = residscope.attribute(cache, hooked.ANSWERS, by="feature", sae=sae, **options)
    layers = residscope.attribute(cache, hooked.ANSWERS, by="layer", **options)
    torch.testing.assert_close(result.values.sum(0) + result.constant, result.measured, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(result.measured, layers.measured)
    assert result.unexplained.abs().max() <= result.tolerance
    kept = set(layers.labels) & set(result.labels)
    if not site.startswith("hook_resid"):
        assert set(layers.labels) - kept == {f"1_{'mlp' if 'mlp' in site else 'attn'}_out"}
    own = sum(row for label, row in zip(result.labels, result.values, strict=True) if label not in kept)
    taken = sum(row for label, row in zip(layers.labels, layers.values, strict=True) if label not in kept)
    torch.testing.assert_close(own, taken, atol=1e-5, rtol=1e-5)
    return result


@pytest.mark.parametrize("normalised", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("kind", STANDARD)
@pytest.mark.parametrize("structure", ["LN", "gemma2"])
def test_features_error_and_bias_sum_to_the_row_of_the_site(structure, kind, site, normalised):
    _, cache = hooked.run(structure)
    for more in ({}, {"rescale_acts_by_decoder_norm": True}) if kind == "TopK" else ({},):
        for subtracted in (True, False):
            sae = made(kind, site, normalize_activations=normalised, apply_b_dec_to_input=subtracted, **more)
            for position in ("last", "all"):
                result = checked(cache, sae, site, position=position)
            with torch.no_grad():
                activations = sae.encode(cache[f"blocks.1.{site}"])
                sae.decode(activations)
            active = activations.reshape(-1, FEATURES).any(0).nonzero().flatten().tolist()
            assert sorted(row.index for row in result.components if row.kind == "feature") == active


@pytest.mark.parametrize("read", ["ln2.hook_normalized", "hook_resid_mid", "hook_mlp_in"])
@pytest.mark.parametrize("kind", TRANSCODERS)
@pytest.mark.parametrize("structure", ["LN", "LN-folded", "RMS-folded"])
def test_a_transcoder_and_its_skip_connection(structure, kind, read):
    _, cache = hooked.run(structure)
    sae = made(kind, read)
    result = checked(cache, sae, "hook_mlp_out", position="all")
    assert ("skip" in result.labels) is (kind == "SkipTranscoder")
    whole = (_Forward(sae), f"blocks.1.{read}", "blocks.1.hook_mlp_out")
    alone = residscope.attribute(cache, hooked.ANSWERS, by="feature", sae=whole, position="all")
    torch.testing.assert_close(result.values[0], alone.values[0], atol=1e-5, rtol=1e-5)


class _Forward:
    """An SAE without active features, whose `decode` returns what a transcoder's `forward` returns."""

    W_dec = torch.zeros(2, 24)

    def __init__(self, sae):
        self.sae = sae

    def encode(self, x):
        self.x = x
        return x.new_zeros(*x.shape[:-1], 2)

    def decode(self, _):
        return self.sae(self.x)


def test_a_batch_top_k_sae_in_its_training_form_and_in_its_final_form():
    _, cache = hooked.run("LN")
    config = sae_lens.BatchTopKTrainingSAEConfig(d_in=24, d_sae=FEATURES, k=5)
    config.metadata.hook_name = "blocks.1.hook_mlp_out"
    trained = sae_lens.BatchTopKTrainingSAE(config)
    with pytest.raises(ResidscopeError, match="when other vectors are encoded with it"):
        residscope.attribute(cache, hooked.ANSWERS, by="feature", sae=(trained, "blocks.1.hook_mlp_out"))
    state = trained.state_dict()
    trained.process_state_dict_for_saving_inference(state)
    fields = trained.cfg.get_inference_sae_cfg_dict()
    used = sae_lens.SAE.from_dict(fields)
    used.load_state_dict(state)
    assert type(used).__name__ == "JumpReLUSAE"
    checked(cache, (used, "blocks.1.hook_mlp_out"), "hook_mlp_out")


def test_a_matching_pursuit_sae_is_used_as_it_is():
    _, cache = hooked.run("LN")
    config = sae_lens.MatchingPursuitSAEConfig(d_in=24, d_sae=FEATURES, max_iterations=6)
    config.metadata.hook_name = "blocks.1.hook_mlp_out"
    checked(cache, (sae_lens.MatchingPursuitSAE(config), "blocks.1.hook_mlp_out"), "hook_mlp_out")


def test_the_sae_is_not_changed():
    _, cache = hooked.run("LN")
    for site, fields in (("attn.hook_z", {}), ("hook_mlp_out", {"normalize_activations": "layer_norm"})):
        sae = made("Standard", site, **fields)
        before = dict(vars(sae))
        residscope.attribute(cache, hooked.ANSWERS, by="feature", sae=sae)
        assert vars(sae).keys() == before.keys()
        assert all(vars(sae)[name] is value for name, value in before.items())


def test_a_cache_of_a_run_with_the_sae_in_the_model_is_refused():
    model = sae_lens.HookedSAETransformer(hooked.model("LN").cfg)
    sae = made("Standard", "hook_mlp_out")
    with torch.no_grad():
        _, cache = model.run_with_cache_with_saes(hooked.tokens(), saes=[sae])
        with pytest.raises(ResidscopeError, match="an SAE was in the place of"):
            residscope.attribute(cache, hooked.ANSWERS, by="feature", sae=sae)
        _, cache = model.run_with_cache(hooked.tokens())
    checked(cache, sae, "hook_mlp_out")


@pytest.mark.parametrize("kind", [*STANDARD, "Transcoder", "SkipTranscoder", "JumpReLUTranscoder"])
@pytest.mark.parametrize("structure", ["LN", "LN-folded"])
def test_a_features_input_is_its_activation_if_it_is_active(structure, kind):
    _, cache = hooked.run(structure)
    read = "ln2.hook_normalized" if kind in TRANSCODERS else "hook_resid_mid"
    sae = made(kind, read)
    with torch.no_grad():
        activations = sae.encode(cache[f"blocks.1.{read}"])
    for feature in range(0, FEATURES, 6):
        result = residscope.attribute(cache, targets.feature(sae, feature), by="head", position="all")
        on = activations[..., feature] != 0
        torch.testing.assert_close(result.measured[on], activations[..., feature][on], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(result.values.sum(0) + result.constant, result.measured, atol=2e-5, rtol=2e-5)
        assert result.unexplained.abs().max() <= result.tolerance
