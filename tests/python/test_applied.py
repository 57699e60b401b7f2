"""Layers with an adapter, or with quantised or offloaded weights, give the same values as layers with merged weights.

Missing weights are refused.
"""

from __future__ import annotations

import gc
import random
import threading
import weakref
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

import residscope
from residscope import ResidscopeError
from residscope.cache import attention_maps, input_maps, output_maps, unembedding
from residscope.cache.view import CacheView
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
TOKENS = torch.randint(3, 64, (3, 7), generator=torch.Generator().manual_seed(1))
ATTENTION_ONLY = ("hook_pattern", "hook_v", "hook_z", "hook_embed", "ln_final.hook_scale", "2.hook_resid_post")


class Adapter(nn.Module):
    """A low-rank adapter on a linear layer, as in LoRA."""

    def __init__(self, base):
        super().__init__()
        self.base, self.scaling, self.dropout = base, 4.0, nn.Dropout(0.5)
        self.down = nn.Linear(base.in_features, 2, bias=False)
        self.up = nn.Linear(2, base.out_features, bias=True)
        self.in_features, self.out_features = base.in_features, base.out_features

    @property
    def weight(self):
        return self.base.weight

    @property
    def bias(self):
        return self.base.bias

    def forward(self, x):
        return self.base(x) + self.up(self.down(self.dropout(x))) * self.scaling

    def merged(self):
        layer = nn.Linear(self.in_features, self.out_features)
        layer.weight = nn.Parameter(self.base.weight + self.scaling * self.up.weight @ self.down.weight)
        layer.bias = nn.Parameter(self.scaling * self.up.bias + (0 if self.base.bias is None else self.base.bias))
        return layer


class WholeNumbers(nn.Module):
    """A layer whose weight is int8, with a scale for each row."""

    def __init__(self, base):
        super().__init__()
        scale = base.weight.detach().abs().amax(1, keepdim=True) / 127
        self.weight = nn.Parameter((base.weight / scale).round().to(torch.int8), requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias, self.in_features, self.out_features = base.bias, base.in_features, base.out_features

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)

    def merged(self):
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight = nn.Parameter(self.weight.float() * self.scale)
        if self.bias is not None:
            layer.bias = self.bias
        return layer


class Scaled(nn.Linear):
    """A linear layer of an unknown class that also multiplies by 3, so its weight alone is not its map."""

    def forward(self, x):
        return 3 * super().forward(x)

    @classmethod
    def of(cls, base):
        layer = cls(base.in_features, base.out_features, bias=base.bias is not None)
        layer.load_state_dict(base.state_dict(), strict=False)
        return layer

    def merged(self):
        layer = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        layer.weight = nn.Parameter(3 * self.weight)
        if self.bias is not None:
            layer.bias = nn.Parameter(3 * self.bias)
        return layer


class Squared(Scaled):
    """A layer that is not linear."""

    def forward(self, x):
        return super().forward(x) + x[..., :1] ** 2


KINDS = {"adapter": Adapter, "int8": WholeNumbers, "an unknown kind": Scaled.of}
PLACES = ("o_proj", "v_proj", "down_proj", "lm_head")


def _replace(model, place, make):
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name == place:
                setattr(module, name, make(child))


def _pair(kind, place, family="llama-biased", dtype=torch.float32):
    """Return a model with unusual layers in one place, and the same model with plain layers that apply the same map."""
    path, bridges = str(tiny.folder(family)), []
    for merge in (False, True):
        torch.manual_seed(3)
        inner = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=dtype)
        _replace(inner, place, lambda base: KINDS[kind](base).to(dtype))
        inner.eval()
        if merge:
            _replace(inner, place, lambda odd: odd.merged().to(dtype))
        bridges.append(TransformerBridge.boot_transformers(path, hf_model=inner))
    return bridges


FIGURES = {
    "head": lambda cache: residscope.attribute(cache, ANSWERS).values,
    "neuron": lambda cache: residscope.attribute(cache, ANSWERS, by="neuron").values,
    "accumulated": lambda cache: residscope.attribute(cache, ANSWERS, by="accumulated").values,
    "source": lambda cache: residscope.attribute(cache, ANSWERS, by="source", heads="1.1").values,
    "value": lambda cache: residscope.attention(cache, "1.1", weighting="value").values,
    "contribution": lambda cache: residscope.attention(cache, "1.1", weighting="contribution", answers=ANSWERS).values,
    "copying": lambda cache: residscope.scores(cache, "copying").values,
    "token lens": lambda cache: residscope.token_lens(cache, 5).probabilities,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_the_merged_model(kind, place):
    odd, plain = _pair(kind, place)
    (logits, cache), (truth, merged) = (model.run_with_cache(TOKENS) for model in (odd, plain))
    torch.testing.assert_close(logits, truth, atol=2e-4, rtol=1e-4)
    for name, figure in FIGURES.items():
        torch.testing.assert_close(
            figure(cache), figure(merged), atol=5e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["v_proj", "gate_proj", "up_proj"])
def test_inputs_of_neurons_and_heads_are_those_of_the_merged_model(kind, place):
    targets = residscope.targets
    odd, merged = (model.run_with_cache(TOKENS)[1] for model in _pair(kind, place))
    for target in (
        targets.neuron("L1N3"),
        targets.neuron("L1N3", "up"),
        targets.output("L1H1", of=ANSWERS, source=4),
    ):
        found, truth = (residscope.attribute(cache, target, by="layer") for cache in (odd, merged))
        torch.testing.assert_close(found.values, truth.values, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found.measured, truth.measured, atol=1e-4, rtol=1e-4)
        assert found.unexplained.abs().max() <= 2e-6 * max(1.0, float(found.values.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_right_even_if_the_cache_holds_nothing_to_compare_with(kind):
    odd, plain = _pair(kind, "o_proj")
    caches = [
        model.run_with_cache(TOKENS, names_filter=lambda n: n.endswith(ATTENTION_ONLY))[1] for model in (odd, plain)
    ]
    for name in ("source", "value", "contribution", "copying"):
        mine, truth = map(FIGURES[name], caches)
        torch.testing.assert_close(mine, truth, atol=5e-4, rtol=1e-3)


def test_a_nonlinear_or_random_layer_is_refused_and_nothing_is_changed(monkeypatch):
    monkeypatch.setitem(KINDS, "squared", Squared.of)
    heard = []
    for kind, said in (("squared", "not a linear map"), ("adapter", "training mode")):
        model = _pair(kind, "o_proj")[0]
        layer = model.blocks[1].attn.o.original_component
        cache = model.run_with_cache(TOKENS)[1]
        layer.train(kind == "adapter")
        layer.register_forward_hook(lambda *_: heard.append(1))
        before = torch.get_rng_state()
        with pytest.raises(ResidscopeError, match=said):
            residscope.attention(cache, "1.1", weighting="value")
        assert layer.training == (kind == "adapter")
        assert torch.equal(before, torch.get_rng_state())
        assert residscope.attention(cache, "1.1").values.isfinite().all()
    assert not heard


class Failing(Squared):
    """A layer that accepts no test vectors."""

    def forward(self, x):
        if x.shape[-2] != TOKENS.shape[1]:
            raise RuntimeError("wrong shape")
        return super().forward(x)


def test_a_layer_that_is_refused_keeps_no_cache_in_memory(monkeypatch):
    monkeypatch.setitem(KINDS, "failing", Failing.of)
    model = _pair("failing", "o_proj")[0]
    cache = model.run_with_cache(TOKENS)[1]
    alive = [weakref.ref(tensor) for tensor in cache.cache_dict.values()]
    gc.collect()
    gc.disable()  # the error must not be in a reference cycle with the frames of its traceback
    try:
        with suppress(ResidscopeError):
            residscope.attention(cache, "1.1", weighting="value")
            pytest.fail("the layer was read")
        del cache
        assert not any(reference() is not None for reference in alive)
    finally:
        gc.enable()


class Watched(Scaled):
    """A layer that counts its calls, stores its input, changes a buffer and a parameter, and draws random numbers."""

    calls, kept = 0, None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("seen", torch.zeros(()))
        self.started = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        self.calls, self.kept = self.calls + 1, x
        self.seen += x.abs().max()
        with torch.no_grad():
            self.started.add_(1)
        _ = torch.rand(3), np.random.rand(), random.random()
        return super().forward(x)


@pytest.mark.parametrize("noise", [0.0, 0.01], ids=["linear", "noisy"])
def test_trying_a_layer_leaves_the_layer_and_every_random_generator_as_they_were(monkeypatch, noise):
    def forward(layer, x):
        answer = watched(layer, x)
        return answer + noise * torch.randn(answer.shape)

    watched = Watched.forward
    monkeypatch.setattr(Watched, "forward", forward)
    monkeypatch.setitem(KINDS, "watched", Watched.of)
    model = _pair("watched", "o_proj")[0]
    layer, cache = model.blocks[1].attn.o.original_component, model.run_with_cache(TOKENS)[1]

    def state():
        own = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
        drawn = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
        return layer.calls, id(layer.kept), {name: tensor.tolist() for name, tensor in own.items()}, drawn

    before = state()
    if noise:
        with pytest.raises(ResidscopeError, match="differs from call to call"):
            FIGURES["value"](cache)
    else:
        assert FIGURES["value"](cache).max() > 0
        assert FIGURES["head"](cache).isfinite().all()
    assert state() == before


NAMED = nn.Identity()


@pytest.mark.parametrize(
    "make",
    [
        lambda layer: setattr(layer, "kept", torch.empty(5_000_000_000, dtype=torch.uint8, device="meta")),
        lambda layer: setattr(layer, "lock", threading.Lock()),
        lambda layer: setattr(layer, "forward", lambda x: NAMED(x) + layer.weight.sum()),
    ],
    ids=["too large", "holds a lock", "a function that names a module"],
)
def test_a_layer_that_cannot_be_copied_is_not_tried(make):
    model = _pair("an unknown kind", "o_proj")[0]
    cache, layer = model.run_with_cache(TOKENS)[1], model.blocks[1].attn.o.original_component
    make(layer)
    with pytest.raises(ResidscopeError, match=r"`blocks.1.attn.o` \(`Scaled`\).*copy"):
        FIGURES["value"](cache)
    assert "1_attn_out" in residscope.attribute(cache, ANSWERS).labels


@pytest.mark.parametrize(
    "closed",
    [
        lambda layer: lambda x: Watched.forward(layer, x),
        lambda layer: lambda x, layer=layer: Watched.forward(layer, x),
        lambda layer: lambda x, *, layer=layer, factor=1.0: Watched.forward(layer, x) * factor,
    ],
    ids=["closure", "default", "keyword default"],
)
def test_a_function_in_place_of_forward_is_tried_on_the_copy(monkeypatch, closed):
    monkeypatch.setitem(KINDS, "watched", Watched.of)
    model, truth = _pair("watched", "o_proj")
    layer = model.blocks[1].attn.o.original_component

    layer.forward = closed(layer)
    cache = model.run_with_cache(TOKENS)[1]
    calls = layer.calls
    torch.testing.assert_close(
        FIGURES["value"](cache), FIGURES["value"](truth.run_with_cache(TOKENS)[1]), atol=1e-4, rtol=1e-4
    )
    assert layer.calls == calls


class Bent(Scaled):
    """Nearly linear: only a small part of its output is not linear in the input."""

    part = 0.0

    def forward(self, x):
        return super().forward(x) + self.part * x.abs().mean(-1, keepdim=True)


class Bounded(Scaled):
    """Linear only for inputs between −200 and 200."""

    def forward(self, x):
        return super().forward(x.clamp(-200, 200))


def test_a_nearly_linear_layer_is_refused(monkeypatch):
    monkeypatch.setattr(Bent, "part", 0.2)
    monkeypatch.setitem(KINDS, "bent", Bent.of)
    model = _pair("bent", "o_proj")[0]
    cache = model.run_with_cache(TOKENS)[1]
    with pytest.raises(ResidscopeError, match=r"not a linear map of its input \(relative error 0\.0[1-9]") as error:
        FIGURES["value"](cache)
    assert "Merge" not in str(error.value)  # merging would not help
    assert "unquantised" not in str(error.value)


class BoundedWeight(Scaled):
    """Linear only for inputs between −200 and 200. There, its map is its own weight."""

    def forward(self, x):
        return nn.Linear.forward(self, x.clamp(-200, 200))


@pytest.mark.parametrize(("bounded", "family"), [(Bounded, "llama-biased"), (BoundedWeight, "llama")])
def test_a_layer_is_also_tried_on_its_inputs_in_the_run(bounded, family, monkeypatch):
    monkeypatch.setitem(KINDS, "bounded", bounded.of)
    model = _pair("bounded", "o_proj", family)[0]
    with torch.no_grad():
        model.blocks[1].attn.v.original_component.weight.mul_(1000)
    cache = model.run_with_cache(TOKENS, names_filter=lambda n: n.endswith(ATTENTION_ONLY))[1]
    for name in ("source", "value", "contribution"):
        with pytest.raises(ResidscopeError, match="on its inputs in this run"):
            FIGURES[name](cache)
    assert residscope.attention(cache, "0.1", weighting="value").values.max() > 0


def test_trying_a_layer_calls_no_hooks():
    model = _pair("adapter", "o_proj")[0]
    cache = model.run_with_cache(TOKENS)[1]
    heard, layer = [], model.blocks[1].attn.o
    layer.original_component.register_forward_hook(lambda *_: heard.append("layer"))
    layer.hook_out.add_hook(lambda *_, **__: heard.append("hook"))
    assert residscope.attention(cache, "1.1", weighting="value").values.max() > 0
    layer.original_component.down.register_forward_hook(lambda *_: heard.append("inside"))
    with torch.no_grad():
        layer.original_component.up.weight.mul_(2)  # so the layer must be tried again
    with pytest.raises(ResidscopeError, match="hooks inside"):
        residscope.attention(cache, "1.1", weighting="value")
    assert not heard


def test_a_changed_adapter_is_read_again():
    odd, plain = _pair("adapter", "o_proj")
    whole, value = odd.run_with_cache(TOKENS)[1], FIGURES["value"]
    cache = odd.run_with_cache(TOKENS, names_filter=lambda n: n.endswith(ATTENTION_ONLY))[1]
    before = value(cache)
    for one in (cache, whole):
        torch.testing.assert_close(value(one), value(plain.run_with_cache(TOKENS)[1]), atol=1e-4, rtol=1e-4)
    odd.blocks[1].attn.o.original_component.scaling = 1.0
    assert (value(cache) - before).abs().max() > 0.1
    with pytest.raises(ResidscopeError, match="not all of `hook_attn_out`"):  # because the run used another map
        value(whole)


class DTensor(torch.Tensor):
    """A stand-in for PyTorch's `DTensor`, which needs several processes."""


def _shard(layer):
    layer.weight = nn.Parameter(layer.weight.data.as_subclass(DTensor))


GONE = {
    "sharded": _shard,
    "on the meta device": lambda layer: layer.to("meta"),
    "storage emptied": lambda layer: (
        setattr(layer.weight, "data", layer.weight.data.clone()),
        layer.weight.data.untyped_storage().resize_(0),
    ),
    "no elements": lambda layer: setattr(layer.weight, "data", torch.empty(0)),
}


@pytest.mark.parametrize("gone", GONE)
@pytest.mark.parametrize("place", ["o_proj", "v_proj", "down_proj", "lm_head", "norm"])
def test_missing_weights_are_refused_in_a_sentence_and_values_without_weights_work(gone, place):
    inner = AutoModelForCausalLM.from_pretrained(str(tiny.folder("llama")), attn_implementation="eager")
    model = TransformerBridge.boot_transformers(str(tiny.folder("llama")), hf_model=inner)
    cache = model.run_with_cache(TOKENS)[1]
    attn, mlp = model.blocks[1].attn, model.blocks[1].mlp
    layers = {
        "o_proj": attn.o,
        "v_proj": attn.v,
        "down_proj": mlp.out,
        "lm_head": model.unembed,
        "norm": model.ln_final,
    }
    GONE[gone](layers[place].original_component)
    needs = {
        "o_proj": ("source", "value", "contribution", "copying"),
        "v_proj": ("copying",),
        "down_proj": (),
        "lm_head": ("head", "copying", "token lens", "contribution"),
        "norm": ("head", "copying", "token lens", "contribution"),
    }[place]
    for name, figure in FIGURES.items():
        if name in needs:
            with pytest.raises(ResidscopeError, match=r"meta|emptied|sharded"):
                figure(cache)
        else:
            with suppress(ResidscopeError):  # a refusal is right, too, for example of neurons and sources
                assert figure(cache).isfinite().any()
    assert residscope.attention(cache, "1.1").values.isfinite().all()
    assert residscope.scores(cache, "previous").values.isfinite().all()


def test_weights_that_accelerate_offloads_are_read():
    accelerate = pytest.importorskip("accelerate")
    path = str(tiny.folder("llama"))
    whole = TransformerBridge.boot_transformers(path)
    inner = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    model = TransformerBridge.boot_transformers(path, hf_model=inner)
    accelerate.cpu_offload(model.original_model, execution_device=torch.device("cpu"))
    caches = [one.run_with_cache(TOKENS)[1] for one in (model, whole)]
    for name, figure in FIGURES.items():
        torch.testing.assert_close(*map(figure, caches), atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    assert {str(p.device) for p in model.blocks[1].parameters()} == {"meta"}


@pytest.mark.parametrize("offloaded", [True, False])
def test_the_weights_of_a_hooked_transformer_are_read_from_accelerate_or_refused(offloaded):
    """A stand-in for a `HookedTransformer`, whose weights belong to its sublayers, not to layers inside them."""
    bridge = tiny.boot("gpt2")
    cache, generator = bridge.run_with_cache(TOKENS)[1], torch.Generator().manual_seed(0)

    def module(**shapes):
        made = nn.Module()
        for name, shape in shapes.items():
            setattr(made, name, nn.Parameter(torch.randn(shape, generator=generator)))
        return made

    block, unembed = nn.Module(), module(W_U=(24, 64), b_U=(64,))
    block.attn = module(**dict.fromkeys(("W_K", "W_V"), (4, 24, 6)), b_K=(4, 6), b_V=(4, 6), W_O=(4, 6, 24), b_O=(24,))
    block.mlp = module(W_in=(24, 40), b_in=(40,), W_out=(40, 24), b_out=(24,))
    model = SimpleNamespace(cfg=bridge.cfg, blocks=[block] * 3, unembed=unembed, ln_final=None, tokenizer=None)
    reads = {
        "W_O": lambda view: [output_maps.out_weight(view, 0), output_maps.out_bias(view, 0, "attn")],
        "W_out": lambda view: [output_maps.neuron_weight(view, 0), output_maps.out_bias(view, 0, "mlp")],
        "W_V": lambda view: input_maps.value_map(view, 0, 6),
        "W_K": lambda view: vars(attention_maps.head_map(view, 0, "k", 1, 4, 6)).values(),
        "W_U": lambda view: unembedding.unembedding(view),
    }

    def read(name):
        return [tensor.clone() for tensor in reads[name](CacheView(dict(cache.items()), model))]

    neuron = input_maps.neuron_map(CacheView(dict(cache.items()), model), 0, 3, "pre")
    expected = {name: read(name) for name in reads}
    for owner in (block.attn, block.mlp, unembed):
        kept = {name: parameter.data for name, parameter in owner.named_parameters()}
        owner.to("meta")
        if offloaded:
            owner._hf_hook = SimpleNamespace(weights_map=kept)
    view = CacheView(dict(cache.items()), model)
    if offloaded:
        for name in reads:
            assert all(map(torch.equal, read(name), expected[name]))
        assert torch.equal(input_maps.neuron_map(view, 0, 3, "pre").weight, neuron.weight)
        assert input_maps.neuron_map(view, 0, 3, "pre").bias == neuron.bias
        return
    for name in ("W_V", "W_K", "W_U"):
        with pytest.raises(ResidscopeError, match=rf"`{name}` is on the `meta` device"):
            read(name)
    assert output_maps.out_weight(view, 0) is None
    assert "`W_O` is on the `meta` device" in output_maps.why_unread(view, 0, "attn")
    assert "`W_out` is on the `meta` device" in output_maps.why_unread(view, 0, "mlp")


def test_the_weight_of_a_parametrised_layer_is_its_present_value():
    model, truth = _pair("an unknown kind", "o_proj")
    layer = nn.Linear(24, 24)
    nn.utils.parametrizations.weight_norm(layer)
    model.blocks[1].attn.o.add_module("_original_component", layer)
    truth.blocks[1].attn.o.original_component.load_state_dict(
        {"weight": layer.weight.detach(), "bias": layer.bias.detach()}
    )
    caches = [one.run_with_cache(TOKENS)[1] for one in (model, truth)]
    for name in ("head", "value", "copying"):
        torch.testing.assert_close(*map(FIGURES[name], caches), atol=5e-4, rtol=1e-3)
