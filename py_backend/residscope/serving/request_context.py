"""A cache in its present state, for the handlers of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from residscope.attribution.decompose import Query
from residscope.attribution.own_targets import decomposed
from residscope.attribution.result import Attribution
from residscope.attribution.stream_target import StreamTarget
from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.view import CacheView
from residscope.compute.memo import NoKeyError, key_of, size_of
from residscope.errors import ResidscopeError
from residscope.patterns.weighting import WeightedAttention
from residscope.terms import By, NormConvention, Position, Target, Weighting

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

NO_OWN_TARGETS = (
    "The views show one answer for all positions, not each position's own next token: name a token. In Python, "
    '`residscope.attribute(…, targets.next_token(), position="all")` gives the rows for each position.'
)

_MOST_BYTES = 16_000_000
"""A larger decomposition, in bytes, is not memoised."""


def check_one_source(target: Target) -> None:
    """Refuse a target whose rows have an axis of sources or positions, because views show one value for each row.

    Raises:
        ResidscopeError: If a head of the target reads all sources, or each position has another target.
    """
    if target.next_token is not None:
        raise ResidscopeError("next-token", NO_OWN_TARGETS)
    if any(through.source is None for through in target.through):
        raise ResidscopeError(
            "source",
            "The views show what a head contributes from one source: give `source=`. In Python, "
            "`residscope.attribute` gives the rows for each source.",
        )


@dataclass(frozen=True)
class RequestContext:
    """A cache in its present state, for the handlers of requests.

    Attributes:
        targets: Resolves targets for this cache.
        logits: The model's output, if it was given.
    """

    targets: Targets
    logits: Tensor | None

    @property
    def view(self) -> CacheView:
        """The cache."""
        return self.targets.view

    def stream_target(self, target: Target, position: Position = "last") -> StreamTarget:
        """Return the target, read from the stream. Layers are compared with the stream at `position`."""
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
        """Call `decompose` for all prompts at once, memoised, so that a request for the next prompt is fast."""
        check_one_source(target)
        query = Query(target, by, where, norm, layers)
        try:
            given = key_of(self.logits)
        except NoKeyError:
            return decomposed(self.view, self.targets, query, self.logits)
        at = None if where is None else tuple(where.tolist())
        key = ("decomposed", by, msgspec.msgpack.encode(target), at, norm, layers, given)
        found: Attribution | None = self.view.memo.get(*key)
        if found is None:
            found = decomposed(self.view, self.targets, query, self.logits)
            size = size_of(found.values)
            if size <= _MOST_BYTES:
                self.view.memo.put(*key, value=found, size=size)
        return found

    def maps(self, weighting: Weighting, target: Target, prompt: int | None) -> WeightedAttention:
        """Return attention in one weighting."""
        stream_target = self.stream_target(target) if weighting == "contribution" else None
        return WeightedAttention(self.view, weighting, self.view.check_prompt(prompt), stream_target)
