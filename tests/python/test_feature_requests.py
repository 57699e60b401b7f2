"""The tab "features": its requests, the SAEs that are found, and what is refused. Expected: computed in float64."""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from unittest import mock

import numpy as np
import pytest
import torch

import residscope
from residscope import ResidscopeError
from residscope.export.snapshot import snapshot
from residscope.export.view_requests import Views
from residscope.serving import answer_features
from residscope.serving.service import Service
from residscope.session.saes import named
from residscope.wire.caches import Describe
from residscope.wire.decompositions import Attribute
from residscope.wire.features import ChooseFeature, ReadFeatures, ReadFeatureTokens
from residscope.wire.shown import Shown, WriteCode
from tests.support import saes, tiny
from tests.support.brute import Brute, logit_scale
from tests.support.rows import labels_of

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
MLP, STREAM = "blocks.1.hook_mlp_out", "blocks.1.hook_resid_pre"


@pytest.fixture(scope="module")
def run():
    """A model, and logits and cache of three prompts of seven tokens."""
    model = tiny.boot("llama")
    return model, *tiny.run(model)


def made(site: str = MLP, kind=saes.TopK, **cfg):
    return kind(24, hook_name=site, **cfg)


def ask(service, request):
    reply, buffers = service.reply(request)
    return reply, [np.frombuffer(buffer, np.float32) for buffer in buffers]


def served(run, sae, answers=ANSWERS):
    service = Service(run[3], saes=named(sae))
    return service, service.targets().resolve(answers)


@pytest.mark.parametrize("prompt", [None, 1])
@pytest.mark.parametrize("site", [MLP, STREAM])
def test_the_rows_are_activation_times_direction_and_sum_to_the_row_of_layers(run, site, prompt):
    model, _, logits, cache = run
    sae = made(site, neuronpedia_id="tiny/1-test")
    service, target = served(run, sae)
    reply, (values, activations) = ask(service, ReadFeatures(target, prompt, 4, k=3))
    truth = Brute(model, cache, ANSWERS, 4, logit_scale(logits, cache))
    x = cache[site][:, 4]
    with torch.no_grad():
        encoded, decoded = sae.encode(x), sae.decode(sae.encode(x))
    which = slice(None) if prompt is None else slice(prompt, prompt + 1)

    def expected(vector: torch.Tensor) -> float:
        return float(truth.contribution(vector)[which].mean())

    labels = labels_of(reply)
    assert labels[:2] == ["error", "b_dec"]
    assert values[0] == pytest.approx(expected(x - decoded), abs=1e-5)
    assert values[1] == pytest.approx(expected(sae.b_dec.detach().expand(3, -1)), abs=1e-5)
    every = {f: expected(encoded[:, f, None] * sae.W_dec[f].detach()) for f in range(saes.FEATURES)}
    strongest = sorted(every, key=lambda f: -abs(every[f]))[:3]
    assert labels[2:] == [f"F{f}" for f in strongest]
    for at, f in enumerate(strongest, 2):
        assert values[at] == pytest.approx(every[f], abs=1e-5)
        assert activations[at] == pytest.approx(float(encoded[which, f].mean()), abs=1e-5)
        assert reply.links[at] == f"https://www.neuronpedia.org/tiny/1-test/{f}"
    assert np.isnan(activations[:2]).all()
    assert reply.links[:2] == ["", ""]
    assert reply.active == int((encoded[which] != 0).any(0).sum())
    assert reply.others == pytest.approx(sum(v for f, v in every.items() if f not in strongest), abs=1e-5)
    assert reply.total == pytest.approx(expected(x), abs=1e-5)
    assert reply.worst is not None
    assert reply.worst < 1e-5 < reply.tolerance

    layers, (rows, *_) = ask(service, Attribute("layer", target, prompt, 4))
    names = labels_of(layers)
    before = ["1_mlp_out"] if site == MLP else names[: names.index("1_attn_out")]
    assert reply.measured == pytest.approx(sum(rows[names.index(name)] for name in before), abs=1e-6)
    assert reply.row.components()[0].label == ("1_mlp_out" if site == MLP else "1_pre")


def test_a_feature_has_its_activation_at_each_token_and_none_at_padding(run):
    _, _, _, cache = run
    sae = made()
    with torch.no_grad():
        encoded = sae.encode(cache[MLP])
    feature = int((encoded[1] != 0).sum(0).argmax())
    mask = torch.ones(3, 7)
    mask[1, 5:] = 0
    mask[:, 6] = 0
    service = Service(cache, attention_mask=mask, saes={"mine": sae})
    reply, [values] = ask(service, ReadFeatureTokens(feature, 1))
    assert (reply.sae, reply.site, reply.feature) == ("mine", MLP, feature)
    np.testing.assert_allclose(values[:5], encoded[1, :5, feature].numpy(), atol=1e-6)
    assert np.isnan(values[5:]).all()
    mean = ask(service, ReadFeatureTokens(feature, None, "mine"))[1][0]
    np.testing.assert_allclose(mean[:5], encoded[:, :5, feature].mean(0).numpy(), atol=1e-6)
    assert mean[5] == pytest.approx(float(encoded[[0, 2], 5, feature].mean()), abs=1e-6)
    assert np.isnan(mean[6])


@pytest.mark.parametrize(
    ("prompt", "most", "said"),
    [
        (None, 20, r"^3 prompts of 7 positions are too many .*\(at most 20 positions\): show one prompt, or use"),
        (None, 6, r"^3 prompts of 7 positions are too many .*\(at most 6 positions\): use"),
        (1, 6, r"^7 positions are too many .*\(at most 6 positions\): use"),
    ],
)
def test_a_refusal_counts_the_prompts_that_were_requested(run, prompt, most, said, monkeypatch):
    monkeypatch.setattr(answer_features, "MOST_POSITIONS", most)
    service, _ = served(run, made())
    with pytest.raises(ResidscopeError, match=said):
        service.reply(ReadFeatureTokens(3, prompt))


def test_the_input_of_a_feature_is_a_target(run):
    _, _, _, cache = run
    sae = made(STREAM)
    service, _ = served(run, sae)
    reply, _ = ask(service, ChooseFeature(7))
    assert reply.target.inner.feature.index == 7
    rows, [values] = ask(service, Attribute("head", reply.target, 0, 3))
    with torch.no_grad():
        expected = float(sae.before(cache[STREAM][0, 3])[7])
    assert float(np.nansum(values)) + rows.constant == pytest.approx(expected, abs=1e-5)
    assert rows.measured == pytest.approx(expected, abs=1e-5)


class Nan(saes.Sae):
    def encode(self, x):
        return super().encode(x) * float("nan")


class Raising(saes.Sae):
    def encode(self, _x):
        raise ValueError("no such thing")


class Together(saes.Sae):
    """A BatchTopK SAE in training: whether a feature is active depends on the other vectors."""

    def encode(self, x):
        before = super().encode(x)
        return before * (before >= before.flatten().topk(before.numel() // 12).values[-1])


class Elsewhere(saes.Sae):
    """An SAE that only accepts tensors of another device."""

    def encode(self, _x):
        raise RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu")


@pytest.mark.parametrize(
    ("sae", "words"),
    [
        (Nan(24, hook_name=MLP), "gives NaN or infinity"),
        (Raising(24, hook_name=MLP), "`encode` raises ValueError: no such thing"),
        (Elsewhere(24, hook_name=MLP), "on the same device"),
        (Together(24, hook_name=MLP), "when other vectors are encoded with it"),
        (saes.Sae(23, hook_name=MLP), "24 wide"),
        (saes.Sae(24, hook_name="blocks.9.hook_mlp_out"), "only 3 layers"),
        (saes.Sae(24), "no `hook_name`"),
        (saes.Sae(24, hook_name=MLP).to("meta"), "meta"),
    ],
)
def test_a_bad_sae_is_refused_in_a_sentence_and_the_others_are_shown(run, sae, words):
    service, target = served(run, [sae, made()])
    for request in (ReadFeatures(target, 0), ReadFeatureTokens(3, 0)):
        with pytest.raises(ResidscopeError, match=words):
            service.reply(request)
    assert ask(service, ReadFeatures(target, 0, sae="sae 2"))[0].sae == "sae 2"
    assert [sae.name for sae in service.reply(Describe())[0].saes] == ["sae", "sae 2"]


def test_a_feature_or_an_sae_that_is_not_there_is_refused(run):
    service, target = served(run, made())
    with pytest.raises(ResidscopeError, match="no feature 60: it has 60"):
        service.reply(ReadFeatureTokens(60, 0))
    with pytest.raises(ResidscopeError, match="no SAE `gone` any more"):
        service.reply(ReadFeatures(target, 0, sae="gone"))
    with pytest.raises(ResidscopeError, match="No SAE or transcoder is known"):
        Service(run[3]).reply(ReadFeatures(target, 0))
    score = service.targets().resolve(residscope.targets.attention("L2H1", destination=4, source=2))
    through = service.targets().resolve(residscope.targets.output("L2H1", of=5, source=2))
    for other in (score, through):  # a feature at the view's position would not be what is read there
        with pytest.raises(ResidscopeError, match="features"):
            service.reply(ReadFeatures(other, 0))
    with pytest.raises(ResidscopeError, match="sae"):
        residscope.attribute(run[3], 5, by="feature", sae=(made(), f"blocks.{'1' * 5000}.hook_mlp_out"))


# --- the namespace ---------------------------------------------------------------------------------------------------
@dataclass
class Config:
    hook_name: str
    metadata: dict = field(default_factory=dict)


class Plain:
    """An SAE that is not a module. Ordinary access to its `cfg`, `W_dec`, `encode` or `decode` raises."""

    def __init__(self, site: str, width: int = 24) -> None:
        self.cfg = Config(site)
        self.W_dec = torch.zeros(5, width)

    def __getattribute__(self, name):
        if name in ("cfg", "W_dec", "encode", "decode"):
            raise AssertionError("the search read an attribute of the user's object")
        return super().__getattribute__(name)

    def encode(self, _x):
        raise AssertionError

    def decode(self, _x):
        raise AssertionError


def in_namespace(variables):
    shell = types.SimpleNamespace(user_ns=variables)
    return mock.patch("IPython.core.getipython.get_ipython", return_value=shell)


def test_saes_in_the_namespace_are_found_without_running_their_code(run):
    class Tokenizer:
        def encode(self, _x):
            raise AssertionError

        def decode(self, _x):
            raise AssertionError

    nested = saes.Sae(24)
    nested.cfg = {"metadata": {"hook_name": "blocks.2.hook_resid_post"}}
    variables = {
        "module": made(),
        "plain": Plain(STREAM),
        "nested": nested,
        "pair": (saes.Sae(24), MLP),
        "tokenizer": Tokenizer(),
        "narrow": saes.Sae(23, hook_name=MLP),
        "deep": saes.Sae(24, hook_name="blocks.9.hook_mlp_out"),
        "pattern": saes.Sae(24, hook_name="blocks.1.attn.hook_pattern"),
        "unnamed": saes.Sae(24),
        "cls": saes.Sae,
        "text": "encode",
        "_": made(),
    }
    with in_namespace(variables):
        facts = Service(run[3]).reply(Describe())[0]
        assert {sae.name: sae.site for sae in facts.saes} == {
            "module": MLP,
            "plain": STREAM,
            "nested": "blocks.2.hook_resid_post",
            "pair": MLP,
        }
        given = Service(run[3], saes=named(variables["module"]))
        assert [sae.name for sae in given.reply(Describe())[0].saes] == ["module", "plain", "nested", "pair"]


def test_the_number_of_saes_in_the_namespace_is_limited(run):
    with in_namespace({f"sae_{i}": made() for i in range(50)}):
        assert len(Service(run[3]).reply(Describe())[0].saes) == 20


def scaled(sae, _variables):
    with torch.no_grad():
        sae.W_dec.mul_(2)


def uncounted(sae, _variables):
    sae.W_dec.data.mul_(2)


def replaced(_sae, variables):
    variables["sae"] = made(kind=saes.Sae)


def biased(sae, _variables):
    sae.cfg.apply_b_dec_to_input = False


def thrown_away(sae, _variables):
    sae.W_dec = torch.nn.Parameter(sae.W_dec.detach().clone())


@pytest.mark.parametrize("change", [scaled, uncounted, replaced, biased, thrown_away])
@pytest.mark.parametrize("form", [lambda sae: sae, lambda sae: (sae, MLP)], ids=["sae", "pair"])
def test_the_state_of_an_sae_differs_after_each_change_and_only_then(run, change, form):
    sae, variables = made(kind=saes.Sae), {}
    variables["sae"] = form(sae)
    with in_namespace(variables):
        service, target = served(run, None)
        before = service.reply(Describe())[0].saes, service.settled()
        ask(service, ReadFeatures(target, 0, state=before[0][0].state))
        ask(service, ReadFeatureTokens(3, 0))
        assert (service.reply(Describe())[0].saes, service.settled()) == before
        change(sae, variables)
        after = service.reply(Describe())[0].saes, service.settled()
        assert [one.site for one in after[0]] == [MLP]
        assert after[0][0].state != before[0][0].state
        assert after[1] != before[1]
        assert (service.reply(Describe())[0].saes, service.settled()) == after


def test_an_sae_that_a_running_cell_trains_is_compared_after_the_cell(run, monkeypatch):
    sae = made()
    with in_namespace({"sae": sae}):
        service = Service(run[3])
        before = service.reply(Describe())[0].saes
        with monkeypatch.context() as running:
            running.setattr("residscope.serving.known_saes.is_cell_on_other_thread", lambda: True)
            scaled(sae, {})
            assert service.reply(Describe())[0].saes == before
        assert service.reply(Describe())[0].saes != before


def test_states_of_saes_that_are_not_modules_or_cannot_be_tracked(run):
    class Slotted:
        __slots__ = ("W_dec", "cfg")
        encode = decode = lambda _self, x: x

        def __init__(self):
            self.cfg, self.W_dec = Config(MLP), torch.zeros(5, 24)

    plain, slotted = Plain(STREAM), Slotted()
    with in_namespace({"plain": plain, "slotted": slotted}):
        service = Service(run[3])

        def states():
            return [one.state for one in service.reply(Describe())[0].saes]

        before = states()
        assert before[1] == ""
        vars(object.__getattribute__(plain, "__dict__")["cfg"])["k"] = 5
        slotted.W_dec.add_(1)
        assert (states()[0] != before[0], states()[1]) == (True, "")


# --- the panel, and exports -----------------------------------------------------------------------------------------
def test_the_panel_takes_one_or_several_saes_and_shows_one_of_them(run):
    one, other = made(), made(STREAM)
    with in_namespace({}):
        panel = residscope.inspect(run[3], ANSWERS, sae={"mlp": one, "stream": other}, show=False)
        assert [sae["name"] for sae in panel.facts["saes"]] == ["mlp", "stream"]
        panel.sae = other
        assert panel.sae == "stream"
        panel.feature = 3
        assert (panel.shown.sae, panel.shown.feature) == ("stream", 3)
        with pytest.raises(ResidscopeError, match="not one of the SAEs"):
            panel.sae = made()
        panel.cache = run[3]
        assert (panel.sae, panel.feature) == ("stream", 3)
        panel.close()
    with in_namespace({"found": one}):
        panel = residscope.inspect(run[3], ANSWERS, show=False)
        panel.sae = one
        with in_namespace({}), pytest.raises(ResidscopeError, match=r"so nothing changed.*not one of the SAEs"):
            panel.cache = run[3]
        assert panel.sae == "found"
        panel.close()
    with in_namespace({}):
        for bad in ("sae", [one, None], {"": one}):
            with pytest.raises(ResidscopeError):
                residscope.inspect(run[3], ANSWERS, sae=bad, show=False)


def test_an_sae_that_is_made_later_is_described(run):
    variables = {}
    with in_namespace(variables):
        panel = residscope.inspect(run[3], ANSWERS, show=False)
        assert panel.facts["saes"] == []
        variables["later"] = made()
        assert [sae["name"] for sae in panel.facts["saes"]] == ["later"]
        panel.close()


def test_the_code_computes_what_is_shown(run):
    sae = made()
    variables = {"cache": run[3], "my_sae": sae}
    with in_namespace(variables):
        service = Service(run[3])
        target = service.targets().resolve(ANSWERS)
        code = service.reply(WriteCode("features", Shown(target, 1, 4, tab="features")))[0].code
        assert 'by="feature",\n    sae=my_sae,' in code
        exec(code.replace("figure", "_"), found := dict(variables))
        reply, (values, _) = ask(service, ReadFeatures(target, 1, 4))
        result = found["attribution"]
        for label, value in zip(labels_of(reply), values, strict=True):
            assert float(found["values"][result.labels.index(label)]) == pytest.approx(float(value), abs=1e-6)

        variables["stream"] = made(STREAM)
        inner = service.reply(ChooseFeature(2, "stream"))[0].target
        code = service.reply(WriteCode("heads", Shown(inner, 1, 4)))[0].code
        assert "residscope.targets.feature(stream, 2)" in code
        variables["other"] = made(STREAM)  # another SAE of the same class, which reads the same activation
        with torch.no_grad():
            variables["other"].W_enc.neg_()
        other = service.reply(ChooseFeature(2, "other"))[0].target
        for target, name in ((other, "other"), (inner, "stream")):
            assert f"feature({name}, 2)" in service.reply(WriteCode("heads", Shown(target, 1, 4)))[0].code
        exec(code.replace("figure", "_"), found := dict(variables))
        reply, [rows, *_] = ask(service, Attribute("head", inner, 1, 4))
        heads = [value for label, value in zip(labels_of(reply), rows, strict=True) if label.startswith("L")]
        np.testing.assert_allclose(found["values"].flatten(), heads, atol=1e-6)


def test_a_saved_page_has_the_rows_and_the_activations_that_are_shown(run):
    service, target = served(run, made())
    with in_namespace({}):
        shown = Shown(target, 1, tab="features", feature=3)
        page = snapshot(service.reply, "cache", shown, "view")
    asks = [Views(shown, service.reply(Describe())[0]).features(), *[entry.ask for entry in page.entries]]
    assert {ask["state"] for ask in asks[1:] if "feature" in ask["kind"]} == {ask.state for ask in asks[0]}
    kinds = [entry.ask["kind"] for entry in page.entries if entry.reply]
    assert "features" in kinds
    assert "feature-tokens" in kinds
    assert not [entry.failure for entry in page.entries if entry.failure]
