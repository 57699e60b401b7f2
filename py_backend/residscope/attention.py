"""Where a head looks, and what each source token brings to the target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .attribution import head_directions
from .cache import CacheView, working
from .errors import ResidscopeError
from .readout import Readout

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
        Attention, 0 to 1; each row sums to 1.

    Raises:
        ResidscopeError: If there is no such head, or its pattern was not cached.
    """
    view.check_head(layer, head)
    prompt = view.check_prompt(prompt)
    patterns = view.get(f"blocks.{layer}.attn.hook_pattern")[:, head]
    wanted = working(patterns).mean(0) if prompt is None else working(patterns[prompt])
    if not bool(wanted.isfinite().all()):
        raise ResidscopeError("not-finite", f"The attention of L{layer}H{head} holds NaN or infinity.")
    return wanted


def brings(readout: Readout, layer: int, head: int) -> Float[Tensor, "batch source"]:
    """What a head brings to the target from each source token, at each prompt's destination position.

    pattern[q, k] · (v[k] · W_O g) / s[q], so the sum over sources is the head's own value. Grouped-query models keep
    one `v` for several heads.

    Args:
        readout: The way to the target, for one position of each prompt.
        layer: The head's layer.
        head: The head's index in its layer.

    Returns:
        Logits.

    Raises:
        ResidscopeError: If `pattern` or `v` was not cached, or the readout is for every position at once.
    """
    from einops import einsum

    view = readout.view
    if readout.positions is None:
        raise ResidscopeError("position", "What each source brings is told for one destination position at a time.")
    view.check_head(layer, head)
    v = view.get(f"blocks.{layer}.attn.hook_v")  # [batch, source, group, d_head]
    group = head * v.shape[2] // view.n_heads
    direction, divisor, _ = head_directions(readout, layer)
    worth = einsum(working(v[:, :, group]), direction[:, head], "batch source d_head, batch d_head -> batch source")
    patterns = view.get(f"blocks.{layer}.attn.hook_pattern")[:, head]  # [batch, destination, source]
    return view.take(patterns, readout.positions).squeeze(1) * worth / divisor
