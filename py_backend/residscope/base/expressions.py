"""Python expressions for the user's objects: `cache`, `runs["clean"]`, `model.cache`.

Names of variables and attributes are keys of dictionaries, so they may be texts that are not Python names. A path is
therefore accepted only if Python parses its expression back to the same path.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from keyword import iskeyword
from typing import Any, NamedTuple

_MAX_LENGTH = 500
_STRING = r'"(?:[^"\\\n\r]|\\["\'\\nrtbf]|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8})*"'
_KEY = rf"""-?\d[\d.e+-]*|True|False|None|{_STRING}|{_STRING.replace('"', "'")}"""
_NAME = r"[\w\x80-\U0010ffff]+"  # combining marks are not in `\w`
_SHAPE = re.compile(rf"{_NAME}(?:\.{_NAME}|\[(?:{_KEY})\])*")
"""Only texts of this form are parsed. For other texts Python's parser may print warnings into the user's output."""

_JOINERS = "\u200c\u200d"
"""Invisible characters that some scripts and emoji need."""


class Step(NamedTuple):
    """One step from an object to one of its attributes, or to the element under a key."""

    key: Any
    is_attribute: bool = False


class Path(NamedTuple):
    """A variable, and the steps from it to an object."""

    variable: str
    steps: list[Step]


def is_name(name: str) -> bool:
    """Return whether Python parses this text as the name of a variable or attribute, and keeps it unchanged."""
    return (
        name.isidentifier()
        and not iskeyword(name)
        and unicodedata.normalize("NFKC", name) == name  # the parser changes `ﬁx` to `fix`
        and name != "__debug__"  # always a constant
    )


def parse_path(name: str) -> Path | None:
    """Return the path that an expression describes. None if `name` is not a path, or not written in the usual form."""
    if len(name) > _MAX_LENGTH or not _SHAPE.fullmatch(name):
        return None
    try:
        tree = ast.parse(name, mode="eval").body
        steps: list[Step] = []
        node: ast.expr = tree
        while isinstance(node, ast.Attribute | ast.Subscript):
            step = Step(node.attr, True) if isinstance(node, ast.Attribute) else Step(ast.literal_eval(node.slice))
            steps.insert(0, step)
            node = node.value
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(node, ast.Name) or not all(map(is_name, [node.id, *(s.key for s in steps if s.is_attribute)])):
        return None
    path = Path(node.id, steps)
    return path if name in (path_text(path), ast.unparse(tree)) else None


def path_text(path: Path) -> str:
    """Return the expression that describes a path."""
    steps = [f".{key}" if is_attribute else f"[{key_text(key)}]" for key, is_attribute in path.steps]
    return path.variable + "".join(steps)


def key_text(key: object) -> str:
    """Return a key as Python code. `…` for a very large number, or a type whose `repr` may run the user's code."""
    if key is None or type(key) is bool or type(key) is float:
        return repr(key)
    if type(key) is int and key.bit_length() < 128:
        return repr(key)
    if type(key) is str:
        return string_literal(key)
    return "…"


def string_literal(text: str) -> str:
    """Return a text as a Python literal in double quotes, with invisible and direction-changing characters escaped."""
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() or c in _JOINERS else ascii(c)[1:-1] for c in quoted)
