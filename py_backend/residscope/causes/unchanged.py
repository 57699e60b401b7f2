"""Prompts in which nothing is replaced, because the chosen positions are padding there: they have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residscope.base.numbered import some_prompts
from residscope.causes.left_out import LEFT_OUT

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from residscope.causes.sweep import Patch


def changed_in(patches: Sequence[Patch], where: Bool[Tensor, "batch pos"]) -> Bool[Tensor, "patch batch"]:
    """Return whether each patch replaces something in each prompt.

    Args:
        patches: The patches.
        where: The positions that may be changed in each prompt.
    """
    import torch

    anywhere = where.any(1)
    return torch.stack([anywhere if one.position is None else where[:, one.position] for one in patches])


def only_where(changed: Bool[Tensor, "*row batch"], effects: Float[Tensor, "*row batch"]) -> Tensor:
    """Return the effects, with NaN where nothing is replaced."""
    return effects.masked_fill(~changed.to(effects.device), float("nan"))


def unchanged_notes(where: Bool[Tensor, "batch pos"], *, each: bool = False) -> list[str]:
    """Return a note that names the prompts in which nothing is replaced.

    Args:
        where: The positions that may be changed in each prompt.
        each: Whether each position is replaced in a run of its own.
    """
    changed = where.all(1) if each else where.any(1)
    unchanged: list[int] = (~changed).nonzero().flatten().tolist()
    if not unchanged:
        return []
    prompts = some_prompts(unchanged, len(where))
    if each:
        return [f"In {prompts} some positions are padding. {LEFT_OUT}"]
    return [nothing_replaced(prompts)]


def read_at_padding(prompts: str) -> str:
    """Return the note on prompts of several caches in which the target's position is padding."""
    return f"In {prompts} the position at which the target is read is padding. {LEFT_OUT}"


def nothing_replaced(prompts: str) -> str:
    """Return the note on prompts in which nothing is replaced."""
    return f"In {prompts} nothing was replaced, because the chosen positions are padding there. {LEFT_OUT}"
