"""Reads the linear map from a sublayer's heads or neurons to its output: its weights, its bias, its rounding."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from einops import rearrange

from residscope.cache.linear_maps import LinearMap, call_conditions, linear_map_of, why_not_linear
from residscope.cache.view import CacheView
from residscope.cache.weights import is_plain, parameter, stored_values, tensor_of
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def out_weight(view: CacheView, layer: int) -> Float[Tensor, "head d_head d_model"] | None:
    """The output weights of a layer's heads. None if it has no heads, or if the weights cannot be read."""
    return _output_map(view, layer, "attn").weight


def out_bias(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> Float[Tensor, " d_model"] | None:
    """The bias that a sublayer adds to the sum of its heads or neurons."""
    return _output_map(view, layer, part).bias


def why_unread(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> str | None:
    """Why a sublayer's output weights cannot be read, as a sentence. None if they can be read, or do not exist."""
    return _output_map(view, layer, part).why_unread


def coarse(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> float:
    """The relative rounding error of a sublayer's linear map, as measured on test vectors. 0 for plain weights."""
    return _output_map(view, layer, part).rounding


class _OutputMap(NamedTuple):
    """The linear map from a sublayer's heads or neurons to its output.

    Attributes:
        weight: The weight. None if the sublayer has no weight, or the weight cannot be read.
        bias: The bias, if any.
        why_unread: Why the weight cannot be read, as a sentence.
        rounding: The relative rounding error of the map on test vectors. 0 for plain weights.
        nbytes: Bytes of memory that keeping the map takes.
    """

    weight: Tensor | None = None
    bias: Tensor | None = None
    why_unread: str | None = None
    rounding: float = 0.0
    nbytes: int = 0


def _output_map(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> _OutputMap:
    """The map, memoised. If the layer's class is unknown, the map is also tested on the inputs of this run."""
    z = view.activations.get(f"blocks.{layer}.attn.hook_z") if part == "attn" else None
    shape = None if z is None else tuple(z.shape[-2:])
    sublayer = getattr(view.model.blocks[layer], part, None)
    module = getattr(sublayer, {"attn": "o", "mlp": "out"}[part], None)
    plain = view.facts.once(("plain", layer, part), lambda: (module is None or is_plain(module),))[0]
    unknown = None if plain else module
    key = ("writes", layer, part, shape, *(() if unknown is None else call_conditions(unknown, view)))
    found = view.facts.once(key, lambda: _read(view, part, sublayer, unknown, shape), lambda kept: kept.nbytes)
    if found.weight is None or unknown is None:
        return found
    # A layer that is linear on test vectors may still not be linear on the vectors of this run.
    run, matrix = view.root, found.weight.flatten(0, -2)
    tested = ("tried", *key)
    why = run.memo.once(tested, lambda: (_why_not_in_run(run, layer, part, unknown, LinearMap(matrix, found.bias)),))[0]
    return found if why is None else _OutputMap(why_unread=why)


def _why_not_in_run(
    view: CacheView, layer: int, part: Literal["attn", "mlp"], module: object, found: LinearMap
) -> str | None:
    """Why the layer did not apply this map in the cached run. None if it did, or if its input was not cached."""
    name = f"blocks.{layer}.{'attn.hook_z' if part == 'attn' else 'mlp.hook_post'}"
    layer_input = view.activations.get(name)
    if layer_input is None or layer_input.numel() == 0 or layer_input.numel() % found.matrix.shape[0]:
        return None
    return why_not_linear(module, view, found, working(layer_input.detach()).reshape(-1, found.matrix.shape[0]))


def _read(
    view: CacheView, part: Literal["attn", "mlp"], sublayer: object, unknown: object, shape: tuple[int, ...] | None
) -> _OutputMap:
    """Read the map from the weights. If `unknown` (a layer of unknown class) is given, call it to compute the map."""
    try:
        if unknown is not None:
            found = linear_map_of(unknown, view, None if shape is None else shape[0] * shape[1])
            matrix = found.matrix
            if part == "attn":
                heads = int(view.cfg.n_heads) if shape is None else shape[0]
                if matrix.shape[0] % heads:
                    return _OutputMap()
                matrix = rearrange(matrix, "(head d_head) d_model -> head d_head d_model", head=heads)
            return _OutputMap(matrix, found.bias, None, found.rounding, found.size)
        end = {"attn": "O", "mlp": "out"}[part]
        own = _out_weight(sublayer, shape) if part == "attn" else _neuron_weight(sublayer)
        matrix = None if own is None else stored_values(sublayer, f"W_{end}", own)
        loaded = 0 if matrix is None or own is None or not own.is_meta else matrix.nbytes
        return _OutputMap(matrix, parameter(sublayer, None, f"b_{end}"), nbytes=loaded)
    except ResidscopeError as error:
        if error.code != "weights":
            raise
        return _OutputMap(why_unread=str(error))


def _out_weight(attention: object, shape: tuple[int, ...] | None) -> Tensor | None:
    with suppress(Exception):  # TransformerLens raises if layers differ in the number or width of their heads
        W_O = tensor_of(getattr(attention, "W_O", None))
        if W_O is not None and W_O.ndim == 3:
            return W_O
    weight = tensor_of(getattr(getattr(attention, "o", None), "weight", None))
    if weight is None or shape is None or weight.shape[-1] != shape[0] * shape[1]:
        return None
    return rearrange(weight, "d_model (head d_head) -> head d_head d_model", head=shape[0])


def neuron_weight(view: CacheView, layer: int) -> Float[Tensor, "d_mlp d_model"] | None:
    """The output weights of a layer's neurons. None if the MLP has no single matrix, or the matrix cannot be read.

    A mixture of experts has no single matrix.
    """
    return _output_map(view, layer, "mlp").weight


def _neuron_weight(mlp: object) -> Tensor | None:
    W_out = None
    with suppress(NotImplementedError):  # TransformerLens raises for a packed weight
        W_out = tensor_of(getattr(mlp, "W_out", None))
    return W_out if W_out is not None and W_out.ndim == 2 else None
