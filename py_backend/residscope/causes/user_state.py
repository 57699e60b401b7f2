"""Restores what belongs to the user after a run: random generators, the default dtype, modules' attributes."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from residscope.causes.hooks import alive, all_modules, surely
from residscope.compute.torch_context import in_torch_context

T = TypeVar("T")

_PLAIN = (bool, int, float, str, type(None))


def keeping_user_state(model: Any, device: Any, work: Callable[[], T]) -> T:
    """Call `work`, which runs the model, without gradients and autocast. Then restore the user's state.

    A run may draw random numbers, and some models store the batch size in an attribute of a module.
    """
    import torch

    kind = torch.get_default_dtype()
    generators, attributes, before = _generators(), _attributes(model), len(alive())

    def restore() -> None:
        for own in alive()[before:]:
            own.remove()
        torch.set_default_dtype(kind)
        for put_back in generators:
            put_back()
        _put_back(attributes)

    try:
        try:
            return in_torch_context(device, work)
        finally:
            surely(restore)
    finally:  # again, because an interrupt may have come just before
        surely(restore)


def _generators() -> list[Callable[[], None]]:
    """For each random generator, a function that restores its present state."""
    import torch

    state, own = torch.get_rng_state(), random.getstate()
    back: list[Callable[[], None]] = [lambda: torch.set_rng_state(state), lambda: random.setstate(own)]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        devices = torch.cuda.get_rng_state_all()
        back.append(lambda: torch.cuda.set_rng_state_all(devices))
    if getattr(torch, "mps", None) is not None and torch.backends.mps.is_available():
        mps = torch.mps.get_rng_state()
        back.append(lambda: torch.mps.set_rng_state(mps))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        drawn = numpy.random.get_state()
        back.append(lambda: numpy.random.set_state(drawn))
    return back


def _attributes(model: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The modules' attributes with plain values, such as the batch size of the last run."""
    held: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for module in all_modules(model):
        own = vars(module)
        held.append((own, {name: value for name, value in own.items() if isinstance(value, _PLAIN)}))
    return held


def _put_back(attributes: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    for own, before in attributes:
        for name, value in before.items():
            if own.get(name, before) is not value:
                own[name] = value
