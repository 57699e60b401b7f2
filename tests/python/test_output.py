"""Models with unusual outputs, which no tiny family has. Expected: the model's own logits.

The tests change models so that they have: a norm with a bias on a layer's output; logits that are multiplied and then
capped; a bias of the unembedding that is multiplied; a factor of the logits that only the Hugging Face configuration
names; or layers that multiply the whole stream.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformer_lens import ActivationCache
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources import boot_native

import residscope
from residscope.serving.service import Service
from residscope.wire.targets import Suggest
from tests.support import tiny
from tests.support.brute import Brute

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
CAP = 0.5


def biased_norms(model: Any) -> float:
    """Give each norm on an output its own bias. Return the factor of the logits, 1."""
    generator = torch.Generator().manual_seed(5)
    for block in model.blocks:
        for name in ("ln1_post", "ln2_post"):
            norm = getattr(block, name).original_component
            plain = type(norm)
            norm.__class__ = type(
                "BiasedRMSNorm", (plain,), {"forward": lambda self, x, p=plain: p.forward(self, x) + self.bias}
            )
            norm.bias = nn.Parameter(torch.randn(24, generator=generator))
    return 1.0


def capped(model: Any) -> float:
    """Make the Hugging Face model cap its logits after multiplying them. Return the factor."""
    inner, forward = model.original_model, type(model.original_model).forward

    def cap(*args: Any, **options: Any) -> Any:
        found = forward(inner, *args, **options)
        found.logits = CAP * (found.logits / CAP).tanh()
        return found

    inner.forward, inner.config.final_logit_softcapping = cap, CAP
    return 0.3 if hasattr(inner, "logit_scale") else 1 / 3


def biased_unembedding(model: Any) -> float:
    layer = model.unembed.original_component
    layer.bias = nn.Parameter(torch.randn(tiny.VOCAB, generator=torch.Generator().manual_seed(6)))
    return 0.3 if hasattr(model.original_model, "logit_scale") else 1 / 3


def all_of_it(model: Any) -> float:
    biased_unembedding(model)
    return capped(model)


def without_adapter(model: Any) -> float:
    """Remove the factor from the bridge, as in older TransformerLens. Return the factor of the Hugging Face model."""
    model.adapter = SimpleNamespace()
    return 1 / 3


ODD: dict[str, tuple[str, Callable[[Any], float]]] = {
    "norms with a bias on outputs": ("gemma2", biased_norms),
    "a scale and a cap": ("cohere", capped),
    "a divisor and a cap": ("granite", capped),
    "a bias and a scale": ("cohere", biased_unembedding),
    "a bias and a divisor": ("granite", biased_unembedding),
    "a bias, a scale and a cap": ("cohere", all_of_it),
    "a divisor that the adapter does not name": ("granite", without_adapter),
}


@pytest.fixture(scope="module", params=ODD)
def odd(request):
    """The name of the case, the model, its logits and cache, and the factor of the logits."""
    family, make = ODD[request.param]
    torch.manual_seed(0)
    model = deepcopy(tiny.boot(family))
    whole = deepcopy(model)
    scale = make(model)
    _, logits, cache = tiny.run(whole if make is without_adapter else model)
    if make is without_adapter:
        cache = ActivationCache(dict(cache.items()), model)
    return request.param, model, logits, cache, scale


def own(logits: torch.Tensor) -> torch.Tensor:
    said = logits.gather(-1, ANSWERS.reshape(3, *[1] * (logits.ndim - 2), 2).expand(*logits.shape[:-1], 2))
    return said[..., 0] - said[..., 1]


@pytest.mark.parametrize("by", ["head", "layer", "neuron", "accumulated"])
@pytest.mark.parametrize("position", ["last", 0, "all"])
def test_rows_add_up_to_the_models_own_logits(odd, by, position):
    _, _, logits, cache, _ = odd
    found = residscope.attribute(cache, ANSWERS, by=by, position=position)
    total = found.values[-1] if by == "accumulated" else found.values.sum(0)
    true = own(logits if position == "all" else logits[:, -1 if position == "last" else 0])
    torch.testing.assert_close(found.measured, true, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(total + found.constant, true, atol=5e-5, rtol=1e-4)
    assert found.unexplained.abs().max() <= found.tolerance
    assert not any("arises" in note or "as a whole" in note for note in found.notes)


def test_every_row_and_the_constant_agree_with_brute_force(odd):
    name, model, logits, cache, scale = odd
    truth = Brute(model, cache, ANSWERS, 6, scale)
    rows = truth.rows()
    for layer in range(3):
        post = getattr(model.blocks[layer], "ln1_post", None)
        bias = None if post is None else getattr(post.original_component, "bias", None)
        if bias is not None:
            rows[f"{layer}_attn_bias"] = truth.contribution(bias.detach().expand(3, -1))
    for by in ("head", "layer"):
        found = residscope.attribute(cache, ANSWERS, by=by)
        for label, row in zip(found.labels, found.values, strict=True):
            torch.testing.assert_close(row.double(), rows[label], atol=2e-5, rtol=1e-4, msg=label)
    written = cache["unembed.hook_out"][:, -1].double() * scale
    bent = own(logits[:, -1]) - own(written)
    torch.testing.assert_close(found.constant.double(), truth.constant + bent, atol=5e-5, rtol=1e-4)
    assert (bent.abs().max() > 0.05) == ("cap" in name)  # Gemma 2's own cap changes less
    assert any("soft-caps" in note for note in found.notes) == ("cap" in name or "norms" in name)
    assert any(f"multiplies its logits by {scale:.4g}" in note for note in found.notes) == (scale != 1)


def test_sources_add_up_to_their_heads(odd):
    _, _, _, cache, _ = odd
    heads = ["L2H1", "L0H3"]
    grid = residscope.attribute(cache, ANSWERS).grid[[2, 0], [1, 3]]
    found = residscope.attribute(cache, ANSWERS, by="source", heads=heads)
    torch.testing.assert_close(found.values.sum(0), grid, atol=2e-5, rtol=1e-4)
    assert not any("add up" in note or "not all of" in note for note in found.notes)


@pytest.mark.parametrize("family", ["gemma2", "gemma4_text"])
def test_heads_before_a_norm_with_a_bias_are_known_to_add_up(family):
    """The heads add up even if the layer multiplies the sum, including the bias."""
    model = deepcopy(tiny.boot(family))
    biased_norms(model)
    _, logits, cache = tiny.run(model)
    assert residscope.attention(cache, ["L0H3", "L2H1"], weighting="value").notes == []
    found = residscope.attribute(cache, ANSWERS)
    assert {f"{layer}_attn_bias" for layer in range(3)} < set(found.labels)
    torch.testing.assert_close(found.measured, own(logits[:, -1]))
    layers = residscope.attribute(cache, ANSWERS, by="layer")
    for layer in range(3):
        total = found.grid[layer].sum(0) + found.values[found.labels.index(f"{layer}_attn_bias")]
        attention = layers.values[layers.labels.index(f"{layer}_attn_out")]
        torch.testing.assert_close(total, attention, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["frozen", "recomputed"])
def test_the_end_of_the_token_lens_is_the_models_softmax(odd, norm):
    _, _, logits, cache, _ = odd
    for prompt in (0, 2):
        found = residscope.token_lens(cache, ANSWERS, prompt=prompt, points="final_post", norm=norm, k=9)
        true = logits[prompt].softmax(-1).topk(9)
        torch.testing.assert_close(found.probabilities[0], true.values, atol=2e-5, rtol=1e-3)
        assert not any("differ" in note for note in found.notes)


@pytest.mark.parametrize("held", ["stream", "norm"])
def test_without_cached_logits_the_value_is_the_same(odd, held):
    _, model, logits, cache, _ = odd
    ends = ("hook_resid_post",) if held == "stream" else ("unembed.hook_in", "hook_resid_post", "ln_final.hook_scale")
    some = ActivationCache({name: t for name, t in cache.items() if name.endswith(ends)}, model)
    found = residscope.attribute(some, ANSWERS, by="accumulated")
    torch.testing.assert_close(found.measured, own(logits[:, -1]), atol=5e-5, rtol=1e-4)
    torch.testing.assert_close(found.values[-1] + found.constant, found.measured, atol=5e-5, rtol=1e-4)
    for prompt in (0, 2):
        predicted = Service(some).reply(Suggest(prompt, k=5))[0].predictions
        true = logits[prompt, -1].softmax(-1).topk(5)
        assert [one.token.id for one in predicted] == true.indices.tolist()
        assert [one.probability for one in predicted] == pytest.approx(true.values.tolist(), abs=2e-5)
    given = residscope.attribute(some, ANSWERS, by="accumulated", logits=logits)
    torch.testing.assert_close(given.measured, own(logits[:, -1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(given.values[-1] + given.constant, given.measured, atol=1e-4, rtol=1e-4)


def test_given_logits_are_used_if_no_end_of_the_stream_was_cached(odd):
    """Only the given logits show the change by the cap."""
    _, model, logits, cache, _ = odd
    ends = ("blocks.2.hook_resid_post", "ln_final.hook_in", "ln_final.hook_out", "ln_final.hook_normalized")
    some = {name: t for name, t in cache.items() if not name.startswith((*ends, "unembed", "hook_unembed"))}
    whole, found = (
        residscope.attribute(held, ANSWERS, by="layer", logits=logits) for held in (cache, ActivationCache(some, model))
    )
    torch.testing.assert_close(found.measured, own(logits[:, -1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.constant, whole.constant, atol=5e-5, rtol=1e-3)
    torch.testing.assert_close(found.values, whole.values, atol=2e-5, rtol=1e-4)
    assert found.unexplained.abs().max() < 1e-3


# --- layers that scale the stream ------------------------------------------------------------------------------------
SCALARS = (0.5, -1.5, 0.8)


@pytest.fixture(scope="module")
def scaled():
    """A model in which each layer multiplies the whole stream by its own factor, and the tokens, logits and cache."""
    model = deepcopy(tiny.boot("gemma4_text"))
    for block, scalar in zip(model.blocks, SCALARS, strict=True):
        block.original_component.layer_scalar.fill_(scalar)
    return model, *tiny.run(model)


def without_the_rest(model: Any, tokens: torch.Tensor, layer: int, *, mid: bool) -> torch.Tensor:
    """Return the end of the stream of a run in which nothing after a point adds to the stream."""
    parts = ("hook_attn_out", "hook_mlp_out", "post_per_layer_input_norm.hook_out")
    behind = [f"blocks.{at}.{part}" for at in range(layer, 3) for part in parts][mid:]
    kept: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
        kept["end"] = tensor.clone()

    hooks = [(name, lambda tensor, hook: tensor * 0) for name in behind]  # noqa: ARG005
    with torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=[*hooks, ("blocks.2.hook_resid_post", keep)])
    return kept["end"].double()


def held_norm(cache: Any) -> torch.Tensor:
    """Return the factors by which the final norm, an RMSNorm, multiplied the stream in this run."""
    return cache["ln_final.hook_out"].double() / cache["blocks.2.hook_resid_post"].double()


@pytest.mark.parametrize("point", ["0_pre", "1_pre", "1_mid", "2_pre", "2_mid"])
def test_a_point_of_the_frozen_lens_is_the_end_of_a_stream_to_which_nothing_more_is_added(scaled, point):
    model, tokens, _, cache = scaled
    end = without_the_rest(model, tokens, int(point[0]), mid=point.endswith("mid"))
    said = (end * held_norm(cache)) @ model.W_U.detach().double()
    curve = residscope.attribute(cache, ANSWERS, by="accumulated")
    value = curve.values[curve.labels.index(point)].double()
    torch.testing.assert_close(value, own(said[:, -1]), atol=2e-5, rtol=1e-4)
    shares = said.softmax(-1)
    for prompt in (0, 1):
        found = residscope.token_lens(cache, ANSWERS, prompt=prompt, points=point, norm="frozen")
        true = shares[prompt].topk(5).values
        torch.testing.assert_close(found.probabilities[0].double(), true, atol=2e-5, rtol=1e-3)
        said = shares[prompt].gather(-1, ANSWERS[prompt, :1].expand(7, 1))[:, 0]
        torch.testing.assert_close(found.answer_probability[0].double(), said, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("point", ["0_pre", "1_mid", "2_pre"])
def test_a_point_of_the_recomputed_lens_has_no_factor_of_a_later_layer(scaled, point):
    model, _, _, cache = scaled
    stream = cache[f"blocks.{point[0]}.hook_resid_{point[2:]}"]
    with torch.no_grad():
        logits = model.unembed(model.ln_final(stream))
    curve = residscope.attribute(cache, ANSWERS, by="accumulated", norm="recomputed")
    torch.testing.assert_close(curve.values[curve.labels.index(point)], own(logits[:, -1]), atol=5e-5, rtol=1e-3)
    found = residscope.token_lens(cache, prompt=0, points=point)
    torch.testing.assert_close(found.probabilities[0], logits[0].softmax(-1).topk(5).values, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("by", ["head", "layer", "neuron"])
def test_rows_of_a_scaled_layer_include_its_factor_and_those_of_later_layers(scaled, by):
    model, _, logits, cache = scaled
    found = residscope.attribute(cache, ANSWERS, by=by)
    torch.testing.assert_close(found.values.sum(0) + found.constant, own(logits[:, -1]), atol=5e-5, rtol=1e-4)
    for layer in range(3):
        factor = float(torch.tensor(SCALARS[layer:]).prod())
        for part, letter in (("attn", "H"), ("mlp", "N")):
            own_rows = [label.startswith((f"L{layer}{letter}", f"{layer}_{part}_")) for label in found.labels]
            written = cache[f"blocks.{layer}.hook_{part}_out"].double() * factor * held_norm(cache)
            true = own((written @ model.W_U.detach().double())[:, -1])
            total = found.values[torch.tensor(own_rows)].sum(0).double()
            torch.testing.assert_close(total, true, atol=2e-5, rtol=1e-4)


# --- a soft-cap that must be undone -----------------------------------------------------------------------------------
LIMIT = 4.0


@pytest.fixture(scope="module")
def saturated():
    """A model whose logits are often at its soft-cap, its run, and a cache without logits and without the final stream.

    In float32 some of its logits are near the cap. In half precision, many are rounded to it.
    """
    cfg = TransformerBridgeConfig(
        d_model=16, d_head=4, n_heads=4, n_layers=2, n_ctx=16, d_vocab=40, d_mlp=12, act_fn="gelu", seed=0,
        normalization_type="RMS", output_logits_soft_cap=LIMIT,
    )  # fmt: skip
    model, generator = boot_native(cfg), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter + 0.5 * torch.randn(parameter.shape, generator=generator))
        model.unembed.original_component.weight.mul_(5)
        logits, cache = model.run_with_cache(torch.randint(1, 40, (3, 6), generator=generator))
    ends = ("unembed.", "hook_unembed", "ln_final.hook_out", "ln_final.hook_normalized", "blocks.1.hook_resid_post")
    without = ActivationCache({k: v for k, v in cache.items() if not k.startswith(ends)}, model)
    return SimpleNamespace(model=model, logits=logits, cache=cache, without=without)


@pytest.mark.parametrize("by", ["head", "layer", "accumulated"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_a_logit_at_the_soft_cap_is_refused_with_this_reason_and_only_there(saturated, kind, by):
    """Expected: the model's own values before the cap, which this cache does not hold."""
    logits, before = saturated.logits.to(kind), saturated.cache["unembed.hook_out"]
    refused = answered = 0
    for position in range(6):
        for answer in range(0, 40, 3):
            given = logits[:, position, answer]
            at_cap = (given.abs() >= LIMIT).tolist()
            if any(at_cap):
                with pytest.raises(residscope.ResidscopeError) as error:
                    residscope.attribute(saturated.without, answer, by=by, position=position, logits=logits)
                assert f"at the model's soft-cap (4) at position {position} of prompt {at_cap.index(True)}" in str(
                    error.value
                )
                assert "`unembed.hook_in` or the final stream (`blocks.1.hook_resid_post`)" in str(error.value)
                refused += 1
                continue
            found = residscope.attribute(saturated.without, answer, by=by, position=position, logits=logits)
            answered += 1
            torch.testing.assert_close(found.measured, given.float(), atol=1e-6, rtol=0)
            # The rounding of a logit near the cap is amplified before the cap, and counts as rounding.
            change = given.float() - before[:, position, answer]
            own = residscope.attribute(saturated.cache, answer, by=by, position=position)
            shift = (found.constant - own.constant) - (change - (own.measured - before[:, position, answer]))
            assert shift.abs().max() <= found.tolerance
            if by != "accumulated":  # that lacks the end of the stream
                assert found.unexplained.abs().max() <= found.tolerance
                assert not any("cannot be determined where" in note for note in found.notes)
    assert answered > 20
    assert refused > 5 or kind == torch.float32


def test_the_places_at_the_soft_cap_are_named_for_all_positions_and_next_tokens(saturated):
    logits, tokens = saturated.logits.bfloat16(), saturated.cache["embed.hook_in"]
    at_cap = logits.abs() >= LIMIT
    answer = next(id for id in range(40) if at_cap[1:, :, id].any() and not at_cap[0, :, id].any())
    following = at_cap[:, :-1].gather(-1, tokens[:, 1:, None].long())[..., 0]
    for answers, cells in ((answer, at_cap[..., answer]), (residscope.targets.next_token(), following)):
        (prompt, position), *others = cells.nonzero().tolist()
        more = f" (and {len(others)} other{'s' * (len(others) > 1)})" if others else ""
        with pytest.raises(residscope.ResidscopeError) as error:
            residscope.attribute(saturated.without, answers, position="all", logits=logits)
        assert f"at position {position} of prompt {prompt}{more}, so" in str(error.value)


def test_what_does_not_need_the_value_before_the_soft_cap_is_not_refused(saturated):
    """Source contributions, and a head's contribution, are read from the heads."""
    logits, answer = saturated.logits.bfloat16(), 0
    position = next(at for at in range(6) if (logits[:, at, answer].abs() >= LIMIT).any())
    for answers, by in ((answer, "source"), (residscope.targets.output("1.2", of=answer, source=0), "head")):
        options = {"by": by, "position": position} | ({"heads": ["1.2"]} if by == "source" else {})
        found = residscope.attribute(saturated.without, answers, logits=logits, **options)
        expected = residscope.attribute(saturated.cache, answers, **options)
        torch.testing.assert_close(found.values, expected.values)
        assert not any("arises" in note for note in found.notes)


@pytest.mark.parametrize("kept", ["unembed.hook_in", "blocks.1.hook_resid_post"])
def test_with_what_the_refusal_proposes_the_saturated_logit_is_attributed(saturated, kept):
    logits = saturated.logits.bfloat16()
    held = {**saturated.without.cache_dict, kept: saturated.cache[kept]}
    found = residscope.attribute(ActivationCache(held, saturated.model), 0, position="all", logits=logits)
    expected = residscope.attribute(saturated.cache, 0, position="all")
    torch.testing.assert_close(found.values, expected.values)
    torch.testing.assert_close(found.measured, logits[..., 0].float())
