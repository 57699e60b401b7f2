"""An `Attribution` as a plotly figure: heatmap, lens, layers, ranking, scatter, sources, prompts or sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

from residscope.attribution.result import Attribution, of_prompt, spread_of
from residscope.base.signed import signed
from residscope.compute.farthest import farthest_first
from residscope.errors import ResidscopeError
from residscope.export.bars import layers, prompts, ranking, sides
from residscope.export.figure_data import Shown, checked_labels, usual_figure
from residscope.export.palette import (
    LINE,
    QUIET,
    axis,
    beyond,
    cells,
    clipped,
    diverging,
    farthest,
    figure,
    limit,
    name,
    target_words,
    titled,
)
from residscope.terms import FigureKind

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_LABELLED = 8
"""In a scatter plot, this many points have a label: those whose two values differ most."""


def attribution_figure(
    result: Attribution,
    kind: FigureKind | None = None,
    prompt: int | None = None,
    *,
    other: Attribution | Sequence[Attribution] | None = None,
    k: int = 5,
    tokens: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    names: tuple[str, str] = ("this", "other"),
) -> Figure:
    """See `Attribution.to_plotly`."""
    position_axes = [name for name in result.axes[1:] if name in ("pos", "destination", "source")]
    kind = kind or ("heatmap" if position_axes else usual_figure(result.by)[0])
    if kind not in get_args(FigureKind):
        every = ", ".join(f'"{name}"' for name in get_args(FigureKind))
        raise ResidscopeError("figure", f'`kind="{kind}"` is not known: use {every}.')
    if position_axes and kind != "heatmap":
        raise ResidscopeError(
            "figure",
            f'A figure of the kind "{kind}" shows one source: give `targets.output` a source.'
            if position_axes == ["source"]
            else f'A figure of the kind "{kind}" shows one position: call `attribute` without `position="all"`.',
        )
    fitting = {"lens": "accumulated", "layers": "layer", "sources": "source"}.get(kind)
    if fitting is not None and usual_figure(result.by)[0] != kind:
        raise ResidscopeError("figure", f'A figure of the kind "{kind}" needs `by="{fitting}"`, not "{result.by}".')
    if kind in ("ranking", "scatter", "prompts", "sides") and result.by == "source":
        raise ResidscopeError("figure", f'There is no figure of the kind "{kind}" for `by="source"`: use "sources".')
    others = () if other is None else (other,) if isinstance(other, Attribution) else tuple(other)
    shown = Shown(result, prompt, tokens, k, others, rows, names)
    return _DRAW[kind](shown)


def _heatmap(shown: Shown) -> Figure:
    result = shown.result
    if result.by == "source":
        from residscope.export.maps import source_maps

        return source_maps(shown)
    if result.axes[-1] in ("pos", "source"):
        return _component_map(shown)
    if result.by != "head":
        raise ResidscopeError(
            "figure",
            f'A heatmap needs two axes: use `by="head"`, or `by="{result.by}"` with `position="all"`.',
        )
    grid = of_prompt(result, result.grid, shown.prompt)
    end = limit(grid)
    hover = [
        [
            f"L{y}H{x}: {f'{signed(v, end)} {shown.unit}' if v == v else _why_empty(result, y)}"
            for x, v in enumerate(row)
        ]
        for y, row in enumerate(grid.tolist())
    ]
    return figure(
        [cells(grid, hover)],
        shown.titled(),
        xaxis=axis("head"),
        yaxis=axis("layer", autorange="reversed"),
        coloraxis=diverging(end, shown.unit),
    )


def _why_empty(result: Attribution, layer: int) -> str:
    """Why the heads of a layer have no value."""
    is_missing = any(name.startswith(f"blocks.{layer}.attn.") for name in result.missing)
    return "not cached" if is_missing else "no attention in this layer"


def _component_map(shown: Shown) -> Figure:
    every = shown.result.labels
    labels = checked_labels(shown.result, every if shown.rows is None else shown.rows)
    rows = shown.values[[every.index(label) for label in labels]]
    places, along = shown.position_names(rows.shape[1]), {"pos": "position"}.get(shown.result.axes[-1], "source")
    end = limit(rows)
    hover = [
        [f"{label} at {places[x]} (position {x}): {signed(value, end)} {shown.unit}" for x, value in enumerate(row)]
        for label, row in zip(labels, rows.tolist(), strict=True)
    ]
    end = clipped(rows, shown.last_position, shown.padding)
    dots = beyond(rows, end)
    note = f"a dot: beyond the colours, which end at ±{signed(end, end)[1:]}" if dots else ""
    return figure(
        [cells(rows, hover, **dots)],
        shown.titled(f", at every {along}", note=note),
        xaxis=axis(along, places),
        yaxis=axis("component", labels, autorange="reversed"),
        coloraxis=diverging(end, shown.unit, rows),
    )


def _lens(shown: Shown) -> Figure:
    result = shown.result
    # With the constant added, each point is a value of the target; the last one is the model's own value.
    points = (shown.values + of_prompt(result, result.constant, shown.prompt)).tolist()
    x, end = list(range(len(points))), farthest(points)
    hover = [f"{label}: {signed(value, end)} {shown.unit}" for label, value in zip(result.labels, points, strict=True)]
    traces: list[Mapping[str, object]] = []
    suffix = ""
    if shown.prompt is None and result.values.shape[1] > 1:
        spread = spread_of(result, result.values + result.constant).tolist()
        upper = [value + sd for value, sd in zip(points, spread, strict=True)]
        lower = [value - sd for value, sd in zip(points, spread, strict=True)]
        band = {"type": "scatter", "mode": "lines", "x": x + x[::-1], "y": upper + lower[::-1], "fill": "toself"}
        traces.append(band | {"fillcolor": "#e4edf2", "line": {"width": 0}, "hoverinfo": "skip"})
        suffix = " ± standard deviation"
    line = {"type": "scatter", "mode": "lines+markers", "x": x, "y": points, "hovertext": hover, "hoverinfo": "text"}
    traces.append(line | {"line": {"color": LINE}, "marker": {"size": 5}})
    return figure(
        traces,
        shown.titled(suffix),
        showlegend=False,
        xaxis=axis("point of the residual stream", result.labels),
        yaxis=axis(shown.unit, zeroline=True, zerolinecolor=QUIET),
    )


def _scatter(shown: Shown) -> Figure:
    if len(shown.others) != 1:
        raise ResidscopeError("figure", 'A scatter plot compares two attributions: `to_plotly("scatter", other=b)`.')
    other = shown.others[0]
    if other.components != shown.result.components or other.axes != shown.result.axes:
        raise ResidscopeError(
            "figure", "A scatter plot needs two attributions with the same rows, and so the same model and `by`."
        )
    x = shown.values
    y = of_prompt(other, other.values, shown.prompt).to(x.device)  # two caches may be on two devices
    far = set(farthest_first(x - y, _LABELLED))
    labels = shown.result.labels
    end = max(limit(x), limit(y)) * 1.05
    one, two = map(name, shown.names)
    targets = [target_words(each.target, shown.prompt) for each in (shown.result, other)]
    models = [name(each.model) for each in (shown.result, other)]
    points = {
        "type": "scatter",
        "mode": "markers+text",
        "x": x.tolist(),
        "y": y.tolist(),
        "text": [label if i in far else "" for i, label in enumerate(labels)],
        "textposition": "top center",
        "marker": {"color": LINE, "opacity": 0.6},
        "hovertext": [
            f"{label}: {one} {signed(a, end)}, {two} {signed(b, end)} {shown.unit}"
            for label, a, b in zip(labels, x.tolist(), y.tolist(), strict=True)
        ],
        "hoverinfo": "text",
    }
    same = {"type": "scatter", "mode": "lines", "x": [-end, end], "y": [-end, end], "hoverinfo": "skip"}
    same |= {"line": {"color": QUIET, "dash": "dot", "width": 1}}
    return figure(
        [same, points],
        titled(shown.title, " against ".join(dict.fromkeys(targets)), " against ".join(dict.fromkeys(models))),
        showlegend=False,
        xaxis=axis(f"{one} ({shown.unit})", zeroline=True, zerolinecolor=QUIET),
        yaxis=axis(f"{two} ({shown.unit})", zeroline=True, zerolinecolor=QUIET),
    )


def _sources(shown: Shown) -> Figure:
    rows, heads = shown.values.T, shown.result.heads
    places = shown.position_names(rows.shape[1])
    end = limit(rows)
    hover = [
        [f"{head} from {places[x]} (source {x}): {signed(value, end)} {shown.unit}" for x, value in enumerate(row)]
        for head, row in zip(heads, rows.tolist(), strict=True)
    ]
    return figure(
        [cells(rows, hover)],
        shown.titled(),
        xaxis=axis("from (source)", places),
        yaxis=axis("head", heads, autorange="reversed"),
        coloraxis=diverging(end, shown.unit),
    )


_DRAW: dict[FigureKind, Callable[[Shown], Figure]] = {
    "heatmap": _heatmap, "lens": _lens, "layers": layers, "ranking": ranking, "scatter": _scatter,
    "sources": _sources, "prompts": prompts, "sides": sides,
}  # fmt: skip
