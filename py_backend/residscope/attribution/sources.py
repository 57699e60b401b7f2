"""What a head brings to the target from each source token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from einops import rearrange

from residscope.attribution.components import head_directions
from residscope.attribution.head_inputs import ALL, HeadInputs, check_heads, reads
from residscope.attribution.readout import Readout
from residscope.cache.component_names import parse
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def sources(
    readout: Readout, heads: Sequence[tuple[int, int]]
) -> tuple[Float[Tensor, "source destination head batch"], Float[Tensor, "destination head batch"]]:
    """What each head brings from each source, and what it is worth by its `z`: the sum over sources, told otherwise.

    `destination` is 1 where the readout is for one position of each prompt.

    Args:
        readout: The way to the target.
        heads: Layers and indices of heads.

    Returns:
        Logits.

    Raises:
        ResidscopeError: If there is no such head, or `pattern`, `v` or `z` was not cached for all positions.
    """
    import torch

    for layer, head in heads:
        readout.view.check_head(layer, head)
    by_layer = [bring(readout, layer, [head for _, head in own]) for layer, own in groupby(heads, lambda head: head[0])]
    brought, worth = (torch.cat(parts, dim=1) for parts in zip(*by_layer, strict=True))
    return (
        rearrange(brought, "batch head destination source -> source destination head batch"),
        rearrange(worth, "batch head destination -> destination head batch"),
    )


def bring(
    readout: Readout, layer: int, heads: Sequence[int]
) -> tuple[Float[Tensor, "batch head destination source"], Float[Tensor, "batch head destination"]]:
    """`sources` for heads of one layer."""
    found = bringing(readout, layer, heads)
    return found.part(ALL, ALL, ALL), found.own


@dataclass(frozen=True)
class SourceContributions:
    """What heads of one layer bring: pattern[q, k] · (v[k] · W_O g) / s[q], and the same figure by `z`.

    Where a head gates what it has read, each source's part passes the gate as it stood at the destination.

    Attributes:
        read: What the heads read.
        unit: What each unit of `z` is worth, W_O g.
        divisor: s.
        own: What each head is worth at each destination by its `z`: what its sources sum to.
    """

    read: HeadInputs
    unit: Float[Tensor, "batch head d_head"]
    divisor: Float[Tensor, "batch destination"]
    own: Float[Tensor, "batch head destination"]

    @cached_property
    def worth(self) -> Float[Tensor, "batch head source"]:
        """What stands at each source is worth, where it is read whole."""
        return _dot(self.read.v, self.unit)

    def part(self, heads: slice, rows: slice, columns: slice) -> Float[Tensor, "batch head row column"]:
        """What some sources bring to some destinations, through some heads."""
        pattern = self.read.part(heads, rows, columns)
        if self.read.gate is None:
            brought = pattern * self.worth[:, heads, None, columns]
        else:
            gated = self.read.gate[:, heads, rows] * self.unit[:, heads, None]
            brought = pattern * (gated @ self.read.v[:, heads, columns].transpose(-1, -2))
        return brought.div_(self.divisor[:, None, rows, None])  # it may be as large as all patterns of a layer


def bringing(readout: Readout, layer: int, heads: Sequence[int]) -> SourceContributions:
    """What heads of a layer bring, to be read part by part."""
    direction, divisor, _ = head_directions(readout, layer)
    return bringing_by(readout.view, readout.positions, direction, divisor, layer, heads)


def bringing_by(
    view: CacheView,
    positions: Int[Tensor, " batch"] | None,
    direction: Float[Tensor, "batch all_heads d_head"],
    divisor: Float[Tensor, "batch destination"],
    layer: int,
    heads: Sequence[int],
) -> SourceContributions:
    """`bringing`, for callers who know what each unit of the layer's `z` is worth, and what to divide by."""
    check_heads(layer, heads, direction.shape[1])
    read = reads(view, positions, layer, heads, (direction.shape[1], direction.shape[2]))
    z = view.get(f"blocks.{layer}.attn.hook_z") if read.z is None else read.z  # refused, where it was not cached
    unit = direction[:, list(heads)]
    return SourceContributions(read, unit, divisor, _dot(z, unit) / divisor[:, None])


_SMALL = 2**15
"""PyTorch's own measure of what is not worth several threads."""


def _dot(
    rows: Float[Tensor, "batch head pos d_head"], unit: Float[Tensor, "batch head d_head"]
) -> Float[Tensor, "batch head pos"]:
    """Each row's product with its head's direction.

    Small ones without a matrix product, whose threads wait for each other: for milliseconds, where a cell computes.
    """
    if rows.numel() <= _SMALL:
        return (rows * unit[:, :, None]).sum(-1)
    return (rows @ unit[..., None]).squeeze(-1)


def rounding_in(view_step: float, brought: Tensor, source: int) -> float:
    """Up to here the difference between a head's worth and the sum over its sources is rounding.

    Args:
        view_step: The relative rounding step of what tells how they read.
        brought: What sources bring.
        source: The axis of the sources.
    """
    return max(1e-4, 2 * view_step * float(brought.norm(dim=source).max()))


def not_by_reading(size: float) -> str:
    """A note on what a head is worth beside what its sources bring."""
    return (
        f"{size:.2g} of a head's worth is not pattern @ v: this attention changes `hook_z` after it has read the "
        "sources, or reads from something else, too."
    )


def wanted_heads(view: CacheView, heads: Any) -> list[tuple[int, int]]:
    """Heads as a person writes them, `["9.9", "L9H6", (10, 7)]`, alone or in a list.

    Raises:
        ResidscopeError: If none was given, one is not a head, or not one of this model.
    """
    heads = heads.tolist() if hasattr(heads, "tolist") else heads
    alone = isinstance(heads, str) or (isinstance(heads, tuple) and all(hasattr(n, "__index__") for n in heads))
    if not isinstance(heads, Iterable) and heads is not None:
        heads, alone = str(heads), True  # a lone number is no head: said so where heads are read
    names = [heads] if alone and heads else list(heads or ())
    if not names:
        raise ResidscopeError("heads", 'No head is named: give some, such as `heads=["9.9", "9.6"]`.')
    found = [parse(head) for head in names]
    for layer, head in found:
        view.check_head(layer, head)
    return found
