"""What the heads of a layer read: their patterns, the values at each source, and their gates, if there are any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.sublayer_parts import head_outputs
from residscope.base.numbered import named_layers
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class HeadInputs:
    """What some heads of one layer read: z = gate · (pattern @ v).

    Attributes:
        pattern: The attention from each destination to each source, in the cached precision, because it is large and
            often only a block of it is needed. `part` converts a block to the working precision.
        v: The value at each source. In grouped-query models several heads share one `v`.
        z: The head's output. None if it was not cached.
        gate: The factor at each destination. None if there is no gate, or its activation function was not found.
    """

    pattern: Float[Tensor, "batch head destination source"]
    v: Float[Tensor, "batch head source d_head"]
    z: Float[Tensor, "batch head destination d_head"] | None
    gate: Float[Tensor, "batch head destination #d_head"] | None

    def part(self, heads: slice, rows: slice, columns: slice) -> Float[Tensor, "batch head row column"]:
        """Return a block of the pattern: some heads, destinations and sources."""
        return working(self.pattern[:, heads, rows, columns])

    def unexplained(self) -> float:
        """The largest error of gate · (pattern @ v), relative to the largest `z`. 0 if `z` was not cached.

        In a long prompt only some destinations, evenly spaced, are compared.
        """
        if self.z is None or self.z.numel() == 0:
            return 0.0
        some = spread(self.z.shape[2])
        z, read = self.z[:, :, some], self.part(ALL, some, ALL) @ self.v
        read = read if self.gate is None else read * self.gate[:, :, some]
        return float((read - z).abs().max() / z.abs().max().clamp(min=1e-30))


ALL = slice(None)
"""All heads, destinations, or sources."""

SAMPLE = 128
"""At most this many destinations are compared."""


def spread(size: int) -> slice:
    """Return a slice of at most `SAMPLE` of `size` destinations, evenly spaced, including the last."""
    step = -(-size // SAMPLE)
    return slice((size - 1) % step, None, step)


def read_names(view: CacheView, layer: int) -> tuple[str, ...]:
    """Return the names of the activations that determine what a layer's heads read."""
    endings = ("hook_pattern", "hook_v", "v_norm.hook_out", "hook_z")
    names = tuple(f"blocks.{layer}.attn.{ending}" for ending in endings)
    gate = gate_name(view, layer)
    return names if gate is None else (*names, gate)


def source_count(view: CacheView, layer: int) -> int:
    """Return the number of sources in a layer's patterns. With past keys or a prefix, it exceeds `n_pos`."""
    return int(view.get(f"blocks.{layer}.attn.hook_pattern").shape[-1])


def whole_pattern(view: CacheView, layer: int) -> Float[Tensor, "batch head destination source"]:
    """Return all patterns of a layer. All cached positions must be both destinations and sources.

    Raises:
        ResidscopeError: If the patterns were not cached, or only for some positions (`pos_slice`).
    """
    patterns = view.get(f"blocks.{layer}.attn.hook_pattern")
    if tuple(patterns.shape[-2:]) != (view.n_pos, view.n_pos):
        raise ResidscopeError(
            "pos-slice",
            f"The attention in this cache has {patterns.shape[-2]} destinations and {patterns.shape[-1]} sources, but "
            f"{view.n_pos} positions were cached. `residscope.attention(cache, …)` shows these patterns. For "
            "everything else, cache all positions: leave out `pos_slice` in `run_with_cache`, and run the whole prompt "
            "at once, not after past keys or a prefix.",
        )
    return patterns


def some_pattern(
    view: CacheView,
    positions: Int[Tensor, " batch"] | None,
    layer: int,
    heads: Sequence[int],
    *,
    square: bool = True,
) -> Float[Tensor, "batch head destination source"]:
    """Return some heads' patterns in the cached precision, at one destination of each prompt or at all destinations.

    With `square`, all cached positions must be both destinations and sources. The patterns of neighbouring heads are
    not copied.

    Raises:
        ResidscopeError: If there is no such head, or its pattern was not cached (with `square`: for all positions).
    """
    patterns = whole_pattern(view, layer) if square else view.get(f"blocks.{layer}.attn.hook_pattern")
    check_heads(layer, heads, patterns.shape[1])
    by_destination = rearrange(patterns, "batch head destination source -> batch destination head source")
    picked = _some(view.pick(by_destination, positions), heads)
    return rearrange(picked, "batch destination head source -> batch head destination source")


def _some(tensor: Float[Tensor, "batch pos head ..."], heads: Sequence[int]) -> Float[Tensor, "batch pos some ..."]:
    """Some of the heads. For neighbouring heads, the result is a view, not a copy."""
    start = heads[0] if heads else 0
    if list(heads) == list(range(start, start + len(heads))):
        return tensor[:, :, start : start + len(heads)]
    return tensor[:, :, list(heads)]


def _by_head(tensor: Float[Tensor, "batch pos head unit"]) -> Float[Tensor, "batch head pos unit"]:
    return rearrange(tensor, "batch pos head unit -> batch head pos unit")


def check_heads(layer: int, heads: Iterable[int], count: int) -> None:
    """Refuse heads that a layer does not have. Layers of one model may differ in their number of heads."""
    if any(head >= count for head in heads):
        raise ResidscopeError("head", f"Layer {layer} of this model has only {count} heads.")


def head_inputs(
    view: CacheView, positions: Int[Tensor, " batch"] | None, layer: int, heads: Sequence[int], cut: tuple[int, int]
) -> HeadInputs:
    """Return what some heads of a layer read.

    Args:
        view: The cache.
        positions: One destination per prompt. None: all destinations.
        layer: The layer.
        heads: The heads' indices.
        cut: The number and the width of the layer's heads in `W_O`.

    Raises:
        ResidscopeError: If a head does not exist, or `pattern` or `v` was not cached for all positions. For gated
            heads, also if the gate or `z` was not cached.
    """
    check_heads(layer, heads, cut[0])
    pattern = some_pattern(view, positions, layer, heads)
    v = _values(view, layer, heads, cut)
    z = None
    if view.has(f"blocks.{layer}.attn.hook_z"):
        z = _by_head(working(_some(head_outputs(view, positions, layer, cut), heads)))
    name = gate_name(view, layer)
    if name is None:
        return HeadInputs(pattern, v, z, None)
    if z is None:  # raises: without `z` the gate's function cannot be found
        z = view.get(f"blocks.{layer}.attn.hook_z")
    # One number for each unit, or for each head.
    raw = rearrange(view.rows(name, positions), "batch pos ... -> batch pos (...)")
    if raw.shape[-1] not in (cut[0], cut[0] * cut[1]):
        return HeadInputs(pattern, v, z, None)
    raw = rearrange(raw, "batch pos (head unit) -> batch pos head unit", head=cut[0])
    raw = _by_head(_some(raw, heads))
    some = spread(raw.shape[2])
    rounding = view.rounding_step(*read_names(view, layer))
    gate = _gate(raw[:, :, some], working(pattern[:, :, some]) @ v, z[:, :, some], rounding)
    return HeadInputs(pattern, v, z, None if gate is None else gate(raw))


def gated(view: CacheView, layers: Iterable[int]) -> list[str]:
    """Return a note on heads that multiply what they have read by a gate."""
    names = {layer: name for layer in sorted(set(layers)) if (name := gate_name(view, layer))}
    if not names:
        return []
    return [
        f"The heads in {named_layers(names)} gate what they have read (`{next(iter(names.values()))}`): each source "
        "contribution is multiplied by the cached gate."
    ]


def is_gated(view: CacheView, layer: int) -> bool:
    """Return whether this layer's heads multiply what they have read by a gate."""
    return gate_name(view, layer) is not None


def gate_name(view: CacheView, layer: int) -> str | None:
    """Return the name of the activation that gates pattern @ v before `hook_z` in this layer. None without a gate.

    A filtered cache may lack this activation, so the module is checked, too.
    """
    attention = getattr(view.model.blocks[layer], "attn", None)
    names = {name: f"blocks.{layer}.attn.{name}" for name in ("gate.hook_out", "hook_q_gate", "hook_gate")}
    cached = view.first(*names.values())
    return cached or next((names[name] for name in names if hasattr(attention, name.split(".")[0])), None)


def _gate(raw: Tensor, read: Tensor, z: Tensor, step: float) -> Callable[[Tensor], Tensor] | None:
    """The activation function of the gate. None if no known function fits.

    The cache holds the gate before its activation function. The right function is the one for which
    gate · (pattern @ v) is `hook_z`.
    """
    import torch
    from torch.nn.functional import silu, softplus

    def identity(x: Tensor) -> Tensor:
        return x

    gates: list[Callable[[Tensor], Tensor]] = [torch.sigmoid, softplus, silu, torch.tanh, identity]
    errors = [float((gate(raw) * read - z).abs().max()) for gate in gates]
    best = errors.index(min(errors))
    tolerance = max(1e-4, 8 * step) * float(z.abs().max())
    return gates[best] if errors[best] <= tolerance else None


def _values(
    view: CacheView, layer: int, heads: Sequence[int], cut: tuple[int, int]
) -> Float[Tensor, "batch head source d_head"]:
    """The values at each source: `v` of each head's group, after the norm on values if the model has one."""
    name = view.first(f"blocks.{layer}.attn.v_norm.hook_out") or f"blocks.{layer}.attn.hook_v"
    v = view.get(name)
    # Latent attention caches values as [batch, head, pos, d_head].
    if v.ndim == 4 and view.has(f"blocks.{layer}.attn.hook_kv_latent"):
        v = rearrange(v, "batch group source d_head -> batch source group d_head")
    if v.ndim != 4 or v.shape[-1] != cut[1] or cut[0] % v.shape[2]:
        raise ResidscopeError(
            "values",
            f"`{name}` has the shape {list(v.shape)}, not [batch, pos, head, {cut[1]}]: source contributions cannot "
            "be determined for this kind of attention.",
        )
    groups = [head * v.shape[2] // cut[0] for head in heads]
    return _by_head(working(_some(v, groups)))
