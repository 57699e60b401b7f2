"""Answers the requests that compare two runs: prompts of one cache, or two caches of the user's namespace."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from residscope.attribution.decompose import Query
from residscope.attribution.missing import lacking
from residscope.attribution.result import Attribution
from residscope.attribution.targets import Targets
from residscope.cache.view import CacheView
from residscope.comparison.result import Comparison
from residscope.comparison.runs import Run, chosen_prompts, told_of
from residscope.comparison.same_shape import check_shapes
from residscope.comparison.two_runs import compared
from residscope.compute.memo import size_of
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.serving.request_context import RequestContext, check_one_source
from residscope.session.change_notes import steady
from residscope.session.change_tracking import track
from residscope.session.discovery import named, peek
from residscope.terms import Component, ComponentTable, Decomposition, Target
from residscope.wire.envelope import Buffers, float32, number
from residscope.wire.protocol import Compare, ComparisonReply, RunSum

if TYPE_CHECKING:
    from torch import Tensor

_ONE_PROMPT = "The mean over all prompts cannot be compared with one prompt: choose a prompt, or end the comparison."
_ITSELF = "This comparison names neither another cache nor another prompt: choose what to compare with."
_ON_SCREEN = "On screen, select the last token: it is compared with the last token of the other run."

Answered = tuple[ComparisonReply, Buffers]


def comparison(context: RequestContext, request: Compare, key: tuple[Hashable, ...] | None) -> Answered:
    """A decomposition of the target in the run that is shown, and in another one.

    The reply depends on the states of both caches. It is memoised for both together, and computed again if the other
    cache changes meanwhile; the service does the same for the first one.

    Args:
        context: The cache that is shown.
        request: The request.
        key: The key of the request and of what was given with the cache; None if it has none.
    """
    memo = context.view.memo

    def kept(state: str, make: Callable[[], Answered]) -> Answered:
        return make() if key is None else memo.once(("compared", state, *key), make, lambda reply: size_of(reply[1]))

    name = request.against.cache
    if name is None:
        return kept("", lambda: _reply(context, context, request))
    cache = named(name)
    if cache is None:
        raise ResidscopeError(
            "against",
            f"There is no activation cache `{name}` in the notebook: run the cell that makes it, or compare with "
            "another run.",
        )
    model = context.view.model if peek(cache, "model") is None else None  # the model of its run was deleted
    other = track(cache, model)

    def work() -> Answered:
        view = CacheView(cache, model=model, seen=other)
        view.padding_is_real = context.view.padding_is_real
        second = RequestContext(Targets.of(view, context.targets.directions), None)
        return in_torch_context(view.stream.device, lambda: _reply(context, second, request))

    # In the memo of the other cache, this lasts as long as its present state, and so do the replies with it in their
    # keys.
    state: str = other.memo[0].once(("state",), lambda: uuid4().hex)
    return kept(state, lambda: steady(lambda quick: other.compare(cache, model, quick=quick), work, other))


def _reply(first: RequestContext, second: RequestContext, request: Compare) -> Answered:
    import torch

    check_one_source(request.target)
    check_shapes(first.view, second.view)
    result, prompt, refusal = _compared(first, second, request)
    values = [result.first.values, result.second.values, result.written, result.read]
    components = result.components
    if request.by == "head":  # the whole map; layers without attention are NaN
        view, parts = first.view, 0 if refusal else result.parts
        cells = view.n_layers * view.n_heads
        empty = values[0].new_full((cells, values[0].shape[-1]), math.nan)
        maps = [empty if refusal else replace(result, values=part).grid.flatten(0, 1) for part in values]
        values = [torch.cat([heads, part[parts:]]) for heads, part in zip(maps, values, strict=True)]
        components = [*(Component("head", *divmod(cell, view.n_heads)) for cell in range(cells)), *components[parts:]]
    reply = ComparisonReply(
        by=request.by,
        components=ComponentTable.of(components),
        first=_sum(result.first),
        second=_sum(result.second),
        difference=_sum(result),
        read=float(result.read_total.mean()),
        prompts=first.view.batch if prompt is None else 1,
        notes=([refusal] if refusal else []) + [note for note in result.notes if note not in (refusal or "")],
        refusal=refusal,
        missing=lacking(result.by, result.missing),
    )
    return reply, [float32(part.mean(-1)) for part in values]


def _compared(
    first: RequestContext, second: RequestContext, request: Compare
) -> tuple[Comparison, int | None, str | None]:
    """The comparison, the prompt of the first run, and why there are no heads: then the rows are those of layers."""
    against = request.against
    if against.cache is None and against.prompt is None:
        raise ResidscopeError("against", _ITSELF)
    prompt = first.view.check_prompt(request.prompt)
    if prompt is None and against.prompt is not None and first.view.batch > 1:
        raise ResidscopeError("against", _ONE_PROMPT)
    prompt, other_prompt = chosen_prompts(first.view, second.view, prompt, against.prompt, same=first is second)
    target = first.targets.resolve(request.target)
    with told_of("second"):
        other_target = second.targets.resolve(request.target)
    one = Run(first.targets, first.logits).only(prompt, target)
    two = Run(second.targets, second.logits).only(other_prompt, other_target)

    def by(rows: Decomposition) -> Comparison:
        norm = request.norm if rows == "accumulated" else "frozen"
        try:
            return compared(one, two, Query(Target([]), rows, None, norm), request.position, None)
        except ResidscopeError as error:
            if error.code != "align":
                raise
            raise ResidscopeError(error.code, f"{error} {_ON_SCREEN}") from error

    try:
        return by(request.by), prompt, None
    except ResidscopeError as error:
        if request.by != "head" or error.code not in ("no-heads", "missing-activation"):
            raise
        # The heads have no separate outputs. The map stays empty, the note says why, and the rows are the layers.
        try:
            return by("layer"), prompt, str(error)
        except ResidscopeError:
            raise error from None


def _sum(run: Attribution) -> RunSum:
    """What the rows of a run add up to; in the mean over prompts, the worst prompt is judged."""

    def mean(values: Tensor) -> float | None:
        return number(values.mean())

    unexplained = run.unexplained
    return RunSum(
        measured=mean(run.measured),
        constant=float(run.constant.mean()),
        unexplained=mean(unexplained),
        worst=number(unexplained.abs().max()) if unexplained.numel() > 1 else mean(unexplained),
        tolerance=run.tolerance,
        measured_from=run.measured_from,
        own=run.own,
    )
