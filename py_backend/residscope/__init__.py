"""Residscope: see which components of a transformer write an answer, from an ActivationCache in memory.

`import residscope` is fast, because torch and TransformerLens are imported only when a cache is used.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from residscope import demo as demo
    from residscope.attribution import targets as targets
    from residscope.attribution.attribute import Attribution, attribute
    from residscope.attribution.next_tokens import NextTokens, next_tokens
    from residscope.attribution.pairs import Pairs, pairs
    from residscope.attribution.segment_sums import SegmentAttribution
    from residscope.attribution.segments import Segments, segments
    from residscope.attribution.token_lens import TokenLens, token_lens
    from residscope.cache.lens_maps import LensMaps
    from residscope.causes.ablate import ablate
    from residscope.causes.ablation import Ablation
    from residscope.causes.estimate import effects, estimate
    from residscope.causes.patch import patch
    from residscope.causes.patching import Patching
    from residscope.causes.without import without
    from residscope.comparison.compare import Comparison, compare
    from residscope.comparison.two_maps import (
        AttentionComparison,
        TokenLensComparison,
        compare_attention,
        compare_token_lens,
    )
    from residscope.export.circuitsvis_views import to_circuitsvis
    from residscope.hosts.inspect import inspect
    from residscope.hosts.panel import Panel
    from residscope.many.ablate_many import ablate_many
    from residscope.many.ablation_result import AblationSummary, ManyAblation
    from residscope.many.result import AttributionSummary, ManyAttribution
    from residscope.many.run import attribute_many
    from residscope.patterns.maps import Attention, attention
    from residscope.patterns.scores import Scores, scores
    from residscope.patterns.segment_attention import SegmentAttention, segment_attention
    from residscope.session.caches import caches

__version__ = "0.1.0"
__all__ = [
    "Ablation",
    "AblationSummary",
    "Attention",
    "AttentionComparison",
    "Attribution",
    "AttributionSummary",
    "Comparison",
    "LensMaps",
    "ManyAblation",
    "ManyAttribution",
    "NextTokens",
    "Pairs",
    "Panel",
    "Patching",
    "ResidscopeError",
    "Scores",
    "SegmentAttention",
    "SegmentAttribution",
    "Segments",
    "TokenLens",
    "TokenLensComparison",
    "ablate",
    "ablate_many",
    "attention",
    "attribute",
    "attribute_many",
    "caches",
    "compare",
    "compare_attention",
    "compare_token_lens",
    "demo",
    "effects",
    "estimate",
    "inspect",
    "next_tokens",
    "pairs",
    "patch",
    "scores",
    "segment_attention",
    "segments",
    "targets",
    "to_circuitsvis",
    "token_lens",
    "without",
]

# Nothing is printed unless the user configures logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_PLACES = {
    "Ablation": "causes.ablation",
    "AblationSummary": "many.ablation_result",
    "Attention": "patterns.maps",
    "AttentionComparison": "comparison.two_maps",
    "Attribution": "attribution.result",
    "AttributionSummary": "many.result",
    "Comparison": "comparison.result",
    "LensMaps": "cache.lens_maps",
    "ManyAblation": "many.ablation_result",
    "ManyAttribution": "many.result",
    "NextTokens": "attribution.next_tokens",
    "Pairs": "attribution.pairs",
    "Panel": "hosts.panel",
    "Patching": "causes.patching",
    "Scores": "patterns.scores",
    "SegmentAttention": "patterns.segment_maps",
    "SegmentAttribution": "attribution.segment_sums",
    "Segments": "cache.segments",
    "TokenLens": "attribution.token_lens",
    "TokenLensComparison": "comparison.two_maps",
    "ablate": "causes.ablate",
    "ablate_many": "many.ablate_many",
    "attention": "patterns.maps",
    "attribute": "attribution.attribute",
    "attribute_many": "many.run",
    "caches": "session.caches",
    "compare": "comparison.compare",
    "compare_attention": "comparison.two_maps",
    "compare_token_lens": "comparison.two_maps",
    "effects": "causes.estimate",
    "estimate": "causes.estimate",
    "inspect": "hosts.inspect",
    "next_tokens": "attribution.next_tokens",
    "pairs": "attribution.pairs",
    "patch": "causes.patch",
    "scores": "patterns.scores",
    "segment_attention": "patterns.segment_attention",
    "segments": "attribution.segments",
    "to_circuitsvis": "export.circuitsvis_views",
    "token_lens": "attribution.token_lens",
    "without": "causes.without",
}
_MODULES = {"demo": "demo", "targets": "attribution.targets"}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"residscope.{_MODULES[name]}")
    if name in _PLACES:
        return getattr(import_module(f"residscope.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
