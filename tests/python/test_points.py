"""Targets inside the model: what neurons, directions and heads read.

Expected: the model's own forward pass with a component removed. (`tests.support.point_families` makes a table of all
families.)
"""

from __future__ import annotations

import re
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
from transformer_lens import ActivationCache

import residscope
from residscope import ResidscopeError
from residscope.attribution.inner_targets import Feature, InnerTarget, Next
from residscope.serving.service import Service
from residscope.wire.caches import CacheFacts, Describe
from tests.support import tiny
from tests.support.point_families import ANSWERS, measured, scores

T = residscope.targets
FAMILIES = ["gpt2", "gptj", "gpt_neox", "falcon-new", "llama-biased", "qwen3", "gemma2", "olmo2", "granite", "opt",
            "gemma4_text", "qwen3_5_text"]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_sum_to_the_cached_value_and_a_row_is_the_change_without_its_component(family):
    for column, found in measured(family, most=1 if family in FAMILIES[4:] else 3).items():
        assert not found.refused, found.said
        assert found.left <= 2e-6, (column, found.said)
        if (family, column) != ("gemma4_text", "output"):  # in this model, values pass a norm
            assert found.off is not None, column
            assert found.off <= 1e-4, column


@pytest.mark.parametrize("by", ["layer", "head"])
@pytest.mark.parametrize("family", ["bert", "llama"])  # in BERT, each layer is one row
def test_only_components_after_the_target_have_rows_of_0(family, by):
    model = tiny.boot(family)
    _, _, cache = tiny.run(model)
    vector = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    found = residscope.attribute(cache, T.direction(vector, at="1_mid"), by=by)
    zero = {
        component
        for component, row in zip(found.components, found.values.flatten(1), strict=True)
        if not row.any() and component.layer is not None
    }
    assert {(part.layer, part.kind) for part in zero if part.layer == 1} == {(1, "mlp_out")}
    assert {part.layer for part in zero} == {1, 2}


@pytest.mark.parametrize("family", ["gpt_neox", "phi", "llama"])
def test_a_cache_is_described_also_if_the_weights_hold_no_values(family):
    model = deepcopy(tiny.boot(family))
    cache = tiny.run(model)[2]
    model.to("meta")
    reply, _ = Service(cache).reply(Describe())
    assert isinstance(reply, CacheFacts)
    assert reply.parallel == ([] if family == "llama" else [0, 1, 2])


def test_the_demo_models_head_moves_what_mlp_0_wrote(ioi):
    target = T.output("L23H3", of=(" Mary", " John"), source=10)
    result = residscope.attribute(ioi.cache, target, by="layer")
    rows = dict(zip(result.labels, result.values[:, 0].tolist(), strict=True))
    assert rows["0_mlp_out"] == pytest.approx(1.281, abs=1e-3)
    assert sum(rows.values()) == pytest.approx(1.8286, abs=1e-4)
    assert result.unexplained.abs().max() <= 2e-6
    sources = residscope.attribute(ioi.cache, (" Mary", " John"), by="source", heads=["L23H3"])
    torch.testing.assert_close(result.measured, sources.values[10, 0])
    assert all(rows[label] == 0 for label in rows if label.split("_")[0].isdecimal() and int(label.split("_")[0]) > 22)


@pytest.mark.parametrize("family", ["gpt2", "gptj", "gpt_neox", "gpt_neox-sequential", "falcon", "cohere"])
def test_the_views_know_the_layers_whose_heads_do_not_write_to_their_neurons(family):
    _, _, cache = tiny.run(tiny.boot(family))
    filtered = ActivationCache({name: cache[name] for name in cache if "resid_mid" not in name}, cache.model)
    for some in (cache, filtered):
        facts = Service(some).reply(Describe())[0]
        assert isinstance(facts, CacheFacts)
        assert facts.parallel == ([0, 1, 2] if family in ("gptj", "gpt_neox", "falcon", "cohere") else [])
        for layer in range(3):
            target = T.output(f"L{layer}H1", of=T.neuron(f"L{layer}N3"), source=2)
            with pytest.raises(ResidscopeError, match="does not write") if facts.parallel else nullcontext():
                residscope.attribute(some, target, by="layer")


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def small(request):
    model = tiny.boot(request.param)
    return model, *tiny.run(model)


def test_a_path_of_two_heads_splits_the_row_of_the_first_head_by_its_sources(small):
    cache = small[3]
    second = T.output("L2H1", of=ANSWERS, source=4)
    rows = residscope.attribute(cache, second, by="head")
    first = residscope.attribute(cache, T.output("L1H3", of=second), by="head")
    assert first.axes == ("component", "batch", "source")
    torch.testing.assert_close(first.measured.sum(-1), rows.grid[1, 3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first.values.sum(0) + first.constant, first.measured, atol=1e-5, rtol=1e-4)
    sources = residscope.attribute(cache, second, by="source", heads=["1.3", "2.0"])
    torch.testing.assert_close(sources.values[:, 0], first.measured.T, atol=1e-5, rtol=1e-4)
    assert not sources.values[:, 1].any()
    assert "L2H0 does not write before the point `2_pre`" in " ".join(sources.notes)
    for source in (0, 3):
        one = residscope.attribute(cache, T.output("L1H3", of=second, source=source), by="head")
        torch.testing.assert_close(one.values, first.values[..., source], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("by", ["head", "layer", "neuron", "accumulated"])
@pytest.mark.parametrize("position", [[1, 4, 6], "all"], ids=str)
def test_a_neuron_is_attributed_at_any_position_to_any_components(small, by, position):
    cache = small[3]
    result = residscope.attribute(cache, T.neuron("L1N3"), by=by, position=position)
    held = cache["blocks.1.mlp.hook_pre"][..., 3]
    where = slice(None) if position == "all" else position
    torch.testing.assert_close(result.measured, held[range(3), where] if position != "all" else held)
    total = result.values[-1] if by == "accumulated" else result.values.sum(0)
    torch.testing.assert_close(total + result.constant, result.measured, atol=1e-5, rtol=1e-4)
    if by == "accumulated":
        assert result.labels[-1] == "1_mid"
        recomputed = residscope.attribute(cache, T.neuron("L1N3"), by=by, position=position, norm="recomputed")
        torch.testing.assert_close(recomputed.values[-1], result.values[-1], atol=1e-5, rtol=1e-4)
    if by == "head":
        assert result.grid.shape[:2] == (3, 4)
        assert not result.grid[2].any()
        assert "layer 2, which come after it, are 0" in " ".join(result.notes)


def test_a_direction_at_the_end_equals_a_plain_direction(small):
    model, _, _, cache = small
    u = torch.randn(model.cfg.d_model)
    at_end = residscope.attribute(cache, T.direction(u, at="final_post"))
    torch.testing.assert_close(at_end.values, residscope.attribute(cache, u).values)
    inside = residscope.attribute(cache, T.direction(u, at="2_mid"), by="head", position=3)
    torch.testing.assert_close(inside.measured, cache["blocks.2.hook_resid_mid"][:, 3] @ u, atol=1e-4, rtol=1e-4)
    before = inside.values.clone()
    u *= 2
    torch.testing.assert_close(
        residscope.attribute(cache, T.direction(u, at="2_mid"), by="head", position=3).values, 2 * before
    )


def test_figures_and_tables_of_targets_inside_the_model_say_what_they_are(small):
    cache = small[3]
    each = residscope.attribute(cache, T.output("L2H1", of=(5, 6)), by="layer")
    figure = each.to_plotly()
    assert (figure.layout.xaxis.title.text, len(figure.data[0].z[0])) == ("source", 7)
    assert "what L2H1 contributes to “w5” minus “w6”" in figure.layout.title.text
    assert each.to_frame().columns.names == ["prompt", "source"]
    with pytest.raises(ResidscopeError, match=r"give `targets\.output` a source"):
        each.to_plotly("layers")
    for by in ("head", "layer", "accumulated", "neuron"):
        assert "L1N3" in residscope.attribute(cache, T.neuron("L1N3"), by=by).to_plotly().layout.title.text


def test_the_contributions_of_earlier_heads_are_a_map_too(small):
    cache = small[3]
    neuron = residscope.attention(cache, "L0H1", weighting="contribution", answers=T.neuron("L1N3"), prompt=1)
    sources = residscope.attribute(cache, T.neuron("L1N3"), by="source", heads=["L0H1"], position="all")
    torch.testing.assert_close(neuron.values[0], sources.values[:, :, 0, 1].T, atol=1e-6, rtol=1e-4)
    second = T.output("L2H1", of=ANSWERS, source=4)
    head = residscope.attention(cache, "L0H1", weighting="contribution", answers=second, prompt=1)
    sources = residscope.attribute(cache, second, by="source", heads=["L0H1"])
    torch.testing.assert_close(head.values[0, 4], sources.values[:, 0, 1], atol=1e-6, rtol=1e-4)
    assert not head.values[0, [0, 1, 2, 3, 5, 6]].any()  # the later head reads only position 4
    with pytest.raises(ResidscopeError, match="heads of layer 2 do not write before the point `1_mid`"):
        residscope.attention(cache, "L2H1", weighting="contribution", answers=T.neuron("L1N3"))


def test_positions_of_padded_prompts_are_those_of_the_cache():
    model = tiny.boot("llama")
    tokens = torch.tensor([[2, 2, 7, 8, 9, 10], [3, 4, 5, 6, 7, 8]])  # the first prompt is padded with EOS
    mask = (tokens != 2).long()
    with torch.no_grad():
        cache = model.run_with_cache(tokens, attention_mask=mask)[1]
        alone = model.run_with_cache(tokens[:1, 2:])[1]
    neuron = T.neuron("L1N3")
    for target, same in ((neuron, neuron), (T.output("L1H1", (11, 12), 3), T.output("L1H1", (11, 12), 1))):
        padded = residscope.attribute(cache, target, by="head", attention_mask=mask)
        truth = residscope.attribute(alone, same, by="head")
        torch.testing.assert_close(padded.values[:, :1], truth.values, atol=1e-4, rtol=1e-3)
        assert padded.unexplained.abs().max() <= 1e-5


def without(cache, *endings):
    held = {name: tensor for name, tensor in cache.items() if not name.endswith(endings)}
    return ActivationCache(held, cache.model)


def test_missing_activations_are_computed_or_named(ioi):
    whole = residscope.attribute(ioi.cache, T.neuron("L5N123"), by="layer")
    for lacks in (["5.ln2.hook_scale"], ["5.mlp.hook_pre", "5.mlp.gate.hook_out"], ["5.hook_resid_mid"]):
        part = residscope.attribute(without(ioi.cache, *lacks), T.neuron("L5N123"), by="layer")
        torch.testing.assert_close(part.values, whole.values, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(part.measured, whole.measured, atol=1e-5, rtol=1e-4)
    assert not residscope.attribute(
        without(ioi.cache, "5.mlp.hook_pre", "5.mlp.gate.hook_out"), T.neuron("L5N123"), by="layer"
    ).own
    with pytest.raises(ResidscopeError, match=r"`blocks\.5\.ln2\.hook_scale` is not in this cache"):
        residscope.attribute(without(ioi.cache, "5.ln2.hook_scale", "5.ln2.hook_in", "5.hook_resid_mid"),
                             T.neuron("L5N123"), by="layer")  # fmt: skip
    incomplete = residscope.attribute(without(ioi.cache, "3.hook_mlp_out", "3.hook_resid_mid"), T.neuron("L5N123"))
    assert "The rows are not complete: MLPs missing" in " ".join(incomplete.notes)


@pytest.mark.parametrize("by", ["layer", "head"])
@pytest.mark.parametrize(
    "target",
    [
        T.neuron("L2N7"),
        T.attention("L2H1", 5, 2),
        T.output("L2H1", of=ANSWERS, source=2),
        T.output("L1H0", of=T.output("L2H1", of=ANSWERS, source=4), source=1),
        T.output("L1H0", of=T.attention("L2H1", 5, 2), source=1),
    ],
    ids=str,
)
def test_all_missing_activations_are_named_at_once(small, target, by):
    model, cache = small[0], small[3]
    held = {name: cache[name] for name in cache.keys() if name.endswith(("embed", "hook_mlp_out"))}  # noqa: SIM118
    with pytest.raises(ResidscopeError, match="not in this cache") as refused:
        residscope.attribute(held, target, by=by, model=model)
    filtered = {name: cache[name] for name in refused.value.names}
    assert all(name in str(refused.value) or name.split(".", 2)[2] in str(refused.value) for name in filtered)
    assert residscope.attribute(held | filtered, target, by=by, model=model).values.isfinite().all()


def test_in_bfloat16_the_unexplained_value_is_within_the_tolerance(ioi):
    rounded = {n: t.bfloat16() if t.is_floating_point() else t for n, t in ioi.cache.items()}
    cache = ActivationCache(rounded, ioi.model)
    for target in (T.neuron("L20N5"), T.output("L23H3", of=(" Mary", " John"), source=10)):
        result = residscope.attribute(cache, target, by="head")
        assert result.unexplained.abs().max() <= result.tolerance < 0.2


SHIFT = torch.linspace(0, 1, 24) ** 2  # not constant, so a norm that subtracts the mean does not remove it


def about(notes):
    """Return the notes without their numbers in the unit of the target."""
    return [re.sub(r"[\d.]+(e[+-]\d+)? (?=arises|of a head)", "", note) for note in notes]


def scaled(cache, u, at, scale, by="head"):
    """Attribute a scaled direction, and a head's contribution to it.

    Return for each: its notes, and its largest unexplained value and its tolerance, divided by the scale.
    """
    at_point = T.direction(u * scale, at)
    results = [residscope.attribute(cache, target, by=by) for target in (at_point, T.output("L1H1", at_point, 2))]
    return [(about(one.notes), float(one.unexplained.abs().max()) / scale, one.tolerance / scale) for one in results]


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("at", ["2_pre", "final_post"])
def test_the_notes_on_a_direction_do_not_depend_on_its_length(small, at, hooked):
    model, tokens, _, cache = small
    u = torch.randn(24, generator=torch.Generator().manual_seed(0))
    if hooked:
        with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, **_: x + SHIFT)]):
            cache = model.run_with_cache(tokens)[1]
    own = scaled(cache, u, at, 1)
    for notes, unexplained, tolerance in own:
        assert any("arises before layer 1" in note for note in notes) == hooked
        assert (unexplained > 100 * tolerance) if hooked else (unexplained < tolerance / 4)
    for scale in (1e-5, 1e3):
        for one, other in zip(scaled(cache, u, at, scale), own, strict=True):
            assert one[0] == other[0]
            assert one[2] == pytest.approx(other[2], rel=1e-2)


def test_rounding_of_massive_activations_names_no_layer_as_wrong(ioi):
    assert ioi.cache["blocks.29.hook_resid_mid"].abs().max() > 500
    u = torch.randn(576, generator=torch.Generator().manual_seed(0))
    for direction, at in ((u / u.norm(), "29_mid"), (torch.ones(576), "20_mid")):
        for scale in (1e-5, 1, 24, 1e3):
            for position in ("last", "all"):
                for by in ("layer", "head", "accumulated"):
                    target = T.direction(direction * scale, at)
                    found = residscope.attribute(ioi.cache, target, by=by, position=position)
                    assert found.unexplained.abs().max() <= found.tolerance <= 1e-4 * found.values.abs().max()
                    assert not [note for note in found.notes if "arises" in note]


def test_notes_name_their_source_or_their_target(small):
    model, tokens, *_ = small
    bump = torch.zeros(1, 7, 1)
    bump[:, 2], bump[:, 4], bump[:, 6] = 1.0, 2.0, 3.0
    with torch.no_grad(), model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, **_: x + bump * SHIFT)]):
        cache = model.run_with_cache(tokens)[1]
    score = residscope.attribute(cache, T.attention("L2H1", 6, 4, versus=2, side="key"))
    for source in (2, 4):
        [note] = [note for note in score.notes if note.startswith(f"At source {source}: ")]
        assert "arises before layer 1" in note
    moved = residscope.attribute(cache, T.output("L1H1", T.direction(torch.ones(24).cumsum(0), "2_pre"), source=2))
    outer, own = [note for note in moved.notes if "arises before layer 1" in note]
    assert outer.startswith("A direction at 2_pre: ")
    assert own[0].isdecimal()


WRONG = [
    (lambda: T.neuron("L9N3"), "There is no layer 9"),
    (lambda: T.neuron("L1N999"), "Layer 1 has no neuron 999"),
    (lambda: T.neuron("one"), "is not a neuron"),
    (lambda: T.neuron("L1N3", part="gate"), "has no gate"),
    (lambda: T.neuron("L1N3", part="post"), "is not known"),
    (lambda: [T.neuron("L1N3"), T.neuron("L1N4")], "one target at a time"),
    (lambda: T.output("L2H1", of=(T.neuron("L1N3"), 5)), "one target at a time"),
    (lambda: T.direction(torch.ones(3), at="1_mid"), r"A direction is \[24\]"),
    (lambda: T.direction([1.0, 2.0], at="1_mid"), "is not a tensor of floats"),
    (lambda: T.direction(torch.ones(24), at="1_post"), "There is no point"),
    (lambda: T.direction(torch.ones(24), at="7_pre"), "There is no layer 7"),
    (lambda: T.output("L1H9", of=ANSWERS), "has no head L1H9"),
    (lambda: T.output("L1H1", of=ANSWERS, source=7), "is outside the prompt"),
    (lambda: T.output("L2H1", of=T.neuron("L1N3"), source=1), "only heads in layers 0 and 1 do"),
    (lambda: T.output("L1H1", of=T.output("L1H0", of=ANSWERS, source=2)), "only heads in layer 0 do"),
    (lambda: T.output("L0H1", of=T.output("L1H0", of=ANSWERS)), "needs one source"),
    (lambda: T.attention("L1H1", 2, 5), "is after the destination, 2"),
    (lambda: T.attention("L1H1", 5, 2, versus=2), "is the source itself"),
    (lambda: T.attention("L1H1", 5, 2, side="value"), "is not known"),
    (lambda: T.attention("L1H1", 5, True), r"is not a position: give one number\. It is used for all"),
    (lambda: T.attention("L1H1", "Last", 2), 'give one number or "last"'),
    (lambda: T.attention("L1H1", [5, 4, 3], 2), "It is used for all prompts"),
    (lambda: T.attention("L1H1", 5, 2, versus="max"), 'give one number, "most", "mean" or None'),
]


@pytest.mark.parametrize(("target", "words"), WRONG, ids=[words for _, words in WRONG])
def test_a_wrong_target_is_refused_in_a_sentence(target, words):
    cache = tiny.run(tiny.boot("gpt2"))[2]
    with pytest.raises(ResidscopeError, match=words):
        residscope.attribute(cache, target(), by="layer")


@pytest.mark.parametrize("versus", [0, None])
def test_a_source_may_come_after_one_of_two_compared_keys(small, versus):
    cache = small[3]
    score = T.attention("L2H1", 5, 4, versus=versus, side="key")
    every = residscope.attribute(cache, T.output("L1H1", of=score), by="layer")
    for source in range(5):
        one = residscope.attribute(cache, T.output("L1H1", of=score, source=source), by="layer")
        torch.testing.assert_close(one.values, every.values[..., source], atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(one.values.sum(0) + one.constant, one.measured, atol=1e-5, rtol=1e-4)
    whole = residscope.attribute(cache, score, by="head").grid[1, 1]
    torch.testing.assert_close(every.measured.sum(-1), whole, atol=1e-5, rtol=1e-4)
    with pytest.raises(ResidscopeError, match="Source 5 is after the destination 4 of prompt 0"):
        residscope.attribute(cache, T.output("L1H1", of=score, source=5), by="layer")


def test_a_position_that_does_not_fit_the_target_is_refused(small):
    cache = small[3]
    for target, position, words in (
        (T.output("L1H1", of=ANSWERS), "all", "one destination of each prompt"),
        (T.output("L1H1", of=ANSWERS, source=5), 3, "Source 5 is after the destination 3"),
        (T.attention("L1H1", 5, 2), 3, "has its own destination"),
    ):
        with pytest.raises(ResidscopeError, match=words):
            residscope.attribute(cache, target, position=position)


def test_the_table_has_every_kind_of_target(monkeypatch):
    """Features and next tokens are no columns: see `test_feature_targets` and `test_next_token`."""
    attribute, asked = residscope.attribute, set()

    def noted(cache, target, **options):
        asked.add(type(target))
        return attribute(cache, target, **options)

    monkeypatch.setattr(residscope, "attribute", noted)
    measured("llama", most=1)
    scores("llama")
    assert set(InnerTarget.__subclasses__()) - asked == {Feature, Next}
