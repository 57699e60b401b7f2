"""Finds the random generators that the runs of a model draw from, and keeps their states to restore them later.

The generators belong to the process, and another thread of the user may draw from them during our runs. So only the
generators that runs of the model use get their earlier state back. Each replay finds them: their states before and
after the replay differ.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from residscope.cache.structure_notes import in_training
from residscope.causes.hooks import has_user_hooks

T = TypeVar("T")

_drawn_from: WeakKeyDictionary[object, frozenset[str]] = WeakKeyDictionary()
"""Which generators the last replay of each model drew from."""


@dataclass(frozen=True)
class Generator:
    """The state of a random generator.

    Attributes:
        name: Its name.
        state: Its state.
        put_back: Gives the generator this state again.
    """

    name: str
    state: Any
    put_back: Callable[[], object]


def generators() -> list[Generator]:
    """The random generators of the process, with their present states."""
    import torch

    state, own = torch.get_rng_state(), random.getstate()
    found = [
        Generator("torch", state, lambda: torch.set_rng_state(state)),
        Generator("random", own, lambda: random.setstate(own)),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        devices = torch.cuda.get_rng_state_all()
        found.append(Generator("cuda", devices, lambda: torch.cuda.set_rng_state_all(devices)))
    if getattr(torch, "mps", None) is not None and torch.backends.mps.is_available():
        mps = torch.mps.get_rng_state()
        found.append(Generator("mps", mps, lambda: torch.mps.set_rng_state(mps)))
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        drawn = numpy.random.get_state()
        found.append(Generator("numpy", drawn, lambda: numpy.random.set_state(drawn)))
    return found


def watched(model: object, run: Callable[[], T]) -> T:
    """Run the model, and remember which generators were drawn from during the run."""
    before = generators()
    result = run()
    now = {one.name: one.state for one in generators()}
    drawn = frozenset(one.name for one in before if one.name not in now or not _equal(one.state, now[one.name]))
    with suppress(TypeError):  # if it cannot be remembered for this model, `used_by` returns None
        _drawn_from[model] = drawn
    return result


def may_draw(model: object) -> bool:
    """Whether two runs of a model may draw from different generators: it has hooks of the user, or is in training."""
    return in_training(model) or has_user_hooks(model)


def used_by(model: object) -> frozenset[str] | None:
    """The names of the generators that the last replay of a model drew from. None if they are not known."""
    try:
        return _drawn_from.get(model)
    except TypeError:
        return None


def _equal(one: Any, other: Any) -> bool:
    """Whether two states are the same: numbers, tensors, arrays, and tuples and lists of these."""
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    same = one == other
    return bool(same.all() if hasattr(same, "all") else same)
