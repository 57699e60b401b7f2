"""Small random SAEs and transcoders, as researchers write them, without any library."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

FEATURES = 60


class Sae(nn.Module):
    """ReLU(x @ W_enc + b_enc). `apply_b_dec_to_input` subtracts the decoder's bias from the input first."""

    def __init__(self, d_in: int, d_out: int | None = None, features: int = FEATURES, **cfg: Any) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(7)
        d_out = d_in if d_out is None else d_out
        fields = {"apply_b_dec_to_input": True, "d_in": d_in, "d_sae": features, "hook_name": None} | cfg
        self.cfg = SimpleNamespace(**fields)
        self.W_enc = nn.Parameter(torch.randn(d_in, features, generator=made) / d_in**0.5)
        self.W_dec = nn.Parameter(torch.randn(features, d_out, generator=made) / d_out**0.5)
        self.b_enc = nn.Parameter(torch.randn(features, generator=made) * 0.1)
        self.b_dec = nn.Parameter(torch.randn(d_out, generator=made) * 0.1)

    def before(self, x: torch.Tensor) -> torch.Tensor:
        x = x - self.b_dec if self.cfg.apply_b_dec_to_input else x
        return x @ self.W_enc + self.b_enc

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.before(x).relu()

    def decode(self, acts: torch.Tensor) -> torch.Tensor:
        return acts @ self.W_dec + self.b_dec

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x))


class TopK(Sae):
    """Only the 5 largest activations are on. With `rescaled`, the decoder's rows count as normalised, as in SAELens."""

    rescaled = False

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        before = self.before(x) * (self.W_dec.norm(dim=-1) if self.rescaled else 1)
        values, places = before.relu().topk(5, dim=-1)
        return torch.zeros_like(before).scatter(-1, places, values)

    def decode(self, acts: torch.Tensor) -> torch.Tensor:
        acts = acts / self.W_dec.norm(dim=-1) if self.rescaled else acts
        return acts @ self.W_dec + self.b_dec


class RescaledTopK(TopK):
    rescaled = True


class JumpReLU(Sae):
    """A feature is off below its threshold, and above it the activation is the feature's input."""

    def __init__(self, *sizes: int, **cfg: Any) -> None:
        super().__init__(*sizes, **cfg)
        self.threshold = nn.Parameter(torch.linspace(0.05, 0.8, len(self.W_dec)))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        before = self.before(x)
        return before.relu() * (before > self.threshold)


class Gated(Sae):
    """One linear map decides which features are on. Another map gives their activations."""

    def __init__(self, *sizes: int, **cfg: Any) -> None:
        super().__init__(*sizes, **cfg)
        self.r_mag = nn.Parameter(torch.linspace(-0.5, 0.5, len(self.W_dec)))
        self.b_mag = nn.Parameter(torch.linspace(0.3, -0.1, len(self.W_dec)))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        x = x - self.b_dec if self.cfg.apply_b_dec_to_input else x
        on = (x @ self.W_enc + self.b_enc) > 0
        return on * (x @ (self.W_enc * self.r_mag.exp()) + self.b_mag).relu()


class Normed(Sae):
    """Normalises its input, and keeps mean and scale as attributes until it decodes, as SAELens does."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(-1, keepdim=True)
        std = (x - mean).std(-1, keepdim=True)
        self.ln_mu, self.ln_std = mean, std
        return super().encode((x - mean) / (std + 1e-5))

    def decode(self, acts: torch.Tensor) -> torch.Tensor:
        found = super().decode(acts) * self.ln_std + self.ln_mu
        del self.ln_mu, self.ln_std
        return found


class Skipping(Sae):
    """A transcoder with a skip connection."""

    def __init__(self, *sizes: int, **cfg: Any) -> None:
        super().__init__(*sizes, **{"apply_b_dec_to_input": False} | cfg)
        made = torch.Generator().manual_seed(8)
        d_out, d_in = self.W_dec.shape[1], len(self.W_enc)
        self.W_skip = nn.Parameter(torch.randn(d_out, d_in, generator=made) / d_in)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decode(self.encode(x)) + x @ self.W_skip.T


class Split(Sae):
    """Takes and returns `hook_z` with separate heads, as SAELens does."""

    hook_z_reshaping_mode = True

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        self.d_head = x.shape[-1]
        return super().encode(x.flatten(-2))

    def decode(self, acts: torch.Tensor) -> torch.Tensor:
        return super().decode(acts).unflatten(-1, (-1, self.d_head))


EVERY = (Sae, TopK, RescaledTopK, JumpReLU, Gated, Normed)
