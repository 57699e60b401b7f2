"""Finds the caches in the user's namespace: in variables, and in lists, tuples, deques, dicts and objects, two deep.

None of the user's code runs: no property, no `__getattr__`, no `__class__`, no `__iter__`, `__len__`, `__eq__` or
`__hash__` of a class or metaclass. Therefore classes are read by `type` and compared by identity. Attributes are read
through CPython's own descriptors, and containers through the methods of `list`, `tuple`, `deque` and `dict`.
"""

from __future__ import annotations

import builtins
import re
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, repeat
from typing import Any, NamedTuple, TypeVar

from residscope.base import expressions

ELEMENTS = 100_000
"""At most this many elements of containers are searched on each level."""

INNER = 2_000
"""At most this many containers inside others are searched."""

_HISTORY = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|_[oid]h|In")
"""IPython's own variables for inputs and outputs. `Out` is not among them, because users write `Out[5]`."""

_VARIABLE, _INNER, _DEEP, _OUT = range(4)
_T = TypeVar("_T")


@dataclass
class Found:
    """A cache, and all its names.

    Variables come first. Then come names that are one step away from a variable (`runs["clean"]`, `model.cache`), then
    those that are two steps away (`runs["clean"].cache`). `Out[5]` is used only if there is no other name.

    A key that is not an identifier is written with its dictionary, so that it cannot be confused with another:
    `globals()["a b"]`, `vars(model)["a.b"]`.
    """

    cache: Any
    names: list[str] = field(default_factory=list[str])


class Search(NamedTuple):
    """The caches of a namespace, in the namespace's order, and notes on what was not searched."""

    found: list[Found]
    notes: list[str]


def search(namespace: dict[str, Any] | None = None) -> Search:
    """Return every `ActivationCache` in a namespace, by default the user's.

    An object is a cache if its class has `accumulated_resid` and `stack_head_results` and the instance has a dictionary
    `cache_dict`: the classes of TransformerLens 2, 3 and 4, and their subclasses.
    """
    if "torch" not in sys.modules:  # without PyTorch there is no cache, and loading it takes seconds
        return Search([], [])
    names, values = _variables(namespace)
    entries: list[tuple[int, int, str, Any]] = []  # for each name: its kind, its variable's index, the name, the cache
    containers: dict[_Kind, list[int]] = {}
    for place, known in enumerate(map(_kinds.get, map(id, map(type, values)))):
        kind = known or _kind(type(values[place]))
        if kind is _OPAQUE or not _of_user(names[place]):
            continue
        if kind.may_be_cache and _is_cache(values[place]):
            entries.append((_VARIABLE, place, _variable(names[place]), values[place]))
        elif kind in containers:
            containers[kind].append(place)
        else:
            containers[kind] = [place]
    groups = {kind: (places, [values[i] for i in places]) for kind, places in containers.items()}
    opened, inner, is_cut = _with_caches(groups, set(map(id, values)))
    for place, kind, value in opened:
        name_kind = _OUT if names[place] == "Out" else _INNER
        labelled = _labelled(kind, value, _variable(names[place]))
        entries += [(name_kind, place, label, element) for label, element in labelled]
    inner_by_kind: dict[_Kind, list[_Inner]] = {}
    for container in inner:
        inner_by_kind.setdefault(_kind(type(container.value)), []).append(container)
    inner_groups = {
        kind: (list(range(len(containers))), [container.value for container in containers])
        for kind, containers in inner_by_kind.items()
    }
    opened_inner, _, is_inner_cut = _with_caches(inner_groups, None)
    is_cut = is_cut or is_inner_cut
    for index, kind, value in opened_inner:
        place, outer, key, _ = inner_by_kind[kind][index]
        name_kind = _OUT if names[place] == "Out" else _DEEP
        name = _step(outer, _variable(names[place]), key)
        entries += [(name_kind, place, label, element) for label, element in _labelled(kind, value, name)]
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


def variable_name(cache: Any) -> str | None:
    """Return the first name of `cache` in the user's namespace. None if it has no name, or there is no notebook."""
    return next(names_of(cache), None)


def names_of(cache: Any) -> Iterator[str]:
    """Yield all names of `cache` in the user's namespace, variables first."""
    yield from variables_of(lambda value: value is cache)
    yield from (name for found in search().found if found.cache is cache for name in found.names)


def variables_of(matches: Callable[[Any], bool]) -> Iterator[str]:
    """Yield the user's variables whose value matches. Nothing if there is no notebook."""
    names, values = _variables(None)
    return (_variable(name) for name, value in zip(names, values, strict=True) if _of_user(name) and matches(value))


def of_classes(classes: Iterable[tuple[type, _T]]) -> Iterator[tuple[Callable[[], str], Any, _T]]:
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


def leads_to(name: str, value: Any) -> bool:
    """Return whether this name gives this object in the user's notebook, without running the user's code.

    So there is no property and no user-defined method on the way, and the name does not belong to another object.
    """
    path = expressions.parse_path(name)
    if path is None:
        return False
    names, values = _variables(None)
    found = next((v for n, v in zip(names, values, strict=True) if type(n) is str and n == path.variable), _NOTHING)
    for key, is_attribute in path.steps:
        found = _attribute(found, key) if is_attribute else _element(found, key)
    return found is value


def is_taken(variable: str) -> bool:
    """Return whether a name is already used, in the user's notebook or by Python."""
    return variable in vars(builtins) or any(type(n) is str and n == variable for n in _variables(None)[0])


def peek(value: Any, name: str, default: Any = None) -> Any:
    """Return an attribute from an object's own dictionary, ignoring properties, `__getattr__` and class attributes."""
    attributes = _kind(type(value)).attributes(value)
    return default if attributes is None else dict.get(attributes, name, default)


def _variables(namespace: dict[str, Any] | None) -> tuple[list[str], list[Any]]:
    """A copy of the user's variables, because a running cell may add variables at the same time."""
    if namespace is None:
        getipython = sys.modules.get("IPython.core.getipython")
        shell = getipython.get_ipython() if getipython else None
        found: dict[str, Any] = {} if shell is None else shell.user_ns
        namespace = found
    snapshot: dict[str, Any] = dict.copy(namespace)
    return list(snapshot), list(snapshot.values())


def _of_user(name: Any) -> bool:
    """Whether a variable is the user's own, not one of IPython's for inputs and outputs."""
    return type(name) is str and not _HISTORY.fullmatch(name)


def _variable(name: str) -> str:
    """The expression that gives a variable."""
    return name if expressions.is_name(name) else f"globals()[{_key(name)}]"


# --- kinds of classes, determined once for each class ----------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Kind:
    """How the instances of a class are read.

    Attributes:
        may_be_cache: Whether the instances may be caches.
        base: The built-in container that the class inherits from, if any.
        owner: The class in the MRO that gives the instances their `__dict__`, if any.
        slots: The classes in the MRO that define `__slots__`, with the names of the slots.
    """

    may_be_cache: bool = False
    base: type | None = None
    owner: weakref.ref[type] | None = None
    slots: tuple[tuple[weakref.ref[type], tuple[str, ...]], ...] = ()

    @property
    def read_dict(self) -> Callable[[Any], dict[str, Any]] | None:
        """A function that reads an instance's `__dict__`. None if instances have none."""
        owner = self.owner and self.owner()
        return None if owner is None else _class_dict(owner)["__dict__"].__get__

    def attributes(self, value: Any) -> dict[str, Any] | None:
        """Return an instance's attributes by name. None if it has neither a `__dict__` nor slots."""
        read_dict = self.read_dict
        if not self.slots:
            return None if read_dict is None else read_dict(value)
        attributes: dict[str, Any] = {} if read_dict is None else dict.copy(read_dict(value))
        for reference, names in self.slots:
            owner = reference()
            if owner is None:
                continue
            for name in names:
                try:
                    attributes.setdefault(name, _class_dict(owner)[name].__get__(value))
                except (AttributeError, KeyError):  # the slot is empty, or the class was changed at the same time
                    continue
        return attributes

    def containers(self, values: list[Any]) -> list[Any]:
        """Return the lists, tuples, deques or dictionaries in which objects of this class hold their elements."""
        if self.slots:
            return [self.attributes(value) for value in values]
        read_dict = self.read_dict
        return values if read_dict is None else list(map(read_dict, values))

    @property
    def container_class(self) -> type:
        """The built-in class whose methods read these containers."""
        return self.base or dict


_OPAQUE = _Kind()
_kinds: dict[int, _Kind] = {}
_classes: dict[int, weakref.ref[type]] = {}
_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_class_dict: Callable[[type], types.MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__
_flags: Callable[[type], int] = type.__dict__["__flags__"].__get__
_MADE_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_CACHE_METHODS = ("accumulated_resid", "stack_head_results")


def _kind(cls: type) -> _Kind:
    """The kind of a class. Kinds are kept by the address of the class, because a metaclass may define `__hash__`."""
    key = id(cls)
    known = _kinds.get(key)
    if known is None:
        known = _classify(cls)

        def forget(_gone: object, key: int = key) -> None:
            _kinds.pop(key, None)
            _classes.pop(key, None)

        _classes[key] = weakref.ref(cls, forget)
        _kinds[key] = known
    return known


def _classify(cls: type) -> _Kind:
    bases = _mro(cls)
    for base in (list, tuple, dict, deque):
        if any(b is base for b in bases):
            return _Kind(base=base)
    own = [(b, _class_dict(b)) for b in bases]
    # A property of a class may hide the real `__dict__`. In classes written in C (functions, modules) it is different.
    owner = next((b for b, attributes in own if _gives_a_dictionary(b, attributes)), None)
    slots = tuple((weakref.ref(b), names) for b, attributes in own if (names := _slots(b, attributes)))
    if (owner is None and not slots) or any(b is type for b in bases):
        return _OPAQUE
    may_be_cache = all(any(method in attributes for _, attributes in own) for method in _CACHE_METHODS)
    return _Kind(may_be_cache=may_be_cache, owner=None if owner is None else weakref.ref(owner), slots=slots)


def _slots(cls: type, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the slots that a class written in Python defines."""
    if not _flags(cls) & _MADE_IN_PYTHON or type(attributes.get("__slots__", _NOTHING)) is type(_NOTHING):
        return ()
    return tuple(
        name for name, value in attributes.items() if type(value) is types.MemberDescriptorType and type(name) is str
    )


def _gives_a_dictionary(cls: type, attributes: Mapping[str, Any]) -> bool:
    if cls is types.SimpleNamespace:
        return True
    return type(attributes.get("__dict__")) is types.GetSetDescriptorType and bool(_flags(cls) & _MADE_IN_PYTHON)


def _is_cache(value: Any) -> bool:
    return _kind(type(value)).may_be_cache and _kind(type(peek(value, "cache_dict"))).base is dict


# --- containers ------------------------------------------------------------------------------------------------------
class _Inner(NamedTuple):
    """A container inside another one.

    Attributes:
        place: The index of the outer container's variable in the namespace.
        outer: The kind of the outer container.
        key: The key or index of the inner container in the outer one.
        value: The inner container.
    """

    place: int
    outer: _Kind
    key: Any
    value: Any


def _with_caches(
    groups: dict[_Kind, tuple[list[int], list[Any]]], variables: set[int] | None
) -> tuple[list[tuple[int, _Kind, Any]], list[_Inner], bool]:
    """Search containers for objects of a cache's class.

    Args:
        groups: For each kind of container, the indices of the variables, and the containers.
        variables: The addresses of the variables' values, which are searched anyway. None: leave out inner containers.

    Returns:
        The containers that hold such an object, the containers inside them, and whether some were not fully searched.
    """
    by_kind = {kind: kind.containers(values) for kind, (_, values) in groups.items()}
    sizes = {kind: list(map(kind.container_class.__len__, containers)) for kind, containers in by_kind.items()}
    most = _share(list(chain.from_iterable(sizes.values())))
    opened: list[tuple[int, _Kind, Any]] = []
    inner: list[_Inner] = []
    is_cut = False
    for kind, containers in by_kind.items():
        # First the classes of all elements at once, which is fast. Most namespaces hold no cache or container there.
        nothing: tuple[list[int], list[int]] = [], []
        wanted, nested = _unchanging(partial(_classes_in, kind, containers, most), nothing)
        if wanted:
            opened += _unchanging(partial(_holding, set(wanted), kind, groups[kind][0], containers, most), [])
        if nested and variables is not None:
            outer = _unchanging(partial(_holding, set(nested), kind, groups[kind][0], containers, most), [])
            share = max(INNER // max(len(outer), 1), 1)  # the same for each, so that a large one does not use it all
            for place, _, container in outer[:INNER]:
                found = _unchanging(partial(_containers_in, set(nested), kind, container, share + 1), [])
                inner += [_Inner(place, kind, key, value) for key, value in found[:share] if id(value) not in variables]
                is_cut = is_cut or len(found) > share
            is_cut = is_cut or len(outer) > INNER
    return opened, inner, is_cut or most is not None


def _containers_in(nested: set[int], kind: _Kind, container: Any, most: int) -> list[tuple[Any, Any]]:
    """The first containers inside a container, with their keys or indices."""
    items = islice(_items(kind, container), ELEMENTS)
    return list(islice(((key, value) for key, value in items if id(type(value)) in nested), most))


def _items(kind: _Kind, container: Any) -> Iterable[tuple[Any, Any]]:
    return (
        dict.items(container) if kind.container_class is dict else enumerate(kind.container_class.__iter__(container))
    )


def _classes_in(kind: _Kind, containers: list[Any], most: int | None) -> tuple[list[int], list[int]]:
    """The classes of the elements: those of caches, and those of containers.

    They are returned as addresses, because a metaclass may define `__hash__`.
    """
    addresses = set(map(id, map(type, chain.from_iterable(_views(kind, containers, most)))))
    if not addresses <= _kinds.keys():
        for element in chain.from_iterable(_views(kind, containers, most)):
            _kind(type(element))
    kinds = {key: _kinds.get(key, _OPAQUE) for key in addresses}
    caches = [key for key, kind in kinds.items() if kind.may_be_cache]
    return caches, [key for key, kind in kinds.items() if kind is not _OPAQUE and not kind.may_be_cache]


def _holding(
    wanted: set[int], kind: _Kind, places: list[int], containers: list[Any], most: int | None
) -> list[tuple[int, _Kind, Any]]:
    """The containers that hold an object of a wanted class."""
    views = _views(kind, containers, most)
    return [
        (place, kind, container)
        for place, container, view in zip(places, containers, views, strict=True)
        if not wanted.isdisjoint(map(id, map(type, view)))
    ]


def _views(kind: _Kind, containers: list[Any], most: int | None) -> Iterable[Iterable[Any]]:
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


def _labelled(kind: _Kind, container: Any, name: str) -> list[tuple[str, Any]]:
    """The caches in a container, with the expressions that give them."""

    def read() -> list[tuple[Any, Any]]:
        return [(key, element) for key, element in islice(_items(kind, container), ELEMENTS) if _is_cache(element)]

    return [(_step(kind, name, key), element) for key, element in _unchanging(read, [])]


def _step(kind: _Kind, name: str, key: Any) -> str:
    """The expression that gives the element under `key` of a container of this kind and name."""
    if kind.base is not None:
        return f"{name}[{_key(key)}]"
    return f"{name}.{key}" if type(key) is str and expressions.is_name(key) else f"vars({name})[{_key(key)}]"


def _key(key: Any) -> str:
    """A key as a Python literal. A long one is shortened."""
    return expressions.key_text(f"{key[:39]}…" if type(key) is str and len(key) > 40 else key)


# --- one step of an expression, evaluated without running user code --------------------------------------------------
_NOTHING = object()


def _element(container: Any, key: Any) -> Any:
    """The element under a key, unless the container's class overrides the `__getitem__` of its built-in base."""
    base = _kind(type(container)).base
    if base is None or _of_class(type(container), "__getitem__") is not _class_dict(base)["__getitem__"]:
        return _NOTHING
    if base is not dict:
        return base.__getitem__(container, key) if type(key) is int and 0 <= key < base.__len__(container) else _NOTHING

    def read() -> Any:  # without hashing the key, because another key's `__eq__` may be user code
        return next((element for k, element in dict.items(container) if type(k) is type(key) and k == key), _NOTHING)

    return _unchanging(read, _NOTHING)


def _attribute(owner: Any, name: str) -> Any:
    """An attribute from an object's own dictionary or slots, unless its class overrides the attribute lookup."""
    cls = type(owner)
    if not any(_of_class(cls, "__getattribute__") is _class_dict(b).get("__getattribute__") for b in _PLAIN):
        return _NOTHING
    found = _of_class(cls, name)
    own = type(found)
    if own is types.MemberDescriptorType and any(name in names for _, names in _kind(cls).slots):
        try:
            return found.__get__(owner)
        except AttributeError:
            return _NOTHING
    if any(_of_class(own, method) is not _NOTHING for method in ("__set__", "__delete__")):
        return _NOTHING
    return peek(owner, name, _NOTHING)


_PLAIN = (object, types.SimpleNamespace)
"""Classes with Python's usual attribute lookup."""


def _of_class(cls: type, name: str) -> Any:
    """The raw attribute of a class or of a class in its MRO, without calling a descriptor."""
    return next((attributes[name] for attributes in map(_class_dict, _mro(cls)) if name in attributes), _NOTHING)


def _unchanging(read: Callable[[], _T], otherwise: _T) -> _T:
    """Read containers that another thread may be changing. Returns `otherwise` if that fails again and again."""
    for _ in range(8):
        try:
            return read()
        except RuntimeError:  # the container changed its size at the same time
            continue
    return otherwise


_NOT_SEARCHED = (
    f"Only the first {ELEMENTS:,} elements of lists, tuples and dictionaries were searched, and the first {INNER:,} "
    "lists, dictionaries and objects inside them. A cache after these is not listed: assign it to its own variable."
)
