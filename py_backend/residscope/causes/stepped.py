"""Effects measured in steps, for a view: first estimates of all of them, then runs, the largest estimates first.

Between two steps no hook is on the model, and the user's cells may run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from residscope.attribution.targets import Targets
from residscope.causes.direct import DirectPaths
from residscope.causes.estimate import estimated
from residscope.causes.measurement import Measurement, chosen_positions, replayed_words
from residscope.causes.patch import cells
from residscope.causes.replacement import Replacement
from residscope.causes.replay import Replay
from residscope.causes.sites import SiteKind
from residscope.causes.sweep import Patch, Sweep
from residscope.errors import ResidscopeError
from residscope.terms import Position, Target

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Replaced = Literal["heads", "stream"]
"""What is replaced: the output of each head, or the stream before each layer at each position."""


@dataclass
class Measured:
    """What is known so far.

    Attributes:
        total: The total effects, `[row, batch]`: target after − before. NaN: not measured (yet).
        direct: The direct effects; NaN where they are not known.
        estimate: Estimates of the total effects, from one backward pass.
        patches: What is replaced in each row.
        shape: The rows as a grid: layers × heads, or layers × positions.
        done: How many rows were measured.
        before: The target in the unchanged run, `[batch]`.
        gap: The largest difference of the unchanged run from the cache, relative to an activation's size.
        replaced_by: What takes the place of the activations, in words.
        notes: What to know about these numbers.
    """

    total: Float[Tensor, "row batch"] | None = None
    direct: Float[Tensor, "row batch"] | None = None
    estimate: Float[Tensor, "row batch"] | None = None
    patches: list[Patch] = field(default_factory=list[Patch])
    shape: tuple[int, int] = (0, 0)
    done: int = 0
    before: Float[Tensor, " batch"] | None = None
    gap: float = 0.0
    replaced_by: str = ""
    notes: list[str] = field(default_factory=list[str])

    def replayed(self, prompt: int | None) -> str:
        """How the unchanged run compares with the cache, in words; empty if that is not known yet."""
        return "" if self.before is None else replayed_words(self.before, self.gap, prompt)

    @property
    def count(self) -> int:
        """How many effects there are; 0 before that is known."""
        return len(self.patches)

    def grid(self, values: Tensor | None, prompt: int | None) -> Float[Tensor, " cell"] | None:
        """Values as a flat grid, of one prompt or of the mean over prompts; NaN where there is no row."""
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
    """Measure effects step by step, into a `Measured`. What it holds already is not measured again.

    Args:
        targets: Resolves targets in the cache.
        target: The target.
        position: Where it is read.
        of: What is replaced.
        by: What takes its place, made from the replayed run.
        into: The result.
        most: The most runs of the next step.

    Yields:
        After each step, when no hook is on the model.

    Raises:
        ResidscopeError: If the run is not the cached one, or the target or what is replaced does not allow it.
    """
    view = targets.view
    kind: SiteKind = "z" if of == "heads" else "resid_pre"
    measurement = Measurement.of(view, target, position, targets)
    into.before, into.gap = measurement.before, measurement.replay.gap
    yield
    replacement = by(measurement.replay)
    into.replaced_by = replacement.words
    last = int(measurement.where.max())  # what comes after the target has no effect
    patches = [
        patch
        for patch in cells(measurement, kind, each=of == "stream")
        if patch.position is None or patch.position <= last
    ]
    where = chosen_positions(view, "all")
    notes = [*measurement.notes, *replacement.notes]
    direct = DirectPaths(measurement, kind, "frozen") if of == "heads" else None
    sweep = Sweep(measurement, kind, replacement, where, direct)
    into.notes = list(dict.fromkeys(notes + (direct.notes if direct else [])))
    if into.total is None:
        into.shape = (view.n_layers, view.n_heads if of == "heads" else view.n_pos)
        into.total, _ = sweep.unmeasured(len(patches))
        into.direct = sweep.directs(patches)
        into.patches = patches
        yield
        into.estimate = _estimates(measurement, kind, where, replacement, patches, into)
        yield
    sweep.direct = None  # they are known
    assert into.direct is not None
    left = _largest_first(into)
    total, own = sweep.unmeasured(len(left))
    for rows in sweep.steps([patches[row] for row in left], total, own, most):
        places = [left[row] for row in rows]
        into.total[places] = total[rows]
        into.done += len(rows)
        yield
    if sweep.runner.why_whole:
        into.notes.append(f"Each run was one of the whole model, because {sweep.runner.why_whole}.")


def _estimates(
    measurement: Measurement,
    kind: SiteKind,
    where: Tensor,
    by: Replacement,
    patches: Sequence[Patch],
    into: Measured,
) -> Tensor | None:
    try:
        found = estimated(measurement, kind, where, by, each=kind == "resid_pre")
    except ResidscopeError as error:
        if error.code != "estimate":
            raise
        into.notes.append(f"There are no estimates: {error}")
        return None
    place: dict[Any, int] = {patch: at for at, patch in enumerate(cells(measurement, kind, each=kind == "resid_pre"))}
    return found[[place[patch] for patch in patches]]


def _largest_first(into: Measured) -> list[int]:
    """The rows that are not measured yet, those with the largest estimates first."""
    assert into.total is not None
    guess = into.direct if into.estimate is None else into.estimate
    size = into.total.new_zeros(len(into.total)) if guess is None else guess.abs().nan_to_num(0.0).mean(-1)
    order: list[int] = size.argsort(descending=True, stable=True).tolist()
    unknown = into.total.isnan().all(-1).tolist()
    return [row for row in order if unknown[row]]
