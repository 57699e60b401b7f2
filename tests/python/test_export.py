"""What leaves Residscope: figures, CircuitsVis' views, CSV, and code that gives what is shown."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from rows import labels_of

import residscope
from residscope import ResidscopeError
from residscope.export.python_source import call, literal
from residscope.serving.service import Service
from residscope.wire.protocol import (
    Attribute,
    MapPositions,
    RankNeurons,
    ReadAttention,
    ReadTokenLens,
    ScoreHeads,
    Shown,
    WriteCode,
)

MARKUP = ["<img src=x onerror=alert(1)>", "<b>x</b>", "</script><script>alert(1)</script>", "$x$", "a\nb", "&lt;", ""]


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


# --- figures ---------------------------------------------------------------------------------------------------------
PAIR = ("w5", "w9")


def numbers(values) -> np.ndarray:
    return np.array(values, dtype=float)  # plotly keeps cells without a number as None


@pytest.mark.parametrize("prompt", [None, 0, 2])
def test_the_figures_hold_the_figures(run, prompt):
    def of(values, axis=-1):
        return values.mean(axis) if prompt is None else values.select(axis, prompt)

    heads = residscope.attribute(run.cache, PAIR)
    grid = heads.to_plotly(prompt=prompt)
    np.testing.assert_allclose(numbers(grid.data[0].z), of(heads.grid), rtol=1e-6)
    assert grid.layout.coloraxis.cmin == -grid.layout.coloraxis.cmax
    assert grid.layout.coloraxis.cmax == pytest.approx(float(of(heads.grid).abs().max()))
    assert (grid.layout.xaxis.title.text, grid.layout.yaxis.title.text) == ("head", "layer")
    assert grid.data[0].hovertext[1][2].startswith("L1H2: ")

    ranking = heads.to_plotly("ranking", prompt, k=2)
    assert list(ranking.data[0].x) == pytest.approx([value for _, value in heads.top(2, prompt)])

    lens = residscope.attribute(run.cache, PAIR, by="accumulated")
    line = lens.to_plotly(prompt=prompt)
    np.testing.assert_allclose(line.data[-1].y, of(lens.values + lens.constant), rtol=1e-5)
    assert line.data[-1].y[-1] == pytest.approx(float(of(lens.measured)), abs=1e-4)  # the model's own figure
    assert len(line.data) == (2 if prompt is None else 1)  # the spread over prompts

    layers = residscope.attribute(run.cache, PAIR, by="layer")
    bars = layers.to_plotly(prompt=prompt).data
    drawn = {text.split(":")[0]: y for trace in bars for text, y in zip(trace.hovertext, trace.y, strict=True)}
    assert drawn == pytest.approx(dict(zip(layers.labels, of(layers.values).tolist(), strict=True)))
    assert {"attention", "MLP"} <= {trace.name for trace in bars}
    for trace in bars:
        assert [colour == "#3a82bd" for colour in trace.marker.color] == [y >= 0 for y in trace.y]

    everywhere = residscope.attribute(run.cache, PAIR, by="layer", position="all")
    every = everywhere.to_plotly(prompt=prompt)
    np.testing.assert_allclose(numbers(every.data[0].z), of(everywhere.values, 1), rtol=1e-6)

    sources = residscope.attribute(run.cache, PAIR, by="source", heads=["0.1", "2.3"])
    np.testing.assert_allclose(numbers(sources.to_plotly(prompt=prompt).data[0].z), of(sources.values).T, rtol=1e-6)
    everywhere = residscope.attribute(run.cache, PAIR, by="source", heads=["0.1", "2.3"], position="all")
    maps = everywhere.to_plotly(prompt=prompt).data
    for n, head in enumerate(maps):
        np.testing.assert_allclose(numbers(head.z), of(everywhere.values)[..., n].T, rtol=1e-6)

    neurons = residscope.attribute(run.cache, PAIR, by="neuron")
    assert list(neurons.to_plotly(prompt=prompt).data[0].x) == pytest.approx([v for _, v in neurons.top(5, prompt)])

    each = heads.to_plotly("prompts", rows=["L2H3", "L0H1"])
    np.testing.assert_allclose([bars.y for bars in each.data], heads.grid[[2, 0], [3, 1]], rtol=1e-6)
    np.testing.assert_allclose(lens.to_plotly("prompts").data[0].y, lens.measured, atol=1e-4)

    other = residscope.attribute(run.cache, "w9")
    scatter = heads.to_plotly("scatter", prompt, other=other, names=("clean", "corrupted"))
    np.testing.assert_allclose(scatter.data[1].x, of(heads.values), rtol=1e-6)
    np.testing.assert_allclose(scatter.data[1].y, of(other.values), rtol=1e-6)
    assert scatter.layout.yaxis.title.text == "corrupted (logits)"


@pytest.mark.parametrize(
    ("first", "end"),
    [(80.0, 4.0), (-80.0, 4.0), (5.0, 5.0), (float("nan"), 4.0)],
    ids=["an outlier", "of either sign", "not far out", "not known"],
)
def test_one_outlier_does_not_pale_a_map_of_positions(llama, first, end):
    found = residscope.attribute(llama.cache, PAIR, by="layer", position="all")
    values = torch.full_like(found.values, 0.5)
    values[2, :, 3], values[1, :, 0] = -4, first
    figure = replace(found, values=values).to_plotly(prompt=0)
    colours, far = figure.layout.coloraxis, abs(first) > 6
    assert (colours.cmin, colours.cmax) == (-end, end)
    assert numbers(figure.data[0].z)[1][0] == pytest.approx(first, nan_ok=True)  # the true number, whatever its colour
    dots = [[y, x] for y, row in enumerate(figure.data[0].text or []) for x, dot in enumerate(row) if dot]
    assert dots == ([[1, 0]] if far else [])
    assert ("a dot: beyond the colours, which end at ±4.00" in figure.layout.title.text) == far
    ends = ["≤ −4.00" if first < 0 else "−4.00", "0", "≥ +4.00" if first > 0 else "+4.00"]
    assert list(colours.colorbar.ticktext or []) == (ends if far else [])


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
def test_a_token_that_stands_twice_bears_its_position(llama, tokens, drawn):
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
def test_titles_say_of_which_target_and_model(llama, answers, prompt, target):
    model = "llama"  # not the folder that it was loaded from
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


def test_the_token_lens_as_a_figure(llama):
    found = residscope.token_lens(llama.cache, "w5", prompt=1)
    figure = found.to_plotly()
    np.testing.assert_allclose(numbers(figure.data[0].z), found.probabilities[..., 0], rtol=1e-6)
    assert [list(row) for row in figure.data[0].text] == [[cell[0] for cell in row] for row in found.tokens]
    assert list(figure.layout.yaxis.ticktext) == found.points


def texts(part) -> list[str]:
    """All texts in a figure."""
    if isinstance(part, dict):
        return [text for value in part.values() for text in texts(value)]
    return [t for value in part for t in texts(value)] if isinstance(part, list) else [part] * isinstance(part, str)


def test_a_token_is_text_in_a_figure_whatever_is_in_it(llama):
    over = {"heads": ["0.1"], "by": "source", "position": "all"}
    figures = [
        residscope.attribute(llama.cache, PAIR, by="layer", position="all").to_plotly(tokens=MARKUP),
        residscope.attribute(llama.cache, PAIR, by="source", heads=["0.1"]).to_plotly(tokens=MARKUP),
        residscope.attribute(llama.cache, PAIR, **over).to_plotly(tokens=MARKUP),
    ]
    for figure in figures:
        found = texts(json.loads(figure.to_json())["layout"] | {"data": json.loads(figure.to_json())["data"]})
        found = [re.sub('<br><span style="font-size:12px">(.*)</span>$', r"\1", text) for text in found]  # the title's
        assert not [text for text in found if "<" in text or ">" in text or "$" in text]
        assert "&lt;b&gt;x&lt;/b&gt;" in figure.layout.xaxis.ticktext
        assert "&amp;lt;" in figure.layout.xaxis.ticktext
        assert any("&lt;img·src=x·on…" in text for text in found)


def test_what_a_figure_cannot_show_is_a_sentence(llama, monkeypatch):
    heads = residscope.attribute(llama.cache, PAIR)
    layers = residscope.attribute(llama.cache, PAIR, by="layer")
    for draw, said in [
        (lambda: heads.to_plotly("pie"), '`kind="pie"` is not known'),
        (lambda: heads.to_plotly("lens"), 'needs `by="accumulated"`'),
        (lambda: layers.to_plotly("heatmap"), "two axes"),
        (lambda: heads.to_plotly("scatter"), "one attribution against another"),
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


def test_a_table_as_csv(llama, tmp_path):
    result = residscope.attribute(llama.cache, PAIR, by="layer")
    result.to_csv(tmp_path / "layers.csv")
    head, *rows = csv.reader(io.StringIO((tmp_path / "layers.csv").read_text()))
    assert head == ["component", "0", "1", "2"]
    assert [row[0] for row in rows] == result.labels
    np.testing.assert_allclose(np.array([row[1:] for row in rows], dtype=float), result.values, rtol=1e-6)
    assert result.to_csv() == (tmp_path / "layers.csv").read_text()


def test_importing_the_package_brings_no_plotting_library():
    code = (
        "import sys, residscope; print([m for m in ('torch', 'plotly', 'circuitsvis', 'pandas') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# --- CircuitsVis -----------------------------------------------------------------------------------------------------
def properties(page: str) -> dict:
    """What a page of CircuitsVis hands its element."""
    call = page[page.rindex("render(") :]
    return json.loads(call[call.index("{") : call.rindex("}") + 1])


@pytest.mark.parametrize("view", ["patterns", "heads"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_circuitsvis_gets_what_is_in_the_cache(llama, view, dtype):
    from transformer_lens import ActivationCache

    cache = ActivationCache(
        {n: t.to(dtype) if t.is_floating_point() else t for n, t in llama.cache.items()}, llama.model
    )
    page = residscope.to_circuitsvis(cache, ["0.1", "2.3"], prompt=1, view=view)
    expected = torch.stack([cache["pattern", 0][1, 1], cache["pattern", 2][1, 3]]).float()
    for source in (page.local_src, page.cdn_src):
        given = properties(source)
        np.testing.assert_allclose(given["attention"], expected, atol=1e-6)
        assert given["tokens"] == residscope.attention(cache, "0.1", prompt=1).tokens
        assert given["headLabels" if view == "patterns" else "attentionHeadNames"] == ["L0H1", "L2H3"]


def test_circuitsvis_gets_signed_contributions_with_their_scale(llama):
    how = {"prompt": 0, "weighting": "contribution", "answers": PAIR}
    given = properties(residscope.to_circuitsvis(llama.cache, ["0.1"], view="heads", **how).cdn_src)
    values = residscope.attention(llama.cache, ["0.1"], **how).values
    np.testing.assert_allclose(given["attention"], values, atol=1e-6)
    assert given["maxValue"] == -given["minValue"] == pytest.approx(float(values.abs().max()))
    assert given["maskUpperTri"] is True
    with pytest.raises(ResidscopeError, match='use `view="heads"`'):
        residscope.to_circuitsvis(llama.cache, ["0.1"], **how)
    lengths = properties(residscope.to_circuitsvis(llama.cache, ["0.1"], weighting="value").cdn_src)
    assert np.max(lengths["attention"]) == pytest.approx(1)


def test_circuitsvis_shows_the_first_prompt_where_none_is_named(llama):
    given = properties(residscope.to_circuitsvis(cache=llama.cache, heads=["0.1"]).cdn_src)
    np.testing.assert_allclose(given["attention"], llama.cache["pattern", 0][0, 1][None], atol=1e-6)
    with pytest.raises(TypeError):
        residscope.to_circuitsvis(llama.cache, ["0.1"], 1)  # what is said of them is named


@pytest.mark.parametrize("weighting", ["attention", "gradient"])
def test_circuitsvis_says_that_a_weighting_is_not_known(llama, weighting):
    with pytest.raises(ResidscopeError, match=f'`weighting="{weighting}"` is not known'):
        residscope.to_circuitsvis(llama.cache, ["0.1"], weighting=weighting)


@pytest.mark.parametrize("view", ["patterns", "heads"])
def test_no_token_breaks_out_of_circuitsvis_page(llama, monkeypatch, view):
    monkeypatch.setattr("residscope.patterns.maps.token_texts", lambda *_: MARKUP)
    page = residscope.to_circuitsvis(llama.cache, ["0.1"], view=view)
    for source in (page.local_src, page.cdn_src):
        assert properties(source)["tokens"] == MARKUP
        assert "<" not in source[source.rindex("render(") :].removesuffix("</script>")


# --- the code for what is shown --------------------------------------------------------------------------------------
TARGETS = {
    "pair": ("w5", "w9"),
    "single": "w7",
    "per prompt": [("w5", "w9"), ("w6", "w8"), ("w9", "w5")],
    "set": {"w5", "w6"},
    "sets": (["w5", "w6"], "w9"),
}
PICTURES = ["lens", "layers", "heads", "ranking", "attention", "positions", "token-lens", "prompts"]


def written(service: Service, picture: str, shown: Shown) -> str:
    return service.reply(WriteCode(picture, shown))[0].code


def drawn(figure) -> np.ndarray:
    """All figures that marks stand for."""
    marks = [trace for trace in figure.data if trace.hoverinfo != "skip"]
    held = [mark.z if mark.type == "heatmap" else mark.x if mark.orientation == "h" else mark.y for mark in marks]
    return np.concatenate([numbers(values).ravel() for values in held])


def ran(code: str, **namespace):
    """The array that a code makes in a fresh cell where `namespace` is known."""
    assert code.splitlines()[-1] == "figure"
    names = set(namespace)
    exec(compile(code, "cell", "exec"), namespace)
    added = set(namespace) - names - {"__builtins__", "residscope", "px"}
    assert added <= {"attribution", "values", "figure"}
    assert namespace["figure"].to_json()
    values = np.asarray(namespace["values"])
    # Of each cell of the token lens one token is drawn; and a text lays heads over each other that are drawn apart.
    shown = values[..., 0] if "attribution.probabilities" in code else values
    if "the sum over heads" not in code and "the mean over heads" not in code:
        np.testing.assert_allclose(np.sort(drawn(namespace["figure"])), np.sort(shown, None), atol=1e-5, rtol=1e-5)
    return values


def pictured(service: Service, picture: str, shown: Shown) -> np.ndarray:
    """The array that the service's replies for the same selection hold."""
    view, where = service.view(), {"prompt": shown.prompt, "position": shown.position}
    shape = (view.n_layers, view.n_heads)

    def ask(request):
        reply, buffers = service.reply(request)
        return reply, [np.frombuffer(buffer, np.float32) for buffer in buffers]

    match picture:
        case "lens":
            reply, [rows, *_] = ask(Attribute("accumulated", shown.target, norm=shown.norm, **where))
            return rows + reply.constant
        case "layers":
            return ask(Attribute("layer", shown.target, **where))[1][0]
        case "heads" if shown.score:
            return ask(ScoreHeads(shown.score, shown.prompt))[1][0].reshape(shape)
        case "heads":
            return ask(Attribute("head", shown.target, **where))[1][0][: shape[0] * shape[1]].reshape(shape)
        case "ranking" if shown.ranking == "neurons":
            return ask(RankNeurons(shown.target, shown.layer, shown.top_k, **where))[1][0]
        case "ranking":
            rows = ask(Attribute("head", shown.target, **where))[1][0][: shape[0] * shape[1]]
            order, k = np.argsort(-rows), shown.top_k
            return np.array([*(v for v in rows[order][:k] if v > 0), *(v for v in rows[order[::-1]][:k] if v < 0)])
        case "positions":
            reply, [rows, *_] = ask(MapPositions(shown.by, shown.target, shown.prompt, shown.norm, shown.heads))
            return rows.reshape(len(labels_of(reply)), reply.positions)
        case "token-lens":
            points = [f"{layer}_{part}" for layer in range(shape[0]) for part in ("pre", "mid")] + ["final_post"]
            points = [point for point in points if view.has(f"blocks.{point.replace('_', '.hook_resid_')}")] + points[
                -1:
            ]
            cells = service.reply(ReadTokenLens(points, 0, view.n_pos, shown.target, prompt=shown.prompt))[0].cells
            return np.array([[cell.probabilities for cell in row] for row in cells])
        case "prompts":
            by = "head" if shown.heads else "accumulated"
            reply, [_, _, each, constants] = ask(Attribute(by, shown.target, position=shown.position))
            labels = labels_of(reply)
            each = each.reshape(len(labels), view.batch)
            rows = each[[labels.index(head) for head in shown.heads]] if shown.heads else each[-1] + constants
            return rows[0] if len(shown.heads) == 1 else rows
        case _:
            raise AssertionError(picture)


def pictured_attention(service: Service, shown: Shown) -> tuple[np.ndarray, np.ndarray]:
    """The maps as they travel, of short prompts in float32 and a triangle, and how coarse that is."""
    maps, steps = [], []
    for head in shown.heads:
        layer, index = head[1:].split("H")
        ask = ReadAttention(int(layer), int(index), shown.target, shown.prompt, shown.position, shown.weighting)
        reply, buffers = service.reply(ask)
        part, buffer = next(
            (part, buffer) for part, buffer in zip(reply.parts, buffers, strict=True) if part.what == shown.weighting
        )
        assert part.wide
        assert part.triangle
        map = np.zeros((reply.positions, reply.positions))
        map[np.tril_indices(reply.positions)] = np.frombuffer(buffer, np.float32)
        maps.append(map)
        steps.append(np.abs(map) * 2.0**-22)
    return np.array(maps), np.array(steps)


@pytest.mark.parametrize(("prompt", "position"), [(None, "last"), (None, 3), (0, "last"), (1, 0), (2, 3)])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("picture", PICTURES)
def test_the_code_gives_the_array_that_is_shown(llama, picture, target, prompt, position):
    options = OPTIONS.get(picture, [{}])
    check(llama.cache, picture, TARGETS[target], prompt, position, options if target == "pair" else options[-1:])


@pytest.mark.parametrize("picture", PICTURES)
def test_it_does_with_biases_too(picture):
    _, _, cache = tiny.run(tiny.boot("gpt2"))
    check(cache, picture, TARGETS["per prompt"], None, "last", OPTIONS.get(picture, [{}]))


OPTIONS = {
    "lens": [{"norm": "recomputed"}, {}],
    "heads": [{"score": "induction"}, {"score": "copying"}, {}],
    "ranking": [{"ranking": "neurons"}, {"ranking": "neurons", "layer": 0}, {}],
    "attention": [
        {"weighting": weighting, "presentation": presentation}
        for weighting in ("pattern", "value", "contribution")
        for presentation in ("matrix", "text")
    ],
    "positions": [
        {"by": "accumulated", "norm": "recomputed"},
        *({"by": by} for by in ("accumulated", "layer", "head")),
    ],
    "prompts": [{"heads": []}, {"heads": ["L2H3"]}, {"heads": ["L2H3", "L0H1"]}],
}


def check(cache, picture, answers, prompt, position, options):
    service = Service(cache)
    target = service.targets().resolve(answers)
    for option in options:
        selection = {"prompt": prompt, "position": position, "heads": ["L2H3", "L0H1"], "top_k": 3} | option
        shown = Shown(target, **selection)
        code = written(service, picture, shown)
        elsewhere = picture in ("lens", "layers", "heads", "ranking", "prompts") and not shown.score
        assert bool(re.search(rf"position={position}\b", code)) == (elsewhere and position != "last")
        values = ran(code, cache=cache)
        if picture == "attention":
            expected, step = pictured_attention(service, shown)
            if shown.presentation == "text":  # the heads over each other: contributions add up
                expected = expected.sum(0) / (1 if shown.weighting == "contribution" else len(shown.heads))
                step = step.sum(0)
            assert (np.abs(values - expected) <= step + 1e-6).all()
        else:
            np.testing.assert_allclose(values, pictured(service, picture, shown), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("family", "heads"), [("lfm2", 8), ("laguna-heads", 8), ("llama", 12)])
def test_the_code_of_all_heads_names_those_that_there_are(family, heads):
    """Also where some layers have no attention, or fewer heads."""
    cache = tiny.run(tiny.boot(family))[2]
    service = Service(cache)
    target = service.targets().resolve(PAIR)
    for weighting in ("pattern", "value", "contribution"):
        shown = Shown(target, 1, presentation="all", weighting=weighting)
        assert ran(written(service, "attention", shown), cache=cache).shape == (heads, 7, 7)


def test_the_code_is_as_a_person_would_write_it(llama):
    service = Service(llama.cache)
    target = service.targets().resolve(PAIR)
    assert written(service, "heads", Shown(target, position=6)) == (
        "import residscope\n"
        "\n"
        "# `cache` stands for the ActivationCache that is shown.\n"
        'attribution = residscope.attribute(cache, ("w5", "w9"), by="head")\n'
        "values = attribution.grid.mean(-1)  # [layer, head], logits, the mean over 3 prompts\n"
        "figure = attribution.to_plotly()\n"
        "figure\n"
    )
    assert written(service, "attention", Shown(target, 1, heads=["L2H3"], weighting="value")) == (
        "import residscope\n"
        "\n"
        "# `cache` stands for the ActivationCache that is shown.\n"
        'attribution = residscope.attention(cache, ["L2H3"], prompt=1, weighting="value")\n'
        "values = attribution.values  # [head, destination, source], prompt 1\n"
        "figure = attribution.to_plotly()\n"
        "figure\n"
    )


def test_a_long_list_in_the_code_has_a_line_for_each_part():
    short, long = ["word"] * 9, ["a long word"] * 7
    assert literal(short) == "[" + ", ".join(['"word"'] * 9) + "]"
    assert call("f", ["cache", literal(long), "k=1"]) == (
        "f(\n    cache,\n    [\n" + '        "a long word",\n' * 7 + "    ],\n    k=1,\n)"
    )


@pytest.mark.parametrize("length", [1, 5, 9, 20])
def test_no_line_of_the_code_is_wider_than_a_hundred_letters(length):
    for count in range(1, 40):
        code = call("attribution = residscope.attribute", ["cache", literal(["w" * length] * count), 'by="head"'])
        assert max(map(len, code.splitlines())) <= 100


@pytest.fixture
def notebook(monkeypatch):
    """The variables of a notebook; a test fills them."""
    import IPython.core.getipython

    variables: dict[str, object] = {}
    monkeypatch.setattr(IPython.core.getipython, "get_ipython", lambda: SimpleNamespace(user_ns=variables))
    return variables


def test_the_code_names_what_the_user_names(run, notebook):
    given = {"logits": run.logits.clone(), "tokens": run.tokens.clone(), "model": run.model}
    direction = torch.randn(run.model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    service = Service(run.cache, "a label of mine", **given)
    shown = Shown(service.targets().resolve(direction), prompt=2)

    code = written(service, "layers", shown)  # nothing of it has a variable
    for name in ("cache", "logits", "tokens", "model", "direction"):
        assert f"# `{name}` stands for " in code
    assert "shown as 'a label of mine'" in code
    expected = pictured(service, "layers", shown)
    np.testing.assert_allclose(ran(code, cache=run.cache, direction=direction, **given), expected, atol=1e-6)

    notebook |= {"runs": {"clean": run.cache}, "other": torch.zeros_like(direction), "d": direction}
    notebook |= {"out": given["logits"], "ids": given["tokens"], "bridge": given["model"]}
    code = written(service, "layers", shown)
    assert "# `" not in code
    assert 'runs["clean"], d, ' in code.replace("\n    ", " ")
    assert {"logits=out", "tokens=ids", "model=bridge"} <= {line.strip(" ,") for line in code.splitlines()}
    np.testing.assert_allclose(ran(code, **notebook), expected, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ['x"]; import os #', "runs[…]", "a\nb", 'runs["x"] (2)', "f()", "lambda: 0", "x #", "x[\n0]", "x\n"],
)
def test_a_name_that_is_no_variable_does_not_become_code(llama, name):
    service = Service(llama.cache, name)
    code = written(service, "layers", Shown(service.targets().resolve(PAIR)))
    assert len(code.splitlines()) == 7
    ran(code, cache=llama.cache)


def test_strings_in_the_code_are_safe():
    import hostile

    _, cache = hostile.cache()
    service = Service(cache)
    vocabulary = service.targets().vocabulary
    tokens = [vocabulary.token(id) for id in range(len(hostile.TOKENS))]
    shown = Shown(service.targets().resolve(([t.id for t in tokens[:-1]], tokens[-1].id)), prompt=0, heads=["L0H1"])
    for picture in PICTURES:
        code = written(service, picture, shown)
        np.testing.assert_array_less(-np.inf, ran(code, cache=cache))
        assert "\u202e" not in code


@pytest.mark.parametrize(("picture", "prompt"), [("heads", None), ("lens", 3), ("attention", 5)])
def test_what_the_demo_shows_as_code(ioi, picture, prompt):
    service = Service(ioi.cache)
    shown = Shown(service.targets().resolve(ioi.answers), prompt, heads=["L23H3", "L29H0"], weighting="contribution")
    assert '(" Mary", " John"),' in written(service, picture, shown)
    check(ioi.cache, picture, ioi.answers, prompt, "last", [{"heads": shown.heads, "weighting": shown.weighting}])
