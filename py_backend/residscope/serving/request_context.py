"""A cache as it is now, with what every answer about it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from residscope.attribution.decompose import Query, decompose
from residscope.attribution.result import Attribution
from residscope.attribution.stream_target import StreamTarget
from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.view import CacheView
from residscope.compute.memo import UnknownError, key_of, size_of
from residscope.patterns.weighting import WeightedAttention
from residscope.terms import By, NormConvention, Position, Target, Weighting

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

_KEPT = 16_000_000
"""A decomposition of more bytes is not kept."""


@dataclass(frozen=True)
class RequestContext:
    """A cache as it is now, and what answers about it need.

    Attributes:
        targets: Resolves targets for it.
        logits: The model's output, where it was given.
    """

    targets: Targets
    logits: Tensor | None

    @property
    def view(self) -> CacheView:
        """The cache."""
        return self.targets.view

    def stream_target(self, target: Target, position: Position = "last") -> StreamTarget:
        """The way to a target; layers are held against the stream at this position."""
        where = positions.resolve(self.view, position)
        return StreamTarget(self.targets, self.targets.resolve(target), where)

    def decomposed(
        self,
        target: Target,
        by: By,
        where: Int[Tensor, " batch"] | None,
        norm: NormConvention = "frozen",
        layers: int | None = None,
    ) -> Attribution:
        """`decompose`, of all prompts at once and kept: the next prompt's figures are there already."""
        query = Query(target, by, where, norm, layers)
        try:
            given = key_of(self.logits)
        except UnknownError:
            return decompose(self.view, self.targets, query, self.logits)
        at = None if where is None else tuple(where.tolist())
        key = ("decomposed", by, msgspec.msgpack.encode(target), at, norm, layers, given)
        found: Attribution | None = self.view.memo.get(*key)
        if found is None:
            found = decompose(self.view, self.targets, query, self.logits)
            size = size_of(found.values)
            if size <= _KEPT:
                self.view.memo.put(*key, value=found, size=size)
        return found

    def maps(self, weighting: Weighting, target: Target, prompt: int | None) -> WeightedAttention:
        """Attention, weighted one way."""
        stream_target = self.stream_target(target) if weighting == "contribution" else None
        return WeightedAttention(self.view, weighting, self.view.check_prompt(prompt), stream_target)
