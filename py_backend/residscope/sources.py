"""What a head brings to the target from each source token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .attention import whole_pattern
from .cache import CacheView, working
from .components import head_directions
from .errors import ResidscopeError
from .heads import parse
from .readout import Readout

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def sources(
    readout: Readout, heads: Sequence[tuple[int, int]]
) -> tuple[Float[Tensor, "source destination head batch"], Float[Tensor, "destination head batch"]]:
    """What each head brings from each source, and what it is worth by its `z`: the sum over sources, told otherwise.

    pattern[q, k] · (v[k] · W_O g) / s[q]. Grouped-query models keep one `v` for several heads. `destination` is 1 where
    the readout is for one position of each prompt.

    Args:
        readout: The way to the target.
        heads: Layers and indices of heads.

    Returns:
        Logits.

    Raises:
        ResidscopeError: If there is no such head, or `pattern`, `v` or `z` was not cached for all positions.
    """
    import torch
    from einops import einsum

    view = readout.view
    brought: list[Tensor] = []
    values: list[Tensor] = []
    for layer, head in heads:
        view.check_head(layer, head)
        direction, divisor, _ = head_directions(readout, layer)
        v = view.get(f"blocks.{layer}.attn.hook_v")  # [batch, source, group, d_head]
        if v.ndim != 4 or v.shape[-1] != direction.shape[-1]:
            raise ResidscopeError(
                "values",
                f"`blocks.{layer}.attn.hook_v` has the shape {list(v.shape)}, not [batch, pos, head, "
                f"{direction.shape[-1]}]: what each source brings cannot be told for this kind of attention.",
            )
        group = head * v.shape[2] // view.n_heads
        worth = einsum(working(v[:, :, group]), direction[:, head], "batch source d_head, batch d_head -> batch source")
        pattern = view.take(whole_pattern(view, layer)[:, head], readout.positions)  # [batch, destination, source]
        brought.append((pattern * worth[:, None] / divisor[..., None]).permute(2, 1, 0))
        z = view.rows(f"blocks.{layer}.attn.hook_z", readout.positions)[:, :, head]
        own = einsum(z, direction[:, head], "batch destination d_head, batch d_head -> batch destination") / divisor
        values.append(own.T)
    return torch.stack(brought, dim=2), torch.stack(values, dim=1)


def wanted_heads(view: CacheView, heads: Any) -> list[tuple[int, int]]:
    """Heads as a person writes them, `["9.9", "L9H6", (10, 7)]`, alone or in a list.

    Raises:
        ResidscopeError: If none was given, one is not a head, or not one of this model.
    """
    alone = isinstance(heads, str) or (isinstance(heads, tuple) and all(hasattr(n, "__index__") for n in heads))
    names = [heads] if alone and heads else list(heads or ())
    if not names:
        raise ResidscopeError("heads", '`by="source"` needs heads: `heads=["9.9", "9.6"]`.')
    found = [parse(head) for head in names]
    for layer, head in found:
        view.check_head(layer, head)
    return found
