"""Fetches the items of a call, and reads the forms that an item may have."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import length_hint
from typing import Any, Protocol, TypeGuard

from residscope.cache.view import is_cache
from residscope.errors import ResidscopeError

END = object()
"""`Items.take` returns this after the last item."""

OPTIONS = ("attention_mask", "logits", "position", "tokens")
"""The options that an item of `attribute_many` may have."""


class _Indexed(Protocol):
    """A list, a data set, or another object whose items have numbers."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> object: ...


def _is_indexed(items: object) -> TypeGuard[_Indexed]:
    return hasattr(items, "__getitem__") and hasattr(items, "__len__")


class Items:
    """Access to items by number. A sequence is indexed. An iterator is advanced, and its items are not kept.

    Args:
        items: The `items` of the call.
        call: The name of the call, for messages.

    Raises:
        ResidscopeError: If `items` is a single cache, or is neither a sequence nor iterable.
    """

    def __init__(self, items: object, call: str = "attribute_many") -> None:
        items = _listed(items)
        if is_cache(items):
            one = call.removesuffix("_many")
            raise ResidscopeError(
                "items", f"`{call}` takes many caches, but was given one: use `{one}`, or a list: [cache]."
            )
        self._items = items
        self._indexed = items if _is_indexed(items) else None
        if self._indexed is None and not isinstance(items, Iterable):
            raise ResidscopeError(
                "items",
                f"`{call}` takes a list, a sequence or an iterator of caches, but was given {type(items).__name__}.",
            )
        self._iterator: Iterator[object] | None = None
        self._seen = 0

    @property
    def count(self) -> int | None:
        """The number of items. None if it is not known beforehand."""
        hint = length_hint(self._items, -1) if self._indexed is None else len(self._indexed)
        return hint if hint >= 0 else None

    def take(self, number: int) -> object:
        """Return one item, or `END`. Numbers must increase. An item of an iterator is not kept here."""
        if self._indexed is not None:
            return self._indexed[number] if number < len(self._indexed) else END
        if self._iterator is None:
            assert isinstance(self._items, Iterable)
            self._iterator = iter(self._items)
        while True:
            item = next(self._iterator, END)
            if item is END:
                return END
            self._seen += 1
            if self._seen > number:
                return item
            del item  # to free its memory before the iterator makes the next one

    def check_again(self) -> None:
        """Refuse a generator that has already started, because its first items would be missing when it continues."""
        if inspect.isgenerator(self._items) and inspect.getgeneratorstate(self._items) != inspect.GEN_CREATED:
            raise ResidscopeError(
                "items",
                "This generator has already yielded items, or was stopped by an interrupt. To continue, make a new "
                "one. It must begin at the first item; those that are done are skipped.",
            )

    def check_reaches(self, done: int) -> None:
        """Refuse `items` that end before the last item that is done. `done` is the number of that item plus 1."""
        count = self._seen if self._indexed is None else len(self._indexed)
        if count < done:
            raise ResidscopeError(
                "items",
                f"There were only {count} items, but {done} are done already (`resume`). Pass the same items, "
                "beginning with the first. More may follow.",
            )


def _listed(items: object) -> object:
    """The items of a dictionary of caches, such as `residscope.caches()`, or of a pandas Series, in their order."""
    if isinstance(items, Mapping):
        values: list[object] = list(items.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return values if values and all(map(is_cache, values)) else items  # pyright: ignore[reportUnknownVariableType]
    if hasattr(items, "iloc") and isinstance(items, Iterable):  # its `[]` takes labels, not numbers
        if getattr(items, "ndim", 1) != 1:
            raise ResidscopeError("items", "A table is not a list of items: give one of its columns, or a list.")
        return list(items)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return items


def cache_and_options(
    item: object, answers: object, known: Sequence[str] = OPTIONS
) -> tuple[object, object, dict[str, object]]:
    """Return the cache, the answers and the options of an item.

    Args:
        item: A cache, `(cache, answers)`, `(cache, answers, options)`, or a function that returns one of these.
        answers: The answers for items without their own.
        known: The options that an item may have.

    Raises:
        ResidscopeError: If the item has none of these forms, has an unknown option, or if there are no answers.
    """
    if isinstance(item, Callable) and not is_cache(item):
        item = item()
    options: Any = {}
    if isinstance(item, tuple | list):
        parts: list[Any] = list(item)
        if len(parts) not in (2, 3) or not is_cache(parts[0]):
            hint = (
                " `run_with_cache` returns (logits, cache), but in an item the cache comes first, and logits are an "
                'option: (cache, answers, {"logits": logits}).'
                if any(is_cache(part) for part in parts[1:])
                else ""
            )
            raise ResidscopeError(
                "items",
                f"It must be a cache, (cache, answers) or (cache, answers, options), but it is {_kinds(parts)}.{hint}",
            )
        item, own, options = (*parts, {})[:3]
        answers = answers if own is None else own
    if answers is None:
        raise ResidscopeError(
            "answers", "There are no answers: pass `answers=` for all items, or (cache, answers) as the item."
        )
    if not isinstance(options, Mapping) or not set(options) <= set(known):
        listed = ", ".join(f'"{name}"' for name in known)
        raise ResidscopeError("items", f"The third element of an item is a dictionary of options: {listed}.")
    return item, answers, dict(options)


@contextmanager
def naming_answers(*, are_common: bool) -> Generator[None, None, None]:
    """If the number of answers is wrong, extend the error: say how to give each item its own answers.

    Args:
        are_common: Whether the answers are those for all items.
    """
    try:
        yield
    except ResidscopeError as error:
        if error.code == "answers-length" and are_common:
            raise ResidscopeError(
                error.code,
                f"{error} To give each item its own: `zip(caches, answers)`, or (cache, answers) as the item.",
            ) from error
        raise


def _kinds(parts: list[Any]) -> str:
    return f"({', '.join(type(part).__name__ for part in parts[:4])}{', …' if len(parts) > 4 else ''})"
