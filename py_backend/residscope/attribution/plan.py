"""The rows of a decomposition, before they are computed (`Plan`) and with their values (`Rows`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from residscope.cache.lens_maps import StreamMaps
from residscope.cache.structure import ComponentTerms
from residscope.cache.view import CacheView
from residscope.cache.view_refusals import not_cached
from residscope.terms import By, Component, ComponentKind

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """The rows of a decomposition.

    The first `parts` rows are the requested components (heads, neurons). The other rows are the rest of the model.
    `missing` names the activations that were not cached. Their rows are left out.
    """

    components: list[Component]
    values: Float[Tensor, "component batch pos"]
    parts: int | None = None
    step: Float[Tensor, "component 1 1"] | float = 0.0
    """The relative rounding step of each row, from the precision of its activations. 0 if it was not computed."""
    missing: tuple[str, ...] = ()
    split: tuple[int, ...] = ()
    """The layers that are split into heads or neurons."""

    @property
    def rest(self) -> list[Component]:
        """The rows after the requested components. All rows if no layer is split."""
        return self.components[self.parts or 0 :]

    def sum(self, layer: int, *kinds: ComponentKind) -> Float[Tensor, "batch pos"] | None:
        """Return the sum of a layer's rows, or of its rows of the given kinds. None if there are no such rows."""
        rows = self._of_layer.get(layer, ())
        places = [i for i in rows if self.components[i].kind in kinds] if kinds else [*rows]
        return self.values[places].sum(0) if places else None

    @cached_property
    def _of_layer(self) -> dict[int | None, list[int]]:
        rows: dict[int | None, list[int]] = {}
        for i, component in enumerate(self.components):
            rows.setdefault(component.layer, []).append(i)
        return rows


@dataclass(frozen=True)
class Plan:
    """The rows of a decomposition, before they are computed.

    Attributes:
        terms: The rows that are sums of activations in the stream.
        split: The layers that are split into heads or neurons. Their rows come first, then the layers' biases.
        part: Which sublayer is split: attention into heads, or the MLP into neurons.
        recomputed: Whether the scale of the target's norm is computed from each row. If not, the cached scale is used.
        maps: For the logit lens: the maps of the stream to its end. None: the stream is read as it is.
        missing: The activations that were not cached. Their rows are left out.
    """

    terms: ComponentTerms
    split: tuple[int, ...] = ()
    part: Literal["attn", "mlp"] = "attn"
    recomputed: bool = False
    missing: tuple[str, ...] = ()
    maps: StreamMaps | None = None

    def cached(self, view: CacheView) -> Plan:
        """Return the plan with only those rows whose activations were cached.

        Raises:
            ResidscopeError: If no row is left. The message names the activations that were not cached.
        """
        lacking = {row: [n for n, _ in terms if not view.has(n)] for row, terms in self.terms.items()}
        missing = tuple(dict.fromkeys([*self.missing, *(name for names in lacking.values() for name in names)]))
        terms = {row: terms for row, terms in self.terms.items() if not lacking[row]}
        if not terms and not self.split:
            raise not_cached(*missing)
        return replace(self, terms=terms, missing=missing)


COMPONENT_KIND: dict[Literal["attn", "mlp"], Literal["head", "neuron"]] = {"attn": "head", "mlp": "neuron"}
"""The kind of component into which each sublayer is split."""


BIAS_KIND: dict[Literal["attn", "mlp"], Literal["attn_bias", "mlp_bias"]] = {"attn": "attn_bias", "mlp": "mlp_bias"}
"""The kind of row that holds each sublayer's bias."""


def components_in(view: CacheView, layer: int, part: Literal["attn", "mlp"], count: int) -> tuple[Component, ...]:
    """Return the components of a layer's heads or neurons.

    Memoised in `view.facts`, because a layer may have a hundred thousand neurons.
    """

    def made() -> tuple[Component, ...]:
        return tuple(Component(COMPONENT_KIND[part], layer, index) for index in range(count))

    return view.facts.once(("components", layer, part, count), made, lambda kept: _BYTES_EACH * len(kept))


_BYTES_EACH = 80
"""The bytes that a component, its index and its place in a tuple take in memory."""


COMPONENT_OF: dict[By, Literal["attn", "mlp"]] = {"head": "attn", "neuron": "mlp"}
"""The sublayer that a decomposition splits."""
