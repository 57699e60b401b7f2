"""Answers the requests of the views below the charts: attention, head scores, position map, token lens."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from residscope.attribution.own_targets import NONE_LAST, places_of
from residscope.attribution.position_map import position_map
from residscope.attribution.token_lens import read_lens
from residscope.base.numbered import named_layers
from residscope.cache.token_labels import mean_of_padded
from residscope.cache.view import CacheView
from residscope.compute.torch_context import on_one_thread
from residscope.errors import ResidscopeError, copied
from residscope.patterns.downsampling import Part, down_sampled, is_triangle, triangle
from residscope.patterns.scores import score_heads
from residscope.patterns.weighting import WeightedAttention
from residscope.serving.request_context import RequestContext
from residscope.session.change_notes import cache_changed
from residscope.terms import ComponentTable, Span, Weighting, is_chosen
from residscope.wire.attention import (
    AttentionBuffer,
    AttentionReply,
    BlendAttention,
    BlendReply,
    ReadAttention,
    ReadThumbnails,
    ScoreHeads,
    ScoresReply,
    ThumbnailsReply,
)
from residscope.wire.comparisons import CompareTokenLens
from residscope.wire.decompositions import MapPositions, PositionsReply
from residscope.wire.envelope import Buffers, float16, float32, int8, scaled
from residscope.wire.predictions import LensCell, ReadTokenLens, TokenLensReply

if TYPE_CHECKING:
    from torch import Tensor

ALWAYS = 128
"""For at most this many positions, the contribution-weighted map is sent with every head."""

LENS_TOKENS = 250_000
"""The largest number of tokens in a requested window of the token lens. Views request some thousands."""

WIDE = 16_384
"""Maps of at most this many cells are sent as float32: those of short prompts, and one row of a long prompt."""


def attention(context: RequestContext, request: ReadAttention) -> tuple[AttentionReply, Buffers]:
    """Answer with one head's maps, or a part of them, and its source contributions at the destination."""
    view, prompt = context.view, context.view.check_prompt(request.prompt)
    part = Part.of(view.n_pos, request.rows, request.columns)
    parts: list[AttentionBuffer] = []
    buffers: Buffers = []
    notes = cache_changed(view) + mean_of_padded(view, prompt)

    def add(weighting: Weighting, values: Tensor) -> None:
        what, buffer = on_one_thread(lambda: packed_map(weighting, values))
        parts.append(what)
        buffers.append(buffer)

    def read(maps: WeightedAttention) -> Tensor:
        return maps.head_map(request.layer, request.head, part, request.pool)

    patterns, whole_prompt = (
        WeightedAttention(view, "pattern", prompt),
        request.rows is None and request.columns is None,
    )
    add("pattern", read(patterns))
    if whole_prompt:
        where = places_of(view, request.target, request.position)
        if where is not None:
            parts.append(AttentionBuffer("reads"))
            buffers.append(float32(patterns.pattern_row(request.layer, request.head, where)))
    try:
        stream_target = context.stream_target(request.target, request.position, prompt)
        maps = WeightedAttention(view, "contribution", prompt, stream_target)
        whole = None
        if view.n_pos <= ALWAYS or request.weighting == "contribution":
            whole = read(maps)
        if whole_prompt:
            source_contributions = _source_contributions(maps, request, whole if part.step == 1 else None)
            parts.append(AttentionBuffer("brings"))
            buffers.append(float32(source_contributions))
        notes += [note for note in maps.notes if note not in notes]
        if request.weighting == "contribution" and request.target.next_token is not None:
            notes.append(_ONE_TARGET)
        if whole is not None:
            add("contribution", whole)
    except ResidscopeError as error:  # the attention pattern can still be shown, with the error as a note
        notes.append(str(error))
    if request.weighting == "value":
        try:
            maps = WeightedAttention(view, "value", prompt)
            add("value", read(maps))
            notes += [note for note in maps.notes if note not in notes]
        except ResidscopeError as error:
            notes.append(str(error))
    reply = AttentionReply(
        request.layer, request.head, view.n_pos, parts, notes, _span(request.rows, part.rows),
        _span(request.columns, part.columns), part.step, request.pool,
    )  # fmt: skip
    return reply, buffers


_ONE_TARGET = (
    "At every destination, this map shows contributions to the same token: the one that follows the selected "
    "destination. The position map and the tokens above show what a head adds to each position's own next token."
)


def _span(requested: Span | None, positions: range) -> Span | None:
    return None if requested is None else Span(positions.start, positions.stop)


def packed_map(what: Weighting, values: Tensor) -> tuple[AttentionBuffer, bytes]:
    """Return a map as a buffer: float32 if the map is small, otherwise float16, scaled to avoid overflow."""
    below = is_triangle(values)
    sent = triangle(values) if below else values
    if values.numel() <= WIDE:
        return AttentionBuffer(what, 1.0, True, below), float32(sent)
    if what == "pattern":
        return AttentionBuffer(what, 1.0, False, below), float16(sent)
    scale, buffer = scaled(sent)
    return AttentionBuffer(what, scale, False, below), buffer


def _source_contributions(maps: WeightedAttention, request: ReadAttention, whole: Tensor | None) -> Tensor:
    """Source contributions at the requested destination `[source]`, taken from the whole map if it is known."""
    where = maps.stream_target.where if maps.stream_target else None
    if where is None:
        raise ResidscopeError("position", "A destination is needed.")
    destinations = set(where[maps.prompts.start : maps.prompts.stop].tolist())
    if whole is not None and len(destinations) == 1 and not maps.leaves_out_padding:
        return whole[destinations.pop()]
    return maps.source_contributions(request.layer, request.head, where)


def thumbnails(context: RequestContext, request: ReadThumbnails) -> tuple[ThumbnailsReply, Buffers]:
    """Answer with thumbnails of all heads of a layer."""
    import torch

    view, layer = context.view, context.view.check_layer(request.layer)
    step = ceil(view.n_pos / min(max(request.side, 1), view.n_pos))
    side = ceil(view.n_pos / step)
    cells = torch.zeros(view.n_heads, side, side, dtype=torch.int8, device="cpu")
    limits: list[float | None] = [None] * view.n_heads
    maps = context.maps(request.weighting, request.target, request.prompt)
    failures: list[str] = []
    try:
        found = maps.down_sampled_maps(layer, range(_head_count(view, layer)), Part.of(view.n_pos), step)
        every = [(head, small) for heads, values in found for head, small in zip(heads, values, strict=True)]
        for at, limit, values in on_one_thread(lambda: [(head, *int8(small)) for head, small in every]):
            limits[at], cells[at] = limit, values
    except ResidscopeError as error:
        failures = [str(error)]
    notes = failures + maps.notes + mean_of_padded(view, maps.prompt)
    return ThumbnailsReply(layer, side, view.n_pos, limits, notes), [cells.numpy().tobytes()]


def blend(context: RequestContext, request: BlendAttention) -> tuple[BlendReply, Buffers]:
    """Answer with the attention of many heads combined in one map, computed layer by layer."""
    view = context.view
    maps = context.maps(request.weighting, request.target, request.prompt)
    part = Part.of(view.n_pos, request.rows, request.columns)
    total, count = view.like.new_zeros(len(part.rows), len(part.columns)), 0
    failures: dict[int, ResidscopeError] = {}
    for layer in range(view.n_layers) if request.layer is None else [view.check_layer(request.layer)]:
        of_layer = total.new_zeros(())  # added to `total` only if the whole layer succeeds
        try:
            for _, values in maps.map_blocks(layer, range(_head_count(view, layer)), part):
                of_layer = of_layer + values.sum(0)
        except ResidscopeError as error:
            failures[layer] = copied(error)
            continue
        total, count = total + of_layer, count + _head_count(view, layer)
    if not count and failures:
        raise copied(next(iter(failures.values())))
    notes = maps.notes + mean_of_padded(view, maps.prompt)
    if failures:
        notes.append(f"Without {named_layers(failures)}: {next(iter(failures.values()))}")
    if request.weighting != "contribution":
        total /= max(count, 1)
    what, buffer = packed_map(request.weighting, down_sampled(total[None], part.step)[0])
    rows, columns = _span(request.rows, part.rows), _span(request.columns, part.columns)
    return BlendReply(view.n_pos, count, what, notes, rows, columns, part.step), [buffer]


def _head_count(view: CacheView, layer: int) -> int:
    """The number of heads of a layer. `n_heads` if the layer's pattern is not cached."""
    pattern = view.activations.get(f"blocks.{layer}.attn.hook_pattern")
    return view.n_heads if pattern is None else int(pattern.shape[-3])


def scores(context: RequestContext, request: ScoreHeads) -> tuple[ScoresReply, Buffers]:
    """Answer with a score for each head: how much it behaves like one known kind of head."""
    found = score_heads(context.view, request.score, context.view.check_prompt(request.prompt))
    reply = ScoresReply(request.score, found.meaning, found.low, found.high, found.notes)
    return reply, [float32(found.values)]


def position_rows(context: RequestContext, request: MapPositions) -> tuple[PositionsReply, Buffers]:
    """Answer with the position map: component × position."""
    prompt, target = context.view.check_prompt(request.prompt), context.targets.resolve(request.target)
    _check_each_once(request.heads, "heads")
    lens = context.lens_of(request.transport)
    found = position_map(context.targets, target, request.by, prompt, context.logits, request.norm, request.heads, lens)
    notes = [note for note in found.notes if note != NONE_LAST]
    reply = PositionsReply(request.by, ComponentTable.of(found.components), context.view.n_pos, notes, found.missing)
    return reply, [float32(found.values), float32(found.measured)]


def token_lens(context: RequestContext, request: ReadTokenLens) -> TokenLensReply:
    """Answer with a window of the token lens."""
    window = lens_window(context, request)
    prompt = context.view.check_prompt(request.prompt)
    cells, notes = lens_cells(context, request, request.points, window, prompt)
    return TokenLensReply(list(request.points), window.start, cells, notes)


def lens_window(context: RequestContext, request: ReadTokenLens | CompareTokenLens) -> range:
    """Return the positions that a request for the token lens names."""
    window = range(max(request.start, 0), min(request.stop, context.view.n_pos))
    if not window:
        raise ResidscopeError(
            "position",
            f"There are no positions {request.start} to {request.stop}: the prompt has {context.view.n_pos}.",
        )
    _check_each_once(request.points, "points")
    entries = len(request.points) * len(window) * request.k
    if entries > LENS_TOKENS:
        raise ResidscopeError(
            "too-large",
            f"{len(request.points):,} points × {len(window):,} positions × {request.k} tokens are {entries:,} "
            f"entries, and one request may list at most {LENS_TOKENS:,}: request fewer points or positions at once.",
        )
    return window


def lens_cells(
    context: RequestContext,
    request: ReadTokenLens | CompareTokenLens,
    points: Sequence[str],
    places: Sequence[int],
    prompt: int | None,
) -> tuple[list[list[LensCell]], list[str]]:
    """Return the cells at some points and positions, `[point][position]`, and notes on them."""
    target = request.target
    if is_chosen(target):  # without a target the reply has no rank of the answer
        target = context.targets.resolve(target)
    lens = context.lens_of(request.transport) if isinstance(request, ReadTokenLens) else None
    maps = None if lens is None else lens.on(context.view)
    found = read_lens(context.targets, target, points, places, prompt, request.k, request.norm, maps)
    has_token = (found.ids[..., 0] >= 0).tolist()  # a cell is empty if every prompt has padding there
    parts: list[Any] = [
        [[v if has else [] for v, has in zip(*row, strict=True)] for row in zip(values, has_token, strict=True)]
        for values in (found.tokens, found.probabilities.tolist())
    ]
    if found.answer_probability is not None and found.rank is not None:
        # Where no token follows, there is no answer.
        known = found.answer_probability.isfinite().tolist()
        for values in (found.answer_probability.tolist(), found.rank.tolist()):
            parts.append([[v if has else None for v, has in zip(*row, strict=True)]
                          for row in zip(values, known, strict=True)])  # fmt: skip
    return [[LensCell(*cell) for cell in zip(*row, strict=True)] for row in zip(*parts, strict=True)], found.notes


def _check_each_once(names: list[str], code: str) -> None:
    """Refuse repeated names. So a request never has more rows than the model."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ResidscopeError(code, f"`{name}` is requested twice: name each of the {code} once.")
        seen.add(name)
