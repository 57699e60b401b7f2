"""Bridges of older releases: tiny random Hugging Face models from a folder, raw and in compatibility mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import residscope
from residscope.cache.view import CacheView
from residscope.serving.service import Service
from tests.support import brute, tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
CASES = [
    *((family, False) for family in ("gpt2", "gpt_neox", "phi", "llama", "qwen2", "gemma2", "olmo2")),
    *((family, True) for family in ("gpt2", "gpt_neox", "llama", "qwen2")),
]


class Brute(brute.Brute):
    """In bridges of 3.x, OLMo 2's norms after sublayers have the names that other models give to norms before them."""

    def written(self, layer, output_norm, vector):
        olmo2 = self.model.cfg.architecture == "Olmo2ForCausalLM" and not hasattr(self.model.blocks[layer], output_norm)
        return super().written(layer, output_norm.removesuffix("_post") if olmo2 else output_norm, vector)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}-{'compatible' if case[1] else 'raw'}")
def small(request):
    family, compatible = request.param
    model = tiny.boot(family, compatible=compatible)
    return model, *tiny.run(model)


@pytest.mark.parametrize("by", ["head", "layer", "accumulated"])
@pytest.mark.parametrize("position", ["last", 2, "all"], ids=str)
def test_rows_and_constant_are_the_models_own_logits(small, by, position):
    _, _, logits, cache = small
    one = torch.arange(3)
    own = logits[one, :, ANSWERS[:, 0]] - logits[one, :, ANSWERS[:, 1]]
    own = own[:, {"last": -1, 2: 2, "all": slice(None)}[position]]
    for given in (None, logits):
        result = residscope.attribute(cache, ANSWERS, by=by, position=position, logits=given)
        explained = (result.values[-1] if by == "accumulated" else result.values.sum(0)) + result.constant
        scale = float(result.values.abs().max())
        torch.testing.assert_close(result.measured, own, atol=1e-5 * scale, rtol=1e-5)
        torch.testing.assert_close(explained, own, atol=2e-5 * scale, rtol=1e-5)


def test_every_row_agrees_with_float64_brute_force(small):
    model, _, logits, cache = small
    expected = Brute(model, cache, ANSWERS, position=6, scale=brute.logit_scale(logits, cache)).rows()
    for by in ("head", "layer"):
        result = residscope.attribute(cache, ANSWERS, by=by)
        scale = float(result.values.abs().max())
        for label, row in zip(result.labels, result.values, strict=True):
            torch.testing.assert_close(row.double(), expected[label], atol=1e-5 * scale, rtol=1e-4, msg=label)


def test_requests_of_a_panel_get_replies_and_change_nothing(small):
    _, tokens, _, cache = small
    before = {name: (id(tensor), tensor._version) for name, tensor in cache.items()}
    assert torch.equal(CacheView(cache).tokens, tokens)
    service = Service(cache)
    contrasts = [
        {"answer": [{"id": a, "text": ""}], "distractor": [{"id": d, "text": ""}]} for a, d in ANSWERS.tolist()
    ]
    requests = [
        {"kind": "describe"},
        {"kind": "tokens", "prompt": 0},
        {"kind": "attribute", "by": "head", "target": {"contrasts": contrasts}},
        {"kind": "attention", "layer": 1, "head": 2, "target": {"contrasts": contrasts}, "prompt": 0},
        {"kind": "suggest"},
    ]
    for request in requests:
        answer, buffers = service.answer({"id": "1", "ask": request})
        assert "failure" not in answer, answer
        if request["kind"] == "attention":
            head = residscope.attribute(cache, ANSWERS).grid[1, 2, 0]
            assert np.frombuffer(buffers[2], np.float32).sum() == pytest.approx(float(head), rel=1e-3, abs=1e-4)
    assert before == {name: (id(tensor), tensor._version) for name, tensor in cache.items()}
