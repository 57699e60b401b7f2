"""`attention`: the attention maps of heads, weighted in one of three ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from residscope.attribution.sources import wanted_heads
from residscope.base.packages import pandas
from residscope.cache.component_names import name
from residscope.cache.segments import Segments
from residscope.cache.token_labels import mean_of_padded, token_texts
from residscope.cache.view import CacheView
from residscope.compute.farthest import farthest_first
from residscope.compute.torch_context import in_torch_context
from residscope.patterns.map_target import check_weighting, map_target, meaning_of
from residscope.patterns.segment_maps import SegmentAttention, rolled_maps
from residscope.patterns.weighting import WeightedAttention
from residscope.session.change_notes import seen, steadily
from residscope.terms import Answers, CacheLike, Heads, MaskLike, ModelLike, Target, Weighting

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor

__all__ = ["Attention", "attention"]


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention maps of some heads. Each row is a destination, each column a source.

    Attributes:
        values: `[head, destination, source]`. 0 to 1 for `"pattern"`, lengths of vectors in the residual stream for
            `"value"`, signed values in the target's unit for `"contribution"`. In the mean, a cell is the mean over the
            prompts in which neither its destination nor its source is padding; NaN if there are none.
        heads: The heads' names, `["L9H9", …]`.
        tokens: The label of each position, as in the panel: the token, "∗" if prompts differ there, or the position if
            the cache holds no token ids.
        weighting: The weighting.
        meaning: The weighting in words, such as "attention × ‖v W_O‖".
        prompt: The prompt, or None for the mean over prompts.
        notes: Notes on these values, in sentences.
        sources: The label of each source: the same as `tokens`. If there are more sources than positions (because of a
            key/value cache or a prefix), the indices of the sources.
        target: The attributed target of `"contribution"`, in which each answer is given by its tokens. None for other
            weightings.
        model: The model's name.
    """

    values: Float[Tensor, "head destination source"]
    heads: list[str]
    tokens: list[str]
    weighting: Weighting
    meaning: str
    prompt: int | None = None
    notes: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    target: Target | None = None
    model: str = ""

    def to_frame(self) -> DataFrame:
        """Return a pandas table with a row for each head and destination, and a column for each source.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        _, destinations, sources = self.values.shape
        index = pd.MultiIndex.from_product([self.heads, range(destinations)], names=["head", "destination"])
        columns = pd.RangeIndex(sources, name="source")
        return pd.DataFrame(self.values.flatten(0, 1).cpu().numpy(), index=index, columns=columns)

    def to_plotly(self) -> Figure:
        """Return a plotly figure with a map for each head, side by side, and the tokens on both axes.

        The colours of patterns range from 0 to 1. The colours of contributions are centred at 0: blue is positive,
        orange is negative.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed.
        """
        from residscope.export.maps import attention_figure

        return attention_figure(self)

    def top(self, k: int = 3) -> list[tuple[str, int, int, float]]:
        """Return the k cells farthest from 0, as tuples (head, destination, source, value). NaN is left out."""
        flat = self.values.flatten()
        _, rows, columns = self.values.shape
        return [
            (self.heads[i // (rows * columns)], i // columns % rows, i % columns, float(flat[i]))
            for i in farthest_first(flat, k)
        ]

    def by_segment(self, segments: Segments) -> SegmentAttention:
        """Reduce each map to one row and one column for each segment.

        `residscope.segment_attention` does the same with less memory.

        Args:
            segments: The segments of this prompt.

        Returns:
            The maps, `[head, destination, source]`. Values are summed over the sources of a segment, and averaged over
            the destinations of a segment. For `weighting="contribution"` they are summed over both.

        Raises:
            ResidscopeError: If these maps are the mean over prompts, or the segments belong to another prompt.
        """
        return rolled_maps(self, segments)

    def _source_label(self, source: int) -> str:
        return (self.sources or self.tokens)[source]

    def __repr__(self) -> str:
        """Return a readable summary."""
        shape = " × ".join(
            f"{size} {axis}" for axis, size in zip(("head", "destination", "source"), self.values.shape, strict=True)
        )
        prompt = "mean over prompts" if self.prompt is None else f"prompt {self.prompt}"
        cells = ", ".join(
            f"{head} {self.tokens[destination]!r} ({destination}) reads {self._source_label(source)!r} ({source}) "
            f"{value:+.3g}"
            for head, destination, source, value in self.top(2)
        )
        return (
            f'Attention(weighting="{self.weighting}" ({self.meaning}) of {", ".join(self.heads)}, {shape}, {prompt}; '
            f"{cells}{''.join(f'; note: {note}' for note in self.notes)})"
        )


def attention(
    cache: CacheLike,
    heads: Heads,
    *,
    prompt: int | None = None,
    weighting: Weighting = "pattern",
    answers: Answers = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
) -> Attention:
    """Compute the attention maps of heads, weighted in one of three ways.

    Args:
        cache: An `ActivationCache`.
        heads: Heads such as `["9.9", "L9H6", (10, 7)]`, or a single one.
        prompt: The prompt, or None for the mean of the weighted maps over prompts.
        weighting: `"pattern"`: the attention pattern that the model used. `"value"`: pattern[q, k] · ‖v[k] W_O‖, the
            length of the vector that source k adds at destination q (Kobayashi et al. 2020, "Attention Is Not Only a
            Weight"). This length includes a head's gate at the destination, but no norm or multiplier after `W_O`.
            `"contribution"`: the contribution of this vector to the target at destination q, in the target's unit:
            pattern[q, k] · (v[k] · W_O g) / s[q]. g is the direction of the target, and s[q] is the scale of the final
            norm. These are the rows of `attribute(…, by="source", position="all")`.
        answers: The target of `"contribution"`, as in `attribute`. By default the model's two top predictions at each
            prompt's last token, as in the panel.
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected (see
            `docs/padding.md`).
        model: The model, if `cache.model` was deleted.
        logits: The model's output. Without `answers`, it is needed if the cache holds neither the logits nor the
            final stream.

    Returns:
        The maps. `.values` is `[head, destination, source]`.

    Raises:
        ResidscopeError: With a message that says what is wrong and what to do.

    Source: TransformerLens' `hook_pattern`, `hook_v` and `W_O`; Kobayashi et al. (2020); "A Mathematical Framework for
    Transformer Circuits".
    """
    check_weighting(weighting)
    tracked = seen(cache, model)

    def work() -> Attention:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)

        def compute() -> Attention:
            chosen, wanted = view.check_prompt(prompt), wanted_heads(view, heads)
            chosen = 0 if view.batch == 1 else chosen
            stream_target, target_notes = map_target(view, weighting, answers, logits)
            maps = WeightedAttention(view, weighting, chosen, stream_target)
            values = _in_order(maps, wanted)
            notes = target_notes + maps.notes + mean_of_padded(view, chosen)
            names, texts, sources = [name(*head) for head in wanted], token_texts(view, chosen), values.shape[-1]
            if sources != view.n_pos:
                notes.append(
                    f"There are {sources} sources, but {view.n_pos} positions were run or kept (because of past keys, "
                    "a prefix or `pos_slice`): sources are numbered from the first source, destinations from the first "
                    "position that was kept."
                )
            labels = list(texts) if sources == len(texts) else [str(at) for at in range(sources)]
            target = None if stream_target is None else stream_target.target
            meaning = meaning_of(weighting, stream_target)
            return Attention(values, names, texts, weighting, meaning, chosen, notes, labels, target, view.model_name)

        return in_torch_context(view.stream.device, compute)

    return steadily(cache, model, tracked, work)


def _in_order(maps: WeightedAttention, wanted: Sequence[tuple[int, int]]) -> Float[Tensor, "head destination source"]:
    """The maps of these heads, in this order. Heads of the same layer are computed together."""
    import torch

    found: dict[tuple[int, int], Tensor] = {}
    for layer in sorted({layer for layer, _ in wanted}):
        own = sorted({head for of, head in wanted if of == layer})
        found |= {(layer, head): values for head, values in zip(own, maps.all_maps(layer, own), strict=True)}
    return torch.stack([found[head] for head in wanted])
