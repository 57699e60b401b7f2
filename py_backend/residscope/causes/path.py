"""`path=`: the end of a path, either what heads read (`"L23H3.q"`) or the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from residscope.cache.component_names import name, parse
from residscope.cache.view import CacheView
from residscope.causes.reads import WORDS
from residscope.causes.sites import Read
from residscope.errors import ResidscopeError

Ends = tuple["Receiver", ...] | Literal["logits"]
"""The end of a path: the receivers, or the logits."""

_FORM = 'write a head and what it reads, such as `path="L23H3.q"` (or `.k`, `.v`), a list of these, or `path="logits"`'


@dataclass(frozen=True)
class Receiver:
    """The receiver of a path: a head that reads the change through its query, key or value."""

    layer: int
    head: int
    part: Read

    @property
    def label(self) -> str:
        """The receiver's label, `L23H3.q`."""
        return f"{name(self.layer, self.head)}.{self.part}"


def ends(view: CacheView, given: Any) -> Ends:
    """Return the end of a path that a user named.

    Raises:
        ResidscopeError: If `given` is not the end of a path, or the model has no such head.
    """
    listed = [given] if isinstance(given, str) or not hasattr(given, "__iter__") else list(given)
    if listed == ["logits"]:
        return "logits"
    found: list[Receiver] = []
    for one in listed:
        if one == "logits":
            raise ResidscopeError(
                "path", '`path=` has "logits" in a list with other entries: give `path="logits"` alone.'
            )
        head, _, part = one.strip().rpartition(".") if isinstance(one, str) else ("", "", "")
        if part not in get_args(Read) or not head:
            raise ResidscopeError("path", f"`path={one!r}` is not known: {_FORM}.")
        receiver = Receiver(*parse(head), cast(Read, part))
        view.check_head(receiver.layer, receiver.head)
        if receiver in found:
            raise ResidscopeError("path", f"`path=` names {receiver.label} twice.")
        found.append(receiver)
    if not found:
        raise ResidscopeError("path", f"`path=` names nothing: {_FORM}.")
    return tuple(sorted(found, key=lambda one: (one.layer, one.head, one.part)))


def words(given: Ends) -> str:
    """Return the end of a path in words."""
    return "logits" if isinstance(given, str) else " and ".join(receiver.label for receiver in given)


def last_layer(view: CacheView, given: Ends) -> int:
    """Return the last layer that has a receiver, or the number of layers if the path ends at the logits."""
    return view.n_layers if given == "logits" else max(receiver.layer for receiver in given)


def sharing(view: CacheView, given: Ends, count: dict[int, int]) -> list[str]:
    """Notes on keys and values that several heads share.

    Args:
        view: The cache.
        given: The end of the path.
        count: The number of heads in each layer.
    """
    notes: list[str] = []
    receivers = () if isinstance(given, str) else given
    for one in receivers:
        cached = view.activations.get(f"blocks.{one.layer}.attn.hook_{one.part}")
        heads = count.get(one.layer, 0)
        if one.part == "q" or cached is None or cached.ndim != 4:
            continue
        # In latent attention, heads come before positions.
        axis = 1 if cached.shape[1] == heads and cached.shape[2] == view.n_pos else 2
        groups = int(cached.shape[axis])
        if groups >= heads or heads % groups:
            continue
        size = heads // groups
        start = one.head - one.head % size
        rest = [head for head in range(start, start + size) if head != one.head]
        others = ", ".join(name(one.layer, head) for head in rest)
        named = all(Receiver(one.layer, head, one.part) in receivers for head in rest)
        if not named:
            notes.append(
                f"{name(one.layer, one.head)} shares its {WORDS[one.part]} with {others}. The {WORDS[one.part]} is "
                "changed only for the heads in `path=`. To change it for all heads that share it, name each of them in "
                "`path=`."
            )
    return notes
