"""Targets that differ between positions: at each position, the token that follows.

All positions are decomposed in one pass. For this, a view of the same activations presents each position as a prompt of
one position (`cells_of`). Each prompt may have its own direction, so each position may have one, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from residscope.attribution.decompose import Query, decompose
from residscope.attribution.next_tokens import following, predicted
from residscope.attribution.own_sources import own_source_rows
from residscope.attribution.predictions import logits_at
from residscope.attribution.result import Attribution
from residscope.attribution.target_reading import measured_value, reading_notes, target_reading
from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.cells import cells_of
from residscope.cache.positions import Positions
from residscope.cache.view import CacheView
from residscope.compute.memo import NoKeyError, key_of, size_of
from residscope.compute.precision import working
from residscope.errors import ResidscopeError
from residscope.terms import Contrast, NextToken, Target, Token

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


NONE_LAST = "The last token of each prompt has no next token in the cache: its values, and those of padding, are NaN."
"""A note for results in Python. Views leave such positions empty."""

NO_OWN_MAP = (
    "Here each position has its own target, the token that came next, but this picture has one target for all "
    "destinations: choose the weighting “pattern” or “value”, or name a token as the target. The matrix of one head "
    "shows what it contributes to the token that follows the destination."
)
"""Why a map of contributions without a single destination is refused."""


def decomposed(view: CacheView, targets: Targets, query: Query, logits: Tensor | None = None) -> Attribution:
    """Decompose a target, which may differ between positions.

    Raises:
        ResidscopeError: As for `decompose`. Also if a given position has no next token, or if a head's contribution to
            next tokens is requested at all positions.
    """
    own = query.target.next_token
    if own is None:
        return decompose(view, targets, query, logits)
    if query.where is not None:
        target = at_position(targets, query.target, query.where, logits)
        found = decompose(view, targets, replace(query, target=target), logits)
        return replace(found, target=query.target)
    if query.target.through:
        raise ResidscopeError(
            "position",
            "What a head contributes to the next token cannot be read at all positions at once: give one position.",
        )
    return _everywhere(view, targets, query, own, logits)


def by_head(targets: Targets, target: Target, logits: Tensor | None) -> Attribution:
    """Decompose a target that differs between positions into heads, at every position. Memoised.

    Raises:
        ResidscopeError: As for `decompose`.
    """
    query, memo = Query(target, "head", None), targets.view.memo
    try:
        key = ("own heads", msgspec.msgpack.encode(target), key_of(logits))
    except NoKeyError:
        return decomposed(targets.view, targets, query, logits)
    found: Attribution | None = memo.get(*key)
    if found is None:
        found = decomposed(targets.view, targets, query, logits)
        memo.put(*key, value=found, size=size_of(found.values))
    return found


def places_of(view: CacheView, target: Target, position: Positions) -> Int[Tensor, " batch"] | None:
    """Return the position of each prompt at which views read a target. None: every position.

    If each position has its own target, `"last"` is the position before each prompt's last token (see `last_places`).
    """
    import torch

    if target.next_token is None or not isinstance(position, str) or position != "last":
        return positions.resolve(view, position)
    return torch.tensor(last_places(view, target), device="cpu")


def last_places(view: CacheView, target: Target) -> list[int]:
    """Return the position in each prompt for which `"last"` stands.

    For next tokens, this is the position before the prompt's last token. A prompt of one token has no next token: its
    position is then 0, or the padding before its token.
    """
    last = positions.last(view)
    return last if target.next_token is None else [max(at - 1, 0) for at in last]


def at_position(
    targets: Targets,
    target: Target,
    where: Int[Tensor, " batch"],
    logits: Tensor | None,
    prompt: int | None = None,
) -> Target:
    """Return the target at one position of each prompt, with contrasts in place of the next token.

    Args:
        targets: Resolves targets.
        target: The target. If it does not differ between positions, it is returned unchanged.
        where: The position of each prompt.
        logits: The model's output, if it was given.
        prompt: The only prompt whose result is used. If another prompt has no next token, it gets the tokens of this
            prompt. None: all prompts are used.

    Raises:
        ResidscopeError: If a prompt that is used has no next token at this position.
    """
    import torch

    own = target.next_token
    if own is None:
        return target
    view, wanted = targets.view, torch.zeros(targets.view.batch, targets.view.n_pos, dtype=torch.bool, device="cpu")
    wanted[list(range(targets.view.batch)), where.tolist()] = True
    if prompt is not None:
        wanted[:prompt] = wanted[prompt + 1 :] = False
    ids, real = following(view, wanted)
    here = where.to(ids.device)[:, None]
    real, answers = real.gather(1, here)[:, 0].tolist(), ids.gather(1, here)
    for at in range(view.batch) if prompt is None else (prompt,):
        if not real[at]:
            which = f" of prompt {at}" if view.batch > 1 else ""
            raise ResidscopeError(
                "position",
                f"Position {int(where[at])}{which} has no next token: it is the last token of the prompt, or padding. "
                'Give an earlier position, or `position="all"`.',
            )
    sides = [answers]
    if own.versus is not None:
        if logits is not None:
            targets.check_width(logits)
        rows = working(logits_at(view, where, logits))
        sides.append(rows.scatter(-1, answers.to(rows.device), float("-inf")).argmax(-1, keepdim=True))
    token = targets.vocabulary.token
    shown = [[token(int(id)) for id in side.flatten().tolist()] for side in sides]
    contrasts = [Contrast([answer], list(other)) for answer, *other in zip(*shown, strict=True)]
    used = prompt or 0
    contrasts = [contrast if has else contrasts[used] for contrast, has in zip(contrasts, real, strict=True)]
    return msgspec.structs.replace(target, contrasts=contrasts, next_token=None, own=False)


def _everywhere(view: CacheView, targets: Targets, query: Query, own: NextToken, logits: Tensor | None) -> Attribution:
    """Decompose at every position, each with its own direction."""
    import torch

    ids, real = following(view)
    second = None if own.versus is None else predicted(targets, logits).runner_up
    cells = cells_of(view)
    each = Targets(cells, targets.vocabulary, targets.directions)
    flat = None if logits is None else logits.reshape(-1, 1, logits.shape[-1])
    others = [[]] * ids.numel() if second is None else [[Token(id, "")] for id in second.flatten().tolist()]
    contrasts = [Contrast([Token(id, "")], other) for id, other in zip(ids.flatten().tolist(), others, strict=True)]
    where = torch.zeros(cells.batch, dtype=torch.long, device="cpu")
    target = Target(contrasts)
    if query.by == "source":
        reading = target_reading(each, target, where, flat)
        readout = reading.readout()
        measured = measured_value(reading, readout, each, target, flat)
        before = measured.before_cap
        to_explain = None if before is None else before - readout.functional.constant
        rows = own_source_rows(view, readout, to_explain, real, query.heads)
        notes = rows.notes + reading_notes(reading, measured) + [NONE_LAST]
        return replace(rows, target=query.target, model=view.model_name, notes=notes)
    found = decompose(cells, each, replace(query, target=target, where=where), flat)
    gone = ~real.flatten()
    shape = (view.batch, view.n_pos)

    def placed(values: Tensor) -> Tensor:
        return values.masked_fill(gone.to(values.device), float("nan")).unflatten(-1, shape)

    notes = [note for note in found.notes if note not in targets.notes]
    notes.append(NONE_LAST)
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
