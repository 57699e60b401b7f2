"""The results of `ablate_many`: an `Ablation` of all prompts, or only the effects' mean and spread."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from residscope.base.numbered import some_prompts
from residscope.base.packages import pandas
from residscope.causes.ablation import EFFECTS, Ablation, Effect
from residscope.causes.measurement import AS_CACHED, value_words
from residscope.causes.ranking import farthest
from residscope.causes.unchanged import nothing_replaced, read_at_padding
from residscope.errors import ResidscopeError
from residscope.many.accumulator import Accumulator, ItemFacts, Spread, joined_values
from residscope.many.notes import notes_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor


@dataclass(frozen=True)
class EffectSpread:
    """The mean and the spread of effects over prompts.

    Attributes:
        spread: Mean and squares, `[row, effect]`.
        shape: The shape of the rows in results: `[layer, head]`, `[head]` or `[layer]`. Empty if all components were
            replaced together.
        kind: The dtype of the results.
    """

    spread: Spread
    shape: tuple[int, ...]
    kind: Any

    def mean(self, effect: Effect) -> Float[Tensor, "*component"]:
        """Return the mean of an effect."""
        return self._of(self.spread.mean, effect)

    def std(self, effect: Effect) -> Float[Tensor, "*component"]:
        """Return the standard deviation of an effect. 0 for a single prompt."""
        return self._of(self.spread.std, effect)

    def sem(self, effect: Effect) -> Float[Tensor, "*component"]:
        """Return the standard error of the mean. NaN for a single prompt."""
        return self._of(self.spread.sem, effect)

    @property
    def most(self) -> int:
        """The largest number of prompts in the mean of any component."""
        return int(self.spread.count[:, EFFECTS.index("total")].max())

    def _of(self, values: Tensor, effect: Effect) -> Tensor:
        if effect not in EFFECTS:
            raise ResidscopeError("effect", f'"{effect}" is not known: use "total", "direct" or "indirect".')
        return values[:, EFFECTS.index(effect)].reshape(self.shape).to(self.kind)

    def frame(self, labels: list[str]) -> DataFrame:
        """Return a pandas table: a row for each component, and for each effect its mean, `std` and `sem`."""
        pd = pandas()
        columns: dict[str, Any] = {}
        for effect in EFFECTS:
            for name, of in (("", self.mean), (" std", self.std), (" sem", self.sem)):
                columns[effect + name] = of(effect).flatten().numpy()
        return pd.DataFrame(columns, index=pd.Index(labels, name="component"))


@dataclass(frozen=True, eq=False, repr=False)
class ManyAblation(Ablation):
    """An `Ablation` of the prompts of all items, in the items' order, on the CPU.

    All methods of an `Ablation` are available.

    Attributes:
        items: For each prompt, the number of its item.
        skipped: The numbers of items that were left out (`on_error="skip"`), and the reasons.
    """

    items: list[int] = field(default_factory=list[int])
    skipped: dict[int, str] = field(default_factory=dict[int, str])
    _accumulator: Accumulator | None = None
    _effects: EffectSpread | None = None

    def mean(self, effect: Effect = "total") -> Float[Tensor, "*component"]:
        """Return the mean of an effect over the prompts that have it, with the axes of `total` except the last."""
        return self._spread.mean(effect)

    def std(self, effect: Effect = "total") -> Float[Tensor, "*component"]:
        """Return the standard deviation of an effect over prompts. 0 for a single prompt."""
        return self._spread.std(effect)

    def sem(self, effect: Effect = "total") -> Float[Tensor, "*component"]:
        """Return the standard error of the mean, assuming independent prompts. NaN for a single prompt."""
        return self._spread.sem(effect)

    @property
    def _spread(self) -> EffectSpread:
        assert self._effects is not None
        return self._effects

    def to_frame(self, prompt: int | None = None) -> DataFrame:
        """Return a pandas table: a row for each component, with its effects.

        Args:
            prompt: The prompt. None: the mean over prompts, and for each effect its standard deviation (`std`) and the
                standard error of the mean (`sem`).

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        return self._spread.frame(self.labels) if prompt is None else super().to_frame(prompt)


@dataclass(frozen=True, eq=False, repr=False)
class AblationSummary:
    """The mean and the spread of effects over the prompts of all items, without the effects in each prompt.

    Attributes:
        average: The mean over prompts, as an `Ablation` of one prompt.
        count: The number of prompts, also of those without an effect.
        before: `[batch]`, the target in the unchanged run of each prompt. NaN where its position is padding.
        items: For each prompt, the number of its item.
        skipped: The numbers of items that were left out (`on_error="skip"`), and the reasons.
    """

    average: Ablation
    count: int
    before: Float[Tensor, " batch"]
    items: list[int]
    skipped: dict[int, str]
    _accumulator: Accumulator
    _spread: EffectSpread

    @property
    def labels(self) -> list[str]:
        """The labels of the components."""
        return self.average.labels

    @property
    def notes(self) -> list[str]:
        """Notes on these numbers, in sentences."""
        return self.average.notes

    def mean(self, effect: Effect = "total") -> Float[Tensor, "*component"]:
        """Return the mean of an effect over the prompts that have it.

        Its axes are those of `ablate` except the last: `[layer, head]`.
        """
        return self._spread.mean(effect)

    def std(self, effect: Effect = "total") -> Float[Tensor, "*component"]:
        """Return the standard deviation of an effect over prompts. 0 for a single prompt."""
        return self._spread.std(effect)

    def sem(self, effect: Effect = "total") -> Float[Tensor, "*component"]:
        """Return the standard error of the mean, assuming independent prompts. NaN for a single prompt."""
        return self._spread.sem(effect)

    def top(self, k: int = 3, effect: Effect = "total") -> list[tuple[str, float]]:
        """Return the k components with mean effects farthest from 0, as pairs (name, effect), the farthest first."""
        return farthest(self.labels, self.mean(effect).flatten(), k)

    def to_frame(self) -> DataFrame:
        """Return a pandas table: a row for each component, and for each effect its mean, `std` and `sem`.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        return self._spread.frame(self.labels)

    def to_plotly(
        self, kind: Literal["heatmap", "bars", "scatter"] | None = None, *, effect: Effect = "total"
    ) -> Figure:
        """Return a plotly figure of the mean (see `Ablation.to_plotly`)."""
        return self.average.to_plotly(kind, effect=effect)

    def __repr__(self) -> str:
        """Return a readable summary."""
        return f"AblationSummary({self.count} prompts; the mean: {self.average!r})"


def ablation_of(accumulator: Accumulator) -> ManyAblation | AblationSummary:
    """Return the combined result of the items that are done.

    Raises:
        ResidscopeError: If no item is done.
    """
    layout, results = accumulator.done()
    facts = [result.facts for result in results.values()]
    before = joined_values(results.values(), "before", layout)
    count, padded = len(before), before.isnan()
    shape = {"set": (), "component": layout.grid or (len(layout.components),)}[layout.axes[0]]
    kind = "head" if layout.components[0].kind == "head" else "layer"
    rows = {0: (), 1: (kind,), 2: ("layer", "head")}[len(shape)]
    words = "; ".join(dict.fromkeys(item.measured_from for item in facts))
    common: dict[str, Any] = {
        "components": layout.components,
        "axes": (*rows, "batch"),
        "replaced_by": words,
        "replayed": _replayed(before, facts),
        "notes": notes_of(accumulator, results) + _padding_notes(padded),
        "model": re.sub(" [0-9a-f]{12}$", "", facts[0].model),
    }
    or_where = ", or in the other prompts" if re.search(r"\bother\b|of prompt", words) else ""
    listed: dict[str, Any] = {
        "items": [number for number, result in results.items() for _ in range(result.prompts)],
        "skipped": dict(sorted(accumulator.skipped.items())),
    }
    if accumulator.keeps_values:
        values = joined_values(results.values(), "values", layout)
        spread = EffectSpread(Spread.of(values, 1), shape, values.dtype)
        gone = values[..., EFFECTS.index("total")].isnan().all(0)
        unchanged: list[int] = (gone & ~padded).nonzero().flatten().tolist()
        if unchanged:
            common["notes"].append(nothing_replaced(some_prompts(unchanged, count), or_where))
        parts = {effect: values[..., at].reshape(*shape, count) for at, effect in enumerate(EFFECTS)}
        return ManyAblation(**parts, before=before, **common, **listed, _accumulator=accumulator, _effects=spread)
    assert accumulator.spread is not None
    spread = EffectSpread(accumulator.spread, shape, before.dtype)
    left = count - int(padded.sum()) - spread.most
    if left > 0:
        common["notes"].append(nothing_replaced(f"{left} of {count} prompts", or_where))
    means = {str(effect): spread.mean(effect)[..., None] for effect in EFFECTS}
    average = Ablation(**means, before=before.nanmean(0, keepdim=True), **common)
    return AblationSummary(average, count, before, **listed, _accumulator=accumulator, _spread=spread)


def _replayed(before: Tensor, facts: Sequence[ItemFacts]) -> str:
    """The comparison of all items' replays with their caches, in words."""
    words = value_words(before)
    rounded = [item.replayed for item in facts if item.replayed]
    ending = "" if not rounded else rounded[0] if len(facts) == 1 else f", in {len(rounded)} items up to rounding"
    return f"unchanged runs {f'give {words},' if words else 'are'} {AS_CACHED}{ending}"


def _padding_notes(padded: Bool[Tensor, " batch"]) -> list[str]:
    """A note on the prompts in which the target is read at padding."""
    prompts: list[int] = padded.nonzero().flatten().tolist()
    return [read_at_padding(some_prompts(prompts, len(padded)))] if prompts else []
