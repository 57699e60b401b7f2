"""Features of SAEs and transcoders as rows. Expected: values in float64, by the SAE's own `encode` and `decode`."""

from __future__ import annotations

import threading

import pytest
import torch

import residscope
from residscope import ResidscopeError, targets
from tests.support import saes, tiny
from tests.support.brute import Brute, logit_scale

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
SITES = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")
FAMILIES = ("gpt2", "llama", "gemma2", "granite", "gptj", "olmo2", "mixtral", "native")


def made(kind, cache, name: str, **cfg):
    """Return an SAE of this class for an activation of this cache."""
    return kind(cache[name].flatten(2).shape[-1], hook_name=name, **cfg)


def its_row(result, layers, site: str, layer: int) -> torch.Tensor:
    """Return the sum of the rows of `by="layer"` that the rows of the SAE replace."""
    labels = layers.labels
    if not site.startswith("hook_resid"):
        label = f"{layer}_{'mlp' if 'mlp' in site else 'attn'}_out"
        return layers.values[labels.index(label)]
    kept = [label for label in labels if label in result.labels]
    return layers.values.sum(0) - sum(layers.values[labels.index(label)] for label in kept)


def of_sae(result) -> torch.Tensor:
    """Return the sum of the SAE's rows and of rows for attention biases."""
    last = result.labels.index("b_dec") + 1 + ("skip" in result.labels)
    return result.values[:last].sum(0) + sum(
        value for label, value in zip(result.labels, result.values, strict=True) if label.endswith("attn_bias")
    )


@pytest.mark.parametrize("kind", saes.EVERY)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", FAMILIES)
def test_features_error_and_bias_sum_to_the_row_of_the_site(booted, name, site, kind):
    _, _, logits, cache = booted(name)
    at = f"blocks.1.{site}"
    if at not in cache:
        with pytest.raises(ResidscopeError, match=site):
            residscope.attribute(cache, ANSWERS, by="feature", sae=saes.Sae(24, hook_name=at))
        return
    sae = made(kind, cache, at)
    for position in ("last", [2, 6, 4], "all"):
        options = {"position": position, "logits": logits}
        result = residscope.attribute(cache, ANSWERS, by="feature", sae=sae, **options)
        layers = residscope.attribute(cache, ANSWERS, by="layer", **options)
        torch.testing.assert_close(of_sae(result), its_row(result, layers, site, 1), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            result.values.sum(0) + result.constant + result.unexplained, result.measured, atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(result.measured, layers.measured)
        assert result.unexplained.abs().max() <= max(result.tolerance, float(layers.unexplained.abs().max()) + 1e-5)
        assert result.labels[0] == "error"
        assert all(component.is_whole for component in result.components)
        for label in set(layers.labels) & set(result.labels):
            own, other = (one.values[one.labels.index(label)] for one in (result, layers))
            torch.testing.assert_close(own, other, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", saes.EVERY)
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "granite"])
def test_each_feature_is_its_activation_times_its_direction(booted, name, site, kind):
    """Expected: computed in float64 from the SAE's activations, directions and (if it normalises its input) scale."""
    model, _, logits, cache = booted(name)
    at = f"blocks.1.{site}"
    sae = made(kind, cache, at)
    result = residscope.attribute(cache, ANSWERS, by="feature", sae=sae, position=4)
    truth = Brute(model, cache, ANSWERS, 4, logit_scale(logits, cache))

    def contribution(vector: torch.Tensor) -> torch.Tensor:
        if site == "attn.hook_z":
            W_O = model.blocks[1].attn.W_O.detach().double().flatten(0, 1)
            vector = truth.written(1, "ln1_post", vector.double() @ W_O)
        return truth.contribution(vector)

    x = cache[at][:, 4].flatten(1)
    with torch.no_grad():
        activations = sae.encode(x)
        reconstruction = sae.decode(activations)
        scale = getattr(sae, "ln_std", torch.ones(()))
        if kind is saes.Normed:
            scale = (x - x.mean(-1, keepdim=True)).std(-1, keepdim=True)
        directions = sae.W_dec / sae.W_dec.norm(dim=-1, keepdim=True) if kind is saes.RescaledTopK else sae.W_dec
    active = activations.any(0).nonzero().flatten().tolist()
    features = [row.index for row in result.components if row.kind == "feature"]
    assert sorted(features) == active
    for feature in features:
        own = result.values[result.labels.index(f"F{feature}")].double()
        expected = contribution(activations[:, feature, None] * scale * directions[feature])
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.values[0].double(), contribution(x - reconstruction), atol=1e-5, rtol=1e-5)
    strength = result.values[1 : 1 + len(features)].abs().sum(1)
    assert bool((strength.diff() <= 1e-6).all())  # the strongest feature comes first


@pytest.mark.parametrize("where", ["mlp.hook_in", "hook_resid_mid", "ln2.hook_normalized"])
@pytest.mark.parametrize("kind", [saes.Sae, saes.Skipping])
def test_a_transcoder_has_its_skip_connection_as_a_row(booted, kind, where):
    model, _, _, cache = booted("llama")
    read, written = f"blocks.1.{where}", "blocks.1.hook_mlp_out"
    if read not in cache:
        pytest.skip("this version of TransformerLens has no such hook")
    sae = kind(24, 24, hook_name=read, hook_name_out=written, apply_b_dec_to_input=False)
    result = residscope.attribute(cache, ANSWERS, by="feature", sae=sae, position="all")
    layers = residscope.attribute(cache, ANSWERS, by="layer", position="all")
    assert ("skip" in result.labels) is (kind is saes.Skipping)
    torch.testing.assert_close(of_sae(result), its_row(result, layers, "hook_mlp_out", 1), atol=1e-5, rtol=1e-5)
    given = residscope.attribute(cache, ANSWERS, by="feature", sae=(sae, read, written), position="all")
    torch.testing.assert_close(result.values, given.values)
    if kind is saes.Skipping:
        x = cache[read]
        with torch.no_grad():
            added = sae(x) - sae.decode(sae.encode(x))
        expected = Brute(model, cache, ANSWERS, 4).contribution(added[:, 4])
        skip = result.values[result.labels.index("skip"), :, 4]
        torch.testing.assert_close(skip.double(), expected, atol=1e-5, rtol=1e-5)


def test_heads_of_z_may_be_split_by_the_sae(booted):
    _, _, _, cache = booted("llama")
    name = "blocks.1.attn.hook_z"
    whole, split = (residscope.attribute(cache, ANSWERS, by="feature", sae=made(kind, cache, name))
                    for kind in (saes.Sae, saes.Split))  # fmt: skip
    torch.testing.assert_close(whole.values, split.values)
    assert whole.labels == split.labels


@pytest.mark.parametrize("side", ["left", "right"])
def test_with_padding_each_prompt_has_its_own_last_token(side):
    model = tiny.boot("gpt2")
    tokens = torch.tensor([[5, 6, 7, 5, 6], [9, 10, 9, 3, 4]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    if side == "left":
        tokens, mask = torch.stack([tokens[0], tokens[1].roll(2)]), mask.flip(1)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens, attention_mask=mask)
    sae = made(saes.TopK, cache, "blocks.1.hook_mlp_out")
    result = residscope.attribute(cache, (5, 6), by="feature", sae=sae, attention_mask=mask)
    last = [4, 4 if side == "left" else 2]
    own = torch.stack([logits[n, p, 5] - logits[n, p, 6] for n, p in enumerate(last)])
    torch.testing.assert_close(result.values.sum(0) + result.constant, own, atol=1e-4, rtol=1e-4)
    x = torch.stack([cache["blocks.1.hook_mlp_out"][n, p] for n, p in enumerate(last)])
    active = sae.encode(x).any(0).nonzero().flatten().tolist()
    assert sorted(row.index for row in result.components if row.kind == "feature") == active


def test_each_position_has_its_own_next_token(booted):
    _, tokens, _, cache = booted("llama")
    sae = made(saes.JumpReLU, cache, "blocks.1.hook_resid_pre")
    every = residscope.attribute(cache, targets.next_token(), by="feature", sae=sae, position="all")
    for at in (0, 3):
        one = residscope.attribute(cache, [int(t) for t in tokens[:, at + 1]], by="feature", sae=sae, position=at)
        for label, value in zip(one.labels, one.values, strict=True):
            found = every.values[every.labels.index(label), :, at]
            torch.testing.assert_close(found, value, atol=1e-5, rtol=1e-5)


def test_at_another_position_a_neuron_is_explained_by_other_features(booted):
    """TopK has equally many active features at each position. Expected: the active features, by the SAE's `encode`."""
    _, _, cache = tiny.run(booted("llama")[0], batch=1)
    sae = made(saes.TopK, cache, "blocks.0.hook_mlp_out")
    for position in (2, 3, 4, 5):
        result = residscope.attribute(cache, targets.neuron("L1N7"), by="feature", sae=sae, position=position)
        with torch.no_grad():
            active = sae.encode(cache["blocks.0.hook_mlp_out"][0, position]).nonzero().flatten().tolist()
        assert sorted(row.index for row in result.components if row.kind == "feature") == active


@pytest.mark.parametrize("part", ["pre", "up"])
def test_a_neuron_is_explained_by_features_before_it(booted, part):
    _, _, _, cache = booted("llama")
    for site in SITES:
        sae = made(saes.Sae, cache, f"blocks.1.{site}")
        result = residscope.attribute(cache, targets.neuron("L2N7", part), by="feature", sae=sae)
        torch.testing.assert_close(result.values.sum(0) + result.constant, result.measured, atol=1e-5, rtol=1e-5)
        assert result.unexplained.abs().max() <= result.tolerance
    later = made(saes.Sae, cache, "blocks.1.hook_mlp_out")
    with pytest.raises(ResidscopeError, match="comes after the point `1_mid`"):
        residscope.attribute(cache, targets.neuron("L1N7"), by="feature", sae=later)
    for site in ("hook_resid_mid", "hook_attn_out"):  # sites at the point of the neuron's input
        sae = made(saes.Sae, cache, f"blocks.1.{site}")
        result = residscope.attribute(cache, targets.neuron("L1N7"), by="feature", sae=sae)
        torch.testing.assert_close(result.values.sum(0) + result.constant, result.measured, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_cache_and_sae_of_different_precision(booted, kind):
    model, _, _, cache = booted("llama")
    other = {name: cache[name].to(kind) if cache[name].is_floating_point() else cache[name] for name in cache}
    sae = made(saes.Sae, cache, "blocks.1.hook_mlp_out")
    result = residscope.attribute(other, ANSWERS, by="feature", sae=sae, model=cache.model)
    assert result.values.dtype == (torch.float64 if kind == torch.float64 else torch.float32)
    assert result.unexplained.abs().max() <= result.tolerance
    assert sae.W_dec.dtype == torch.float32
    # An SAE of low precision decodes coarsely. What its rounding leaves unexplained is within the tolerance.
    coarse = made(saes.Sae, cache, "blocks.1.hook_mlp_out").to(torch.bfloat16)
    found = residscope.attribute(cache, ANSWERS, by="feature", sae=coarse)
    assert found.unexplained.abs().max() <= found.tolerance < 0.1
    assert any("the SAE's own `decode` rounds (bfloat16)" in note for note in found.notes)
    assert not any("`decode` rounds" in note for note in result.notes)
    x = cache["blocks.1.hook_mlp_out"][:, -1]
    with torch.no_grad():
        error = x - coarse.decode(coarse.encode(x.to(torch.bfloat16))).float()
    expected = Brute(model, cache, ANSWERS, -1).contribution(error)
    torch.testing.assert_close(found.values[0].double(), expected, atol=1e-5, rtol=1e-5)


def test_the_sae_and_the_settings_are_not_changed(booted):
    _, _, _, cache = booted("llama")
    sae = made(saes.Normed, cache, "blocks.1.hook_mlp_out")
    with torch.no_grad():
        sae.encode(cache["blocks.1.hook_mlp_out"])  # the user has encoded, and wants to decode later
    before = dict(vars(sae))
    weights = {name: (value.clone(), value._version) for name, value in sae.named_parameters()}
    state = torch.get_rng_state()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            result = residscope.attribute(cache, ANSWERS, by="feature", sae=sae)
            assert torch.is_grad_enabled() is grad
            assert not result.values.requires_grad
    assert vars(sae).keys() == before.keys()
    assert all(vars(sae)[name] is value for name, value in before.items())
    assert sae.training
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in sae.named_parameters():
        assert torch.equal(value, weights[name][0])
        assert value._version == weights[name][1]
        assert value.grad is None
    sae.decode(torch.zeros(3, 7, saes.FEATURES))


class Counting(saes.Sae):
    """Counts its calls in an attribute, in a buffer, and in a function that refers to the SAE."""

    seen: torch.Tensor

    def __init__(self, *sizes, **cfg):
        super().__init__(*sizes, **cfg)
        self.calls = self.counted = self.trained = 0
        self.register_buffer("seen", torch.zeros(2))
        self.inner = torch.nn.BatchNorm1d(3)

        def count(by, *, sae=self):
            self.counted += by
            sae.counted += by

        self.count = count

    def encode(self, x):
        self.calls += 1
        self.seen[0] += 1
        self.inner(torch.ones(2, 3))
        self.count(1)
        cell = threading.Thread(target=train, args=[self.user])
        cell.start()
        cell.join()
        return super().encode(x)


def train(users):
    """What a cell of the user does in another thread while the SAE encodes."""
    sae = users[0]
    sae.trained += 1
    sae.seen[1] += 1
    sae.later = "kept"
    sae.inner.eval()


def test_nothing_that_a_cell_changes_meanwhile_is_set_back(booted):
    _, _, _, cache = booted("llama")
    sae = made(Counting, cache, "blocks.1.hook_mlp_out")
    sae.user = [sae]
    mean = sae.inner.running_mean.clone()
    residscope.attribute(cache, ANSWERS, by="feature", sae=sae)
    assert sae.calls == sae.counted == sae.seen[0] == 0
    assert torch.equal(sae.inner.running_mean, mean)
    assert sae.seen[1] == sae.trained > 0
    assert (sae.later, sae.inner.training, sae.training) == ("kept", False, True)


def test_only_the_strongest_of_very_many_features_have_a_row(booted, monkeypatch):
    _, _, _, cache = booted("gpt2")
    sae = made(saes.Sae, cache, "blocks.1.hook_mlp_out")
    whole = residscope.attribute(cache, ANSWERS, by="feature", sae=sae, position="all")
    monkeypatch.setattr("residscope.attribution.features._MOST_VALUES", 21 * 8)
    monkeypatch.setattr("residscope.cache.dictionaries._LARGEST", saes.FEATURES * 4)  # only a few vectors at once
    few = residscope.attribute(cache, ANSWERS, by="feature", sae=sae, position="all")
    assert few.labels[:9] == whole.labels[:9]
    torch.testing.assert_close(few.values[:9], whole.values[:9], atol=1e-6, rtol=1e-5)
    others = whole.values[9 : whole.labels.index("b_dec")].sum(0)
    torch.testing.assert_close(few.values[9], others, atol=1e-5, rtol=1e-5)
    assert few.labels[9] == "other_features"
    assert any("strongest 8 features" in note for note in few.notes)


def test_results_in_every_form(booted):
    _, _, _, cache = booted("gpt2")
    sae = made(saes.TopK, cache, "blocks.1.hook_mlp_out", metadata={"neuronpedia_id": "gpt2-small/1-mlp"})
    result = residscope.attribute(cache, ANSWERS, by="feature", sae=sae)
    assert {label for label, _ in result.top(3)} <= {"error", *(f"F{n}" for n in range(saes.FEATURES))}
    assert list(result.to_frame().index) == result.labels
    assert len(result.to_plotly().data) == 1
    assert len(residscope.attribute(cache, ANSWERS, by="feature", sae=sae, position="all").to_plotly().data) >= 1
    assert result.link("F12") == result.link(12) == "https://www.neuronpedia.org/gpt2-small/1-mlp/12"
    with pytest.raises(ResidscopeError, match="not a feature"):
        result.link("error")
    hostile = made(saes.TopK, cache, "blocks.1.hook_mlp_out", neuronpedia_id="x/../../evil?<b>")
    assert residscope.attribute(cache, ANSWERS, by="feature", sae=hostile).link(1) is None
    named = made(saes.TopK, cache, "blocks.1.hook_mlp_out", model_name="gpt2-xl")
    assert any("was trained on “gpt2-xl”" in note for note in residscope.attribute(
        cache, ANSWERS, by="feature", sae=named).notes)  # fmt: skip


def hostile():
    """Return wrong SAEs, each with a part of the sentence that refuses it."""

    def sae(**changes):
        found = saes.Sae(24, hook_name="blocks.1.hook_mlp_out")
        for name, value in changes.items():
            found.__dict__[name] = value
        return found

    nan, meta, hooked, dropped = sae(), sae(), sae(), saes.Sae(24, hook_name="blocks.1.hook_mlp_out")
    nan.W_dec.data[17, 3] = float("nan")
    meta.to("meta")
    hooked.register_forward_hook(lambda *_: None)
    dropped.drop = torch.nn.Dropout(0.5)
    dropped.encode = lambda x: dropped.drop(saes.Sae.encode(dropped, x))
    together = sae()

    def batch_top_k(x):
        before = saes.Sae.encode(together, x)
        least = before.flatten().topk(before.shape[1] * 5).values[-1]
        return before * (before >= least)

    together.encode = batch_top_k
    squared = sae(decode=lambda acts: acts.pow(2) @ torch.ones(saes.FEATURES, 24))

    def broken(_):
        raise RuntimeError("out of order")

    return {
        "dict": ({"a": sae()}, "was given a dict"),
        "name": ("gpt2-small-res-jb", "was given a name"),
        "class": (saes.Sae, "the class `Sae`"),
        "nothing": (None, "needs an SAE"),
        "pair": ((sae(), {}, None), "give the first"),
        "no encode": (torch.nn.Linear(2, 2), "has no `encode`"),
        "no site": (saes.Sae(24), "no `hook_name`"),
        "strange site": ((sae(), "blocks.1.ln2.hook_scale"), "whose contribution to the stream is not known"),
        "late layer": ((sae(), "blocks.30.hook_mlp_out"), "only 3 layers"),
        "head": (saes.Sae(24, hook_name="blocks.1.attn.hook_z", hook_head_index=2), "of one head"),
        "width": (saes.Sae(32, hook_name="blocks.1.hook_mlp_out"), "is 24 wide"),
        "d_in": (saes.Sae(12, 24, hook_name="blocks.1.hook_mlp_out"), "width 12"),
        "NaN": (nan, "NaN or infinity in feature 17"),
        "meta": (meta, "`meta` device"),
        "hooks": (hooked, "There are hooks on the SAE `Sae` of `blocks.1.hook_mlp_out`"),
        "raises": (sae(encode=broken), "`encode` raises RuntimeError: out of order"),
        "shape": (sae(encode=lambda x: x), "`encode` returns the shape [1, "),
        "tuple": (sae(encode=lambda x: (x, x)), "returns a `tuple`"),
        "wide": (sae(decode=lambda a: a), "`decode` returns the shape"),
        "random": (dropped, "when other vectors are encoded with it"),
        "together": (together, "when other vectors are encoded with it"),
        "squared": (squared, "`decode` is not linear in the features"),
        "no weights": (sae(W_dec=None), "no tensor `W_dec`"),
    }


@pytest.mark.parametrize("what", hostile())
def test_an_object_that_is_not_an_sae_is_refused_in_a_sentence(booted, what):
    _, _, _, cache = booted("gpt2")
    given, words = hostile()[what]
    with pytest.raises(ResidscopeError) as refused:
        residscope.attribute(cache, ANSWERS, by="feature", sae=given)
    assert words in str(refused.value)
    assert refused.value.code == "sae"


def test_options_that_do_not_go_together_are_refused(booted):
    _, _, _, cache = booted("gpt2")
    sae = made(saes.Sae, cache, "blocks.1.hook_mlp_out")
    with pytest.raises(ResidscopeError, match="only for the features"):
        residscope.attribute(cache, ANSWERS, by="head", sae=sae)
    calls = (
        lambda: residscope.attribute(cache, ANSWERS, by="feature"),
        lambda: residscope.attribute_many([cache], ANSWERS, by="feature", progress=False),
        lambda: residscope.compare(cache, cache, answers=ANSWERS, by="feature"),
    )
    for call in calls:
        with pytest.raises(ResidscopeError, match="needs an SAE or a transcoder"):
            call()
    without = {name: cache[name] for name in cache if name != "blocks.1.hook_mlp_out"}
    with pytest.raises(ResidscopeError, match=r"`blocks\.1\.hook_mlp_out` is not in this cache"):
        residscope.attribute(without, ANSWERS, by="feature", sae=sae, model=cache.model)
    spliced = {name: cache[name] for name in cache} | {"blocks.1.hook_mlp_out.hook_sae_output": torch.zeros(3, 7, 24)}
    with pytest.raises(ResidscopeError, match="an SAE was in the place of"):
        residscope.attribute(spliced, ANSWERS, by="feature", sae=sae, model=cache.model)


def test_a_cache_without_earlier_layers_is_enough_for_the_stream_at_a_point(booted):
    _, _, _, cache = booted("llama")
    kept = {n: cache[n] for n in cache if not n.startswith(("blocks.0", "hook_embed", "embed"))}
    sae = made(saes.Sae, cache, "blocks.1.hook_resid_pre")
    whole = residscope.attribute(cache, ANSWERS, by="feature", sae=sae)
    few = residscope.attribute(kept, ANSWERS, by="feature", sae=sae, model=cache.model)
    assert few.labels == whole.labels
    torch.testing.assert_close(few.values, whole.values)
    assert not few.missing
    late = made(saes.Sae, cache, "blocks.1.hook_mlp_out")
    some = {n: cache[n] for n in cache if "blocks.0.hook_mlp_out" not in n and "blocks.0.hook_resid_mid" not in n}
    found = residscope.attribute(some, ANSWERS, by="feature", sae=late, model=cache.model)
    torch.testing.assert_close(found.values.sum(0) + found.constant, found.measured, atol=1e-5, rtol=1e-5)


REFUSED = {  # even by layer
    "deepseek_v4": "`hook_attn_out` and `hook_mlp_out` are not in this cache",
    "hrm_text": "has no `blocks`",
    "opt-projected": "projects the stream in between",
}


@pytest.mark.parametrize("name", sorted(set(tiny.FAMILIES) - {"openai-gpt"}))  # openai-gpt normalises the stream
def test_features_leave_as_much_unexplained_as_layers_in_every_family(booted, name):
    _, _, logits, cache = booted(name)
    if name in REFUSED:
        with pytest.raises(ResidscopeError, match=REFUSED[name]):
            residscope.attribute(cache, ANSWERS, by="layer", position="all", logits=logits)
        return
    layers = residscope.attribute(cache, ANSWERS, by="layer", position="all", logits=logits)
    site = next(s for s in ("hook_mlp_out", "hook_resid_pre") if f"blocks.1.{s}" in cache)
    sae = made(saes.Sae, cache, f"blocks.1.{site}")
    options = {"by": "feature", "sae": sae, "position": "all", "logits": logits}
    if name == "bert":
        with pytest.raises(ResidscopeError, match="are not what is added to the stream"):
            residscope.attribute(cache, ANSWERS, **options)
        return
    result = residscope.attribute(cache, ANSWERS, **options)
    torch.testing.assert_close(result.unexplained, layers.unexplained, atol=2e-5, rtol=1e-4)
    assert "error" in result.labels
