"""Errors and notes name the right cause: an unsupported model, training mode, or changed weights."""

from __future__ import annotations

import copy

import pytest
import torch
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

import residscope
from residscope import ResidscopeError, targets
from residscope.session.cache_summary import row
from residscope.session.change_tracking import track
from tests.support import tiny

_SIZES = {
    "t5": {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
    | {"decoder_start_token_id": 0},
    "bart": {"d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
    | {"decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "decoder_start_token_id": 2}
    | {"max_position_embeddings": 32},
}


def booted(config, kind, tmp_path):
    torch.manual_seed(0)
    config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 0
    model = kind.from_config(config)
    tiny._enlarge_weights(model)
    model.eval().save_pretrained(tmp_path)
    tiny._tokenizer().save_pretrained(tmp_path)
    return TransformerBridge.boot_transformers(str(tmp_path))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_the_error_names_an_encoder_decoder_model(kind, tmp_path):
    config = AutoConfig.for_model(kind, vocab_size=tiny.VOCAB, **_SIZES[kind])
    model = booted(config, AutoModelForSeq2SeqLM, tmp_path)
    cache = ActivationCache({"decoder_blocks.0.hook_resid_pre": torch.zeros(1, 3, 24)}, model)
    with pytest.raises(ResidscopeError, match=r"is an encoder-decoder model: .*`encoder_blocks` and `decoder_blocks`"):
        residscope.attribute(cache, 5)
    with pytest.raises(ResidscopeError, match="is an encoder-decoder model"):
        residscope.attribute(cache, targets.attention("L0H0", 2, 1))
    assert "encoder-decoder" in (row(cache, ["cache"], track(cache)).problem or "")


class Owner(torch.nn.Module):
    """A user's module that holds the model."""

    def __init__(self, model, *, configured: bool) -> None:
        super().__init__()
        self.lens = model
        if configured:
            self.cfg = model.cfg


@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (torch.nn.DataParallel, "module"),
        (lambda model: Owner(model, configured=False), "lens"),
        (lambda model: Owner(model, configured=True), "lens"),
    ],
)
def test_the_error_for_a_module_that_holds_the_model_says_where_the_model_is(wrap, name):
    model = copy.deepcopy(tiny.boot("llama"))
    _, logits, cache = tiny.run(model)
    wrapped = wrap(model)
    for given in ({"model": wrapped}, {}):
        held = ActivationCache(cache.cache_dict, None if given else wrapped)
        with pytest.raises(ResidscopeError, match=f"which holds it: pass `model.{name}`"):
            residscope.attribute(held, 5, **given)
    inner = residscope.attribute(ActivationCache(cache.cache_dict, None), 5, model=getattr(wrapped, name))
    torch.testing.assert_close(inner.measured, logits[:, -1, 5])


def test_training_mode_is_noted_only_if_there_is_dropout(tmp_path):
    sizes = {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32, "vocab_size": tiny.VOCAB}
    config = AutoConfig.for_model("gpt2", attn_pdrop=0.1, resid_pdrop=0.1, embd_pdrop=0.1, **sizes)
    model = booted(config, AutoModelForCausalLM, tmp_path)
    for training in (True, False):
        model.train(training)
        cache = tiny.run(model)[2]
        for by in ("head", "layer"):
            found = residscope.attribute(cache, (5, 6), by=by)
            assert any("in training mode" in note for note in found.notes) == training
            assert bool(found.notes) == training
    plain = copy.deepcopy(tiny.boot("llama")).train()  # without dropout, training mode changes nothing
    _, logits, cache = tiny.run(plain)
    found = residscope.attribute(cache, 5)
    assert not found.notes
    torch.testing.assert_close(found.measured, logits[:, -1, 5])


@pytest.fixture
def with_dropout(tmp_path):
    sizes = {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 32, "vocab_size": tiny.VOCAB}
    config = AutoConfig.for_model("gpt2", attn_pdrop=0.1, resid_pdrop=0.1, embd_pdrop=0.1, **sizes)
    return booted(config, AutoModelForCausalLM, tmp_path)


VALUES = {
    **{by: lambda cache, by=by: residscope.attribute(cache, (5, 6), by=by) for by in ("head", "layer", "neuron")},
    "accumulated": lambda cache: residscope.attribute(cache, (5, 6), by="accumulated"),
    "source": lambda cache: residscope.attribute(cache, (5, 6), by="source", heads="1.1"),
    "contribution": lambda cache: residscope.attention(cache, "1.1", weighting="contribution", answers=(5, 6)),
    "previous": lambda cache: residscope.scores(cache, "previous"),
    "copying": lambda cache: residscope.scores(cache, "copying"),
}


def test_training_mode_after_the_run_does_not_change_the_values_of_the_cache(with_dropout):
    model = with_dropout
    cache = tiny.run(model)[2]
    before = {name: compute(cache) for name, compute in VALUES.items()}
    model.train()
    for same_cache in (cache, ActivationCache(dict(cache.cache_dict), model)):
        for name, compute in VALUES.items():
            found = compute(same_cache)
            torch.testing.assert_close(found.values, before[name].values)
            assert not found.notes
        panel = residscope.inspect(same_cache, (5, 6), show=False)
        request = {"kind": "attribute", "by": "layer", "target": panel.wire_target}
        reply = panel._service.answer({"id": "1", "ask": request})[0]["reply"]
        assert reply["measured"] == pytest.approx(float(before["layer"].measured.mean()), abs=1e-5)
        assert not reply["notes"]
        panel.close()


def test_training_mode_is_only_a_possible_cause_of_an_unexplained_value(with_dropout):
    model = with_dropout
    cache = tiny.run(model)[2]
    edited = ActivationCache(dict(cache.cache_dict), model)
    edited.cache_dict["blocks.1.attn.hook_z"] = 2 * cache["blocks.1.attn.hook_z"]
    model.train()  # only after the run, so the real cause is the edited cache
    note = residscope.attribute(edited, (5, 6)).notes[0]
    assert "is in training mode. If it was also in training mode when this cache was made" in note
    assert "may explain the other notes" in note


def test_changed_weights_are_noted_even_if_they_changed_before_the_cache_was_tracked():
    """Expected: the values of the model when the cache was made."""
    for part in ("lm_head", "model.norm"):
        model = copy.deepcopy(tiny.boot("llama"))
        _, logits, cache = tiny.run(model)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if part in name:
                    weight.add_(0.3 * torch.randn_like(weight))
        for by in ("head", "layer", "accumulated", "source"):
            found = residscope.attribute(cache, (5, 6), by=by, heads="1.1" if by == "source" else None)
            assert any("the weights there were changed since the cache was made" in note for note in found.notes)
            if by != "source":
                torch.testing.assert_close(found.measured, logits[:, -1, 5] - logits[:, -1, 6])
                assert float(found.unexplained.abs().max()) > found.tolerance
        assert any("its weights were changed since" in note for note in residscope.token_lens(cache, 5).notes)
        names = ("blocks.", "hook_embed", "embed.hook_in", "ln_final.hook_scale")
        without_logits = ActivationCache({name: held for name, held in cache.items() if name.startswith(names)}, model)
        notes = residscope.attribute(without_logits, (5, 6)).notes
        assert any("as their weights are now" in note for note in notes), notes
