"""Whether what a layer writes is the sum of its heads, as the cache shows it: else no head's contribution is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from einops import rearrange

from residscope.attribution import components
from residscope.attribution.component_vectors import read_rows
from residscope.attribution.readout import Readout
from residscope.attribution.reconcile import heads_add_up, other_structure, reasons, reconcile, stream_goal
from residscope.cache.structure import Structure, coarse, named_layers, out_bias, out_weight, output_factor
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Checked:
    """Whether layers' heads add up, as it was found out; no part of the cache.

    Attributes:
        known: Whether the layers were looked at.
        structure: The fields of `structure.Structure` but its view; None where there was nothing to compare with.
        tolerance: What counts as rounding.
        notes: What is left over, and why.
        splits: By layer, whether the heads add up to what attention writes.
    """

    known: bool = False
    structure: dict[str, Any] | None = None
    tolerance: float = 0.0
    notes: list[str] = field(default_factory=list[str])
    splits: dict[int, bool] = field(default_factory=dict[int, bool])


def check_split(
    view: CacheView, layers: Sequence[int], checked: Checked, look: Callable[[], tuple[Readout, Tensor | None]]
) -> list[str]:
    """Refuse heads of layers whose outputs do not simply add up in the stream: their worth would be made up.

    Args:
        view: The cache.
        layers: The heads' layers.
        checked: What was found out before; what is found now is added.
        look: The way to the target, and the model's own figure less the constant, where something is to be found out.

    Returns:
        Notes, where what the model does behind its layers is not followed.
    """
    if not checked.known:
        _check_layers(*look(), checked)
    if checked.structure is None:
        return []
    structure = Structure(view, **checked.structure)
    new = [layer for layer in layers if layer not in checked.splits]
    for layer in new:
        apart = out_weight(view, layer) is not None
        checked.splits[layer] = not apart or heads_add_up(look()[0], structure, layer, checked.tolerance)
    unsplit = frozenset(layer for layer in layers if not checked.splits[layer])
    structure = replace(structure, unsplit_attn=unsplit - structure.whole)
    odd = [layer for layer in layers if layer in structure.whole | unsplit]
    if odd:
        raise ResidscopeError(
            "no-heads", f"What heads in {named_layers(odd)} bring cannot be determined. {' '.join(structure.notes())}"
        )
    return list(checked.notes)


def adds_up(view: CacheView, layer: int) -> bool | None:
    """Whether a layer's heads and bias are what its attention writes, at some positions; None where that is not known.

    There is no target here: the vectors themselves are compared.
    """
    run = view.root
    return run.memo.once(("adds up", layer), lambda: (_adds_up(run, layer, f"blocks.{layer}.hook_attn_out"),))[0]


def projects(view: CacheView, layer: int) -> bool | None:
    """The same of what attention's own projection gives, before a norm, or what else the block does to it."""
    run = view.root
    return run.memo.once(("projects", layer), lambda: (_adds_up(run, layer, f"blocks.{layer}.attn.o.hook_out"),))[0]


_SOME = 8
"""So many prompts, and positions of them, tell whether heads add up."""


def _adds_up(view: CacheView, layer: int, out: str) -> bool | None:
    import torch

    z = f"blocks.{layer}.attn.hook_z"
    W_O = out_weight(view, layer)
    if W_O is None or not (view.has(z) and view.has(out)):
        return None
    view = view.only(range(min(view.batch, _SOME)))
    try:
        for at in sorted({*range(0, view.n_pos, -(-view.n_pos // _SOME)), view.n_pos - 1}):
            where = torch.full((view.batch,), at)
            read = working(components.head_outputs(view, where, layer, tuple(W_O.shape[:2])))
            read = rearrange(read, "batch 1 head d_head -> batch (head d_head)")
            written = read @ rearrange(W_O, "head d_head d_model -> (head d_head) d_model").to(read)
            bias, added = out_bias(view, layer, "attn"), view.rows(out, where)[:, 0]
            written = written if bias is None else written + bias.to(written)
            if out.endswith("hook_attn_out"):
                written, added = _in_stream(view, where, layer, written, added)
            step = max(view.rounding_step(z, out), coarse(view, layer, "attn"))
            if added.shape != written.shape or other_structure(added, written.to(added), 0.0, step):
                return False
    except ResidscopeError as error:
        if error.code != "missing-activation":  # a norm behind attention whose scale was not cached
            raise
        return None
    return True


def _in_stream(view: CacheView, where: Tensor, layer: int, written: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """What attention writes, and `hook_attn_out`, as they are added to the stream."""
    nothing = view.like.new_zeros(view.batch, int(view.cfg.d_model))
    readout = Readout(view, where, nothing, nothing[:, 0], held=False)
    way = readout.way(layer, "attn")
    written = way.push(written[None])[0]
    if way.norm is not None and way.norm[0].bias is not None:
        written = written + way.factor * way.norm[0].bias
    return written, added * readout.structure.carries[layer] * output_factor(view, layer, "attn")


def unchecked(view: CacheView, layers: Iterable[int]) -> list[str]:
    """A note on layers of which nothing in the cache tells whether heads add up to what attention writes."""
    open_ = [layer for layer in layers if out_weight(view, layer) is not None and adds_up(view, layer) is None]
    if not open_:
        return []
    lacks = [
        name for name in ("attn.hook_z", "hook_attn_out") if not all(view.has(f"blocks.{at}.{name}") for at in open_)
    ]
    listed = " and ".join(f"`{name}`" for name in lacks) or "the scale of the norm behind attention"
    return [
        f"That the heads of {named_layers(open_)} add up to what attention writes was not checked: "
        f"{listed} {'is' if len(lacks) < 2 else 'are'} not in this cache."
    ]


def _check_layers(readout: Readout, own: Tensor | None, checked: Checked) -> None:
    """What is the same for every head."""
    try:
        fitted = reconcile(
            readout, lambda structure: read_rows(readout, components.layers(structure)), stream_goal(readout, own), own
        )
    except ResidscopeError as error:
        if error.code != "missing-activation":  # a filtered cache: nothing to compare with
            raise
    else:
        structure, checked.tolerance = fitted.structure, fitted.tolerance
        checked.structure = {f.name: getattr(structure, f.name) for f in fields(structure) if f.name != "view"}
        if own is not None and fitted.left > fitted.tolerance:
            checked.notes = reasons(readout, structure, own, checked.tolerance, fitted.rows)
    checked.known = True
