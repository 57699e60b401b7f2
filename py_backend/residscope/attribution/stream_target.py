"""A target in one cache, and the functional that reads it from the stream of any of its prompts."""

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
class StreamTarget:
    """The target of contributions, read from the stream. Results are memoised with the cache.

    Attributes:
        targets: Resolves the target.
        target: The target.
        where: A position of each prompt, at which layers are compared with the stream; None for all positions.
    """

    targets: Targets
    target: Target
    where: Int[Tensor, " batch"] | None

    @cached_property
    def _memo(self) -> Memo:
        return self.targets.view.memo.part("target", msgspec.msgpack.encode(self.target))

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What identifies this target among others in the same cache."""
        return msgspec.msgpack.encode(self.target), None if self.where is None else tuple(self.where.tolist())

    @property
    def functional(self) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
        """The target's functional of the final norm's output."""
        return self._memo.once(("functional",), lambda: self.targets.functional(self.target), size_of)

    def readout(self, prompts: range, where: Int[Tensor, " batch"] | None = None) -> Readout:
        """Reads the target from the stream of some prompts, at one position of each, or at all positions."""
        directions, offset = (part[prompts.start : prompts.stop] for part in self.functional)
        return Readout(self.targets.view.only(prompts), where, directions, offset)

    def head_directions(
        self, prompts: range, layer: int, where: Int[Tensor, " batch"] | None = None
    ) -> tuple[Float[Tensor, "batch head d_head"], Float[Tensor, "batch destination"]]:
        """The direction of the `z` of each head in a layer, and the divisor."""
        key = ("head directions", prompts, layer, None if where is None else tuple(where.tolist()))
        return self._memo.once(key, lambda: head_directions(self.readout(prompts, where), layer)[:2], size_of)

    def check(self, layer: int) -> list[str]:
        """Refuse a layer whose heads do not add up to its output; return notes on what stays unexplained."""
        where = None if self.where is None else tuple(self.where.tolist())
        # One object for all heads, so that the layers are compared only once.
        checked = self._memo.once(("checked", where), Checked)
        return check_split(self.targets.view, [layer], checked, lambda: self._measured)

    @cached_property
    def _measured(self) -> tuple[Readout, Tensor | None]:
        """The readout of the target, and the measured value minus the constant."""
        readout = Readout(self.targets.view, self.where, *self.functional)
        measured = model_value(readout, self.targets, self.target, None)
        if measured.value is None:
            return readout, None
        return readout, measured.value - measured.cap_change - readout.functional.constant
