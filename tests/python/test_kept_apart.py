"""A memoised value is used only for questions with the same answer. Expected: a fresh cache, or numbers by hand."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformer_lens import ActivationCache
from transformers import PreTrainedTokenizerFast

import residscope
from residscope import LensMaps, targets
from residscope.compute.memo import CACHES
from residscope.serving.service import Service
from residscope.session import change_tracking
from tests.support import saes, tiny


class Adapter(nn.Module):
    """A low-rank adapter on a linear layer. Its weight must be determined by calling it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(3)
        self.base, (self.out_features, self.in_features) = base, base.weight.shape
        self.down = nn.Parameter(0.3 * torch.randn(2, self.in_features, generator=made))
        self.up = nn.Parameter(0.3 * torch.randn(self.out_features, 2, generator=made))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(self.down.dtype)
        return (self.base(wide) + wide @ self.down.T @ self.up.T).to(x.dtype)

    @property
    def whole(self) -> torch.Tensor:
        return (self.base.weight + self.up @ self.down).detach().double()


def adapted(*names: str) -> Any:
    """Return a model in which these layers of each block have an adapter."""
    model = copy.deepcopy(tiny.boot("llama"))
    for block in model.blocks:
        for name in names:
            part, layer = name.split(".")
            bridge = getattr(getattr(block, part), layer)
            bridge.set_original_component(Adapter(bridge.original_component))
    return model


def changed(cache: Any, change: Any) -> Any:
    """Return a cache of the same model with some activations changed."""
    held = {name: change(name, value) for name, value in cache.cache_dict.items()}
    return ActivationCache({name: value for name, value in held.items() if value is not None}, cache.model)


def half(_: str, value: torch.Tensor) -> torch.Tensor:
    return value.bfloat16() if value.is_floating_point() else value


def direction(model: Any, cache: Any, answer: int) -> torch.Tensor:
    """Return the direction of an answer's logit in the stream, divided by the final norm's scale, in float64."""
    weight = model.ln_final.original_component.weight.detach().double()
    u = weight * model.unembed.original_component.weight[answer].detach().double()
    return u / cache["ln_final.hook_scale"][:, -1].double()


def test_a_cache_in_half_precision_does_not_make_the_values_of_another_cache_coarse():
    model = adapted("attn.o", "attn.v", "attn.q", "mlp.out", "mlp.in")
    _, _, cache = tiny.run(model)
    coarse = changed(cache, half)
    questions: list[tuple[Any, dict[str, Any]]] = [
        (5, {"by": "head"}),
        (5, {"by": "neuron"}),
        (targets.neuron("L1N3", part="up"), {"by": "layer"}),
        (targets.output("L2H1", of=5, source=2), {"by": "layer"}),
        (targets.attention("L1H1", "last", 2), {"by": "layer"}),
    ]
    for answers, options in questions:
        residscope.attribute(coarse, answers, **options)
    g = direction(model, cache, 5)
    heads = residscope.attribute(cache, 5, by="head")
    for layer in range(3):
        W = model.blocks[layer].attn.o.original_component.whole.T.unflatten(0, (4, -1))
        z = cache[f"blocks.{layer}.attn.hook_z"][:, -1].double()
        own = torch.einsum("bhu,hud,bd->hb", z, W, g)
        torch.testing.assert_close(heads.grid[layer].double(), own, atol=1e-5, rtol=1e-5)
    neuron = residscope.attribute(cache, targets.neuron("L1N3", part="up"), by="layer")
    up = model.blocks[1].mlp.get_submodule("in").original_component.whole[3]
    norm = model.blocks[1].ln2.original_component.weight.detach().double()
    scale = cache["blocks.1.ln2.hook_scale"][:, -1].double()
    row = (cache["blocks.0.hook_attn_out"][:, -1].double() / scale) @ (norm * up)
    at = neuron.labels.index("0_attn_out")
    torch.testing.assert_close(neuron.values[at].double(), row, atol=1e-5, rtol=1e-5)
    for answers, options in questions:  # the same as without the coarse cache, of which a fresh model knows nothing
        found = residscope.attribute(cache, answers, **options)
        alone = copy.deepcopy(model)
        expected = residscope.attribute(ActivationCache(dict(cache.cache_dict), alone), answers, **options)
        torch.testing.assert_close(found.values, expected.values)
        assert found.tolerance == pytest.approx(expected.tolerance)
        assert found.notes == expected.notes


def test_the_copying_score_is_not_that_of_another_precision():
    model = adapted("attn.v", "attn.o")
    _, _, cache = tiny.run(model)
    residscope.scores(changed(cache, half), "copying")
    expected = residscope.scores(ActivationCache(dict(cache.cache_dict), copy.deepcopy(model)), "copying")
    torch.testing.assert_close(residscope.scores(cache, "copying").values, expected.values)


def test_a_layer_is_read_again_when_the_hooks_inside_it_were_removed():
    model = adapted("attn.o")
    _, _, cache = tiny.run(model)
    handles = [block.attn.o.original_component.base.register_forward_hook(lambda *_: None) for block in model.blocks]
    with pytest.raises(residscope.ResidscopeError, match="hooks inside it"):
        residscope.attribute(cache, 5, by="head")
    for handle in handles:
        handle.remove()
    found, g = residscope.attribute(cache, 5, by="head"), direction(model, cache, 5)
    W = model.blocks[2].attn.o.original_component.whole.T.unflatten(0, (4, -1))
    own = torch.einsum("bhu,hud,bd->hb", cache["blocks.2.attn.hook_z"][:, -1].double(), W, g)
    torch.testing.assert_close(found.grid[2].double(), own, atol=1e-5, rtol=1e-5)


def test_memory_that_was_full_once_is_no_reason_against_a_layer():
    model = adapted("attn.o")
    _, _, cache = tiny.run(model)
    plain = Adapter.forward

    def full(*_: Any) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("out of memory")

    try:
        Adapter.forward = full
        with pytest.raises(torch.cuda.OutOfMemoryError):
            residscope.attribute(cache, 5, by="head")
    finally:
        Adapter.forward = plain
    assert residscope.attribute(cache, 5, by="head").parts == 12


def test_maps_of_a_lens_with_another_name_or_class_are_other_maps():
    class Bent(nn.Module):
        def __init__(self, of: nn.Linear) -> None:
            super().__init__()
            self.weight, self.bias = of.weight, of.bias

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ self.weight.T + self.bias).relu()

    _, _, cache = tiny.run(tiny.boot("llama"))
    maps = [nn.Linear(24, 24) for _ in range(3)]
    for name in ("tuned", "mine"):
        found = residscope.attribute(cache, 5, by="accumulated", lens=LensMaps(maps, name=name))
        assert found.notes[0].startswith(f"Transported: `lens=` ({name}) gives h + A h + b")
    residscope.attribute(cache, 5, by="accumulated", lens=maps)
    with pytest.raises(residscope.ResidscopeError, match="may compute more than A h"):
        residscope.attribute(cache, 5, by="accumulated", lens=list(map(Bent, maps)))


def test_a_token_that_became_a_special_token_begins_a_turn():
    model = copy.deepcopy(tiny.boot("llama"))
    names = ["<pad>", "<s>", "</s>", *(f"w{id}" for id in range(3, tiny.VOCAB))]
    names[30] = "<|user|>"
    words = Tokenizer(models.WordLevel({name: id for id, name in enumerate(names)}, unk_token="<pad>"))
    model._tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([[30, 6, 7, 30, 8, 9]]))

    def rules() -> dict[str, int]:
        answered, _ = Service(cache).answer({"id": "1", "ask": {"kind": "segments"}})
        return {rule["by"]: rule["count"] for rule in answered["reply"]["rules"]}

    assert "turn" not in rules()
    model.tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>"]})  # it keeps its id
    assert len(model.tokenizer) == tiny.VOCAB
    assert rules()["turn"] == 2


def test_a_run_without_heads_lacks_what_a_new_hook_changes():
    model = copy.deepcopy(tiny.boot("llama"))
    _, _, cache = tiny.run(model)
    assert "unembed.hook_out" in residscope.without(cache, "L1H1").cache_dict
    model.add_hook("unembed.hook_out", lambda logits, hook: logits * 2)  # noqa: ARG005 - TransformerLens' names
    found = residscope.without(cache, "L1H1")
    assert "unembed.hook_out" not in found.cache_dict
    assert "blocks.2.hook_resid_post" in found.cache_dict


def test_what_is_kept_about_neurons_counts_with_its_size():
    _, _, cache = tiny.run(tiny.boot("llama"))
    found = residscope.attribute(cache, targets.neuron("L2N3"), by="neuron")
    kept = {key[3]: size for key, (_, size) in CACHES._entries.items() if key[0] == change_tracking.track(cache).id}
    assert kept["later rows"] >= 40 * len(found.components) > 4_000


SAES = [saes.TopK(24, hook_name=f"blocks.{layer}.hook_{part}_out") for layer in (0, 1) for part in ("attn", "mlp")]
MAPS = [torch.eye(24) * 0.9 + 0.01 * at for at in range(3)]
TOKENS = torch.randint(3, 60, (3, 7), generator=torch.Generator().manual_seed(2))
MASK = torch.ones_like(TOKENS).index_fill(1, torch.tensor([6]), 0)
INNER = targets.neuron("L2N3")
VARIED: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "answers": ({"position": 3}, [5, (5, 6), (6, 5), [(5, 9), (6, 8), (9, 5)], [5, 6, 9], {5, 6},
                                  targets.next_token(), INNER]),
    "by": ({}, ["head", "layer", "neuron", "accumulated"]),
    "position": ({"by": "head"}, ["last", 3, [1, 2, 3], [2, 2, 3], "all"]),
    "layers": ({"by": "neuron", "answers": INNER}, [None, 0, 1, [0, 1], [1, 0], 2]),
    "heads": ({"by": "source"}, ["L1H1", "L1H2", ["L1H1", "L0H2"], ["L0H2", "L1H1"]]),
    "sae": ({"by": "feature", "answers": INNER}, SAES),
    "norm": ({"by": "accumulated"}, ["frozen", "recomputed"]),
    "lens": ({"by": "accumulated"}, [None, LensMaps(MAPS), LensMaps(MAPS, name="a"), LensMaps(MAPS, "post"),
                                     LensMaps(MAPS, adds=True)]),
    "logits": ({}, [None, "given", "larger"]),
    "tokens": ({"answers": targets.next_token(), "position": 3}, [None, TOKENS]),
    "attention_mask": ({}, [None, MASK]),
}  # fmt: skip
"""An option of `attribute`, the other options, and its values. Any two questions differ only in this option."""


@pytest.mark.parametrize("option", VARIED)
def test_no_question_changes_the_answer_to_another_one(booted, option):
    model, _, logits, cache = booted("llama")
    shared = ActivationCache(dict(cache.cache_dict), model)
    others, values = VARIED[option]
    outputs = {"given": logits, "larger": logits * 1.5}

    def ask(cache: Any, value: Any) -> residscope.Attribution:
        options = {"answers": 5, **others, option: outputs.get(value, value) if option == "logits" else value}
        return residscope.attribute(cache, options.pop("answers"), **options)

    for value in [*values, *reversed(values), *values]:  # each after each neighbour, and again
        found, expected = ask(shared, value), ask(ActivationCache(dict(cache.cache_dict), model), value)
        for field in fields(found):
            mine, own = (getattr(one, field.name) for one in (found, expected))
            if isinstance(own, torch.Tensor):
                torch.testing.assert_close(mine, own, atol=1e-5, rtol=1e-4, equal_nan=True, msg=field.name)
            elif field.name != "target" and not isinstance(own, float):
                assert mine == own, field.name
