"""Prompts in which nothing is replaced, or activations of padding would be put in: they have no effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residscope.base.numbered import some_prompts
from residscope.causes.left_out import LEFT_OUT

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from residscope.causes.replacement import Replacement
    from residscope.causes.sweep import Patch


def changed_in(
    patches: Sequence[Patch], where: Bool[Tensor, "batch pos"], by: Replacement
) -> Bool[Tensor, "patch batch"]:
    """Return whether each patch replaces something in each prompt, and nothing by an activation of padding.

    Args:
        patches: The patches.
        where: The positions that may be changed in each prompt.
        by: What takes the place of the activations.
    """
    import torch

    wrong = _by_padding(where, by)
    anywhere, each = where.any(1) & ~wrong.any(1), where & ~wrong
    return torch.stack([anywhere if one.position is None else each[:, one.position] for one in patches])


def _by_padding(where: Bool[Tensor, "batch pos"], by: Replacement) -> Bool[Tensor, "batch pos"]:
    """Where an activation of padding would take the place of another token's activation."""
    return where & by.padding if by.padding is not None else where & False


def only_where(changed: Bool[Tensor, "*row batch"], effects: Float[Tensor, "*row batch"]) -> Tensor:
    """Return the effects, with NaN where nothing is replaced."""
    return effects.masked_fill(~changed.to(effects.device), float("nan"))


def unchanged_notes(where: Bool[Tensor, "batch pos"], by: Replacement, *, each: bool = False) -> list[str]:
    """Return notes that name the prompts without an effect.

    Args:
        where: The positions that may be changed in each prompt.
        by: What takes the place of the activations.
        each: Whether each position is replaced in a run of its own.
    """
    notes: list[str] = []
    changed = where.all(1) if each else where.any(1)
    unchanged: list[int] = (~changed).nonzero().flatten().tolist()
    if unchanged:
        prompts = some_prompts(unchanged, len(where))
        notes.append(f"In {prompts} some positions are padding. {LEFT_OUT}" if each else nothing_replaced(prompts))
    by_padding = from_padding(where, by)
    return notes if by_padding is None else [*notes, f"{by_padding} {LEFT_OUT}"]


def from_padding(where: Bool[Tensor, "batch pos"], by: Replacement) -> str | None:
    """Return a sentence that names the prompts and positions at which the replacement is an activation of padding."""
    wrong = _by_padding(where, by)
    prompts: list[int] = wrong.any(1).nonzero().flatten().tolist()
    if not prompts:
        return None
    places: list[int] = wrong.any(0).nonzero().flatten().tolist()
    shown = f"position {places[0]}" if len(places) == 1 else f"positions between {places[0]} and {places[-1]}"
    return f"In {some_prompts(prompts, len(where))} the replacement at {shown} is an activation of padding."


def read_at_padding(prompts: str) -> str:
    """Return the note on prompts of several caches in which the target's position is padding."""
    return f"In {prompts} the position at which the target is read is padding. {LEFT_OUT}"


def nothing_replaced(prompts: str, or_where: str = "") -> str:
    """Return the note on prompts in which nothing is replaced. `or_where` is where else padding may be the reason."""
    return f"In {prompts} nothing was replaced, because the chosen positions are padding there{or_where}. {LEFT_OUT}"
