"""What was computed before, while it is true: by cache, its state and the question; bounded; gone with the cache."""

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
"""An entry counts as so many bytes at least."""


class Store:
    """Values by key; when there are more bytes than `limit`, those go that were not asked for the longest.

    By hand, and not by `cachetools`: a cache may be collected, and its entries dropped, between any two lines of `put`,
    which leaves an `LRUCache` with a wrong size or an order of keys that are gone.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        # Taken again by the thread that holds it, where a cache is collected meanwhile.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """How many values there are."""
        return len(self._kept)

    def get(self, key: Key) -> Any:
        """The value, or None."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Key, value: Any, size: int) -> None:
        """Keep a value of so many bytes."""
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
        """Forget everything of one owner, the first part of its keys."""
        with self._lock:
            for key in [key for key in list(self._kept) if key[0] == owner]:
                self._pop(key)

    def _pop(self, key: Key) -> None:
        _, size = self._kept.pop(key, (None, 0))
        self._size -= size


@dataclass(frozen=True)
class Memo:
    """The part of a store that belongs to one owner in one state."""

    store: Store = field(default_factory=lambda: Store(1_000_000_000))  # by itself: as long as whoever made it
    prefix: Key = (None,)

    def get(self, *key: Hashable) -> Any:
        """What is kept, or None."""
        return self.store.get((*self.prefix, *key))

    def put(self, *key: Hashable, value: Any, size: int = 0) -> None:
        """Keep a value of so many bytes."""
        self.store.put((*self.prefix, *key), value, size)

    def once(self, key: Key, make: Callable[[], T], size: Callable[[T], int] = lambda _: 0) -> T:
        """What is kept, else what `make` makes (never None), kept from now on; by default it is something small."""
        found = self.get(*key)
        if found is None:
            found = make()
            self.put(*key, value=found, size=size(found))
        return found

    def part(self, *key: Hashable) -> Memo:
        """The same for a part of the owner."""
        return Memo(self.store, (*self.prefix, *key))


CACHES = Store(128_000_000)
"""What was computed from users' caches."""


def size_of(value: Any) -> int:
    """Bytes of tensors and buffers, alone or together."""
    if isinstance(value, tuple | list):
        return sum(map(size_of, value))  # pyright: ignore[reportUnknownArgumentType]
    return len(value) if isinstance(value, bytes) else int(getattr(value, "nbytes", 0))


class UnknownError(Exception):
    """Something that no key can stand for."""


class _Same:
    """Stands for a large tensor: the very same one, not written to since."""

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
    """What tells a thing from any other that was ever seen, as an address does not.

    Raises:
        UnknownError: If it knows no weak references.
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
    """What stands for a value in a key: equal for equal values, and for large tensors for the same one.

    Raises:
        UnknownError: If nothing does.
    """
    if value is None or isinstance(value, str | int | float):
        return type(value), value
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
            except RuntimeError:  # made in inference mode: PyTorch does not count what is written to it
                pass
    raise UnknownError
