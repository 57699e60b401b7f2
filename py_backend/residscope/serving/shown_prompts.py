"""The prompts that a reply is about: one prompt, or those in the mean. A mean leaves out prompts with padding there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from residscope.attribution.own_targets import last_places, places_of
from residscope.cache import positions
from residscope.cache.view import CacheView
from residscope.terms import AttentionScore
from residscope.wire.decompositions import Attribute, RankNeurons
from residscope.wire.features import ReadFeatures

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor


@dataclass(frozen=True)
class ShownPrompts:
    """The prompts that a reply is about. Prompts are the last axis of all values.

    Attributes:
        batch: The number of prompts.
        prompt: The prompt that is shown. None: the mean.
        padded: The prompts that the mean leaves out. None: no prompt.
        notes: Notes on padding: what was assumed, attention to it, and padding at the position.
    """

    batch: int
    prompt: int | None
    padded: Bool[Tensor, " batch"] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def at(
        cls,
        view: CacheView,
        request: Attribute | RankNeurons | ReadFeatures,
        where: Int[Tensor, " batch"] | None,
        prompt: int | None,
    ) -> ShownPrompts:
        """Return the prompts that are shown if the target is read at `where`.

        Args:
            view: The cache.
            request: The request. An attention score has its own positions. They were checked: none of them is padding.
            where: The position in each prompt.
            prompt: The prompt that is shown. None: the mean.

        Raises:
            ResidscopeError: If the position is padding in every prompt, so that a mean has no values.
        """
        target, position = request.target, request.position
        if isinstance(target.inner, AttentionScore):
            where, position = places_of(view, target, "last"), target.inner.destination
        assert where is not None  # a view shows one position
        padded, at = positions.left_out(view, where, prompt), prompt or 0
        is_end = position == "last" or (target.next_token is not None and where[at] == last_places(view, target)[at])
        return cls(view.batch, prompt, padded, tuple(positions.notes_at(view, where, prompt, is_end=bool(is_end))))

    def checked(self) -> ShownPrompts:
        """Return this, if there is a prompt in the mean.

        Raises:
            ResidscopeError: If there is none.
        """
        if self.count == 0:
            raise positions.no_mean(self.batch)
        return self

    @property
    def count(self) -> int:
        """The number of prompts in the mean. 1 if one prompt is shown."""
        return 1 if self.prompt is not None else self.batch - (0 if self.padded is None else int(self.padded.sum()))

    def each(self, values: Tensor) -> Tensor:
        """Return the values of the shown prompts."""
        if self.prompt is not None:
            return values[..., self.prompt : self.prompt + 1]
        return values if self.padded is None else values[..., ~self.padded.to(values.device)]

    def of(self, values: Tensor) -> Tensor:
        """Return the values of the shown prompt, or their mean."""
        return values[..., self.prompt] if self.prompt is not None else self.each(values).mean(-1)

    def std(self, values: Tensor) -> Tensor:
        """Return the standard deviation over the prompts of the mean. 0 for a single prompt."""
        return self.each(values).std(-1, correction=1 if self.count > 1 else 0)

    def worst(self, values: Tensor) -> Tensor:
        """Return the largest absolute value in any of the shown prompts."""
        return self.each(values).abs().max()

    def with_gaps(self, values: Tensor) -> Tensor:
        """Return the values of all prompts, with NaN in those that the mean leaves out."""
        return values if self.padded is None else values.masked_fill(self.padded.to(values.device), float("nan"))
