"""Finding caches in the user's namespace: variables, and two levels into lists, tuples, deques, dicts and objects.

Nothing of the user's is run: no property, no `__getattr__`, no `__class__`, no `__iter__`, `__len__`, `__eq__` or
`__hash__` of theirs or of their metaclasses. So classes are told by `type` and compared by identity, what an object
holds is read through CPython's own descriptors, and containers through the methods of `list`, `tuple`, `deque` and
`dict`.
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
"""So many elements of containers are looked at in one search, on either level."""

INNER = 2_000
"""So many containers that lie in others are looked into."""

_HISTORY = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|_[oid]h|In")
"""IPython's own names for what was typed and shown; `Out` is the user's way to it."""

_VARIABLE, _INNER, _DEEP, _OUT = range(4)
_T = TypeVar("_T")


@dataclass
class Found:
    """A cache, and all ways to it.

    Variables first, then `runs["clean"]`, `model.cache`, then two steps from a variable, `runs["clean"].cache`;
    `Out[5]` where it has none.

    What is no plain name is told by where it is kept, so that it cannot be taken for another: `globals()["a b"]`,
    `vars(model)["a.b"]`.
    """

    cache: Any
    names: list[str] = field(default_factory=list[str])


class Search(NamedTuple):
    """What a namespace holds, in its order; `notes` say what was not looked at."""

    found: list[Found]
    notes: list[str]


def search(namespace: dict[str, Any] | None = None) -> Search:
    """Every `ActivationCache` that a namespace reaches; by default the user's.

    A cache is whatever has `accumulated_resid` and `stack_head_results` in its class and a dictionary `cache_dict` in
    the instance: the classes of TransformerLens 2, 3 and 4, and those made from them.
    """
    if "torch" not in sys.modules:  # there is no cache without it, and it is not for us to load it
        return Search([], [])
    names, values = _variables(namespace)
    ways: list[tuple[int, int, str, Any]] = []  # what kind of way, where in the namespace, its name, the cache
    containers: dict[_Kind, list[int]] = {}
    for place, known in enumerate(map(_kinds.get, map(id, map(type, values)))):
        kind = known or _kind(type(values[place]))
        if kind is _OPAQUE or not _of_user(names[place]):
            continue
        if kind.cache and _is_cache(values[place]):
            ways.append((_VARIABLE, place, _variable(names[place]), values[place]))
        elif kind in containers:
            containers[kind].append(place)
        else:
            containers[kind] = [place]
    groups = {kind: (places, [values[i] for i in places]) for kind, places in containers.items()}
    opened, inner, full = _with_caches(groups, set(map(id, values)))
    for place, kind, value in opened:
        way = _OUT if names[place] == "Out" else _INNER
        ways += [(way, place, label, element) for label, element in _labelled(kind, value, _variable(names[place]))]
    deep: dict[_Kind, list[_Inner]] = {}
    for one in inner:
        deep.setdefault(_kind(type(one.value)), []).append(one)
    found_deep, _, full_deep = _with_caches(
        {kind: (list(range(len(some))), [one.value for one in some]) for kind, some in deep.items()}, None
    )
    full = full or full_deep
    for at, kind, value in found_deep:
        place, outer, key, _ = deep[kind][at]
        way = _OUT if names[place] == "Out" else _DEEP
        name = _step(outer, _variable(names[place]), key)
        ways += [(way, place, label, element) for label, element in _labelled(kind, value, name)]
    found: dict[int, Found] = {}
    taken: dict[str, list[int]] = {}
    for way, _, name, cache in sorted(ways, key=lambda way: way[:2]):
        known = found.setdefault(id(cache), Found(cache))
        if name not in known.names and not (way == _OUT and known.names):
            # Long or odd keys are cut short, and may look alike: a name leads to one cache.
            same = taken.setdefault(name, [])
            if id(cache) not in same:
                same.append(id(cache))
            place_among = same.index(id(cache)) + 1
            known.names.append(name if place_among == 1 else f"{name} ({place_among})")
    place = {id(cache): place for _, place, _, cache in sorted(ways, key=lambda way: -way[1])}
    return Search(sorted(found.values(), key=lambda found: place[id(found.cache)]), [_LEFT_OUT] * full)


def variable_name(cache: Any) -> str | None:
    """The name by which the user knows `cache`; None where it has none (or there is no notebook)."""
    return next(ways_to(cache), None)


def ways_to(cache: Any) -> Iterator[str]:
    """All names by which the user knows `cache`, variables first."""
    yield from variables_of(lambda value: value is cache)
    yield from (name for found in search().found if found.cache is cache for name in found.names)


def variables_of(meant: Callable[[Any], bool]) -> Iterator[str]:
    """The user's variables whose value is meant (none where there is no notebook)."""
    names, values = _variables(None)
    return (_variable(name) for name, value in zip(names, values, strict=True) if _of_user(name) and meant(value))


def of_classes(classes: Iterable[tuple[type, _T]]) -> Iterator[tuple[Callable[[], str], Any, _T]]:
    """The user's variables of exactly these classes, with what gives their names, and what was given with the class."""
    wanted = {id(cls): given for cls, given in classes}  # by address: a metaclass' `__hash__` may be the user's
    names, values = _variables(None)
    met = map(wanted.get, map(id, map(type, values)))
    return (
        (partial(_variable, name), value, given)
        for name, value, given in zip(names, values, met, strict=True)
        if given is not None and _of_user(name)
    )


def leads_to(name: str, value: Any) -> bool:
    """Whether Python, reading this name in the user's notebook, gets this very object, and runs nothing on the way.

    So no property and no method of the user's stands between; and the name of one object is not also another's.
    """
    path = expressions.parsed(name)
    if path is None:
        return False
    names, values = _variables(None)
    at = next((v for n, v in zip(names, values, strict=True) if type(n) is str and n == path.variable), _NOTHING)
    for key, attribute in path.steps:
        at = _attribute(at, key) if attribute else _element(at, key)
    return at is value


def is_taken(variable: str) -> bool:
    """Whether a name already means something, in the user's notebook or in Python."""
    return variable in vars(builtins) or any(type(n) is str and n == variable for n in _variables(None)[0])


def peek(value: Any, name: str, default: Any = None) -> Any:
    """What an object's own dictionary holds under a name: no property, no `__getattr__` and no class attribute."""
    held = _kind(type(value)).held(value)
    return default if held is None else dict.get(held, name, default)


def _variables(namespace: dict[str, Any] | None) -> tuple[list[str], list[Any]]:
    """A snapshot of the user's variables; a running cell may add some meanwhile."""
    if namespace is None:
        getipython = sys.modules.get("IPython.core.getipython")
        shell = getipython.get_ipython() if getipython else None
        found: dict[str, Any] = {} if shell is None else shell.user_ns
        namespace = found
    snapshot: dict[str, Any] = dict.copy(namespace)
    return list(snapshot), list(snapshot.values())


def _of_user(name: Any) -> bool:
    """Whether a name is one that the user wrote, and not IPython's for what was typed and shown."""
    return type(name) is str and not _HISTORY.fullmatch(name)


def _variable(name: str) -> str:
    """A variable by what one would write to get it."""
    return name if expressions.is_plain(name) else f"globals()[{_key(name)}]"


# --- what a class is, once for each class ----------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Kind:
    """How objects of a class are read.

    Attributes:
        cache: Whether they may be caches.
        base: The container that they are, if any.
        owner: The class, theirs or one before it, that gives the instances a dictionary of their own.
        slots: The classes, theirs and those before it, that give the instances slots (`__slots__`), and their names.
    """

    cache: bool = False
    base: type | None = None
    owner: weakref.ref[type] | None = None
    slots: tuple[tuple[weakref.ref[type], tuple[str, ...]], ...] = ()

    @property
    def instance(self) -> Callable[[Any], dict[str, Any]] | None:
        """Reads an instance's own dictionary; None where it has none."""
        owner = self.owner and self.owner()
        return None if owner is None else _class_dict(owner)["__dict__"].__get__

    def held(self, value: Any) -> dict[str, Any] | None:
        """What an instance holds, by name; None where it has neither a dictionary of its own nor slots."""
        instance = self.instance
        if not self.slots:
            return None if instance is None else instance(value)
        held: dict[str, Any] = {} if instance is None else dict.copy(instance(value))
        for reference, names in self.slots:
            owner = reference()
            if owner is None:
                continue
            for name in names:
                try:
                    held.setdefault(name, _class_dict(owner)[name].__get__(value))
                except (AttributeError, KeyError):  # nothing was put there, or the class was changed since
                    continue
        return held

    def containers(self, values: list[Any]) -> list[Any]:
        """The lists, tuples, deques or dictionaries that objects of this class hold their elements in."""
        if self.slots:
            return [self.held(value) for value in values]
        instance = self.instance
        return values if instance is None else list(map(instance, values))

    @property
    def reads(self) -> type:
        """What they are read as."""
        return self.base or dict


_OPAQUE = _Kind()
_kinds: dict[int, _Kind] = {}
_classes: dict[int, weakref.ref[type]] = {}
_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
_class_dict: Callable[[type], types.MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__
_flags: Callable[[type], int] = type.__dict__["__flags__"].__get__
_MADE_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_MARKS = ("accumulated_resid", "stack_head_results")


def _kind(cls: type) -> _Kind:
    """What a class is. Remembered by its address, and forgotten with it: its metaclass' `__hash__` is the user's."""
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
    # A class may put a property in front of the true `__dict__`; C's own classes (functions, modules) have other ones.
    owner = next((b for b, attributes in own if _gives_a_dictionary(b, attributes)), None)
    slots = tuple((weakref.ref(b), names) for b, attributes in own if (names := _slots(b, attributes)))
    if (owner is None and not slots) or any(b is type for b in bases):
        return _OPAQUE
    cache = all(any(mark in attributes for _, attributes in own) for mark in _MARKS)
    return _Kind(cache=cache, owner=None if owner is None else weakref.ref(owner), slots=slots)


def _slots(cls: type, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the slots that a class made in Python gives its instances."""
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
    return _kind(type(value)).cache and _kind(type(peek(value, "cache_dict"))).base is dict


# --- containers ------------------------------------------------------------------------------------------------------
class _Inner(NamedTuple):
    """A container in another one.

    Attributes:
        place: Where the outer one stands in the namespace.
        outer: The outer one's kind.
        key: Where it stands in the outer one.
        value: It.
    """

    place: int
    outer: _Kind
    key: Any
    value: Any


def _with_caches(
    groups: dict[_Kind, tuple[list[int], list[Any]]], variables: set[int] | None
) -> tuple[list[tuple[int, _Kind, Any]], list[_Inner], bool]:
    """The containers that hold an object of a cache's class, those in them, and whether some were not read whole.

    Args:
        groups: For each kind of container their places in the namespace, and they.
        variables: The addresses of what variables lead to, which is looked at anyway; None where the containers in
            them are not wanted.
    """
    held = {kind: kind.containers(values) for kind, (_, values) in groups.items()}
    sizes = {kind: list(map(kind.reads.__len__, containers)) for kind, containers in held.items()}
    most = _share(list(chain.from_iterable(sizes.values())))
    opened: list[tuple[int, _Kind, Any]] = []
    inner: list[_Inner] = []
    cut = False
    for kind, containers in held.items():
        # All elements at once, at C speed: mostly no class among them is a cache's or a container's.
        nothing: tuple[list[int], list[int]] = [], []
        wanted, nested = _unchanging(partial(_classes_in, kind, containers, most), nothing)
        if wanted:
            opened += _unchanging(partial(_holding, set(wanted), kind, groups[kind][0], containers, most), [])
        if nested and variables is not None:
            some = _unchanging(partial(_holding, set(nested), kind, groups[kind][0], containers, most), [])
            each = max(INNER // max(len(some), 1), 1)  # a large one leaves room for the others
            for place, _, container in some[:INNER]:
                more = _unchanging(partial(_containers_in, set(nested), kind, container, each + 1), [])
                inner += [_Inner(place, kind, key, value) for key, value in more[:each] if id(value) not in variables]
                cut = cut or len(more) > each
            cut = cut or len(some) > INNER
    return opened, inner, cut or most is not None


def _containers_in(nested: set[int], kind: _Kind, container: Any, most: int) -> list[tuple[Any, Any]]:
    """The first containers in a container, and where they stand."""
    some = islice(_items(kind, container), ELEMENTS)
    return list(islice(((key, value) for key, value in some if id(type(value)) in nested), most))


def _items(kind: _Kind, container: Any) -> Iterable[tuple[Any, Any]]:
    return dict.items(container) if kind.reads is dict else enumerate(kind.reads.__iter__(container))


def _classes_in(kind: _Kind, containers: list[Any], most: int | None) -> tuple[list[int], list[int]]:
    """The addresses of the caches' and of the containers' classes among all elements' classes.

    Addresses, since a class' own `__hash__` may be the user's.
    """
    met = set(map(id, map(type, chain.from_iterable(_views(kind, containers, most)))))
    if not met <= _kinds.keys():
        for element in chain.from_iterable(_views(kind, containers, most)):
            _kind(type(element))
    kinds = {key: _kinds.get(key, _OPAQUE) for key in met}
    caches = [key for key, kind in kinds.items() if kind.cache]
    return caches, [key for key, kind in kinds.items() if kind is not _OPAQUE and not kind.cache]


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
    """Each container's elements, the first `most` of them."""
    read: Callable[[Any], Iterable[Any]] = dict.values if kind.reads is dict else kind.reads.__iter__
    views = map(read, containers)
    return views if most is None else map(islice, views, repeat(most))


def _share(sizes: list[int]) -> int | None:
    """How many elements of each container are looked at, so that the search stays quick; None is all."""
    left = ELEMENTS
    if sum(sizes) <= left:
        return None
    for others, size in zip(range(len(sizes), 0, -1), sorted(sizes), strict=True):
        if size * others > left:
            return max(left // others, 1)
        left -= size
    return None


def _labelled(kind: _Kind, container: Any, name: str) -> list[tuple[str, Any]]:
    """The caches in a container, by what one would write to get them."""

    def read() -> list[tuple[Any, Any]]:
        return [(key, element) for key, element in islice(_items(kind, container), ELEMENTS) if _is_cache(element)]

    return [(_step(kind, name, key), element) for key, element in _unchanging(read, [])]


def _step(kind: _Kind, name: str, key: Any) -> str:
    """What one would write to get what stands in a container of this kind and name."""
    if kind.base is not None:
        return f"{name}[{_key(key)}]"
    return f"{name}.{key}" if type(key) is str and expressions.is_plain(key) else f"vars({name})[{_key(key)}]"


def _key(key: Any) -> str:
    """A key as one would write it, a long one cut short."""
    return expressions.key_text(f"{key[:39]}…" if type(key) is str and len(key) > 40 else key)


# --- one step, as Python would take it, where nothing of the user's has a say in it ----------------------------------
_NOTHING = object()


def _element(container: Any, key: Any) -> Any:
    """The element under a key, if the container's class leaves that to `list`, `tuple`, `deque` or `dict`."""
    base = _kind(type(container)).base
    if base is None or _of_class(type(container), "__getitem__") is not _class_dict(base)["__getitem__"]:
        return _NOTHING
    if base is not dict:
        return base.__getitem__(container, key) if type(key) is int and 0 <= key < base.__len__(container) else _NOTHING

    def read() -> Any:  # not by the key's hash: another key's `__eq__` may be the user's
        return next((held for k, held in dict.items(container) if type(k) is type(key) and k == key), _NOTHING)

    return _unchanging(read, _NOTHING)


def _attribute(owner: Any, name: str) -> Any:
    """What an object's own dictionary holds under a name, if nothing in its class comes before that."""
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
"""Classes whose way to look up an attribute is Python's own."""


def _of_class(cls: type, name: str) -> Any:
    """What a class, or one before it, holds under a name, as it stands there."""
    return next((held[name] for held in map(_class_dict, _mro(cls)) if name in held), _NOTHING)


def _unchanging(read: Callable[[], _T], otherwise: _T) -> _T:
    """Read a dictionary that another thread may be filling."""
    for _ in range(8):
        try:
            return read()
        except RuntimeError:  # it changed its size meanwhile
            continue
    return otherwise


_LEFT_OUT = (
    f"Only {ELEMENTS:,} elements of lists, tuples and dictionaries were looked at, and {INNER:,} lists, dictionaries "
    "and objects in them, the first ones of each: a cache further on is not listed. Give it a variable of its own."
)
