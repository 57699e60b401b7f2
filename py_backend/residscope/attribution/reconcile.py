"""Fits the rows to the residual stream: what must be read off it instead, and why something is left over."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from residscope.attribution.components import BIAS, PART, Rows, layer_heads, worth_of
from residscope.attribution.readout import Readout
from residscope.cache.structure import (
    OUT,
    TRAINING,
    Pieces,
    Structure,
    Terms,
    coarse,
    float8,
    in_training,
    named_layers,
)
from residscope.cache.unembedding import READ_BY_UNEMBEDDING
from residscope.compute.precision import step_of
from residscope.compute.progress import report_progress
from residscope.compute.projection import distinct
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Fitted:
    """Rows, and how they fit.

    Attributes:
        structure: What they are made from.
        rows: The rows.
        tolerance: What counts as rounding between their sum and the model's own figure.
        close: What counts as rounding between their sum and the stream.
        left: The largest difference between their sum and the model's own figure; 0 where it is not known, or rows
            are missing.
        finite: Whether all of that is a number.
    """

    structure: Structure
    rows: Rows
    tolerance: float
    close: float
    left: float
    finite: bool


def reconcile(
    readout: Readout,
    build: Callable[[Structure], Rows],
    goal: Float[Tensor, "batch pos"] | None,
    own: Float[Tensor, "batch pos"] | None = None,
    logits: Tensor | None = None,
) -> Fitted:
    """Rows that add up to the goal, and the structure they are made from.

    Most models are as most models are, and then this is one comparison. Where it fails, the structure is read off the
    cache layer by layer, and the rows are made again.

    Args:
        readout: The way to the target.
        build: Makes the rows from a structure.
        goal: What they must add up to; None where it is not known.
        own: The model's own figure less the constant, where it is known.
        logits: What that was read from, where the user gave it.
    """
    rows = build(readout.structure)
    if rows.missing:  # their sum is nobody's figure: what was cached is compared layer by layer
        goal = own = None
    fitted, off = _compared(readout, readout.structure, rows, goal, own, logits)
    if (off <= fitted.close and not rows.missing) or not fitted.finite:
        return fitted
    structure = mended(readout, fitted.structure, fitted.rows, fitted.close / 2)
    return _compared(readout, structure, build(structure), goal, own, logits)[0]


def _compared(
    readout: Readout,
    structure: Structure,
    rows: Rows,
    goal: Tensor | None,
    own: Tensor | None,
    logits: Tensor | None,
) -> tuple[Fitted, float]:
    """How rows fit, and how far their sum is from the goal: all that must be waited for on a GPU, in one go."""
    import torch

    total = rows.values.sum(0)
    goals = [None if figure is None else (figure - total).abs().max() for figure in (goal, own)]
    nothing = total.new_zeros(())
    uneven = not isinstance(rows.step, float)
    added = (rows.values * rows.step if uneven else rows.values).pow(2).sum(0).sqrt().max()
    whole = added if not uneven else rows.values.pow(2).sum(0).sqrt().max()
    figures = [*(nothing if figure is None else figure for figure in goals), added, whole, _longest(readout)]
    off, left, own_rounding, size, longest = torch.stack(figures).tolist()
    finite = all(map(math.isfinite, (off, left, size)))
    # Each row is rounded by itself: one that is coarse makes no other coarse.
    own_rounding *= 1.0 if uneven else float(rows.step)
    base = readout.view.rounding_step(*_ends(readout))
    tolerance = _rounding(readout, max(base, _logits_step(readout, logits)), own_rounding, size, longest)
    close = _rounding(readout, base, own_rounding, size, longest) if _stream_known(readout) else tolerance
    return Fitted(structure, rows, tolerance, close, left, finite), off


def rounding(readout: Readout, added: Float[Tensor, "batch pos"], logits: Tensor | None = None) -> float:
    """Up to here what is left over is rounding, where the stream itself is compared with the model's own figure.

    Args:
        readout: The way to the target.
        added: What is compared.
        logits: What the model's own figure was read from, where the user gave it.
    """
    base = max(readout.view.rounding_step(*_ends(readout)), _logits_step(readout, logits))
    return _rounding(readout, base, 0.0, float(added.abs().max()), float(_longest(readout)))


def _rounding(readout: Readout, step: float, own: float, added: float, longest: float) -> float:
    """What counts as rounding.

    There are two kinds: that of the rows (they are independent, so they add up like their squares), and that of the
    stream, which the model rounds at each of its additions, in all directions alike. 1e-4 is below what anyone is
    shown.

    Args:
        readout: The way to the target.
        step: The relative rounding step of the stream and of what else all rows share.
        own: The rounding of the rows, by the precision of each.
        added: The root of the sum of their squares.
        longest: The length of the longest direction.
    """
    between = step * 0.5 * math.sqrt(2 * readout.view.n_layers) * longest
    return max(1e-4, 2 * max(own, step * added) + between)


def _ends(readout: Readout) -> tuple[str, ...]:
    """What all rows share: the end of the stream, and the final norm's scale."""
    return f"blocks.{readout.view.n_layers - 1}.hook_resid_post", "ln_final.hook_scale"


def _stream_known(readout: Readout) -> bool:
    return readout.view.has(_ends(readout)[0])


def _logits_step(readout: Readout, logits: Tensor | None) -> float:
    """The relative rounding step of the model's own figure."""
    if logits is not None and hasattr(logits, "dtype"):
        return step_of(logits.dtype)
    name = readout.view.first("unembed.hook_out", "hook_unembed", READ_BY_UNEMBEDDING, "ln_final.hook_out")
    return 0.0 if name is None else readout.view.rounding_step(name)


def _longest(readout: Readout) -> Tensor:
    return distinct(readout.functional.vector).norm(dim=-1).max()


def mended(readout: Readout, structure: Structure, rows: Rows, tolerance: float) -> Structure:
    """The structure for which the rows add up to the stream, layer by layer.

    Each layer's rows are held against what it adds to the residual stream in the cache, split sublayers against the
    sublayer's output. Where the cache has not the points to compare, nothing is changed.

    Args:
        readout: The way to the target.
        structure: What the rows were made from.
        rows: Rows that do not add up.
        tolerance: What counts as rounding.
    """
    view = readout.view

    def differ(one: Terms, other: Pieces) -> bool:
        step = view.rounding_step(*_names([one]), *_names(other.values()))
        return other_structure(_sum_of(readout, [one]), _sum_of(readout, other.values()), tolerance, step)

    entered = differ((("blocks.0.hook_resid_pre", structure.carries[0]),), structure.embeddings())
    whole: set[int] = set()
    unsplit: dict[str, set[int]] = {"attn": set(), "mlp": set()}
    for layer in range(view.n_layers):
        report_progress(layer, view.n_layers)
        pieces = structure.sublayers(layer)
        for part in PART:
            split = rows.sum(layer, PART[part], BIAS[part])
            output = pieces.get(Component(OUT[part], layer))
            if split is None or output is None:
                continue
            fineness = _split_step(readout, output, layer, part)
            if other_structure(_sum_of(readout, [output]), split, tolerance, fineness):
                unsplit[part].add(layer)
        if differ(structure.added(layer), pieces):
            whole.add(layer)
    return Structure(
        view, frozenset(whole), entered, frozenset(unsplit["attn"] - whole), frozenset(unsplit["mlp"] - whole)
    )


def heads_add_up(readout: Readout, structure: Structure, layer: int, tolerance: float) -> bool:
    """Whether a layer's heads and bias are what its attention writes; also where that cannot be compared."""
    worth, bias = layer_heads(readout, layer)
    total = worth.sum(0) if bias is None else worth.sum(0) + bias
    output = structure.sublayers(layer).get(Component("attn_out", layer), ())
    step = _split_step(readout, output, layer, "attn")
    return not other_structure(_sum_of(readout, [output]) if output else None, total, tolerance, step)


def other_structure(stream: Tensor | None, rows: Tensor | None, tolerance: float, step: float) -> bool:
    """Whether rows are not what the cache says: off by a good part, not by a little more than rounding (TF32).

    Args:
        stream: What the cache says.
        rows: What they add up to.
        tolerance: What counts as rounding.
        step: The relative rounding step of what is compared.
    """
    size = 0.0 if stream is None else float(stream.abs().max())
    return gap(stream, rows) > max(tolerance, max(2e-3, 4 * step) * size)


def _split_step(readout: Readout, output: Terms, layer: int, part: Literal["attn", "mlp"]) -> float:
    """The relative rounding step of a sublayer's output and of the parts that it is split into."""
    read = f"blocks.{layer}.{'attn.hook_z' if part == 'attn' else 'mlp.hook_post'}"
    return max(readout.view.rounding_step(*_names([output]), read), coarse(readout.view, layer, part))


def _names(pieces: Collection[Terms]) -> list[str]:
    return [name for terms in pieces for name, _ in terms]


def _sum_of(readout: Readout, pieces: Collection[Terms]) -> Tensor | None:
    """What pieces of the stream are worth together; None where one was not cached."""
    known = all(readout.view.has(name) for name in _names(pieces))
    return worth_of(readout, readout.functional, pieces).sum(0) if known else None


def reasons(
    readout: Readout,
    structure: Structure,
    target: Float[Tensor, "batch pos"],
    tolerance: float,
    rows: Rows | None = None,
) -> list[str]:
    """Why the rows do not add up to the target: what the model does between, in and after its layers.

    That it is rounding is said only where every place was compared and none is off.

    Args:
        readout: The way to the target.
        structure: What the rows are made from.
        target: The model's own figure less the constant.
        tolerance: What counts as rounding.
        rows: The rows that add up to what is compared; None where they are points of the stream.
    """
    view = readout.view
    unknown: dict[str, None] = {}

    def missing(*pieces: Terms) -> bool:
        absent = [name for name in _names(pieces) if not view.has(name)]
        unknown.update(dict.fromkeys(absent))
        return bool(absent)

    between: dict[int, float] = {}
    for layer in range(1, view.n_layers):
        points = (f"blocks.{layer}.hook_resid_pre", f"blocks.{layer - 1}.hook_resid_post")
        if missing(*(((point, 1.0),) for point in points)):
            continue
        jump = gap(*(worth(readout, point) for point in points))
        if jump > tolerance:
            between[layer] = jump
    said: list[str] = []
    if between:
        most = max(between.values())
        said.append(f"{most:.2g} arises before {named_layers(between)}: the model changes the stream there.")
    last = worth(readout, f"blocks.{view.n_layers - 1}.hook_resid_post")
    if last is None:
        said.append(
            f"The cache has no `blocks.{view.n_layers - 1}.hook_resid_post`, so where the rest arises cannot "
            "be determined; some models normalise the stream itself after each sublayer, which no fixed direction "
            "undoes."
        )
    elif gap(target, last) > tolerance:
        said.append(
            f"{gap(target, last):.2g} arises after the last layer: between `hook_resid_post` and the logits this model "
            "does more than a final norm and an unembedding, its weights there were changed since the cache was made "
            "(training, another checkpoint), or the figure is another run's."
        )
    inside: dict[int, float] = {}
    apart: dict[int, float] = {}
    for layer in () if said else range(view.n_layers):
        added = structure.added(layer)
        pieces = [] if layer in structure.whole else [*structure.sublayers(layer).values()]
        own = None if rows is None else rows.sum(layer)
        if missing(added):
            continue
        whole = _sum_of(readout, [added])
        left = gap(whole, _sum_of(readout, pieces) if pieces else None)
        if left > tolerance / 4:
            inside[layer] = left
        elif own is not None and gap(whole, own) > tolerance / 4:
            apart[layer] = gap(whole, own)
        elif own is None:
            missing(*pieces)
    if inside:
        said.append(
            f"{max(inside.values()):.2g} arises in {named_layers(inside)}: a little more is added to the stream "
            "there than the outputs of attention and MLP in the cache."
        )
    if apart:
        said.append(
            f"{max(apart.values()):.2g} arises in {named_layers(apart)}: the rows of it do not add up to what is added "
            f"to the stream there{f'. {rough}' if (rough := float8(view, apart)) else _PERHAPS}"
        )
    start, embeddings = (("blocks.0.hook_resid_pre", structure.carries[0]),), [*structure.embeddings().values()]
    if not said and not missing(start, *embeddings):
        entered = gap(_sum_of(readout, [start]), _sum_of(readout, embeddings))
        if entered > tolerance / 4:
            said.append(f"{entered:.2g} arises before layer 0: what enters it is not what `hook_embed` and so on hold.")
    if in_training(view.model):
        said.append(TRAINING)
    if not said and unknown:
        some = ", ".join(f"`{name}`" for name in list(unknown)[:3])
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        return [f"Where it arises cannot be determined: the cache does not hold {some}{more}. Cache them to find out."]
    return said or [
        "It arises at no single place (all were compared): the model itself rounds more than the precision of this "
        "cache suggests (TF32, autocast, a cache that was widened)."
    ]


_PERHAPS = (
    ": a hook changed something, the cache was edited, or the weights are not those of the cache any more (training, "
    "compatibility mode)."
)


def worth(readout: Readout, name: str) -> Tensor | None:
    """What an activation in the stream is worth; None where it was not cached."""
    return readout.functional(readout.view.raw(name, readout.positions)) if readout.view.has(name) else None


def gap(one: Tensor | None, other: Tensor | None) -> float:
    """The largest difference; 0 where one of them is not known."""
    return 0.0 if one is None or other is None else float((one - other).abs().max())


def stream_goal(readout: Readout, own: Float[Tensor, "batch pos"] | None) -> Float[Tensor, "batch pos"] | None:
    """What rows must add up to: the stream; where it was not cached, the model's own figure less the constant."""
    stream = worth(readout, f"blocks.{readout.view.n_layers - 1}.hook_resid_post")
    return own if stream is None else stream
