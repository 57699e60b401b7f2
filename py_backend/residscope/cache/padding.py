"""Decides which tokens are padding, and writes notes on what was assumed.

All other code takes the first and the last real token of each prompt from here. The evidence, in this order:

1. `attention_mask=`, if it was given. It is final. A prompt is real from its first 1 to its last 1. Zeros between
   them are treated as real, with a note.
2. The mask that shows in the cached attention patterns. No token attends to a masked token, in any layer or head.
   - Leading padding: no real token attends to it. Also, it consists of one repeated token, or its rows attend to
     everything equally or to nothing. Without this second condition, a packed text could count as padding.
   - Trailing padding: each padding token attends to no padding token (also not to itself), or to several tokens
     equally. The first padding token attends to the last real token. A sliding window does not cause such zeros.
   - Very small attention also rounds to exactly 0. The share of such zeros among the real tokens is counted for each
     head of each layer. If this rounding could explain the zeros that look like a mask, they are no evidence, and a
     note names both explanations.
   - If one prompt of the batch shows a mask, the whole batch was run with a mask. Then prompts without masked tokens
     are real from their first to their last position.
3. The padding token at the start or end of a prompt.
   - If the padding token is neither the end of text nor BOS, all its copies are padding. Exception: if it is an
     ordinary token and every prompt ends (or begins) with exactly one copy, this copy is real.
   - If the padding token is also the end of text, copies at the end of prompts are counted. If some prompt ends without
     a copy, all copies are padding. If every prompt ends with a copy, and some prompt with only one, the first copy in
     each prompt is its own end of text. If every prompt ends with two or more copies, all copies are padding; but if
     the tokenizer adds an end of text, the first copy in each prompt is real. Exception: if some prompt begins with
     padding, and no prompt ends with more than one copy, all these copies are real.
   - If the padding token is also BOS, copies at the start of prompts are counted. If some prompt begins without a copy,
     all copies are padding. If every prompt begins with exactly two copies, BOS was added twice, and both are real. If
     every prompt begins with exactly one copy, it is the BOS that TransformerLens adds. In all other cases the last
     copy in each prompt is its BOS, and the copies before it are padding.
   - In three cases a note says that the copies that count as BOS could be padding: if every prompt begins with two
     copies; if TransformerLens adds no BOS; or if no prompt is padded at its end, and the tokenizer pads on the left
     or the padding token is not the end of text.
4. Other repeated tokens.
   - Two or more end-of-text tokens at the end follow rule 3, even if the tokenizer has another padding token, or none.
     Two or more BOS tokens at the start also follow rule 3, if the prompts begin with different numbers of BOS tokens.
   - Any other token is padding under three conditions. Prompts end (or begin) with runs of it that differ in length.
     The longest run has at least three tokens, or two if the token is 0 (with which `pad_sequence` pads). The token
     occurs nowhere else.
   - The copies of one token before the BOS of some prompts are padding if all other prompts begin with BOS.
   - If the evidence is weaker, the tokens are treated as real, with a note that they could be padding. For a single
     token the note needs further evidence (`_single` in `padding_tokens`), because most prompts of equal length were
     never padded.

Rules 3 and 4 are assumptions. A note says what was assumed, for how many tokens, and where each prompt ends. The
tokenizer is read each time, because its padding token may be set later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from residscope.cache.padding_mask import Spans, mask_in_patterns, spans_of_mask, whole_prompt
from residscope.cache.padding_notes import (
    ATTENDED_TO_PADDING,
    contradiction_note,
    holes_note,
    only_padding_note,
    padding_notes,
    possible_note,
    uncertain_mask_note,
)
from residscope.cache.padding_tokens import end_padding, start_padding
from residscope.cache.special_tokens import SpecialTokens
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.compute.memo import NoKeyError, key_of

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor


@dataclass(frozen=True)
class Padding:
    """Where each prompt begins and ends.

    Attributes:
        first: The first real position of each prompt.
        last: The last real position of each prompt.
        width: Number of positions in the cache.
        notes: Notes on what was assumed.
        doubts: Those of the notes that also concern positions which count as real in every prompt.
    """

    first: list[int]
    last: list[int]
    width: int
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of tokens treated as padding."""
        return sum(self.first) + sum(self.width - 1 - last for last in self.last)

    @property
    def mask(self) -> Bool[Tensor, "batch pos"]:
        """Which positions are real, on the CPU."""
        import torch

        first, last = (torch.tensor(ends, device="cpu")[:, None] for ends in (self.first, self.last))
        at = torch.arange(self.width, device="cpu")
        return (first <= at) & (at <= last)

    def of(self, prompts: range) -> Padding:
        """Return the padding of these prompts only."""
        chosen = slice(prompts.start, prompts.stop)
        return Padding(self.first[chosen], self.last[chosen], self.width, self.notes, self.doubts)


def padding(view: CacheView) -> Padding:
    """Return the padding of this cache. If the user chose to treat padding as real, no position is padding."""
    if view.part_of is not None:
        whole, prompts = view.part_of
        return padding(whole).of(prompts)
    if view.padding_is_real:
        notes = ("Tokens that look like padding count as real.",) * bool(detected_padding(view).count)
        return Padding([0] * view.batch, [view.n_pos - 1] * view.batch, view.n_pos, notes, notes)
    return detected_padding(view)


def detected_padding(view: CacheView) -> Padding:
    """Return the padding that the evidence shows, even if the user chose to treat it as real."""
    special = SpecialTokens.of(view)
    try:
        key = ("padding", special, key_of(view.attention_mask), key_of(view.tokens if view.given_tokens else None))
    except NoKeyError:
        return _detect(view, special)
    return view.memo.once(key, lambda: _detect(view, special))


def notes(view: CacheView) -> list[str]:
    """Return notes on what was assumed about padding, and a note if `tokens=` differs from the ids in the cache."""
    return list(padding(view).notes) + _other_tokens(view)


def doubts(view: CacheView) -> list[str]:
    """Return those of the notes that also concern positions which count as real in every prompt."""
    return list(padding(view).doubts) + _other_tokens(view)


def _other_tokens(view: CacheView) -> list[str]:
    whole = view if view.part_of is None else view.part_of[0]
    return [_OTHER_TOKENS] * whole.other_tokens


def was_attended_to(view: CacheView) -> bool:
    """Return whether the cached attention shows that the model was run without a mask over leading padding."""
    return ATTENDED_TO_PADDING in padding(view).notes


_OTHER_TOKENS = "`tokens=` differs from the token ids in this cache. `tokens=` was used."


def _detect(view: CacheView, special: SpecialTokens) -> Padding:
    given_mask, tokens = view.attention_mask, view.tokens
    rows: list[list[int]] | None = None if tokens is None else tokens.tolist()
    shown = mask_in_patterns(view, rows)
    if given_mask is not None:
        spans, holes = spans_of_mask(given_mask)
        return _padding(view, spans, [], holes_note(holes, view.batch) + contradiction_note(view, spans, shown))
    masked = shown is not None and any(span != whole_prompt(view) for span in shown.spans)
    if shown is not None and masked and shown.is_certain:
        used = padding_notes(view, rows, shown.spans, "", "")
        return _padding(view, shown.spans, used, only_padding_note(view, rows, special))
    uncertain = shown.spans if shown is not None and masked else None
    if rows is None:
        spans = [whole_prompt(view)] * view.batch
        no_ids = [_NO_TOKEN_IDS] if view.batch > 1 else []
        return _padding(view, spans, [], no_ids + uncertain_mask_note(view, spans, uncertain))
    text = Vocabulary(view.model).text if special.has_tokenizer else None
    start = start_padding(rows, special, text)
    end = end_padding(rows, special, text, padded_left=any(count > 0 for count in start.counts))
    spans: Spans = []
    for leading, trailing in zip(start.counts, end.counts, strict=True):
        first, last = leading, view.n_pos - 1 - trailing
        spans.append((first, last) if first <= last else (0, view.n_pos - 1))
    no_mask = shown is not None and not masked
    used = padding_notes(view, rows, spans, start.other_reading, end.other_reading, no_mask=no_mask)
    possible = possible_note(view, rows, end, "end", spans) + possible_note(view, rows, start, "begin", spans)
    doubted = uncertain_mask_note(view, spans, uncertain) + possible + only_padding_note(view, rows, special)
    # What was treated as padding may begin or end one token off.
    unsure = [note for note in used for other in (start.other_reading, end.other_reading) if other and other in note]
    return _padding(view, spans, used, doubted, unsure)


_NO_TOKEN_IDS = (
    "The cache holds no token ids, so padding cannot be determined: all positions of each prompt count as real. "
    "Pass `tokens=` or `attention_mask=`."
)


def _padding(
    view: CacheView, spans: Spans, used: Sequence[str], doubted: Sequence[str], unsure: Sequence[str] = ()
) -> Padding:
    first, last = [list(ends) for ends in zip(*spans, strict=True)]
    return Padding(first, last, view.n_pos, (*used, *doubted), (*unsure, *doubted))
