"""An independent brute force in float64: every component as a whole vector, the norm applied to it as it is defined."""

from __future__ import annotations

import torch


def decompose(model, cache, answers: torch.Tensor, position: int) -> dict[str, torch.Tensor]:
    """Each part's worth `[batch]` for answer − distractor, from vectors with a d_model axis.

    Args:
        model: A bridge.
        cache: Its cache.
        answers: Token ids `[batch, 2]`.
        position: The destination.
    """
    scale = cache["ln_final.hook_scale"][:, position].double()
    weight, bias = _norm(model, model.ln_final)
    W_U = model.W_U.detach().double()
    unembed = W_U[:, answers[:, 0]].T - W_U[:, answers[:, 1]].T  # [batch, d_model]
    centres = model.cfg.normalization_type.startswith("LN")

    def worth(vector: torch.Tensor) -> torch.Tensor:
        vector = vector.double()
        if centres:
            vector = vector - vector.mean(-1, keepdim=True)
        return ((vector / scale * weight) * unembed).sum(-1)

    rows = {}
    for layer in range(model.cfg.n_layers):
        z = cache[f"blocks.{layer}.attn.hook_z"][:, position].double()
        W_O = model.blocks[layer].attn.W_O.detach().double()
        b_O = getattr(model.blocks[layer].attn, "b_O", None)
        multiplier = getattr(model.cfg, "residual_multiplier", 1.0)  # what the model multiplies a sublayer's output by
        zero = torch.zeros(W_O.shape[-1], dtype=torch.float64)
        parts = {f"L{layer}H{h}": z[:, h] @ W_O[h] for h in range(W_O.shape[0])}
        parts[f"{layer}_attn_bias"] = (zero if b_O is None else b_O.detach().double()).expand(z.shape[0], -1)
        parts = {name: multiplier * part for name, part in parts.items()}
        post = f"blocks.{layer}.ln1_post.hook_scale"
        if post in cache:  # the block normalises what it adds: each part is divided by the norm of the whole
            post_weight, _ = _norm(model, model.blocks[layer].ln1_post)
            parts = {name: part / cache[post][:, position].double() * post_weight for name, part in parts.items()}
        rows |= {name: worth(part) for name, part in parts.items()}
        for part in ("attn_out", "mlp_out"):
            rows[f"{layer}_{part}"] = worth(cache[f"blocks.{layer}.hook_{part}"][:, position])
    for part in ("embed", "pos_embed"):
        if f"hook_{part}" in cache:
            rows[part] = worth(cache[f"hook_{part}"][:, position])
    b_U = getattr(model, "b_U", None)
    unembed_bias = 0 if b_U is None else b_U.detach().double()[answers[:, 0]] - b_U.detach().double()[answers[:, 1]]
    rows["constant"] = (bias * unembed).sum(-1) + unembed_bias
    return rows


def _norm(model, module) -> tuple[torch.Tensor, torch.Tensor]:
    weight = module.weight.detach().double()
    if getattr(model.cfg, "rmsnorm_uses_offset", False):
        weight = 1 + weight
    bias = getattr(module, "bias", None)
    return weight, torch.zeros_like(weight) if bias is None else bias.detach().double()
