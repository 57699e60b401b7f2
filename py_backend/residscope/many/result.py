"""The results of `attribute_many`: an `Attribution` of all prompts, or only their mean and spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from residscope.attribution.result import Attribution
from residscope.many.accumulator import Accumulator, joined_values
from residscope.many.notes import notes_of
from residscope.terms import By, FigureKind

if TYPE_CHECKING:
    from jaxtyping import Float
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor


@dataclass(frozen=True, eq=False, repr=False)
class ManyAttribution(Attribution):
    """An `Attribution` of the prompts of all items, in the items' order, on the CPU.

    All methods of an `Attribution` are available: `.mean()`, `.std()`, `.top()`, `.grid`, `.to_frame()`, `.to_csv()`,
    `.to_plotly()`.

    Attributes:
        items: For each prompt, the number of its item.
        skipped: The numbers of items that were left out (`on_error="skip"`), and the reasons.
    """

    items: list[int] = field(default_factory=list[int])
    skipped: dict[int, str] = field(default_factory=dict[int, str])
    _accumulator: Accumulator | None = None


@dataclass(frozen=True, eq=False, repr=False)
class AttributionSummary:
    """The mean and the spread over the prompts of all items, without the rows of each prompt.

    `measured`, `constant` and `unexplained` are `[batch]`. They have further axes if the values are for every position,
    or by source.

    Attributes:
        average: The mean over prompts, as an `Attribution` of one prompt.
        count: The number of prompts.
        measured: The model's own value of the target for each prompt (see `Attribution`).
        constant: The constant for each prompt (see `Attribution`).
        unexplained: The unexplained rest for each prompt (see `Attribution`).
        items: For each prompt, the number of its item.
        skipped: The numbers of items that were left out (`on_error="skip"`), and the reasons.
    """

    average: Attribution
    count: int
    measured: Float[Tensor, " batch"]
    constant: Float[Tensor, " batch"]
    unexplained: Float[Tensor, " batch"]
    items: list[int]
    skipped: dict[int, str]
    _std: Float[Tensor, " component"]
    _accumulator: Accumulator

    @property
    def by(self) -> By:
        """The decomposition."""
        return self.average.by

    @property
    def labels(self) -> list[str]:
        """The labels of the rows."""
        return self.average.labels

    @property
    def notes(self) -> list[str]:
        """Notes on these values, in sentences."""
        return self.average.notes

    def mean(self) -> Float[Tensor, " component"]:
        """Return the mean of the rows over prompts."""
        return self.average.mean()

    def std(self) -> Float[Tensor, " component"]:
        """Return the standard deviation of the rows over prompts. 0 for a single prompt."""
        return self._std

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """Return the k most positive and the k most negative rows of the mean (see `Attribution.top`)."""
        return self.average.top(k)

    def to_frame(self) -> DataFrame:
        """Return a pandas table: a row for each label, and columns `mean` and `std` (for each position or head).

        Raises:
            ResidscopeError: If pandas is not installed.
        """
        average = self.average
        axis = average.axes.index("batch")
        mean = average.to_frame()
        import pandas as pd

        std = replace(average, values=self._std.unsqueeze(axis)).to_frame()
        if len(average.axes) == 2:
            return pd.DataFrame({"mean": mean[0], "std": std[0]})
        return pd.concat({"mean": mean.droplevel("prompt", axis=1), "std": std.droplevel("prompt", axis=1)}, axis=1)

    def to_csv(self, path: str | PathLike[str] | None = None) -> str | None:
        """Write the table of `to_frame` as CSV.

        Args:
            path: The file. By default the text is returned. If a file is written, None is returned.
        """
        return self.to_frame().to_csv(path)

    def to_plotly(
        self,
        kind: FigureKind | None = None,
        *,
        k: int = 5,
        tokens: Sequence[str] | None = None,
        rows: Sequence[str] | None = None,
    ) -> Figure:
        """Return a plotly figure of the mean (see `Attribution.to_plotly`)."""
        figure = self.average.to_plotly(kind, k=k, tokens=tokens, rows=rows)
        return figure.update_layout(title_text=f"{figure['layout']['title']['text']}, mean of {self.count} prompts")

    def __repr__(self) -> str:
        """Return a readable summary."""
        return f"AttributionSummary({self.count} prompts; the mean: {self.average!r})"


def result_of(accumulator: Accumulator) -> ManyAttribution | AttributionSummary:
    """Return the combined result of the items that are done.

    Raises:
        ResidscopeError: If no item is done.
    """
    layout, results = accumulator.done()
    items = [number for number, result in results.items() for _ in range(result.prompts)]
    columns = {name: joined_values(results.values(), name, layout) for name in layout.columns}
    facts = [result.facts for result in results.values()]
    common: dict[str, Any] = {
        "by": layout.by,
        "measured_from": "; ".join(dict.fromkeys(item.measured_from for item in facts)),
        "tolerance": max(item.tolerance for item in facts),
        "notes": notes_of(accumulator, results),
        "own": all(item.own for item in facts),
        "axes": layout.axes,
        "heads": layout.heads,
        "_parts": layout.parts,
        "_grid": layout.grid,
    }
    skipped = dict(sorted(accumulator.skipped.items()))
    if accumulator.keeps_values:
        values = joined_values(results.values(), "values", layout)
        views = values.split([result.prompts for result in results.values()], layout.prompt_axis)
        for (number, result), view in zip(results.items(), views, strict=True):
            # A view of `values`, so that the numbers are in memory only once.
            accumulator.results[number] = replace(result, values=view)
        return ManyAttribution(
            values, layout.components, **columns, **common, items=items, skipped=skipped, _accumulator=accumulator
        )
    spread = accumulator.spread
    assert spread is not None
    like, axis = columns["measured"], layout.prompt_axis
    count = (~columns["constant"].isnan()).sum(axis - 1, keepdim=True)  # NaN: no token follows this position
    means = {
        name: column.masked_fill(columns["constant"].isnan(), 0.0).sum(axis - 1, keepdim=True) / count
        for name, column in columns.items()
    }
    average = Attribution(spread.mean.to(like).unsqueeze(axis), layout.components, **means, **common)
    return AttributionSummary(
        average,
        len(items),
        **columns,
        items=items,
        skipped=skipped,
        _std=spread.std.to(like),
        _accumulator=accumulator,
    )
