"""What is padding: the one place that decides where each prompt begins and ends, and that says what was assumed.

Everything that asks for a prompt's last token, its first one, or its real positions asks here. The evidence, in order:

1. `attention_mask=`, where it was given. It is final. A row is real from its first 1 to its last 1; zeros between them
   are counted as real, and a note says so.
2. The mask that the cached pattern shows. A masked token is read by nobody, in no layer and no head: no real token
   reads what stands before the first real one, and no token behind the end reads itself or another one there, while
   the first of them reads the last real one. Neighbours tell where that may be, so that a sliding window is no mask;
   and before the first real token there is one token again and again, or rows that read everything alike or nothing,
   so that packed texts are not padding. Sharp attention rounds to exactly 0, too: of each layer and head it is counted
   how often it does so among the real tokens. Where that many zeros could be chance, they are no evidence, and a note
   says that they could be either. Where one prompt of the batch shows a mask, the batch was run with one: prompts in
   which it hides nothing are real from end to end.
3. Runs of the padding token at an end, and ids. A padding token that is neither end of text nor BOS is padding. Where
   it is the end of text, too: if some prompt ends without it, no prompt has one of its own, and all of it is padding;
   if one prompt ends with exactly one, each has one of its own; if all end with two or more, all of it is padding,
   unless the tokenizer adds ends of text. At the start the same with BOS: if some prompt begins without it, all of it
   is padding; else the last one of each is BOS. Two for every prompt are a doubled BOS, and are real. If every prompt
   has one, it is BOS, which TransformerLens puts there; a note says that it could be padding only where something
   speaks for that: the tokenizer pads on the left, or its padding token is BOS and not end of text, which somebody
   chose. An ordinary token as padding token is real where every prompt ends with exactly one.
4. Other tokens that fill: an end of text that stands twice or more at the end counts as in 3 although the padding token
   is another one (or there is none). Any other token is filling where prompts end with runs of it of different lengths,
   one of three or more (of token 0, with which `pad_sequence` fills, two), and it stands nowhere else; and before the
   BOS of some prompts, where others begin with BOS. Less than that is read as real, and a note says that it could be
   padding. Of a single token it does so only where something speaks for filling, see `_single`: most prompts of one
   length were never padded.

Rules 3 and 4 are assumptions: a note says what was assumed, of how many tokens, and where each prompt is read.
The tokenizer is read each time: its padding token may be set after a first look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from operator import index
from typing import TYPE_CHECKING, Any

from residscope.cache.tokenizer import attribute
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.compute.memo import UnknownError, key_of

if TYPE_CHECKING:
    from torch import Tensor

_Text = Callable[[int], str] | None
"""What a token writes, where there is a tokenizer."""

Spans = list[tuple[int, int]]
"""First and last real position of each prompt."""

_LISTED = 4
"""Up to so many prompts are named one by one in a note."""

CHANGE = "pass `attention_mask=` or `position=`"


@dataclass(frozen=True)
class Padding:
    """Where prompts begin and end.

    Attributes:
        first: The first real position of each prompt.
        last: The last one.
        width: How many positions there are.
        notes: What was assumed.
    """

    first: list[int]
    last: list[int]
    width: int
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many tokens were taken for padding."""
        return sum(self.first) + sum(self.width - 1 - last for last in self.last)

    def of(self, prompts: range) -> Padding:
        """The same of some prompts."""
        run = slice(prompts.start, prompts.stop)
        return Padding(self.first[run], self.last[run], self.width, self.notes)


def padding(view: CacheView) -> Padding:
    """What is padding in this cache, as it is chosen there: found, or counted as real."""
    if view.part_of is not None:
        whole, prompts = view.part_of
        return padding(whole).of(prompts)
    if view.padding_is_real:
        said = "What looks like padding is counted as real."
        return Padding([0] * view.batch, [view.n_pos - 1] * view.batch, view.n_pos, (said,) * bool(found(view).count))
    return found(view)


def found(view: CacheView) -> Padding:
    """What is padding by the evidence, whatever is chosen."""
    special = _Special.of(view)
    try:
        key = ("padding", special, key_of(view.attention_mask), key_of(view.tokens if view.given_tokens else None))
    except UnknownError:
        return _found(view, special)
    return view.memo.once(key, lambda: _found(view, special))


def notes(view: CacheView) -> list[str]:
    """What was assumed, and whether it was by ids that are not the cache's own."""
    whole = view if view.part_of is None else view.part_of[0]
    return list(padding(view).notes) + [_OTHER_TOKENS] * whole.other_tokens


_OTHER_TOKENS = "`tokens=` are not the ids that this cache holds: those that were given were taken."


@dataclass(frozen=True)
class _Special:
    """What the tokenizer says of its tokens now."""

    pad: int | None = None
    bos: int | None = None
    eos: int | None = None
    ordinary: bool = False
    adds_eos: bool = False
    adds_bos: bool = True
    known: bool = False
    pads_left: bool = False
    others: frozenset[int] = frozenset()
    """Special tokens beside these, such as the unknown one."""

    @classmethod
    def of(cls, view: CacheView) -> _Special:
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


def _found(view: CacheView, special: _Special) -> Padding:
    mask, tokens = view.attention_mask, view.tokens
    rows: list[list[int]] | None = None if tokens is None else tokens.tolist()
    shown = _shown(view, rows)
    if mask is not None:
        spans, holes = _of_mask(mask)
        return _made(view, spans, _holes(holes, view.batch) + _contradicted(view, spans, shown))
    masked = shown is not None and any(span != _whole(view) for span in shown.spans)
    if shown is not None and masked and shown.sure:
        return _made(view, shown.spans, _taken(view, rows, shown.spans, "", "") + _nothing_else(view, rows, special))
    unread = shown.spans if shown is not None and masked else None
    if rows is None:
        spans = [_whole(view)] * view.batch
        return _made(view, spans, ([_UNKNOWN] if view.batch > 1 else []) + _unread(view, spans, unread))
    text = Vocabulary(view.model).text if special.known else None
    starts = _starts(rows, special, text)
    ends = _ends(rows, special, text, padded_left=any(cut > 0 for cut in starts.cut))
    spans: Spans = []
    for before, behind in zip(starts.cut, ends.cut, strict=True):
        first, last = before, view.n_pos - 1 - behind
        spans.append((first, last) if first <= last else (0, view.n_pos - 1))
    read = shown is not None and not masked
    said = _taken(view, rows, spans, starts.doubt, ends.doubt, read=read) + _unread(view, spans, unread)
    could = _could(view, rows, ends, "end", spans) + _could(view, rows, starts, "begin", spans)
    return _made(view, spans, said + could + _nothing_else(view, rows, special))


_UNKNOWN = (
    "The cache holds no token ids, so padding cannot be determined: each prompt counts as real from its first position "
    "to the last. Pass `tokens=` or `attention_mask=`."
)


def _whole(view: CacheView) -> tuple[int, int]:
    return 0, view.n_pos - 1


def _made(view: CacheView, spans: Spans, said: Sequence[str] = ()) -> Padding:
    first, last = [list(ends) for ends in zip(*spans, strict=True)]
    return Padding(first, last, view.n_pos, tuple(said))


# --- the given mask --------------------------------------------------------------------------------------------------
def _of_mask(mask: Tensor) -> tuple[Spans, int]:
    """Real from the first 1 to the last; and in how many prompts there are zeros between."""
    real = mask.long()
    firsts: list[int] = real.argmax(-1).tolist()
    lasts: list[int] = (mask.shape[1] - 1 - real.flip(-1).argmax(-1)).tolist()
    counts: list[int] = real.sum(-1).tolist()
    holes = sum(last - first + 1 != count for first, last, count in zip(firsts, lasts, counts, strict=True))
    return list(zip(firsts, lasts, strict=True)), holes


def _holes(count: int, batch: int) -> list[str]:
    if not count:
        return []
    return [
        f"`attention_mask` has zeros between ones in {_of(count, batch)}: only what stands before the first 1 and "
        "behind the last 1 is left out, what stands between is counted as real."
    ]


# --- the mask that the pattern shows ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Shown:
    """What the cached attention shows.

    Attributes:
        spans: Where it says that prompts begin and end.
        sure: Whether that is a mask: that attention rounds to 0 there by chance can be ruled out.
    """

    spans: Spans
    sure: bool


_CHANCE = 1e-4
"""Zeros that come together more often than that may be chance."""


def _shown(view: CacheView, rows: list[list[int]] | None) -> _Shown | None:
    """What the cached attention shows; None where no pattern was cached."""
    import torch

    patterns = list(_patterns(view))
    itself = before = None
    for pattern in patterns:
        own = (pattern.diagonal(dim1=-2, dim2=-1) != 0).any(1).cpu()
        near = (pattern.diagonal(offset=-1, dim1=-2, dim2=-1) != 0).any(1).cpu()
        itself = own if itself is None else itself | own
        before = near if before is None else before | near
        if bool(itself.all()) and bool(before.all()):  # nothing is masked
            return _Shown([_whole(view)] * view.batch, sure=True)
    if itself is None or before is None:
        return None
    unread = torch.ones(view.batch, 1, dtype=torch.bool, device="cpu")
    flags = zip(itself.tolist(), torch.cat([unread, before], dim=1).tolist(), strict=True)
    spans = [
        _span([pattern[at] for pattern in patterns], own, near, None if rows is None else rows[at])
        for at, (own, near) in enumerate(flags)
    ]
    return _Shown(spans, _by_chance(patterns, spans, itself.tolist()) < _CHANCE)


def _patterns(view: CacheView) -> Iterator[Tensor]:
    """The attention `[batch, head, pos, pos]` of each layer that has it."""
    for layer in range(view.n_layers):
        name = f"blocks.{layer}.attn.hook_pattern"
        pattern = view.get(name) if view.has(name) else None
        if pattern is not None and tuple(pattern.shape[:1] + pattern.shape[2:]) == (view.batch, view.n_pos, view.n_pos):
            yield pattern


def _span(patterns: list[Tensor], itself: list[bool], before: list[bool], row: list[int] | None) -> tuple[int, int]:
    """One prompt, from its attention, from which tokens read themselves, and which read the token before them."""
    size = len(itself)
    first = next((at for at in range(1, size) if itself[at] and not before[at]), 0)
    if first:
        known = row is None or _one_token(row[:first]) or all(bool(_alike(p[:, 1:first]).all()) for p in patterns)
        if not known or any(bool(pattern[:, first:, :first].any()) for pattern in patterns):
            first = 0
    if not itself[first]:
        return 0, size - 1
    ends = (at for at in range(first + 1, size) if before[at] and not itself[at])
    behind = next((at for at in ends if all(_nobody_reads(pattern, at) for pattern in patterns)), size)
    return first, behind - 1


def _nobody_reads(pattern: Tensor, end: int) -> bool:
    """Whether no row reads `end` or what is behind it; a row of which all is masked may read everything alike."""
    rows = pattern[:, end:]
    return bool((~rows[:, :, end:].any(-1) | _alike(rows)).all())


def _alike(rows: Tensor) -> Tensor:
    """Which rows `[head, row, pos]` read everything that they read alike, or nothing: as those do that are masked."""
    most, read = rows.amax(-1), rows != 0
    return (((most[..., None] - rows).abs() <= 0.01 * most[..., None]) | ~read).all(-1) & (read.sum(-1) != 1)


def _one_token(ids: list[int]) -> bool:
    return len(set(ids)) <= 1


def _by_chance(patterns: list[Tensor], spans: Spans, itself: list[list[bool]]) -> float:
    """How likely it is that attention alone reads exactly 0 where these spans have it masked.

    Each head is taken at the share of real tokens that it reads exactly 0 from itself (or from the token before). One
    more zero is counted than there is: of few tokens little is known. Heads may round together: a real token that no
    head reads from itself counts for all.
    """
    places = [(at, q) for at, (first, last) in enumerate(spans) for q in range(first + 1, last + 1)]
    prompts, queries = [at for at, _ in places], [q for _, q in places]
    trailing, leading = any(last < len(itself[0]) - 1 for _, last in spans), any(first for first, _ in spans)
    chances = [0.0]
    for back in [0] * trailing + [1] * leading:
        chance = 1.0
        for pattern in patterns:
            zeros: list[int] = (pattern[prompts, :, queries, [q - back for q in queries]] == 0).sum(0).tolist()
            chance *= prod((zero + 1) / (len(places) + 2) for zero in zeros)
        chances.append(max(chance, sum(not itself[at][q] for at, q in places) / max(len(places), 1)))
    return max(chances)


# --- ids -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Cut:
    """What one end of the prompts shows.

    Attributes:
        cut: How many tokens of each prompt are padding.
        doubt: What else it could be, as a sentence behind the note.
        could: How many tokens of each prompt were read as real and could be padding.
        why: What these are.
    """

    cut: list[int]
    doubt: str = ""
    could: tuple[int, ...] = ()
    why: str = ""


_HAS_READ = "; a model that was run without one has read it, and the figures are those of this run."
_OWN_END = " The first of them may be a prompt's own end of text: then it is read one token later."
_NOT_OWN_END = (
    " One more may be padding, if these prompts have no end of text of their own: then they are read earlier."
)
_OWN_BOS = " The last of them may be a prompt's own BOS."
_NOT_OWN_BOS = " One more may be padding, if these prompts have no BOS."


def _ends(rows: list[list[int]], special: _Special, text: _Text, *, padded_left: bool) -> _Cut:
    size, inwards = len(rows[0]), [row[::-1] for row in rows]
    runs = [_run(row) for row in inwards]
    some = [token for token, count in runs if count < size]
    filling = _filling(inwards, runs, special, at_end=True)
    if not any(filling.cut) and not any(filling.could):
        filling = _single(inwards, special, text, at_end=True)
    if special.pad is not None and special.pad in some:
        token = special.pad
        if token == special.eos and max(_lengths(runs, token, size)) == 1 and any(filling.cut):
            return filling  # some prompts end with their own end of text, and others are filled with something else
    elif special.eos is not None and max(_lengths(runs, special.eos, size)) > 1:
        token = special.eos
    else:
        return filling
    lengths = _lengths(runs, token, size)
    partial = [length for (_, count), length in zip(runs, lengths, strict=True) if count < size]
    if not partial:  # prompts of nothing but padding, or of one token
        return _Cut([0] * len(rows))
    fewest, most = min(partial), max(partial)
    if token != special.eos:
        if special.ordinary and fewest == most == 1:
            return _Cut([0] * len(rows), "", tuple(lengths), "which is an ordinary token and the padding token")
        return _Cut(lengths)
    if padded_left and most == 1:  # padding is on one side: these are the prompts' own
        return _Cut([0] * len(rows))
    if fewest == 1 or (fewest > 1 and special.adds_eos):
        cut = [max(length - 1, 0) for length in lengths]
        if not any(cut):
            return _Cut(cut, "", tuple(lengths), "which is the end of text and the padding token alike")
        return _Cut(cut, _NOT_OWN_END)
    return _Cut(lengths, _OWN_END)


def _starts(rows: list[list[int]], special: _Special, text: _Text) -> _Cut:
    size, runs = len(rows[0]), [_run(row) for row in rows]
    none = [0] * len(rows)
    pad, bos = special.pad, special.bos
    some = [token for token, count in runs if count < size]
    if pad is not None and pad in some:
        token = pad
    elif bos is not None and len(set(_lengths(runs, bos, size))) > 1 and max(_lengths(runs, bos, size)) > 1:
        token = bos
    else:
        before = _before_bos(rows, runs, bos)
        filling = _Cut(before) if any(before) else _filling(rows, runs, special, at_end=False)
        unknown = not any(filling.cut) and not any(filling.could)
        return _single(rows, special, text, at_end=False) if unknown else filling
    lengths = _lengths(runs, token, size)
    partial = [length for (_, count), length in zip(runs, lengths, strict=True) if count < size]
    fewest, most = min(partial), max(partial)
    if token != bos:
        if special.ordinary and fewest == most == 1:
            return _Cut(none, "", tuple(lengths), "which is an ordinary token and the padding token")
        return _Cut(lengths)
    if fewest == 0:
        return _Cut(lengths, _OWN_BOS)
    if fewest == most <= 2:
        on_the_right = max(_lengths([_run(row[::-1]) for row in rows], token, size)) > (token == special.eos)
        chosen = special.pads_left or token != special.eos
        if most == 1 and special.adds_bos and (on_the_right or not chosen):
            return _Cut(none)
        return _Cut(none, "", tuple(lengths), "which is BOS and the padding token alike")
    return _Cut([max(length - 1, 0) for length in lengths], _NOT_OWN_BOS)


def _filling(inwards: list[list[int]], runs: list[tuple[int, int]], special: _Special, *, at_end: bool) -> _Cut:
    """Runs of a token that nobody calls padding, two or more; `inwards` are the rows from this end on."""
    size, none = len(inwards[0]), [0] * len(inwards)
    longest = max((run for run in runs if 1 < run[1] < size), key=lambda run: run[1], default=None)
    if longest is None or (longest[0] == special.bos and not at_end):
        return _Cut(none)
    token, most = longest
    lengths = _lengths(runs, token, size)
    elsewhere = any(token in row[length:] for row, length in zip(inwards, lengths, strict=True))
    differ = len(set(lengths)) > 1
    if differ and not elsewhere and most >= (2 if token == 0 else 3):
        return _Cut(lengths)
    if differ or most > 2 or token in (0, special.bos):
        least = 1 if differ and not elsewhere else 2
        could = tuple(length if length >= least else 0 for length in lengths)
        return _Cut(none, "", could, "one token again and again")
    return _Cut(none)


def _before_bos(rows: list[list[int]], runs: list[tuple[int, int]], bos: int | None) -> list[int]:
    """How many tokens stand before each prompt's BOS, where that is one token again and again, and differs."""
    none = [0] * len(rows)
    if bos is None or not any(row[0] == bos for row in rows):
        return none
    counts = [0 if token == bos else count for token, count in runs]
    alike = len({token for token, _ in runs} - {bos}) == 1
    follows = all(count < len(row) and row[count] == bos for row, count in zip(rows, counts, strict=True))
    return counts if alike and follows else none


def _single(inwards: list[list[int]], special: _Special, text: _Text, *, at_end: bool) -> _Cut:
    """One token at this end of some prompts and not of others, with which they could be filled.

    What speaks for that is the token: 0, with which `pad_sequence` fills; a special token; a full stop or another sign
    without a letter, where other prompts have a word there. At the end it may be any token that begins no word and
    stands nowhere else, where it follows what another prompt ends with, or different words in several prompts.
    """
    ends = [row[0] for row in inwards]
    counts = Counter(ends)
    if len(counts) == 1 or len(inwards[0]) < 2:
        return _Cut([0] * len(inwards))

    def could(token: int, why: str) -> _Cut:
        return _Cut([0] * len(inwards), "", tuple(int(end == token) for end in ends), why)

    named = {special.pad, special.eos, special.bos, *special.others}
    if 0 in counts and 0 not in (special.bos, special.eos):
        return could(0, "with which `pad_sequence` fills")
    often = [token for token, _ in counts.most_common()]
    signs = [] if text is None else [token for token in often if _is_sign(text(token))]
    fillers = [token for token in often if token in named] or (signs if len(signs) < len(often) else [])
    if not fillers and at_end:
        inside = {token for row in inwards for token in row[1:]}
        apart = [token for token in often if token not in inside and not _begins_a_word(token, text)]
        fillers = [token for token in apart if _follows_ends(token, inwards)]
        fillers = fillers if len(fillers) == 1 else []
    return could(fillers[0], "unlike the others") if fillers else _Cut([0] * len(inwards))


def _follows_ends(token: int, inwards: list[list[int]]) -> bool:
    """Whether a last token follows what another prompt ends with, or different tokens in several prompts."""
    before = {row[1] for row in inwards if row[0] == token}
    return len(before) > 1 or not before.isdisjoint(row[0] for row in inwards if row[0] != token)


_SIGNS = frozenset(".!?…_-–—*#~|•")


def _is_sign(text: str) -> bool:
    """Whether a token is blank, or a sign that people fill with."""
    return set(text.strip()) <= _SIGNS


def _begins_a_word(token: int, text: _Text) -> bool:
    """Whether a token writes a space and a word: nobody fills with that."""
    written = "" if text is None else text(token)
    return written[:1] == " " and written[1:2].isalnum()


def _run(row: list[int]) -> tuple[int, int]:
    """The token that a row begins with, and how often it stands there."""
    return row[0], next((at for at, token in enumerate(row) if token != row[0]), len(row))


def _lengths(runs: list[tuple[int, int]], token: int, size: int) -> list[int]:
    """How long each row's run of this token is; 0 where the row is nothing else."""
    return [count if of == token and count < size else 0 for of, count in runs]


# --- in words --------------------------------------------------------------------------------------------------------
def _taken(
    view: CacheView, rows: list[list[int]] | None, spans: Spans, of_starts: str, of_ends: str, *, read: bool = False
) -> list[str]:
    """What was taken for padding, and where each prompt is read."""
    size = view.n_pos
    said: list[str] = []
    before = {at: first for at, (first, _) in enumerate(spans) if first}
    behind = {at: size - 1 - last for at, (_, last) in enumerate(spans) if last < size - 1}
    if behind:
        what = _tokens(
            list(behind.values()),
            "trailing",
            _named(view, rows, [(at, p) for at in behind for p in range(spans[at][1] + 1, size)]),
        )
        whom, where = _of(len(behind), view.batch, capital=True), _places([spans[at][1] for at in behind])
        was, read_at = ("was", "it is") if len(behind) == 1 else ("were", "they are")
        said.append(
            f"{whom} {was} taken for padded: {what} left out, and {read_at} read at {where}.{of_ends} If these are "
            f"real, {CHANGE}."
        )
    if before:
        what = _tokens(
            list(before.values()),
            "leading",
            _named(view, rows, [(at, p) for at, count in before.items() for p in range(count)]),
        )
        whom, where = _of(len(before), view.batch, capital=True), _places([spans[at][0] for at in before])
        was, begin = ("was", "it begins") if len(before) == 1 else ("were", "they begin")
        said.append(
            f"{whom} {was} taken for padded: {what} left out, and {begin} at {where}.{of_starts} If these are real, "
            "pass `attention_mask=`."
        )
        if read:
            said.append(_WAS_READ)
    return said


def _unread(view: CacheView, spans: Spans, shown: Spans | None) -> list[str]:
    """What the cached attention does not read, and what may still be real."""
    whose = [at for at, span in enumerate(shown or []) if span != spans[at]]
    if shown is None or not whose:
        return []
    counts = [view.n_pos - 1 - (shown[at][1] - shown[at][0]) for at in whose]
    one = len(whose) == 1
    return [
        f"In {_of(len(whose), view.batch)} nobody reads {_each(counts, 'tokens at the ends')}, in no head of the "
        "attention that was cached. That may be a mask, or attention so sharp that it is rounded to 0: it was taken "
        f"for attention, and {'it is' if one else 'they are'} read at {_places([spans[at][1] for at in whose])}. "
        f"If it is padding, {CHANGE}."
    ]


def _contradicted(view: CacheView, spans: Spans, shown: _Shown | None) -> list[str]:
    """Where the given mask is not the one that the cached attention shows."""
    if shown is None or not shown.sure:
        return []
    if all(span == _whole(view) for span in shown.spans):
        return [_WAS_READ] if any(first for first, _ in spans) else []
    whose = [at for at, span in enumerate(shown.spans) if span != spans[at]]
    if not whose:
        return []
    at = whose[0]
    (first, last), (begin, end) = spans[at], shown.spans[at]
    return [
        f"`attention_mask=` is not the mask that the cached attention shows, in {_of(len(whose), view.batch)}: it has "
        f"prompt {at} from position {first} to {last}, and the model was run with {begin} to {end}. What was given was "
        "taken."
    ]


_WAS_READ = (
    "The model was run without a mask over the leading padding, and has read it: the figures are those of this run, "
    "not of the prompts alone."
)


def _nothing_else(view: CacheView, rows: list[list[int]] | None, special: _Special) -> list[str]:
    """Prompts of nothing but padding are read at the last position, all the same."""
    empty = [at for at, row in enumerate(rows or []) if len(row) > 1 and set(row) == {special.pad}]
    if not empty or rows is None:
        return []
    one = len(empty) == 1
    return [
        f"{_of(len(empty), view.batch, capital=True)} {'holds' if one else 'hold'} nothing but "
        f"{_named(view, rows, [(at, 0) for at in empty])}: all of it was taken for real, and "
        f"{'it is' if one else 'they are'} read at position {view.n_pos - 1}."
    ]


def _could(view: CacheView, rows: list[list[int]], cut: _Cut, end: str, spans: Spans) -> list[str]:
    """What was read as real and could be padding."""
    whose = [(at, count) for at, count in enumerate(cut.could) if count]
    if not whose:
        return []
    token = _named(view, rows, [(at, 0 if end == "begin" else -1) for at, _ in whose])
    one = len(whose) == 1
    read = ""
    if end == "end":
        read = f", and {'it is' if one else 'they are'} read there ({_places([spans[at][1] for at, _ in whose])})"
    change = f"{CHANGE}." if end == "end" else f"pass `attention_mask=`{_HAS_READ}"
    return [
        f"{_of(len(whose), view.batch, capital=True)} {end}{'s' if one else ''} with "
        f"{_each([count for _, count in whose], token)}, {cut.why}: that was taken for real{read}. If it is padding, "
        f"{change}"
    ]


def _of(count: int, batch: int, *, capital: bool = False) -> str:
    whom = "the prompt" if batch == 1 else f"{count} of {batch} prompts"
    return whom[0].upper() + whom[1:] if capital else whom


def _named(view: CacheView, rows: list[list[int]] | None, places: list[tuple[int, int]]) -> str:
    """The token at these places, or what it is called."""
    if rows is None:
        return "tokens"
    tokens = {rows[row][at] for row, at in places}
    return f"`{Vocabulary(view.model).text(tokens.pop())}`" if len(tokens) == 1 else "tokens"


def _tokens(counts: list[int], which: str, token: str) -> str:
    return f"{_each(counts, f'{which} {token}')} {'was' if sum(counts) == 1 else 'were'}"


def _each(counts: list[int], what: str) -> str:
    """So many of something: one by one, or from the fewest to the most."""
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
