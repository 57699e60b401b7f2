"""Requests for the pictures below the charts: attention, head scores, the position map, the token lens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import positions
from .attribution import Checked
from .cache import CacheView
from .envelope import Buffers, float16, float32, int8, scaled
from .errors import ResidscopeError
from .head_scores import MEANINGS, score_heads
from .kept import Kept
from .labels import padding_in_mean
from .lens import lens
from .position_map import position_map
from .protocol import (
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
    Target,
    ThumbnailsReply,
    TokenLensReply,
    Weighting,
)
from .structure import named_layers
from .targets import Targets
from .weightings import Goal, Maps

if TYPE_CHECKING:
    from torch import Tensor

ALWAYS = 128
"""Up to so many positions a map of contributions travels with every head."""


@dataclass(frozen=True)
class Scene:
    """A cache as it is now, and what pictures of it need.

    Attributes:
        targets: Resolves targets for it.
        logits: The model's output, where it was given.
        checked: What was found of the layers, for a target and the positions asked about.
        ways: What every head's contributions to a target share.
    """

    targets: Targets
    logits: Tensor | None
    checked: Callable[[Target, Tensor | None], Checked]
    ways: Callable[[Target], Kept]

    @property
    def view(self) -> CacheView:
        """The cache."""
        return self.targets.view

    def goal(self, target: Target, position: int | None = None) -> Goal:
        """The way to a target; layers are held against the stream at this position (None: each prompt's last)."""
        where = positions.resolve(self.view, "last" if position is None else position)
        target = self.targets.resolve(target)
        return Goal(self.targets, target, where, self.checked(target, where), self.ways(target))

    def maps(self, weighting: Weighting, target: Target, prompt: int | None) -> Maps:
        """Attention, weighted one way."""
        goal = self.goal(target) if weighting == "contribution" else None
        return Maps(self.view, weighting, self.view.check_prompt(prompt), goal)


def attention(scene: Scene, ask: ReadAttention) -> tuple[AttentionReply, Buffers]:
    """One head's maps, and what its sources bring to the destination."""
    view, prompt = scene.view, scene.view.check_prompt(ask.prompt)
    pattern = Maps(view, "pattern", prompt).all(ask.layer, [ask.head])[0]
    parts, buffers = [AttentionBuffer("pattern")], [float16(pattern)]
    notes = padding_in_mean(view, prompt)

    def add(weighting: Weighting, values: Tensor) -> None:
        scale, buffer = scaled(values)
        parts.append(AttentionBuffer(weighting, scale))
        buffers.append(buffer)

    try:
        brings, contributions, said = _contributions(scene, ask, prompt)
        parts.append(AttentionBuffer("brings"))
        buffers.append(float32(brings))
        notes += said
        if contributions is not None:
            add("contribution", contributions)
    except ResidscopeError as error:  # attention is still worth seeing; the note says what is missing
        notes.append(str(error))
    if ask.weighting == "value":
        try:
            maps = Maps(view, "value", prompt)
            add("value", maps.all(ask.layer, [ask.head])[0])
            notes += [note for note in maps.notes if note not in notes]
        except ResidscopeError as error:
            notes.append(str(error))
    return AttentionReply(ask.layer, ask.head, view.n_pos, parts, notes), buffers


def _contributions(scene: Scene, ask: ReadAttention, prompt: int | None) -> tuple[Tensor, Tensor | None, list[str]]:
    """What each source brings to the destination asked about; to all of them, where that is wanted; and notes."""
    goal = scene.goal(ask.target, ask.position)
    maps, where = Maps(scene.view, "contribution", prompt, goal), goal.where
    whole = None
    if scene.view.n_pos <= ALWAYS or ask.weighting == "contribution":
        whole = maps.all(ask.layer, [ask.head])[0]
    if where is None:
        raise ResidscopeError("position", "A destination is needed.")
    destinations = set(where[maps.prompts.start : maps.prompts.stop].tolist())
    if whole is not None and len(destinations) == 1:
        return whole[destinations.pop()], whole, maps.notes
    return maps.brings(ask.layer, ask.head, where), whole, maps.notes


def thumbnails(scene: Scene, ask: ReadThumbnails) -> tuple[ThumbnailsReply, Buffers]:
    """All heads of a layer in small."""
    import torch

    view, layer = scene.view, scene.view.check_layer(ask.layer)
    side = min(max(ask.side, 1), view.n_pos)
    cells = torch.zeros(view.n_heads, side, side, dtype=torch.int8, device="cpu")
    limits: list[float | None] = [None] * view.n_heads
    maps = scene.maps(ask.weighting, ask.target, ask.prompt)
    refused: list[str] = []
    try:
        for heads, values in maps.of(layer, range(_count(view, layer))):
            for head, small in zip(heads, pooled(values, side), strict=True):
                limits[head], cells[head] = int8(small)
    except ResidscopeError as error:
        refused = [str(error)]
    notes = refused + maps.notes + padding_in_mean(view, maps.prompt)
    return ThumbnailsReply(layer, side, view.n_pos, limits, notes), [cells.numpy().tobytes()]


def pooled(maps: Tensor, side: int) -> Tensor:
    """Maps made smaller: of the cells that fall into one, that which is farthest from zero stands for all."""
    from torch.nn.functional import adaptive_max_pool2d

    if side >= maps.shape[-1]:
        return maps
    most, least = adaptive_max_pool2d(maps, side), -adaptive_max_pool2d(-maps, side)
    return most.where(most >= -least, least)


def blend(scene: Scene, ask: BlendAttention) -> tuple[BlendReply, Buffers]:
    """Many heads in one map, a layer at a time."""
    view = scene.view
    maps = scene.maps(ask.weighting, ask.target, ask.prompt)
    total, count = view.like.new_zeros(view.n_pos, view.n_pos), 0
    refusals: dict[int, ResidscopeError] = {}
    for layer in range(view.n_layers) if ask.layer is None else [view.check_layer(ask.layer)]:
        own = total.new_zeros(())  # a layer that is refused half way counts for nothing
        try:
            for _, values in maps.of(layer, range(_count(view, layer))):
                own = own + values.sum(0)
        except ResidscopeError as error:
            refusals[layer] = error
            continue
        total, count = total + own, count + _count(view, layer)
    if not count and refusals:
        raise next(iter(refusals.values()))
    notes = maps.notes + padding_in_mean(view, maps.prompt)
    if refusals:
        notes.append(f"Without {named_layers(refusals)}: {next(iter(refusals.values()))}")
    if ask.weighting != "contribution":
        total /= max(count, 1)
    scale, buffer = scaled(total)
    return BlendReply(view.n_pos, count, scale, notes), [buffer]


def _count(view: CacheView, layer: int) -> int:
    """How many heads a layer has; all, where that is not known."""
    pattern = view.activations.get(f"blocks.{layer}.attn.hook_pattern")
    return view.n_heads if pattern is None else int(pattern.shape[-3])


def scores(scene: Scene, ask: ScoreHeads) -> tuple[ScoresReply, Buffers]:
    """How much each head is of a known kind."""
    found = score_heads(scene.view, ask.score, scene.view.check_prompt(ask.prompt))
    reply = ScoresReply(ask.score, MEANINGS[ask.score], found.low, found.high, found.notes)
    return reply, [float32(found.values)]


def position_rows(scene: Scene, ask: MapPositions) -> tuple[PositionsReply, Buffers]:
    """Component × position."""
    prompt, target = scene.view.check_prompt(ask.prompt), scene.targets.resolve(ask.target)
    found = position_map(scene.targets, target, ask.by, prompt, scene.logits, ask.norm, ask.heads)
    reply = PositionsReply(ask.by, found.labels, scene.view.n_pos, found.notes)
    return reply, [float32(found.values), float32(found.own)]


def token_lens(scene: Scene, ask: ReadTokenLens) -> TokenLensReply:
    """A window of the token lens."""
    view, target = scene.view, scene.targets.resolve(ask.target)
    window = range(max(ask.start, 0), min(ask.stop, view.n_pos))
    if not window:
        raise ResidscopeError(
            "position", f"There are no positions {ask.start} to {ask.stop}: the prompt has {view.n_pos}."
        )
    found = lens(scene.targets, target, ask.points, window, view.check_prompt(ask.prompt), min(ask.k, 50), ask.norm)
    parts: list[Any] = [found.tokens, found.probabilities.tolist()]
    if found.answer_probability is not None and found.rank is not None:
        parts += [found.answer_probability.tolist(), found.rank.tolist()]
    cells = [[LensCell(*cell) for cell in zip(*row, strict=True)] for row in zip(*parts, strict=True)]
    return TokenLensReply(found.points, window.start, cells, found.notes)
