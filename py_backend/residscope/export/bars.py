"""Bar charts of attributions: by layer, as a ranking, by prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from residscope.attribution.result import of_prompt, strongest, without_padding
from residscope.attribution.target_words import unit_of
from residscope.base.signed import signed
from residscope.compute.farthest import farthest_first
from residscope.export.figure_data import Shown, checked_labels
from residscope.export.palette import QUIET, axis, colours, farthest, figure, target_words

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MOST_TICKS = 20
"""For at most this many prompts, the axis shows the number of every prompt."""
_ROW_COLOURS = ["#2f8779", "#8a8f94", "#0a4844", "#8cc1b3", "#4d5257", "#c4c8cb"]
"""Colours of several rows. They differ from the colours for positive and negative values."""
_PLACES = {"attn_out": ("attention", 0.25), "mlp_out": ("MLP", 0.75)}
"""For a kind of row: the name of its group, and its place within the layer (0 to 1)."""


def layers(shown: Shown) -> Figure:
    """Draw bars by layer. Layer i fills [i, i + 1]: attention the left half, MLP the right. Embeddings fill [−1, 0]."""
    rows = shown.result.components
    values: list[float] = shown.values.tolist()
    before = [row for row in rows if row.layer is None]
    groups: dict[str, list[tuple[float, float, str]]] = {"attention": [], "MLP": [], "other": []}
    for row, value in zip(rows, values, strict=True):
        name, half = _PLACES.get(row.kind, ("other", 0.5))
        x = (before.index(row) + 0.5) / len(before) - 1 if row.layer is None else row.layer + half
        groups[name].append((x, value, row.label))
    end = farthest(values)
    patterns = {"attention": "", "MLP": "/", "other": "."}
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": [x for x, _, _ in bars],
            "y": [value for _, value, _ in bars],
            "width": [0.42] * len(bars),
            "marker": {"color": colours([value for _, value, _ in bars]), "pattern": {"shape": patterns[name]}},
            "hovertext": [f"{label}: {signed(value, end)} {shown.unit}" for _, value, label in bars],
            "hoverinfo": "text",
        }
        for name, bars in groups.items()
        if bars
    ]
    count = 1 + max((row.layer for row in rows if row.layer is not None), default=-1)
    step = -(-count // 16) or 1
    layers = range(0, count, step)
    return figure(
        traces,
        shown.titled(),
        barmode="overlay",
        xaxis=axis("layer", tickvals=[n + 0.5 for n in layers], ticktext=[str(n) for n in layers]),
        yaxis=axis(shown.unit, zeroline=True, zerolinecolor=QUIET),
    )


def ranking(shown: Shown) -> Figure:
    """Draw the given rows in their order. By default: the largest contributions, the positive ones first."""
    if shown.rows is None:
        rows, title = shown.values[: shown.result.parts], f": the {shown.k} strongest of each sign"
        chosen = strongest(rows, shown.k)
    else:
        rows, title, every = shown.values, "", shown.result.labels
        chosen = [every.index(label) for label in checked_labels(shown.result, shown.rows)]
    labels = [shown.result.components[i].label for i in chosen]
    values: list[float] = rows[chosen].tolist()
    end = farthest(values)
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": values,
        "y": list(range(len(values))),
        "marker": {"color": colours(values)},
        "text": [signed(value, end) for value in values],
        "hovertext": [
            f"{label}: {signed(value, end)} {shown.unit}" for label, value in zip(labels, values, strict=True)
        ],
        "hoverinfo": "text",
    }
    return figure(
        [trace],
        shown.titled(title),
        xaxis=axis(shown.unit, zeroline=True, zerolinecolor=QUIET),
        yaxis=axis("", labels, autorange="reversed"),
    )


_WIDE = 420
"""The width in pixels of each ranking, if several are side by side."""


def sides(shown: Shown) -> Figure:
    """Draw the strongest rows of several attributions side by side. Each chart ends with the sum of the other rows."""
    every = (shown.result, *shown.others)
    traces: list[Mapping[str, object]] = []
    titles: list[Mapping[str, object]] = []
    layout: dict[str, object] = {"width": 120 + _WIDE * len(every)}
    for n, result in enumerate(every):
        rows = of_prompt(result, result.values, shown.prompt)
        # Rows after the target's point are 0 and do not count. If only one other row is left, it is listed, too.
        count, k = int((rows.nan_to_num(0.0) != 0).sum()), max(shown.k, 0)
        chosen = farthest_first(rows, count if count <= k + 1 else k)
        labels = [result.components[i].label for i in chosen]
        values: list[float] = rows[chosen].tolist()
        if count > len(chosen):
            labels.append(f"{count - len(chosen)} others")
            values.append(float(rows.sum()) - sum(values))
        unit, end, number = unit_of(result.target), farthest(values), str(n + 1) if n else ""
        left, right = (n + 0.28) / len(every), (n + 0.92) / len(every)
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "x": values,
                "y": list(range(len(values))),
                "xaxis": f"x{number}",
                "yaxis": f"y{number}",
                "marker": {"color": colours(values)},
                "text": [signed(value, end) for value in values],
                "hovertext": [
                    f"{label}: {signed(value, end)} {unit}" for label, value in zip(labels, values, strict=True)
                ],
                "hoverinfo": "text",
            }
        )
        layout[f"xaxis{number}"] = axis(
            unit, zeroline=True, zerolinecolor=QUIET, domain=[left, right], anchor=f"y{number}"
        )
        layout[f"yaxis{number}"] = axis("", labels, autorange="reversed", anchor=f"x{number}")
        words = target_words(result.target, shown.prompt)
        where = {"x": left, "y": 1, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
        titles.append({"text": words, "showarrow": False} | where)
    what = f"What the target is made of: the {shown.k} strongest rows"
    return figure(traces, shown.titled(what=what), showlegend=False, annotations=titles, **layout)


def prompts(shown: Shown) -> Figure:
    """Draw a bar for each prompt, for each given row. The default is the strongest row; in the logit lens, the last."""
    result = shown.result
    lens = result.by == "accumulated"
    strongest_row = result.components[
        int(of_prompt(result, result.values[: result.parts], None).abs().nan_to_num(-1.0).argmax())
    ]
    labels = checked_labels(result, shown.rows or [(result.components[-1] if lens else strongest_row).label])
    traces: list[Mapping[str, object]] = []
    for n, label in enumerate(labels):
        row = result.values[result.labels.index(label)]
        values = without_padding(result, row + result.constant if lens else row).tolist()
        end = farthest(values)
        hover = [f"{label}, prompt {prompt}: {signed(value, end)} {shown.unit}" for prompt, value in enumerate(values)]
        trace = {"type": "bar", "name": label, "x": list(range(len(values))), "y": values}
        colour = colours(values) if len(labels) == 1 else _ROW_COLOURS[n % len(_ROW_COLOURS)]
        traces.append(trace | {"marker": {"color": colour}, "hovertext": hover, "hoverinfo": "text"})
    return figure(
        traces,
        shown.titled(what=f"{' and '.join(labels)}, prompt by prompt"),
        showlegend=len(labels) > 1,
        xaxis=axis("prompt", dtick=1 if result.values.shape[1] <= _MOST_TICKS else None),
        yaxis=axis(shown.unit, zeroline=True, zerolinecolor=QUIET),
    )
