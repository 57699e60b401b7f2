"""The cells of the token lens: the most likely tokens at a point and a position, and the answer's rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from residscope.attribution.lens_logits import Reader
from residscope.attribution.next_tokens import following
from residscope.cache.finite import check_finite
from residscope.cache.view import CacheView
from residscope.compute.batching import blocks
from residscope.errors import ResidscopeError
from residscope.terms import Component, Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """Some cells of the lens. Each cell is a point and a position."""

    ids: Int[Tensor, "*point position k"]
    probabilities: Float[Tensor, "*point position k"]
    answer: Float[Tensor, "*point position"] | None
    rank: Int[Tensor, "*point position"] | None

    def __getitem__(self, point: int) -> Cells:
        """Return the cells of one point."""
        answer, rank = (None if part is None else part[point] for part in (self.answer, self.rank))
        return Cells(self.ids[point], self.probabilities[point], answer, rank)


def read_cells(
    reader: Reader,
    points: Sequence[Component],
    positions: Sequence[int],
    answers: Int[Tensor, "batch read token"] | None,
    k: int,
) -> list[Cells]:
    """Return the cells of each point. They are memoised, because a view may request more points later."""
    asked = None if answers is None else (answers.shape[1], tuple(answers.flatten().tolist()))
    maps = None if reader.maps is None else reader.maps.key
    key = ("lens", reader.norm, k, asked, maps, tuple(positions))
    memo = reader.view.memo.part(*key)
    known: dict[Component, Cells] = {point: cells for point in points if (cells := memo.get(point)) is not None}
    for point_block in blocks([point for point in points if point not in known], reader.rows // len(positions)):
        cells = _cells(reader, point_block, positions, answers, k)
        for number, point in enumerate(point_block):
            known[point] = cells[number]
            memo.put(point, value=cells[number], size=16 * len(positions) * (k + 1))
    return [known[point] for point in points]


def _cells(
    reader: Reader,
    points: Sequence[Component],
    positions: Sequence[int],
    answers: Int[Tensor, "batch read token"] | None,
    k: int,
) -> Cells:
    """The cells of some points and positions. Probabilities are summed over blocks of prompts that fit in memory."""
    import torch

    batch = reader.view.batch
    total: Tensor | None = None
    answer_shares: list[Tensor] = []
    ranks: list[Tensor] = []
    for prompts in blocks(range(batch), reader.rows // (len(points) * len(positions))):
        logits = reader(points, positions, range(prompts[0], prompts[-1] + 1))
        shares = logits.softmax(-1)
        if answers is not None:
            ids = answers[prompts[0] : prompts[-1] + 1].to(logits.device)
            ids = (ids if ids.shape[1] == 1 else ids[:, list(positions)])[:, None].expand(*logits.shape[:3], -1)
            none, ids = ids[..., 0] < 0, ids.clamp(min=0)
            answer_shares.append(shares.gather(-1, ids).amax(-1).masked_fill(none, math.nan))
            best = logits.gather(-1, ids).amax(-1)
            # Ranks come from logits, because all very small probabilities round to 0. 32 bits are enough for a count.
            rank = 1 + (logits > best[..., None]).sum(-1, dtype=torch.int32).long()
            ranks.append(rank.masked_fill(none, 0))
        part = shares[0] if len(prompts) == 1 else shares.sum(0)
        total = part if total is None else total.add_(part)
    if total is None or not bool(total.isfinite().all()):
        check_finite(reader.view, total)
        raise ResidscopeError("no-residual", "This cache contains no prompt.")
    top = total.topk(min(max(k, 1), total.shape[-1]))
    answer = torch.cat(answer_shares).mean(0) if answer_shares else None
    rank = None if answer is None else torch.cat(ranks).median(0).values.masked_fill(answer.isnan(), 0)
    return Cells(top.indices, top.values / batch, answer, rank)


def answers_of(view: CacheView, target: Target, positions: Sequence[int]) -> Int[Tensor, "batch read token"]:
    """Return the ids of each prompt's answers, without the distractors. Only those at these positions are used.

    If the answers are the same at all positions, the axis `read` has length 1. If each position has its own answer, −1
    means that there is no answer.
    """
    import torch

    if target.next_token is not None:
        wanted = torch.zeros(view.batch, view.n_pos, dtype=torch.bool, device="cpu")
        wanted[:, list(positions)] = True
        ids, real = following(view, wanted)
        return ids.masked_fill(~real, -1)[..., None]
    rows = [[token.id for token in contrast.answer] for contrast in target.contrasts]
    width = max(map(len, rows))
    ids = torch.tensor([row + row[:1] * (width - len(row)) for row in rows], device="cpu")
    return ids.expand(view.batch, -1)[:, None]
