"""Where prompts begin and end, and which positions are meant: padding is told by the tokenizer's padding token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, Literal

from .cache import CacheView
from .errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

Position = int | Sequence[int] | Literal["last"] | None


def last(view: CacheView) -> list[int]:
    """The last real token of each prompt: a run of padding at the end is left out."""
    tokens = view.tokens
    pad = getattr(getattr(view.model, "tokenizer", None), "pad_token_id", None)
    if tokens is None or pad is None:
        return [view.n_pos - 1] * view.batch
    real = (tokens != pad).long()
    # A prompt of nothing but padding (or a one-token prompt that is the padding token) keeps its last position.
    found = view.n_pos - 1 - real.flip(-1).argmax(-1)
    ends: list[int] = found.where(real.any(-1), found.new_full((), view.n_pos - 1)).tolist()
    # Where one token is both, and every prompt ends with it, the first of each run is the prompt's own end of text.
    both = pad == getattr(view.model.tokenizer, "eos_token_id", None)
    return [end + 1 for end in ends] if both and max(ends) < view.n_pos - 1 else ends


def first(view: CacheView) -> list[int]:
    """The first real token of each prompt: a run of padding at the start is left out, a BOS token is not."""
    tokens, tokenizer = view.tokens, getattr(view.model, "tokenizer", None)
    pad = getattr(tokenizer, "pad_token_id", None)
    if tokens is None or pad is None:
        return [0] * view.batch
    real = (tokens != pad).long()
    starts: list[int] = (real.argmax(-1) * real.any(-1)).tolist()
    # Where BOS and padding are one token, the last of the run is the BOS.
    bos_too = pad == getattr(tokenizer, "bos_token_id", None)
    return [max(start - 1, 0) for start in starts] if bos_too else starts


def resolve(view: CacheView, position: Position) -> Int[Tensor, " batch"] | None:
    """Resolve a position: `"last"`, one for all prompts, one per prompt, or None for every position.

    Raises:
        ResidscopeError: If a position lies outside the prompt, or their number is not the batch's.
    """
    import torch

    if position is None:
        return None
    if isinstance(position, str):
        if position != "last":
            raise ResidscopeError("position", f'`position="{position}"` is not known: give a number or "last".')
        wanted = last(view) if view.given_tokens else view.memo.once(("last",), lambda: last(view))
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


def assumed(view: CacheView) -> list[str]:
    """A note for those who ask for the last positions where padding cannot be told."""
    padded = getattr(getattr(view.model, "tokenizer", None), "pad_token_id", None) is not None
    if not padded or view.batch == 1 or view.tokens is not None:
        return []
    return [
        "The cache holds no token ids, so padding cannot be told: each prompt is read at the last position. Pass "
        "`tokens=`, or `position=`."
    ]


def _whole_numbers(position: Any, count: int) -> list[int]:
    """One whole number for all prompts, or one each."""
    values = position.tolist() if hasattr(position, "tolist") else position
    try:
        return [index(value) for value in values] if isinstance(values, Iterable) else [index(values)] * count
    except TypeError:
        raise ResidscopeError(
            "position", f'`position={position!r}` is not known: give a number, one per prompt, "last" or None.'
        ) from None
