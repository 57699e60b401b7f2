"""What `attribute_many` gives: every prompt's figures as one `Attribution`, or their mean and spread alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from residscope.attribution.result import Attribution
from residscope.errors import ResidscopeError
from residscope.many.accumulator import Accumulator, Frame, Part
from residscope.terms import By, FigureKind

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_NOTES_SHOWN = 10


@dataclass(frozen=True, eq=False, repr=False)
class ManyAttribution(Attribution):
    """The prompts of all items in one `Attribution`, in the items' order, on the CPU.

    All that an `Attribution` has is here: `.mean()`, `.std()`, `.top()`, `.grid`, `.to_frame()`, `.to_csv()`,
    `.to_plotly()`.

    Attributes:
        items: For each prompt the number of the item that it came from.
        skipped: The items that were left out (`on_error="skip"`), and why.
    """

    items: list[int] = field(default_factory=list[int])
    skipped: dict[int, str] = field(default_factory=dict[int, str])
    _tally: Accumulator | None = None


@dataclass(frozen=True, eq=False, repr=False)
class AttributionSummary:
    """Mean and spread over the prompts of all items; no prompt's rows were kept. All figures are logits.

    Attributes:
        average: The mean prompt, as an `Attribution` of one prompt.
        count: The number of prompts.
        measured: `[batch]`, the model's own figure for each prompt (see `Attribution`).
        constant: `[batch]`.
        unexplained: `[batch]`.
        items: For each prompt the number of the item that it came from.
        skipped: The items that were left out (`on_error="skip"`), and why.
    """

    average: Attribution
    count: int
    measured: Float[Tensor, " batch"]
    constant: Float[Tensor, " batch"]
    unexplained: Float[Tensor, " batch"]
    items: list[int]
    skipped: dict[int, str]
    _std: Float[Tensor, " component"]
    _tally: Accumulator

    @property
    def by(self) -> By:
        """The decomposition."""
        return self.average.by

    @property
    def labels(self) -> list[str]:
        """The names of the rows."""
        return self.average.labels

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures should know, in sentences."""
        return self.average.notes

    def mean(self) -> Float[Tensor, " component"]:
        """The rows averaged over prompts."""
        return self.average.mean()

    def std(self) -> Float[Tensor, " component"]:
        """The rows' standard deviation over prompts (0 for a single prompt)."""
        return self._std

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The k most positive and the k most negative rows of the mean (see `Attribution.top`)."""
        return self.average.top(k)

    def to_frame(self) -> Any:
        """A pandas table: the rows by label, the columns `mean` and `std` (for each position or head, where there are).

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
        """The table of `to_frame` as CSV.

        Args:
            path: Where to write it; by default the text is returned.
        """
        return self.to_frame().to_csv(path)

    def to_plotly(
        self,
        kind: FigureKind | None = None,
        *,
        k: int = 5,
        tokens: Sequence[str] | None = None,
        rows: Sequence[str] | None = None,
    ) -> Any:
        """A plotly figure of the mean (see `Attribution.to_plotly`)."""
        figure = self.average.to_plotly(kind, k=k, tokens=tokens, rows=rows)
        return figure.update_layout(title_text=f"{figure.layout.title.text}, mean of {self.count} prompts")

    def __repr__(self) -> str:
        """A summary a person can read."""
        return f"AttributionSummary({self.count} prompts; the mean: {self.average!r})"


def result_of(tally: Accumulator) -> ManyAttribution | AttributionSummary:
    """What the items that are done come to.

    Raises:
        ResidscopeError: If there are none.
    """
    frame, parts = tally.frame, dict(sorted(tally.parts.items()))
    if frame is None or not parts:
        why = "".join(f" Item {number}: {said}" for number, said in sorted(tally.skipped.items())[:1])
        raise ResidscopeError(
            "no-items",
            f"None of {len(tally.skipped)} items could be attributed.{why}" if why else "There are no items.",
        )
    items = [number for number, part in parts.items() for _ in range(part.prompts)]
    columns = {name: joined(parts.values(), name, frame) for name in ("measured", "constant", "unexplained")}
    told: dict[str, Any] = {
        "by": frame.by,
        "measured_from": "; ".join(dict.fromkeys(part.told.measured_from for part in parts.values())),
        "tolerance": max(part.told.tolerance for part in parts.values()),
        "notes": _notes(tally, parts),
        "own": all(part.told.own for part in parts.values()),
        "axes": frame.axes,
        "heads": frame.heads,
        "_parts": frame.parts,
        "_grid": frame.grid,
    }
    skipped = dict(sorted(tally.skipped.items()))
    if tally.keeps_values:
        values = joined(parts.values(), "values", frame)
        pieces = values.split([part.prompts for part in parts.values()], frame.prompts)
        for (number, part), piece in zip(parts.items(), pieces, strict=True):
            tally.parts[number] = replace(part, values=piece)  # held once
        return ManyAttribution(values, frame.components, **columns, **told, items=items, skipped=skipped, _tally=tally)
    spread = tally.spread
    assert spread is not None
    like, at = columns["measured"], frame.prompts
    means = {name: column.mean(at - 1, keepdim=True) for name, column in columns.items()}
    average = Attribution(spread.mean.to(like).unsqueeze(at), frame.components, **means, **told)
    return AttributionSummary(
        average, spread.count, **columns, items=items, skipped=skipped, _std=spread.std.to(like), _tally=tally
    )


def joined(parts: Iterable[Part], name: str, frame: Frame) -> Tensor:
    """One figure of all items, along the axis of the prompts."""
    import torch

    return torch.cat([getattr(part, name) for part in parts], frame.prompts - (name != "values"))


def _notes(tally: Accumulator, parts: dict[int, Part]) -> list[str]:
    """The items' notes: what is said of all as it is, else with the items' numbers; other figures are no other note."""
    found: dict[str, dict[str, list[int]]] = {}
    for number, part in parts.items():
        for note in part.told.notes:
            found.setdefault(_kind(note), {}).setdefault(note, []).append(number)
    said: list[str] = []
    for same in list(found.values())[:_NOTES_SHOWN]:
        note, numbers = next(iter(same)), sorted(number for some in same.values() for number in some)
        if _PADDED.search(note) and len(same) > 1:  # its figures are that item's alone, and are what matters
            said.append(f"{_items(numbers)}, such as item {same[note][0]}: {note}")
        else:
            said.append(note if len(numbers) == len(parts) else f"{_items(numbers)}: {note}")
    if len(found) > _NOTES_SHOWN:
        said.append(f"{len(found) - _NOTES_SHOWN} more notes are on single items.")
    if len({part.told.model for part in parts.values()}) > 1:
        said.append("The items come from several models, or from weights that were changed meanwhile.")
    if len({part.told.tokenizer for part in parts.values()} - {()}) > 1:
        said.append(
            "The items were read with several tokenizers, or with one that was changed meanwhile: what was taken for "
            "padding, and which tokens words are, may differ."
        )
    if tally.skipped:
        number, why = min(tally.skipped.items())
        said.append(f"{_items(sorted(tally.skipped))} left out (`.skipped` says why): item {number}: {why}")
    return said


_PADDED = re.compile("taken for (padded|real)")


def _kind(note: str) -> str:
    """A note without its figures, and without how many there are."""
    bare = re.sub(r"[\d.,+−-]+(?:e[+−-]?\d+)?", "#", note)
    return re.sub(r"#(?: #)*(?: and #)?", "#", bare) if _PADDED.search(note) else bare


def _items(numbers: Sequence[int]) -> str:
    """Items in words."""
    if len(numbers) == 1:
        return f"Item {numbers[0]}"
    shown = ", ".join(map(str, numbers[:5]))
    return f"{len(numbers)} items ({shown}{', …' if len(numbers) > 5 else ''})"
