"""Tracks whether an SAE changed since it was first seen: its weights and its settings.

None of the user's code runs: attributes are read from the objects' own dictionaries. Changes that PyTorch does not
count (`sae.W_dec.data.mul_(2)`) are noticed by samples of the values, as for a model's weights.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from residscope.compute.samples import Samples
from residscope.session.class_kinds import kind_of
from residscope.session.tensor_snapshot import Snapshot, key_of_tensors
from residscope.session.weights_state import new_id

if TYPE_CHECKING:
    from torch import Tensor

_MOST_OBJECTS = 1_000
"""At most this many modules of an SAE are read."""

_lock = threading.Lock()
_known: dict[int, _SaeState] = {}
"""The states of the SAEs that still exist, by address."""


def state_of(sae: Any, *, is_compared: bool = True) -> str:
    """Return the state of an SAE. Another SAE has another state, and so has the same SAE after a change.

    Empty if the SAE cannot be tracked, because its class allows no weak references.

    Args:
        sae: The SAE.
        is_compared: Whether to look for changes. If not, the state is the one that was found last.
    """
    with _lock:
        known = _known.get(id(sae))
        if known is None or known.sae() is not sae:
            try:
                known = _known[id(sae)] = _SaeState(sae)
            except TypeError:
                return ""
        return known.compare(sae, is_compared=is_compared)


class _SaeState:
    """The last seen state of one SAE."""

    def __init__(self, sae: Any) -> None:
        key = id(sae)
        self.sae = weakref.ref(sae, lambda _gone, known=_known: known.pop(key, None))
        self._id, self._changes = new_id(), 0
        self._last: Snapshot | None = None
        self._samples = Samples([])

    def compare(self, sae: Any, *, is_compared: bool) -> str:
        """Return the state, after a comparison with the present SAE if this is wanted."""
        if self._last is None or is_compared:
            tensors, settings = _contents(sae)
            key = key_of_tensors(tensors, with_address=True)
            is_same = self._last is not None and self._last.matches(key, settings)
            if not is_same:
                self._changes += self._last is not None
                self._last, self._samples = Snapshot(tensors, key, settings), Samples(tensors)
                self._samples.changed(tensors)
            elif self._samples.changed(tensors):
                self._changes += 1
        return f"{self._id}.{self._changes}"


def _contents(sae: Any) -> tuple[list[Tensor], list[tuple[str, str]]]:
    """The tensors of an SAE and of all modules in it, and the settings: attributes that are numbers, texts or bools."""
    import torch

    tensors: dict[int, Tensor] = {}
    settings: list[tuple[str, str]] = []
    seen, stack = {id(sae)}, [sae]
    while stack and len(seen) <= _MOST_OBJECTS:
        own = _attributes(stack.pop())
        held = [own, *(_attributes(own.get(name)) for name in ("_parameters", "_buffers"))]
        tensors.update((id(one), one) for some in held for one in some.values() if issubclass(type(one), torch.Tensor))
        cfg = _attributes(own.get("cfg"))
        for some in (own, cfg, _attributes(cfg.get("metadata"))):
            settings += [(name, repr(one)) for name, one in some.items() if type(one) in (bool, int, float, str)]
        for module in _attributes(own.get("_modules")).values():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                stack.append(module)
    return list(tensors.values()), settings


def _attributes(value: Any) -> dict[str, Any]:
    """A copy of a dictionary's entries, or of another object's attributes. A cell may add some at the same time."""
    kind = kind_of(type(value))
    held = value if kind.base is dict else kind.attributes(value)
    return {name: one for name, one in dict.copy(held or {}).items() if type(name) is str}
