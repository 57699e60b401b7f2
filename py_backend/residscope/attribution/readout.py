"""How a residual vector contributes to a target: norm, centring, cached scale, and the target's direction.

A target is an affine functional of what is read at a point of the stream. For logits, the point is the end of the
stream, read through the final norm and the unembedding. For a neuron, a head or a direction, it is an earlier point.

A norm with a frozen scale s is affine: y = (x − mean(x)) / s ⊙ w + c. (RMSNorm does not subtract the mean.) So a
direction u at the norm's output can be pulled back to the input: g = w ⊙ u, centred for LayerNorm. Then x contributes
x · g / s. The same pull-back works for norms between a sublayer's output and the stream (Gemma 2, OLMo 2, …).
See "A Mathematical Framework for Transformer Circuits" and TransformerLens' `ActivationCache.apply_ln_to_stack`. That
method leaves out w, because it expects w to be folded into W_U. Here w is included.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from residscope.attribution.rounding import SMALLEST
from residscope.cache.norms import Norm, norms_outputs, output_norm
from residscope.cache.points import FINAL, Point
from residscope.cache.structure import Structure, embeds_otherwise, output_factor
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.compute.projection import Repeats, distinct, dots, lengths, repeats

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Functional:
    """An affine functional of the stream: r at (batch, pos) contributes r · vector / divisor. Add `constant` once.

    Attributes:
        vector: The direction of each prompt.
        divisor: The frozen scale at each prompt and position.
        constant: The contribution of the biases between the stream and the target.
    """

    vector: Float[Tensor, "batch d_model"]
    divisor: Float[Tensor, "batch pos"]
    constant: Float[Tensor, "batch pos"]

    def __call__(self, rows: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """Return the contributions of residual vectors, without the constant."""
        return dots(rows, self.vector) / self.divisor

    def through(self, norm: Norm, scale: Float[Tensor, "batch pos"]) -> Functional:
        """Return this functional at the input of `norm` with a frozen scale. The norm's bias adds to the constant."""
        vector, constant = distinct(self.vector), self.constant
        if norm.bias is not None:
            constant = constant + (vector @ norm.bias)[:, None] / self.divisor
        vector = norm.centre(vector if norm.weight is None else vector * norm.weight)
        return Functional(vector.expand(self.vector.shape), self.divisor * scale, constant)


@dataclass(frozen=True)
class OutputPath:
    """The steps between a sublayer's output and the stream.

    Attributes:
        factor: A constant factor.
        norm: The norm, with its cached scale. None without a norm.
    """

    factor: float
    norm: tuple[Norm, Float[Tensor, "batch pos"]] | None

    def pull(self, functional: Functional) -> Functional:
        """Pull a functional of the stream back to the sublayer's output.

        The constant of the result contains only the contribution of the norm's bias, not the functional's own constant.
        """
        vector = functional.vector
        if self.factor != 1:
            vector = (distinct(vector) * self.factor).expand(vector.shape)
        divisor = functional.divisor
        before = Functional(vector, divisor, divisor.new_zeros(divisor.shape))
        return before if self.norm is None else before.through(*self.norm)

    def push(self, vectors: Float[Tensor, "component batch d_model"]) -> Float[Tensor, "component batch d_model"]:
        """Return what output vectors add to the stream, at one position of each prompt, without the norm's bias."""
        vectors = vectors if self.factor == 1 else vectors * self.factor
        if self.norm is None:
            return vectors
        norm, scale = self.norm
        vectors = norm.centre(vectors) / scale
        return vectors if norm.weight is None else vectors * norm.weight


class OutputParameters(NamedTuple):
    """The parameters of an output path that depend only on the model, not on the cache or the target's point.

    Attributes:
        factor: A constant factor of the model.
        name: The name of the norm in the block. None without a norm.
        norm: The norm's parameters.
    """

    factor: float
    name: str | None
    norm: Norm | None


class Readout:
    """Reads the target from the residual stream at a point, at the wanted positions.

    Args:
        view: The cache.
        positions: One position per prompt, or None for every position.
        directions: u, the direction of the target at the output of the point's norm.
        offset: The number β that is added to the target, such as the unembedding's bias: for each prompt, or for each
            prompt and each position that is read.
        frozen: Whether the norm's scale is frozen at its cached value. If not, the divisor of `functional` leaves
            out this scale, and `recomputed` divides by a scale that it computes from each vector.
        point: The point of the stream, and its norm.
        weights: The number by which u is multiplied, for each prompt and position that is read. None: 1.
        measured_in: The activations that hold the target's value. None: the logits.
        floor: Differences up to this between the sum of the rows and the model's value are not reported. If 0, the
            limit is a share of the summed numbers (see `rounding`).
    """

    def __init__(
        self,
        view: CacheView,
        positions: Int[Tensor, " batch"] | None,
        directions: Float[Tensor, "batch d_model"],
        offset: Float[Tensor, " batch *read"],
        *,
        frozen: bool = True,
        point: Point = FINAL,
        weights: Float[Tensor, "batch read"] | None = None,
        measured_in: tuple[str, ...] | None = None,
        floor: float = SMALLEST,
    ) -> None:
        self.view, self.positions, self.point, self.measured_in = view, positions, point, measured_in
        self.floor = floor
        # This is the structure of most models. If the cache differs, `reconcile` corrects it.
        self.structure = Structure(view, entered=embeds_otherwise(view), point=point.place)
        self.directions, self.offset = directions, offset
        self.norm = point.parameters(view)
        count = view.n_pos if positions is None else 1
        self._scale = point.scale(view, self.norm, positions) if frozen else view.like.new_ones(view.batch, count)
        ones = self._scale.new_ones(self._scale.shape)
        added = (offset if offset.ndim == 2 else offset[:, None]).expand_as(ones)
        at_output = Functional(directions, ones if weights is None else 1 / weights, added)
        self.functional = at_output.through(self.norm, self._scale)

    def by(self, functional: Functional) -> Readout:
        """Return a readout that reads this run's rows by another functional, such as that of another run."""
        other = copy(self)
        for of_this_functional in ("products", "repeats", "_each_once"):
            other.__dict__.pop(of_this_functional, None)
        other.functional = functional
        return other

    def output_path(self, layer: int, part: Literal["attn", "mlp"]) -> OutputPath:
        """Return the output path of a sublayer.

        Some models normalise the output (Gemma 2, OLMo 2, …) or multiply it (Granite's residual multiplier).
        """
        view, (factor, name, norm) = self.view, self.output_parameters(layer, part)
        factor *= self.structure.carries[layer]
        if norm is None or not norm.divides:
            return OutputPath(factor, None)
        prefix = f"blocks.{layer}.{name}"
        if not view.has(f"{prefix}.hook_scale") and view.has(f"{prefix}.hook_in"):
            return OutputPath(factor, (norm, norm.scale(view.rows(f"{prefix}.hook_in", self.positions))))
        return OutputPath(factor, (norm, view.rows(f"{prefix}.hook_scale", self.positions).squeeze(-1)))

    def output_parameters(self, layer: int, part: Literal["attn", "mlp"]) -> OutputParameters:
        """Return the parameters of a sublayer's output path, read from the model's modules."""
        view, behind = self.view, norms_outputs(self.view)

        def read() -> OutputParameters:
            factor = float(getattr(view.cfg, "residual_multiplier", None) or 1.0) * output_factor(view, layer, part)
            name = output_norm(view, layer, part, behind=behind)
            norm = None if name is None else Norm.of(getattr(view.model.blocks[layer], name), view)
            return OutputParameters(factor, name, norm)

        like = view.like
        return view.facts.once(("output parameters", layer, part, behind, like.dtype, like.device), read)

    @property
    def stream(self) -> str:
        """The name of the stream's activation at the target's point."""
        return self.point.stream(self.view)

    @cached_property
    def products(self) -> Float[Tensor, ""]:
        """`products_at` for the stream at the target's point.

        If this stream was not cached, each of its coordinates is assumed to be as large as the norm's scale.
        """
        if self.view.has(self.stream):
            return self.products_at(self.stream)
        length = distinct(self.functional.vector).norm(dim=-1)
        weights = (self._scale / self.functional.divisor).abs().amax(-1)
        return (length * weights).max()

    def products_at(self, name: str) -> Float[Tensor, ""]:
        """Return the largest length of x ⊙ g / s over the vectors x of an activation.

        The coordinates of x ⊙ g / s sum to the contribution of x, so its rounding grows with this length.
        """
        products = lengths(self.view.raw(name, self.positions), self.functional.vector)
        return (products / self.functional.divisor).abs().max()

    @cached_property
    def repeats(self) -> Repeats | None:
        """Which prompts have equal directions, here and therefore at each sublayer's output.

        None if grouping these prompts would save nothing (see `projection.repeats`).
        """
        return repeats(self.functional.vector)

    def each_once(self, vector: Float[Tensor, "batch d_model"]) -> Float[Tensor, "some d_model"]:
        """Return each different direction once: `distinct`, or the first of those in `repeats`.

        Args:
            vector: The directions at the target's point, or at a sublayer's output. Often these are the same tensor.
        """
        if self.repeats is None:
            return distinct(vector)
        return self._each_once if vector is self.functional.vector else vector.index_select(0, self.repeats.first)

    @cached_property
    def _each_once(self) -> Float[Tensor, "some d_model"]:
        assert self.repeats is not None
        return self.functional.vector.index_select(0, self.repeats.first)

    def writer(self, layer: int, part: Literal["attn", "mlp"]) -> Functional:
        """Return the functional of a sublayer's output, before the output path."""
        return self.output_path(layer, part).pull(self.functional)

    def recomputed(self, rows: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """Return the contributions of residual vectors. The norm's scale is computed from each vector."""
        return dots(rows, self.functional.vector) / (self.norm.scale(working(rows)) * self.functional.divisor)
