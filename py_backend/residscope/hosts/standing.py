"""What the names in a panel stand for now: the variable of its cache, and that of the cache it is compared with.

A cell may assign another cache to either variable. The panel then still shows its own cache. Of the compared cache only
the name is kept, so everything is read from the cache that has this name now.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any, Protocol, TypedDict

from residscope.session.change_tracking import tracked
from residscope.session.discovery import leads_to, named


class Standing(TypedDict):
    """What the names stand for, as the views get it.

    Attributes:
        rebound: Whether the variable of the panel's cache now holds another cache.
        against: The name of the compared cache, and a text that differs for each cache and each of its states. The text
            is empty if there is no such cache. None if no other cache is compared.
        changes: How many cells have changed the panel's cache, or the weights, since it was shown. If this grows, a
            view sends its requests again. Nothing is counted while a cell runs: a training loop would never stop.
    """

    rebound: bool
    against: list[str] | None
    changes: int


class Follower(Protocol):
    """A panel that is told after each cell."""

    def update_standing(self, *, after_cell: bool = False) -> None:
        """Find out again what the names stand for."""
        ...


def standing(cache: object, name: str | None, against: str | None, changes: int) -> Standing:
    """Return what the names stand for.

    Args:
        cache: The cache of the panel.
        name: The variable that it had when it was shown. None if it had none.
        against: The name of the cache that it is compared with. None if no other cache is compared.
        changes: How many cells have changed the cache or the weights.
    """
    rebound = name is not None and not leads_to(name, cache) and named(name) is not None
    other = None if against is None else [against, _state_of(named(against))]
    return {"rebound": rebound, "against": other, "changes": changes}


def _state_of(cache: Any) -> str:
    if cache is None:
        return ""
    known = tracked(cache)
    return f"{known.id} {known.changes(cache)}"


_followers: weakref.WeakSet[Any] = weakref.WeakSet()


def follow(follower: Follower, shell: Any) -> None:
    """Call `update_standing` after each cell of this IPython, as long as the panel exists."""
    _followers.add(follower)
    events = getattr(shell, "events", None)
    if events is not None:
        events.register("post_run_cell", _after_cell)  # IPython keeps a function only once


def stop_following(follower: Follower) -> None:
    """Do not call `update_standing` any more."""
    _followers.discard(follower)


def _after_cell(*_: object) -> None:
    for follower in list(_followers):
        with suppress(Exception):  # IPython would print the error into the user's cell
            follower.update_standing(after_cell=True)
