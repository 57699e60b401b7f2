"""Finding caches in the user's namespace. It reads names and identities only, never a tensor's content."""

from __future__ import annotations

from typing import Any


def name_of(cache: Any) -> str:
    """The variable by which the user knows `cache`; "cache" where it has none (or there is no notebook)."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    # A snapshot: the user's cell may add variables while we look. IPython's own history names begin with "_".
    variables = list(shell.user_ns.items()) if shell is not None else []
    return next((name for name, value in variables if value is cache and not name.startswith("_")), "cache")
