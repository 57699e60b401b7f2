"""Finds the caches in the user's namespace: in variables, and two levels deep in containers and objects.

None of the user's code runs: no property, no `__getattr__`, no `__class__`, no `__iter__`, `__len__`, `__eq__` or
`__hash__` of a class or metaclass. Therefore classes are read by `type` and compared by identity. Attributes are read
through CPython's own descriptors, and containers through the methods of `list`, `tuple`, `deque` and `dict` (see
`class_kinds`).
"""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar

from residscope.base import expressions
from residscope.session.class_kinds import KINDS, NOTHING, OPAQUE, Kind, is_cache, kind_of
from residscope.session.containers import ELEMENTS, INNER, Inner, inner_name, key_text, labelled, with_caches
from residscope.session.safe_access import attribute_of, element_of

_HISTORY = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|_[oid]h|In")
"""IPython's own variables for inputs and outputs. `Out` is not among them, because users write `Out[5]`."""

_VARIABLE, _INNER, _DEEP, _OUT = range(4)
_T = TypeVar("_T")


@dataclass
class Found:
    """A cache, and all its names.

    Variables come first. Then come names that are one step away from a variable (`runs["clean"]`, `model.cache`), then
    those that are two steps away (`runs["clean"].cache`). `Out[5]` is used only if there is no other name.

    A key that is not an identifier is written with its dictionary, so that the name is not ambiguous:
    `globals()["a b"]`, `vars(model)["a.b"]`.
    """

    cache: Any
    names: list[str] = field(default_factory=list[str])


class Search(NamedTuple):
    """The caches of a namespace, in the namespace's order, and notes on what was not searched."""

    found: list[Found]
    notes: list[str]


def search(namespace: dict[str, object] | None = None) -> Search:
    """Return every `ActivationCache` in a namespace, by default the user's.

    An object is a cache if its class has `accumulated_resid` and `stack_head_results` and the instance has a dictionary
    `cache_dict`: the classes of TransformerLens 2, 3 and 4, and their subclasses.
    """
    if "torch" not in sys.modules:  # without PyTorch there is no cache, and loading it takes seconds
        return Search([], [])
    names, values = _variables(namespace)
    entries: list[tuple[int, int, str, Any]] = []  # for each name: its kind, its variable's index, the name, the cache
    containers: dict[Kind, list[int]] = {}
    for place, known in enumerate(map(KINDS.get, map(id, map(type, values)))):
        kind = known or kind_of(type(values[place]))
        if kind is OPAQUE or not _of_user(names[place]):
            continue
        if kind.may_be_cache and is_cache(values[place]):
            entries.append((_VARIABLE, place, _variable(names[place]), values[place]))
        elif kind in containers:
            containers[kind].append(place)
        else:
            containers[kind] = [place]
    groups = {kind: (places, [values[i] for i in places]) for kind, places in containers.items()}
    opened, inner, is_cut = with_caches(groups, set(map(id, values)))
    for place, kind, value in opened:
        name_kind = _OUT if names[place] == "Out" else _INNER
        inside = labelled(kind, value, _variable(names[place]))
        entries += [(name_kind, place, label, element) for label, element in inside]
    inner_by_kind: dict[Kind, list[Inner]] = {}
    for container in inner:
        inner_by_kind.setdefault(kind_of(type(container.value)), []).append(container)
    inner_groups = {
        kind: (list(range(len(containers))), [container.value for container in containers])
        for kind, containers in inner_by_kind.items()
    }
    opened_inner, _, is_inner_cut = with_caches(inner_groups, None)
    is_cut = is_cut or is_inner_cut
    for index, kind, value in opened_inner:
        place, outer, key, _ = inner_by_kind[kind][index]
        name_kind = _OUT if names[place] == "Out" else _DEEP
        name = inner_name(outer, _variable(names[place]), key)
        entries += [(name_kind, place, label, element) for label, element in labelled(kind, value, name)]
    found: dict[int, Found] = {}
    taken: dict[str, list[int]] = {}
    for name_kind, _, name, cache in sorted(entries, key=lambda entry: entry[:2]):
        known = found.setdefault(id(cache), Found(cache))
        if name not in known.names and not (name_kind == _OUT and known.names):
            # Long keys are shortened and may look the same. A number then makes the name unique.
            same = taken.setdefault(name, [])
            if id(cache) not in same:
                same.append(id(cache))
            place_among = same.index(id(cache)) + 1
            known.names.append(name if place_among == 1 else f"{name} ({place_among})")
    place = {id(cache): place for _, place, _, cache in sorted(entries, key=lambda entry: -entry[1])}
    return Search(sorted(found.values(), key=lambda found: place[id(found.cache)]), [_NOT_SEARCHED] * is_cut)


def named(name: str) -> Any:
    """Return the cache that has this name in the user's namespace (see `Found`). None if there is none.

    The name is compared with the names of all caches, and never evaluated.
    """
    return next((found.cache for found in search().found if name in found.names), None)


def variable_name(cache: object) -> str | None:
    """Return the first name of `cache` in the user's namespace. None if it has no name, or there is no notebook."""
    return next(names_of(cache), None)


def names_of(cache: object) -> Iterator[str]:
    """Yield all names of `cache` in the user's namespace, variables first."""
    yield from variables_of(lambda value: value is cache)
    yield from (name for found in search().found if found.cache is cache for name in found.names)


def variables_of(matches: Callable[[object], bool]) -> Iterator[str]:
    """Yield the user's variables whose value matches. Nothing if there is no notebook."""
    names, values = _variables(None)
    return (_variable(name) for name, value in zip(names, values, strict=True) if _of_user(name) and matches(value))


def of_classes(classes: Iterable[tuple[type, _T]]) -> Iterator[tuple[Callable[[], str], object, _T]]:
    """Yield the user's variables of exactly these classes.

    Args:
        classes: Pairs of a class and a value that is returned with each variable of this class.

    Yields:
        A function that returns the variable's name, the variable's value, and the value that belongs to its class.
    """
    wanted = {id(cls): result for cls, result in classes}  # by address, because a metaclass may define `__hash__`
    names, values = _variables(None)
    results = map(wanted.get, map(id, map(type, values)))
    return (
        (partial(_variable, name), value, result)
        for name, value, result in zip(names, values, results, strict=True)
        if result is not None and _of_user(name)
    )


def of_kinds(is_wanted: Callable[[type], bool]) -> Iterator[tuple[str, Any]]:
    """Yield the user's variables whose class passes a test, with their names. The test runs once for each class.

    Args:
        is_wanted: The test. It must not run code of the class.
    """
    names, values = _variables(None)
    passed: dict[int, bool] = {}  # by address, because a metaclass may define `__hash__`
    for name, value in zip(names, values, strict=True):
        cls = type(value)
        if id(cls) not in passed:
            passed[id(cls)] = is_wanted(cls)
        if passed[id(cls)] and _of_user(name):
            yield _variable(name), value


def leads_to(name: str, value: object) -> bool:
    """Return whether this name gives this object in the user's notebook, without running the user's code.

    False if the path contains a property or a user-defined method, or if the name belongs to another object.
    """
    path = expressions.parse_path(name)
    if path is None:
        return False
    names, values = _variables(None)
    found = next((v for n, v in zip(names, values, strict=True) if type(n) is str and n == path.variable), NOTHING)
    for key, is_attribute in path.steps:
        found = attribute_of(found, key) if is_attribute else element_of(found, key)
    return found is value


def is_taken(variable: str) -> bool:
    """Return whether a name is already used, in the user's notebook or by Python."""
    return variable in vars(builtins) or any(type(n) is str and n == variable for n in _variables(None)[0])


def _variables(namespace: dict[str, object] | None) -> tuple[list[str], list[object]]:
    """A copy of the user's variables, because a running cell may add variables at the same time."""
    if namespace is None:
        getipython = sys.modules.get("IPython.core.getipython")
        shell = getipython.get_ipython() if getipython else None
        found: dict[str, Any] = {} if shell is None else shell.user_ns
        namespace = found
    snapshot: dict[str, object] = dict.copy(namespace)
    return list(snapshot), list(snapshot.values())


def _of_user(name: object) -> bool:
    """Whether a variable is the user's own, not one of IPython's for inputs and outputs."""
    return type(name) is str and not _HISTORY.fullmatch(name)


def _variable(name: str) -> str:
    """The expression that gives a variable."""
    return name if expressions.is_name(name) else f"globals()[{key_text(name)}]"


_NOT_SEARCHED = (
    f"Only the first {ELEMENTS:,} elements of lists, tuples and dictionaries were searched, and the first {INNER:,} "
    "lists, dictionaries and objects inside them. A cache after these is not listed: assign it to its own variable."
)
