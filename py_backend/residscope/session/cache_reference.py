"""How a view holds a cache: firmly, or only as long as somebody else does."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from residscope.errors import ResidscopeError

GONE = (
    "This cache is not in memory any more: its variable was deleted or bound to something else. Run the cell that "
    "makes it, and open it again."
)
_GIVEN = "The {} that was given with this cache is not in memory any more: call `residscope.inspect` again."
_LOST: Any = object()


class Referenced(NamedTuple):
    """A cache, and what was given with it."""

    cache: Any
    model: Any = None
    logits: Any = None


class CacheReference:
    """Holds a cache, and the model and logits that were given with it, firmly at first.

    Args:
        cache: The user's `ActivationCache`, or a mapping of activations.
        model: The model, where `cache.model` is not it.
        logits: The model's output as it was given.
        tight: Whether to keep them alive.
    """

    def __init__(self, cache: Any, model: Any = None, logits: Any = None, *, tight: bool = True) -> None:
        self._ways = [_way(part) for part in (cache, model, logits)]
        self._firm: Referenced | None = Referenced(cache, model, logits) if tight else None
        self._released = False

    def get(self) -> Referenced:
        """What is held.

        Raises:
            ResidscopeError: If it is not in memory any more, or was let go of for good.
        """
        if self._released:
            raise ResidscopeError("closed", "This panel was closed: call `residscope.inspect` for a new one.")
        firm = self._firm
        if firm is not None:
            return firm
        parts = [way() for way in self._ways]
        for part, sentence in zip(parts, (GONE, _GIVEN.format("model"), _GIVEN.format("output")), strict=True):
            if part is _LOST:
                raise ResidscopeError("gone", sentence)
        return Referenced(*parts)

    def there(self) -> bool:
        """Whether it is in memory, and not let go of."""
        try:
            self.get()
        except ResidscopeError:
            return False
        return True

    def tighten(self) -> None:
        """Keep it alive from now on, if it still is."""
        with suppress(ResidscopeError):
            self._firm = self.get()

    def loosen(self) -> None:
        """Keep nothing alive: it stays as long as the user has it."""
        self._firm = None

    def release(self) -> None:
        """Let go for good."""
        self._released, self._firm, self._ways = True, None, []


def _way(part: Any) -> Callable[[], Any]:
    """A way to something that does not keep it alive; it leads to `_LOST` once that is gone."""
    if part is None:
        return lambda: None
    try:
        there = weakref.ref(part)
    except TypeError:
        if isinstance(part, Mapping):  # a plain dictionary knows no weak references, but its tensors do
            ways = {name: _way(tensor) for name, tensor in dict[str, Any](part).items()}
            return partial(_gathered, ways)
        return lambda: part  # a few numbers
    return lambda: _LOST if (found := there()) is None else found


def _gathered(ways: dict[str, Callable[[], Any]]) -> Any:
    found = {name: way() for name, way in ways.items()}
    return _LOST if any(tensor is _LOST for tensor in found.values()) else found
