"""The traits of a panel. They are made from the fields of `Shown`, with the same names, types, limits and defaults.

Some traits accept values in several forms, and check them against the panel's model and prompts.
"""

from __future__ import annotations

from types import new_class
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
import traitlets
from msgspec import inspect

from residscope.errors import ResidscopeError
from residscope.wire.shown import MOST_OF_TRAIL, Feeds, Shown, Step


class Position(traitlets.TraitType[Any, Any]):
    """A destination position. `"last"` becomes a number if all prompts end at the same position."""

    default_value = "last"

    def validate(self, obj: Any, value: Any) -> int | Literal["last"]:
        """Return the position counted from the start. Raise an error if it lies outside the prompt."""
        return obj.whole_position(value)


class ReadableTarget(traitlets.TraitType[Any, Any]):
    """The target, in its readable form. None becomes the model's two top predictions."""

    default_value = None

    def validate(self, obj: Any, value: Any) -> Any:
        """Return the readable form of the target. Raise an error if it is not a target of this model."""
        return obj.readable_target(value)


class Facts(traitlets.TraitType[Any, Any]):
    """The description of the cache. It is updated each time it is read."""

    default_value: ClassVar[Any] = {}

    def get(self, obj: Any, cls: Any = None) -> Any:
        """Update the description, then return it."""
        obj.update_facts()
        return super().get(obj, cls)


class Heads(traitlets.List[str]):
    """The pinned heads, as `["L23H3"]`. `"23.3"`, `"L23H3"` and `(23, 3)` are accepted, alone or in a list.

    Repeated heads are dropped.
    """

    def validate(self, obj: Any, value: Any) -> Any:
        """Return the heads as `["L23H3"]`."""
        value = () if value is None else value
        if not isinstance(value, str | list | tuple | set):
            raise ResidscopeError("head", f"{value!r} is not a list of heads: write one such as ['L23H3', '29.0'].")
        is_one_head = isinstance(value, str) or (
            isinstance(value, tuple) and all(hasattr(n, "__index__") for n in value)
        )
        names = [obj.head_name(head) for head in ([value] if is_one_head and value else value)]
        return super().validate(obj, list(dict.fromkeys(names)))


class Trail(traitlets.TraitType[Any, Any]):
    """The targets that were chosen one after another, in their readable form. Views get them as `protocol.Step`."""

    default_value: ClassVar[Any] = []

    def __init__(self) -> None:
        super().__init__()
        self.tag(to_json=_wire_trail, from_json=_steps)

    def validate(self, obj: Any, value: Any) -> Any:
        """Return the readable forms of the targets. Raise an error if it is not a list of targets of this model."""
        return obj.readable_trail(value)


def _wire_trail(_value: object, panel: Any) -> Any:
    return panel.wire_trail()


def _steps(value: Any, _panel: Any) -> list[Step]:
    """The steps that a view sends."""
    try:
        return msgspec.convert(value, Annotated[list[Step], msgspec.Meta(max_length=MOST_OF_TRAIL)])
    except msgspec.ValidationError as error:
        raise ResidscopeError("trail", f"This is not a trail: {error}.") from error


class Plain(traitlets.TraitType[Any, Any]):
    """A structure of the wire, given as plain data or as the structure itself.

    Args:
        kind: The type of the structure.
        default: The value before anything is selected.
    """

    def __init__(self, kind: object, default: object) -> None:
        self._kind = kind
        super().__init__(default)

    def validate(self, _obj: object, value: object) -> Any:
        """Return the structure as plain data. Raise an error if it is not such a structure."""
        try:
            return msgspec.to_builtins(msgspec.convert(msgspec.to_builtins(value), self._kind))
        except (msgspec.ValidationError, TypeError) as error:
            raise ResidscopeError(str(self.name), f"`{self.name}` has an unknown form: {error}.") from error


class ComparedRun(traitlets.TraitType[Any, Any]):
    """The run that the cache is compared with, as plain data. Prompts, names and caches are accepted."""

    default_value = None

    def validate(self, obj: Any, value: Any) -> Any:
        """Return the run as plain data. Raise an error if there is no such prompt or cache."""
        return msgspec.to_builtins(obj.run_against(value))


class SegmentedPrompt(traitlets.TraitType[Any, Any]):
    """How the prompt is divided into segments, as plain data. Rules, ranges and `Segments` are accepted."""

    default_value = None

    def validate(self, obj: Any, value: Any) -> Any:
        """Return a rule, or ranges as plain data. Raise an error if the shown prompt has no such segments."""
        return msgspec.to_builtins(obj.segmented(value))


class ShownSae(traitlets.TraitType[Any, Any]):
    """The SAE whose features are shown, by its name. The SAE itself is accepted, too."""

    default_value = None

    def validate(self, obj: Any, value: Any) -> Any:
        """Return the name of the SAE. Raise an error if the panel does not know it."""
        return None if value is None else obj.sae_name(value)


_SPECIAL_TRAITS: dict[str, type[traitlets.TraitType[Any, Any]]] = {
    "position": Position,
    "heads": Heads,
    "trail": Trail,
    "against": ComparedRun,
    "segments": SegmentedPrompt,
    "sae": ShownSae,
}
_PLAIN_TRAITS: dict[str, Any] = {"feeds": Feeds | None}
_NOT_SHARED = frozenset({"target", "by"})
"""Fields that get no trait from this module. `TargetTrail` defines two traits for the target: `wire_target`, and
`target` in readable form. Only views use `by`, the rows of the position map."""


def _trait(field: inspect.Field) -> traitlets.TraitType[Any, Any]:
    """The trait for one field of `Shown`."""
    if field.name in _SPECIAL_TRAITS:
        return _SPECIAL_TRAITS[field.name]()
    if field.name in _PLAIN_TRAITS:
        return Plain(_PLAIN_TRAITS[field.name], None)
    kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    optional = any(isinstance(kind, inspect.NoneType) for kind in kinds)
    kind = next(kind for kind in kinds if not isinstance(kind, inspect.NoneType))
    match kind:
        case inspect.LiteralType():
            return traitlets.Enum(kind.values, field.default, allow_none=optional)
        case inspect.IntType():
            # An optional number is a prompt, a layer or a feature. The panel checks prompts and layers.
            limits: dict[str, Any] = {"allow_none": True} if optional else {"min": kind.ge, "max": kind.le}
            return traitlets.Int(field.default, **limits)
        case _:
            raise NotImplementedError(
                f"`Shown.{field.name}` has a type that has no trait: add it to `_SPECIAL_TRAITS`."
            )


def _fields() -> tuple[inspect.Field, ...]:
    shown = inspect.type_info(Shown)
    assert isinstance(shown, inspect.StructType)
    return shown.fields


def _may_be_missing(field: inspect.Field) -> bool:
    kinds = field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,)
    return not all(isinstance(kind, inspect.LiteralType | inspect.NoneType) for kind in kinds)


NOT_IN_EVERY_CACHE = [field.name for field in _fields() if _may_be_missing(field)]
"""All that can be selected, except choices from a fixed list. A panel checks each of them before it shows another cache
(`CheckedSelection._checks`)."""


def selectable() -> dict[str, traitlets.TraitType[Any, Any]]:
    """A trait for each field of `Shown` that Python and the views share."""
    return {field.name: _trait(field).tag(sync=True) for field in _fields() if field.name not in _NOT_SHARED}


if TYPE_CHECKING:

    class Selected(traitlets.HasTraits):
        """What can be selected. The traits are made from `Shown`, so a type checker does not see them."""

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: object) -> None: ...
else:
    Selected = new_class("Selected", (traitlets.HasTraits,), exec_body=lambda body: body.update(selectable()))
