"""How heads compute their values from the input of attention, and how neurons read the MLP's input."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from einops import rearrange

from residscope.cache.linear_maps import LinearMap, kept_map
from residscope.cache.norms import Norm
from residscope.cache.output_maps import neuron_weight, why_unread
from residscope.cache.view import CacheView
from residscope.cache.weights import is_plain, parameter, stored_values, tensor_of, wrapped
from residscope.errors import ResidscopeError
from residscope.terms import NeuronPart

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class ValueMap(NamedTuple):
    """How heads compute their values from y, the input of attention: y @ weight[group] + bias[group].

    Several heads share a group in models with grouped queries.

    Attributes:
        weight: The weight of each group.
        bias: The bias, if any.
    """

    weight: Float[Tensor, "group d_model d_head"]
    bias: Float[Tensor, "group d_head"] | None


class LatentValues(NamedTuple):
    """How one head of latent attention computes its values: norm(y @ down + down_bias) @ up + up_bias.

    y is the input of attention.

    Attributes:
        down: The weight of the latent vector, which all heads share.
        down_bias: The bias of the latent vector, if any.
        norm: The norm of the latent vector.
        norm_name: The path of this norm. The names of its cached activations begin with it.
        up: The weight of one head's values.
        up_bias: The bias of these values, if any.
    """

    down: Float[Tensor, "d_model rank"]
    down_bias: Float[Tensor, " rank"] | None
    norm: Norm
    norm_name: str
    up: Float[Tensor, "rank d_head"]
    up_bias: Float[Tensor, " d_head"] | None

    def scale(self, view: CacheView) -> Float[Tensor, "batch pos"]:
        """Return the norm's scale: cached, or computed from the cached latent vector."""
        if view.has(f"{self.norm_name}.hook_scale"):
            return view.rows(f"{self.norm_name}.hook_scale", None).squeeze(-1)
        return self.norm.scale(view.rows(f"{self.norm_name}.hook_in", None))


class NeuronMap(NamedTuple):
    """A number that a neuron computes from the MLP's input y: y · weight + bias.

    This number is the input of the nonlinearity. In a gated MLP, it may instead be the factor that multiplies
    the nonlinearity's output.

    Attributes:
        weight: The weight.
        bias: The bias; 0 if there is none.
        names: Names of the activations that hold this number, the preferred one first. The last axis of each activation
            has one entry for each neuron.
    """

    weight: Float[Tensor, " d_model"]
    bias: float
    names: tuple[str, ...]


def value_map(view: CacheView, layer: int, width: int) -> ValueMap:
    """Return the linear map from the input of a layer's attention to its values.

    Args:
        view: The cache.
        layer: The layer.
        width: The width of one head.

    Raises:
        ResidscopeError: If attention has no single linear map to its values, or the map cannot be read.
    """
    attention = getattr(view.model.blocks[layer], "attn", None)
    module = getattr(attention, "v", None)
    plain = view.facts.once(("plain", layer, "v"), lambda: (module is None or is_plain(module),))[0]
    if not plain:
        found = kept_map(view, ("input map", layer, "v"), module)
        matrix, bias = found.matrix, found.bias
    else:
        matrix, bias = _attribute(attention, "W_V"), _attribute(attention, "b_V")
        owner = module if module is not None else attention
        matrix = None if matrix is None else stored_values(owner, "W_V", matrix)
        bias = None if bias is None else stored_values(owner, "b_V", bias)
    if matrix is not None and matrix.ndim == 2 and matrix.shape[1] % width == 0:
        matrix = rearrange(matrix, "d_model (group d_head) -> group d_model d_head", d_head=width)
    bias = None if bias is None else bias.reshape(-1, width)
    is_map = matrix is not None and matrix.ndim == 3 and tuple(matrix.shape[1:]) == (int(view.cfg.d_model), width)
    if matrix is None or not is_map or (bias is not None and len(bias) != len(matrix)):
        raise ResidscopeError(
            "head-inputs",
            f"The values of layer {layer} are not one linear map of what attention reads, so the outputs of earlier "
            "components cannot be followed through them. Reasons may be latent attention, or layers that share values.",
        )
    return ValueMap(matrix, bias)


def latent_values(view: CacheView, layer: int, head: int, shape: tuple[int, int]) -> LatentValues | None:
    """Return how a head of latent attention computes its values. None if the layer has another kind of attention.

    Args:
        view: The cache.
        layer: The layer.
        head: The head.
        shape: The number of heads, and the width of one head's values.

    Raises:
        ResidscopeError: If a map cannot be read. The message says why.
    """
    attention = getattr(view.model.blocks[layer], "attn", None)
    modules = [getattr(attention, name, None) for name in ("kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj")]
    if any(module is None for module in modules):
        return None
    (count, width), (first, norm, second) = shape, modules
    down, up = _whole_map(view, layer, "kv_a", first), _whole_map(view, layer, "kv_b", second)
    rank, columns = up.matrix.shape[0], up.matrix.shape[1] // count
    if down.matrix.shape[1] < rank or columns < width:
        return None
    # Each head's columns hold first the part of its key that is not rotated, then its value.
    own = slice(head * columns + columns - width, (head + 1) * columns)
    return LatentValues(
        down.matrix[:, :rank],
        None if down.bias is None else down.bias[:rank],
        Norm.of(norm, view),
        f"blocks.{layer}.attn.kv_a_layernorm",
        up.matrix[:, own],
        None if up.bias is None else up.bias[own],
    )


def _whole_map(view: CacheView, layer: int, which: str, module: object) -> LinearMap:
    """The linear map of a module."""
    plain = view.facts.once(("plain", layer, which), lambda: (is_plain(module),))[0]
    linear = wrapped(module)
    if not plain or not hasattr(linear, "out_features"):
        return kept_map(view, ("input map", layer, which), module)
    return LinearMap(stored_values(module, "weight", linear.weight).T, parameter(linear, None, "bias"), made=False)


def _attribute(owner: object, name: str) -> Tensor | None:
    with suppress(Exception):  # TransformerLens raises for weights that a layer does not have
        return tensor_of(getattr(owner, name, None))
    return None


def neuron_parts(view: CacheView, layer: int) -> tuple[NeuronPart, ...]:
    """Return the names of a neuron's inputs: `gate` and `up` if the layer's MLP is gated, otherwise `pre`."""
    return ("gate", "up") if _gate_of(view, layer) is not None else ("pre",)


def neuron_map(view: CacheView, layer: int, index: int, part: NeuronPart) -> NeuronMap:
    """Return the linear map of one input of a neuron. If the MLP is gated, "pre" means the gate.

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
        found = kept_map(view, ("input map", layer, side), module)
        matrix, bias = found.matrix, found.bias
    else:
        matrix, bias = _attribute(mlp, f"W_{side}"), _attribute(mlp, f"b_{side}")
        if module is None and gated:  # a `HookedTransformer` adds the bias of a gated MLP after the product
            bias = None
        owner = module if module is not None else mlp
        matrix = None if matrix is None else stored_values(owner, f"W_{side}", matrix)
        bias = None if bias is None else stored_values(owner, f"b_{side}", bias)
    if matrix is None or tuple(matrix.shape) != (int(view.cfg.d_model), count):
        raise ResidscopeError(
            "no-neurons", f"What the neurons of layer {layer} read is not one linear map of the MLP's input."
        )
    return NeuronMap(matrix[:, index].to(view.like), 0.0 if bias is None else float(bias[index]), names)


def check_neuron(view: CacheView, layer: int, index: int, part: NeuronPart) -> int:
    """Refuse a neuron or a part that a layer does not have. Return the layer's number of neurons."""
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


def _submodule(mlp: object, side: Literal["in", "gate"]) -> Any:
    return getattr(mlp, side, None) if hasattr(mlp, side) else getattr(mlp, f"dense_{side}", None)


def _gate_of(view: CacheView, layer: int) -> Any:
    """The gate of a gated MLP, a module or a weight. None if the MLP has none."""
    mlp = getattr(view.model.blocks[layer], "mlp", None)
    module = _submodule(mlp, "gate")
    return _attribute(mlp, "W_gate") if module is None else module
