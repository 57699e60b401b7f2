"""The look of figures: the panel's colours, and texts that plotly does not read as markup."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from residscope.attribution.target_words import inside, of_next_token
from residscope.base.legible import cut, isolated, shown
from residscope.base.look import DIVERGING, MARKS, SEQUENTIAL
from residscope.base.packages import importing
from residscope.base.signed import signed
from residscope.terms import Target

if TYPE_CHECKING:
    from plotly.graph_objects import Figure
    from torch import Tensor

_LIGHT = DIVERGING["light"]
BLUE, ORANGE, LINE, QUIET = _LIGHT["plus"][3][1], _LIGHT["minus"][3][1], _LIGHT["plus"][4][1], "#8a8f94"
_DIVERGING = [
    *([0.5 - at / 2, colour] for at, colour in reversed(_LIGHT["minus"])),
    [0.5, _LIGHT["middle"]],
    *([0.5 + at / 2, colour] for at, colour in _LIGHT["plus"]),
]
_SEQUENTIAL = [[at, colour] for at, colour in SEQUENTIAL["light"]]

_VISIBLE = str.maketrans(MARKS)
# plotly renders some HTML in every text, and LaTeX between dollar signs if the page has MathJax.
_AS_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})
_MOST_TICKS = 40
_MOST_ANSWERS = 4
"""At most this many tokens of an answer are in a title."""
_LONG_TITLE = 76
"""More characters than this have no room on one line of a notebook beside a sidebar."""
_LINE = 40
"""Additional pixels of the margin above the picture if the title has a second line."""


def plotly() -> Any:
    """Import and return `plotly.graph_objects`.

    Raises:
        ResidscopeError: If plotly is not installed, or cannot be imported.
    """
    with importing("plotly", "A figure", '`pip install "residscope[figures]"` (or `pip install plotly`)'):
        import plotly.graph_objects as go
    return go


def token(text: str, most: int = 14) -> str:
    """Return a token for drawing: white space is visible, a long token is cut short, and markup is escaped."""
    return isolated(plain(cut(text, most).translate(_VISIBLE))) or "∅"


_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def token_names(texts: Sequence[str]) -> list[str]:
    """Return a prompt's tokens for drawing. A repeated token has its position as a subscript: `·John₂`, `·John₁₀`."""
    drawn = [token(text) for text in texts]
    count = Counter(drawn)
    return [text + str(at).translate(_SUBSCRIPT) if count[text] > 1 else text for at, text in enumerate(drawn)]


def name(text: str) -> str:
    """Return a name from the user for drawing: legible, and with markup escaped."""
    return plain(shown(text))


def plain(text: str) -> str:
    """Return a text with markup escaped."""
    return text.translate(_AS_TEXT)


def colours(values: Sequence[float]) -> list[str]:
    """Return blue for each positive value and for 0, orange for each negative value."""
    return [BLUE if value >= 0 else ORANGE for value in values]


def farthest(values: Sequence[float]) -> float:
    """Return the largest absolute value. It determines the number of decimals of all these values."""
    return max((abs(value) for value in values if math.isfinite(value)), default=0.0)


def limit(rows: Tensor) -> float:
    """Return the end of a scale that is symmetric about zero: the largest finite absolute value. 1 if all are 0."""
    finite = rows[rows.isfinite()]
    return float(finite.abs().max()) or 1.0 if len(finite) else 1.0


def clipped(rows: Tensor, last: int | None, padding: Tensor | None = None) -> float:
    """Return the end of the scale of a map `[component, position]`, such that one outlier does not make the rest pale.

    Each position counts by its largest absolute value. The first position is left out, because it is often an attention
    sink. The scale ends at the 99th percentile of these values, but not below the value at `last`. If no value is more
    than 1.5 times this end, the scale covers all values. `clippedLimit` in the panel is the same rule.

    Args:
        rows: The map.
        last: The last position at which the target is read. None if it differs between prompts.
        padding: Which positions do not count at all, `[position]`. None: all positions count.
    """
    included = peaks = rows.abs().where(rows.isfinite(), 0).amax(0)
    if padding is not None:
        included = peaks[~padding.to(peaks.device)]
        last = None if last is None or bool(padding[last]) else last
    every, others = limit(included), included[1:].sort().values
    if not len(others):
        return every
    end = max(float(others[ceil(0.99 * len(others)) - 1]), 0.0 if last is None else float(peaks[last]))
    return end if 0 < 1.5 * end < every else every


def beyond(rows: Tensor, end: float) -> dict[str, object]:
    """Return arguments for `cells` that draw a dot in each cell beyond the colour scale. Empty if there is none."""
    far = rows.isfinite() & (rows.abs() > end)
    if not bool(far.any()):
        return {}
    return {"text": [["•" if dot else "" for dot in row] for row in far.tolist()], "texttemplate": "%{text}"}


def diverging(end: float, title: str, rows: Tensor | None = None) -> dict[str, object]:
    """Return a colour axis centred at zero. If some of `rows` lie beyond an end, its label is "≤ −…" or "≥ +…"."""
    bar = _bar(title)
    low, high = (False, False) if rows is None else (bool((rows < -end).any()), bool((rows > end).any()))
    if low or high:
        ends = [("≤ " if low else "") + signed(-end, end), "0", ("≥ " if high else "") + signed(end, end)]
        bar |= {"tickvals": [-end, 0, end], "ticktext": ends}
    return {"colorscale": _DIVERGING, "cmin": -end, "cmax": end, "colorbar": bar}


def sequential(end: float, title: str) -> dict[str, object]:
    """Return a colour axis that begins at zero."""
    return {"colorscale": _SEQUENTIAL, "cmin": 0, "cmax": end, "colorbar": _bar(title)}


def cells(rows: Tensor, hover: list[list[str]], **more: object) -> dict[str, object]:
    """Return a heatmap of a matrix, with the first row on top. NaN cells stay empty."""
    z = [[None if value != value else value for value in row] for row in rows.tolist()]
    return {"type": "heatmap", "z": z, "hovertext": hover, "hoverinfo": "text", "coloraxis": "coloraxis"} | more


def axis(title: str, names: Sequence[str] | None = None, **more: object) -> dict[str, object]:
    """Return an axis with its title. `names` are labels at 0, 1, 2, …; of many labels, only some are shown."""
    plain: dict[str, object] = {"title": {"text": title}, "zeroline": False, "showgrid": False}
    if names is not None:
        every = -(-len(names) // _MOST_TICKS) or 1
        plain |= {"tickvals": list(range(0, len(names), every)), "ticktext": list(names[::every])}
    return plain | more


def target_words(target: Target | None, prompt: int | None) -> str:
    """Return the target in words, for the shown prompt: `“·Mary” minus “·John”`. Empty if it is unknown."""
    return "" if target is None else inside(target, _of_logits(target, prompt))


def _of_logits(target: Target, prompt: int | None) -> str:
    if target.direction is not None:
        return "a direction"
    if target.next_token is not None:
        return of_next_token(target.next_token)
    if not target.contrasts:
        return ""
    seen = target.contrasts if prompt is None or len(target.contrasts) == 1 else [target.contrasts[prompt]]
    if any(contrast != seen[0] for contrast in seen):
        return "each prompt’s own answer"
    sides = [side for contrast in seen[:1] for side in (contrast.answer, contrast.distractor) if side]
    named = [
        ", ".join(token(one.text) for one in side[:_MOST_ANSWERS]) + ", …" * (len(side) > _MOST_ANSWERS)
        for side in sides
    ]
    return " minus ".join(f"“{side}”" for side in named)


def titled(what: str, *more: str) -> str:
    """Return a title, with the target and the model below it in small print. A long title has two lines."""
    beneath = " · ".join(filter(None, more))
    breaks = [at for at in range(len(what)) if what.startswith(", ", at)]
    if len(what) > _LONG_TITLE and breaks:
        at = min(breaks, key=lambda at: abs(at - len(what) / 2))
        what = f"{what[: at + 1]}<br>{what[at + 2 :]}"
    return f'{what}<br><span style="font-size:12px">{beneath}</span>' if beneath else what


def figure(traces: Sequence[Mapping[str, object]], title: str, **layout: object) -> Figure:
    """Return a plotly figure in the common style."""
    base = {
        "title": {"text": title},
        "template": "simple_white",
        "hoverlabel": {"align": "left"},
        "margin": {"l": 70, "r": 30, "t": 70, "b": 70},
    }
    made = plotly().Figure({"data": traces, "layout": base | layout})
    if title.split("<span", 1)[0].removesuffix("<br>").count("<br>") > 0:
        made.layout.margin.t += _LINE
    return made


def _bar(title: str) -> dict[str, object]:
    return {"title": {"text": title, "side": "top"}, "outlinewidth": 0}
