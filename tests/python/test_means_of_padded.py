"""A mean over padded prompts is, at each position, the mean over the prompts in which it is not padding.

Expected values: each prompt is run alone, without padding, and its values are averaged in float64, cell by cell.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch

import residscope
from residscope import targets
from residscope.cache.view import CacheView
from residscope.patterns import weighting as weightings
from residscope.patterns.downsampling import down_sampled
from residscope.serving import turns
from residscope.serving.service import Service
from residscope.terms import Against
from residscope.wire.attention import BlendAttention, ReadAttention, ReadThumbnails
from residscope.wire.causes import MeasureEffects
from residscope.wire.comparisons import Compare
from residscope.wire.decompositions import Attribute, MapPositions, RankNeurons
from residscope.wire.features import ReadFeatures
from residscope.wire.predictions import ReadHeadTokens, ReadNextTokens, ReadTokenLens
from residscope.wire.shown import Shown
from residscope.wire.targets import Suggest
from tests.support import saes, tiny
from tests.support.copied import ran, written
from tests.support.rows import labels_of

PROMPTS = [[5, 6, 7, 5, 6], [9, 10, 9], [11, 12, 11, 12]]
OFFSETS = {"right": (0, 0, 0), "left": (2, 4, 3), "both": (2, 0, 1)}
WIDTH = 7
PAIRS = [("w5", "w9"), ("w6", "w8"), ("w9", "w5")]
WEIGHTINGS = ("pattern", "value", "contribution")
HEADS = ["L2H3", "L0H1"]


@pytest.fixture(scope="module", params=OFFSETS)
def padded(request):
    """Three prompts of different lengths in rows of seven tokens, and the runs of each prompt alone."""
    model, offsets = tiny.boot("llama"), OFFSETS[request.param]
    tokens = torch.full((3, WIDTH), model.tokenizer.pad_token_id)
    mask = torch.zeros(3, WIDTH, dtype=torch.long)
    alone = []
    with torch.no_grad():
        for row, (offset, prompt) in enumerate(zip(offsets, PROMPTS, strict=True)):
            tokens[row, offset : offset + len(prompt)] = torch.tensor(prompt)
            mask[row, offset : offset + len(prompt)] = 1
            alone.append(model.run_with_cache(torch.tensor([prompt]))[1])
        _, cache = model.run_with_cache(tokens, attention_mask=mask)
        _, other = model.run_with_cache((tokens + 1) * mask, attention_mask=mask)
        others = [model.run_with_cache(torch.tensor([prompt]) + 1)[1] for prompt in PROMPTS]
    return SimpleNamespace(
        side=request.param, cache=cache, alone=alone, other=other, others=others, mask=mask, offsets=offsets
    )


def mean_of(run, each: list[torch.Tensor], axes: int) -> torch.Tensor:
    """Return the mean of values `[…, position]` or `[…, destination, source]` of the prompts, cell by cell."""
    shape = each[0].shape[: each[0].ndim - axes]
    total, count = torch.zeros(*shape, *[WIDTH] * axes).double(), torch.zeros([WIDTH] * axes).double()
    for offset, values in zip(run.offsets, each, strict=True):
        for place in product(range(values.shape[-1]), repeat=axes):
            there = tuple(offset + at for at in place)
            total[(..., *there)] += values[(..., *place)].double()
            count[there] += 1
    return total / count


def same(found, true: torch.Tensor) -> None:
    found = found.double() if isinstance(found, torch.Tensor) else torch.tensor(np.array(found, dtype=float))
    torch.testing.assert_close(found, true.double(), atol=2e-5, rtol=2e-4, equal_nan=True)


def maps_of(run, weighting: str) -> torch.Tensor:
    each = [
        residscope.attention(cache, HEADS, weighting=weighting, answers=answers).values
        for cache, answers in zip(run.alone, PAIRS, strict=True)
    ]
    return mean_of(run, each, 2)


def sent(service: Service, request, kind) -> tuple[torch.Tensor, list[str]]:
    """Return a map as the service sends it, and its notes."""
    reply, buffers = service.reply(request)
    parts = getattr(reply, "parts", None) or [reply.part]
    part, buffer = next((p, b) for p, b in zip(parts, buffers, strict=True) if p.what == kind)
    assert part.wide or kind in ("reads", "brings")
    values = torch.from_numpy(np.frombuffer(buffer, np.float32).copy()) * part.scale
    if not part.triangle:
        return (values if kind in ("reads", "brings") else values.unflatten(0, (WIDTH, WIDTH))), reply.notes
    square = torch.zeros(WIDTH, WIDTH)
    square[torch.ones(WIDTH, WIDTH).tril().bool()] = values
    return square, reply.notes


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_attention_maps(padded, weighting, monkeypatch):
    true = maps_of(padded, weighting)
    if weighting == "pattern":
        own = [cache["pattern", 2][0, 3] for cache in padded.alone]
        same(true[0], mean_of(padded, own, 2))
    result = residscope.attention(padded.cache, HEADS, weighting=weighting, answers=PAIRS)
    same(result.values, true)
    assert bool(result.values.isnan().any())  # some position is padding in every prompt, or no prompt has both
    assert any("a cell is the mean over the prompts in which neither" in note for note in result.notes)
    assert any("begin at different positions" in note for note in result.notes) == (padded.side != "right")
    assert result.to_plotly().to_json()
    known = sorted(true[~true.isnan()].abs().tolist(), reverse=True)
    assert [abs(value) for *_, value in result.top(4)] == pytest.approx(known[:4], abs=2e-5)
    assert len(result.top(1000)) == len(known)
    assert "nan" not in repr(result)
    monkeypatch.setattr(weightings, "CELLS", 100)
    monkeypatch.setattr(weightings, "STRIP", 20)
    same(residscope.attention(padded.cache, HEADS, weighting=weighting, answers=PAIRS).values, true)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_attention_maps_of_the_panel_and_its_code(padded, weighting):
    service = Service(padded.cache)
    target, true = service.targets().resolve(PAIRS), maps_of(padded, weighting)
    one, notes = sent(service, ReadAttention(2, 3, target, weighting=weighting), weighting)
    same(one, true[0])
    assert any("neither its destination nor its source is padding" in note for note in notes)
    shown = Shown(target, heads=HEADS, weighting=weighting)
    same(ran(written(service, "attention", shown), cache=padded.cache), true)
    every = [residscope.attention(padded.cache, [(2, head) for head in range(4)], weighting=weighting, answers=PAIRS)]
    layer = every[0].values.sum(0) if weighting == "contribution" else every[0].values.mean(0)
    same(sent(service, BlendAttention(2, target, weighting=weighting), weighting)[0], layer)
    for side in (WIDTH, 4):
        reply, [buffer] = service.reply(ReadThumbnails(2, target, weighting=weighting, side=side))
        assert reply.limits is not None
        limit = reply.limits[3]
        assert limit is not None
        cells = torch.from_numpy(np.frombuffer(buffer, np.int8).copy()).view(4, reply.side, reply.side)[3]
        small = down_sampled(true[:1], 1 if side == WIDTH else 2)[0]
        assert bool((cells == -128).equal(small.isnan()))
        found = (cells.double() * limit / 127).masked_fill(cells == -128, math.nan)
        torch.testing.assert_close(found, small, atol=limit / 250, rtol=0, equal_nan=True)


@pytest.mark.parametrize("position", ["last", 2, 4])
def test_what_the_tokens_above_are_coloured_by(padded, position):
    """Each prompt's own destination, or the same one in all prompts. Contributions keep their sum."""
    service = Service(padded.cache)
    target = service.targets().resolve(PAIRS)
    for kind, weighting in (("reads", "pattern"), ("brings", "contribution")):
        total, count = torch.zeros(WIDTH).double(), torch.zeros(WIDTH).double()
        for cache, answers, offset, prompt in zip(padded.alone, PAIRS, padded.offsets, PROMPTS, strict=True):
            at = len(prompt) - 1 if position == "last" else position - offset
            if 0 <= at < len(prompt):
                maps = residscope.attention(cache, "L2H3", weighting=weighting, answers=answers).values[0]
                total[offset : offset + len(prompt)] += maps[at]
                count[slice(offset, offset + len(prompt)) if kind == "reads" else slice(None)] += 1
        found, _ = sent(service, ReadAttention(2, 3, target, position=position), kind)
        same(found, total / count)


def real_at(run, position: int) -> list[tuple]:
    """Return the prompts in which a position is real: the number, the run, the answer, and the position in it."""
    every = zip(range(3), run.alone, PAIRS, run.offsets, PROMPTS, strict=True)
    return [
        (at, cache, answers, position - offset)
        for at, cache, answers, offset, prompt in every
        if 0 <= position - offset < len(prompt)
    ]


@pytest.mark.parametrize("position", range(WIDTH))
@pytest.mark.parametrize("by", ["layer", "accumulated", "head"])
def test_one_position_of_all_prompts(padded, by, position):
    """Charts, spread, dots, badge, Python, figures and copied code."""
    service = Service(padded.cache)
    target, there = service.targets().resolve(PAIRS), real_at(padded, position)
    result = residscope.attribute(padded.cache, PAIRS, by=by, position=position)
    noted = f"Position {position} is padding in "
    assert [noted in note for note in result.notes].count(True) == (len(there) < 3)
    request = Attribute(by, target, position=position)
    if not there:
        assert bool(result.mean().isnan().all() & result.std().isnan().all())
        assert result.top() == []
        assert repr(result)
        with pytest.raises(residscope.ResidscopeError, match="padding in all 3 prompts, so their mean has no values"):
            service.reply(request)
        assert np.isfinite(np.frombuffer(service.reply(Attribute(by, target, 0, position))[1][0], np.float32)).any()
        return
    each = [residscope.attribute(cache, answers, by=by, position=at) for _, cache, answers, at in there]
    rows = torch.cat([one.values.double() for one in each], 1)
    spread = torch.cat([(one.values + one.constant * (by == "accumulated")).double() for one in each], 1)
    same(result.mean(), rows.mean(1))
    same(result.std(), rows.std(1, correction=int(len(there) > 1)))
    strong = residscope.attribution.result.strongest(rows.mean(1)[: result.parts], 3)
    assert [name for name, _ in result.top(3)] == [result.labels[at] for at in strong]
    assert f"measured {torch.cat([one.measured for one in each]).mean():+.3f}" in repr(result)
    reply, [values, std, per_prompt, _] = service.reply(request)
    same(np.frombuffer(values, np.float32), rows.mean(1))
    same(np.frombuffer(std, np.float32), spread.std(1, correction=int(len(there) > 1)))
    dots = np.frombuffer(per_prompt, np.float32).reshape(-1, 3)
    same(dots[:, [at for at, *_ in there]], rows)
    assert np.isfinite(dots).sum() == rows.numel()
    assert reply.prompts == len(there)
    assert reply.measured == pytest.approx(float(torch.cat([one.measured for one in each]).mean()), abs=2e-5)
    total = rows.mean(1)[-1 if by == "accumulated" else slice(None)].sum()
    assert reply.measured == pytest.approx(float(total) + reply.constant + reply.unexplained, abs=1e-4)
    assert any(noted in note for note in reply.notes) == (len(there) < 3)
    ones = service.reply(Attribute(by, target, position=position, padding="none"))[0]
    assert (ones.prompts, any("is padding in" in note for note in ones.notes)) == (3, False)
    shown = Shown(target, position=position)
    shown_rows = rows + (by == "accumulated") * torch.cat([one.constant for one in each])
    picture = {"layer": "layers", "accumulated": "lens", "head": "heads"}[by]
    code = written(service, picture, shown)
    same(ran(code, cache=padded.cache).flatten(), shown_rows.mean(1)[: result.parts if by == "head" else None])
    assert (f"{len(there)} of 3 prompts" in code) == (len(there) < 3)
    if by == "layer":
        return
    heads = ["L2H3"] if by == "head" else []
    row = shown_rows[result.labels.index("L2H3") if heads else -1]
    one = ran(written(service, "prompts", Shown(target, position=position, heads=heads)), cache=padded.cache)
    same(one[[at for at, *_ in there]], row)
    assert np.isfinite(one).sum() == len(there)


def alone_changes(run, position: int, hook: str, at: tuple) -> torch.Tensor:
    """Return how zeros in an activation change the target, in hooked runs of the prompts that are real there, alone.

    Args:
        run: The prompts.
        position: Where the target is read.
        hook: The activation's hook.
        at: The entries that become zero, as index `(position, …)`. The position counts in the padded row. None: all.
    """
    changes = []
    for number, _, pair, own in real_at(run, position):
        answer, distractor = run.cache.model.tokenizer.convert_tokens_to_ids(list(pair))
        place = slice(None) if at[0] is None else at[0] - run.offsets[number]

        def zero(held, place=place, **_):
            held = held.clone()
            held[(slice(None), place, *at[1:])] = 0
            return held

        if at[0] is not None and not 0 <= place < len(PROMPTS[number]):
            continue
        with torch.no_grad():
            logits = [
                run.cache.model.run_with_hooks(torch.tensor([PROMPTS[number]]), fwd_hooks=hooks)[0, own].double()
                for hooks in ([], [(hook, zero)])
            ]
        changes.append((logits[1] - logits[0])[answer] - (logits[1] - logits[0])[distractor])
    return torch.stack(changes) if changes else torch.full((1,), math.nan)


def measured(service: Service, request: MeasureEffects) -> tuple:
    """Send a request and give turns until everything is measured. Return the reply and its buffers."""
    reply, buffers = service.reply(request, gives_turns=True)
    while reply.state == "waiting":
        turns.take(reply.turn)
        reply, buffers = service.reply(request, gives_turns=True)
    return reply, [np.frombuffer(buffer, np.float32) for buffer in buffers]


@pytest.mark.parametrize("position", [3, 6])
def test_effects_on_a_target_at_one_position(padded, position):
    """Python, the panel and copied code."""
    cells, there = [(layer, head) for layer in range(3) for head in range(4)], real_at(padded, position)
    ablation = residscope.ablate(padded.cache, PAIRS, position=position, progress=False)
    noted = f"Position {position} is padding in "
    assert [noted in note for note in ablation.notes].count(True) == (len(there) < 3)
    service = Service(padded.cache)
    request = MeasureEffects(service.targets().resolve(PAIRS), position=position)
    gone = sorted(set(range(3)) - {number for number, *_ in there})
    for number in gone:
        with pytest.raises(residscope.ResidscopeError, match="of this prompt is padding, so there are no effects"):
            service.reply(msgspec.structs.replace(request, prompt=number), gives_turns=True)
    if not there:
        assert bool(ablation.total.isnan().all() & ablation.direct.isnan().all() & ablation.before.isnan().all())
        assert ablation.top() == []
        assert "an unchanged run is as in the cache; total: not known" in repr(ablation)
        with pytest.raises(residscope.ResidscopeError, match="padding in all 3 prompts, so their mean has no values"):
            service.reply(request, gives_turns=True)
        return
    each = torch.stack(
        [alone_changes(padded, position, f"blocks.{at}.attn.hook_z", (None, head)) for at, head in cells]
    )
    same(ablation.total[..., [number for number, *_ in there]].flatten(0, 1), each)
    assert bool(ablation.total[..., gone].isnan().all())
    same(ablation.of("total"), each.mean(-1))
    best = sorted(zip(ablation.labels, each.mean(-1).tolist(), strict=True), key=lambda one: -abs(one[1]))
    assert [name for name, _ in ablation.top(3)] == [name for name, _ in best[:3]]
    one = [residscope.attribute(cache, own, position=at, by="head") for _, cache, own, at in there]
    direct = torch.cat([result.grid for result in one], -1).double().mean(-1).flatten()
    same(-ablation.of("direct"), direct)
    before = float(torch.cat([result.measured for result in one]).mean())
    count = "prompts" if len(there) == 3 else f"{len(there)} of 3 prompts"
    assert ablation.replayed.startswith(f"an unchanged run gives {before:+.2f} (mean over {count})".replace("-", "−"))
    reply, [total, own, estimate] = measured(service, request)
    same(total, -each.mean(-1))
    same(own, direct)
    guess = [residscope.estimate(cache, "zero", own, position=at).effects for _, cache, own, at in there]
    same(estimate, -torch.cat(guess, -1).double().mean(-1).flatten())
    same(residscope.estimate(padded.cache, "zero", PAIRS, position=position).of(), -torch.tensor(estimate))
    assert (reply.prompts, reply.before) == (len(there), pytest.approx(before, abs=2e-5))
    assert any(noted in note for note in reply.notes) == (len(there) < 3)
    for effect, values in (("total", total), ("estimate", estimate)):
        code = written(service, "heads", Shown(request.target, position=position, effect=effect))
        same(ran(code, cache=padded.cache).flatten(), torch.tensor(values))
        assert (f"{len(there)} of 3 prompts" in code) == (len(there) < 3)
    namespace = {"cache": padded.cache}
    exec(written(service, "runs", Shown(request.target, position=position, effect="total")), namespace)
    for found, values in zip(namespace["values"], (own, total), strict=True):
        same(found.flatten(), torch.tensor(values))


def test_effects_on_a_target_at_padding_that_counts_as_real(padded):
    service = Service(padded.cache)
    request = MeasureEffects(service.targets().resolve(PAIRS), position=3, padding="none")
    reply, [total, *_] = measured(service, request)
    assert (reply.prompts, any("is padding in" in note for note in reply.notes)) == (3, False)
    each = [measured(service, msgspec.structs.replace(request, prompt=prompt))[1][0] for prompt in range(3)]
    same(total, torch.tensor(np.stack(each)).double().mean(0))


def test_effects_of_the_stream_on_a_target_at_one_position(padded):
    service = Service(padded.cache)
    request = MeasureEffects(service.targets().resolve(PAIRS), "stream", position=3)
    _, [total, _, _] = measured(service, request)
    places = [(layer, place) for layer in range(3) for place in range(4)]
    true = [alone_changes(padded, 3, f"blocks.{layer}.hook_resid_pre", (place,)).mean() for layer, place in places]
    same(total.reshape(3, WIDTH)[:, :4].ravel(), -torch.stack(true))
    code = written(service, "stream", Shown(request.target, position=3, effect="total"))
    same(ran(code, cache=padded.cache)[:, :4].flatten(), -torch.stack(true))
    assert "2 of 3 prompts" in code


PATHS_AND_EDGES = {
    "one run": {"heads": ["L0H1", "L1H3"], "together": True},
    "path to a query": {"heads": ["L0H1", "L1H3"], "path": "L2H3.q"},
    "path to the logits": {"heads": ["L0H1", "L1H3"], "path": "logits"},
    "path through a frozen norm": {"heads": ["L0H1", "L1H3"], "path": "logits", "norm": "frozen"},
    "edges": {"heads": ["L0H1"], "edges": [(3, 3)]},
    "edges in one run": {"heads": ["L0H1", "L1H3"], "edges": [(3, 3)], "together": True},
}


@pytest.mark.parametrize("options", PATHS_AND_EDGES.values(), ids=PATHS_AND_EDGES)
def test_effects_of_paths_and_edges_on_a_target_at_one_position(padded, options):
    found = residscope.ablate(padded.cache, PAIRS, position=3, progress=False, **options)
    each = []
    for _, cache, own, at in real_at(padded, 3):
        given = options | ({"edges": [(at, at)]} if "edges" in options else {})
        each.append(residscope.ablate(cache, own, position=at, progress=False, **given).of("total").double())
    same(found.of("total"), torch.stack(each).mean(0))
    assert [note for note in found.notes if "Position 3 is padding in 1 of 3 prompts" in note]


@pytest.mark.parametrize("at", ["q", "resid_pre"])
def test_patching_of_a_target_at_one_position(padded, at):
    found = residscope.patch(padded.cache, padded.other, PAIRS, at=at, position=3, progress=False)
    each = [
        residscope.patch(cache, padded.others[number], own, at=at, position=place, progress=False)
        for number, cache, own, place in real_at(padded, 3)
    ]
    same(found.of(), torch.cat([one.effects for one in each], -1).double().mean(-1).flatten())
    same(found.of(normalized=True), torch.cat([one.normalized for one in each], -1).double().nanmean(-1).flatten())
    same(found.source.nanmean(), torch.cat([one.source for one in each]).mean())
    assert len(found.source) == len(found.before) == 3
    most = residscope.effects(padded.cache, padded.other, PAIRS, measure=2, at=at, position=3, progress=False)
    assert int(most.measured.sum()) == 2
    same(most.of()[most.measured.flatten()], found.of()[most.measured.flatten()])


@pytest.mark.parametrize("keep", ["values", "summary"])
def test_effects_over_many_caches(padded, keep):
    options = {"position": 3, "progress": False}
    many = residscope.ablate_many([padded.cache, padded.other], PAIRS, keep=keep, **options)
    each = [
        residscope.ablate(cache, own, **(options | {"position": at})).total
        for number, first, own, at in real_at(padded, 3)
        for cache in (first, padded.others[number])
    ]
    values = torch.cat(each, -1).double()
    same(many.mean(), values.mean(-1))
    same(many.std(), values.std(-1))
    notes = [note for note in many.notes if "padding" in note]
    (number,) = {0, 1, 2} - {number for number, *_ in real_at(padded, 3)}
    assert notes == [
        f"In 2 of 6 prompts ({number} and {number + 3}) the position at which the target is read is padding. Effects "
        "there are NaN, and are left out of means."
    ]
    assert "(mean over 4 of 6 prompts)" in repr(many)


@pytest.mark.parametrize("position", [2, 4])
def test_neurons_and_features_at_one_position(padded, position):
    sae = saes.TopK(24, hook_name="blocks.1.hook_mlp_out")
    service, there = Service(padded.cache, saes={"sae": sae}), real_at(padded, position)
    target = service.targets().resolve(PAIRS)
    for by, request in (
        ("neuron", RankNeurons(target, position=position)),
        ("feature", ReadFeatures(target, position=position, k=50)),
    ):
        options = {"by": by, "sae": sae if by == "feature" else None}
        alone = [residscope.attribute(cache, own, position=at, **options) for _, cache, own, at in there]
        every = [dict(zip(one.labels, one.values[:, 0].tolist(), strict=True)) for one in alone]
        # In a prompt in which a feature is not active, it has no row.
        rows = {name: sum(one.get(name, 0) for one in every) / len(there) for one in every for name in one}
        reply, buffers = service.reply(request)
        same(np.frombuffer(buffers[0], np.float32), torch.tensor([rows[label] for label in labels_of(reply)]))
        assert any(f"is padding in {3 - len(there)} of 3" in note for note in reply.notes) == (len(there) < 3)
        if by == "feature":
            assert reply.active == len({name for one in every for name in one if name[0] == "F"})
            assert reply.prompts == len(there)
            assert reply.total == pytest.approx(reply.measured, abs=1e-4)
            continue
        code = written(service, "ranking", Shown(target, position=position, ranking="neurons"))
        best = torch.tensor([rows[name] for name in alone[0].labels[: alone[0].parts]])
        same(ran(code, cache=padded.cache), best[residscope.attribution.result.strongest(best, 5)])


@pytest.mark.parametrize("position", range(WIDTH))
@pytest.mark.parametrize("by", ["layer", "accumulated", "head", "source"])
def test_two_runs_at_one_position(padded, by, position):
    there, options = real_at(padded, position), {"by": by} | ({"heads": HEADS} if by == "source" else {})
    result = residscope.compare(padded.cache, padded.cache, PAIRS, position=position, **options)
    assert bool(result.mean().isnan().all()) == (not there)
    assert result.to_plotly().to_json()
    assert repr(result)
    if not there:
        assert result.top() == []
        return
    each = [residscope.attribute(cache, own, position=at, **options).values.double() for _, cache, own, at in there]
    if by == "source":  # sources have other indices in a prompt alone
        each = [one.sum(0, keepdim=True) for one in each]
        same(result.first.mean().sum(0, keepdim=True), torch.cat(each, -1).mean(-1))
        assert result.std().shape == (WIDTH, len(HEADS))
        assert result.first.top(2)
        return
    rows = torch.cat(each, 1)
    for run in (result.first, result.second):
        same(run.mean(), rows.mean(1))
        same(run.std(), rows.std(1, correction=int(len(there) > 1)))
    assert any("is padding in" in note for note in result.notes) == (len(there) < 3)


@pytest.mark.parametrize("position", ["last", 2, 4])
def test_two_runs_by_source(padded, position):
    """Sources of every prompt are in the mean: a contribution of padding is 0, and so the rows keep their sum."""
    options = {"by": "source", "heads": HEADS, "position": position}
    one = residscope.attribute(padded.cache, PAIRS, **options)
    result = residscope.compare(padded.cache, padded.cache, PAIRS, **options)
    for own in (lambda each: each.mean(), lambda each: each.std()):
        same(own(result.first), own(one))
        same(own(result), own(one) * 0)
    assert result.first.top(3) == one.top(3)


@pytest.mark.parametrize("position", range(WIDTH))
@pytest.mark.parametrize("by", ["layer", "accumulated", "head"])
def test_the_panel_compares_prompts_that_have_a_token_there(padded, by, position, monkeypatch):
    names = {"cache": padded.cache, "other": padded.other, "residscope": residscope}
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: SimpleNamespace(user_ns=names))
    service, there = Service(padded.cache), real_at(padded, position)
    target, against = service.targets().resolve(PAIRS), Against("other")
    request = Compare(by, target, against, None, position)
    if not there:
        with pytest.raises(residscope.ResidscopeError, match="padding in all 3 prompts"):
            service.reply(request)
        return
    reply, buffers = service.reply(request)
    runs = [
        [
            residscope.attribute(cache, own, by=by, position=at)
            for cache, (_, _, own, at) in zip(some, there, strict=True)
        ]
        for some in ([one[1] for one in there], [padded.others[one[0]] for one in there])
    ]
    rows = [torch.cat([one.values.double() for one in run], 1).mean(1) for run in runs]
    for found, sums, true, run in zip(buffers, (reply.first, reply.second), rows, runs, strict=False):
        same(np.frombuffer(found, np.float32), true)
        assert sums.measured == pytest.approx(float(torch.cat([one.measured for one in run]).mean()), abs=2e-5)
    written_part, read_part = (np.frombuffer(buffer, np.float32) for buffer in buffers[2:])
    same(written_part + read_part, rows[1] - rows[0])
    assert reply.prompts == len(there)
    assert any(f"is padding in {3 - len(there)} of 3" in note for note in reply.notes) == (len(there) < 3)
    picture = {"layer": "layers", "accumulated": "lens", "head": "heads"}[by]
    shown = Shown(target, position=position, against=against, run="first")
    namespace = {"cache": padded.cache, "other": padded.other}
    exec(written(service, picture, shown), namespace)
    values = namespace["values"] if by == "head" else namespace["values"][0]
    shift = sum(one.constant.double() for one in runs[0]) / len(there) if by == "accumulated" else 0
    same(values.flatten(), (rows[0] + shift)[: values.numel()])


def test_two_runs(padded):
    service = Service(padded.cache)
    target, true = service.targets().resolve(PAIRS), maps_of(padded, "pattern")
    result = residscope.compare_attention(padded.cache, padded.cache, HEADS)
    same(result.first.values, true)
    same(result.values, true * 0)
    assert [value for *_, value in result.top(2)] == [0, 0]
    assert any("neither its destination" in note for note in result.notes)
    assert service.reply(ReadAttention(2, 3, target, prompt=0))[0].notes == []


@pytest.mark.parametrize("by", ["layer", "head"])
def test_compared_runs_and_many_caches_at_every_position(padded, by):
    options = {"by": by, "position": "all"}
    each = [
        residscope.attribute(cache, answers, **options).values[:, 0]
        for cache, answers in zip(padded.alone, PAIRS, strict=True)
    ]
    result = residscope.compare(padded.cache, padded.cache, PAIRS, **options)
    for run in (result.first, result.second):
        same(run.mean(), mean_of(padded, each, 1))
    no_prompt = (padded.mask == 0).all(0)
    same(result.mean(), torch.zeros(len(result.labels), WIDTH).masked_fill(no_prompt, math.nan))
    for keep in ("values", "summary"):
        many = residscope.attribute_many([padded.cache], PAIRS, keep=keep, progress=False, **options)
        assert any("Means over prompts include them" in note for note in many.notes)
    without = residscope.attribute_many(padded.alone[:1], PAIRS[0], progress=False, **options)
    assert not any("Means over prompts" in note for note in without.notes)


def test_with_padding_that_counts_as_real_all_prompts_count(padded):
    service = Service(padded.cache)
    target = service.targets().resolve(PAIRS)
    true = padded.cache["pattern", 2][:, 3].double().mean(0)
    for padding in ("none", "found"):
        request = ReadAttention(2, 3, target, padding=padding)
        one, notes = sent(service, request, "pattern")
        assert bool(one.isnan().any()) == (padding == "found")
        if padding == "none":
            same(one, true)
            assert not any("neither its destination" in note for note in notes)
    ones = torch.ones(3, WIDTH, dtype=torch.long)
    same(residscope.attention(padded.cache, "L2H3", attention_mask=ones).values[0], true)


@pytest.mark.parametrize("position", range(WIDTH))
def test_suggested_targets_and_the_tokens_that_a_head_writes(padded, position):
    there, service = real_at(padded, position), Service(padded.cache)
    asks = (Suggest(position=position, k=5), ReadHeadTokens(2, 3, position=position, k=2))
    if not there:
        for ask in asks:
            with pytest.raises(
                residscope.ResidscopeError, match="padding in all 3 prompts, so their mean has no values"
            ):
                service.reply(ask)
        return
    model = CacheView(padded.cache).model
    with torch.no_grad():
        each = [model(torch.tensor([PROMPTS[at]]))[0, place].double().softmax(-1) for at, _, _, place in there]
    top = torch.stack(each).mean(0).topk(5)
    found = service.reply(asks[0])[0].predictions
    assert [one.token.id for one in found] == top.indices.tolist()
    same([one.probability for one in found], top.values)
    # The source, too, is a token of a prompt in the mean, and has the most attention of those.
    paid = [(at, cache["pattern", 2][0, 3, place], cache, place) for at, cache, _, place in there]
    by_source: dict[int, list] = {}
    for at, row, cache, place in paid:
        for source, weight in enumerate(row.tolist()):
            by_source.setdefault(padded.offsets[at] + source, []).append((weight, cache, place, source))
    reply = service.reply(asks[1])[0]
    assert reply.source == max(by_source, key=lambda at: sum(one[0] for one in by_source[at]) / len(by_source[at]))
    for one in (*reply.output_top, *reply.output_bottom):
        rows = [residscope.attribute(cache, one.token.id, position=at).grid[2, 3] for _, cache, _, at in there]
        assert one.value == pytest.approx(float(torch.cat(rows).mean()), abs=2e-5)
    for one in (*reply.source_top, *reply.source_bottom):
        options = {"by": "source", "heads": "L2H3"}
        rows = [
            residscope.attribute(cache, one.token.id, position=at, **options).values[source, 0] / weight
            for weight, cache, at, source in by_source[reply.source]
        ]
        assert one.value == pytest.approx(float(torch.cat(rows).mean()), abs=5e-5)
    assert any(f"Position {position} is padding in" in note for note in reply.notes) == (len(there) < 3)


@pytest.mark.parametrize("position", ["last", 2, 4, 6])
def test_an_attention_score_has_its_own_position(padded, position):
    source = 0 if padded.side == "right" else 4
    service = Service(padded.cache)
    if padded.side == "both":
        source = 2
    target = service.targets().resolve(targets.attention("L1H1", destination="last", source=source))
    result = residscope.attribute(padded.cache, target, by="layer")
    reply, [values, *_] = service.reply(Attribute("layer", target, position=position))
    same(np.frombuffer(values, np.float32), result.values.mean(1))
    assert (reply.prompts, any("is padding" in note for note in reply.notes)) == (3, False)
    code = written(service, "layers", Shown(target, position=position))
    assert "mean over 3 prompts" in code
    same(ran(code, cache=padded.cache), result.values.mean(1))


def test_copied_code_of_all_prompts_works_on_another_device(padded):
    """On `meta` there are no values, but as on a GPU, `masked_fill` refuses a mask on the CPU."""
    service = Service(padded.cache)
    target = service.targets().resolve(PAIRS)
    for position, heads in ((4, []), (4, ["L2H3"])):
        code = written(service, "prompts", Shown(target, position=position, heads=heads)).splitlines()
        names = {"residscope": residscope, "cache": padded.cache}
        exec("\n".join(code[:-3]), names)
        moved = {name: getattr(names["attribution"], name).to("meta") for name in ("values", "constant")}
        names["attribution"] = replace(names["attribution"], **moved)
        [line] = [line for line in code if line.startswith("values = ")]
        exec(line, names)
        assert names["values"].shape == (3,)


def test_of_one_prompt_all_cells_are_shown(padded):
    for at in range(3):
        one = residscope.attention(padded.cache, "L2H3", prompt=at)
        same(one.values[0], padded.cache["pattern", 2][at, 3])


@pytest.mark.parametrize("by", ["layer", "accumulated", "head"])
def test_the_position_map(padded, by):
    each = [
        residscope.attribute(cache, answers, by=by, position="all")
        for cache, answers in zip(padded.alone, PAIRS, strict=True)
    ]
    result = residscope.attribute(padded.cache, PAIRS, by=by, position="all")
    true = mean_of(padded, [one.values[:, 0] for one in each], 1)
    same(result.mean(), true)
    same(result.to_plotly(rows=result.labels).data[0].z, true)
    rows = [one.values[:, 0].double() for one in each]
    assert [name for name, _ in result.top(3)] == [
        result.labels[at]
        for at in residscope.attribution.result.strongest(torch.cat(rows, 1).mean(1)[: result.parts], 3)
    ]
    for place in range(WIDTH):
        there = [
            one[:, place - at] for one, at in zip(rows, padded.offsets, strict=True) if 0 <= place - at < one.shape[1]
        ]
        spread = torch.stack(there).std(0, correction=int(len(there) > 1)) if there else true[:, place]
        same(result.std()[:, place], spread)
    service = Service(padded.cache)
    target = service.targets().resolve(PAIRS)
    heads = HEADS if by == "head" else []
    reply, buffers = service.reply(MapPositions(by, target, heads=heads))
    found = np.frombuffer(buffers[0], np.float32).reshape(-1, WIDTH)
    same(found, true[[each[0].labels.index(label) for label in labels_of(reply)]])
    measured = mean_of(padded, [one.measured[0] for one in each], 1)
    same(np.frombuffer(buffers[1], np.float32), measured)
    assert any("the mean at a position is over the prompts in which it is not padding" in note for note in reply.notes)
    shown = Shown(target, by=by, heads=heads)
    same(ran(written(service, "positions", shown), cache=padded.cache), torch.from_numpy(found.copy()))


def test_sources_at_every_position(padded):
    maps = maps_of(padded, "contribution")
    result = residscope.attribute(padded.cache, PAIRS, by="source", heads=HEADS, position="all")
    same(result.mean().permute(2, 1, 0), maps)


def test_next_tokens(padded):
    service = Service(padded.cache)
    target = service.targets().resolve(targets.next_token())
    reply, [log_prob, _, _, heads] = service.reply(ReadNextTokens(target))
    each = [residscope.attribute(cache, targets.next_token(), position="all") for cache in padded.alone]
    probabilities = [residscope.next_tokens(cache).log_prob for cache in padded.alone]

    def follows(values: list[torch.Tensor]) -> torch.Tensor:
        """The mean without the last token of each prompt, after which nothing follows."""
        return mean_of(padded, [one[..., :-1] for one in values], 1)

    same(np.frombuffer(log_prob, np.float32), follows([one[0] for one in probabilities]))
    grid = follows([one.grid[:, :, 0] for one in each])
    same(np.frombuffer(heads, np.float32).reshape(grid.shape), grid)
    assert any("in which a token follows it" in note for note in reply.notes)
    for by, heads in (("layer", []), ("head", HEADS)):
        reply, [rows, _] = service.reply(MapPositions(by, target, heads=heads))
        alone = [residscope.attribute(cache, targets.next_token(), by=by, position="all") for cache in padded.alone]
        wanted = [alone[0].labels.index(label) for label in labels_of(reply)]
        true = follows([one.values[wanted, 0] for one in alone])
        same(np.frombuffer(rows, np.float32).reshape(true.shape), true)
        code = written(service, "positions", Shown(target, by=by, heads=heads))
        same(ran(code, cache=padded.cache), true)


@pytest.mark.parametrize("keep", ["values", "summary"])
def test_many_caches_and_next_tokens(padded, keep, tmp_path):
    """The last token of each prompt, which nothing follows, is left out of means, also in a resumed call."""
    options = {"by": "layer", "position": "all", "keep": keep, "progress": False, "resume": tmp_path / "saved.npz"}
    items = [(padded.cache, targets.next_token(), {"attention_mask": padded.mask})] * 2
    residscope.attribute_many(items[:1], **options)
    found = residscope.attribute_many(items, **options)
    each = [residscope.attribute(cache, targets.next_token(), by="layer", position="all") for cache in padded.alone]
    true = mean_of(padded, [one.values[:, 0, :-1] for one in each], 1)
    same(found.mean(), true)
    every = residscope.attribute(padded.cache, targets.next_token(), by="layer", position="all").values
    for place in range(WIDTH):
        known = every[:, ~every[0, :, place].isnan(), place].double().repeat(1, 2)
        same(found.std()[:, place], known.std(1) if known.shape[1] else known.new_full((len(every),), math.nan))
    if keep == "summary":
        same(found.average.measured[0], mean_of(padded, [one.measured[0, :-1] for one in each], 1))
    assert not any("Means over prompts include them" in note for note in found.notes)


def test_segments_and_next_tokens(padded):
    """The second segment of prompt 1 is only its last token: it has a value in the other prompts."""
    found = residscope.attribute(padded.cache, targets.next_token(), by="layer", position="all")
    each = [
        residscope.segments(padded.cache, prompt, [("first", at, at + 2), ("rest", at + 2, at + len(PROMPTS[prompt]))])
        for prompt, at in enumerate(padded.offsets)
    ]
    alone = [residscope.attribute(cache, targets.next_token(), by="layer", position="all") for cache in padded.alone]
    rest = (alone[0].values[:, 0, 2:-1].double().sum(1) + alone[2].values[:, 0, 2:-1].double().sum(1)) / 2
    top = {label: value for label, segment, value in found.by_segment(each).top(99) if segment == "rest"}
    same(torch.tensor([top[label] for label in found.labels]), rest)


@pytest.mark.parametrize("position", range(WIDTH))
def test_segments_of_sources_at_one_position(padded, position):
    """The target is read at padding in some of the prompts, whose sources are real tokens all the same."""
    options, there = {"by": "source", "heads": HEADS}, real_at(padded, position)
    found = residscope.attribute(padded.cache, PAIRS, position=position, **options)
    each = [
        residscope.segments(padded.cache, prompt, [("first", at, at + 2), ("rest", at + 2, at + len(PROMPTS[prompt]))])
        for prompt, at in enumerate(padded.offsets)
    ]
    alone = [residscope.attribute(cache, own, position=at, **options).values for _, cache, own, at in there]
    parts = [torch.stack([one[:2].sum(0), one[2:].sum(0)]).double() for one in alone]
    true = torch.cat(parts, -1).mean(-1) if there else torch.full((2, 2), math.nan)
    rolled = found.by_segment(each)
    same(rolled.mean(), true)
    best = sorted(true[~true.isnan()].abs().tolist(), reverse=True)
    assert [abs(value) for *_, value in rolled.top(9)] == pytest.approx(best, abs=2e-5)
    assert sum("is padding in" in note for note in rolled.notes) == (len(there) < 3)
    for prompt, cell in enumerate(each):
        one, is_real = found.by_segment(cell), prompt in [at for at, *_ in there]
        same(one.mean(), rolled.values[..., prompt])
        assert [note for note in one.notes if "is padding" in note] == (
            [] if is_real else ["The position at which this prompt is read is padding."]
        )
    two = found.by_segment(each[:2])
    real = [part for (prompt, *_), part in zip(there, parts, strict=True) if prompt < 2]
    same(two.mean(), torch.cat(real, -1).mean(-1) if real else true * math.nan)
    assert [note.split(":")[0].split(",")[0] for note in two.notes if "is padding" in note] == [
        f"The position is padding in {f'{2 - len(real)} of' if real else 'all'} 2 prompts"
    ] * (len(real) < 2)


@pytest.mark.parametrize("answers", [PAIRS, targets.next_token()], ids=["pairs", "next"])
def test_the_token_lens(padded, answers):
    every = answers if isinstance(answers, list) else [answers] * 3
    each = [
        residscope.token_lens(cache, own, points=["1_mid", "final_post"], k=1000)
        for cache, own in zip(padded.alone, every, strict=True)
    ]
    size = each[0].ids.max() + 1

    def by_id(lens) -> torch.Tensor:
        return torch.zeros(*lens.ids.shape[:2], size).scatter(-1, lens.ids, lens.probabilities).transpose(1, 2)

    whole = mean_of(padded, [by_id(one) for one in each], 1).transpose(1, 2)
    result = residscope.token_lens(padded.cache, answers, points=["1_mid", "final_post"], k=3)
    gone = torch.ones(WIDTH).bool()
    for offset, prompt in zip(padded.offsets, PROMPTS, strict=True):
        gone[offset : offset + len(prompt)] = False
    same(result.probabilities[:, ~gone], whole[:, ~gone].topk(3).values)
    assert bool(result.probabilities[:, gone].isnan().all())
    assert bool((result.ids[:, gone] == -1).all())
    shares = [one.answer_probability if isinstance(answers, list) else one.answer_probability[:, :-1] for one in each]
    same(result.answer_probability, mean_of(padded, shares, 1))
    for place in range(WIDTH):
        there = [
            one.rank[:, place - at]
            for one, at, share in zip(each, padded.offsets, shares, strict=True)
            if 0 <= place - at < share.shape[1]
        ]
        same(result.rank[:, place], torch.stack(there).median(0).values if there else torch.zeros(2))
    assert result.to_plotly().to_json()
    assert repr(result)
    assert result.to_frame().shape == (2, WIDTH)
    service = Service(padded.cache)
    target = service.targets().resolve(answers)
    cells = service.reply(ReadTokenLens(["1_mid", "final_post"], 0, WIDTH, target, k=3))[0].cells
    assert [[not cell.tokens for cell in row] for row in cells] == [gone.tolist()] * 2
    assert [[not cell.probabilities for cell in row] for row in cells] == [gone.tolist()] * 2


def test_values_that_are_not_finite_on_padding_do_not_matter(padded):
    held = dict(padded.cache.items())
    names = [name for name in held if name.endswith(("hook_pattern", "hook_v"))]
    for name in names:
        held[name] = held[name].clone()
        for row in range(3):
            gone = padded.mask[row] == 0
            if name.endswith("hook_v"):
                held[name][row, gone] = 0
            else:
                held[name][row, :, gone] = torch.nan
    view = SimpleNamespace(cache_dict=held, model=CacheView(padded.cache).model, has_batch_dim=True)
    found = residscope.attention(view, HEADS, attention_mask=padded.mask)
    same(found.values, maps_of(padded, "pattern"))


@pytest.mark.parametrize("pool", ["peak", "mean"])
def test_down_sampled_maps_leave_out_empty_cells(pool):
    maps = torch.randn(2, 7, 9, generator=torch.Generator().manual_seed(0))
    maps[:, 5:] = maps[:, :, 7:] = math.nan
    found = down_sampled(maps, 3, pool)
    for at, row, column in product(range(2), range(3), range(3)):
        block = maps[at, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
        known = block[~block.isnan()]
        if not len(known):
            assert math.isnan(found[at, row, column])
            continue
        true = known.mean() if pool == "mean" else known[known.abs().argmax()]
        assert float(found[at, row, column]) == pytest.approx(float(true), abs=1e-6)


@pytest.mark.parametrize("position", ["last", 5])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_run_that_attended_to_padding_has_a_warning_at_every_position(side, masked, position):
    model = tiny.boot("llama")
    tokens = torch.tensor([[0] * 2 + PROMPTS[0], PROMPTS[2] + PROMPTS[1]])
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0
    if side == "right":
        tokens[0], mask[0] = tokens[0].roll(-2), mask[0].roll(-2)
    given = mask if masked else torch.ones_like(mask)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, attention_mask=given)
    service = Service(cache, attention_mask=mask)
    target = service.targets().resolve(PAIRS[0])
    for prompt in (None, 0, 1):
        reply, _ = service.reply(Attribute("head", target, prompt=prompt, position=position))
        attended = side == "left" and not masked and prompt != 1
        assert reply.warnings == ["attended-to-padding"] * attended
        if attended:
            assert any("without a mask over the leading padding" in note for note in reply.notes)
        real, _ = service.reply(Attribute("head", target, prompt=prompt, position=position, padding="none"))
        assert real.warnings == []


@pytest.mark.parametrize("position", ["last", 5])
def test_each_compared_run_that_attended_to_padding_has_a_warning(monkeypatch, position):
    model = tiny.boot("llama")
    tokens = torch.tensor([[0] * 2 + PROMPTS[0], PROMPTS[2] + PROMPTS[1]])
    mask = torch.ones_like(tokens)
    mask[0, :2] = 0
    with torch.no_grad():
        _, masked = model.run_with_cache(tokens, attention_mask=mask)
        _, attended = model.run_with_cache(tokens, attention_mask=torch.ones_like(mask))
    names = {"masked": masked, "attended": attended}
    monkeypatch.setattr("IPython.core.getipython.get_ipython", lambda: SimpleNamespace(user_ns=names))
    target = Service(masked).targets().resolve(PAIRS[0])

    def warned(cache, against, prompt):
        reply, _ = Service(cache, attention_mask=mask).reply(Compare("head", target, against, prompt, position))
        said = [note.split(":")[0] for note in reply.notes if note.endswith("not of the prompts alone.")]
        assert reply.difference.warnings == ["attended-to-padding"] * bool(said)
        return [bool(reply.first.warnings), bool(reply.second.warnings)], said

    for prompt in (None, 0):
        assert warned(masked, Against("attended"), prompt) == ([False, True], ["Second run"])
        assert warned(attended, Against("masked"), prompt) == ([True, False], ["First run"])
    assert warned(masked, Against("attended"), 1) == ([False, False], [])  # this prompt has no padding
    if position == "last":  # prompts of different lengths have no other matched position
        assert warned(attended, Against(None, 0), 1) == ([False, True], ["Second run"])


def test_changed_weights_are_a_warning():
    model = tiny.boot("llama")
    _, _, cache = tiny.run(model)
    service = Service(cache)
    target = service.targets().resolve(PAIRS[0])
    assert service.reply(Attribute("head", target))[0].warnings == []
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.5)
    residscope.attribute(cache, PAIRS[0])  # as before each request of a panel, the weights are compared
    reply, _ = service.reply(Attribute("head", target, prompt=0))
    assert "weights-changed" in reply.warnings
