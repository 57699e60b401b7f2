"""The data of a figure: one attribution, for one prompt or as the mean over prompts, with names for its positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from residscope.attribution.result import Attribution, of_prompt
from residscope.attribution.target_words import unit_of
from residscope.comparison.result import Comparison, Share
from residscope.errors import ResidscopeError
from residscope.export.palette import name, target_words, titled, token_names
from residscope.terms import By, FigureKind

if TYPE_CHECKING:
    from torch import Tensor


def usual_figure(by: By) -> tuple[FigureKind, str]:
    """Return the default kind of figure for a decomposition, and its title."""
    match by:
        case "accumulated":
            return "lens", "Logit lens"
        case "layer":
            return "layers", "What each layer adds"
        case "head":
            return "heatmap", "What each attention head adds"
        case "neuron":
            return "ranking", "What each MLP neuron adds"
        case "source":
            return "sources", "What each source token contributes"
        case "feature":
            return "ranking", "What each feature adds"


_SHARES: dict[Share, str] = {
    "difference": ": second run minus first",
    "written": ": what was written differently",
    "read": ": how it is read differently",
}


@dataclass(frozen=True)
class Shown:
    """One attribution, for one prompt or as the mean over prompts, with the options of the figure."""

    result: Attribution
    prompt: int | None
    tokens: Sequence[str] | None
    k: int
    others: tuple[Attribution, ...]
    rows: Sequence[str] | None
    names: tuple[str, str]

    @property
    def values(self) -> Tensor:
        """The values of the rows, without the batch axis."""
        return of_prompt(self.result, self.result.values, self.prompt)

    def titled(self, suffix: str = "", what: str | None = None, note: str = "") -> str:
        """Return the title of the figure, with the target and the model below it."""
        target = target_words(self.result.target, self.prompt)
        return titled((self.title if what is None else what) + suffix, target, name(self.result.model), note)

    @property
    def unit(self) -> str:
        """The unit of the values."""
        return unit_of(self.result.target)

    @property
    def title(self) -> str:
        """The decomposition in words, and the prompts that are shown."""
        count = every = self.result.values.shape[self.result.axes.index("batch")]
        padding = self.result.padding
        if padding is not None and padding.ndim == 1 and every > 1:
            count -= int(padding.sum())  # the mean leaves these prompts out
        which = (
            f"prompt {self.prompt}" if self.prompt is not None else f"mean of {count} prompt{'' if count == 1 else 's'}"
        )
        target, title = self.result.target, usual_figure(self.result.by)[1]
        if self.result.by == "accumulated" and target is not None and target.inner is not None:
            title = "The residual stream up to each point"  # the target is not read from logits
        if isinstance(self.result, Comparison):
            title += _SHARES[self.result.share]
        return title + (f", {which}" if every > 1 else "")

    @property
    def padding(self) -> Tensor | None:
        """Which positions of the shown prompt are padding, `[pos]`. None for several prompts, or if it is not known."""
        padding = self._padding_of_shown()
        return None if padding is None or len(padding) > 1 else padding[0]

    @property
    def last_position(self) -> int | None:
        """The last position at which the target is read. None if it differs between the shown prompts."""
        padding, target = self._padding_of_shown(), self.result.target
        ends = {self.values.shape[-1] - 1} if padding is None else {int((~row).nonzero().max()) for row in padding}
        if len(ends) > 1:
            return None
        has_next = target is not None and target.next_token is not None  # no token follows the last one
        return max(ends.pop() - has_next, 0)

    def _padding_of_shown(self) -> Tensor | None:
        padding = self.result.padding if "pos" in self.result.axes else None
        return padding if padding is None or self.prompt is None else padding[self.prompt][None]

    def position_names(self, count: int) -> list[str]:
        """Return a name for each position: its token, or its number."""
        if self.tokens is None:
            return [str(position) for position in range(count)]
        if len(self.tokens) != count:
            raise ResidscopeError(
                "tokens-shape", f"`tokens=` names {len(self.tokens)} tokens, but there are {count} positions."
            )
        return token_names(self.tokens)


def checked_labels(result: Attribution, rows: Sequence[str]) -> list[str]:
    """Return the labels, after a check that each of them is a row.

    Raises:
        ResidscopeError: If there is no row with one of these labels.
    """
    unknown = [label for label in rows if label not in result.labels]
    if unknown:
        raise ResidscopeError("figure", f"There is no row {unknown[0]!r}: `labels` lists all rows.")
    return list(rows)
