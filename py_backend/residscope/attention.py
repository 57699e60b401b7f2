"""Where a head looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cache import CacheView, working
from .errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def pattern(view: CacheView, layer: int, head: int, prompt: int | None) -> Float[Tensor, "destination source"]:
    """The attention pattern of one head: each row (destination) says how much it reads from each column (source).

    Args:
        view: The cache.
        layer: The head's layer.
        head: The head's index in its layer.
        prompt: The prompt, or None for the mean over prompts.

    Returns:
        Attention, 0 to 1; each row sums to 1 (to less where the model keeps some back, as attention sinks do).

    Raises:
        ResidscopeError: If there is no such head, or its pattern was not cached for all positions.
    """
    view.check_head(layer, head)
    prompt = view.check_prompt(prompt)
    patterns = whole_pattern(view, layer)[:, head]
    wanted = working(patterns).mean(0) if prompt is None else working(patterns[prompt])
    if not bool(wanted.isfinite().all()):
        raise ResidscopeError("not-finite", f"The attention of L{layer}H{head} holds NaN or infinity.")
    return wanted


def whole_pattern(view: CacheView, layer: int) -> Float[Tensor, "batch head destination source"]:
    """All patterns of a layer.

    Raises:
        ResidscopeError: If they were not cached, or only for some positions (`pos_slice`).
    """
    patterns = view.get(f"blocks.{layer}.attn.hook_pattern")
    if tuple(patterns.shape[-2:]) != (view.n_pos, view.n_pos):
        raise ResidscopeError(
            "pos-slice",
            f"The attention in this cache has {patterns.shape[-2]} destinations and {patterns.shape[-1]} sources, but "
            f"{view.n_pos} positions were cached. Cache all positions: leave out `pos_slice` in `run_with_cache`.",
        )
    return patterns
