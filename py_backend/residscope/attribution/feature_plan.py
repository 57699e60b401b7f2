"""Plans the rows of a decomposition by features.

The activation that an SAE reconstructs is planned as one row. `features.expanded` later replaces this row by the rows
of the features.
"""

from __future__ import annotations

from dataclasses import replace

from residscope.attribution.components import layers
from residscope.attribution.plan import Plan
from residscope.cache.dictionaries import Dictionary
from residscope.cache.structure import ComponentTerms, Structure
from residscope.errors import ResidscopeError
from residscope.terms import Component


def plan_before(structure: Structure, dictionary: Dictionary) -> Plan:
    """Return the plan in which the activation that a dictionary reconstructs (its site) is one row.

    Raises:
        ResidscopeError: If the site is after the target's point.
    """
    view, site = structure.view, dictionary.site
    at = site.point(view)
    end = (view.n_layers, 0) if structure.point.layer is None else _place(structure.point)
    # The output of attention is added before the point `mid` of its layer, the output of the MLP after it.
    if (_place(at) if at is not None else _place(Component("mid", site.layer))) > end or (
        at is None
        and site.kind == "hook_mlp_out"
        and site.layer >= structure.layers - structure.ends_within(site.layer)
    ):
        raise ResidscopeError(
            "sae",
            f"The {dictionary.name} reconstructs what comes after the point `{structure.point.label}`, where the "
            "target is read: its features contribute 0.",
        )
    if at is None:
        return layers(structure)
    first = structure.layers if at.layer is None else at.layer
    carried = 1.0 if at == structure.point else structure.carries[first]
    terms: ComponentTerms = {at: ((dictionary.written, carried),)}
    if at.kind == "mid" and not structure.ends_within(first):
        terms |= _after_mid(structure, first, dictionary.written)
    for layer in range(first + (at.kind == "mid"), structure.layers):
        terms |= structure.cached(layer)
    return Plan(terms).cached(view)


def _after_mid(structure: Structure, layer: int, mid: str) -> ComponentTerms:
    """The rows of what a layer adds after the point between its attention and its MLP."""
    own = structure.sublayers(layer)
    rows = {row: terms for row, terms in own.items() if row.kind in ("mlp_out", "per_layer_out")}
    if layer in structure.whole or not all(map(structure.has, rows.values())):
        carries = structure.carries
        rows = {
            Component("mlp_out", layer): (
                (structure.view.after(layer), carries[layer + 1]),
                (mid, -carries[layer]),
            )
        }
    return rows


def _place(point: Component) -> tuple[float, int]:
    return (float("inf"), 0) if point.layer is None else (point.layer, int(point.kind == "mid"))


def later_only(structure: Structure, dictionary: Dictionary) -> Structure:
    """Return the structure without findings in layers before the site. These layers have no rows, and need no note."""
    at = dictionary.site.point(structure.view)
    if at is None:
        return structure
    first = structure.view.n_layers if at.layer is None else at.layer
    return replace(structure, whole=frozenset(n for n in structure.whole if n >= first), entered=False)
