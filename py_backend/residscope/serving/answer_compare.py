"""Answers the requests that compare two runs: prompts of one cache, or two caches of the user's namespace."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from residscope.attribution.decompose import Query
from residscope.attribution.missing import lacking
from residscope.attribution.result import Attribution
from residscope.cache import positions
from residscope.cache.padding_notes import ATTENDED_TO_PADDING
from residscope.comparison.notes import of_runs
from residscope.comparison.result import Comparison
from residscope.comparison.runs import Run, told_of
from residscope.comparison.same_shape import check_shapes
from residscope.comparison.two_runs import compared
from residscope.errors import ResidscopeError
from residscope.serving.request_context import RequestContext, check_one_answer, check_one_source
from residscope.serving.run_warnings import warnings_in
from residscope.serving.second_run import Key, of_two, on_screen, prompts_of
from residscope.serving.shown_prompts import ShownPrompts
from residscope.terms import Component, ComponentTable, ShownBy, Target
from residscope.wire.comparisons import Compare, ComparisonReply, RunSum
from residscope.wire.decompositions import WarningKind
from residscope.wire.envelope import Buffers, float32, number

if TYPE_CHECKING:
    from torch import Tensor


def comparison(
    context: RequestContext, request: Compare, key: Key, what_if: Any = None
) -> tuple[ComparisonReply, Buffers]:
    """Answer with a decomposition of the target in the shown run and in another run.

    Args:
        context: The shown cache.
        request: The request.
        key: The key of the request and of the arguments given with the cache. None if they have no key.
        what_if: The cache of a run without some heads, if this is the other run.
    """
    return of_two(context, request.against, what_if, key, lambda second: _reply(context, second, request))


def _reply(first: RequestContext, second: RequestContext, request: Compare) -> tuple[ComparisonReply, Buffers]:
    import torch

    check_one_source(request.target)
    check_one_answer(request.target)
    check_shapes(first.view, second.view)
    prompt, other_prompt = prompts_of(first, second, request.against, request.prompt)
    result, refusal = _compared(first, second, request, (prompt, other_prompt))
    batch = result.values.shape[-1]
    prompts = ShownPrompts(batch, None, result.padding if batch > 1 else None).checked()
    values = [result.first.values, result.second.values, result.written, result.read]
    components = result.components
    if request.by == "head":  # the whole map, with NaN in layers without attention
        view, parts = first.view, 0 if refusal else result.parts
        cells = view.n_layers * view.n_heads
        empty = values[0].new_full((cells, values[0].shape[-1]), math.nan)
        maps = [empty if refusal else replace(result, values=part).grid.flatten(0, 1) for part in values]
        values = [torch.cat([heads, part[parts:]]) for heads, part in zip(maps, values, strict=True)]
        components = [*(Component("head", *divmod(cell, view.n_heads)) for cell in range(cells)), *components[parts:]]
    # As for a single run, each prompt that attended to padding has a note, at every position.
    attended = positions.attended(first.view, prompt), positions.attended(second.view, other_prompt)
    about_runs = [
        [note for note in run.notes if note != ATTENDED_TO_PADDING] + more
        for run, more in zip((result.first, result.second), attended, strict=True)
    ]
    notes = [note for note in result.notes if not note.endswith(ATTENDED_TO_PADDING)] + of_runs(*attended)
    runs = zip((result.first, result.second), about_runs, strict=True)
    sums = [_sum(run, prompts, warnings_in(about)) for run, about in runs]
    reply = ComparisonReply(
        by=request.by,
        components=ComponentTable.of(components),
        first=sums[0],
        second=sums[1],
        difference=_sum(result, prompts, list(dict.fromkeys([*sums[0].warnings, *sums[1].warnings]))),
        read=float(prompts.of(result.read_total)),
        prompts=prompts.count,
        notes=([refusal] if refusal else []) + [note for note in notes if note not in (refusal or "")],
        refusal=refusal,
        missing=lacking(result.by, result.missing),
    )
    return reply, [float32(prompts.of(part)) for part in values]


def _compared(
    first: RequestContext, second: RequestContext, request: Compare, prompts: tuple[int | None, int | None]
) -> tuple[Comparison, str | None]:
    """The comparison, and the reason why there are no heads (then rows are layers)."""
    target = first.targets.resolve(request.target)
    with told_of("second"):
        other_target = second.targets.resolve(request.target)
    one = Run(first.targets, first.logits).only(prompts[0], target)
    two = Run(second.targets, second.logits).only(prompts[1], other_target)

    def by(rows: ShownBy) -> Comparison:
        norm = request.norm if rows == "accumulated" else "frozen"
        try:
            return compared(one, two, Query(Target([]), rows, None, norm), request.position, request.against.align)
        except ResidscopeError as error:
            raise on_screen(error, request.against) from error

    try:
        return by(request.by), None
    except ResidscopeError as error:
        if request.by != "head" or error.code not in ("no-heads", "missing-activation"):
            raise
        # The heads have no separate outputs. The map stays empty, the note has the reason, and the rows are layers.
        try:
            return by("layer"), str(error)
        except ResidscopeError:
            raise error from None


def _sum(run: Attribution, prompts: ShownPrompts, warnings: list[WarningKind]) -> RunSum:
    """The sum of a run's rows. `worst` is the largest unexplained rest of all prompts in the mean."""

    def mean(values: Tensor) -> float | None:
        return number(prompts.of(values))

    unexplained = run.unexplained
    return RunSum(
        measured=mean(run.measured),
        constant=float(prompts.of(run.constant)),
        unexplained=mean(unexplained),
        worst=number(prompts.worst(unexplained)) if unexplained.numel() > 1 else mean(unexplained),
        tolerance=run.tolerance,
        measured_from=run.measured_from,
        own=run.own,
        warnings=warnings,
    )
