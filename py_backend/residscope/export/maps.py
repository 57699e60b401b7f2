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
    layout: dict[str, Any] = {"coloraxis": colour, "width": 90 + 330 * across, "height": 110 + 350 * down}
    for n, (head, rows) in enumerate(zip(heads, values, strict=True)):
        row, column = divmod(n, across)
        number = str(n + 1) if n else ""
        x, y = f"x{number}", f"y{number}"
        left, top = column / across, 1 - row / down
        layout[f"xaxis{number}"] = axis(
            "from (source)", places, domain=[left, left + 0.8 / across], anchor=y, constrain="domain", tickangle=-60
        )
        layout[f"yaxis{number}"] = axis(
            "to (destination)" if column == 0 else "", places, domain=[top - 0.7 / down, top], anchor=x,
            autorange="reversed", scaleanchor=x, constrain="domain",
        )  # fmt: skip
        hover = [
            [f"{head}: {places[q]} ({q}) reads {places[k]} ({k}): {signed(v)}" for k, v in enumerate(line)]
            for q, line in enumerate(rows.tolist())
        ]
        traces.append(cells(rows, hover, xaxis=x, yaxis=y))
        titles.append({
            "text": head, "x": left + 0.4 / across, "y": top, "xref": "paper", "yref": "paper",
            "yanchor": "bottom", "xanchor": "center", "showarrow": False,
        })  # fmt: skip
    return figure(traces, title, annotations=titles, **layout)
