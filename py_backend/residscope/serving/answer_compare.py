"""Answers the requests that compare two runs: prompts of one cache, or two caches of the user's namespace."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from uuid import uuid4

from residscope.attribution.decompose import Query
from residscope.attribution.missing import lacking
from residscope.attribution.result import Attribution
from residscope.attribution.targets import Targets
from residscope.cache.view import CacheView
from residscope.comparison.alignment import alignment_of
from residscope.comparison.notes import different_tokens
from residscope.comparison.result import Comparison
from residscope.comparison.runs import Run, chosen_prompts, told_of
from residscope.comparison.same_shape import check_shapes
from residscope.comparison.two_runs import compared
from residscope.compute.memo import size_of
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.patterns.downsampling import Part, down_sampled
from residscope.patterns.weighting import WeightedAttention
from residscope.serving.answer_views import packed_map
from residscope.serving.request_context import RequestContext, check_one_source
from residscope.session.change_notes import steady
from residscope.session.change_tracking import track
from residscope.session.class_kinds import peek
from residscope.session.discovery import named
from residscope.terms import Against, Component, ComponentTable, Decomposition, Target, Weighting
from residscope.wire.envelope import Buffers, float32, number
from residscope.wire.protocol import AttentionComparisonReply, Compare, CompareAttention, ComparisonReply, RunSum

if TYPE_CHECKING:
    from torch import Tensor

_ONE_PROMPT = "The mean over all prompts cannot be compared with one prompt: choose a prompt, or end the comparison."
_ITSELF = "This comparison names neither another cache nor another prompt: choose what to compare with."
_OTHER_LENGTHS = (
    "The prompts of the two runs differ in their length or their padding, so their attention cannot be compared cell "
    "by cell: use `residscope.compare_attention` with `align=`."
)
_OTHER_SOURCES = (
    "The patterns of the two runs have different sources (past keys, or a prefix), so they cannot be compared cell by "
    "cell."
)
MOST_POSITIONS = 4_096
_TOO_LONG = (
    f"The attention of prompts with more than {MOST_POSITIONS:,} positions is not compared on screen: use "
    "`residscope.compare_attention`."
)
_ON_SCREEN = "On screen, select the last token: it is compared with the last token of the other run."

Key: TypeAlias = "tuple[Hashable, ...] | None"
T = TypeVar("T")


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
    return _of_two(context, request.against, what_if, key, lambda second: _reply(context, second, request))


def attention(
    context: RequestContext, request: CompareAttention, key: Key, what_if: Any = None
) -> tuple[AttentionComparisonReply, Buffers]:
    """Answer with the attention pattern of one head in both runs. Arguments as in `comparison`."""
    return _of_two(context, request.against, what_if, key, lambda second: _maps(context, second, request))


def _of_two(
    context: RequestContext,
    against: Against,
    what_if: Any,
    key: Key,
    make: Callable[[RequestContext], tuple[T, Buffers]],
) -> tuple[T, Buffers]:
    """Call `make` with the context of the other run.

    The reply depends on the states of both caches. It is memoised for both together, and computed again if the other
    cache changes meanwhile. For the shown cache, the service does the same.
    """
    memo = context.view.memo

    def kept(state: str, make: Callable[[], tuple[T, Buffers]]) -> tuple[T, Buffers]:
        return make() if key is None else memo.once(("compared", state, *key), make, lambda reply: size_of(reply[1]))

    name = against.cache
    cache = what_if
    if cache is None:
        if name is None:
            return kept("", lambda: make(context))
        cache = named(name)
    if cache is None:
        raise ResidscopeError(
            "against",
            f"There is no activation cache `{name}` in the notebook: run the cell that makes it, or compare with "
            "another run.",
        )
    model = context.view.model if peek(cache, "model") is None else None  # the other cache's model was deleted
    other = track(cache, model)

    def work() -> tuple[T, Buffers]:
        view = CacheView(cache, model=model, seen=other)
        view.padding_is_real = context.view.padding_is_real
        second = RequestContext(Targets.of(view, context.targets.directions), None)
        return in_torch_context(view.stream.device, lambda: make(second))

    # The other cache's memo has one `state` for as long as that cache does not change. The key of the reply includes
    # `state`, so the reply is used only for as long.
    state: str = other.memo[0].once(("state",), lambda: uuid4().hex)
    return kept(state, lambda: steady(lambda quick: other.compare(cache, model, quick=quick), work, other))


def _reply(first: RequestContext, second: RequestContext, request: Compare) -> tuple[ComparisonReply, Buffers]:
    import torch

    check_one_source(request.target)
    check_shapes(first.view, second.view)
    result, prompt, refusal = _compared(first, second, request)
    values = [result.first.values, result.second.values, result.written, result.read]
    components = result.components
    if request.by == "head":  # the whole map, with NaN in layers without attention
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
    """The comparison, the prompt of the first run, and the reason why there are no heads (then rows are layers)."""
    prompt, other_prompt = _prompts(first, second, request)
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
        # The heads have no separate outputs. The map stays empty, the note has the reason, and the rows are layers.
        try:
            return by("layer"), prompt, str(error)
        except ResidscopeError:
            raise error from None


def _prompts(
    first: RequestContext, second: RequestContext, request: Compare | CompareAttention
) -> tuple[int | None, int | None]:
    """The prompt of each run. None for each if all prompts are compared, in their order."""
    against = request.against
    if against.cache is None and against.prompt is None and not against.without:
        raise ResidscopeError("against", _ITSELF)
    prompt = first.view.check_prompt(request.prompt)
    if prompt is None and against.prompt is not None and first.view.batch > 1:
        raise ResidscopeError("against", _ONE_PROMPT)
    return chosen_prompts(first.view, second.view, prompt, against.prompt, same=first is second)


def _maps(
    first: RequestContext, second: RequestContext, request: CompareAttention
) -> tuple[AttentionComparisonReply, Buffers]:
    check_shapes(first.view, second.view)
    first.view.check_head(request.layer, request.head)
    prompts = _prompts(first, second, request)
    run, _ = Run(first.targets, first.logits).only(prompts[0], Target([]))
    other, _ = Run(second.targets, second.logits).only(prompts[1], Target([]))
    if not alignment_of(run, other, None).is_index:
        raise ResidscopeError("align", _OTHER_LENGTHS)
    size = first.view.n_pos
    if size > MOST_POSITIONS:
        raise ResidscopeError("too-long", _TOO_LONG)
    patterns = [WeightedAttention(of.view, "pattern", at) for of, at in zip((first, second), prompts, strict=True)]
    one, two = (maps.all_maps(request.layer, [request.head])[0] for maps in patterns)
    if one.shape != two.shape or one.shape[-1] != size:
        raise ResidscopeError("compare-shapes", _OTHER_SOURCES)
    step = Part.of(size).step
    shown = [down_sampled(values[None], step)[0] for values in (one, two, two.to(one) - one)]
    kinds: tuple[Weighting, ...] = ("pattern", "pattern", "contribution")  # the difference has both signs
    packed = [packed_map(what, values) for what, values in zip(kinds, shown, strict=True)]
    notes = list(dict.fromkeys(note for maps in patterns for note in maps.notes))
    reply = AttentionComparisonReply(
        request.layer, request.head, size, [part for part, _ in packed], notes + _tokens(run, other), step
    )
    return reply, [buffer for _, buffer in packed]


def _tokens(one: Run, two: Run) -> list[str]:
    """A note if the runs have different tokens: then a cell belongs to two pairs of tokens."""
    every = [[(at, at) for at in range(one.view.n_pos)]] * one.view.batch
    return different_tokens(one, two, every, "positions that are compared")


def _sum(run: Attribution) -> RunSum:
    """The sum of a run's rows. `worst` is the largest unexplained rest of all prompts."""

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
