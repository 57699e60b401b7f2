"""Checks the arrays that a user passes with a cache: token ids, attention mask and logits.

Each function raises a `ResidscopeError` if its array cannot be read, or does not fit the cache's prompts and positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from residscope.base.arrays import kind_of, tensor_of
from residscope.errors import ResidscopeError
from residscope.terms import MaskLike

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def checked_tokens(given: object, batch: int, n_pos: int, size: int | None) -> Int[Tensor, "batch pos"]:
    """Check token ids, and return them with a batch dimension.

    Args:
        given: The ids that the user passed.
        batch: The number of prompts in the cache.
        n_pos: The number of positions in the cache.
        size: The number of tokens that the model embeds. None if it is not known.
    """
    try:
        tokens = tensor_of(given)
    except (TypeError, ValueError, RuntimeError):
        kind = kind_of(given)
        raise ResidscopeError(
            "tokens-shape", f"`tokens=` takes token ids [batch, pos], but was given a {kind}."
        ) from None
    tokens = tokens if tokens.ndim == 2 else tokens.unsqueeze(0)
    if tuple(tokens.shape) != (batch, n_pos):
        raise ResidscopeError(
            "tokens-shape",
            f"`tokens` has the shape {list(tokens.shape)}, but the cache holds {batch} prompts of {n_pos} positions.",
        )
    return checked_ids(tokens.detach(), size)


def checked_ids(
    tokens: Tensor, size: int | None, argument: str = "tokens", code: str = "token-id"
) -> Int[Tensor, "batch pos"]:
    """Check that each id is a whole number and in the vocabulary, and return the ids as int64.

    Args:
        tokens: The ids.
        size: The number of tokens that the model embeds. None if it is not known.
        argument: The argument that holds the ids.
        code: The code of the error.
    """
    import torch

    if tokens.dtype == torch.bool or tokens.is_complex():
        kind = str(tokens.dtype).removeprefix("torch.")
        raise ResidscopeError(code, f"`{argument}=` takes token ids, but was given {kind} values.")
    if tokens.is_floating_point():
        whole = tokens.isfinite() & (tokens == tokens.round())
        if not bool(whole.all()):
            raise ResidscopeError(
                code, f"`{argument}=` holds {_first(tokens, ~whole)}, but token ids are whole numbers."
            )
    tokens = tokens.long()  # also because PyTorch does not compare unsigned integers (uint16, uint32)
    outside = tokens < 0 if size is None else (tokens < 0) | (tokens >= size)
    if bool(outside.any()):
        why = "is negative" if size is None else f"is outside the vocabulary of {size} tokens (0 to {size - 1})"
        raise ResidscopeError(code, f"`{argument}=` holds {_first(tokens, outside)}: this id {why}.")
    return tokens


def _first(tokens: Tensor, chosen: Tensor) -> str:
    """The first chosen value, with its prompt and position."""
    prompt, position = chosen.nonzero()[0].tolist()
    return f"{tokens[prompt, position].item()} at position {position} of prompt {prompt}"


def checked_mask(given: MaskLike, batch: int, n_pos: int) -> Int[Tensor, "batch pos"]:
    """Check an attention mask, and return it as zeros and ones on the CPU."""
    if isinstance(given, Mapping) and "attention_mask" in given:  # the output of a tokenizer
        given = given["attention_mask"]
    try:
        mask = tensor_of(given).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        kind = kind_of(given)
        raise ResidscopeError(
            "attention-mask", f"`attention_mask=` takes zeros and ones [batch, pos], but was given a {kind}."
        ) from None
    mask = mask if mask.ndim == 2 else mask.unsqueeze(0)
    if tuple(mask.shape) != (batch, n_pos):
        raise ResidscopeError(
            "attention-mask",
            f"`attention_mask` has the shape {list(mask.shape)}, but the cache holds {batch} prompts of {n_pos} "
            "positions: pass the mask of the tokens that were run.",
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ResidscopeError(
            "attention-mask", "`attention_mask` takes 1 for each real token and 0 for padding, and nothing else."
        )
    empty: list[int] = (~(mask == 1).any(-1)).nonzero().flatten().tolist()
    if empty:
        raise ResidscopeError(
            "attention-mask", f"`attention_mask` masks all of prompt {empty[0]}: it needs a 1 in each row."
        )
    return (mask == 1).long()


def checked_logits(logits: Tensor, batch: int, n_pos: int) -> Float[Tensor, "batch pos d_vocab"]:
    """Check the model's output, and return it detached, with a batch dimension."""
    try:
        logits = tensor_of(logits).detach()
    except (TypeError, ValueError, RuntimeError):
        kind = kind_of(logits)
        raise ResidscopeError(
            "logits-shape", f"`logits=` takes the model's output [batch, pos, d_vocab], but was given a {kind}."
        ) from None
    if not logits.is_floating_point():
        kind = str(logits.dtype).removeprefix("torch.")
        raise ResidscopeError("logits-shape", f"`logits=` takes the model's output, but was given {kind} values.")
    logits = logits if logits.ndim == 3 else logits.unsqueeze(0)
    if tuple(logits.shape[:2]) != (batch, n_pos):
        raise ResidscopeError(
            "logits-shape",
            f"`logits` has the shape {list(logits.shape)}, but the cache holds {batch} prompts of "
            f"{n_pos} positions: pass the model's whole output.",
        )
    return logits
