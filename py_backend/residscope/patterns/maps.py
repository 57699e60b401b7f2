"""`attention`: where heads look, weighted by what they find there, or by what that brings to the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from residscope.attribution.goal import Goal
from residscope.attribution.predictions import top_two
from residscope.attribution.sources import wanted_heads
from residscope.attribution.targets import Targets
from residscope.attribution.word_spaces import without_space
from residscope.base.packages import pandas
from residscope.cache import positions
from residscope.cache.component_names import name
from residscope.cache.token_labels import mean_of_padded, token_texts
from residscope.cache.view import CacheView
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.patterns.weighting import MEANINGS, WeightedAttention
from residscope.session.change_notes import seen, steadily
from residscope.terms import Target, Weighting

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["Attention", "attention"]


@dataclass(frozen=True, eq=False)
class Attention:
    """Attention of some heads: each row (destination) says what it takes from each column (source).

    Attributes:
        values: `[head, destination, source]`; 0 to 1 for patterns, lengths of vectors in the residual stream for
            `"value"`, logits with a sign for `"contribution"`.
        heads: The heads' names, `["L9H9", …]`.
        tokens: What stands at each position, as the panel shows it: the token, "∗" where prompts differ, or the
            position where the cache holds no ids.
        weighting: How it is weighted.
        meaning: The same in words: "attention × ‖v W_O‖".
        prompt: The prompt; None for the mean over prompts.
        notes: What a reader of the figures should know, in sentences.
        sources: What stands at each source: the tokens, too; or, behind a key/value cache or a prefix, where there are
            more sources than positions were run, their places.
        target: Of `"contribution"`: what was attributed, each answer as its tokens.
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

    def to_frame(self) -> Any:
        """A pandas table: a row for each head and destination, a column for each source.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        _, destinations, sources = self.values.shape
        index = pd.MultiIndex.from_product([self.heads, range(destinations)], names=["head", "destination"])
        columns: Any = pd.RangeIndex(sources, name="source")
        return pd.DataFrame(self.values.flatten(0, 1).cpu().numpy(), index=index, columns=columns)

    def to_plotly(self) -> Any:
        """A plotly figure: a map for each head, side by side, with the tokens at both axes.

        Patterns are coloured from 0 to 1, contributions about zero: blue adds, orange takes away.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed.
        """
        from residscope.export.maps import attention_figure

        return attention_figure(self)

    def top(self, k: int = 3) -> list[tuple[str, int, int, float]]:
        """The k cells farthest from zero: head, destination, source, figure."""
        flat = self.values.flatten()
        chosen = flat.abs().topk(min(max(k, 0), flat.numel())).indices.tolist()
        _, down, across = self.values.shape
        return [(self.heads[i // (down * across)], i // across % down, i % across, float(flat[i])) for i in chosen]

    def _source(self, at: int) -> str:
        return (self.sources or self.tokens)[at]

    def __repr__(self) -> str:
        """A summary a person can read."""
        shape = " × ".join(
            f"{size} {axis}" for axis, size in zip(("head", "destination", "source"), self.values.shape, strict=True)
        )
        whose = "mean over prompts" if self.prompt is None else f"prompt {self.prompt}"
        cells = ", ".join(
            f"{head} {self.tokens[to]!r} ({to}) reads {self._source(source)!r} ({source}) {value:+.3g}"
            for head, to, source, value in self.top(2)
        )
        return (
            f'Attention(weighting="{self.weighting}" ({self.meaning}) of {", ".join(self.heads)}, {shape}, {whose}; '
            f"{cells}{''.join(f'; note: {note}' for note in self.notes)})"
        )


def attention(
    cache: Any,
    heads: Any,
    *,
    prompt: int | None = None,
    weighting: Weighting = "pattern",
    answers: Any = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: Any = None,
    model: Any = None,
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
) -> Attention:
    """Where heads look, weighted one of three ways.

    Args:
        cache: An `ActivationCache`.
        heads: Heads such as `["9.9", "L9H6", (10, 7)]`, or one.
        prompt: The prompt, or None for the mean over prompts (of the weighted maps).
        weighting: `"pattern"`: the attention pattern, as the model used it. `"value"`: pattern[q, k] · ‖v[k] W_O‖, the
            length of the vector that the source adds to the destination (Kobayashi et al. 2020, "Attention Is Not Only
            a Weight"), before what some blocks do to their whole output (a norm, a multiplier); where a head gates what
            it has read, with the gate as it stood at the destination. `"contribution"`: what that vector is worth for
            the target at that destination, in logits, with its sign: pattern[q, k] · (v[k] · W_O g) / s[q], the rows
            of `attribute(…, by="source", position="all")`.
        answers: For `"contribution"`: the target, as in `attribute`; by default the model's own two top predictions
            at each prompt's last token, as in the panel.
        tokens: Token ids, where the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`; by default see `docs/padding.md`.
        model: The model, where `cache.model` is gone.
        logits: The model's output, where the cache does not hold it and no answers are given.

    Returns:
        The maps; `.values` is `[head, destination, source]`.

    Raises:
        ResidscopeError: With a sentence that says what is wrong and what to do.

    Source: TransformerLens' `hook_pattern`, `hook_v` and `W_O`; Kobayashi et al. (2020); "A Mathematical Framework for
    Transformer Circuits".
    """
    if not isinstance(weighting, str) or weighting not in MEANINGS:  # pyright: ignore[reportUnnecessaryIsInstance]
        known = ", ".join(f'"{name}"' for name in MEANINGS)
        raise ResidscopeError("weighting", f'`weighting="{weighting}"` is not known: use {known}.')
    looked = seen(cache, model)

    def work() -> Attention:
        view = CacheView(cache, model=model, tokens=tokens, seen=looked, attention_mask=attention_mask)

        def found() -> Attention:
            whose, wanted = view.check_prompt(prompt), wanted_heads(view, heads)
            whose = 0 if view.batch == 1 else whose
            goal, said = None, list[str]()
            if weighting == "contribution":
                targets = Targets.of(view)
                given = None if logits is None else view.whole_logits(logits)
                target = top_two(view, given) if answers is None else targets.resolve(answers)
                goal = Goal(targets, target, positions.resolve(view, "last"))
                said = targets.said + without_space(targets, target, goal.where, logits)
            maps = WeightedAttention(view, weighting, whose, goal)
            values = _in_order(maps, wanted)
            notes = said + maps.notes + mean_of_padded(view, whose)
            names, texts, sources = [name(*head) for head in wanted], token_texts(view, whose), values.shape[-1]
            if sources != view.n_pos:
                notes.append(
                    f"There are {sources} sources, and {view.n_pos} positions were run or kept (behind past keys or a "
                    "prefix, or with `pos_slice`): sources are counted from the first, destinations from the first "
                    "kept."
                )
            places = list(texts) if sources == len(texts) else [str(at) for at in range(sources)]
            asked = None if goal is None else goal.target
            meaning = MEANINGS[weighting]
            return Attention(values, names, texts, weighting, meaning, whose, notes, places, asked, view.model_name)

        return in_torch_context(view.stream.device, found)

    return steadily(cache, model, looked, work)


def _in_order(maps: WeightedAttention, wanted: Sequence[tuple[int, int]]) -> Float[Tensor, "head destination source"]:
    """The maps of heads of any layers; those of one layer are computed together."""
    import torch

    found: dict[tuple[int, int], Tensor] = {}
    for layer in sorted({layer for layer, _ in wanted}):
        own = sorted({head for of, head in wanted if of == layer})
        found |= {(layer, head): values for head, values in zip(own, maps.all(layer, own), strict=True)}
    return torch.stack([found[head] for head in wanted])
