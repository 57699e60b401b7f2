"""How a residual vector becomes a logit in this model: final norm, centring, cached scale, unembedding.

With its scale held at the cached value a norm is affine, y = (x − centre(x)) / s ⊙ w + c, so a direction at its output
can be pulled back to its input: g = w ⊙ u, centred for LayerNorm, and x is worth x · g / s. The same pull-back serves
the norms that some blocks apply to their own output before they add it to the stream (Gemma 2, OLMo 2, …).
See "A Mathematical Framework for Transformer Circuits" and TransformerLens' `ActivationCache.apply_ln_to_stack`, which
leaves out w (it expects it folded into W_U) and for which this is the general form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from .cache import CacheView
from .norms import Norm, norms_outputs, output_norm
from .structure import Structure, output_factor

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Functional:
    """A linear functional of residual vectors: r at (batch, pos) is worth r · vector / divisor, plus `constant` once.

    Attributes:
        vector: The direction of each prompt.
        divisor: The frozen scale of each prompt and position.
        constant: What the biases met on the way add, in logits.
    """

    vector: Float[Tensor, "batch d_model"]
    divisor: Float[Tensor, "batch pos"]
    constant: Float[Tensor, "batch pos"]

    def __call__(self, rows: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """The worth of residual vectors, in logits (without the constant)."""
        return (rows @ self.vector.unsqueeze(-1)).squeeze(-1) / self.divisor

    def through(self, norm: Norm, scale: Float[Tensor, "batch pos"]) -> Functional:
        """The same functional before `norm` with its scale frozen; its bias becomes part of the constant."""
        vector = self.vector if norm.weight is None else self.vector * norm.weight
        constant = self.constant
        if norm.bias is not None:
            constant = constant + (self.vector @ norm.bias)[:, None] / self.divisor
        return Functional(norm.centre(vector), self.divisor * scale, constant)


class Readout:
    """The way from the final residual stream to the target, at the wanted positions.

    Args:
        view: The cache.
        positions: One position per prompt, or None for every position.
        directions: The target's functional of the final norm's output, u.
        offset: What the unembedding's bias adds to the target, β.
    """

    def __init__(
        self,
        view: CacheView,
        positions: Int[Tensor, " batch"] | None,
        directions: Float[Tensor, "batch d_model"],
        offset: Float[Tensor, " batch"],
    ) -> None:
        self.view, self.positions = view, positions
        self.structure = Structure(view)  # as most models are; what the cache shows otherwise is found in `fit`
        self.directions, self.offset = directions, offset
        self.norm = Norm.of(getattr(view.model, "ln_final", None), view)
        scale = final_scale(view, self.norm, positions)
        at_output = Functional(directions, scale.new_ones(scale.shape), offset[:, None].expand_as(scale))
        self.functional = at_output.through(self.norm, scale)

    def writer(self, layer: int, part: Literal["attn", "mlp"]) -> Functional:
        """The functional for what a sublayer of `layer` computes, before its way into the residual stream.

        On that way some models normalise it (Gemma 2, OLMo 2, …) or multiply it (Granite's residual multiplier).
        """
        factor = float(getattr(self.view.cfg, "residual_multiplier", None) or 1.0)
        factor *= self.structure.carries[layer] * output_factor(self.view, layer, part)
        stream = Functional(self.functional.vector * factor, self.functional.divisor, self.functional.divisor * 0)
        name = self.output_norm(layer, part)
        norm = None if name is None else Norm.of(getattr(self.view.model.blocks[layer], name), self.view)
        if norm is None or not norm.divides:
            return stream
        where = f"blocks.{layer}.{name}"
        if not self.view.has(f"{where}.hook_scale") and self.view.has(f"{where}.hook_in"):
            return stream.through(norm, norm.scale(self.view.rows(f"{where}.hook_in", self.positions)))
        return stream.through(norm, self.view.rows(f"{where}.hook_scale", self.positions).squeeze(-1))

    def output_norm(self, layer: int, part: Literal["attn", "mlp"]) -> str | None:
        """The norm that a sublayer's output passes before it is added, by its name in the block."""
        return output_norm(self.view, layer, part, behind=self.norms_outputs)

    @cached_property
    def norms_outputs(self) -> bool:
        """Whether `ln1` and `ln2` stand behind the sublayers."""
        return norms_outputs(self.view)

    def recomputed(self, rows: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """The worth of residual vectors when the norm is computed afresh from each: what the model would say there."""
        return (rows @ self.functional.vector.unsqueeze(-1)).squeeze(-1) / self.norm.scale(rows)


def final_scale(view: CacheView, norm: Norm, positions: Int[Tensor, " batch"] | None) -> Float[Tensor, "batch pos"]:
    """The final norm's cached scale; where it was not cached, the same figure from the final residual stream."""
    if not norm.divides:  # a model built without normalisation
        return view.like.new_ones(view.batch, view.n_pos if positions is None else 1)
    if view.has("ln_final.hook_scale"):
        return view.rows("ln_final.hook_scale", positions).squeeze(-1)
    name = f"blocks.{view.n_layers - 1}.hook_resid_post"
    if not view.has(name):
        view.get("ln_final.hook_scale")  # raises with the sentence that names it
    return norm.scale(view.rows(name, positions))
