"""Residscope: see which parts of a transformer write an answer, from the ActivationCache already in memory.

`import residscope` stays light: torch and TransformerLens are imported where a cache is, not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ResidscopeError

if TYPE_CHECKING:
    from . import demo as demo
    from . import targets as targets
    from .attention_maps import Attention, attention
    from .attribution import Attribution, attribute
    from .export.circuitsvis_views import to_circuitsvis
    from .head_scores import Scores, scores
    from .lens import TokenLens, token_lens
    from .many.result import AttributionSummary, ManyAttribution
    from .many.run import attribute_many
    from .namespace import caches
    from .panel import Panel, inspect

__version__ = "0.1.0"
__all__ = [
    "Attention",
    "Attribution",
    "AttributionSummary",
    "ManyAttribution",
    "Panel",
    "ResidscopeError",
    "Scores",
    "TokenLens",
    "attention",
    "attribute",
    "attribute_many",
    "caches",
    "demo",
    "inspect",
    "scores",
    "targets",
    "to_circuitsvis",
    "token_lens",
]

_ROOMS = {
    "Attention": "attention_maps",
    "Attribution": "attribution",
    "AttributionSummary": "many.result",
    "ManyAttribution": "many.result",
    "Panel": "panel",
    "Scores": "head_scores",
    "TokenLens": "lens",
    "attention": "attention_maps",
    "attribute": "attribution",
    "attribute_many": "many.run",
    "caches": "namespace",
    "inspect": "panel",
    "scores": "head_scores",
    "token_lens": "lens",
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
