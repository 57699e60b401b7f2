"""Whether what a layer writes is the sum of its heads, as the cache shows it: or else no head's worth can be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from . import components
from .cache import CacheView
from .errors import ResidscopeError
from .fit import fit, heads_add_up, reasons, stream_goal
from .readout import Readout
from .structure import Structure, named_layers, out_weight
from .vectors import read_rows

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
            "no-heads", f"What heads in {named_layers(odd)} bring cannot be told. {' '.join(structure.notes())}"
        )
    return list(checked.notes)


def _check_layers(readout: Readout, own: Tensor | None, checked: Checked) -> None:
    """What is the same for every head."""
    try:
        fitted = fit(
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
