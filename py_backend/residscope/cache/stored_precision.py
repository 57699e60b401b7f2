"""The precision in which a model computed its activations, which may be coarser than that of the tensors in a cache."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from residscope.compute.precision import step_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def weights_step(model: object) -> float:
    """Return the coarsest rounding step of the embedding and the unembedding. 0 if they cannot be read."""
    kinds: list[torch.dtype | None] = []
    for name in ("W_E", "W_U"):
        with suppress(Exception):  # some models raise when a weight is read
            kinds.append(getattr(getattr(model, name, None), "dtype", None))
    # Dtypes of one byte (integers, float8) are ignored, because they are only storage formats. The model multiplies
    # such weights by scales before it computes with them, in a finer dtype.
    return max((step_of(kind) for kind in kinds if kind is not None and kind.itemsize > 1), default=0.0)


def stored_step(activations: Mapping[str, Tensor]) -> float:
    """Return the rounding step of a coarser dtype in which the activations were once stored.

    0 if the values of the stream, or of heads' outputs, show no such dtype.
    """
    import torch

    points = [t for name, t in activations.items() if name.endswith(("hook_resid_post", "hook_z"))]
    steps: list[float] = []
    for tensor in [points[0], points[-1]] if points else []:
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // 1024)].cpu()  # MPS has no float8
        if some.dtype not in (torch.float32, torch.float64) or len(some.unique()) < 32:  # too few values to decide
            return 0.0
        kinds = (torch.float8_e5m2, torch.float8_e4m3fn, torch.bfloat16, torch.float16)
        exact = (step_of(kind) for kind in kinds if bool((some.to(kind).to(some.dtype) == some).all()))
        steps.append(next(exact, 0.0))
    return min(steps, default=0.0)
