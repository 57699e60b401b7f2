"""Reads the weight and the bias of the linear map that computes one head's queries or keys."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from einops import rearrange

from residscope.cache.linear_maps import kept_map
from residscope.cache.view import CacheView
from residscope.cache.weights import is_plain, parameter, stored_values, tensor_of
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SideName = Literal["q", "k"]
LETTER: dict[SideName, str] = {"q": "Q", "k": "K"}
WORDS: dict[SideName, str] = {"q": "queries", "k": "keys"}


@dataclass(frozen=True)
class HeadMap:
    """The linear map that computes one head's queries or keys from x, the input of attention: x @ matrix + bias.

    Attributes:
        matrix: The weight. If possible, it shares memory with the layer's own weight.
        bias: The bias, if any.
    """

    matrix: Float[Tensor, "d_model d_head"]
    bias: Float[Tensor, " d_head"] | None


def head_map(view: CacheView, layer: int, side: SideName, index: int, count: int, width: int) -> HeadMap:
    """Return the linear map that computes a head's queries or keys.

    Args:
        view: The cache.
        layer: The layer.
        side: Queries or keys.
        index: The index of the head. For keys, the index of the key/value head.
        count: The number of heads. For keys, the number of key/value heads.
        width: The width of one head's queries or keys.

    Raises:
        ResidscopeError: If the weights cannot be read. The message names the layer.
    """
    attention = getattr(view.model.blocks[layer], "attn", None)
    letter = LETTER[side]
    module = getattr(attention, side, None)
    if module is not None and not is_plain(module):
        found = kept_map(view, ("projection", layer, side), module, int(view.cfg.d_model))
        matrix = rearrange(found.matrix, "d_model units -> units d_model")
        return _cut(matrix, found.bias, index, count, width, view, layer, side)
    for prefix in ("_", ""):  # with grouped queries, a `HookedTransformer` stores one weight per group in `_W_K`
        weight, bias = (_attribute(attention, f"{prefix}{kind}_{letter}") for kind in ("W", "b"))
        if weight is not None and weight.ndim == 3 and weight.shape[0] == count and weight.shape[-1] == width:
            owner = module if module is not None else attention
            weight = stored_values(owner, f"{prefix}W_{letter}", weight)
            bias = None if bias is None else stored_values(owner, f"{prefix}b_{letter}", bias)
            return HeadMap(weight[index], None if bias is None else bias.reshape(count, -1)[index])
    linear: Any = getattr(module, "original_component", module)
    own = tensor_of(getattr(linear, "weight", None))
    if own is None:
        raise _unread(view, layer, side)
    own = stored_values(module, "weight", own)
    matrix = own.T if "Conv1D" in type(linear).__name__ else own
    return _cut(matrix, parameter(linear, None, "bias"), index, count, width, view, layer, side)


def _attribute(owner: object, name: str) -> Tensor | None:
    with suppress(Exception):  # TransformerLens raises if layers differ in the number or width of their heads
        return tensor_of(getattr(owner, name, None))
    return None


def _cut(
    units: Float[Tensor, "units d_model"],
    bias: Tensor | None,
    index: int,
    count: int,
    width: int,
    view: CacheView,
    layer: int,
    side: SideName,
) -> HeadMap:
    """One head's part of the weight and the bias. If a head has further units (a gate), its queries come first."""
    if units.shape[0] % count or units.shape[0] // count < width:
        raise _unread(view, layer, side)
    start = index * (units.shape[0] // count)
    part = slice(start, start + width)
    return HeadMap(units[part].T, None if bias is None else bias[part])


def _unread(view: CacheView, layer: int, side: SideName) -> ResidscopeError:
    kind = type(getattr(view.model.blocks[layer], "attn", None)).__name__
    return ResidscopeError(
        "attention",
        f"The weights of the {WORDS[side]} in layer {layer} (`{kind}`) cannot be read for each head, so attention "
        "scores of this layer cannot be attributed. Its attention patterns can be shown, and logits can be attributed.",
    )
