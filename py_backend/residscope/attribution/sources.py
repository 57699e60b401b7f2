"""The source contributions of heads: what a head moves from each source token into the target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.head_inputs import ALL, HeadInputs, check_heads, head_inputs
from residscope.attribution.readout import Readout
from residscope.attribution.sublayer_parts import head_directions
from residscope.base.arrays import as_list
from residscope.cache.component_names import parse
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.terms import Heads

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def sources(
    readout: Readout, heads: Sequence[tuple[int, int]]
) -> tuple[Float[Tensor, "source destination head batch"], Float[Tensor, "destination head batch"]]:
    """Return the source contributions of each head, and the head's whole contribution, which is computed from `z`.

    The axis `destination` has length 1 if the readout is for one position of each prompt.

    Args:
        readout: Reads the target from the stream.
        heads: Layers and indices of heads.

    Raises:
        ResidscopeError: If there is no such head, or `pattern`, `v` or `z` was not cached for all positions.
    """
    import torch

    for layer, head in heads:
        readout.view.check_head(layer, head)
    by_layer = [
        source_contributions(readout, layer, [head for _, head in group])
        for layer, group in groupby(heads, lambda head: head[0])
    ]
    contributions = torch.cat([layer.part(ALL, ALL, ALL) for layer in by_layer], dim=1)
    measured = torch.cat([layer.measured for layer in by_layer], dim=1)
    return (
        rearrange(contributions, "batch head destination source -> source destination head batch"),
        rearrange(measured, "batch head destination -> destination head batch"),
    )


@dataclass(frozen=True)
class SourceContributions:
    """The source contributions of heads of one layer: pattern[d, s] · (v[s] · W_O g) / divisor[d].

    d is the destination, s is the source, and g is the direction along which the target reads the stream. If a head
    multiplies what it has read by a gate, each source contribution is multiplied by the gate at d.

    Attributes:
        read: What the heads read.
        unit: The direction of each head's `z`, W_O g.
        divisor: The frozen scale of the norm.
        measured: The contribution of each head at each destination, from `z`. The source contributions sum to it.
    """

    read: HeadInputs
    unit: Float[Tensor, "batch head d_head"]
    divisor: Float[Tensor, "batch destination"]
    measured: Float[Tensor, "batch head destination"]

    @cached_property
    def full_weight(self) -> Float[Tensor, "batch head source"]:
        """The contribution of each source's value if attention to the source were 1, without `divisor` and gate."""
        return _dot(self.read.v, self.unit)

    def part(self, heads: slice, rows: slice, columns: slice) -> Float[Tensor, "batch head row column"]:
        """Return the source contributions of some heads, for some destinations and sources."""
        pattern = self.read.part(heads, rows, columns)
        if self.read.gate is None:
            contributions = pattern * self.full_weight[:, heads, None, columns]
        else:
            gated = self.read.gate[:, heads, rows] * self.unit[:, heads, None]
            contributions = pattern * (gated @ self.read.v[:, heads, columns].transpose(-1, -2))
        # In place, because this tensor may be as large as all patterns of a layer.
        return contributions.div_(self.divisor[:, None, rows, None])


def source_contributions(readout: Readout, layer: int, heads: Sequence[int]) -> SourceContributions:
    """Return the source contributions of heads of a layer. They are computed only when `part` is called."""
    direction, divisor, _ = head_directions(readout, layer)
    return contributions_along(readout.view, readout.positions, direction, divisor, layer, heads)


def contributions_along(
    view: CacheView,
    positions: Int[Tensor, " batch"] | None,
    direction: Float[Tensor, "batch all_heads d_head"],
    divisor: Float[Tensor, "batch destination"],
    layer: int,
    heads: Sequence[int],
) -> SourceContributions:
    """Return the source contributions of heads of a layer, given the directions of the layer's `z`, and the divisor."""
    check_heads(layer, heads, direction.shape[1])
    read = head_inputs(view, positions, layer, heads, (direction.shape[1], direction.shape[2]))
    z = view.get(f"blocks.{layer}.attn.hook_z") if read.z is None else read.z  # raises if it was not cached
    unit = direction[:, list(heads)]
    return SourceContributions(read, unit, divisor, _dot(z, unit) / divisor[:, None])


_SMALL = 2**15
"""Up to this many elements, PyTorch multiplies and sums in a single thread."""


def _dot(
    rows: Float[Tensor, "batch head pos d_head"], unit: Float[Tensor, "batch head d_head"]
) -> Float[Tensor, "batch head pos"]:
    """The product of each row with its head's direction.

    A matrix product uses several threads. These may wait for milliseconds while a notebook cell uses the processor, so
    small tensors are multiplied and summed.
    """
    if rows.numel() <= _SMALL:
        return (rows * unit[:, :, None]).sum(-1)
    return (rows @ unit[..., None]).squeeze(-1)


def not_from_sources(size: float) -> str:
    """Return a note on the part of a head's contribution that does not come from its sources."""
    return (
        f"{size:.2g} of a head's contribution is not pattern @ v: this attention changes `hook_z` after it has read "
        "the sources, or it also reads from something else."
    )


def wanted_heads(view: CacheView, heads: Heads) -> list[tuple[int, int]]:
    """Return the layers and indices of heads that a user named: one head, or a list like `["9.9", "L9H6", (10, 7)]`.

    Raises:
        ResidscopeError: If the list is empty, or an entry is not a head of this model.
    """
    given = as_list(heads)
    alone = isinstance(given, str) or (isinstance(given, tuple) and all(hasattr(n, "__index__") for n in given))
    if not isinstance(given, Iterable) and given is not None:
        given, alone = str(given), True  # a single number is not a head: `parse` raises with the reason
    names = [given] if alone and given else list(given or ())
    if not names:
        raise ResidscopeError("heads", 'No head is given: name at least one, such as `heads=["9.9", "9.6"]`.')
    places = [parse(head) for head in names]
    for layer, head in places:
        view.check_head(layer, head)
    return places
