"""Measured and estimated effects as plotly figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residscope.base.signed import signed
from residscope.errors import ResidscopeError
from residscope.export.palette import axis, cells, colours, diverging, figure, limit, name, target_words, titled

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import Tensor

    from residscope.causes.ablation import Ablation, Effect
    from residscope.causes.patching import Patching


def ablation_figure(ablation: Ablation, kind: str | None, prompt: int | None, effect: Effect, *, adds: bool) -> Figure:
    """See `Ablation.to_plotly`."""
    is_map = ablation.axes[0] == "layer" and "head" in ablation.axes
    kind = kind or ("heatmap" if is_map else "bars")
    along = f" along the path to {ablation.path}" if ablation.path else ""
    what = _named(f"{effect} effect of replacing by {ablation.replaced_by}", adds)
    title = titled(
        f"{what}{along}, {_whose(prompt)}",
        target_words(ablation.target, prompt),
        name(ablation.model),
    )
    sign = -1 if adds else 1
    values = sign * ablation.of(effect, prompt)
    if kind == "heatmap":
        if not is_map:
            raise ResidscopeError("kind", 'A heatmap needs all heads: `ablate` without `heads=`. Use `kind="bars"`.')
        layers, heads = ablation.total.shape[:2]
        names = [str(head) for head in range(heads)]
        return _map(values.reshape(layers, heads), ablation.labels, title, "head", names, unit=_unit(adds))
    if kind == "bars":
        return _bars(values, ablation.labels, title, "adds" if adds else f"{effect} effect")
    if kind == "scatter":
        direct, total = sign * ablation.of("direct", prompt), sign * ablation.of("total", prompt)
        end = max(limit(direct), limit(total))
        hover = [
            f"{label}: direct {signed(d, end)}, total {signed(t, end)}"
            for label, d, t in zip(ablation.labels, direct.tolist(), total.tolist(), strict=True)
        ]
        dots = {"type": "scatter", "mode": "markers", "x": direct.tolist(), "y": total.tolist()}
        line = {"type": "scatter", "mode": "lines", "x": [-end, end], "y": [-end, end], "hoverinfo": "skip"}
        return figure(
            [line | {"line": {"color": "#8a8f94", "dash": "dot"}}, dots | {"hovertext": hover, "hoverinfo": "text"}],
            title,
            xaxis=axis("adds directly" if adds else "direct effect"),
            yaxis=axis("adds in total" if adds else "total effect"),
            showlegend=False,
        )
    raise ResidscopeError("kind", f'`kind="{kind}"` is not known: use "heatmap", "bars" or "scatter".')


def patching_figure(patching: Patching, prompt: int | None, *, normalized: bool, adds: bool) -> Figure:
    """See `Patching.to_plotly`."""
    values = (-1 if adds else 1) * patching.of(prompt, normalized=normalized)
    left = ~patching.measured & ~patching.effects.isnan().all(-1)
    some, every = bool(patching.measured.any()), not bool(left.any())
    what = ("Measured" if every else "Partly measured, partly estimated" if some else "Estimated") + (
        " normalised" if normalized else ""
    )
    along = f" along the path to {patching.path}" if patching.path else ""
    what = _named(f"{what.lower()} effect of patching {patching.at}", adds)
    title = titled(
        f"{what}{along}, {_whose(prompt)}",
        target_words(patching.target, prompt),
        name(patching.model),
    )
    if "pos" in patching.axes:
        count = patching.effects.shape[-2]
        names = [str(position) for position in range(count)]
        rows = None if "head" not in patching.axes else [component.label for component in patching.components]
        return _map(values.reshape(-1, count), patching.labels, title, "position", names, rows, _unit(adds))
    if "head" in patching.axes:
        heads = patching.effects.shape[1]
        names = [str(head) for head in range(heads)]
        return _map(values.reshape(-1, heads), patching.labels, title, "head", names, unit=_unit(adds))
    return _bars(values, patching.labels, title, _unit(adds))


def _named(effect: str, adds: bool) -> str:
    """What a figure shows, in words: an effect, or what each component adds (minus the effect)."""
    return f"What each adds: minus the {effect}" if adds else effect[0].upper() + effect[1:]


def _unit(adds: bool) -> str:
    return "adds" if adds else "effect"


def _whose(prompt: int | None) -> str:
    return "mean over prompts" if prompt is None else f"prompt {prompt}"


def _map(
    values: Tensor,
    labels: list[str],
    title: str,
    across: str,
    names: list[str],
    rows: list[str] | None = None,
    unit: str = "effect",
) -> Figure:
    end, (height, width) = limit(values), values.shape
    hover = [
        [
            f"{labels[y * width + x]}: {signed(value, end) if value == value else 'nothing measured'}"
            for x, value in enumerate(row)
        ]
        for y, row in enumerate(values.tolist())
    ]
    down = "layer" if rows is None else "head"
    return figure(
        [cells(values, hover)],
        title,
        xaxis=axis(across, names),
        yaxis=axis(down, rows or [str(layer) for layer in range(height)], autorange="reversed"),
        coloraxis=diverging(end, unit),
        width=260 + 34 * width,
        height=200 + 24 * height,
    )


def _bars(values: Tensor, labels: list[str], title: str, what: str) -> Figure:
    numbers = values.tolist()
    bars = {"type": "bar", "x": labels, "y": numbers, "marker": {"color": colours(numbers)}}
    return figure([bars], title, xaxis=axis("component"), yaxis=axis(what))
