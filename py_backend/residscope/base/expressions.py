"""Ways to the user's objects, as Python writes them: `cache`, `runs["clean"]`, `model.cache`.

A name may be any text: the key of a namespace, of a dictionary, of an object's own dictionary. It is a way to an object
only where Python, which reads that very text, would take those very steps.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from keyword import iskeyword
from typing import Any, NamedTuple

_LONGEST = 500
_STRING = r'"(?:[^"\\\n\r]|\\["\'\\nrtbf]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8})*"'
_KEY = rf"""-?\d[\d.e+-]*|True|False|None|{_STRING}|{_STRING.replace('"', "'")}"""
_NAME = r"[\w\x80-\U0010ffff]+"  # marks are no word characters to `re`
_SHAPE = re.compile(rf"{_NAME}(?:\.{_NAME}|\[(?:{_KEY})\])*")
"""What is not of this shape is not given to Python's parser, which warns, on the user's own streams, of odd texts."""

_JOINERS = "\u200c\u200d"
"""Invisible, and yet part of how some scripts and emoji are written."""


class Step(NamedTuple):
    """From an object to what it holds: an attribute, or the element under a key."""

    key: Any
    attribute: bool = False


class Path(NamedTuple):
    """A variable, and the steps from there."""

    variable: str
    steps: list[Step]


def is_plain(name: str) -> bool:
    """Whether Python, reading this text, means the variable or attribute of that very name."""
    return (
        name.isidentifier()
        and not iskeyword(name)
        and unicodedata.normalize("NFKC", name) == name  # the parser makes `fix` of `ﬁx`
        and name != "__debug__"  # a constant, whatever a namespace holds under it
    )


def parsed(name: str) -> Path | None:
    """The way that a text is to Python; None where it is none, or where it is written as one would not write it."""
    if len(name) > _LONGEST or not _SHAPE.fullmatch(name):
        return None
    try:
        tree = ast.parse(name, mode="eval").body
        steps: list[Step] = []
        at: ast.expr = tree
        while isinstance(at, ast.Attribute | ast.Subscript):
            steps.insert(0, Step(at.attr, True) if isinstance(at, ast.Attribute) else Step(ast.literal_eval(at.slice)))
            at = at.value
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(at, ast.Name) or not all(map(is_plain, [at.id, *(s.key for s in steps if s.attribute)])):
        return None
    path = Path(at.id, steps)
    return path if name in (written(path), ast.unparse(tree)) else None


def written(path: Path) -> str:
    """A way as text."""
    steps = [f".{key}" if attribute else f"[{key_text(key)}]" for key, attribute in path.steps]
    return path.variable + "".join(steps)


def key_text(key: Any) -> str:
    """A key as one would write it; only of kinds that write themselves without running anything of the user's."""
    if key is None or type(key) is bool or type(key) is float:
        return repr(key)
    if type(key) is int and key.bit_length() < 128:
        return repr(key)
    if type(key) is str:
        return string(key)
    return "…"


def string(text: str) -> str:
    """A text as Python's literal, in double quotes; what hides, or turns its surroundings, stands as an escape."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in quoted)
