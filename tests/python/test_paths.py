"""Path patching: effects along a path to a head's query, key or value, or to the logits.

Expected: the model's own hooked runs in which everything else between the path's ends is frozen.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch

import residscope
from residscope import ResidscopeError
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
NO_HEADS = {"mamba", "falcon_mamba", "mamba2", "zamba2", "nemotron_h", "recurrent_gemma", "rwkv", "jetmoe"}
NO_RUNS = {"bert", "modernbert-decoder", "opt-projected", "deepseek_v4", "hrm_text"}  # why: `REFUSED` in `test_causes`
REFUSED = {
    "openai-gpt": "does not pass on what earlier layers add",  # its norms change the stream itself
    "glm_moe_dsa": "does not follow from",  # an indexer, which also reads the stream, chooses the keys
}
SHARED = {"gemma4_text-shared"}  # its last layer uses keys and values of an earlier layer
FROZEN = (
    "hook_mlp_out", "mlp.hook_out", "mixer.hook_out", "mamba.hook_out", "linear_attn.hook_out", "conv.hook_out",
    "moe.hook_out", "shared_mlp.hook_out", "post_per_layer_input_norm.hook_out",
)  # fmt: skip


def difference(logits):
    chosen = logits[:, -1].gather(1, ANSWERS)
    return chosen[:, 0] - chosen[:, 1]


def others(model, seed=5):
    torch.manual_seed(seed)
    tokens = torch.randint(3, tiny.VOCAB, (3, 7))
    with torch.no_grad():
        return model.run_with_cache(tokens)[1]


def by_head(z, count):
    return z.flatten(2).unflatten(2, (count, -1))


def changed(value, count, head):
    """Return a hook that changes one head's `z`."""

    def change(z, hook):  # noqa: ARG001
        own = by_head(z, count).clone()
        own[:, :, head] = value if not isinstance(value, torch.Tensor) else by_head(value, count)[:, :, head]
        return own.reshape(z.shape)

    return change


def kept(value):
    return lambda x, hook: value.reshape(x.shape)  # noqa: ARG005


def recorded(into):
    return lambda x, hook: into.append(x.clone())  # noqa: ARG005


class Brute:
    """The expected effects, from the model's own hooked runs."""

    def __init__(self, model, tokens, cache):
        self.model, self.tokens, self.cache = model, tokens, cache.cache_dict
        layers = range(len(model.blocks))
        names = {layer: f"blocks.{layer}.attn.hook_z" for layer in layers}
        self.z = {layer: self.cache[name] for layer, name in names.items() if name in self.cache}
        self.count = {layer: z.shape[2] for layer, z in self.z.items()}
        for layer in self.z:  # in latent attention, the cached z is not split into heads, but into pieces of `d_head`
            with suppress(Exception):  # TransformerLens raises if layers differ in their heads
                self.count[layer] = model.blocks[layer].attn.W_O.shape[0]

    def run(self, *hooks):
        with torch.no_grad():
            return difference(self.model.run_with_hooks(self.tokens, fwd_hooks=[(f"blocks.{n}", h) for n, h in hooks]))

    def frozen(self, sender, until, value=0.0):
        """Return hooks that change the sender's `z`, and freeze what MLPs and later layers add before `until`."""
        layer, head = sender
        hooks = [(f"{layer}.attn.hook_z", changed(value, self.count[layer], head))]
        for at in range(layer, until):
            names = [*FROZEN, *(["attn.hook_z"] if at > layer else [])]
            if f"blocks.{at}.hook_mlp_out" in self.cache:  # not `mlp.hook_out`, which in BLOOM includes the stream
                names.remove("mlp.hook_out")
            hooks += [(f"{at}.{name}", kept(self.cache[f"blocks.{at}.{name}"])) for name in names
                      if f"blocks.{at}.{name}" in self.cache]  # fmt: skip
        return hooks

    def along(self, sender, receivers, value=0.0):
        """Return the target's change if only the paths to these receivers, all in one layer, are changed."""
        parts, z = {}, {}
        for layer, _, part in receivers:
            parts[part] = []
            self.run(*self.frozen(sender, layer, value), (f"{layer}.attn.hook_{part}", recorded(parts[part])))
        layer = receivers[0][0]
        for _, head, _ in receivers:
            z[head] = []
            own = [(f"{layer}.attn.hook_{part}", kept(parts[part][0])) for _, one, part in receivers if one == head]
            self.run(*own, (f"{layer}.attn.hook_z", recorded(z[head])))
        put = [(f"{layer}.attn.hook_z", changed(own[0], self.count[layer], head)) for head, own in z.items()]
        return self.run(*put) - self.run()


@pytest.mark.parametrize("name", [name for name in tiny.FAMILIES if name not in NO_HEADS | NO_RUNS])
def test_effects_on_queries_keys_and_values_are_those_of_hooked_runs_with_the_rest_frozen(booted, name):
    model, tokens, _, cache = booted(name)
    brute = Brute(model, tokens, cache)
    *senders, last = sorted(brute.z)
    heads = [(senders[0], 0), (senders[-1], brute.count[senders[-1]] - 1)]
    receivers = [(last, 0, "q"), (last, 1, "k"), (last, brute.count[last] - 1, "v")]
    options = {"heads": heads, "progress": False}
    for number in (1, 2) if name in SHARED else ():
        with pytest.raises(ResidscopeError, match=r"hook_[kv]` is not in the cache"):
            residscope.ablate(cache, ANSWERS, path="L{}H{}.{}".format(*receivers[number]), **options)
    receivers = receivers[:1] if name in SHARED else receivers
    path = ["L{}H{}.{}".format(*one) for one in receivers]
    if name in REFUSED:
        with pytest.raises(ResidscopeError, match=REFUSED[name]):
            residscope.ablate(cache, ANSWERS, path=path, **options)
        return
    found = residscope.ablate(cache, ANSWERS, path=path, **options)
    expected = torch.stack([brute.along(head, receivers) for head in heads])
    torch.testing.assert_close(found.total, expected, atol=1e-5, rtol=1e-3)
    assert expected.abs().max() > 1e-3
    assert found.path.split(" and ") == sorted(path)


@pytest.mark.parametrize("name", sorted(NO_HEADS))
def test_models_without_heads_have_no_paths(booted, name):
    with pytest.raises(ResidscopeError, match="hook_z` is not in this cache"):
        residscope.ablate(booted(name)[3], ANSWERS, path="L2H1.q", progress=False)


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_path_patching_agrees_with_transformer_lens(booted, part):
    from transformer_lens import patching

    if not hasattr(patching, "get_act_patch_direct_path"):
        pytest.skip("This release of TransformerLens has no path patching.")

    model, tokens, logits, cache = booted("gpt2")
    other = others(model)
    with torch.no_grad():
        expected = patching.get_act_patch_direct_path(
            model, tokens, other, cache, lambda out: difference(out).mean(), 0, 2, part, verbose=False
        )
    for layer, head in ((1, 0), (2, 3)):
        found = residscope.patch(cache, other, ANSWERS, path=f"L{layer}H{head}.{part}", progress=False)
        after = found.effects[0, 2].mean() + difference(logits).mean()
        torch.testing.assert_close(after, expected[layer, head], atol=2e-6, rtol=1e-4)
        assert bool(found.effects[layer:].isnan().all())
        assert not bool(found.measured[layer:].any())
    assert found.axes == ("layer", "head", "batch")


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "granite", "gemma4_text"])
def test_every_earlier_head_is_measured_along_the_path_and_no_other_head(booted, name):
    model, tokens, _, cache = booted(name)
    brute, other = Brute(model, tokens, cache), others(model)
    found = residscope.ablate(cache, ANSWERS, path="L2H1.q", replace=other, progress=False)
    for layer in (0, 1):
        for head in range(4):
            value = other[f"blocks.{layer}.attn.hook_z"]
            expected = brute.along((layer, head), [(2, 1, "q")], value)
            torch.testing.assert_close(found.total[layer, head], expected, atol=1e-5, rtol=1e-3)
    assert bool(found.total[2].isnan().all())
    assert list(found.to_frame().columns) == ["total"]
    with pytest.raises(ResidscopeError, match="only one effect"):
        found.of("direct")


@pytest.mark.parametrize("name", ["llama", "olmo2", "gpt2", "glm4"])
def test_several_receivers_can_be_changed_at_once_each_by_its_own_input(booted, name):
    model, tokens, _, cache = booted(name)
    brute = Brute(model, tokens, cache)
    receivers = [(2, 1, "q"), (2, 2, "k"), (2, 2, "v"), (2, 3, "q")]
    path = [f"L{layer}H{head}.{part}" for layer, head, part in receivers]
    found = residscope.ablate(cache, ANSWERS, heads=["0.1", "1.2"], path=path, progress=False)
    expected = torch.stack([brute.along(head, receivers) for head in ((0, 1), (1, 2))])
    torch.testing.assert_close(found.total, expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "falcon-sequential"])
def test_a_receiver_in_a_later_layer_does_not_read_the_effect_on_an_earlier_receiver(booted, name):
    """In these models each head has its own values, so hooks on `hook_v` give expected effects for two layers."""
    model, tokens, _, cache = booted(name)
    brute, read = Brute(model, tokens, cache), {1: [], 2: []}
    for layer, into in read.items():
        brute.run(*brute.frozen((0, 1), layer), (f"{layer}.attn.hook_v", recorded(into)))
    put = [(f"{layer}.attn.hook_v", changed(read[layer][0], 4, head)) for layer, head in ((1, 3), (2, 0))]
    found = residscope.ablate(cache, ANSWERS, heads="0.1", path=["L2H0.v", "L1H3.v"], progress=False)
    torch.testing.assert_close(found.total[0], brute.run(*put) - brute.run(), atol=1e-5, rtol=1e-3)
    assert found.path == "L1H3.v and L2H0.v"
    later = residscope.ablate(cache, ANSWERS, heads="1.1", path=["L2H0.v", "L1H3.v"], progress=False)
    alone = residscope.ablate(cache, ANSWERS, heads="1.1", path="L2H0.v", progress=False)
    torch.testing.assert_close(later.total, alone.total)


def test_a_shared_key_is_changed_only_as_the_named_head_reads_it(booted):
    _, _, _, cache = booted("llama")
    options = {"heads": ["0.1", "1.0"], "progress": False}
    alone = [residscope.ablate(cache, ANSWERS, path=f"L2H{head}.k", **options) for head in (0, 1)]
    assert "L2H0 shares its key with L2H1" in " ".join(alone[0].notes)
    both = residscope.ablate(cache, ANSWERS, path=["L2H0.k", "L2H1.k"], **options)
    assert not any("shares" in note for note in both.notes)
    assert not torch.allclose(alone[0].total, alone[1].total)


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "cohere", "gemma4_text", "falcon_h1"])
def test_the_path_to_the_logits_is_a_run_in_which_later_layers_are_frozen(booted, name):
    model, tokens, _, cache = booted(name)
    brute = Brute(model, tokens, cache)
    found = residscope.ablate(cache, ANSWERS, path="logits", progress=False)
    for layer, head in ((0, 1), (1, 3), (2, 2)):
        expected = brute.run(*brute.frozen((layer, head), 3)) - brute.run()
        torch.testing.assert_close(found.total[layer, head], expected, atol=1e-5, rtol=1e-3)
    frozen = residscope.ablate(cache, ANSWERS, path="logits", norm="frozen", progress=False)
    torch.testing.assert_close(frozen.total, residscope.ablate(cache, ANSWERS, progress=False).direct)
    if name == "gemma4_text":  # its per-layer embeddings are added after its last MLP
        return
    last = residscope.ablate(cache, ANSWERS, of="mlp_out", layers=-1, path="logits", positions="last", progress=False)
    whole = residscope.ablate(cache, ANSWERS, of="mlp_out", layers=-1, positions="last", progress=False)
    torch.testing.assert_close(last.total, whole.total, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_paths_may_begin_at_sublayers_and_sets_of_components(booted, name):
    model, tokens, _, cache = booted(name)
    brute = Brute(model, tokens, cache)
    found = residscope.ablate(cache, ANSWERS, of="mlp_out", path="L2H1.v", progress=False)
    assert found.labels == ["0_mlp_out", "1_mlp_out"]
    read, z = [], []
    mlp, attention = "hook_mlp_out", "attn.hook_z"
    hooks = [(f"0.{mlp}", lambda x, hook: x * 0), (f"1.{mlp}", kept(cache[f"blocks.1.{mlp}"]))]  # noqa: ARG005
    brute.run(*hooks, (f"1.{attention}", kept(cache[f"blocks.1.{attention}"])), ("2.attn.hook_v", recorded(read)))
    brute.run(("2.attn.hook_v", kept(read[0])), (f"2.{attention}", recorded(z)))
    expected = brute.run((f"2.{attention}", changed(z[0], 4, 1))) - brute.run()
    torch.testing.assert_close(found.total[0], expected, atol=1e-5, rtol=1e-3)
    options = {"heads": ["0.1", "0.2", "1.3"], "path": "L2H1.v", "progress": False}
    both = residscope.ablate(cache, ANSWERS, together=True, **options)
    assert both.total.shape == (3,)
    each = residscope.ablate(cache, ANSWERS, **options)
    assert not torch.allclose(both.total, each.total[0])
    single = residscope.ablate(cache, ANSWERS, heads="0.1", path="L2H1.v", together=True, progress=False)
    torch.testing.assert_close(single.total, each.total[0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_prompt_has_the_paths_of_the_prompt_alone(booted, side):
    model, tokens, _, _ = booted("llama")
    padded, mask = torch.zeros(3, 7, dtype=torch.long), torch.zeros(3, 7, dtype=torch.long)
    for row, count in enumerate((7, 5, 4)):
        part = slice(7 - count, 7) if side == "left" else slice(0, count)
        padded[row, part], mask[row, part] = tokens[row, :count], 1
    with torch.no_grad():
        _, cache = model.run_with_cache(padded, attention_mask=mask)
    found = residscope.ablate(cache, ANSWERS, path="L2H1.k", attention_mask=mask, progress=False)
    for row, count in enumerate((7, 5, 4)):
        with torch.no_grad():
            _, alone = model.run_with_cache(tokens[row : row + 1, :count])
        expected = residscope.ablate(alone, ANSWERS[row : row + 1], path="L2H1.k", progress=False).total[:2, ..., 0]
        torch.testing.assert_close(found.total[:2, ..., row], expected, atol=2e-5, rtol=1e-3)


def test_with_hooks_of_the_user_paths_are_measured_in_whole_runs():
    model = tiny.boot("llama")
    model.add_hook("blocks.1.hook_mlp_out", lambda x, hook: x * 1.1)  # noqa: ARG005
    tokens, _, cache = tiny.run(model)
    expected = Brute(model, tokens, cache).along((0, 2), [(2, 1, "q")])
    found = residscope.ablate(cache, ANSWERS, heads="0.2", path="L2H1.q", progress=False)
    torch.testing.assert_close(found.total[0], expected, atol=1e-5, rtol=1e-3)
    assert "whole model" in " ".join(found.notes)


@pytest.mark.parametrize(("options", "words"), [
    ({"path": "L2H1"}, "is not known: write a head and what it reads"),
    ({"path": 3}, "is not known"),
    ({"path": []}, "names nothing"),
    ({"path": "L2H9.q"}, "has no head|no head 9"),
    ({"path": ["L2H1.q", "2.1.q"]}, "names L2H1.q twice"),
    ({"path": ["logits", "L2H1.q"]}, "\"logits\" in a list with other entries"),
    ({"path": "L2H1.q", "heads": ["2.0"]}, "no path from L2H0 to L2H1.q"),
    ({"path": "L0H1.q"}, "no path from L0H0 to L0H1.q"),
    ({"path": "L2H1.q", "norm": "frozen"}, "no meaning"),
])  # fmt: skip
def test_paths_that_do_not_exist_are_refused_in_a_sentence(booted, options, words):
    with pytest.raises(ResidscopeError, match=words):
        residscope.ablate(booted("llama")[3], ANSWERS, progress=False, **options)


def test_a_path_cannot_begin_at_the_stream(booted):
    _, _, _, cache = booted("llama")
    with pytest.raises(ResidscopeError, match="begins at heads or sublayers"):
        residscope.patch(cache, cache, ANSWERS, at="resid_pre", path="L2H1.q", progress=False)


@pytest.mark.parametrize("name", ["llama", "gemma2", "bloom"])
def test_in_bfloat16_paths_and_edges_are_those_of_float32_up_to_its_rounding(booted, name):
    _, tokens, _, cache = booted(name)
    with torch.no_grad():
        coarse = tiny.boot(name).to(torch.bfloat16).run_with_cache(tokens)[1]
    for options in (
        *({"path": f"L2H1.{part}"} for part in "qkv"),
        {"path": "logits"},
        {"heads": ["L1H2"], "edges": ("last", "each")},
    ):
        exact, rounded = (residscope.ablate(one, ANSWERS, progress=False, **options) for one in (cache, coarse))
        there = ~exact.total.isnan()
        assert torch.equal(there, ~rounded.total.isnan())
        error = (rounded.total - exact.total)[there].abs().max()
        assert error < 3 * torch.finfo(torch.bfloat16).eps * exact.before.abs().max(), (options, error)
