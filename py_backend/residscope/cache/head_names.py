"""Names of heads: `"L9H9"` on screen. `"9.9"` and `(9, 9)` are accepted, too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import index
from typing import Any

from residscope.errors import ResidscopeError


def parse(head: Any) -> tuple[int, int]:
    """Return the layer and the index of a head, written in any of the accepted forms.

    Raises:
        ResidscopeError: If `head` is not a head.
    """
    head = head.tolist() if hasattr(head, "tolist") else head
    match = re.fullmatch(r"L?(\d+)[.H](\d+)", head.strip()) if isinstance(head, str) else None
    pair = match.groups() if match else head
    try:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError
        layer, number = (int(n) if isinstance(n, str) else index(n) for n in pair)
    except (TypeError, ValueError):
        raise ResidscopeError("head", f'{head!r} is not a head: write "L23H3", "23.3" or (23, 3).') from None
    return layer, number


def name(layer: int, head: int) -> str:
    """Return a head's name, such as `"L23H3"`."""
    return f"L{layer}H{head}"
