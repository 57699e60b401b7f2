"""Computes the rows of a plan: the contribution of each component to the target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from residscope.attribution.plan import BIAS_KIND, Plan, Rows, components_in
from residscope.attribution.readout import Readout
from residscope.attribution.sublayer_parts import head_outputs, key_for, layer_heads, layer_neurons, once_for
from residscope.cache.lens_maps import StreamMaps
from residscope.cache.output_maps import coarse, neuron_weight, out_bias, out_weight
from residscope.cache.structure import ComponentTerms, Terms
from residscope.cache.view import CacheView
from residscope.compute.progress import report_progress
from residscope.compute.projection import distinct, dots, project
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def rows_of(readout: Readout, plan: Plan) -> Rows:
    """Return the rows of a plan. The activations are projected onto the target's direction."""
    import torch

    split = {"attn": layer_heads, "mlp": layer_neurons}[plan.part]
    components: list[Component] = []
    values: list[Tensor] = []
    biases: dict[Component, Tensor] = {}
    total = len(plan.split) + len(plan.terms)
    at_once = _heads_at_once(readout, plan)
    for place, layer in enumerate(plan.split):
        report_progress(len(values), total)
        contributions, bias = split(readout, layer) if at_once is None else at_once[place]
        values.append(contributions)
        components += components_in(readout.view, layer, plan.part, contributions.shape[0])
        if bias is not None:
            biases[Component(BIAS_KIND[plan.part], layer)] = bias
    contribution = readout.recomputed if plan.recomputed else readout.functional
    rows = [*values, *(bias.unsqueeze(0) for bias in biases.values())]
    if plan.terms and plan.maps is not None:
        rows.append(_mapped(readout, contribution, plan.terms, plan.maps))
    elif plan.terms:
        rows.append(contributions_of(readout, contribution, plan.terms.values(), len(plan.split)))
    count = len(components) if plan.split else None
    return Rows([*components, *biases, *plan.terms], torch.cat(rows), count)


ContributionOf = Callable[["Tensor"], "Tensor"]
"""Returns the contributions of vectors in the stream."""


def _heads_at_once(readout: Readout, plan: Plan) -> list[tuple[Tensor, Tensor | None]] | None:
    """Compute `layer_heads` for each layer of a plan in one product. None if that is not possible.

    At one position, the products are so small that calling PyTorch for each layer takes longer than the arithmetic. The
    directions of the heads are memoised, because they are the same at every position.
    """
    import torch

    view, layers = readout.view, plan.split
    if plan.part != "attn" or len(layers) < 2 or readout.positions is None or view.stream.device.type != "cpu":
        return None
    weights = [weight for layer in layers if (weight := out_weight(view, layer)) is not None]
    if len(weights) != len(layers) or len({weight.shape for weight in weights}) != 1:
        return None
    paths = [readout.output_path(layer, "attn") for layer in layers]
    if any(path.norm is not None for path in paths) or len({path.factor for path in paths}) != 1:
        return None
    cut = weights[0].shape[:2]
    z = [head_outputs(view, readout.positions, layer, tuple(cut)) for layer in layers]
    if len({one.dtype for one in z}) != 1 or sum(one.numel() for one in z) > _AT_ONCE:
        return None
    functional = paths[0].pull(readout.functional)
    vector = functional.vector

    def projected() -> tuple[Tensor, list[Tensor | None]]:
        each = [project(weight.flatten(0, 1), vector).unflatten(-1, cut) for weight in weights]
        biases = [out_bias(view, layer, "attn") for layer in layers]
        added = [None if bias is None else (distinct(vector) * bias.to(vector)).sum(-1)[:, None] for bias in biases]
        return torch.stack(each, 1), added

    directions, added = once_for(view, ("layers", *layers), vector, projected)
    rows = dots(torch.stack(z, 2), directions) / functional.divisor
    biases = [None if bias is None else functional.constant + bias / functional.divisor for bias in added]
    return list(zip(rows, biases, strict=True))


_AT_ONCE = 1 << 18
"""At most this many values of `hook_z` are copied for one product."""


def projected_before(readout: Readout, plan: Plan) -> bool:
    """Return whether the directions of a plan's heads are memoised.

    Targets that differ only in the source of one head have the same directions.
    """
    if plan.part != "attn" or not plan.split or readout.view.stream.device.type != "cpu":
        return False
    vector = readout.writer(plan.split[0], "attn").vector
    return readout.view.root.memo.get(*key_for(("layers", *plan.split), vector)) is not None


def contributions_of(
    readout: Readout, contribution: ContributionOf, sums: Collection[Terms], steps_done: int = 0
) -> Float[Tensor, "row batch pos"]:
    """Return the contribution of each sum of activations. `steps_done` is the number of steps already reported."""
    import torch

    def read(name: str, factor: float) -> Tensor:
        value = contribution(readout.view.raw(name, readout.positions))
        return value if factor == 1 else value * factor

    values: list[Tensor] = []
    for terms in sums:
        report_progress(steps_done + len(values), steps_done + len(sums))
        values.append(sum_of(read(*term) for term in terms))
    return torch.stack(values)


def _mapped(
    readout: Readout, contribution: ContributionOf, points: ComponentTerms, maps: StreamMaps
) -> Float[Tensor, "row batch pos"]:
    """Return the contribution of the stream at each point, mapped to the end of the stream."""
    import torch

    values: list[Tensor] = []
    for point, terms in points.items():
        report_progress(len(values), len(points))
        stream = sum_of(readout.view.rows(name, readout.positions) * factor for name, factor in terms)
        values.append(contribution(maps(point, stream)))
    return torch.stack(values)


def scales_of(readout: Readout, plan: Plan) -> Float[Tensor, "row batch pos"]:
    """Return the scale of the norm at the target's point, recomputed for each row of a plan."""
    import torch

    rows = [sum_of(readout.view.rows(n, readout.positions) * f for n, f in terms) for terms in plan.terms.values()]
    return torch.stack([readout.norm.scale(row) for row in rows])


def with_steps(view: CacheView, plan: Plan, rows: Rows) -> Rows:
    """Return the rows, with the rounding step of each row."""
    key = ("steps", plan.part, plan.split, tuple(plan.terms.items()), len(rows.components))
    steps = view.memo.once(key, lambda: tuple(_steps(view, plan, len(rows.components))), lambda kept: 8 * len(kept))
    if len(steps) == 1:
        return replace(rows, step=steps[0])
    return replace(rows, step=rows.values.new_tensor(steps)[:, None, None])


def _steps(view: CacheView, plan: Plan, count: int) -> list[float]:
    """The relative rounding step of each of `count` rows. A single step if all are equal, as in most caches."""
    name = {"attn": "attn.hook_z", "mlp": "mlp.hook_post"}[plan.part]
    split = {
        layer: max(view.rounding_step(f"blocks.{layer}.{name}"), coarse(view, layer, plan.part)) for layer in plan.split
    }
    sums = [view.rounding_step(*(name for name, _ in terms)) for terms in plan.terms.values()]
    if len(steps := {*split.values(), *sums}) == 1:
        return [*steps]
    weights = {layer: (out_weight if plan.part == "attn" else neuron_weight)(view, layer) for layer in split}
    of_split = [step for layer, step in split.items() for _ in weights[layer]]  # pyright: ignore[reportOptionalIterable]
    biases = count - len(of_split) - len(sums)  # a bias is exact, or has the precision of the weights
    return [*of_split, *[view.rounding_step()] * biases, *sums]


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """The sum of tensors."""
    first, *others = terms
    return sum(others, start=first)
