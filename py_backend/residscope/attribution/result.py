"""`Attribution`: one decomposition, with the measured value and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

from residscope.base.packages import pandas
from residscope.base.signed import signed
from residscope.errors import ResidscopeError
from residscope.terms import By, Component, FigureKind, Target

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Attribution:
    """One decomposition of a logit, a logit difference, a direction, or another target. All values are in its units.

    With `position="all"` every tensor has one more axis, the position (see `axes`).

    Attributes:
        values: `[component, batch]`, the contribution of each row in each prompt; for `by="source"`
            `[source, head, batch]`.
        components: The rows along the first axis, each with its kind, layer and index; for `by="source"` the positions.
        measured: `[batch]`, the model's own value; NaN if there is nothing to read it from. For `by="source"`
            `[head, batch]`, the contribution of each head by its `hook_z`.
        constant: `[batch]`, what biases and a soft-cap add between the stream and the target: of logits, the biases of
            the final norm and of the unembedding.
        unexplained: `[batch]`, measured − Σ rows − constant.
        by: The decomposition.
        measured_from: Where `measured` was read, in words.
        tolerance: Values of `unexplained` up to this are rounding, for this cache's precision.
        notes: What to know about these numbers, in sentences; also why something is unexplained.
        own: Whether `measured` is the model's own output; if not, it was computed from the final stream in the cache.
        axes: The names of the axes of `values`.
        heads: For `by="source"`, the heads along the second-last axis of `values`: `["L9H9", …]`.
        missing: Activations that were not cached, and whose rows are left out. Each row is still exact, but the rows
            are not complete, and `unexplained` contains the missing ones. For `by="accumulated"`, the missing points.
        target: What was attributed, each answer as its tokens; None if items with different targets are combined.
        model: The model's name.
    """

    values: Float[Tensor, " component *each"]
    components: list[Component]
    measured: Float[Tensor, "*each"]
    constant: Float[Tensor, "*each"]
    unexplained: Float[Tensor, "*each"]
    by: By
    measured_from: str
    tolerance: float
    notes: list[str] = field(default_factory=list)
    own: bool = True
    axes: tuple[str, ...] = ("component", "batch")
    heads: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    target: Target | None = None
    model: str = ""
    _parts: int | None = None
    _grid: tuple[int, int] | None = None

    @cached_property
    def labels(self) -> list[str]:
        """The names along the first axis, TransformerLens' own: `L0H0`, `L0N0`, `0_attn_bias`, `0_attn_out`, …."""
        return [row.label for row in self.components]

    @property
    def parts(self) -> int:
        """How many of the first rows are the requested components (heads, neurons); the other rows follow them."""
        return len(self.components) if self._parts is None else self._parts

    @property
    def grid(self) -> Float[Tensor, "layer head *each"]:
        """The head rows as `[layer, head, batch]`; NaN in a layer that has no attention heads."""
        if self._grid is None:
            raise ResidscopeError("grid", f'Only `by="head"` has a grid; this is `by="{self.by}"`.')
        layers, heads = self._grid
        places = [row.place for row in self.components[: self.parts]]
        grid = self.values.new_full((layers * heads, *self.values.shape[1:]), float("nan"))
        grid[[layer * heads + head for layer, head in places]] = self.values[: self.parts]
        return grid.unflatten(0, self._grid)

    def mean(self) -> Float[Tensor, "component ..."]:
        """The rows averaged over prompts, in logits."""
        return self.values.mean(self.axes.index("batch"))

    def std(self) -> Float[Tensor, "component ..."]:
        """The standard deviation of each row over prompts, in logits (0 for a single prompt)."""
        axis = self.axes.index("batch")
        return self.values.std(axis, correction=1 if self.values.shape[axis] > 1 else 0)

    def to_frame(self) -> Any:
        """A pandas table in logits: the rows by label, a column per prompt (and per position or head, if any).

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        values = self.values.cpu()
        words = {"batch": "prompt", "pos": "position"}
        names = [words.get(axis, axis) for axis in self.axes[1:]]
        entries: list[Any] = [
            self.heads if axis == "head" else range(size)
            for axis, size in zip(self.axes[1:], values.shape[1:], strict=True)
        ]
        many = pd.MultiIndex.from_product(entries, names=names)
        columns: Any = pd.RangeIndex(values.shape[1], name=names[0]) if len(names) == 1 else many
        index = pd.Index(self.labels, name=self.axes[0])
        return pd.DataFrame(values.flatten(1).numpy(), index=index, columns=columns)

    def to_csv(self, path: str | PathLike[str] | None = None) -> str | None:
        """The table of `to_frame` as CSV, in logits.

        Args:
            path: Where to write it; by default the text is returned.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        return self.to_frame().to_csv(path)

    def to_plotly(
        self,
        kind: FigureKind | None = None,
        prompt: int | None = None,
        *,
        other: Attribution | Sequence[Attribution] | None = None,
        k: int = 5,
        tokens: Sequence[str] | None = None,
        rows: Sequence[str] | None = None,
        names: tuple[str, str] = ("this", "other"),
    ) -> Any:
        """A plotly figure, in logits: blue adds, orange takes away.

        Args:
            kind: `"heatmap"` (layer × head of `by="head"`; with `position="all"` component × position, or, of sources,
                destination × source), `"lens"` (a line, `by="accumulated"`, the constant added), `"layers"` (bars),
                `"ranking"` (the strongest rows), `"sources"` (head × source), `"prompts"` (a bar for each prompt),
                `"sides"` (the strongest rows of any kind, and beside them those of `other`), or `"scatter"` (against
                `other`). By default the kind that suits `by`.
            prompt: The prompt; None is the mean over prompts.
            other: For `"scatter"`: another attribution of the same rows, such as that of a corrupted run. For
                `"sides"`: one or several others, such as the key side of an attention score.
            k: For `"ranking"`: the number of rows of each sign; for `"sides"`: the number of rows.
            tokens: Texts of the prompt's tokens, as labels of positions. They are always drawn as plain text.
            rows: For a heatmap component × position, and for `"prompts"`: the labels of the rows that are drawn; by
                default all of a heatmap, and the strongest for `"prompts"` (the last one of the logit lens).
            names: For `"scatter"`: the titles of the two axes.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed, or the kind does not suit this decomposition.
        """
        from residscope.export.figures import attribution_figure

        return attribution_figure(self, kind, prompt, other=other, k=k, tokens=tokens, rows=rows, names=names)

    def top(self, k: int = 3, prompt: int | None = None) -> list[tuple[str, float]]:
        """The k most positive and the k most negative rows, strongest first.

        With `by="head"` only heads are ranked, with `by="neuron"` only neurons.

        Args:
            k: How many of each sign.
            prompt: The prompt; None is the mean over prompts. Positions and heads are always averaged over.
        """
        means = of_prompt(self, self.values[: self.parts], prompt).reshape(self.parts, -1).mean(1)
        return [(self.components[i].label, float(means[i])) for i in strongest(means, k)]

    def __repr__(self) -> str:
        """A short summary."""
        top = self.top(2)
        largest = max((abs(value) for _, value in top), default=0.0)
        rows = ", ".join(f"{label} {signed(value, largest).replace('−', '-')}" for label, value in top)
        shape = " × ".join(f"{size} {axis}" for axis, size in zip(self.axes, self.values.shape, strict=True))
        of = f" of {', '.join(self.heads)}" if self.heads else ""
        return (
            f'Attribution(by="{self.by}"{of}, {shape}; measured {float(self.measured.mean()):+.3f}, '
            f"constant {float(self.constant.mean()):+.3f}, unexplained {float(self.unexplained.mean()):+.1e}; {rows}"
            f"{''.join(f'; note: {note}' for note in self.notes)})"
        )


def of_prompt(result: Attribution, values: Tensor, prompt: int | None) -> Tensor:
    """Values of one prompt, or their mean over prompts; `values` may lack some of the first axes of the result.

    Raises:
        ResidscopeError: If there is no such prompt.
    """
    at = result.axes.index("batch") - (result.values.ndim - values.ndim)
    count = values.shape[at]
    if prompt is None:
        return values.mean(at)
    if not -count <= prompt < count:
        raise ResidscopeError("prompt", f"There is no prompt {prompt}: this has {count}, 0 to {count - 1}.")
    return values.select(at, prompt)


def strongest(values: Float[Tensor, " row"], k: int) -> list[int]:
    """The rows of the k largest positive values, then those of the k largest negative ones, strongest first."""
    k = min(max(k, 0), len(values))
    best, worst = values.topk(k), values.topk(k, largest=False)
    rows = [i for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True) if value > 0]
    return rows + [i for i, value in zip(worst.indices.tolist(), worst.values.tolist(), strict=True) if value < 0]
