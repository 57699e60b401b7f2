"""Attention, source maps and the token lens as plotly figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .look import axis, cells, diverging, figure, limit, plain, sequential, signed, token

if TYPE_CHECKING:
    from torch import Tensor

_ACROSS = 4


def attention_figure(attention: Any) -> Any:
    """See `Attention.to_plotly`."""
    values = attention.values
    if attention.weighting == "contribution":
        colour = diverging(limit(values), "logits")
    else:
        end = 1.0 if attention.weighting == "pattern" else limit(values)
        colour = sequential(end, "attention" if attention.weighting == "pattern" else "attention × ‖v W_O‖")
    return _side_by_side(
        values, attention.heads, [token(text) for text in attention.tokens], plain(attention.meaning), colour
    )


def source_maps(values: Tensor, heads: list[str], places: Callable[[int], list[str]], title: str) -> Any:
    """What each source brings at each destination: `values` is `[source, destination, head]`."""
    names = places(values.shape[0])
    return _side_by_side(values.permute(2, 1, 0), heads, names, title, diverging(limit(values), "logits"))


def _side_by_side(values: Tensor, heads: Sequence[str], places: list[str], title: str, colour: dict[str, Any]) -> Any:
    """A square map for each head, `[head, destination, source]`, at most four in a row."""
    across = min(_ACROSS, len(heads))
    down = -(-len(heads) // across)
    traces: list[dict[str, Any]] = []
    titles: list[dict[str, Any]] = []
    layout: dict[str, Any] = {"coloraxis": colour, "width": 240 + 310 * across, "height": 90 + 430 * down}
    for n, (head, rows) in enumerate(zip(heads, values, strict=True)):
        row, column = divmod(n, across)
        number = str(n + 1) if n else ""
        x, y = f"x{number}", f"y{number}"
        left, top = column / across, 1 - row / down
        right, bottom = left + 0.9 / across, top - 0.65 / down
        layout[f"xaxis{number}"] = axis("from (source)", places, domain=[left, right], anchor=y, tickangle=-60)
        # All maps have the same tokens: they are written once a row.
        named = axis("to (destination)", places) if column == 0 else axis("", [])
        layout[f"yaxis{number}"] = named | {"domain": [bottom, top], "anchor": x, "autorange": "reversed"}
        hover = [
            [f"{head}: {places[q]} ({q}) reads {places[k]} ({k}): {signed(v)}" for k, v in enumerate(line)]
            for q, line in enumerate(rows.tolist())
        ]
        traces.append(cells(rows, hover, xaxis=x, yaxis=y))
        where = {"x": (left + right) / 2, "y": top, "xref": "paper", "yref": "paper"}
        titles.append({"text": head, "yanchor": "bottom", "xanchor": "center", "showarrow": False} | where)
    margin = {"l": 150, "r": 90, "t": 80, "b": 10}
    return figure(traces, title, annotations=titles, margin=margin, **layout)
