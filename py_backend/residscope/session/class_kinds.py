"""Determines, once for each class, how its instances are read without running the user's code."""

from __future__ import annotations

import types
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

NOTHING = object()
"""Returned if there is no such attribute, element or variable."""


@dataclass(frozen=True, eq=False)
class Kind:
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
    def read_dict(self) -> Callable[[object], dict[str, object]] | None:
        """A function that reads an instance's `__dict__`. None if instances have none."""
        owner = self.owner and self.owner()
        return None if owner is None else class_dict(owner)["__dict__"].__get__

    def attributes(self, value: object) -> dict[str, Any] | None:
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
                    attributes.setdefault(name, class_dict(owner)[name].__get__(value))
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


OPAQUE = Kind()
KINDS: dict[int, Kind] = {}
"""The known kinds, by the address of the class."""
_classes: dict[int, weakref.ref[type]] = {}
_mro: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__
class_dict: Callable[[type], types.MappingProxyType[str, Any]] = type.__dict__["__dict__"].__get__
_flags: Callable[[type], int] = type.__dict__["__flags__"].__get__
_MADE_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE
_CACHE_METHODS = ("accumulated_resid", "stack_head_results")


def kind_of(cls: type) -> Kind:
    """The kind of a class. Kinds are kept by the address of the class, because a metaclass may define `__hash__`."""
    key = id(cls)
    known = KINDS.get(key)
    if known is None:
        known = _classify(cls)

        def forget(_gone: object, key: int = key, registers: tuple[dict[int, Any], ...] = (KINDS, _classes)) -> None:
            for register in registers:  # not the module's variables, because Python clears them when it ends
                register.pop(key, None)

        _classes[key] = weakref.ref(cls, forget)
        KINDS[key] = known
    return known


def _classify(cls: type) -> Kind:
    bases = _mro(cls)
    for base in (list, tuple, dict, deque):
        if any(b is base for b in bases):
            return Kind(base=base)
    own = [(b, class_dict(b)) for b in bases]
    # A property may hide the real `__dict__`, so the class that gives it is searched. Classes written in C, such as
    # functions and modules, are left out.
    owner = next((b for b, attributes in own if _gives_a_dictionary(b, attributes)), None)
    slots = tuple((weakref.ref(b), names) for b, attributes in own if (names := _slots(b, attributes)))
    if (owner is None and not slots) or any(b is type for b in bases):
        return OPAQUE
    may_be_cache = all(any(method in attributes for _, attributes in own) for method in _CACHE_METHODS)
    return Kind(may_be_cache=may_be_cache, owner=None if owner is None else weakref.ref(owner), slots=slots)


def _slots(cls: type, attributes: Mapping[str, object]) -> tuple[str, ...]:
    """The names of the slots that a class written in Python defines."""
    if not _flags(cls) & _MADE_IN_PYTHON or type(attributes.get("__slots__", NOTHING)) is type(NOTHING):
        return ()
    return tuple(
        name for name, value in attributes.items() if type(value) is types.MemberDescriptorType and type(name) is str
    )


def _gives_a_dictionary(cls: type, attributes: Mapping[str, object]) -> bool:
    if cls is types.SimpleNamespace:
        return True
    return type(attributes.get("__dict__")) is types.GetSetDescriptorType and bool(_flags(cls) & _MADE_IN_PYTHON)


def is_cache(value: object) -> bool:
    """Return whether this is an `ActivationCache`."""
    return kind_of(type(value)).may_be_cache and kind_of(type(peek(value, "cache_dict"))).base is dict


def peek(value: object, name: str, default: object = None) -> Any:
    """Return an attribute from an object's dictionary or slots. Properties and class attributes are ignored."""
    attributes = kind_of(type(value)).attributes(value)
    return default if attributes is None else dict.get(attributes, name, default)


def of_class(cls: type, name: str) -> Any:
    """The raw attribute of a class or of a class in its MRO, without calling a descriptor. `NOTHING` if none has it."""
    return next((attributes[name] for attributes in map(class_dict, _mro(cls)) if name in attributes), NOTHING)
