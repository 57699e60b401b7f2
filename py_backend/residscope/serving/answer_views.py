"""Requests for the pictures below the charts: attention, head scores, the position map, the token lens."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from residscope.attribution.position_map import position_map
from residscope.attribution.token_lens import lens
from residscope.cache import positions
from residscope.cache.structure import named_layers
from residscope.cache.token_labels import mean_of_padded
from residscope.cache.view import CacheView
from residscope.compute.torch_context import on_one_thread
from residscope.errors import ResidscopeError
from residscope.patterns.downsampling import Part, down_sampled, is_triangle, triangle
from residscope.patterns.scores import score_heads
from residscope.patterns.weighting import WeightedAttention
from residscope.serving.request_context import RequestContext
from residscope.session.change_notes import cache_changed
from residscope.terms import ComponentTable, Span, Weighting
from residscope.wire.envelope import Buffers, float16, float32, int8, scaled
from residscope.wire.protocol import (
    AttentionBuffer,
    AttentionReply,
    BlendAttention,
    BlendReply,
    LensCell,
    MapPositions,
    PositionsReply,
    ReadAttention,
    ReadThumbnails,
    ReadTokenLens,
    ScoreHeads,
    ScoresReply,
    ThumbnailsReply,
    TokenLensReply,
)

if TYPE_CHECKING:
    from torch import Tensor

ALWAYS = 128
"""Up to so many positions a map of contributions travels with every head."""

LENS_TOKENS = 250_000
"""So many tokens the cells of one window of the token lens list: a view asks for some thousands."""

WIDE = 16_384
"""Maps of no more cells travel as float32: those of short prompts, and what one destination reads in a long one."""


def attention(scene: RequestContext, ask: ReadAttention) -> tuple[AttentionReply, Buffers]:
    """One head's maps, or a part of them, and what its sources bring to the destination."""
    view, prompt = scene.view, scene.view.check_prompt(ask.prompt)
    part = Part.of(view.n_pos, ask.rows, ask.columns)
    parts: list[AttentionBuffer] = []
    buffers: Buffers = []
    notes = cache_changed(view) + mean_of_padded(view, prompt)

    def add(weighting: Weighting, values: Tensor) -> None:
        what, buffer = on_one_thread(lambda: _packed(weighting, values))
        parts.append(what)
        buffers.append(buffer)

    def read(maps: WeightedAttention) -> Tensor:
        return maps.one(ask.layer, ask.head, part, ask.pool)

    patterns, whole_prompt = WeightedAttention(view, "pattern", prompt), ask.rows is None and ask.columns is None
    add("pattern", read(patterns))
    if whole_prompt:
        where = positions.resolve(view, ask.position)
        if where is not None:
            parts.append(AttentionBuffer("reads"))
            buffers.append(float32(patterns.reads(ask.layer, ask.head, where)))
    try:
        maps = WeightedAttention(view, "contribution", prompt, scene.stream_target(ask.target, ask.position))
        whole = None
        if view.n_pos <= ALWAYS or ask.weighting == "contribution":
            whole = read(maps)
        if whole_prompt:
            brings = _brings(maps, ask, whole if part.step == 1 else None)
            parts.append(AttentionBuffer("brings"))
            buffers.append(float32(brings))
        notes += [note for note in maps.notes if note not in notes]
        if whole is not None:
            add("contribution", whole)
    except ResidscopeError as error:  # attention is still worth seeing; the note says what is missing
        notes.append(str(error))
    if ask.weighting == "value":
        try:
            maps = WeightedAttention(view, "value", prompt)
            add("value", read(maps))
            notes += [note for note in maps.notes if note not in notes]
        except ResidscopeError as error:
            notes.append(str(error))
    reply = AttentionReply(
        ask.layer, ask.head, view.n_pos, parts, notes, _told(ask.rows, part.rows), _told(ask.columns, part.columns),
        part.step, ask.pool,
    )  # fmt: skip
    return reply, buffers


def _told(asked: Span | None, found: range) -> Span | None:
    return None if asked is None else Span(found.start, found.stop)


def _packed(what: Weighting, values: Tensor) -> tuple[AttentionBuffer, bytes]:
    """A map as it travels: as float32 where it is small, else as float16, in units of what it needs."""
    below = is_triangle(values)
    sent = triangle(values) if below else values
    if values.numel() <= WIDE:
        return AttentionBuffer(what, 1.0, True, below), float32(sent)
    if what == "pattern":
        return AttentionBuffer(what, 1.0, False, below), float16(sent)
    scale, buffer = scaled(sent)
    return AttentionBuffer(what, scale, False, below), buffer


def _brings(maps: WeightedAttention, ask: ReadAttention, whole: Tensor | None) -> Tensor:
    """What each source brings to the destination asked about; read off the whole map where that is there."""
    where = maps.stream_target.where if maps.stream_target else None
    if where is None:
        raise ResidscopeError("position", "A destination is needed.")
    destinations = set(where[maps.prompts.start : maps.prompts.stop].tolist())
    if whole is not None and len(destinations) == 1:
        return whole[destinations.pop()]
    return maps.contributions(ask.layer, ask.head, where)


def thumbnails(scene: RequestContext, ask: ReadThumbnails) -> tuple[ThumbnailsReply, Buffers]:
    """All heads of a layer in small."""
    import torch

    view, layer = scene.view, scene.view.check_layer(ask.layer)
    step = ceil(view.n_pos / min(max(ask.side, 1), view.n_pos))
    side = ceil(view.n_pos / step)
    cells = torch.zeros(view.n_heads, side, side, dtype=torch.int8, device="cpu")
    limits: list[float | None] = [None] * view.n_heads
    maps = scene.maps(ask.weighting, ask.target, ask.prompt)
    refused: list[str] = []
    try:
        found = maps.small(layer, range(_count(view, layer)), Part.of(view.n_pos), step)
        every = [(head, small) for heads, values in found for head, small in zip(heads, values, strict=True)]
        for at, limit, figures in on_one_thread(lambda: [(head, *int8(small)) for head, small in every]):
            limits[at], cells[at] = limit, figures
    except ResidscopeError as error:
        refused = [str(error)]
    notes = refused + maps.notes + mean_of_padded(view, maps.prompt)
    return ThumbnailsReply(layer, side, view.n_pos, limits, notes), [cells.numpy().tobytes()]


def blend(scene: RequestContext, ask: BlendAttention) -> tuple[BlendReply, Buffers]:
    """Many heads in one map, a layer at a time."""
    view = scene.view
    maps = scene.maps(ask.weighting, ask.target, ask.prompt)
    part = Part.of(view.n_pos, ask.rows, ask.columns)
    total, count = view.like.new_zeros(len(part.rows), len(part.columns)), 0
    refusals: dict[int, ResidscopeError] = {}
    for layer in range(view.n_layers) if ask.layer is None else [view.check_layer(ask.layer)]:
        own = total.new_zeros(())  # a layer that is refused half way counts for nothing
        try:
            for _, values in maps.of(layer, range(_count(view, layer)), part):
                own = own + values.sum(0)
        except ResidscopeError as error:
            refusals[layer] = error
            continue
        total, count = total + own, count + _count(view, layer)
    if not count and refusals:
        raise next(iter(refusals.values()))
    notes = maps.notes + mean_of_padded(view, maps.prompt)
    if refusals:
        notes.append(f"Without {named_layers(refusals)}: {next(iter(refusals.values()))}")
    if ask.weighting != "contribution":
        total /= max(count, 1)
    what, buffer = _packed(ask.weighting, down_sampled(total[None], part.step)[0])
    rows, columns = _told(ask.rows, part.rows), _told(ask.columns, part.columns)
    return BlendReply(view.n_pos, count, what, notes, rows, columns, part.step), [buffer]


def _count(view: CacheView, layer: int) -> int:
    """How many heads a layer has; all, where that is not known."""
    pattern = view.activations.get(f"blocks.{layer}.attn.hook_pattern")
    return view.n_heads if pattern is None else int(pattern.shape[-3])


def scores(scene: RequestContext, ask: ScoreHeads) -> tuple[ScoresReply, Buffers]:
    """How much each head is of a known kind."""
    found = score_heads(scene.view, ask.score, scene.view.check_prompt(ask.prompt))
    reply = ScoresReply(ask.score, found.meaning, found.low, found.high, found.notes)
    return reply, [float32(found.values)]


def position_rows(scene: RequestContext, ask: MapPositions) -> tuple[PositionsReply, Buffers]:
    """Component × position."""
    prompt, target = scene.view.check_prompt(ask.prompt), scene.targets.resolve(ask.target)
    _check_each_once(ask.heads, "heads")
    found = position_map(scene.targets, target, ask.by, prompt, scene.logits, ask.norm, ask.heads)
    reply = PositionsReply(ask.by, ComponentTable.of(found.components), scene.view.n_pos, found.notes, found.missing)
    return reply, [float32(found.values), float32(found.measured)]


def token_lens(scene: RequestContext, ask: ReadTokenLens) -> TokenLensReply:
    """A window of the token lens."""
    view, target = scene.view, ask.target
    if target.contrasts or target.direction is not None:  # without one there is no answer's rank
        target = scene.targets.resolve(target)
    window = range(max(ask.start, 0), min(ask.stop, view.n_pos))
    if not window:
        raise ResidscopeError(
            "position", f"There are no positions {ask.start} to {ask.stop}: the prompt has {view.n_pos}."
        )
    _check_each_once(ask.points, "points")
    entries = len(ask.points) * len(window) * ask.k
    if entries > LENS_TOKENS:
        raise ResidscopeError(
            "too-large",
            f"{len(ask.points):,} points × {len(window):,} positions × {ask.k} tokens are {entries:,} entries, and one "
            f"request may ask for at most {LENS_TOKENS:,}: ask for fewer points or positions at once.",
        )
    found = lens(scene.targets, target, ask.points, window, view.check_prompt(ask.prompt), min(ask.k, 50), ask.norm)
    parts: list[Any] = [found.tokens, found.probabilities.tolist()]
    if found.answer_probability is not None and found.rank is not None:
        parts += [found.answer_probability.tolist(), found.rank.tolist()]
    cells = [[LensCell(*cell) for cell in zip(*row, strict=True)] for row in zip(*parts, strict=True)]
    return TokenLensReply(found.points, window.start, cells, found.notes)


def _check_each_once(names: list[str], code: str) -> None:
    """Refuse what is asked for twice: so many rows are never more than the model has."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ResidscopeError(code, f"`{name}` is asked for twice: name each of the {code} once.")
        seen.add(name)
