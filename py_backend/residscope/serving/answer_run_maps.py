"""Answers the requests for maps of two runs: matched positions, attention patterns, and token lenses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from residscope.cache.padding import padding
from residscope.cache.token_labels import mean_of_padded
from residscope.comparison.alignment import Alignment, Pairs, alignment_of
from residscope.comparison.notes import different_tokens, of_runs, places_that_differ
from residscope.comparison.runs import Run, told_of
from residscope.comparison.same_shape import check_same_ids, check_shapes
from residscope.errors import ResidscopeError
from residscope.patterns.downsampling import Part, down_sampled
from residscope.patterns.weighting import WeightedAttention
from residscope.serving.answer_views import lens_cells, lens_window, packed_map
from residscope.serving.request_context import RequestContext, check_one_answer
from residscope.serving.second_run import Key, of_two, on_screen, prompts_of
from residscope.terms import Against, Target, Weighting
from residscope.wire.comparisons import (
    AttentionComparisonReply,
    CompareAttention,
    CompareTokenLens,
    PairingReply,
    PairPositions,
    PositionPair,
    TokenLensComparisonReply,
)
from residscope.wire.envelope import Buffers
from residscope.wire.predictions import LensCell

if TYPE_CHECKING:
    from torch import Tensor

_OTHER_SOURCES = (
    "The patterns of the two runs have different sources (past keys, or a prefix), so they cannot be compared cell by "
    "cell."
)
MOST_POSITIONS = 4_096
_TOO_LONG = (
    f"The attention of prompts with more than {MOST_POSITIONS:,} positions is not compared on screen: use "
    "`residscope.compare_attention`."
)


def pairing(context: RequestContext, request: PairPositions, what_if: Any = None) -> tuple[PairingReply, Buffers]:
    """Answer with the matched positions of the two runs."""
    return of_two(context, request.against, what_if, None, lambda second: (_pairing(context, second, request), []))


def attention(
    context: RequestContext, request: CompareAttention, key: Key, what_if: Any = None
) -> tuple[AttentionComparisonReply, Buffers]:
    """Answer with the attention pattern of one head in both runs."""
    return of_two(context, request.against, what_if, key, lambda second: _maps(context, second, request))


def token_lens(
    context: RequestContext, request: CompareTokenLens, what_if: Any = None
) -> tuple[TokenLensComparisonReply, Buffers]:
    """Answer with a window of the token lens in both runs."""
    return of_two(context, request.against, what_if, None, lambda second: (_lenses(context, second, request), []))


def _aligned(
    first: RequestContext, second: RequestContext, against: Against, shown: int | None
) -> tuple[Run, Run, Alignment, tuple[int | None, int | None]]:
    """Both runs with only the prompts that are compared, the alignment of their positions, and these prompts."""
    check_shapes(first.view, second.view)
    prompts = prompts_of(first, second, against, shown)
    run, _ = Run(first.targets, first.logits).only(prompts[0], Target([]))
    other, _ = Run(second.targets, second.logits).only(prompts[1], Target([]))
    try:
        return run, other, alignment_of(run, other, against.align), prompts
    except ResidscopeError as error:
        raise on_screen(error, against) from error


def _common(alignment: Alignment, against: Against) -> Pairs:
    try:
        return alignment.common()
    except ResidscopeError as error:
        raise on_screen(error, against) from error


def _pairing(first: RequestContext, second: RequestContext, request: PairPositions) -> PairingReply:
    run, other, alignment, _ = _aligned(first, second, request.against, request.prompt)
    every, pairs = alignment.pairs, None
    if every is not None and all(some == every[0] for some in every):
        pairs = every[0]
    how = "token" if request.against.align else "none" if every is None else "padding"
    return PairingReply(
        how="index" if alignment.is_index else how,
        pairs=None if alignment.is_index or pairs is None else [PositionPair(*pair) for pair in pairs],
        first_length=_length(run),
        second_length=_length(other),
        different=_different(run, other, every),
        has_tokens=all(one.view.tokens is not None for one in (run, other)),
    )


def _length(run: Run) -> int:
    """The number of real tokens of the first prompt."""
    ends = padding(run.view)
    return ends.last[0] + 1 - ends.first[0]


def _different(run: Run, other: Run, every: list[Pairs] | None) -> int:
    """How many matched positions have different tokens in some prompt."""
    return 0 if every is None else len({at for some in places_that_differ(run, other, every) for at in some})


def _maps(
    first: RequestContext, second: RequestContext, request: CompareAttention
) -> tuple[AttentionComparisonReply, Buffers]:
    check_shapes(first.view, second.view)
    first.view.check_head(request.layer, request.head)
    run, other, alignment, prompts = _aligned(first, second, request.against, request.prompt)
    pairs = _common(alignment, request.against)
    if max(first.view.n_pos, second.view.n_pos) > MOST_POSITIONS:
        raise ResidscopeError("too-long", _TOO_LONG)
    patterns = [WeightedAttention(of.view, "pattern", at) for of, at in zip((first, second), prompts, strict=True)]
    one, two = (maps.all_maps(request.layer, [request.head])[0] for maps in patterns)
    if any(len(part) != part.shape[-1] for part in (one, two)):
        raise ResidscopeError("compare-shapes", _OTHER_SOURCES)
    notes = [note for maps in patterns for note in maps.notes]
    if not alignment.is_index:
        one, two = (_at(part, [pair[at] for pair in pairs]) for at, part in enumerate((one, two)))
        for at, (of, prompt) in enumerate(zip((first, second), prompts, strict=True)):
            places, whole = [pair[at] for pair in pairs], mean_of_padded(of.view, prompt)
            notes = [note for note in notes if note not in whole]
            notes += mean_of_padded(of.view, prompt, range(min(places), max(places) + 1))
        notes += alignment.notes + alignment.left_out()
    size = len(pairs)
    step = Part.of(size).step
    shown = [down_sampled(values[None], step)[0] for values in (one, two, two.to(one) - one)]
    kinds: tuple[Weighting, ...] = ("pattern", "pattern", "contribution")  # the difference has both signs
    packed = [packed_map(what, values) for what, values in zip(kinds, shown, strict=True)]
    notes += different_tokens(run, other, [pairs] * run.view.batch, "positions that are compared")
    return AttentionComparisonReply(
        layer=request.layer,
        head=request.head,
        positions=size,
        parts=[part for part, _ in packed],
        notes=list(dict.fromkeys(notes)),
        step=step,
        pairs=None if alignment.is_index else [PositionPair(*pair) for pair in pairs],
    ), [buffer for _, buffer in packed]


def _at(values: Tensor, places: list[int]) -> Tensor:
    return values[places][:, places]


def _lenses(first: RequestContext, second: RequestContext, request: CompareTokenLens) -> TokenLensComparisonReply:
    run, other, alignment, prompts = _aligned(first, second, request.against, request.prompt)
    beside = dict(_common(alignment, request.against))
    window = lens_window(first, request)
    check_one_answer(request.target)
    notes = check_same_ids(request.target, first.targets.vocabulary, second.targets.vocabulary)
    one, one_notes = lens_cells(first, request, request.points, window, prompts[0])
    known = {point.label for point in second.view.points()}
    points = [point for point in request.points if point in known]
    there = [at for at in window if at in beside]
    rows: dict[str, dict[int, LensCell]] = {}
    two_notes: list[str] = []
    if points and there:
        with told_of("second"):
            cells, two_notes = lens_cells(second, request, points, [beside[at] for at in there], prompts[1])
        rows = {point: dict(zip(there, row, strict=True)) for point, row in zip(points, cells, strict=True)}
    pairs = [(at, beside[at]) for at in there]
    notes += different_tokens(run, other, [pairs] * run.view.batch, "positions that are compared")
    notes += [] if alignment.is_index else [*alignment.notes, *alignment.left_out()]
    return TokenLensComparisonReply(
        points=list(request.points),
        start=window.start,
        first=one,
        second=[[rows.get(point, {}).get(at) for at in window] for point in request.points],
        beside=[beside.get(at) for at in window],
        notes=notes + of_runs(one_notes, two_notes),
    )
