"""A cache as it is now, with what every answer about it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import positions
from .cache import CacheView
from .protocol import Target, Weighting
from .targets import Targets
from .weightings import Goal, Maps

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scene:
    """A cache as it is now, and what answers about it need.

    Attributes:
        targets: Resolves targets for it.
        logits: The model's output, where it was given.
    """

    targets: Targets
    logits: Tensor | None

    @property
    def view(self) -> CacheView:
        """The cache."""
        return self.targets.view

    def goal(self, target: Target, position: int | None = None) -> Goal:
        """The way to a target; layers are held against the stream at this position (None: each prompt's last)."""
        where = positions.resolve(self.view, "last" if position is None else position)
        return Goal(self.targets, self.targets.resolve(target), where)

    def maps(self, weighting: Weighting, target: Target, prompt: int | None) -> Maps:
        """Attention, weighted one way."""
        goal = self.goal(target) if weighting == "contribution" else None
        return Maps(self.view, weighting, self.view.check_prompt(prompt), goal)
