"""The SAEs and transcoders whose features a view can show: those that were given, and those in the namespace."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.serving.turns import is_cell_on_other_thread
from residscope.session.sae_state import state_of
from residscope.session.saes import in_namespace, site_name
from residscope.terms import MOST_OF_NAME
from residscope.wire.features import KnownSae


class KnownSaes:
    """The SAEs that are known for one cache, by name.

    Args:
        given: The SAEs that the user gave, by name, each in a form that `sae=` accepts.
    """

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self.given: dict[str, Any] = dict(given or {})

    def of(self, view: CacheView) -> dict[str, Any]:
        """Return all SAEs by name: first those that were given, then those in the namespace that fit the model."""
        known = {id(part) for sae in self.given.values() for part in _parts(sae)}
        found = in_namespace(view)
        others = {n: sae for n, sae in found.items() if n not in self.given and known.isdisjoint(map(id, _parts(sae)))}
        return self.given | others

    def listed(self, view: CacheView) -> list[KnownSae]:
        """Return for each SAE its name, the activation that it reconstructs, and its state."""
        # A cell may be training an SAE. So SAEs are compared only between cells. Otherwise the views would send their
        # requests again after each training step.
        is_compared = not is_cell_on_other_thread()
        return [
            KnownSae(name, site_name(sae)[:MOST_OF_NAME], state_of(_parts(sae)[-1], is_compared=is_compared))
            for name, sae in self.of(view).items()
        ]

    def settled(self, view: CacheView) -> Hashable:
        """Return a value that differs after an SAE was assigned, changed or deleted."""
        return tuple(self.listed(view))

    def name_of(self, view: CacheView, wanted: Any) -> str:
        """Return the name of an SAE, given by its name or as the SAE itself.

        Raises:
            ResidscopeError: If there is no such SAE.
        """
        known = self.of(view)
        if isinstance(wanted, str):
            if wanted in known:
                return wanted
        else:
            found = (name for name, sae in known.items() if any(part is wanted for part in _parts(sae)))
            name = next(found, None)
            if name is not None:
                return name
        names = ", ".join(f"`{name}`" for name in known) or "none"
        raise ResidscopeError(
            "sae", f"This is not one of the SAEs that the panel knows ({names}): give it to `inspect(cache, sae=…)`."
        )


def _parts(given: Any) -> tuple[Any, ...]:
    """The objects by which an SAE is known: the given object and, for a tuple `(sae, NAME)`, also the SAE in it."""
    return (given, given[0]) if isinstance(given, tuple) and given else (given,)  # pyright: ignore[reportUnknownVariableType]
