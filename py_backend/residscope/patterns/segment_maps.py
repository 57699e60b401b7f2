"""`SegmentAttention`: attention maps of some heads, with a row and a column for each segment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from residscope.attribution.segment_sums import check_shape, outside, rolled
from residscope.base.packages import pandas
from residscope.cache.segments import Segments
from residscope.errors import ResidscopeError
from residscope.terms import Target, Weighting

if TYPE_CHECKING:
    from jaxtyping import Float
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class SegmentAttention:
    """Attention maps of some heads, segment × segment. Each row is a destination segment, each column a source segment.

    Attributes:
        values: `[head, destination, source]`. Values are summed over the sources of a segment. For `"pattern"`
            and `"value"`, the sums are averaged over the destinations of a segment. For `"contribution"`, the sums are
            added up over these destinations, in the target's unit.
        heads: The heads' names, `["L9H9", …]`.
        segments: The segments.
        weighting: The weighting.
        meaning: What a value is, in words.
        padding: The values of padding, as if it were one more source segment: `[head, destination]`. Padding is in no
            segment. A row of `values` and the same row of `padding` together cover all sources.
        notes: Notes on these values, in sentences.
        target: The attributed target of `"contribution"`.
        model: The model's name.
    """

    values: Float[Tensor, "head destination source"]
    heads: list[str]
    segments: Segments
    weighting: Weighting
    meaning: str
    padding: Float[Tensor, "head destination"]
    notes: list[str] = field(default_factory=list[str])
    target: Target | None = None
    model: str = ""

    @property
    def vertical(self) -> Float[Tensor, "head segment"]:
        """How much all later positions attend to each segment: the mean over all destinations after it.

        NaN for the last segment, because there are no later positions. `docs/scores.md` has the definition.
        """
        sizes = self.values.new_tensor([len(segment) for segment in self.segments])
        # For "contribution" the rows are sums already.
        summed = self.values if self.weighting == "contribution" else self.values * sizes[:, None]
        later = summed.tril(-1).sum(1)
        return later / (sizes.sum() - sizes.cumsum(0)).masked_fill_(_last(sizes), float("nan"))

    def top(self, destination: int | str, source: int | str, k: int = 3) -> list[tuple[str, float]]:
        """Return the k heads whose values for a pair of segments are farthest from 0, as pairs (head, value).

        Args:
            destination: The segment that attends, by its index or its name.
            source: The segment that is attended to, by its index or its name.
            k: The number of heads.

        Raises:
            ResidscopeError: If there is no such segment.
        """
        column = self.values[:, self.segments.find(destination), self.segments.find(source)]
        return self._farthest(column, k)

    def top_vertical(self, source: int | str, k: int = 3) -> list[tuple[str, float]]:
        """Return the k heads whose values of `vertical` for a segment are farthest from 0, as pairs (head, value).

        Args:
            source: The segment that is attended to, by its index or its name.
            k: The number of heads.

        Raises:
            ResidscopeError: If there is no such segment, or if it is the last segment.
        """
        at = self.segments.find(source)
        if at == len(self.segments) - 1:
            raise ResidscopeError("segment", "This is the last segment: no later position can read it.")
        return self._farthest(self.vertical[:, at], k)

    def _farthest(self, column: Tensor, k: int) -> list[tuple[str, float]]:
        chosen = column.abs().topk(min(max(k, 0), len(column))).indices.tolist()
        return [(self.heads[at], float(column[at])) for at in chosen]

    def to_frame(self) -> DataFrame:
        """Return a pandas table with a row for each head and destination segment, and a column for each source segment.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        names = self.segments.names
        index = pd.MultiIndex.from_product([self.heads, names], names=["head", "destination"])
        columns = pd.Index(names, name="source")
        return pd.DataFrame(self.values.flatten(0, 1).cpu().numpy(), index=index, columns=columns)

    def to_plotly(self) -> Figure:
        """Return a plotly figure with a map for each head, side by side, and the segments on both axes.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed.
        """
        from residscope.export.maps import segments_figure

        return segments_figure(self)

    def __repr__(self) -> str:
        """Return a readable summary."""
        shape = f"{len(self.heads)} heads × {len(self.segments)} segments"
        notes = "".join(f"; note: {note}" for note in self.notes)
        return (
            f'SegmentAttention(weighting="{self.weighting}" ({self.meaning}), {shape} of prompt '
            f"{self.segments.prompt}{notes})"
        )


def _last(sizes: Tensor) -> Tensor:
    import torch

    return torch.arange(len(sizes), device=sizes.device) == len(sizes) - 1


class _Maps(Protocol):
    """The attributes of `Attention` that this module uses."""

    @property
    def values(self) -> Tensor: ...
    @property
    def heads(self) -> list[str]: ...
    @property
    def weighting(self) -> Weighting: ...
    @property
    def meaning(self) -> str: ...
    @property
    def prompt(self) -> int | None: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def target(self) -> Target | None: ...
    @property
    def model(self) -> str: ...


def rolled_maps(maps: _Maps, segments: Segments) -> SegmentAttention:
    """Reduce attention maps to one row and one column for each segment.

    Args:
        maps: The maps of one prompt.
        segments: The segments of this prompt.

    Raises:
        ResidscopeError: If the maps are a mean over prompts, or the segments belong to another prompt or cache.
    """
    if not isinstance(segments, Segments):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ResidscopeError("segments", "`segments` takes what `residscope.segments` returns.")
    if maps.prompt != segments.prompt:
        what = "the mean over prompts" if maps.prompt is None else f"prompt {maps.prompt}"
        raise ResidscopeError(
            "prompt",
            f"These maps are those of {what}, but the segments are those of prompt {segments.prompt}: pass "
            f"`prompt={segments.prompt}` to `residscope.attention`.",
        )
    check_square(segments, *maps.values.shape[-2:])
    values, padding = segment_sums([maps.values], segments, maps.weighting)
    return SegmentAttention(
        values,
        maps.heads,
        segments,
        maps.weighting,
        summed_meaning(maps.weighting, maps.meaning),
        padding,
        all_notes(maps.notes, segments, padding),
        maps.target,
        maps.model,
    )


def check_square(segments: Segments, destinations: int, sources: int) -> None:
    """Refuse maps whose sources are not the positions of the segments.

    Raises:
        ResidscopeError: If the numbers of sources and destinations differ, or if the segments have other positions.
    """
    if destinations != sources:
        raise ResidscopeError(
            "segments",
            f"There are {sources} sources, but {destinations} positions were run or kept (because of past keys, a "
            "prefix or `pos_slice`), so the sources cannot be assigned to segments. Run the whole prompt at once.",
        )
    check_shape(segments, destinations, segments.prompt + 1)


def segment_sums(
    strips: Iterable[Float[Tensor, "head row column"]], segments: Segments, weighting: Weighting
) -> tuple[Float[Tensor, "head destination source"], Float[Tensor, "head destination"]]:
    """Return the maps segment × segment, and the values of padding in each row, as if it were one more source.

    Each cell of the maps is read once, and no map is copied, because the rows of each segment are added up first.

    Args:
        strips: Consecutive rows of the maps, beginning with the first.
        segments: The segments.
        weighting: The weighting. For `"contribution"` values are summed over destinations, otherwise averaged.
    """
    import torch

    rows: list[Tensor | None] = [None] * len(segments)
    start = 0
    for strip in strips:
        end = start + strip.shape[1]
        for at, segment in enumerate(segments):
            first, last = max(segment.start, start), min(segment.end, end)
            if first < last:
                own = strip[:, first - start : last - start]
                part = (own.new_ones(1, own.shape[1]) @ own).squeeze(1)  # faster than a sum along this axis
                before = rows[at]
                rows[at] = part if before is None else before + part
        start = end
    by_destination = torch.stack([row for row in rows if row is not None], 1)
    values, padding = rolled(by_destination, 2, segments), outside(by_destination, 2, segments)
    if weighting == "contribution":
        return values, padding
    sizes = values.new_tensor([len(segment) for segment in segments])
    return values / sizes[:, None], padding / sizes


def summed_meaning(weighting: Weighting, meaning: str) -> str:
    """Return in words what a value of a map segment × segment is."""
    how = "sum over both segments" if weighting == "contribution" else "sum over sources, mean over destinations"
    return f"{meaning}: {how}"


def all_notes(notes: list[str], segments: Segments, padding: Tensor) -> list[str]:
    """Return the notes of maps and of segments, and a note if heads read padding."""
    every = [*notes, *(note for note in segments.notes if note not in notes)]
    largest = float(padding.abs().max()) if padding.numel() else 0.0
    if largest > 1e-6:
        every.append(f"Heads also read padding, which is in no segment: up to {largest:.2g} (see `.padding`).")
    return every
