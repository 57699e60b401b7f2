"""The rows of an SAE or a transcoder: its features, its error and its bias, in the place of what it reconstructs.

The site is the activation that the SAE reconstructs: the output of a sublayer, the output of all heads together, or the
stream at a point. Σ features + b_dec + error (+ the skip connection of a transcoder) = the row of the site. If the site
is the output of all heads (`hook_z`), the attention's bias is one more row. If the site is the stream at a point, its
row replaces all rows before that point. All other rows are those of `by="layer"`, so that all rows still sum to the
target.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from residscope.attribution.plan import Rows
from residscope.attribution.readout import Functional, Readout
from residscope.attribution.reconcile import differ_clearly
from residscope.attribution.rounding import SMALLEST_SHARE
from residscope.attribution.sublayer_parts import head_directions
from residscope.base.legible import cut
from residscope.cache.dictionaries import Dictionary
from residscope.cache.dictionary_sites import setting
from residscope.cache.structure import Structure
from residscope.cache.view_refusals import not_cached
from residscope.compute.projection import distinct, project
from residscope.errors import ResidscopeError
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_MOST_VALUES = 1 << 25
"""The features' own rows have at most this many values: 128 MB in float32. All other features share one row."""


@dataclass(frozen=True)
class Expanded:
    """Rows in which the rows of an SAE replace the row of its site.

    Attributes:
        rows: The rows: the error, the features (strongest first), and all others.
        rounding: The largest part of the target that the rows leave over because `decode` rounds.
        notes: Notes on the SAE.
    """

    rows: Rows
    rounding: float
    notes: list[str]


def expanded(readout: Readout, structure: Structure, rows: Rows, dictionary: Dictionary) -> Expanded:
    """Return the rows, in which the rows of a dictionary replace the row of its site.

    Args:
        readout: Reads the target from the stream.
        structure: The structure from which the rows were made.
        rows: The rows, with one for the site.
        dictionary: The SAE or transcoder.

    Raises:
        ResidscopeError: If the site has no row of its own, or the SAE cannot be used.
    """
    import torch

    view, site = readout.view, dictionary.site
    row = site.row(view)
    if row not in rows.components:
        raise _no_row(structure, dictionary)
    at = rows.components.index(row)
    functional, bias = _functional(readout, structure, dictionary)
    found = _read(readout, dictionary, functional)
    components: list[Component] = [Component("error"), *(Component("feature", None, n) for n in found.features)]
    values = [found.error[None], found.values]
    parts = len(components)
    added = (Component("other_features"), Component("b_dec"), Component("skip"), Component("attn_bias", site.layer))
    for component, value in zip(added, (found.others, found.bias, found.skip, bias), strict=True):
        if value is not None:
            components.append(component)
            values.append(value[None])
    if site.kind == "attn.hook_z":
        summed, tolerance = torch.cat(values).sum(0), readout.floor or 1e-5
        step = view.rounding_step(site.written, f"blocks.{site.layer}.hook_attn_out")
        if differ_clearly(rows.values[at], summed, max(tolerance, 2 * found.rounding), step):
            raise ResidscopeError(
                "sae",
                f"The {dictionary.name}: in layer {site.layer} the heads (z @ W_O) and the bias are not all of "
                "`hook_attn_out`, so what the features add to the stream is not known.",
            )
    others = [place for place in range(len(rows.components)) if place != at]
    whole = Rows(
        [*components, *(rows.components[place] for place in others)],
        torch.cat([*values, rows.values[others]]),
        parts,
        missing=rows.missing,
    )
    return Expanded(whole, found.rounding, _notes(readout, dictionary, found))


def _no_row(structure: Structure, dictionary: Dictionary) -> ResidscopeError:
    """The error that says why no row of the decomposition can be divided into features."""
    site = dictionary.site
    if site.layer in structure.whole:
        return ResidscopeError(
            "sae",
            f"The {dictionary.name} has no contribution of its own: in layer {site.layer} the outputs of attention and "
            "MLP in the cache are not what is added to the stream (the model scales them or adds something else, or a "
            "hook did).",
        )
    output = site.written if site.kind != "attn.hook_z" else f"blocks.{site.layer}.hook_attn_out"
    if not structure.view.has(output):
        return not_cached(output)
    return ResidscopeError(
        "sae",
        f"The {dictionary.name} has no contribution of its own: this cache lacks components before layer "
        f"{site.layer}, so everything that was written before it is one row. Cache every `hook_attn_out` and "
        "`hook_mlp_out`.",
    )


def _functional(
    readout: Readout, structure: Structure, dictionary: Dictionary
) -> tuple[Functional, Float[Tensor, "batch pos"] | None]:
    """The functional of the dictionary's site, and the contribution of the attention's bias if the site is `hook_z`."""
    site, functional = dictionary.site, readout.functional
    if site.kind == "attn.hook_z":
        direction, divisor, bias = head_directions(readout, site.layer)
        return Functional(direction.flatten(1), divisor, divisor * 0), bias
    point = site.point(readout.view)
    if point is not None:
        first = structure.layers if point.layer is None else point.layer
        factor = 1.0 if point == structure.point else structure.carries[first]
    else:
        terms = structure.sublayers(site.layer)[site.row(readout.view)]
        factor = next((factor for name, factor in terms if name == dictionary.written and len(terms) == 1), None)
        if factor is None:
            raise not_cached(site.written)
    if factor == 1:
        return functional, None
    vector = (distinct(functional.vector) * factor).expand(functional.vector.shape)
    return replace(functional, vector=vector), None


@dataclass(frozen=True)
class _Read:
    """The rows of a dictionary, `[batch, pos]` each.

    Attributes:
        features: The features that have a row of their own.
        values: Their contributions.
        error: The contribution of the reconstruction's error.
        bias: The contribution of the decoder's bias.
        skip: The contribution of a transcoder's skip connection, if there is one.
        others: The summed contribution of all other features, if there are any.
        rounding: The largest part of the target that is left over because `decode` rounds.
        length: The summed length of the errors, as a share of the summed length of what is reconstructed.
    """

    features: list[int]
    values: Float[Tensor, "feature batch pos"]
    error: Float[Tensor, "batch pos"]
    bias: Float[Tensor, "batch pos"]
    skip: Float[Tensor, "batch pos"] | None
    others: Float[Tensor, "batch pos"] | None
    rounding: float
    length: float


def _read(readout: Readout, dictionary: Dictionary, functional: Functional) -> _Read:
    """Encode the cached activations at the positions that are read, and project the results on the functional."""
    import torch

    view, positions = readout.view, readout.positions
    inputs = view.raw(dictionary.read, positions).flatten(0, 1)
    outputs = view.raw(dictionary.written, positions).flatten(0, 1).flatten(1)
    dictionary.check_each_alone(view.get(dictionary.read).flatten(0, 1))
    vector, divisor = functional.vector, functional.divisor.flatten()
    prompt = torch.arange(view.batch, device=vector.device).repeat_interleave(functional.divisor.shape[1])
    one_each: list[list[Tensor]] = [[], [], [], []]  # the error, the bias, the skip connection, and the rest
    where: list[Tensor] = []
    which: list[Tensor] = []
    active: list[Tensor] = []
    normalised, sizes = False, [0.0, 0.0]
    for part, code in dictionary.codes(inputs):
        own, by = vector[prompt[part]], divisor[part]

        def contribution(vectors: Tensor, own: Tensor = own, by: Tensor = by) -> Tensor:
            return (vectors * own).sum(1) / by

        skip = 0 if code.skip is None else code.skip
        written = outputs[part].to(view.like)
        error = written - code.reconstruction - skip
        left = code.reconstruction - code.bias - code.activations @ code.directions
        for kept, vectors in zip(one_each, (error, code.bias, code.skip, left), strict=True):
            if vectors is not None:
                kept.append(contribution(vectors))
        sizes = [size + float(one.norm(dim=1).sum()) for size, one in zip(sizes, (error, written), strict=True)]
        row, place = code.activations.nonzero(as_tuple=True)
        where.append(row + part.start)
        which.append(code.features[place])
        active.append(code.activations[row, place])
        normalised = normalised or code.normalised
    features, index = torch.cat(which).unique(return_inverse=True)
    rows, activations = torch.cat(where), torch.cat(active)
    directions = vector.new_zeros(len(vector), 0)
    if len(features):
        directions = project(dictionary.directions(features, normalised=normalised), vector)
    contributions = activations * directions[prompt[rows], index] / divisor[rows]
    shape = functional.divisor.shape
    order, kept = _strongest(index, contributions, len(features), divisor.numel())
    values = contributions.new_zeros(len(order), divisor.numel())
    is_kept = kept[index] >= 0
    values[kept[index[is_kept]], rows[is_kept]] = contributions[is_kept]
    others = None
    if len(order) < len(features):
        others = contributions.new_zeros(divisor.numel()).index_add(0, rows[~is_kept], contributions[~is_kept])
    error, bias, skip, left = (torch.cat(one).reshape(shape) if one else None for one in one_each)
    assert error is not None
    assert bias is not None
    assert left is not None
    return _Read(
        features[order].tolist(),
        values.reshape(-1, *shape),
        error,
        bias,
        skip,
        None if others is None else others.reshape(shape),
        float(left.abs().max()) if left.numel() else 0.0,
        sizes[0] / max(sizes[1], 1e-30),
    )


def _strongest(
    index: Int[Tensor, " active"], contributions: Float[Tensor, " active"], count: int, width: int
) -> tuple[Int[Tensor, " kept"], Int[Tensor, " feature"]]:
    """The features that have a row of their own, strongest first, and the row of each feature (−1: none)."""
    import torch

    strength = contributions.new_zeros(count).index_add(0, index, contributions.abs())
    order = strength.argsort(descending=True, stable=True)[: max(1, _MOST_VALUES // max(width, 1))]
    kept = torch.full((count,), -1, device=index.device)
    kept[order] = torch.arange(len(order), device=index.device)
    return order, kept


def _notes(readout: Readout, dictionary: Dictionary, found: _Read) -> list[str]:
    """Notes on the SAE: what it leaves over, and what was assumed."""
    view, name = readout.view, dictionary.name
    notes = [
        f"The {name} leaves an error of {found.length:.0%} of the length of what it reconstructs. The row `error` is "
        "the contribution of this error to the target."
    ]
    if found.others is not None:
        notes.append(
            f"Only the strongest {len(found.features):,} features have a row each; all others are summed in "
            "`other_features`. Give one position to see more."
        )
    if found.rounding > SMALLEST_SHARE * max(float(found.bias.abs().max()), float(found.error.abs().max())):
        kind = str(dictionary.decoder.dtype).removeprefix("torch.")
        notes.append(
            f"The rows leave over up to {found.rounding:.2g} of the target: the SAE's own `decode` rounds ({kind})."
        )
    of_model = setting(dictionary.sae, "model_name")
    if isinstance(of_model, str) and of_model and _plain(of_model) != _plain(view.model_name):
        notes.append(
            f"The {name} was trained on “{cut(of_model)}”, and this model is named “{view.model_name}”. If they are "
            "not the same model, the SAE's features may mean nothing."
        )
    return notes


def _plain(name: str) -> str:
    """A model's name without its organisation, in lower case. TransformerLens has two names for GPT-2."""
    return name.rpartition("/")[2].lower().replace("gpt2-small", "gpt2")
