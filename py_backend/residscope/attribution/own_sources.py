"""The source contributions of heads at every destination, where each destination has its own target.

Each destination d reads along its own direction u[d], so the source s contributes
pattern[d, s] · (v[s] · W_O u[d]) / scale[d]. The products are computed head by head, so that memory is needed only for
the result and for one head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from residscope.attribution.head_inputs import ALL, check_heads, gated, head_inputs, read_names
from residscope.attribution.head_split import Checked, check_split, unchecked
from residscope.attribution.readout import Readout
from residscope.attribution.result import Attribution
from residscope.attribution.rounding import source_tolerance
from residscope.attribution.sources import not_from_sources, wanted_heads
from residscope.attribution.sublayer_parts import head_directions
from residscope.cache.component_names import name
from residscope.cache.finite import check_finite
from residscope.cache.norms import odd_final_norm
from residscope.cache.view import CacheView
from residscope.compute.progress import report_progress
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

LARGEST = 1 << 31
"""The largest size of the result in bytes."""


def own_source_rows(
    view: CacheView, readout: Readout, to_explain: Tensor | None, real: Bool[Tensor, "batch pos"], heads: Any
) -> Attribution:
    """Return the source contributions of heads at every destination.

    Args:
        view: The cache.
        readout: Reads each position's own target. Its view has each position as a prompt (`cells_of`).
        to_explain: The model's own value of each target without the constant, if it is known: `[cell, 1]`.
        real: Which positions have a target. The values at others are NaN.
        heads: The heads, as the user gave them.

    Raises:
        ResidscopeError: If a head does not exist, if the result would be too large, or if an activation is missing.
    """
    wanted = wanted_heads(view, heads)
    _check_size(view, len(wanted))
    layers = sorted({layer for layer, _ in wanted})
    notes = changed(view) + check_split(readout.view, layers, Checked(), lambda: (readout, to_explain))
    shape = (view.n_pos, view.n_pos, len(wanted), view.batch)
    values, measured = view.like.new_zeros(shape), view.like.new_zeros(shape[1:])
    at = 0
    here = real.T.to(values.device)  # [destination, batch]
    for layer, group in groupby(wanted, lambda head: head[0]):
        some = [head for _, head in group]
        for contributions, of_z in _layer(view, readout, layer, some):
            report_progress(at, len(wanted))
            values[:, :, at], measured[:, at] = contributions, of_z
            at += 1
    left = measured - values.sum(0)
    check_finite(view, left)
    left = left.where(here[:, None], 0.0)
    unexplained = float(left.abs().max()) if left.numel() else 0.0
    step = view.rounding_step(*(name for layer in layers for name in read_names(view, layer)))
    tolerance = source_tolerance(step, values, 0, readout.floor)
    notes += gated(view, layers) + unchecked(view, layers) + odd_final_norm(view)
    if unexplained > tolerance:
        notes.append(not_from_sources(unexplained))
    gone = ~here[:, None]
    nan = float("nan")
    values.masked_fill_(gone, nan)
    return Attribution(
        values,
        [Component("source", index=position) for position in range(view.n_pos)],
        measured.masked_fill(gone, nan),
        (measured * 0).masked_fill(gone, nan),
        left.masked_fill(gone, nan),
        by="source",
        measured_from="the contribution of each head by its own output (hook_z)",
        tolerance=tolerance,
        notes=notes,
        axes=("source", "destination", "head", "batch"),
        heads=[name(*head) for head in wanted],
    )


def _layer(
    view: CacheView, readout: Readout, layer: int, heads: Sequence[int]
) -> Iterator[tuple[Float[Tensor, "source destination batch"], Float[Tensor, "destination batch"]]]:
    """Yield each head's source contributions, and its contribution by `z`."""
    import torch

    cells = (view.batch, view.n_pos)
    direction, divisor, _ = head_directions(readout, layer)
    cut = (direction.shape[1], direction.shape[2])
    check_heads(layer, heads, cut[0])
    divisor = divisor[:, 0].reshape(cells)
    for head in heads:
        read = head_inputs(view, None, layer, [head], cut)
        z = read.z if read.z is not None else view.get(f"blocks.{layer}.attn.hook_z")  # raises if it was not cached
        unit = direction[:, head].reshape(*cells, -1) / divisor[..., None]  # [batch, destination, d_head]
        gated_unit = unit if read.gate is None else unit * read.gate[:, 0]
        weight = gated_unit @ read.v[:, 0].transpose(-1, -2)  # [batch, destination, source]
        contributions = weight.mul_(read.part(ALL, ALL, ALL)[:, 0])
        yield contributions.permute(2, 1, 0), torch.einsum("bdu,bdu->db", z[:, 0], unit)


def _check_size(view: CacheView, heads: int) -> None:
    each = view.n_pos**2 * view.batch * view.like.element_size()
    if heads * each > LARGEST:
        raise ResidscopeError(
            "too-large",
            f"The contributions of {heads} heads from each of {view.n_pos:,} sources to each destination would take "
            f"{heads * each / 1e9:.1f} GB: give fewer heads (at most {LARGEST // each} here), or one position.",
        )
