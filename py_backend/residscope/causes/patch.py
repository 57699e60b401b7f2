"""`patch`: activation patching, which puts another run's activations into the cached run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from residscope.attribution.target_reading import measured_value, target_reading
from residscope.attribution.targets import Targets
from residscope.base.numbered import some_prompts
from residscope.base.signed import signed
from residscope.cache import positions as real_positions
from residscope.cache.positions import Positions
from residscope.cache.view import CacheView, is_cache
from residscope.causes.measurement import Measurement, chosen_positions
from residscope.causes.patching import Patching
from residscope.causes.path import words
from residscope.causes.path_sweep import PathSweep, along_path
from residscope.causes.put import Put, put_in
from residscope.causes.sites import KINDS, PARTS, Part, SiteKind
from residscope.causes.sweep import Patch, Sweep, measure_some
from residscope.causes.unchanged import changed_in, only_where, unchanged_notes
from residscope.causes.user_state import keeping_user_state
from residscope.errors import ResidscopeError
from residscope.session.change_notes import seen, steadily
from residscope.terms import (
    Answers,
    CacheLike,
    Component,
    ComponentKind,
    MaskLike,
    ModelLike,
    PositionsLike,
    ReplacementLike,
)

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


def patch(
    cache: CacheLike,
    source: ReplacementLike,
    target: Answers,
    *,
    at: SiteKind | Part = "z",
    path: object = None,
    positions: PositionsLike = "all",
    position: Positions = "last",
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    progress: bool = True,
) -> Patching:
    """Run the model with activations of another run put in, one at a time, and measure the target.

    The changed run is that of `cache`. With a cache of corrupted prompts and a source of clean prompts, this shows
    which activations restore the answer (denoising). With a clean cache and a corrupted source, it shows which
    activations break the answer (noising). The two results differ.

    Args:
        cache: The `ActivationCache` whose run is changed.
        source: The `ActivationCache` whose activations are put in. It needs the same number of positions, and the same
            number of prompts or one. Or `"zero"`, `"mean"`, one prompt `(cache, 2)` or token ids, as in `ablate`.
        target: A token, a pair `(answer, distractor)`, or a direction, as in `attribute`.
        at: `"z"`: the output of each head. `"attn_out"`, `"mlp_out"`: the output of each sublayer. `"resid_pre"`: the
            stream before each layer. `"q"`, `"k"`, `"v"`, `"pattern"`: the query, key, value or pattern of one head at
            a time. For a query or key, the softmax is computed again (see `estimate`).
        path: The end of a path, for path patching: `"L23H3.q"` (the query of head L23H3; `.k`: its key, `.v`: its
            value), a list of such ends, or `"logits"`. The change reaches this end only along the direct path, as in
            `ablate`. If a component does not come before the end, its effect is NaN.
        positions: The positions whose activations are replaced: `"all"` (all real positions at once), `"last"`,
            positions (the same for all prompts), or `"each"` (each position in a run of its own). Padding is never
            replaced. A prompt in which all of them are padding has no effect (NaN).
        position: Where the target is read, as in `attribute`, but not `"all"`. A prompt in which it is padding has no
            effect (NaN).
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, as in `ablate`.
        model: The model, if `cache.model` was deleted.
        progress: Whether to show a progress bar (tqdm) if the runs take more than a second.

    Returns:
        The effects, in the target's unit. `.effects` is `[layer, head, batch]` for heads, otherwise `[layer, batch]`.
        With `positions="each"` there is an axis `pos` before `batch`.

    Raises:
        ResidscopeError: As for `ablate`.

    Source: Activation patching: Meng et al. (2022), Wang et al. (2022); Heimersheim & Nanda, "How to use and interpret
    activation patching" (2024). TransformerLens' `get_act_patch_*`. Path patching: Wang et al. (2022).
    """

    def work(measurement: Measurement, put: Put) -> Callable[[], Found]:
        patches = cells(measurement, put.kind, each=_is_each(positions))
        rows = put.measurable(patches, each=_is_each(positions))
        if put.ends is not None:
            sweep = PathSweep(measurement, put.kind, put.by, put.where, ends=put.ends)
        else:
            sweep = Sweep(measurement, put.kind, put.by, put.where)

        def measured() -> Found:
            with noted(measurement, sweep):
                if isinstance(sweep, PathSweep):
                    return along_path(sweep, patches, shown=progress, name="patch")
                effects = sweep.unmeasured(len(patches))[0]
                measure_some(sweep, patches, rows, effects, shown=progress, name="patch")
                return effects, rows

        return measured

    return patching(cache, source, target, at, positions, position, (tokens, attention_mask, model), work, path)


@contextmanager
def noted(measurement: Measurement, sweep: Sweep) -> Generator[None, None, None]:
    """Add the notes of runs to those of the measurement, also if the runs are interrupted."""
    try:
        yield
    finally:
        measurement.notes.extend(sweep.notes if isinstance(sweep, PathSweep) else [])
        if sweep.runner.why_whole:
            because = sweep.runner.why_whole
            measurement.notes.append(f"Each run was a run of the whole model, because {because}.")


Found = tuple["Tensor", Sequence[int]]
"""Effects `[patch, batch]`, and the rows of those that were measured. The other effects are estimates, or NaN."""


Work = Callable[[Measurement, Put], Callable[[], Found]]


def patching(
    cache: object,
    source: object,
    target: object,
    at: SiteKind | Part,
    positions: object,
    position: Positions,
    options: tuple[Any, Any, Any],
    work: Work,
    path: object = None,
) -> Patching:
    """The common part of `patch`, `estimate` and `effects`. `work` returns the function that computes the effects.

    `options` are the arguments `tokens`, `attention_mask` and `model`.
    """
    if at not in KINDS and at not in PARTS:
        known = ", ".join(f'"{kind}"' for kind in (*KINDS, *PARTS))
        raise ResidscopeError(
            "at",
            f'`at="{at}"` is not known: use {known}. The stream after a layer is the `resid_pre` of the next.',
        )
    tokens, attention_mask, model = options
    tracked = seen(cache, model)

    def repeated() -> Patching:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)

        def measured() -> Patching:
            where = chosen_positions(view, "all" if _is_each(positions) else positions)
            measurement = Measurement.of(view, target, position, changed_at=where)
            put = put_in(measurement, source, at, where, path)
            run = work(measurement, put)
            try:
                found = run()
            except BaseException as error:
                with suppress(Exception):
                    done = error.effects[0], error.measured  # pyright: ignore[reportAttributeAccessIssue]
                    part = _result(measurement, put, source, at, done, where, positions)
                    error.partial = part  # pyright: ignore[reportAttributeAccessIssue]
                raise
            return _result(measurement, put, source, at, found, where, positions)

        return keeping_user_state(view.model, view.stream.device, measured)

    return steadily(cache, model, tracked, repeated)


def _is_each(positions: object) -> bool:
    return isinstance(positions, str) and positions == "each"


def cells(measurement: Measurement, at: SiteKind, *, each: bool) -> list[Patch]:
    """Return the patches of a sweep, layer by layer."""
    places: list[int | None] = list(range(measurement.view.n_pos)) if each else [None]
    found: list[Patch] = []
    for layer in measurement.layers(at):
        site = measurement.site(at, layer)
        assert site is not None
        heads: list[int | None] = list(range(site.inner[0])) if at == "z" else [None]
        found += [Patch(layer, head, place) for head in heads for place in places]
    return found


def _result(
    measurement: Measurement,
    put: Put,
    source: object,
    at: SiteKind | Part,
    found: Found,
    where: Tensor,
    positions: object,
) -> Patching:
    view, each = measurement.view, _is_each(positions)
    patches, values, chosen = cells(measurement, put.kind, each=each), found[0], set(found[1])
    by, of_heads = put.by, put.kind == "z"
    shape = (view.n_layers, *[view.n_heads] * of_heads, *[view.n_pos] * each, view.batch)
    changed = changed_in(patches, where, by)
    changed = changed if measurement.padded is None else changed & ~measurement.padded
    values, is_changed = only_where(changed, values), changed.any(1).tolist()
    effects = values.new_full(shape, float("nan"))
    measured = effects[..., 0] == 0  # False everywhere: all effects are NaN here
    for row, one in enumerate(patches):
        place = [part for part in (one.layer, one.head if of_heads else None, one.position) if part is not None]
        effects[tuple(place)], measured[tuple(place)] = values[row], row in chosen and is_changed[row]
    notes = measurement.notes + by.notes + unchanged_notes(where, by, each=each)
    of_source, normalized = None, None
    direction = f"the cached run, with {by.words} put in"
    if is_cache(source):
        of_source, more = _target_in(measurement, source)
        notes = notes + more
        direction = "the cached run, with the source's activations put in"
        if of_source is not None:
            normalized, more = _normalized(effects, measurement.before, of_source)
            notes += more
            ends = [signed(float(mean), float(mean)) for mean in (measurement.before.nanmean(), of_source.nanmean())]
            known = bool((~measurement.before.isnan()).any())
            direction += known * f" (target from {ends[0]} in the cache to {ends[1]} in the source)"
    kind: ComponentKind = {"z": "head", "resid_pre": "pre", "attn_out": "attn_out", "mlp_out": "mlp_out"}[put.kind]  # pyright: ignore[reportAssignmentType]
    rows = [Component(kind, layer) for layer in range(view.n_layers)]
    if of_heads:
        rows = [Component("head", layer, head) for layer in range(view.n_layers) for head in range(view.n_heads)]
    return Patching(
        effects,
        normalized,
        measurement.before,
        of_source,
        direction,
        at,
        rows,
        ("layer", *["head"] * of_heads, *["pos"] * each, "batch"),
        measured,
        measurement.replayed,
        list(dict.fromkeys(notes)),
        measurement.target,
        view.model_name,
        "" if put.ends is None else words(put.ends),
    )


def _target_in(measurement: Measurement, source: object) -> tuple[Tensor | None, list[str]]:
    """The target in the source's run, read at the same positions as in the cache, and notes. None if it is unknown."""
    own_model = getattr(source, "model", None)  # another checkpoint has its own unembedding
    view = CacheView(source, model=measurement.view.model if own_model is None else own_model)
    same = measurement.where
    if view.batch == 1 and measurement.view.batch > 1:
        return None, ["The source is one prompt for all prompts: its target and normalised effects are not given."]
    own = real_positions.last(view)
    targets = Targets(view, measurement.targets.vocabulary, measurement.targets.directions)
    try:
        reading = target_reading(targets, measurement.target, same)
        value = measured_value(reading, reading.readout(), targets, measurement.target, None).value
    except ResidscopeError as error:
        if error.code != "missing-activation":
            raise
        value = None
    if value is None:
        return None, ["The source holds neither logits nor the final stream: its target is not known."]
    differ = real_positions.last(measurement.view) != own and same.tolist() == real_positions.last(measurement.view)
    notes = ["In the source the target is read at the same positions, but some prompts end elsewhere there."] * differ
    notes += _padded_in_source(measurement, view)
    return measurement.where_read(value[:, 0].to(measurement.before)), notes


def _padded_in_source(measurement: Measurement, source: CacheView) -> list[str]:
    """A note on the prompts in which the target is read at padding in the source, but not in the cache."""
    padded = real_positions.are_padding(source, measurement.where)
    if padded is None:
        return []
    only = padded if measurement.padded is None else padded & ~measurement.padded
    prompts: list[int] = only.nonzero().flatten().tolist()
    return [f"In the source the target is read at padding in {some_prompts(prompts, len(only))}."] if prompts else []


_SMALL = 0.05
"""If the target differs between source and cache by at most this share of its size, effects are not normalised."""


def _normalized(effects: Tensor, before: Tensor, source: Tensor) -> tuple[Tensor, list[str]]:
    gap = source - before
    small = gap.abs() <= (_SMALL * before.abs().maximum(source.abs())).clamp(min=1e-4)
    count = int(small.sum())
    note = (
        f"In {count} of {len(gap)} prompts the target hardly differs between source and cache (by at most {_SMALL:.0%} "
        "of its size): effects are not normalised there."
    )
    return (effects / gap).masked_fill(small, float("nan")), [note] * bool(count)
