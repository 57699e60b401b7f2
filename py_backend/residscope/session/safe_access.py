"""One step of an expression, evaluated without running the user's code."""

from __future__ import annotations

import types
from typing import Any

from residscope.session.class_kinds import NOTHING, class_dict, kind_of, of_class, peek
from residscope.session.containers import unchanging


def element_of(container: Any, key: Any) -> Any:
    """The element under a key. `NOTHING` if there is none, or if the container's class overrides `__getitem__`."""
    base = kind_of(type(container)).base
    if base is None or of_class(type(container), "__getitem__") is not class_dict(base)["__getitem__"]:
        return NOTHING
    if base is not dict:
        return base.__getitem__(container, key) if type(key) is int and 0 <= key < base.__len__(container) else NOTHING

    def read() -> Any:  # `container[key]` may run the user's code: `__eq__` of another key
        return next((element for k, element in dict.items(container) if type(k) is type(key) and k == key), NOTHING)

    return unchanging(read, NOTHING)


def attribute_of(owner: object, name: str) -> Any:
    """An attribute from an object's own dictionary or slots.

    `NOTHING` if there is none, or if the class overrides the attribute lookup or hides the attribute (a property).
    """
    cls = type(owner)
    if not any(of_class(cls, "__getattribute__") is class_dict(b).get("__getattribute__") for b in _PLAIN):
        return NOTHING
    found = of_class(cls, name)
    own = type(found)
    if own is types.MemberDescriptorType and any(name in names for _, names in kind_of(cls).slots):
        try:
            return found.__get__(owner)
        except AttributeError:
            return NOTHING
    if any(of_class(own, method) is not NOTHING for method in ("__set__", "__delete__")):
        return NOTHING
    return peek(owner, name, NOTHING)


_PLAIN = (object, types.SimpleNamespace)
"""Classes with Python's usual attribute lookup."""
