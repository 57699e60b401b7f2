"""Normalisation layers: their parameters, read off the module, and the figures they divide by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .cache import CacheView

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """The parameters of one normalisation layer; `weight` and `bias` are None where they are folded away or absent."""

    centres: bool
    weight: Float[Tensor, " d_model"] | None
    bias: Float[Tensor, " d_model"] | None
    eps: float

    @classmethod
    def of(cls, module: Any, view: CacheView) -> Norm:
        """Read a norm off its module (a bridge's `weight`, `bias`; a `HookedTransformer`'s `w`, `b`)."""
        cfg, like = view.cfg, view.like
        weight = parameter(module, like, "weight", "w")
        if weight is not None and getattr(cfg, "rmsnorm_uses_offset", False):
            weight = 1 + weight
        centres = str(getattr(cfg, "normalization_type", None) or "").upper().startswith("LN")
        return cls(centres, weight, parameter(module, like, "bias", "b"), float(getattr(cfg, "eps", 1e-5)))

    def centre(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        """`x` less its mean, for LayerNorm; RMSNorm leaves it."""
        return x - x.mean(-1, keepdim=True) if self.centres else x

    def scale(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, " ..."]:
        """What this norm divides `x` by."""
        return (self.centre(x).pow(2).mean(-1) + self.eps).sqrt()


def parameter(module: Any, like: Tensor, *names: str) -> Tensor | None:
    """The first of the named parameters that the module has, detached, on the device and in the precision of `like`."""
    found = next((t for t in (tensor_of(getattr(module, name, None)) for name in names) if t is not None), None)
    return None if found is None else found.to(like)


def tensor_of(value: Any) -> Tensor | None:
    """The tensor that a module's attribute is, detached; None where it is none."""
    return value.detach() if hasattr(value, "detach") else None
