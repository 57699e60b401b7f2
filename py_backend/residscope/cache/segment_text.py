"""Finds segments in a prompt's own text: sentences, lines, turns of a chat, and tags.

Each token has a place in the text, even a token that is only a part of a character. If a token lies across a boundary,
it belongs to the segment in which it begins.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

from residscope.cache.segments import REST, Segment
from residscope.cache.tokenizer import attribute
from residscope.cache.vocabulary import Vocabulary, bytes_of_text
from residscope.errors import ResidscopeError
from residscope.terms import SegmentBy

_MOST_OF_NAME = 40
_ROLES = "system|developer|user|human|assistant|model|tool|function|ipython|observation|environment|critic"
_ROLE = re.compile(rf"\s*({_ROLES})\b", re.IGNORECASE)
_ROLE_TOKEN = re.compile(rf"\W*({_ROLES})\W*", re.IGNORECASE)
_TAG = re.compile(r"<(/?)([A-Za-z][\w.-]*)>")
_THOUGHT = ("think", "thinking", "thought", "thoughts", "reasoning", "scratchpad")
_BREAK = re.compile(r"(?P<stop>[.!?…]+|[。！？｡]+)[\"'”’»)\]]*|\n[^\S\n]*\n\s*")
_NOT_A_STOP = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|Fig|Eq|e\.g|i\.e|cf)|\b[A-Z]|^\s*\d+|\n\s*\d+)$")
# The lookbehind allows a match only at the first of several spaces. Without it, long runs of spaces take very long.
_LINE_BREAK = re.compile(r"(?<![^\S\n])[^\S\n]*\n\s*")
_LINE_END = re.compile(r"(?:(?<![^\S\n])[^\S\n]*\n)+")


@dataclass(frozen=True)
class TokenText:
    """The text of a prompt's real tokens, and where each token begins.

    Attributes:
        text: The text. Bytes that are not a whole character are written as surrogates, one for each byte.
        places: The byte at which each character begins, followed by the number of all bytes.
        starts: The byte at which each token begins, followed by the number of all bytes.
        special: Whether each token is a special token.
        offset: The position of the first token.
    """

    text: str
    places: list[int]
    starts: list[int]
    special: list[bool]
    offset: int

    @classmethod
    def of(cls, model: object, ids: list[int], offset: int) -> TokenText:
        """Read the texts of tokens.

        Args:
            model: The model, whose tokenizer is used.
            ids: The ids of the real tokens.
            offset: The position of the first real token.

        Raises:
            ResidscopeError: If the model has no tokenizer.
        """
        vocabulary = Vocabulary(model)
        if vocabulary.tokenizer is None:
            raise ResidscopeError(
                "no-tokenizer",
                "This model has no tokenizer, so the text of its tokens is not known: give ranges, such as "
                '`by=[("question", 0, 12)]`.',
            )
        special = special_ids(vocabulary.tokenizer)
        known = {id: bytes_of_text(vocabulary.text(id)) for id in set(ids)}
        text = b"".join(known[id] for id in ids).decode("utf-8", "surrogateescape")
        places = accumulate((len(letter.encode("utf-8", "surrogateescape")) for letter in text), initial=0)
        starts = accumulate((len(known[id]) for id in ids), initial=0)
        return cls(text, [*places], [*starts], [id in special for id in ids], offset)

    def __len__(self) -> int:
        """The number of tokens."""
        return len(self.special)

    def between(self, start: int, end: int) -> str:
        """Return the text of the tokens from `start` to `end` (exclusive), counted from the first real token."""
        return self._data[self.starts[start] : self.starts[end]].decode(errors="replace")

    @cached_property
    def _data(self) -> bytes:
        return self.text.encode("utf-8", "surrogateescape")

    def first_from(self, place: int) -> int:
        """Return the first token that begins at or after a character. The number of tokens if there is none."""
        return min(bisect_left(self.starts, self.places[place]), len(self))

    def token_at(self, place: int) -> int:
        """Return the token in which a character begins."""
        return max(bisect_right(self.starts, self.places[place], 0, len(self)) - 1, 0)

    def place_of(self, token: int) -> int:
        """Return the first character that begins in a token or after it."""
        return bisect_left(self.places, self.starts[token])


def special_ids(tokenizer: object) -> set[int]:
    """Return the ids of the tokenizer's special tokens.

    The unknown token is left out, because it stands for text. If it is also BOS, EOS or the padding token, it is kept.
    """
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ends = {id for name in names if isinstance(id := attribute(tokenizer, name), int)}
    listed = attribute(tokenizer, "all_special_ids")
    found = {id for id in listed if isinstance(id, int)} if isinstance(listed, list | tuple | set) else set[int]()
    added = attribute(tokenizer, "added_tokens_decoder")
    if isinstance(added, dict):
        found |= {id for id, token in added.items() if isinstance(id, int) and getattr(token, "special", False) is True}
    return (found - {attribute(tokenizer, "unk_token_id")}) | ends


def found_segments(
    tokens: TokenText, by: SegmentBy, eos: int | None, ids: list[int]
) -> tuple[list[Segment], list[str]]:
    """Return the segments that a rule finds, and notes.

    Args:
        tokens: The text.
        by: The rule.
        eos: The end-of-text token, which ends a turn.
        ids: The ids of the tokens.

    Raises:
        ResidscopeError: If the prompt has no turns, or no tags.
    """
    match by:
        case "sentence":
            return _cut(tokens, _sentence_ends(tokens.text)), []
        case "line":
            return _cut(tokens, [end.end() for end in _LINE_END.finditer(tokens.text)]), []
        case "turn":
            return _turns(tokens, eos, ids), []
        case "tag":
            return _tags(tokens)


def with_rest(segments: list[Segment], first: int, last: int, tokens: TokenText | None) -> tuple[Segment, ...]:
    """Return the segments, with unnamed segments for the tokens before, between and after them.

    Args:
        segments: Segments in the order of the text.
        first: The first real position.
        last: The last real position.
        tokens: The text, which shows the special tokens. None if it is not known.
    """
    every: list[Segment] = []
    at = first
    for segment in segments:
        every += [*_rest(at, segment.start, tokens), segment]
        at = segment.end
    return (*every, *_rest(at, last + 1, tokens))


def _rest(start: int, end: int, tokens: TokenText | None) -> Iterator[Segment]:
    """The unnamed segments of a range. Special tokens at the start of the prompt (BOS) form their own segment."""
    if tokens is None:
        yield from [Segment(REST, start, end, named=False)] if start < end else []
        return
    cut = start
    while start == tokens.offset and cut < end and tokens.special[cut - tokens.offset]:
        cut += 1
    for first, last in ((start, cut), (cut, end)):
        if first < last:
            yield Segment(_name_of_rest(tokens, first - tokens.offset, last - tokens.offset), first, last, named=False)


def _name_of_rest(tokens: TokenText, start: int, end: int) -> str:
    """The name of a range without a name: its text if it has only special tokens and white space, otherwise "…"."""
    plain = (at for at in range(start, end) if not tokens.special[at])
    return REST if any(tokens.between(at, at + 1).strip() for at in plain) else shortened(tokens.between(start, end))


def shortened(text: str) -> str:
    """Return a text as a name: on one line, and not too long."""
    plain = " ".join(text.split())
    return (plain if len(plain) <= _MOST_OF_NAME else f"{plain[: _MOST_OF_NAME - 1].rstrip()}…") or REST


def _cut(tokens: TokenText, places: list[int]) -> list[Segment]:
    """Segments between cuts in the text. Special tokens and parts without text are left out."""
    cuts = {tokens.first_from(place) for place in places}
    cuts |= {at for at in range(1, len(tokens)) if tokens.special[at] != tokens.special[at - 1]}
    ordered = sorted({0, len(tokens), *cuts})
    found: list[Segment] = []
    for start, end in pairwise(ordered):
        if not tokens.special[start] and tokens.between(start, end).strip():
            found.append(_segment(tokens, shortened(tokens.between(start, end)), start, end))
    return found


def _segment(tokens: TokenText, name: str, start: int, end: int) -> Segment:
    return Segment(name, start + tokens.offset, end + tokens.offset)


def _sentence_ends(text: str) -> list[int]:
    """The ends of all sentences. A blank line ends a sentence, too. Line breaks belong to the sentence before them."""
    ends: list[int] = []
    for found in _BREAK.finditer(text):
        end, stop = found.end(), found["stop"]
        if stop is not None and stop[0] in ".!?…":
            after = text[end : end + 2]
            if after and not after[0].isspace():
                continue  # as in "3.5" or "example.org"
            start = found.start()
            if stop == "." and (after[1:].islower() or _NOT_A_STOP.search(text, max(start - 12, 0), start)):
                continue  # an abbreviation, an initial, or the number of a list item
        space = _LINE_BREAK.match(text, end)
        ends.append(space.end() if space else end)
    return ends


def _turns(tokens: TokenText, eos: int | None, ids: list[int]) -> list[Segment]:
    """The turns of a chat. Each begins with a special token and a role, and ends after its closing special token.

    A turn that is not closed ends before the next turn, or with the prompt.
    """
    openings = list(_openings(tokens))
    if not openings:
        raise ResidscopeError(
            "segments",
            "No turns were found: a turn begins with a special token and a role, such as `<|im_start|>user`, and this "
            'prompt has none. Give ranges, such as `by=[("question", 0, 12)]`.',
        )
    before = [_before_space(tokens, start) for start, _, _ in openings[1:]]
    closing = {ids[at - 1] for at in before if tokens.special[at - 1]}
    closing |= {eos} if eos is not None else set()
    found: list[Segment] = []
    seen: dict[str, int] = {}
    for (start, text_start, role), following in zip(openings, [*openings[1:], None], strict=True):
        limit = len(tokens) if following is None else following[0]
        end = next((at + 1 for at in range(text_start, limit) if tokens.special[at] and ids[at] in closing), limit)
        while end < limit and not tokens.special[end] and not tokens.between(end, end + 1).strip():
            end += 1  # the line break after the end of a turn belongs to the template
        found.append(_segment(tokens, _counted(role, seen), start, end))
    return found


def _before_space(tokens: TokenText, at: int) -> int:
    """The end of the text before `at`: tokens of white space just before `at` are skipped."""
    while at > 1 and not tokens.special[at - 1] and not tokens.between(at - 1, at).strip():
        at -= 1
    return at


def _openings(tokens: TokenText) -> Iterator[tuple[int, int, str]]:
    """The first token of each turn, the first token of the turn's text, and the role."""
    for at in range(len(tokens)):
        if not tokens.special[at]:
            continue
        named = _ROLE_TOKEN.fullmatch(tokens.between(at, at + 1))
        if named:
            yield at, at + 1, named[1].lower()
            continue
        role = _ROLE.match(tokens.text, tokens.place_of(at + 1))
        after = tokens.first_from(role.end()) if role else at
        if role is None or any(tokens.special[at + 1 : after]):
            continue
        # A line break or a special token follows a role. If other text follows, the word is not a role.
        is_special = after < len(tokens) and tokens.special[after]
        if is_special or after == len(tokens) or tokens.text.startswith("\n", role.end()):
            yield at, after + is_special, role[1].lower()


def _tags(tokens: TokenText) -> tuple[list[Segment], list[str]]:
    """The outermost pairs of tags such as `<think>…</think>`, with the text between them, and notes."""
    found: list[Segment] = []
    notes: list[str] = []
    seen: dict[str, int] = {}
    place, covered = 0, 0
    closed = _closed(tokens.text)
    while opening := _TAG.search(tokens.text, place):
        place = opening.end()
        is_special = tokens.special[tokens.token_at(opening.start())]
        if opening[1] or (is_special and opening[2].lower() not in _THOUGHT):  # `<s>` is not a tag
            continue
        end = closed.get(opening.start())
        if end is None and opening[2].lower() in _THOUGHT:
            end = len(tokens.text)
            notes.append(f"`{opening[0]}` is not closed: it ends with the prompt.")
        if end is None:
            continue
        start, stop = max(tokens.token_at(opening.start()), covered), tokens.first_from(end)
        if stop > start:
            found.append(_segment(tokens, _counted(opening[2], seen), start, stop))
        place, covered = end, max(stop, covered)
    if not found:
        raise ResidscopeError(
            "segments", "No tags were found: this prompt has no pair such as `<think>…</think>`. Give ranges instead."
        )
    return found, notes


def _closed(text: str) -> dict[int, int]:
    """For each opening tag that is closed: the place where it begins, and the place after the tag that closes it.

    Tags of one name may be nested.
    """
    found: dict[int, int] = {}
    opened: dict[str, list[int]] = {}
    for tag in _TAG.finditer(text):
        if not tag[1]:
            opened.setdefault(tag[2], []).append(tag.start())
        elif opened.get(tag[2]):
            found[opened[tag[2]].pop()] = tag.end()
    return found


def _counted(name: str, seen: dict[str, int]) -> str:
    """The name, with a number from its second occurrence on."""
    seen[name] = seen.get(name, 0) + 1
    return name if seen[name] == 1 else f"{name} ({seen[name]})"
