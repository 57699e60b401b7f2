"""Reads the mask over padding: the mask that the user gave, and the mask that the attention patterns show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from residscope.cache.view import CacheView

if TYPE_CHECKING:
    from torch import Tensor

Spans = list[tuple[int, int]]
"""First and last real position of each prompt."""


def whole_prompt(view: CacheView) -> tuple[int, int]:
    """The span of a prompt without padding."""
    return 0, view.n_pos - 1


def spans_of_mask(mask: Tensor) -> tuple[Spans, int]:
    """The spans from the first 1 to the last 1, and the number of prompts with zeros between them."""
    real = mask.long()
    firsts: list[int] = real.argmax(-1).tolist()
    lasts: list[int] = (mask.shape[1] - 1 - real.flip(-1).argmax(-1)).tolist()
    counts: list[int] = real.sum(-1).tolist()
    holes = sum(last - first + 1 != count for first, last, count in zip(firsts, lasts, counts, strict=True))
    return list(zip(firsts, lasts, strict=True)), holes


@dataclass(frozen=True)
class ShownMask:
    """The mask that shows in the cached attention patterns.

    Attributes:
        spans: The first and the last token of each prompt that this mask does not mask.
        is_certain: False if attention to the tokens outside the spans may be 0 because of rounding, without a mask.
    """

    spans: Spans
    is_certain: bool


_CHANCE = 1e-4
"""Zeros may be chance if their probability without a mask is at least this."""


def mask_in_patterns(view: CacheView, rows: list[list[int]] | None) -> ShownMask | None:
    """The mask that shows in the cached attention patterns. None if no whole pattern was cached."""
    import torch

    patterns = list(_patterns(view))
    reads_itself = reads_previous = None
    for pattern in patterns:
        itself = (pattern.diagonal(dim1=-2, dim2=-1) != 0).any(1).cpu()
        previous = (pattern.diagonal(offset=-1, dim1=-2, dim2=-1) != 0).any(1).cpu()
        reads_itself = itself if reads_itself is None else reads_itself | itself
        reads_previous = previous if reads_previous is None else reads_previous | previous
        if bool(reads_itself.all()) and bool(reads_previous.all()):  # nothing is masked
            return ShownMask([whole_prompt(view)] * view.batch, is_certain=True)
    if reads_itself is None or reads_previous is None:
        return None
    first_column = torch.ones(view.batch, 1, dtype=torch.bool, device="cpu")  # the first token has no previous one
    flags = zip(reads_itself.tolist(), torch.cat([first_column, reads_previous], dim=1).tolist(), strict=True)
    spans = [
        _span([pattern[at] for pattern in patterns], itself, previous, None if rows is None else rows[at])
        for at, (itself, previous) in enumerate(flags)
    ]
    return ShownMask(spans, _chance_of_zeros(patterns, spans, reads_itself.tolist()) < _CHANCE)


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
        reads_itself: Whether each token attends to itself, in any head of any layer.
        reads_previous: Whether each token attends to the token before it, in any head of any layer.
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
    """Whether each row from `start` on attends to no token from `start` on, or attends to several tokens equally."""
    rows = pattern[:, start:]
    return bool((~rows[:, :, start:].any(-1) | _is_uniform(rows)).all())


def _is_uniform(rows: Tensor) -> Tensor:
    """Which rows `[head, row, pos]` attend to several tokens equally, or to nothing. Fully masked rows do so."""
    most, read = rows.amax(-1), rows != 0
    return (((most[..., None] - rows).abs() <= 0.01 * most[..., None]) | ~read).all(-1) & (read.sum(-1) != 1)


def _one_token(ids: list[int]) -> bool:
    return len(set(ids)) <= 1


def _chance_of_zeros(patterns: list[Tensor], spans: Spans, reads_itself: list[list[bool]]) -> float:
    """The probability that, without a mask, rounding alone makes the zeros that look like a mask.

    A head's probability is the share of real tokens whose attention to themselves (or to the previous token) is exactly
    0 in this head. Two tokens are added to the count, one with 0 and one without, because few tokens are weak
    evidence. The heads' probabilities are multiplied. But heads may round to 0 at the same tokens. So the result is at
    least the share of real tokens that do not attend to themselves in any head.
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
