"""The colours and the marks for white space that Python and TypeScript share.

`widgets/src/base/look.gen.ts` is generated from this file (`npm run protocol`).
"""

from __future__ import annotations

from typing import Literal, TypedDict

Theme = Literal["light", "dark"]
Stop = tuple[float, str]
"""A value on a colour scale, from 0 to 1, and its colour."""


class Diverging(TypedDict):
    """The colour of zero, and the colours of positive and negative values."""

    middle: str
    plus: list[Stop]
    minus: list[Stop]


MARKS = {" ": "·", "\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽"}
"""For five white-space characters, the visible marks that are shown instead."""


class Signs(TypedDict):
    """The colours of text and lines for positive and negative values."""

    plus: str
    minus: str


SIGNS: dict[Theme, Signs] = {
    "light": {"plus": "#1a5ba8", "minus": "#a8490c"},
    "dark": {"plus": "#83bdf8", "minus": "#f3a768"},
}
"""The same colours are in `widgets/src/styles/theme.css`. `widgets/test/colours.test.ts` compares them."""

# Blue is for positive values, orange for negative values: colour-blind readers can distinguish the two. Teal is for
# values without a sign.
DIVERGING: dict[Theme, Diverging] = {
    "light": {
        "middle": "#f5f5f2",
        "plus": [(0.04, "#e4edf2"), (0.12, "#cde0eb"), (0.3, "#9cc4dd"), (0.6, "#3a82bd"), (1.0, "#12407f")],
        "minus": [(0.04, "#f7e9dd"), (0.12, "#f4d6bd"), (0.3, "#ecb185"), (0.6, "#d06e2b"), (1.0, "#9c3f05")],
    },
    "dark": {
        "middle": "#23272c",
        "plus": [(0.04, "#27313b"), (0.12, "#2a3f55"), (0.3, "#325c86"), (0.6, "#5096da"), (1.0, "#a5d4ff")],
        "minus": [(0.04, "#352d28"), (0.12, "#4c3729"), (0.3, "#77492a"), (0.6, "#d07e3e"), (1.0, "#ffc38d")],
    },
}
# fmt: off
SEQUENTIAL: dict[Theme, list[Stop]] = {
    "light": [
        (0.0, "#f2f4f2"), (0.03, "#e4eeea"), (0.12, "#c8e0d8"), (0.35, "#8cc1b3"), (0.65, "#2f8779"), (1.0, "#0a4844"),
    ],
    "dark": [
        (0.0, "#22282b"), (0.03, "#253031"), (0.12, "#284140"), (0.35, "#2f6b66"), (0.65, "#51ab9d"), (1.0, "#a9f2de"),
    ],
}
# fmt: on


if __name__ == "__main__":
    import json
    import sys

    json.dump({"MARKS": MARKS, "SIGNS": SIGNS, "DIVERGING": DIVERGING, "SEQUENTIAL": SEQUENTIAL}, sys.stdout)
