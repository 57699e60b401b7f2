"""The forms that caches of a `HookedTransformer` have in notebooks, and a panel's requests about such caches."""

from __future__ import annotations

from copy import copy

import msgspec
import numpy as np
import pytest
import torch
from transformer_lens import ActivationCache, HookedTransformer, HookedTransformerConfig

import residscope
from residscope import ResidscopeError
from residscope.cache.view import CacheView
from residscope.serving.service import Service
from residscope.terms import ComponentTable
from tests.support import hooked, tiny

BOTH = pytest.mark.parametrize("structure", ["LN", "LN-folded", "gated-grouped", "gemma2"])
BY = ("head", "layer", "accumulated")


def converted(cache, change) -> ActivationCache:
    """Return a copy of a cache with `change` applied to every activation."""
    return ActivationCache({name: change(tensor) for name, tensor in cache.items()}, cache.model)


# --- forms of a cache ------------------------------------------------------------------------------------------------
@BOTH
def test_a_cache_without_its_batch_dimension(structure):
    model, (_, cache) = hooked.model(structure), hooked.run(structure)
    with torch.no_grad():
        logits, alone = model.run_with_cache(hooked.tokens()[0], remove_batch_dim=True)
    for by in BY:
        expected = residscope.attribute(cache, hooked.ANSWERS, by=by)
        for given in (None, logits):
            result = residscope.attribute(alone, hooked.ANSWERS[:1], by=by, logits=given)
            torch.testing.assert_close(result.values[:, 0], expected.values[:, 0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(result.measured, expected.measured[:1], atol=1e-5, rtol=1e-5)
    assert not alone.has_batch_dim


@BOTH
@pytest.mark.parametrize("pos_slice", [-1, (2, 5)], ids=str)
def test_a_cache_of_some_positions(structure, pos_slice):
    model, (_, cache) = hooked.model(structure), hooked.run(structure)
    with torch.no_grad():
        logits, some = model.run_with_cache(hooked.tokens(), pos_slice=pos_slice)
    kept = range(hooked.POSITIONS)[slice(-1, None) if pos_slice == -1 else slice(*pos_slice)]
    for by in BY:
        expected = residscope.attribute(cache, hooked.ANSWERS, by=by, position="all").values[..., kept]
        result = residscope.attribute(some, hooked.ANSWERS, by=by, position="all")
        torch.testing.assert_close(result.values, expected, atol=1e-5, rtol=1e-5)
        assert result.unexplained.abs().max() < result.tolerance
    with pytest.raises(ResidscopeError, match="positions"):  # the output has more positions than this cache
        residscope.attribute(some, hooked.ANSWERS, logits=logits)


@pytest.mark.parametrize(
    ("kept", "by", "missing"),
    [
        ("hook_resid_post", "head", "blocks.0.attn.hook_z"),
        ("hook_z", "accumulated", "hook_resid_post"),
        ("hook_scale", "accumulated", "hook_resid_post"),
    ],
)
def test_an_activation_that_was_not_cached_is_named(kept, by, missing):
    with torch.no_grad():
        _, cache = hooked.model("LN").run_with_cache(hooked.tokens(), names_filter=lambda name: name.endswith(kept))
    with pytest.raises(ResidscopeError, match="names_filter") as error:
        residscope.attribute(cache, hooked.ANSWERS, by=by)
    assert f"`{missing}`" in str(error.value)


def test_a_cache_without_anything_to_attribute_is_refused():
    with torch.no_grad():
        _, cache = hooked.model("LN").run_with_cache(hooked.tokens(), names_filter="hook_embed")
        pair = hooked.model("LN").run_with_cache(hooked.tokens())
    for wrong, message in (
        (cache, "`attn.hook_z` and `ln_final.hook_scale` are not in this cache"),
        (pair, "pass `cache`"),
    ):
        with pytest.raises(ResidscopeError, match=message):
            residscope.attribute(wrong, hooked.ANSWERS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_rounded_cache_is_within_its_tolerance(dtype):
    _, cache = hooked.run("LN")
    rounded = converted(cache, lambda tensor: tensor.to(dtype))
    with torch.no_grad():
        in_place = hooked.model("LN").run_with_cache(hooked.tokens())[1].to(dtype)  # TransformerLens' own conversion
    for by in BY:
        exact = residscope.attribute(cache, hooked.ANSWERS, by=by)
        for made in (rounded, in_place):
            result = residscope.attribute(made, hooked.ANSWERS, by=by)
            assert result.unexplained.abs().max() <= result.tolerance < 0.2
            torch.testing.assert_close(result.values, exact.values, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_a_model_in_another_precision(dtype):
    config = {**hooked._SIZES, "act_fn": "gelu_new", "dtype": dtype, "seed": 0, "device": "cpu"}
    model = HookedTransformer(HookedTransformerConfig(**config))
    with torch.no_grad():
        logits, cache = model.run_with_cache(hooked.tokens())
    for by in BY:
        result = residscope.attribute(cache, hooked.ANSWERS, by=by, logits=logits)
        assert result.unexplained.abs().max() <= result.tolerance
        if dtype == torch.float64:
            assert result.values.dtype == torch.float64
            assert result.unexplained.abs().max() < 1e-12


def test_a_saved_and_loaded_cache_needs_the_model(tmp_path):
    model, (_, cache) = hooked.model("LN"), hooked.run("LN")
    expected = residscope.attribute(cache, hooked.ANSWERS)
    alone = copy(cache)
    alone.model = None
    torch.save(alone, tmp_path / "cache.pt")
    loaded = torch.load(tmp_path / "cache.pt", weights_only=False)
    with pytest.raises(ResidscopeError, match="`model=…`"):
        residscope.attribute(loaded, hooked.ANSWERS)
    torch.save(dict(cache.cache_dict), tmp_path / "activations.pt")
    rebuilt = ActivationCache(torch.load(tmp_path / "activations.pt", weights_only=True), model)
    for result in (
        residscope.attribute(loaded, hooked.ANSWERS, model=model),
        residscope.attribute(rebuilt, hooked.ANSWERS),
    ):
        # Equal up to rounding, because sums for another cache may have another order.
        torch.testing.assert_close(result.values, expected.values, atol=1e-6, rtol=1e-5)


# --- token ids, which the cache does not hold ------------------------------------------------------------------------
@pytest.mark.parametrize("structure", ["LN", "LN-folded", "RMS-folded", "gated-grouped", "attn-only-shortformer"])
def test_token_ids_are_recovered_from_their_embeddings(structure):
    cache = hooked.run(structure)[1]
    assert torch.equal(CacheView(cache).tokens, hooked.tokens())
    with torch.no_grad():
        _, alone = hooked.model(structure).run_with_cache(hooked.tokens()[0], remove_batch_dim=True)
    assert torch.equal(CacheView(alone).tokens, hooked.tokens()[:1])


def test_token_ids_are_never_guessed():
    """If two tokens share an embedding, an embedding was changed, or a norm follows it, no token ids are returned."""
    twins = HookedTransformer(HookedTransformerConfig(**hooked._SIZES, act_fn="relu", seed=0, device="cpu"))
    with torch.no_grad():
        twins.W_E[int(hooked.tokens()[0, 0])] = twins.W_E[int(hooked.tokens()[0, 1])]
        _, cache = twins.run_with_cache(hooked.tokens())
    changed = converted(hooked.run("LN")[1], lambda tensor: tensor + 1e-6)
    for wrong in (cache, changed, hooked.run("embedding-norm")[1]):
        assert CacheView(wrong).tokens is None


def test_padding_is_found_by_the_tokenizer_and_answers_are_given_as_text():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.folder("gpt2"))
    config = {**hooked._SIZES, "d_vocab": tiny.VOCAB, "act_fn": "relu", "seed": 0, "device": "cpu"}
    model = HookedTransformer(HookedTransformerConfig(**config), tokenizer=tokenizer)
    prompts = torch.tensor([[1, 5, 6, 7], [1, 8, 9, 0]])  # 0 is the padding
    with torch.no_grad():
        logits, cache = model.run_with_cache(prompts)
    result = residscope.attribute(cache, ("w11", "w12"), by="layer", logits=logits)
    torch.testing.assert_close(
        result.measured, torch.stack([logits[0, 3, 11] - logits[0, 3, 12], logits[1, 2, 11] - logits[1, 2, 12]])
    )
    assert result.unexplained.abs().max() < result.tolerance
    reply, _ = ask(Service(cache), kind="tokens", prompt=1)
    assert [token["text"] for token in reply["tokens"]][:3] == ["<s>", "w8", "w9"]
    assert [token["padding"] for token in reply["tokens"]] == [False, False, False, True]


# --- the panel's requests --------------------------------------------------------------------------------------------
TARGET = {
    "contrasts": [
        {"answer": [{"id": a, "text": ""}], "distractor": [{"id": d, "text": ""}]} for a, d in hooked.ANSWERS.tolist()
    ]
}


def ask(service: Service, **request):
    """Answer a view's request, and return the reply and its buffers."""
    answer, buffers = service.answer({"id": "1", "ask": request})
    assert "failure" not in answer, answer
    return answer["reply"], buffers


@BOTH
@pytest.mark.parametrize("given", [False, True], ids=["from the cache", "logits given"])
def test_requests_of_a_panel_get_replies(structure, given):
    model, (logits, cache) = hooked.model(structure), hooked.run(structure)
    names = set(cache.cache_dict)
    service = Service(cache, logits=logits if given else None)

    facts, _ = ask(service, kind="describe")
    assert (facts["layers"], facts["heads"], facts["prompts"], facts["positions"]) == (3, 4, 3, 7)
    assert (facts["missing"], facts["last"], facts["model"]) == ([], [6] * 3, model.cfg.model_name)

    reply, _ = ask(service, kind="tokens", prompt=1)
    assert [token.get("id") for token in reply["tokens"]] == hooked.tokens()[1].tolist()
    assert [token["text"] for token in reply["tokens"]] == [f"#{id}" for id in hooked.tokens()[1].tolist()]

    for by in BY:
        expected = residscope.attribute(cache, hooked.ANSWERS, by=by)
        for prompt in (None, 2):
            reply, (buffer, *_) = ask(service, kind="attribute", by=by, target=TARGET, prompt=prompt)
            rows = expected.mean() if prompt is None else expected.values[:, prompt]
            np.testing.assert_allclose(np.frombuffer(buffer, np.float32), rows.numpy(), atol=1e-6)
            assert msgspec.convert(reply["components"], ComponentTable).components() == expected.components
            assert abs(reply["worst"]) < reply["tolerance"]

    heads = residscope.attribute(cache, hooked.ANSWERS).grid
    for layer, head in ((0, 0), (1, 3), (2, 1)):
        reply, (pattern, _, contributions, *_) = ask(
            service, kind="attention", layer=layer, head=head, target=TARGET, prompt=2
        )
        own = cache[f"blocks.{layer}.attn.hook_pattern"][2, head]
        below = np.tril_indices(own.shape[0])  # values above the diagonal are not sent
        np.testing.assert_allclose(np.frombuffer(pattern, np.float32), own.numpy()[below], atol=1e-6)
        # the source contributions add up to the head's contribution
        assert np.frombuffer(contributions, np.float32).sum() == pytest.approx(float(heads[layer, head, 2]), abs=1e-5)

    reply, _ = ask(service, kind="suggest", prompt=2, k=3)
    top = logits[2, -1].softmax(-1).topk(3)
    assert [entry["token"]["id"] for entry in reply["predictions"]] == top.indices.tolist()
    assert [entry["probability"] for entry in reply["predictions"]] == pytest.approx(top.values.tolist(), rel=1e-4)
    target = service.default_target()
    assert [[c.answer[0].id, c.distractor[0].id] for c in target.contrasts] == logits[:, -1].topk(2).indices.tolist()
    assert set(cache.cache_dict) == names
