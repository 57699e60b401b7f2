"""Python expressions for the user's objects: `cache`, `runs["clean"]`, `model.cache`.

A key of a namespace, of a dictionary, or of an object's `__dict__` may be any text. It becomes part of an expression
only if Python would parse that expression to the same steps.
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
_NAME = r"[\w\x80-\U0010ffff]+"  # combining marks are not in `\w`
_SHAPE = re.compile(rf"{_NAME}(?:\.{_NAME}|\[(?:{_KEY})\])*")
"""Only texts of this shape are parsed, because Python's parser prints warnings about others to the user's output."""

_JOINERS = "\u200c\u200d"
"""Invisible, but needed to write some scripts and emoji."""


class Step(NamedTuple):
    """One step from an object to an attribute, or to the element under a key."""

    key: Any
    attribute: bool = False


class Path(NamedTuple):
    """A variable, and the steps from it to an object."""

    variable: str
    steps: list[Step]


def is_plain(name: str) -> bool:
    """Whether Python parses this text as a variable or attribute of exactly this name."""
    return (
        name.isidentifier()
        and not iskeyword(name)
        and unicodedata.normalize("NFKC", name) == name  # the parser changes `ﬁx` to `fix`
        and name != "__debug__"  # always a constant
    )


def parsed(name: str) -> Path | None:
    """The path that a text describes; None if it is not a path, or not written in the usual form."""
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
    """A path as text."""
    steps = [f".{key}" if attribute else f"[{key_text(key)}]" for key, attribute in path.steps]
    return path.variable + "".join(steps)


def key_text(key: Any) -> str:
    """A key as Python code, or `…`; only for types whose `repr` runs no code of the user's."""
    if key is None or type(key) is bool or type(key) is float:
        return repr(key)
    if type(key) is int and key.bit_length() < 128:
        return repr(key)
    if type(key) is str:
        return string(key)
    return "…"


def string(text: str) -> str:
    """A text as a Python literal in double quotes; invisible and direction-changing characters are escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in quoted)
