"""The content of figures: axes, texts under the pointer, legends, colours, ends of the scales.

Other tests check the values. These tests check that name, number and place of each mark belong to the same value.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import residscope
from residscope.serving.service import Service
from residscope.terms import Component
from residscope.wire.decompositions import Attribute
from tests.support import tiny

PAIR = ("w5", "w9")
TOKENS = [f"t{at}" for at in range(7)]
FALLING = ["L2H3", "L0H1", "L1H2"]
BLUE, ORANGE = "#3a82bd", "#d06e2b"
SEQUENTIAL, DIVERGING = ["#f2f4f2", "#0a4844"], ["#9c3f05", "#12407f"]  # the end colours of both scales


@pytest.fixture(scope="module")
def cache():
    return tiny.run(tiny.boot("gpt2"))[2]


@pytest.fixture(scope="module")
def result(cache):
    """A function that returns an attribution. Each is made once."""
    made: dict[str, Any] = {}

    def result(by: str, **options: Any) -> Any:
        key = f"{by} {options}"
        if key not in made:
            made[key] = residscope.attribute(cache, PAIR, by=by, **options)
        return made[key]

    return result


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def titles(figure: Any) -> tuple[str, str]:
    return figure.layout.xaxis.title.text, figure.layout.yaxis.title.text


def ticks(axis: Any) -> dict[float, str]:
    return dict(zip(axis.tickvals, axis.ticktext, strict=True))


def named(texts: Any, values: Any, names: Any) -> None:
    """Check that each text under the pointer begins with its name, followed by its value."""
    values = np.array(values.tolist() if hasattr(values, "tolist") else values, dtype=float)
    size = np.nanmax(np.abs(values))
    texts, names = (np.array(some, dtype=object) for some in (texts, names))
    assert texts.shape == values.shape == names.shape
    for text, value, name in zip(texts.flat, values.flat, names.flat, strict=True):
        assert text.startswith(f"{name}: "), (text, name)
        written = text.removeprefix(f"{name}: ").split("<br>")[0].removesuffix(" logits")
        assert number(written) == pytest.approx(value, abs=0.006 * max(1, size)), text
        assert (written[0] == "−") == (value < 0) or not re.search("[1-9]", written), text


def colours(figure: Any) -> tuple[str, float, float, list[str]]:
    axis = figure.layout.coloraxis
    scale = axis.colorscale
    return axis.colorbar.title.text, axis.cmin, axis.cmax, [scale[0][1], scale[-1][1]]


# --- attributions ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("prompt", [None, 0, 2])
def test_the_head_map(result, prompt):
    heads = result("head")
    figure = heads.to_plotly(prompt=prompt)
    grid = heads.grid.mean(-1) if prompt is None else heads.grid[..., prompt]
    assert titles(figure) == ("head", "layer")
    assert figure.layout.yaxis.autorange == "reversed"  # the first row, layer 0, is on top
    [map] = figure.data
    named(map.hovertext, grid, [[f"L{layer}H{head}" for head in range(4)] for layer in range(3)])
    end = float(grid.abs().max())
    assert colours(figure) == ("logits", pytest.approx(-end), pytest.approx(end), DIVERGING)
    assert figure.layout.coloraxis.colorbar.ticktext is None  # no value is beyond the ends of the colours
    assert map.hoverinfo == "text"
    which = "mean of 3 prompts" if prompt is None else f"prompt {prompt}"
    assert figure.layout.title.text.startswith(f"What each attention head adds, {which}<br>")


@pytest.mark.parametrize(
    ("family", "left_out", "words"),
    [
        ("gpt2", "blocks.1.attn.hook_z", "L1H0: not cached"),
        ("granitemoehybrid", None, "L0H0: no attention in this layer"),
    ],
)
def test_an_empty_cell_of_the_head_map_has_the_reason(family, left_out, words):
    model = tiny.boot(family)
    _, logits, cache = tiny.run(model)
    cache.cache_dict.pop(left_out, None)
    figure = residscope.attribute(cache, PAIR, logits=logits).to_plotly("heatmap")
    assert next(row[0] for row in figure.data[0].hovertext if "logits" not in row[0]) == words


@pytest.mark.parametrize("prompt", [None, 0])
@pytest.mark.parametrize("rows", [None, ["2_mlp_out", "0_attn_out"]])
def test_a_map_of_components_by_position(result, prompt, rows):
    layers = result("layer", position="all")
    figure = layers.to_plotly(prompt=prompt, rows=rows, tokens=TOKENS)
    labels = layers.labels if rows is None else rows
    values = layers.values[[layers.labels.index(label) for label in labels]]
    values = values.mean(1) if prompt is None else values[:, prompt]
    assert titles(figure) == ("position", "component")
    assert ticks(figure.layout.yaxis) == dict(enumerate(labels))
    assert ticks(figure.layout.xaxis) == dict(enumerate(TOKENS))
    assert figure.layout.yaxis.autorange == "reversed"
    [map] = figure.data
    np.testing.assert_allclose(np.array(map.z, dtype=float), values, rtol=1e-6)
    named(map.hovertext, values, [[f"{label} at t{at} (position {at})" for at in range(7)] for label in labels])
    title, low, high, ends = colours(figure)
    assert (title, low, ends) == ("logits", -high, DIVERGING)
    plain = layers.to_plotly(prompt=prompt, rows=rows)
    assert ticks(plain.layout.xaxis) == {at: str(at) for at in range(7)}


@pytest.mark.parametrize("prompt", [None, 0])
def test_the_lens(result, prompt):
    lens = result("accumulated")
    figure = lens.to_plotly(prompt=prompt)
    points = lens.values + lens.constant
    line = figure.data[-1]
    own = points.mean(1) if prompt is None else points[:, prompt]
    assert titles(figure) == ("point of the residual stream", "logits")
    assert ticks(figure.layout.xaxis) == dict(enumerate(lens.labels))
    assert list(line.x) == list(range(len(own)))
    np.testing.assert_allclose(line.y, own, rtol=1e-5)
    named(line.hovertext, own, lens.labels)
    assert figure.layout.showlegend is False
    assert ("± standard deviation" in figure.layout.title.text) == (prompt is None)
    if prompt is None:
        band = figure.data[0]
        spread = points.std(1)
        np.testing.assert_allclose(band.y, torch.cat([own + spread, (own - spread).flip(0)]), rtol=1e-4)
        assert list(band.x) == [*line.x, *reversed(line.x)]
        assert (band.hoverinfo, band.fill) == ("skip", "toself")


def test_the_spread_of_a_lens_includes_the_constants_of_each_prompts_answer(cache):
    lens = residscope.attribute(cache, torch.tensor([[5, 6], [7, 8], [9, 10]]), by="accumulated")
    assert float(lens.constant.std()) > 0.01
    band = lens.to_plotly().data[0]
    spread = (lens.values + lens.constant).std(1)
    count = len(spread)
    np.testing.assert_allclose((np.array(band.y[:count]) - band.y[count:][::-1]) / 2, spread, rtol=1e-4)


@pytest.mark.parametrize("by", ["accumulated", "layer", "head"])
def test_a_panel_gets_the_spread_of_what_it_draws(cache, by):
    service = Service(cache)
    target = service.targets().resolve(torch.tensor([[5, 6], [7, 8], [9, 10]]))
    # The lens draws row + constant, which is a value of the target. The bars of other decompositions are the rows.
    drawn = []
    for prompt in range(3):
        alone, [rows] = service.reply(Attribute(by, target, prompt))
        drawn.append(np.frombuffer(rows, np.float32) + (alone.constant if by == "accumulated" else 0))
    _, buffers = service.reply(Attribute(by, target))
    spread = np.std(np.array(drawn, np.float64), axis=0, ddof=1)
    np.testing.assert_allclose(np.frombuffer(buffers[1], np.float32), spread, rtol=1e-4, atol=1e-6)


def test_layers_as_bars(result):
    layers = result("layer")
    figure = layers.to_plotly(prompt=0)
    assert titles(figure) == ("layer", "logits")
    assert [(bars.name, bars.marker.pattern.shape) for bars in figure.data] == [
        ("attention", ""), ("MLP", "/"), ("other", "."),
    ]  # fmt: skip
    assert ticks(figure.layout.xaxis) == {0.5: "0", 1.5: "1", 2.5: "2"}
    places = {
        f"{layer}_{part}": layer + at for layer in range(3) for part, at in (("attn_out", 0.25), ("mlp_out", 0.75))
    }
    places |= {"embed": -0.75, "pos_embed": -0.25}
    values = dict(zip(layers.labels, layers.values[:, 0].tolist(), strict=True))
    kinds = {"attn_out": "attention", "mlp_out": "MLP", "embed": "other"}
    drawn = {}
    for bars in figure.data:
        labels = [text.split(":")[0] for text in bars.hovertext]
        named(bars.hovertext, bars.y, labels)
        assert {kinds[label.split("_", 1)[-1]] for label in labels} == {bars.name}
        drawn |= dict(zip(labels, zip(bars.x, bars.y, bars.marker.color, strict=True), strict=True))
    assert drawn == {
        label: (places[label], pytest.approx(value), BLUE if value >= 0 else ORANGE) for label, value in values.items()
    }


@pytest.mark.parametrize("by", ["head", "neuron", "layer"])
@pytest.mark.parametrize("prompt", [None, 0])
def test_a_ranking(result, by, prompt):
    found = result(by)
    figure = found.to_plotly("ranking", prompt, k=3)
    top = found.top(3, prompt)
    [bars] = figure.data
    assert titles(figure) == ("logits", "")
    assert ticks(figure.layout.yaxis) == dict(enumerate(label for label, _ in top))
    assert (bars.orientation, list(bars.y)) == ("h", list(range(len(top))))
    assert figure.layout.yaxis.autorange == "reversed"  # the strongest on top
    assert list(bars.x) == pytest.approx([value for _, value in top])
    named(bars.hovertext, bars.x, [label for label, _ in top])
    assert [number(text) for text in bars.text] == pytest.approx(bars.x, abs=0.006)
    assert list(bars.marker.color) == [BLUE if value >= 0 else ORANGE for value in bars.x]
    assert ": the 3 strongest of each sign" in figure.layout.title.text
    assert all(len(line) <= 76 for line in figure.layout.title.text.split("<span")[0].split("<br>"))


@pytest.mark.parametrize("prompt", [None, 0])
def test_a_scatter_of_two_runs(result, prompt):
    clean, corrupted = result("head"), replace(result("head"), values=result("head").values.flip(0) * 2)
    figure = clean.to_plotly("scatter", prompt, other=corrupted, names=("clean", "corrupted"))
    line, points = figure.data
    x, y = (one.values.mean(1) if prompt is None else one.values[:, prompt] for one in (clean, corrupted))
    assert titles(figure) == ("clean (logits)", "corrupted (logits)")
    np.testing.assert_allclose([points.x, points.y], [x, y], rtol=1e-6)
    for text, label, one, other in zip(points.hovertext, clean.labels, x.tolist(), y.tolist(), strict=True):
        said, first, second = re.fullmatch(r"(\S+): clean (\S+), corrupted (\S+) logits", text).groups()
        assert said == label
        assert [number(first), number(second)] == pytest.approx([one, other], abs=0.006)
    far = set((x - y).abs().topk(8).indices.tolist())
    assert list(points.text) == [label if at in far else "" for at, label in enumerate(clean.labels)]
    assert list(line.x) == list(line.y)  # the diagonal, on which values are equal in both runs
    assert -line.x[0] == line.x[1] > max(x.abs().max(), y.abs().max())
    unnamed = clean.to_plotly("scatter", prompt, other=corrupted)
    assert titles(unnamed) == ("this (logits)", "other (logits)")


@pytest.mark.parametrize("prompt", [None, 0])
def test_sources_of_heads(result, prompt):
    sources = result("source", heads=FALLING)
    figure = sources.to_plotly(prompt=prompt, tokens=TOKENS)
    values = (sources.values.mean(-1) if prompt is None else sources.values[..., prompt]).T
    assert titles(figure) == ("from (source)", "head")
    assert ticks(figure.layout.yaxis) == dict(enumerate(FALLING))
    assert ticks(figure.layout.xaxis) == dict(enumerate(TOKENS))
    assert figure.layout.yaxis.autorange == "reversed"
    [map] = figure.data
    np.testing.assert_allclose(np.array(map.z, dtype=float), values, rtol=1e-6)
    named(map.hovertext, values, [[f"{head} from t{at} (source {at})" for at in range(7)] for head in FALLING])
    end = float(values.abs().max())
    assert colours(figure) == ("logits", pytest.approx(-end), pytest.approx(end), DIVERGING)


def side_by_side(figure: Any, heads: list[str], maps: Any, tokens: list[str]) -> None:
    """Check that each head has a map with its name above, destinations in its rows, and sources in its columns."""
    assert [note.text for note in figure.layout.annotations] == heads
    for n, (map, head, note, values) in enumerate(
        zip(figure.data, heads, figure.layout.annotations, maps, strict=True)
    ):
        number = str(n + 1) if n else ""
        x, y = (figure.layout[f"{axis}axis{number}"] for axis in "xy")
        assert (map.xaxis, map.yaxis) == (f"x{number}", f"y{number}") == (y.anchor, x.anchor)
        assert x.domain[0] < note.x < x.domain[1]
        assert note.y == y.domain[1]
        assert (x.title.text, y.title.text) == ("from (source)", "to (destination)" if n % 4 == 0 else "")
        assert ticks(x) == dict(enumerate(tokens))
        assert ticks(y) == (dict(enumerate(tokens)) if n % 4 == 0 else {})
        assert y.autorange == "reversed"
        np.testing.assert_allclose(np.array(map.z, dtype=float), values, rtol=1e-6)
        pairs = [[f"{head}: {tokens[q]} ({q}) reads {tokens[k]} ({k})" for k in range(7)] for q in range(7)]
        named(map.hovertext, values, pairs)


@pytest.mark.parametrize("prompt", [None, 0])
def test_sources_at_every_destination(result, prompt):
    sources = result("source", heads=FALLING, position="all")
    values = sources.values.mean(-1) if prompt is None else sources.values[..., prompt]
    figure = sources.to_plotly(prompt=prompt, tokens=TOKENS)
    side_by_side(figure, FALLING, values.permute(2, 1, 0), TOKENS)
    end = float(values.abs().max())
    assert colours(figure) == ("logits", pytest.approx(-end), pytest.approx(end), DIVERGING)


def test_prompt_by_prompt(result):
    heads, lens = result("head"), result("accumulated")
    figure = heads.to_plotly("prompts", rows=FALLING)
    assert titles(figure) == ("prompt", "logits")
    assert figure.layout.showlegend is True
    assert [bars.name for bars in figure.data] == FALLING
    assert len({bars.marker.color for bars in figure.data}) == 3
    for bars, (layer, head) in zip(figure.data, [(2, 3), (0, 1), (1, 2)], strict=True):
        values = heads.grid[layer, head]
        assert list(bars.x) == [0, 1, 2]
        np.testing.assert_allclose(bars.y, values, rtol=1e-6)
        named(bars.hovertext, values, [f"{bars.name}, prompt {prompt}" for prompt in range(3)])
    assert figure.layout.title.text.startswith("L2H3 and L0H1 and L1H2, prompt by prompt<br>")
    for one, values, label in (
        (lens.to_plotly("prompts"), lens.measured, "final_post"),
        (heads.to_plotly("prompts"), heads.grid.flatten(0, 1)[heads.grid.mean(-1).abs().argmax()], None),
    ):
        [bars] = one.data
        assert one.layout.showlegend is False
        assert label in (None, bars.name)
        np.testing.assert_allclose(bars.y, values, atol=1e-4)
        assert list(bars.marker.color) == [BLUE if value >= 0 else ORANGE for value in values]


def test_zero_is_drawn_if_bars_and_lines_have_both_signs(result):
    heads = result("head")
    ranking, scatter = heads.to_plotly("ranking"), heads.to_plotly("scatter", other=heads)
    axes = [figure.layout.yaxis for figure in (result("layer").to_plotly(), result("accumulated").to_plotly())]
    axes += [heads.to_plotly("prompts").layout.yaxis, ranking.layout.xaxis, scatter.layout.xaxis, scatter.layout.yaxis]
    for axis in axes:
        assert "logits" in axis.title.text
        assert axis.zeroline is True
    assert ranking.layout.yaxis.zeroline is False


@pytest.mark.parametrize(("prompts", "each"), [(3, 1), (20, 1), (21, None)])
def test_up_to_twenty_prompts_have_their_numbers(result, prompts, each):
    values = torch.arange(float(prompts)).expand(len(result("head").labels), prompts)
    assert replace(result("head"), values=values).to_plotly("prompts").layout.xaxis.dtick == each


@pytest.mark.parametrize(("layers", "step"), [(1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_of_many_layers_only_some_have_their_numbers(result, layers, step):
    rows = [Component("embed"), *(Component(kind, at) for at in range(layers) for kind in ("attn_out", "mlp_out"))]
    figure = replace(result("layer"), components=rows, values=torch.ones(len(rows), 3)).to_plotly()
    numbers = range(0, layers, step)
    assert ticks(figure.layout.xaxis) == {layer + 0.5: str(layer) for layer in numbers}
    assert len(numbers) <= 16


@pytest.mark.parametrize(("positions", "step"), [(1, 1), (40, 1), (41, 2), (80, 2), (81, 3)])
def test_of_many_positions_only_some_have_their_tokens(result, positions, step):
    layers = result("layer", position="all")
    values = torch.ones(len(layers.labels), 3, positions)
    tokens = [f"t{at}" for at in range(positions)]
    figure = replace(layers, values=values).to_plotly(tokens=tokens)
    assert ticks(figure.layout.xaxis) == {at: f"t{at}" for at in range(0, positions, step)}


def test_the_diverging_scale_is_symmetric(result):
    """Plotly needs places from 0 to 1."""
    places = [place for place, _ in result("head").to_plotly().layout.coloraxis.colorscale]
    assert places == sorted(set(places))
    assert (places[0], places[len(places) // 2], places[-1]) == (0, 0.5, 1)
    assert places == pytest.approx([1 - place for place in reversed(places)])


def test_a_map_that_is_zero_after_its_first_position_has_a_scale(result):
    layers = result("layer", position="all")
    values = torch.zeros_like(layers.values)
    values[1, :, 0] = -3
    assert colours(replace(layers, values=values).to_plotly(prompt=0))[1:3] == (-3, 3)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_cell_beyond_either_end_of_the_colours_has_a_dot(result, sign):
    layers = result("layer", position="all")
    values = torch.ones_like(layers.values)
    values[1, :, 0] = 9 * sign
    [map] = replace(layers, values=values).to_plotly(prompt=0).data
    dots = [(row, at) for row, texts in enumerate(map.text or []) for at, dot in enumerate(texts) if dot == "•"]
    assert dots == [(1, 0)]


def test_a_figure_of_a_single_prompt_does_not_speak_of_a_mean(result):
    lens = result("accumulated")
    columns = {name: getattr(lens, name)[:1] for name in ("measured", "constant", "unexplained")}
    figure = replace(lens, values=lens.values[:, :1], **columns).to_plotly()
    assert figure.layout.title.text.startswith("Logit lens<br>")
    assert len(figure.data) == 1


# --- attention, scores, the token lens -------------------------------------------------------------------------------
@pytest.mark.parametrize("prompt", [None, 0])
@pytest.mark.parametrize(
    ("weighting", "title", "meaning"),
    [
        ("pattern", "attention", "attention"),
        ("value", "attention × ‖v W_O‖", "attention × ‖v W_O‖"),
        ("contribution", "logits", "contribution to the target, logits"),
    ],
)
def test_attention(cache, weighting, title, meaning, prompt):
    heads = [*FALLING, "L0H0", "L1H1"]  # the fifth head begins another row of maps
    found = residscope.attention(cache, heads, prompt=prompt, weighting=weighting, answers=PAIR)
    found = replace(found, tokens=TOKENS, sources=TOKENS)
    figure = found.to_plotly()
    side_by_side(figure, heads, found.values, TOKENS)
    end = 1.0 if weighting == "pattern" else float(found.values.abs().max())
    signed = weighting == "contribution"
    low, scale = (-end, DIVERGING) if signed else (0, SEQUENTIAL)
    assert colours(figure) == (title, pytest.approx(low), pytest.approx(end), scale)
    whose = "mean over prompts" if prompt is None else f"prompt {prompt}"
    assert figure.layout.title.text.startswith(f"{meaning}, {whose}<br>")


def test_attention_after_a_prefix_names_its_sources(cache):
    found = residscope.attention(cache, ["L0H1"], prompt=0)
    figure = replace(found, values=found.values[:, 5:], tokens=TOKENS[5:], sources=TOKENS).to_plotly()
    assert ticks(figure.layout.xaxis) == dict(enumerate(TOKENS))
    assert ticks(figure.layout.yaxis) == {0: "t5", 1: "t6"}
    assert figure.data[0].hovertext[1][2].startswith("L0H1: t6 (1) reads t2 (2): ")


@pytest.mark.parametrize("length", [513, 514])
def test_long_attention_is_drawn_to_its_last_token(length):
    at = torch.arange(length, dtype=torch.float32)
    values = (at[:, None] + 1) / length * (at[None] == at[:, None])
    names = [str(n) for n in range(length)]
    found = residscope.patterns.maps.Attention(values[None], ["L0H0"], names, "pattern", "attention", 0)
    figure = found.to_plotly()
    z = np.array(figure.data[0].z)
    assert z.shape == (257, 257)
    assert z[256, 256] == 1  # the last token's own cell
    assert figure.layout.title.text.startswith("attention, prompt 0: the value farthest from zero in each 2 × 2 cells")
    end = "512" if length == 513 else "512–513"
    assert figure.data[0].hovertext[256][256].startswith(f"L0H0: {end} (256) reads {end} (256): ")
    assert figure.layout.yaxis.ticktext[0] == figure.layout.xaxis.ticktext[0] == "0–1"


@pytest.mark.parametrize(
    ("score", "unit", "high"), [("previous", "score", 1.0), ("entropy", "bits", np.log2(7)), ("copying", "score", 1.0)]
)
def test_scores(cache, score, unit, high):
    found = residscope.scores(cache, score, None if score == "copying" else 0)
    values = found.values.clone()
    values[1, 2] = torch.nan
    figure = replace(found, values=values).to_plotly()
    assert titles(figure) == ("head", "layer")
    assert ticks(figure.layout.xaxis) == {head: str(head) for head in range(4)}
    assert ticks(figure.layout.yaxis) == {layer: str(layer) for layer in range(3)}
    assert figure.layout.yaxis.autorange == "reversed"  # layer 0 is on top, as in the head map
    [map] = figure.data
    for layer in range(3):
        for head in range(4):
            name, written = map.hovertext[layer][head].split(": ")
            assert name == f"L{layer}H{head}"
            assert written == ("no score" if (layer, head) == (1, 2) else f"{float(values[layer, head]):.3g}")
    signed = score == "copying"
    assert colours(figure) == (
        unit, -1 if signed else 0, pytest.approx(high), DIVERGING if signed else SEQUENTIAL,
    )  # fmt: skip
    assert figure.layout.title.text.startswith(f"Head scores: {score}<br>")


@pytest.mark.parametrize("norm", ["frozen", "recomputed"])
def test_the_token_lens(cache, norm):
    found = residscope.token_lens(cache, "w5", prompt=0, positions=[6, 0, 3], norm=norm, k=2)
    figure = found.to_plotly()
    assert titles(figure) == ("position", "point of the residual stream")
    assert ticks(figure.layout.xaxis) == {0: "6", 1: "0", 2: "3"}
    assert ticks(figure.layout.yaxis) == dict(enumerate(found.points))
    assert figure.layout.yaxis.autorange == "reversed"
    assert colours(figure) == ("probability", 0, 1, SEQUENTIAL)
    for y, point in enumerate(found.points):
        for x, position in enumerate([6, 0, 3]):
            first, *listed, answer = figure.data[0].hovertext[y][x].split("<br>")
            assert first == f"{point}, position {position}:"
            assert listed == [
                f"{token.replace('<', '&lt;').replace('>', '&gt;')} {float(share):.3f}"
                for token, share in zip(found.tokens[y][x], found.probabilities[y, x], strict=True)
            ]
            assert answer == f"the answer: {float(found.answer_probability[y, x]):.3f} (rank {int(found.rank[y, x])})"
    how = "recomputed at each point" if norm == "recomputed" else "held fixed"
    assert figure.layout.title.text.startswith(f"The likeliest tokens, the norm {how}<br>")


VIEWS = [
    ("patterns", "pattern"),
    ("patterns", "value"),
    *(("heads", of) for of in ("pattern", "value", "contribution")),
]


@pytest.mark.parametrize(("view", "weighting"), VIEWS)
def test_circuitsvis(cache, view, weighting):
    how = {"prompt": 0, "weighting": weighting, "answers": PAIR}
    call = residscope.to_circuitsvis(cache, FALLING, view=view, **how).cdn_src
    call = call[call.rindex("render(") :]
    given = json.loads(call[call.index("{") : call.rindex("}") + 1])
    found = residscope.attention(cache, FALLING, **how)
    end = 1.0 if weighting == "pattern" else float(found.values.abs().max())
    names, scale = ("headLabels", end) if view == "patterns" else ("attentionHeadNames", 1)
    assert given[names] == FALLING
    np.testing.assert_allclose(np.array(given["attention"]) * scale, found.values, atol=2e-6 * max(end, 1))
    assert given["tokens"] == found.tokens
    if view == "heads":
        assert (given["minValue"], given["maxValue"]) == (pytest.approx(-end), pytest.approx(end))
        assert (given["negativeColor"], given["positiveColor"]) == (ORANGE, BLUE)
        assert given["maskUpperTri"] is True
