"""Values from weights are compared with the run's activations. If they disagree, values are refused or have a note."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from transformer_lens import ActivationCache
from transformer_lens.hook_points import HookPoint

import residscope
from residscope import ResidscopeError, targets
from residscope.cache.norms import norms_outputs
from residscope.cache.unembedding import final_vectors
from residscope.cache.view import CacheView
from residscope.session.change_notes import seen
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
WEIGHTED = ("hook_pattern", "hook_v", "hook_z", "ln_final.hook_scale", "mlp.hook_post", "embed.hook_in")


def _run(model, ends=("",)):
    with torch.no_grad():
        tokens = torch.randint(3, 64, (3, 7), generator=torch.Generator().manual_seed(1))
        return model.run_with_cache(tokens, names_filter=lambda name: name.endswith(ends))


def _weights(model):
    with torch.no_grad():
        model.blocks[1].attn.o.original_component.weight.mul_(3)


ODD = {
    "a hook on the layer": lambda m: m.blocks[1].attn.o.original_component.register_forward_hook(lambda *a: 3 * a[-1]),
    "a hook on the component": lambda m: m.blocks[1].attn.o.register_forward_hook(lambda *a: 3 * a[-1]),
    "a hook on the layer's input": lambda m: m.blocks[1].attn.o.original_component.register_forward_pre_hook(
        lambda _, x: (3 * x[0],)
    ),
    "other weights": lambda _: None,
}


@pytest.mark.parametrize("odd", ODD)
def test_value_weighted_attention_is_refused_or_noted_if_the_run_wrote_something_else(odd):
    model = deepcopy(tiny.boot("llama"))
    ODD[odd](model)
    cache = _run(model)[1]
    if odd == "other weights":
        _weights(model)
    try:
        found = residscope.attention(cache, "1.1", weighting="value")
    except ResidscopeError as error:
        assert "not all of `hook_attn_out`" in str(error)  # noqa: PT017
    else:  # the projection itself is right, but a later step differs
        assert any("not all of `hook_attn_out`" in note for note in found.notes)
    assert residscope.attention(cache, "0.1", weighting="value").notes == []
    assert any("In layer 1 the outputs of heads" in note for note in residscope.scores(cache, "copying").notes)


@pytest.mark.parametrize(("place", "said"), [("v", "In layer 1 the values of heads"), ("embed", "`hook_embed` is not")])
def test_copying_has_a_note_if_values_or_embeddings_do_not_follow_from_the_weights(place, said):
    model = deepcopy(tiny.boot("llama"))
    assert residscope.scores(_run(model)[1], "copying").notes == []
    module = model.embed if place == "embed" else model.blocks[1].attn.v
    module.original_component.register_forward_hook(lambda *a: -a[-1])
    assert any(said in note for note in residscope.scores(_run(model)[1], "copying").notes)


def test_every_value_has_a_note_on_what_a_filtered_cache_cannot_check():
    model = tiny.boot("llama")
    cache = _run(model, WEIGHTED)[1]
    answers = [
        residscope.attribute(cache, ANSWERS),
        residscope.attribute(cache, ANSWERS, by="neuron"),
        residscope.attribute(cache, ANSWERS, by="source", heads="1.1"),
        residscope.attention(cache, "1.1", weighting="value"),
        residscope.attention(cache, "1.1", weighting="contribution", answers=ANSWERS),
    ]
    assert all(any("was not checked" in note for note in answer.notes) for answer in answers)
    held = {name: tensor for name, tensor in cache.items() if name != "blocks.1.attn.hook_z"}
    notes = residscope.attribute(ActivationCache(held, model), ANSWERS).notes
    assert any("heads of layers 0 and 2 add up" in note for note in notes)  # `hook_z` of layer 1 is missing


def test_a_final_norm_that_computes_more_has_a_note():
    model = deepcopy(tiny.boot("llama"))
    norm = model.ln_final.original_component
    plain = type(norm)
    norm.__class__ = type("Doubled", (plain,), {"forward": lambda self, x: 2 * plain.forward(self, x)})
    stream = _run(model, ("hook_resid_post",))[1]
    for found in (residscope.token_lens(stream, 5), residscope.attribute(stream, ANSWERS, by="accumulated")):
        assert any("`Doubled`) is not what its weight" in note for note in found.notes)


def _with_nan(cache, name: str, *place) -> ActivationCache:
    """Return the cache with NaN at one place: prompt 1, or what `place` says."""
    changed = cache[name].clone()
    changed[place] = torch.nan
    return ActivationCache(dict(cache.items()) | {name: changed}, cache.model)


def test_a_final_norm_that_computes_more_has_a_note_also_if_another_prompt_holds_nan():
    model = deepcopy(tiny.boot("llama"))
    norm = model.ln_final.original_component
    plain = type(norm)
    norm.__class__ = type("Doubled", (plain,), {"forward": lambda self, x: 2 * plain.forward(self, x)})
    stream = _with_nan(_run(model, ("hook_resid_post",))[1], "blocks.2.hook_resid_post", 1, 3)
    notes = residscope.attribute(stream, ANSWERS, by="accumulated").notes
    assert any("`Doubled`) is not what its weight" in note for note in notes)


@pytest.mark.parametrize(("part", "by", "name"), [("attn", "head", "attn.hook_z"), ("mlp", "neuron", "mlp.hook_post")])
def test_nan_in_the_inputs_of_a_layer_of_unknown_class_is_not_taken_for_the_layers_own(part, by, name):
    """NaN at a position that is not read changes nothing. At a position that is read, the refusal names it."""
    model = deepcopy(tiny.boot("llama"))
    layer = (model.blocks[1].attn.o if part == "attn" else model.blocks[1].mlp.out).original_component
    layer.__class__ = type("Unknown", (torch.nn.Linear,), {})
    cache, options = _run(model)[1], {"by": by} | ({"layers": 1} if by == "neuron" else {})
    expected = residscope.attribute(cache, ANSWERS, **options)
    beside = _with_nan(cache, f"blocks.1.{name}", 1, 3)
    torch.testing.assert_close(residscope.attribute(beside, ANSWERS, **options).values, expected.values)
    read = _with_nan(cache, f"blocks.1.{name}", 1, 6)
    with pytest.raises(ResidscopeError, match=rf"holds NaN or infinity: `blocks\.1\.{name}` \(prompt 1, position 6\)"):
        residscope.attribute(read, ANSWERS, **options)


@pytest.mark.parametrize("side", ["query", "key"])
@pytest.mark.parametrize(
    ("name", "place", "said"),
    [
        ("attn.hook_q", (1, 5), r"NaN or infinity: `blocks\.1\.attn\.hook_q` \(prompt 1, position 5\)"),
        ("attn.hook_k", (1, 2), r"NaN or infinity: `blocks\.1\.attn\.hook_k` \(prompt 1, position 2\)"),
        ("hook_resid_pre", (1, 4), r"NaN or infinity: `blocks\.1\.hook_resid_pre` \(prompt 1, position 4\)"),
        ("ln1.hook_scale", (1, 4), r"NaN or infinity: `blocks\.1\.ln1\.hook_scale` \(prompt 1, position 4\)"),
        ("attn.hook_attn_scores", (1, 1, 5, 2), r"`blocks\.1\.attn\.hook_attn_scores` holds NaN for L1H1, from 5 to 2"),
        ("attn.hook_pattern", (1, 1, 5, 2), r"`blocks\.1\.attn\.hook_pattern` holds NaN for L1H1, from 5 to 2"),
    ],
)
def test_an_attention_score_with_nan_behind_it_is_refused_as_such(side, name, place, said):
    cache = _with_nan(_run(tiny.boot("llama"))[1], f"blocks.1.{name}", *place)
    with pytest.raises(ResidscopeError, match=said) as error:
        residscope.attribute(cache, targets.attention("1.1", 5, 2, side=side))
    assert error.value.code == "not-finite"


@pytest.mark.parametrize("name", ["hook_attn_scores", "hook_pattern"])
def test_nan_in_the_scores_of_another_destination_changes_nothing(name):
    cache = _run(tiny.boot("llama"))[1]
    beside = _with_nan(cache, f"blocks.1.attn.{name}", 2, 1, 3, 1)
    score = targets.attention("1.1", 6, 2)
    expected, found = (residscope.attribute(each, score) for each in (cache, beside))
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.measured, expected.measured)


def test_effects_in_a_cache_whose_logits_hold_nan_are_refused_as_such():
    cache = _with_nan(_run(tiny.boot("llama"))[1], "unembed.hook_out", 1, 6)
    with pytest.raises(ResidscopeError, match=r"NaN or infinity: `unembed\.hook_out` \(prompt 1, position 6\)"):
        residscope.patch(cache, "zero", 3, progress=False)


def test_the_last_row_of_a_lens_without_logits_is_not_checked():
    model = tiny.boot("llama")
    assert residscope.token_lens(_run(model)[1], 5).notes == []
    assert any("not checked" in note for note in residscope.token_lens(_run(model, ("hook_resid_post",))[1], 5).notes)


CHANGED = {
    "gemma2-cap-5": lambda inner: setattr(inner.config, "final_logit_softcapping", 50.0),
    "gemma2": lambda inner: setattr(inner.config, "final_logit_softcapping", None),
    "cohere": lambda inner: setattr(inner, "logit_scale", 3.0),
    "granite": lambda inner: setattr(inner.config, "logits_scaling", 1.0),
}


@pytest.mark.parametrize("family", CHANGED)
def test_factors_of_the_logits_are_read_where_the_model_reads_them(family):
    model = deepcopy(tiny.boot(family))
    CHANGED[family](model.original_model)
    logits, cache = _run(model, ("hook_resid_post",))
    found = residscope.token_lens(cache, 5, prompt=0, points="final_post")
    true = logits[0].softmax(-1).topk(5).values
    torch.testing.assert_close(found.probabilities[0], true, atol=1e-5, rtol=1e-3)


def test_a_wrapped_unembedding_without_a_weight_is_called():
    class Wrap(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x)

    model = deepcopy(tiny.boot("llama"))
    true = residscope.attribute(_run(model)[1], ANSWERS).values
    model.unembed.set_original_component(Wrap(model.unembed.original_component))
    torch.testing.assert_close(residscope.attribute(_run(model)[1], ANSWERS).values, true, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16], ids=str)
@pytest.mark.parametrize("widened", [False, True])
def test_a_coarse_cache_has_the_values_of_its_own_tensors(family, kind, widened):
    model = tiny.boot(family)
    cache = _run(model)[1]
    coarse = {name: t.to(kind) if t.is_floating_point() else t for name, t in cache.items()}
    wide = {name: t.float() if t.is_floating_point() else t for name, t in coarse.items()}
    held = ActivationCache(wide if widened else coarse, model)
    assert not norms_outputs(CacheView(held))
    found = residscope.attribute(held, ANSWERS)
    W_U = model.W_U.detach()
    weight = model.ln_final.original_component.weight.detach()
    u = ((W_U[:, ANSWERS[:, 0]] - W_U[:, ANSWERS[:, 1]]).T * weight) @ (
        torch.eye(24) - (1 / 24 if family == "gpt2" else 0)
    )
    z = wide["blocks.1.attn.hook_z"][:, -1, 1]
    true = ((z @ model.W_O[1, 1].detach()) * u).sum(-1) / wide["ln_final.hook_scale"][:, -1, 0]
    torch.testing.assert_close(found.values[found.labels.index("L1H1")], true, atol=1e-5, rtol=1e-4)
    copied = residscope.scores(held, "copying").values
    torch.testing.assert_close(copied, residscope.scores(cache, "copying").values, atol=1e-6, rtol=1e-5)
    assert not any("scales them" in note for note in found.notes)


@pytest.mark.parametrize(("factor", "kind", "behind"), [(1.0, None, True), (1.15, None, False), (1.15, "float8", None)])
def test_coarse_activations_do_not_decide_whether_norms_come_before_or_after_attention(factor, kind, behind):
    model = tiny.boot("gpt2")
    cache = _run(model)[1]
    norm = model.blocks[0].ln1.original_component
    normalized = cache["blocks.0.ln1.hook_normalized"]
    added = (normalized * norm.weight + norm.bias).detach() * factor
    held = {"blocks.0.ln1.hook_normalized": normalized, "blocks.0.hook_attn_out": added}
    if kind is not None:
        held = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in held.items()}
    view = CacheView(ActivationCache(held, model))
    if behind is None:
        with pytest.raises(ResidscopeError, match="too coarse"):
            norms_outputs(view)
    else:
        assert norms_outputs(view) == behind


class OfVersion(torch.nn.Module):
    """`LayerNorm` of a `HookedTransformer`, as in version 2 or 3 of TransformerLens."""

    def __init__(self, version: int, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.version, self.w, self.b, self.eps = version, torch.nn.Parameter(weight), torch.nn.Parameter(bias), 1e-5
        self.hook_scale, self.hook_normalized = HookPoint(), HookPoint()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        if self.version == 2:
            return self.hook_normalized(x * self.w + self.b)
        return self.hook_normalized(x) * self.w + self.b


WEIGHTS = {
    "all −1": -torch.ones(24),
    "of both signs": torch.tensor([1.0, -1.0] * 12),
    "of any size": torch.linspace(-1, 2, 24),
}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_where_layer_norm_has_its_weight_is_seen_in_a_call_not_in_the_values(version, weight):
    """Values with a mean square of 1 do not show on which side of the weight they were cached."""
    model = deepcopy(tiny.boot("gpt2"))
    norm = OfVersion(version, WEIGHTS[weight].clone(), torch.zeros(24))
    model.ln_final = norm
    model.blocks[0].ln1 = norm
    seen: list[torch.Tensor] = []
    handle = norm.hook_normalized.register_forward_hook(lambda *call: seen.append(call[-1].detach()))
    x = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        output = norm(x)
    handle.remove()
    names = ("ln_final.hook_normalized", "blocks.0.ln1.hook_normalized")
    cache = ActivationCache(dict.fromkeys(names, seen[0]) | {"blocks.0.hook_attn_out": output}, model)
    view = CacheView(cache)
    torch.testing.assert_close(final_vectors(view, None), output)
    assert norms_outputs(view)
    other = ActivationCache(dict(cache.items()) | {"blocks.0.hook_attn_out": -output}, model)
    assert not norms_outputs(CacheView(other))
    norm.hook_normalized.register_forward_hook(lambda *call: 2 * call[-1])  # the user's: no copy may be called
    assert final_vectors(CacheView(cache), None) is None


def test_a_hook_that_was_removed_from_the_final_norm_no_longer_counts():
    model = deepcopy(tiny.boot("gpt2"))
    norm = model.ln_final = OfVersion(2, WEIGHTS["all −1"].clone(), torch.zeros(24))
    cache = ActivationCache({"ln_final.hook_normalized": torch.randn(3, 7, 24)}, model)
    tracked = seen(cache)
    handle = norm.hook_normalized.register_forward_hook(lambda *call: 2 * call[-1])
    assert final_vectors(CacheView(cache, seen=tracked), None) is None
    handle.remove()
    found = final_vectors(CacheView(cache, seen=tracked), None)
    torch.testing.assert_close(found, cache["ln_final.hook_normalized"])


@pytest.mark.parametrize("ask", [
    lambda cache: residscope.attention(cache, "1.1", prompt=1),
    lambda cache: residscope.scores(cache, "entropy"),
    lambda cache: residscope.scores(cache, "first", prompt=1),
])  # fmt: skip
def test_patterns_of_fewer_prompts_than_the_cache_are_refused(ask):
    model = tiny.boot("llama")
    held = {name: t[:1] if name.endswith("hook_pattern") else t for name, t in _run(model)[1].items()}
    with pytest.raises(ResidscopeError, match="holds 1 prompts, but this cache holds 3"):
        ask(ActivationCache(held, model))
