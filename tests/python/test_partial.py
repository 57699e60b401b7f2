"""Filtered caches: rows that can be computed have the values of the whole run, and missing rows are named."""

from __future__ import annotations

import re

import pytest
import torch
from transformer_lens import ActivationCache

import residscope
from residscope import ResidscopeError
from residscope.session.cache_summary import row
from residscope.session.change_tracking import track
from tests.support import tiny
from tests.support.brute import Brute
from tests.support.rows import named

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
FILTERS = {
    "patterns": ("hook_pattern",),
    "z and scale": ("attn.hook_z", "ln_final.hook_scale"),
    "resid_post": ("hook_resid_post",),
    "v and patterns": ("hook_pattern", "attn.hook_v"),
    "attention scores": ("hook_attn_scores",),
    "one layer": ("1.attn.hook_z", "1.attn.hook_pattern", "ln_final.hook_scale"),
}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def run(request):
    model = tiny.boot(request.param)
    return model, *tiny.run(model)


def part(run, names: tuple[str, ...], *, plain: bool = False):
    """Return a cache of only these activations. `plain`: a dictionary of one prompt, without a batch dimension."""
    model, tokens, _, _ = run
    with torch.no_grad():
        if plain:
            _, kept = model.run_with_cache(
                tokens[:1], names_filter=lambda name: name.endswith(names), remove_batch_dim=True
            )
            return dict(kept.items())
        return model.run_with_cache(tokens, names_filter=lambda name: name.endswith(names))[1]


def told_by_hand(found, model, whole, **others) -> None:
    """Check rows against a float64 decomposition made without Residscope.

    `others` has the vectors of the rows that are not those of `whole`.
    """
    brute = Brute(model, whole, ANSWERS, 6)
    true = brute.rows() | {label: brute.contribution(vectors[:, 6]) for label, vectors in others.items()}
    assert len(found.labels) == len(set(found.labels))
    assert {f"L{layer}H{head}" for layer in range(3) for head in range(4)} < set(found.labels)
    for label, values in zip(found.labels, found.values.double(), strict=True):
        torch.testing.assert_close(values, true[label], atol=2e-5, rtol=1e-4)
    logits = whole["unembed.hook_out"][torch.arange(3), -1]
    measured = logits.gather(1, ANSWERS).diff(dim=1)[:, 0].neg()
    torch.testing.assert_close(found.measured, measured, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.values.sum(0) + found.constant, measured, atol=1e-4, rtol=1e-4)


def refused(call, *named: str) -> None:
    """Check that a call is refused, and that the error names these missing activations and `names_filter`."""
    with pytest.raises(ResidscopeError) as error:
        call()
    assert error.value.code == "missing-activation"
    said = str(error.value)
    for name in named:
        assert re.search(rf"`[^`]*{re.escape(name)}`", said), said
    assert "names_filter" in said


@pytest.mark.parametrize("kept", FILTERS)
@pytest.mark.parametrize("plain", [False, True], ids=["cache", "dictionary without a batch"])
def test_attention_is_the_cached_one_or_named_as_missing(run, kept, plain):
    model, _, _, whole = run
    some = part(run, FILTERS[kept], plain=plain)
    if any("hook_pattern" in name for name in FILTERS[kept]):
        found = residscope.attention(some, ["1.1", "1.3"], prompt=0, model=model).values
        true = whole["pattern", 1][0, [1, 3]]
        assert torch.equal(found, true) or plain  # a run of a single prompt rounds differently
        torch.testing.assert_close(found, true, atol=1e-6, rtol=1e-5)
        shares = residscope.scores(some, "previous", prompt=0, model=model).values[1]
        torch.testing.assert_close(shares, whole["pattern", 1][0].diagonal(-1, -2, -1).sum(-1) / 7)
    else:
        refused(lambda: residscope.attention(some, "1.1", prompt=0, model=model), "blocks.1.attn.hook_pattern")
        refused(lambda: residscope.scores(some, "previous", model=model), "hook_pattern")


@pytest.mark.parametrize("kept", FILTERS)
def test_heads_have_the_values_of_the_whole_run_and_missing_rows_are_named(run, kept):
    model, tokens, logits, whole = run
    some = part(run, FILTERS[kept])
    if "scale" not in "".join(FILTERS[kept]):
        refused(lambda: residscope.attribute(some, ANSWERS), "hook_z")
        return
    found = residscope.attribute(some, ANSWERS, logits=logits, tokens=tokens)
    true = Brute(model, whole, ANSWERS, 6).rows()
    assert len(found.labels) == len(set(found.labels)) >= 4
    for label, values in zip(found.labels, found.values.double(), strict=True):
        torch.testing.assert_close(values, true[label], atol=2e-5, rtol=1e-4)
    at = torch.arange(3)
    measured = logits[at, -1, ANSWERS[:, 0]] - logits[at, -1, ANSWERS[:, 1]]
    torch.testing.assert_close(found.measured, measured, atol=1e-5, rtol=1e-4)
    assert "blocks.0.hook_mlp_out" in found.missing
    [said] = [note for note in found.notes if note.startswith("The rows are not complete")]
    assert "MLPs" in said
    assert "`hook_mlp_out`" in said
    assert any("not checked" in note for note in found.notes)
    assert not any("arises" in note for note in found.notes)


def test_heads_of_a_filtered_cache_that_do_not_add_up_are_shown_as_a_whole(run):
    model, _, _, whole = run
    some = part(run, ("attn.hook_z", "hook_attn_out", "ln_final.hook_scale"))
    some.cache_dict["blocks.1.attn.hook_z"] *= 2
    found = residscope.attribute(some, ANSWERS)
    assert "blocks.0.hook_mlp_out" in found.missing
    assert not any(label.startswith("L1H") for label in found.labels)
    true = Brute(model, whole, ANSWERS, 6).rows()
    for label, values in zip(found.labels, found.values.double(), strict=True):
        torch.testing.assert_close(values, true[label], atol=2e-5, rtol=1e-4)
    assert any("In layer 1 the heads (z @ W_O) and the bias are not all of" in note for note in found.notes)


@pytest.mark.parametrize("kept", FILTERS)
@pytest.mark.parametrize("norm", ["frozen", "recomputed"])
def test_the_lens_is_read_at_the_points_that_were_cached(run, kept, norm):
    model, _, _, whole = run
    some = part(run, FILTERS[kept])
    if kept != "resid_post":
        refused(lambda: residscope.attribute(some, ANSWERS, by="accumulated", norm=norm), "hook_resid_post")
        refused(lambda: residscope.token_lens(some, norm=norm), "hook_resid_post")
        return
    found = residscope.attribute(some, ANSWERS, by="accumulated", norm=norm)
    assert found.labels == ["1_pre", "2_pre", "final_post"]
    final = model.ln_final.original_component
    for label, values in zip(found.labels, found.values, strict=True):
        stream = whole["resid_post", {"1_pre": 0, "2_pre": 1, "final_post": 2}[label]][:, -1]
        with torch.no_grad():
            read = final(stream) if norm == "recomputed" else None
        if read is None:
            worth = Brute(model, whole, ANSWERS, 6).contribution(stream)
            torch.testing.assert_close(values.double(), worth, atol=2e-5, rtol=1e-4)
        else:
            said = (read @ (model.W_U[:, ANSWERS[:, 0]] - model.W_U[:, ANSWERS[:, 1]])).diagonal()
            bias = getattr(final, "bias", None)
            constant = 0 if bias is None else (bias @ (model.W_U[:, ANSWERS[:, 0]] - model.W_U[:, ANSWERS[:, 1]]))
            torch.testing.assert_close(values, (said - constant).detach(), atol=2e-5, rtol=1e-4)
    lens = residscope.token_lens(some, ANSWERS, prompt=0, norm="recomputed")
    assert lens.points == found.labels
    with torch.no_grad():
        stopped = model.unembed(final(whole["resid_post", 1][0])).softmax(-1)
    torch.testing.assert_close(lens.probabilities[1], stopped.topk(5).values, atol=2e-5, rtol=1e-3)


def test_layers_follow_from_the_stream_if_their_outputs_were_not_cached(run):
    model, _, _, whole = run
    found = residscope.attribute(part(run, ("hook_resid_post",)), ANSWERS, by="layer")
    brute = Brute(model, whole, ANSWERS, 6)
    assert found.labels == ["1_pre", "1_layer_out", "2_layer_out"]
    points = [whole["resid_post", layer][:, -1] for layer in range(3)]
    for values, added in zip(found.values, (points[0], points[1] - points[0], points[2] - points[1]), strict=True):
        torch.testing.assert_close(values.double(), brute.contribution(added), atol=2e-5, rtol=1e-4)
    assert found.missing == []
    assert any("`1_pre` is all that was written before layer 1" in note for note in found.notes)
    stream = part(run, ("hook_resid_mid", "hook_resid_pre", "hook_resid_post"))
    found = residscope.attribute(stream, ANSWERS, by="layer")
    for label, values in zip(found.labels, found.values, strict=True):
        true = brute.rows().get(label)
        if true is not None and label != "embed":
            torch.testing.assert_close(values.double(), true, atol=2e-5, rtol=1e-4)
    assert {f"{layer}_{part}_out" for layer in range(3) for part in ("attn", "mlp")} < set(found.labels)
    assert found.unexplained.abs().max() <= found.tolerance


def test_a_run_that_stopped_early_has_its_points_and_no_end(run):
    model, tokens, _, whole = run
    with torch.no_grad():
        _, some = model.run_with_cache(tokens, stop_at_layer=2)
    lens = residscope.token_lens(some, prompt=1)
    assert lens.points[-1] == "2_pre"
    assert "final_post" not in lens.points
    assert lens.answer_probability is None
    with torch.no_grad():
        stopped = model.unembed(model.ln_final.original_component(whole["resid_post", 1][1])).softmax(-1)
    torch.testing.assert_close(lens.probabilities[-1], stopped.topk(5).values, atol=2e-5, rtol=1e-3)
    assert torch.equal(residscope.attention(some, "1.1", prompt=0).values[0], whole["pattern", 1][0, 1])
    found = residscope.attribute(some, ANSWERS, by="accumulated", norm="recomputed")
    assert found.labels[-1] == "2_pre"
    assert any("end of the model is not in this cache" in note for note in found.notes)
    with pytest.raises(ResidscopeError, match='norm="recomputed"'):
        residscope.attribute(some, ANSWERS, by="accumulated")
    refused(lambda: residscope.attribute(some, ANSWERS), "ln_final.hook_scale")


def test_a_run_on_embeddings_reads_what_enters_the_first_layer(run):
    model, _, _, whole = run
    names = ("hook_embed", "embed.hook_in", "hook_pos_embed")
    some = ActivationCache({n: t for n, t in whole.items() if n not in names}, whole.model)
    found = residscope.attribute(some, ANSWERS)
    told_by_hand(found, model, whole, embed=whole["blocks.0.hook_resid_pre"])
    assert found.unexplained.abs().max() <= found.tolerance
    assert found.missing == []
    assert any("all that enters layer 0" in note for note in found.notes)


@pytest.mark.parametrize("past", [6, 4])
def test_attention_after_past_keys_has_more_sources_than_destinations(run, past):
    model, tokens, _, whole = run
    with torch.no_grad():
        keys = model.original_model(tokens[:, :past], use_cache=True).past_key_values
        _, some = model.run_with_cache(tokens[:, past:], past_key_values=keys)
    found = residscope.attention(some, ["1.1", "2.0"], prompt=2)
    true = torch.stack([whole["pattern", 1][2, 1], whole["pattern", 2][2, 0]])[:, past:]
    torch.testing.assert_close(found.values, true, atol=1e-5, rtol=1e-4)
    assert (len(found.tokens), found.sources) == (7 - past, [str(at) for at in range(7)])
    assert any("7 sources" in note for note in found.notes)
    assert found.to_frame().shape == (2 * (7 - past), 7)
    assert found.to_plotly().data[0].z is not None
    head, to, source, value = found.top(1)[0]
    assert value == pytest.approx(float(true[["L1H1", "L2H0"].index(head), to, source]), abs=1e-5)
    with pytest.raises(ResidscopeError, match="past keys"):
        residscope.scores(some, "previous")


@pytest.mark.parametrize("name", ["blocks.1.hook_resid_pre", "blocks.1.attn.hook_z", "blocks.2.hook_mlp_out"])
def test_if_an_sae_replaces_an_activation_its_output_is_read(run, name):
    model, _, _, whole = run
    spliced = {f"{n}.hook_sae_output" if n == name else n: t for n, t in whole.items()}
    spliced |= {f"{name}.hook_sae_input": whole[name] * 3, f"{name}.hook_sae_acts_post": whole[name].repeat(1, 1, 2)
                if whole[name].ndim == 3 else whole[name]}  # fmt: skip
    held = ActivationCache(spliced, model)
    told_by_hand(residscope.attribute(held, ANSWERS), model, whole)
    lens = residscope.attribute(held, ANSWERS, by="accumulated")
    stream = Brute(model, whole, ANSWERS, 6).contribution(whole["blocks.1.hook_resid_pre"][:, 6])
    torch.testing.assert_close(lens.values[lens.labels.index("1_pre")].double(), stream, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kept", FILTERS)
def test_a_filtered_cache_is_listed_and_opened_without_a_target(run, kept):
    some = part(run, FILTERS[kept])
    listed = row(some, ["some"], track(some))
    assert (listed.problem, listed.prompts, listed.positions) == (None, 3, 7)
    panel = residscope.inspect(some)
    assert (panel.facts["prompts"], panel.facts["positions"]) == (3, 7)
    assert (panel.target is None) == (kept != "resid_post")
    panel.target = [(5, 6), (7, 8), (9, 10)]
    assert panel.shown.target.contrasts[0].answer[0].id == 5
    panel.close()


@pytest.mark.parametrize("kept", FILTERS)
def test_a_view_gets_a_reply_or_the_missing_activation(run, kept):
    some = part(run, FILTERS[kept])
    panel, sent = residscope.inspect(some, ANSWERS), []
    panel.send = lambda content, buffers=None: sent.append((content, buffers))

    def ask(**question):
        panel._on_message(panel, {"id": "1", "ask": question}, [])
        return sent.pop()

    target = panel.wire_target
    answer, buffers = ask(kind="attribute", by="head", target=target)
    if kept in ("z and scale", "one layer"):
        assert {"MLPs", "embeddings"} <= set(answer["reply"]["missing"])
        assert answer["reply"]["refusal"] is None
    elif kept == "resid_post":  # the rows are those of `layer`, and add up
        assert "hook_z" in answer["reply"]["refusal"]
        assert answer["reply"]["missing"] == []
    else:
        assert answer["failure"]["code"] == "missing-activation"
        assert "hook_z" in answer["failure"]["message"]
    for chosen in (target, {"contrasts": []}):  # attention can be shown without a target, too
        answer, buffers = ask(kind="attention", layer=1, head=1, target=chosen)
        if any("hook_pattern" in name for name in FILTERS[kept]):
            assert answer["reply"]["parts"][0]["what"] == "pattern"
            assert len(buffers) >= 1
        else:
            assert "hook_pattern" in answer["failure"]["message"]
    points = named(ask(kind="describe")[0]["reply"]["points"])
    assert points == (["1_pre", "2_pre", "final_post"] if kept == "resid_post" else [])
    panel.close()


@pytest.mark.parametrize(
    ("others", "named"),
    [({"prompt": "When John"}, None), ({"loss": 1.5, "labels": [1], "note": None}, None), ({}, "numpy")],
)
def test_a_dictionary_may_also_hold_arrays_and_other_objects(run, others, named):
    model, _, _, whole = run
    kept = {n: t.numpy() if named else t for n, t in whole.items()} | others
    told_by_hand(residscope.attribute(kept, ANSWERS, model=model), model, whole)
    residscope.inspect(kept, ANSWERS, model=model).close()
    kept["blocks.1.attn.hook_pattern"] = (1, 2)
    with pytest.raises(ResidscopeError, match=r"`blocks.1.attn.hook_pattern` is a tuple in this cache"):
        residscope.attention(kept, "1.1", model=model)
    with pytest.raises(ResidscopeError, match="is a str"):
        residscope.attribute({"prompt": "When John"}, ANSWERS, model=model)
