"""Collects the results of items: each item's values, or only their mean and spread."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from residscope.attribution.result import Attribution
from residscope.compute.precision import in_float64
from residscope.errors import ResidscopeError
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class ResultLayout:
    """What the results of all items must have in common.

    Attributes:
        by: The decomposition; "ablation" for effects of `ablate`.
        components: The components of the rows. If all components were replaced at once, they are one row.
        axes: The names of the axes of `values`.
        sizes: The sizes of the axes other than `component` and `batch`.
        heads: The heads, for `by="source"`.
        parts: The number of rows that `by` requests. Other rows, such as biases, follow.
        grid: The number of layers and of heads, if the rows form a grid.
    """

    by: Any
    components: list[Component]
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    heads: list[str]
    parts: int | None
    grid: tuple[int, int] | None

    @classmethod
    def of(cls, result: Attribution) -> ResultLayout:
        """Return the layout of an item's result."""
        sizes = [size for axis, size in zip(result.axes, result.values.shape, strict=True) if axis != "batch"]
        parts, grid = result._parts, result._grid  # pyright: ignore[reportPrivateUsage]
        return cls(result.by, result.components, result.axes, tuple(sizes[1:]), result.heads, parts, grid)

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the numbers that each prompt has besides its rows."""
        return ("before",) if self.by == "ablation" else ("measured", "constant", "unexplained")

    def shape(self, prompts: int) -> list[int]:
        """Return the shape of the values for this number of prompts."""
        whole = [1 if self.axes[0] == "set" else len(self.components), *self.sizes]
        whole.insert(self.prompt_axis, prompts)
        return whole

    def column_shape(self, prompts: int) -> list[int]:
        """Return the shape of a column for this number of prompts."""
        return [prompts] if self.by == "ablation" else self.shape(prompts)[1:]

    @property
    def prompt_axis(self) -> int:
        """The axis of prompts in `values`."""
        return self.axes.index("batch")

    @property
    def length(self) -> int:
        """The number of positions or sources. 1 for one position of each prompt. 3, the effects, for `ablate`."""
        return len(self.components) if self.by == "source" else next(iter(self.sizes), 1)

    def check(self, other: ResultLayout) -> None:
        """Refuse an item whose result does not fit the results of the items before it.

        Raises:
            ResidscopeError: If the rows or the positions differ.
        """
        if other == self:
            return
        if other.length != self.length:
            raise ResidscopeError(
                "items",
                f"It has {other.length} positions, but the items before it have {self.length}. Values of every "
                "position, or of every source, need prompts of the same length: pad them, or choose one position.",
            )
        own, others = set(self.components), set(other.components)
        extra = [row.label for row in other.components if row not in own]
        missing = [row.label for row in self.components if row not in others]
        difference = [f"it has {_listed(extra)}"] * bool(extra) + [f"it lacks {_listed(missing)}"] * bool(missing)
        raise ResidscopeError(
            "items",
            f"Its rows differ from the rows of the items before it ({', '.join(difference) or 'another order'}): it "
            "has another model, another `names_filter`, or weights that were changed.",
        )


class ItemFacts(NamedTuple):
    """Facts about an item's result besides its values."""

    measured_from: str
    own: bool
    tolerance: float
    notes: tuple[str, ...]
    model: str
    tokenizer: tuple[tuple[str, str], ...] = ()  # empty in older files
    replayed: str = ""  # for effects: how the replay compares with the cache


@dataclass(frozen=True)
class ItemResult:
    """The result of one item, on the CPU.

    Attributes:
        prompts: The number of its prompts.
        columns: The numbers that each prompt has besides its rows, by name. See `Attribution` and `Ablation`.
        values: The rows. None if only mean and spread are kept.
        facts: Other facts about the result.
    """

    prompts: int
    columns: dict[str, Tensor]
    values: Tensor | None
    facts: ItemFacts


@dataclass(frozen=True)
class Spread:
    """The mean and the spread over prompts, in float64.

    Attributes:
        count: The number of prompts in the mean of each row. Values that are NaN are left out of it: effects that
            were not measured, and positions that no token follows.
        mean: The mean of each row. NaN if it is over no prompt.
        squares: The sum of the squared differences from the mean.

    Source: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979).
    The mean is subtracted before values are squared. So no precision is lost if the mean is large.
    """

    count: Int[Tensor, " component"]
    mean: Float[Tensor, " component"]
    squares: Float[Tensor, " component"]

    @classmethod
    def of(cls, values: Float[Tensor, "component batch"], axis: int) -> Spread:
        """Return mean and spread of these values over the axis of prompts. NaN, which is no value, is left out."""
        exact = in_float64(values)
        left_out = exact.isnan()
        mean = exact.nanmean(axis, keepdim=True) if bool(left_out.any()) else exact.mean(axis, keepdim=True)
        squares = (exact - mean).square().masked_fill(left_out, 0).sum(axis)
        return cls((~left_out).sum(axis), mean.squeeze(axis), squares)

    def merged(self, other: Spread) -> Spread:
        """Return mean and spread over the prompts of this and of `other`."""
        count = self.count + other.count
        mine, theirs = (one.mean.masked_fill(one.count == 0, 0) for one in (self, other))
        share, difference = other.count.double() / count.clamp(min=1), theirs - mine
        mean = (mine + difference * share).masked_fill(count == 0, float("nan"))
        between = difference.square() * (self.count * share)
        return Spread(count, mean, self.squares + other.squares + between)

    @property
    def std(self) -> Float[Tensor, " component"]:
        """The standard deviation, as in `Attribution.std`. 0 for a single prompt, NaN for none."""
        found = (self.squares / (self.count - 1).clamp(min=1)).sqrt()
        return found.masked_fill(self.count == 0, float("nan"))

    @property
    def sem(self) -> Float[Tensor, " component"]:
        """The standard error of the mean. NaN for a single prompt."""
        return (self.std / self.count.double().sqrt()).masked_fill(self.count < 2, float("nan"))


@dataclass
class Accumulator:
    """The results of the items that are done, by item number.

    Attributes:
        question: The options of the call as text. Results with different options are never combined.
        keeps_values: Whether the rows of each prompt are kept. If not, only their mean and spread are kept.
        layout: The common layout of the results. None if there is no result yet.
        skipped: The numbers of items that were left out, and the reasons.
    """

    question: dict[str, str]
    keeps_values: bool = True
    layout: ResultLayout | None = None
    skipped: dict[int, str] = field(default_factory=dict[int, str])
    _results: dict[int, ItemResult] = field(default_factory=dict[int, ItemResult])
    _spread: Spread | None = None
    _last: tuple[int, ItemResult, Spread | None] | None = None

    @property
    def results(self) -> dict[int, ItemResult]:
        """The results, by item number."""
        self._store_last()
        return self._results

    @property
    def spread(self) -> Spread | None:
        """The mean and the spread over prompts. None if the values of each prompt are kept instead."""
        self._store_last()
        return self._spread

    @property
    def next_number(self) -> int:
        """The number after the highest item that is done."""
        return max(self.results, default=-1) + 1

    def add(self, number: int, layout: ResultLayout, result: ItemResult) -> None:
        """Add the result of one item.

        Raises:
            ResidscopeError: If the result does not fit the other results.
        """
        if self.layout is None:
            self.layout = layout
        self.layout.check(layout)
        spread = self.spread
        if not self.keeps_values and result.values is not None:
            own = Spread.of(result.values, layout.prompt_axis)
            spread = own if spread is None else spread.merged(own)
            result = replace(result, values=None)
        # A single assignment: an interrupt comes either before or after it, so no item is added partly.
        self._last = (number, result, spread)

    def _store_last(self) -> None:
        if self._last is not None:  # if an interrupt stops this, the next call repeats it
            number, result, spread = self._last
            self._results[number] = result
            self._spread = spread
            self._last = None

    def done(self) -> tuple[ResultLayout, dict[int, ItemResult]]:
        """Return the layout, and the results in the items' order.

        Raises:
            ResidscopeError: If no item is done.
        """
        if self.layout is None or not self.results:
            why = "".join(f" Item {number}: {message}" for number, message in sorted(self.skipped.items())[:1])
            what = "measured" if self.question.get("by") == '"ablation"' else "attributed"
            raise ResidscopeError(
                "no-items",
                f"None of {len(self.skipped)} items could be {what}.{why}" if why else "There are no items.",
            )
        return self.layout, dict(sorted(self.results.items()))

    def joined(self, others: Iterable[Accumulator]) -> Accumulator:
        """Return the union of this accumulator and others. An item that is in several of them counts once.

        Raises:
            ResidscopeError: If the accumulators do not fit each other.
        """
        union = Accumulator(
            self.question, self.keeps_values, self.layout, dict(self.skipped), dict(self.results), self.spread
        )
        for other in others:
            union.skipped |= other.skipped
            if other.layout is None:
                continue
            if union.layout is not None:
                union.layout.check(other.layout)
            both = union.results.keys() & other.results.keys()
            if len(both) == len(other.results):
                continue
            if both and not self.keeps_values:
                raise ResidscopeError(
                    "resume", f"Item {min(both)} is in two saved files, and their means cannot be separated."
                )
            union.layout = other.layout
            union._results |= other.results
            spreads = [spread for spread in (union._spread, other.spread) if spread is not None]
            union._spread = spreads[0].merged(spreads[1]) if len(spreads) == 2 else next(iter(spreads), None)
        union.skipped = {number: why for number, why in union.skipped.items() if number not in union._results}
        return union


def joined_values(results: Iterable[ItemResult], name: str, layout: ResultLayout) -> Tensor:
    """Return one tensor of all items, concatenated along the axis of prompts."""
    import torch

    return torch.cat(
        [result.values if name == "values" else result.columns[name] for result in results],  # pyright: ignore
        layout.prompt_axis - (name != "values"),
    )


def copied(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU. A view would keep the whole tensor alive."""
    return tensor.detach().cpu().clone()


def _listed(labels: list[str]) -> str:
    return ", ".join(f"`{label}`" for label in labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
