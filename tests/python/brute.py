"""An independent brute force in float64: every component as a whole vector, the norm applied to it as it is defined."""

from __future__ import annotations

import torch


class Brute:
    """One position of a bridge's cache, for answer − distractor, from vectors with a d_model axis.

    Args:
        model: A bridge.
        cache: Its cache.
        answers: Token ids `[batch, 2]`.
        position: The destination.
        scale: What the model multiplies its logits by.
    """

    def __init__(self, model, cache, answers: torch.Tensor, position: int, scale: float = 1.0) -> None:
        self.model, self.cache, self.position = model, cache, position
        W_U = model.W_U.detach().double() * scale
        self.unembed = W_U[:, answers[:, 0]].T - W_U[:, answers[:, 1]].T  # [batch, d_model]
        self.scale = self.at("ln_final.hook_scale")
        self.weight, bias = self.norm(model.ln_final)
        self.constant = (bias * self.unembed).sum(-1)
        b_U = getattr(model, "b_U", None)
        if b_U is not None:
            b_U = b_U.detach().double() * scale
            self.constant = self.constant + b_U[answers[:, 0]] - b_U[answers[:, 1]]

    def at(self, name: str) -> torch.Tensor:
        return self.cache[name][:, self.position].double()

    def norm(self, module) -> tuple[torch.Tensor, torch.Tensor]:
        weight = module.weight.detach().double()
        if getattr(self.model.cfg, "rmsnorm_uses_offset", False):
            weight = 1 + weight
        bias = getattr(module, "bias", None)
        return weight, torch.zeros_like(weight) if bias is None else bias.detach().double()

    def worth(self, vector: torch.Tensor) -> torch.Tensor:
        """What a vector in the stream is worth in each prompt."""
        vector = vector.double()
        if self.model.cfg.normalization_type.startswith("LN"):
            vector = vector - vector.mean(-1, keepdim=True)
        return ((vector / self.scale * self.weight) * self.unembed).sum(-1)

    def written(self, layer: int, output_norm: str, vector: torch.Tensor) -> torch.Tensor:
        """What a part of a sublayer's output is when it has come into the stream."""
        vector = vector.double() * getattr(self.model.cfg, "residual_multiplier", 1.0)
        name = f"blocks.{layer}.{output_norm}.hook_scale"
        if name in self.cache:  # the block normalises what it adds: each part is divided by the norm of the whole
            vector = vector / self.at(name) * self.norm(getattr(self.model.blocks[layer], output_norm))[0]
        return vector

    def rows(self) -> dict[str, torch.Tensor]:
        """Each part's worth `[batch]`."""
        rows = {}
        for layer in range(self.model.cfg.n_layers):
            z = self.at(f"blocks.{layer}.attn.hook_z")
            W_O = self.model.blocks[layer].attn.W_O.detach().double()
            b_O = getattr(self.model.blocks[layer].attn, "b_O", None)
            zero = torch.zeros(W_O.shape[-1], dtype=torch.float64)
            parts = {f"L{layer}H{h}": z[:, h] @ W_O[h] for h in range(W_O.shape[0])}
            parts[f"{layer}_attn_bias"] = (zero if b_O is None else b_O.detach().double()).expand(z.shape[0], -1)
            rows |= {name: self.worth(self.written(layer, "ln1_post", part)) for name, part in parts.items()}
            for part in ("attn_out", "mlp_out"):
                rows[f"{layer}_{part}"] = self.worth(self.at(f"blocks.{layer}.hook_{part}"))
        for part in ("embed", "pos_embed"):
            if f"hook_{part}" in self.cache:
                rows[part] = self.worth(self.at(f"hook_{part}"))
        return rows


def logit_scale(logits: torch.Tensor, cache) -> float:
    """What the model multiplies its logits by, seen in its own output (1 where it caps them)."""
    written = cache["unembed.hook_out"]
    ratio = float((logits * written).sum() / written.pow(2).sum())
    return ratio if torch.allclose(logits, written * ratio, atol=1e-5, rtol=1e-4) else 1.0
