"""An `Attribution` as a plotly figure: heatmap, lens, layers, ranking, scatter, sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from ..errors import ResidscopeError
from ..result import Attribution, strongest
from .look import LINE, QUIET, axis, cells, colours, diverging, figure, limit, plain, signed, token

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["heatmap", "lens", "layers", "ranking", "scatter", "sources", "prompts"]

_DEFAULT: dict[str, Kind] = {
    "accumulated": "lens", "layer": "layers", "head": "heatmap", "neuron": "ranking", "source": "sources",
}  # fmt: skip
_TITLES = {
    "accumulated": "Logit lens",
    "layer": "What each layer adds",
    "head": "What each attention head adds",
    "neuron": "What each MLP neuron adds",
    "source": "What each source token brings",
}
_NAMED = 8
"""So many points of a scatter bear their names."""
_TICKED = 20
"""Up to here each prompt has its number at the axis."""


@dataclass(frozen=True)
class _Shown:
    """One decomposition, for one prompt or in the mean over prompts."""

    result: Attribution
    prompt: int | None
    tokens: Sequence[str] | None
    k: int
    other: Attribution | None
    rows: Sequence[str] | None
    names: tuple[str, str]

    @property
    def values(self) -> Tensor:
        """The rows, without the axis of the prompts."""
        return of(self.result, self.result.values, self.prompt)

    @property
    def title(self) -> str:
        count = self.result.values.shape[self.result.axes.index("batch")]
        which = f"prompt {self.prompt}" if self.prompt is not None else f"mean of {count} prompts"
        return _TITLES[self.result.by] + (f", {which}" if count > 1 else "")

    def places(self, count: int) -> list[str]:
        """What stands at each position: its token, else its number."""
        if self.tokens is None:
            return [str(position) for position in range(count)]
        if len(self.tokens) != count:
            raise ResidscopeError(
                "tokens-shape", f"`tokens=` names {len(self.tokens)} tokens, but there are {count} positions."
            )
        return [token(text) for text in self.tokens]


def of(result: Attribution, values: Tensor, prompt: int | None) -> Tensor:
    """Figures of one prompt, or their mean over prompts.

    Raises:
        ResidscopeError: If there is no such prompt.
    """
    at = result.axes.index("batch") - (result.values.ndim - values.ndim)
    count = values.shape[at]
    if prompt is None:
        return values.mean(at)
    if not -count <= prompt < count:
        raise ResidscopeError("prompt", f"There is no prompt {prompt}: this has {count}, 0 to {count - 1}.")
    return values.select(at, prompt)


def attribution_figure(
    result: Attribution,
    kind: Kind | None = None,
    prompt: int | None = None,
    *,
    other: Attribution | None = None,
    k: int = 5,
    tokens: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    names: tuple[str, str] = ("this", "other"),
) -> Any:
    """See `Attribution.to_plotly`."""
    over = [name for name in ("pos", "destination") if name in result.axes]
    kind = kind or ("heatmap" if over else _DEFAULT[result.by])
    if kind not in get_args(Kind):
        known = ", ".join(f'"{name}"' for name in get_args(Kind))
        raise ResidscopeError("figure", f'`kind="{kind}"` is not known: use {known}.')
    if over and kind != "heatmap":
        raise ResidscopeError(
            "figure", f'A figure of the kind "{kind}" shows one position: leave out `position=None` in `attribute`.'
        )
    fitting = {"lens": "accumulated", "layers": "layer", "sources": "source"}.get(kind, result.by)
    if fitting != result.by:
        raise ResidscopeError("figure", f'A figure of the kind "{kind}" needs `by="{fitting}"`, not "{result.by}".')
    if kind in ("ranking", "scatter", "prompts") and result.by == "source":
        raise ResidscopeError("figure", f'There is no figure of the kind "{kind}" of sources: use "sources".')
    shown = _Shown(result, prompt, tokens, k, other, rows, names)
    return _DRAW[kind](shown)


def _heatmap(shown: _Shown) -> Any:
    result = shown.result
    if result.by == "source":
        from .maps import source_maps

        return source_maps(shown.values, result.heads, shown.places, shown.title)
    if "pos" in result.axes:
        return _component_map(shown)
    if result.by != "head":
        raise ResidscopeError(
            "figure", f'A heatmap has two axes: `by="head"`, or every position (`position=None`) of `by="{result.by}"`.'
        )
    grid = of(result, result.grid, shown.prompt)
    hover = [[f"L{y}H{x}: {signed(v)} logits" for x, v in enumerate(row)] for y, row in enumerate(grid.tolist())]
    return figure(
        [cells(grid, hover)],
        shown.title,
        xaxis=axis("head"),
        yaxis=axis("layer", autorange="reversed"),
        coloraxis=diverging(limit(grid), "logits"),
    )


def _component_map(shown: _Shown) -> Any:
    every = shown.result.labels
    labels = _known(shown.result, every if shown.rows is None else shown.rows)
    rows = shown.values[[every.index(label) for label in labels]]
    places = shown.places(rows.shape[1])
    hover = [
        [f"{label} at {places[x]} (position {x}): {signed(value)} logits" for x, value in enumerate(row)]
        for label, row in zip(labels, rows.tolist(), strict=True)
    ]
    return figure(
        [cells(rows, hover)],
        f"{shown.title}, at every position",
        xaxis=axis("position", places),
        yaxis=axis("component", labels, autorange="reversed"),
        coloraxis=diverging(limit(rows), "logits"),
    )


def _lens(shown: _Shown) -> Any:
    result = shown.result
    # With the constant each point is the target itself: the last one is the model's own figure.
    points = (shown.values + of(result, result.constant, shown.prompt)).tolist()
    x = list(range(len(points)))
    hover = [f"{label}: {signed(value)} logits" for label, value in zip(result.labels, points, strict=True)]
    traces: list[dict[str, Any]] = []
    said = shown.title
    if shown.prompt is None and result.values.shape[1] > 1:
        spread = (result.values + result.constant).std(1).tolist()
        upper = [value + sd for value, sd in zip(points, spread, strict=True)]
        lower = [value - sd for value, sd in zip(points, spread, strict=True)]
        band = {"type": "scatter", "mode": "lines", "x": x + x[::-1], "y": upper + lower[::-1], "fill": "toself"}
        traces.append(band | {"fillcolor": "#e4edf2", "line": {"width": 0}, "hoverinfo": "skip"})
        said = f"{shown.title} ± standard deviation"
    line = {"type": "scatter", "mode": "lines+markers", "x": x, "y": points, "hovertext": hover, "hoverinfo": "text"}
    traces.append(line | {"line": {"color": LINE}, "marker": {"size": 5}})
    return figure(
        traces,
        said,
        showlegend=False,
        xaxis=axis("point of the residual stream", result.labels),
        yaxis=axis("logits", zeroline=True, zerolinecolor=QUIET),
    )


def _layers(shown: _Shown) -> Any:
    """Layer i fills [i, i + 1], attention the first half, MLP the second; what comes before stands in [−1, 0]."""
    labels, values = shown.result.labels, shown.values.tolist()
    before = [label for label in labels if not re.match(r"\d+_", label)]
    groups: dict[str, list[tuple[float, float, str]]] = {"attention": [], "MLP": [], "other": []}
    for label, value in zip(labels, values, strict=True):
        layer, _, part = label.partition("_")
        name, half = {"attn_out": ("attention", 0.25), "mlp_out": ("MLP", 0.75)}.get(part, ("other", 0.5))
        x = (before.index(label) + 0.5) / len(before) - 1 if label in before else int(layer) + half
        groups[name].append((x, value, label))
    patterns = {"attention": "", "MLP": "/", "other": "."}
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": [x for x, _, _ in bars],
            "y": [value for _, value, _ in bars],
            "width": [0.42] * len(bars),
            "marker": {"color": colours([value for _, value, _ in bars]), "pattern": {"shape": patterns[name]}},
            "hovertext": [f"{label}: {signed(value)} logits" for _, value, label in bars],
            "hoverinfo": "text",
        }
        for name, bars in groups.items()
        if bars
    ]
    count = 1 + max((int(label.split("_")[0]) for label in labels if label not in before), default=-1)
    step = -(-count // 16) or 1
    ticks = {"tickvals": [n + 0.5 for n in range(0, count, step)], "ticktext": [str(n) for n in range(0, count, step)]}
    return figure(
        traces,
        shown.title,
        barmode="overlay",
        xaxis=axis("layer", **ticks),
        yaxis=axis("logits", zeroline=True, zerolinecolor=QUIET),
    )


def _ranking(shown: _Shown) -> Any:
    rows = shown.values[: shown.result.parts]
    chosen = strongest(rows, shown.k)
    labels = [shown.result.labels[i] for i in chosen]
    values = rows[chosen].tolist()
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": values,
        "y": list(range(len(values))),
        "marker": {"color": colours(values)},
        "text": [signed(value) for value in values],
        "hovertext": [f"{label}: {signed(value)} logits" for label, value in zip(labels, values, strict=True)],
        "hoverinfo": "text",
    }
    return figure(
        [trace],
        f"{shown.title}: the strongest {shown.k} each way",
        xaxis=axis("logits", zeroline=True, zerolinecolor=QUIET),
        yaxis=axis("", labels, autorange="reversed"),
    )


def _scatter(shown: _Shown) -> Any:
    other = shown.other
    if other is None:
        raise ResidscopeError(
            "figure", 'A scatter sets one attribution against another: `to_plotly("scatter", other=b)`.'
        )
    if other.labels != shown.result.labels or other.axes != shown.result.axes:
        raise ResidscopeError(
            "figure", "A scatter needs two attributions with the same rows, of the same model and `by`."
        )
    x, y = shown.values, of(other, other.values, shown.prompt)
    far = set((x - y).abs().topk(min(_NAMED, len(x))).indices.tolist())
    labels = shown.result.labels
    end = max(limit(x), limit(y)) * 1.05
    one, two = (plain(name) for name in shown.names)
    points = {
        "type": "scatter",
        "mode": "markers+text",
        "x": x.tolist(),
        "y": y.tolist(),
        "text": [label if i in far else "" for i, label in enumerate(labels)],
        "textposition": "top center",
        "marker": {"color": LINE, "opacity": 0.6},
        "hovertext": [
            f"{label}: {one} {signed(a)}, {two} {signed(b)} logits"
            for label, a, b in zip(labels, x.tolist(), y.tolist(), strict=True)
        ],
        "hoverinfo": "text",
    }
    same = {"type": "scatter", "mode": "lines", "x": [-end, end], "y": [-end, end], "hoverinfo": "skip"}
    same |= {"line": {"color": QUIET, "dash": "dot", "width": 1}}
    return figure(
        [same, points],
        shown.title,
        showlegend=False,
        xaxis=axis(f"{one} (logits)", zeroline=True, zerolinecolor=QUIET),
        yaxis=axis(f"{two} (logits)", zeroline=True, zerolinecolor=QUIET),
    )


def _prompts(shown: _Shown) -> Any:
    """A bar for each prompt: of the named rows, else of the strongest; of the lens, of the target itself."""
    result = shown.result
    lens = result.by == "accumulated"
    strongest_row = result.labels[int(result.values[: result.parts].mean(1).abs().argmax())]
    labels = _known(result, shown.rows or [result.labels[-1] if lens else strongest_row])
    traces: list[dict[str, Any]] = []
    for label in labels:
        row = result.values[result.labels.index(label)]
        values = (row + result.constant if lens else row).tolist()
        hover = [f"{label}, prompt {prompt}: {signed(value)} logits" for prompt, value in enumerate(values)]
        trace = {"type": "bar", "name": label, "x": list(range(len(values))), "y": values}
        marker = {"color": colours(values)} if len(labels) == 1 else {}
        traces.append(trace | {"marker": marker, "hovertext": hover, "hoverinfo": "text"})
    return figure(
        traces,
        f"{' and '.join(labels)}, prompt by prompt",
        showlegend=len(labels) > 1,
        xaxis=axis("prompt", dtick=1 if result.values.shape[1] <= _TICKED else None),
        yaxis=axis("logits", zeroline=True, zerolinecolor=QUIET),
    )


def _known(result: Attribution, rows: Sequence[str]) -> list[str]:
    """The labels of some rows.

    Raises:
        ResidscopeError: If there is no such row.
    """
    unknown = [label for label in rows if label not in result.labels]
    if unknown:
        raise ResidscopeError("figure", f"There is no row {unknown[0]!r}: `labels` has the names of all rows.")
    return list(rows)


def _sources(shown: _Shown) -> Any:
    rows, heads = shown.values.T, shown.result.heads
    places = shown.places(rows.shape[1])
    hover = [
        [f"{head} from {places[x]} (source {x}): {signed(value)} logits" for x, value in enumerate(row)]
        for head, row in zip(heads, rows.tolist(), strict=True)
    ]
    return figure(
        [cells(rows, hover)],
        shown.title,
        xaxis=axis("from (source)", places),
        yaxis=axis("head", heads, autorange="reversed"),
        coloraxis=diverging(limit(rows), "logits"),
    )


_DRAW: dict[Kind, Callable[[_Shown], Any]] = {
    "heatmap": _heatmap, "lens": _lens, "layers": _layers, "ranking": _ranking, "scatter": _scatter,
    "sources": _sources, "prompts": _prompts,
}  # fmt: skip
