"""Computes the attention pattern of one head again from its scores, also with other queries or keys.

pattern(d, s) = exp score(d, s) / (Σ exp score(d, ·) + sink), for destination d and source s. The cached pattern shows
which sources a destination may attend to, so this module needs no mask or window. The sink explains why cached rows
add up to less than 1. The sink must be the same number at all destinations. A pattern that cannot be computed again is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING

from residscope.cache.attention_maps import SideName
from residscope.cache.component_names import name
from residscope.cache.head_reader import HeadReader
from residscope.cache.positions import real
from residscope.cache.score_rule import HeadScores
from residscope.cache.score_rule_search import centred
from residscope.cache.view import CacheView
from residscope.compute.precision import step_of, working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

LARGEST = 4_000_000
"""At most this many entries of a pattern are computed at once."""

_MOST_ROWS = 128
"""About this many destinations are compared with the cached pattern: at least one in each range of `rows_of`."""


SIDES: tuple[SideName, SideName] = ("q", "k")


def rows_of(view: CacheView) -> Iterator[slice]:
    """Consecutive ranges of destinations. The patterns of one range are computed at once."""
    each = max(1, LARGEST // (view.batch * view.n_pos))
    for start in range(0, view.n_pos, each):
        yield slice(start, start + each)


@dataclass(frozen=True)
class Vectors:
    """The queries and keys of one head after norms and rotations, and the scale of the scores at each destination."""

    q: Float[Tensor, "batch pos d_head"]
    k: Float[Tensor, "batch pos d_head"]
    scale: Float[Tensor, "batch pos"]


@dataclass(frozen=True)
class SoftMax:
    """The pattern of one head, computed again.

    Attributes:
        scores: The head's scores.
        sink: The logarithm of the sink. The sink itself is added to each sum of exponentials. None without a sink.
    """

    scores: HeadScores
    sink: float | None = None

    @classmethod
    def of(cls, view: CacheView, layer: int, head: int) -> SoftMax:
        """Return a head's softmax, checked against the cached pattern.

        Raises:
            ResidscopeError: If the rule of the head's scores is not known, or its pattern was not cached or is not the
                softmax of its scores.
        """
        scores = HeadScores.of(view, layer, head)
        plain = cls(scores)
        vectors = plain.vectors()
        return plain._checked(vectors, plain._sink(vectors))

    @property
    def view(self) -> CacheView:
        """The cache."""
        return self.scores.reader.view

    def vectors(self) -> Vectors:
        """The head's own queries and keys at all positions."""
        q, k = (self.scores.vectors(side, self._every).used for side in SIDES)
        return Vectors(q, k, self._scale(q, k))

    @property
    def _every(self) -> Int[Tensor, "batch pos"]:
        import torch

        return torch.arange(self.view.n_pos, device="cpu")[None].expand(self.view.batch, -1)

    def other(self, side: SideName, other: CacheView) -> Float[Tensor, "batch pos d_head"]:
        """Another run's queries or keys, rotated for the positions of this run.

        Args:
            side: Queries or keys.
            other: The cache of the other run, with the same prompts and positions as this one.
        """
        reader = self.scores.reader
        other_reader = HeadReader(other, reader.layer, reader.head)
        return self.scores.vectors(side, self._every, other_reader).used.to(self.view.like)

    def cached(self, rows: slice) -> Float[Tensor, "batch row source"]:
        """The cached pattern at some destinations."""
        reader = self.scores.reader
        return working(self.view.get(reader.name("hook_pattern"))[:, reader.head, rows]).to(self.view.like)

    def pattern(
        self, vectors: Vectors, rows: slice, q: Tensor | None = None, k: Tensor | None = None
    ) -> Float[Tensor, "batch row source"]:
        """The pattern at some destinations, computed again.

        Args:
            vectors: The head's own queries and keys.
            rows: The destinations.
            q: Other queries.
            k: Other keys.
        """
        own = self.masked(vectors, rows)
        if q is not None or k is not None:
            own = self.raw(vectors, rows, q, k).masked_fill(own.isinf(), float("-inf"))
        return self.normalised(own)

    def normalised(self, scores: Float[Tensor, "batch row source"]) -> Float[Tensor, "batch row source"]:
        """The softmax of scores, with the sink. 0 at destinations that attend to nothing."""
        total = self.total(scores)
        return (scores - total[..., None]).exp().masked_fill(total.isinf()[..., None], 0)

    def total(self, scores: Float[Tensor, "batch row source"]) -> Float[Tensor, "batch row"]:
        """The logarithm of the sum of exponentials, with the sink."""
        import torch

        total = scores.logsumexp(-1)
        return total if self.sink is None else torch.logaddexp(total, total.new_tensor(self.sink))

    def each_alone(
        self, scores: Float[Tensor, "batch row source"], others: Tensor, worth: Tensor
    ) -> Float[Tensor, "batch row source"]:
        """For each score, the change of Σ attention · worth over its row if only this score is replaced.

        Args:
            scores: The scores. They are −∞ at sources that are not attended to.
            others: The new value of each score.
            worth: The value by which the attention to each source is multiplied in the sum.
        """
        import torch

        total = self.total(scores)[..., None]
        paid = (scores - total).exp()
        mean = (paid * worth).sum(-1, keepdim=True)
        # All other sources and the sink: the logarithm of the sum of their exponentials, and the mean of their worth.
        # The worth of the sink is 0.
        rest, rest_worth = total + torch.log1p(-paid), (mean - paid * worth) / (1 - paid)
        # At the source with the largest score, 1 − attention may round to 0. There the others are summed directly.
        most = scores.argmax(-1, keepdim=True)
        without = scores.scatter(-1, most, float("-inf"))
        left = self.total(without)[..., None]
        left_worth = ((without - left).exp().nan_to_num(0.0) * worth).sum(-1, keepdim=True)
        rest, rest_worth = rest.scatter(-1, most, left), rest_worth.scatter(-1, most, left_worth)
        change = (others - rest).sigmoid() - (scores - rest).sigmoid()
        return (change * (worth - rest_worth)).masked_fill(scores.isinf(), 0)

    def masked(self, vectors: Vectors, rows: slice) -> Float[Tensor, "batch row source"]:
        """The head's own scores at some destinations. They are −∞ at sources that are not attended to."""
        scores = self.raw(vectors, rows)
        return scores.masked_fill(~self._visible(scores, rows), float("-inf"))

    def raw(
        self, vectors: Vectors, rows: slice, q: Tensor | None = None, k: Tensor | None = None
    ) -> Float[Tensor, "batch row source"]:
        """Scores without a mask, up to a constant at each destination."""
        import torch

        rule = self.scores.rule
        q, k = vectors.q if q is None else q, vectors.k if k is None else k
        made = q[:, rows] @ k.transpose(-1, -2) * vectors.scale[:, rows, None]
        if rule.cap:
            made = rule.cap * (made / rule.cap).tanh()
        return made + rule.slope * torch.arange(made.shape[-1], device=made.device).to(made) if rule.slope else made

    def _visible(self, scores: Tensor, rows: slice) -> Bool[Tensor, "batch row source"]:
        """Which sources are attended to: those with attention, and those whose attention was rounded to 0.

        Attention counts as rounded to 0 under three conditions. The attention that the score gives is below the
        smallest normal number of the dtype. The source is not padding. Some destination, in any prompt and head of this
        layer, attends at the same distance.
        """
        import torch

        reader = self.scores.reader
        kind = self.view.get(reader.name("hook_pattern")).dtype
        own = self.cached(rows)
        seen, best = own > 0, own.max(-1, keepdim=True)
        total = scores.gather(-1, best.indices) - best.values.clamp(min=1e-30).log()
        small = ~seen & (scores - total < log(torch.finfo(kind).tiny))
        if not bool(small.any()):
            return seen
        places = torch.arange(self.view.n_pos, device=own.device)
        distance = places[rows, None] - places
        near = self._distances.to(own.device)[distance.clamp(min=0)] & (distance >= 0)
        return seen | (small & near & real(self.view).to(own.device)[:, None])

    @property
    def _distances(self) -> Bool[Tensor, " pos"]:
        """For each distance between destination and source, whether the layer attends at this distance anywhere."""
        import torch

        reader, view = self.scores.reader, self.view

        def found() -> Tensor:
            read = torch.zeros(view.n_pos, view.n_pos, dtype=torch.bool, device=view.like.device)
            for patterns in view.get(reader.name("hook_pattern")):  # prompt by prompt, because patterns are large
                read |= (patterns > 0).any(0)
            return torch.stack([read.diagonal(-distance).any() for distance in range(view.n_pos)])

        return view.root.memo.once(("distances read", reader.layer), found)

    def _scale(self, q: Tensor, k: Tensor) -> Float[Tensor, "batch pos"]:
        """The scale τ of the scores at each destination. With fewer than two known scores, τ is set to 1."""
        import torch

        if self.scores.rule.scale is not None:
            return q.new_full(q.shape[:2], self.scores.rule.scale)
        found: list[Tensor] = []
        for rows in rows_of(self.view):
            truth, known = self.scores.reader.scores(self._every[:, rows])
            a, b = (centred(x, known) for x in (q[:, rows] @ k.transpose(-1, -2), truth))
            scale = (a * b).sum(-1) / a.pow(2).sum(-1).clamp(min=1e-30)
            found.append(scale.masked_fill(known.sum(-1) < 2, 1.0))
        return torch.cat(found, 1).to(q)

    def _sink(self, vectors: Vectors) -> float | None:
        """The logarithm of the sink, from the row that shows it most precisely. None if no row adds up to less than 1.

        Rows of padding are ignored.

        Raises:
            ResidscopeError: If the sink differs between destinations.
        """
        step = self._step
        most, sinks, errors = 2 * max(1e-5, 2 * step), list["Tensor"](), list["Tensor"]()
        for rows in rows_of(self.view):
            scores, paid = self.masked(vectors, rows), self.cached(rows)
            lacks = 1 - paid.sum(-1)
            best = paid.max(-1)
            own = scores.gather(-1, best.indices[..., None])[..., 0] - best.values.clamp(min=1e-30).log()
            there = (lacks > most) & real(self.view)[:, rows].to(lacks.device) & (best.values > 0)
            sinks.append((own + lacks.clamp(min=1e-30).log())[there])
            errors.append((2 * step / lacks + step / best.values)[there])
        import torch

        sink, error = torch.cat(sinks), torch.cat(errors)
        if not len(sink):
            return None
        least = int(error.argmin())
        if bool(((sink - sink[least]).abs() > 0.01 + 4 * error + 4 * self._score_error).any()):
            raise self._refused("its rows add up to less than 1, and no single sink for all destinations explains this")
        return float(sink[least])

    @property
    def _step(self) -> float:
        return step_of(self.view.get(self.scores.reader.name("hook_pattern")).dtype)

    @property
    def _score_error(self) -> float:
        rule = self.scores.rule
        return min(rule.tolerance, 8 * rule.error + 1e-5)

    def _checked(self, vectors: Vectors, sink: float | None) -> SoftMax:
        """The softmax with this sink. Refused if it does not give the cached pattern."""
        whole, worst = SoftMax(self.scores, sink), 0.0
        allowed = 2e-5 + 4 * self._step + 2 * self._score_error
        step = -(-self.view.n_pos // _MOST_ROWS)
        for part in rows_of(self.view):
            rows = slice(part.start, part.stop, step)
            there = real(self.view)[:, rows]
            gap = (whole.pattern(vectors, rows) - self.cached(rows)).abs().amax(-1)
            worst = max(worst, float(gap.masked_fill(~there.to(gap.device), 0).nan_to_num(float("inf")).max()))
        if worst > allowed:
            raise self._refused(f"it differs from the softmax of its scores by up to {worst:.2g}")
        return whole

    def _refused(self, why: str) -> ResidscopeError:
        reader = self.scores.reader
        return ResidscopeError(
            "softmax",
            f"The pattern of {name(reader.layer, reader.head)} cannot be computed again from its queries and keys: "
            f"{why}. A hook changed the pattern, or the model computes it in another way.",
        )
