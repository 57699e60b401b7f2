"""`Pairs`: an attention score as a sum over pairs of components, one at the destination and one at the source."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING

from residscope.base.packages import pandas
from residscope.base.prompts import check_prompt_number
from residscope.base.signed import signed
from residscope.compute.farthest import farthest_first
from residscope.terms import Component, Target

if TYPE_CHECKING:
    from jaxtyping import Float
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Pairs:
    """An attention score by pairs: a component that wrote at the destination, and one that wrote at the source.

    The sum over all pairs + unexplained = measured. The sum over a row of the map is the component's contribution on
    the query side. The sum over a column is the component's contribution on the key side. Scores are before the
    softmax. A single score has no unit. A difference of two scores is a log ratio of attention, in nats.

    Attributes:
        values: `[query component, key component, batch]`.
        query: The components at the destination, along the first axis. `biases` is what biases add to the query.
        key: The components at the source, along the second axis.
        measured: `[batch]`, the score, or its difference from the score of another source or from the mean score.
        unexplained: `[batch]`, measured − the sum of all pairs.
        measured_from: Where `measured` was read, in words.
        tolerance: Values of `unexplained` up to this are rounding.
        notes: Notes on these numbers, in sentences.
        own: Whether `measured` is the model's own value.
        target: The attention score that is decomposed.
        model: The model's name.
    """

    values: Float[Tensor, "query key batch"]
    query: list[Component]
    key: list[Component]
    measured: Float[Tensor, " batch"]
    unexplained: Float[Tensor, " batch"]
    measured_from: str
    tolerance: float
    notes: list[str] = field(default_factory=list)
    own: bool = True
    target: Target | None = None
    model: str = ""

    @property
    def query_labels(self) -> list[str]:
        """The labels along the first axis."""
        return [row.label for row in self.query]

    @property
    def key_labels(self) -> list[str]:
        """The labels along the second axis."""
        return [row.label for row in self.key]

    def of(self, prompt: int | None = None) -> Float[Tensor, "query key"]:
        """Return the map of one prompt, or the mean over prompts.

        Raises:
            ResidscopeError: If there is no such prompt.
        """
        if prompt is None:
            return self.values.mean(-1)
        return self.values[..., check_prompt_number(prompt, self.values.shape[-1])]

    def top(self, k: int = 5, prompt: int | None = None) -> list[tuple[str, str, float]]:
        """Return the k pairs farthest from 0, as tuples (query component, key component, value).

        Args:
            k: The number of pairs.
            prompt: The prompt. None: the mean over prompts.
        """
        values = self.of(prompt)
        flat = values.flatten()
        width = values.shape[1]
        return [
            (self.query[i // width].label, self.key[i % width].label, float(flat[i])) for i in farthest_first(flat, k)
        ]

    def to_frame(self, prompt: int | None = None) -> DataFrame:
        """Return a pandas table: a row for each component at the destination, a column for each one at the source.

        Args:
            prompt: The prompt. None: the mean over prompts.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        index = pd.Index(self.query_labels, name="query")
        columns = pd.Index(self.key_labels, name="key")
        return pd.DataFrame(self.of(prompt).cpu().numpy(), index=index, columns=columns)

    def to_csv(self, path: str | PathLike[str] | None = None, prompt: int | None = None) -> str | None:
        """Return or write the table of `to_frame` as CSV.

        Args:
            path: The file to write. By default the text is returned.
            prompt: The prompt. None: the mean over prompts.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        return self.to_frame(prompt).to_csv(path)

    def to_plotly(self, prompt: int | None = None, *, k: int = 16) -> Figure:
        """Return a plotly figure of the strongest components of each side. Blue is positive, orange is negative.

        Args:
            prompt: The prompt. None: the mean over prompts.
            k: The number of components of each side: those whose contributions to the score are farthest from 0.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed.
        """
        from residscope.export.maps import pairs_figure

        return pairs_figure(self, prompt, k)

    def __repr__(self) -> str:
        pairs = ", ".join(
            f"{query} × {key} {signed(value, abs(value)).replace('−', '-')}" for query, key, value in self.top(2)
        )
        queries, keys, batch = self.values.shape
        return (
            f"Pairs({queries} query × {keys} key × {batch} batch; measured {float(self.measured.mean()):+.3f}, "
            f"unexplained {float(self.unexplained.mean()):+.1e}; {pairs}"
            f"{''.join(f'; note: {note}' for note in self.notes)})"
        )


def strongest(values: Float[Tensor, "query key"], k: int) -> tuple[list[int], list[int]]:
    """Return the k rows and the k columns of a map that are shown: those whose sums are farthest from 0.

    The sum over a row or a column is what the component contributes on its side.
    """
    rows, columns = (farthest_first(values.sum(axis), k) for axis in (1, 0))
    return rows, columns
