"""A target in one cache, and the way to it from the stream of any of its prompts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from residscope.attribution.components import head_directions
from residscope.attribution.head_split import Checked, check_split
from residscope.attribution.model_value import model_value
from residscope.attribution.readout import Readout
from residscope.attribution.targets import Targets
from residscope.compute.memo import Memo, size_of
from residscope.terms import Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Goal:
    """The target of contributions, and the way to it. What is found out on it stays with the cache.

    Attributes:
        targets: Resolves the target.
        target: The target.
        where: A position of each prompt, at which layers are held against the stream; None for all.
    """

    targets: Targets
    target: Target
    where: Int[Tensor, " batch"] | None

    @cached_property
    def _memo(self) -> Memo:
        return self.targets.view.memo.part("goal", msgspec.msgpack.encode(self.target))

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What tells it from others in the same cache."""
        return msgspec.msgpack.encode(self.target), None if self.where is None else tuple(self.where.tolist())

    @property
    def way(self) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
        """The target's functional of the final norm's output."""
        return self._memo.once(("way",), lambda: self.targets.functional(self.target), size_of)

    def readout(self, prompts: range, where: Int[Tensor, " batch"] | None = None) -> Readout:
        """The way from the stream of some prompts to the target, at one position of each, or at all."""
        directions, offset = (part[prompts.start : prompts.stop] for part in self.way)
        return Readout(self.targets.view.only(prompts), where, directions, offset)

    def writes(
        self, prompts: range, layer: int, where: Int[Tensor, " batch"] | None = None
    ) -> tuple[Float[Tensor, "batch head d_head"], Float[Tensor, "batch destination"]]:
        """What each unit of a layer's `z` is worth, and what to divide by."""
        key = ("writes", prompts, layer, None if where is None else tuple(where.tolist()))
        return self._memo.once(key, lambda: head_directions(self.readout(prompts, where), layer)[:2], size_of)

    def check(self, layer: int) -> list[str]:
        """Refuse a layer whose heads do not add up to what it writes."""
        where = None if self.where is None else tuple(self.where.tolist())
        checked = self._memo.once(
            ("checked", where), Checked
        )  # it grows: from head to head the layers are looked at once
        return check_split(self.targets.view, [layer], checked, lambda: self._own)

    @cached_property
    def _own(self) -> tuple[Readout, Tensor | None]:
        """The way to the target, and the model's own figure less the constant."""
        readout = Readout(self.targets.view, self.where, *self.way)
        measured = model_value(readout, self.targets, self.target, None)
        own = None if measured.value is None else measured.value - measured.bent - readout.functional.constant
        return readout, own
