"""Why a message was not understood, in a sentence: what is too long or too large is named, with its bound."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from residscope.wire.protocol import Failure

_BOUND = re.compile(
    r"Expected `(?P<kind>\w+)`(?: of length)? (?P<way>[<>]=) (?P<bound>-?\d+)(?: - at `\$\.?(?P<at>.+)`)?"
)


def refusal(error: msgspec.ValidationError, message: Any) -> Failure:
    """What to say of a message that is not as the protocol has it.

    Args:
        error: What is wrong with it.
        message: The message.
    """
    found = _BOUND.fullmatch(str(error))
    if found is None:
        return Failure("protocol", f"The kernel does not understand this request ({error}): reload the page.")
    kind, way, bound = found["kind"], found["way"], int(found["bound"])
    place = found["at"] or ""
    name, limit = place.removeprefix("ask."), f"at {'most' if way == '<=' else 'least'} {bound:,}"
    sent = _at(message, place)
    if kind == "int":
        is_now = f" is {sent:,}, and" if isinstance(sent, int) and abs(sent) < 10**15 else ""
        said = f"`{name}`{is_now} must be {limit}."
    else:
        may = "may" if way == "<=" else "must"
        of = "characters" if kind == "str" else "entries"
        has_now = f" has {len(sent):,} {of}, and" if isinstance(sent, str | list | tuple) else ""
        said = f"`{name}`{has_now} {may} have {limit}{'' if has_now else f' {of}'}."
    return Failure("too-large" if way == "<=" else "too-small", f"This request cannot be answered: {said}")


def _at(message: Any, place: str) -> Any:
    """What stands at a place such as `ask.points[3]`; None where it cannot be found."""
    for name, number in re.findall(r"(\w+)|\[(\d+)\]", place):
        try:
            message = message[name or int(number)]
        except (KeyError, IndexError, TypeError):
            return None
    return message
