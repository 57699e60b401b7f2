"""Makes a view of a cache in which each position counts as a prompt of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from residscope.cache.view import CacheView

if TYPE_CHECKING:
    from torch import Tensor


def cells_of(view: CacheView, prompt: int | None = None, part: slice = slice(None)) -> CacheView:
    """Return a view of the same activations in which each position is a prompt of one position.

    Activations for pairs of positions, rotary tables, and activations without an axis for prompts and one for positions
    are left out.

    Args:
        view: The cache.
        prompt: The prompt whose positions are used. None: all prompts.
        part: The positions of this prompt that are used. Without `prompt`, all positions are used.
    """
    held: dict[str, Tensor] = {}
    for name in view.activations:
        if name.startswith("rotary_emb.") or name.rpartition(".")[2] in _BETWEEN:
            continue
        rows = view.activations[name].shape[:1]
        if view.has_batch_dim and view.n_pos > 1 and rows == (view.root.batch * view.n_pos,):
            continue  # TransformerLens caches some activations of OPT as [batch × pos, …]
        tensor = view.get(name)
        if tensor.ndim < 2 or tuple(tensor.shape[:2]) != (view.batch, view.n_pos):
            continue
        tensor = tensor if prompt is None else tensor[prompt : prompt + 1, part]
        held[name] = tensor.reshape(-1, 1, *tensor.shape[2:])
    like = SimpleNamespace(cache_dict=held, model=view.model, has_batch_dim=True)
    cells = CacheView(like, model=view.model)
    cells.facts, cells.padding_is_real = view.facts, True
    cells.cells = view.n_pos if prompt is None else None
    return cells


def place_of(view: CacheView, prompt: int, position: int) -> str:
    """Return a place of the cache in words. `view` may come from `cells_of`."""
    batch = view.batch
    if view.cells is not None:
        (prompt, position), batch = divmod(prompt, view.cells), batch // view.cells
    return f"position {position}" if batch == 1 else f"position {position} of prompt {prompt}"


_BETWEEN = frozenset(("hook_pattern", "hook_attn_scores", "hook_cos", "hook_sin"))
