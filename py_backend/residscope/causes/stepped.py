"""Effects measured in steps, for the panel: first estimates of all effects, then runs, the largest estimates first.

Between two steps no hook of Residscope is on the model, and the user's cells may run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from residscope.attribution.targets import Targets
from residscope.causes.direct import DirectPaths
from residscope.causes.estimate import estimated
from residscope.causes.measurement import Measurement, chosen_positions, replayed_words
from residscope.causes.patch import cells
from residscope.causes.put import Put
from residscope.causes.replacement import Replacement
from residscope.causes.replay import Replay, replay
from residscope.causes.sites import SiteKind
from residscope.causes.sweep import Patch, Sweep
from residscope.causes.unchanged import changed_in, only_where, unchanged_notes
from residscope.errors import ResidscopeError
from residscope.terms import Position, Replaced, Target

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass
class Measured:
    """The results so far.

    Attributes:
        total: The total effects, `[row, batch]`: target after − before. NaN: not measured (yet).
        direct: The direct effects. NaN if they are not known.
        estimate: Estimates of the total effects, from one backward pass.
        patches: The patch of each row.
        shape: The shape of the rows as a grid: layers × heads, or layers × positions.
        known: The rows that were measured.
        is_estimated: Whether no estimate is left to do: all rows were estimated, or estimates are not possible.
        before: The target in the unchanged run, `[batch]`. NaN where it is read at padding.
        gap: The largest difference of the unchanged run from the cache, relative to an activation's size.
        replaced_by: What takes the place of the activations, in words.
        notes: Notes on these numbers.
    """

    total: Float[Tensor, "row batch"] | None = None
    direct: Float[Tensor, "row batch"] | None = None
    estimate: Float[Tensor, "row batch"] | None = None
    patches: list[Patch] = field(default_factory=list[Patch])
    shape: tuple[int, int] = (0, 0)
    known: set[int] = field(default_factory=set[int])
    is_estimated: bool = False
    before: Float[Tensor, " batch"] | None = None
    gap: float = 0.0
    replaced_by: str = ""
    notes: list[str] = field(default_factory=list[str])

    def replayed(self, prompt: int | None) -> str:
        """Return the comparison of the unchanged run with the cache, in words. Empty if it is not known yet."""
        return "" if self.before is None else replayed_words(self.before, self.gap, prompt)

    @property
    def done(self) -> int:
        """The number of measured rows."""
        return len(self.known)

    @property
    def count(self) -> int:
        """The number of effects. 0 until it is known."""
        return len(self.patches)

    def grid(self, values: Tensor | None, prompt: int | None) -> Float[Tensor, " cell"] | None:
        """Return values as a flat grid, for one prompt or as the mean over prompts. NaN in cells without a row.

        None if `values` is None.
        """
        if values is None:
            return None
        rows, columns = self.shape
        flat = values.new_full((rows * columns,), float("nan"))
        at = [patch.layer * columns + (patch.position if patch.head is None else patch.head) for patch in self.patches]  # pyright: ignore[reportOperatorIssue]
        flat[at] = values.nanmean(-1) if prompt is None else values[:, prompt]
        return flat


def steps(
    targets: Targets,
    target: Target,
    position: Position,
    of: Replaced,
    by: Callable[[Replay], Replacement],
    into: Measured,
    most: Callable[[], int],
) -> Iterator[None]:
    """Measure effects step by step, and write them into `into`. Effects that `into` already holds are kept.

    Args:
        targets: Resolves targets for the cache.
        target: The target.
        position: Where the target is read.
        of: What is replaced.
        by: Returns the replacement, given the replayed run.
        into: The result.
        most: Returns the largest number of runs for the next step.

    Yields:
        After each step. At this time no hook of Residscope is on the model.

    Raises:
        ResidscopeError: If the run differs from the cached run, or the target or the replaced activations are
            unsuitable.
    """
    view = targets.view
    kind: SiteKind = "z" if of == "heads" else "resid_pre"
    slopes_at = None if into.is_estimated else kind  # one run serves as the replay and for the estimates
    measurement = Measurement.of(view, target, position, targets, slopes_at=slopes_at)
    into.before, into.gap = measurement.before, measurement.replay.gap
    if not measurement.slopes:
        yield
    replacement = by(measurement.replay).until(measurement.where)
    into.replaced_by = replacement.words
    last = int(measurement.where.max())  # later positions have no effect on the target
    every = cells(measurement, kind, each=of == "stream")
    patches = [patch for patch in every if patch.position is None or patch.position <= last]
    where = chosen_positions(view, "all")
    notes = [*measurement.notes, *replacement.notes, *unchanged_notes(where, replacement, each=of == "stream")]
    direct = DirectPaths(measurement, kind, "frozen") if of == "heads" else None
    sweep = Sweep(measurement, kind, replacement, where, direct)
    notes += direct.notes if direct else []
    into.notes += [note for note in notes if note not in into.notes]
    changed = changed_in(patches, where, replacement)
    if into.total is None:
        direct_effects = only_where(changed, sweep.directs(patches))
        into.shape = (view.n_layers, view.n_heads if of == "heads" else view.n_pos)
        into.patches, into.direct, into.total = patches, direct_effects, sweep.unmeasured(len(patches))[0]
        into.known.update((~changed.any(1)).nonzero().flatten().tolist())  # these have no effect to measure
        if not measurement.slopes:
            yield
    if not into.is_estimated:
        guess = _estimates(measurement, Put(kind, where, where, replacement), every, patches, into)
        into.estimate = None if guess is None else only_where(changed, guess)
        into.is_estimated = True
        measurement.slopes.clear()
        yield
    sweep.direct = None  # direct effects are known by now
    left = _largest_first(into)
    total, own = sweep.unmeasured(len(left))
    for rows in sweep.steps([patches[row] for row in left], total, own, most):
        places = [left[row] for row in rows]
        into.total[places] = only_where(changed[places], total[rows])
        into.known.update(places)
        yield
    if sweep.runner.why_whole:
        into.notes.append(f"Each run was a run of the whole model, because {sweep.runner.why_whole}.")
    replay(view)  # checks the unchanged run again: values that the user's hooks read may have changed between steps


def _estimates(
    measurement: Measurement, put: Put, every: Sequence[Patch], patches: Sequence[Patch], into: Measured
) -> Tensor | None:
    try:
        found = estimated(measurement, put, each=put.kind == "resid_pre")
    except ResidscopeError as error:
        if error.code != "estimate":
            raise
        into.notes.append(f"There are no estimates: {error}")
        return None
    into.notes += [note for note in measurement.notes if note not in into.notes]
    place = {patch: at for at, patch in enumerate(every)}
    return found[[place[patch] for patch in patches]]


def _largest_first(into: Measured) -> list[int]:
    """The rows that are not measured yet, with the largest estimates first. Without estimates, direct effects count."""
    assert into.total is not None
    guess = into.direct if into.estimate is None else into.estimate
    size = into.total.new_zeros(len(into.total)) if guess is None else guess.abs().nanmean(-1).nan_to_num(0.0)
    order: list[int] = size.argsort(descending=True, stable=True).tolist()
    return [row for row in order if row not in into.known]
