"""Splits work into blocks that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from residscope.compute.progress import report_progress

T = TypeVar("T")


def blocks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield consecutive blocks of at most `size` items, and report progress."""
    size = max(size, 1)
    for start in range(0, len(items), size):
        report_progress()
        yield items[start : start + size]
