"""Normalisation layers: their parameters, read off the module, and the figures they divide by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from residscope.cache.linear_maps import asked
from residscope.cache.view import CacheView
from residscope.cache.weights import parameter
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """The parameters of one normalisation layer; `weight` and `bias` are None where they are folded away or absent.

    Attributes:
        divides: Whether it is a norm at all; in some models the place is kept by a module that passes everything on.
    """

    centres: bool
    weight: Float[Tensor, " d_model"] | None
    bias: Float[Tensor, " d_model"] | None
    eps: float
    divides: bool = True

    @classmethod
    def of(cls, module: Any, view: CacheView) -> Norm:
        """Read a norm off its module (a bridge's `weight`, `bias`; a `HookedTransformer`'s `w`, `b`)."""
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
        """`x` less its mean, for LayerNorm; RMSNorm leaves it."""
        return x - x.mean(-1, keepdim=True) if self.centres else x

    def scale(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, " ..."]:
        """What this norm divides `x` by."""
        if not self.divides:
            return x.new_ones(x.shape[:-1])
        return (self.centre(x).pow(2).mean(-1) + self.eps).sqrt()


def _centres(module: Any, view: CacheView) -> bool:
    """Whether a norm takes the mean away first; a bridge knows it of each norm, older models of all but the last."""
    known = getattr(module, "uses_rms_norm", None)
    if known is not None:
        return not known
    last_is_rms = module is getattr(view.model, "ln_final", None) and getattr(view.cfg, "final_rms", False)
    return str(getattr(view.cfg, "normalization_type", None) or "").upper().startswith("LN") and not last_is_rms


def output_norm(view: CacheView, layer: int, part: Literal["attn", "mlp"], *, behind: bool) -> str | None:
    """The norm that a sublayer's output passes before it is added, by its name in the block.

    Args:
        view: The cache.
        layer: The layer.
        part: The sublayer.
        behind: Whether `ln1` and `ln2` stand behind the sublayers (`norms_outputs`).
    """
    block = view.model.blocks[layer]
    before, after = ("ln1", "ln1_post") if part == "attn" else ("ln2", "ln2_post")
    if hasattr(block, after):
        return after
    return before if behind and hasattr(block, before) else None


def norms_outputs(view: CacheView) -> bool:
    """Whether `ln1` and `ln2` stand behind the sublayers: some versions of TransformerLens name output norms so.

    The modules' names tell; else what `ln1` read, which before attention is the stream itself; else what was added.

    Raises:
        ResidscopeError: If only figures in float8 could tell.
    """
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
    # Behind attention, what the norm gives is what is added to the stream.
    normalized, added = (working(view.get(name)[0, -1]) for name in known)
    norm = Norm.of(block.ln1, view)
    given = normalized if norm.weight is None else normalized * norm.weight
    given = given if norm.bias is None else given + norm.bias
    if given.shape != added.shape:
        return False
    off = float((given - added).abs().max() / given.abs().max().clamp(min=1e-30))
    near = 8 * view.rounding_step(*known)
    if near > _NEAR and off <= near:
        raise ResidscopeError(
            "precision",
            "This cache is too coarse (float8) to tell whether the norms of this model's layers stand before attention "
            "or behind it: cache `blocks.0.ln1.hook_in` and `blocks.0.hook_resid_pre`, too, or in a finer precision.",
        )
    return off <= near


_NEAR = 0.1
"""What is off by more is not nearly the same."""


def odd_final_norm(view: CacheView) -> list[str]:
    """A note, where the final norm does not do what its parameters say, on a trial with the end of the stream."""
    run = view.root
    return list(run.memo.once(("final norm",), lambda: tuple(_odd_final_norm(run))))


def _odd_final_norm(view: CacheView) -> list[str]:
    import torch

    module = getattr(view.model, "ln_final", None)
    layer = getattr(module, "original_component", None)
    # A bridge asks the layer that it stands for, or computes by itself what is computed here.
    own = not getattr(module, "use_native_layernorm_autograd", True) and not getattr(
        getattr(module, "config", None), "layer_norm_folding", False
    )
    if layer is None or own or isinstance(layer, torch.nn.Identity | torch.nn.LayerNorm):
        return []
    norm, width = Norm.of(module, view), int(view.cfg.d_model)
    stream = view.activations.get(f"blocks.{view.n_layers - 1}.hook_resid_post")
    generator = torch.Generator(device="cpu").manual_seed(0)
    rows = torch.randn(64, width, generator=generator, device="cpu").to(view.like)
    if stream is not None and stream.shape[-1] == width:
        flat = working(stream.detach()).reshape(-1, width)
        rows = flat[:: max(1, len(flat) // 64)]
    try:
        given = asked(module, view, rows)
    except ResidscopeError:  # it takes more than vectors
        return []
    expected = norm.centre(rows) / norm.scale(rows)[:, None]
    expected = expected if norm.weight is None else expected * norm.weight
    expected = expected if norm.bias is None else expected + norm.bias
    if given.shape != expected.shape:
        return []
    off = float((working(given).to(expected) - expected).norm() / expected.norm().clamp(min=1e-30))
    if off <= 2**-6:
        return []
    return [
        f"The final norm (`ln_final`, `{type(layer).__name__}`) does more than its weight, bias and scale say: on a "
        f"trial its output was off by {off:.2g} of that. What follows it is computed as if it did not."
    ]
