"""What heads would write if they read another run's queries, keys, values or patterns.

z = gate · (pattern @ v). With other queries or keys, the softmax computes the pattern again, as in AtP*. The change of
z is not a linear approximation. One head is changed at a time, also if it shares its key or value with other heads. The
head's gate and everything before the head are unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from einops import rearrange

from residscope.attribution.head_inputs import HeadInputs, gate_name, head_inputs, read_names
from residscope.cache.component_names import name
from residscope.cache.head_reader import HeadReader
from residscope.cache.positions import real
from residscope.cache.soft_max import SoftMax, rows_of
from residscope.cache.view import CacheView
from residscope.causes.measurement import Measurement
from residscope.causes.replacement import Replacement
from residscope.causes.sites import Part, Source, held
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.errors import ResidscopeError, copied

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


@dataclass(frozen=True)
class Input:
    """An input of all heads of a layer, which may be taken from another run.

    Attributes:
        kind: Whether this is the queries, keys, values or patterns.
        layer: The layer.
        module: The module whose output is this activation.
        name: The name of the activation.
        inner: The shape of the activation at one position. The positions of a pattern are its destinations.
        axes: The einops expression that puts positions before heads. Empty if positions already come first.
    """

    kind: Part
    layer: int
    module: Any
    name: str
    inner: tuple[int, ...]
    axes: str = ""

    @classmethod
    def of(cls, view: CacheView, kind: Part, layer: int) -> Input:
        """Find this input of a layer's heads in a cache.

        Raises:
            ResidscopeError: If it was not cached, or does not hold an entry for each position.
        """
        names = [f"blocks.{layer}.attn.{end}" for end in _NAMES[kind]]
        found = view.first(*names) or names[-1]
        latent = kind == "v" and view.has(f"blocks.{layer}.attn.hook_kv_latent")
        axes = "batch head pos unit -> batch pos head unit" if kind == "pattern" or latent else ""
        shape = _places_first(view.get(found), axes).shape
        if tuple(shape[:2]) != (view.batch, view.n_pos):
            raise ResidscopeError("at", f"`{found}` has the shape {list(shape)}, and not an entry for each position.")
        module = reduce(lambda owner, part: getattr(owner, part, None), found.split(".")[2:], view.model.blocks[layer])
        return cls(kind, layer, module, found, tuple(shape[2:]), axes)

    def held(self, view: CacheView) -> Float[Tensor, "batch pos *inner"]:
        """The activation in a cache.

        Raises:
            ResidscopeError: If it was not cached.
        """
        return _places_first(view.get(self.name), self.axes)

    def read(self, output: Tensor, prompts: int) -> Float[Tensor, "prompt pos *inner"]:
        """The activation, from the module's output."""
        return _places_first(output, self.axes).reshape(prompts, -1, *self.inner)


_NAMES: dict[Part, tuple[str, ...]] = {
    "q": ("hook_q",), "k": ("hook_k",), "v": ("v_norm.hook_out", "hook_v"), "pattern": ("hook_pattern",)
}  # fmt: skip


def _places_first(tensor: Tensor, axes: str) -> Tensor:
    return rearrange(tensor, axes) if axes else tensor


class Rereading:
    """The change of `z` of heads that read another run's queries, keys, values or patterns.

    Args:
        measurement: The cached run.
        part: What the heads read from the other run.
        where: The positions at which they read it: destinations for `q` and `pattern`, sources for `k` and `v`.
        replaced: Takes inputs of layers, and returns the other run's activations for them.

    Attributes:
        by: The other run's inputs.
        where: The positions at which `z` changes.
        refused: The heads whose change cannot be computed, each with the error.

    Raises:
        ResidscopeError: If the change can be computed for no head.
    """

    def __init__(
        self,
        measurement: Measurement,
        part: Part,
        where: Bool[Tensor, "batch pos"],
        replaced: Callable[[list[Source]], Replacement],
    ) -> None:
        self.part: Part = part
        self._view, self._places = measurement.view, where
        self.of_sources = part in ("k", "v")
        self.where = real(self._view) if self.of_sources else where
        self._inputs: dict[int, Input] = {}
        self._soft_max: dict[tuple[int, int], SoftMax] = {}
        self._heads: dict[int, tuple[int, int]] = {}
        self.refused: dict[tuple[int, int], ResidscopeError] = {}
        self._last: tuple[int, Any] = -1, None
        for layer in measurement.layers("z"):
            site = measurement.site("z", layer)
            assert site is not None
            self._heads[layer] = cut = (site.inner[0], site.inner[1])
            try:
                self._check(layer, cut)
            except ResidscopeError as error:
                self.refused |= dict.fromkeys(((layer, head) for head in range(cut[0])), copied(error))
        if len(self.refused) == sum(count for count, _ in self._heads.values()):
            raise copied(next(iter(self.refused.values())))
        self.by = replaced(list(self._inputs.values()))
        self.notes = [*self.by.notes, *self._notes()]

    def _check(self, layer: int, cut: tuple[int, int]) -> None:
        """Check that a layer's `z` is its pattern times its values. For queries and keys, keep each head's softmax."""
        view = self._view
        if self.part in ("q", "k"):
            _ = HeadReader(view, layer, 0).heads  # raises an error if the layer has no attention scores
        found, read = Input.of(view, self.part, layer), self._read(layer)
        gated = gate_name(view, layer) is not None and read.gate is None
        if gated or read.unexplained() > max(1e-3, 8 * view.rounding_step(*read_names(view, layer))):
            raise ResidscopeError(
                "at",
                f"The outputs of layer {layer}'s heads are not their pattern times their values in this model, so "
                f'`at="{self.part}"` cannot be computed.',
            )
        for head in range(cut[0] if self.part in ("q", "k") else 0):
            report_progress()
            try:
                self._soft_max[layer, head] = SoftMax.of(view, layer, head)
            except ResidscopeError as error:
                self.refused[layer, head] = copied(error)
        self._inputs[layer] = found

    def _notes(self) -> list[str]:
        view, notes = self._view, list[str]()
        if self.refused:
            heads = [name(*head) for head in self.refused]
            shown = ", ".join(heads[:3]) + f", … ({len(heads)} heads)" * (len(heads) > 3)
            notes.append(f"There are no effects of {shown}. {next(iter(self.refused.values()))}")
        gates = [layer for layer in self._inputs if gate_name(view, layer) is not None]
        if gates:
            notes.append(f"Heads of layer {gates[0]} gate what they have read. The gate is left unchanged.")
        return notes

    def _read(self, layer: int) -> HeadInputs:
        cut = self._heads[layer]
        return head_inputs(self._view, None, layer, range(cut[0]), cut)

    def replacement(self) -> Replacement:
        """What takes the place of the heads' `z`."""

        def of(site: Source) -> Tensor:
            return working(held(self._view, "z", site.layer)).to(self._view.like) + self.change(site.layer)

        return Replacement(self.by.words, of, self.notes, self.by.padding)

    def change(self, layer: int) -> Float[Tensor, "batch pos head d_head"]:
        """The change of each head's `z` if only this head reads the other run's input. NaN if it cannot be computed."""
        import torch

        if self._last[0] == layer:
            return self._last[1]
        view, read = self._view, self._read(layer)
        change = view.like.new_full((view.batch, view.n_pos, *self._heads[layer]), float("nan"))
        for head, other in self._others(layer):
            made = torch.cat(list(self._made(layer, head, read, other)), 1)
            change[:, :, head] = made if read.gate is None else made * read.gate[:, head]
        change = change.masked_fill(~self.where.to(change.device)[..., None, None], 0)
        self._last = layer, change
        return change

    def by_source(self, layer: int, slope: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos head"]:
        """The estimated effect for each source, if only its key or value is taken from the other run.

        Args:
            layer: The layer.
            slope: The target's gradient at `z`.
        """
        view, read = self._view, self._read(layer)
        found = view.like.new_full(slope.shape[:3], float("nan"))
        slope = slope.masked_fill(~self.where.to(slope.device)[..., None, None], 0).to(view.like)
        for head, other in self._others(layer):
            own = slope[:, :, head] if read.gate is None else slope[:, :, head] * read.gate[:, head]
            if self.part == "v":
                change = other - read.v[:, head]
                paid = sum(self._paid(layer, head, rows).mT @ own[:, rows] for rows in self._rows())
                found[:, :, head] = (paid * change).sum(-1)
                continue
            soft_max = self._soft_max[layer, head]
            vectors = soft_max.vectors()
            parts = [
                soft_max.each_alone(
                    soft_max.masked(vectors, rows),
                    soft_max.raw(vectors, rows, k=other),
                    own[:, rows] @ read.v[:, head].mT,
                ).sum(1)
                for rows in self._rows()
            ]
            found[:, :, head] = sum(parts)
        return found.masked_fill(~self._places.to(found.device)[..., None], 0)

    def _others(self, layer: int) -> Iterator[tuple[int, Tensor]]:
        """Each head, and its input from the other run, ready for use in its scores or its `z`."""
        if layer not in self._inputs:
            return
        view, given = self._view, self._inputs[layer]
        raw = self.by.of(given).to(view.like)
        raw = raw.expand(view.batch, *raw.shape[1:])
        held = copy(view)
        own = _places_first(raw, given.axes)  # a second exchange of the axes restores the cached order
        held.activations = {**view.activations, given.name: own if view.has_batch_dim else own[0]}
        cut = self._heads[layer]
        values = head_inputs(held, None, layer, range(cut[0]), cut).v if self.part == "v" else None
        for head in range(cut[0]):
            report_progress()
            if (layer, head) in self.refused:
                continue
            if self.part == "pattern":
                yield head, raw[:, :, head]
            elif values is not None:
                yield head, values[:, head]
            else:
                yield head, self._soft_max[layer, head].other("q" if self.part == "q" else "k", held)

    def _made(self, layer: int, head: int, read: HeadInputs, other: Tensor) -> Iterator[Float[Tensor, "batch row d"]]:
        """The change of pattern @ v, for one group of destinations after another."""
        import torch

        value, places = read.v[:, head], self._places.to(read.v.device)
        if self.part == "v":
            change = (other - value).masked_fill(~places[..., None], 0)
            yield from (self._paid(layer, head, rows) @ change for rows in self._rows())
            return
        if self.part == "pattern":
            yield from ((other[:, rows] - self._paid(layer, head, rows)) @ value for rows in self._rows())
            return
        soft_max = self._soft_max[layer, head]
        vectors = soft_max.vectors()
        if self.part == "k":
            other = torch.where(places[..., None], other, vectors.k)
        for rows in self._rows():
            new = soft_max.pattern(vectors, rows, **{self.part: other})
            yield (new - soft_max.pattern(vectors, rows)) @ value

    def _paid(self, layer: int, head: int, rows: slice) -> Float[Tensor, "batch row source"]:
        """The cached pattern of a head at some destinations."""
        held = self._view.get(f"blocks.{layer}.attn.hook_pattern")
        return working(held[:, head, rows]).to(self._view.like)

    def _rows(self) -> Iterator[slice]:
        return rows_of(self._view)
