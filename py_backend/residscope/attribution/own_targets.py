"""Targets that differ between positions: at each position, the token that follows.

All positions are decomposed in one pass. Each position becomes a prompt of one position, by a view of the same
activations. Then every position may have its own direction, as every prompt may.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from residscope.attribution.decompose import Query, decompose
from residscope.attribution.next_tokens import following, predicted
from residscope.attribution.result import Attribution
from residscope.attribution.targets import Targets
from residscope.cache.cells import cells_of
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.terms import Contrast, NextToken, Target, Token

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


def decomposed(view: CacheView, targets: Targets, query: Query, logits: Tensor | None = None) -> Attribution:
    """Call `decompose`, also for a target that differs between positions.

    Raises:
        ResidscopeError: As for `decompose`. Also if a position has no next token.
    """
    own = query.target.next_token
    if own is None:
        return decompose(view, targets, query, logits)
    if query.where is not None:
        target = at_position(targets, own, query.where, logits)
        found = decompose(view, targets, replace(query, target=target), logits)
        return replace(found, target=query.target)
    if query.by == "source":
        raise ResidscopeError(
            "position",
            '`by="source"` cannot be computed at all positions at once for each position\'s own next token: give one '
            'position, or use `by="head"`.',
        )
    return _everywhere(view, targets, query, own, logits)


def at_position(targets: Targets, own: NextToken, where: Int[Tensor, " batch"], logits: Tensor | None) -> Target:
    """Return the target at one position of each prompt, as contrasts.

    Raises:
        ResidscopeError: If a prompt has no next token at this position.
    """
    ids, real = following(targets.view)
    prompts, places = range(targets.view.batch), where.tolist()
    for prompt, at in zip(prompts, places, strict=True):
        if not bool(real[prompt, at]):
            raise ResidscopeError(
                "position",
                f"Position {at} of prompt {prompt} has no next token: it is the last token of the prompt, or padding. "
                'Give an earlier position, or `position="all"`.',
            )
    second = None if own.versus is None else predicted(targets, logits).runner_up
    token = targets.vocabulary.token

    def contrast(prompt: int, at: int) -> Contrast:
        other = [] if second is None else [token(int(second[prompt, at]))]
        return Contrast([token(int(ids[prompt, at]))], other)

    return Target([contrast(prompt, at) for prompt, at in zip(prompts, places, strict=True)])


def _everywhere(view: CacheView, targets: Targets, query: Query, own: NextToken, logits: Tensor | None) -> Attribution:
    """Decompose every position with its own direction."""
    import torch

    ids, real = following(view)
    second = None if own.versus is None else predicted(targets, logits).runner_up
    cells = cells_of(view)
    each = Targets(cells, targets.vocabulary, targets.directions)
    flat = None if logits is None else logits.reshape(-1, 1, logits.shape[-1])
    others = [[]] * ids.numel() if second is None else [[Token(id, "")] for id in second.flatten().tolist()]
    contrasts = [Contrast([Token(id, "")], other) for id, other in zip(ids.flatten().tolist(), others, strict=True)]
    where = torch.zeros(cells.batch, dtype=torch.long)
    found = decompose(cells, each, replace(query, target=Target(contrasts), where=where), flat)
    gone = ~real.flatten()
    shape = (view.batch, view.n_pos)

    def placed(values: Tensor) -> Tensor:
        return values.masked_fill(gone.to(values.device), float("nan")).unflatten(-1, shape)

    notes = [note for note in found.notes if note not in targets.notes]
    notes.append(_LAST)
    return replace(
        found,
        values=placed(found.values),
        measured=placed(found.measured),
        constant=placed(found.constant),
        unexplained=placed(found.unexplained),
        axes=("component", "batch", "pos"),
        target=query.target,
        notes=notes,
    )


_LAST = "The last token of each prompt has no next token in the cache: its values, and those of padding, are NaN."
