"""Computes contributions without Residscope, in float64: from each component's vector, the final norm and W_U."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch


class Norm(NamedTuple):
    divides: bool
    centres: bool
    weight: torch.Tensor
    bias: torch.Tensor


class Brute:
    """The contributions to answer − distractor at one position of a bridge's cache.

    Args:
        model: A bridge.
        cache: The bridge's cache.
        answers: Token ids `[batch, 2]`.
        position: The destination.
        scale: The factor by which the model multiplies its logits.
    """

    def __init__(self, model, cache, answers: torch.Tensor, position: int, scale: float = 1.0) -> None:
        self.model, self.cache, self.position = model, cache, position
        W_U = model.W_U.detach().double() * scale
        self.unembed = W_U[:, answers[:, 0]].T - W_U[:, answers[:, 1]].T  # [batch, d_model]
        self.final = self.norm(model.ln_final)
        self.constant = (self.final.bias * self.unembed).sum(-1)
        b_U = getattr(model, "b_U", None)
        if b_U is not None:
            b_U = b_U.detach().double() * scale
            self.constant = self.constant + b_U[answers[:, 0]] - b_U[answers[:, 1]]

    def at(self, name: str) -> torch.Tensor:
        return self.cache[name][:, self.position].double()

    def norm(self, module) -> Norm:
        """Determine what a norm does from the outputs of its `forward`."""
        module = copy.deepcopy(module.original_component).double()
        x = torch.randn(self.unembed.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e4
        with torch.no_grad():
            normal, negated, doubled, shifted = (module(v) for v in (x, -x, 2 * x, x + 1e4))
        if torch.allclose(doubled, 2 * normal, rtol=1e-5, atol=1e-3):  # no division: the module is no norm
            return Norm(False, False, torch.ones_like(x), torch.zeros_like(x))
        centres, bias = torch.allclose(shifted, normal, rtol=1e-4, atol=1e-4), (normal + negated) / 2
        x = x - x.mean() if centres else x
        return Norm(True, centres, (normal - bias) / (x / x.pow(2).mean().sqrt()), bias)

    def contribution(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the contribution of a vector in the stream, for each prompt."""
        return (self.through(self.final, "ln_final.hook_scale", vector) * self.unembed).sum(-1)

    def through(self, norm: Norm, scale: str, vector: torch.Tensor) -> torch.Tensor:
        """Return a norm's output for a vector, with its cached scale and without its bias."""
        vector = vector.double()
        vector = vector - vector.mean(-1, keepdim=True) if norm.centres else vector
        return (vector / self.at(scale) if norm.divides else vector) * norm.weight

    def written(self, layer: int, output_norm: str, vector: torch.Tensor) -> torch.Tensor:
        """Return the vector that is added to the stream for one part (`vector`) of a sublayer's output."""
        vector = vector.double() * getattr(self.model.cfg, "residual_multiplier", 1.0)
        module = getattr(self.model.blocks[layer], output_norm, None)
        if module is None:
            return vector
        # The block normalises the sublayer's output, so each part is divided by the scale of the whole output.
        return self.through(self.norm(module), f"blocks.{layer}.{output_norm}.hook_scale", vector)

    def rows(self) -> dict[str, torch.Tensor]:
        """Return the contribution of each component, `[batch]`."""
        rows = {}
        for layer in range(self.model.cfg.n_layers):
            z = self.at(f"blocks.{layer}.attn.hook_z")
            W_O = self.model.blocks[layer].attn.W_O.detach().double()
            b_O = getattr(self.model.blocks[layer].attn, "b_O", None)
            zero = torch.zeros(W_O.shape[-1], dtype=torch.float64)
            parts = {f"L{layer}H{h}": z[:, h] @ W_O[h] for h in range(W_O.shape[0])}
            parts[f"{layer}_attn_bias"] = (zero if b_O is None else b_O.detach().double()).expand(z.shape[0], -1)
            rows |= {name: self.contribution(self.written(layer, "ln1_post", part)) for name, part in parts.items()}
            for part in ("attn_out", "mlp_out")[: 1 if getattr(self.model.cfg, "attn_only", False) else 2]:
                rows[f"{layer}_{part}"] = self.contribution(self.at(f"blocks.{layer}.hook_{part}"))
        for part in ("embed", "pos_embed"):
            if f"hook_{part}" in self.cache:
                rows[part] = self.contribution(self.at(f"hook_{part}"))
        return rows


def logit_scale(logits: torch.Tensor, cache) -> float:
    """Return the factor by which the model multiplies its logits, found from its output. 1 if it caps the logits."""
    written = cache["unembed.hook_out"]
    ratio = float((logits * written).sum() / written.pow(2).sum())
    return ratio if torch.allclose(logits, written * ratio, atol=1e-5, rtol=1e-4) else 1.0
