"""How a model's residual stream is put together, as its modules and its cache show it: which pieces add up to it.

Most models add `hook_attn_out` and `hook_mlp_out` to the embeddings, layer by layer. Some do not: mixers without
attention, outputs that are multiplied in a way the cache does not show, embeddings that are changed before they enter.
There the residual stream itself says what was added: the difference of two of its points.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .cache import CacheView
from .norms import tensor_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Pieces = dict[str, tuple[str, ...]]
"""Rows by label, each read from an activation, less the others that are named."""


@dataclass(frozen=True)
class Structure:
    """Which pieces a decomposition is made of.

    Attributes:
        view: The cache.
        whole: Layers whose sublayers' outputs are not what they add: shown whole, as the difference of the stream.
        entered: Whether the embeddings are read off the stream that enters layer 0, not off `hook_embed`.
        unsplit_attn: Layers whose heads do not add up to their attention's output: shown as that output.
        unsplit_mlp: Layers whose neurons do not add up to their MLP's output: shown as that output.
    """

    view: CacheView
    whole: frozenset[int] = field(default_factory=frozenset[int])
    entered: bool = False
    unsplit_attn: frozenset[int] = field(default_factory=frozenset[int])
    unsplit_mlp: frozenset[int] = field(default_factory=frozenset[int])

    def embeddings(self) -> Pieces:
        """What enters layer 0."""
        if self.entered:
            return {"embed": ("blocks.0.hook_resid_pre",)}
        names: Pieces = {"embed": ("hook_embed",)}
        # "Shortformer" positions are added to what heads look by, and never enter the stream.
        enters = getattr(self.view.cfg, "positional_embedding_type", None) != "shortformer"
        return names | {"pos_embed": ("hook_pos_embed",)} if enters and self.view.has("hook_pos_embed") else names

    def sublayers(self, layer: int) -> Pieces:
        """What a layer adds: attention (or what stands in its place) and MLP."""
        view, block = self.view, self.view.model.blocks[layer]
        pre, mid, post = (f"blocks.{layer}.hook_resid_{point}" for point in ("pre", "mid", "post"))
        if layer in self.whole:
            return {f"{layer}_layer_out": (post, pre)}
        attn_out, mlp_out = f"blocks.{layer}.hook_attn_out", f"blocks.{layer}.hook_mlp_out"
        mixes = not hasattr(block, "attn") and not view.has(attn_out)
        feeds = not getattr(view.cfg, "attn_only", False) and (hasattr(block, "mlp") or view.has(mid))
        if mixes and not feeds:
            return {f"{layer}_mixer_out": (post, pre)}
        names: Pieces = {f"{layer}_attn_out": (attn_out,)}
        if mixes:
            names = {f"{layer}_mixer_out": (mid, pre) if view.has(mid) else (post, pre, mlp_out)}
        if feeds:
            names[f"{layer}_mlp_out"] = (mlp_out,) if hasattr(block, "mlp") or view.has(mlp_out) else (post, mid)
        return names

    def splits_attention(self, layer: int) -> bool:
        """Whether the rows of this layer can be its heads."""
        return layer not in self.whole | self.unsplit_attn and out_weight(self.view, layer) is not None

    def splits_mlp(self, layer: int) -> bool:
        """Whether the rows of this layer can be its neurons."""
        return layer not in self.whole | self.unsplit_mlp and neuron_weight(self.view, layer) is not None

    def notes(self) -> list[str]:
        """What is not as in most models, in sentences."""
        said: list[str] = []
        if self.entered:
            said.append(
                "The row `embed` is all that enters layer 0 (`blocks.0.hook_resid_pre`): this model changes "
                "`hook_embed` before that, or adds more to it."
            )
        if self.whole:
            said.append(
                f"In {named_layers(self.whole)} the outputs of attention and MLP in the cache are not what is added to "
                "the stream (the model scales them, or adds something else): `…_layer_out` is the layer as a whole."
            )
        if self.unsplit_attn:
            said.append(
                f"In {named_layers(self.unsplit_attn)} the heads (z @ W_O) and the bias are not all of "
                "`hook_attn_out`, which is shown as a whole."
            )
        if self.unsplit_mlp:
            said.append(
                f"In {named_layers(self.unsplit_mlp)} the neurons (post @ W_out) and the bias are not all of "
                "`hook_mlp_out`, which is shown as a whole."
            )
        return said


def out_weight(view: CacheView, layer: int) -> Float[Tensor, "head d_head d_model"] | None:
    """The weights that heads write with; None where a layer has no heads."""
    attention = getattr(view.model.blocks[layer], "attn", None)
    with suppress(Exception):  # TransformerLens refuses it where layers differ in their number or width of heads
        W_O = tensor_of(getattr(attention, "W_O", None))
        if W_O is not None and W_O.ndim == 3:
            return W_O
    weight = tensor_of(getattr(getattr(attention, "o", None), "weight", None))  # [d_model, head · d_head]
    z = view.activations.get(f"blocks.{layer}.attn.hook_z")
    if weight is None or z is None or weight.shape[-1] != z.shape[-2] * z.shape[-1]:
        return None
    return weight.T.unflatten(0, tuple(z.shape[-2:]))


def neuron_weight(view: CacheView, layer: int) -> Float[Tensor, "d_mlp d_model"] | None:
    """The weights that neurons write with; None where an MLP is not one matrix of them (a mixture of experts)."""
    W_out = tensor_of(getattr(getattr(view.model.blocks[layer], "mlp", None), "W_out", None))
    return W_out if W_out is not None and W_out.ndim == 2 else None


def named_layers(layers: Iterable[int]) -> str:
    """Layers in words: "layer 3", "the layers 0, 1, 2", "the layers 0 to 29"."""
    ordered = sorted(layers)
    if len(ordered) == 1:
        return f"layer {ordered[0]}"
    if len(ordered) > 3 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"the layers {ordered[0]} to {ordered[-1]}"
    return f"the layers {', '.join(map(str, ordered))}"
