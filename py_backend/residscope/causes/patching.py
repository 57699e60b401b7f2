"""`Patching`: the effects of another run's activations on the target, measured or estimated."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from residscope.base.packages import pandas
from residscope.causes.ranking import farthest, in_prompt
from residscope.causes.sites import Part, SiteKind
from residscope.errors import ResidscopeError
from residscope.terms import Component, Target

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Patching:
    """Effects of putting another run's activations into the cached run: changes of the target, in the target's unit.

    Attributes:
        effects: The target in the changed run − `before`. The axes are `axes`. NaN if a layer has no such activation,
            if its position or that of the target is padding, if the effect cannot be computed, or if the component does
            not come before the end of the path. A mean is over the prompts that have the effect.
        normalized: effects / (`source` − `before`). 0: the target is as in the cached run. 1: it is as in the source.
            NaN in prompts in which this difference is too small to divide by. None if `source` is None.
        before: `[batch]`, the target in the cached run. NaN where its position is padding.
        source: `[batch]`, the target in the source, read at the same positions. None if it is not known, if the source
            is one prompt for several, if one prompt of a cache was named (`(cache, 2)`), or if the activations do not
            come from another cache.
        direction: Which run gets which activations, in words. Patching in the other direction gives other numbers.
        at: The kind of the replaced activations.
        components: The components, in the order in which `effects` holds them.
        axes: The names of the axes.
        measured: Which effects were measured in runs, with the axes of `effects` without `batch`. The other effects are
            estimates, or NaN.
        replayed: The comparison of the unchanged run with the cache, in words.
        notes: Notes on these numbers, in sentences.
        target: The target that was measured.
        model: The model's name.
        path: The end of the path, such as `L23H3.q`, if the change passed only along this path. Otherwise empty.
    """

    effects: Float[Tensor, "*component batch"]
    normalized: Float[Tensor, "*component batch"] | None
    before: Float[Tensor, " batch"]
    source: Float[Tensor, " batch"] | None
    direction: str
    at: SiteKind | Part
    components: list[Component]
    axes: tuple[str, ...]
    measured: Bool[Tensor, "*component"]
    replayed: str
    notes: list[str] = field(default_factory=list)
    target: Target | None = None
    model: str = ""
    path: str = ""

    @cached_property
    def labels(self) -> list[str]:
        """The labels of the components: `L0H0`, `0_attn_out`. With an axis `pos`, one for each position: `0_pre@3`."""
        names = [component.label for component in self.components]
        if "pos" not in self.axes:
            return names
        return [f"{name}@{at}" for name in names for at in range(self.effects.shape[-2])]

    def of(self, prompt: int | None = None, *, normalized: bool = False) -> Float[Tensor, " component"]:
        """Return the effects in one prompt, or their mean over prompts, in the order of `labels`.

        Prompts in which an effect is NaN are left out of its mean.

        Raises:
            ResidscopeError: If there is no such prompt, or no source to normalise by.
        """
        values = self.normalized if normalized else self.effects
        if values is None:
            raise ResidscopeError(
                "normalized",
                "The effects cannot be normalised: the target in the source is not known (see `.notes`).",
            )
        return in_prompt(values, prompt)

    def top(self, k: int = 3, prompt: int | None = None) -> list[tuple[str, float]]:
        """Return the k components with the effects farthest from 0, as pairs (name, effect), the farthest first.

        Args:
            k: The number of components.
            prompt: The prompt. None: the mean over prompts.
        """
        return farthest(self.labels, self.of(prompt), k)

    def to_frame(self, prompt: int | None = None) -> DataFrame:
        """Return a pandas table: a row for each component, with its effect and its normalised effect.

        Args:
            prompt: The prompt. None: the mean over prompts.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        columns = {"effect": self.of(prompt).cpu().numpy()}
        if self.normalized is not None:
            columns["normalized"] = self.of(prompt, normalized=True).cpu().numpy()
        return pd.DataFrame(columns, index=pd.Index(self.labels, name="component"))

    def to_plotly(self, prompt: int | None = None, *, normalized: bool = False, adds: bool = False) -> Figure:
        """Return a plotly figure: layer × head, layer × position, or bars.

        Args:
            prompt: The prompt. None: the mean over prompts.
            normalized: Whether to show normalised effects.
            adds: Whether to draw what each component adds (minus its effect), as the panel does.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed, or there is no source to normalise by.
        """
        from residscope.export.effects import patching_figure

        return patching_figure(self, prompt, normalized=normalized, adds=adds)

    def __repr__(self) -> str:
        """Return a readable summary."""
        shape = " × ".join(f"{size} {axis}" for axis, size in zip(self.axes, self.effects.shape, strict=True))
        strongest = ", ".join(f"{name} {value:+.3f}" for name, value in self.top(3)) or "effects not known"
        is_measured = bool(self.measured.any() | self.effects.isnan().all())
        what = "Patching" if is_measured else "Estimate of patching"
        notes = "".join(f"; note: {note}" for note in self.notes)
        along = f" along the path to {self.path}" if self.path else ""
        return f"{what}({self.at}, {shape}{along}; {self.direction}; {self.replayed}; {strongest}{notes})"
