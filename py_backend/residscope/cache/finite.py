"""Refuses results with NaN or infinity, and names the place in the cache with the first such value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


def check_finite(view: CacheView, *results: Tensor | None) -> None:
    """Raise an error if a result is not finite. The message says where the cache is not finite."""
    if not all(bool(result.isfinite().all()) for result in results if result is not None):
        place = _first_not_finite(view)
        what = (
            "The cache is finite, but a sum of its values is not, or a weight is not"
            if place is None
            else (f"The cache holds NaN or infinity: {place}")
        )
        raise ResidscopeError("not-finite", f"{what}. Attributions of this cache would be meaningless.")


def _first_not_finite(view: CacheView) -> str | None:
    """The first place where the cache holds NaN or infinity, in words. None if there is none."""
    for name, tensor in view.activations.items():
        if not tensor.is_floating_point():
            continue
        bad = ~tensor.isfinite()
        if name.endswith("hook_attn_scores"):
            bad &= ~tensor.isneginf()  # by design, scores above the diagonal are −inf
        if bad.any():
            return f"`{name}` ({_place(view, name, tensor.shape, bad.nonzero()[0].tolist())})"
    return None


def _place(view: CacheView, name: str, shape: Sequence[int], where: list[int]) -> str:
    """The place of a value in words, as far as the shape of its activation shows what its axes are."""
    index, prompts, positions = f"index {where}", view.batch, view.n_pos
    if not view.has_batch_dim:
        shape, where = (1, *shape), [0, *where]
    if name.endswith(("hook_pattern", "hook_attn_scores")):
        if len(shape) != 4 or shape[0] != prompts:
            return index
        return f"prompt {where[0]}, head {where[1]}, destination {where[2]}, source {where[3]}"
    if view.cells is not None:
        prompt, position = divmod(where[0], view.cells)
    elif len(shape) == 2 and shape[0] == prompts * positions:  # the router of a mixture of experts has such rows
        prompt, position = divmod(where[0], positions)
    elif len(shape) > 2 and shape[0] == prompts and shape[1] == positions:
        if len(shape) == 4 and shape[2] == positions:
            return index  # as many heads as positions: the axes may be in either order
        prompt, position = where[:2]
    elif len(shape) == 4 and shape[0] == prompts and shape[2] == positions:
        return f"prompt {where[0]}, head {where[1]}, position {where[2]}"
    else:
        return index
    return f"prompt {prompt}, position {position}"
