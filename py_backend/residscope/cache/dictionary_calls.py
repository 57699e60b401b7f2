"""Calls the methods of a user's SAE, and restores the state of the SAE afterwards."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from residscope.base.legible import cut
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class KeptState:
    """The attributes of an SAE and of all modules in it, and the values of buffers.

    Some SAEs store values in their attributes while they run, such as the scale of their input.

    Attributes:
        attributes: Each dictionary of attributes, and a copy of it.
        buffers: Each buffer of a module in training mode, its version, and a copy of its values.
    """

    attributes: list[tuple[dict[str, object], dict[str, object]]]
    buffers: list[tuple[Tensor, int, Tensor]]

    def restore(self) -> None:
        """Set all attributes and buffers back to the kept values."""
        for now, before in self.attributes:
            if now.keys() != before.keys() or any(now[name] is not before[name] for name in before):
                for name in now.keys() - before.keys():
                    del now[name]
                now.update(before)
        for buffer, version, values in self.buffers:
            if buffer._version != version:
                buffer.copy_(values)


_OWN = ("_parameters", "_buffers", "_modules")


def kept_state(sae: Any) -> KeptState:
    """Return the present state of an SAE."""
    modules = list(sae.modules()) if callable(getattr(sae, "modules", None)) else [sae]
    owners = [vars(module) for module in modules if hasattr(module, "__dict__")]
    owners += [owner[name] for owner in owners for name in _OWN if isinstance(owner.get(name), dict)]
    buffers = [
        buffer
        for module in modules
        if getattr(module, "training", False)
        for buffer in (getattr(module, "_buffers", None) or {}).values()
        if buffer is not None and not buffer.is_inference()
    ]
    values = [(buffer, buffer._version, buffer.detach().clone()) for buffer in buffers]
    return KeptState([(owner, dict(owner)) for owner in owners], values)


@contextmanager
def as_found(sae: Any) -> Generator[None, None, None]:
    """Restore the state of the SAE and of PyTorch's random generators after the block."""
    import torch

    weight: Any = sae.W_dec
    devices = [weight.device] if weight.device.type == "cuda" else []
    state = kept_state(sae)
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            state.restore()


def called(name: str, sae: object, method: str, given: Tensor, wanted: str) -> Tensor:
    """Call a method of an SAE, and return its result as a detached, dense tensor.

    Args:
        name: The SAE in words, for messages.
        sae: The SAE.
        method: The method.
        given: Its argument.
        wanted: What the method should return, in words.

    Raises:
        ResidscopeError: If the method raises an exception, or does not return a tensor of floats.
    """
    import torch

    try:
        found = getattr(sae, method)(given)
    except Exception as error:
        kind = str(given.dtype).removeprefix("torch.")
        raise ResidscopeError(
            "sae",
            f"The {name} was given a tensor of shape {list(given.shape)} ({kind}, on {given.device}): "
            f"`{method}` raises {type(error).__name__}: {cut(str(error), 200)}",
        ) from error
    if not isinstance(found, torch.Tensor) or not found.is_floating_point():
        raise ResidscopeError(
            "sae", f"The {name}: `{method}` returns a `{type(found).__name__}`, not a tensor of {wanted}."
        )
    found = found.detach()
    return found.to_dense() if found.layout != torch.strided else found
