"""Attention of long prompts. Expected: plain loops for down-sampled values, the whole map for exact values."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import TransformerBridge

import residscope
from residscope.patterns import weighting as weightings
from residscope.patterns.downsampling import MAX_SENT, Part, down_sampled
from residscope.serving.answer_views import packed_map
from residscope.serving.service import Service
from residscope.terms import Span
from residscope.wire.attention import AttentionReply, BlendAttention, ReadAttention, ReadThumbnails
from residscope.wire.envelope import int8
from tests.support import tiny
from tests.support.sizes import Sizes

LONG = 520
WEIGHTINGS = ["pattern", "value", "contribution"]


def brute(values: torch.Tensor, step: int, pool: str) -> torch.Tensor:
    """Down-sample block by block in float64."""
    rows = []
    for top in range(0, values.shape[0], step):
        row = []
        for left in range(0, values.shape[1], step):
            cells = values[top : top + step, left : left + step].double().flatten()
            row.append(cells.mean() if pool == "mean" else cells[cells.abs().argmax()])
        rows.append(torch.stack(row))
    return torch.stack(rows)


def in_pairs(values: torch.Tensor, pool: str) -> torch.Tensor:
    """Down-sample to blocks of 2 × 2, faster than `brute`."""
    corners = torch.stack([values[i::2, j::2].double() for i in (0, 1) for j in (0, 1)])
    return corners.mean(0) if pool == "mean" else corners.gather(0, corners.abs().argmax(0, keepdim=True))[0]


@pytest.mark.parametrize("shape", [(12, 12), (13, 7), (3, 20), (1, 9)])
@pytest.mark.parametrize("step", [1, 2, 5])
@pytest.mark.parametrize("pool", ["peak", "mean"])
def test_each_value_is_the_peak_or_mean_of_its_block(shape, step, pool):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(3))
    for given in (values, values.abs(), -values.abs()):
        small = down_sampled(given[None], step, pool)[0]
        torch.testing.assert_close(small.double(), brute(given, step, pool), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", WEIGHTINGS)
@pytest.mark.parametrize("size", [4, 200])
def test_a_cell_without_a_finite_value_leaves_the_other_cells_of_a_map(size, what, odd):
    values = torch.rand(size, size, generator=torch.Generator().manual_seed(3)).tril() * (1 if what == "pattern" else 9)
    values[3, 1] = odd
    part, buffer = packed_map(what, values)
    assert np.isfinite(part.scale)
    sent = np.frombuffer(buffer, np.float32 if part.wide else np.float16).astype(np.float32) * part.scale
    expected = values[torch.ones_like(values, dtype=torch.bool).tril()].numpy()
    np.testing.assert_allclose(sent, expected, atol=2e-3 * 9)
    limit, cells = int8(values)
    if odd == float("inf"):
        assert not np.isfinite(limit)
        assert not cells.any()
        return
    assert limit == values[values.isfinite()].abs().max()
    assert cells.eq(-128).equal(values.isnan())
    others = values.nan_to_num(0.0)
    torch.testing.assert_close(
        cells.float().masked_fill(cells == -128, 0) * limit / 127, others, atol=limit / 250, rtol=0
    )
    assert not np.isfinite(int8(values * odd)[0])  # no value is known


def test_no_more_values_are_sent_than_a_picture_has_and_a_line_is_sent_whole():
    sides = [1, 15, 512, 513, 1000, 4096, 20_000]
    for rows, columns in [(a, b) for a in sides for b in (a, 1)]:
        step = Part(range(rows), range(columns), False).step
        assert -(-rows // step) * -(-columns // step) <= MAX_SENT
        assert step == 1 or rows * columns > MAX_SENT


@pytest.fixture(scope="module", params=["native", "gated"])
def long(request):
    """The kind of the heads (plain or gated), the model, a cache of two long prompts, and a layer and head."""
    if request.param == "gated":
        model = tiny.boot("qwen3_5_text")
    else:
        settings = {"d_model": 24, "d_head": 6, "n_layers": 2, "n_heads": 4, "n_ctx": LONG, "d_mlp": 40, "d_vocab": 64}
        model = TransformerBridge.boot_native(settings | {"seed": 0})
    torch.manual_seed(1)
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.randint(3, tiny.VOCAB, (2, LONG)))
    return request.param, model, cache, (3, 1) if request.param == "gated" else (1, 2)


def unpacked(reply: AttentionReply, buffers: list[bytes], what: str) -> torch.Tensor:
    rows, columns = (span or Span(0, reply.positions) for span in (reply.rows, reply.columns))
    shape = [-(-(span.stop - span.start) // reply.step) for span in (rows, columns)]
    [(part, buffer)] = [(p, b) for p, b in zip(reply.parts, buffers, strict=True) if p.what == what]
    kind = torch.float32 if part.wide else torch.float16
    sent = torch.frombuffer(bytearray(buffer), dtype=kind).double() * part.scale
    if not part.triangle:
        return sent.reshape(shape)
    values = torch.zeros(shape, dtype=torch.float64)
    values[torch.ones(shape, dtype=torch.bool).tril()] = sent
    return values


@pytest.mark.parametrize("prompt", [None, 1])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_overview_part_and_line_agree_with_the_whole_map(long, weighting, prompt, monkeypatch):
    name, _, cache, (layer, head) = long
    if name == "gated" and prompt is None:
        pytest.skip("slow, and the mean is the same code")
    service = Service(cache)
    target = service.targets().resolve((5, 6))
    whole = residscope.attention(cache, [(layer, head)], prompt=prompt, weighting=weighting, answers=(5, 6)).values[0]
    largest = float(whole.abs().max())

    def ask(**part: object) -> tuple[AttentionReply, list[bytes]]:
        return service.reply(ReadAttention(layer, head, target, prompt, "last", weighting, **part))  # pyright: ignore[reportReturnType]

    monkeypatch.setattr(weightings, "STRIP", 20_000)  # many strips
    for pool in ("peak", "mean"):
        reply, buffers = ask(pool=pool)
        assert (reply.step, reply.rows, reply.columns, reply.positions) == (2, None, None, LONG)
        found = unpacked(reply, buffers, weighting)
        torch.testing.assert_close(found, in_pairs(whole, pool), atol=6e-4 * largest, rtol=6e-4)
        if pool == "peak":  # no peak is lost
            assert float(found.abs().max()) == pytest.approx(largest, rel=6e-4)
    brings = torch.frombuffer(bytearray(buffers[[p.what for p in reply.parts].index("brings")]), dtype=torch.float32)
    row = residscope.attention(cache, [(layer, head)], prompt=prompt, weighting="contribution", answers=(5, 6)).values
    torch.testing.assert_close(brings, row[0, -1], atol=1e-5, rtol=1e-4)

    reply, buffers = ask(rows=Span(100, 400), columns=Span(30, 90))
    assert (reply.step, reply.rows, reply.columns) == (1, Span(100, 400), Span(30, 90))
    part = unpacked(reply, buffers, weighting)
    torch.testing.assert_close(part, whole[100:400, 30:90].double(), atol=6e-4 * largest, rtol=6e-4)
    for line, expected in (({"rows": Span(333, 334)}, whole[333:334]), ({"columns": Span(7, 8)}, whole[:, 7:8])):
        reply, buffers = ask(**line)
        assert (reply.step, {part.wide for part in reply.parts}) == (1, {True})
        exact = unpacked(reply, buffers, weighting)
        torch.testing.assert_close(exact, expected.double(), atol=1e-6 * max(1, largest), rtol=1e-5)


def test_a_line_of_combined_heads_is_the_mean_over_all_heads(long):
    _, model, cache, (layer, _) = long
    service = Service(cache)
    ask = BlendAttention(layer, service.targets().resolve(5), 0, "value", rows=Span(500, 501))
    reply, [buffer] = service.reply(ask)
    every = [(layer, head) for head in range(model.cfg.n_heads)]
    expected = residscope.attention(cache, every, prompt=0, weighting="value").values[:, 500].mean(0)
    torch.testing.assert_close(torch.frombuffer(bytearray(buffer), dtype=torch.float32), expected, atol=1e-6, rtol=1e-5)
    assert (reply.positions, reply.step, reply.part.wide) == (LONG, 1, True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_caches_in_half_precision_lose_no_peak(long, dtype):
    name, model, cache, (layer, head) = long
    if name == "gated":
        pytest.skip("one model is enough")
    half = ActivationCache({n: t.to(dtype) if t.is_floating_point() else t for n, t in cache.items()}, model)
    service = Service(half)
    target = service.targets().resolve((5, 6))
    reply, buffers = service.reply(ReadAttention(layer, head, target, 0))
    peak = float(half["pattern", layer][0, head].float().max())
    assert float(unpacked(reply, buffers, "pattern").max()) == pytest.approx(peak, rel=6e-4)
    small, [cells] = service.reply(ReadThumbnails(layer, target, 0))
    assert small.limits[head] == pytest.approx(peak)
    assert len(cells) == model.cfg.n_heads * small.side**2


def test_only_the_requested_part_is_computed(long, monkeypatch):
    """No tensor is larger than a strip of the map (overview) or than a vector for each source of a head (part)."""
    _, _, cache, (layer, head) = long
    monkeypatch.setattr(weightings, "STRIP", 100_000)  # the whole map has 270,400 cells, its overview 67,600
    service = Service(cache)
    target = service.targets().resolve((5, 6))
    vectors = LONG * cache[f"blocks.{layer}.attn.hook_z"].shape[-1]
    parts = (
        ({}, 67_600, weightings.STRIP),
        ({"rows": Span(9, 10)}, LONG, vectors),
        ({"rows": Span(0, 50), "columns": Span(0, 50)}, 2_500, vectors),
    )
    for weighting in WEIGHTINGS:
        ask = ReadAttention(layer, head, target, 0, "last", weighting)
        service.reply(msgspec.structs.replace(ask, rows=Span(2, 3)))  # so that the layer is already checked
        for part, sent, most in parts:
            with Sizes() as sizes:
                service.reply(msgspec.structs.replace(ask, **part))
            assert sent <= sizes.largest <= most, (weighting, part)


@pytest.mark.parametrize("span", [Span(520, 800), Span(5, 5), Span(9, 3)])
def test_an_empty_part_is_refused_in_a_sentence(long, span):
    service = Service(long[2])
    target = msgspec.to_builtins(service.targets().resolve(5))
    ask = {"kind": "attention", "layer": 0, "head": 0, "target": target, "rows": msgspec.to_builtins(span)}
    answer, _ = service.answer({"id": "1", "ask": ask})
    assert f"no positions {span.start} to {span.stop}" in answer["failure"]["message"]
