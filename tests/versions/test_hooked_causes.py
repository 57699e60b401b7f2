"""Effects in a `HookedTransformer` of each structure equal those of the model's own hooked runs."""

from __future__ import annotations

from functools import partial

import pytest
import torch

import residscope
from residscope import ResidscopeError
from tests.support import hooked

quiet = {"progress": False, "tokens": hooked.tokens()}  # a `HookedTransformer`'s cache holds no token ids


def without_head(z, hook, head, where=slice(None)):  # noqa: ARG001
    z = z.clone()
    z[:, where, head] = 0
    return z


def theirs(structure, layer, head, where=slice(None)):
    """Return the effect of setting a head to zero, in a hooked run of the model."""
    model = hooked.model(structure)
    hook = (f"blocks.{layer}.attn.hook_z", partial(without_head, head=head, where=where))
    with torch.no_grad():
        changed = model.run_with_hooks(hooked.tokens(), fwd_hooks=[hook])
    return (hooked.difference(changed) - hooked.difference(hooked.run(structure)[0]))[:, -1]


@pytest.mark.parametrize("structure", hooked.STRUCTURES)
def test_effects_are_those_of_the_models_own_hooked_runs(structure):
    _, cache = hooked.run(structure)
    found = residscope.ablate(cache, hooked.ANSWERS, **quiet)
    last = residscope.ablate(cache, hooked.ANSWERS, positions="last", **quiet)
    for layer in range(3):
        for head in (0, 3):
            for result, where in ((found, slice(None)), (last, -1)):
                expected = theirs(structure, layer, head, where)
                torch.testing.assert_close(result.total[layer, head], expected, atol=2e-5, rtol=1e-4)
    assert "as in the cache" in found.replayed
    if not hooked.model(structure).cfg.output_logits_soft_cap > 0:  # rows are computed before a soft-cap
        rows = residscope.attribute(cache, hooked.ANSWERS).grid
        torch.testing.assert_close(-found.direct, rows, atol=2e-5, rtol=1e-4)
    assert not any("whole model" in note for note in found.notes)


@pytest.mark.parametrize("structure", ["LN", "gated-grouped", "gemma2", "output-norms"])
def test_patches_equal_those_of_transformer_lens_and_estimates_are_their_limit_for_small_changes(structure):
    from transformer_lens import patching

    model, (logits, cache) = hooked.model(structure), hooked.run(structure)
    with torch.no_grad():
        _, other = model.run_with_cache(hooked.tokens().flip(1))
    options = {"positions": "each", **quiet}
    for at in ("resid_pre", "attn_out", "mlp_out"):
        own = getattr(patching, f"get_act_patch_{at}")
        with torch.no_grad():
            expected = own(model, hooked.tokens(), other, lambda out: hooked.difference(out)[:, -1].mean())
        found = residscope.patch(cache, other, hooked.ANSWERS, at=at, **options)
        before = hooked.difference(logits)[:, -1].mean()
        torch.testing.assert_close(found.effects.mean(-1) + before, expected, atol=2e-5, rtol=1e-4)
    step = 2**-8
    near = {name: part + step * (other[name] - part) for name, part in cache.items() if part.is_floating_point()}
    measured = residscope.patch(cache, type(cache)(near, model), hooked.ANSWERS, **quiet)
    found = residscope.estimate(cache, other, hooked.ANSWERS, tokens=hooked.tokens())
    assert (measured.effects / step - found.effects).norm() / found.effects.norm() < 0.03


def kept(value):
    return lambda own, hook: value  # noqa: ARG005


def recorded(into):
    return lambda own, hook: into.append(own.clone())  # noqa: ARG005


def put_head(value, head):
    def put(z, hook):  # noqa: ARG001
        z = z.clone()
        z[:, :, head] = value[:, :, head]
        return z

    return put


SOME = ["LN", "parallel", "gated-grouped", "gemma2", "embedding-norm"]


@pytest.mark.parametrize("part", ["q", "k", "v"])
@pytest.mark.parametrize("structure", SOME)
def test_effects_along_a_path_are_those_of_runs_with_the_rest_frozen(structure, part):
    model, (logits, cache) = hooked.model(structure), hooked.run(structure)
    found = residscope.ablate(cache, hooked.ANSWERS, path=f"L2H1.{part}", **quiet)
    names = ("blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out", "blocks.1.attn.hook_z")
    frozen = [(name, kept(cache[name])) for name in names]
    read, z = [], []
    with torch.no_grad():
        model.run_with_hooks(
            hooked.tokens(),
            fwd_hooks=[("blocks.0.attn.hook_z", partial(without_head, head=3)), *frozen,
                       (f"blocks.2.attn.hook_{part}", recorded(read))],
        )  # fmt: skip
        model.run_with_hooks(
            hooked.tokens(),
            fwd_hooks=[(f"blocks.2.attn.hook_{part}", kept(read[0])), ("blocks.2.attn.hook_z", recorded(z))],
        )
        after = model.run_with_hooks(hooked.tokens(), fwd_hooks=[("blocks.2.attn.hook_z", put_head(z[0], 1))])
    expected = (hooked.difference(after) - hooked.difference(logits))[:, -1]
    torch.testing.assert_close(found.total[0, 3], expected, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("part", ["q", "k", "v", "pattern"])
@pytest.mark.parametrize("structure", SOME)
def test_patches_of_a_heads_inputs_are_those_of_hooked_runs(structure, part):
    model, (logits, cache), z = hooked.model(structure), hooked.run(structure), []
    with torch.no_grad():
        _, other = model.run_with_cache(hooked.tokens().flip(1))
        put = (f"blocks.1.attn.hook_{part}", kept(other[f"blocks.1.attn.hook_{part}"]))
        model.run_with_hooks(hooked.tokens(), fwd_hooks=[put, ("blocks.1.attn.hook_z", recorded(z))])
        after = model.run_with_hooks(hooked.tokens(), fwd_hooks=[("blocks.1.attn.hook_z", put_head(z[0], 2))])
    found = residscope.patch(cache, other, hooked.ANSWERS, at=part, **quiet)
    expected = (hooked.difference(after) - hooked.difference(logits))[:, -1]
    torch.testing.assert_close(found.effects[1, 2], expected, atol=2e-5, rtol=1e-3)


def test_without_token_ids_in_the_cache_a_message_says_so():
    cache = hooked.run("RMS")[1]
    kept = {name: part for name, part in cache.items() if "embed" not in name}
    with pytest.raises(ResidscopeError, match=r"Pass `tokens=`"):
        residscope.ablate(type(cache)(kept, cache.model), hooked.ANSWERS, progress=False)
