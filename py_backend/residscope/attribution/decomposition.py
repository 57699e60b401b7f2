"""A decomposition whose rows can be read again, by the functional of another run.

Each row is then r · g. Here r is the vector that a component wrote in one run, and g is the direction along which
another run reads the stream. The weights and the norms that produced r are those of the run that wrote r.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from residscope.attribution.attention_score import HeadScore
from residscope.attribution.readout import Functional
from residscope.attribution.result import Attribution
from residscope.attribution.score_rows import summed, united
from residscope.cache.structure import Structure

if TYPE_CHECKING:
    from torch import Tensor

Placed = Callable[["Tensor"], "Tensor"]
"""Moves values from another run's positions, `[..., pos]`, to the positions of the run that wrote the rows."""


@dataclass(frozen=True)
class Part:
    """A decomposition of a functional that is read at one position of each prompt, or at every position.

    Attributes:
        result: The decomposition.
        functional: Reads the target from the stream.
        divisor: The number that each row is divided by, `[batch, pos]`. For recomputed norms `[component, batch, pos]`.
        structure: The structure from which the rows were made. None if the rows are sources.
        read: Returns the rows, read by another functional, in the shape of `result.values`. Scales are not recomputed.
        score: The score, if it is read at all sources at once. It then has a different functional at each source.
        read_by_score: Returns the rows, read by the same score's functionals in another run. None if `score` is None.
    """

    result: Attribution
    functional: Functional
    divisor: Tensor
    structure: Structure | None
    read: Callable[[Functional], Tensor]
    score: HeadScore | None = None
    read_by_score: Callable[[HeadScore], Tensor] | None = None

    def read_by(self, other: Part, placed: Placed) -> Tensor:
        """Return the rows of this run, read by another run's functional, in the shape of this run's values."""
        import torch

        if self.read_by_score is not None and other.score is not None:
            return self.read_by_score(other.score)
        own, vector, divisor = self.functional.vector, other.functional.vector.to(self.functional.vector), other.divisor
        if any(axis in ("pos", "destination", "source") for axis in self.result.axes[1:]):
            divisor = placed(divisor)
        divisor = divisor.to(self.divisor)
        # In the usual case (two runs of one model), the functionals differ only by their divisors.
        if torch.equal(own, vector) and not bool((self.divisor.isinf() & ~divisor.isinf()).any()):
            ratio = self.divisor / divisor
            return self.result.values * self._fitted(ratio.where(~(self.divisor.isinf() & divisor.isinf()), 1.0))
        unit = self.divisor.new_ones(self.functional.divisor.shape)
        return self.read(Functional(vector, unit, unit * 0)) / self._fitted(divisor)

    def _fitted(self, values: Tensor) -> Tensor:
        """Values `[..., batch, pos]`, reshaped to the axes of the result."""
        axes = self.result.axes
        if "destination" in axes:  # [source, destination, head, batch]
            return values.T[:, None, :]
        return values if axes[-1] != "batch" else values[..., 0]


@dataclass(frozen=True)
class Decomposition:
    """A decomposition of a target that may be read at several positions.

    Attributes:
        parts: One decomposition, or for a score that is read at several positions, one for each of its readings.
        score: The attention score that is the target, or to which the target's heads write. None for other targets.
    """

    parts: Sequence[Part]
    score: HeadScore | None = None

    @cached_property
    def result(self) -> Attribution:
        """The whole decomposition."""
        results = [part.result for part in self.parts]
        return results[0] if self.score is None else summed(results, self.score)

    def read_by(self, other: Decomposition, placed: Placed) -> Tensor:
        """Return the rows of this run, read by another run's functional, in the shape of `result.values`.

        Rows that no component writes (`position_bias`, `soft_cap`) are 0.
        """
        crossed = [
            replace(one.result, values=one.read_by(by, placed)) for one, by in zip(self.parts, other.parts, strict=True)
        ]
        values = crossed[0].values if self.score is None else united(crossed)[1]
        whole = self.result.values.new_zeros(self.result.values.shape)
        whole[: len(values)] = values
        return whole

    @property
    def structures(self) -> list[Structure]:
        """The structures from which the rows of each part were made."""
        return [part.structure for part in self.parts if part.structure is not None]
