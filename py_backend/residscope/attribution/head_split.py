"""Checks whether a layer's attention output is the sum of its heads. Only then are the heads' contributions known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from einops import rearrange

from residscope.attribution import components
from residscope.attribution.component_vectors import read_rows
from residscope.attribution.readout import Readout
from residscope.attribution.reconcile import differ_clearly, expected_sum, heads_add_up, reasons, reconcile
from residscope.attribution.sublayer_parts import head_outputs
from residscope.base.numbered import named_layers
from residscope.cache.output_maps import coarse, out_bias, out_weight
from residscope.cache.structure import Structure, output_factor
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Checked:
    """The results of earlier checks of layers and of the sums of their heads.

    Attributes:
        known: Whether a comparison of the layers with the stream was tried.
        structure: The fields of the corrected `Structure`, except `view`: the comparison may correct it. None if the
            stream could not be compared.
        tolerance: Differences up to this count as rounding.
        notes: Notes on the unexplained rest of the target, and on its cause.
        splits: For each layer, whether the heads add up to the attention output.
    """

    known: bool = False
    structure: dict[str, Any] | None = None
    tolerance: float = 0.0
    notes: list[str] = field(default_factory=list[str])
    splits: dict[int, bool] = field(default_factory=dict[int, bool])


def check_split(
    view: CacheView, layers: Sequence[int], checked: Checked, read: Callable[[], tuple[Readout, Tensor | None]]
) -> list[str]:
    """Refuse the heads of a layer whose outputs do not add up to the change of the stream.

    Args:
        view: The cache.
        layers: The heads' layers.
        checked: Earlier results. New results are added.
        read: Returns the readout, and the measured value minus the constant.

    Returns:
        Notes on the unexplained rest of the target, and on its cause.

    Raises:
        ResidscopeError: If the outputs of one of these layers do not add up.
    """
    if not checked.known:
        _check_layers(*read(), checked)
    if checked.structure is None:
        return []
    structure = Structure(view, **checked.structure)
    new = [layer for layer in layers if layer not in checked.splits]
    for layer in new:
        has_heads = out_weight(view, layer) is not None
        checked.splits[layer] = not has_heads or heads_add_up(read()[0], structure, layer, checked.tolerance)
    unsplit = frozenset(layer for layer in layers if not checked.splits[layer])
    structure = replace(structure, unsplit_attn=unsplit - structure.whole)
    refused = [layer for layer in layers if layer in structure.whole | unsplit]
    if refused:
        raise ResidscopeError(
            "no-heads",
            f"The contributions of heads in {named_layers(refused)} cannot be determined. "
            f"{' '.join(structure.notes())}",
        )
    return list(checked.notes)


def adds_up(view: CacheView, layer: int) -> bool | None:
    """Compare a layer's heads and bias with its attention output at some positions. Return whether they sum to it.

    None if unknown. No target is needed: the vectors themselves are compared.
    """
    run = view.root
    return run.memo.once(("adds up", layer), lambda: (_adds_up(run, layer, f"blocks.{layer}.hook_attn_out"),))[0]


def projection_adds_up(view: CacheView, layer: int) -> bool | None:
    """Return whether a layer's heads and bias sum to the output of attention's projection. None if unknown.

    After this projection, the block may have a norm or another step.
    """
    run = view.root
    return run.memo.once(("projects", layer), lambda: (_adds_up(run, layer, f"blocks.{layer}.attn.o.hook_out"),))[0]


_SOME = 8
"""At most this many prompts, and about this many positions in each prompt, are compared."""


def _adds_up(view: CacheView, layer: int, out: str) -> bool | None:
    import torch

    z = f"blocks.{layer}.attn.hook_z"
    W_O = out_weight(view, layer)
    if W_O is None or not (view.has(z) and view.has(out)):
        return None
    view = view.only(range(min(view.batch, _SOME)))
    try:
        for at in sorted({*range(0, view.n_pos, -(-view.n_pos // _SOME)), view.n_pos - 1}):
            where = torch.full((view.batch,), at, device="cpu")
            read = working(head_outputs(view, where, layer, tuple(W_O.shape[:2])))
            read = rearrange(read, "batch 1 head d_head -> batch (head d_head)")
            written = read @ rearrange(W_O, "head d_head d_model -> (head d_head) d_model").to(read)
            bias, added = out_bias(view, layer, "attn"), view.rows(out, where)[:, 0]
            written = written if bias is None else written + bias.to(written)
            if out.endswith("hook_attn_out"):
                written, added = _in_stream(view, where, layer, written, added)
            step = max(view.rounding_step(z, out), coarse(view, layer, "attn"))
            if added.shape != written.shape or differ_clearly(added, written.to(added), 0.0, step):
                return False
    except ResidscopeError as error:
        if error.code != "missing-activation":  # the scale of the norm after attention may not be cached
            raise
        return None
    return True


def _in_stream(view: CacheView, where: Tensor, layer: int, written: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
    """The projected heads and `hook_attn_out`, each in the form in which the block adds it to the stream."""
    no_target = view.like.new_zeros(view.batch, int(view.cfg.d_model))
    readout = Readout(view, where, no_target, no_target[:, 0], frozen=False)
    path = readout.output_path(layer, "attn")
    written = path.push(written[None])[0]
    if path.norm is not None and path.norm[0].bias is not None:
        written = written + path.factor * path.norm[0].bias
    return written, added * readout.structure.carries[layer] * output_factor(view, layer, "attn")


def unchecked(view: CacheView, layers: Iterable[int]) -> list[str]:
    """Return a note on layers for which the cache does not show whether heads add up to the attention output."""
    unknown = [layer for layer in layers if out_weight(view, layer) is not None and adds_up(view, layer) is None]
    if not unknown:
        return []
    missing = [
        name for name in ("attn.hook_z", "hook_attn_out") if not all(view.has(f"blocks.{at}.{name}") for at in unknown)
    ]
    listed = " and ".join(f"`{name}`" for name in missing) or "the scale of the norm after attention"
    return [
        f"It was not checked whether the heads of {named_layers(unknown)} add up to the output of attention: "
        f"{listed} {'is' if len(missing) < 2 else 'are'} not in this cache."
    ]


def _check_layers(readout: Readout, measured: Tensor | None, checked: Checked) -> None:
    """Compare the layers with the stream. The result is the same for every head."""
    try:
        result = reconcile(
            readout,
            lambda structure: read_rows(readout, components.layers(structure)),
            expected_sum(readout, measured),
            measured,
        )
    except ResidscopeError as error:
        if error.code != "missing-activation":  # a filtered cache may lack the stream
            raise
    else:
        structure, checked.tolerance = result.structure, result.tolerance
        checked.structure = {f.name: getattr(structure, f.name) for f in fields(structure) if f.name != "view"}
        if measured is not None and result.unexplained > result.tolerance:
            checked.notes = reasons(readout, structure, measured, checked.tolerance, result.rows)
    checked.known = True
