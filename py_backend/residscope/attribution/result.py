"""`Attribution`: one decomposition, with the measured value and notes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

from residscope.attribution.segment_sums import SegmentAttribution, rolled_up
from residscope.base.packages import pandas
from residscope.base.prompts import check_prompt_number
from residscope.base.signed import signed
from residscope.cache.segments import Segments
from residscope.compute.means import mean_over
from residscope.errors import ResidscopeError
from residscope.terms import By, Component, FigureKind, Reduce, Target

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Attribution:
    """One decomposition of a logit, a logit difference, or another target. All values are in the target's unit.

    With `position="all"` every tensor has one more axis, the position (see `axes`).

    Attributes:
        values: `[component, batch]`, the contribution of each row in each prompt. For `by="source"`:
            `[source, head, batch]`.
        components: The rows along the first axis, each with its kind, layer and index. For `by="source"`: the sources.
        measured: `[batch]`, the model's own value. NaN if the cache holds nothing to read it from. For `by="source"`:
            `[head, batch]`, the contribution of each head, computed from `hook_z`.
        constant: `[batch]`, the contribution of biases and a soft-cap between the stream and the target. For logits,
            the biases of the final norm and of the unembedding.
        unexplained: `[batch]`, measured − Σ rows − constant. For `by="accumulated"`, the last row replaces the sum.
        by: The decomposition.
        measured_from: Where `measured` was read, in words.
        tolerance: Values of `unexplained` up to this are rounding, for this cache's precision.
        notes: Notes on these numbers, in sentences. They also say why a part is unexplained.
        own: Whether `measured` is the model's own value. If not, it was computed from other activations in the cache.
        axes: The names of the axes of `values`.
        heads: For `by="source"`, the heads along the second-last axis of `values`: `["L9H9", …]`.
        missing: Activations that were not cached. Their rows are left out. The other rows are exact, but their sum
            lacks the missing rows, which are part of `unexplained`. For `by="accumulated"`, the missing points.
        target: The target, each answer as its tokens. None if items with different targets are combined.
        model: The model's name.
        neuronpedia: For `by="feature"`, the id of the SAE on Neuronpedia. Empty if its configuration has none.
        padding: Which values are at padding. Means over prompts leave them out. With `position="all"`: `[batch, pos]`.
            With another position: `[batch]`, or None if it is padding in no prompt.
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
    neuronpedia: str = ""
    padding: Bool[Tensor, "*batch"] | None = None
    _parts: int | None = None
    _grid: tuple[int, int] | None = None

    @cached_property
    def labels(self) -> list[str]:
        """The labels along the first axis, as in TransformerLens: `L0H0`, `L0N0`, `0_attn_bias`, `0_attn_out`, …."""
        return [row.label for row in self.components]

    @property
    def parts(self) -> int:
        """The number of requested components (heads, neurons, the error and features). They are the first rows."""
        return len(self.components) if self._parts is None else self._parts

    @property
    def grid(self) -> Float[Tensor, "layer head *each"]:
        """The head rows as `[layer, head, batch]`. NaN for heads that have no row."""
        if self._grid is None:
            raise ResidscopeError("grid", f'Only `by="head"` has a grid; this is `by="{self.by}"`.')
        layers, heads = self._grid
        places = [row.place for row in self.components[: self.parts]]
        grid = self.values.new_full((layers * heads, *self.values.shape[1:]), float("nan"))
        grid[[layer * heads + head for layer, head in places]] = self.values[: self.parts]
        return grid.unflatten(0, self._grid)

    def link(self, feature: int | str) -> str | None:
        """Return the address of a feature's page on Neuronpedia. Nothing is fetched.

        Args:
            feature: The feature's number, or its label (`"F1234"`).

        Returns:
            The address. None if the SAE's configuration has no id on Neuronpedia.

        Raises:
            ResidscopeError: If `feature` is not a feature, or the rows are not features.
        """
        number = str(feature).removeprefix("F")
        if self.by != "feature" or not (number.isascii() and number.isdecimal()):
            raise ResidscopeError("feature", f'{feature!r} is not a feature of this result: write "F1234" or 1234.')
        return f"https://www.neuronpedia.org/{self.neuronpedia}/{int(number)}" if self.neuronpedia else None

    def mean(self) -> Float[Tensor, "component ..."]:
        """Return the mean of each row over prompts.

        At a position, prompts in which it is padding or has no value (`targets.next_token()`) are left out.
        """
        return of_prompt(self, self.values, None)

    def std(self) -> Float[Tensor, "component ..."]:
        """Return the standard deviation of each row over the prompts of `mean`. 0 for a single prompt."""
        return spread_of(self, self.values)

    def to_frame(self) -> DataFrame:
        """Return a pandas table: a row per label, a column per prompt (and per position or head, if there are any).

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
        columns = pd.RangeIndex(values.shape[1], name=names[0]) if len(names) == 1 else many
        index = pd.Index(self.labels, name=self.axes[0])
        return pd.DataFrame(values.flatten(1).numpy(), index=index, columns=columns)

    def to_csv(self, path: str | PathLike[str] | None = None) -> str | None:
        """Return or write the table of `to_frame` as CSV.

        Args:
            path: The file to write. By default the text is returned.

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
    ) -> Figure:
        """Return a plotly figure. Blue is positive, orange is negative.

        Args:
            kind: `"heatmap"` (for `by="head"`: layer × head; with `position="all"`: component × position, or, for
                sources, destination × source), `"lens"` (for `by="accumulated"`: a line, with the constant added),
                `"layers"` (bars), `"ranking"` (the strongest rows), `"sources"` (head × source), `"prompts"` (a bar for
                each prompt), `"sides"` (the strongest rows of any kind, beside the same rows of `other`), or
                `"scatter"` (each row's value against its value in `other`). By default the kind that suits `by`.
            prompt: The prompt. None: the mean over prompts.
            other: For `"scatter"`: another attribution with the same rows, such as that of a corrupted run. For
                `"sides"`: one or several attributions, such as that of the key side of an attention score.
            k: For `"ranking"`: the number of rows of each sign. For `"sides"`: the number of rows.
            tokens: Texts of the prompt's tokens, as labels of positions. They are always drawn as plain text.
            rows: The labels of the rows to draw, for a heatmap of component × position, `"ranking"` and `"prompts"`. By
                default a heatmap has all rows, and the others have the strongest rows (for the logit lens, the last
                row).
            names: For `"scatter"`: the titles of the two axes.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed, or the kind does not suit this decomposition.
        """
        from residscope.export.figures import attribution_figure

        return attribution_figure(self, kind, prompt, other=other, k=k, tokens=tokens, rows=rows, names=names)

    def top(self, k: int = 3, prompt: int | None = None) -> list[tuple[str, float]]:
        """Return the k most positive and the k most negative rows, strongest first.

        With `by="head"`, only heads are ranked. With `by="neuron"`, only neurons are ranked. With `by="feature"`, only
        features and the error are ranked.

        Args:
            k: The number of rows of each sign.
            prompt: The prompt. None: the mean over prompts, without padding. Values are always averaged over positions
                and heads. Positions without a value (with `targets.next_token()`, the last one) are left out.
        """
        values = self.values[: self.parts]
        values = without_padding(self, values) if prompt is None else of_prompt(self, values, prompt)
        means = values.reshape(self.parts, -1).nanmean(1)
        return [(self.components[i].label, float(means[i])) for i in strongest(means, k)]

    def by_segment(self, segments: Segments | Sequence[Segments], *, reduce: Reduce = "sum") -> SegmentAttribution:
        """Roll sources or positions up into segments. All sums stay exact.

        Args:
            segments: The segments of one prompt, from `residscope.segments`. The result then has only this prompt. Or
                a list with the segments of several prompts, which must have the same names.
            reduce: How the positions of a segment (`position="all"`) become one number: their `"sum"` or their
                `"mean"`. Sources are always summed.

        Returns:
            The rolled-up attribution. For `by="source"`, `.values` is `[segment, head, batch]`, with `position="all"`
            `[segment, destination segment, head, batch]`. For other decompositions with `position="all"` it is
            `[component, batch, segment]`.

        Raises:
            ResidscopeError: If there are neither sources nor positions, or the segments belong to another cache.
        """
        return rolled_up(self, self.labels, segments, reduce)

    def __repr__(self) -> str:
        top = self.top(2)
        largest = max((abs(value) for _, value in top), default=0.0)
        rows = ", ".join(f"{label} {signed(value, largest).replace('−', '-')}" for label, value in top)
        shape = " × ".join(f"{size} {axis}" for axis, size in zip(self.axes, self.values.shape, strict=True))
        of = f" of {', '.join(self.heads)}" if self.heads else ""
        sums = (self.measured, self.constant, self.unexplained)
        measured, constant, rest = (overall_mean(self, one) for one in sums)
        return (
            f'Attribution(by="{self.by}"{of}, {shape}; measured {measured:+.3f}, constant {constant:+.3f}, '
            f"unexplained {rest:+.1e}; {rows}"
            f"{''.join(f'; note: {note}' for note in self.notes)})"
        )


def of_prompt(result: Attribution, values: Tensor, prompt: int | None) -> Tensor:
    """Return the values of one prompt, or their mean over prompts. `values` may lack the first axes of the result.

    At a position, the mean is over the prompts in which it is not padding. It is NaN if there is no such prompt.

    Raises:
        ResidscopeError: If there is no such prompt.
    """
    at = result.axes.index("batch") - (result.values.ndim - values.ndim)
    if prompt is not None:
        return values.select(at, check_prompt_number(prompt, values.shape[at]))
    return mean_over(values, at, _left_out(result, values.ndim))


def spread_of(result: Attribution, values: Tensor) -> Tensor:
    """Return the standard deviation of values with the axes of the result, over the prompts of their mean."""
    axis, left_out = result.axes.index("batch"), _left_out(result, values.ndim)
    if left_out is None:
        return values.std(axis, correction=1 if values.shape[axis] > 1 else 0)
    from_mean = without_padding(result, values - of_prompt(result, values, None).unsqueeze(axis))
    count = (~from_mean.isnan()).sum(axis)
    return (from_mean.square().nansum(axis) / (count - 1).clamp(min=1)).sqrt().masked_fill(count == 0, float("nan"))


def without_padding(result: Attribution, values: Tensor) -> Tensor:
    """Return the values with NaN where a mean over prompts leaves them out. They may lack the result's first axes."""
    left_out = _left_out(result, values.ndim)
    return values if left_out is None else values.masked_fill(left_out.to(values.device), float("nan"))


def overall_mean(result: Attribution, values: Tensor) -> float:
    """Return one number, for a summary: the mean of all values that are known and not at padding."""
    return float(without_padding(result, values).nanmean())


def _left_out(result: Attribution, axes: int) -> Bool[Tensor, ...] | None:
    """Which values are left out of a mean over prompts, for the last axes of the result. None: none of them."""
    padded, empty = _padded(result, axes), result.constant.isnan()
    if not bool(empty.any()):  # nothing is empty, unless each position has its own next token
        return padded
    return empty if padded is None else padded | empty.to(padded.device)


def _padded(result: Attribution, axes: int) -> Bool[Tensor, ...] | None:
    padding = result.padding
    if padding is None or len(padding) == 1 or not bool(padding.any()):
        return None
    if padding.ndim == 1:  # one position of each prompt
        return padding.view(-1, *[1] * (len(result.axes) - 1 - result.axes.index("batch")))
    if "pos" in result.axes:
        return padding
    destinations = padding.T[:, None]  # [destination, head, batch]
    return destinations if axes < len(result.axes) else destinations | padding.T[:, None, None]


def strongest(values: Float[Tensor, " row"], k: int) -> list[int]:
    """Return the rows of the k largest positive values, then of the k largest negative values, strongest first."""
    k, values = min(max(k, 0), len(values)), values.nan_to_num(0.0)  # `topk` would rank NaN first
    best, worst = values.topk(k), values.topk(k, largest=False)
    rows = [i for i, value in zip(best.indices.tolist(), best.values.tolist(), strict=True) if value > 0]
    return rows + [i for i, value in zip(worst.indices.tolist(), worst.values.tolist(), strict=True) if value < 0]
