"""Attention, source contributions, head scores and the token lens as plotly figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.pair_map import strongest
from residscope.attribution.target_words import unit_of
from residscope.attribution.token_lens import NO_TOKEN
from residscope.base.signed import signed
from residscope.errors import ResidscopeError
from residscope.export.palette import (
    axis,
    cells,
    diverging,
    figure,
    limit,
    name,
    plain,
    sequential,
    target_words,
    titled,
    token,
    token_names,
)
from residscope.patterns.downsampling import Part, down_sampled
from residscope.patterns.weighting import MEANINGS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import Tensor

    from residscope.attribution.pair_map import Pairs
    from residscope.attribution.token_lens import TokenLens
    from residscope.comparison.two_maps import TokenLensComparison
    from residscope.export.figure_data import Shown
    from residscope.patterns.maps import Attention
    from residscope.patterns.scores import Scores
    from residscope.patterns.segment_maps import SegmentAttention
    from residscope.terms import Target, Weighting

_MAPS_PER_ROW = 4


def attention_figure(attention: Attention) -> Figure:
    """See `Attention.to_plotly`."""
    values = attention.values
    colour = _colour(values, attention.weighting, attention.target)
    whose = "mean over prompts" if attention.prompt is None else f"prompt {attention.prompt}"
    target = target_words(attention.target, attention.prompt)

    def title(suffix: str = "") -> str:
        return titled(f"{plain(attention.meaning)}, {whose}{suffix}", target, name(attention.model))

    position_names = token_names(attention.tokens)
    sources = token_names(attention.sources or attention.tokens)
    if len(sources) != len(position_names):
        return _side_by_side(values, attention.heads, position_names, title(), colour, sources)
    step = Part.of(values.shape[-1]).step
    suffix = ""
    if step > 1:  # as in the panel, because a browser cannot draw so many cells
        ends = [(start, min(start + step, len(position_names)) - 1) for start in range(0, len(position_names), step)]
        position_names = [f"{start}–{end}" if end > start else str(start) for start, end in ends]
        values, suffix = down_sampled(values, step), f": the value farthest from zero in each {step} × {step} cells"
    return _side_by_side(values, attention.heads, position_names, title(suffix), colour)


def _colour(values: Tensor, weighting: Weighting, target: Target | None) -> dict[str, object]:
    unit = unit_of(target) if weighting == "contribution" else MEANINGS[weighting]
    if weighting == "contribution" or bool((values < 0).any()):  # negative in a difference of two runs
        return diverging(limit(values), unit)
    return sequential(1.0 if weighting == "pattern" else limit(values), unit)


def segments_figure(maps: SegmentAttention) -> Figure:
    """See `SegmentAttention.to_plotly`."""
    prompt = maps.segments.prompt
    title = titled(f"{plain(maps.meaning)}, prompt {prompt}", target_words(maps.target, prompt), name(maps.model))
    names = [plain(segment.name) for segment in maps.segments]
    return _side_by_side(maps.values, maps.heads, names, title, _colour(maps.values, maps.weighting, maps.target))


def token_lens_figure(lens: TokenLens) -> Figure:
    """See `TokenLens.to_plotly`."""
    likeliest = lens.probabilities[..., 0]
    norm = "recomputed at each point" if lens.norm == "recomputed" else "held fixed"
    drawn = [[token(cell[0], 8) for cell in row] for row in lens.tokens]
    hover = [
        [
            f"{point}, position {position}:"
            + "".join(f"<br>{token(text)} {probability:.3f}" for text, probability in zip(cell, row[x], strict=True))
            + _answer(lens, y, x)
            for x, (position, cell) in enumerate(zip(lens.positions, lens.tokens[y], strict=True))
        ]
        for y, (point, row) in enumerate(zip(lens.points, lens.probabilities.tolist(), strict=True))
    ]
    size = {"width": 220 + 70 * len(lens.positions), "height": 180 + 24 * len(lens.points)}
    return figure(
        [cells(likeliest, hover, text=drawn, texttemplate="%{text}")],
        titled(f"The likeliest tokens, the norm {norm}", target_words(lens.target, None), name(lens.model)),
        xaxis=axis("position", [str(position) for position in lens.positions]),
        yaxis=axis("point of the residual stream", lens.points, autorange="reversed"),
        coloraxis=sequential(1.0, "probability"),
        **size,
    )


def compared_lens_figure(lenses: TokenLensComparison) -> Figure:
    """See `TokenLensComparison.to_plotly`."""
    values = lenses.answer_probability
    if values is None:
        raise ResidscopeError("no-answer", "The target has no answer token whose probability could be compared.")
    both = list(zip(lenses.first.tokens, lenses.second.tokens, strict=True))
    hover = [
        [
            f"{point}, position {pair[0]} of the first run, {pair[1]} of the second: "
            f"{NO_TOKEN if isnan(value) else f'{value:+.3f}'}"
            f"<br>likeliest: {token(both[y][0][x][0])}, {token(both[y][1][x][0])}"
            for x, (pair, value) in enumerate(zip(lenses.positions, row, strict=True))
        ]
        for y, (point, row) in enumerate(zip(lenses.points, values.tolist(), strict=True))
    ]
    return figure(
        [cells(values, hover)],
        titled("The answer’s probability, second run − first", target_words(lenses.first.target, None)),
        xaxis=axis("position in the first run", [str(pair[0]) for pair in lenses.positions]),
        yaxis=axis("point of the residual stream", lenses.points, autorange="reversed"),
        coloraxis=diverging(limit(values), "probability"),
        width=260 + 34 * len(lenses.positions),
        height=180 + 24 * len(lenses.points),
    )


def pairs_figure(pairs: Pairs, prompt: int | None, k: int) -> Figure:
    """See `Pairs.to_plotly`."""
    values = pairs.of(prompt)
    rows, columns = strongest(values, max(k, 1))
    shown = values[rows][:, columns]
    end = limit(shown)
    names = [pairs.query_labels[i] for i in rows], [pairs.key_labels[i] for i in columns]
    hover = [
        [f"query {names[0][y]} × key {names[1][x]}: {signed(v, end)}" for x, v in enumerate(row)]
        for y, row in enumerate(shown.tolist())
    ]
    whose = "mean over prompts" if prompt is None else f"prompt {prompt}"
    return figure(
        [cells(shown, hover)],
        titled(f"Attention score by pairs of components, {whose}", name(pairs.model)),
        xaxis=axis("component at the source (key)", names[1]),
        yaxis=axis("component at the destination (query)", names[0], autorange="reversed"),
        coloraxis=diverging(end, "score"),
        width=320 + 30 * len(columns),
        height=240 + 26 * len(rows),
    )


def scores_figure(scores: Scores) -> Figure:
    """See `Scores.to_plotly`."""
    layers, heads = scores.values.shape
    unit = "bits" if scores.score == "entropy" else "score"
    hover = [
        [
            f"{scores.labels[y * heads + x]}: {'no score' if isnan(value) else f'{value:.3g}'}"
            for x, value in enumerate(row)
        ]
        for y, row in enumerate(scores.values.tolist())
    ]
    return figure(
        [cells(scores.values, hover)],
        titled(f"Head scores: {scores.score}", name(scores.model)),
        xaxis=axis("head", [str(head) for head in range(heads)]),
        yaxis=axis("layer", [str(layer) for layer in range(layers)], autorange="reversed"),
        coloraxis=diverging(1.0, unit) if scores.low < 0 else sequential(scores.high, unit),
        width=260 + 34 * heads,
        height=200 + 24 * layers,
    )


def _answer(lens: TokenLens, y: int, x: int) -> str:
    if lens.answer_probability is None or lens.rank is None:
        return ""
    probability = float(lens.answer_probability[y, x])
    return (
        f"<br>{NO_TOKEN}" if isnan(probability) else f"<br>the answer: {probability:.3f} (rank {int(lens.rank[y, x])})"
    )


def source_maps(shown: Shown) -> Figure:
    """Return a figure of source contributions at each destination."""
    values = shown.values  # [source, destination, head]
    names = shown.position_names(values.shape[0])
    by_head = rearrange(values, "source destination head -> head destination source")
    return _side_by_side(by_head, shown.result.heads, names, shown.titled(), diverging(limit(values), shown.unit))


def _side_by_side(
    values: Tensor,
    heads: Sequence[str],
    position_names: list[str],
    title: str,
    colour: dict[str, object],
    sources: list[str] | None = None,
) -> Figure:
    """A map for each head of `[head, destination, source]`, with at most four maps in a row."""
    sources = position_names if sources is None else sources
    across = min(_MAPS_PER_ROW, len(heads))
    down = -(-len(heads) // across)
    traces: list[Mapping[str, object]] = []
    titles: list[Mapping[str, object]] = []
    end = limit(values)
    layout: dict[str, object] = {"coloraxis": colour, "width": 240 + 310 * across, "height": 90 + 430 * down}
    for n, (head, rows) in enumerate(zip(heads, values, strict=True)):
        row, column = divmod(n, across)
        number = str(n + 1) if n else ""
        x, y = f"x{number}", f"y{number}"
        left, top = column / across, 1 - row / down
        right, bottom = left + 0.9 / across, top - 0.65 / down
        layout[f"xaxis{number}"] = axis("from (source)", sources, domain=[left, right], anchor=y, tickangle=-60)
        # All maps have the same destinations, so only the first map of each row has them on its vertical axis.
        named = axis("to (destination)", position_names) if column == 0 else axis("", [])
        layout[f"yaxis{number}"] = named | {"domain": [bottom, top], "anchor": x, "autorange": "reversed"}
        hover = [
            [
                f"{head}: {position_names[q]} ({q}) reads {sources[k]} ({k}): {signed(v, end)}"
                for k, v in enumerate(line)
            ]
            for q, line in enumerate(rows.tolist())
        ]
        traces.append(cells(rows, hover, xaxis=x, yaxis=y))
        where = {"x": (left + right) / 2, "y": top, "xref": "paper", "yref": "paper"}
        titles.append({"text": head, "yanchor": "bottom", "xanchor": "center", "showarrow": False} | where)
    margin = {"l": 150, "r": 90, "t": 80, "b": 10}
    return figure(traces, title, annotations=titles, margin=margin, **layout)
