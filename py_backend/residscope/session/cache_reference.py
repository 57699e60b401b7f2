"""A reference from a panel to a cache. The reference either keeps the cache alive or is weak."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from residscope.errors import ResidscopeError

GONE = (
    "This cache was deleted: its variable was deleted, or now holds something else. Run the cell that makes it, and "
    "open it again."
)
_GIVEN = "The {} that was passed with this cache was deleted: call `residscope.inspect` again."
_DELETED: object = object()


class Referenced(NamedTuple):
    """A cache, and the model and logits that were passed with it."""

    cache: Any
    model: Any = None
    logits: Any = None


class CacheReference:
    """A reference to a cache, and to the model and logits that were passed with it.

    Args:
        cache: The user's `ActivationCache`, or a mapping of activations.
        model: The model, if it is not `cache.model`.
        logits: The model's output, as the user passed it.
        keeps_alive: Whether the reference keeps all three alive.
    """

    def __init__(self, cache: object, model: object = None, logits: object = None, *, keeps_alive: bool = True) -> None:
        self._weak = [_weak(value) for value in (cache, model, logits)]
        self._strong: Referenced | None = Referenced(cache, model, logits) if keeps_alive else None
        self._released = False

    def get(self) -> Referenced:
        """Return the cache, the model and the logits.

        Raises:
            ResidscopeError: If one of these was deleted, or the reference was released.
        """
        if self._released:
            raise ResidscopeError("closed", "This panel was closed: call `residscope.inspect` for a new one.")
        strong = self._strong  # read once, because another thread may clear it
        if strong is not None:
            return strong
        values = [get() for get in self._weak]
        for value, sentence in zip(values, (GONE, _GIVEN.format("model"), _GIVEN.format("output")), strict=True):
            if value is _DELETED:
                raise ResidscopeError("gone", sentence)
        return Referenced(*values)

    def there(self) -> bool:
        """Return whether the cache, the model and the logits still exist, and the reference was not released."""
        try:
            self.get()
        except ResidscopeError:
            return False
        return True

    @property
    def is_kept_alive(self) -> bool:
        """Whether the reference keeps the cache alive now."""
        return self._strong is not None

    def keep_alive(self) -> None:
        """Keep cache, model and logits alive from now on, if they still exist."""
        with suppress(ResidscopeError):
            self._strong = self.get()

    def stop_keeping_alive(self) -> None:
        """Stop keeping cache, model and logits alive. They then exist only while the user's code refers to them."""
        self._strong = None

    def release(self) -> None:
        """Drop all references. `get` raises from now on."""
        self._released, self._strong, self._weak = True, None, []


def _weak(value: object) -> Callable[[], object]:
    """A function that returns the value, or `_DELETED` after the value was deleted.

    It keeps the value alive only if no weak references are possible, as for a list of numbers.
    """
    if value is None:
        return lambda: None
    try:
        reference = weakref.ref(value)
    except TypeError:
        if isinstance(value, Mapping):  # a plain dictionary allows no weak references, but its tensors do
            tensors = {name: _weak(tensor) for name, tensor in dict[str, object](value).items()}
            return partial(_all_or_deleted, tensors)
        return lambda: value  # such values are small
    return lambda: _DELETED if (found := reference()) is None else found


def _all_or_deleted(tensors: dict[str, Callable[[], Any]]) -> Any:
    found = {name: get() for name, get in tensors.items()}
    return _DELETED if any(tensor is _DELETED for tensor in found.values()) else found
