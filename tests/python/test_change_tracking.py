"""Changes of a tracked cache or of its model's weights are noticed, and tracking keeps nothing alive."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from transformer_lens import ActivationCache

from residscope.session import change_tracking
from residscope.session.change_tracking import track
from tests.support import tiny


@pytest.fixture
def model():
    return tiny.boot("llama")


@pytest.fixture
def cache(model):
    return tiny.run(model, batch=1)[2]


def test_tracking_changes_nothing_and_a_cache_keeps_its_id(cache):
    first = track(cache)
    state = first.state
    cache["resid_post", 0].sum()
    assert track(cache) is first
    assert (first.state, first.changed, first.weights_changed) == (state, False, False)
    assert change_tracking.known(first.id) is first


def remove_batch_dim(cache):
    cache.remove_batch_dim()


def replace_an_activation(cache):
    cache.cache_dict["hook_embed"] = cache.cache_dict["hook_embed"] * 2


def replace_one_twice(cache):
    """Replace an activation twice, so that the second tensor may get the address of the first one."""
    for _ in range(2):
        cache.cache_dict["hook_embed"] = cache.cache_dict["hook_embed"].clone()
        gc.collect()


def write_to_an_activation(cache):
    cache.cache_dict["hook_embed"][0, 0] = 0


def remove_an_activation(cache):
    del cache.cache_dict["hook_embed"]


@pytest.mark.parametrize(
    "edit", [remove_batch_dim, replace_an_activation, replace_one_twice, write_to_an_activation, remove_an_activation]
)
def test_a_changed_cache_is_noticed(cache, edit):
    before = track(cache).state
    edit(cache)
    after = track(cache)
    assert after.changed
    assert not after.weights_changed
    assert after.state.split(".")[0] != before.split(".")[0]
    assert after.state.split(".")[1] == before.split(".")[1]


def test_an_added_activation_gives_another_state_but_is_no_change_of_the_cache(cache):
    before = track(cache).state
    cache.stack_head_results()  # TransformerLens adds `hook_result` to the cache
    assert track(cache).state != before
    assert not track(cache).changed


def test_a_tensor_at_a_reused_address_counts_as_a_change():
    """A new tensor may get the address of a tensor that was replaced and deleted."""
    held = ActivationCache({"hook_embed": torch.zeros(3)}, None)
    again = 0
    for _ in range(1000):
        before, address = track(held).state, id(held.cache_dict["hook_embed"])
        del held.cache_dict["hook_embed"]
        held.cache_dict["hook_embed"] = torch.zeros(3)
        assert track(held).state != before
        again += id(held.cache_dict["hook_embed"]) == address
    assert again > 0, "no address was reused, so this test has shown nothing"


def optimizer_step(model):
    for weight in model.parameters():
        weight.grad = torch.ones_like(weight)
    torch.optim.AdamW(model.parameters(), lr=0.1).step()


def new_data(model):
    weight = next(model.parameters())
    weight.data = weight.data.clone()


def new_parameter(model):
    owner = next(module for module in model.modules() if "weight" in module._parameters)
    owner.weight = torch.nn.Parameter(owner.weight.detach().clone())


def write_to_a_weight(model):
    with torch.no_grad():
        next(model.parameters())[0] += 1


def load_weights(model):
    model.load_state_dict(copy.deepcopy(model.state_dict()))


@pytest.mark.parametrize(
    "edit",
    [
        optimizer_step,
        new_data,
        new_parameter,
        write_to_a_weight,
        load_weights,
        lambda model: model.enable_compatibility_mode(),
    ],
)
def test_changed_weights_are_noticed(model, cache, edit):
    before = track(cache).state
    edit(model)
    after = track(cache)
    assert (after.changed, after.weights_changed) == (False, True)
    assert after.state.split(".")[0] == before.split(".")[0]
    assert after.state != before
    later = tiny.run(model)[2]
    assert not track(later).weights_changed  # this cache was made with the new weights


def test_a_cache_without_a_model_or_in_inference_mode_is_tracked(model):
    with torch.inference_mode():
        cache = model.run_with_cache(torch.tensor([[3, 4, 5]]))[1]
    before = track(cache).state
    cache.cache_dict["hook_embed"] = cache.cache_dict["hook_embed"].clone()
    assert track(cache).state != before
    before = track(cache).state
    cache.model = None
    assert track(cache).state != before


def test_no_code_of_the_users_tensors_is_run(cache):
    class Loud(torch.Tensor):
        @classmethod
        def __torch_function__(cls, *_args, **_kwargs):
            raise RuntimeError("code of a tensor was run")

    cache.cache_dict["hook_embed"] = torch.zeros(2).as_subclass(Loud)
    before = track(cache).state
    assert track(cache).state == before


def test_nothing_is_kept_alive():
    model = copy.deepcopy(tiny.boot("llama"))
    cache = tiny.run(model)[2]
    seen = track(cache)
    alive = [weakref.ref(cache), weakref.ref(model), weakref.ref(cache.cache_dict["hook_embed"])]
    alive += [weakref.ref(weight) for weight in model.parameters()]
    gc.disable()
    try:
        del cache
        assert alive[0]() is None is alive[2]()  # freed at once, without garbage collection
        assert change_tracking.known(seen.id) is None is seen.cache
    finally:
        gc.enable()
    del model
    gc.collect()
    assert [reference() for reference in alive] == [None] * len(alive)


def test_an_id_is_never_used_again():
    ids = []
    for _ in range(50):
        cache = ActivationCache({"hook_embed": torch.zeros(1)}, None)
        ids.append(track(cache).id)
        del cache
    assert len(set(ids)) == 50


def test_on_the_demo_model_fifty_checks_find_no_change_and_one_changed_number_is_found(ioi):
    cache = copy.copy(ioi.cache)
    cache.cache_dict = dict(ioi.cache.cache_dict)
    last = list(cache.cache_dict)[-1]
    cache.cache_dict[last] = cache.cache_dict[last].clone()  # other tests use the demo's cache, too
    state = track(cache).state
    assert [track(cache).state for _ in range(50)] == [state] * 50
    cache.cache_dict[last].view(-1)[-1] += 1
    assert track(cache).state != state
    assert (track(cache).changed, track(cache).weights_changed) == (True, False)
