"""`Ablation`: the change of the target if components are replaced: total, direct and indirect."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from residscope.base.packages import pandas
from residscope.causes.ranking import farthest, in_prompt
from residscope.errors import ResidscopeError
from residscope.terms import Component, Target

if TYPE_CHECKING:
    from jaxtyping import Float
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor

Effect = Literal["total", "direct", "indirect"]
"""Total: the target's change in a run. Direct: its change along the direct path alone. Indirect: total − direct."""

EFFECTS: tuple[Effect, ...] = ("total", "direct", "indirect")


@dataclass(frozen=True, eq=False)
class Ablation:
    """The effects of replacing components in runs of the model: the changes of the target, in the target's unit.

    If the model needs a component with a positive contribution, its total effect is negative. An indirect effect of the
    opposite sign shows that later components compensate for the change (self-repair).

    Attributes:
        total: The effect in the run: the target in this run − `before`. Its axes are `axes`. NaN if a layer has no such
            component, or the component does not come before the end of the path. Also NaN in prompts in which nothing
            was replaced, because of padding or because there is no such edge, and in prompts in which the target's
            position is padding. Means leave these prompts out.
        direct: The effect along the direct path alone, with the final norm's scale frozen or recomputed. For
            `replace="zero"` and a frozen scale: minus the component's row in `attribute`. NaN if it cannot be computed;
            a note gives the reason.
        indirect: total − direct.
        before: `[batch]`, the target in the unchanged run. NaN where its position is padding.
        components: The components, in the order in which `total` holds them.
        axes: The names of the axes.
        replaced_by: What took the place of the activations, in words.
        replayed: The comparison of the unchanged run with the cache, in words.
        notes: Notes on these numbers, in sentences.
        target: The target that was measured.
        model: The model's name.
        path: The end of the path, such as `L23H3.q`. Empty if all paths were measured. If it is not empty, `direct` and
            `indirect` are NaN.
        edges: The attention edges that were taken out, such as `14 ← 10`. Empty if heads or sublayers were replaced.
    """

    total: Float[Tensor, "*component batch"]
    direct: Float[Tensor, "*component batch"]
    indirect: Float[Tensor, "*component batch"]
    before: Float[Tensor, " batch"]
    components: list[Component]
    axes: tuple[str, ...]
    replaced_by: str
    replayed: str
    notes: list[str] = field(default_factory=list)
    target: Target | None = None
    model: str = ""
    path: str = ""
    edges: list[str] = field(default_factory=list[str])

    @cached_property
    def labels(self) -> list[str]:
        """The labels of the components: `L0H0`, `0_attn_out`. Components that were replaced in one run share one label.

        The label of an edge begins with the head: `L23H3 14 ← 10`.
        """
        names = [component.label for component in self.components]
        names = [f"{name} {edge}" for name in names for edge in self.edges] if self.edges else names
        return names if len(self.axes) > 1 else [" + ".join(names)]

    def of(self, effect: Effect, prompt: int | None = None) -> Float[Tensor, " component"]:
        """Return one effect of each component in one prompt, or its mean over prompts.

        Raises:
            ResidscopeError: If there is no such effect or prompt, or if only a path was measured and `effect` is not
                `"total"`.
        """
        if effect not in EFFECTS:
            raise ResidscopeError("effect", f'"{effect}" is not known: use "total", "direct" or "indirect".')
        if self.path and effect != "total":
            raise ResidscopeError(
                "effect",
                f"Along the path to {self.path} there is only one effect, `.total`, and no {effect} effect.",
            )
        values: Tensor = getattr(self, effect)
        return in_prompt(values, prompt)

    def top(self, k: int = 3, prompt: int | None = None, effect: Effect = "total") -> list[tuple[str, float]]:
        """Return the k components with the effects farthest from 0, as pairs (name, effect), the farthest first.

        Args:
            k: The number of components.
            prompt: The prompt. None: the mean over prompts.
            effect: The effect.
        """
        return farthest(self.labels, self.of(effect, prompt), k)

    def to_frame(self, prompt: int | None = None) -> DataFrame:
        """Return a pandas table: a row for each component, with its total, direct and indirect effect.

        If only a path was measured, there is only the total effect.

        Args:
            prompt: The prompt. None: the mean over prompts.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        effects = EFFECTS[:1] if self.path else EFFECTS
        columns = {effect: self.of(effect, prompt).cpu().numpy() for effect in effects}
        return pd.DataFrame(columns, index=pd.Index(self.labels, name="component"))

    def to_plotly(
        self, kind: Literal["heatmap", "bars", "scatter"] | None = None, prompt: int | None = None, *,
        effect: Effect = "total", adds: bool = False,
    ) -> Figure:  # fmt: skip
        """Return a plotly figure. Blue: positive values. Orange: negative values.

        Args:
            kind: `"heatmap"` (layer × head), `"bars"` (the components), or `"scatter"` (direct × total effect: a
                component off the diagonal has an indirect effect). None: a kind that fits the axes.
            prompt: The prompt. None: the mean over prompts.
            effect: The effect in a heatmap or in bars.
            adds: Whether to draw what each component adds (minus its effect), as the panel does.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed, or the kind does not fit.
        """
        from residscope.export.effects import ablation_figure

        return ablation_figure(self, kind, prompt, effect, adds=adds)

    def __repr__(self) -> str:
        """Return a readable summary."""
        shape = " × ".join(f"{size} {axis}" for axis, size in zip(self.axes, self.total.shape, strict=True))
        strongest = ", ".join(f"{name} {value:+.3f}" for name, value in self.top(3)) or "not known"
        notes = "".join(f"; note: {note}" for note in self.notes)
        along = f" along the path to {self.path}" if self.path else ""
        return f"Ablation({shape}, replaced by {self.replaced_by}{along}; {self.replayed}; total: {strongest}{notes})"
