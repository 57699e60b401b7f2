"""What `patch`, `estimate` and `effects` put into a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from residscope.causes.measurement import Measurement
from residscope.causes.path import Ends, ends
from residscope.causes.replacement import Replacement, replacement
from residscope.causes.rereading import Rereading
from residscope.causes.sites import PARTS, Part, SiteKind
from residscope.causes.sweep import Patch
from residscope.causes.unchanged import changed_in
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Bool
    from torch import Tensor


@dataclass(frozen=True)
class Put:
    """What is put into the run.

    Attributes:
        kind: The kind of the sites that are changed.
        where: The positions that are changed.
        chosen: The positions at which the user replaces something: for keys and values those of the sources.
        by: What takes the place of the activations.
        reading: Computes the change of heads' `z` if their query, key, value or pattern is replaced. None if an
            activation of a site is replaced.
        ends: The end of the path along which the change passes. None: it passes along all paths.
    """

    kind: SiteKind
    where: Bool[Tensor, "batch pos"]
    chosen: Bool[Tensor, "batch pos"]
    by: Replacement
    reading: Rereading | None = None
    ends: Ends | None = None

    def measurable(self, patches: Sequence[Patch], *, each: bool) -> list[int]:
        """The rows of the patches that can be measured, and replace something.

        Raises:
            ResidscopeError: If keys or values of each position would be replaced in a run of their own.
        """
        refused = {} if self.reading is None else self.reading.refused
        if self.reading is not None and self.reading.of_sources and each:
            raise ResidscopeError(
                "positions",
                'With `positions="each"`, effects of keys and values are not measured in runs: use `estimate`, or name '
                "a position, such as `positions=[3]`.",
            )
        changed = changed_in(patches, self.chosen, self.by).any(1).tolist()
        return [row for row, one in enumerate(patches) if changed[row] and (one.layer, one.head) not in refused]


def put_in(measurement: Measurement, source: object, at: SiteKind | Part, where: Tensor, path: object = None) -> Put:
    """What is put into the run, given the arguments `source`, `at` and `path` of the user."""
    along, last = None if path is None else ends(measurement.view, path), measurement.where
    if at in PARTS:
        if along is not None:
            raise ResidscopeError("path", f'A path begins at heads or sublayers, not at `at="{at}"`.')
        reading = Rereading(
            measurement, at, where, lambda inputs: replacement(measurement.replay, source, inputs, "source").until(last)
        )
        return Put("z", reading.where, where, reading.replacement(), reading)
    sites = [site for (kind, _), site in measurement.replay.sites.items() if kind == at]
    by = replacement(measurement.replay, source, sites, "source").until(last)
    return Put(cast(SiteKind, at), where, where, by, ends=along)
