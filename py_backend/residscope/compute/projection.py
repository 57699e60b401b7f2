"""Computes dot products of activations or weights with a direction, in blocks that need little memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from einops import einsum, rearrange

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_BLOCK = 1000000
"""A block has at most this many values: 4 MB in float32, which fits in a processor's cache.

A single position with more values is a block of its own. `dots` uses blocks only on the CPU.
"""

_SMALL = 1 << 16
"""Up to this many values, allocating memory takes no noticeable time."""


def dots(
    rows: Float[Tensor, "batch pos *part d"], direction: Float[Tensor, "batch *part d"]
) -> Float[Tensor, "*part batch pos"]:
    """Return the dot product of each row with its prompt's direction, in the direction's precision."""
    import torch

    if rows.device.type != "cpu":
        return einsum(rows.to(direction.dtype), direction, "batch pos ... d, batch ... d -> ... batch pos")
    if rows.numel() <= _BLOCK:
        products = _times(rows, direction).sum(-1)
    else:
        products = direction.new_empty(rows.shape[:-1])
        for prompts, positions in _blocks(rows.shape[0], rows.shape[1], prod(rows.shape[2:])):
            torch.sum(_times(rows[prompts, positions], direction[prompts]), -1, out=products[prompts, positions])
    return rearrange(products, "batch pos ... -> ... batch pos")


def prompt_by_prompt(
    vectors: Float[Tensor, "batch row d"], direction: Float[Tensor, "batch d"]
) -> Float[Tensor, "batch row"]:
    """Return the dot product of each vector with its prompt's direction.

    Contiguous vectors are read in a single pass if they are on the CPU, have the precision of the direction, and have
    more than `_SMALL` values in each prompt.
    """
    import torch

    plain = vectors.device.type == "cpu" and vectors.dtype == direction.dtype and vectors.is_contiguous()
    if not plain or vectors[:1].numel() <= _SMALL:
        return dots(vectors, direction)
    return torch.stack(list(map(torch.mv, vectors.unbind(), direction.unbind())))


def lengths(rows: Float[Tensor, "batch pos d"], direction: Float[Tensor, "batch d"]) -> Float[Tensor, "batch pos"]:
    """Return the length of the elementwise product of each row with its prompt's direction.

    `dots` sums the elements of this product, so the rounding errors of `dots` grow with the length of the product.
    """
    import torch

    largest = direction.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(direction.dtype).tiny)
    unit = direction / largest  # the largest element is 1, so that not all squares of a short direction underflow
    if rows.numel() <= _SMALL:
        return torch.linalg.vector_norm(rows.to(unit) * unit[:, None], dim=-1) * largest
    found = direction.new_empty(rows.shape[:2])
    for prompts, positions in _blocks(rows.shape[0], rows.shape[1], rows.shape[2]):
        block = rows[prompts, positions].to(unit) * unit[prompts, None]
        found[prompts, positions] = torch.linalg.vector_norm(block, dim=-1)
    return found * largest


def _times(rows: Tensor, direction: Tensor) -> Tensor:
    """The elementwise product of a block. It may be in this thread's buffer, which the next call overwrites."""
    import torch

    direction = direction.unsqueeze(1)
    if rows.numel() <= _SMALL and rows.dtype == direction.dtype:
        return rows * direction
    product = _buffer(direction, rows.numel())[: rows.numel()].view(rows.shape)
    if rows.dtype == product.dtype:
        return torch.mul(rows, direction, out=product)
    # The rows are converted first, because a product of mixed precisions is 10 times slower.
    return product.copy_(rows).mul_(direction)


_of_this_thread = threading.local()


def _buffer(like: Tensor, size: int) -> Tensor:
    """Memory for a block. The thread reuses it, because allocating memory takes longer than the product."""
    buffer: Tensor | None = getattr(_of_this_thread, "buffer", None)
    if buffer is None or buffer.dtype != like.dtype or len(buffer) < size or buffer.is_inference():
        buffer = like.new_empty(max(size, _BLOCK))
        _of_this_thread.buffer = None if buffer.is_inference() or size > _BLOCK else buffer
    return buffer


def project(
    weight: Float[Tensor, "unit d_model"], direction: Float[Tensor, "batch d_model"]
) -> Float[Tensor, "batch unit"]:
    """Return the dot product of each unit's output weights with the direction, in the direction's precision."""
    import torch

    weight, columns = weight.to(direction.device), distinct(direction).T
    size = max(1, _BLOCK // max(weight.shape))
    if weight.dtype == direction.dtype and (weight.stride(-1) != 1 or columns.shape[1] >= _MANY_COLUMNS):
        products = columns.T @ weight.T
    elif weight.dtype == direction.dtype and columns.shape[1] > 1:
        products = (weight @ columns).T
    elif weight.stride(-1) == 1 and columns.shape[1] == 1:
        products = dots(weight[None], columns.T)
    elif weight.stride(-1) == 1:
        products = torch.cat([block.to(direction.dtype) @ columns for block in weight.split(size)]).T
    else:  # the weight is a view of a matrix [d_model, unit]
        products = columns.new_zeros(columns.shape[1], weight.shape[0])
        for direction_block, weight_block in zip(columns.split(size), weight.T.split(size), strict=True):
            products.addmm_(direction_block.T, weight_block.to(direction.dtype))
    return products.expand(direction.shape[0], -1)


_MANY_COLUMNS = 128
"""For this many directions, a product in which the weight comes second is as fast, and the result is contiguous.

If the weight is a view of a matrix [d_model, unit], that is always faster.
"""


def distinct(direction: Float[Tensor, "batch d"]) -> Float[Tensor, "some d"]:
    """Return only the first direction if it was expanded to all prompts. Otherwise return all directions."""
    return direction[:1] if direction.shape[0] > 1 and direction.stride(0) == 0 else direction


_MANY = 64
"""`repeats` looks for equal directions only if there are at least this many prompts."""


class Repeats(NamedTuple):
    """Which prompts have equal directions.

    Attributes:
        first: The first prompt with each direction.
        place: For each prompt, the place in `first` of the prompt with the same direction.
    """

    first: Int[Tensor, " some"]
    place: Int[Tensor, " batch"]

    def expand(self, values: Float[Tensor, " some *unit"]) -> Float[Tensor, " batch *unit"]:
        """Return the values of all prompts, given the values of the prompts in `first`."""
        return values.contiguous().index_select(0, self.place)


def repeats(direction: Float[Tensor, "batch d"]) -> Repeats | None:
    """Return which directions are exactly equal.

    None if there are fewer prompts than `_MANY`, if more than three quarters of the directions are different, if one
    direction was expanded to all prompts, or if the directions are not on the CPU. None also if two different
    directions have the same dot product with the vector that is used for the comparison.
    """
    import torch

    count = direction.shape[0]
    if count < _MANY or direction.stride(0) == 0 or direction.device.type != "cpu":
        return None
    # Equal directions have equal dot products with any vector. The last line rejects products that are equal by chance.
    probe = torch.linspace(0.5, 1.5, direction.shape[1], dtype=direction.dtype, device="cpu").cos()
    sums, place = (direction * probe).sum(-1).unique(return_inverse=True)
    if len(sums) > count * 3 // 4:
        return None
    first = place.new_full((len(sums),), count).scatter_reduce(0, place, torch.arange(count, device="cpu"), "amin")
    return Repeats(first, place) if torch.equal(direction[first][place], direction) else None


def _blocks(batch: int, positions: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Slices of prompts, or of one prompt's positions, with at most `_BLOCK` values each.

    A single position with more values is a slice of its own.
    """
    if positions * size <= _BLOCK:
        step = max(1, _BLOCK // (positions * size))
        for start in range(0, batch, step):
            yield slice(start, start + step), slice(None)
        return
    step = max(1, _BLOCK // size)
    for prompt in range(batch):
        for start in range(0, positions, step):
            yield slice(prompt, prompt + 1), slice(start, start + step)
