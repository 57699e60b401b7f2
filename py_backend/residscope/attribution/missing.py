"""Names the rows that a decomposition lacks because activations were not cached, and writes notes on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from residscope.attribution.components import activations_for
from residscope.attribution.plan import Rows
from residscope.base.numbered import named_layers
from residscope.cache.norms import Norm
from residscope.cache.structure import Structure
from residscope.cache.view import CacheView
from residscope.cache.view_refusals import ending, not_cached
from residscope.errors import ResidscopeError
from residscope.terms import Component

if TYPE_CHECKING:
    from residscope.terms import By

_WORDS = {
    "hook_mlp_out": "MLPs",
    "hook_attn_out": "attention",
    "attn.hook_z": "heads",
    "mlp.hook_post": "neurons",
    "hook_embed": "embeddings",
    "hook_pos_embed": "position embeddings",
}


def lacking(by: By, missing: Iterable[str]) -> list[str]:
    """Return the kinds of rows that are missing, in words. Empty for points of the stream, which are not summed."""
    return [] if by == "accumulated" else kinds(missing)


def kinds(names: Iterable[str]) -> list[str]:
    """Return the kinds of rows that need these activations: "MLPs", "embeddings"."""
    return list(dict.fromkeys(_WORDS.get(ending(name), "other components") for name in names))


def check_cached(view: CacheView, by: By, *, frozen: bool) -> None:
    """Refuse a decomposition if the final norm's scale is needed, but neither it nor the final stream was cached.

    The message names all missing activations.

    Args:
        view: The cache.
        by: The decomposition.
        frozen: Whether the final norm's scale is frozen at its cached value.
    """
    last = view.n_layers - 1
    stream = f"blocks.{last}.hook_resid_post"
    norm = Norm.of(getattr(view.model, "ln_final", None), view)
    if not frozen or not norm.divides or view.first("ln_final.hook_scale", stream):
        return
    others = [name for name in activations_for(view, by) if not view.has(name)]
    refusal = not_cached(*others, *([] if stream in others else ["ln_final.hook_scale"]))
    if by == "accumulated" and not others:  # a run that stopped early has points, but not the end of the stream
        message = f'{refusal} If the norm is recomputed at each point (`norm="recomputed"`), none of this is needed.'
        refusal = ResidscopeError(refusal.code, message)
    raise refusal


def missing_notes(structure: Structure, by: By, rows: Rows) -> list[str]:
    """Return notes on rows and points that are missing, and on sums that could not be checked."""
    view, notes = structure.view, list[str]()
    if (
        by != "accumulated"
        and Component("embed") in rows.rest
        and structure.read_where_it_enters
        and not structure.entered
    ):
        why = "the embeddings themselves are not in this cache."
        if structure.projects_embeddings:
            why = "this model projects its embeddings to the width of the stream."
        notes.append(f"The row `embed` is all that enters layer 0 (`blocks.0.hook_resid_pre`): {why}")
    if rows.missing:
        listed = "; ".join(_listed(view, rows.missing))
        if by == "accumulated":
            notes.append(f"Not every point of the stream is in this cache: it lacks {listed}.")
        else:
            notes.append(
                f"The rows are not complete: {' and '.join(kinds(rows.missing))} missing. Each row is exact by itself, "
                f"but their sum is not the model's value, because this cache lacks {listed}."
            )
    if by == "accumulated" and structure.point not in rows.components and structure.point.layer is not None:
        notes.append(
            f"The stream at the target's point `{structure.point.label}` is not in this cache. The last cached point "
            f"before it is `{rows.components[-1].label}`."
        )
    elif by == "accumulated" and structure.point not in rows.components:
        notes.append(
            "The stream at the end of the model is not in this cache (a run that stopped early, or `names_filter`): "
            f"the last point is `{rows.components[-1].label}`, which is not the model's final prediction."
        )
    start = next((row for row in rows.components if row.kind == "pre"), None) if by != "accumulated" else None
    if start:
        notes.append(
            f"The row `{start.label}` is all that was written before layer {start.layer}: not all components "
            "before it (such as the embeddings) are in this cache."
        )
    part: Literal["attn", "mlp"] = "attn" if by == "head" else "mlp"
    kind, sublayer = ("heads", "attention") if by == "head" else ("neurons", "the MLP")
    if by in ("head", "neuron") and (layers := _unchecked(view, rows, part)):
        notes.append(
            f"It was not checked whether the {kind} of {named_layers(layers)} add up to the output of {sublayer}: "
            f"`hook_{part}_out` is not in this cache."
        )
    return notes


def later_note(structure: Structure) -> str:
    """Return a note that the rows of components after the target's point are 0."""
    layer, count = structure.layers, structure.view.n_layers
    later = [f"the MLP of layer {layer - 1}"] if structure.ends_within(layer - 1) else []
    later += [named_layers(range(layer, count))] if layer < count else []
    return (
        f"The target is read at `{structure.point.label}`: the rows of {' and '.join(later)}, which come after it, are "
        "0."
    )


def _listed(view: CacheView, names: Iterable[str]) -> list[str]:
    """Names of activations, each with the layers that lack it (unless all layers lack it)."""
    layers: dict[str, list[int]] = {}
    for name in names:
        of_name = layers.setdefault(ending(name), [])
        if name.startswith("blocks."):
            of_name.append(int(name.split(".")[1]))
    return [
        f"`{name}`" if not some or len(some) == view.n_layers else f"`{name}` of {named_layers(some)}"
        for name, some in layers.items()
    ]


def _unchecked(view: CacheView, rows: Rows, part: Literal["attn", "mlp"]) -> list[int]:
    """The split layers whose sublayer output was not cached. There the sum of the rows cannot be checked."""
    return [layer for layer in rows.split if not view.has(f"blocks.{layer}.hook_{part}_out")]
