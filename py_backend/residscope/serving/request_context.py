"""A cache in its present state, for the handlers of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from residscope.attribution.decompose import Query
from residscope.attribution.own_targets import NO_OWN_MAP, at_position, decomposed, places_of
from residscope.attribution.result import Attribution
from residscope.attribution.stream_target import StreamTarget
from residscope.attribution.targets import Targets
from residscope.cache.lens_maps import LensMaps
from residscope.cache.view import CacheView
from residscope.compute.memo import NoKeyError, key_of, size_of
from residscope.errors import ResidscopeError
from residscope.patterns.weighting import WeightedAttention
from residscope.terms import By, NormConvention, Position, Target, Transport, Weighting

if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor

ONE_ANSWER = (
    "Two runs are compared by one answer for both. Here each position has its own answer, the token that came next: "
    "name a token as the target, or end the comparison."
)

_MOST_BYTES = 16_000_000
"""A larger decomposition, in bytes, is not memoised."""


def check_one_source(target: Target) -> None:
    """Refuse a target whose rows have an axis of sources, because views show one value for each row.

    Raises:
        ResidscopeError: If a head of the target reads all sources.
    """
    if any(through.source is None for through in target.through):
        raise ResidscopeError(
            "source",
            "The views show what a head contributes from one source: give `source=`. In Python, "
            "`residscope.attribute` gives the rows for each source.",
        )


def check_one_answer(target: Target) -> None:
    """Refuse a target that differs between positions.

    Raises:
        ResidscopeError: If each position has its own next token as the target.
    """
    if target.next_token is not None:
        raise ResidscopeError("next-token", ONE_ANSWER)


@dataclass(frozen=True)
class RequestContext:
    """A cache in its present state, for the handlers of requests.

    Attributes:
        targets: Resolves targets for this cache.
        logits: The model's output, if it was given.
        lens: The maps from points of the stream to its end, if they were given.
    """

    targets: Targets
    logits: Tensor | None
    lens: LensMaps | None = None

    @property
    def view(self) -> CacheView:
        """The cache."""
        return self.targets.view

    def lens_of(self, transport: Transport) -> LensMaps | None:
        """Return the maps from points of the stream to its end. None for the plain lens.

        Raises:
            ResidscopeError: If no maps were given.
        """
        if transport == "transported" and self.lens is None:
            raise ResidscopeError(
                "lens", "No lens was given: show the cache with `residscope.inspect(cache, lens=…)`, or choose “plain”."
            )
        return self.lens if transport == "transported" else None

    def asked(
        self, target: Target, position: Position, prompt: int | None
    ) -> tuple[Target, Int[Tensor, " batch"] | None]:
        """Return a target at one position of each prompt, and these positions.

        A next-token target is replaced by the token that follows this position. Then `"last"` is the last position that
        has a next token, and only `prompt` must have a next token there (None: all prompts must).
        """
        resolved = self.targets.resolve(target)
        where = places_of(self.view, resolved, position)
        if resolved.next_token is None or where is None:
            return resolved, where
        try:
            key = ("asked", msgspec.msgpack.encode(resolved), tuple(where.tolist()), prompt, key_of(self.logits))
        except NoKeyError:
            return at_position(self.targets, resolved, where, self.logits, prompt), where
        return self.view.memo.once(key, lambda: at_position(self.targets, resolved, where, self.logits, prompt)), where

    def stream_target(self, target: Target, position: Position = "last", prompt: int | None = None) -> StreamTarget:
        """Return the target as it is read from the stream, at `position`."""
        return StreamTarget(self.targets, *self.asked(target, position, prompt))

    def decomposed(
        self,
        target: Target,
        by: By,
        where: Int[Tensor, " batch"] | None,
        norm: NormConvention = "frozen",
        layers: int | None = None,
        transport: Transport = "plain",
        sae: Any = None,
    ) -> Attribution:
        """Decompose the target for all prompts at once. The result is memoised, so that other prompts are fast.

        With an SAE it is not memoised, because not every change of an SAE is noticed.
        """
        check_one_source(target)
        lens = self.lens_of(transport)
        query = Query(target, by, where, norm, layers, sae=sae, lens=lens)
        if sae is not None:
            return decomposed(self.view, self.targets, query, self.logits)
        try:
            given = key_of((self.logits, lens))
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
        """Return attention in one weighting.

        Raises:
            ResidscopeError: For contributions, if the target cannot be resolved, or differs between positions.
        """
        if weighting == "contribution" and target.next_token is not None:
            raise ResidscopeError("next-token", NO_OWN_MAP)
        stream_target = self.stream_target(target) if weighting == "contribution" else None
        return WeightedAttention(self.view, weighting, self.view.check_prompt(prompt), stream_target)
