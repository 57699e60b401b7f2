"""The contribution of each head or neuron of one layer to the target.

Weights are projected onto the target's direction first. So no head or neuron needs a vector of length `d_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, TypeVar

from einops import rearrange

from residscope.attribution.readout import Functional, Readout
from residscope.cache.output_maps import neuron_weight, out_bias, out_weight, why_unread
from residscope.cache.view import CacheView
from residscope.compute.memo import size_of
from residscope.compute.projection import distinct, dots, project
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

T = TypeVar("T")


def layer_heads(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "head batch pos"], Float[Tensor, "batch pos"] | None]:
    """Return the contribution of each head of a layer, and that of the attention's bias, if there is one."""
    direction, divisor, bias = head_directions(readout, layer)
    z = head_outputs(readout.view, readout.positions, layer, tuple(direction.shape[1:]))
    return dots(z, direction) / divisor, bias


def layer_neurons(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "neuron batch pos"], Float[Tensor, "batch pos"] | None]:
    """Return the contribution of each neuron of a layer, and that of the MLP's bias, if there is one."""
    direction, divisor, bias = neuron_directions(readout, layer)
    post = readout.view.rows(f"blocks.{layer}.mlp.hook_post", readout.positions)
    scaled = post * rearrange(direction, "batch neuron -> batch 1 neuron")
    return rearrange(scaled, "batch pos neuron -> neuron batch pos") / divisor, bias


def head_outputs(
    view: CacheView, positions: Int[Tensor, " batch"] | None, layer: int, cut: tuple[int, ...]
) -> Float[Tensor, "batch pos head d_head"]:
    """Return `hook_z` with the axes of the heads in `W_O`.

    In latent attention, the cached axes may differ, because values may have another width than `d_head`.
    """
    z = view.raw(f"blocks.{layer}.attn.hook_z", positions)
    if tuple(z.shape[-2:]) == cut:
        return z
    units = rearrange(z, "batch pos head d_head -> batch pos (head d_head)")
    return rearrange(units, "batch pos (head d_head) -> batch pos head d_head", head=cut[0], d_head=cut[1])


def head_directions(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "batch head d_head"], Float[Tensor, "batch pos"], Float[Tensor, "batch pos"] | None]:
    """Return the direction of each head's `z`, its divisor, and the contribution of the bias, if any.

    The direction of head h is W_O[h] @ g, where g is the direction of the attention output.
    """
    view, functional = readout.view, readout.writer(layer, "attn")
    W_O = out_weight(view, layer)
    if W_O is None:
        why = why_unread(view, layer, "attn") or f"Layer {layer} has no attention heads."
        raise ResidscopeError("no-heads", f'{why} Use `by="layer"` for layer {layer} as a whole.')
    # `flatten` and `unflatten` are used, because `rearrange` would take as long as the product, in each layer.
    direction = _projected(readout, layer, W_O.flatten(0, 1), functional.vector).unflatten(-1, W_O.shape[:2])
    return direction, functional.divisor, _bias(readout, layer, functional, "attn")


_MANY = 256
"""The projections on more directions than this are not memoised."""


def _projected(readout: Readout, layer: int, weight: Tensor, vector: Tensor) -> Tensor:
    """`project`, memoised, because the projection of a layer's weight is the same at every position."""
    if readout.repeats is not None:
        return readout.repeats.expand(project(weight, readout.each_once(vector)))
    if vector.device.type != "cpu" or len(distinct(vector)) > _MANY:  # the key would take as long as the product
        return project(weight, vector)
    return once_for(readout.view, ("layer", layer), vector, lambda: project(weight, vector))


def once_for(view: CacheView, what: tuple[Hashable, ...], vector: Tensor, make: Callable[[], T]) -> T:
    """Return the result of `make`, memoised under `what` and the direction `vector`."""
    return view.root.memo.once(key_for(what, vector), make, size_of)


def key_for(what: tuple[Hashable, ...], vector: Tensor) -> tuple[Hashable, ...]:
    """Return a key for a direction. It has a digest, because the directions of many prompts would make a large key."""
    digest = blake2b(distinct(vector).contiguous().numpy().tobytes(), digest_size=16).digest()
    return "projected", *what, vector.dtype, tuple(vector.shape), digest


def neuron_directions(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "batch d_mlp"], Float[Tensor, "batch pos"], Float[Tensor, "batch pos"] | None]:
    """Return the direction of `post`, its divisor, and the contribution of the MLP's bias, if any.

    The direction is W_out @ g, where g is the direction of the MLP output.
    """
    view, functional = readout.view, readout.writer(layer, "mlp")
    W_out = neuron_weight(view, layer)
    if W_out is None:
        why = why_unread(view, layer, "mlp") or f"Layer {layer} has no MLP of plain neurons."
        raise ResidscopeError("no-neurons", why)
    if readout.repeats is None:
        direction = project(W_out, functional.vector)
    else:
        direction = readout.repeats.expand(project(W_out, readout.each_once(functional.vector)))
    return direction, functional.divisor, _bias(readout, layer, functional, "mlp")


def bias_of(readout: Readout, layer: int, part: Literal["attn", "mlp"]) -> tuple[Tensor | None, Tensor | None]:
    """Return a sublayer's own bias, and the bias of the norm on its output. None for a bias that does not exist."""
    norm = readout.output_parameters(layer, part).norm
    return out_bias(readout.view, layer, part), None if norm is None else norm.bias


def _bias(readout: Readout, layer: int, functional: Functional, part: Literal["attn", "mlp"]) -> Tensor | None:
    """The contribution of a sublayer's bias and of the bias of its output norm (the functional's constant)."""
    bias, norm_bias = bias_of(readout, layer, part)
    if bias is not None:
        vectors, bias = readout.each_once(functional.vector), bias.to(functional.vector)
        added = (vectors * bias).sum(-1) if len(vectors) <= _MANY else vectors @ bias
        added = added if readout.repeats is None else readout.repeats.expand(added)
        return functional.constant + added[:, None] / functional.divisor
    return None if norm_bias is None else functional.constant
