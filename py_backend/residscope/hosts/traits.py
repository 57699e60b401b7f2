"""Traits of a panel that take what a person would write, and check it against the panel's model and prompts."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import traitlets

from residscope.errors import ResidscopeError


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
