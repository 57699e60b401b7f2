"""Three ways to weigh attention, for any heads, a few heads and prompts at a time.

Attention says where a head looks, not how much of what it finds it brings along, nor whether that matters for the
answer: see Kobayashi et al., "Attention Is Not Only a Weight" (2020), and Elhage et al., "A Mathematical Framework for
Transformer Circuits" (2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from .attribution import Checked, check_finite, check_split
from .cache import CacheView
from .components import head_directions
from .errors import ResidscopeError
from .heads import name
from .kept import Kept
from .longer import step
from .measure import measure
from .protocol import Target, Weighting
from .readout import Readout
from .reads import Reads, gated, reads, some_pattern
from .sources import bring_by, not_by_reading, rounding_in
from .structure import out_weight
from .targets import Targets

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

T = TypeVar("T")

MEANINGS: dict[Weighting, str] = {
    "pattern": "attention",
    "value": "attention × ‖v W_O‖",
    "contribution": "contribution to the target, logits",
}
CELLS = 4_000_000
"""So many figures are computed at once: some arrays of 16 MB."""


@dataclass(frozen=True)
class Goal:
    """The target of contributions, and what was found of the layers on the way to it.

    Attributes:
        targets: Resolves the target.
        target: The target.
        where: A position of each prompt, at which layers are held against the stream; None for all.
        checked: What was found of them; it grows.
        ways: What is the same for every head, once it was worked out; it grows.
    """

    targets: Targets
    target: Target
    where: Int[Tensor, " batch"] | None
    checked: Checked = field(default_factory=Checked)
    ways: Kept = field(default_factory=Kept)

    @property
    def way(self) -> tuple[Float[Tensor, "batch d_model"], Float[Tensor, " batch"]]:
        """The target's functional of the final norm's output."""
        return self.ways.get("target", lambda: self.targets.functional(self.target))

    @property
    def step(self) -> float:
        """The cache's relative rounding step."""
        return self.ways.get("step", self.targets.view.rounding_step)

    def readout(self, prompts: range, where: Int[Tensor, " batch"] | None = None) -> Readout:
        """The way from the stream of some prompts to the target, at one position of each, or at all."""
        directions, offset = (part[prompts.start : prompts.stop] for part in self.way)
        return Readout(self.targets.view.only(prompts), where, directions, offset)

    def writes(
        self, prompts: range, layer: int, where: Int[Tensor, " batch"] | None = None
    ) -> tuple[Float[Tensor, "batch head d_head"], Float[Tensor, "batch destination"]]:
        """What each unit of a layer's `z` is worth, and what to divide by."""
        key = ("writes", prompts, layer, None if where is None else tuple(where.tolist()))
        return self.ways.get(key, lambda: head_directions(self.readout(prompts, where), layer)[:2])

    def check(self, layer: int) -> list[str]:
        """Refuse a layer whose heads do not add up to what it writes."""
        return check_split(self.targets.view, [layer], self.checked, lambda: self._own)

    @cached_property
    def _own(self) -> tuple[Readout, Tensor | None]:
        """The way to the target, and the model's own figure less the constant."""
        readout = Readout(self.targets.view, self.where, *self.way)
        measured = measure(readout, self.targets, self.target, None)
        own = None if measured.value is None else measured.value - measured.bent - readout.functional.constant
        return readout, own


@dataclass
class Maps:
    """Attention of heads, weighted one way, for one prompt or in the mean over prompts.

    Attributes:
        view: The cache.
        weighting: How it is weighted.
        prompt: The prompt, or None for the mean.
        goal: The target, for contributions.
        notes: What a reader of the maps should know; it grows with them.
    """

    view: CacheView
    weighting: Weighting
    prompt: int | None
    goal: Goal | None = None
    notes: list[str] = field(default_factory=list[str])

    @property
    def prompts(self) -> range:
        """The prompts that are averaged."""
        return range(self.view.batch) if self.prompt is None else range(self.prompt, self.prompt + 1)

    def of(
        self, layer: int, heads: Sequence[int]
    ) -> Iterator[tuple[Sequence[int], Float[Tensor, "head destination source"]]]:
        """Maps of heads of one layer, as many at a time as fit the budget, and which they are.

        Raises:
            ResidscopeError: If a head is none, something was not cached or is not finite, or contributions of this
                layer's heads cannot be told.
        """
        for head in heads:
            self.view.check_head(layer, head)
        if self.weighting == "contribution":
            self._note(self._goal.check(layer))
        if self.weighting != "pattern":
            self._note(gated(self.view, [layer]))
        cells = self.view.n_pos**2
        for some in blocks(heads, CELLS // cells):
            maps = None
            for prompts in blocks(self.prompts, CELLS // (cells * len(some))):
                part = self._weighted(range(prompts[0], prompts[-1] + 1), layer, some).sum(0)
                maps = part if maps is None else maps + part
            if maps is not None:
                maps = maps / len(self.prompts) if len(self.prompts) > 1 else maps
                self._check_finite(maps, layer, some)
                yield some, maps

    def all(self, layer: int, heads: Sequence[int]) -> Float[Tensor, "head destination source"]:
        """Maps of heads of one layer, all at once."""
        import torch

        return torch.cat([maps for _, maps in self.of(layer, heads)])

    def brings(self, layer: int, head: int, where: Int[Tensor, " batch"]) -> Float[Tensor, " source"]:
        """What a head brings from each source to one destination of each prompt, in logits."""
        self._note(self._goal.check(layer))
        self._note(gated(self.view, [layer]))
        prompts = self.prompts
        row = self._brought(prompts, layer, [head], where[prompts.start : prompts.stop])[:, 0, 0].mean(0)
        check_finite(self.view, row)
        return row

    @property
    def _goal(self) -> Goal:
        if self.goal is None:
            raise ResidscopeError("answers", "Contributions need a target: `answers=…`.")
        return self.goal

    def _weighted(
        self, prompts: range, layer: int, heads: Sequence[int]
    ) -> Float[Tensor, "batch head destination source"]:
        match self.weighting:
            case "pattern":
                return some_pattern(self.view.only(prompts), None, layer, heads)
            case "value":
                return self._by_value(prompts, layer, heads)
            case "contribution":
                return self._brought(prompts, layer, heads)

    def _by_value(self, prompts: range, layer: int, heads: Sequence[int]) -> Tensor:
        W_O = out_weight(self.view, layer)
        if W_O is None:
            raise ResidscopeError("no-heads", f"Layer {layer} has no attention heads with a `W_O`.")
        read = reads(self.view.only(prompts), None, layer, heads, (W_O.shape[0], W_O.shape[1]))
        if read.left() > max(1e-3, 8 * self._step):
            self._note([_CHANGED])
        return by_value(read, W_O[list(heads)])

    def _brought(
        self, prompts: range, layer: int, heads: Sequence[int], where: Int[Tensor, " batch"] | None = None
    ) -> Tensor:
        direction, divisor = self._goal.writes(prompts, layer, where)
        brought, worth = bring_by(self.view.only(prompts), where, direction, divisor, layer, heads)
        left = float((brought.sum(-1) - worth).abs().max())
        if left > rounding_in(self._step, brought, -1):
            self._note([not_by_reading(left)])
        return brought

    @cached_property
    def _step(self) -> float:
        return self.view.rounding_step() if self.goal is None else self.goal.step

    def _check_finite(self, maps: Tensor, layer: int, heads: Sequence[int]) -> None:
        if bool(maps.isfinite().all()):
            return
        if self.weighting == "contribution":
            check_finite(self.view, maps)
        odd = next(head for head, own in zip(heads, maps, strict=True) if not bool(own.isfinite().all()))
        raise ResidscopeError("not-finite", f"The attention of {name(layer, odd)} holds NaN or infinity.")

    def _note(self, said: Sequence[str]) -> None:
        self.notes.extend(note for note in said if note not in self.notes)


_CHANGED = (
    "This attention changes what its heads have read before `W_O`, in a way that is not followed: ‖v W_O‖ is that of "
    "what they read."
)


def by_value(read: Reads, W_O: Float[Tensor, "head d_head d_model"]) -> Float[Tensor, "batch head destination source"]:
    """pattern[q, k] · ‖v[k] W_O‖, as long as the vector that a source adds to a destination.

    ‖x W_O‖² = x (W_O W_Oᵀ) xᵀ: no vector is ever built. Where a head gates what it has read, x = gate[q] · v[k].
    """
    import torch

    exact = read.v.dtype if read.v.device.type == "mps" else torch.float64  # a square root of a small difference
    W, v = W_O.to(read.v.device, exact), read.v.to(exact)
    gram = W @ W.transpose(-1, -2)  # [head, d_head, d_head]

    def length(x: Float[Tensor, "batch head pos d_head"]) -> Float[Tensor, "batch head pos"]:
        return ((x @ gram) * x).sum(-1).clamp(min=0).sqrt().to(read.pattern.dtype)

    if read.gate is None or read.gate.shape[-1] == 1:
        weighted = read.pattern * length(v)[:, :, None]
        return weighted if read.gate is None else weighted * read.gate.abs()
    gate = read.gate.to(exact)
    rows = [length(v * gate[:, :, q, None]) for q in range(gate.shape[2])]  # a gate for each unit and destination
    return read.pattern * torch.stack(rows, dim=2)


def blocks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Runs of items, of this size at most, and of one at least."""
    size = max(size, 1)
    for start in range(0, len(items), size):
        step()
        yield items[start : start + size]
