"""Queries and keys of a head after the norms and the rotation of a rule."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from residscope.cache.attention_maps import SideName
from residscope.cache.head_reader import HeadReader, gather
from residscope.cache.norms import Norm
from residscope.cache.rotary import FrozenNorm, HeadVectors, RotationKind, Stage, rotation, tables
from residscope.cache.score_kinds import Kind, NormKind
from residscope.cache.view import CacheView

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


# --- stages ----------------------------------------------------------------------------------------------------------
def norm_module(attention: object, side: SideName) -> Any:
    """The module that normalises queries or keys."""
    return next((m for name in (f"{side}_norm", "qk_norm") if (m := getattr(attention, name, None)) is not None), None)


def tables_of(reader: HeadReader, kind: RotationKind) -> dict[str, tuple[Tensor, Tensor]]:
    """The rotary tables of this layer (see `tables`), including the table of this rotation if the layer has it."""
    return tables(reader.view, reader.layer, reader.width, kind.table)


def head_vectors(
    reader: HeadReader,
    kind: Kind,
    side: SideName,
    positions: Int[Tensor, "batch read"],
    turning: HeadReader | None = None,
) -> HeadVectors:
    """A head's queries or keys at some positions, with the stages of this kind.

    The run of `turning` (by default `reader`) gives the rotation.
    """
    raw = reader.raw(side, positions)
    stages: list[Stage] = []
    turn: Stage | None = None
    if kind.rotation is not None:
        turning = turning or reader
        found = tables_of(turning, kind.rotation)
        prompts = range(turning.view.batch) if turning.view.part_of is None else _prompts(turning.view)
        turn = rotation(kind.rotation, found, turning.width).at(prompts, positions)
    if kind.norm.when == "before":
        stages.append(_frozen(reader, kind.norm, side, raw, positions))
    if turn is not None:
        stages.append(turn)
    if kind.norm.when == "after":
        turned = raw if turn is None else turn.apply(raw)
        stages.append(_frozen(reader, kind.norm, side, turned, positions))
    return HeadVectors(raw, tuple(stages))


def _prompts(view: CacheView) -> range:
    """The range of a view's prompts in the whole cache."""
    start, held = 0, view
    while held.part_of is not None:
        held, prompts = held.part_of
        start += prompts.start
    return range(start, start + view.batch)


def _frozen(
    reader: HeadReader, kind: NormKind, side: SideName, x: Float[Tensor, "batch read d_head"], positions: Tensor
) -> FrozenNorm:
    """A norm of queries or keys, with a frozen scale: that of the vectors `x`.

    If the norm is over all heads at once, the scale is that of all heads' vectors.
    """
    attention = reader.view.model.blocks[reader.layer].attn
    module = None if kind.unit else norm_module(attention, side)
    if module is None:
        eps = getattr(reader.view.cfg, "eps", 1e-6)
        norm = Norm(kind.other_centring, None, None, float(eps) if isinstance(eps, int | float) else 1e-6)
        return FrozenNorm(norm.centres, None, None, norm.scale(x))
    norm = Norm.of(module, reader.view)
    if kind.other_centring:
        norm = replace(norm, centres=not norm.centres)
    weight, bias = (_of_head(reader, side, tensor) for tensor in (norm.weight, norm.bias))
    weight = None if weight is None else weight + kind.offset
    over_all = norm.weight is not None and norm.weight.numel() > reader.width and norm.weight.ndim == 1
    if not over_all:
        return FrozenNorm(norm.centres, weight, bias, norm.scale(x))
    name = reader.name(f"hook_{side}")
    units = reader.every(side, positions) if reader.view.has(name) else None
    if units is None:
        scale = reader.name(f"{side}_norm.hook_scale")
        return FrozenNorm(False, weight, bias, gather(reader.view.get(scale), positions).squeeze(-1))
    return FrozenNorm(False, weight, bias, norm.scale(units.flatten(2)))


def _of_head(reader: HeadReader, side: SideName, tensor: Tensor | None) -> Tensor | None:
    """One head's part of a norm's weight or bias."""
    if tensor is None or tensor.numel() == reader.width:
        return None if tensor is None else tensor.flatten()
    return tensor.reshape(-1, reader.width)[reader.index(side)]
