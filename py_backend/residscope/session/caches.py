"""`residscope.caches()`: the caches in the user's namespace."""

from __future__ import annotations

from typing import Any

from residscope.base.legible import legible
from residscope.session.cache_summary import summary
from residscope.session.discovery import search, variable_name


def caches() -> dict[str, Any]:
    """Return every `ActivationCache` in the user's namespace, by its name.

    Variables are searched, and also the lists, tuples, deques, dicts and objects that they hold, two levels deep:
    `{"cache": …, 'runs["clean"]': …}`. A cache with several names is listed under the first. Nothing is computed, and
    no property of any object runs.
    """
    return _Caches({found.names[0]: found for found in search().found})


class _Caches(dict[str, Any]):
    """Caches by name. Printed, each cache is one line with its names and its shape, not its activations."""

    def __init__(self, found: dict[str, Any]) -> None:
        super().__init__({name: cache.cache for name, cache in found.items()})
        self._names = {name: cache.names for name, cache in found.items()}

    def __repr__(self) -> str:
        names = {name: " = ".join(self._names.get(name, [name])) for name in self}
        lines = [f"{legible(names[name])}: {summary(cache)}" for name, cache in self.items()]
        return "\n".join(lines) or "no activation caches"


def name_of(cache: object) -> str:
    """Return the first name of `cache` in the user's namespace. "cache" if there is no name, or no notebook."""
    return variable_name(cache) or "cache"
