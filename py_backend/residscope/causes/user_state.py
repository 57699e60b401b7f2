"""After a run, restores what belongs to the user: random generators, the default dtype, modules' attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from residscope.causes.generators import generators, may_draw, used_by
from residscope.causes.hooks import alive, all_modules, surely
from residscope.compute.torch_context import in_torch_context

T = TypeVar("T")

_PLAIN = (bool, int, float, str, type(None))


def keeping_user_state(model: object, device: Any, work: Callable[[], T]) -> T:
    """Call `work`, which runs the model, without gradients and autocast. Then restore the user's state.

    A run may draw random numbers, and some models store the batch size in an attribute of a module. Some changes by
    other threads during the run are kept: `model.train()`, and the states of generators that this model does not use.
    """
    import torch

    kind = torch.get_default_dtype()
    states, attributes, before = generators(), _attributes(model), len(alive())
    any_may_be_used = may_draw(model)

    def restore() -> None:
        for own in alive()[before:]:
            own.remove()
        torch.set_default_dtype(kind)
        used = None if any_may_be_used else used_by(model)
        for generator in states:
            if used is None or generator.name in used:
                generator.put_back()
        _put_back(attributes)

    try:
        try:
            return in_torch_context(device, work)
        finally:
            surely(restore)
    finally:  # again, because an interrupt may have come just before the first `surely`
        surely(restore)


def _attributes(model: object) -> list[tuple[dict[str, object], dict[str, object]]]:
    """The modules' attributes with plain values, such as the batch size of the last run.

    The attribute `training` is left out: no run changes it, but another thread of the user may change it.
    """
    held: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for module in all_modules(model):
        own = vars(module)
        plain = {name: value for name, value in own.items() if isinstance(value, _PLAIN) and name != "training"}
        held.append((own, plain))
    return held


def _put_back(attributes: list[tuple[dict[str, object], dict[str, object]]]) -> None:
    for own, before in attributes:
        for name, value in before.items():
            if own.get(name, before) is not value:  # a deleted attribute gives `before`, which is never `value`
                own[name] = value
