"""The notes on padding: what was assumed, for how many tokens, where prompts end, and what to pass instead."""

from __future__ import annotations

from typing import Literal

from residscope.cache.padding_mask import ShownMask, Spans, whole_prompt
from residscope.cache.padding_tokens import Evidence
from residscope.cache.special_tokens import SpecialTokens
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary

_LISTED = 4
"""A note lists at most this many numbers one by one."""

WAS_NOT_MASKED = (
    ". A model that was run without a mask has attended to the padding, and the values are those of this run."
)


def holes_note(count: int, batch: int) -> list[str]:
    """Return a note on zeros between ones in `attention_mask=`."""
    if not count:
        return []
    return [
        f"`attention_mask` has zeros between ones in {_prompts(count, batch)}. Only tokens before the first 1 and "
        "after the last 1 are left out. The zeros between them count as real."
    ]


def padding_notes(
    view: CacheView,
    rows: list[list[int]] | None,
    spans: Spans,
    other_start: str,
    other_end: str,
    *,
    no_mask: bool = False,
) -> list[str]:
    """Notes on the tokens that are treated as padding, and on where each prompt begins and ends.

    Args:
        view: The cache.
        rows: Its token ids.
        spans: First and last real position of each prompt.
        other_start: What else the leading tokens could be, as a sentence.
        other_end: What else the trailing tokens could be, as a sentence.
        no_mask: Whether the attention patterns show that the model was run without a mask.
    """
    size = view.n_pos
    notes: list[str] = []
    leading = {at: first for at, (first, _) in enumerate(spans) if first}
    trailing = {at: size - 1 - last for at, (_, last) in enumerate(spans) if last < size - 1}
    if trailing:
        tokens = _tokens(
            list(trailing.values()),
            "trailing",
            _token_name(view, rows, [(at, p) for at in trailing for p in range(spans[at][1] + 1, size)]),
        )
        prompts = _prompts(len(trailing), view.batch, capital=True)
        place = _places([spans[at][1] for at in trailing])
        was, it_ends = ("was", "it ends") if len(trailing) == 1 else ("were", "they end")
        notes.append(
            f"{prompts} {was} treated as padded: {tokens} left out, and {it_ends} at {place}.{other_end} If these "
            "tokens are real, pass `attention_mask=`."
        )
    if leading:
        tokens = _tokens(
            list(leading.values()),
            "leading",
            _token_name(view, rows, [(at, p) for at, count in leading.items() for p in range(count)]),
        )
        prompts = _prompts(len(leading), view.batch, capital=True)
        place = _places([spans[at][0] for at in leading])
        was, it_begins = ("was", "it begins") if len(leading) == 1 else ("were", "they begin")
        notes.append(
            f"{prompts} {was} treated as padded: {tokens} left out, and {it_begins} at {place}.{other_start} If these "
            "tokens are real, pass `attention_mask=`."
        )
        if no_mask:
            notes.append(ATTENDED_TO_PADDING)
    return notes


def uncertain_mask_note(view: CacheView, spans: Spans, shown: Spans | None) -> list[str]:
    """A note on tokens to which no head attends, if the reason may be a mask or chance."""
    affected = [at for at, span in enumerate(shown or []) if span != spans[at]]
    if shown is None or not affected:
        return []
    counts = [view.n_pos - 1 - (shown[at][1] - shown[at][0]) for at in affected]
    the_prompts_end = "the prompt ends" if len(affected) == 1 else "the prompts end"
    return [
        f"In {_prompts(len(affected), view.batch)} no cached head attends to {_each(counts, 'tokens at the ends')}. "
        "This may be a mask, or the attention to them may be so small that it is rounded to 0. The tokens count as "
        f"real, and {the_prompts_end} at {_places([spans[at][1] for at in affected])}. If they are padding, pass "
        "`attention_mask=`."
    ]


def contradiction_note(view: CacheView, spans: Spans, shown: ShownMask | None) -> list[str]:
    """A note if the given mask differs from the mask that the cached attention shows."""
    if shown is None or not shown.is_certain:
        return []
    if all(span == whole_prompt(view) for span in shown.spans):
        return [ATTENDED_TO_PADDING] if any(first for first, _ in spans) else []
    affected = [at for at, span in enumerate(shown.spans) if span != spans[at]]
    if not affected:
        return []
    at = affected[0]
    (first, last), (shown_first, shown_last) = spans[at], shown.spans[at]
    return [
        "`attention_mask=` differs from the mask that the cached attention shows, in "
        f"{_prompts(len(affected), view.batch)}. In prompt {at}, the real tokens are positions {first} to {last} "
        f"according to `attention_mask=`, but {shown_first} to {shown_last} according to the cached attention. "
        "`attention_mask=` was used."
    ]


ATTENDED_TO_PADDING = (
    "The model was run without a mask over the leading padding, so the prompts attended to it: the values are those of "
    "this run, not of the prompts alone."
)


def only_padding_note(view: CacheView, rows: list[list[int]] | None, special: SpecialTokens) -> list[str]:
    """A note on prompts of only padding tokens. The tokens are treated as real."""
    empty = [at for at, row in enumerate(rows or []) if len(row) > 1 and set(row) == {special.pad}]
    if not empty or rows is None:
        return []
    holds, it_ends = ("holds", "it ends") if len(empty) == 1 else ("hold", "they end")
    return [
        f"{_prompts(len(empty), view.batch, capital=True)} {holds} nothing but "
        f"{_token_name(view, rows, [(at, 0) for at in empty])}: all tokens are treated as real, and {it_ends} at "
        f"position {view.n_pos - 1}."
    ]


def possible_note(
    view: CacheView, rows: list[list[int]], evidence: Evidence, end: Literal["begin", "end"], spans: Spans
) -> list[str]:
    """A note on tokens that are treated as real but could be padding."""
    affected = [(at, count) for at, count in enumerate(evidence.possible) if count]
    if not affected:
        return []
    token = _token_name(view, rows, [(at, 0 if end == "begin" else -1) for at, _ in affected])
    one = len(affected) == 1
    ends = ""
    if end == "end":
        it_ends = "the prompt ends" if one else "the prompts end"
        ends = f", and {it_ends} at {_places([spans[at][1] for at, _ in affected])}"
    remedy = "." if end == "end" else WAS_NOT_MASKED
    return [
        f"{_prompts(len(affected), view.batch, capital=True)} {end}{'s' if one else ''} with "
        f"{_each([count for _, count in affected], token)}, {evidence.why}: they were treated as real{ends}. If they "
        f"are padding, pass `attention_mask=`{remedy}"
    ]


def _prompts(count: int, batch: int, *, capital: bool = False) -> str:
    text = "the prompt" if batch == 1 else f"{count} of {batch} prompts"
    return text[0].upper() + text[1:] if capital else text


def _token_name(view: CacheView, rows: list[list[int]] | None, places: list[tuple[int, int]]) -> str:
    """The text of the token at these places, in backticks. "tokens" if the tokens differ, or without token ids."""
    if rows is None:
        return "tokens"
    tokens = {rows[row][at] for row, at in places}
    return f"`{Vocabulary(view.model).text(tokens.pop())}`" if len(tokens) == 1 else "tokens"


def _tokens(counts: list[int], which: str, token: str) -> str:
    return f"{_each(counts, f'{which} {token}')} {'was' if sum(counts) == 1 else 'were'}"


def _each(counts: list[int], what: str) -> str:
    """Counts in words: one number if all are equal, otherwise listed one by one, or as a range with the sum."""
    if len(counts) > 1 and len(set(counts)) == 1:
        return f"{counts[0]} {what} each"
    if len(counts) > _LISTED:
        return f"{min(counts)} to {max(counts)} {what} ({sum(counts)} in all)"
    return ", ".join(map(str, counts[:-1])) + " and " * (len(counts) > 1) + f"{counts[-1]} {what}"


def _places(positions: list[int]) -> str:
    different = sorted(set(positions))
    if len(different) == 1:
        return f"position {different[0]}"
    if len(positions) > _LISTED:
        return f"positions {different[0]} to {different[-1]}"
    return "positions " + ", ".join(map(str, positions[:-1])) + f" and {positions[-1]}"
