"""A memoised result is used only for the same cache, state of the cache, weights and request."""

from __future__ import annotations

import copy
import gc
import sys
import tracemalloc
import weakref
from types import FrameType
from typing import Any

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources import boot_native

import residscope
from residscope.attribution import component_vectors, own_targets
from residscope.compute.memo import CACHES, NoKeyError, ResultStore, key_of, unique_id
from residscope.errors import ResidscopeError
from residscope.serving.service import Service
from residscope.session import change_tracking
from tests.support.tiny import boot, run

# Families with norms, factors or biases on sublayers' outputs, parallel blocks, grouped queries, or hybrid layers.
FAMILIES = ["gpt2", "bloom", "gptj", "falcon", "gemma2", "gemma4_text", "olmo2", "glm4"]
FAMILIES += ["granite", "stablelm", "exaone4", "mixtral", "jamba", "native"]
QUESTIONS: list[dict[str, Any]] = [
    {"by": "head"},
    {"by": "layer"},
    {"by": "accumulated"},
    {"by": "accumulated", "norm": "recomputed"},
    {"by": "head", "position": [0, 3, 6]},
]


FIVE = {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": []}]}
HEADS = {"kind": "attribute", "by": "head", "target": FIVE}


@pytest.mark.parametrize("family", FAMILIES)
def test_memoised_vectors_give_a_new_target_the_values_of_the_activations(family: str, monkeypatch: pytest.MonkeyPatch):
    model = boot(family)
    _, _, cache = run(model)
    for question in QUESTIONS:
        for answers in ((5, 6), (7, 8), [(9, 3), 4, (11, 12)]):  # from the second target on, vectors are memoised
            found = residscope.attribute(cache, answers, **question)
        with monkeypatch.context() as patch:
            patch.setattr(component_vectors, "LARGEST", 0)
            fresh = type(cache)(dict(cache.cache_dict), model)
            fresh.has_batch_dim = cache.has_batch_dim
            expected = residscope.attribute(fresh, answers, **question)
        assert found.labels == expected.labels
        assert found.parts == expected.parts
        near = 1e-6 * expected.values.abs().max().item() + 1e-6
        assert torch.allclose(found.values, expected.values, rtol=1e-5, atol=near)
        assert torch.allclose(found.unexplained, expected.unexplained, atol=20 * near)


def test_a_repeated_request_is_not_computed_again_and_gets_its_own_copy(monkeypatch: pytest.MonkeyPatch):
    model = boot("gpt2")
    _, logits, cache = run(model)
    asked: list[object] = []
    decompose = own_targets.decompose
    monkeypatch.setattr(
        own_targets, "decompose", lambda *given, **named: asked.append(given) or decompose(*given, **named)
    )

    def ask(**more: Any) -> Any:
        return residscope.attribute(cache, torch.tensor([[5, 6], [7, 8], [9, 10]]), **more)

    first = ask()
    right = first.values.clone()
    first.values.zero_()
    first.notes.append("mine")
    again = ask()
    assert len(asked) == 1
    assert torch.equal(again.values, right)
    assert "mine" not in again.notes
    ask(logits=logits)
    ask(logits=logits)
    assert len(asked) == 2
    ask(logits=logits + 1)
    ask(position=3)
    ask(by="layer")
    assert len(asked) == 5


@pytest.mark.parametrize(
    "change", ["activation", "activation replaced", "weight", "weight replaced", "submodule replaced", "logits"]
)
def test_after_a_change_results_are_computed_again(change: str):
    model = boot("gpt2")
    _, logits, cache = run(model)
    given = {"logits": logits} if change == "logits" else {}
    for answers in (5, 6, 7, 5):
        before = residscope.attribute(cache, answers, **given)
    with torch.no_grad():
        match change:
            case "activation":
                cache["blocks.1.attn.hook_z"].mul_(2)
            case "activation replaced":
                cache.cache_dict["blocks.1.attn.hook_z"] = cache["blocks.1.attn.hook_z"] * 2
            case "weight":
                model.unembed.original_component.weight.mul_(2)
            case "weight replaced":
                inner = model.ln_final.original_component
                inner.weight = torch.nn.Parameter(inner.weight * 2)
            case "submodule replaced":
                inner = model.ln_final.original_component  # so that the old module stays in memory
                model.ln_final.set_original_component(copy.deepcopy(inner))
                model.ln_final.original_component.weight.mul_(2)
            case _:
                logits.mul_(2)
    after = residscope.attribute(cache, 5, **given)
    fresh = type(cache)(dict(cache.cache_dict), model)
    expected = residscope.attribute(fresh, 5, **given)
    assert torch.equal(after.values, expected.values)
    assert torch.equal(after.measured, expected.measured)
    assert not (torch.equal(after.values, before.values) and torch.equal(after.measured, before.measured))


def test_memoised_results_end_with_the_cache_and_keep_nothing_alive():
    model = boot("gpt2")
    _, _, cache = run(model)
    for answers in (5, 6, 7):
        residscope.attribute(cache, answers)
    id = change_tracking.track(cache).id
    assert any(key[0] == id for key in CACHES._entries)
    z, weight = (
        weakref.ref(cache["blocks.0.attn.hook_z"]),
        weakref.ref(model.blocks[0].attn.o.original_component.weight),
    )
    del cache
    gc.collect()
    assert z() is None
    assert not any(key[0] == id for key in CACHES._entries)
    del model
    gc.collect()
    assert weight() is None


def test_the_names_of_neurons_end_with_the_model():
    cfg = TransformerBridgeConfig(
        d_model=8, d_head=4, n_heads=2, n_layers=2, n_ctx=8, d_vocab=16, d_mlp=30_011, act_fn="gelu", seed=0,
        normalization_type="LN",
    )  # fmt: skip
    model = boot_native(cfg)
    _, cache = model.run_with_cache(torch.tensor([[1, 2, 3]]))
    residscope.attribute(cache, 5)  # what does not belong to neurons is loaded
    gc.collect()
    tracemalloc.start()
    try:
        found = residscope.attribute(cache, 5, by="neuron")
        assert tracemalloc.get_traced_memory()[0] > 3_000_000  # 60,022 names
        of_neurons = found.components[: found.parts]
        again = residscope.attribute(cache, 6, by="neuron")
        assert all(one is other for one, other in zip(of_neurons, again.components, strict=False))  # not made again
        del found, again, of_neurons, cache, model
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < 300_000
    finally:
        tracemalloc.stop()


def test_activations_made_in_inference_mode_are_read_each_time():
    model = boot("gpt2")
    with torch.inference_mode():
        _, _, cache = run(model)
        before = residscope.attribute(cache, 5)
        cache["blocks.1.attn.hook_z"].mul_(2)  # PyTorch does not count this change
        after = residscope.attribute(cache, 5)
    assert not torch.equal(before.values, after.values)


def test_a_view_gets_a_memoised_reply_only_while_it_is_valid():
    model = boot("gpt2")
    tokens, _, cache = run(model)

    def answer(served: Service) -> bytes:
        answered, buffers = served.answer({"id": "1", "ask": HEADS})
        assert answer_of(answered) == "attribute"
        return buffers[0]

    plain, padded = Service(cache), Service(cache, tokens=tokens.index_fill(1, torch.tensor([6]), 0))  # 0: padding
    first = answer(plain)
    assert answer(plain) is first
    assert answer(Service(cache)) is first  # another view of the cache gets the memoised reply
    assert answer(padded) != first  # this view reads one token earlier
    masked = answer(Service(cache, attention_mask=torch.ones_like(tokens).index_fill(1, torch.tensor([6]), 0)))
    torch.testing.assert_close(  # this view's settings count, not those of another view
        torch.frombuffer(bytearray(masked), dtype=torch.float32),
        residscope.attribute(cache, 5, position=5).mean(),
    )
    cache["blocks.1.attn.hook_z"].mul_(2)
    assert answer(plain) != first
    with torch.inference_mode():
        uncounted = run(model)[2]
        served = Service(uncounted)
        before = answer(served)
        uncounted["blocks.1.attn.hook_z"].mul_(2)  # PyTorch does not count this change
        assert answer(served) != before


NEXT = {"contrasts": [], "next_token": {}}
MANY_REQUESTS: list[dict[str, Any]] = [
    HEADS,
    {"kind": "attribute", "by": "layer", "target": NEXT},
    {"kind": "attribute", "by": "layer", "target": FIVE},
    {"kind": "neurons", "layer": 1, "target": NEXT},
    {"kind": "attention", "layer": 1, "head": 1, "target": NEXT, "prompt": 1},
    {"kind": "next-tokens", "target": NEXT, "prompt": 1},
    {"kind": "next-tokens", "target": NEXT},
    {"kind": "positions", "by": "head", "heads": ["L1H1"], "target": NEXT},
    {"kind": "thumbnails", "layer": 1, "weighting": "contribution", "target": FIVE},
    {"kind": "scores", "score": "previous"},
    {"kind": "token-lens", "target": NEXT, "points": ["1_pre", "final_post"], "start": 2, "stop": 6, "k": 3},
]


@pytest.mark.parametrize("request_", MANY_REQUESTS, ids=lambda asked: "-".join(map(str, list(asked.values())[:2])))
def test_views_with_other_tokens_padding_or_mask_get_no_results_of_each_other(request_: dict[str, Any]):
    model = boot("gpt2")
    tokens, _, _ = run(model)
    tokens = tokens.clone()
    tokens[1, -2:] = 0  # padding
    with torch.no_grad():
        cache = model.run_with_cache(tokens)[1]
    other, mask = tokens.roll(1, 1).clamp(min=1), torch.ones_like(tokens)
    mask[0, -1] = mask[1, -2:] = 0
    settings: list[tuple[dict[str, Any], str]] = [
        ({}, "found"), ({}, "none"), ({"tokens": other}, "found"), ({"attention_mask": mask}, "found"),
        ({"tokens": other, "attention_mask": mask}, "none"), ({}, "found"),
    ]  # fmt: skip

    def answer(given: Any, arguments: dict[str, Any], padding: str) -> tuple[dict[str, Any], list[bytes]]:
        answered, buffers = Service(given, **arguments).answer({"id": "1", "ask": {**request_, "padding": padding}})
        assert answer_of(answered) == request_["kind"]
        return answered["reply"], [bytes(buffer) for buffer in buffers]

    for arguments, padding in settings:
        alone = type(cache)({name: tensor.clone() for name, tensor in cache.items()}, model)
        # The same computation on the same numbers gives the same bytes.
        assert answer(cache, arguments, padding) == answer(alone, arguments, padding)


def answer_of(answered: dict[str, Any]) -> str:
    assert answered.get("failure") is None, answered
    return answered["reply"]["kind"]


def test_memoised_replies_about_a_plain_dictionary_end_with_its_view():
    model = boot("gpt2")
    activations = dict(run(model)[2].cache_dict)
    served, before = Service(activations, model=model), len(CACHES)
    first, again = (served.answer({"id": "1", "ask": HEADS})[1][0] for _ in range(2))
    assert first is again
    assert len(CACHES) == before


@pytest.mark.parametrize("odd", [None, 3, [1, 2]])
def test_an_object_that_is_only_like_a_cache_is_refused_in_a_sentence(odd: object):
    class Odd:
        cache_dict = odd
        model = None

    with pytest.raises(ResidscopeError, match="needs an ActivationCache"):
        residscope.attribute(Odd(), 5)


def test_a_store_is_bounded_and_drops_the_least_recently_used_entry():
    store = ResultStore(10_000)
    for name in "abc":
        store.put((name, 1), name, 3_000)
    assert store.get(("a", 1)) == "a"
    store.put(("d", 1), "d", 3_000)
    assert [store.get((name, 1)) for name in "abcd"] == ["a", None, "c", "d"]
    store.put(("e", 1), "e", 10_001)
    assert store.get(("e", 1)) is None
    store.drop("a")
    assert store.get(("a", 1)) is None
    assert len(store) == 2


def test_an_entry_that_is_dropped_between_any_two_lines_leaves_the_store_consistent():
    line = 0
    for line in range(1, 100):
        store = ResultStore(3_000)
        for number in range(3):
            store.put(("a", number), number, 1_000)
        left = line

        def trace(frame: FrameType, event: str, _: object, store: ResultStore = store) -> Any:
            nonlocal left
            if frame.f_code.co_name not in ("put", "_pop"):
                return None
            left -= event == "line"
            if left == 0:
                sys.settrace(None)
                store.drop("a")
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            store.put(("a", 3), 3, 1_000)
        finally:
            sys.settrace(before)
        if left > 0:
            break
        for number in range(4):
            store.put(("b", number), number, 1_000)
        assert [store.get(("b", number)) for number in range(4)] == [None, 1, 2, 3], line
        assert len(store) == 3, line
    assert 10 < line < 99


def test_keys_distinguish_requests():
    tensor = torch.zeros(200_000)
    alike = [(1, 1), ([" a", 2], [" a", 2]), ({1, 2}, {2, 1}), (torch.tensor([1]), torch.tensor([1])), (tensor, tensor)]
    for one, other in alike:
        assert key_of(one) == key_of(other)
        assert hash(key_of(one)) == hash(key_of(other))
    for one, other in [
        (1, True),
        (1, "1"),
        ((1, 2), [1, 2]),
        (torch.tensor([1]), torch.tensor(1)),
        (tensor, tensor + 0),
    ]:
        assert key_of(one) != key_of(other)
    before = key_of(tensor)
    tensor.add_(1)
    assert key_of(tensor) != before
    with pytest.raises(NoKeyError):
        key_of(object())


def test_the_number_of_an_object_is_never_used_again():
    class Thing:
        pass

    thing, other = Thing(), Thing()
    of = unique_id(thing)
    assert of == unique_id(thing) != unique_id(other)
    assert unique_id(None) == "" != of
    with pytest.raises(NoKeyError):
        unique_id(1)
    del thing
    gc.collect()
    later = [Thing() for _ in range(100)]  # one of these may get the address of the deleted object
    assert of not in {unique_id(one) for one in later}
