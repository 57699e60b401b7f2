"""What a head brings to the target from each source token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .attention import whole_pattern
from .cache import CacheView, working
from .components import head_directions, head_outputs
from .errors import ResidscopeError
from .heads import parse
from .readout import Readout
from .structure import named_layers

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
        if head >= direction.shape[1]:
            raise ResidscopeError("head", f"Layer {layer} of this model has only {direction.shape[1]} heads.")
        unit = direction[:, head]  # [batch, d_head]
        z = head_outputs(readout, layer, tuple(direction.shape[1:]))[:, :, head]
        v = _values(view, layer, head, direction.shape[1], z.shape[-1])
        pattern = view.take(whole_pattern(view, layer)[:, head], readout.positions)  # [batch, destination, source]
        gate = _gate(readout, layer, head, direction.shape[1], z, pattern @ v)
        if gate is None:
            worth = einsum(v, unit, "batch source d_head, batch d_head -> batch source")[:, None]
        else:
            worth = einsum(
                v, gate * unit[:, None], "batch source d_head, batch destination d_head -> batch destination source"
            )
        brought.append((pattern * worth / divisor[..., None]).permute(2, 1, 0))
        own = einsum(z, unit, "batch destination d_head, batch d_head -> batch destination") / divisor
        values.append(own.T)
    return torch.stack(brought, dim=2), torch.stack(values, dim=1)


def gated(view: CacheView, layers: Iterable[int]) -> list[str]:
    """A note on heads whose output is gated after they have read."""
    names = {layer: name for layer in sorted(set(layers)) if (name := _gate_name(view, layer))}
    if not names:
        return []
    return [
        f"The heads in {named_layers(names)} gate what they have read (`{next(iter(names.values()))}`): each source's "
        "part passes the gate as it stood."
    ]


def _gate_name(view: CacheView, layer: int) -> str | None:
    """The activation that gates this layer's heads between pattern @ v and `hook_z`, if the model has one."""
    return view.first(*(f"blocks.{layer}.attn.{name}" for name in ("gate.hook_out", "hook_q_gate", "hook_gate")))


def _gate(
    readout: Readout, layer: int, head: int, n_heads: int, z: Tensor, read: Tensor
) -> Float[Tensor, "batch destination d_head"] | None:
    """What multiplies what a head has read, at each destination; None where nothing does, or nothing known fits.

    The cache holds the gate before its activation function. Which function it is, the head's own output tells: the one
    for which gate · (pattern @ v) is `hook_z`.
    """
    from torch.nn.functional import silu, softplus

    name = _gate_name(readout.view, layer)
    if name is None:
        return None
    raw = readout.view.rows(name, readout.positions).flatten(2)  # a figure for each unit, or one for each head
    if raw.shape[-1] not in (n_heads, n_heads * z.shape[-1]):
        return None
    raw = raw.unflatten(-1, (n_heads, -1))[:, :, head]
    gates = [raw.sigmoid(), softplus(raw), silu(raw), raw.tanh(), raw]
    errors = [float((gate * read - z).abs().max()) for gate in gates]
    best = errors.index(min(errors))
    near = max(1e-4, 8 * readout.view.rounding_step()) * float(z.abs().max())
    return gates[best] if errors[best] <= near else None


def _values(view: CacheView, layer: int, head: int, n_heads: int, width: int) -> Float[Tensor, "batch source d_head"]:
    """What a head reads at each source: its group's `v`, after a norm on it where the model has one."""
    name = view.first(f"blocks.{layer}.attn.v_norm.hook_out") or f"blocks.{layer}.attn.hook_v"
    v = view.get(name)  # [batch, source, group, d_head]
    if v.ndim == 4 and view.has(f"blocks.{layer}.attn.hook_kv_latent"):
        v = v.transpose(1, 2)  # latent attention keeps [batch, head, source, d_head]
    if v.ndim != 4 or v.shape[-1] != width or n_heads % v.shape[2]:
        raise ResidscopeError(
            "values",
            f"`{name}` has the shape {list(v.shape)}, not [batch, pos, head, {width}]: what each source brings cannot "
            "be told for this kind of attention.",
        )
    return working(v[:, :, head * v.shape[2] // n_heads])


def wanted_heads(view: CacheView, heads: Any) -> list[tuple[int, int]]:
    """Heads as a person writes them, `["9.9", "L9H6", (10, 7)]`, alone or in a list.

    Raises:
        ResidscopeError: If none was given, one is not a head, or not one of this model.
    """
    heads = heads.tolist() if hasattr(heads, "tolist") else heads
    alone = isinstance(heads, str) or (isinstance(heads, tuple) and all(hasattr(n, "__index__") for n in heads))
    if not isinstance(heads, Iterable) and heads is not None:
        heads, alone = str(heads), True  # a lone number is no head: said so where heads are read
    names = [heads] if alone and heads else list(heads or ())
    if not names:
        raise ResidscopeError("heads", '`by="source"` needs heads: `heads=["9.9", "9.6"]`.')
    found = [parse(head) for head in names]
    for layer, head in found:
        view.check_head(layer, head)
    return found
