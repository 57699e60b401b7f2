"""The decompositions behind `attribute`: from a target to rows that sum to it.

Σ rows + constant + unexplained = measured, for each prompt (for `"accumulated"` the last row replaces the sum).
If the rows cover everything that the model does, `unexplained` is only rounding. Otherwise a note gives the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from residscope.attribution import components
from residscope.attribution.attention_score import HeadScore, ScorePart
from residscope.attribution.component_vectors import read_rows
from residscope.attribution.components import with_later
from residscope.attribution.decomposition import Decomposition, Part
from residscope.attribution.feature_plan import later_only, plan_before
from residscope.attribution.features import expanded
from residscope.attribution.inner_checks import is_inner
from residscope.attribution.mean_key import mean_key_constant, mean_key_readout, mean_key_rows
from residscope.attribution.missing import check_cached, later_note, missing_notes
from residscope.attribution.model_value import check_before_cap, output_notes
from residscope.attribution.needed import naming_all
from residscope.attribution.plan import Plan, Rows
from residscope.attribution.readout import Functional, Readout
from residscope.attribution.reconcile import expected_sum, gap, reasons, reconcile, stream_tolerance
from residscope.attribution.result import Attribution
from residscope.attribution.rounding import SMALLEST
from residscope.attribution.row_values import scales_of
from residscope.attribution.source_rows import source_rows
from residscope.attribution.target_reading import measured_value, reading_notes, target_reading
from residscope.attribution.target_words import in_words
from residscope.attribution.targets import Targets
from residscope.attribution.word_spaces import without_space
from residscope.cache.dictionaries import Dictionary
from residscope.cache.dictionary_sites import neuronpedia_id
from residscope.cache.finite import check_finite
from residscope.cache.lens_maps import LensMaps
from residscope.cache.structure import Structure
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed
from residscope.terms import AttentionScore, By, NormConvention, Target

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


@dataclass(frozen=True)
class Query:
    """A question: the target, the components and the options.

    Attributes:
        target: The target.
        by: The decomposition.
        where: The position of each prompt at which the target is read. None: every position.
        norm: For `"accumulated"`: the convention for the final norm's scale.
        layers: For `"neuron"`: the layers whose neurons are the rows. None: all layers.
        heads: For `"source"`: the heads whose sources are the rows.
        sae: For `"feature"`: the SAE or transcoder whose features are the rows.
        lens: For `"accumulated"`: the maps of a tuned lens or another lens. None: the plain logit lens.
        again: Whether the rows will be read again, by the functional of another run.
        like: Structures of other runs. Components that share one row in another run share one row here, too.

    Raises:
        ResidscopeError: If options contradict each other.
    """

    target: Target
    by: By
    where: Int[Tensor, " batch"] | None
    norm: NormConvention = "frozen"
    layers: int | Sequence[int] | None = None
    heads: Any = None
    sae: Any = None
    lens: LensMaps | None = None
    again: bool = False
    like: Sequence[Structure] = ()

    def __post_init__(self) -> None:
        _check(self.by, self.norm, self.layers, self.heads, self.sae)
        if self.lens is not None:
            _check_lens(self.by, self.target)


def decompose(view: CacheView, targets: Targets, query: Query, logits: Tensor | None = None) -> Attribution:
    """Decompose a target.

    Args:
        view: The cache.
        targets: Resolves targets for the cache.
        query: The question.
        logits: The model's output `[batch, pos, d_vocab]`, if it was given.

    Raises:
        ResidscopeError: If a needed activation was not cached, or is not finite.
    """
    return decomposition(view, targets, query, logits).result


def decomposition(view: CacheView, targets: Targets, query: Query, logits: Tensor | None = None) -> Decomposition:
    """Decompose a target. The rows of the result can be read again, by the functional of another run."""
    with naming_all(view, query.target, query.by):
        found = _whole(view, targets, query, logits)
        _ = found.result  # computed inside `naming_all`, because this may also need an activation that is missing
        return found


def _whole(view: CacheView, targets: Targets, query: Query, logits: Tensor | None) -> Decomposition:
    """Decompose a whole target. Only a score may have several parts, one for each of its readings."""
    if not isinstance(query.target.inner, AttentionScore):
        return Decomposition([_decompose(view, targets, query, logits)])
    score = HeadScore(view, query.target.inner)
    score.check()
    if score.reads_all:
        return Decomposition([_mean_key(score, query)], score)
    parts = [ScorePart(score, i) for i in range(len(score.readings))]
    return Decomposition([_decompose(view, targets, query, logits, part) for part in parts], score)


def _decompose(
    view: CacheView, targets: Targets, query: Query, logits: Tensor | None, part: ScorePart | None = None
) -> Part:
    """Decompose one part of a target. It is read at one position of each prompt, or at every position."""
    target, by, norm = query.target, query.by, query.norm
    # If the scale is recomputed at each point, the final scale is not needed. A run that stopped early lacks it.
    frozen = not (by == "accumulated" and norm == "recomputed")
    if not is_inner(target):
        check_cached(view, by, frozen=frozen)
    reading = target_reading(targets, target, query.where, logits, part)
    readout, where = reading.readout(frozen=frozen), reading.positions
    readout.structure = joined(readout.structure, query.like)
    measured = measured_value(reading, readout, targets, target, logits)
    about = without_space(targets, target, query.where, logits) + reading_notes(reading, measured)
    before = measured.before_cap
    to_explain = None if before is None else before - readout.functional.constant
    if by == "source":
        if reading.axis == "source":
            raise ResidscopeError(
                "source", 'For `by="source"`, the target needs one source: `targets.output(head, of=…, source=…)`.'
            )
        found = source_rows(readout, query.heads, to_explain)
        notes = found.result.notes + about
        return replace(found, result=replace(found.result, notes=notes, target=target, model=view.model_name))
    check_before_cap(readout, targets, target, measured.before)
    constant = readout.functional.constant + measured.cap_change
    wanted = components.wanted_layers(view, query.layers) if by == "neuron" else []
    dictionary = Dictionary.of(view, query.sae) if by == "feature" else None
    if by == "accumulated":
        compared = _points(readout, query, to_explain, logits)
    else:
        compared = _sums(readout, query, wanted, dictionary, to_explain, logits)
    structure, plan, rows, total = compared.structure, compared.plan, compared.rows, compared.total
    tolerance, largest, about = compared.tolerance, compared.largest, about + compared.notes
    tolerance += 0.0 if measured.before is None else measured.before.rounding
    if not compared.is_finite:
        check_finite(view, rows.values, total, constant, measured.value, total.new_tensor(tolerance))
    value = total.new_full(constant.shape, float("nan")) if measured.value is None else measured.value
    summed, of_sae = rows, list[str]()
    if dictionary is not None:
        parts = expanded(readout, structure, rows, dictionary)
        rows, total, of_sae, tolerance = parts.rows, parts.rows.values.sum(0), parts.notes, tolerance + parts.rounding
        structure, largest = later_only(structure, dictionary), gap(to_explain, total)
    unexplained = value - total - constant
    notes = of_sae + changed(view) + about + output_notes(targets, target, measured)
    notes += structure.notes() + components.unsplit_notes(structure, by, wanted) + missing_notes(structure, by, rows)
    rows, before = with_later(readout, structure, by, wanted, rows), len(rows.components)
    if len(rows.components) > before:
        notes.append(later_note(structure))
    notes += view.memo.once(("cut",), lambda: ([cut for cut in (view.cut(),) if cut],))[0]
    if norm == "frozen" and largest > tolerance:
        why = reasons(readout, structure, value - constant, tolerance, None if by == "accumulated" else summed)
        notes += [reason for reason in why if reason not in notes]
    columns = (rows.values, value, constant, unexplained)
    columns = columns if where is None else tuple(t.squeeze(-1) for t in columns)
    axes = ("component", "batch") if where is not None else ("component", "batch", reading.axis)
    attribution = Attribution(
        columns[0],
        rows.components,
        *columns[1:],
        by=by,
        measured_from=measured.source,
        own=measured.own,
        tolerance=tolerance,
        notes=notes,
        axes=axes,
        missing=list(rows.missing),
        target=target,
        model=view.model_name,
        _parts=rows.parts,
        neuronpedia="" if dictionary is None else neuronpedia_id(dictionary.sae),
        _grid=(view.n_layers, view.n_heads) if by == "head" else None,
    )

    def read(functional: Functional) -> Tensor:
        again = read_rows(readout.by(functional), replace(plan, recomputed=False), again=True)
        values = with_later(readout, structure, by, wanted, again).values
        return values if where is None else values.squeeze(-1)

    divisor = readout.functional.divisor
    if plan.recomputed and query.again:
        divisor = scales_of(readout, plan) * divisor
    return Part(attribution, readout.functional, divisor, structure, read)


@dataclass(frozen=True)
class _Compared:
    """Rows that were compared with what they should sum to.

    Attributes:
        structure: The components of the stream.
        plan: Which activations make up each row.
        rows: The rows.
        total: The sum of the rows, or for `"accumulated"` the last row. It should be the target's value minus its
            constant.
        tolerance: A larger difference than this is not rounding.
        largest: The largest difference.
        is_finite: Whether all rows, and the stream that gives the tolerance, are finite.
        notes: Notes on how the rows were made.
    """

    structure: Structure
    plan: Plan
    rows: Rows
    total: Tensor
    tolerance: float
    largest: float
    is_finite: bool
    notes: list[str]


def _points(readout: Readout, query: Query, to_explain: Tensor | None, logits: Tensor | None) -> _Compared:
    """The target, read from the stream at each point. The last point should have the target's value."""
    structure, maps = readout.structure, None if query.lens is None else query.lens.on(readout.view)
    plan = components.accumulated(structure, recomputed=query.norm == "recomputed", maps=maps)
    rows = read_rows(readout, plan, again=query.again)
    total, at_end = rows.values[-1], structure.point
    is_end = at_end in rows.components and not (maps is not None and maps.is_mapped(at_end))
    largest = gap(to_explain if is_end else None, total)  # other points do not give the value
    is_finite = math.isfinite(largest) and bool(rows.values.isfinite().all())  # every row, not only the last
    tolerance = stream_tolerance(readout, total, logits)
    return _Compared(structure, plan, rows, total, tolerance, largest, is_finite, [] if maps is None else maps.notes())


def _sums(
    readout: Readout,
    query: Query,
    wanted: Sequence[int],
    dictionary: Dictionary | None,
    to_explain: Tensor | None,
    logits: Tensor | None,
) -> _Compared:
    """What each component adds to the target. The sum of all rows should be the target's value."""
    build = partial(_rows, readout, query, wanted, dictionary=dictionary)
    found = reconcile(readout, build, expected_sum(readout, to_explain), to_explain, logits)
    plan = _plan(readout, query.by, wanted, found.structure, dictionary)
    total = found.rows.values.sum(0)
    return _Compared(found.structure, plan, found.rows, total, found.tolerance, found.unexplained, found.finite, [])


def joined(structure: Structure, others: Sequence[Structure]) -> Structure:
    """Return a structure in which components share one row if they do so in `structure` or in one of the others."""
    for other in others:
        structure = replace(
            structure,
            whole=structure.whole | other.whole,
            entered=structure.entered or other.entered,
            unsplit_attn=structure.unsplit_attn | other.unsplit_attn,
            unsplit_mlp=structure.unsplit_mlp | other.unsplit_mlp,
        )
    return structure


def _mean_key(score: HeadScore, query: Query) -> Part:
    """Decompose a score on the key side that is compared with the mean. Its rows are read at all sources."""
    target, by = query.target, query.by
    if target.through or by not in components.AT_ALL_SOURCES or query.norm != "frozen":
        what = f'`by="{by}"`' if query.norm == "frozen" else f'`norm="{query.norm}"`'
        what = "the contribution of another head to it" if target.through else what
        raise ResidscopeError(
            "attention",
            f"On the key side, a score compared with the mean is read at all sources, so {what} cannot be computed. "
            'Compare with one source (`versus="most"`), or use `side="query"`.',
        )
    view = score.view
    readout = mean_key_readout(score)
    readout.structure = joined(readout.structure, query.like)
    if by == "accumulated":
        structure = readout.structure
    else:
        build = partial(_rows, readout, query, [])
        structure = reconcile(readout, build, expected_sum(readout, None)).structure
    plan = _plan(readout, by, [], structure)

    def read(other: HeadScore) -> Rows:
        return with_later(readout, structure, by, [], mean_key_rows(score, readout, plan, other))

    rows = read(score)
    values, constant = rows.values[..., 0], mean_key_constant(score)
    total = values[-1] if by == "accumulated" else values.sum(0)
    value = score.measured - sum(score.extra.values(), start=constant * 0)
    tolerance = max(SMALLEST, 4 * view.rounding_step(*score.activations) * float(values.pow(2).sum(0).sqrt().max()))
    notes = (
        changed(view)
        + structure.notes()
        + components.unsplit_notes(structure, by, [])
        + missing_notes(structure, by, rows)
    )
    if structure.layers < view.n_layers:
        notes.append(later_note(structure))
    result = Attribution(
        values,
        rows.components,
        value,
        constant,
        value - total - constant,
        by=by,
        measured_from=score.measured_from,
        tolerance=tolerance,
        notes=notes,
        missing=list(rows.missing),
        target=target,
        model=view.model_name,
        _parts=rows.parts,
        _grid=(view.n_layers, view.n_heads) if by == "head" else None,
    )
    if not bool(result.unexplained.isfinite().all()):
        check_finite(view, values, result.unexplained)
    if float(result.unexplained.abs().max()) > tolerance:
        result.notes.append(
            f"{float(result.unexplained.abs().max()):.2g} of the value is not explained by the rows. To find where "
            'this part arises, compare the score with one source (`versus="most"`), and read the notes of that result.'
        )

    def by_functional(_: Functional) -> Tensor:
        raise AssertionError  # this score has a different functional at each source

    def by_score(other: HeadScore) -> Tensor:
        return read(other).values[..., 0]

    return Part(result, readout.functional, readout.functional.divisor, structure, by_functional, score, by_score)


def _rows(
    readout: Readout,
    query: Query,
    wanted: Sequence[int],
    structure: Structure,
    dictionary: Dictionary | None = None,
) -> Rows:
    """The rows of a decomposition. What a dictionary (an SAE or transcoder) reconstructs is one row."""
    return read_rows(readout, _plan(readout, query.by, wanted, structure, dictionary), again=query.again)


def _plan(
    readout: Readout, by: By, wanted: Sequence[int], structure: Structure, dictionary: Dictionary | None = None
) -> Plan:
    if dictionary is not None:
        return plan_before(structure, dictionary)
    key = ("plan", by, *wanted, structure.key)
    return readout.view.memo.once(key, lambda: components.plan_of(structure, by, wanted))


def _check_lens(by: str, target: Target) -> None:
    """Refuse `lens=`, unless this is the logit lens and its target is read at the end of the stream."""
    if by != "accumulated":
        raise ResidscopeError("lens", f'`lens=` is only for the logit lens (`by="accumulated"`), not for `by="{by}"`.')
    if is_inner(target):
        raise ResidscopeError(
            "lens",
            f"`lens=` maps the stream to its end, but {in_words(target)} is read at an earlier point: leave out "
            "`lens=`, or give answers.",
        )


def _check(by: str, norm: str, layers: object, heads: object, sae: object) -> None:
    """Refuse options that contradict each other."""
    if by not in get_args(By):
        choice = ", ".join(f'"{name}"' for name in get_args(By))
        raise ResidscopeError("by", f'`by="{by}"` is not known: use {choice}.')
    if norm not in get_args(NormConvention):
        raise ResidscopeError("norm", f'`norm="{norm}"` is not known: use "frozen" or "recomputed".')
    if norm == "recomputed" and by != "accumulated":
        raise ResidscopeError(
            "norm", f'`norm="recomputed"` is only for the logit lens (`by="accumulated"`), not for `by="{by}"`.'
        )
    if layers is not None and by != "neuron":
        raise ResidscopeError("layers", f'`layers=` is only for neurons (`by="neuron"`), not for `by="{by}"`.')
    if heads is not None and by != "source":
        raise ResidscopeError(
            "heads", f'`heads=` is only for source contributions (`by="source"`), not for `by="{by}"`.'
        )
    if (sae is not None) != (by == "feature"):
        raise ResidscopeError(
            "sae",
            '`by="feature"` needs an SAE or a transcoder: `residscope.attribute(…, by="feature", sae=sae)`.'
            if by == "feature"
            else f'`sae=` is only for the features of an SAE (`by="feature"`), not for `by="{by}"`.',
        )
