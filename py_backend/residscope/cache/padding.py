"""Decides which tokens are padding, and notes what was assumed.

All other code takes the first and the last real token of each prompt from here. The evidence, in this order:

1. `attention_mask=`, if it was given. It is final. A row is real from its first 1 to its last 1. Zeros between them
   are treated as real, with a note.
2. The mask that shows in the cached attention patterns. No token attends to a masked token, in any layer or head.
   - Leading padding: no real token attends to it. It must repeat one token, or its rows must attend to everything
     equally or to nothing. This is not so in packed texts.
   - Trailing padding: no padding token attends to itself or to another padding token, and the first one attends to
     the last real token. This is not so with a sliding window.
   - Sharp attention also rounds to exactly 0. The share of such zeros among the real tokens is counted for each head
     of each layer. If chance could explain the zeros, they are no evidence, and a note names both explanations.
   - If one prompt of the batch shows a mask, the whole batch was run with one. Prompts without masked tokens are then
     real from end to end.
3. The padding token at the start or end of a prompt.
   - It is padding if it is neither the end of text nor BOS. Exception: if it is an ordinary token and every prompt
     ends with exactly one, it is real.
   - At the end, if it is also the end of text: all of it is padding if some prompt ends without it. If some prompt ends
     with exactly one, the first one in each prompt is that prompt's own end of text. If all prompts end with two or
     more, all of it is padding, unless the tokenizer adds an end of text.
   - At the start, if it is also BOS: all of it is padding if some prompt begins without it. Otherwise the last one in
     each prompt is its BOS. If every prompt begins with exactly two, BOS was added twice, and both are real. If every
     prompt begins with exactly one, it is BOS, which TransformerLens adds. A note says that it could be padding only if
     the tokenizer pads on the left, or if the padding token is BOS but not the end of text.
4. Other repeated tokens.
   - Two or more ends of text at the end follow rule 3, even if the padding token is another one or is not set.
   - Any other token is padding if prompts end with runs of it that differ in length, the longest run has at least
     three (two for token 0, with which `pad_sequence` pads), and the token occurs nowhere else.
   - A repeated token before the BOS of some prompts is padding if other prompts begin with BOS.
   - If the evidence is weaker, the tokens are treated as real, with a note that they could be padding. For a single
     token the note needs further evidence (see `_single`), because most prompts of equal length were never padded.

Rules 3 and 4 are assumptions. A note says what was assumed, for how many tokens, and at which position each prompt is
read. The tokenizer is read each time, because its padding token may be set later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from operator import index
from typing import TYPE_CHECKING, Any, Literal

from residscope.cache.tokenizer import attribute
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.compute.memo import NoKeyError, key_of

if TYPE_CHECKING:
    from torch import Tensor

_Text = Callable[[int], str] | None
"""A function that returns the text of a token id. None if there is no tokenizer."""

Spans = list[tuple[int, int]]
"""First and last real position of each prompt."""

_LISTED = 4
"""A note lists at most this many numbers one by one."""

_REMEDY = "pass `attention_mask=` or `position=`"


@dataclass(frozen=True)
class Padding:
    """Where each prompt begins and ends.

    Attributes:
        first: The first real position of each prompt.
        last: The last real position of each prompt.
        width: Number of positions in the cache.
        notes: What was assumed.
    """

    first: list[int]
    last: list[int]
    width: int
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of tokens treated as padding."""
        return sum(self.first) + sum(self.width - 1 - last for last in self.last)

    def of(self, prompts: range) -> Padding:
        """Return the padding of these prompts only."""
        chosen = slice(prompts.start, prompts.stop)
        return Padding(self.first[chosen], self.last[chosen], self.width, self.notes)


def padding(view: CacheView) -> Padding:
    """Return the padding of this cache. Empty if the user chose to treat padding as real (`view.padding_is_real`)."""
    if view.part_of is not None:
        whole, prompts = view.part_of
        return padding(whole).of(prompts)
    if view.padding_is_real:
        note = "Tokens that look like padding count as real."
        has_padding = bool(detected_padding(view).count)
        return Padding([0] * view.batch, [view.n_pos - 1] * view.batch, view.n_pos, (note,) * has_padding)
    return detected_padding(view)


def detected_padding(view: CacheView) -> Padding:
    """Return the padding that the evidence shows, even if the user chose to treat it as real."""
    special = _SpecialTokens.of(view)
    try:
        key = ("padding", special, key_of(view.attention_mask), key_of(view.tokens if view.given_tokens else None))
    except NoKeyError:
        return _detect(view, special)
    return view.memo.once(key, lambda: _detect(view, special))


def notes(view: CacheView) -> list[str]:
    """Return notes on what was assumed about padding, and a note if `tokens=` differs from the ids in the cache."""
    whole = view if view.part_of is None else view.part_of[0]
    return list(padding(view).notes) + [_OTHER_TOKENS] * whole.other_tokens


_OTHER_TOKENS = "`tokens=` differs from the token ids in this cache. `tokens=` was used."


@dataclass(frozen=True)
class _SpecialTokens:
    """The tokenizer's special tokens and settings at this moment.

    Attributes:
        pad: The padding token.
        bos: The beginning-of-sequence token.
        eos: The end-of-text token.
        pad_is_ordinary: Whether the padding token is an ordinary token of the vocabulary.
        adds_eos: Whether the tokenizer adds an end of text to each prompt.
        adds_bos: Whether TransformerLens adds BOS to each prompt.
        has_tokenizer: Whether the model has a tokenizer.
        pads_left: Whether the tokenizer pads on the left.
        others: All other special tokens, such as the unknown token.
    """

    pad: int | None = None
    bos: int | None = None
    eos: int | None = None
    pad_is_ordinary: bool = False
    adds_eos: bool = False
    adds_bos: bool = True
    has_tokenizer: bool = False
    pads_left: bool = False
    others: frozenset[int] = frozenset()

    @classmethod
    def of(cls, view: CacheView) -> _SpecialTokens:
        tokenizer = getattr(view.model, "tokenizer", None)
        pad, bos, eos = (_id(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id"))
        added = attribute(tokenizer, "added_tokens_decoder")
        ordinary = isinstance(added, dict) and pad is not None and pad not in (*added, bos, eos)
        adds_eos = attribute(tokenizer, "add_eos_token") is True
        adds_bos = getattr(view.cfg, "default_prepend_bos", True) is not False
        left = attribute(tokenizer, "padding_side") == "left"
        others = frozenset(added) - {pad, bos, eos} if isinstance(added, dict) else frozenset()
        return cls(pad, bos, eos, ordinary, adds_eos, adds_bos, tokenizer is not None, left, others)


def _id(tokenizer: Any, name: str) -> int | None:
    value = attribute(tokenizer, name)
    if isinstance(value, bool):
        return None
    try:
        return index(value)
    except (TypeError, RuntimeError):
        return None


def _detect(view: CacheView, special: _SpecialTokens) -> Padding:
    given_mask, tokens = view.attention_mask, view.tokens
    rows: list[list[int]] | None = None if tokens is None else tokens.tolist()
    shown = _mask_in_patterns(view, rows)
    if given_mask is not None:
        spans, holes = _spans_of_mask(given_mask)
        return _padding(view, spans, _holes_note(holes, view.batch) + _contradiction_note(view, spans, shown))
    masked = shown is not None and any(span != _whole(view) for span in shown.spans)
    if shown is not None and masked and shown.is_certain:
        used = _padding_notes(view, rows, shown.spans, "", "")
        return _padding(view, shown.spans, used + _only_padding_note(view, rows, special))
    uncertain = shown.spans if shown is not None and masked else None
    if rows is None:
        spans = [_whole(view)] * view.batch
        no_ids = [_NO_TOKEN_IDS] if view.batch > 1 else []
        return _padding(view, spans, no_ids + _uncertain_mask_note(view, spans, uncertain))
    text = Vocabulary(view.model).text if special.has_tokenizer else None
    start = _start_padding(rows, special, text)
    end = _end_padding(rows, special, text, padded_left=any(count > 0 for count in start.counts))
    spans: Spans = []
    for leading, trailing in zip(start.counts, end.counts, strict=True):
        first, last = leading, view.n_pos - 1 - trailing
        spans.append((first, last) if first <= last else (0, view.n_pos - 1))
    no_mask = shown is not None and not masked
    used = _padding_notes(view, rows, spans, start.other_reading, end.other_reading, no_mask=no_mask)
    used += _uncertain_mask_note(view, spans, uncertain)
    possible = _possible_note(view, rows, end, "end", spans) + _possible_note(view, rows, start, "begin", spans)
    return _padding(view, spans, used + possible + _only_padding_note(view, rows, special))


_NO_TOKEN_IDS = (
    "The cache holds no token ids, so padding cannot be determined: all positions of each prompt count as real. "
    "Pass `tokens=` or `attention_mask=`."
)


def _whole(view: CacheView) -> tuple[int, int]:
    return 0, view.n_pos - 1


def _padding(view: CacheView, spans: Spans, notes: Sequence[str] = ()) -> Padding:
    first, last = [list(ends) for ends in zip(*spans, strict=True)]
    return Padding(first, last, view.n_pos, tuple(notes))


# --- the given mask --------------------------------------------------------------------------------------------------
def _spans_of_mask(mask: Tensor) -> tuple[Spans, int]:
    """The spans from the first 1 to the last 1, and the number of prompts with zeros between them."""
    real = mask.long()
    firsts: list[int] = real.argmax(-1).tolist()
    lasts: list[int] = (mask.shape[1] - 1 - real.flip(-1).argmax(-1)).tolist()
    counts: list[int] = real.sum(-1).tolist()
    holes = sum(last - first + 1 != count for first, last, count in zip(firsts, lasts, counts, strict=True))
    return list(zip(firsts, lasts, strict=True)), holes


def _holes_note(count: int, batch: int) -> list[str]:
    if not count:
        return []
    return [
        f"`attention_mask` has zeros between ones in {_prompts(count, batch)}. Only tokens before the first 1 and "
        "after the last 1 are left out. The zeros between them count as real."
    ]


# --- the mask that shows in the attention patterns -------------------------------------------------------------------
@dataclass(frozen=True)
class _ShownMask:
    """The mask that shows in the cached attention patterns.

    Attributes:
        spans: Where each prompt begins and ends by this mask.
        is_certain: Whether it is a mask. False if attention may round to 0 there by chance.
    """

    spans: Spans
    is_certain: bool


_CHANCE = 1e-4
"""Zeros that are more likely than this may be chance."""


def _mask_in_patterns(view: CacheView, rows: list[list[int]] | None) -> _ShownMask | None:
    """The mask that shows in the cached attention patterns. None if no pattern was cached."""
    import torch

    patterns = list(_patterns(view))
    reads_itself = reads_previous = None
    for pattern in patterns:
        itself = (pattern.diagonal(dim1=-2, dim2=-1) != 0).any(1).cpu()
        previous = (pattern.diagonal(offset=-1, dim1=-2, dim2=-1) != 0).any(1).cpu()
        reads_itself = itself if reads_itself is None else reads_itself | itself
        reads_previous = previous if reads_previous is None else reads_previous | previous
        if bool(reads_itself.all()) and bool(reads_previous.all()):  # nothing is masked
            return _ShownMask([_whole(view)] * view.batch, is_certain=True)
    if reads_itself is None or reads_previous is None:
        return None
    first_column = torch.ones(view.batch, 1, dtype=torch.bool, device="cpu")  # the first token has no previous one
    flags = zip(reads_itself.tolist(), torch.cat([first_column, reads_previous], dim=1).tolist(), strict=True)
    spans = [
        _span([pattern[at] for pattern in patterns], itself, previous, None if rows is None else rows[at])
        for at, (itself, previous) in enumerate(flags)
    ]
    return _ShownMask(spans, _chance_of_zeros(patterns, spans, reads_itself.tolist()) < _CHANCE)


def _patterns(view: CacheView) -> Iterator[Tensor]:
    """The cached attention patterns `[batch, head, pos, pos]`, layer by layer."""
    for layer in range(view.n_layers):
        name = f"blocks.{layer}.attn.hook_pattern"
        pattern = view.get(name) if view.has(name) else None
        if pattern is not None and tuple(pattern.shape[:1] + pattern.shape[2:]) == (view.batch, view.n_pos, view.n_pos):
            yield pattern


def _span(
    patterns: list[Tensor], reads_itself: list[bool], reads_previous: list[bool], row: list[int] | None
) -> tuple[int, int]:
    """The first and the last position of one prompt that are not masked.

    Args:
        patterns: The prompt's attention patterns `[head, pos, pos]`, one for each layer.
        reads_itself: Whether each token attends to itself, in any head.
        reads_previous: Whether each token attends to the token before it, in any head.
        row: The prompt's token ids.
    """
    size = len(reads_itself)
    first = next((at for at in range(1, size) if reads_itself[at] and not reads_previous[at]), 0)
    if first:
        is_padding = (
            row is None or _one_token(row[:first]) or all(bool(_is_uniform(p[:, 1:first]).all()) for p in patterns)
        )
        if not is_padding or any(bool(pattern[:, first:, :first].any()) for pattern in patterns):
            first = 0
    if not reads_itself[first]:
        return 0, size - 1
    candidates = (at for at in range(first + 1, size) if reads_previous[at] and not reads_itself[at])
    end = next((at for at in candidates if all(_is_masked_from(pattern, at) for pattern in patterns)), size)
    return first, end - 1


def _is_masked_from(pattern: Tensor, start: int) -> bool:
    """Whether no row attends to `start` or to a later token. A fully masked row may attend to everything equally."""
    rows = pattern[:, start:]
    return bool((~rows[:, :, start:].any(-1) | _is_uniform(rows)).all())


def _is_uniform(rows: Tensor) -> Tensor:
    """Which rows `[head, row, pos]` attend equally to several tokens, or to nothing, as fully masked rows do."""
    most, read = rows.amax(-1), rows != 0
    return (((most[..., None] - rows).abs() <= 0.01 * most[..., None]) | ~read).all(-1) & (read.sum(-1) != 1)


def _one_token(ids: list[int]) -> bool:
    return len(set(ids)) <= 1


def _chance_of_zeros(patterns: list[Tensor], spans: Spans, reads_itself: list[list[bool]]) -> float:
    """The probability that unmasked attention is exactly 0 where these spans say it is masked.

    A head's probability is the share of real tokens at which its attention to the token itself (or to the previous
    token) is exactly 0. One zero is added, because a few tokens are weak evidence. The heads' probabilities are
    multiplied. But heads may round to 0 at the same tokens, so the share of real tokens at which all heads do so is a
    lower limit.
    """
    places = [(at, q) for at, (first, last) in enumerate(spans) for q in range(first + 1, last + 1)]
    prompts, queries = [at for at, _ in places], [q for _, q in places]
    trailing, leading = any(last < len(reads_itself[0]) - 1 for _, last in spans), any(first for first, _ in spans)
    chances = [0.0]
    for back in [0] * trailing + [1] * leading:
        chance = 1.0
        for pattern in patterns:
            zeros: list[int] = (pattern[prompts, :, queries, [q - back for q in queries]] == 0).sum(0).tolist()
            chance *= prod((zero + 1) / (len(places) + 2) for zero in zeros)
        chances.append(max(chance, sum(not reads_itself[at][q] for at, q in places) / max(len(places), 1)))
    return max(chances)


# --- ids -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Evidence:
    """What the token ids at one end of the prompts (start or end) show.

    Attributes:
        counts: Number of padding tokens of each prompt.
        other_reading: What else these tokens could be, as a sentence that follows the note.
        possible: Number of tokens of each prompt that are treated as real but could be padding.
        why: Why these could be padding, as the end of a sentence.
    """

    counts: list[int]
    other_reading: str = ""
    possible: tuple[int, ...] = ()
    why: str = ""


_WAS_NOT_MASKED = ". A model that was run without a mask has attended to it, and the values are those of this run."
_OWN_END = " The first of them may be a prompt's own end of text: that prompt then ends one token later."
_NOT_OWN_END = " One more may be padding: that is so if these prompts have no end of text of their own."
_OWN_BOS = " The last of them may be a prompt's own BOS."
_NOT_OWN_BOS = " One more may be padding: that is so if these prompts have no BOS."


def _end_padding(rows: list[list[int]], special: _SpecialTokens, text: _Text, *, padded_left: bool) -> _Evidence:
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
    if not partial:  # every prompt holds only padding, or one token
        return _Evidence([0] * len(rows))
    fewest, most = min(partial), max(partial)
    if token != special.eos:
        if special.pad_is_ordinary and fewest == most == 1:
            return _Evidence(
                [0] * len(rows), "", tuple(lengths), "which is both an ordinary token and the padding token"
            )
        return _Evidence(lengths)
    if padded_left and most == 1:  # padding is on one side only, so these are the prompts' own ends of text
        return _Evidence([0] * len(rows))
    if fewest == 1 or (fewest > 1 and special.adds_eos):
        counts = [max(length - 1, 0) for length in lengths]
        if not any(counts):
            return _Evidence(counts, "", tuple(lengths), "which is both the end of text and the padding token")
        return _Evidence(counts, _NOT_OWN_END)
    return _Evidence(lengths, _OWN_END)


def _start_padding(rows: list[list[int]], special: _SpecialTokens, text: _Text) -> _Evidence:
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
        repeated = _Evidence(before) if any(before) else _repeated(rows, runs, special, at_end=False)
        has_evidence = any(repeated.counts) or any(repeated.possible)
        return repeated if has_evidence else _single(rows, special, text, at_end=False)
    lengths = _lengths(runs, token, size)
    partial = [length for (_, count), length in zip(runs, lengths, strict=True) if count < size]
    fewest, most = min(partial), max(partial)
    if token != bos:
        if special.pad_is_ordinary and fewest == most == 1:
            return _Evidence(none, "", tuple(lengths), "which is both an ordinary token and the padding token")
        return _Evidence(lengths)
    if fewest == 0:
        return _Evidence(lengths, _OWN_BOS)
    if fewest == most <= 2:
        on_the_right = max(_lengths([_run(row[::-1]) for row in rows], token, size)) > (token == special.eos)
        chosen = special.pads_left or token != special.eos
        if most == 1 and special.adds_bos and (on_the_right or not chosen):
            return _Evidence(none)
        return _Evidence(none, "", tuple(lengths), "which is both BOS and the padding token")
    return _Evidence([max(length - 1, 0) for length in lengths], _NOT_OWN_BOS)


def _repeated(
    inwards: list[list[int]], runs: list[tuple[int, int]], special: _SpecialTokens, *, at_end: bool
) -> _Evidence:
    """Runs of two or more of a token that is not declared as padding.

    Args:
        inwards: The rows of token ids, beginning at this end of the prompts.
        runs: The run of each row (`_run`).
        special: The special tokens.
        at_end: Whether this is the end of the prompts.
    """
    size, none = len(inwards[0]), [0] * len(inwards)
    longest = max((run for run in runs if 1 < run[1] < size), key=lambda run: run[1], default=None)
    if longest is None or (longest[0] == special.bos and not at_end):
        return _Evidence(none)
    token, most = longest
    lengths = _lengths(runs, token, size)
    elsewhere = any(token in row[length:] for row, length in zip(inwards, lengths, strict=True))
    differ = len(set(lengths)) > 1
    if differ and not elsewhere and most >= (2 if token == 0 else 3):
        return _Evidence(lengths)
    if differ or most > 2 or token in (0, special.bos):
        least = 1 if differ and not elsewhere else 2
        possible = tuple(length if length >= least else 0 for length in lengths)
        return _Evidence(none, "", possible, "a repeated token")
    return _Evidence(none)


def _before_bos(rows: list[list[int]], runs: list[tuple[int, int]], bos: int | None) -> list[int]:
    """Number of tokens before each prompt's BOS. All 0 unless they repeat one token and some prompt begins with BOS."""
    none = [0] * len(rows)
    if bos is None or not any(row[0] == bos for row in rows):
        return none
    counts = [0 if token == bos else count for token, count in runs]
    one_token = len({token for token, _ in runs} - {bos}) == 1
    bos_follows = all(count < len(row) and row[count] == bos for row, count in zip(rows, counts, strict=True))
    return counts if one_token and bos_follows else none


def _single(inwards: list[list[int]], special: _SpecialTokens, text: _Text, *, at_end: bool) -> _Evidence:
    """A single token at this end of some prompts, but not of all, that could be padding.

    The evidence for padding is the token itself: 0, with which `pad_sequence` pads; a special token; or a full stop or
    another sign, if other prompts have a word there. At the end it may also be any token that occurs nowhere else and
    does not begin a word, if it follows the last token of another prompt, or different tokens in several prompts.
    """
    ends = [row[0] for row in inwards]
    counts = Counter(ends)
    if len(counts) == 1 or len(inwards[0]) < 2:
        return _Evidence([0] * len(inwards))

    def possible(token: int, why: str) -> _Evidence:
        return _Evidence([0] * len(inwards), "", tuple(int(end == token) for end in ends), why)

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
    return possible(candidates[0], "unlike the others") if candidates else _Evidence([0] * len(inwards))


def _follows_ends(token: int, inwards: list[list[int]]) -> bool:
    """Whether this last token follows the last token of another prompt, or different tokens in several prompts."""
    before = {row[1] for row in inwards if row[0] == token}
    return len(before) > 1 or not before.isdisjoint(row[0] for row in inwards if row[0] != token)


_SIGNS = frozenset(".!?…_-–—*#~|•")


def _is_sign(text: str) -> bool:
    """Whether a token is blank, or only signs that people pad with."""
    return set(text.strip()) <= _SIGNS


def _begins_a_word(token: int, text: _Text) -> bool:
    """Whether a token's text is a space and the beginning of a word. Nobody pads with such a token."""
    token_text = "" if text is None else text(token)
    return token_text[:1] == " " and token_text[1:2].isalnum()


def _run(row: list[int]) -> tuple[int, int]:
    """The token that a row begins with, and how many times it is repeated there."""
    return row[0], next((at for at, token in enumerate(row) if token != row[0]), len(row))


def _lengths(runs: list[tuple[int, int]], token: int, size: int) -> list[int]:
    """The length of each row's run of this token. 0 if the whole row is this token."""
    return [count if of == token and count < size else 0 for of, count in runs]


# --- the notes -------------------------------------------------------------------------------------------------------
def _padding_notes(
    view: CacheView,
    rows: list[list[int]] | None,
    spans: Spans,
    other_start: str,
    other_end: str,
    *,
    no_mask: bool = False,
) -> list[str]:
    """Notes on the tokens that are treated as padding, and on where each prompt is read.

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
        was, it_is = ("was", "it is") if len(trailing) == 1 else ("were", "they are")
        notes.append(
            f"{prompts} {was} treated as padded: {tokens} left out, and {it_is} read at {place}.{other_end} If these "
            f"tokens are real, {_REMEDY}."
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
            notes.append(_ATTENDED_TO_PADDING)
    return notes


def _uncertain_mask_note(view: CacheView, spans: Spans, shown: Spans | None) -> list[str]:
    """A note on tokens to which no head attends, if that could be a mask or chance."""
    affected = [at for at, span in enumerate(shown or []) if span != spans[at]]
    if shown is None or not affected:
        return []
    counts = [view.n_pos - 1 - (shown[at][1] - shown[at][0]) for at in affected]
    it_is = "it is" if len(affected) == 1 else "they are"
    return [
        f"In {_prompts(len(affected), view.batch)} no cached head attends to {_each(counts, 'tokens at the ends')}. "
        "This may be a mask, or attention so sharp that it is rounded to 0. The tokens count as real, and "
        f"{it_is} read at {_places([spans[at][1] for at in affected])}. If they are padding, {_REMEDY}."
    ]


def _contradiction_note(view: CacheView, spans: Spans, shown: _ShownMask | None) -> list[str]:
    """A note if the given mask differs from the mask that shows in the cached attention."""
    if shown is None or not shown.is_certain:
        return []
    if all(span == _whole(view) for span in shown.spans):
        return [_ATTENDED_TO_PADDING] if any(first for first, _ in spans) else []
    affected = [at for at, span in enumerate(shown.spans) if span != spans[at]]
    if not affected:
        return []
    at = affected[0]
    (first, last), (shown_first, shown_last) = spans[at], shown.spans[at]
    return [
        "`attention_mask=` differs from the mask that the cached attention shows, in "
        f"{_prompts(len(affected), view.batch)}: prompt {at} is real from position {first} to {last} by "
        f"`attention_mask=`, but from {shown_first} to {shown_last} by the cached attention. `attention_mask=` was "
        "used."
    ]


_ATTENDED_TO_PADDING = (
    "The model was run without a mask over the leading padding, so the prompts attended to it: the values are those of "
    "this run, not of the prompts alone."
)


def _only_padding_note(view: CacheView, rows: list[list[int]] | None, special: _SpecialTokens) -> list[str]:
    """A note on prompts that hold only padding tokens: they are treated as real and read at the last position."""
    empty = [at for at, row in enumerate(rows or []) if len(row) > 1 and set(row) == {special.pad}]
    if not empty or rows is None:
        return []
    holds, it_is = ("holds", "it is") if len(empty) == 1 else ("hold", "they are")
    return [
        f"{_prompts(len(empty), view.batch, capital=True)} {holds} nothing but "
        f"{_token_name(view, rows, [(at, 0) for at in empty])}: all tokens are treated as real, and {it_is} read at "
        f"position {view.n_pos - 1}."
    ]


def _possible_note(
    view: CacheView, rows: list[list[int]], evidence: _Evidence, end: Literal["begin", "end"], spans: Spans
) -> list[str]:
    """A note on tokens that are treated as real but could be padding."""
    affected = [(at, count) for at, count in enumerate(evidence.possible) if count]
    if not affected:
        return []
    token = _token_name(view, rows, [(at, 0 if end == "begin" else -1) for at, _ in affected])
    one = len(affected) == 1
    read = ""
    if end == "end":
        read = f", and {'it is' if one else 'they are'} read there ({_places([spans[at][1] for at, _ in affected])})"
    remedy = f"{_REMEDY}." if end == "end" else f"pass `attention_mask=`{_WAS_NOT_MASKED}"
    return [
        f"{_prompts(len(affected), view.batch, capital=True)} {end}{'s' if one else ''} with "
        f"{_each([count for _, count in affected], token)}, {evidence.why}: this was treated as real{read}. If it is "
        f"padding, {remedy}"
    ]


def _prompts(count: int, batch: int, *, capital: bool = False) -> str:
    text = "the prompt" if batch == 1 else f"{count} of {batch} prompts"
    return text[0].upper() + text[1:] if capital else text


def _token_name(view: CacheView, rows: list[list[int]] | None, places: list[tuple[int, int]]) -> str:
    """The text of the token at these places, in backticks. "tokens" if there are several, or no token ids."""
    if rows is None:
        return "tokens"
    tokens = {rows[row][at] for row, at in places}
    return f"`{Vocabulary(view.model).text(tokens.pop())}`" if len(tokens) == 1 else "tokens"


def _tokens(counts: list[int], which: str, token: str) -> str:
    return f"{_each(counts, f'{which} {token}')} {'was' if sum(counts) == 1 else 'were'}"


def _each(counts: list[int], what: str) -> str:
    """Counts in words: listed one by one, or as a range with the sum."""
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
