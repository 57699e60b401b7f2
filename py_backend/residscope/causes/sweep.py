"""Many runs with one patch each, in batches that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from residscope.causes.direct import DirectPaths
from residscope.causes.last_position import LastRunner, last_runner
from residscope.causes.measurement import Measurement, common_position
from residscope.causes.replacement import Replacement
from residscope.causes.runner import Edit, Runner
from residscope.causes.sites import Site, SiteKind, held
from residscope.compute.progress import progress_bar, report_progress

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


FEW = 4
"""For up to this many runs, whole runs are made, because testing the blocks would take longer."""


@dataclass(frozen=True)
class Patch:
    """The change in one run.

    Attributes:
        layer: The layer of the site.
        head: The head. None: the whole activation is changed.
        position: The position that is changed. None: all chosen positions.
    """

    layer: int
    head: int | None = None
    position: int | None = None


@dataclass
class Sweep:
    """Many runs with one patch each.

    Attributes:
        measurement: The cached run.
        kind: The kind of the sites that are changed.
        replacement: What takes the place of the activation.
        where: The positions that may be changed in each prompt.
        direct: Computes direct effects. None: only total effects are needed.
        joins_layers: Whether patches of several layers can be in one batch.
    """

    joins_layers: ClassVar[bool] = True
    measurement: Measurement
    kind: SiteKind
    replacement: Replacement
    where: Bool[Tensor, "batch pos"]
    direct: DirectPaths | None = None

    def __post_init__(self) -> None:
        self.runner: Runner | LastRunner = Runner(self.measurement.replay, few=True)

    def _choose_runner(self, count: int) -> None:
        """Choose the runner for this number of runs."""
        of = self.measurement
        if count <= FEW:
            return
        at = common_position(self.where, of.where)
        fast = None if at is None else last_runner(of.replay, at)
        self.runner = Runner(of.replay.without_past()) if fast is None else fast

    def each(self, patches: Sequence[Patch], *, shown: bool, name: str) -> tuple[Tensor, Tensor]:
        """Return the total and the direct effect of each patch, `[patch, batch]`.

        If the runs are interrupted, the exception gets the effects measured so far as `.effects`, and their rows as
        `.measured`. All other effects in `.effects` are NaN.

        Args:
            patches: The patches.
            shown: Whether to show a progress bar, if the runs take more than a second.
            name: The text before the bar.
        """
        total, direct = self.unmeasured(len(patches))
        bar = progress_bar(total=len(patches), desc=name, unit=" runs", delay=1, leave=False, disable=not shown)
        done: list[int] = []
        try:
            for rows in self.steps(patches, total, direct):
                done += rows
                bar.update(len(rows))
                report_progress(len(done), len(patches))
        except BaseException as error:
            with suppress(Exception):
                error.effects, error.measured = (total, direct), done  # pyright: ignore[reportAttributeAccessIssue]
            raise
        finally:
            bar.close()
        return total, direct

    def unmeasured(self, count: int) -> tuple[Float[Tensor, "patch batch"], Float[Tensor, "patch batch"]]:
        """Return tensors for this many total and direct effects. They are NaN until `steps` writes into them."""
        total = self.measurement.view.like.new_full((count, self.measurement.view.batch), float("nan"))
        return total, total.clone()

    def steps(
        self, patches: Sequence[Patch], total: Tensor, direct: Tensor, most: Callable[[], int] | None = None
    ) -> Iterator[list[int]]:
        """Measure batch by batch, and yield the rows of each batch. Between batches, no hook of Residscope is left.

        Args:
            patches: The patches, the most urgent first.
            total: The total effects are written into this tensor, `[patch, batch]`.
            direct: The direct effects are written into this tensor, `[patch, batch]`.
            most: Returns the largest number of patches in the next batch.
        """
        self._choose_runner(len(patches))
        two_layers = self.joins_layers and isinstance(self.runner, LastRunner)
        for rows in _batches(
            patches, lambda: min(self.runner.copies, most() if most else len(patches)), two_layers=two_layers
        ):
            total[rows], direct[rows] = self._of([patches[row] for row in rows])
            yield rows

    def directs(self, patches: Sequence[Patch]) -> Float[Tensor, "patch batch"]:
        """Return the direct effects of patches. They need no run. NaN if they cannot be computed."""
        _, found = self.unmeasured(len(patches))
        by_layer: dict[int, list[int]] = {}
        for row, patch in enumerate(patches):
            by_layer.setdefault(patch.layer, []).append(row)
        for layer, rows in by_layer.items():
            site = self.measurement.site(self.kind, layer)
            if self.direct is None or site is None:
                continue
            report_progress()
            select, value = self._select(site, [patches[row] for row in rows]), self.replacement.of(site)
            change = self._change_at_target(site, select, value, held(self.measurement.view, site.kind, layer), 0)
            found[rows] = self.direct.effect(layer, change)
        return found

    def together(self, patches: Sequence[Patch]) -> tuple[Tensor, Tensor]:
        """Return the total and the direct effect of all patches in one run, `[batch]`."""
        import torch

        of = self.measurement
        by_layer: dict[int, list[Patch]] = {}
        for patch in patches:
            by_layer.setdefault(patch.layer, []).append(patch)
        edits: list[tuple[Site, Edit]] = []
        written: list[Any] = []
        for layer, own in by_layer.items():
            site = of.site(self.kind, layer)
            assert site is not None
            select = self._select(site, own).any(0, keepdim=True)
            value = self.replacement.of(site)
            edits.append((site, self._edit(select, value, [])))
            change = self._change_at_target(site, select, value, held(of.view, site.kind, site.layer), 0)
            written.append(None if self.direct is None else self.direct.written(layer, change))
        final = self.runner.changed(edits, 1)
        total = of.readout.value(of.readout.pick(final, self.runner.window))[0] - of.before
        if self.direct is None or any(part is None for part in written):
            return total, total * float("nan")
        return total, self.direct.through_norm(torch.stack(written).sum(0))[0]

    def _of(self, patches: Sequence[Patch]) -> tuple[Tensor, Tensor]:
        of, window = self.measurement, self.runner.window
        by_layer: dict[int, list[int]] = {}
        for row, patch in enumerate(patches):
            by_layer.setdefault(patch.layer, []).append(row)
        changes = [self._change_of_layer(layer, patches, rows) for layer, rows in by_layer.items()]
        final = self.runner.changed([(each.site, each.edit) for each in changes], len(patches))
        total = of.readout.value(of.readout.pick(final, window)) - of.before
        direct = total * float("nan")
        if self.direct is None:
            return total, direct
        for each in changes:
            change = self._change_at_target(each.site, each.select[each.rows], each.value, each.before[0], window.start)
            direct[each.rows] = self.direct.effect(each.site.layer, change)
        return total, direct

    def _change_of_layer(self, layer: int, patches: Sequence[Patch], rows: list[int]) -> _LayerChange:
        site = self.measurement.site(self.kind, layer)
        assert site is not None
        select, before = self._select(site, patches), list[object]()
        select[[row for row in range(len(patches)) if row not in set(rows)]] = False
        value = self.replacement.of(site)
        return _LayerChange(site, rows, select, value, before, self._edit(select, value, before, rows[0]))

    def _select(self, site: Site, patches: Sequence[Patch]) -> Bool[Tensor, "patch batch pos *head"]:
        """Which entries of the activation each patch changes."""
        import torch

        select = self.where.expand(len(patches), -1, -1).clone()
        for row, patch in enumerate(patches):
            if patch.position is not None:
                only = torch.zeros(select.shape[-1], dtype=torch.bool, device="cpu")
                only[patch.position] = True
                select[row] &= only
        if self.kind != "z":
            return select
        own = torch.tensor([-1 if patch.head is None else patch.head for patch in patches], device="cpu")
        heads = torch.arange(site.inner[0], device="cpu")
        return select[..., None] & ((own[:, None] == heads) | (own[:, None] < 0))[:, None, None]

    def _edit(self, select: Tensor, value: Tensor, originals: list[object], unchanged: int = 0) -> Edit:
        """The edit of the activation.

        Args:
            select: The entries that are changed.
            value: The new values.
            originals: Gets the activation before the change.
            unchanged: The index of a copy of the batch in which nothing was changed before this activation.
        """
        import torch

        batch, window = self.measurement.view.batch, self.runner.window

        def edit(held: Tensor) -> Tensor:
            copies = held.reshape(-1, batch, *held.shape[1:])
            originals.append(copies[unchanged].detach())
            chosen = select[:, :, window].to(held.device)[..., None]
            return torch.where(chosen, value[:, window].to(held)[None], copies).reshape(held.shape)

        return edit

    def _change_at_target(
        self, site: Site, select: Tensor, value: Tensor, before: Tensor, start: int
    ) -> Float[Tensor, "patch batch *inner"]:
        """The change that each patch makes at the target's position. `before` begins at position `start`."""
        import torch

        of = self.measurement
        prompts, at = torch.arange(of.view.batch, device="cpu"), of.where.cpu()
        value = value.expand(of.view.batch, -1, *site.inner)
        both = ((value, at), (before, at - start))
        own = (tensor[prompts.to(tensor.device), place.to(tensor.device)] for tensor, place in both)
        new, old = (tensor.to(of.view.like) for tensor in own)
        chosen = select[:, prompts, at].to(new.device)
        return (new - old).masked_fill(~chosen[..., None], 0)


@dataclass(frozen=True)
class _LayerChange:
    """What a batch of patches changes in one layer.

    Attributes:
        site: The site in this layer.
        rows: The patches of this layer.
        select: The entries that are changed, by patch. Nothing is selected for patches of other layers.
        value: The new activation.
        before: Gets the activation before the change, when the run reaches the site.
        edit: The edit of the activation.
    """

    site: Site
    rows: list[int]
    select: Tensor
    value: Tensor
    before: list[Any]
    edit: Edit


def _batches(patches: Sequence[Patch], most: Callable[[], int], *, two_layers: bool) -> Iterator[list[int]]:
    """Yield the indices of patches that are run at once: the first remaining patch, and later ones of its layer.

    Args:
        patches: The patches.
        most: Returns the largest number of patches in the next batch.
        two_layers: Whether the patches of the next layer are added if they all fit. The added patches then pass through
            one block that they do not need. This is still faster if each run has only one position, because fewer
            calls of blocks are made.
    """
    left: dict[int, list[int]] = {}
    for row, patch in enumerate(patches):
        left.setdefault(patch.layer, []).append(row)
    while left:
        layer = min(left, key=lambda layer: left[layer][0])
        report_progress()
        count = max(1, most())
        rows, left[layer] = left[layer][:count], left[layer][count:]
        if not left[layer]:
            del left[layer]
            if two_layers and len(rows) + len(left.get(layer + 1, [])) <= count:
                rows += left.pop(layer + 1, [])
        yield rows


def measure_some(
    sweep: Sweep, patches: Sequence[Patch], rows: list[int], into: Float[Tensor, "patch batch"], *,
    shown: bool, name: str,
) -> None:  # fmt: skip
    """Measure the patches in `rows`, and write their effects into `into`, which holds an entry for every patch.

    If the runs are interrupted, the exception gets `into` as `.effects[0]`, and the measured rows as `.measured`.
    """
    try:
        into[rows] = sweep.each([patches[row] for row in rows], shown=shown, name=name)[0]
    except BaseException as error:
        with suppress(Exception):
            done: list[int] = error.measured  # pyright: ignore[reportAttributeAccessIssue]
            own = [rows[row] for row in done]
            into[own] = error.effects[0][done]  # pyright: ignore[reportAttributeAccessIssue]
            error.effects, error.measured = (into, into), own  # pyright: ignore[reportAttributeAccessIssue]
        raise
