"""Reads the names that users write: of a head `"L9H9"`, `"9.9"` or `(9, 9)`, of a point of the stream `"3_pre"`.

Only this module reads names. All other code uses a `Component` and its label.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import index
from typing import Any

from residscope.errors import ResidscopeError
from residscope.terms import Component

_HEAD = re.compile(r"L?(\d+)[.H](\d+)")
_POINT = re.compile(r"(\d+)_(?:(pre)|(mid))")


def parse(head: Any) -> tuple[int, int]:
    """Return the layer and the index of a head, written in any of the accepted forms.

    Raises:
        ResidscopeError: If `head` is not a head.
    """
    head = head.tolist() if hasattr(head, "tolist") else head
    match = _HEAD.fullmatch(head.strip()) if isinstance(head, str) else None
    pair = match.groups() if match else head
    try:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError
        layer, number = (int(n) if isinstance(n, str) else index(n) for n in pair)
    except (TypeError, ValueError):
        raise ResidscopeError("head", f'{head!r} is not a head: write "L23H3", "23.3" or (23, 3).') from None
    return layer, number


def parse_point(name: Any) -> Component:
    """Return a point of the stream from its name.

    Raises:
        ResidscopeError: If there is no such point.
    """
    if name == "final_post":
        return Component("final_post")
    match = _POINT.fullmatch(str(name))
    if match is None:
        raise ResidscopeError(
            "points", f'There is no point "{name}" in the stream: write "3_pre", "3_mid" or "final_post".'
        )
    return Component("pre" if match[2] else "mid", int(match[1]))


def name(layer: int, head: int) -> str:
    """Return a head's name, such as `"L23H3"`."""
    return Component("head", layer, head).label
