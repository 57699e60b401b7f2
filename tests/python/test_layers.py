"""Models from which layers were removed, although the configuration still counts them."""

from __future__ import annotations

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

import residscope
from residscope import ResidscopeError
from residscope.session.cache_summary import row
from residscope.session.change_tracking import track
from tests.support import tiny

TOKENS = torch.randint(3, 64, (3, 7), generator=torch.Generator().manual_seed(1))
ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])


@pytest.fixture
def inner():
    return AutoModelForCausalLM.from_pretrained(str(tiny.folder("llama")), attn_implementation="eager")


def test_only_the_remaining_layers_count(inner):
    inner.model.layers = inner.model.layers[:2]
    model = TransformerBridge.boot_transformers(str(tiny.folder("llama")), hf_model=inner)
    assert (model.cfg.n_layers, len(model.blocks)) == (3, 2)
    logits, cache = model.run_with_cache(TOKENS)
    truth = torch.stack(
        [row[-1, one] - row[-1, other] for row, (one, other) in zip(logits, ANSWERS.tolist(), strict=True)]
    )
    for by in ("head", "layer", "accumulated", "neuron"):
        result = residscope.attribute(cache, ANSWERS, by=by)
        torch.testing.assert_close(result.measured, truth)
        total = result.values[-1] if by == "accumulated" else result.values.sum(0)
        torch.testing.assert_close(total + result.constant, truth, atol=1e-4, rtol=1e-4)
    assert residscope.scores(cache, "copying").values.shape == (2, 4)
    assert residscope.token_lens(cache, 5).points[-2:] == ["1_mid", "final_post"]
    assert row(cache, ["cache"], track(cache)).layers == 2


def test_layers_removed_after_caching_are_refused_in_a_sentence(inner):
    model = TransformerBridge.boot_transformers(str(tiny.folder("llama")), hf_model=inner)
    cache = model.run_with_cache(TOKENS)[1]
    model.blocks = model.blocks[:2]
    with pytest.raises(ResidscopeError, match="only 2 layers"):
        residscope.attribute(cache, ANSWERS)
    assert "only 2 layers" in row(cache, ["cache"], track(cache)).problem
