"""Effects in one prompt, and the largest of them. The results of ablation and patching use these functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residscope.base.prompts import check_prompt_number
from residscope.compute.farthest import farthest_first

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def in_prompt(effects: Float[Tensor, "*component batch"], prompt: int | None) -> Float[Tensor, " component"]:
    """Return the effects in one prompt, or their mean over prompts. Prompts with NaN are left out of the mean.

    Raises:
        ResidscopeError: If the prompt is outside the batch.
    """
    values = effects.reshape(-1, effects.shape[-1])
    if prompt is None:
        return values.nanmean(-1)
    return values[:, check_prompt_number(prompt, values.shape[-1])]


def farthest(labels: list[str], effects: Float[Tensor, " component"], k: int) -> list[tuple[str, float]]:
    """Return the k components whose effect is farthest from 0, the farthest first. NaN is left out."""
    return [(labels[i], float(effects[i])) for i in farthest_first(effects, k)]
