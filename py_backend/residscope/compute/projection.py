"""Products with a direction, block by block: no tensor of an activation's or a weight's size is made on the way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from einops import einsum, rearrange

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_BLOCK = 1000000
"""So many figures are in the making at once: 4 MB, what the caches of a processor hold."""

_SMALL = 1 << 16
"""For so few figures there is always memory at hand."""


def dots(
    rows: Float[Tensor, "batch pos *part d"], direction: Float[Tensor, "batch *part d"]
) -> Float[Tensor, "*part batch pos"]:
    """Each row times its prompt's direction, summed over `d`, in the direction's precision."""
    import torch

    if rows.device.type != "cpu":
        return einsum(rows.to(direction.dtype), direction, "batch pos ... d, batch ... d -> ... batch pos")
    if rows.numel() <= _BLOCK:
        worth = _times(rows, direction).sum(-1)
    else:
        worth = direction.new_empty(rows.shape[:-1])
        for prompts, positions in _blocks(rows.shape[0], rows.shape[1], prod(rows.shape[2:])):
            torch.sum(_times(rows[prompts, positions], direction[prompts]), -1, out=worth[prompts, positions])
    return rearrange(worth, "batch pos ... -> ... batch pos")


def _times(rows: Tensor, direction: Tensor) -> Tensor:
    """The product of a block, until the next one is made."""
    import torch

    direction = direction.unsqueeze(1)
    if rows.numel() <= _SMALL and rows.dtype == direction.dtype:
        return rows * direction
    product = _buffer(direction, rows.numel())[: rows.numel()].view(rows.shape)
    if rows.dtype == product.dtype:
        return torch.mul(rows, direction, out=product)
    return product.copy_(rows).mul_(direction)  # widened first: a product of two precisions takes ten times as long


_kept = threading.local()


def _buffer(like: Tensor, size: int) -> Tensor:
    """Room for a block, kept by the thread: the system takes longer to give memory afresh than a product takes."""
    buffer: Tensor | None = getattr(_kept, "buffer", None)
    if buffer is None or buffer.dtype != like.dtype or len(buffer) < size or buffer.is_inference():
        buffer = like.new_empty(max(size, _BLOCK))
        _kept.buffer = None if buffer.is_inference() or size > _BLOCK else buffer
    return buffer


def project(
    weight: Float[Tensor, "unit d_model"], direction: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch unit"]:
    """What each unit that writes with `weight` is worth, in the direction's precision."""
    import torch

    weight, columns = weight.to(direction.device), distinct(direction).T
    size = max(1, _BLOCK // max(weight.shape))
    if weight.dtype == direction.dtype and weight.stride(-1) != 1:  # in the order in which it is stored
        worth = columns.T @ weight.T
    elif weight.dtype == direction.dtype and columns.shape[1] > 1:
        worth = (weight @ columns).T
    elif weight.stride(-1) == 1 and columns.shape[1] == 1:
        worth = dots(weight[None], columns.T)
    elif weight.stride(-1) == 1:
        worth = torch.cat([part.to(direction.dtype) @ columns for part in weight.split(size)]).T
    else:  # as most models store it: [d_model, unit]
        worth = columns.new_zeros(columns.shape[1], weight.shape[0])
        for some, part in zip(columns.split(size), weight.T.split(size), strict=True):
            worth.addmm_(some.T, part.to(direction.dtype))
    return worth.expand(direction.shape[0], -1)


def distinct(direction: Float[Tensor, "batch d"]) -> Float[Tensor, "some d"]:
    """The directions that differ: where one was expanded to all prompts, that one alone."""
    return direction[:1] if direction.shape[0] > 1 and direction.stride(0) == 0 else direction


def _blocks(batch: int, positions: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Runs of prompts, or of one prompt's positions, of no more figures than a block has."""
    if positions * size <= _BLOCK:
        step = max(1, _BLOCK // (positions * size))
        for start in range(0, batch, step):
            yield slice(start, start + step), slice(None)
        return
    step = max(1, _BLOCK // size)
    for prompt in range(batch):
        for start in range(0, positions, step):
            yield slice(prompt, prompt + 1), slice(start, start + step)
