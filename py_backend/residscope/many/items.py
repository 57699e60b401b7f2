"""The items of `attribute_many`: where each comes from, and what a person may write as one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import length_hint
from typing import Any

from residscope.errors import ResidscopeError

END: Any = object()
"""Stands for: there are no more items."""

_OPTIONS = ("attention_mask", "logits", "position", "tokens")


class Items:
    """Items by their number. Those of a sequence are asked for by it; an iterator is run through, nothing is kept.

    Args:
        items: What `attribute_many` was given.

    Raises:
        ResidscopeError: If it is one cache, or nothing that has items.
    """

    def __init__(self, items: Any) -> None:
        if is_cache(items):
            raise ResidscopeError(
                "items", "`attribute_many` takes many caches, but was given one: use `attribute`, or a list, [cache]."
            )
        self._items = items
        self._indexed = hasattr(items, "__getitem__") and hasattr(items, "__len__")
        if not self._indexed and not isinstance(items, Iterable):
            raise ResidscopeError(
                "items",
                "`attribute_many` takes a list, a sequence or an iterator of caches, but was given "
                f"{type(items).__name__}.",
            )
        self._iterator: Iterator[Any] | None = None
        self._seen = 0

    @property
    def count(self) -> int | None:
        """How many there are, where that is known beforehand."""
        hint = len(self._items) if self._indexed else length_hint(self._items, -1)
        return hint if hint >= 0 else None

    def take(self, number: int) -> Any:
        """One item, or `END`; numbers must rise. The caller is the only one who holds what an iterator gave."""
        if self._indexed:
            return self._items[number] if number < len(self._items) else END
        if self._iterator is None:
            self._iterator = iter(self._items)
        while True:
            item = next(self._iterator, END)
            if item is END:
                return END
            self._seen += 1
            if self._seen > number:
                return item
            del item  # before the next one is made

    def check_again(self) -> None:
        """Refuse a generator that has begun already: the items that are done would be skipped a second time."""
        if inspect.isgenerator(self._items) and inspect.getgeneratorstate(self._items) != inspect.GEN_CREATED:
            raise ResidscopeError(
                "items",
                "This generator has given items already, or was ended by an interrupt. To go on, make a new one: it "
                "must begin at the first item, and those that are done are skipped.",
            )

    def check_reaches(self, done: int) -> None:
        """Refuse items that ended before those that are done."""
        there = len(self._items) if self._indexed else self._seen
        if there < done:
            raise ResidscopeError(
                "items",
                f"There were only {there} items, but {done} are done already (`resume`). Give the same items, from the "
                "first on; more may follow.",
            )


def is_cache(value: Any) -> bool:
    """An `ActivationCache`, or a dictionary of activations."""
    return isinstance(value, Mapping) or hasattr(value, "cache_dict")


def opened(item: Any, answers: Any) -> tuple[Any, Any, dict[str, Any]]:
    """An item's cache, its answers, and options of its own.

    Args:
        item: A cache, `(cache, answers)`, `(cache, answers, options)`, or a function that makes one of these.
        answers: The answers of items that bring none.

    Raises:
        ResidscopeError: If it is none of these.
    """
    if isinstance(item, Callable) and not is_cache(item):
        item = item()
    options: Any = {}
    if isinstance(item, tuple | list):
        parts: list[Any] = list(item)
        if len(parts) not in (2, 3) or not is_cache(parts[0]):
            hint = (
                " `run_with_cache` returns (logits, cache): the cache comes first here, and logits are an option, "
                '(cache, answers, {"logits": logits}).'
                if any(is_cache(part) for part in parts[1:])
                else ""
            )
            raise ResidscopeError(
                "items", f"It is not a cache, (cache, answers) or (cache, answers, options), but {_kinds(parts)}.{hint}"
            )
        item, own, options = (*parts, {})[:3]
        answers = answers if own is None else own
    if answers is None:
        raise ResidscopeError(
            "answers", "There are no answers: give `answers=` for all items, or (cache, answers) as the item."
        )
    if not isinstance(options, Mapping) or not set(options) <= set(_OPTIONS):
        known = ", ".join(f'"{name}"' for name in _OPTIONS)
        raise ResidscopeError("items", f"The third part of an item is a dictionary of options; they are {known}.")
    return item, answers, dict(options)


def _kinds(parts: list[Any]) -> str:
    return f"({', '.join(type(part).__name__ for part in parts[:4])}{', …' if len(parts) > 4 else ''})"
