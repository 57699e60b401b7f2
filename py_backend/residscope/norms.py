"""Normalisation layers: their parameters, read off the module, and the figures they divide by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .applied import figures
from .cache import CacheView, working

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
    """Whether `ln1` and `ln2` stand behind the sublayers: some versions of TransformerLens name output norms so."""
    block = view.model.blocks[0]
    known = [f"blocks.0.{name}" for name in ("ln1.hook_normalized", "hook_attn_out")]
    if hasattr(block, "ln1_post") or not hasattr(block, "ln1") or not all(map(view.has, known)):
        return False
    # Behind attention, what the norm gives is what is added to the stream.
    normalized, added = (working(view.get(name)[0, -1]) for name in known)
    norm = Norm.of(block.ln1, view)
    given = normalized if norm.weight is None else normalized * norm.weight
    given = given if norm.bias is None else given + norm.bias
    near = view.rounding_step(*known) * 8 * given.abs().max()
    return given.shape == added.shape and bool(((given - added).abs() <= near).all())


def parameter(module: Any, like: Tensor, *names: str) -> Tensor | None:
    """The first of the named parameters that the module has, detached, on the device and in the precision of `like`."""
    for name in names:
        found = tensor_of(getattr(module, name, None))
        if found is not None:
            return figures(module, name, found).to(like)
    return None


def weight_of(model: Any, part: str, name: str) -> Tensor | None:
    """A weight that the model names itself, or one of its parts does: `model.W_U`, `model.unembed.W_U`."""
    owners = (model, getattr(model, part, None))
    return next((t for t in (tensor_of(getattr(owner, name, None)) for owner in owners) if t is not None), None)


def tensor_of(value: Any) -> Tensor | None:
    """The tensor that a module's attribute is, detached; None where it is none."""
    return value.detach() if hasattr(value, "detach") else None
