"""Segments on screen: the requests of the views, the panel's trait, and the code.

Expected: sums in float64 from the cached patterns, values and TransformerLens' weights, cell by cell.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

import residscope
from residscope import ResidscopeError
from residscope.cache.segments import Segment, Segments
from residscope.hosts.inspect import inspect
from residscope.serving import answer_segments
from residscope.serving.service import Service
from residscope.terms import SegmentRange
from residscope.wire.segments import (
    MapSegments,
    RankSegmentHeads,
    ReadSegments,
    SegmentHeadsReply,
    SegmentLabel,
    SegmentsReply,
)
from residscope.wire.shown import Shown, WriteCode
from tests.python.test_segments import Texts
from tests.support import tiny

HEADS = [(layer, head) for layer in range(3) for head in range(4)]


def padded(side: str) -> SimpleNamespace:
    """Two prompts, of 9 and of 6 tokens. The segments of the second begin after its first token."""
    model = tiny.boot("llama")
    torch.manual_seed(2)
    tokens, mask = torch.randint(3, 60, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    mask = mask.flip(1) if side == "left" else mask
    tokens = tokens.masked_fill(mask == 0, 0)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, **({"attention_mask": mask} if side == "left" else {}))
    first = int(mask[1].argmax())
    ranges = [SegmentRange("a", first + 1, first + 3), SegmentRange("b", first + 3, first + 6)]
    service = Service(cache, attention_mask=mask)
    target = service.targets().resolve((5, 6))
    return SimpleNamespace(model=model, cache=cache, mask=mask, ranges=ranges, service=service, target=target)


def by_hand(run: SimpleNamespace, weighting: str, prompt: int) -> torch.Tensor:
    """`[head, destination, source]`, in float64."""
    model, cache = run.model, run.cache
    found: list[torch.Tensor] = []
    final = model.ln_final.weight.detach().double() / cache["ln_final.hook_scale"][prompt].double()
    toward = final * (model.W_U[:, 5] - model.W_U[:, 6]).detach().double()  # [destination, d_model]
    for layer, head in HEADS:
        pattern = cache["pattern", layer][prompt, head].double()
        values = cache["v", layer][prompt].double()
        values = values[:, head // (4 // values.shape[1])]
        written = values @ model.W_O[layer, head].detach().double()  # [source, d_model]
        if weighting == "pattern":
            found.append(pattern)
        elif weighting == "value":
            found.append(pattern * written.norm(dim=-1))
        else:
            found.append(pattern * (toward @ written.T))
    return torch.stack(found)


def segments_in(service: Service, by: Any) -> SegmentsReply:
    reply, _ = service.reply(ReadSegments(by))
    assert isinstance(reply, SegmentsReply)
    return reply


@pytest.mark.parametrize("weighting", ["pattern", "value", "contribution"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_map_has_exact_sums_of_its_cells(side, weighting):
    run = padded(side)
    cells = by_hand(run, weighting, 1)
    first = run.ranges[0].start - 1
    cuts = [(first, first + 1), (first + 1, first + 3), (first + 3, first + 6)]
    for at, (layer, head) in enumerate(HEADS):
        ask = MapSegments(layer, head, run.ranges, run.target, 1, weighting)
        reply, buffers = run.service.reply(ask)
        assert reply.segments == [
            SegmentLabel("…", *cuts[0], named=False), SegmentLabel("a", *cuts[1]), SegmentLabel("b", *cuts[2]),
        ]  # fmt: skip
        values, padding, later = (torch.frombuffer(bytearray(buffer), dtype=torch.float32) for buffer in buffers)
        values = values.reshape(3, 3)
        for to, (start, end) in enumerate(cuts):
            rows = cells[at, start:end]
            size = 1 if weighting == "contribution" else end - start
            for source, (low, high) in enumerate(cuts):
                own = float(rows[:, low:high].sum()) / size
                assert float(values[to, source]) == pytest.approx(own, abs=2e-5)
            whole = float(rows.sum()) / size  # a row and its padding sum to all that is read
            assert float(values[to].sum() + padding[to]) == pytest.approx(whole, abs=2e-5)
        for source, (low, high) in enumerate(cuts[:-1]):
            own = float(cells[at, high : first + 6, low:high].sum(1).mean())
            assert float(later[source]) == pytest.approx(own, abs=2e-5)
        assert bool(later[-1].isnan())
        if weighting == "contribution":
            destination = first + 5
            alone = residscope.attribute(run.cache, (5, 6), position=destination, attention_mask=run.mask)
            assert float(cells[at, destination].sum()) == pytest.approx(float(alone.grid[layer, head, 1]), abs=1e-5)


@pytest.mark.parametrize("weighting", ["pattern", "contribution"])
def test_heads_are_ranked_by_a_cell_or_by_all_that_follows(weighting, monkeypatch):
    run = padded("left")
    cells = by_hand(run, weighting, 1)
    first = run.ranges[0].start - 1
    a, b = slice(first + 1, first + 3), slice(first + 3, first + 6)
    pair = cells[:, b, a].sum((1, 2)) / (1 if weighting == "contribution" else 3)
    later = cells[:, b, a].sum(2).mean(1)
    start = cells[:, first + 1 : first + 6, first].mean(1)
    counted: list[Any] = []
    whole = answer_segments.segment_maps
    monkeypatch.setattr(answer_segments, "segment_maps", lambda *given: counted.append(given) or whole(*given))
    for cell, expected, asked in [
        ({}, pair, (2, 1)),
        ({"destination": 2, "source": 1}, pair, (2, 1)),
        ({"destination": None, "source": 1}, later, (None, 1)),
        ({"destination": None, "source": -3}, start, (None, 0)),
    ]:
        ask = RankSegmentHeads(run.ranges, run.target, 1, weighting, k=5, **cell)
        reply, [buffer] = run.service.reply(ask)
        assert (reply.destination, reply.source, reply.count) == (*asked, 12)
        order = expected.abs().argsort(descending=True)[:5].tolist()
        assert reply.heads == ["L{}H{}".format(*HEADS[at]) for at in order]
        values = np.frombuffer(buffer, np.float32)
        assert values == pytest.approx(expected[order].numpy(), abs=2e-5)
    assert len(counted) == 1  # the maps of all heads are computed once
    with pytest.raises(ResidscopeError, match="last segment"):
        run.service.reply(RankSegmentHeads(run.ranges, run.target, 1, weighting, None, 2))
    with pytest.raises(ResidscopeError, match="no segment"):
        run.service.reply(RankSegmentHeads(run.ranges, run.target, 1, weighting, 7, 2))


def test_heads_that_write_after_the_target_is_read_are_left_out(booted):
    _, _, _, cache = booted("llama")
    service = Service(cache)
    target = service.targets().resolve(residscope.targets.neuron("L1N3"))
    ranges = [SegmentRange("a", 0, 3), SegmentRange("b", 3, 7)]
    reply, [buffer] = service.reply(RankSegmentHeads(ranges, target, 0, "contribution", k=12))
    assert isinstance(reply, SegmentHeadsReply)
    assert (reply.count, len(reply.heads), {name[:2] for name in reply.heads}) == (8, 8, {"L0", "L1"})
    assert any("Without layer 2" in note and "1_mid" in note for note in reply.notes)
    for name, value in zip(reply.heads, np.frombuffer(buffer, np.float32), strict=True):
        ask = MapSegments(int(name[1]), int(name[3]), ranges, target, 0, "contribution")
        assert np.frombuffer(service.reply(ask)[1][0], np.float32)[2] == pytest.approx(value, abs=1e-6)
    with pytest.raises(ResidscopeError, match="do not write before"):
        service.reply(MapSegments(2, 0, ranges, target, 0, "contribution"))


@pytest.fixture
def chat(monkeypatch):
    """A chat of two turns with two sentences each, and its service."""
    pieces = ["<|im_start|>", "user", "\n", "Hi", ".", " Who", "?", "<|im_end|>", "\n",
              "<|im_start|>", "assistant", "\n", "Me", ".", " Bye", ".", "<|im_end|>", "\n"]  # fmt: skip
    model = tiny.boot("llama")
    tokenizer = Texts(*pieces, special=("<|im_start|>", "<|im_end|>"))
    monkeypatch.setattr(model, "_tokenizer", tokenizer)
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([[tokenizer.pieces.index(piece) for piece in pieces]]))
    return SimpleNamespace(cache=cache, service=Service(cache), model=model)


def test_the_rules_that_find_several_segments_are_listed_with_their_counts(chat):
    reply = segments_in(chat.service, None)
    found = {rule.by: rule.count for rule in reply.rules}
    assert found == {by: len(residscope.segments(chat.cache, 0, by)) for by in ("turn", "line", "sentence")}
    assert list(found) == ["turn", "line", "sentence"]
    assert (reply.segments, reply.notes) == ([], [])
    assert reply.turns == [SegmentLabel("user", 0, 9), SegmentLabel("assistant", 9, 18)]
    reply = segments_in(chat.service, "turn")
    assert reply.segments == reply.turns
    with pytest.raises(ResidscopeError, match="No tags were found"):
        chat.service.reply(ReadSegments("tag"))


def test_without_texts_there_is_no_rule(booted, monkeypatch):
    model, _, _, cache = booted("llama")
    monkeypatch.setattr(model, "_tokenizer", None)
    service = Service(cache)
    reply, _ = service.reply(ReadSegments(None, 0))
    assert (reply.rules, reply.turns, reply.segments) == ([], [], [])
    reply, _ = service.reply(ReadSegments([SegmentRange("a", 0, 3)], 0))
    assert [segment.name for segment in reply.segments] == ["a", "…"]


def test_what_cannot_be_shown_is_refused(booted):
    _, _, _, cache = booted("llama")
    service = Service(cache)
    target = service.targets().resolve((5, 6))
    ranges = [SegmentRange("a", 0, 3)]
    for ask in (ReadSegments(ranges), RankSegmentHeads(ranges, target), MapSegments(0, 0, ranges, target)):
        with pytest.raises(ResidscopeError, match="those of one prompt"):
            service.reply(ask)
    with pytest.raises(ResidscopeError, match="outside the prompt"):
        service.reply(ReadSegments([SegmentRange("a", 0, 30)], 0))
    many = [SegmentRange(str(at), at, at + 1) for at in range(70)]
    _, _, long = tiny.run(tiny.boot("llama"), 1, 80)
    with pytest.raises(ResidscopeError, match="71 segments, and this map shows up to 64"):
        Service(long).reply(MapSegments(0, 0, many, target, 0))
    own = service.targets().resolve(residscope.targets.next_token())
    with pytest.raises(ResidscopeError, match="one target for all"):
        service.reply(MapSegments(0, 0, ranges, own, 0, "contribution"))


def test_the_panel_takes_rules_ranges_and_segments(chat):
    found = residscope.segments(chat.cache, 0, [("question", 0, 9)])
    panel = inspect(chat.cache, (5, 6), segments="turn", show=False)
    assert (panel.segments, panel.shown.segments) == ("turn", "turn")
    panel.segments = found
    assert panel.segments == [{"name": "question", "start": 0, "end": 9}]
    assert panel.shown.segments == [SegmentRange("question", 0, 9)]
    panel.segments = [("a", np.int64(0), 3), ("b", 3, torch.tensor(5))]
    assert panel.shown.segments == [SegmentRange("a", 0, 3), SegmentRange("b", 3, 5)]
    panel.segments = panel.segments
    for given, said in [
        ("turns", "`segments='turns'` is not known"),
        (3, "is not known"),
        ([("a", 0)], "not a triple"),
        ([("a", 0, "b")], "unknown form"),
        ([], "has 0 named segments"),
        (Segments((), 0, 8), "has 0 named segments"),
        (Segments((Segment("<bos>", 0, 8, named=False),), 0, 8), "has 0 named segments"),
        (Segments(tuple(Segment("a", at, at + 1) for at in range(1_001)), 0, 1_001), "has 1,001 named.* 1 to 1,000"),
        ([("a", 0, 90)], "outside the prompt"),
        ([("a", 0, 4), ("b", 3, 6)], "overlap"),
        ("tag", "No tags were found"),
    ]:
        with pytest.raises(ResidscopeError, match=said):
            panel.segments = given
        assert panel.shown.segments == [SegmentRange("a", 0, 3), SegmentRange("b", 3, 5)]
    panel.segments = None
    assert panel.shown.segments is None
    panel.close()


def test_ranges_must_lie_in_the_next_cache(booted):
    model, tokens, _, cache = booted("llama")
    panel = inspect(cache, (5, 6), prompt=0, segments=[("a", 0, 7)], show=False)
    with torch.no_grad():
        _, short = model.run_with_cache(tokens[:, :5])
        _, longer = model.run_with_cache(torch.cat([tokens, tokens[:, :2]], 1))
    with pytest.raises(ResidscopeError, match=r"nothing changed\..*outside the prompt"):
        panel.cache = short
    panel.cache = longer
    assert panel.shown.segments == [SegmentRange("a", 0, 7)]
    panel.close()


@pytest.mark.parametrize("weighting", ["pattern", "contribution"])
@pytest.mark.parametrize("by", ["turn", [("question", 0, 9), ("it's", 9, 12)]])
def test_the_code_gives_the_map(chat, by, weighting):
    panel = inspect(chat.cache, (5, 6), segments=by, heads=["L1H2", "L0H1"], show=False)
    panel.weighting, panel.tab = weighting, "segments"
    shown = panel.shown
    code = chat.service.reply(WriteCode("segments", shown))[0].code
    names: dict[str, Any] = {"cache": chat.cache}
    exec(code, names)
    for at, (layer, head) in enumerate([(1, 2), (0, 1)]):
        _, buffers = chat.service.reply(MapSegments(layer, head, shown.segments, shown.target, None, weighting))
        values = np.frombuffer(buffers[0], np.float32)
        np.testing.assert_allclose(names["values"][at].flatten().numpy(), values, atol=1e-6)
    assert [note.text for note in names["figure"].layout.annotations] == ["L1H2", "L0H1"]
    with pytest.raises(ResidscopeError, match="No head is shown"):
        chat.service.reply(WriteCode("segments", msgspec.structs.replace(shown, heads=[])))
    with pytest.raises(ResidscopeError, match="No segments are chosen"):
        chat.service.reply(WriteCode("segments", msgspec.structs.replace(shown, segments=None)))
    panel.close()


def test_a_saved_page_has_the_segments_and_the_maps(chat):
    from residscope.export.snapshot import snapshot

    target = chat.service.targets().resolve((5, 6))
    shown = Shown(target, segments="turn", tab="segments", heads=["L1H2"])
    page = snapshot(chat.service.reply, "cache", shown, "heads", budget=10**9, patience=600.0)
    # The segments are requested twice: for the mean over prompts and for prompt 0. Here, both are the only prompt.
    kinds = [entry.ask["kind"] for entry in page.entries]
    assert (kinds.count("segments"), kinds.count("segment-map"), kinds.count("segment-heads")) == (2, 12, 1)
    assert not [entry.failure for entry in page.entries if entry.failure]
    assert "segments" in [entry.ask.get("picture") for entry in page.entries]
