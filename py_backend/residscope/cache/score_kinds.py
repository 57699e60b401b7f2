"""The ways in which models compute attention scores: norms, rotations, scales, biases and soft-caps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from residscope.cache.rotary import RotationKind

When = Literal["none", "before", "after"]


class NormKind(NamedTuple):
    """How queries and keys are normalised before or after the rotation.

    Attributes:
        when: Whether there is no norm, or a norm before or after the rotation.
        unit: Whether the norm has no weight, and no module from which settings can be read.
        other_centring: Whether centring is the opposite of what the norm's class declares.
        offset: The number that is added to the norm's weight.
    """

    when: When = "none"
    unit: bool = False
    other_centring: bool = False
    offset: int = 0


class Kind(NamedTuple):
    """The norm and the rotation of queries and keys, before scores are computed from them."""

    norm: NormKind
    rotation: RotationKind | None


@dataclass(frozen=True)
class Rule:
    """The rule by which a head's scores are computed.

    Attributes:
        kind: The norms and the rotation of queries and keys.
        scale: The factor τ of the products of queries and keys. None if τ differs between destinations.
        slope: The number that the position bias adds for each position of the source (ALiBi). 0 without such a bias.
        cap: The soft-cap of the scores. 0 without one.
        error: The largest error on the destinations and sources that were tried.
        tolerance: The error that counts as rounding.
    """

    kind: Kind
    scale: float | None
    slope: float
    cap: float
    error: float
    tolerance: float
