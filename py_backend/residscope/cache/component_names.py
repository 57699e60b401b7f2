"""Reads names that users write: `"L9H9"`, `"9.9"` or `(9, 9)` for a head, `"3_pre"` for a point of the stream.

Only this module reads such names. All other code uses a `Component` and its label.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from residscope.base.arrays import as_list
from residscope.errors import ResidscopeError
from residscope.terms import Component, Heads

_HEAD = re.compile(r"L?(\d+)[.H](\d+)")
_NEURON = re.compile(r"L?(\d+)[.N](\d+)")
_POINT = re.compile(r"(\d+)_(?:(pre)|(mid))")


def parse(head: object) -> tuple[int, int]:
    """Return the layer and the index of a head, written in any of the accepted forms.

    Raises:
        ResidscopeError: If `head` is not a head.
    """
    place = _place(head, _HEAD)
    if place is None:
        raise ResidscopeError("head", f'{head!r} is not a head: write "L23H3", "23.3" or (23, 3).')
    return place


def parse_heads(heads: Heads) -> list[tuple[int, int]]:
    """Return the layers and indices of one or several heads.

    Raises:
        ResidscopeError: If `heads` is empty, or if one of them is not a head or is named twice.
    """
    several = isinstance(heads, Iterable) and not isinstance(heads, str) and _place(heads, _HEAD) is None
    found = [parse(head) for head in (heads if isinstance(heads, Iterable) and several else [heads])]
    if not found:
        raise ResidscopeError("heads", "`heads=` names no head.")
    twice = next((head for at, head in enumerate(found) if head in found[:at]), None)
    if twice is not None:
        raise ResidscopeError("heads", f"`heads=` names {name(*twice)} twice.")
    return found


def parse_neuron(neuron: object) -> tuple[int, int]:
    """Return the layer and the index of a neuron, written as `"L5N123"`, `"5.123"` or `(5, 123)`.

    Raises:
        ResidscopeError: If `neuron` is not a neuron.
    """
    place = _place(neuron, _NEURON)
    if place is None:
        raise ResidscopeError("neuron", f'{neuron!r} is not a neuron: write "L5N123", "5.123" or (5, 123).')
    return place


def _place(given: Any, form: re.Pattern[str]) -> tuple[int, int] | None:
    """A layer and an index, from a name of this form or from a pair of numbers. None for anything else."""
    given = as_list(given)
    match = form.fullmatch(given.strip()) if isinstance(given, str) else None
    pair = match.groups() if match else given
    try:
        if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
            return None
        layer, number = (int(n) if isinstance(n, str) else index(n) for n in pair)
    except (TypeError, ValueError):
        return None
    return layer, number


def parse_point(name: object) -> Component:
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
