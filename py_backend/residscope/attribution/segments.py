"""`segments`: named ranges of a prompt's tokens. The prompt's text or the user gives the ranges."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast, get_args

from residscope.cache import positions
from residscope.cache.segment_text import TokenText, found_segments, with_rest
from residscope.cache.segments import Segment, Segments, given_ranges
from residscope.cache.special_tokens import SpecialTokens
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.session.change_notes import seen, steadily
from residscope.terms import CacheLike, MaskLike, ModelLike, SegmentBy

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

__all__ = ["Segments", "segments"]


def segments(
    cache: CacheLike,
    prompt: int = 0,
    by: SegmentBy | Sequence[tuple[str, int, int]] = "sentence",
    *,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
) -> Segments:
    """Divide a prompt into segments, by its text or by ranges that you give.

    The segments cover all real tokens without overlap. Padding is in no segment. Tokens that no rule covers form
    segments with the name "…". If such a segment has only special tokens, their text is its name. Special tokens at the
    beginning of the prompt, such as `<bos>`, form a segment of their own, because many heads attend to them.

    Args:
        cache: An `ActivationCache`. The model is not run: only token ids and texts are read.
        prompt: The prompt.
        by: `"sentence"`: a segment ends at `.`, `!`, `?`, `…` and white space, at `。`, `！`, `？`, and at blank lines.
            Abbreviations such as "e.g." or "Dr.", initials and the numbers of a list do not end a sentence.
            `"line"`: a segment ends at a line break. Empty lines belong to the line before.
            `"turn"`: from a special token with a role (`<|im_start|>user`, `<start_of_turn>user`,
            `<|start_header_id|>user`, `<|user|>`) to the special token that ends the turn.
            `"tag"`: the outermost pairs of tags, `<think>…</think>`. A tag without an end tag ends with the prompt.
            Or triples (name, start, end), where `end` is the position after the segment's last position.
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected, see
            `docs/padding.md`.
        model: The model, if `cache.model` was deleted.

    Returns:
        The segments. `.names` are the beginnings of their texts, the roles, the tags, or the given names.

    Raises:
        ResidscopeError: If the text has no such segments, the text is not known, or a range cannot be used.
    """
    tracked = seen(cache, model)

    def work() -> Segments:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)
        return segments_of(view, prompt, by)

    return steadily(cache, model, tracked, work)


def segments_of(view: CacheView, prompt: int, by: object) -> Segments:
    """Return the segments of a prompt, for a caller that already has a view.

    Args:
        view: The cache.
        prompt: The prompt.
        by: As in `segments`.

    Raises:
        ResidscopeError: As in `segments`.
    """
    chosen = view.check_prompt(prompt)
    if chosen is None:
        raise ResidscopeError("prompt", "Segments are those of one prompt: give its number, such as `prompt=0`.")
    first, last = positions.first(view)[chosen], positions.last(view)[chosen]
    ids = view.tokens
    real = None if ids is None else [int(id) for id in ids[chosen, first : last + 1]]
    notes = positions.assumed(view)
    text: TokenText | None = None
    if isinstance(by, str) and by in get_args(SegmentBy):
        if real is None:
            raise ResidscopeError(
                "tokens",
                "The text of this prompt is not known: the cache holds no token ids (`embed.hook_in`), and they cannot "
                'be recovered from `hook_embed`. Pass `tokens=`, or give ranges, such as `by=[("question", 0, 12)]`.',
            )
        text = TokenText.of(view.model, real, first)
        found, more = found_segments(text, cast("SegmentBy", by), SpecialTokens.of(view).eos, real)
        notes = notes + more
    else:
        found = given_ranges(by, first, last, view.n_pos, chosen)
        text = _text_if_known(view, real, first)
    return Segments(with_rest(found, first, last, text), chosen, view.n_pos, tuple(notes))


def rules_of(view: CacheView, prompt: int) -> dict[SegmentBy, tuple[Segment, ...]]:
    """Return the segments of each rule that finds at least two (for tags: one) in a prompt's text.

    Args:
        view: The cache.
        prompt: The prompt.

    Returns:
        The segments by rule, the coarsest rule first. Empty if the text is not known.
    """
    first, last = positions.first(view)[prompt], positions.last(view)[prompt]
    real = None if view.tokens is None else [int(id) for id in view.tokens[prompt, first : last + 1]]
    text = _text_if_known(view, real, first)
    if text is None or real is None:
        return {}
    found: dict[SegmentBy, tuple[Segment, ...]] = {}
    rules: tuple[SegmentBy, ...] = ("turn", "tag", "line", "sentence")
    for rule in rules:
        with suppress(ResidscopeError):  # the text has no such parts
            segments, _ = found_segments(text, rule, SpecialTokens.of(view).eos, real)
            if len(segments) > 1 or (rule == "tag" and segments):
                found[rule] = with_rest(segments, first, last, text)
    return found


def _text_if_known(view: CacheView, ids: list[int] | None, first: int) -> TokenText | None:
    if ids is None or getattr(view.model, "tokenizer", None) is None:
        return None
    return TokenText.of(view.model, ids, first)
