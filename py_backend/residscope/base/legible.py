"""Makes text from outside (names, tokens) safe to show.

Characters that are invisible or change the direction of text are written as code points. Such a character is kept only
where its neighbours need it, for example in an emoji.
`widgets/src/base/legible.ts` does the same; `tests/texts/shown.json` tests both.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from residscope.base.look import MARKS

_MOST_MARKS = 4  # combining marks on one letter
_LONGEST_CHARACTER = 16  # code points that a reader counts as one character
_READ_PER_CHARACTER = 32  # code points that `cut` reads for each character it may show
_ISOLATE, _END = "\u2068", "\u2069"
_LINE_MARKS = str.maketrans({end: MARKS[end] for end in "\n\r\t"})
_BLACK_FLAG = "\U0001f3f4"

_IGNORED = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_INVISIBLE = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029\u2800\ud800-\udfff\ufdd0-\ufdef{_IGNORED}]")
"""Characters that are invisible or change the direction of text. Some are needed: see `_is_needed`."""

_JOINING = re.compile("[\u0620-\u08ff\u0900-\u109f\u1780-\u17b3\u17b6-\u180a\u1810-\u18af\ufb50-\ufdff\ufe70-\ufefc]")
_EMOJI = re.compile("[\u00a9\u00ae\u203c\u2049\u2122-\u21aa\u2300-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff]")
_OF_EMOJI = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")
_TAG = re.compile("[\U000e0030-\U000e0039\U000e0061-\U000e007a\U000e007f]")
_HAN = re.compile("[\u2e80-\u2fd5\u3005-\u3007\u3021-\u303b\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af]")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")


def legible(text: str) -> str:
    """Return a text with invisible characters written as `‹U+202E›`, and with long stacks of combining marks cut."""
    if text.isascii() and text.isprintable():
        return text
    pieces: list[str] = []
    marks, has_base = 0, False

    def end_stack() -> None:
        nonlocal marks
        if marks > _MOST_MARKS:
            pieces.append(f"‹+{marks - _MOST_MARKS}›")
        marks = 0

    for index, point in enumerate(text):
        is_invisible = _is_invisible(point)
        if not is_invisible and unicodedata.category(point) in ("Mn", "Me"):
            if not has_base:
                pieces.append("◌")
            has_base = True
            marks += 1
            if marks <= _MOST_MARKS:
                pieces.append(point)
            continue
        if is_invisible and _is_needed(text, index):
            if marks <= _MOST_MARKS:
                pieces.append(point)
            continue
        end_stack()
        has_base = not is_invisible and not point.isspace()
        pieces.append(_code_point(point) if is_invisible else point)
    end_stack()
    return "".join(pieces)


def cut(text: str, limit: int = 60) -> str:
    """Return the first `limit` characters, as a reader counts them. The last one is `…` if the text was cut."""
    start = text[: _READ_PER_CHARACTER * limit]
    readable = legible(start)
    kept: list[str] = []
    for character in _characters(readable):
        kept.append(character)
        if len(kept) > limit:
            break
    return readable if len(kept) <= limit and start == text else f"{''.join(kept[: limit - 1])}…"


def isolated(text: str) -> str:
    """Return a text that does not change the order of the text around it, even if it has right-to-left letters."""
    return f"{_ISOLATE}{text}{_END}" if _RIGHT_TO_LEFT.search(text) else text


def shown(text: str, limit: int = 60) -> str:
    """Return a name as it is shown inside other text: on one line, with at most `limit` characters."""
    return isolated(cut(text, limit).translate(_LINE_MARKS))


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode. Half a character (a lone surrogate) is written as `‹U+D800›`."""
    return re.sub("[\ud800-\udfff]", lambda match: _code_point(match[0]), text)


def _code_point(point: str) -> str:
    return f"‹U+{ord(point):04X}›"


def _is_invisible(point: str) -> bool:
    return point not in "\n\r\t" and (_INVISIBLE.match(point) is not None or ord(point) & 0xFFFE == 0xFFFE)


def _is_needed(text: str, index: int) -> bool:
    """Whether the characters beside an invisible character need it, in emoji, joined letters or flags."""
    point, before, after = text[index], text[index - 1 : index] if index else "", text[index + 1 : index + 2]
    if point == "\u200d" and (_EMOJI.match(before) or _OF_EMOJI.match(before)) and _EMOJI.match(after):
        return True
    if point in "\u200c\u200d\u180b\u180c\u180d\u180f":
        return _JOINING.match(before) is not None
    if point in "\ufe0e\ufe0f":
        return _EMOJI.match(before) is not None or (before != "" and before in "0123456789#*" and after == "\u20e3")
    if "\U000e0100" <= point <= "\U000e01ef":
        return _HAN.match(before) is not None
    if not _TAG.match(point):
        return False
    flag = index - 1
    while flag >= 0 and index - flag < 8 and _TAG.match(text[flag]):
        flag -= 1
    return flag >= 0 and text[flag] == _BLACK_FLAG


def _characters(text: str) -> Iterator[str]:
    """The characters as a reader counts them. A letter counts with its marks, an emoji with all its code points."""
    character = ""
    for point in text:
        if character and _continues(character, point):
            character += point
            continue
        if character:
            yield character
        character = point
    if character:
        yield character


def _continues(character: str, point: str) -> bool:
    if len(character) >= _LONGEST_CHARACTER:
        return False
    if point in "\u200c\u200d" or _OF_EMOJI.match(point) or _TAG.match(point):
        return True
    if unicodedata.category(point) in ("Mn", "Me", "Mc"):
        return True
    pair = len(character) == 1 and all("\U0001f1e6" <= half <= "\U0001f1ff" for half in character + point)
    return pair or (character[-1] == "\u200d" and _EMOJI.match(point) is not None)
