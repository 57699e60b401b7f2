"""`Comparison`: the difference of two decompositions, split into what was written and how it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from residscope.attribution.result import Attribution, overall_mean
from residscope.base.packages import pandas
from residscope.base.signed import signed
from residscope.errors import ResidscopeError
from residscope.terms import FigureKind

if TYPE_CHECKING:
    from jaxtyping import Float
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor

Share = Literal["difference", "written", "read"]
"""The whole difference, or one of its two parts."""

SHARES: tuple[Share, ...] = ("difference", "written", "read")


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison(Attribution):
    """The difference of two runs, second − first: a decomposition of the difference of the target.

    It has all attributes of an `Attribution`, as differences: `values`, `measured`, `constant` and `unexplained` are
    those of the second run minus those of the first. Σ rows + constant + unexplained = measured.

    A row is a product: the vector r that a component wrote, times the gradient g of the target (the norm's scale and
    weights, the unembedding). r₂·g₂ − r₁·g₁ = (r₂ − r₁)·ḡ + r̄·(g₂ − g₁). r̄ and ḡ are means of both runs.

    Attributes:
        written: (r₂ − r₁)·ḡ: the part from different writing, in the shape of `values`.
        read: r̄·(g₂ − g₁): the part from different reading, in the shape of `values`. written + read = values.
        first: The decomposition of the first run, with the rows and positions that are compared.
        second: The decomposition of the second run. `values` is `second.values − first.values`.
        positions: Pairs of a position of the first run and the matched position of the second, along the axis of
            positions or sources. Empty if there is no such axis.
        where: For each prompt, the position at which the target is read in the first run and in the second. Empty if
            the target is read at every position.
        tolerance: Values of `unexplained` up to this number are rounding. It is the sum of both runs' tolerances.
    """

    written: Float[Tensor, " component *each"]
    read: Float[Tensor, " component *each"]
    first: Attribution
    second: Attribution
    positions: list[tuple[int, int]] = field(default_factory=list)
    where: list[tuple[int, int]] = field(default_factory=list)
    share: Share = "difference"
    """What `values` holds: the whole difference, or one of its parts."""

    @property
    def written_total(self) -> Float[Tensor, " *each"]:
        """The part from different writing, summed over all rows."""
        return self._total(self.written)

    @property
    def read_total(self) -> Float[Tensor, " *each"]:
        """The part from different reading, summed over all rows, plus the change of the constant.

        written_total + read_total + unexplained = measured.
        """
        return self._total(self.read) + self.constant

    def _total(self, rows: Tensor) -> Tensor:
        return rows[-1] if self.by == "accumulated" else rows.sum(0)  # points of the stream are not summed

    def part(self, share: Share) -> Comparison:
        """Return this comparison with other `values`: the whole difference, or one of its two parts.

        `measured`, `constant` and `unexplained` stay those of the whole difference.

        Args:
            share: `"difference"`, `"written"` or `"read"`.

        Raises:
            ResidscopeError: If `share` is not known.
        """
        if share not in SHARES:
            raise ResidscopeError("share", f'`{share!r}` is not known: use "difference", "written" or "read".')
        values = {"difference": self.second.values - self.first.values, "written": self.written, "read": self.read}
        return replace(self, values=values[share], share=share)

    def to_frame(self) -> DataFrame:
        """Return a pandas table: a row for each component, columns for both runs, the difference, and its two parts.

        Each of these five has the columns of `Attribution.to_frame`: a column per prompt (and per position or head, if
        any).

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        frames = {"first": self.first.to_frame(), "second": self.second.to_frame()}
        frames |= {share: replace(self.first, values=self.part(share).values).to_frame() for share in SHARES}
        return pandas().concat(frames, axis=1, names=["value"])

    def to_plotly(
        self,
        kind: FigureKind | None = None,
        prompt: int | None = None,
        *,
        other: Attribution | Sequence[Attribution] | None = None,
        k: int = 5,
        tokens: Sequence[str] | None = None,
        rows: Sequence[str] | None = None,
        names: tuple[str, str] = ("first run", "second run"),
        share: Share = "difference",
    ) -> Figure:
        """Return a plotly figure of the difference. Blue: larger in the second run. Orange: smaller.

        Args:
            kind: As in `Attribution.to_plotly`. `"scatter"` has the first run on the x-axis, the second on the y-axis.
            prompt: The prompt. None: the mean over prompts.
            other: For `"sides"`: other attributions.
            k: For `"ranking"`: the number of rows of each sign. For `"sides"`: the number of rows.
            tokens: Texts of the tokens of the first run, as labels of positions.
            rows: The labels of the rows to draw.
            names: For `"scatter"`: the titles of the two axes.
            share: `"difference"`, `"written"` (the part from different writing) or `"read"` (from different reading).

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed, or the kind does not suit this decomposition.
        """
        options: dict[str, Any] = {"k": k, "tokens": tokens, "rows": rows, "names": names}
        if kind == "scatter" and other is None:
            return self.first.to_plotly("scatter", prompt, other=self.second, **options)
        return Attribution.to_plotly(self.part(share), kind, prompt, other=other, **options)

    def __repr__(self) -> str:
        """A short summary."""
        top = self.top(2)
        largest = max((abs(value) for _, value in top), default=0.0)
        rows = ", ".join(f"{label} {signed(value, largest).replace('−', '-')}" for label, value in top)
        shape = " × ".join(f"{size} {axis}" for axis, size in zip(self.axes, self.values.shape, strict=True))
        of = f" of {', '.join(self.heads)}" if self.heads else ""
        numbers = {"measured": self.measured, "written": self.written_total, "read": self.read_total}
        means = ", ".join(f"{name} {overall_mean(self, value):+.3f}" for name, value in numbers.items())
        return (
            f'Comparison(by="{self.by}"{of}, {shape}; second - first: {means}, '
            f"unexplained {overall_mean(self, self.unexplained):+.1e}; {rows}"
            f"{''.join(f'; note: {note}' for note in self.notes)})"
        )
