"""Figures that need the weights say so where these were changed after the cache was first seen."""

from __future__ import annotations

import copy

import msgspec
import pytest
import tiny
import torch

import residscope
from residscope.protocol import Answer
from residscope.service import Service

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
SAID = "weights were changed after this cache was first seen"


PYTHON = {
    "head": lambda cache: residscope.attribute(cache, ANSWERS).notes,
    "neuron": lambda cache: residscope.attribute(cache, ANSWERS, by="neuron", layers=1).notes,
    "accumulated": lambda cache: residscope.attribute(cache, ANSWERS, by="accumulated").notes,
    "source": lambda cache: residscope.attribute(cache, ANSWERS, by="source", heads="1.1").notes,
    "value": lambda cache: residscope.attention(cache, "1.1", weighting="value").notes,
    "contribution": lambda cache: residscope.attention(cache, "1.1", weighting="contribution").notes,
    "token lens": lambda cache: residscope.token_lens(cache, 5).notes,
    "copying": lambda cache: residscope.scores(cache, "copying").notes,
}
REQUESTS = {
    "attribution": {"kind": "attribute", "by": "head"},
    "neurons": {"kind": "neurons", "layer": 1},
    "positions by layer": {"kind": "positions", "by": "layer"},
    "positions by head": {"kind": "positions", "by": "head", "heads": ["L1H1"]},
    "token lens": {"kind": "token-lens", "points": ["1_pre"], "start": 0, "stop": 3, "norm": "recomputed"},
    "thumbnails": {"kind": "thumbnails", "layer": 1, "weighting": "value"},
    "attention": {"kind": "attention", "layer": 1, "head": 1},
    "copying": {"kind": "scores", "score": "copying"},
    "blend": {"kind": "blend", "layer": 1, "weighting": "contribution"},
}
WITHOUT_WEIGHTS = {
    "thumbnails": {"kind": "thumbnails", "layer": 1, "weighting": "pattern"},
    "scores": {"kind": "scores", "score": "previous"},
    "blend": {"kind": "blend", "layer": 1, "weighting": "pattern"},
}


@pytest.fixture
def run():
    model = copy.deepcopy(tiny.boot("llama"))
    return model, tiny.run(model)[2]


def _train(model):
    with torch.no_grad():
        model.unembed.original_component.weight.mul_(1.001)


@pytest.mark.parametrize("what", PYTHON)
def test_python_says_that_the_weights_were_changed(run, what):
    model, cache = run
    assert not any(SAID in note for note in PYTHON[what](cache))
    _train(model)
    assert any(SAID in note for note in PYTHON[what](cache))


def test_what_needs_no_weights_says_nothing(run):
    model, cache = run
    residscope.attribute(cache, ANSWERS)
    _train(model)
    assert not any(SAID in note for note in residscope.attention(cache, "1.1").notes)
    assert not residscope.scores(cache, "previous").notes


@pytest.mark.parametrize("what", [*REQUESTS, *(f"{name}, pattern" for name in WITHOUT_WEIGHTS)])
def test_every_reply_that_needs_the_weights_says_that_they_were_changed(run, what):
    model, cache = run
    service = Service(cache)
    needs = what in REQUESTS
    ask = REQUESTS[what] if needs else WITHOUT_WEIGHTS[what.removesuffix(", pattern")]
    if ask["kind"] != "scores":
        ask = {**ask, "target": msgspec.to_builtins(service.default_target())}
    if "prompt" not in ask:
        ask = {**ask, "prompt": None}

    def notes():
        answer, _ = service.answer({"id": "1", "ask": ask})
        msgspec.convert(answer, Answer)
        return answer["reply"]["notes"]

    assert not any(SAID in note for note in notes())
    _train(model)
    assert any(SAID in note for note in notes()) == needs
