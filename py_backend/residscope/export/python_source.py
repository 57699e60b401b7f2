"""How Python code is written: calls, strings, and which names are variables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from residscope.base.expressions import parsed

_WIDTH = 100


def call(function: str, arguments: Sequence[str]) -> str:
    """A call on one line, or, where that gets too long, with an argument a line."""
    line = f"{function}({', '.join(arguments)})"
    if len(line) <= _WIDTH and "\n" not in line:
        return line
    inner = "".join(f"    {argument.replace(chr(10), chr(10) + '    ')},\n" for argument in arguments)
    return f"{function}(\n{inner})"


def literal(value: Any) -> str:
    """A target as Python code: `" Mary"`, `(" Mary", " John")`, a list of these, a set."""
    match value:
        case tuple():
            return f"({', '.join(literal(part) for part in value)})"
        case set() | frozenset():
            return f"{{{', '.join(sorted(literal(part) for part in value))}}}"
        case list():
            parts = [literal(part) for part in value]
            line = f"[{', '.join(parts)}]"
            return line if len(line) < _WIDTH - 20 else "[\n" + "".join(f"    {part},\n" for part in parts) + "]"
        case str():
            return _quoted(value)
        case _:
            return repr(value)


def _quoted(text: str) -> str:
    """A string as most people write it, in double quotes, where that needs no escapes."""
    written = repr(text)
    return f'"{written[1:-1]}"' if written[0] == "'" and '"' not in written and "\\" not in written else written


def is_addressable(name: str) -> bool:
    """Whether a name, as it stands, is Python for a variable, or for what is in one: `runs["clean"]`, `model.cache`."""
    path = parsed(name)
    if path is None or path.variable == "residscope":  # which the code imports
        return False
    return not any(isinstance(key, str) and key.endswith("…") for key, _ in path.steps)  # cut short
