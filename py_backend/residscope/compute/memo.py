"""Keeps earlier results up to a limit of bytes. The key of a result names the cache, its state and the request."""

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

_MIN_BYTES = 1_000
"""An entry counts as at least this many bytes."""


class ResultStore:
    """Values by key. If the values take more than `limit` bytes, the least recently used ones are dropped.

    `cachetools.LRUCache` is not suitable: garbage collection may call `drop` between any two lines of `put`. An
    `LRUCache` would then have a wrong size, or would list keys that no longer exist.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._entries: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        # Reentrant: the thread that holds the lock may also run garbage collection, which may call `drop`.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._entries)

    def get(self, key: Key) -> Any:
        """Return the value of this key. None if there is none."""
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: Key, value: object, size: int) -> None:
        """Keep a value that takes `size` bytes."""
        size = max(size, _MIN_BYTES)
        if size > self._limit:
            return
        with self._lock:
            self._pop(key)
            self._entries[key] = value, size
            self._size += size
            while self._size > self._limit and self._entries:
                self._pop(next(iter(self._entries), ()))  # `()` if garbage collection has just dropped the last entry

    def drop(self, owner: Hashable) -> None:
        """Drop all values of one owner, which is the first item of their keys."""
        with self._lock:
            for key in [key for key in list(self._entries) if key[0] == owner]:
                self._pop(key)

    def _pop(self, key: Key) -> None:
        _, size = self._entries.pop(key, (None, 0))
        self._size -= size


@dataclass(frozen=True)
class Memo:
    """The part of a `ResultStore` whose keys begin with `prefix`. By default the memo has a store of its own."""

    store: ResultStore = field(default_factory=lambda: ResultStore(1_000_000_000))
    prefix: Key = (None,)

    def get(self, *key: Hashable) -> Any:
        """Return the kept value. None if there is none."""
        return self.store.get((*self.prefix, *key))

    def put(self, *key: Hashable, value: object, size: int = 0) -> None:
        """Keep a value that takes `size` bytes."""
        self.store.put((*self.prefix, *key), value, size)

    def once(self, key: Key, make: Callable[[], T], size: Callable[[T], int] = lambda _: 0) -> T:
        """Return the kept value. If there is none, call `make` and keep its result.

        Args:
            key: The key.
            make: Computes the value, which must not be None.
            size: Returns how many bytes a value takes. By default the value counts as small.
        """
        found = self.get(*key)
        if found is None:
            found = make()
            self.put(*key, value=found, size=size(found))
        return found

    def part(self, *key: Hashable) -> Memo:
        """Return the memo whose keys begin with this memo's prefix and `key`."""
        return Memo(self.store, (*self.prefix, *key))


CACHES = ResultStore(128_000_000)
"""Results computed from users' caches."""


def size_of(value: object) -> int:
    """Return the number of bytes of a tensor or buffer, or of a list of them."""
    if isinstance(value, tuple | list):
        return sum(map(size_of, value))  # pyright: ignore[reportUnknownArgumentType]
    return len(value) if isinstance(value, bytes) else int(getattr(value, "nbytes", 0))


class NoKeyError(Exception):
    """No key can be made for a value."""


class _UnchangedTensor:
    """Stands for a large tensor in a key. Two such objects are equal if they stand for the same, unchanged tensor."""

    def __init__(self, tensor: Any) -> None:
        self._tensor, self._id, self._version = weakref.ref(tensor), id(tensor), tensor._version

    def __hash__(self) -> int:
        return self._id

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _UnchangedTensor):
            return False
        tensor = self._tensor()
        return tensor is not None and tensor is other._tensor() and self._version == other._version


_ids: dict[int, tuple[Callable[[], object], str]] = {}
"""By an object's address: a weak reference to the object, and its id."""


def unique_id(value: object) -> str:
    """Return the id of an object, or "" for None. Unlike its address, the id is never used for another object.

    Raises:
        NoKeyError: If the object does not allow weak references.
    """
    if value is None:
        return ""
    known = _ids.get(id(value))
    if known is None or known[0]() is not value:
        try:
            known = weakref.ref(value, partial(_forget, _ids, id(value))), uuid4().hex[:12]
        except TypeError as error:
            raise NoKeyError from error
        _ids[id(value)] = known
    return known[1]


def _forget(ids: dict[int, Any], key: int, _gone: object) -> None:
    ids.pop(key, None)


_MAX_COMPARED = 10_000


def key_of(value: Any) -> Hashable:
    """Return the part of a key that stands for a value.

    Equal values of one type have equal keys. But large tensors have equal keys only if they are the same object,
    unchanged.

    Raises:
        NoKeyError: If the value cannot be a part of a key.
    """
    if value is None or isinstance(value, str | int | float):
        return type(value), value
    if isinstance(getattr(type(value), "key_parts", None), property):  # a target such as an attention score
        return type(value), key_of(value.key_parts)
    if isinstance(value, tuple | list):
        return type(value), tuple(map(key_of, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(value, set | frozenset):
        return frozenset(map(key_of, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if type(value).__module__.partition(".")[0] in ("torch", "numpy") and hasattr(value, "tolist"):
        count = value.numel() if hasattr(value, "numel") else value.size
        if count <= _MAX_COMPARED:
            try:
                return str(value.dtype), tuple(value.shape), tuple(value.reshape(-1).tolist())
            except (RuntimeError, NotImplementedError) as error:  # a tensor without values (`meta`), or a sparse one
                raise NoKeyError from error
        if hasattr(value, "_version"):
            try:
                return _UnchangedTensor(value), *samples([value])
            except RuntimeError:  # an inference tensor, whose changes are not counted
                pass
    raise NoKeyError
