"""Three ways to weigh attention, for any heads, a few heads and prompts at a time.

Attention says where a head looks, not how much of what it finds it brings along, nor whether that matters for the
answer: see Kobayashi et al., "Attention Is Not Only a Weight" (2020), and Elhage et al., "A Mathematical Framework for
Transformer Circuits" (2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from residscope.attribution.goal import Goal
from residscope.attribution.head_inputs import ALL, HeadInputs, gated, read_names, reads, some_pattern, sources_of
from residscope.attribution.head_split import adds_up, projects, unchecked
from residscope.attribution.sources import SourceContributions, bringing_by, not_by_reading, rounding_in
from residscope.cache.component_names import name
from residscope.cache.finite import check_finite
from residscope.cache.norms import odd_final_norm
from residscope.cache.structure import out_weight, unsplit_heads, why_unread
from residscope.cache.view import CacheView
from residscope.compute.batching import blocks
from residscope.compute.memo import size_of
from residscope.compute.precision import working
from residscope.compute.torch_context import on_one_thread
from residscope.errors import ResidscopeError
from residscope.patterns.downsampling import Part, down_sampled
from residscope.session.change_notes import cache_changed, changed, weights_changed
from residscope.terms import Pool, Weighting

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
STRIP = 250_000
"""So many where they are made small: they stay in the processor's own memory."""
Weighted = Callable[[slice, slice], "Tensor"]


@dataclass
class WeightedAttention:
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
    _left: float = 0.0  # the most that a head is worth beyond what its sources bring

    @property
    def prompts(self) -> range:
        """The prompts that are averaged."""
        return range(self.view.batch) if self.prompt is None else range(self.prompt, self.prompt + 1)

    def of(
        self, layer: int, heads: Sequence[int], part: Part | None = None
    ) -> Iterator[tuple[Sequence[int], Float[Tensor, "head row column"]]]:
        """Maps of heads of one layer, as many at a time as fit the budget, and which they are.

        Args:
            layer: The layer.
            heads: The heads.
            part: The destinations and sources that are wanted; None is all.

        Raises:
            ResidscopeError: If a head is none, something was not cached or is not finite, or contributions of this
                layer's heads cannot be determined.
        """
        import torch

        for some, strips in self._strips(layer, heads, part or self._every(layer), CELLS):
            yield some, torch.cat(list(strips), dim=1)

    def _every(self, layer: int) -> Part:
        """All destinations and sources; of patterns as many as there are, behind a key/value cache or a prefix, too."""
        every = Part.of(self.view.n_pos)
        return replace(every, columns=range(sources_of(self.view, layer))) if self.weighting == "pattern" else every

    def small(
        self, layer: int, heads: Sequence[int], part: Part, step: int, pool: Pool = "peak"
    ) -> list[tuple[Sequence[int], Float[Tensor, "head row column"]]]:
        """The same down-sampled: the whole maps are never there, only a strip of them at a time."""
        import torch

        return on_one_thread(
            lambda: [
                (some, torch.cat([down_sampled(strip, step, pool) for strip in strips], dim=1))
                for some, strips in self._strips(layer, heads, part, STRIP, step)
            ]
        )

    def one(self, layer: int, head: int, part: Part, pool: Pool = "peak") -> Float[Tensor, "row column"]:
        """The map of one head, or a part of it, as it travels. Small ones are worked out with all of their layer."""
        self.view.check_head(layer, head)
        if part.whole and part.step == 1 and len(part.rows) == self.view.n_pos:
            together = self._together(layer, part)
            if together is not None:
                self._note(together[1])
                return together[0][head]
        return self.small(layer, [head], part, part.step, pool)[0][1][0]

    def _together(self, layer: int, part: Part) -> tuple[Tensor, list[str]] | None:
        """The whole maps of a layer's heads, kept, and their notes; None where each must be looked at by itself."""
        import torch

        heads = range(self.view.n_heads)
        if len(heads) * len(self.prompts) * len(part.rows) ** 2 > STRIP:
            return None
        goal = None if self.goal is None else self.goal.key
        memo = self.view.memo.part("maps", self.weighting, self.prompt, goal)
        found: tuple[Tensor, list[str]] | tuple[()] | None = memo.get(layer)
        if found is None:
            every = WeightedAttention(self.view, self.weighting, self.prompt, self.goal)
            try:
                maps = torch.cat([some for _, some in every.small(layer, heads, part, 1)])
                found = () if every._left else (maps, every.notes)  # what is left over is told of a head, not of all
            except ResidscopeError:  # one of the others may be the reason
                found = ()
            memo.put(layer, value=found, size=size_of(found[0]) if found else 0)
        return found or None

    def all(self, layer: int, heads: Sequence[int]) -> Float[Tensor, "head destination source"]:
        """Maps of heads of one layer, all at once."""
        import torch

        return torch.cat([maps for _, maps in self.of(layer, heads)])

    def _strips(
        self, layer: int, heads: Sequence[int], part: Part, budget: int, step: int = 1
    ) -> Iterator[tuple[Sequence[int], Iterator[Float[Tensor, "head row column"]]]]:
        """Some heads at a time, and their maps in strips of so many cells: whole blocks of `step` rows each."""
        for head in heads:
            self.view.check_head(layer, head)
        self._note(cache_changed(self.view))
        if self.weighting != "pattern":
            self._note(weights_changed(self.view))
            self._note(unchecked(self.view, [layer]))
        if self.weighting == "contribution":
            self._note(self._goal.check(layer) + odd_final_norm(self.view))
        if self.weighting == "value" and adds_up(self.view, layer) is False:
            said = unsplit_heads(self.view, [layer])
            if not projects(self.view, layer):
                raise ResidscopeError(
                    "no-heads", f"How long what heads write is cannot be determined by their weights. {said}"
                )
            self._note([said])
        if self.weighting != "pattern":
            self._note(gated(self.view, [layer]))
        cells = len(part.rows) * len(part.columns)
        for some in blocks(heads, CELLS // cells):
            each = max(1, CELLS // (cells * len(some)))  # prompts at a time
            weighted = [
                self._weighted(range(prompts[0], prompts[-1] + 1), layer, some, part)
                for prompts in blocks(self.prompts, each)
            ]
            for few in blocks(range(len(some)), budget // (cells * min(each, len(self.prompts)))):
                tall = budget // (len(part.columns) * len(few) * min(each, len(self.prompts)))
                rows = blocks(part.rows, max(tall - tall % step, step))
                yield [some[i] for i in few], self._averaged(weighted, layer, some, few, rows)
        if self._left:
            self._note([not_by_reading(self._left)])

    def _averaged(
        self,
        weighted: Sequence[Weighted],
        layer: int,
        heads: Sequence[int],
        few: Sequence[int],
        strips: Iterator[Sequence[int]],
    ) -> Iterator[Tensor]:
        """The mean over prompts of a few of the heads, strip by strip."""
        for rows in strips:
            maps = None
            for some in weighted:
                strip = some(slice(few[0], few[-1] + 1), slice(rows[0], rows[-1] + 1))
                strip = strip[0] if strip.shape[0] == 1 else strip.sum(0)
                maps = strip if maps is None else maps + strip
            if maps is not None:
                maps = maps / len(self.prompts) if len(self.prompts) > 1 else maps
                self._check_finite(maps, layer, [heads[i] for i in few])
                yield maps

    def reads(self, layer: int, head: int, where: Int[Tensor, " batch"]) -> Float[Tensor, " source"]:
        """How much of each source one destination of each prompt attends to: a row of the pattern."""
        prompts = self.prompts
        rows = some_pattern(self.view.only(prompts), where[prompts.start : prompts.stop], layer, [head])
        row = working(rows)[:, 0, 0].mean(0)
        check_finite(self.view, row)
        return row

    def brings(self, layer: int, head: int, where: Int[Tensor, " batch"]) -> Float[Tensor, " source"]:
        """What a head brings from each source to one destination of each prompt, in logits."""
        self._note(changed(self.view))
        self._note(unchecked(self.view, [layer]))
        self._note(self._goal.check(layer))
        self._note(gated(self.view, [layer]))
        prompts = self.prompts
        found = self._bringing(prompts, layer, [head], where[prompts.start : prompts.stop])
        row = self._brought(found, layer, ALL, ALL, ALL)[:, 0, 0].mean(0)
        if self._left:
            self._note([not_by_reading(self._left)])
        check_finite(self.view, row)
        return row

    @property
    def _goal(self) -> Goal:
        if self.goal is None:
            raise ResidscopeError("answers", "Contributions need a target: `answers=…`.")
        return self.goal

    def _weighted(self, prompts: range, layer: int, heads: Sequence[int], part: Part) -> Weighted:
        """What gives some of these heads' rows that are wanted, `[batch, head, row, column]`."""
        columns, view = slice(part.columns.start, part.columns.stop), self.view.only(prompts)
        if self.weighting == "pattern":
            square = len(part.columns) != sources_of(view, layer)
            patterns = some_pattern(view, None, layer, heads, square=square)
            return lambda few, rows: working(patterns[:, few, rows, columns])
        if self.weighting == "value":
            lengths = self._lengths(view, layer, heads)
            return lambda few, rows: lengths.part(few, rows, columns)
        found = self._bringing(prompts, layer, heads)
        if not part.whole:  # a part of the sources says nothing about their sum
            return lambda few, rows: found.part(few, rows, columns)
        return lambda few, rows: self._brought(found, layer, few, rows, columns)

    def _bringing(
        self, prompts: range, layer: int, heads: Sequence[int], where: Int[Tensor, " batch"] | None = None
    ) -> SourceContributions:
        direction, divisor = self._goal.writes(prompts, layer, where)
        return bringing_by(self.view.only(prompts), where, direction, divisor, layer, heads)

    def _lengths(self, view: CacheView, layer: int, heads: Sequence[int]) -> Lengths:
        W_O = out_weight(view, layer)
        if W_O is None:
            why = why_unread(view, layer, "attn") or f"Layer {layer} has no attention heads with a `W_O`."
            raise ResidscopeError("no-heads", why)
        read = reads(view, None, layer, heads, (W_O.shape[0], W_O.shape[1]))
        if read.left() > max(1e-3, 8 * self._step(layer)):
            self._note([_CHANGED])
        return Lengths(read, W_O[list(heads)])

    def _brought(self, found: SourceContributions, layer: int, heads: slice, rows: slice, columns: slice) -> Tensor:
        """What all sources bring to some destinations; that it adds up is checked on the way."""
        brought = found.part(heads, rows, columns)
        left = float((brought.sum(-1) - found.own[:, heads, rows]).abs().max())
        if left > rounding_in(self._step(layer), brought, -1):
            self._left = max(self._left, left)
        return brought

    def _step(self, layer: int) -> float:
        return self.view.rounding_step(*read_names(self.view, layer))

    def _check_finite(self, maps: Tensor, layer: int, heads: Sequence[int]) -> None:
        if bool(maps.sum().isfinite()) or bool(maps.isfinite().all()):  # a sum is quicker told
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


@dataclass(frozen=True)
class Lengths:
    """pattern[q, k] · ‖v[k] W_O‖, as long as the vector that a source adds to a destination.

    ‖x W_O‖² = x (W_O W_Oᵀ) xᵀ: no vector is ever built. Where a head gates what it has read, x = gate[q] · v[k].

    Attributes:
        read: What the heads read.
        W_O: What they write with.
    """

    read: HeadInputs
    W_O: Float[Tensor, "head d_head d_model"]

    def part(self, heads: slice, rows: slice, columns: slice) -> Float[Tensor, "batch head row column"]:
        """Some heads, destinations and sources of it."""
        import torch

        pattern, gate = self.read.part(heads, rows, columns), self.read.gate
        if gate is None or gate.shape[-1] == 1:
            weighted = pattern * self._whole[:, heads, None, columns]
            return weighted if gate is None else weighted * gate[:, heads, rows].abs()
        v, gate, gram = (
            self._exact(self.read.v[:, heads, columns]),
            self._exact(gate[:, heads, rows]),
            self._gram[heads],
        )
        # A gate for each unit and destination.
        lengths = [self._length(v * gate[:, :, q, None], gram) for q in range(gate.shape[2])]
        return pattern * torch.stack(lengths, dim=2)

    @cached_property
    def _whole(self) -> Float[Tensor, "batch head source"]:
        return self._length(self._exact(self.read.v), self._gram)

    @cached_property
    def _gram(self) -> Float[Tensor, "head d_head d_head"]:
        W = self._exact(self.W_O.to(self.read.v.device))
        return W @ W.transpose(-1, -2)

    def _exact(self, x: Tensor) -> Tensor:
        """What is multiplied is a square, and its root a small difference."""
        import torch

        return x if x.device.type == "mps" else x.to(torch.float64)

    def _length(self, x: Tensor, gram: Tensor) -> Float[Tensor, "batch head pos"]:
        return ((x @ gram) * x).sum(-1).clamp(min=0).sqrt().to(self.read.v.dtype)
