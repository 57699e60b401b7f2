"""Normalisation layers: their parameters, read from the modules, and the scales by which they divide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from residscope.cache.linear_maps import layer_output, output_and_hooked
from residscope.cache.view import CacheView
from residscope.cache.weights import parameter
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """The parameters of one normalisation layer.

    Attributes:
        centres: Whether it subtracts the mean (LayerNorm) or not (RMSNorm).
        weight: The weight. None if it is folded into the next layer, or absent.
        bias: The bias. None if it is folded into the next layer, or absent.
        eps: The constant that is added under the square root.
        divides: Whether the module is a norm at all. Some models have an identity module instead of a norm.
    """

    centres: bool
    weight: Float[Tensor, " d_model"] | None
    bias: Float[Tensor, " d_model"] | None
    eps: float
    divides: bool = True

    @classmethod
    def of(cls, module: object, view: CacheView) -> Norm:
        """Read a norm's parameters from its module (a bridge's `weight`, `bias`; a `HookedTransformer`'s `w`, `b`)."""
        from torch.nn import Identity

        inner = getattr(module, "original_component", module)
        if inner is None or isinstance(inner, Identity):
            return cls(False, None, None, 0.0, divides=False)
        cfg, like = view.cfg, view.like
        weight = parameter(module, like, "weight", "w")
        if weight is not None and getattr(module, "uses_weight_offset", getattr(cfg, "rmsnorm_uses_offset", False)):
            weight = 1 + weight
        known = (
            getattr(owner, name, None) for owner, name in ((inner, "variance_epsilon"), (inner, "eps"), (cfg, "eps"))
        )
        eps = next((float(value) for value in known if isinstance(value, int | float)), 1e-5)
        return cls(_centres(module, view), weight, parameter(module, like, "bias", "b"), eps)

    def centre(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return `x` minus its mean for LayerNorm, `x` itself for RMSNorm."""
        return x - x.mean(-1, keepdim=True) if self.centres else x

    def weighted(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """Return centred and scaled vectors times the weight, plus the bias."""
        x = x if self.weight is None else x * self.weight
        return x if self.bias is None else x + self.bias

    def scale(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, " ..."]:
        """Return the scale that this norm divides `x` by."""
        if not self.divides:
            return x.new_ones(x.shape[:-1])
        return (self.centre(x).pow(2).mean(-1) + self.eps).sqrt()


def _centres(module: object, view: CacheView) -> bool:
    """Whether a norm subtracts the mean. A bridge says so for each norm, a `HookedTransformer` in its configuration."""
    known = getattr(module, "uses_rms_norm", None)
    if known is not None:
        return not known
    last_is_rms = module is getattr(view.model, "ln_final", None) and getattr(view.cfg, "final_rms", False)
    return str(getattr(view.cfg, "normalization_type", None) or "").upper().startswith("LN") and not last_is_rms


def output_norm(view: CacheView, layer: int, part: Literal["attn", "mlp"], *, behind: bool) -> str | None:
    """Return the name of the norm between a sublayer's output and the stream. None if there is none.

    Args:
        view: The cache.
        layer: The layer.
        part: The sublayer.
        behind: Whether `ln1` and `ln2` normalise the outputs of the sublayers (`norms_outputs`).
    """
    block = view.model.blocks[layer]
    before, after = ("ln1", "ln1_post") if part == "attn" else ("ln2", "ln2_post")
    if hasattr(block, after):
        return after
    return before if behind and hasattr(block, before) else None


def norms_outputs(view: CacheView) -> bool:
    """Return whether `ln1` and `ln2` normalise the outputs of the sublayers, as in some versions of TransformerLens.

    The answer is memoised with the cache.

    The evidence, in this order: the modules' names; whether the input of `ln1` is the stream; whether the output of
    `ln1` is what was added to the stream.

    Raises:
        ResidscopeError: If a cache in float8 is too coarse to decide.
    """
    return view.memo.once(("norms outputs",), lambda: (_norms_outputs(view),))[0]


def _norms_outputs(view: CacheView) -> bool:
    block = view.model.blocks[0]
    if hasattr(block, "ln1_post") or not hasattr(block, "ln1"):
        return False
    place = str(getattr(block.ln1, "name", None) or "")
    if place.startswith("input_") or "post_att" in place or ".output." in place:
        return not place.startswith("input_")
    read, stream = (view.activations.get(f"blocks.0.{name}") for name in ("ln1.hook_in", "hook_resid_pre"))
    if read is not None and stream is not None and read.shape == stream.shape and read.dtype == stream.dtype:
        same = working(read.detach()[-1]) == working(stream.detach()[-1])
        if bool(same.all()):
            return False
    known = [f"blocks.0.{name}" for name in ("ln1.hook_normalized", "hook_attn_out")]
    if not all(map(view.has, known)):
        return False
    # If the norm comes after attention, the norm's output is what is added to the stream.
    normalized, added = (working(view.get(name)[0, -1]) for name in known)
    if normalized.shape != added.shape:
        return False
    is_output, weighted = normalized_is_output(block.ln1, view), Norm.of(block.ln1, view).weighted(normalized)
    outputs = [weighted, normalized] if is_output is None else [normalized if is_output else weighted]
    error = min(float((output - added).abs().max() / output.abs().max().clamp(min=1e-30)) for output in outputs)
    tolerance = 8 * view.rounding_step(*known)
    if tolerance > _MOST_TOLERANCE and error <= tolerance:
        raise ResidscopeError(
            "precision",
            "This cache is too coarse (float8) to determine whether the norms of this model's layers come before "
            "or after attention: also cache `blocks.0.ln1.hook_in` and `blocks.0.hook_resid_pre`, or cache in a finer "
            "precision.",
        )
    return error <= tolerance


_MOST_TOLERANCE = 0.1
"""With a larger relative tolerance, outputs that agree show nothing."""


def normalized_is_output(module: object, view: CacheView) -> bool | None:
    """Return whether a norm's `hook_normalized` holds the norm's output. If not, weight and bias come after the hook.

    In a bridge, and for RMSNorm, they come after the hook. For LayerNorm of a `HookedTransformer`, they come before it
    in version 2 of TransformerLens, and after it in version 3. A call of a copy of the norm shows this.

    Returns:
        None if the norm cannot be called.
    """
    import torch

    if hasattr(module, "original_component") or not hasattr(module, "hook_normalized"):
        return False
    norm = Norm.of(module, view)
    if norm.weight is None and norm.bias is None:
        return True
    generator = torch.Generator(device="cpu").manual_seed(0)
    rows = torch.randn(4, int(view.cfg.d_model), generator=generator, device="cpu").to(view.like)
    try:
        output, normalized = (
            working(x).to(view.like) for x in output_and_hooked(module, view, rows, "hook_normalized")
        )
    except ResidscopeError:
        return None
    return bool((normalized - output).norm() <= (norm.weighted(normalized) - output).norm())


def odd_final_norm(view: CacheView) -> list[str]:
    """Return a note if the final norm's output is not what its parameters give.

    The norm is called with vectors of the final stream, or with random vectors if the stream was not cached.
    """
    run = view.root
    return list(run.memo.once(("final norm",), lambda: tuple(_odd_final_norm(run))))


def _odd_final_norm(view: CacheView) -> list[str]:
    import torch

    module = getattr(view.model, "ln_final", None)
    layer = getattr(module, "original_component", None)
    # A bridge either calls the wrapped layer, or computes the norm from the parameters, as `Norm` does.
    computes_itself = not getattr(module, "use_native_layernorm_autograd", True) and not getattr(
        getattr(module, "config", None), "layer_norm_folding", False
    )
    if layer is None or computes_itself or isinstance(layer, torch.nn.Identity | torch.nn.LayerNorm):
        return []
    norm, width = Norm.of(module, view), int(view.cfg.d_model)
    stream = view.activations.get(f"blocks.{view.n_layers - 1}.hook_resid_post")
    generator = torch.Generator(device="cpu").manual_seed(0)
    rows = torch.randn(64, width, generator=generator, device="cpu").to(view.like)
    if stream is not None and stream.shape[-1] == width:
        flat = stream.detach().reshape(-1, width)
        some = working(flat[:: max(1, len(flat) // 64)])
        finite = some[some.isfinite().all(-1)]  # NaN shows nothing about the norm
        rows = finite if len(finite) else rows
    try:
        output = layer_output(module, view, rows)
    except ResidscopeError:  # for example a norm that needs further inputs
        return []
    expected = norm.weighted(norm.centre(rows) / norm.scale(rows)[:, None])
    if output.shape != expected.shape:
        return []
    error = float((working(output).to(expected) - expected).norm() / expected.norm().clamp(min=1e-30))
    if error <= 2**-6:
        return []
    return [
        f"The output of the final norm (`ln_final`, `{type(layer).__name__}`) is not what its weight, bias and scale "
        f"give: it differs by {error:.2g} in relative terms. Residscope ignores this difference."
    ]
