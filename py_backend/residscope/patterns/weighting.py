"""Attention maps of heads in three weightings: the pattern, value-weighted, and contribution-weighted.

The pattern shows where a head attends. It does not show how large the vector is that the head moves from a source, or
how this vector affects the target. See Kobayashi et al., "Attention Is Not Only a Weight" (2020), and Elhage et al., "A
Mathematical Framework for Transformer Circuits" (2021). The maps are computed for a few heads and prompts at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from residscope.attribution.head_inputs import (
    ALL,
    HeadInputs,
    gated,
    head_inputs,
    read_names,
    some_pattern,
    source_count,
)
from residscope.attribution.head_split import adds_up, projection_adds_up, unchecked
from residscope.attribution.rounding import floor_of, source_tolerance
from residscope.attribution.sources import SourceContributions, contributions_along, not_from_sources
from residscope.attribution.stream_target import StreamTarget
from residscope.cache import positions
from residscope.cache.component_names import name
from residscope.cache.finite import check_finite
from residscope.cache.norms import odd_final_norm
from residscope.cache.output_maps import out_weight, why_unread
from residscope.cache.structure_notes import unsplit_heads
from residscope.cache.view import CacheView
from residscope.compute.batching import blocks
from residscope.compute.memo import size_of
from residscope.compute.precision import widest, working
from residscope.compute.torch_context import on_one_thread
from residscope.errors import ResidscopeError
from residscope.patterns.downsampling import Part, down_sampled
from residscope.session.change_notes import cache_changed, changed, weights_changed
from residscope.terms import Pool, Weighting

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

T = TypeVar("T")

MEANINGS: dict[Weighting, str] = {
    "pattern": "attention",
    "value": "attention × ‖v W_O‖",
    "contribution": "contribution to the target",
}
"""What a value of a map is. For a contribution, the target's unit follows (see `meaning_of`)."""
CELLS = 4_000_000
"""At most this many values are computed at once. This needs a few arrays of 16 MB."""
STRIP = 250_000
"""For down-sampled maps, about this many cells are computed at once. They fit in the processor's cache."""
WeightedRows = Callable[[slice, slice], "Tensor"]
"""A function of a slice of heads and a slice of rows. It returns the maps `[batch, head, row, column]`."""


@dataclass
class WeightedAttention:
    """Attention maps of heads in one weighting, of one prompt or of the mean over prompts.

    A cell of the mean is the mean over the prompts in which its destination and its source are real tokens. It is NaN
    if there is no such prompt.

    Attributes:
        view: The cache.
        weighting: The weighting.
        prompt: The prompt, or None for the mean.
        stream_target: The target of contributions. None for other weightings.
        notes: Notes on the maps. They are added when maps are computed.
    """

    view: CacheView
    weighting: Weighting
    prompt: int | None
    stream_target: StreamTarget | None = None
    notes: list[str] = field(default_factory=list[str])
    _unexplained: float = 0.0
    """The largest difference between a head's contribution and the sum over its sources."""

    @property
    def prompts(self) -> range:
        """The prompts that are averaged."""
        return range(self.view.batch) if self.prompt is None else range(self.prompt, self.prompt + 1)

    def map_blocks(
        self, layer: int, heads: Sequence[int], part: Part | None = None
    ) -> Iterator[tuple[Sequence[int], Float[Tensor, "head row column"]]]:
        """Yield the maps of heads of one layer, with the heads' indices, in blocks that fit in memory.

        Args:
            layer: The layer.
            heads: The heads.
            part: The destinations and sources of the maps. None: all.

        Raises:
            ResidscopeError: If a head does not exist, an activation was not cached or is not finite, or contributions
                of this layer's heads cannot be determined.
        """
        import torch

        for few_heads, strips in self._strips(layer, heads, part or self._every(layer), CELLS):
            yield few_heads, torch.cat(list(strips), dim=1)

    def strips(
        self, layer: int, heads: Sequence[int]
    ) -> Iterator[tuple[Sequence[int], Iterator[Float[Tensor, "head row column"]]]]:
        """Yield the whole maps of a few heads at a time, in strips of consecutive rows. Whole maps are never in memory.

        Raises:
            ResidscopeError: For the same reasons as `map_blocks`.
        """
        return self._strips(layer, heads, self._every(layer), CELLS)

    def _every(self, layer: int) -> Part:
        """All destinations and sources. A key/value cache or a prefix adds sources to the pattern."""
        every = Part.of(self.view.n_pos)
        return replace(every, columns=range(source_count(self.view, layer))) if self.weighting == "pattern" else every

    def down_sampled_maps(
        self, layer: int, heads: Sequence[int], part: Part, step: int, pool: Pool = "peak"
    ) -> list[tuple[Sequence[int], Float[Tensor, "head row column"]]]:
        """Return down-sampled maps, computed in strips, so that whole maps are never in memory."""
        import torch

        return on_one_thread(
            lambda: [
                (few_heads, torch.cat([down_sampled(strip, step, pool) for strip in strips], dim=1))
                for few_heads, strips in self._strips(layer, heads, part, STRIP, step)
            ]
        )

    def head_map(self, layer: int, head: int, part: Part, pool: Pool = "peak") -> Float[Tensor, "row column"]:
        """Return the map of one head, or a part of it, down-sampled. Small maps of a layer are computed together."""
        self.view.check_head(layer, head)
        if part.whole and part.step == 1 and len(part.rows) == self.view.n_pos:
            together = self._together(layer, part)
            if together is not None:
                self._note(together[1])
                return together[0][head]
        return self.down_sampled_maps(layer, [head], part, part.step, pool)[0][1][0]

    def _together(self, layer: int, part: Part) -> tuple[Tensor, list[str]] | None:
        """The maps of all heads of a layer, with their notes, memoised. None if they must be computed one by one."""
        import torch

        heads = range(self.view.n_heads)
        if len(heads) * len(self.prompts) * len(part.rows) ** 2 > STRIP:
            return None
        stream_target = None if self.stream_target is None else self.stream_target.key
        real = self._real  # padding depends on the tokenizer, which the user may change
        left_out = None if real is None else tuple(real.flatten().tolist())
        memo = self.view.memo.part("maps", self.weighting, self.prompt, stream_target, left_out)
        found: tuple[Tensor, list[str]] | tuple[()] | None = memo.get(layer)
        if found is None:
            every = WeightedAttention(self.view, self.weighting, self.prompt, self.stream_target)
            try:
                maps = torch.cat([maps for _, maps in every.down_sampled_maps(layer, heads, part, 1)])
                # A note on an unexplained part is about one head, so it must not be shown for all heads.
                found = () if every._unexplained else (maps, every.notes)
            except ResidscopeError:  # another head of the layer may be the reason
                found = ()
            memo.put(layer, value=found, size=size_of(found[0]) if found else 0)
        return found or None

    def all_maps(self, layer: int, heads: Sequence[int]) -> Float[Tensor, "head destination source"]:
        """Return the maps of heads of one layer, all at once."""
        import torch

        return torch.cat([maps for _, maps in self.map_blocks(layer, heads)])

    def _strips(
        self, layer: int, heads: Sequence[int], part: Part, budget: int, step: int = 1
    ) -> Iterator[tuple[Sequence[int], Iterator[Float[Tensor, "head row column"]]]]:
        """Yield a few heads at a time, with their maps in strips of at most `budget` cells.

        A strip has at least one block of `step` rows. Only the last block of a map may have fewer rows.
        """
        for head in heads:
            self.view.check_head(layer, head)
        self._note(cache_changed(self.view))
        if self.weighting != "pattern":
            self._note(weights_changed(self.view))
            self._note(unchecked(self.view, [layer]))
        if self.weighting == "contribution":
            self._note(self._stream_target.check(layer) + odd_final_norm(self.view))
        if self.weighting == "value" and adds_up(self.view, layer) is False:
            note = unsplit_heads(self.view, [layer])
            if not projection_adds_up(self.view, layer):
                raise ResidscopeError(
                    "no-heads", f"The length of the heads' outputs cannot be determined by their weights. {note}"
                )
            self._note([note])
        if self.weighting != "pattern":
            self._note(gated(self.view, [layer]))
        cells = len(part.rows) * len(part.columns)
        for block in blocks(heads, CELLS // cells):
            prompt_count = max(1, CELLS // (cells * len(block)))  # prompts at a time
            weighted = [
                (
                    range(prompts[0], prompts[-1] + 1),
                    self._weighted(range(prompts[0], prompts[-1] + 1), layer, block, part),
                )
                for prompts in blocks(self.prompts, prompt_count)
            ]
            for few in blocks(range(len(block)), budget // (cells * min(prompt_count, len(self.prompts)))):
                height = budget // (len(part.columns) * len(few) * min(prompt_count, len(self.prompts)))
                rows = blocks(part.rows, max(height - height % step, step))
                yield [block[i] for i in few], self._averaged(weighted, layer, block, few, rows, part.columns)
        if self._unexplained:
            self._note([not_from_sources(self._unexplained)])

    def _averaged(
        self,
        weighted: Sequence[tuple[range, WeightedRows]],
        layer: int,
        heads: Sequence[int],
        few: Sequence[int],
        strips: Iterator[Sequence[int]],
        columns: range,
    ) -> Iterator[Tensor]:
        """The maps of a few of these heads, averaged over prompts, strip by strip."""
        real, own = self._real, [heads[i] for i in few]
        for rows in strips:
            maps = count = None
            for prompts, weighted_rows in weighted:
                strip = weighted_rows(slice(few[0], few[-1] + 1), slice(rows[0], rows[-1] + 1))
                if real is not None:
                    cells = _pairs(real[prompts.start : prompts.stop].to(strip.device), rows, columns)
                    strip = strip.masked_fill(~cells[:, None], 0)
                    count = cells.sum(0) if count is None else count + cells.sum(0)
                strip = strip[0] if strip.shape[0] == 1 else strip.sum(0)
                maps = strip if maps is None else maps + strip
            if maps is not None:
                self._check_finite(maps, layer, own)
                yield maps / (len(self.prompts) if count is None else count) if len(self.prompts) > 1 else maps

    @cached_property
    def _real(self) -> Bool[Tensor, "batch pos"] | None:
        """Which positions are not padding. None if no prompt has padding, or only one prompt is shown."""
        real = positions.real(self.view)
        return None if len(self.prompts) == 1 or bool(real.all()) else real

    @property
    def leaves_out_padding(self) -> bool:
        """Whether some cells of the mean leave out prompts. A row's sum is then not the mean of the prompts' sums."""
        return self._real is not None

    def _row_mean(
        self, rows: Float[Tensor, "batch source"], where: Int[Tensor, " batch"], *, sums: bool = False
    ) -> Float[Tensor, " source"]:
        """The mean over prompts of one row of each prompt's map, cell by cell (see the class).

        If `sums` is set, the row keeps its sum: only prompts in which the destination is padding are left out.
        """
        if self._real is None:
            row = rows.mean(0)
            check_finite(self.view, row)
            return row
        real = self._real.gather(1, where.cpu()[:, None])
        real = (real.expand_as(self._real) if sums else self._real & real).to(rows.device)
        total = rows.masked_fill(~real, 0).sum(0)
        check_finite(self.view, total)
        return total / real.sum(0)

    def pattern_row(self, layer: int, head: int, where: Int[Tensor, " batch"]) -> Float[Tensor, " source"]:
        """Return a head's attention from one destination to each source, as the mean over prompts."""
        prompts = self.prompts
        rows = some_pattern(self.view.only(prompts), where[prompts.start : prompts.stop], layer, [head])
        return self._row_mean(working(rows)[:, 0, 0], where)

    def source_contributions(self, layer: int, head: int, where: Int[Tensor, " batch"]) -> Float[Tensor, " source"]:
        """Return a head's source contributions (logits) at one destination of each prompt, as the mean over prompts."""
        self._note(changed(self.view))
        self._note(unchecked(self.view, [layer]))
        self._note(self._stream_target.check(layer))
        self._note(gated(self.view, [layer]))
        prompts = self.prompts
        found = self._contributions(prompts, layer, [head], where[prompts.start : prompts.stop])
        row = self._row_mean(self._checked(found, layer, ALL, ALL, ALL)[:, 0, 0], where, sums=True)
        if self._unexplained:
            self._note([not_from_sources(self._unexplained)])
        return row

    @property
    def _stream_target(self) -> StreamTarget:
        if self.stream_target is None:
            raise ResidscopeError("answers", "Contributions need a target: `answers=…`.")
        return self.stream_target

    def _weighted(self, prompts: range, layer: int, heads: Sequence[int], part: Part) -> WeightedRows:
        """A function that returns some rows of the maps of some of these heads."""
        columns, view = slice(part.columns.start, part.columns.stop), self.view.only(prompts)
        if self.weighting == "pattern":
            square = len(part.columns) != source_count(view, layer)
            patterns = some_pattern(view, None, layer, heads, square=square)
            return lambda few, rows: working(patterns[:, few, rows, columns])
        if self.weighting == "value":
            lengths = self._lengths(view, layer, heads)
            return lambda few, rows: lengths.part(few, rows, columns)
        found = self._contributions(prompts, layer, heads)
        if not part.whole:  # the sum over sources can only be checked if the part has all sources
            return lambda few, rows: found.part(few, rows, columns)
        return lambda few, rows: self._checked(found, layer, few, rows, columns)

    def _contributions(
        self, prompts: range, layer: int, heads: Sequence[int], where: Int[Tensor, " batch"] | None = None
    ) -> SourceContributions:
        direction, divisor = self._stream_target.head_directions(prompts, layer, where)
        return contributions_along(self.view.only(prompts), where, direction, divisor, layer, heads)

    def _lengths(self, view: CacheView, layer: int, heads: Sequence[int]) -> Lengths:
        W_O = out_weight(view, layer)
        if W_O is None:
            why = why_unread(view, layer, "attn") or f"Layer {layer} has no attention heads with a `W_O`."
            raise ResidscopeError("no-heads", why)
        inputs = head_inputs(view, None, layer, heads, (W_O.shape[0], W_O.shape[1]))
        if inputs.unexplained() > max(1e-3, 8 * self._step(layer)):
            self._note([_CHANGED_BEFORE_W_O])
        return Lengths(inputs, W_O[list(heads)])

    def _checked(self, found: SourceContributions, layer: int, heads: slice, rows: slice, columns: slice) -> Tensor:
        """Contributions of all sources. If their sum is not the heads' contribution, `_unexplained` is set."""
        contributions, floor = found.part(heads, rows, columns), floor_of(self._stream_target.target)
        gaps = (contributions.sum(-1) - found.measured[:, heads, rows]).abs()
        unexplained = float(gaps.nan_to_num(0.0).max())  # NaN is refused elsewhere, if it is not on padding
        if unexplained > source_tolerance(self._step(layer), contributions.nan_to_num(0.0), -1, floor):
            self._unexplained = max(self._unexplained, unexplained)
        return contributions

    def _step(self, layer: int) -> float:
        return self.view.rounding_step(*read_names(self.view, layer))

    def _check_finite(self, maps: Tensor, layer: int, heads: Sequence[int]) -> None:
        if bool(maps.sum().isfinite()) or bool(maps.isfinite().all()):  # the sum is faster, and usually enough
            return
        if self.weighting == "contribution":
            check_finite(self.view, maps)
        head = next(head for head, own in zip(heads, maps, strict=True) if not bool(own.isfinite().all()))
        raise ResidscopeError("not-finite", f"The attention of {name(layer, head)} holds NaN or infinity.")

    def _note(self, notes: Sequence[str]) -> None:
        self.notes.extend(note for note in notes if note not in self.notes)


def _pairs(real: Bool[Tensor, "batch pos"], rows: Sequence[int], columns: range) -> Bool[Tensor, "batch row column"]:
    """Which destinations and sources are both real.

    With past keys or a prefix, there are more sources than positions, and it is not known which sources are padding.
    """
    destinations = real[:, rows[0] : rows[-1] + 1, None]
    if columns.stop > real.shape[1]:
        return destinations.expand(-1, -1, len(columns))
    return destinations & real[:, None, columns.start : columns.stop]


_CHANGED_BEFORE_W_O = (
    "This attention changes pattern @ v before `W_O` in a way that Residscope does not know: ‖v W_O‖ is computed "
    "without this change."
)


@dataclass(frozen=True)
class Lengths:
    """pattern[q, k] · ‖v[k] W_O‖: the length of the vector that a source adds at a destination.

    It is computed from ‖x W_O‖² = x (W_O W_Oᵀ) xᵀ, so that no vector of width d_model is needed. Here x is v[k], or
    gate[q] · v[k] if the head has a gate.

    Attributes:
        inputs: The heads' patterns, values and gates.
        W_O: The heads' output weights.
    """

    inputs: HeadInputs
    W_O: Float[Tensor, "head d_head d_model"]

    def part(self, heads: slice, rows: slice, columns: slice) -> Float[Tensor, "batch head row column"]:
        """Return the lengths for some heads, destinations and sources."""
        import torch

        pattern, gate = self.inputs.part(heads, rows, columns), self.inputs.gate
        if gate is None or gate.shape[-1] == 1:
            weighted = pattern * self._whole[:, heads, None, columns]
            return weighted if gate is None else weighted * gate[:, heads, rows].abs()
        v, gate, gram = (
            self._exact(self.inputs.v[:, heads, columns]),
            self._exact(gate[:, heads, rows]),
            self._gram[heads],
        )
        # Each destination has its own gate for each unit of d_head.
        lengths = [self._length(v * gate[:, :, q, None], gram) for q in range(gate.shape[2])]
        return pattern * torch.stack(lengths, dim=2)

    @cached_property
    def _whole(self) -> Float[Tensor, "batch head source"]:
        return self._length(self._exact(self.inputs.v), self._gram)

    @cached_property
    def _gram(self) -> Float[Tensor, "head d_head d_head"]:
        W = self._exact(self.W_O.to(self.inputs.v.device))
        return W @ W.transpose(-1, -2)

    def _exact(self, x: Tensor) -> Tensor:
        """`x` in float64 (if its device has it), because squares are summed: float32 would lose small lengths."""
        return x.to(widest(x.device))

    def _length(self, x: Tensor, gram: Tensor) -> Float[Tensor, "batch head pos"]:
        return ((x @ gram) * x).sum(-1).clamp(min=0).sqrt().to(self.inputs.v.dtype)
