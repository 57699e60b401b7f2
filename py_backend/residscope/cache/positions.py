"""The first and the last real position of each prompt (from `padding`), and the indices that `position=` means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, Literal

from residscope.base.arrays import as_list
from residscope.cache.padding import doubts, padding, was_attended_to
from residscope.cache.padding import notes as assumed
from residscope.cache.padding_notes import ATTENDED_TO_PADDING
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor

__all__ = [
    "Positions",
    "are_padding",
    "assumed",
    "attended",
    "first",
    "is_about_mean",
    "last",
    "left_out",
    "mean_note",
    "no_mean",
    "notes_at",
    "notes_on",
    "on_padding",
    "padding_note",
    "real",
    "resolve",
]

Positions = int | Sequence[int] | Literal["last", "all"]
"""An index, one index for each prompt, `"last"` (each prompt's last real token) or `"all"` (every position)."""

_KNOWN = 'give an index, one for each prompt, "last" (each prompt\'s last real token) or "all" (every position).'


def last(view: CacheView) -> list[int]:
    """Return the position of the last real token of each prompt."""
    return list(padding(view).last)


def first(view: CacheView) -> list[int]:
    """Return the position of the first real token of each prompt."""
    return list(padding(view).first)


def real(view: CacheView) -> Bool[Tensor, "batch pos"]:
    """Which positions are not padding, on the CPU."""
    return padding(view).mask


def resolve(view: CacheView, position: Positions) -> Int[Tensor, " batch"] | None:
    """Return one index for each prompt, counted from the start. None for `"all"`.

    Raises:
        ResidscopeError: If a position is outside the prompt, or the number of positions is not the number of prompts.
    """
    import torch

    if isinstance(position, str):
        if position == "all":
            return None
        if position != "last":
            raise ResidscopeError("position", f'`position="{position}"` is not known: {_KNOWN}')
        wanted = last(view)
    else:
        wanted = _whole_numbers(position, view.batch)
    if len(wanted) != view.batch:
        raise ResidscopeError(
            "position", f"{len(wanted)} positions were given for {view.batch} prompts: give one, or one per prompt."
        )
    for p in wanted:
        if not -view.n_pos <= p < view.n_pos:
            raise ResidscopeError(
                "position",
                f"Position {p} is outside the prompt: it has {view.n_pos} positions, 0 to {view.n_pos - 1} "
                f"(or −{view.n_pos} to −1 from the end).",
            )
    return torch.tensor([p % view.n_pos for p in wanted], device="cpu")


def on_padding(view: CacheView, position: object) -> list[str]:
    """Return a note if a position that was counted from the end lies on padding.

    Args:
        view: The cache.
        position: An index, or one for each prompt.
    """
    given = _whole_numbers(position, view.batch)
    ends = zip(given, first(view), last(view), strict=True)
    affected = [at for at, (p, begin, end) in enumerate(ends) if p < 0 and not begin <= p + view.n_pos <= end]
    if not affected:
        return []
    numbers = " and ".join(dict.fromkeys(f"−{-given[at]}" for at in affected[:4]))
    return [
        f"`position={numbers}` is on padding in {len(affected)} of {view.batch} prompts, because it counts from the "
        'end of the row. `"last"` is each prompt\'s last real token.'
    ]


def are_padding(view: CacheView, where: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"] | None:
    """Return in which prompts the position is padding, on the CPU. None if it is a real token in every prompt."""
    padded = ~real(view).gather(1, where.cpu()[:, None])[:, 0]
    return padded if bool(padded.any()) else None


def left_out(view: CacheView, where: Int[Tensor, " batch"], prompt: int | None) -> Bool[Tensor, " batch"] | None:
    """Return which prompts a mean leaves out, on the CPU. None: no prompt, or one prompt is shown.

    Raises:
        ResidscopeError: If the position is padding in every prompt, so that a mean has no values.
    """
    padded = are_padding(view, where) if prompt is None and view.batch > 1 else None
    if padded is not None and bool(padded.all()):
        raise no_mean(view.batch)
    return padded


def no_mean(batch: int) -> ResidscopeError:
    """Return the error for a mean at a position that is padding in every prompt."""
    return ResidscopeError(
        "position",
        f"The position is padding in all {batch} prompts, so their mean has no values: choose another position, or one "
        "prompt.",
    )


def notes_at(
    view: CacheView, where: Int[Tensor, " batch"], prompt: int | None = None, *, is_end: bool = False
) -> list[str]:
    """Return notes on padding at a position: how a mean leaves it out, what was assumed, and attention to padding.

    That tokens were treated as padding concerns a number if the position is padding in a prompt, or if it was chosen
    as the end of the prompts. That tokens count as real but may be padding concerns every mean.

    Args:
        view: The cache.
        where: The position in each prompt.
        prompt: The prompt that is shown. None: all prompts, and their mean.
        is_end: Whether the position was chosen as the end of each prompt.
    """
    noted = padding_note(view, where, prompt)
    several = prompt is None and view.batch > 1
    about = assumed(view) if noted or is_end else doubts(view) if several else []
    return noted + [note for note in about if note != ATTENDED_TO_PADDING] + attended(view, prompt)


def notes_on(
    view: CacheView, position: Positions, where: Int[Tensor, " batch"] | None, prompt: int | None = None
) -> list[str]:
    """Return notes on how a position was understood, and on padding there.

    Args:
        view: The cache.
        position: The position as it was given.
        where: The position in each prompt. None: every position.
        prompt: The prompt that is shown. None: all prompts, and their mean.
    """
    if isinstance(position, str) or where is None:
        return assumed(view)
    return on_padding(view, position) + notes_at(view, where, prompt)


def padding_note(view: CacheView, where: Int[Tensor, " batch"], prompt: int | None = None) -> list[str]:
    """Return a note if the position at which a target is read is padding.

    Args:
        view: The cache.
        where: The position in each prompt.
        prompt: The prompt that is shown. None: all prompts, and their mean.
    """
    padded, places = are_padding(view, where), set(where.tolist())
    if padded is None:
        return []
    if prompt is not None or view.batch == 1:
        at = prompt or 0
        return [f"Position {int(where[at])} of this prompt is padding."] if bool(padded[at]) else []
    place = f"Position {places.pop()}" if len(places) == 1 else "The position"
    return [mean_note(place, int(padded.sum()), view.batch)]


def mean_note(place: str, padded: int, batch: int) -> str:
    """Return a note on means over prompts if a position is padding in some of them.

    Args:
        place: The position, in words that begin the sentence.
        padded: The number of prompts in which it is padding.
        batch: The number of prompts.
    """
    if padded == batch:
        return f"{place} is padding in all {batch} prompts, so means over prompts have no value (NaN)."
    these = "this prompt" if padded == 1 else "these prompts"
    return f"{place} is padding in {padded} of {batch} prompts: means over prompts leave {these} out."


def is_about_mean(note: str) -> bool:
    """Return whether a note is that of `mean_note`, on how a mean over prompts is made."""
    return "is padding in" in note and "means over prompts" in note


def attended(view: CacheView, prompt: int | None = None) -> list[str]:
    """Return a note if the model attended to the padding of the prompt (None: of any prompt)."""
    is_affected = prompt is None or first(view)[prompt] > 0
    return [ATTENDED_TO_PADDING] if is_affected and was_attended_to(view) else []


def _whole_numbers(position: Any, count: int) -> list[int]:
    """One whole number for each prompt. `position` is one number for all prompts, or one for each."""
    try:
        values = as_list(position)
        listed = list(values) if isinstance(values, Iterable) else [values] * count
        if any(isinstance(value, bool) for value in listed):
            raise TypeError
        return [index(value) for value in listed]
    except (TypeError, RuntimeError):  # PyTorch raises a RuntimeError for tensors without values (`meta`)
        raise ResidscopeError("position", f"`position={position!r}` is not a position: {_KNOWN}") from None
