"""Failures for requests that are not valid. If a part of a request is too long or too large, they name the limit."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from residscope.wire.protocol import Failure

_BOUND = re.compile(
    r"Expected `(?P<kind>\w+)`(?: of length)? (?P<comparison>[<>]=) (?P<bound>-?\d+)(?: - at `\$\.?(?P<at>.+)`)?"
)


def refusal(error: msgspec.ValidationError, message: object) -> Failure:
    """Return the failure for a message that the protocol does not allow.

    Args:
        error: The validation error.
        message: The message.
    """
    match = _BOUND.fullmatch(str(error))
    if match is None:
        return Failure("protocol", f"The kernel does not understand this request ({error}): reload the page.")
    kind, comparison, bound = match["kind"], match["comparison"], int(match["bound"])
    place = match["at"] or ""
    name, limit = place.removeprefix("ask."), f"at {'most' if comparison == '<=' else 'least'} {bound:,}"
    sent = _at(message, place)
    if kind == "int":
        is_now = f" is {sent:,}, and" if isinstance(sent, int) and abs(sent) < 10**15 else ""
        sentence = f"`{name}`{is_now} must be {limit}."
    else:
        may = "may" if comparison == "<=" else "must"
        of = "characters" if kind == "str" else "entries"
        has_now = f" has {len(sent):,} {of}, and" if isinstance(sent, str | list | tuple) else ""
        sentence = f"`{name}`{has_now} {may} have {limit}{'' if has_now else f' {of}'}."
    return Failure("too-large" if comparison == "<=" else "too-small", f"This request cannot be answered: {sentence}")


def _at(message: Any, place: str) -> object:
    """The value at a place such as `ask.points[3]`. None if it does not exist."""
    for name, number in re.findall(r"(\w+)|\[(\d+)\]", place):
        try:
            message = message[name or int(number)]
        except (KeyError, IndexError, TypeError):
            return None
    return message
