"""Maps of long prompts: the part of a map that is wanted, and how it is made small enough to travel.

What travels is one figure for each block of `step` × `step` cells: the one that is farthest from zero, so that a single
bright cell never vanishes, or their mean. `step` is 1 as long as the part has no more than `SENT` cells: then they are
the cells themselves.
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

SENT = 512 * 512
"""So many figures of one map travel: as many as a picture of it has pixels, and more."""


@dataclass(frozen=True)
class Part:
    """Some destinations and some sources of a map.

    Attributes:
        rows: The destinations.
        columns: The sources.
        whole: Whether it has all sources: then a row sums to what its head has read.
    """

    rows: range
    columns: range
    whole: bool

    @staticmethod
    def of(size: int, rows: Span | None = None, columns: Span | None = None) -> Part:
        """The part that is asked for; None is all of them.

        Raises:
            ResidscopeError: If it is empty.
        """
        down, across = _within(rows, size), _within(columns, size)
        return Part(down, across, len(across) == size)

    @property
    def step(self) -> int:
        """How many cells a side stand in one figure."""
        step = max(1, int((len(self.rows) * len(self.columns) / SENT) ** 0.5))
        while ceil(len(self.rows) / step) * ceil(len(self.columns) / step) > SENT:
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
    """Maps made smaller, a figure for each block of `step` × `step` cells (fewer at the lower and right edges).

    Args:
        maps: The maps.
        step: Cells a side of a block.
        pool: `"peak"`: of the cells of a block the one that is farthest from zero, with its sign; `"mean"`: their mean.
    """
    if step == 1:
        return maps
    if pool == "mean":
        down, across = (_sizes(size, step, maps) for size in maps.shape[1:])
        return _in_blocks(_blocks(maps, step).sum(2), step).sum(-1) / (down[:, None] * across)
    cut = _blocks(maps, step)
    # Along the rows first: whole lines are compared, which is many times quicker.
    most = _in_blocks(cut.amax(2), step).amax(-1)
    least = _in_blocks(cut.amin(2), step).amin(-1) if bool((maps < 0).any()) else None
    return most if least is None else most.where(most >= -least, least)


def _in_blocks(lines: Tensor, step: int) -> Float[Tensor, "map block_row block_column column"]:
    return rearrange(lines, "map block_row (block_column column) -> map block_row block_column column", column=step)


def _blocks(maps: Tensor, step: int) -> Float[Tensor, "map block_row row column"]:
    """Filled up with zeros: they are nobody's farthest, and add nothing."""
    from torch.nn.functional import pad

    down, across = (-size % step for size in maps.shape[1:])
    filled = pad(maps, (0, across, 0, down)) if down or across else maps
    return rearrange(filled, "map (block_row row) column -> map block_row row column", row=step)


def _sizes(size: int, step: int, like: Tensor) -> Tensor:
    """How many cells each block has along an axis."""
    sizes = like.new_full((ceil(size / step),), step)
    sizes[-1] = size - step * (len(sizes) - 1)
    return sizes


def is_triangle(square: Float[Tensor, "row column"]) -> bool:
    """Whether nothing stands above the diagonal: a causal model's map, of which half need not travel."""
    return square.shape[0] == square.shape[1] > 1 and not bool(square.triu(1).any())


def triangle(square: Float[Tensor, "row column"]) -> Float[Tensor, " cell"]:
    """The cells at and below the diagonal, row by row."""
    import torch

    return square[torch.ones(square.shape, dtype=torch.bool, device=square.device).tril()]
