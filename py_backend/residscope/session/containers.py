"""Searches containers for caches, without running the user's code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain, islice, repeat
from typing import Any, NamedTuple, TypeVar

from residscope.base import expressions
from residscope.session.class_kinds import KINDS, OPAQUE, Kind, is_cache, kind_of

ELEMENTS = 100_000
"""At most this many elements of containers are searched on each level."""

INNER = 2_000
"""At most this many containers inside others are searched."""

_T = TypeVar("_T")


class Inner(NamedTuple):
    """A container inside another one.

    Attributes:
        place: The index of the outer container's variable in the namespace.
        outer: The kind of the outer container.
        key: The key or index of the inner container in the outer one.
        value: The inner container.
    """

    place: int
    outer: Kind
    key: Any
    value: Any


def with_caches(
    groups: dict[Kind, tuple[list[int], list[object]]], variables: set[int] | None
) -> tuple[list[tuple[int, Kind, object]], list[Inner], bool]:
    """Search containers for objects of a cache's class.

    Args:
        groups: For each kind of container, the indices of the variables, and the containers.
        variables: The addresses of the variables' values. Inner containers at these addresses are left out, because
            they are searched as variables. None: all inner containers are left out.

    Returns:
        The containers that hold such an object, the containers inside the searched ones, and whether some were not
        fully searched.
    """
    by_kind = {kind: kind.containers(values) for kind, (_, values) in groups.items()}
    sizes = {kind: list(map(kind.container_class.__len__, containers)) for kind, containers in by_kind.items()}
    most = _share(list(chain.from_iterable(sizes.values())))
    opened: list[tuple[int, Kind, object]] = []
    inner: list[Inner] = []
    is_cut = False
    for kind, containers in by_kind.items():
        # First read the classes of all elements at once, which is fast. Most containers hold no cache and no container.
        nothing: tuple[list[int], list[int]] = [], []
        wanted, nested = unchanging(partial(_classes_in, kind, containers, most), nothing)
        if wanted:
            opened += unchanging(partial(_holding, set(wanted), kind, groups[kind][0], containers, most), [])
        if nested and variables is not None:
            outer = unchanging(partial(_holding, set(nested), kind, groups[kind][0], containers, most), [])
            share = max(INNER // max(len(outer), 1), 1)  # so that one large container does not use up the whole limit
            for place, _, container in outer[:INNER]:
                found = unchanging(partial(_containers_in, set(nested), kind, container, share + 1), [])
                inner += [Inner(place, kind, key, value) for key, value in found[:share] if id(value) not in variables]
                is_cut = is_cut or len(found) > share
            is_cut = is_cut or len(outer) > INNER
    return opened, inner, is_cut or most is not None


def _containers_in(nested: set[int], kind: Kind, container: object, most: int) -> list[tuple[object, object]]:
    """The first containers inside a container, with their keys or indices."""
    items = islice(_items(kind, container), ELEMENTS)
    return list(islice(((key, value) for key, value in items if id(type(value)) in nested), most))


def _items(kind: Kind, container: Any) -> Iterable[tuple[object, object]]:
    return (
        dict.items(container) if kind.container_class is dict else enumerate(kind.container_class.__iter__(container))
    )


def _classes_in(kind: Kind, containers: list[object], most: int | None) -> tuple[list[int], list[int]]:
    """The classes of the elements: those of caches, and those of containers.

    They are returned as addresses, because a metaclass may define `__hash__`.
    """
    addresses = set(map(id, map(type, chain.from_iterable(_views(kind, containers, most)))))
    if not addresses <= KINDS.keys():
        for element in chain.from_iterable(_views(kind, containers, most)):
            kind_of(type(element))
    kinds = {key: KINDS.get(key, OPAQUE) for key in addresses}
    caches = [key for key, kind in kinds.items() if kind.may_be_cache]
    return caches, [key for key, kind in kinds.items() if kind is not OPAQUE and not kind.may_be_cache]


def _holding(
    wanted: set[int], kind: Kind, places: list[int], containers: list[object], most: int | None
) -> list[tuple[int, Kind, object]]:
    """The containers that hold an object of a wanted class."""
    views = _views(kind, containers, most)
    return [
        (place, kind, container)
        for place, container, view in zip(places, containers, views, strict=True)
        if not wanted.isdisjoint(map(id, map(type, view)))
    ]


def _views(kind: Kind, containers: list[Any], most: int | None) -> Iterable[Iterable[Any]]:
    """The elements of each container, at most `most` of them."""
    read: Callable[[Any], Iterable[Any]] = (
        dict.values if kind.container_class is dict else kind.container_class.__iter__
    )
    views = map(read, containers)
    return views if most is None else map(islice, views, repeat(most))


def _share(sizes: list[int]) -> int | None:
    """How many elements of each container are searched, so that the search stays fast. None: all."""
    left = ELEMENTS
    if sum(sizes) <= left:
        return None
    for others, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        if size * others > left:
            return max(left // others, 1)
        left -= size
    return None


def labelled(kind: Kind, container: object, name: str) -> list[tuple[str, object]]:
    """The caches in a container, each with the Python expression that gives it."""

    def read() -> list[tuple[Any, Any]]:
        return [(key, element) for key, element in islice(_items(kind, container), ELEMENTS) if is_cache(element)]

    return [(inner_name(kind, name, key), element) for key, element in unchanging(read, [])]


def inner_name(kind: Kind, name: str, key: object) -> str:
    """The expression that gives the element under `key` of a container of this kind and name."""
    if kind.base is not None:
        return f"{name}[{key_text(key)}]"
    return f"{name}.{key}" if type(key) is str and expressions.is_name(key) else f"vars({name})[{key_text(key)}]"


def key_text(key: object) -> str:
    """A key as a Python literal. A long one is shortened."""
    return expressions.key_text(f"{key[:39]}…" if type(key) is str and len(key) > 40 else key)


def unchanging(read: Callable[[], _T], otherwise: _T) -> _T:
    """Read containers while another thread may change them. If this fails repeatedly, return `otherwise`."""
    for _ in range(8):
        try:
            return read()
        except RuntimeError:  # the container changed its size at the same time
            continue
    return otherwise
