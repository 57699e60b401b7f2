"""The linear maps that heads and neurons apply to what they read: values, queries and keys, and neuron inputs."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from einops import rearrange

from residscope.cache.linear_maps import LinearMap, linear_map_of
from residscope.cache.structure import neuron_weight, why_unread
from residscope.cache.view import CacheView
from residscope.cache.weights import is_plain, stored_values, tensor_of
from residscope.errors import ResidscopeError
from residscope.terms import NeuronPart

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class HeadMap(NamedTuple):
    """What heads read as their queries, keys or values: y @ weight[group] + bias[group].

    Several heads share a group in models with grouped queries.

    Attributes:
        weight: The weight.
        bias: The bias, if any.
    """

    weight: Float[Tensor, "group d_model d_head"]
    bias: Float[Tensor, "group d_head"] | None


class NeuronMap(NamedTuple):
    """What one neuron reads: y · weight + bias.

    Attributes:
        weight: The weight.
        bias: The bias; 0 if there is none.
        names: The activations that hold its value, the best first. The neuron is an index of their last axis.
    """

    weight: Float[Tensor, " d_model"]
    bias: float
    names: tuple[str, ...]


def head_map(view: CacheView, layer: int, which: Literal["q", "k", "v"], width: int) -> HeadMap:
    """Return the map from what a layer's attention reads to its queries, keys or values.

    Args:
        view: The cache.
        layer: The layer.
        which: Queries, keys or values.
        width: The width of one head.

    Raises:
        ResidscopeError: If attention has no single map for it, or the map cannot be read. The message says why.
    """
    attention = getattr(view.model.blocks[layer], "attn", None)
    module = getattr(attention, which, None)
    plain = view.facts.once(("plain", layer, which), lambda: (module is None or is_plain(module),))[0]
    if not plain:
        found = view.facts.once(("input map", layer, which), lambda: linear_map_of(module, view), _size)
        matrix, bias = found.matrix, found.bias
    else:
        letter = which.upper()
        matrix, bias = _attribute(attention, f"W_{letter}"), _attribute(attention, f"b_{letter}")
        for name, tensor in ((f"W_{letter}", matrix), (f"b_{letter}", bias)):
            if tensor is not None:
                stored_values(module if module is not None else attention, name, tensor)
    if matrix is not None and matrix.ndim == 2 and matrix.shape[1] % width == 0:
        matrix = rearrange(matrix, "d_model (group d_head) -> group d_model d_head", d_head=width)
    if matrix is None or matrix.ndim != 3 or tuple(matrix.shape[1:]) != (int(view.cfg.d_model), width):
        words = {"q": "queries", "k": "keys", "v": "values"}[which]
        raise ResidscopeError(
            "head-inputs",
            f"The {words} of layer {layer} are not one linear map of what attention reads (as in latent attention, or "
            "where layers share them): what was written before this layer cannot be followed through them.",
        )
    if bias is not None:
        bias = bias.reshape(-1, width)
        bias = bias if len(bias) == len(matrix) else None
    return HeadMap(matrix, bias)


def _size(found: LinearMap) -> int:
    return found.size


def _attribute(owner: Any, name: str) -> Tensor | None:
    with suppress(Exception):  # TransformerLens raises for weights that a layer does not have
        return tensor_of(getattr(owner, name, None))
    return None


def neuron_parts(view: CacheView, layer: int) -> tuple[NeuronPart, ...]:
    """Return what the neurons of a layer read: `gate` and `up` if its MLP is gated, otherwise `pre`."""
    return ("gate", "up") if _gate_of(view, layer) is not None else ("pre",)


def neuron_map(view: CacheView, layer: int, index: int, part: NeuronPart) -> NeuronMap:
    """Return what a neuron reads.

    Raises:
        ResidscopeError: If the layer has no such neuron or no such part, or its weight cannot be read.
    """
    count = check_neuron(view, layer, index, part)
    mlp, gated = view.model.blocks[layer].mlp, _gate_of(view, layer) is not None
    side: Literal["in", "gate"] = "gate" if gated and part != "up" else "in"
    module = _submodule(mlp, side)
    activations = [f"mlp.hook_pre{'_linear' if part == 'up' else ''}"]
    activations += [f"mlp.{name}.hook_out" for name in (side, f"dense_{side}")]
    names = tuple(f"blocks.{layer}.{name}" for name in activations)
    plain = view.facts.once(("plain", layer, "mlp", side), lambda: (module is None or is_plain(module),))[0]
    if not plain:
        found = view.facts.once(("input map", layer, side), lambda: linear_map_of(module, view), _size)
        matrix, bias = found.matrix, found.bias
    else:
        matrix, bias = _attribute(mlp, f"W_{side}"), _attribute(mlp, f"b_{side}")
        if matrix is not None:
            matrix = stored_values(module if module is not None else mlp, "weight", matrix)
        if module is None and gated:  # a `HookedTransformer` adds the bias of a gated MLP after it has multiplied
            bias = None
    if matrix is None or tuple(matrix.shape) != (int(view.cfg.d_model), count):
        raise ResidscopeError(
            "no-neurons", f"What the neurons of layer {layer} read is not one linear map of the MLP's input."
        )
    return NeuronMap(matrix[:, index].to(view.like), 0.0 if bias is None else float(bias[index]), names)


def check_neuron(view: CacheView, layer: int, index: int, part: NeuronPart) -> int:
    """Return the number of neurons of a layer, and refuse a neuron or a part that it does not have."""
    view.check_layer(layer)
    weight = neuron_weight(view, layer)
    if weight is None:
        why = why_unread(view, layer, "mlp") or f"The MLP of layer {layer} has no plain neurons."
        raise ResidscopeError("no-neurons", why)
    if not 0 <= index < len(weight):
        raise ResidscopeError("neuron", f"Layer {layer} has no neuron {index}: it has neurons 0 to {len(weight) - 1}.")
    if part != "pre" and part not in neuron_parts(view, layer):
        raise ResidscopeError(
            "neuron", f'The MLP of layer {layer} has no gate, so its neurons have no part "{part}": use part="pre".'
        )
    return len(weight)


def _submodule(mlp: Any, side: Literal["in", "gate"]) -> Any:
    return getattr(mlp, side, None) if hasattr(mlp, side) else getattr(mlp, f"dense_{side}", None)


def _gate_of(view: CacheView, layer: int) -> Any:
    """The gate of a gated MLP, a module or a weight. None if the MLP has none."""
    mlp = getattr(view.model.blocks[layer], "mlp", None)
    module = _submodule(mlp, "gate")
    return _attribute(mlp, "W_gate") if module is None else module
