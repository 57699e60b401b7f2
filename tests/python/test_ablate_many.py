"""`ablate_many` gives the effects that `ablate` gives for all prompts at once, keeps no cache, and can be resumed."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
import weakref
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformer_lens import ActivationCache

import residscope
from residscope import ResidscopeError
from residscope.causes import sweep
from residscope.many.processes import Processes
from tests.support import tiny

COUNT, LENGTH = 11, 7
EFFECTS = ("total", "direct", "indirect")
many = partial(residscope.ablate_many, progress=False)
close = partial(torch.testing.assert_close, atol=2e-6, rtol=1e-4)


@pytest.fixture(scope="module", params=["llama", "gemma2"])
def run(request):
    """A model, prompts and answers, and the cache of all prompts."""
    return of(request.param)


def of(name):
    model = tiny.boot(name)
    torch.manual_seed(1)
    tokens = torch.randint(3, tiny.VOCAB, (COUNT, LENGTH))
    answers = torch.randint(3, tiny.VOCAB, (COUNT, 2))
    with torch.no_grad():
        cache = model.run_with_cache(tokens)[1]
    return SimpleNamespace(model=model, tokens=tokens, answers=answers, cache=cache, sizes=[1, 4, 2, 3, 1])


def cut(run):
    """Return the items: functions that make the cache and answers of one to four prompts."""

    def item(part):
        with torch.no_grad():
            return run.model.run_with_cache(run.tokens[part])[1], run.answers[part]

    ends = torch.tensor([0, *run.sizes]).cumsum(0).tolist()
    return [partial(item, slice(*both)) for both in itertools.pairwise(ends)]


CALLS = {
    "heads": {},
    "some heads": {"heads": ["L0H1", "2.3"], "norm": "recomputed"},
    "last position": {"positions": "last"},
    "MLPs": {"of": "mlp_out"},
    "one layer": {"of": "attn_out", "layers": 1},
    "two heads together": {"heads": ["L0H1", "2.3"], "together": True},
    "tokens as replacement": {"replace": torch.full((LENGTH,), 4)},
}


@pytest.mark.parametrize("options", CALLS.values(), ids=CALLS)
def test_mean_and_spread_are_those_of_all_prompts_at_once(run, options, tmp_path):
    whole = residscope.ablate(run.cache, run.answers, progress=False, **options)
    found, summary = many(cut(run), **options), many(iter([make() for make in cut(run)]), keep="summary", **options)
    assert (found.axes, found.labels, found.components) == (whole.axes, whole.labels, whole.components)
    assert found.items == summary.items == [0, 1, 1, 1, 1, 2, 2, 3, 3, 3, 4]
    close(found.before, whole.before)
    for effect in EFFECTS:
        values = getattr(whole, effect)
        close(getattr(found, effect), values, equal_nan=True)
        for one in (found, summary):
            close(one.mean(effect), values.mean(-1))
            close(one.std(effect), values.std(-1))
            close(one.sem(effect), values.std(-1) / COUNT**0.5)
    assert summary.count == COUNT
    assert summary.top(1)[0][0] == found.top(1)[0][0] == whole.top(1)[0][0]
    for keep, wanted in (("values", found), ("summary", summary)):  # resumed from a file in a second call
        path = tmp_path / f"{keep}.npz"
        many(cut(run)[:2], resume=path, keep=keep, **options)
        made = [*[lambda: pytest.fail("an item in the file was made again")] * 2, *cut(run)[2:]]
        resumed = many(made, resume=path, keep=keep, **options)
        assert (resumed.items, resumed.labels, type(resumed)) == (wanted.items, wanted.labels, type(wanted))
        for effect in EFFECTS:
            torch.testing.assert_close(resumed.std(effect), wanted.std(effect), rtol=1e-6, atol=1e-9)
            torch.testing.assert_close(resumed.mean(effect), wanted.mean(effect), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("keep", ["values", "summary"])
@pytest.mark.parametrize("by_file", [True, False])
def test_after_an_interrupt_within_an_item_the_work_goes_on_with_this_item(keep, by_file, monkeypatch, tmp_path):
    run, path, calls = of("llama"), tmp_path / "kept.npz" if by_file else None, [0]
    wanted, own = many(cut(run), keep=keep), sweep.Sweep._of

    def interrupted(self, patches):
        calls[0] += 1
        if calls[0] in (8, 13):
            raise KeyboardInterrupt
        return own(self, patches)

    monkeypatch.setattr(sweep.Sweep, "_of", interrupted)
    resume, ends = path, []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt) as error:
            many(cut(run), keep=keep, resume=resume)
        partial_result = error.value.partial
        ends.append(max(partial_result.items))
        resume = path or partial_result
    assert ends == [1, 2]
    found = many(cut(run), keep=keep, resume=resume)
    assert found.items == wanted.items
    for effect in EFFECTS:
        assert torch.equal(found.mean(effect), wanted.mean(effect))
        assert torch.equal(found.std(effect), wanted.std(effect))


def test_an_interrupt_in_the_first_item_gives_no_partial_result(monkeypatch):
    run = of("llama")
    monkeypatch.setattr(sweep.Sweep, "_of", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt) as error:
        many(cut(run))
    assert not hasattr(error.value, "partial")


@pytest.mark.parametrize("kind", ["functions", "generator"])
def test_no_cache_is_kept(kind):
    run, seen = of("llama"), []

    def watched(make):
        assert all(alive() is None for alive in seen)  # earlier caches are freed, without garbage collection
        cache, answers = make()
        seen.append(weakref.ref(cache["blocks.1.hook_resid_post"]))
        return cache, answers

    items = [partial(watched, make) for make in cut(run)]
    gc.collect()
    gc.disable()
    try:
        many(items if kind == "functions" else (item() for item in items))
        assert all(alive() is None for alive in seen)
    finally:
        gc.enable()
    assert len(seen) == len(run.sizes)


def test_memory_does_not_grow_with_the_number_of_items():
    run = of("llama")
    caches = [make() for make in cut(run)]

    def left(count):
        gc.collect()
        tracemalloc.start()
        result = many((caches[number % 5] for number in range(count)), heads=["0.1"], keep="summary")
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert result.count > count
        return size

    left(5)
    few, more = left(10), left(60)
    assert more - few < 50 * 4000, (few, more)  # only a few numbers for each item and prompt are kept


def test_each_item_may_have_its_own_replacement():
    run = of("llama")
    other = run.tokens.flip(1)
    with torch.no_grad():
        source = run.model.run_with_cache(other)[1]
        parts = [slice(0, 5), slice(5, 11)]
        pairs = [[run.model.run_with_cache(ids[part])[1] for ids in (run.tokens, other)] for part in parts]
    whole = residscope.ablate(run.cache, run.answers, replace=source, progress=False)
    items = [(cache, run.answers[part], {"replace": own}) for (cache, own), part in zip(pairs, parts, strict=True)]
    close(many(items).total, whole.total)
    tokens = [other[part] for part in parts]
    by_tokens = [(*item[:2], {"replace": ids}) for item, ids in zip(items, tokens, strict=True)]
    close(many(by_tokens).total, whole.total)
    mean = many([item[:2] for item in items], replace="mean")
    close(mean.total[..., :5], residscope.ablate(*items[0][:2], replace="mean", progress=False).total)
    assert "over the prompts of each item" in " ".join(mean.notes)


def test_padded_items_have_the_effects_of_each_prompt_alone():
    run = of("llama")
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, :3] = 0
    with torch.no_grad():
        padded = run.model.run_with_cache(run.tokens[:2] * mask, attention_mask=mask)[1]
        alone = [run.model.run_with_cache(run.tokens[row : row + 1, 3 * row :])[1] for row in range(2)]
    found = many([(padded, run.answers[:2], {"attention_mask": mask})])
    expected = many([(cache, run.answers[row : row + 1]) for row, cache in enumerate(alone)])  # prompts of two lengths
    torch.testing.assert_close(found.total, expected.total, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("keep", ["values", "summary"])
@pytest.mark.parametrize("resumed", [False, True])
def test_prompts_without_an_effect_are_left_out_of_mean_and_spread(keep, resumed, tmp_path):
    model = tiny.boot("gpt2").double()
    model.tokenizer.padding_side = "left"
    torch.manual_seed(1)
    tokens, answers = torch.randint(3, tiny.VOCAB, (7, LENGTH)), torch.randint(3, tiny.VOCAB, (7, 2))
    starts, place = [0, 2, 3, 4, 0, 1, 5], 2  # position 2 is padding in prompts 2, 3 and 6
    mask = torch.ones(7, LENGTH, dtype=torch.long)
    for row, start in enumerate(starts):
        mask[row, :start] = 0
    items = []
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        with torch.no_grad():
            cache = model.run_with_cache(tokens[part] * mask[part], attention_mask=mask[part])[1]
        items.append((cache, answers[part], {"attention_mask": mask[part]}))
    options = {"positions": [place], "keep": keep}
    if resumed:  # from a file
        many(items[:2], resume=tmp_path / "kept.npz", **options)
        options["resume"] = tmp_path / "kept.npz"
    found = many(items, **options)

    def alone(row, layer, head):
        """The effect in the model's own hooked run of one prompt without padding."""

        def zero(z, hook):  # noqa: ARG001
            z = z.flatten(2).unflatten(2, (4, -1)).clone()
            z[:, place - starts[row], head] = 0
            return z.flatten(2)

        ids, hooks = tokens[row : row + 1, starts[row] :], [(f"blocks.{layer}.attn.hook_z", zero)]
        with torch.no_grad():
            change = (model.run_with_hooks(ids, fwd_hooks=hooks) - model(ids))[0, -1]
        return float(change[answers[row, 0]] - change[answers[row, 1]])

    for layer, head in ((0, 0), (0, 3), (1, 2), (2, 1)):
        own = torch.tensor([alone(row, layer, head) for row in (0, 1, 4, 5)], dtype=torch.float64)
        exact = {"atol": 1e-9, "rtol": 1e-6}
        torch.testing.assert_close(found.mean()[layer, head], own.mean(), **exact)
        torch.testing.assert_close(found.std()[layer, head], own.std(), **exact)
        torch.testing.assert_close(found.sem()[layer, head], own.std() / 2, **exact)
        row = found.to_frame().loc[f"L{layer}H{head}"]
        assert (row["total"], row["total std"]) == pytest.approx((float(own.mean()), float(own.std())), abs=1e-9)
    name, value = found.top(1)[0]
    at = found.mean().flatten().abs().argmax()
    assert (name, value) == (found.labels[at], pytest.approx(float(found.mean().flatten()[at])))
    for effect in ("direct", "indirect"):
        assert bool(found.mean(effect).isfinite().all() & found.sem(effect).isfinite().all())
    if keep == "values":
        torch.testing.assert_close(found.of("total"), found.mean().flatten())
    numbers = " (2, 3 and 6)" if keep == "values" else ""
    assert [note for note in found.notes if "nothing was replaced" in note] == [
        f"In 3 of 7 prompts{numbers} nothing was replaced, because the chosen positions are padding there. Effects "
        "there are NaN, and are left out of means."
    ]


def test_forged_numbers_of_prompts_are_refused(tmp_path):
    run, path = of("llama"), tmp_path / "kept.npz"
    many(cut(run)[:2], resume=path, keep="summary")
    with np.load(path) as saved:
        arrays = dict(saved)
    for count in (-1, 6):  # there are five prompts
        np.savez(path, **arrays | {"counts": arrays["counts"] * 0 + count})
        with pytest.raises(ResidscopeError, match="its `counts` cannot be right"):
            many(cut(run), resume=path, keep="summary")
    np.savez(path, **{name: array for name, array in arrays.items() if name != "counts"})
    with pytest.raises(ResidscopeError, match="its arrays cannot be right"):
        many(cut(run), resume=path, keep="summary")


def test_resumed_results_must_fit_the_call(tmp_path):
    run, path = of("llama"), tmp_path / "kept.npz"
    items = cut(run)
    others = [dict(part.cache_dict) for part, _ in (make() for make in cut(run)[:2])]
    many(items[:2], resume=path, replace=torch.full((LENGTH,), 4))
    for options, words in (
        ({"replace": "zero"}, 'not `replace="zero"`'),
        ({"replace": torch.full((LENGTH,), 5)}, "was made with `replace=array"),
        ({"replace": torch.full((LENGTH,), 4), "of": "mlp_out"}, 'not `of="mlp_out"`'),
        ({"replace": torch.full((LENGTH,), 4), "keep": "summary"}, 'not `keep="summary"`'),
    ):
        with pytest.raises(ResidscopeError, match=words):
            many(items, resume=path, **options)
    with pytest.raises(ResidscopeError, match="was made with `ablate_many`, not with `attribute_many`: give `resume`"):
        residscope.attribute_many(items, resume=path, progress=False)
    of_one = tmp_path / "one.npz"
    many(items[:1], resume=of_one, replace=ActivationCache(others[0], run.model))
    assert many(items[:1], resume=of_one, replace=ActivationCache(dict(others[0]), run.model)).items == [0]
    changed = others[0] | {"blocks.1.attn.hook_z": others[0]["blocks.1.attn.hook_z"] + 1}
    with pytest.raises(ResidscopeError, match="was made with `replace=cache"):
        many(items, resume=of_one, replace=changed)
    with torch.no_grad():
        run.model.embed.weight[:3] += 1
    with pytest.raises(ResidscopeError, match="another model, or its weights have changed"):
        many(items, resume=path, replace=torch.full((LENGTH,), 4))


def test_an_item_that_cannot_be_measured_is_named_or_left_out():
    run = of("llama")
    good = [make() for make in cut(run)]
    stale = {name: part * 1.5 if "resid" in name else part for name, part in good[1][0].items()}
    items = [good[0], (ActivationCache(stale, run.model), good[1][1]), good[2]]
    with pytest.raises(ResidscopeError, match=r"^Item 1: The model, run again") as error:
        many(items)
    assert error.value.partial.items == [0]
    found = many(items, on_error="skip")
    assert (found.items, list(found.skipped)) == ([0, 2, 2], [1])
    with pytest.raises(ResidscopeError, match=r"None of 1 items could be measured\. Item 0: "):
        many(items[1:2], on_error="skip")
    with pytest.raises(ResidscopeError, match="`ablate_many` takes many caches, but was given one: use `ablate`"):
        many(good[0][0])
    with pytest.raises(ResidscopeError, match=r'^Item 0: `of="heads"` is not known'):
        many(good, of="heads", on_error="skip")
    with pytest.raises(ResidscopeError, match='"positions", "replace", "tokens"'):
        many([(*good[0], {"logits": 1})])


def test_two_processes_share_the_items(monkeypatch):
    """The two processes run one after the other here, and the second gets the results of the first."""
    run, done = of("llama"), []

    def together(_, work):
        done.append(work())
        return list(done)

    wanted = many(cut(run))
    monkeypatch.setattr(Processes, "together", together)
    ranks = [SimpleNamespace(num_processes=2, process_index=rank) for rank in range(2)]
    found = [many(cut(run), accelerator=rank) for rank in ranks][-1]
    assert found.items == wanted.items
    assert torch.equal(found.total, wanted.total)
    close(found.std(), wanted.std())


def test_results_are_tables_and_figures():
    run = of("llama")
    found, summary = many(cut(run)), many(cut(run), keep="summary")
    frames = found.to_frame(), summary.to_frame()
    assert list(frames[0].columns)[:4] == ["total", "total std", "total sem", "direct"]
    for frame in frames:
        assert frame["indirect sem"]["L1H2"] == pytest.approx(float(found.sem("indirect")[1, 2]), rel=1e-5)
    assert list(found.to_frame(3).columns) == list(EFFECTS)
    assert float(found.to_frame(3)["total"]["L1H2"]) == pytest.approx(float(found.total[1, 2, 3]))
    for one in (found, summary):
        assert "as in the cache" in repr(one)
        assert one.to_plotly().data[0].z[1][2] == pytest.approx(float(found.mean()[1, 2]), rel=1e-4)
    alone = many(cut(run)[:1])
    assert bool((alone.std() == 0).all() & alone.sem().isnan().all())
