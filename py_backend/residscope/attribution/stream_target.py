"""A target in one cache, and the functional that reads it from the stream of any of its prompts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from residscope.attribution.components import head_directions
from residscope.attribution.head_split import Checked, check_split
from residscope.attribution.readout import Readout
from residscope.attribution.target_reading import TargetReading, measured_value, target_reading
from residscope.attribution.targets import Targets
from residscope.cache.structure import Structure
from residscope.compute.memo import Memo, size_of
from residscope.errors import ResidscopeError
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

    @cached_property
    def reading(self) -> TargetReading:
        """How the target is read at the positions `where`, or at its own positions."""
        return target_reading(self.targets, self.target, self.where)

    @cached_property
    def _everywhere(self) -> TargetReading:
        """The same at every position. A target that is read at one position of each prompt has weight 0 elsewhere."""
        # What a head contributes to a target is read at one destination of the target.
        where = self.where if self.target.through else None
        key = ("everywhere", None if where is None else tuple(where.tolist()))

        def read() -> TargetReading:
            return target_reading(self.targets, self.target, where).everywhere().detached()

        return self._memo.once(key, read, lambda reading: size_of(reading.directions))

    def readout(self, prompts: range, where: Int[Tensor, " batch"] | None = None) -> Readout:
        """Reads the target from the stream of some prompts, at one position of each, or at all positions."""
        return self._everywhere.only(self.targets.view, prompts, where).readout()

    def head_directions(
        self, prompts: range, layer: int, where: Int[Tensor, " batch"] | None = None
    ) -> tuple[Float[Tensor, "batch head d_head"], Float[Tensor, "batch destination"]]:
        """The direction of the `z` of each head in a layer, and the divisor."""
        key = ("head directions", prompts, layer, None if where is None else tuple(where.tolist()))
        key = (*key, self.key) if self.target.through else key
        return self._memo.once(key, lambda: head_directions(self.readout(prompts, where), layer)[:2], size_of)

    def check(self, layer: int) -> list[str]:
        """Refuse a layer whose heads do not add up to its output; return notes on what stays unexplained."""
        where = None if self.where is None else tuple(self.where.tolist())
        point = self.reading.point.place
        if layer >= Structure(self.targets.view, point=point).layers:
            raise ResidscopeError(
                "order",
                f"The heads of layer {layer} do not write before the point `{point.label}`, where the target is read: "
                "they contribute nothing to it.",
            )
        # One object for all heads, so that the layers are compared only once.
        checked = self._memo.once(("checked", where), Checked)
        return check_split(self.targets.view, [layer], checked, lambda: self._measured) + self._only_at()

    def _only_at(self) -> list[str]:
        """A note on a target that is read at positions of its own."""
        own = self.reading.positions
        if own is None or own is self.where:
            return []
        at = sorted(set(own.tolist()))
        which = f"position {at[0]}" if len(at) == 1 else "one position of each prompt"
        return [f"This target is read at {which} only: what heads write at other positions contributes 0 to it."]

    @cached_property
    def _measured(self) -> tuple[Readout, Tensor | None]:
        """The readout of the target, and the measured value minus the constant."""
        readout = self.reading.readout()
        measured = measured_value(self.reading, readout, self.targets, self.target, None)
        if measured.value is None:
            return readout, None
        return readout, measured.value - measured.cap_change - readout.functional.constant
