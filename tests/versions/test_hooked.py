"""Values for a `HookedTransformer` add up to its logits, and agree with brute force and TransformerLens."""

from __future__ import annotations

from copy import copy, deepcopy

import pytest
import torch

import residscope
from tests.support import hooked

POSITIONS = {"last": -1, 2: 2, -3: -3, "all": slice(None)}
every = pytest.mark.parametrize("structure", hooked.STRUCTURES)


def explained(result) -> torch.Tensor:
    """Return the sum of the rows, plus the constant."""
    return (result.values[-1] if result.by == "accumulated" else result.values.sum(0)) + result.constant


def close(actual: torch.Tensor, expected: torch.Tensor, name: str = "") -> None:
    """Check that both tensors are equal, apart from rounding in float32."""
    torch.testing.assert_close(actual.double(), expected, atol=2e-5, rtol=2e-5, msg=lambda text: f"{name}: {text}")


@every
@pytest.mark.parametrize("by", ["head", "layer", "accumulated"])
@pytest.mark.parametrize("position", POSITIONS, ids=str)
def test_rows_and_constant_are_the_models_own_logits(structure, by, position):
    logits, cache = hooked.run(structure)
    own = hooked.own_difference(structure)[0][:, POSITIONS[position]]
    for given in (None, logits):  # without logits, the value is read from the stream
        result = residscope.attribute(cache, hooked.ANSWERS, by=by, position=position, logits=given)
        close(result.measured, own)
        close(explained(result), own)
        torch.testing.assert_close(explained(result) + result.unexplained, result.measured)
        assert result.unexplained.abs().max() < result.tolerance
        capped = hooked.model(structure).cfg.output_logits_soft_cap > 0
        assert any("soft-cap" in note for note in result.notes) is capped


@every
@pytest.mark.parametrize("without", ["hook_in", "hook_in and stream"])
def test_the_models_value_is_read_from_what_a_filtered_cache_holds(structure, without):
    model = hooked.model(structure)
    if (
        structure == "LN-folded-unnamed"
        and "stream" in without
        and "ln_final.hook_scale" not in hooked.run(structure)[1]
    ):
        pytest.skip("In 2.x, this cache does not even hold the norm's scale, so the request is refused.")
    dropped = {"unembed.hook_in", "unembed.hook_out", "ln_final.hook_out"}
    dropped |= {"blocks.2.hook_resid_post"} if "stream" in without else set()
    with torch.no_grad():
        _, cache = model.run_with_cache(hooked.tokens(), names_filter=lambda name: name not in dropped)
    for by, position in (("head", "last"), ("layer", "all")):
        result = residscope.attribute(cache, hooked.ANSWERS, by=by, position=position)
        own = hooked.own_difference(structure)[0][:, POSITIONS[position]]
        close(explained(result), own)
        if "ln_final.hook_normalized" in cache or "stream" not in without:
            close(result.measured, own)
        else:  # nothing is left from which the model's value could be read
            assert bool(result.measured.isnan().all())


@pytest.mark.parametrize("structure", ["LN", "RMS"])
@pytest.mark.parametrize("weight", ["all −1", "of both signs"])
def test_the_sign_of_the_final_norms_weight_is_right_in_a_filtered_cache(structure, weight):
    """`hook_normalized` then has a mean square of 1 both before and after the weight."""
    model = deepcopy(hooked.model(structure))
    with torch.no_grad():
        model.ln_final.w[:] = -1
        if weight == "of both signs":
            model.ln_final.w[::2] = 1
        if structure == "LN":
            model.ln_final.b.zero_()
        dropped = {"unembed.hook_in", "unembed.hook_out", "hook_unembed", "blocks.2.hook_resid_post"}
        logits, cache = model.run_with_cache(hooked.tokens(), names_filter=lambda name: name not in dropped)
    own = (logits[:, -1].gather(1, hooked.ANSWERS) * torch.tensor([1, -1])).sum(-1)
    close(residscope.attribute(cache, hooked.ANSWERS).measured, own.double())


@every
def test_every_row_agrees_with_the_models_own_norm_and_unembedding(structure):
    _, cache = hooked.run(structure)
    expected = hooked.brute(structure)
    capped, uncapped = hooked.own_difference(structure)
    neurons = ("neuron",) if "L0N0" in expected else ()
    for by in ("head", "layer", "accumulated", *neurons):
        result = residscope.attribute(cache, hooked.ANSWERS, by=by, position="all")
        for label, row in zip(result.labels, result.values, strict=True):
            close(row, expected[label], label)
        close(result.constant, expected["constant"] + capped - uncapped, "constant")
    lens = residscope.attribute(cache, hooked.ANSWERS, by="accumulated", norm="recomputed", position="all")
    for layer in range(3):
        without_constant = expected[f"recomputed {layer}_pre"] - expected["constant"]
        close(lens.values[lens.labels.index(f"{layer}_pre")], without_constant, f"recomputed {layer}_pre")


@every
def test_heads_and_bias_of_a_layer_are_its_attention_row(structure):
    _, cache = hooked.run(structure)
    heads, layers = (residscope.attribute(cache, hooked.ANSWERS, by=by) for by in ("head", "layer"))
    for layer in range(3):
        total = heads.grid[layer].sum(0) + heads.values[heads.labels.index(f"{layer}_attn_bias")]
        close(total, layers.values[layers.labels.index(f"{layer}_attn_out")].double())


@pytest.mark.parametrize("structure", ["LN", "gated-grouped", "grouped-ungrouped", "gemma2", "attn-only"])
@pytest.mark.parametrize("position", ["last", "all"])
def test_the_source_contributions_add_up_to_the_heads_contribution(structure, position):
    _, cache = hooked.run(structure)
    heads = residscope.attribute(cache, hooked.ANSWERS, position=position).grid
    result = residscope.attribute(cache, hooked.ANSWERS, by="source", heads=["0.0", "1.3", (2, 1)], position=position)
    wanted = torch.stack([heads[0, 0], heads[1, 3], heads[2, 1]])  # [head, batch (, destination)]
    summed = result.values.sum(0)  # [head, batch], or [destination, head, batch]
    close(summed if position == "last" else summed.permute(1, 2, 0), wanted.double())


@pytest.mark.parametrize("structure", ["LN-folded", "RMS-folded", "LNPre", "RMSPre", "parallel-folded"])
def test_heads_and_layers_agree_with_transformer_lens(structure):
    """TransformerLens' functions leave out the norms' weights, so they are right only with folded weights."""
    model, (_, cache) = hooked.model(structure), hooked.run(structure)
    theirs = copy(cache)
    theirs.cache_dict = dict(cache.cache_dict)  # TransformerLens adds hook_result to this copy
    directions = model.tokens_to_residual_directions(hooked.ANSWERS)
    stack = theirs.apply_ln_to_stack(theirs.stack_head_results(pos_slice=-1), pos_slice=-1)
    expected = (stack * (directions[:, 0] - directions[:, 1])).sum(-1).unflatten(0, (3, 4))
    torch.testing.assert_close(residscope.attribute(cache, hooked.ANSWERS).grid, expected, atol=2e-5, rtol=2e-5)

    mine = residscope.attribute(cache, hooked.ANSWERS, by="layer")
    stack, labels = theirs.decompose_resid(pos_slice=-1, return_labels=True)
    answers, distractors = hooked.ANSWERS.unbind(1)
    expected = theirs.logit_attrs(stack, tokens=answers, incorrect_tokens=distractors, pos_slice=-1)
    for label, row in zip(labels, expected, strict=True):
        torch.testing.assert_close(mine.values[mine.labels.index(label)], row, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("structure", ["LN", "gemma2"])
def test_the_users_model_and_cache_are_not_changed(structure):
    model, (logits, cache) = hooked.model(structure), hooked.run(structure)

    def state():
        weights = {name: (id(p), p._version, p.requires_grad) for name, p in model.named_parameters()}
        hooks = [len(point.fwd_hooks) for point in model.hook_dict.values()]
        return {n: (id(t), t._version, t.sum().item()) for n, t in cache.items()}, weights, hooks, dict(vars(model.cfg))

    before = state()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for by in ("head", "layer", "accumulated"):
                result = residscope.attribute(cache, hooked.ANSWERS, by=by, logits=logits)
                assert not result.values.requires_grad
            assert torch.is_grad_enabled() is grad
    assert state() == before


@every
@pytest.mark.parametrize("side", ["query", "key"])
def test_attention_scores_are_the_models_own(structure, side):
    _, cache = hooked.run(structure)
    own = cache["blocks.2.attn.hook_attn_scores"][:, 1, 6].double()
    for versus, expected in ((None, own[:, 4]), (2, own[:, 4] - own[:, 2])):
        target = residscope.targets.attention("2.1", 6, 4, versus, side)
        if structure == "attn-only-shortformer":  # queries and keys also read positions, which are not in the stream
            with pytest.raises(residscope.ResidscopeError, match="do not follow from the weights and the stream"):
                residscope.attribute(cache, target)
            continue
        result = residscope.attribute(cache, target)
        close(result.measured, expected)
        close(explained(result), expected)
