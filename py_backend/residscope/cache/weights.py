"""A model's weights as its modules hold them: which of them can be read as they are, and where else they are kept."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


def wrapped(module: Any) -> Any:
    """The layer that a bridge's component stands for; the module itself where it stands for none."""
    for _ in range(8):
        inner = getattr(module, "original_component", None)
        if inner is None:
            break
        module = inner
    return module


def is_plain(module: Any) -> bool:
    """Whether a layer is known to apply its `weight`, whose figures are there."""
    import torch

    module = wrapped(module)
    if module is None:
        return True
    if type(module) not in known_layers() or ("forward" in vars(module) and not hasattr(module, "_hf_hook")):
        return False
    weight = module.weight
    return type(weight) in (torch.Tensor, torch.nn.Parameter) and unusable(weight) is None


def known_layers() -> tuple[type, ...]:
    """Classes whose `forward` is x @ weight + bias, or the weight's rows."""
    import sys

    from torch import nn

    conv = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", nn.Linear)
    return nn.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear, nn.Embedding, conv


def unusable(tensor: Any) -> str | None:
    """Why a tensor's figures cannot be taken as they are, in words that follow "its weight"; None where they can."""
    if not hasattr(tensor, "detach"):
        return f"is a `{type(tensor).__name__}`, no tensor"
    if any(cls.__name__ == "DTensor" for cls in type(tensor).__mro__):
        return "is sharded over several processes (DTensor): gather it first (`full_tensor()`)"
    if tensor.is_meta:
        return "is on the `meta` device (offloaded, or thrown away), without figures: load the model without offloading"
    if _emptied(tensor):
        return "was emptied (it has no memory any more): load the model's weights again"
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        kind = str(tensor.dtype).removeprefix("torch.")
        return f"is stored as {kind}, which means nothing without its scale: load the model unquantised"
    return None


def _emptied(tensor: Tensor) -> bool:
    try:
        return tensor.numel() == 0 or tensor.untyped_storage().nbytes() == 0
    except (RuntimeError, NotImplementedError):  # a tensor that has no memory of its own, but is made of others
        return False


def figures(owner: Any, name: str, tensor: Tensor) -> Tensor:
    """A small parameter's figures: as it is, or from where accelerate keeps them.

    Raises:
        ResidscopeError: If they are nowhere to be had.
    """
    why = unusable(tensor)
    if why is None:
        return tensor.detach()
    kept = _offloaded(owner, name) if tensor.is_meta else None
    if kept is not None and unusable(kept) is None:
        return kept.detach()
    raise refused(owner, f"cannot be read: its `{name}` {why}")


def tensors_of(layer: Any) -> list[Any]:
    """The parameters and buffers of a layer, and of all in it."""
    return [*layer.parameters(), *layer.buffers()]


def _offloaded(owner: Any, name: str) -> Tensor | None:
    """A weight that accelerate keeps elsewhere between runs, read from there."""
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


def refused(module: Any, why: str) -> ResidscopeError:
    """The refusal of a layer: which it is, why, and what would help.

    Args:
        module: The layer, or the bridge's component for it.
        why: Follows "What … does".
    """
    name = getattr(getattr(module, "hook_out", None), "name", None)  # TransformerLens names its hooks by their place
    what = f"`{name.removesuffix('.hook_out')}` (`{type(wrapped(module)).__name__}`)" if isinstance(name, str) else ""
    return ResidscopeError(
        "weights", f"What {what or f'`{type(wrapped(module)).__name__}`'} does {why}.{_hint(module, why)}"
    )


def _hint(module: Any, why: str) -> str:
    """What would help, where the layer shows what makes it odd and the reason does not say it already."""
    layer = wrapped(module)
    if ": " in why or ". " in why or not hasattr(layer, "modules"):
        return ""
    if any(hasattr(inner, "base_layer") or hasattr(inner, "merge") for inner in layer.modules()):
        return " Merge its adapters (`merge_and_unload()`)."
    if any(not tensor.is_floating_point() or tensor.element_size() < 2 for tensor in tensors_of(layer)):
        return " Load it unquantised."
    return ""


def parameter(module: Any, like: Tensor, *names: str) -> Tensor | None:
    """The first of the named parameters that the module has, detached, on the device and in the precision of `like`."""
    for name in names:
        found = tensor_of(getattr(module, name, None))
        if found is not None:
            return figures(module, name, found).to(like)
    return None


def weight_of(model: Any, part: str, name: str) -> Tensor | None:
    """A weight that the model names itself, or one of its parts does: `model.W_U`, `model.unembed.W_U`."""
    owners = (model, getattr(model, part, None))
    for owner in owners:
        with suppress(Exception):  # a bridge refuses it where its layer has no `weight`
            found = tensor_of(getattr(owner, name, None))
            if found is not None:
                return found
    return None


def tensor_of(value: Any) -> Tensor | None:
    """The tensor that a module's attribute is, detached; None where it is none."""
    return value.detach() if hasattr(value, "detach") else None
