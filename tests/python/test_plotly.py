"""Plotly figures have the right numbers, names, scales and titles, and tokens are never markup."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import residscope
from residscope import ResidscopeError, targets
from tests.support import tiny

MARKUP = ["<img src=x onerror=alert(1)>", "<b>x</b>", "</script><script>alert(1)</script>", "$x$", "a\nb", "&lt;", ""]
PAIR = ("w5", "w9")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def run(request):
    """A tiny model and its run: three prompts of seven tokens."""
    model = tiny.boot(request.param)
    tokens, logits, cache = tiny.run(model)
    return SimpleNamespace(model=model, tokens=tokens, logits=logits, cache=cache)


@pytest.fixture(scope="module")
def llama():
    model = tiny.boot("llama")
    return SimpleNamespace(model=model, cache=tiny.run(model)[2])


def numbers(values) -> np.ndarray:
    return np.array(values, dtype=float)  # plotly keeps cells without a number as None


def shown(values: torch.Tensor, prompt: int | None, axis: int = -1) -> torch.Tensor:
    """Return the mean over prompts, or the values of one prompt."""
    return values.mean(axis) if prompt is None else values.select(axis, prompt)


each_prompt = pytest.mark.parametrize("prompt", [None, 0, 2])


@each_prompt
def test_a_head_map_holds_every_heads_contribution(run, prompt):
    heads = residscope.attribute(run.cache, PAIR)
    figure = heads.to_plotly(prompt=prompt)
    np.testing.assert_allclose(numbers(figure.data[0].z), shown(heads.grid, prompt), rtol=1e-6)
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    assert figure.layout.coloraxis.cmax == pytest.approx(float(shown(heads.grid, prompt).abs().max()))
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("head", "layer")
    assert figure.data[0].hovertext[1][2].startswith("L1H2: ")


@each_prompt
def test_a_ranking_holds_the_strongest_rows(run, prompt):
    heads = residscope.attribute(run.cache, PAIR)
    figure = heads.to_plotly("ranking", prompt, k=2)
    assert list(figure.data[0].x) == pytest.approx([value for _, value in heads.top(2, prompt)])
    neurons = residscope.attribute(run.cache, PAIR, by="neuron")
    figure = neurons.to_plotly(prompt=prompt)
    assert list(figure.data[0].x) == pytest.approx([value for _, value in neurons.top(5, prompt)])


@each_prompt
def test_a_lens_ends_at_the_models_own_value(run, prompt):
    lens = residscope.attribute(run.cache, PAIR, by="accumulated")
    figure = lens.to_plotly(prompt=prompt)
    np.testing.assert_allclose(figure.data[-1].y, shown(lens.values + lens.constant, prompt), rtol=1e-5)
    assert figure.data[-1].y[-1] == pytest.approx(float(shown(lens.measured, prompt)), abs=1e-4)
    assert len(figure.data) == (2 if prompt is None else 1)  # the first of two is the spread over prompts


@each_prompt
def test_bars_of_layers_hold_every_row_coloured_by_its_sign(run, prompt):
    layers = residscope.attribute(run.cache, PAIR, by="layer")
    bars = layers.to_plotly(prompt=prompt).data
    drawn = {text.split(":")[0]: y for trace in bars for text, y in zip(trace.hovertext, trace.y, strict=True)}
    expected = dict(zip(layers.labels, shown(layers.values, prompt).tolist(), strict=True))
    assert drawn == pytest.approx(expected)
    assert {"attention", "MLP"} <= {trace.name for trace in bars}
    for trace in bars:
        assert [colour == "#3a82bd" for colour in trace.marker.color] == [y >= 0 for y in trace.y]


@each_prompt
def test_a_map_of_positions_holds_every_row_at_every_position(run, prompt):
    everywhere = residscope.attribute(run.cache, PAIR, by="layer", position="all")
    figure = everywhere.to_plotly(prompt=prompt)
    np.testing.assert_allclose(numbers(figure.data[0].z), shown(everywhere.values, prompt, 1), rtol=1e-6)


@each_prompt
def test_source_contributions_have_a_row_for_each_head(run, prompt):
    sources = residscope.attribute(run.cache, PAIR, by="source", heads=["0.1", "2.3"])
    figure = sources.to_plotly(prompt=prompt)
    np.testing.assert_allclose(numbers(figure.data[0].z), shown(sources.values, prompt).T, rtol=1e-6)


@each_prompt
def test_source_contributions_at_every_destination_have_a_map_for_each_head(run, prompt):
    everywhere = residscope.attribute(run.cache, PAIR, by="source", heads=["0.1", "2.3"], position="all")
    maps = everywhere.to_plotly(prompt=prompt).data
    assert len(maps) == 2
    for n, head in enumerate(maps):
        np.testing.assert_allclose(numbers(head.z), shown(everywhere.values, prompt)[..., n].T, rtol=1e-6)


def test_prompt_by_prompt_each_row_has_its_own_bars(run):
    heads = residscope.attribute(run.cache, PAIR)
    figure = heads.to_plotly("prompts", rows=["L2H3", "L0H1"])
    np.testing.assert_allclose([bars.y for bars in figure.data], heads.grid[[2, 0], [3, 1]], rtol=1e-6)
    lens = residscope.attribute(run.cache, PAIR, by="accumulated")
    np.testing.assert_allclose(lens.to_plotly("prompts").data[0].y, lens.measured, atol=1e-4)


@each_prompt
def test_a_scatter_sets_one_attribution_against_another(run, prompt):
    heads, other = residscope.attribute(run.cache, PAIR), residscope.attribute(run.cache, "w9")
    figure = heads.to_plotly("scatter", prompt, other=other, names=("clean", "corrupted"))
    np.testing.assert_allclose(figure.data[1].x, shown(heads.values, prompt), rtol=1e-6)
    np.testing.assert_allclose(figure.data[1].y, shown(other.values, prompt), rtol=1e-6)
    assert figure.layout.yaxis.title.text == "corrupted (logits)"


@pytest.mark.parametrize("k", [0, 2, 3, 4, 5, 12, 99])
def test_the_strongest_rows_and_the_others_sum_to_the_whole(llama, k):
    """Rows that come after the target's point are 0 and are neither listed nor counted."""
    found = residscope.attribute(llama.cache, targets.neuron("L1N1"), by="layer")
    other = residscope.attribute(llama.cache, targets.neuron("L0N1"), by="layer")
    for n, result in enumerate((found, other)):
        rows = result.mean()
        count = int((rows != 0).sum())
        bars = found.to_plotly("sides", other=other, k=k).data[n]
        labels = [text.split(": ")[0] for text in bars.hovertext]
        assert sum(bars.x) == pytest.approx(float(rows.sum()), abs=1e-5)
        if count <= k + 1:  # the name of a single row that would be left over is more useful than "1 others"
            assert len(labels) == count
            assert not any("others" in label for label in labels)
        else:
            assert labels[k:] == [f"{count - k} others"]
            assert list(bars.x[:k]) == pytest.approx(sorted(rows.tolist(), key=abs)[::-1][:k])


@pytest.mark.parametrize(
    ("first", "end"),
    [(80.0, 4.0), (-80.0, 4.0), (5.0, 5.0), (float("nan"), 4.0)],
    ids=["a positive outlier", "a negative outlier", "not far out", "not a number"],
)
def test_one_outlier_does_not_make_a_map_of_positions_pale(llama, first, end):
    found = residscope.attribute(llama.cache, PAIR, by="layer", position="all")
    values = torch.full_like(found.values, 0.5)
    values[2, :, 3], values[1, :, 0] = -4, first
    figure = replace(found, values=values).to_plotly(prompt=0)
    colours, far = figure.layout.coloraxis, abs(first) > 6
    assert (colours.cmin, colours.cmax) == (-end, end)
    assert numbers(figure.data[0].z)[1][0] == pytest.approx(first, nan_ok=True)  # the true value, not a clipped one
    dots = [[y, x] for y, row in enumerate(figure.data[0].text or []) for x, dot in enumerate(row) if dot]
    assert dots == ([[1, 0]] if far else [])
    assert ("a dot: beyond the colours, which end at ±4.00" in figure.layout.title.text) == far
    ends = ["≤ −4.00" if first < 0 else "−4.00", "0", "≥ +4.00" if first > 0 else "+4.00"]
    assert list(colours.colorbar.ticktext or []) == (ends if far else [])


@pytest.mark.parametrize(
    ("target", "padded", "prompt", "peaks", "end"),
    [
        (PAIR, range(1), 1, [900, 80, 1, 2, 2, 1, 1], 2.0),  # the second position is the first real token
        (PAIR, range(1), 0, [900, 80, 1, 2, 2, 1, 1], 80.0),  # another prompt is padded
        (PAIR, range(1), None, [900, 80, 1, 2, 2, 1, 1], 80.0),  # the mean leaves out no position
        (PAIR, range(5, 7), 1, [80, 1, 2, 1, 1, 900, 4], 2.0),
        (targets.next_token(), range(0), 0, [80, 1, 1, 1, 1, 5, 0], 5.0),
        (targets.next_token(), range(5, 7), 1, [80, 1, 1, 4, 0, 900, 0], 4.0),
    ],
)
def test_a_map_of_positions_has_the_scale_of_the_panel(llama, target, padded, prompt, peaks, end):
    """The ends are those of `clippedLimit`: padding is left out of a prompt's map."""
    mask = torch.ones(3, 7)
    mask[1, list(padded)] = 0
    found = residscope.attribute(llama.cache, target, by="layer", position="all", attention_mask=mask)
    assert torch.equal(found.padding, mask == 0)
    values = torch.zeros_like(found.values)
    values[2] = torch.tensor(peaks).float()
    for one in (found, residscope.attribute(llama.cache, target, by="layer", position="all", attention_mask=mask)):
        assert replace(one, values=values).to_plotly(prompt=prompt).layout.coloraxis.cmax == end
    assert residscope.attribute(llama.cache, PAIR, attention_mask=mask).padding is None


def test_the_last_position_of_a_map_is_never_beyond_the_colours(llama):
    found = residscope.attribute(llama.cache, PAIR, by="layer", position="all")
    values = torch.full((*found.values.shape[:-1], 601), 0.001)
    values[2, :, -1] = 4
    values[2, :, 0] = 80
    padding = torch.zeros(3, 601, dtype=torch.bool)
    assert replace(found, values=values, padding=padding).to_plotly(prompt=0).layout.coloraxis.cmax == 4
    values[2, :, -3:-1], padding[:, -1] = 5, True  # the target is last read before the padding
    assert replace(found, values=values, padding=padding).to_plotly(prompt=0).layout.coloraxis.cmax == 5


@pytest.mark.parametrize("weighting", ["pattern", "value", "contribution"])
def test_attention_side_by_side_with_its_tokens(llama, weighting):
    found = residscope.attention(llama.cache, ["0.1", "2.3"], prompt=1, weighting=weighting, answers=PAIR)
    figure = found.to_plotly()
    np.testing.assert_allclose([numbers(trace.z) for trace in figure.data], found.values, rtol=1e-6)
    assert [a.text for a in figure.layout.annotations] == ["L0H1", "L2H3"]
    assert [text.rstrip("₀₁₂₃₄₅₆₇₈₉") for text in figure.layout.xaxis.ticktext] == found.tokens
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("from (source)", "to (destination)")
    assert figure.layout.coloraxis.cmin == (-figure.layout.coloraxis.cmax if weighting == "contribution" else 0)


@pytest.mark.parametrize(
    ("tokens", "drawn"),
    [
        (
            ["<bos>", " Mary", " John", " and", " John", "John"],
            ["&lt;bos&gt;", "·Mary", "·John₂", "·and", "·John₄", "John"],
        ),
        (
            ["\n" if at in (1, 10) else f"w{at}" for at in range(11)],
            ["w0", "↵₁", *(f"w{at}" for at in range(2, 10)), "↵₁₀"],
        ),
    ],
)
def test_a_repeated_token_has_its_position(llama, tokens, drawn):
    found = residscope.attention(llama.cache, ["0.1"], prompt=1)
    figure = replace(found, values=torch.zeros(1, len(tokens), len(tokens)), tokens=tokens, sources=tokens).to_plotly()
    assert list(figure.layout.xaxis.ticktext) == list(figure.layout.yaxis.ticktext) == drawn
    assert f"{drawn[4]} (4) reads {drawn[2]} (2)" in figure.data[0].hovertext[4][2]


EACH = [("w5", "w9"), ("w9", "w5"), ("w5", "w9")]


@pytest.mark.parametrize(
    ("answers", "prompt", "target"),
    [
        (PAIR, None, "“w5” minus “w9”"),
        ("w5", 1, "“w5”"),
        ((["w9", "w5"], "w3"), 0, "“w9, w5” minus “w3”"),
        (EACH, None, "each prompt’s own answer"),
        (EACH, 1, "“w9” minus “w5”"),
        (EACH, 0, "“w5” minus “w9”"),
    ],
)
def test_titles_name_target_and_model(llama, answers, prompt, target):
    model = "llama"  # the model's name, not the folder from which it was loaded
    heads, lens = (residscope.attribute(llama.cache, answers, by=by) for by in ("head", "accumulated"))
    found = residscope.attention(llama.cache, ["0.1"], prompt=prompt, weighting="contribution", answers=answers)
    for figure in (
        heads.to_plotly(prompt=prompt),
        lens.to_plotly(prompt=prompt),
        heads.to_plotly("ranking", prompt),
        found.to_plotly(),
    ):
        assert f">{target} · {model}<" in figure.layout.title.text
    assert model in residscope.scores(llama.cache, "first").to_plotly().layout.title.text
    assert model in residscope.attention(llama.cache, ["0.1"]).to_plotly().layout.title.text


DIRECTION = torch.randn(24, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("target", "unit", "has_maps"),
    [
        (PAIR, "logits", True),
        (DIRECTION, "along the direction", True),
        (targets.output("L2H1", of=PAIR, source=2), "logits", False),
        (targets.output("L2H1", of=DIRECTION, source=2), "along the direction", False),
        (targets.direction(DIRECTION, at="2_pre"), "along the direction", True),
        (targets.neuron("L2N1"), "input of the neuron", True),
        (targets.next_token(), "logits", False),
    ],
)
def test_every_figure_has_the_unit_of_its_target(llama, target, unit, has_maps):
    def read(result):
        return result.to_plotly().layout.coloraxis.colorbar.title.text

    assert read(residscope.attribute(llama.cache, target, position=4)) == unit
    layers = residscope.attribute(llama.cache, target, by="layer", position=4)
    assert layers.to_plotly().layout.yaxis.title.text == unit
    for position in (4, "all") if has_maps else (4,):
        assert read(residscope.attribute(llama.cache, target, by="source", heads=["0.1"], position=position)) == unit
    if not has_maps:
        return
    asked = {"weighting": "contribution", "answers": target}
    found = residscope.attention(llama.cache, ["0.1"], prompt=1, **asked)
    segments = residscope.segments(llama.cache, 1, [("first", 0, 3), ("second", 3, 7)])
    whole = residscope.segment_attention(llama.cache, segments, ["0.1"], **asked)
    for one in (found, found.by_segment(segments), whole):
        assert read(one) == unit
        assert one.meaning.startswith(f"contribution to the target, {unit}")


def test_the_token_lens_as_a_figure(llama):
    found = residscope.token_lens(llama.cache, "w5", prompt=1)
    figure = found.to_plotly()
    np.testing.assert_allclose(numbers(figure.data[0].z), found.probabilities[..., 0], rtol=1e-6)
    assert [list(row) for row in figure.data[0].text] == [[cell[0] for cell in row] for row in found.tokens]
    assert list(figure.layout.yaxis.ticktext) == found.points


def texts(part) -> list[str]:
    """Return all texts in a figure."""
    if isinstance(part, dict):
        return [text for value in part.values() for text in texts(value)]
    return [t for value in part for t in texts(value)] if isinstance(part, list) else [part] * isinstance(part, str)


def test_any_token_is_plain_text_in_a_figure(llama):
    over = {"heads": ["0.1"], "by": "source", "position": "all"}
    figures = [
        residscope.attribute(llama.cache, PAIR, by="layer", position="all").to_plotly(tokens=MARKUP),
        residscope.attribute(llama.cache, PAIR, by="source", heads=["0.1"]).to_plotly(tokens=MARKUP),
        residscope.attribute(llama.cache, PAIR, **over).to_plotly(tokens=MARKUP),
    ]
    for figure in figures:
        found = texts(json.loads(figure.to_json())["layout"] | {"data": json.loads(figure.to_json())["data"]})
        found = [re.sub('<br><span style="font-size:12px">(.*)</span>$', r"\1", text) for text in found]  # a title
        assert not [text for text in found if "<" in text or ">" in text or "$" in text]
        assert "&lt;b&gt;x&lt;/b&gt;" in figure.layout.xaxis.ticktext
        assert "&amp;lt;" in figure.layout.xaxis.ticktext
        assert any("&lt;img·src=x·on…" in text for text in found)


def test_impossible_figures_are_refused_in_a_sentence(llama, monkeypatch):
    heads = residscope.attribute(llama.cache, PAIR)
    layers = residscope.attribute(llama.cache, PAIR, by="layer")
    for draw, said in [
        (lambda: heads.to_plotly("pie"), '`kind="pie"` is not known'),
        (lambda: heads.to_plotly("lens"), 'needs `by="accumulated"`'),
        (lambda: layers.to_plotly("heatmap"), "two axes"),
        (lambda: heads.to_plotly("scatter"), "compares two attributions"),
        (lambda: heads.to_plotly("scatter", other=layers), "the same rows"),
        (lambda: heads.to_plotly(prompt=3), "no prompt 3"),
        (lambda: heads.top(prompt=-4), "no prompt -4"),
        (lambda: heads.to_plotly("prompts", rows=["L9H9"]), "no row 'L9H9'"),
        (lambda: residscope.attribute(llama.cache, PAIR, position="all").to_plotly("ranking"), "one position"),
    ]:
        with pytest.raises(ResidscopeError, match=said):
            draw()
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(ResidscopeError, match=r'pip install "residscope\[figures\]"'):
        heads.to_plotly()
