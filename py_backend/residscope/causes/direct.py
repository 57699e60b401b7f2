"""The direct effect of a change: what the change adds to the target through the stream if nothing else changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from residscope.attribution.decompose import Query, decompose
from residscope.cache.output_maps import out_weight
from residscope.cache.structure import Structure
from residscope.causes.measurement import Measurement
from residscope.causes.sites import SiteKind, activation
from residscope.compute.precision import working
from residscope.errors import ResidscopeError
from residscope.terms import Component, ComponentKind, NormConvention

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass
class DirectPaths:
    """The direct paths from sites of one kind to the target.

    Attributes:
        measurement: The cached run.
        kind: The kind of the sites.
        norm: Whether the final norm's scale is frozen at its cached value, or recomputed.
        notes: Notes on layers without a direct path.
    """

    measurement: Measurement
    kind: SiteKind
    norm: NormConvention
    notes: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        of = self.measurement
        by = "head" if self.kind == "z" else "layer"
        self._rows: set[tuple[ComponentKind, int | None]] = set()
        try:
            found = decompose(of.view, of.targets, Query(of.target, by, of.where))
        except ResidscopeError as error:
            self.notes.append(f"Direct effects cannot be computed. {error}")
            return
        self._rows = {(row.kind, row.layer) for row in found.components}
        known = {"z": "head", "attn_out": "attn_out", "mlp_out": "mlp_out", "resid_pre": "pre"}[self.kind]
        left = float(found.unexplained.abs().max())
        if left > found.tolerance:
            self.notes += [note for note in found.notes if note not in of.notes]
            self.notes.append(
                f"The rows of this cache do not add up to the target ({left:.2g} is unexplained). Direct effects are "
                "computed as these rows are, so they are not exact."
            )
        without = [layer for layer in of.layers(self.kind) if (known, layer) not in self._rows]
        if without:
            self.notes += [note for note in found.notes if note not in of.notes]
            self.notes.append(f"Layers without a direct effect: {', '.join(map(str, without))}.")

    def effect(self, layer: int, change: Float[Tensor, "copy batch *inner"]) -> Float[Tensor, "copy batch"]:
        """Return the direct effect of changes at the target's position. NaN if it cannot be computed."""
        written = self.written(layer, change)
        if written is None:
            return change.new_full(change.shape[:2], float("nan"))
        return self.through_norm(written)

    def through_norm(self, written: Float[Tensor, "copy batch d_model"]) -> Float[Tensor, "copy batch"]:
        """Return the change of the target if the vectors `written` are added to the final stream.

        NaN in prompts in which the target is read at padding.
        """
        of, frozen = self.measurement, self.norm == "frozen"
        final = of.readout.pick(of.replay.run.final[None])
        return of.where_read(of.readout.value(final + written, frozen=frozen) - of.readout.value(final, frozen=frozen))

    def written(
        self, layer: int, change: Float[Tensor, "copy batch *inner"]
    ) -> Float[Tensor, "copy batch d_model"] | None:
        """Return what the change at the target's position adds to the final stream. None if this is not known."""
        view, change = self.measurement.view, working(change).to(self.measurement.view.like)
        if self.kind == "z":
            weight = out_weight(view, layer) if ("head", layer) in self._rows else None
            if weight is None:
                return None
            vectors = change.flatten(2) @ working(weight).flatten(0, 1).to(change)
            return self.measurement.readout.frozen.output_path(layer, "attn").push(vectors)
        row: ComponentKind = "attn_out" if self.kind == "attn_out" else "mlp_out"
        if (row, layer) not in self._rows:
            return None
        terms = Structure(view).sublayers(layer).get(Component(row, layer), ())
        if len(terms) != 1 or terms[0][0] != activation(self.kind, layer):
            return None
        return change * terms[0][1]
