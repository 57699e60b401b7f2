"""The traits of a panel. What can be selected follows from `Shown`, field by field: name, type, limits and default.

Some take what a person would write, and check it against the panel's model and prompts.
"""

from __future__ import annotations

from types import new_class
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import traitlets
from msgspec import inspect

from residscope.errors import ResidscopeError
from residscope.wire.protocol import Shown


class Position(traitlets.TraitType[Any, Any]):
    """A destination position. `"last"` becomes a number where all prompts end at the same position."""

    default_value = "last"

    def validate(self, obj: Any, value: Any) -> int | Literal["last"]:
        """Refuse what lies outside the prompt; count from the start."""
        return obj.whole_position(value)


class Answers(traitlets.TraitType[Any, Any]):
    """What is attributed, in its readable form; None becomes the model's own two top predictions."""

    default_value = None

    def validate(self, obj: Any, value: Any) -> Any:
        """Refuse what is no target of this model; bring the rest into the readable form."""
        return obj.readable_target(value)


class Facts(traitlets.TraitType[Any, Any]):
    """What the cache is, as it is now: whoever reads it is told what has become of it."""

    default_value: ClassVar[Any] = {}

    def get(self, obj: Any, cls: Any = None) -> Any:
        """Look again, then give it."""
        obj.follow()
        return super().get(obj, cls)


class Heads(traitlets.List[str]):
    """Pinned heads as `["L23H3"]`; takes `"23.3"`, `"L23H3"`, `(23, 3)`, alone or in a list, and drops repetitions."""

    def validate(self, obj: Any, value: Any) -> Any:
        """Bring every head into the form `"L23H3"`."""
        value = () if value is None else value
        if not isinstance(value, str | list | tuple | set):
            raise ResidscopeError("head", f"{value!r} are not heads: give a list such as ['L23H3', '29.0'].")
        alone = isinstance(value, str) or (isinstance(value, tuple) and all(hasattr(n, "__index__") for n in value))
        names = [obj.head_name(head) for head in ([value] if alone and value else value)]
        return super().validate(obj, list(dict.fromkeys(names)))


_OWN: dict[str, type[traitlets.TraitType[Any, Any]]] = {"position": Position, "heads": Heads}
_NOT_SHARED = frozenset({"target", "by"})
"""The target has a readable form beside that of the wire; the rows of the position map are the view's alone."""


def _trait(field: inspect.Field) -> traitlets.TraitType[Any, Any]:
    """The trait of what can be selected."""
    if field.name in _OWN:
        return _OWN[field.name]()
    kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    optional = any(isinstance(kind, inspect.NoneType) for kind in kinds)
    kind = next(kind for kind in kinds if not isinstance(kind, inspect.NoneType))
    match kind:
        case inspect.LiteralType():
            return traitlets.Enum(kind.values, field.default, allow_none=optional)
        case inspect.IntType():
            # Which prompt or layer there is, the panel knows.
            limits: dict[str, Any] = {"allow_none": True} if optional else {"min": kind.ge, "max": kind.le}
            return traitlets.Int(field.default, **limits)
        case _:
            raise NotImplementedError(f"`Shown.{field.name}` has a type that no trait is known for: add it to `_OWN`.")


def selectable() -> dict[str, traitlets.TraitType[Any, Any]]:
    """A trait for each field of `Shown` that Python and the views share."""
    shown = inspect.type_info(Shown)
    assert isinstance(shown, inspect.StructType)
    return {field.name: _trait(field).tag(sync=True) for field in shown.fields if field.name not in _NOT_SHARED}


if TYPE_CHECKING:

    class Selected(traitlets.HasTraits):
        """What can be selected: its traits are made from `Shown`, and no type checker sees them."""

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...
else:
    Selected = new_class("Selected", (traitlets.HasTraits,), exec_body=lambda body: body.update(selectable()))
