"""What was worked out once and serves again: small results only, so that nothing of the cache is kept by it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")


class Kept:
    """Results by what they depend on; the ones that were used longest ago go, once they are too many bytes.

    It belongs to one state of a cache and its weights, and goes with it.

    Args:
        most: Bytes, roughly.
    """

    def __init__(self, most: int = 16_000_000) -> None:
        self._most, self._bytes = most, 0
        self._kept: dict[Hashable, tuple[Any, int]] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The result, made where it is not there. One that is too large by itself is not kept."""
        found = self._kept.pop(key, None)
        if found is None:
            result = make()
            found = result, _size(result)
            if found[1] > self._most:
                return result
            # A long request lets others between: one of them may have made it, too.
            self._bytes += found[1] - self._kept.pop(key, (None, 0))[1]
        self._kept[key] = found  # to the end of the line
        while self._bytes > self._most:
            self._bytes -= self._kept.pop(next(iter(self._kept)))[1]
        return found[0]


def _size(result: Any) -> int:
    if isinstance(result, tuple | list):
        return sum(_size(part) for part in result)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if isinstance(result, bytes):
        return len(result)
    return int(getattr(result, "nbytes", 200))
