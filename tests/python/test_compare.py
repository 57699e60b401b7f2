"""The difference of two runs: the part that was written differently, and the part that is read differently."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from tokenizers.models import WordLevel
from transformer_lens import ActivationCache

import residscope
from residscope import ResidscopeError, targets
from residscope.comparison import two_runs
from residscope.comparison.result import Share
from tests.python.test_families import LEFT_OVER, refused
from tests.support import tiny
from tests.support.brute import Brute, logit_scale

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
CLEAN = torch.tensor([[11, 23, 35, 41, 17, 29, 53], [12, 24, 36, 42, 18, 30, 54], [13, 25, 37, 43, 19, 31, 55]])
CORRUPTED = torch.tensor([[11, 44, 35, 41, 17, 29, 53], [12, 45, 36, 42, 18, 30, 54], [13, 46, 37, 43, 19, 31, 55]])
WAYS = ("accumulated", "layer", "head", "neuron", "source")


def cache_of(model: Any, tokens: torch.Tensor, **options: Any) -> Any:
    with torch.no_grad():
        return model.run_with_cache(tokens, **options)[1]


def trained(name: str, spread: float = 0.2) -> Any:
    """Return a second checkpoint: the model with each weight changed by a random share of its size."""
    model = tiny.boot(name)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.original_model.parameters():
            if weight.is_floating_point():
                weight.mul_(1 + spread * torch.randn(weight.shape, generator=generator).to(weight))
    return model


@functools.cache
def runs(name: str) -> dict[str, Any]:
    """Return the first run, a run on corrupted prompts, a run of a second checkpoint, and the two models."""
    model, other = tiny.boot(name), trained(name)
    return {
        "first": cache_of(model, CLEAN),
        "prompts": cache_of(model, CORRUPTED),
        "checkpoints": cache_of(other, CLEAN),
        "models": (model, other),
    }


def same(one: torch.Tensor, two: torch.Tensor, size: torch.Tensor) -> None:
    torch.testing.assert_close(one, two, rtol=0, atol=3e-6 * max(1.0, float(size.abs().max())))


def is_difference(found: residscope.Comparison) -> None:
    """Check the identities that hold in every comparison."""
    size = torch.cat([found.first.values.flatten(), found.second.values.flatten()])
    assert torch.equal(found.values, found.second.values - found.first.values)
    same(found.written + found.read, found.values, size)
    same(found.written_total + found.read_total + found.unexplained, found.measured, size)
    assert found.labels == found.first.labels


# --- families --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=list(tiny.FAMILIES))
def family(request):
    yield request.param, runs(request.param)
    runs.cache_clear()


@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("what", ["prompts", "checkpoints"])
def test_written_and_read_sum_to_the_difference(family, what, by):
    name, (first, other) = family[0], (family[1]["first"], family[1][what])
    options: dict[str, Any] = {"by": by} | ({"heads": ["1.1"]} if by == "source" else {})
    if refused(name, by) is not None:
        with pytest.raises(ResidscopeError):
            residscope.compare(first, other, ANSWERS, **options)
        return
    found = residscope.compare(first, other, ANSWERS, **options)
    is_difference(found)
    if by not in LEFT_OVER.get(name, ("", ()))[1]:
        same(found.unexplained, found.unexplained * 0, torch.cat([found.first.values, found.second.values]))
    for one, own in ((found.first, first), (found.second, other)):  # equal to the results of `attribute`
        alone = residscope.attribute(own, ANSWERS, **options)
        same(one.measured, alone.measured, alone.measured)
        if one.components == alone.components:
            same(one.values, alone.values, alone.values)
    swapped = residscope.compare(other, first, ANSWERS, **options)
    assert swapped.labels == found.labels
    assert torch.equal(swapped.written, -found.written)
    assert torch.equal(swapped.read, -found.read)
    copied = residscope.compare(other, ActivationCache(dict(other.cache_dict), other.model), ANSWERS, **options)
    assert not copied.values.any()
    assert not copied.written.any()
    assert not copied.read.any()


# --- by hand ---------------------------------------------------------------------------------------------------------
def vectors(brute: Brute) -> dict[str, torch.Tensor]:
    """Return the vector that each component wrote to the stream, in float64."""
    brute.contribution = lambda vector: vector.double()  # type: ignore[method-assign]
    found = brute.rows()
    del brute.contribution
    return found


@pytest.mark.parametrize("what", ["prompts", "checkpoints"])
@pytest.mark.parametrize("name", ["gpt2", "falcon-biased", "llama-biased", "gemma2", "granite", "cohere"])
def test_each_row_follows_the_definition(name, what):
    made = runs(name)
    models = made["models"] if what == "checkpoints" else (made["models"][0],) * 2
    caches = made["first"], made[what]
    prompts = CLEAN, CLEAN if what == "checkpoints" else CORRUPTED
    brutes = []
    for model, cache, tokens in zip(models, caches, prompts, strict=True):
        with torch.no_grad():
            scale = logit_scale(model(tokens), cache)
        brutes.append(Brute(model, cache, ANSWERS, 6, scale))
    one, two = brutes
    (r1, r2), read = (vectors(one), vectors(two)), (one.contribution, two.contribution)
    found = {by: residscope.compare(*caches, ANSWERS, by=by) for by in ("head", "layer")}
    checked = 0
    for label in dict.fromkeys([*found["head"].labels, *found["layer"].labels]):
        result = found["head"] if label in found["head"].labels else found["layer"]
        at = result.labels.index(label)
        changed, mean = r2[label] - r1[label], (r1[label] + r2[label]) / 2
        written = (read[0](changed) + read[1](changed)) / 2
        torch.testing.assert_close(result.written[at].double(), written, atol=2e-6, rtol=2e-5)
        torch.testing.assert_close(result.read[at].double(), read[1](mean) - read[0](mean), atol=2e-6, rtol=2e-5)
        checked += 1
    assert checked > 15
    if name == "gemma2":  # here the constant also contains the change by the soft-cap
        assert any("soft-caps its logits" in note for note in found["head"].notes)
        return
    torch.testing.assert_close(found["head"].constant.double(), two.constant - one.constant, atol=2e-6, rtol=2e-5)


def test_a_neuron_is_compared_in_both_runs():
    made = runs("llama")
    (first, other), models = (made["first"], made["checkpoints"]), made["models"]
    found = residscope.compare(first, other, targets.neuron("L1N3"), by="layer", position=4)
    read = []
    for cache, model in ((first, models[0]), (other, models[1])):
        layer = model.original_model.model.layers[1]
        weight = layer.mlp.gate_proj.weight[3].detach().double() * layer.post_attention_layernorm.weight.double()
        read.append(weight / cache["blocks.1.ln2.hook_scale"][:, 4].double())
    vector = [cache["blocks.0.hook_mlp_out"][:, 4].double() for cache in (first, other)]
    at = found.labels.index("0_mlp_out")
    written = ((vector[1] - vector[0]) * (read[0] + read[1]) / 2).sum(-1)
    torch.testing.assert_close(found.written[at].double(), written, atol=1e-6, rtol=1e-5)
    read_ = ((vector[0] + vector[1]) / 2 * (read[1] - read[0])).sum(-1)
    torch.testing.assert_close(found.read[at].double(), read_, atol=1e-6, rtol=1e-5)
    hooked = [cache["blocks.1.mlp.hook_pre"][:, 4, 3] for cache in (first, other)]
    torch.testing.assert_close(found.measured, hooked[1] - hooked[0])


INNER = {
    "neuron": targets.neuron("L1N3"),
    "direction": targets.direction(torch.linspace(-1, 1, 24), "1_pre"),
    "output": targets.output("L2H1", ANSWERS, 4),
    "output of an output": targets.output("L1H0", targets.output("L2H1", ANSWERS, 4), 2),
    "query": targets.attention("L2H1", 6, 3, 2),
    "key": targets.attention("L2H1", 6, 3, 2, "key"),
    "query, mean": targets.attention("L2H1", 6, 3, "mean"),
    "key, mean": targets.attention("L2H1", 6, 3, "mean", "key"),
}


@pytest.mark.parametrize("what", ["prompts", "checkpoints"])
@pytest.mark.parametrize("name", ["gpt2", "qwen3", "gemma2"])
@pytest.mark.parametrize("target", INNER)
def test_targets_inside_the_model_are_compared(target, name, what):
    made = runs(name)
    for by in ("head", "accumulated"):
        found = residscope.compare(made["first"], made[what], INNER[target], by=by)
        is_difference(found)
        assert float(found.unexplained.abs().max()) <= max(found.tolerance, 1e-5)
        swapped = residscope.compare(made[what], made["first"], INNER[target], by=by)
        assert torch.equal(swapped.written, -found.written)
    if target == "direction":  # no norm is between the stream and a direction
        assert not found.read.any()


# --- positions -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", WAYS)
@pytest.mark.parametrize("norm", ["frozen", "recomputed"])
def test_a_comparison_of_all_positions_equals_that_of_each_position(by, norm):
    if norm == "recomputed" and by != "accumulated":
        pytest.skip("only accumulated values can be recomputed")
    made = runs("gpt2")
    options: dict[str, Any] = {"by": by, "norm": norm} | ({"heads": ["1.1", "2.0"]} if by == "source" else {})
    every = residscope.compare(made["first"], made["checkpoints"], ANSWERS, position="all", **options)
    is_difference(every)
    assert every.positions == [(at, at) for at in range(7)]
    for at in (0, 4):
        alone = residscope.compare(made["first"], made["checkpoints"], ANSWERS, position=at, **options)
        for share in get_args(Share):
            one, two = (found.part(share).values for found in (every, alone))
            one = one[:, at] if by == "source" else one[..., at]
            same(one, two, every.first.values)


def test_two_prompts_of_one_cache_compare_like_the_prompts_run_alone():
    model = runs("gpt2")["models"][0]
    both = runs("gpt2")["first"]
    alone = [cache_of(model, CLEAN[at : at + 1]) for at in (0, 2)]
    found = residscope.compare(both, answers=(7, 8), prompt=0, with_prompt=2)
    wanted = residscope.compare(*alone, (7, 8))
    for share in get_args(Share):
        same(found.part(share).values, wanted.part(share).values, wanted.first.values)
    each = residscope.compare(both, answers=ANSWERS, prompt=0, with_prompt=2)  # each prompt has its own answer
    own = [residscope.attribute(cache, tuple(ANSWERS[at].tolist())) for cache, at in zip(alone, (0, 2), strict=True)]
    same(each.measured, own[1].measured - own[0].measured, own[0].values)
    assert any("different answers" in note for note in each.notes)
    by_default = residscope.compare(both, prompt=0, with_prompt=2)
    top = both["unembed.hook_out"][0, -1].topk(2).indices.tolist()
    torch.testing.assert_close(by_default.first.measured, residscope.attribute(alone[0], tuple(top)).measured)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", [0, 2])  # 2 is also EOS
def test_padded_prompts_compare_like_the_prompts_run_alone(side, pad):
    model = tiny.boot("llama")
    model.tokenizer.pad_token_id, model.tokenizer.padding_side = pad, side
    texts = [[11, 23, 35, 41, 17], [11, 24, 35]]
    rows, mask = torch.full((2, 7), pad), torch.zeros(2, 7, dtype=torch.long)
    for row, text in enumerate(texts):
        where = slice(7 - len(text), 7) if side == "left" else slice(0, len(text))
        rows[row, where], mask[row, where] = torch.tensor(text), 1
    padded = cache_of(model, rows, attention_mask=mask)
    alone = [cache_of(model, torch.tensor([text])) for text in texts]
    for by in ("head", "accumulated"):
        found = residscope.compare(padded, answers=(5, 6), by=by, prompt=0, with_prompt=1)
        wanted = residscope.compare(*alone, (5, 6), by=by)
        same(found.written, wanted.written, wanted.first.values)
        same(found.read, wanted.read, wanted.first.values)
    # A prompt in the padded run is compared with the same prompt run alone. Padding on the left shifts its positions.
    beside = residscope.compare(padded, alone[0], (5, 6), by="layer", position="all", prompt=0, with_prompt=0)
    assert beside.values.abs().max() < 1e-5
    shift = 2 if side == "left" else 0
    assert beside.positions == [(at + shift, at) for at in range(5)]
    assert any("padding of the two runs differs" in note for note in beside.notes)
    with pytest.raises(ResidscopeError, match=r"have 5 and 3 tokens.*align="):
        residscope.compare(padded, answers=(5, 6), position="all", prompt=0, with_prompt=1)


def test_a_note_tells_in_which_prompts_the_source_with_the_most_attention_is_not_matched():
    model, target = runs("gpt2")["models"][0], targets.attention("L2H1", 6, 3)
    changed = torch.randint(3, tiny.VOCAB, (3, 7), generator=torch.Generator().manual_seed(0))
    changed[0] = CLEAN[0]
    caches = [cache_of(model, tokens) for tokens in (CLEAN, changed)]

    def noted(first: Any, second: Any, **options: Any) -> list[str]:
        found = residscope.compare(first, second, target, **options)
        return [note for note in found.notes if "most attention" in note]

    attention = torch.stack([cache["blocks.2.attn.hook_pattern"][:, 1, 6] for cache in caches])
    attention[..., 3] = -1
    first, second = attention.argmax(-1).tolist()
    differ = [prompt for prompt in range(3) if first[prompt] != second[prompt]]
    assert differ == [1, 2]
    places = f"position {first[1]} in the first, position {second[1]} in the second. To ask"
    assert noted(caches[0], caches[0]) == []
    [note] = noted(*caches)
    assert "In 2 of 3 prompts, this source is not at matched positions" in note
    assert f"the two runs, for example in prompt 1: {places}" in note
    [note] = noted(*(cache_of(model, tokens[:2]) for tokens in (CLEAN, changed)))
    assert f"In 1 of 2 prompts, this source is not at matched positions in the two runs, in prompt 1: {places}" in note
    [note] = noted(*(cache_of(model, tokens[1:2]) for tokens in (CLEAN, changed)))
    assert f"This source is not at matched positions in the two runs: {places}" in note
    # Both runs have the same tokens, but the alignment leaves out the source with the most attention.
    [note] = noted(*[cache_of(model, CLEAN[:1])] * 2, align=[(3, 3), (6, 6)])
    assert f"not at matched positions in the two runs: position {first[0]} in the first, position {first[0]} in" in note


def test_prompts_of_different_lengths_need_an_alignment():
    model = tiny.boot("gpt2")
    first, other = (
        cache_of(model, torch.tensor([row])) for row in ([11, 23, 35, 41, 17], [11, 23, 60, 61, 35, 41, 17])
    )
    every: dict[str, Any] = {"by": "layer", "position": "all"}
    assert residscope.compare(first, other, (5, 6)).where == [(4, 6)]  # the last position of each prompt
    for options in (every, {"position": 3}, {"by": "source", "heads": ["1.1"]}):
        with pytest.raises(ResidscopeError, match=r"cannot be matched by index: give `align=`"):
            residscope.compare(first, other, (5, 6), **options)
    pairs = [(0, 0), (1, 1), (2, 4), (3, 5), (4, 6)]
    found = residscope.compare(first, other, (5, 6), align="by token", **every)
    assert found.positions == pairs
    assert any("left out" in note and "positions 2, 3 of the second run" in note for note in found.notes)
    is_difference(found)
    one, two = (residscope.attribute(cache, (5, 6), **every).values for cache in (first, other))
    same(found.values, two[..., [0, 1, 4, 5, 6]] - one, two)
    back = residscope.compare(other, first, (5, 6), align="by token", **every)
    assert torch.equal(back.read, -found.read)
    given = residscope.compare(first, other, (5, 6), align=[(-1, -1), (2, 4)], **every)
    same(given.written, found.written[..., [2, 4]], two)
    at = residscope.compare(first, other, (5, 6), align="by token", by="layer", position=3)
    same(at.written, found.written[..., 3], two)
    inner = residscope.compare(first, other, targets.output("2.1", (5, 6), 2), align="by token")
    assert [one.target.through[0].source for one in (inner.first, inner.second)] == [2, 4]
    is_difference(inner)
    sources = residscope.compare(first, other, (5, 6), by="source", heads=["1.1"], align="by token")
    is_difference(sources)
    assert [one.labels for one in (sources.first, sources.second)] == [list("01234"), list("01456")]
    for bad in ("tokens", [(0, 9)], [(0, 1), (0, 2)], [], 3):
        with pytest.raises(ResidscopeError):
            residscope.compare(first, other, (5, 6), align=bad, **every)


# --- kinds of caches -------------------------------------------------------------------------------------------------
def test_different_tokens_at_the_compared_position_are_noted():
    made = runs("gpt2")
    at_last = residscope.compare(made["first"], made["prompts"], ANSWERS)
    assert not any("different tokens" in note for note in at_last.notes)
    there = residscope.compare(made["first"], made["prompts"], ANSWERS, position=1)
    assert any("different tokens at the position that is compared in 3 of 3" in note for note in there.notes)


def test_filtered_caches_have_the_rows_that_both_hold():
    made = runs("gpt2")
    few = {name: held for name, held in made["prompts"].items() if not name.endswith(("1.hook_mlp_out", "_mid"))}
    found = residscope.compare(made["first"], ActivationCache(few, made["prompts"].model), ANSWERS, by="head")
    whole = residscope.compare(made["first"], made["prompts"], ANSWERS, by="head")
    kept = [whole.labels.index(label) for label in found.labels]
    assert "1_mlp_out" not in found.labels
    same(found.written, whole.written[kept], whole.first.values)
    is_difference(found)
    assert any("Only one run has some rows: the first run has 1_mlp_out" in note for note in found.notes)
    assert any(note.startswith("Second run: The rows are not complete") for note in found.notes)
    edited = {name: held.clone() for name, held in made["prompts"].items()}
    edited["blocks.1.attn.hook_z"] *= 1.5  # the heads do not add up now, so layer 1's attention is one row in both runs
    found = residscope.compare(made["first"], ActivationCache(edited, made["prompts"].model), ANSWERS, by="head")
    assert "L1H0" not in found.labels
    is_difference(found)


def test_bfloat16_is_compared_within_its_tolerance():
    made = runs("llama")
    coarse = [{name: held.bfloat16() if held.is_floating_point() else held for name, held in made[one].items()}
              for one in ("first", "prompts")]  # fmt: skip
    found = residscope.compare(*coarse, ANSWERS, model=made["models"][0])
    exact = residscope.compare(made["first"], made["prompts"], ANSWERS)
    assert found.values.dtype == torch.float32
    assert float(found.unexplained.abs().max()) <= found.tolerance
    assert (found.written - exact.written).abs().max() < 0.05 * exact.first.values.abs().max()
    zero = residscope.compare(coarse[0], dict(coarse[0]), ANSWERS, model=made["models"][0])
    assert not zero.written.any()


def test_changed_weights_are_noted_for_the_run_that_they_concern():
    model = tiny.boot("gpt2")
    before = cache_of(model, CLEAN)
    residscope.attribute(before, ANSWERS)
    with torch.no_grad():
        model.original_model.transformer.h[1].mlp.c_proj.weight.mul_(1.5)
    after = cache_of(model, CLEAN)
    notes = residscope.compare(before, after, ANSWERS).notes
    assert any(note.startswith("First run: The model's weights were changed") for note in notes)
    assert not any(note.startswith(("Second run: The model's weights", "Both runs: The model's w")) for note in notes)


def test_nothing_of_the_user_is_changed():
    made = runs("gpt2")
    before = {name: held.clone() for name, held in made["first"].items()}
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    residscope.compare(made["first"], made["prompts"], ANSWERS, by="neuron", position="all")
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.is_grad_enabled()
    assert before.keys() == made["first"].keys()
    assert all(torch.equal(held, made["first"][name]) for name, held in before.items())


# --- refusals --------------------------------------------------------------------------------------------------------
def test_runs_that_cannot_be_compared_are_refused_in_a_sentence():
    made = runs("gpt2")
    first, other = made["first"], cache_of(made["models"][0], CLEAN[:2])
    deep = cache_of(tiny.boot("exaone4"), CLEAN)
    deeper = cache_of(tiny.boot("qwen3_next"), CLEAN)
    renamed = tiny.boot("gpt2")
    ids = renamed.tokenizer.get_vocab()
    ids["w5"], ids["w7"] = ids["w7"], ids["w5"]
    renamed.tokenizer._tokenizer.model = WordLevel(ids, unk_token="<pad>")
    calls: dict[str, Callable[[], object]] = {
        "needs two runs": lambda: residscope.compare(first, answers=5),
        "has 3 prompts and the second 2": lambda: residscope.compare(first, other, 5),
        "first has 3 layers, .* the second 4 layers": lambda: residscope.compare(deep, deeper, 5),
        "In the second run: There is no prompt 7": lambda: residscope.compare(
            first, answers=5, prompt=0, with_prompt=7
        ),
        "In the second run: .* not in this cache": lambda: residscope.compare(
            first, {"blocks.0.hook_resid_post": first["blocks.0.hook_resid_post"]}, 5
        ),
        "token id 5 is .*w5.* in the first model and .*w7": lambda: residscope.compare(
            first, cache_of(renamed, CLEAN), 5
        ),
        "not known: use": lambda: residscope.compare(first, first, 5, by="hed"),
    }
    for words, call in calls.items():
        with pytest.raises(ResidscopeError, match=words):
            call()


# --- tables and figures, attention, token lens -----------------------------------------------------------------------
def test_tables_and_figures_show_both_runs_and_both_parts():
    made = runs("gpt2")
    found = residscope.compare(made["first"], made["prompts"], ANSWERS)
    frame = found.to_frame()
    assert list(frame.columns.unique("value")) == [
        "first",
        "second",
        "difference",
        "written",
        "read",
    ]
    assert frame["read"].to_numpy() == pytest.approx(found.read.numpy())
    assert found.grid.shape == (3, 4, 3)
    assert found.top(2)[0][1] == pytest.approx(float(found.values[:12].mean(1).max()))
    for share, words in (("difference", "second run minus first"), ("read", "how it is read differently")):
        figure = found.to_plotly(share=share)
        assert words in figure.layout.title.text
        drawn = torch.tensor(figure.data[0].z.tolist() if hasattr(figure.data[0].z, "tolist") else figure.data[0].z)
        same(drawn, found.part(share).grid.mean(-1), found.values)
    scatter = found.to_plotly("scatter").data[1]
    assert list(scatter.x) == pytest.approx(found.first.values.mean(1).tolist())
    assert list(scatter.y) == pytest.approx(found.second.values.mean(1).tolist())
    assert repr(found).startswith('Comparison(by="head"')


class Elsewhere(torch.Tensor):
    """A tensor that stands for one on another device: it takes part in no operation with a plain tensor."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.to and not isinstance(args[1], torch.Tensor):
            return found.as_subclass(torch.Tensor)
        if any(type(one) is torch.Tensor and one.ndim > 0 for one in args):
            raise RuntimeError("Expected all tensors to be on the same device")
        return found


def elsewhere(result):
    names = ("values", "measured", "constant", "unexplained")
    return replace(result, **{name: getattr(result, name).as_subclass(Elsewhere) for name in names})


def test_caches_on_two_devices_give_one_comparison(monkeypatch):
    made = runs("gpt2")
    expected = residscope.compare(made["first"], made["prompts"], ANSWERS)
    decomposed = two_runs._Side.decomposed

    def on_own_device(side, query):
        found = decomposed(side, query)
        return found if side.name == "first" else replace(found, result=elsewhere(found.result))

    monkeypatch.setattr(two_runs._Side, "decomposed", on_own_device)
    found = residscope.compare(made["first"], made["prompts"], ANSWERS)
    for share in get_args(Share):
        torch.testing.assert_close(found.part(share).values, expected.part(share).values)
    assert found.to_frame().equals(expected.to_frame())
    assert list(found.to_plotly("scatter").data[1].y) == list(expected.to_plotly("scatter").data[1].y)
    scatter = expected.first.to_plotly("scatter", other=elsewhere(expected.second))
    assert list(scatter.data[1].y) == list(expected.to_plotly("scatter").data[1].y)


def test_no_note_says_that_padding_left_out_by_the_alignment_is_in_the_mean():
    model = runs("gpt2")["models"][0]
    plain = cache_of(model, CLEAN)
    padded = cache_of(model, torch.cat([torch.zeros_like(CLEAN[:, :2]), CLEAN], 1))
    mask = torch.ones(len(CLEAN), CLEAN.shape[1] + 2, dtype=torch.long)
    mask[:, :2] = 0
    alone = residscope.attention(padded, "1.1", attention_mask=mask)
    assert any("prompts are padded" in note for note in alone.notes)
    pairs = [(at, at + 2) for at in range(CLEAN.shape[1])]
    found = residscope.compare_attention(plain, padded, "1.1", align=pairs, other_attention_mask=mask)
    assert not any("prompts are padded" in note for note in found.notes)


def test_attention_of_two_runs_is_the_difference_of_their_patterns():
    made = runs("gpt2")
    found = residscope.compare_attention(made["first"], made["prompts"], ["1.1", "L2H0"], prompt=1)
    patterns = [torch.stack([made[one][f"blocks.{at}.attn.hook_pattern"][1, head] for at, head in ((1, 1), (2, 0))])
                for one in ("first", "prompts")]  # fmt: skip
    torch.testing.assert_close(found.values, patterns[1] - patterns[0])
    assert found.top(1)[0][0] in ("L1H1", "L2H0")
    assert "second run minus first" in found.to_plotly().layout.title.text
    moved = residscope.compare_attention(
        made["first"], made["prompts"], "1.1", weighting="contribution", answers=ANSWERS
    )
    rows = residscope.compare(made["first"], made["prompts"], ANSWERS, by="source", position="all", heads=["1.1"])
    torch.testing.assert_close(moved.values[0], rows.values[:, :, 0].mean(-1).T, atol=1e-6, rtol=1e-5)
    model = made["models"][0]
    short = cache_of(model, CLEAN[:1, 2:])
    part = residscope.compare_attention(made["first"], short, "1.1", prompt=0, align="by token")
    assert part.positions == [(at + 2, at) for at in range(5)]
    assert part.tokens == [f"w{id}" for id in CLEAN[0, 2:].tolist()]


def test_the_token_lens_of_two_runs_is_the_difference_of_their_lenses():
    made = runs("gpt2")
    found = residscope.compare_token_lens(made["first"], made["prompts"], ANSWERS, prompt=2)
    lenses = [residscope.token_lens(made[one], ANSWERS, prompt=2) for one in ("first", "prompts")]
    torch.testing.assert_close(found.answer_probability, lenses[1].answer_probability - lenses[0].answer_probability)
    assert torch.equal(found.rank, lenses[1].rank - lenses[0].rank)
    assert torch.equal(found.same, lenses[1].ids[..., 0] == lenses[0].ids[..., 0])
    assert found.same[:, 0].all()  # both prompts begin with the same token
    assert len(found.to_frame()) == len(found.points) * 7
    assert repr(found).startswith("TokenLensComparison(")


@pytest.mark.parametrize("given", [[-1, 2], torch.tensor([6, 2]), np.array([-1, 2]), range(6, 0, -4)])
def test_positions_of_two_lenses_are_written_as_those_of_one(given):
    made = runs("gpt2")
    found = residscope.compare_token_lens(made["first"], made["prompts"], ANSWERS, prompt=2, positions=given)
    whole = residscope.compare_token_lens(made["first"], made["prompts"], ANSWERS, prompt=2)
    assert found.positions == [(6, 6), (2, 2)]
    torch.testing.assert_close(found.answer_probability, whole.answer_probability[:, [6, 2]])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([7], "Position 7 is outside the prompt"),
        (-8, "Position -8 is outside the prompt"),
        ("last", "positions are numbers"),
        ([1.5], "is not a position"),
        ([True], "is not a position"),
    ],
)
def test_positions_that_two_lenses_do_not_have_are_refused_in_a_sentence(given, words):
    made = runs("gpt2")
    for ask in (
        lambda: residscope.token_lens(made["first"], ANSWERS, positions=given),
        lambda: residscope.compare_token_lens(made["first"], made["prompts"], ANSWERS, positions=given),
    ):
        with pytest.raises(ResidscopeError, match=words):
            ask()


def test_one_prompt_is_compared_with_one_of_several():
    model = tiny.boot("llama")
    tokens, logits, several = tiny.run(model)
    two = {"prompt": 0, "with_prompt": 1}
    for given in (
        {"logits": logits},
        {"tokens": tokens},
        {"attention_mask": torch.ones_like(tokens)},
        {"model": model},
    ):
        [(name, value)] = given.items()
        with pytest.raises(ResidscopeError, match=f"`other_{name}=`: there is no other cache"):
            residscope.compare(several, None, (5, 6), **two, **{f"other_{name}": value})
    with torch.no_grad():
        _, one = model.run_with_cache(tokens[:1])
    for first, second in ((one, several), (several, one)):
        for ask in (
            lambda first=first, second=second: residscope.compare(first, second, (5, 6)),
            lambda first=first, second=second: residscope.compare_token_lens(first, second, 5),
        ):
            with pytest.raises(ResidscopeError, match=r"`prompt=0, with_prompt=0`.*`with_prompt=` of the second"):
                ask()
    # A list of answers has one for each prompt of the first run, and the second run is asked for the same answer.
    answers = [(5, 6), (7, 8), (9, 10)]
    found = residscope.compare(several, one, answers, prompt=2)
    expected = residscope.compare(several, one, (9, 10), prompt=2)
    torch.testing.assert_close(found.values, expected.values)
    lenses = residscope.compare_token_lens(several, one, [5, 7, 9], prompt=2)
    torch.testing.assert_close(
        lenses.answer_probability, residscope.compare_token_lens(several, one, 9, prompt=2).answer_probability
    )
