"""Finds padding by token ids: rules 3 and 4 of the module `padding`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from residscope.cache.special_tokens import SpecialTokens

TextOf = Callable[[int], str] | None
"""A function that returns the text of a token id. None if there is no tokenizer."""


@dataclass(frozen=True)
class Evidence:
    """What the token ids at one end of the prompts (start or end) show.

    Attributes:
        counts: Number of padding tokens of each prompt.
        other_reading: What else these tokens could be, as a sentence that follows the note.
        possible: Number of tokens of each prompt that are treated as real but could be padding.
        why: Why these tokens could be padding, as the end of a sentence.
    """

    counts: list[int]
    other_reading: str = ""
    possible: tuple[int, ...] = ()
    why: str = ""


_OWN_END = " The first of them may be a prompt's own end of text: that prompt then ends one token later."
_NOT_OWN_END = " One more token is padding if these prompts have no end of text of their own."
_OWN_BOS = " The last of them may be a prompt's own BOS."
_NOT_OWN_BOS = " One more token is padding if these prompts have no BOS."


def end_padding(rows: list[list[int]], special: SpecialTokens, text: TextOf, *, padded_left: bool) -> Evidence:
    """Return which tokens at the end of prompts are padding. `padded_left`: whether some prompts start with padding."""
    size, inwards = len(rows[0]), [row[::-1] for row in rows]
    runs = [_run(row) for row in inwards]
    end_tokens = [token for token, count in runs if count < size]
    repeated = _repeated(inwards, runs, special, at_end=True)
    if not any(repeated.counts) and not any(repeated.possible):
        repeated = _single(inwards, special, text, at_end=True)
    if special.pad is not None and special.pad in end_tokens:
        token = special.pad
        if token == special.eos and max(_lengths(runs, token, size)) == 1 and any(repeated.counts):
            return repeated  # some prompts end with their own end of text, and others are padded with another token
    elif special.eos is not None and max(_lengths(runs, special.eos, size)) > 1:
        token = special.eos
    else:
        return repeated
    lengths = _lengths(runs, token, size)
    partial = [length for (_, count), length in zip(runs, lengths, strict=True) if count < size]
    fewest, most = min(partial), max(partial)
    if token != special.eos:
        if special.pad_is_ordinary and fewest == most == 1:
            return Evidence(
                [0] * len(rows), "", tuple(lengths), "which is both an ordinary token and the padding token"
            )
        return Evidence(lengths)
    if padded_left and most == 1:  # padding is on one side only, so these are the prompts' own ends of text
        return Evidence([0] * len(rows))
    if fewest == 1 or (fewest > 1 and special.adds_eos):
        counts = [max(length - 1, 0) for length in lengths]
        if not any(counts):
            return Evidence(counts, "", tuple(lengths), "which is both the end of text and the padding token")
        return Evidence(counts, _NOT_OWN_END)
    return Evidence(lengths, _OWN_END)


def start_padding(rows: list[list[int]], special: SpecialTokens, text: TextOf) -> Evidence:
    """Return which tokens at the start of the prompts are padding."""
    size, runs = len(rows[0]), [_run(row) for row in rows]
    none = [0] * len(rows)
    pad, bos = special.pad, special.bos
    start_tokens = [token for token, count in runs if count < size]
    if pad is not None and pad in start_tokens:
        token = pad
    elif bos is not None and len(set(_lengths(runs, bos, size))) > 1 and max(_lengths(runs, bos, size)) > 1:
        token = bos
    else:
        before = _before_bos(rows, runs, bos)
        repeated = Evidence(before) if any(before) else _repeated(rows, runs, special, at_end=False)
        has_evidence = any(repeated.counts) or any(repeated.possible)
        return repeated if has_evidence else _single(rows, special, text, at_end=False)
    lengths = _lengths(runs, token, size)
    partial = [length for (_, count), length in zip(runs, lengths, strict=True) if count < size]
    fewest, most = min(partial), max(partial)
    if token != bos:
        if special.pad_is_ordinary and fewest == most == 1:
            return Evidence(none, "", tuple(lengths), "which is both an ordinary token and the padding token")
        return Evidence(lengths)
    if fewest == 0:
        return Evidence(lengths, _OWN_BOS)
    if fewest == most <= 2:
        on_the_right = max(_lengths([_run(row[::-1]) for row in rows], token, size)) > (token == special.eos)
        chosen = special.pads_left or token != special.eos
        if most == 1 and special.adds_bos and (on_the_right or not chosen):
            return Evidence(none)
        return Evidence(none, "", tuple(lengths), "which is both BOS and the padding token")
    return Evidence([max(length - 1, 0) for length in lengths], _NOT_OWN_BOS)


def _repeated(
    inwards: list[list[int]], runs: list[tuple[int, int]], special: SpecialTokens, *, at_end: bool
) -> Evidence:
    """Return what runs of two or more equal tokens show, if the tokenizer does not declare the token as padding.

    Args:
        inwards: The token ids of each prompt, listed from the examined end inwards.
        runs: The run of each row (`_run`).
        special: The special tokens.
        at_end: Whether the end of the prompts is examined, instead of the start.
    """
    size, none = len(inwards[0]), [0] * len(inwards)
    longest = max((run for run in runs if 1 < run[1] < size), key=lambda run: run[1], default=None)
    if longest is None or (longest[0] == special.bos and not at_end):
        return Evidence(none)
    token, most = longest
    lengths = _lengths(runs, token, size)
    elsewhere = any(token in row[length:] for row, length in zip(inwards, lengths, strict=True))
    differ = len(set(lengths)) > 1
    if differ and not elsewhere and most >= (2 if token == 0 else 3):
        return Evidence(lengths)
    if differ or most > 2 or token in (0, special.bos):
        least = 1 if differ and not elsewhere else 2
        possible = tuple(length if length >= least else 0 for length in lengths)
        return Evidence(none, "", possible, "a repeated token")
    return Evidence(none)


def _before_bos(rows: list[list[int]], runs: list[tuple[int, int]], bos: int | None) -> list[int]:
    """Number of tokens before each prompt's BOS.

    All 0 unless all these tokens are copies of one token, a BOS follows them in each prompt, and some prompt begins
    with BOS.
    """
    none = [0] * len(rows)
    if bos is None or not any(row[0] == bos for row in rows):
        return none
    counts = [0 if token == bos else count for token, count in runs]
    one_token = len({token for token, _ in runs} - {bos}) == 1
    bos_follows = all(count < len(row) and row[count] == bos for row, count in zip(rows, counts, strict=True))
    return counts if one_token and bos_follows else none


def _single(inwards: list[list[int]], special: SpecialTokens, text: TextOf, *, at_end: bool) -> Evidence:
    """Return the evidence that a single token at this end of some prompts, but not of all, could be padding.

    A token could be padding if it is 0 (with which `pad_sequence` pads) or a special token. It could also be padding if
    it is a sign, such as a full stop, where other prompts have a word. At the end of prompts, any token could be
    padding under three conditions: it occurs nowhere else; it does not begin a word; and the token before it is the
    last token of another prompt, or differs between prompts.
    """
    ends = [row[0] for row in inwards]
    counts = Counter(ends)
    if len(counts) == 1 or len(inwards[0]) < 2:
        return Evidence([0] * len(inwards))

    def possible(token: int, why: str) -> Evidence:
        return Evidence([0] * len(inwards), "", tuple(int(end == token) for end in ends), why)

    all_special = {special.pad, special.eos, special.bos, *special.others}
    if 0 in counts and 0 not in (special.bos, special.eos):
        return possible(0, "with which `pad_sequence` pads")
    by_count = [token for token, _ in counts.most_common()]
    signs = [] if text is None else [token for token in by_count if _is_sign(text(token))]
    candidates = [token for token in by_count if token in all_special] or (signs if len(signs) < len(by_count) else [])
    if not candidates and at_end:
        inside = {token for row in inwards for token in row[1:]}
        only_at_end = [token for token in by_count if token not in inside and not _begins_a_word(token, text)]
        candidates = [token for token in only_at_end if _follows_ends(token, inwards)]
        candidates = candidates if len(candidates) == 1 else []
    return possible(candidates[0], "unlike the others") if candidates else Evidence([0] * len(inwards))


def _follows_ends(token: int, inwards: list[list[int]]) -> bool:
    """Whether different tokens come before this last token, or one of them ends another prompt."""
    before = {row[1] for row in inwards if row[0] == token}
    return len(before) > 1 or not before.isdisjoint(row[0] for row in inwards if row[0] != token)


_SIGNS = frozenset(".!?…_-–—*#~|•")


def _is_sign(text: str) -> bool:
    """Whether a token's text is blank, or consists only of signs with which people pad."""
    return set(text.strip()) <= _SIGNS


def _begins_a_word(token: int, text: TextOf) -> bool:
    """Whether a token's text is a space and the beginning of a word. Nobody pads with such a token."""
    token_text = "" if text is None else text(token)
    return token_text[:1] == " " and token_text[1:2].isalnum()


def _run(row: list[int]) -> tuple[int, int]:
    """The token that a row begins with, and how many times it is repeated there."""
    return row[0], next((at for at, token in enumerate(row) if token != row[0]), len(row))


def _lengths(runs: list[tuple[int, int]], token: int, size: int) -> list[int]:
    """The length of each row's run of this token. 0 if the row begins with another token, or has only this token."""
    return [count if of == token and count < size else 0 for of, count in runs]
