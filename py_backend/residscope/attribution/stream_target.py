"""A target in one cache, and the functional that reads the target from the stream of some prompts."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from residscope.attribution.head_split import Checked, check_split
from residscope.attribution.inner_checks import is_inner, point_of
from residscope.attribution.readout import Readout
from residscope.attribution.sublayer_parts import head_directions
from residscope.attribution.target_reading import TargetReading, measured_value, target_reading
from residscope.attribution.targets import Targets
from residscope.cache.structure import Structure
from residscope.compute.memo import Memo, size_of
from residscope.errors import ResidscopeError
from residscope.terms import AttentionScore, Component, Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class StreamTarget:
    """A target that is read from the stream. Results are memoised with the cache.

    Attributes:
        targets: Resolves the target.
        target: The target.
        where: The position of each prompt at which layers are compared with the stream. None: all positions. If the
            target has a path of heads, the first head writes to the target at this position.
    """

    targets: Targets
    target: Target
    where: Int[Tensor, " batch"] | None

    @cached_property
    def _memo(self) -> Memo:
        return self.targets.view.memo.part("target", msgspec.msgpack.encode(self.target))

    @property
    def key(self) -> tuple[Hashable, ...]:
        """A key that identifies this target among others for the same cache."""
        return msgspec.msgpack.encode(self.target), None if self.where is None else tuple(self.where.tolist())

    @property
    def functional(self) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
        """The target as a functional of the final norm's output."""
        return self._memo.once(("functional",), lambda: self.targets.functional(self.target), size_of)

    def readout(self, prompts: range, where: Int[Tensor, " batch"] | None = None) -> Readout:
        """Return a readout for some prompts, at one position of each, or at all positions.

        If the target has its own position, other positions have weight 0.
        """
        if is_inner(self.target):
            return self._inner(prompts, where).readout()
        directions, offset = (part[prompts.start : prompts.stop] for part in self.functional)
        return Readout(self.targets.view.only(prompts), where, directions, offset)

    def _inner(self, prompts: range, where: Int[Tensor, " batch"] | None) -> TargetReading:
        targets, target = self.targets.only(self.target, prompts)
        if not self.has_own_position:
            return target_reading(targets, target, where)
        destination = None if self.where is None else self.where[prompts.start : prompts.stop]
        reading = target_reading(targets, target, destination).everywhere()
        return reading if where is None else reading.at(where)

    @property
    def point(self) -> Component:
        """The point of the stream where the target is read."""
        through = self.target.through
        return Component("pre", through[-1].layer) if through else point_of(self.targets.view, self.target.inner).place

    def is_before(self, layer: int) -> bool:
        """Return whether the attention of a layer writes before the point where the target is read."""
        return layer < Structure(self.targets.view, point=self.point).layers

    @property
    def has_own_position(self) -> bool:
        """Whether the target itself determines where it is read, whatever position is requested."""
        return isinstance(self.target.inner, AttentionScore) or bool(self.target.through)

    def head_directions(
        self, prompts: range, layer: int, where: Int[Tensor, " batch"] | None = None
    ) -> tuple[Float[Tensor, "batch head d_head"], Float[Tensor, "batch destination"]]:
        """Return the direction of each head's `z` in a layer, and the divisor."""
        own = self.key[1] if self.has_own_position else None
        key = ("head directions", prompts, layer, None if where is None else tuple(where.tolist()), own)
        return self._memo.once(key, lambda: head_directions(self.readout(prompts, where), layer)[:2], size_of)

    def check(self, layer: int) -> list[str]:
        """Refuse a layer whose heads do not add up to its output. Return notes on the unexplained rest.

        Raises:
            ResidscopeError: Also if the layer is not before the point where the target is read.
        """
        if not self.is_before(layer):
            raise ResidscopeError(
                "order",
                f"The heads of layer {layer} do not write before the point `{self.point.label}`, where the target is "
                "read: their contributions are 0. The pattern and the value weighting do not depend on the target.",
            )
        where = None if self.where is None else tuple(self.where.tolist())
        # One object for all heads, so that layers are compared only once.
        checked = self._memo.once(("checked", where), Checked)
        return check_split(self.targets.view, [layer], checked, lambda: self._measured) + self._only_at()

    def _only_at(self) -> list[str]:
        """A note if the target is read at only one position of each prompt."""
        own = self._measured[0].positions if self.has_own_position else None
        if own is None:
            return []
        at = sorted(set(own.tolist()))
        which = f"position {at[0]}" if len(at) == 1 else "one position of each prompt"
        return [f"This target is read only at {which}. What heads write at other positions contributes 0."]

    @cached_property
    def _measured(self) -> tuple[Readout, Tensor | None]:
        """The readout of the target, and the measured value minus the constant."""
        reading = target_reading(self.targets, self.target, self.where)
        readout = reading.readout()
        measured = measured_value(reading, readout, self.targets, self.target, None)
        before = measured.before_cap
        return readout, None if before is None else before - readout.functional.constant
