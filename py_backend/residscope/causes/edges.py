"""`edges=`: attention from one destination to one source, taken out of a head.

The edge's entry of the pattern becomes 0. The other entries of the row are not renormalised. A head's `z` at the
destination is a sum over sources. Each summand is the pattern's entry times the source's value (times the gate, if the
head has one). Without the edge, `z` loses the summand of its source. A check on the cache shows whether `z` is this
sum. The pattern is not changed at its hook, because in some models the hook gets only a copy of the pattern.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import index
from typing import TYPE_CHECKING, Any, ClassVar

from residscope.attribution.head_inputs import ALL, HeadInputs, head_inputs, read_names
from residscope.base.arrays import as_list
from residscope.base.numbered import some_prompts
from residscope.cache import positions
from residscope.cache.component_names import name
from residscope.cache.view import CacheView
from residscope.causes.left_out import LEFT_OUT
from residscope.causes.measurement import chosen_positions
from residscope.causes.runner import Edit
from residscope.causes.sites import Site
from residscope.causes.sweep import Patch, Sweep
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

_FORM = (
    'give pairs (destination, source), such as `edges=[(14, 10), ("last", 0)]`, or `("last", "each")` for all sources'
)


@dataclass(frozen=True, eq=False)
class Edge:
    """Attention from a destination to a source.

    Attributes:
        label: The edge's label: `14 ← 10`, `last ← 10`.
        destination: The destination in each prompt.
        source: The source.
        there: Whether each prompt has the edge: neither its destination nor its source is padding, and its source is
            not after its destination.
    """

    label: str
    destination: Int[Tensor, " batch"]
    source: int
    there: Bool[Tensor, " batch"]


@dataclass(frozen=True, eq=False)
class EdgePatch(Patch):
    """An edge of one head."""

    edge: Edge | None = None


def edges_of(view: CacheView, given: Any) -> list[Edge]:
    """Return the edges that a user named.

    Raises:
        ResidscopeError: If `given` does not name edges of this cache, or names an edge twice.
    """
    listed = as_list(given)
    if isinstance(listed, tuple) and not any(isinstance(one, tuple | list) for one in listed):
        listed = [listed]
    if not isinstance(listed, list | tuple) or not listed:
        raise ResidscopeError("edges", f"`edges={given!r}`: {_FORM}.")
    found: list[Edge] = []
    for pair in listed:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ResidscopeError("edges", f"`edges=` holds {pair!r}: {_FORM}.")
        place, source = pair
        at, shown, real = _destination(view, place)
        if isinstance(source, str) and source == "each":
            found += [_edge(view, at, shown, real, number) for number in range(int(at[real].max()) + 1)]
            continue
        edge = _edge(view, at, shown, real, _position(view, source))
        if not bool((real & (at >= edge.source)).any()):
            raise ResidscopeError(
                "edges", f"`edges=`: a token does not attend to a later one, so there is no edge {edge.label}."
            )
        if not bool(edge.there.any()):
            raise ResidscopeError(
                "edges", f"`edges=`: no prompt has the edge {edge.label}: its source or its destination is padding."
            )
        found.append(edge)
    for number, edge in enumerate(found):
        if any(_is_same(edge, other) for other in found[:number]):
            raise ResidscopeError("edges", f"`edges=` names {edge.label} twice.")
    return found


def _is_same(edge: Edge, other: Edge) -> bool:
    """Whether two edges are the same edge in at least one prompt."""
    both = edge.there & other.there
    return edge.source == other.source and bool((edge.destination == other.destination)[both].any())


def _destination(view: CacheView, given: object) -> tuple[Tensor, str, Tensor]:
    """The destination in each prompt, its label, and whether it is a real token in each prompt."""
    import torch

    if isinstance(given, str) and given == "last":
        at = torch.tensor(positions.last(view), device="cpu")
        return at, "last", torch.ones(view.batch, dtype=torch.bool, device="cpu")
    place = _position(view, given)
    real = chosen_positions(view, "all")[:, place]
    if not bool(real.any()):
        raise ResidscopeError("edges", f"`edges=`: position {place} is padding in every prompt.")
    return torch.full((view.batch,), place, device="cpu"), str(place), real


def _position(view: CacheView, given: Any) -> int:
    if isinstance(given, bool | str) or not hasattr(given, "__index__"):
        raise ResidscopeError("edges", f"`edges=`: {given!r} is not a position: {_FORM}.")
    place = index(given)
    if not -view.n_pos <= place < view.n_pos:
        raise ResidscopeError(
            "edges",
            f"`edges=`: position {place} is outside the prompt, which has positions 0 to {view.n_pos - 1}.",
        )
    return place % view.n_pos


def _edge(view: CacheView, at: Tensor, shown: str, real: Tensor, source: int) -> Edge:
    return Edge(f"{shown} ← {source}", at, source, real & (at >= source) & positions.real(view)[:, source])


def missing_notes(edges: Sequence[Edge], *, together: bool) -> list[str]:
    """Return a note that names the prompts without some of these edges.

    Args:
        edges: The edges.
        together: Whether all edges are taken out in one run. A prompt then needs only one of them.
    """
    import torch

    there = torch.stack([edge.there for edge in edges])
    without: list[int] = (~(there.any(0) if together else there.all(0))).nonzero().flatten().tolist()
    if not without:
        return []
    which = "none of these edges exists" if together else "some of these edges do not exist"
    return [
        f"In {some_prompts(without, there.shape[1])} {which}, because of padding, or because the source comes after "
        f"the destination. {LEFT_OUT}"
    ]


def destinations(view: CacheView, edges: Sequence[Edge]) -> Bool[Tensor, "batch pos"]:
    """Return the positions of each prompt that are the destination of an edge."""
    import torch

    where = torch.zeros(view.batch, view.n_pos, dtype=torch.bool, device="cpu")
    for edge in edges:
        prompts = edge.there.nonzero().flatten()
        where[prompts, edge.destination[prompts]] = True
    return where


@dataclass
class EdgeSweep(Sweep):
    """Runs in which edges are taken out. The patches are `EdgePatch`."""

    joins_layers: ClassVar[bool] = False
    _read: dict[tuple[object, ...], HeadInputs] = field(default_factory=dict[tuple[object, ...], HeadInputs])

    def together(self, patches: Sequence[Patch]) -> tuple[Tensor, Tensor]:
        """See `Sweep.together`."""
        import torch

        of = self.measurement
        missing = torch.stack([~_of(one).there for one in patches]).all(0)  # such prompts have none of the edges
        edits: list[Any] = []
        written: list[Any] = []
        for layer, group in groupby(sorted(patches, key=lambda one: one.layer), key=lambda one: one.layer):
            site, own = of.site("z", layer), list(group)
            assert site is not None
            changes = [self._change(site, one) for one in own]
            edits.append((site, self._taken(own, changes, 0)))
            at_target = self._at_target(site, own, changes).sum(0, keepdim=True)
            written.append(None if self.direct is None else self.direct.written(layer, at_target))
        final = self.runner.changed(edits, 1)
        total = of.readout.value(of.readout.pick(final, self.runner.window))[0] - of.before
        if self.direct is None or any(part is None for part in written):
            return _without(total, missing), total * float("nan")
        direct = self.direct.through_norm(torch.stack(written).sum(0))[0]
        return _without(total, missing), _without(direct, missing)

    def _of(self, patches: Sequence[Patch]) -> tuple[Tensor, Tensor]:
        import torch

        of, site = self.measurement, self.measurement.site("z", patches[0].layer)
        assert site is not None
        changes = [self._change(site, patch) for patch in patches]
        final = self.runner.changed([(site, self._taken(patches, changes, None))], len(patches))
        total = of.readout.value(of.readout.pick(final, self.runner.window)) - of.before
        missing = torch.stack([~_of(patch).there for patch in patches])
        if self.direct is None:
            return _without(total, missing), total * float("nan")
        direct = self.direct.effect(site.layer, self._at_target(site, patches, changes))
        return _without(total, missing), _without(direct, missing)

    def _change(self, site: Site, patch: Patch) -> Float[Tensor, "batch d_head"]:
        """The change of the head's `z` at the destination: minus the part that comes from the source."""
        edge, head = _of(patch), patch.head
        assert head is not None
        read = self._inputs(site, head, edge)
        weight = read.part(ALL, ALL, slice(edge.source, edge.source + 1))[:, 0, 0]  # [batch, 1]
        value = weight * read.v[:, 0, edge.source]
        value = value if read.gate is None else value * read.gate[:, 0, 0]
        return -value.masked_fill(~edge.there.to(value.device)[:, None], 0)

    def _inputs(self, site: Site, head: int, edge: Edge) -> HeadInputs:
        """What a head reads at the edge's destination.

        Raises:
            ResidscopeError: If the head's `z` is not the sum over its sources.
        """
        view, key = self.measurement.view, (site.layer, head, *edge.destination.tolist())
        if key not in self._read:
            self._read.clear()  # patches are ordered, so earlier heads and destinations are not needed again
            at = edge.destination.to(view.stream.device)
            read = head_inputs(view, at, site.layer, [head], (site.inner[0], site.inner[1]))
            if read.unexplained() > max(1e-3, 8 * view.rounding_step(*read_names(view, site.layer))):
                raise ResidscopeError(
                    "edges",
                    f"The output of {name(site.layer, head)} is not its pattern times its values in this model, so no "
                    "single edge can be taken out.",
                )
            self._read[key] = read
        return self._read[key]

    def _taken(self, patches: Sequence[Patch], changes: Sequence[Tensor], row: int | None) -> Edit:
        """The edit that adds these changes to `z`: each in its own copy of the batch, or all in the copy `row`."""
        import torch

        batch, start = self.measurement.view.batch, self.runner.window.start

        def edit(held: Tensor) -> Tensor:
            copies = held.reshape(-1, batch, *held.shape[1:]).clone()
            prompts = torch.arange(batch, device=held.device)
            for number, (patch, change) in enumerate(zip(patches, changes, strict=True)):
                own = copies[number if row is None else row]
                at = (_of(patch).destination.to(held.device) - start).clamp(0, own.shape[1] - 1)
                own[prompts, at, patch.head] = (own[prompts, at, patch.head] + change.to(held.device)).to(held)
            return copies.reshape(held.shape)

        return edit

    def _at_target(
        self, site: Site, patches: Sequence[Patch], changes: Sequence[Tensor]
    ) -> Float[Tensor, "patch batch head d_head"]:
        """The change that each patch makes to `z` at the target's position."""
        view, where = self.measurement.view, self.measurement.where.cpu()
        full = view.like.new_zeros(len(patches), view.batch, *site.inner)
        for number, (patch, change) in enumerate(zip(patches, changes, strict=True)):
            there = (_of(patch).destination == where).to(full.device)
            full[number, :, patch.head] = change.to(full).masked_fill(~there[:, None], 0)
        return full


def _of(patch: Patch) -> Edge:
    edge = getattr(patch, "edge", None)
    assert isinstance(edge, Edge)
    return edge


def _without(values: Tensor, missing: Tensor) -> Tensor:
    return values.masked_fill(missing.to(values.device), float("nan"))
