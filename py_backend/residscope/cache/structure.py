"""Finds the activations that add up to a model's residual stream, from the model's modules and the cache.

Most models add `hook_attn_out` and `hook_mlp_out` to the embeddings, layer by layer. Some do not: they have mixers
instead of attention, multiply outputs by a factor that the cache does not show, or change the embeddings before
layer 0. In such models the difference of two points of the residual stream shows what was added between the points.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from residscope.base.numbered import named_layers
from residscope.cache.output_maps import neuron_weight, out_weight
from residscope.cache.points import END
from residscope.cache.structure_notes import POSSIBLE_CAUSES, SCALED, TRAINING, float8, in_training
from residscope.cache.view import CacheView
from residscope.terms import Component

Terms = tuple[tuple[str, float], ...]
"""A sum of activations, given as pairs (name, factor)."""

ComponentTerms = dict[Component, Terms]
"""The rows of a decomposition, each with the activations whose sum is the row."""

OUT: dict[Literal["attn", "mlp"], Literal["attn_out", "mlp_out"]] = {"attn": "attn_out", "mlp": "mlp_out"}
"""The kind of row that shows a sublayer as a whole."""


@dataclass(frozen=True)
class Structure:
    """Which activations add up to each row of a decomposition.

    Attributes:
        view: The cache.
        whole: Layers that add something other than their sublayers' outputs. Each such layer is one row: the stream
            after the layer minus the stream before it.
        entered: Whether the row `embed` is the stream before layer 0, not `hook_embed`.
        unsplit_attn: Layers whose heads do not add up to the attention's output. The output is then one row.
        unsplit_mlp: Layers whose neurons do not add up to the MLP's output. The output is then one row.
        point: The place of the stream where the target is read. Only components before this place have rows.
    """

    view: CacheView
    whole: frozenset[int] = field(default_factory=frozenset[int])
    entered: bool = False
    unsplit_attn: frozenset[int] = field(default_factory=frozenset[int])
    unsplit_mlp: frozenset[int] = field(default_factory=frozenset[int])
    point: Component = END

    @property
    def layers(self) -> int:
        """The number of layers before the point. At a `mid` point, the MLP of the last layer comes after the point."""
        layer = self.point.layer
        return self.view.n_layers if layer is None else layer + (self.point.kind == "mid")

    def ends_within(self, layer: int) -> bool:
        """Whether the point is between attention and MLP of this layer."""
        return self.point.kind == "mid" and self.point.layer == layer

    @property
    def key(self) -> tuple[object, ...]:
        """A key that differs between structures of the same cache."""
        return self.whole, self.entered, self.unsplit_attn, self.unsplit_mlp, self.point, tuple(self.carries)

    def embeddings(self) -> ComponentTerms:
        """The rows of the vectors that enter layer 0."""
        carried = self.carries[0]
        if self.entered or self.read_where_it_enters:
            return {Component("embed"): (("blocks.0.hook_resid_pre", carried),)}
        pieces: ComponentTerms = {Component("embed"): (("hook_embed", carried),)}
        # "Shortformer" positions are added to queries and keys, and never enter the stream.
        kind = getattr(self.view.cfg, "positional_embedding_type", None)
        learned = kind == "standard" and hasattr(self.view.model, "pos_embed")
        if kind != "shortformer" and (self.view.has("hook_pos_embed") or learned):
            pieces[Component("pos_embed")] = (("hook_pos_embed", carried),)
        return pieces

    @property
    def projects_embeddings(self) -> bool:
        """Whether embeddings have another width than the stream, as in some sizes of OPT."""
        return embeds_otherwise(self.view)

    @property
    def read_where_it_enters(self) -> bool:
        """Whether `embed` is the stream before layer 0, because embeddings have another width or are not all cached."""
        if self.projects_embeddings:
            return True
        names = ["hook_embed"] + ["hook_pos_embed"] * (
            getattr(self.view.cfg, "positional_embedding_type", None) == "standard"
            and hasattr(self.view.model, "pos_embed")
        )
        return self.view.has("blocks.0.hook_resid_pre") and not all(map(self.view.has, names))

    def sublayers(self, layer: int) -> ComponentTerms:
        """The rows of a layer's sublayers: attention, another mixer, MLP, and per-layer embeddings."""
        view, block, carried = self.view, self.view.model.blocks[layer], self.carries[layer]
        before, after = self.added(layer)
        if layer in self.whole:
            return {Component("layer_out", layer): (after, before)}
        mid = (f"blocks.{layer}.hook_resid_mid", carried)
        attn_out = (f"blocks.{layer}.hook_attn_out", carried * output_factor(view, layer, "attn"))
        mlp_out = (f"blocks.{layer}.hook_mlp_out", carried)
        pieces: ComponentTerms = {}
        attends = hasattr(block, "attn") or view.has(attn_out[0])
        feeds = not getattr(view.cfg, "attn_only", False) and (hasattr(block, "mlp") or view.has(mid[0]))
        feeds = feeds and not self.ends_within(layer)
        if attends:
            pieces[Component("attn_out", layer)] = (attn_out,)
        if not attends or has_second_mixer(view, layer):
            end = mid if view.has(mid[0]) else after
            others = [attn_out] * attends + [mlp_out] * (feeds and end is after)
            pieces[Component("mixer_out", layer)] = (end, before, *((name, -factor) for name, factor in others))
        if feeds:
            known = hasattr(block, "mlp") or view.has(mlp_out[0])
            pieces[Component("mlp_out", layer)] = (mlp_out,) if known else (after, (mid[0], -carried))
        per_layer = f"blocks.{layer}.post_per_layer_input_norm.hook_out"  # this layer's own embedding of the token
        if view.has(per_layer) and not self.ends_within(layer):
            pieces[Component("per_layer_out", layer)] = ((per_layer, carried),)
        return pieces

    def cached(self, layer: int, *, without: Literal["attn", "mlp"] | None = None) -> ComponentTerms:
        """The rows of a layer: one for each sublayer. If an output is missing, the layer is one row where possible.

        Args:
            layer: The layer.
            without: A sublayer that the caller splits, such as `"attn"`. The layer is then never one row.
        """
        pieces = self.sublayers(layer)
        before = (self.view.before(layer), -self.carries[layer])
        after = self.added(layer)[1] if self.ends_within(layer) else (self.view.after(layer), self.carries[layer + 1])
        mid, carried = f"blocks.{layer}.hook_resid_mid", self.carries[layer]
        # If nothing else is added, the outputs of both sublayers are differences of the stream.
        differences: ComponentTerms = {
            Component("attn_out", layer): ((mid, carried), before),
            Component("mlp_out", layer): (after, (mid, -carried)),
        }
        if pieces.keys() <= differences.keys():
            pieces = {
                row: terms if self.has(terms) or not self.has(differences[row]) else differences[row]
                for row, terms in pieces.items()
            }
        if without:
            pieces.pop(Component(OUT[without], layer), None)
        elif not all(map(self.has, pieces.values())) and self.has((before, after)):
            return {Component("layer_out", layer): (after, before)}
        return pieces

    def later(self, layer: int) -> list[Component]:
        """The rows of a layer's sublayers after the point. They contribute nothing to the target."""
        if layer < self.layers - self.ends_within(layer):
            return []
        # If the layer is one row (`whole`), this row stands for the layer's sublayers before the point.
        before = replace(self, whole=frozenset()).sublayers(layer) if self.ends_within(layer) else {}
        return [row for row in Structure(self.view).sublayers(layer) if row not in before]

    def has(self, terms: Terms) -> bool:
        """Whether the cache holds all activations of a row."""
        return all(self.view.has(name) for name, _ in terms)

    def added(self, layer: int) -> tuple[tuple[str, float], tuple[str, float]]:
        """Two terms whose sum is all that a layer adds: minus the stream before it, plus the stream after it."""
        before = (f"blocks.{layer}.hook_resid_pre", -self.carries[layer])
        if self.ends_within(layer):
            return before, (f"blocks.{layer}.hook_resid_mid", self.carries[layer])
        # For a point before the end, the stream may be cached only as the input of the next layer.
        after = f"blocks.{layer}.hook_resid_post" if self.point.layer is None else self.view.after(layer)
        return before, (after, self.carries[layer + 1])

    @cached_property
    def carries(self) -> list[float]:
        """For each layer, the factor by which this and all later layers before the point multiply the stream.

        The factors are 1 in most models. The last entry, 1, is for the stream at the point.
        """
        blocks, end = list(self.view.model.blocks), self.view.n_layers if self.point.layer is None else self.point.layer
        if not self.view.facts.once(("scaled",), lambda: (any(_scalar(block) is not None for block in blocks),))[0]:
            return [1.0] * (end + 1)
        products = [1.0]
        for block in reversed(blocks[:end]):
            scalar = _scalar(block)
            products.append(products[-1] * (1.0 if scalar is None else float(scalar)))
        return products[::-1]

    def splits_attention(self, layer: int) -> bool:
        """Whether this layer's attention can be split into heads, and is before the point."""
        is_before = layer < self.layers
        return is_before and layer not in self.whole | self.unsplit_attn and out_weight(self.view, layer) is not None

    def splits_mlp(self, layer: int) -> bool:
        """Whether this layer's MLP can be split into neurons, and is before the point."""
        is_before = layer < self.layers and not self.ends_within(layer)
        return is_before and layer not in self.whole | self.unsplit_mlp and neuron_weight(self.view, layer) is not None

    def notes(self) -> list[str]:
        """Notes on differences from the usual structure."""
        notes: list[str] = []
        unusual = self.whole | self.unsplit_attn | self.unsplit_mlp | ({0} if self.entered else set[int]())
        too_coarse = float8(self.view, unusual)
        differ, causes, scaled = "are not all of", POSSIBLE_CAUSES, SCALED
        changed = ": this model changes `hook_embed` before layer 0, or adds something else to it."
        if too_coarse:  # the cache is too coarse to suggest any other cause
            differ, causes, scaled, changed = "do not add up to", ".", "", ", not the sum of `hook_embed` and others."
            notes.append(too_coarse)
        if (self.entered or self.whole or self.unsplit_attn or self.unsplit_mlp) and in_training(self.view.model):
            notes.append(TRAINING)
        if self.entered:
            notes.append(f"The row `embed` is all that enters layer 0 (`blocks.0.hook_resid_pre`){changed}")
        if self.whole:
            notes.append(
                f"In {named_layers(self.whole)} the outputs of attention and MLP in the cache are not what is added to "
                f"the stream{scaled}: `…_layer_out` is the layer as a whole."
            )
        if self.unsplit_attn:
            notes.append(
                f"In {named_layers(self.unsplit_attn)} the heads (z @ W_O) and the bias {differ} "
                f"`hook_attn_out`, which is shown as a whole{causes}"
            )
        if self.unsplit_mlp:
            notes.append(
                f"In {named_layers(self.unsplit_mlp)} the neurons (post @ W_out) and the bias {differ} "
                f"`hook_mlp_out`, which is shown as a whole{causes}"
            )
        return notes


def embeds_otherwise(view: CacheView) -> bool:
    """Whether the model projects its embeddings to another width before they enter layer 0."""
    embedded, entering = (view.activations.get(name) for name in ("hook_embed", "blocks.0.hook_resid_pre"))
    return embedded is not None and entering is not None and embedded.shape[-1] != entering.shape[-1]


def _scalar(block: object) -> Any:
    return getattr(getattr(block, "original_component", None), "layer_scalar", None)


def output_factor(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> float:
    """The factor by which a layer multiplies `hook_attn_out`, or `mlp.hook_post` @ W_out, before it adds the result."""
    block = view.model.blocks[layer]
    owner = block if part == "attn" else getattr(block, "mlp", None)
    name = {"attn": "attn_out_multiplier", "mlp": "down_multiplier"}[part]
    factor = getattr(getattr(owner, "original_component", None), name, None)
    return float(factor) if isinstance(factor, int | float) else 1.0


def has_second_mixer(view: CacheView, layer: int) -> bool:
    """Whether the layer has another mixer in addition to attention, which adds its own output."""
    block = view.model.blocks[layer]
    return hasattr(block, "attn") and any(
        view.has(f"blocks.{layer}.{name}.hook_out") for name in ("mamba", "mixer", "ssm")
    )
