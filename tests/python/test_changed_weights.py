"""If activations or weights change after a cache was first seen, every value that depends on them has a note."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping

import msgspec
import pytest
import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

import residscope
from residscope.compute.samples import MAX_SAMPLES, Samples, samples
from residscope.errors import ResidscopeError
from residscope.export.snapshot import snapshot
from residscope.serving.service import Service
from residscope.session import change_notes
from residscope.session.cache_summary import row
from residscope.session.change_tracking import track
from residscope.wire.decompositions import Attribute
from residscope.wire.protocol import Answer
from residscope.wire.shown import WriteCode
from tests.support import tiny

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


def _foreach(model):
    torch._foreach_mul_([weight.data for weight in model.parameters()], 1.1)  # pyright: ignore[reportPrivateImportUsage]


def _fused(model):
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    torch.optim.SGD(model.parameters(), lr=0.01, fused=True).step()


def _in_inference_mode(model):
    with torch.inference_mode():
        for weight in model.parameters():
            weight.mul_(1.1)


def _output(model):
    return model.blocks[1].attn.o.original_component


class Gained(nn.Linear):
    """A layer of an unknown class: its weight alone does not determine its map."""

    def forward(self, x):
        return super().forward(x) * self._gain * self.tensor * self.buffer

    @classmethod
    def of(cls, plain):
        layer = cls(plain.in_features, plain.out_features, bias=False)
        layer.weight, layer._gain, layer.tensor = plain.weight, 1.0, torch.tensor(1.0)
        layer.register_buffer("buffer", torch.ones(plain.out_features))
        return layer


class Negated(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


def _forward(model):
    layer = _output(model)
    layer.forward = lambda x: 3 * type(layer).forward(layer, x)


NOT_COUNTED = {
    "fused optimizer": _fused,
    ".data": lambda model: _output(model).weight.data.mul_(3),
    "a head by .data": lambda model: _output(model).weight.data[:, 6:12].zero_(),
    "numpy": lambda model: _output(model).weight.detach().numpy().__imul__(3),
    "inference mode": _in_inference_mode,
    "foreach on .data": _foreach,
    "forward replaced": _forward,
    "class replaced": lambda model: setattr(_output(model), "__class__", Negated),
}
OF_AN_UNKNOWN_LAYER = {
    "private attribute": lambda model: setattr(_output(model), "_gain", 5.0),
    "tensor attribute": lambda model: setattr(_output(model), "tensor", torch.tensor(5.0)),
    "tensor attribute by .data": lambda model: _output(model).tensor.data.fill_(5),
    "buffer": lambda model: _output(model).buffer.fill_(5),
    "buffer by .data": lambda model: _output(model).buffer.data.fill_(5),
}


@pytest.mark.parametrize("edit", NOT_COUNTED | OF_AN_UNKNOWN_LAYER)
def test_a_change_that_pytorch_does_not_count_is_seen(edit):
    """Expected: values from a copy of the model, for which nothing is memoised."""
    path = str(tiny.folder("llama"))
    with torch.inference_mode(edit == "inference mode"):  # PyTorch never counts changes of weights made in this mode
        inner = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
        if edit in OF_AN_UNKNOWN_LAYER:
            inner.model.layers[1].self_attn.o_proj = Gained.of(inner.model.layers[1].self_attn.o_proj)
        if edit == "inference mode":
            inner.load_state_dict({name: held.clone() for name, held in inner.state_dict().items()}, assign=True)
            assert all(weight.is_inference() for weight in inner.parameters())
        model = TransformerBridge.boot_transformers(path, hf_model=inner)
    keep = ("hook_pattern", "hook_v", "hook_z", "ln_final.hook_scale")  # no outputs to compare the weights with
    tokens = torch.tensor([[3, 4, 5, 6, 7]])

    def made(of):
        with torch.no_grad():
            return of.run_with_cache(tokens, names_filter=lambda name: name.endswith(keep))[1]

    figures = {
        "value": lambda cache: residscope.attention(cache, "1.1", weighting="value"),
        "source": lambda cache: residscope.attribute(cache, (11, 12), by="source", heads="1.1"),
        "copying": lambda cache: residscope.scores(cache, "copying"),
    }
    old = made(model)
    for figure in figures.values():
        assert not any(SAID in note for note in figure(old).notes)
    (NOT_COUNTED | OF_AN_UNKNOWN_LAYER)[edit](model)
    new = made(model)
    truth = made(copy.deepcopy(model))
    for name, figure in figures.items():
        torch.testing.assert_close(
            figure(new).values, figure(truth).values, equal_nan=True, msg=lambda said, name=name: name + said
        )
        assert not any(SAID in note for note in figure(new).notes)
        assert any(SAID in note for note in figure(old).notes), name


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_each_weight_is_compared_or_no_value_depends_on_it(family):
    """Expected: values of a new cache with the same activations and the changed model."""
    figures = {
        "head": lambda cache: residscope.attribute(cache, ANSWERS),
        "neuron": lambda cache: residscope.attribute(cache, ANSWERS, by="neuron"),
        "accumulated": lambda cache: residscope.attribute(cache, ANSWERS, by="accumulated", norm="recomputed"),
        "source": lambda cache: residscope.attribute(cache, ANSWERS, by="source", heads="1.1"),
        "value": lambda cache: residscope.attention(cache, "1.1", weighting="value"),
        "token lens": lambda cache: residscope.token_lens(cache, 5),
        "copying": lambda cache: residscope.scores(cache, "copying"),
        "neuron's input": lambda cache: residscope.attribute(cache, residscope.targets.neuron((1, 3))),
        "what a head reads": lambda cache: residscope.attribute(
            cache, residscope.targets.output("1.1", of=ANSWERS, source=2)
        ),
        "attention score": lambda cache: residscope.attribute(cache, residscope.targets.attention("1.1", 4, 2)),
        "key side": lambda cache: residscope.attribute(
            cache, residscope.targets.attention("1.1", 4, 2, "mean", side="key")
        ),
    }
    model = copy.deepcopy(tiny.boot(family))
    held = tiny.run(model)[2]
    silent = set()
    weights = [(name, weight) for name, weight in model.named_parameters() if ".1." in name or "blocks" not in name]
    for name, weight in weights:
        cache, fresh = (type(held)(dict(held.cache_dict), model) for _ in range(2))
        for figure in figures.values():
            figure(cache)
        weight.data.mul_(1.5)  # not counted by PyTorch
        for kind, figure in figures.items():
            try:
                found = figure(cache)
            except ResidscopeError:  # a refusal is a message, too
                continue
            if not any(SAID in note for note in found.notes):
                silent.add(name)
                of = operator.attrgetter("probabilities" if kind == "token lens" else "values")
                torch.testing.assert_close(of(found), of(figure(fresh)), equal_nan=True, msg=f"{name}, {kind}")
        weight.data.div_(1.5)
    assert not [name for name in silent if ".o." in name or "out." in name or "embed" in name.split(".")]


def test_nothing_is_memoised_for_weights_whose_changes_pytorch_never_counts():
    """The test changes a single value, which is not among the sampled ones."""
    path = str(tiny.folder("llama"))
    with torch.inference_mode():
        inner = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
        inner.load_state_dict({name: held.clone() for name, held in inner.state_dict().items()}, assign=True)
        model = TransformerBridge.boot_transformers(path, hf_model=inner)
    cache = tiny.run(model)[2]
    weight = _output(model).weight
    assert weight.is_inference()

    held = {name: tensor for name, tensor in cache.items() if not name.endswith(("attn_out", "resid_mid"))}

    def figures(one):
        return [
            residscope.attention(one, "1.1", weighting="value").values,
            residscope.attribute(one, ANSWERS, by="source", heads="1.1").values,
            residscope.scores(one, "copying").values,
        ]

    cache = type(cache)(held, model)
    before, seen = figures(cache), samples([weight])
    with torch.inference_mode():
        weight[3, 7] += 40
    assert samples([weight]) == seen
    after, truth = figures(cache), figures(type(cache)(held, copy.deepcopy(model)))
    for old, new, true in zip(before, after, truth, strict=True):
        torch.testing.assert_close(new, true, equal_nan=True)
        assert not torch.allclose(old, new, equal_nan=True)


def test_a_restored_attribute_and_a_layers_own_counter_are_no_change():
    class Counting(Gained):
        calls, last = 0, None

        def forward(self, x):
            self.calls, self.last = self.calls + 1, x
            return super().forward(x)

    model = copy.deepcopy(tiny.boot("llama"))
    layer = Counting.of(_output(model))
    model.blocks[1].attn.o.set_original_component(layer)
    cache = tiny.run(model)[2]
    del cache.cache_dict["blocks.1.hook_attn_out"]  # with this activation, a changed map would be refused
    value = PYTHON["value"]
    assert not any(SAID in note for note in value(cache))
    tiny.run(model)
    assert not any(SAID in note for note in value(cache))
    layer._gain = 2.0
    assert any(SAID in note for note in value(cache))
    layer._gain = 1.0
    assert not any(SAID in note for note in value(cache))


@pytest.mark.parametrize(
    "shape", [(), (3,), (7, 9), (64, 64), (576, 1536), (4, 100), (12, 64, 768), (64, 3, 5), (49152, 8), (2, 2, 2)]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_sample_covers_every_dimension(shape, transposed):
    held = torch.arange(torch.Size(shape).numel()).reshape(shape)
    held = held.transpose(0, -1) if transposed and shape else held
    read = torch.frombuffer(bytearray(samples([held])[0]), dtype=held.dtype)
    assert len(read) <= MAX_SAMPLES
    places = [(held == at).nonzero()[0] for at in read] if held.numel() <= MAX_SAMPLES else None
    if places is not None:
        assert sorted(read.tolist()) == sorted(held.flatten().tolist())
        return
    places = torch.stack(torch.unravel_index(read, shape))
    for place, length in zip(places, shape, strict=True):
        found = torch.cat([torch.tensor([-1]), place.unique(), torch.tensor([length])])
        assert found.diff().max() <= max(2, length / 3)


@pytest.mark.parametrize("length", [911, 1231, 1334])
def test_a_sample_ends_with_the_last_element_if_equal_steps_reach_it(length):
    read = torch.frombuffer(bytearray(samples([torch.arange(length)])[0]), dtype=torch.int64)
    assert MAX_SAMPLES // 2 < len(read) <= MAX_SAMPLES
    assert len(read.diff().unique()) == 1
    assert (read[0], read[-1]) == (0, length - 1)


def test_a_change_of_any_element_of_a_short_vector_is_seen():
    held = [torch.zeros(500), torch.zeros(30, 40)]
    changed = Samples(held).changed
    assert changed(held)  # the first call always returns True
    unseen: list[int] = []
    for at, element in enumerate(held[0]):
        for value in (1, 0):
            element.data.fill_(value)
            unseen += [] if changed(held) else [at]
    assert unseen == []
    assert not changed(held)


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


def test_values_without_weights_have_no_note(run):
    model, cache = run
    residscope.attribute(cache, ANSWERS)
    _train(model)
    assert not any(SAID in note for note in residscope.attention(cache, "1.1").notes)
    assert not residscope.scores(cache, "previous").notes


WHAT = [*REQUESTS, *(f"{name}, pattern" for name in WITHOUT_WEIGHTS)]


def _asked(service, what):
    """Return the notes of the reply to a request."""
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
    # The copying score depends only on weights.
    assert sum(CHANGED in note for note in notes(cache)) == (what != "copying")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("what", WHAT)
def test_every_reply_says_that_the_cache_was_changed(run, what, change):
    cache = run[1]
    open_before = residscope.inspect(cache, ANSWERS, show=False)
    assert not any(CHANGED in note for note in _asked(open_before._service, what))
    CHANGES[change](cache.cache_dict)
    for service in (open_before._service, Service(cache)):  # an open panel, and one that is opened after the change
        assert sum(CHANGED in note for note in _asked(service, what)) == (what != "copying")
    open_before.close()


@pytest.mark.parametrize("said", [SAID, CHANGED])
def test_a_page_and_copied_code_have_the_note(run, said):
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


def test_replies_for_a_page_have_the_note_too(run, monkeypatch):
    """Before work in Python (such as a panel's page) begins, weights are compared, even if the work is short."""
    model, cache = run
    service = Service(cache)
    ask = Attribute("head", service.default_target())
    monkeypatch.setattr(change_notes, "_SHORT_COMPUTATION", 60.0)  # after the work, only the counters are compared
    assert not any(SAID in note for note in service.finish(ask, lambda _: None)[0].notes)
    _output(model).weight.data.mul_(3)  # not counted by PyTorch
    assert any(SAID in note for note in service.finish(ask, lambda _: None)[0].notes)


def _entries(panel):
    """Return the replies in a page as JSON."""
    made = snapshot(panel._service.reply, "cache", panel.shown)
    return msgspec.json.encode([entry.reply for entry in made.entries]).decode()


class Loaded(Mapping):
    """Activations that are stored elsewhere, and loaded at each access."""

    def __init__(self, held):
        self.held = held

    def __getitem__(self, name):
        return self.held[name].clone()

    def __iter__(self):
        return iter(self.held)

    def __len__(self):
        return len(self.held)


def test_activations_that_are_loaded_at_each_access_are_not_called_changed(run):
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
    assert row(cache, ["cache"], track(cache, other)).weights_changed
    assert not row(cache, ["cache"], track(cache)).weights_changed
    _train(other)
    assert any(SAID in note for note in residscope.attribute(cache, ANSWERS, model=other).notes)
    assert residscope.attribute(cache, ANSWERS).notes == []
