"""Writes Python code (calls, lists, literals), and checks which names can be used in code."""

from __future__ import annotations

from collections.abc import Sequence

from residscope.base.expressions import parse_path

_WIDTH = 100


def call(function: str, arguments: Sequence[str]) -> str:
    """Return a call on one line, or with one argument per line if that is too long."""
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= _WIDTH and "\n" not in line:
        return line
    inner = "".join(f"    {argument.replace(chr(10), chr(10) + '    ')},\n" for argument in arguments)
    return f"{function}(\n{inner})"


def listed(items: Sequence[str]) -> str:
    """Return expressions as a list, on one line, or with one per line if that is too long."""
    line = f"[{', '.join(items)}]"
    if len(line) < _WIDTH - 20 and "\n" not in line:
        return line
    inner = "".join(f"    {item.replace(chr(10), chr(10) + '    ')},\n" for item in items)
    return f"[\n{inner}]"


def literal(value: object) -> str:
    """Return a target or a plain value as Python code: `" Mary"`, `(" Mary", " John")`, a list of these, a set."""
    match value:
        case tuple():
            return f"({', '.join(literal(item) for item in value)}{',' if len(value) == 1 else ''})"
        case set() | frozenset():
            if not value:
                return "set()"
            return f"{{{', '.join(sorted(literal(item) for item in value))}}}"
        case list():
            return listed([literal(item) for item in value])
        case str():
            return _quoted(value)
        case _:
            return repr(value)


def _quoted(text: str) -> str:
    """A string literal, in double quotes unless that needs escapes."""
    written = repr(text)
    return f'"{written[1:-1]}"' if written[0] == "'" and '"' not in written and "\\" not in written else written


def is_addressable(name: str) -> bool:
    """Return whether a name is an expression for a variable or something in it: `runs["clean"]`, `model.cache`."""
    path = parse_path(name)
    if path is None or path.variable == "residscope":  # the exported code imports this name
        return False
    return not any(isinstance(key, str) and key.endswith("…") for key, _ in path.steps)  # a name that was cut short
