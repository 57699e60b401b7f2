"""Residscope: see which parts of a transformer write an answer, from the ActivationCache already in memory.

`import residscope` stays light: torch and TransformerLens are imported where a cache is, not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ResidscopeError

if TYPE_CHECKING:
    from . import demo as demo
    from . import targets as targets
    from .attribution import Attribution, attribute
    from .export.circuitsvis_views import to_circuitsvis
    from .namespace import caches
    from .panel import Panel, inspect

__version__ = "0.1.0"
__all__ = [
    "Attribution",
    "Panel",
    "ResidscopeError",
    "attribute",
    "caches",
    "demo",
    "inspect",
    "targets",
    "to_circuitsvis",
]

_ROOMS = {
    "Attribution": "attribution",
    "Panel": "panel",
    "attribute": "attribution",
    "caches": "namespace",
    "inspect": "panel",
    "to_circuitsvis": "export.circuitsvis_views",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in ("demo", "targets"):
        return import_module(f".{name}", __name__)
    if name in _ROOMS:
        return getattr(import_module(f".{_ROOMS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
