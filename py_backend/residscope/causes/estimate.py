"""`estimate`: attribution patching, which estimates all effects of patching from one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from residscope.cache.positions import Positions
from residscope.causes.hooks import has_backward_hooks, hooks
from residscope.causes.measurement import Measurement
from residscope.causes.patch import Found, cells, noted, patching
from residscope.causes.patching import Patching
from residscope.causes.put import Put
from residscope.causes.replay import whole_run
from residscope.causes.sites import Part, Site, SiteKind
from residscope.causes.sweep import Sweep, measure_some
from residscope.causes.tape import stoppable
from residscope.causes.unchanged import changed_in, only_where
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.errors import ResidscopeError
from residscope.terms import Answers, CacheLike, MaskLike, ModelLike, PositionsLike, ReplacementLike

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


def estimate(
    cache: CacheLike,
    source: ReplacementLike,
    target: Answers,
    *,
    at: SiteKind | Part = "z",
    positions: PositionsLike = "all",
    position: Positions = "last",
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
) -> Patching:
    """Estimate all effects of `patch` at once, from one run forwards and backwards (attribution patching).

    The estimate is the target's gradient at an activation, times the activation's change. It equals the effect if the
    model is linear between both runs. It is fast, and good for small changes. If a softmax saturates or a norm changes
    much, it can have the wrong size or sign. So measure important effects with `patch` or `ablate`.

    No parameter's `.grad` is changed, because gradients are computed only for activations.

    Args:
        cache: The `ActivationCache` whose run would be changed.
        source: The `ActivationCache` whose activations would be put in, or `"zero"`, `"mean"`, one prompt
            `(cache, 2)` or token ids, as in `ablate`.
        target: A token, a pair `(answer, distractor)`, or a direction, as in `attribute`.
        at: What would be replaced, as in `patch`. `"q"`, `"k"`, `"v"`: one head at a time gets the source's query, key
            or value, after its norm, and rotated for its position in `cache`. `"pattern"`: one head at a time gets the
            source's whole pattern. For a query or key, the softmax is computed again instead of being approximated, so
            the estimate is also good where the softmax saturates. If several heads share a key or value (grouped
            queries), each effect is that of one head, and the other heads keep the cached key or value.
        positions: Where it would be replaced, as in `patch`. `"each"` takes no longer than `"all"`. With `at="q"` and
            `"pattern"` these are destination positions, with `"k"` and `"v"` source positions.
        position: Where the target is read, as in `attribute`, but not `"all"`. A prompt in which it is padding has no
            effect (NaN).
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, as in `ablate`.
        model: The model, if `cache.model` was deleted.

    Returns:
        The estimated effects, with the axes of `patch`. `.measured` is False everywhere. For `"q"`, `"k"`, `"v"` and
        `"pattern"` the axes are those of heads. If a head's pattern cannot be computed again, its effects are NaN, and
        a note says so.

    Raises:
        ResidscopeError: As for `ablate`. Also if the model cannot be differentiated, or if no head's pattern can be
            computed again from its queries and keys.

    Source: Nanda, "Attribution Patching" (2023); Syed et al., "Attribution Patching Outperforms Automated Circuit
    Discovery" (2023). The softmax computed again: Kramár et al., "AtP*" (2024).
    """
    each = isinstance(positions, str) and positions == "each"

    def work(measurement: Measurement, put: Put) -> Callable[[], Found]:
        return lambda: (estimated(measurement, put, each=each), ())

    return patching(cache, source, target, at, positions, position, (tokens, attention_mask, model), work)


def effects(
    cache: CacheLike,
    source: ReplacementLike,
    target: Answers,
    *,
    measure: int = 20,
    at: SiteKind | Part = "z",
    positions: PositionsLike = "all",
    position: Positions = "last",
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    progress: bool = True,
) -> Patching:
    """Estimate all effects of `patch`, and measure the effects with the largest estimates.

    Args:
        cache: The `ActivationCache` whose run is changed.
        source: What is put in, as in `estimate`.
        target: A token, a pair `(answer, distractor)`, or a direction, as in `attribute`.
        measure: How many effects are measured: those whose estimate, as a mean over prompts, is farthest from 0.
        at: What is replaced, as in `patch`.
        positions: Where it is replaced, as in `patch`.
        position: Where the target is read, as in `attribute`, but not `"all"`. A prompt in which it is padding has no
            effect (NaN).
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, as in `ablate`.
        model: The model, if `cache.model` was deleted.
        progress: Whether to show a progress bar (tqdm) if the runs take more than a second.

    Returns:
        The effects, with the axes of `patch`. `.measured` shows which effects were measured. The others are estimates.

    Raises:
        ResidscopeError: As for `estimate`. Any exception that ends the runs early has an attribute `.partial`: the
            effects measured so far, and estimates of the others.
    """
    each = isinstance(positions, str) and positions == "each"
    if isinstance(measure, bool) or not isinstance(measure, int) or measure < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ResidscopeError("measure", f"`measure={measure!r}`: give the number of effects to measure.")

    def work(measurement: Measurement, put: Put) -> Callable[[], Found]:
        patches = cells(measurement, put.kind, each=each)
        there = put.measurable(patches, each=each)

        def found() -> Found:
            values = estimated(measurement, put, each=each)
            means = only_where(changed_in(patches, put.chosen, put.by), values)[there].nanmean(-1)
            size = means.abs().nan_to_num(0.0)
            rows = [there[row] for row in size.topk(min(measure, len(size))).indices.tolist()]
            sweep = Sweep(measurement, put.kind, put.by, put.where)
            with noted(measurement, sweep):
                measure_some(sweep, patches, rows, values, shown=progress, name="effects")
            return values, rows

        return found

    return patching(cache, source, target, at, positions, position, (tokens, attention_mask, model), work)


def estimated(measurement: Measurement, put: Put, *, each: bool) -> Tensor:
    """Return estimates of all patches, `[patch, batch]`, in the order of `cells`."""
    import torch

    sites = [measurement.replay.sites[put.kind, layer] for layer in measurement.layers(put.kind)]
    if has_backward_hooks(measurement.view.model):
        measurement.notes.append("There are backward hooks on the model, which may change the estimates.")
    rows: list[Tensor] = []
    for site, slope in zip(sites, _gradients(measurement, sites), strict=True):
        report_progress()
        slope = working(slope).to(measurement.view.like)
        if put.reading is not None and put.reading.of_sources and each:
            effect = put.reading.by_source(site.layer, slope)
        else:
            effect = slope * _change(measurement, put, site).to(slope)  # [batch, pos, *inner]
            chosen = put.where.to(effect.device)[(..., *[None] * (effect.ndim - 2))]
            effect = torch.where(chosen, effect, effect.new_zeros(()))
            effect = effect.sum(-1)  # [batch, pos, *head]
        effect = effect if each else effect.sum(1, keepdim=True)
        order = (2, 1, 0) if put.kind == "z" else (1, 0)
        rows.append(effect.permute(order).flatten(0, -2))  # head by head, position by position
    return measurement.where_read(torch.cat(rows).to(measurement.view.like))


def _change(measurement: Measurement, put: Put, site: Site) -> Tensor:
    """The change of an activation, `[batch, pos, *inner]`."""
    if put.reading is not None:
        return put.reading.change(site.layer)
    return working(put.by.of(site)) - working(site.held(measurement.view)).to(measurement.view.like)


def _gradients(measurement: Measurement, sites: list[Site]) -> list[Tensor]:
    """The target's gradient at each site, `[batch, pos, *inner]`.

    One backward pass from the sum over prompts is enough, because prompts do not depend on each other.

    Raises:
        ResidscopeError: If the model cannot be differentiated.
    """
    import torch

    view = measurement.view
    known = [measurement.slopes.get((site.kind, site.layer)) for site in sites]
    if all(slope is not None for slope in known):
        return [slope for slope in known if slope is not None]
    if any(weight.is_inference() for weight in view.model.parameters()):
        raise ResidscopeError(
            "estimate",
            "The model's weights were made inside `torch.inference_mode()`, so PyTorch cannot differentiate a run: "
            "load the model outside of it, or measure effects with `patch`.",
        )
    with torch.inference_mode(False), torch.enable_grad(), hooks() as own:
        made: dict[int, Tensor] = {}

        def add_zero(output: Tensor, number: int) -> Tensor:
            if number not in made:  # in the output's own precision, so that the model's next product is as before
                made[number] = torch.zeros_like(output, requires_grad=True)
                made[number].register_hook(stoppable)
            return output + made[number]

        for number, site in enumerate(sites):
            own.after(site.module, site.change(partial(add_zero, number=number), view.batch))
        try:
            mask = measurement.replay.mask
            tokens, mask = measurement.replay.tokens.clone(), None if mask is None else mask.clone()
            final = whole_run(view, tokens, mask, own, record=False, keep=False).final
            readout = measurement.readout.without_inference_tensors()
            value = readout.value(readout.pick(final[None]))[0]
            added = [made[number] for number in range(len(sites))]
            found = torch.autograd.grad(value.sum(), added, allow_unused=True)
        except RuntimeError as error:
            raise ResidscopeError(
                "estimate",
                f"The run cannot be differentiated here ({str(error).splitlines()[0]}): measure effects with `patch`.",
            ) from error
    slopes: list[Tensor | None] = list(found)  # None if the target does not depend on the activation
    return [zero.detach() if slope is None else slope for zero, slope in zip(added, slopes, strict=True)]
