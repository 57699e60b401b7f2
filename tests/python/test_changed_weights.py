"""What was changed after a cache was first seen is said of every figure that needs it: activations, and weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import msgspec
import pytest
import tiny
import torch

import residscope
from residscope.export.snapshot import snapshot
from residscope.protocol import Answer, WriteCode
from residscope.service import Service

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
SAID = "weights were changed after this cache was first seen"
CHANGED = "This cache was changed after it was first seen"
OTHER = "first seen with another model"


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
PYTHON_WITHOUT_WEIGHTS = {
    "pattern": lambda cache: residscope.attention(cache, "1.1").notes,
    "previous": lambda cache: residscope.scores(cache, "previous").notes,
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


CHANGES = {
    "written to": lambda held: held["blocks.0.hook_resid_mid"].mul_(1),
    "replaced": lambda held: held.update({"blocks.0.hook_resid_mid": held["blocks.0.hook_resid_mid"].clone()}),
    "taken out": lambda held: held.pop("blocks.0.attn.hook_q"),
}


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


WHAT = [*REQUESTS, *(f"{name}, pattern" for name in WITHOUT_WEIGHTS)]


def _asked(service, what):
    """The notes of a reply."""
    ask = REQUESTS[what] if what in REQUESTS else WITHOUT_WEIGHTS[what.removesuffix(", pattern")]
    if ask["kind"] != "scores":
        ask = {**ask, "target": msgspec.to_builtins(service.default_target())}
    if "prompt" not in ask:
        ask = {**ask, "prompt": None}
    answer, _ = service.answer({"id": "1", "ask": ask})
    msgspec.convert(answer, Answer)
    return answer["reply"]["notes"]


@pytest.mark.parametrize("what", WHAT)
def test_every_reply_that_needs_the_weights_says_that_they_were_changed(run, what):
    model, cache = run
    service = Service(cache)
    assert not any(SAID in note for note in _asked(service, what))
    _train(model)
    assert any(SAID in note for note in _asked(service, what)) == (what in REQUESTS)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("what", [*PYTHON, *PYTHON_WITHOUT_WEIGHTS])
def test_python_says_that_the_cache_was_changed(run, what, change):
    notes, cache = (PYTHON | PYTHON_WITHOUT_WEIGHTS)[what], run[1]
    assert not any(CHANGED in note for note in notes(cache))
    CHANGES[change](cache.cache_dict)
    # The copying score is of weights alone.
    assert sum(CHANGED in note for note in notes(cache)) == (what != "copying")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("what", WHAT)
def test_every_reply_says_that_the_cache_was_changed(run, what, change):
    cache = run[1]
    open_before = residscope.inspect(cache, ANSWERS, show=False)
    assert not any(CHANGED in note for note in _asked(open_before._service, what))
    CHANGES[change](cache.cache_dict)
    for service in (open_before._service, Service(cache)):  # and a panel that is opened later
        assert sum(CHANGED in note for note in _asked(service, what)) == (what != "copying")
    open_before.close()


@pytest.mark.parametrize("said", [SAID, CHANGED])
def test_a_page_and_copied_code_say_it(run, said):
    model, cache = run
    panel = residscope.inspect(cache, ANSWERS, heads=["L1H1"], show=False)

    def code():
        return panel._service.reply(WriteCode("heads", panel.shown))[0].code

    assert said not in panel.to_html()
    assert said not in code()
    if said == SAID:
        _train(model)
    else:
        CHANGES["written to"](cache.cache_dict)
    assert said in _entries(panel)
    assert said in code()
    compile(code(), "cell", "exec")
    panel.close()


def _entries(panel):
    """What a page holds, as text."""
    made = snapshot(panel._service.reply, "cache", panel.shown)
    return msgspec.json.encode([entry.reply for entry in made.entries]).decode()


class Loaded(Mapping):
    """Activations that lie elsewhere, and are loaded when they are asked for."""

    def __init__(self, held):
        self.held = held

    def __getitem__(self, name):
        return self.held[name].clone()

    def __iter__(self):
        return iter(self.held)

    def __len__(self):
        return len(self.held)


def test_activations_that_are_loaded_each_time_were_not_changed(run):
    _, cache = run
    lazy = type(cache)(Loaded(cache.cache_dict), cache.model)
    expected = residscope.attribute(cache, ANSWERS)
    service = Service(lazy)
    for _ in range(2):
        found = residscope.attribute(lazy, ANSWERS)
        assert not found.notes
        torch.testing.assert_close(found.values, expected.values)
        assert not _asked(service, "attribution")


def test_another_model_is_not_called_changed_weights(run):
    model, cache = run
    residscope.attribute(cache, ANSWERS)
    other = copy.deepcopy(model)
    notes = residscope.attribute(cache, ANSWERS, model=other).notes
    assert not any(SAID in note for note in notes)
    assert any(OTHER in note for note in notes)
    _train(other)
    assert any(SAID in note for note in residscope.attribute(cache, ANSWERS, model=other).notes)
    assert residscope.attribute(cache, ANSWERS).notes == []
