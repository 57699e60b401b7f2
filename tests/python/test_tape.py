"""One run is used as the replay and for the estimates. It equals the cached run, and its gradients are right.

Expected: the gradients of a separate run (`estimate`), which other tests compare with small patches.
"""

from __future__ import annotations

import pytest
import torch

import residscope
from residscope.attribution.targets import Targets
from residscope.cache.view import CacheView
from residscope.causes import estimate as estimates
from residscope.causes.hooks import hook_state
from residscope.causes.measurement import Measurement
from residscope.compute.progress import WorkCancelledError, listening
from residscope.compute.torch_context import in_torch_context
from tests.support import tiny

ANSWERS = (5, 6)
NAMES = ["llama", "gpt2", "gemma2", "gpt_neox", "qwen3"]


def measurement(model, cache, slopes_at=None, view=None):
    view = CacheView(cache, model=model) if view is None else view

    def work():
        targets = Targets.of(view)
        return Measurement.of(view, targets.resolve(ANSWERS), "last", targets, slopes_at=slopes_at)

    return in_torch_context(view.stream.device, work)  # like every request of a view


@pytest.mark.parametrize("kind", ["z", "resid_pre"])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradients_are_those_of_a_separate_run(name, kind):
    model = tiny.boot(name)
    _, _, cache = tiny.run(model)
    before = hook_state(model), torch.is_grad_enabled()
    taped, plain = measurement(model, cache, kind), measurement(model, cache)
    assert taped.replay.gap == plain.replay.gap == 0
    assert set(taped.replay.sites) == set(plain.replay.sites)
    assert torch.equal(taped.before, plain.before)
    sites = [plain.replay.sites[kind, layer] for layer in plain.layers(kind)]
    expected = estimates._gradients(plain, sites)
    assert len(expected) == len(taped.slopes) == model.cfg.n_layers
    for site, slope in zip(sites, expected, strict=True):
        torch.testing.assert_close(taped.slopes[kind, site.layer], slope, rtol=1e-5, atol=1e-7)
    assert not any(stream.requires_grad for stream in taped.replay.run.streams)
    assert all(weight.grad is None for weight in model.parameters())
    assert (hook_state(model), torch.is_grad_enabled()) == before


def test_the_stream_may_have_another_precision_than_the_layers():
    model = tiny.boot("llama").to(torch.bfloat16)
    _, _, plain = tiny.run(model)
    at = {kind: residscope.estimate(plain, "zero", ANSWERS, at=kind).effects for kind in ("z", "resid_pre", "mlp_out")}
    for module in (model.ln_final, model.unembed):
        module.float()
    model.blocks[-1].register_forward_hook(
        lambda _module, _given, output: (
            (output[0].float(), *output[1:]) if isinstance(output, tuple) else output.float()
        )
    )
    _, _, cache = tiny.run(model)
    for kind, effects in at.items():
        found = residscope.estimate(cache, "zero", ANSWERS, at=kind).effects
        torch.testing.assert_close(found, effects, rtol=0.1, atol=0.05)


def test_inside_inference_mode_the_gradients_are_the_same():
    """In this mode, a separate run may be needed for the gradients."""
    model = tiny.boot("llama")
    tokens, _, cache = tiny.run(model)
    expected = measurement(model, cache, "z").slopes
    with torch.inference_mode():
        inside = model.run_with_cache(tokens)[1]
        found = measurement(model, inside, "z")
        sites = [found.replay.sites[place] for place in expected]
        slopes = in_torch_context(found.view.stream.device, lambda: estimates._gradients(found, sites))
        assert torch.is_inference_mode_enabled()
    for slope, wanted in zip(slopes, expected.values(), strict=True):
        torch.testing.assert_close(slope, wanted)


def test_models_that_may_notice_gradients_are_replayed_without_them():
    model = tiny.boot("llama")
    _, _, cache = tiny.run(model)
    seen: list[bool] = []
    handle = model.blocks[0].register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()) or None)
    with torch.no_grad():
        found = measurement(model, cache, "z")
    handle.remove()
    assert found.slopes == {}
    assert seen
    assert not any(seen)


def test_a_run_that_equals_the_cached_one_only_up_to_rounding_is_replayed_without_gradients():
    model = tiny.boot("llama")
    _, _, cache = tiny.run(model)
    cache.cache_dict["blocks.1.attn.hook_z"] = cache.cache_dict["blocks.1.attn.hook_z"] * (1 + 2**-22)
    found = measurement(model, cache, "z")
    assert 0 < found.replay.gap < 1e-5
    assert found.slopes == {}


@pytest.mark.parametrize("after", range(1, 7))
def test_the_run_can_be_stopped_between_any_two_layers_even_in_the_backward_pass(after):
    model = tiny.boot("llama")
    _, _, cache = tiny.run(model)
    before = hook_state(model)
    view = CacheView(cache, model=model)

    class Stops:
        steps = 0

        def step(self, *_):
            self.steps += 1
            if self.steps == after:
                raise WorkCancelledError

    listener = Stops()
    with listening(listener), pytest.raises(WorkCancelledError):
        measurement(model, cache, "z", view)
    assert listener.steps == after
    assert hook_state(model) == before
    assert measurement(model, cache, "z").slopes
