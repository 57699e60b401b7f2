"""Compares the sum of the rows with the residual stream, layer by layer.

Where they differ, a row is read from the stream instead, or a note gives the cause of the unexplained rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from residscope.attribution.components import stream_points
from residscope.attribution.plan import BIAS_KIND, COMPONENT_KIND, Rows
from residscope.attribution.readout import Readout
from residscope.attribution.rounding import rounding
from residscope.attribution.row_values import contributions_of
from residscope.attribution.sublayer_parts import layer_heads
from residscope.base.numbered import named_layers
from residscope.cache.output_maps import coarse
from residscope.cache.structure import OUT, ComponentTerms, Structure, Terms
from residscope.cache.structure_notes import TRAINING, float8, in_training
from residscope.cache.unembedding import READ_BY_UNEMBEDDING
from residscope.compute.precision import step_of
from residscope.compute.progress import report_progress
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Reconciled:
    """Rows, and how well their sum agrees with the model.

    Attributes:
        structure: The structure from which the rows were made.
        rows: The rows.
        tolerance: Differences up to this between the rows' sum and the measured value count as rounding.
        stream_tolerance: Differences up to this between the rows' sum and the stream count as rounding.
        unexplained: The largest difference between the rows' sum and the measured value. 0 if that value is not known,
            or if rows are missing.
        finite: Whether the sums, the differences, and the stream that gives the tolerance are finite.
    """

    structure: Structure
    rows: Rows
    tolerance: float
    stream_tolerance: float
    unexplained: float
    finite: bool


def reconcile(
    readout: Readout,
    build: Callable[[Structure], Rows],
    expected: Float[Tensor, "batch pos"] | None,
    measured: Float[Tensor, "batch pos"] | None = None,
    logits: Tensor | None = None,
) -> Reconciled:
    """Find the structure whose rows sum to the expected value, and return these rows.

    The usual structure fits most models, and then one comparison is enough. If it does not fit, the structure is read
    from the cache layer by layer, and the rows are made again.

    Args:
        readout: Reads the target from the stream.
        build: Makes the rows from a structure.
        expected: The value that the rows must sum to. None if it is not known.
        measured: The measured value minus the constant, if it is known.
        logits: The logits from which the measured value was read, if the user gave them.
    """
    rows = build(readout.structure)
    if rows.missing:  # an incomplete sum can only be compared layer by layer
        expected = measured = None
    result, difference = _compared(readout, readout.structure, rows, expected, measured, logits)
    if _agrees(result, difference) or not result.finite:
        return result
    most = _most_products(readout)
    result, difference = _compared(readout, readout.structure, rows, expected, measured, logits, most)
    if _agrees(result, difference):
        return result
    structure = corrected_structure(readout, result.structure, result.rows, result.stream_tolerance / 2)
    return _compared(readout, structure, build(structure), expected, measured, logits, most)[0]


def _agrees(result: Reconciled, difference: float) -> bool:
    """Whether the rows are complete, and sum to the expected value."""
    return difference <= result.stream_tolerance and not result.rows.missing


def _most_products(readout: Readout) -> Tensor | None:
    """The largest `products_at` over the cached points of the stream. None if no point was cached.

    Coordinates may be far larger at an earlier point than at the target's point, if later layers cancel them. Reading
    all points takes longer, so this is done only if the first comparison finds a difference.
    """
    import torch

    points = [term for terms in stream_points(readout.structure).values() for term in terms]
    lengths = [readout.products_at(name) * abs(factor) for name, factor in points if readout.view.has(name)]
    return torch.stack(lengths).max() if lengths else None


def _compared(
    readout: Readout,
    structure: Structure,
    rows: Rows,
    expected: Tensor | None,
    measured: Tensor | None,
    logits: Tensor | None,
    products: Tensor | None = None,
) -> tuple[Reconciled, float]:
    """Compare the sum of the rows with the measured value. Also return how much the sum differs from `expected`.

    All numbers are read from the GPU in one transfer. If `products` is None, `readout.products` is used.
    """
    import torch

    total = rows.values.sum(0)
    zero = total.new_zeros(())
    differences = [zero if value is None else (value - total).abs().max() for value in (expected, measured)]
    uneven = not isinstance(rows.step, float)
    added = (rows.values * rows.step if uneven else rows.values).pow(2).sum(0).sqrt().max()
    whole = added if not uneven else rows.values.pow(2).sum(0).sqrt().max()
    sums = [total.abs().max(), readout.functional.constant.abs().max()]
    numbers = [*differences, added, whole, *sums, readout.products if products is None else products]
    difference, unexplained, row_rounding, size, summed, constant, length = torch.stack(numbers).tolist()
    finite = all(map(math.isfinite, (difference, unexplained, size, length)))
    # Each row has its own rounding: one row of low precision does not make the others less precise.
    row_rounding *= 1.0 if uneven else float(rows.step)
    base = readout.view.rounding_step(*_ends(readout))

    def rounded(step: float, size: float) -> float:
        return rounding(
            step,
            row_rounding,
            rows=size,
            total=summed,
            products=length,
            layers=readout.view.n_layers,
            floor=readout.floor,
        )

    tolerance = rounded(max(base, _logits_step(readout, logits)), math.hypot(size, constant))
    of_stream = rounded(base, size) if _stream_known(readout) else tolerance
    return Reconciled(structure, rows, tolerance, of_stream, unexplained, finite), difference


def stream_tolerance(readout: Readout, compared: Float[Tensor, "batch pos"], logits: Tensor | None = None) -> float:
    """Return the largest difference that counts as rounding between the stream and the measured value.

    Args:
        readout: Reads the target from the stream.
        compared: The target, read from the stream.
        logits: The logits from which the measured value was read, if the user gave them.
    """
    base = max(readout.view.rounding_step(*_ends(readout)), _logits_step(readout, logits))
    total, constant = float(compared.abs().max()), float(readout.functional.constant.abs().max())
    size = math.hypot(total, constant)
    return rounding(
        base,
        0.0,
        rows=size,
        total=total,
        products=float(readout.products),
        layers=readout.view.n_layers,
        floor=readout.floor,
    )


def _ends(readout: Readout) -> tuple[str, ...]:
    """The activations that all rows share: the stream at the point, and the scale of the norm at the point."""
    return readout.stream, readout.point.scale_name


def _stream_known(readout: Readout) -> bool:
    return readout.view.has(_ends(readout)[0])


def _logits_step(readout: Readout, logits: Tensor | None) -> float:
    """The relative rounding step of the measured value."""
    if readout.measured_in is not None:
        return readout.view.rounding_step(*readout.measured_in)
    if logits is not None and hasattr(logits, "dtype"):
        return step_of(logits.dtype)
    name = readout.view.first("unembed.hook_out", "hook_unembed", READ_BY_UNEMBEDDING, "ln_final.hook_out")
    return 0.0 if name is None else readout.view.rounding_step(name)


def corrected_structure(readout: Readout, structure: Structure, rows: Rows, tolerance: float) -> Structure:
    """Return the structure with which the rows sum to the stream, layer by layer.

    Each layer's rows are compared with what the layer adds to the cached stream. The heads or neurons of a sublayer
    are compared with the sublayer's output. A layer whose activations were not cached is not changed.

    Args:
        readout: Reads the target from the stream.
        structure: The structure from which the rows were made.
        rows: Rows that do not sum to the stream.
        tolerance: Differences up to this count as rounding.
    """
    view = readout.view

    def differ(one: Terms, others: ComponentTerms) -> bool:
        step = view.rounding_step(*_names([one]), *_names(others.values()))
        return differ_clearly(_sum_of(readout, [one]), _sum_of(readout, others.values()), tolerance, step)

    entered = structure.entered or differ((("blocks.0.hook_resid_pre", structure.carries[0]),), structure.embeddings())
    whole: set[int] = set()
    unsplit: dict[str, set[int]] = {"attn": set(), "mlp": set()}
    for layer in range(structure.layers):
        report_progress(layer, structure.layers)
        terms = structure.sublayers(layer)
        for part in COMPONENT_KIND:
            split = rows.sum(layer, COMPONENT_KIND[part], BIAS_KIND[part])
            output = terms.get(Component(OUT[part], layer))
            if split is None or output is None:
                continue
            step = _split_step(readout, output, layer, part)
            if differ_clearly(_sum_of(readout, [output]), split, tolerance, step):
                unsplit[part].add(layer)
        if differ(structure.added(layer), terms):
            whole.add(layer)
    splits = frozenset(unsplit["attn"] - whole), frozenset(unsplit["mlp"] - whole)
    return Structure(view, frozenset(whole), entered, *splits, structure.point)


def heads_add_up(readout: Readout, structure: Structure, layer: int, tolerance: float) -> bool:
    """Return whether a layer's heads and bias sum to its attention output. True if that output was not cached."""
    heads, bias = layer_heads(readout, layer)
    total = heads.sum(0) if bias is None else heads.sum(0) + bias
    output = structure.sublayers(layer).get(Component("attn_out", layer), ())
    step = _split_step(readout, output, layer, "attn")
    return not differ_clearly(_sum_of(readout, [output]) if output else None, total, tolerance, step)


def differ_clearly(stream: Tensor | None, rows: Tensor | None, tolerance: float, step: float) -> bool:
    """Return whether rows differ from the cache by clearly more than rounding.

    The limit is wide, because TF32 rounds more than the dtype of the activations suggests.

    Args:
        stream: The value in the cache.
        rows: The sum of the rows.
        tolerance: Differences up to this count as rounding.
        step: The relative rounding step of the compared values.
    """
    size = 0.0 if stream is None else float(stream.abs().max())
    return gap(stream, rows) > max(tolerance, max(2e-3, 4 * step) * size)


def _split_step(readout: Readout, output: Terms, layer: int, part: Literal["attn", "mlp"]) -> float:
    """The relative rounding step of a sublayer's output and of the heads or neurons into which it is split."""
    read = f"blocks.{layer}.{'attn.hook_z' if part == 'attn' else 'mlp.hook_post'}"
    return max(readout.view.rounding_step(*_names([output]), read), coarse(readout.view, layer, part))


def _names(sums: Collection[Terms]) -> list[str]:
    return [name for terms in sums for name, _ in terms]


def _sum_of(readout: Readout, sums: Collection[Terms]) -> Tensor | None:
    """The summed contribution of all terms. None if an activation was not cached."""
    known = all(readout.view.has(name) for name in _names(sums))
    return contributions_of(readout, readout.functional, sums).sum(0) if known else None


def reasons(
    readout: Readout,
    structure: Structure,
    target: Float[Tensor, "batch pos"],
    tolerance: float,
    rows: Rows | None = None,
) -> list[str]:
    """Return sentences on why the rows do not sum to the target, and on where in the model the difference arises.

    Rounding is given as the reason only if every place was compared and no place differs.

    Args:
        readout: Reads the target from the stream.
        structure: The structure from which the rows were made.
        target: The measured value minus the constant.
        tolerance: Differences up to this count as rounding.
        rows: The rows whose sum is compared. None if the rows are points of the stream.
    """
    view = readout.view
    unknown: dict[str, None] = {}

    def missing(*sums: Terms) -> bool:
        absent = [name for name in _names(sums) if not view.has(name)]
        unknown.update(dict.fromkeys(absent))
        return bool(absent)

    between: dict[int, float] = {}
    final, layers = structure.point.layer is None, structure.layers
    for layer in range(1, layers + (structure.point.kind == "pre")):
        points = (f"blocks.{layer}.hook_resid_pre", f"blocks.{layer - 1}.hook_resid_post")
        if missing(*(((point, 1.0),) for point in points)):
            continue
        jump = gap(*(contribution_at(readout, point) for point in points))
        if jump > tolerance:
            between[layer] = jump
    notes: list[str] = []
    if between:
        most = max(between.values())
        notes.append(f"{most:.2g} arises before {named_layers(between)}: the model changes the stream there.")
    last = contribution_at(readout, readout.stream)
    if last is None:
        notes.append(
            f"The cache has no `{readout.stream}`, so it cannot be determined "
            "where the rest arises. Some models normalise the stream itself after each sublayer. No fixed direction "
            "can undo this."
        )
    elif gap(target, last) > tolerance and not final:
        notes.append(
            f"{gap(target, last):.2g} arises after the point `{structure.point.label}`. Possible causes: the layer "
            "that reads the stream does more than a norm and a linear map; its weights were changed since the cache "
            "was made (training, another checkpoint); a hook changed its input."
        )
    elif gap(target, last) > tolerance:
        notes.append(
            f"{gap(target, last):.2g} arises after the last layer. Possible causes: this model does more between "
            "`hook_resid_post` and the logits than a final norm and an unembedding; the weights there were changed "
            "since the cache was made (training, another checkpoint); the measured value comes from another run."
        )
    inside: dict[int, float] = {}
    apart: dict[int, float] = {}
    for layer in () if notes else range(layers):
        added = structure.added(layer)
        sublayers = [] if layer in structure.whole else [*structure.sublayers(layer).values()]
        layer_rows = None if rows is None else rows.sum(layer)
        if missing(added):
            continue
        whole = _sum_of(readout, [added])
        unexplained = gap(whole, _sum_of(readout, sublayers) if sublayers else None)
        if unexplained > tolerance / 4:
            inside[layer] = unexplained
        elif layer_rows is not None and gap(whole, layer_rows) > tolerance / 4:
            apart[layer] = gap(whole, layer_rows)
        elif layer_rows is None:
            missing(*sublayers)
    if inside:
        notes.append(
            f"{max(inside.values()):.2g} arises in {named_layers(inside)}: more is added to the stream there than the "
            "cached outputs of attention and MLP."
        )
    if apart:
        notes.append(
            f"{max(apart.values()):.2g} arises in {named_layers(apart)}: the rows there do not add up to what is added "
            f"to the stream{f'. {rough}' if (rough := float8(view, apart)) else _PERHAPS}"
        )
    start, embeddings = (("blocks.0.hook_resid_pre", structure.carries[0]),), [*structure.embeddings().values()]
    if not notes and not missing(start, *embeddings):
        entered = gap(_sum_of(readout, [start]), _sum_of(readout, embeddings))
        if entered > tolerance / 4:
            notes.append(
                f"{entered:.2g} arises before layer 0: the stream there is not the sum of the cached embeddings "
                "(`hook_embed` and so on)."
            )
    if in_training(view.model):
        notes.append(TRAINING)
    if not notes and unknown:
        some = ", ".join(f"`{name}`" for name in list(unknown)[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        return [
            f"It cannot be determined where the unexplained rest arises: the cache lacks {some}{more}. Cache them to "
            "find out."
        ]
    return notes or [
        "The unexplained rest arises at no single place (all were compared): the model rounds more than the precision "
        "of this cache suggests (TF32, autocast, or a cache that was converted to a wider dtype)."
    ]


_PERHAPS = (
    ": a hook changed something, the cache was edited, or the model's weights were changed since (training, "
    "compatibility mode)."
)


def contribution_at(readout: Readout, name: str) -> Tensor | None:
    """Return the contribution of an activation of the stream. None if it was not cached."""
    return readout.functional(readout.view.raw(name, readout.positions)) if readout.view.has(name) else None


def gap(one: Tensor | None, other: Tensor | None) -> float:
    """Return the largest absolute difference. 0 if one of the values is not known."""
    return 0.0 if one is None or other is None else float((one - other).abs().max())


def expected_sum(readout: Readout, measured: Float[Tensor, "batch pos"] | None) -> Float[Tensor, "batch pos"] | None:
    """Return the value that the rows must sum to: the stream at the point. If it was not cached, `measured`."""
    stream = contribution_at(readout, readout.stream)
    return measured if stream is None else stream
