"""`residscope.caches()`: what the namespace holds, for people and their code."""

from __future__ import annotations

from typing import Any

from residscope.base.legible import legible
from residscope.session.cache_summary import said
from residscope.session.discovery import search, variable_name


def caches() -> dict[str, Any]:
    """Every `ActivationCache` in the user's namespace, by its name.

    Variables, and two levels into lists, tuples, deques, dicts and objects: `{"cache": …, 'runs["clean"]': …}`. A cache
    with several names stands under the first. Nothing is computed, and no property of any object is run.
    """
    return _Caches({found.names[0]: found for found in search().found})


class _Caches(dict[str, Any]):
    """Caches by name; printed, each is a line with all its names and its shape, not with thousands of activations."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__({name: one.cache for name, one in found.items()})
        self._names = {name: one.names for name, one in found.items()}

    def __repr__(self) -> str:
        lines = [f"{legible(' = '.join(self._names.get(name, [name])))}: {said(cache)}" for name, cache in self.items()]
        return "\n".join(lines) or "no activation caches"


def name_of(cache: Any) -> str:
    """The name by which the user knows `cache`; "cache" where it has none (or there is no notebook)."""
    return variable_name(cache) or "cache"
