"""The cells of the token lens: the most likely tokens at a point and a position, and the answer's rank."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from residscope.attribution.lens_logits import Reader
from residscope.attribution.next_tokens import following
from residscope.cache import positions as positions_of
from residscope.cache.finite import check_finite
from residscope.cache.view import CacheView
from residscope.compute.batching import blocks
from residscope.errors import ResidscopeError
from residscope.terms import Component, Target

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Cells:
    """Some cells of the lens. Each cell is a point and a position.

    Over several prompts, a cell is the mean (`rank`: the median) of the prompts in which its position is not padding.
    If there are none, `ids` are −1, and `probabilities` are NaN.
    """

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
    real = _real(reader.view, positions)  # padding depends on the tokenizer, which the user may change
    left_out = None if real is None else tuple(real.flatten().tolist())
    key = ("lens", reader.norm, k, asked, maps, tuple(positions), left_out)
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

    real = _real(reader.view, positions)
    total: Tensor | None = None
    answer_shares: list[Tensor] = []
    ranks: list[Tensor] = []
    for prompts in blocks(range(reader.view.batch), reader.rows // (len(points) * len(positions))):
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
        if real is not None:
            gone = ~real[prompts[0] : prompts[-1] + 1, None].to(shares.device)
            shares = shares.masked_fill(gone[..., None], 0.0)
            if answers is not None:
                answer_shares[-1] = answer_shares[-1].masked_fill(gone, math.nan)
                ranks[-1] = ranks[-1].masked_fill(gone, 0)
        part = shares[0] if len(prompts) == 1 else shares.sum(0)
        total = part if total is None else total.add_(part)
    if total is None or not bool(total.isfinite().all()):
        check_finite(reader.view, total)
        raise ResidscopeError("no-residual", "This cache contains no prompt.")
    top = total.topk(min(max(k, 1), total.shape[-1]))
    answer = torch.cat(answer_shares).nanmean(0) if answer_shares else None
    rank = None if answer is None else _median(torch.cat(ranks))
    if real is None:
        return Cells(top.indices, top.values / reader.view.batch, answer, rank)
    count = real.sum(0).to(total.device)[:, None]
    return Cells(top.indices.masked_fill(count == 0, -1), top.values / count, answer, rank)


def _real(view: CacheView, positions: Sequence[int]) -> Bool[Tensor, "batch position"] | None:
    """Which of these positions are not padding. None if no prompt has padding, or there is only one prompt."""
    real = positions_of.real(view)
    return None if view.batch == 1 or bool(real.all()) else real[:, list(positions)]


def _median(ranks: Int[Tensor, "batch point position"]) -> Int[Tensor, "point position"]:
    """The median over the prompts that have a rank (the better one of two middle ranks). 0 if none has one."""
    known = ranks.float().masked_fill(ranks == 0, math.nan)  # exact, because a rank is below 2 ** 24
    return known.nanmedian(0).values.nan_to_num(0.0).long()


def answers_of(view: CacheView, target: Target, positions: Sequence[int]) -> Int[Tensor, "batch read token"]:
    """Return the ids of each prompt's answers, without the distractors. Only those at `positions` are filled in.

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
