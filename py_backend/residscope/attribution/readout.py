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

from residscope.cache.norms import Norm, norms_outputs, output_norm
from residscope.cache.structure import Structure, output_factor
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.compute.projection import distinct, dots

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
        return dots(rows, self.vector) / self.divisor

    def through(self, norm: Norm, scale: Float[Tensor, "batch pos"]) -> Functional:
        """The same functional before `norm` with its scale frozen; its bias becomes part of the constant."""
        vector, constant = distinct(self.vector), self.constant
        if norm.bias is not None:
            constant = constant + (vector @ norm.bias)[:, None] / self.divisor
        vector = norm.centre(vector if norm.weight is None else vector * norm.weight)
        return Functional(vector.expand(self.vector.shape), self.divisor * scale, constant)


@dataclass(frozen=True)
class Way:
    """What becomes of a sublayer's output before it is added to the stream, as the cache shows it.

    Attributes:
        factor: What it is multiplied with.
        norm: The norm that it passes, with the scale that was cached.
    """

    factor: float
    norm: tuple[Norm, Float[Tensor, "batch pos"]] | None

    def pull(self, functional: Functional) -> Functional:
        """The functional of the stream, for what the sublayer computes; its constant is what the norm's bias adds."""
        vector = functional.vector
        if self.factor != 1:
            vector = (distinct(vector) * self.factor).expand(vector.shape)
        before = Functional(vector, functional.divisor, functional.divisor * 0)
        return before if self.norm is None else before.through(*self.norm)

    def push(self, vectors: Float[Tensor, "part batch d_model"]) -> Float[Tensor, "part batch d_model"]:
        """What becomes of vectors, at one position of each prompt, but for the norm's bias."""
        vectors = vectors if self.factor == 1 else vectors * self.factor
        if self.norm is None:
            return vectors
        norm, scale = self.norm
        vectors = norm.centre(vectors) / scale
        return vectors if norm.weight is None else vectors * norm.weight


class Readout:
    """The way from the final residual stream to the target, at the wanted positions.

    Args:
        view: The cache.
        positions: One position per prompt, or None for every position.
        directions: The target's functional of the final norm's output, u.
        offset: What the unembedding's bias adds to the target, β.
        held: Whether the final norm's scale is held at its cached value; else `recomputed` has one for each vector, and
            `functional` has the direction and the constant alone.
    """

    def __init__(
        self,
        view: CacheView,
        positions: Int[Tensor, " batch"] | None,
        directions: Float[Tensor, "batch d_model"],
        offset: Float[Tensor, " batch"],
        *,
        held: bool = True,
    ) -> None:
        self.view, self.positions = view, positions
        self.structure = Structure(view)  # as most models are; what the cache shows otherwise is found in `reconcile`
        self.directions, self.offset = directions, offset
        self.norm = Norm.of(getattr(view.model, "ln_final", None), view)
        count = view.n_pos if positions is None else 1
        scale = final_scale(view, self.norm, positions) if held else view.like.new_ones(view.batch, count)
        at_output = Functional(directions, scale.new_ones(scale.shape), offset[:, None].expand_as(scale))
        self.functional = at_output.through(self.norm, scale)

    def way(self, layer: int, part: Literal["attn", "mlp"]) -> Way:
        """The way of a sublayer's output into the stream.

        Some models normalise it (Gemma 2, OLMo 2, …) or multiply it (Granite's residual multiplier).
        """
        view = self.view
        factor = float(getattr(view.cfg, "residual_multiplier", None) or 1.0)
        factor *= self.structure.carries[layer] * output_factor(view, layer, part)
        name = self.output_norm(layer, part)
        norm = None if name is None else Norm.of(getattr(view.model.blocks[layer], name), view)
        if norm is None or not norm.divides:
            return Way(factor, None)
        where = f"blocks.{layer}.{name}"
        if not view.has(f"{where}.hook_scale") and view.has(f"{where}.hook_in"):
            return Way(factor, (norm, norm.scale(view.rows(f"{where}.hook_in", self.positions))))
        return Way(factor, (norm, view.rows(f"{where}.hook_scale", self.positions).squeeze(-1)))

    def writer(self, layer: int, part: Literal["attn", "mlp"]) -> Functional:
        """The functional for what a sublayer of `layer` computes, before its way into the residual stream."""
        return self.way(layer, part).pull(self.functional)

    def output_norm(self, layer: int, part: Literal["attn", "mlp"]) -> str | None:
        """The norm that a sublayer's output passes before it is added, by its name in the block."""
        return output_norm(self.view, layer, part, behind=self.norms_outputs)

    @cached_property
    def norms_outputs(self) -> bool:
        """Whether `ln1` and `ln2` stand behind the sublayers."""
        return self.view.memo.once(("norms outputs",), lambda: (norms_outputs(self.view),))[0]

    def recomputed(self, rows: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """The worth of residual vectors when the norm is computed afresh from each: what the model would say there."""
        return dots(rows, self.functional.vector) / self.norm.scale(working(rows))


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
