"""Which rows each decomposition has: heads, layers, neurons, or the logit lens. `row_values.py` computes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from residscope.attribution.plan import BIAS_KIND, COMPONENT_OF, Plan, Rows, components_in
from residscope.attribution.readout import Readout
from residscope.attribution.sublayer_parts import bias_of
from residscope.base.arrays import as_list
from residscope.base.numbered import named_layers
from residscope.cache.lens_maps import StreamMaps
from residscope.cache.output_maps import neuron_weight, out_weight, why_unread
from residscope.cache.points import Point
from residscope.cache.structure import OUT, ComponentTerms, Structure, Terms
from residscope.cache.structure_notes import float8
from residscope.cache.view import CacheView
from residscope.cache.view_refusals import not_cached
from residscope.errors import ResidscopeError
from residscope.terms import By, Component

if TYPE_CHECKING:
    from torch import Tensor


def activations_for(view: CacheView, by: By) -> list[str]:
    """Return the names of the activations from which the rows of a decomposition are read, in all layers.

    For heads, sources and neurons, the activations of other rows (such as MLPs) are not included. For `"accumulated"`,
    the list is empty if any point of the stream was cached.
    """

    def every(*names: str) -> list[str]:
        return [f"blocks.{layer}.{name}" for name in names for layer in range(view.n_layers)]

    match by:
        case "head":
            return every("attn.hook_z")
        case "source":
            return every("attn.hook_pattern", "attn.hook_v", "attn.hook_z")
        case "neuron":
            return every("mlp.hook_post")
        case "layer" | "feature":
            return every("hook_attn_out", "hook_mlp_out")
        case "accumulated":
            return [] if view.points() else every("hook_resid_post")


AT_ALL_SOURCES: tuple[By, ...] = ("layer", "head", "accumulated")
"""Decompositions whose rows can be read at all sources at once: not neurons, features and sources."""


def plan_of(structure: Structure, by: By, wanted: Sequence[int]) -> Plan:
    """Return the plan of a decomposition. `wanted` are the layers whose neurons are requested."""
    match by:
        case "accumulated":
            return accumulated(structure, recomputed=False)
        case "layer":
            return layers(structure)
        case "neuron":
            return neurons(structure, wanted)
        case "head":
            return heads(structure)
        case "source":
            raise ResidscopeError("by", "The sources of heads are not components of the stream.")
        case "feature":
            raise ResidscopeError("sae", 'For `by="feature"`, give the SAE or transcoder: `sae=`.')


def accumulated(structure: Structure, *, recomputed: bool, maps: StreamMaps | None = None) -> Plan:
    """Return the plan of the logit lens.

    Its rows are the stream before each layer, between its sublayers (if there is such a point), and at the target's
    point. With `maps`, only the points that have a map.
    """
    view = structure.view
    if not view.points():
        raise not_cached(*(f"blocks.{layer}.hook_resid_post" for layer in range(view.n_layers)))
    points = stream_points(structure, recomputed=recomputed)
    if maps is not None:
        # The maps include the factors of later layers.
        points = {
            point: tuple((name, 1.0) for name, _ in terms) if maps.is_mapped(point) else terms
            for point, terms in points.items()
            if point in maps.maps
        }
    return Plan(points, recomputed=recomputed, maps=maps).cached(view)


def stream_points(structure: Structure, *, recomputed: bool = False) -> ComponentTerms:
    """Return the points of the stream up to the target's point.

    Points before a layer are included even if they are not cached, points between sublayers only if they are cached.
    Each is multiplied by the factors of later layers (`Structure.carries`), unless the norm's scale is `recomputed`.
    """
    view, carries = structure.view, structure.carries
    points: ComponentTerms = {}
    for layer in range(structure.layers):
        # Later layers may multiply the stream by a factor. A recomputed scale cancels it, a frozen scale does not.
        carried = 1.0 if recomputed else carries[layer]
        points[Component("pre", layer)] = ((view.before(layer), carried),)
        if view.has(f"blocks.{layer}.hook_resid_mid"):  # parallel attention and MLP have no such point
            points[Component("mid", layer)] = ((f"blocks.{layer}.hook_resid_mid", carried),)
    points[structure.point] = ((Point(structure.point).stream(view), 1.0),)
    return points


def layers(structure: Structure) -> Plan:
    """Return the plan whose rows are the embeddings, and each layer's attention and MLP output."""
    view, count = structure.view, structure.layers
    added = [structure.cached(layer) for layer in range(count)]
    terms = structure.embeddings()
    # If a component before the first cached point is missing, everything written before this point is one row.
    start = next((layer for layer in range(count) if view.has(view.before(layer))), 0)
    if start > 0 and not all(structure.has(row) for rows in (terms, *added[:start]) for row in rows.values()):
        whole: Terms = ((view.before(start), structure.carries[start]),)
        terms, added = {Component("pre", start): whole}, added[start:]
    # Embeddings alone are a useful result only if the target is read before layer 0.
    if count and not any(structure.has(row) for rows in added for row in rows.values()):
        every = [name for rows in (terms, *added) for row in rows.values() for name, _ in row]
        raise not_cached(*(name for name in every if not view.has(name)))
    for rows in added:
        terms |= rows
    return Plan(terms).cached(view)


def heads(structure: Structure) -> Plan:
    """Return the plan of every head (layer by layer), the attention biases, other sublayers and the embeddings.

    Raises:
        ResidscopeError: If no layer has heads that sum to its output.
    """
    view, wanted = structure.view, [layer for layer in range(structure.layers) if structure.splits_attention(layer)]
    inner = structure.point.layer is not None  # before an inner point there may be no layer with heads
    if not wanted and not (inner and any(out_weight(view, layer) is not None for layer in range(view.n_layers))):
        why = "Its layers have no attention with a `W_O` and a `hook_z`."
        raise ResidscopeError("no-heads", _refusal(structure, "attention heads", why))
    return _split(structure, wanted, "attn", "attn.hook_z")


def neurons(structure: Structure, wanted: Sequence[int]) -> Plan:
    """Return the plan of every MLP neuron of the wanted layers, MLP biases, other sublayers and the embeddings.

    Raises:
        ResidscopeError: If no wanted layer has neurons that sum to its output.
    """
    # The neurons of an MLP after the target's point have rows of 0.
    later = any(layer >= structure.layers - structure.ends_within(layer) for layer in wanted)
    wanted = [layer for layer in sorted(set(wanted)) if structure.splits_mlp(layer)]
    if not wanted and not later:
        why = "Its layers have no MLP with a single W_out; a mixture of experts has several."
        raise ResidscopeError("no-neurons", _refusal(structure, "MLP neurons", why))
    return _split(structure, wanted, "mlp", "mlp.hook_post")


def _split(structure: Structure, wanted: Sequence[int], part: Literal["attn", "mlp"], read: str) -> Plan:
    """The plan that splits a sublayer of the wanted layers. Every other sublayer is one row.

    Raises:
        ResidscopeError: If the activation `read` was cached in none of these layers.
    """
    view = structure.view
    missing = [f"blocks.{layer}.{read}" for layer in wanted if not view.has(f"blocks.{layer}.{read}")]
    if missing and len(missing) == len(wanted):
        raise not_cached(missing[0])
    cached = [layer for layer in wanted if f"blocks.{layer}.{read}" not in missing]
    terms: ComponentTerms = {}
    for layer in range(structure.layers):
        terms |= structure.cached(layer, without=part) if layer in cached else structure.cached(layer)
    return Plan(terms | structure.embeddings(), tuple(cached), part, missing=tuple(missing)).cached(view)


def with_later(readout: Readout, structure: Structure, by: By, wanted: Sequence[int], rows: Rows) -> Rows:
    """Return the rows, and rows of 0 for components after the target's point. These follow the rows of their kind."""
    import torch

    if structure.point.layer is None or by == "accumulated":
        return rows
    # The features that have a row differ between positions. Other rows follow from the structure.
    own = tuple(rows.components) if by == "feature" else len(rows.components)
    key = ("later rows", by, *wanted, structure.key, own, rows.parts)
    ordered, places, parts = structure.view.memo.once(
        key, lambda: _in_order(readout, structure, by, wanted, rows), lambda kept: _BYTES_EACH * len(kept[0])
    )
    if len(ordered) == len(rows.components):
        return rows
    index = torch.tensor(places, device=rows.values.device)

    def extended(values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(1, *values.shape[1:])])[index]

    step = rows.step if isinstance(rows.step, float | int) else extended(rows.step)
    return replace(rows, components=list(ordered), values=extended(rows.values), parts=parts, step=step)


_BYTES_EACH = 44
"""The bytes that one row of `_in_order` takes in memory. A model may have millions of neurons."""


def _in_order(
    readout: Readout, structure: Structure, by: By, wanted: Sequence[int], rows: Rows
) -> tuple[tuple[Component, ...], list[int], int | None]:
    """All components, the index of each in `rows`, and the number of requested components (None if none is split).

    A component without a row in `rows` has the index `len(rows.components)`.
    """
    view, part = structure.view, COMPONENT_OF.get(by)
    parts: list[Component] = []
    biases: list[Component] = []
    others: list[Component] = []
    for layer in range(view.n_layers):
        later = structure.later(layer)
        if part is not None and Component(OUT[part], layer) in later and (part == "attn" or layer in wanted):
            weight = (out_weight if part == "attn" else neuron_weight)(view, layer)
            if weight is not None:
                parts += components_in(view, layer, part, len(weight))
                bias, norm_bias = bias_of(readout, layer, part)
                biases += [Component(BIAS_KIND[part], layer)] * (bias is not None or norm_bias is not None)
                later.remove(Component(OUT[part], layer))
        others += later
    own, split = rows.components, rows.parts or 0
    embeddings = [row for row in own[split:] if row.layer is None] if part is not None else []
    first = own[split : len(own) - len(embeddings)]  # if a sublayer is split, embeddings come last
    count = sum(row.kind in BIAS_KIND.values() for row in first)  # `first` begins with biases
    ordered = (*own[:split], *parts, *first[:count], *biases, *first[count:], *others, *embeddings)
    places = {row: place for place, row in enumerate(own)}
    return ordered, [places.get(row, len(own)) for row in ordered], None if part is None else split + len(parts)


def wanted_layers(view: CacheView, wanted: Any) -> list[int]:
    """Return the layers whose neurons are requested. None means all layers.

    Raises:
        ResidscopeError: If a layer does not exist, or has no neurons.
    """
    if wanted is None:
        return list(range(view.n_layers))
    wanted = as_list(wanted)
    alone = isinstance(wanted, str) or not isinstance(wanted, Iterable)
    named = [view.check_layer(layer) for layer in ([wanted] if alone else wanted)]
    if not named:
        raise ResidscopeError("layers", "`layers=` is empty: give one layer, several, or None for all.")
    for layer in named:
        if neuron_weight(view, layer) is None:
            why = why_unread(view, layer, "mlp") or (
                "It has no single W_out (as in a mixture of experts), so there are no neurons to list."
            )
            raise ResidscopeError(
                "no-neurons", f'The MLP of layer {layer} cannot be split. {why} Use `by="layer"`, where it is one row.'
            )
    return named


def _refusal(structure: Structure, kind: str, otherwise: str) -> str:
    view, part = structure.view, "attn" if kind.endswith("heads") else "mlp"
    unread = (why_unread(view, layer, part) for layer in range(view.n_layers))
    why = " ".join(structure.notes()) or next(filter(None, unread), otherwise)
    whose = "cache" if float8(view, range(view.n_layers)) else "model"
    return f'No layer of this {whose} can be split into {kind}. {why} Use `by="layer"` or `by="accumulated"`.'


def unsplit_notes(structure: Structure, by: By, wanted: Sequence[int]) -> list[str]:
    """Return notes on the layers that have no heads or neurons."""
    view = structure.view
    part: Literal["attn", "mlp"] = "attn" if by == "head" else "mlp"
    before = [layer for layer in range(structure.layers) if part == "attn" or not structure.ends_within(layer)]
    wanted = [layer for layer in wanted if layer in before]
    return list(
        view.memo.once(("unsplit notes", by, *wanted, len(before)), lambda: tuple(_none_in(view, by, wanted, before)))
    )


def _none_in(view: CacheView, by: By, wanted: Sequence[int], before: Sequence[int]) -> list[str]:
    if by == "head":
        others = [layer for layer in before if out_weight(view, layer) is None]
        note = "There are no attention heads in {}: the mixer there is one row."
        unread = {layer: why_unread(view, layer, "attn") for layer in others}
    else:
        others = [layer for layer in wanted if neuron_weight(view, layer) is None]
        note = "There are no plain neurons in {}: the MLP is one row."
        unread = {layer: why_unread(view, layer, "mlp") for layer in others}
    notes = (
        [note.format(named_layers(without))] if (without := [layer for layer in others if not unread[layer]]) else []
    )
    unreadable = [layer for layer in others if unread[layer]]
    return [*notes, f"In {named_layers(unreadable)} this is one row: {unread[unreadable[0]]}"] if unreadable else notes
