"""Keeps earlier results, by cache, state of the cache and request, up to a limit of bytes."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from residscope.compute.samples import samples

T = TypeVar("T")
Key = tuple[Hashable, ...]

_LEAST = 1_000
"""An entry counts as at least this many bytes."""


class Store:
    """Values by key. Above `limit` bytes, the least recently used ones are dropped.

    This is not `cachetools.LRUCache`: garbage collection may drop a cache's entries between any two lines of `put`,
    which leaves an `LRUCache` with a wrong size, or with keys in its order that are gone.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        # Reentrant, because garbage collection may drop a cache's entries on any line of the thread that holds it.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._kept)

    def get(self, key: Key) -> Any:
        """Return the value, or None."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Key, value: Any, size: int) -> None:
        """Keep a value that takes `size` bytes."""
        size = max(size, _LEAST)
        if size > self._limit:
            return
        with self._lock:
            self._pop(key)
            self._kept[key] = value, size
            self._size += size
            while self._size > self._limit and self._kept:
                self._pop(next(iter(self._kept), ()))  # dropped since it was looked for: then nothing

    def drop(self, owner: Hashable) -> None:
        """Drop all values of one owner, which is the first item of their keys."""
        with self._lock:
            for key in [key for key in list(self._kept) if key[0] == owner]:
                self._pop(key)

    def _pop(self, key: Key) -> None:
        _, size = self._kept.pop(key, (None, 0))
        self._size -= size


@dataclass(frozen=True)
class Memo:
    """The part of a store that belongs to one owner in one state. Without a store it has its own."""

    store: Store = field(default_factory=lambda: Store(1_000_000_000))
    prefix: Key = (None,)

    def get(self, *key: Hashable) -> Any:
        """Return the kept value, or None."""
        return self.store.get((*self.prefix, *key))

    def put(self, *key: Hashable, value: Any, size: int = 0) -> None:
        """Keep a value that takes `size` bytes."""
        self.store.put((*self.prefix, *key), value, size)

    def once(self, key: Key, make: Callable[[], T], size: Callable[[T], int] = lambda _: 0) -> T:
        """Return the kept value. If there is none, call `make`, which never returns None, and keep its result.

        Args:
            key: The key.
            make: Computes the value.
            size: Returns the bytes that a value takes. By default it counts as small.
        """
        found = self.get(*key)
        if found is None:
            found = make()
            self.put(*key, value=found, size=size(found))
        return found

    def part(self, *key: Hashable) -> Memo:
        """Return the memo of a part of the owner."""
        return Memo(self.store, (*self.prefix, *key))


CACHES = Store(128_000_000)
"""Results computed from users' caches."""


def size_of(value: Any) -> int:
    """Return the bytes of a tensor or buffer, or of a list of them."""
    if isinstance(value, tuple | list):
        return sum(map(size_of, value))  # pyright: ignore[reportUnknownArgumentType]
    return len(value) if isinstance(value, bytes) else int(getattr(value, "nbytes", 0))


class UnknownError(Exception):
    """The value cannot be a part of a key."""


class _Same:
    """Stands for a large tensor in a key. Equal only for the same tensor object, if it was not written to since."""

    def __init__(self, tensor: Any) -> None:
        self._tensor, self._id, self._version = weakref.ref(tensor), id(tensor), tensor._version

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same):
            return False
        one = self._tensor()
        return one is not None and one is other._tensor() and self._version == other._version


_things: dict[int, tuple[Callable[[], object], str]] = {}


def number_of(thing: Any) -> str:
    """Return an id of an object that is never used again, unlike its address.

    Raises:
        UnknownError: If the object does not allow weak references.
    """
    if thing is None:
        return ""
    known = _things.get(id(thing))
    if known is None or known[0]() is not thing:
        try:
            known = weakref.ref(thing, partial(_forget, id(thing))), uuid4().hex[:12]
        except TypeError as error:
            raise UnknownError from error
        _things[id(thing)] = known
    return known[1]


def _forget(key: int, _gone: object) -> None:
    _things.pop(key, None)


_SMALL = 10_000


def key_of(value: Any) -> Hashable:
    """Return the part of a key that stands for a value. Equal values have equal keys, large tensors only if identical.

    Raises:
        UnknownError: If the value cannot be a part of a key.
    """
    if value is None or isinstance(value, str | int | float):
        return type(value), value
    if isinstance(getattr(type(value), "key_parts", None), property):  # a target inside the model
        return type(value), key_of(value.key_parts)
    if isinstance(value, tuple | list):
        return type(value), tuple(map(key_of, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(value, set | frozenset):
        return frozenset(map(key_of, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if type(value).__module__.partition(".")[0] in ("torch", "numpy") and hasattr(value, "tolist"):
        count = value.numel() if hasattr(value, "numel") else value.size
        if count <= _SMALL:
            try:
                return str(value.dtype), tuple(value.shape), tuple(value.reshape(-1).tolist())
            except (RuntimeError, NotImplementedError) as error:  # on `meta`, or sparse
                raise UnknownError from error
        if hasattr(value, "_version"):
            try:
                return _Same(value), *samples([value])
            except RuntimeError:  # made in inference mode: PyTorch does not count changes of it
                pass
    raise UnknownError
