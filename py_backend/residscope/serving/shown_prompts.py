"""The prompts that a reply is about: one prompt, or those in the mean. A mean leaves out prompts with padding there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from residscope.cache import positions
from residscope.cache.padding_notes import ATTENDED_TO_PADDING
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.terms import Position

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
        notes: Notes on padding at the position.
    """

    batch: int
    prompt: int | None
    padded: Bool[Tensor, " batch"] | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def at(cls, view: CacheView, where: Int[Tensor, " batch"] | None, prompt: int | None) -> ShownPrompts:
        """Return the prompts that are shown if the target is read at `where`.

        Raises:
            ResidscopeError: If the position is padding in every prompt, so that there is no mean.
        """
        if where is None:
            return cls(view.batch, prompt)
        notes = tuple(positions.padding_note(view, where, prompt))
        is_mean = prompt is None and view.batch > 1
        return cls(view.batch, prompt, positions.are_padding(view, where) if is_mean else None, notes).checked()

    def checked(self) -> ShownPrompts:
        """Return this, if there is a prompt in the mean.

        Raises:
            ResidscopeError: If there is none.
        """
        if self.count == 0:
            raise ResidscopeError(
                "position",
                f"The position is padding in all {self.batch} prompts, so there is no mean: choose another position, "
                "or one prompt.",
            )
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


def padding_notes(view: CacheView, position: Position, prompts: ShownPrompts) -> list[str]:
    """Return notes on what was assumed about padding, on padding at the position, and on attention to padding."""
    attended = positions.attended(view, prompts.prompt)
    assumed = [note for note in positions.assumed(view) if note != ATTENDED_TO_PADDING] if position == "last" else []
    return assumed + attended + list(prompts.notes)
