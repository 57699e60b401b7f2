"""What is known of the items so far: each one's figures, or their mean and spread alone; how parts are put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from residscope.attribution.result import Attribution
from residscope.errors import ResidscopeError
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Frame:
    """What all items must have in common.

    Attributes:
        by: The decomposition.
        components: The rows.
        axes: The names of the axes of `values`.
        sizes: How long the other axes are, `component` and `batch` left out.
        heads: For `by="source"`, the heads.
        parts: How many of the first rows are what was asked for.
        grid: Layers and heads, where there is a grid.
    """

    by: Any
    components: list[Component]
    axes: tuple[str, ...]
    sizes: tuple[int, ...]
    heads: list[str]
    parts: int | None
    grid: tuple[int, int] | None

    @classmethod
    def of(cls, result: Attribution) -> Frame:
        """That of one item."""
        sizes = [size for axis, size in zip(result.axes, result.values.shape, strict=True) if axis != "batch"]
        parts, grid = result._parts, result._grid  # pyright: ignore[reportPrivateUsage]
        return cls(result.by, result.components, result.axes, tuple(sizes[1:]), result.heads, parts, grid)

    @property
    def prompts(self) -> int:
        """The prompts' axis of `values`."""
        return self.axes.index("batch")

    @property
    def length(self) -> int:
        """How many positions the figures are of: 1, where they are of one position of each prompt."""
        return len(self.components) if self.by == "source" else next(iter(self.sizes), 1)

    def check(self, other: Frame) -> None:
        """Refuse an item that cannot stand beside the others.

        Raises:
            ResidscopeError: If its rows or its positions are not theirs.
        """
        if other == self:
            return
        if other.length != self.length:
            raise ResidscopeError(
                "items",
                f"It has {other.length} positions, and the items before it have {self.length}. Figures of every "
                "position, or of every source, need prompts of one length: pad them, or ask for one position.",
            )
        own, others = set(self.components), set(other.components)
        new = [row.label for row in other.components if row not in own]
        gone = [row.label for row in self.components if row not in others]
        named = [f"it has {_some(new)}"] * bool(new) + [f"it lacks {_some(gone)}"] * bool(gone)
        raise ResidscopeError(
            "items",
            f"It has other rows than the items before it ({', '.join(named) or 'in another order'}): another model, "
            "another `names_filter`, or weights that were changed.",
        )


class ItemFacts(NamedTuple):
    """What was said of an item, beside its figures."""

    measured_from: str
    own: bool
    tolerance: float
    notes: tuple[str, ...]
    model: str
    tokenizer: tuple[tuple[str, str], ...] = ()  # files of before have none


@dataclass(frozen=True)
class Part:
    """The figures of one item, on the CPU; `values` is None where only mean and spread are kept."""

    prompts: int
    measured: Tensor
    constant: Tensor
    unexplained: Tensor
    values: Tensor | None
    told: ItemFacts


@dataclass(frozen=True)
class Spread:
    """Mean and spread over prompts, in float64.

    Attributes:
        count: So many prompts.
        mean: Of each row.
        squares: The sum of the squared distances to the mean.

    Source: Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979):
    no figure is ever squared before its mean is taken off, so that nothing is lost where the mean is large.
    """

    count: int
    mean: Float[Tensor, " component"]
    squares: Float[Tensor, " component"]

    @classmethod
    def of(cls, values: Float[Tensor, "component batch"], axis: int) -> Spread:
        """Of some prompts."""
        exact = values.double()
        mean = exact.mean(axis, keepdim=True)
        return cls(values.shape[axis], mean.squeeze(axis), (exact - mean).square().sum(axis))

    def with_(self, other: Spread) -> Spread:
        """Of both."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        return Spread(count, mean, self.squares + other.squares + apart.square() * (self.count * other.count / count))

    @property
    def std(self) -> Float[Tensor, " component"]:
        """The standard deviation, as `Attribution.std` has it (0 for a single prompt)."""
        return (self.squares / max(self.count - 1, 1)).sqrt()


@dataclass
class Accumulator:
    """The items that are done, by number.

    Attributes:
        question: What was asked, in words, so that figures of two questions are never put together.
        keeps_values: Whether each prompt's rows are kept, not only their mean and spread.
        frame: What the items have in common; None before the first.
        skipped: Why items were left out.
    """

    question: dict[str, str]
    keeps_values: bool = True
    frame: Frame | None = None
    skipped: dict[int, str] = field(default_factory=dict[int, str])
    _parts: dict[int, Part] = field(default_factory=dict[int, Part])
    _spread: Spread | None = None
    _last: tuple[int, Part, Spread | None] | None = None

    @property
    def parts(self) -> dict[int, Part]:
        """The items' figures, by number."""
        self._settle()
        return self._parts

    @property
    def spread(self) -> Spread | None:
        """Mean and spread, where only they are kept."""
        self._settle()
        return self._spread

    @property
    def reach(self) -> int:
        """The number after the highest that is done."""
        return max(self.parts, default=-1) + 1

    def add(self, number: int, frame: Frame, part: Part) -> None:
        """One more item.

        Raises:
            ResidscopeError: If it does not fit the others.
        """
        if self.frame is None:
            self.frame = frame
        self.frame.check(frame)
        spread = self.spread
        if not self.keeps_values and part.values is not None:
            own = Spread.of(part.values, frame.prompts)
            spread = own if spread is None else spread.with_(own)
            part = Part(part.prompts, part.measured, part.constant, part.unexplained, None, part.told)
        # One assignment: an interrupt finds the item done or not done, never its figures without its number.
        self._last = (number, part, spread)

    def _settle(self) -> None:
        if self._last is not None:  # may be interrupted, and done twice
            number, part, spread = self._last
            self._parts[number] = part
            self._spread = spread
            self._last = None

    def joined(self, others: Iterable[Accumulator]) -> Accumulator:
        """This and others in one; what they have in common counts once.

        Raises:
            ResidscopeError: If they do not fit.
        """
        whole = Accumulator(
            self.question, self.keeps_values, self.frame, dict(self.skipped), dict(self.parts), self.spread
        )
        for other in others:
            whole.skipped |= other.skipped
            if other.frame is None:
                continue
            if whole.frame is not None:
                whole.frame.check(other.frame)
            both = whole.parts.keys() & other.parts.keys()
            if len(both) == len(other.parts):
                continue
            if both and not self.keeps_values:
                raise ResidscopeError(
                    "resume", f"Item {min(both)} is in two files that were kept, and means cannot be taken apart."
                )
            whole.frame = other.frame
            whole._parts |= other.parts
            spreads = [spread for spread in (whole._spread, other.spread) if spread is not None]
            whole._spread = spreads[0].with_(spreads[1]) if len(spreads) == 2 else next(iter(spreads), None)
        whole.skipped = {number: why for number, why in whole.skipped.items() if number not in whole._parts}
        return whole


def _some(labels: list[str]) -> str:
    return ", ".join(f"`{label}`" for label in labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
