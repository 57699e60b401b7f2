"""Reads a model's weights from its modules, including offloaded weights. If this fails, an error says why."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


def wrapped(module: object) -> Any:
    """Return the layer that a bridge's component wraps. Any other module is returned unchanged."""
    for _ in range(8):
        inner = getattr(module, "original_component", None)
        if inner is None:
            break
        module = inner
    return module


def is_plain(module: Any) -> bool:
    """Return whether a layer's class is in `known_layers`, its `forward` is not replaced, and its weight can be read.

    True if `module` is None. A `forward` that accelerate replaced is allowed.
    """
    import torch

    module = wrapped(module)
    if module is None:
        return True
    if type(module) not in known_layers() or ("forward" in vars(module) and not hasattr(module, "_hf_hook")):
        return False
    weight = module.weight
    return type(weight) in (torch.Tensor, torch.nn.Parameter) and unusable(weight) is None


def known_layers() -> tuple[type, ...]:
    """Return the classes whose `forward` multiplies by the weight and adds the bias, or returns rows of the weight."""
    import sys

    from torch import nn

    conv = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", nn.Linear)
    return nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear, nn.Embedding, conv


def unusable(tensor: Any) -> str | None:
    """Return why a tensor's values cannot be used directly, in words that follow "its weight". None if they can."""
    if not hasattr(tensor, "detach"):
        return f"is a `{type(tensor).__name__}`, not a tensor"
    if any(cls.__name__ == "DTensor" for cls in type(tensor).__mro__):
        return "is sharded over several processes (DTensor): gather it first (`full_tensor()`)"
    if tensor.is_meta:
        return "is on the `meta` device (offloaded or deleted), without values: load the model without offloading"
    if _emptied(tensor):
        return "was emptied (its memory was freed): load the model's weights again"
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"is stored as {kind}, which has no meaning without its scale: load the model unquantised"
    return None


def _emptied(tensor: Tensor) -> bool:
    try:
        return tensor.numel() == 0 or tensor.untyped_storage().nbytes() == 0
    except (RuntimeError, NotImplementedError):  # a tensor subclass that consists of other tensors
        return False


def stored_values(owner: object, name: str, tensor: Tensor) -> Tensor:
    """Return a parameter's values: the tensor itself, or the tensor that accelerate keeps elsewhere in its place.

    Raises:
        ResidscopeError: If the values are not available.
    """
    why = unusable(tensor)
    if why is None:
        return tensor.detach()
    kept = _offloaded(owner, name) if tensor.is_meta else None
    if kept is not None and unusable(kept) is None:
        return kept.detach()
    raise unreadable_layer(owner, f"cannot be read: its `{name}` {why}")


def tensors_of(layer: Any) -> list[Any]:
    """Return the parameters and buffers of a layer and of all modules inside it."""
    return [*layer.parameters(), *layer.buffers()]


def _offloaded(owner: object, name: str) -> Tensor | None:
    """A weight that accelerate keeps elsewhere between runs. None for other weights."""
    pending = [getattr(wrapped(owner), "_hf_hook", None)]
    while pending:
        hook = pending.pop()
        pending += list(getattr(hook, "hooks", ()))
        weights = getattr(hook, "weights_map", None)
        if weights is not None:
            try:
                return weights[name]
            except KeyError:
                continue
    return None


def unreadable_layer(module: object, why: str) -> ResidscopeError:
    """Return the error for a layer whose linear map cannot be read. The message names the layer and the reason.

    Args:
        module: The layer, or the bridge's component for it.
        why: The reason, in words that follow "What … does".
    """
    name = getattr(getattr(module, "hook_out", None), "name", None)  # TransformerLens: the module's path
    what = f"`{name.removesuffix('.hook_out')}` (`{type(wrapped(module)).__name__}`)" if isinstance(name, str) else ""
    return ResidscopeError(
        "weights", f"What {what or f'`{type(wrapped(module)).__name__}`'} does {why}.{_hint(module, why)}"
    )


def _hint(module: object, why: str) -> str:
    """What the user can do, as a sentence. Empty if `why` already says it, or if the reason is not known."""
    layer = wrapped(module)
    if ": " in why or ". " in why or not hasattr(layer, "modules"):
        return ""
    if any(hasattr(inner, "base_layer") or hasattr(inner, "merge") for inner in layer.modules()):
        return " Merge its adapters (`merge_and_unload()`)."
    if any(not tensor.is_floating_point() or tensor.element_size() < 2 for tensor in tensors_of(layer)):
        return " Load it unquantised."
    return ""


def parameter(module: object, like: Tensor | None, *names: str) -> Tensor | None:
    """Return the first of these parameters that the module has. None if it has none.

    If `like` is given, the result has the device and the dtype of `like`.
    """
    for name in names:
        found = tensor_of(getattr(module, name, None))
        if found is not None:
            values = stored_values(module, name, found)
            return values if like is None else values.to(like)
    return None


def weight_of(model: object, part: str, name: str) -> Tensor | None:
    """Return a weight that is an attribute of the model or of one of its modules: `model.W_U`, `model.unembed.W_U`.

    None if there is no such attribute.
    """
    owners = (model, getattr(model, part, None))
    for owner in owners:
        with suppress(Exception):  # a bridge raises if its layer has no `weight`
            found = tensor_of(getattr(owner, name, None))
            if found is not None:
                return found
    return None


def embedding_size(model: object) -> int | None:
    """Return the number of tokens that the model embeds, which may differ from the tokenizer's. None if not known."""
    declared = getattr(wrapped(getattr(model, "embed", None)), "num_embeddings", None)
    if isinstance(declared, int):
        return declared
    W_E = weight_of(model, "embed", "W_E")
    if W_E is not None and W_E.ndim == 2 and len(W_E):
        return len(W_E)
    declared = getattr(getattr(model, "cfg", None), "d_vocab", None)
    return declared if isinstance(declared, int) and declared > 0 else None


def tensor_of(value: Any) -> Tensor | None:
    """Return the value as a detached tensor. None if it is not a tensor."""
    return value.detach() if hasattr(value, "detach") else None
