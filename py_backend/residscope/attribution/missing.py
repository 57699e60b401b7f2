"""What a decomposition leaves out, since it was not cached, in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from residscope.attribution.components import Rows, reads
from residscope.cache.norms import Norm
from residscope.cache.structure import Structure, named_layers
from residscope.cache.view import CacheView, ending, not_cached
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
    """What keeps rows from being complete, in words; points of the stream are no parts of a sum."""
    return [] if by == "accumulated" else kinds(missing)


def kinds(names: Iterable[str]) -> list[str]:
    """What rows lack without these activations: "MLPs", "embeddings"."""
    return list(dict.fromkeys(_WORDS.get(ending(name), "other parts") for name in names))


def check_cached(view: CacheView, by: By, *, held: bool) -> None:
    """Refuse a decomposition whose way to the target was not cached: all that it lacks is named at once.

    Args:
        view: The cache.
        by: The decomposition.
        held: Whether the final norm's scale is held at its cached value.
    """
    last = view.n_layers - 1
    stream = f"blocks.{last}.hook_resid_post"
    norm = Norm.of(getattr(view.model, "ln_final", None), view)
    if not held or not norm.divides or view.first("ln_final.hook_scale", stream):
        return
    others = [name for name in reads(view, by) if not view.has(name)]
    refusal = not_cached(*others, *([] if stream in others else ["ln_final.hook_scale"]))
    if by == "accumulated" and not others:  # a run that stopped early has points, and no end
        said = f'{refusal} With the norm recomputed at each point (`norm="recomputed"`) none of this is needed.'
        refusal = ResidscopeError(refusal.code, said)
    raise refusal


def absent(structure: Structure, by: By, rows: Rows) -> list[str]:
    """Notes on what is not there."""
    view, said = structure.view, list[str]()
    if (
        by != "accumulated"
        and Component("embed") in rows.rest
        and structure.read_where_it_enters
        and not structure.entered
    ):
        said.append(
            "The row `embed` is all that enters layer 0 (`blocks.0.hook_resid_pre`): the embeddings themselves are not "
            "in this cache."
        )
    if rows.missing:
        listed = "; ".join(_listed(view, rows.missing))
        if by == "accumulated":
            said.append(f"Not every point of the stream is in this cache: it lacks {listed}.")
        else:
            said.append(
                f"The rows are not complete: {' and '.join(kinds(rows.missing))} missing. Each row is exact by itself; "
                f"their sum is not the model's figure, since this cache lacks {listed}."
            )
    if by == "accumulated" and Component("final_post") not in rows.components:
        said.append(
            "The stream at the end of the model is not in this cache (a run that stopped early, or `names_filter`): "
            f"the last point is `{rows.components[-1].label}`, which is not what the model says at its end."
        )
    start = next((row for row in rows.components if row.kind == "pre"), None) if by == "layer" else None
    if start:
        said.append(
            f"The row `{start.label}` is all that was written before layer {start.layer}: its parts, the embeddings "
            "among them, are not in this cache."
        )
    part: Literal["attn", "mlp"] = "attn" if by == "head" else "mlp"
    of, writes = ("heads", "attention") if by == "head" else ("neurons", "the MLP")
    if by in ("head", "neuron") and (layers := _unchecked(view, rows, part)):
        said.append(
            f"That the {of} of {named_layers(layers)} add up to what {writes} writes was not checked: "
            f"`hook_{part}_out` is not in this cache."
        )
    return said


def _listed(view: CacheView, names: Iterable[str]) -> list[str]:
    """Activations by their endings, with their layers where some of these were cached."""
    layers: dict[str, list[int]] = {}
    for name in names:
        found = layers.setdefault(ending(name), [])
        if name.startswith("blocks."):
            found.append(int(name.split(".")[1]))
    return [
        f"`{name}`" if not own or len(own) == view.n_layers else f"`{name}` of {named_layers(own)}"
        for name, own in layers.items()
    ]


def _unchecked(view: CacheView, rows: Rows, part: Literal["attn", "mlp"]) -> list[int]:
    """The layers that are told apart, and nothing tells what they write there in all."""
    return [layer for layer in rows.split if not view.has(f"blocks.{layer}.hook_{part}_out")]
