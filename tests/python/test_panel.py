"""The panel without a browser: traits that are set in Python, and replies to the requests of views."""

from __future__ import annotations

import gc
import inspect
import json
import time
import weakref

import msgspec
import numpy as np
import pytest
import torch
import traitlets

import residscope
from residscope import ResidscopeError
from residscope.hosts.panel import Panel
from residscope.serving.service import Service
from residscope.session.cache_reference import CacheReference
from residscope.wire.protocol import Answer
from residscope.wire.shown import Shown, WritePage
from tests.support import tiny
from tests.support.rows import labels_of


@pytest.fixture
def panel(ioi):
    panel = residscope.inspect(ioi.cache, answers=ioi.answers)
    yield panel
    panel.close()


@pytest.fixture
def ask(panel, monkeypatch):
    """A function that sends a request as a view would, and returns the reply or failure and the buffers."""
    sent = []
    monkeypatch.setattr(panel, "send", lambda content, buffers: sent.append((content, buffers)))

    def ask(kind, **fields):
        with torch.enable_grad():  # gradients may be enabled in the thread that handles messages
            panel._on_message(panel, {"id": "7", "ask": {"kind": kind, **fields}}, [])
        content, buffers = sent.pop()
        assert content["id"] == "7"
        msgspec.convert(content, Answer)
        json.dumps(content, allow_nan=False)  # checks that the reply is valid JSON
        return content["reply"] if content.get("reply") else content["failure"], buffers

    return ask


@pytest.mark.parametrize("prompt", [None, 0, 5])
@pytest.mark.parametrize("by", ["head", "layer", "accumulated"])
def test_an_attribution_is_sent_as_float32_and_says_that_it_adds_up(ioi, panel, ask, by, prompt):
    reply, [buffer, *_] = ask("attribute", by=by, target=panel.wire_target, prompt=prompt)
    result = residscope.attribute(ioi.cache, ioi.answers, by=by)
    expected = result.mean() if prompt is None else result.values[:, prompt]
    np.testing.assert_allclose(np.frombuffer(buffer, np.float32), expected, rtol=1e-5, atol=1e-6)
    assert labels_of(reply) == result.labels
    measured = result.measured.mean() if prompt is None else result.measured[prompt]
    assert reply["measured"] == pytest.approx(float(measured))
    assert abs(reply["unexplained"]) <= reply["tolerance"]


def test_if_nothing_can_be_measured_none_is_sent(ioi, panel, ask, monkeypatch):
    from transformer_lens import ActivationCache

    unknown = ("unembed", "hook_unembed", "ln_final.hook_out", "blocks.29.hook_resid_post")
    blind = ActivationCache({n: t for n, t in ioi.cache.items() if not n.startswith(unknown)}, ioi.model)
    monkeypatch.setattr(panel._service, "hold", CacheReference(blind))
    reply, _ = ask("attribute", by="head", target=panel.wire_target)
    assert (reply["measured"], reply["unexplained"]) == (None, None)
    lens, _ = ask("attribute", by="accumulated", target=panel.wire_target)
    assert labels_of(lens)[-1] == "29_mid"
    assert (lens["measured"], lens["unexplained"]) == (None, None)
    assert any("`hook_resid_post` of layer 29" in note for note in lens["notes"])


@pytest.mark.parametrize("prompt", [None, 3])
def test_attention_is_sent_with_the_source_contributions(ioi, panel, ask, prompt):
    reply, [pattern, reads, brings, *_] = ask("attention", layer=23, head=3, target=panel.wire_target, prompt=prompt)
    patterns = ioi.cache["pattern", 23][:, 3]
    expected = patterns.mean(0) if prompt is None else patterns[prompt]
    assert reply["parts"][0] == {"what": "pattern", "scale": 1.0, "wide": True, "triangle": True}
    np.testing.assert_allclose(np.frombuffer(pattern, np.float32), expected[np.tril_indices(15)], atol=1e-7)
    head = residscope.attribute(ioi.cache, ioi.answers).grid[23, 3]
    value = head.mean() if prompt is None else head[prompt]
    assert np.frombuffer(brings, np.float32).sum() == pytest.approx(float(value), abs=1e-4)
    assert [part["what"] for part in reply["parts"]] == ["pattern", "reads", "brings", "contribution"]
    np.testing.assert_allclose(np.frombuffer(reads, np.float32), expected[-1], atol=1e-7)


@pytest.mark.parametrize("prompt", [None, 3])
@pytest.mark.parametrize("layer", [None, 29])
def test_the_strongest_neurons_of_a_layer_or_of_all_layers_are_sent(ioi, panel, ask, prompt, layer):
    reply, [buffer] = ask("neurons", target=panel.wire_target, layer=layer, k=4, prompt=prompt)
    result = residscope.attribute(ioi.cache, ioi.answers, by="neuron", layers=layer)
    neurons = result.values[: result.parts]
    shown = neurons.mean(1) if prompt is None else neurons[:, prompt]
    expected = [*shown.topk(4).values.tolist(), *(-shown).topk(4).values.neg().tolist()]
    np.testing.assert_allclose(np.frombuffer(buffer, np.float32), expected, rtol=1e-5)
    assert labels_of(reply)[0] == result.labels[int(shown.argmax())]
    assert (reply["count"], reply["layers"]) == ((1536 * 30, 30) if layer is None else (1536, 1))
    mlp = residscope.attribute(ioi.cache, ioi.answers, by="layer")
    rows = [row for label, row in zip(mlp.labels, mlp.values, strict=True) if label.endswith(f"{layer or ''}_mlp_out")]
    total = torch.stack(rows).sum(0)
    total = total.mean() if prompt is None else total[prompt]
    assert reply["total"] + reply["bias"] == pytest.approx(float(total), abs=1e-3)


def asked(family: str, kind: str, **fields):
    """Return the reply or failure, and the buffers, of a panel on a tiny model of this family."""
    panel = residscope.inspect(tiny.run(tiny.boot(family))[2], (5, 6), show=False)
    request = {"kind": kind, "target": panel.wire_target, **fields}
    answer, buffers = panel._service.answer({"id": "1", "ask": request})
    return answer.get("reply") or answer["failure"], buffers


def test_the_map_of_a_hybrid_model_is_empty_in_layers_without_heads():
    reply, [buffer, *_] = asked("lfm2", "attribute", by="head")
    rows = np.frombuffer(buffer, np.float32)
    assert len(rows) == len(labels_of(reply))
    assert np.isnan(rows[:16]).reshape(4, 4).all(1).tolist() == [True, False, True, False]
    assert "0_mixer_out" in labels_of(reply)
    assert any("no attention heads in layers 0 and 2" in note for note in reply["notes"])
    assert np.nansum(rows) + reply["constant"] == pytest.approx(reply["measured"], abs=1e-4)


def test_the_map_of_a_model_without_heads_is_empty_and_the_other_rows_add_up():
    reply, [buffer, *_] = asked("mamba2", "attribute", by="head")
    rows = np.frombuffer(buffer, np.float32)
    assert np.isnan(rows[:12]).all()
    assert "No layer of this model can be split into attention heads" in reply["notes"][0] == reply["refusal"]
    assert np.nansum(rows) + reply["constant"] == pytest.approx(reply["measured"], abs=1e-4)


def test_neurons_of_a_mixture_of_experts_are_refused():
    failure, _ = asked("mixtral", "neurons", layer=1)
    assert "mixture of experts" in failure["message"]


def test_all_fields_of_a_request_are_used(ioi, panel, ask, monkeypatch):
    """Tested with a prompt, a position, a norm convention, and logits that were given with the cache."""
    target = panel.wire_target
    at = residscope.attribute(ioi.cache, ioi.answers, position=10)
    reply, [rows] = ask("attribute", by="head", target=target, prompt=0, position=10)
    np.testing.assert_allclose(np.frombuffer(rows, np.float32), at.values[:, 0], rtol=1e-5, atol=1e-6)
    _, [_, reads, brings, *_] = ask("attention", layer=23, head=3, target=target, prompt=0, position=10)
    np.testing.assert_allclose(np.frombuffer(reads, np.float32), ioi.cache["pattern", 23][0, 3, 10], atol=1e-7)
    assert np.frombuffer(brings, np.float32).sum() == pytest.approx(float(at.grid[23, 3, 0]), abs=1e-4)
    said, _ = ask("suggest", prompt=0, position=10, k=1)
    assert said["predictions"][0]["token"]["id"] == int(ioi.logits[0, 10].argmax())
    _, [lens, *_] = ask("attribute", by="accumulated", target=target, norm="recomputed")
    expected = residscope.attribute(ioi.cache, ioi.answers, by="accumulated", norm="recomputed").mean()
    np.testing.assert_allclose(np.frombuffer(lens, np.float32), expected, rtol=1e-5, atol=1e-6)

    wrong = ioi.logits.clone()
    wrong[0, -1, ioi.answer_tokens[0, 0]] += 3
    wrong[1, -1, ioi.answer_tokens[1, 0]] -= 3
    monkeypatch.setattr(panel._service, "hold", CacheReference(ioi.cache, logits=wrong))
    reply, _ = ask("attribute", by="head", target=target)
    assert reply["measured_from"] == "the given logits"
    assert abs(reply["unexplained"]) < 1e-4  # the errors of two prompts cancel in the mean
    assert reply["worst"] == pytest.approx(3, abs=1e-3)  # `worst` shows the larger error
    assert reply["worst"] > reply["tolerance"]


def test_padding_is_marked_and_a_mean_over_it_has_a_note():
    model = tiny.boot("llama")
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([[1, 5, 6, 7], [1, 8, 0, 0], [0, 1, 5, 6]]))
    service = Service(cache)

    def ask(**fields):
        return service.answer({"id": "1", "ask": fields})[0]["reply"]

    marked = [[t["padding"] for t in ask(kind="tokens", prompt=i)["tokens"]] for i in range(3)]
    assert marked == [[False] * 4, [False, False, True, True], [True, False, False, False]]
    target = {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": []}]}
    [behind, before, read] = ask(kind="attribute", by="layer", target=target)["notes"]
    assert "2 trailing `<pad>` were left out, and it ends at position 1" in behind
    assert "1 leading `<pad>` was left out, and it begins at position 1" in before
    assert "run without a mask" in read
    [note, *same] = ask(kind="attribute", by="layer", target=target, position=3)["notes"]
    assert "1 of 3 prompts" in note
    assert same == [behind, before, read]


def test_nan_in_attention_and_logits_is_refused_in_a_sentence(ioi, panel, ask, monkeypatch):
    from transformer_lens import ActivationCache

    broken = dict(ioi.cache.items())
    for name in ("blocks.23.attn.hook_pattern", "unembed.hook_out"):
        broken[name] = broken[name].clone()
        broken[name][0] = torch.nan
    monkeypatch.setattr(panel._service, "hold", CacheReference(ActivationCache(broken, ioi.model)))
    for kind in ("attention", "suggest"):
        fields = {"layer": 23, "head": 3, "target": panel.wire_target} if kind == "attention" else {}
        failure, _ = ask(kind, **fields)
        assert failure["code"] == "not-finite"


def test_closing_a_panel_releases_the_cache():
    model = tiny.boot("llama")
    _, _, cache = tiny.run(model)
    panel = residscope.inspect(cache, 5)
    alive = weakref.ref(cache)
    panel.close()
    del cache
    gc.collect()
    assert alive() is None
    with pytest.raises(ResidscopeError, match="was closed"):
        panel.heads = ["L0H0"]


def test_facts_tokens_and_predictions(ioi, ask):
    facts, _ = ask("describe")
    shape = [facts[key] for key in ("layers", "heads", "prompts", "positions", "dtype", "device", "missing")]
    assert shape == [30, 9, 8, 15, "float32", "cpu", []]
    assert facts["model"] == "SmolLM2-135M-Instruct"
    one, _ = ask("tokens", prompt=0)
    assert [token["text"] for token in one["tokens"]] == ioi.model.to_str_tokens(ioi.tokens[0])
    shared, _ = ask("tokens", prompt=None)
    assert shared["tokens"][3]["text"] == " and"
    assert shared["tokens"][2]["varies"] == [" John", " Tom", " Dan", " Martin"]
    predictions, _ = ask("suggest", prompt=0, k=3)
    top = ioi.logits[0, -1].softmax(-1).topk(3)
    assert [p["token"]["id"] for p in predictions["predictions"]] == top.indices.tolist()
    assert [p["probability"] for p in predictions["predictions"]] == pytest.approx(top.values.tolist(), rel=1e-4)


def test_the_token_check_makes_suggestions(ask):
    assert ask("check", text=" Mary")[0]["single"] is True
    bare, _ = ask("check", text="Mary")
    assert bare["single"] is True
    assert [token["text"] for token in bare["suggestions"]] == [" Mary"]
    several, _ = ask("check", text=" Josephine")
    assert several["single"] is False
    assert [token["text"] for token in several["tokens"]] == [" Joseph", "ine"]


@pytest.mark.parametrize(
    ("kind", "fields", "code"),
    [
        ("attention", {"layer": 99, "head": 0}, "head"),
        ("attribute", {"by": "head", "position": 77}, "position"),
        ("attribute", {"by": "head", "prompt": 8}, "prompt"),
        ("attribute", {"by": "colour"}, "protocol"),
        ("dance", {}, "protocol"),
    ],
)
def test_every_wrong_request_gets_a_failure(panel, ask, kind, fields, code):
    failure, buffers = ask(kind, target=panel.wire_target, **fields)
    assert failure["code"] == code
    assert failure["message"]
    assert buffers == []


@pytest.mark.parametrize(
    ("selected", "said"),
    [
        ({"position": 7}, "Position 7 is outside the prompt"),
        ({"position": -8}, "Position -8 is outside the prompt"),
        ({"prompt": 3}, "prompt 3"),
        ({"heads": ["L0H0", "L0H4"]}, "no head L0H4"),
        ({"layer": 3}, "layer 3"),
    ],
    ids=str,
)
def test_a_page_of_a_selection_that_does_not_exist_is_refused(selected, said):
    service = Service(tiny.run(tiny.boot("llama"))[2])
    shown = Shown(service.default_target(), **selected)
    with pytest.raises(ResidscopeError, match=f"(?i){said}"):
        service.reply(WritePage(shown, "view"))


def test_traits_accept_several_forms_and_keep_one_form(panel):
    panel.heads = [(23, 3), "29.0", "L23H3"]
    assert panel.heads == ["L23H3", "L29H0"]
    panel.heads = "L2H1"
    assert panel.heads == ["L2H1"]
    assert (panel.position, panel.prompt) == (14, None)
    panel.position = -5
    assert panel.position == 10
    panel.position = "last"
    assert panel.position == 14
    seen = []
    panel.observe(lambda change: seen.append(change.new), "position")
    panel.position = "last"
    panel.position = "last"
    assert seen == []
    panel.target = None  # the model's own two top predictions
    assert isinstance(panel.target, list)
    panel.target = (" Mary", " John")
    assert panel.wire_target["contrasts"][0]["distractor"] == [{"id": 2322, "text": " John"}]
    john = {"answer": [{"id": 2322, "text": " John"}], "distractor": []}
    panel.wire_target = {"contrasts": [john]}  # a view sets this trait
    assert panel.target == " John"


@pytest.mark.parametrize("wire", [{}, {"contrasts": []}, {"contrasts": [{"answer": [], "distractor": []}]}], ids=str)
def test_an_invalid_target_is_refused_and_the_old_target_stays(panel, wire):
    before, sent = panel.target, panel.wire_target
    with pytest.raises(ValueError, match=r"."):
        panel.wire_target = wire
    assert (panel.target, panel.wire_target) == (before, sent)


@pytest.mark.parametrize(
    ("trait", "value", "word"),
    [
        ("heads", ["L99H0"], "L99H0"),
        ("heads", ["head"], '"L23H3"'),
        ("position", 15, "0 to 14"),
        ("prompt", 8, "0 to 7"),
        ("target", " Josephine", "2 tokens"),
        ("against", {"prompt": 8}, "0 to 7"),
        ("against", {"without": ["L99H0"]}, "L99H0"),
        ("feeds", {"layer": 99, "head": 0, "source": 1, "by": "key"}, "L99H0"),
        ("feeds", {"layer": 1, "head": 0, "source": 15, "by": "key"}, "0 to 14"),
    ],
)
def test_a_trait_refuses_a_wrong_value_and_keeps_the_old_one(panel, trait, value, word):
    before = getattr(panel, trait)
    with pytest.raises(ResidscopeError, match=word):
        setattr(panel, trait, value)
    assert getattr(panel, trait) == before


def test_the_source_of_a_fed_head_is_counted_from_the_start(panel):
    panel.feeds = {"layer": 1, "head": 0, "source": -2, "by": "key"}
    assert panel.feeds == {"layer": 1, "head": 0, "source": 13, "by": "key"}
    assert panel.shown.feeds.source == 13


def test_the_ranking_and_its_layer_are_set_from_python(panel):
    panel.ranking, panel.layer = "neurons", -1
    assert (panel.ranking, panel.layer) == ("neurons", 29)
    panel.layer = None
    assert panel.layer is None
    with pytest.raises(traitlets.TraitError):
        panel.ranking = "experts"
    with pytest.raises(ResidscopeError, match="There is no layer 30"):
        panel.layer = 30


def test_traits_link_with_ipywidgets(panel):
    import ipywidgets

    slider = ipywidgets.IntSlider(max=14)
    traitlets.link((panel, "position"), (slider, "value"))
    assert slider.value == 14
    slider.value = 10
    assert panel.position == 10


def test_without_answers_the_models_own_two_top_predictions_are_the_target(ioi):
    panel = residscope.inspect(ioi.cache)
    top = ioi.logits[:, -1].topk(2).indices.tolist()
    contrasts = panel.wire_target["contrasts"]
    assert [[c["answer"][0]["id"], c["distractor"][0]["id"]] for c in contrasts] == top
    panel.close()


@pytest.mark.parametrize(
    "selection",
    [{}, {"prompt": 2, "position": 9, "heads": ["23.3", "29.0"], "weighting": "value"},
     {"norm": "recomputed", "ranking": "neurons", "layer": 25, "score": "induction", "presentation": "text"}],
)  # fmt: skip
def test_a_views_first_replies_are_sent_with_the_panel_once(panel, ask, selection):
    for trait, value in selection.items():
        setattr(panel, trait, value)
    panel.prepare()
    entries = panel.opening["entries"]
    kinds = [entry["ask"]["kind"] for entry in entries]
    assert kinds.count("attribute") == 3
    assert {"describe", "tokens"} <= set(kinds)
    assert kinds.count("attention") == len(selection.get("heads", ()))
    assert ("neurons" in kinds) == ("scores" in kinds) == ("score" in selection)
    for entry in entries:
        fields = {"target": panel.wire_target} if entry["ask"]["kind"] in ("attribute", "attention", "neurons") else {}
        reply, buffers = ask(**entry["ask"], **fields)
        assert (reply, buffers) == (entry["reply"], entry.get("buffers", []))
    ask("presence", view="one", state="shown")
    assert panel.opening == {}

    panel.prepare()  # does nothing now, because a view exists and sends the requests itself
    assert panel.opening == {}


def test_a_short_prompt_counts_as_large_if_the_models_weights_are_large(monkeypatch):
    model = tiny.boot("llama")
    cache = tiny.run(model, 1, 2)[2]
    activations, weights = (
        sum(one.numel() * one.element_size() for one in some) for some in (cache.values(), model.blocks.parameters())
    )
    panel = residscope.inspect(cache, (5, 6), show=False)
    for limit, large in ((activations + weights // 2, True), (2 * (activations + weights), False)):
        monkeypatch.setattr("residscope.serving.service._LARGE", limit)
        panel.prepare()
        assert (panel.opening == {}) == large
    panel.close()


def test_large_or_late_replies_are_not_sent_with_the_panel(ioi, monkeypatch):
    panel = residscope.inspect(ioi.cache, ioi.answers, show=False)
    with monkeypatch.context() as patch:
        patch.setattr("residscope.serving.service._LARGE", 1)
        panel.prepare()
        assert panel.opening == {}
    with monkeypatch.context() as patch:
        patch.setattr("residscope.export.snapshot.OPENING", 0)
        panel.prepare()
        assert [entry["ask"]["kind"] for entry in panel.opening["entries"]] == ["describe", "tokens"]
    monkeypatch.setattr("residscope.hosts.visibility.PanelViews.withdrawal_seconds", 0.05)
    panel.prepare()
    until = time.monotonic() + 5
    while panel.opening and time.monotonic() < until:
        time.sleep(0.01)
    assert panel.opening == {}
    monkeypatch.setattr(Service, "reply", lambda *_: 1 / 0)
    panel.prepare()  # raises nothing; the view will send the request and get the failure
    assert panel.opening == {}
    panel.close()


@pytest.mark.parametrize(("shell", "show", "ready"), [(True, True, [True]), (True, False, []), (False, True, [False])])
def test_the_first_replies_are_sent_before_the_panel_is_shown(booted, monkeypatch, shell, show, ready):
    seen = []
    monkeypatch.setattr("residscope.hosts.inspect.running_shell", lambda: object() if shell else None)
    monkeypatch.setattr(Panel, "show", lambda panel: seen.append(panel.opening != {}))
    panel = residscope.inspect(grown(booted("llama")[0], 6), (5, 6), show=show)
    assert seen == ready
    panel.close()


def test_another_cache_withdraws_the_first_replies(booted):
    model = booted("llama")[0]
    panel = residscope.inspect(grown(model, 6), (5, 6), show=False)
    panel.prepare()
    assert panel.opening["entries"]
    panel.cache = grown(model, 7)
    assert panel.opening == {}
    panel.close()


def test_every_field_of_a_selection_is_a_trait_with_a_description():
    """`Shown` defines the selection. Its fields are traits with the same defaults, apart from the exceptions below."""
    shown = {field.name: field for field in msgspec.structs.fields(Shown)}
    shared = set(shown) - {"target", "by"}
    assert {*Panel.class_trait_names(sync=True)} >= shared
    told = inspect.cleandoc(Panel.__doc__ or "")  # Python 3.13 has removed the indentation already
    assert [name for name in shared if f"\n    {name}: " not in told] == []
    plain = {name: shown[name].default for name in shared - {"heads", "trail"}}
    assert {name: Panel.class_traits()[name].default_value for name in plain} == plain


def test_the_rows_of_the_token_lens_are_a_trait(booted):
    panel = residscope.inspect(grown(booted("llama")[0], 6), (5, 6), show=False)
    panel.lens_rows = "points"
    assert panel.shown.lens_rows == "points"
    with pytest.raises(traitlets.TraitError, match="lens_rows"):
        panel.lens_rows = "none"


def grown(model, size, prompts=1):
    torch.manual_seed(3)
    with torch.no_grad():
        return model.run_with_cache(torch.randint(3, 60, (prompts, 12))[:, :size])[1]


def test_a_panel_shows_a_cache_that_grows_and_keeps_what_is_selected(booted):
    model = booted("llama")[0]
    panel = residscope.inspect(grown(model, 6), (5, 6), prompt=0, heads=["L1H1"], show=False)
    panel.tab, panel.weighting = "positions", "value"
    first = weakref.ref(panel.cache)
    wire = panel.wire_target
    for size in (7, 8):
        cache = grown(model, size)
        panel.cache = cache
        assert (panel.position, panel.facts["positions"], panel.facts["last"]) == (size - 1, size, [size - 1])
        assert (panel.heads, panel.prompt, panel.tab, panel.weighting) == (["L1H1"], 0, "positions", "value")
        assert panel.wire_target == wire
        answer, [buffer, *_] = panel._service.answer(
            {"id": "1", "ask": {"kind": "attribute", "by": "head", "target": wire}}
        )
        assert answer.get("failure") is None
        expected = residscope.attribute(cache, (5, 6)).values[:, 0]
        np.testing.assert_allclose(np.frombuffer(buffer, np.float32), expected, rtol=1e-5, atol=1e-6)
    gc.collect()
    assert first() is None  # earlier caches are not kept
    panel.position = 2
    panel.cache = grown(model, 9)
    assert panel.position == 2
    panel.close()


@pytest.mark.parametrize("padding", ["found", "none"])
def test_the_last_position_of_a_next_token_target_moves_with_a_growing_cache(booted, padding):
    """No token follows the last one, so the last position of this target is the one before."""
    model = booted("llama")[0]
    panel = residscope.inspect(grown(model, 6), residscope.targets.next_token(), prompt=0, show=False)
    panel.padding = padding
    assert panel.position == 4
    for size in (7, 9, 5):
        panel.cache = grown(model, size)
        assert panel.position == size - 2
    panel.position = 2
    panel.cache = grown(model, 9)
    assert panel.position == 2
    panel.close()


FIRST = residscope.targets.attention("L1H1", 6, 2)


@pytest.mark.parametrize(
    ("target", "size", "destination", "position"),
    [
        (FIRST, 9, "last", 8),
        (residscope.targets.attention("L1H1", "last", 2), 9, "last", 8),
        (FIRST, 5, "last", 4),
        (residscope.targets.attention("L1H1", 5, 2), 9, 5, 5),
        (residscope.targets.output("L0H1", of=FIRST, source=2), 9, "last", 8),
    ],
)
def test_a_destination_at_the_end_moves_with_a_growing_cache_as_the_position_does(
    booted, target, size, destination, position
):
    model = booted("llama")[0]
    panel = residscope.inspect(grown(model, 7), (5, 6), show=False)
    panel.target = target
    cache = grown(model, size)
    panel.cache = cache
    assert (panel.position, panel.wire_target["inner"]["destination"]) == (position, destination)
    assert panel.shown.trail[1].target == panel.shown.target
    assert (panel.get_state("trail")["trail"][0]["position"], panel.step) == ("last", 1)
    score = residscope.targets.attention("L1H1", position, 2)
    if panel.shown.target.through:
        score = residscope.targets.output("L0H1", of=score, source=2)
    expected = residscope.attribute(cache, score).values
    assert torch.equal(residscope.attribute(cache, panel.target).values, expected)
    panel.step = 0
    assert panel.position == size - 1
    panel.close()


def test_a_destination_at_the_end_moves_with_the_padding():
    model = tiny.boot("llama")
    tokens = torch.randint(3, 60, (1, 7))
    with torch.no_grad():
        cache = model.run_with_cache(tokens)[1]
    panel = residscope.inspect(cache, FIRST, attention_mask=[[1] * 5 + [0] * 2], show=False)
    panel.target = residscope.targets.attention("L1H1", 4, 2)
    panel.padding = "none"
    assert (panel.position, panel.wire_target["inner"]["destination"]) == (6, "last")
    panel.target = residscope.targets.attention("L1H1", 6, 5)
    panel.padding = "found"  # the source is after the last real token
    assert (panel.position, panel.wire_target["inner"]["destination"]) == (6, 6)
    panel.close()


@pytest.mark.parametrize(
    ("selected", "said"),
    [
        ({"against": 1}, "There is no prompt 1"),
        ({"feeds": {"layer": 1, "head": 0, "source": 6, "by": "key"}}, "`source=6` is outside"),
        ({"target": residscope.targets.attention("L1H1", 5, 4)}, "`destination=5` is outside"),
        ({"target": residscope.targets.attention("L1H1", 6, 5)}, "is outside"),
    ],
)
def test_what_is_selected_must_exist_in_the_next_cache(booted, selected, said):
    model = booted("llama")[0]
    cache = grown(model, 7, prompts=2)
    panel = residscope.inspect(cache, (5, 6), show=False)
    for name, value in selected.items():
        setattr(panel, name, value)
    before = panel.get_state()
    with pytest.raises(ResidscopeError, match=f"so nothing changed.*{said}"):
        panel.cache = grown(model, 5)
    assert (panel.cache is cache, panel.get_state()) == (True, before)
    panel.close()


def test_a_new_cache_of_the_same_shape_is_described_again(booted):
    model = booted("llama")[0]
    panel = residscope.inspect(grown(model, 6), (5, 6), show=False)
    seen = []
    panel.observe(lambda change: seen.append(dict(change.new)), "facts")
    panel.cache = grown(model, 6)
    assert seen == [{}, panel.facts]  # a changed description makes views send their requests again
    panel.close()


def test_without_a_chosen_target_the_new_caches_predictions_are_the_target(booted):
    model = booted("llama")[0]
    panel = residscope.inspect(grown(model, 6), show=False)
    cache = grown(model, 7)
    panel.cache = cache
    top = cache["unembed.hook_out"][0, -1].topk(2).indices.tolist()
    [contrast] = panel.wire_target["contrasts"]
    assert [contrast["answer"][0]["id"], contrast["distractor"][0]["id"]] == top
    assert panel.wire_target["own"] is True
    panel.target = residscope.targets.attention("L1H1", 3, 2)
    panel.cache = cache = grown(model, 8, prompts=2)
    panel.step = 0  # on the trail, too
    top = cache["unembed.hook_out"][:, -1].topk(2).indices.tolist()
    contrasts = panel.wire_target["contrasts"]
    assert [[c["answer"][0]["id"], c["distractor"][0]["id"]] for c in contrasts] == top
    panel.close()


def test_a_cache_that_cannot_be_shown_changes_nothing(booted):
    model = booted("llama")[0]
    cache = grown(model, 6, prompts=2)
    panel = residscope.inspect(cache, [(5, 6), (7, 8)], prompt=1, heads=["L2H3"], show=False)
    before = (panel.wire_target, panel.position, panel.facts)
    with pytest.raises(ResidscopeError, match="so nothing changed"):
        panel.cache = grown(model, 7)
    with pytest.raises(ResidscopeError, match="needs an ActivationCache"):
        panel.cache = 3
    assert panel.cache is cache
    assert (panel.wire_target, panel.position, panel.facts) == before
    panel.close()
