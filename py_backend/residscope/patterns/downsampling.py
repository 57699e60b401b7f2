"""Down-samples the maps of long prompts before they are sent.

One value is sent for each block of `step` × `step` cells: the mean, or the value farthest from 0. With the value
farthest from 0, a single bright cell never disappears. If the requested part of a map has at most `MAX_SENT` cells,
`step` is 1 and all cells are sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.errors import ResidscopeError
from residscope.terms import Pool, Span

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MAX_SENT = 512 * 512
"""At most this many values of one map are sent."""


@dataclass(frozen=True)
class Part:
    """Some destinations and some sources of a map.

    Attributes:
        rows: The destinations.
        columns: The sources.
        whole: Whether the part has all sources, so that the sum of a row is the head's total at this destination.
    """

    rows: range
    columns: range
    whole: bool

    @staticmethod
    def of(size: int, rows: Span | None = None, columns: Span | None = None) -> Part:
        """Return the part of a map with `size` positions. None means all rows or all columns.

        Raises:
            ResidscopeError: If the part is empty.
        """
        part_rows, part_columns = _within(rows, size), _within(columns, size)
        return Part(part_rows, part_columns, len(part_columns) == size)

    @property
    def step(self) -> int:
        """The side length of a block of cells. One value is sent for each block."""
        step = max(1, int((len(self.rows) * len(self.columns) / MAX_SENT) ** 0.5))
        while ceil(len(self.rows) / step) * ceil(len(self.columns) / step) > MAX_SENT:
            step += 1
        return step


def _within(span: Span | None, size: int) -> range:
    if span is None:
        return range(size)
    found = range(max(span.start, 0), min(span.stop, size))
    if not found:
        raise ResidscopeError("position", f"There are no positions {span.start} to {span.stop}: the prompt has {size}.")
    return found


def down_sampled(
    maps: Float[Tensor, "map row column"], step: int, pool: Pool = "peak"
) -> Float[Tensor, "map block_row block_column"]:
    """Return smaller maps, with one value for each block of `step` × `step` cells.

    Cells with NaN are left out. A block is NaN if all its cells are.

    Args:
        maps: The maps.
        step: The side length of a block. Blocks at the lower and right edges may have fewer cells.
        pool: `"peak"`: the value of a block that is farthest from 0, with its sign. `"mean"`: the mean of the block.
    """
    if step == 1:
        return maps
    if bool(maps.sum().isnan()):  # the sum is faster, and usually enough
        known = ~maps.isnan()
        counts = _in_blocks(_blocks(known.float(), step).sum(2), step).sum(-1)
        found = down_sampled(maps.masked_fill(~known, 0.0), step, pool)
        if pool == "mean":
            down, across = (_sizes(size, step, maps) for size in maps.shape[1:])
            found = found * (down[:, None] * across) / counts
        return found.masked_fill(counts == 0, float("nan"))
    if pool == "mean":
        down, across = (_sizes(size, step, maps) for size in maps.shape[1:])
        return _in_blocks(_blocks(maps, step).sum(2), step).sum(-1) / (down[:, None] * across)
    blocks = _blocks(maps, step)
    # The rows of a block are compared first: they are contiguous in memory, so this is many times faster.
    most = _in_blocks(blocks.amax(2), step).amax(-1)
    least = _in_blocks(blocks.amin(2), step).amin(-1) if bool((maps < 0).any()) else None
    return most if least is None else most.where(most >= -least, least)


def _in_blocks(lines: Tensor, step: int) -> Float[Tensor, "map block_row block_column column"]:
    return rearrange(lines, "map block_row (block_column column) -> map block_row block_column column", column=step)


def _blocks(maps: Tensor, step: int) -> Float[Tensor, "map block_row row column"]:
    """The maps in blocks of rows, padded with zeros, which affect neither peak nor sum."""
    from torch.nn.functional import pad

    down, across = (-size % step for size in maps.shape[1:])
    padded = pad(maps, (0, across, 0, down)) if down or across else maps
    return rearrange(padded, "map (block_row row) column -> map block_row row column", row=step)


def _sizes(size: int, step: int, like: Tensor) -> Tensor:
    """The number of cells of each block along an axis."""
    sizes = like.new_full((ceil(size / step),), step)
    sizes[-1] = size - step * (len(sizes) - 1)
    return sizes


def is_triangle(square: Float[Tensor, "row column"]) -> bool:
    """Return whether a map is square, has several rows, and has only 0 above the diagonal, as in a causal model.

    If so, the cells above the diagonal are not sent.
    """
    return square.shape[0] == square.shape[1] > 1 and not bool(square.triu(1).any())


def triangle(square: Float[Tensor, "row column"]) -> Float[Tensor, " cell"]:
    """Return the cells on and below the diagonal, row by row."""
    import torch

    return square[torch.ones(square.shape, dtype=torch.bool, device=square.device).tril()]
