"""Calls the methods of a user's SAE on a copy of the SAE, so that the user's SAE is never changed.

Some SAEs store values in their attributes or buffers while they run, such as the scale of their input. A cell of the
user may train the SAE at the same time. So values cannot be restored afterwards: this would undo the cell's work.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import CellType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from residscope.base.legible import cut
from residscope.compute.random_state import random_state_restored
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def called_on_copy(sae: Any) -> Generator[Any, None, None]:
    """A copy of an SAE whose methods may be called. All random generators are restored after the block."""
    with random_state_restored(sae.W_dec.device):
        yield copy_of(sae)


_OWN = ("_parameters", "_buffers", "_modules")


def copy_of(sae: Any) -> Any:
    """Return a copy of an SAE with copies of all modules in it. Weights are shared.

    In training mode, buffers are copied, because `encode` may then write to them. An object whose attributes are not
    all in a dictionary (`__slots__`) cannot be copied in this way: then the SAE itself is returned.
    """
    modules: list[Any] = list(sae.modules()) if callable(getattr(sae, "modules", None)) else [sae]
    copies: dict[int, Any] = {}
    for module in modules:
        cls = type(module)
        if cls.__new__ is not object.__new__ or any(vars(base).get("__slots__") for base in cls.__mro__):
            return sae
        copies[id(module)] = object.__new__(cls)
    for module in modules:
        own, is_training = vars(copies[id(module)]), getattr(module, "training", False)
        own.update(vars(module))
        for name in _OWN:
            if isinstance(own.get(name), dict):
                own[name] = own[name].copy()
        if is_training and isinstance(own.get("_buffers"), dict):
            clones = {name: None if buffer is None else buffer.clone() for name, buffer in own["_buffers"].items()}
            own["_buffers"].update(clones)
        for values in (own, own.get("_modules", {})):
            values.update({name: _rebound(value, copies) for name, value in values.items()})
    return copies[id(sae)]


def _rebound(value: Any, copies: dict[int, Any]) -> Any:
    """A value of an attribute, with the copies in the place of the modules that it refers to."""
    if id(value) in copies:
        return copies[id(value)]
    if isinstance(value, MethodType) and id(value.__self__) in copies:
        return MethodType(value.__func__, copies[id(value.__self__)])
    return _rebound_function(value, copies) if isinstance(value, FunctionType) else value


def _rebound_function(function: FunctionType, copies: dict[int, Any]) -> FunctionType:
    """A function that refers to the copies: through its closure, its defaults, or global variables of a notebook."""
    copies[id(function)] = function  # a function may refer to itself
    cells = [_rebound_cell(cell, copies) for cell in function.__closure__ or ()]
    read = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    replaced = {name: copies[id(value)] for name, value in read.items() if id(value) in copies}
    every = {**function.__globals__, **replaced} if replaced else function.__globals__
    defaults = function.__defaults__ and tuple(_rebound(value, copies) for value in function.__defaults__)
    copied = FunctionType(function.__code__, every, function.__name__, defaults, tuple(cells))
    named = function.__kwdefaults__
    copied.__kwdefaults__ = named and {name: _rebound(value, copies) for name, value in named.items()}
    copies[id(function)] = copied
    return copied


def _rebound_cell(cell: CellType, copies: dict[int, Any]) -> CellType:
    try:
        return CellType(_rebound(cell.cell_contents, copies))
    except ValueError:  # the variable has no value yet
        return cell


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
