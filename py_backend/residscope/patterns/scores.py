"""`scores`: how much each head is of a known kind. The definitions, with their sources, are in `docs/scores.md`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from residscope.attribution.head_inputs import whole_pattern
from residscope.base.packages import pandas
from residscope.cache import padding, positions
from residscope.cache.component_names import name
from residscope.cache.structure import named_layers
from residscope.cache.view import CacheView
from residscope.compute.batching import blocks
from residscope.compute.memo import UnknownError, key_of, size_of
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.compute.projection import dots
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.patterns import copying, detection
from residscope.patterns.weighting import CELLS
from residscope.session.change_notes import cache_changed, seen, steadily, weights_changed
from residscope.terms import Score

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["MEANINGS", "Scores", "score_heads", "scores"]

_BLOCK = 1_000_000
"""So many cells of attention are worked on at once."""

MEANINGS: dict[Score, str] = {
    "previous": "Previous-token score: the share of a head's attention that goes to the token just before "
    "(TransformerLens' `head_detector`).",
    "first": "First-token score: the attention that goes to the prompt's first token, averaged over all later "
    "destinations (attention sinks: Xiao et al. 2023).",
    "duplicate": "Duplicate-token score: the share of a head's attention that goes to earlier occurrences of the same "
    "token (TransformerLens' `head_detector`).",
    "induction": "Induction score: the share of a head's attention that goes to the token after an earlier occurrence "
    "of the same token (TransformerLens' `head_detector`; Olsson et al. 2022).",
    "entropy": "Entropy of attention over the sources in bits, averaged over all destinations but the first: 0 where a "
    "head looks at one token, 3 where it looks at eight alike.",
    "copying": "Copying score: Σ Re λ / Σ |λ| over the eigenvalues of W_E W_V W_O W_U (Elhage et al. 2021): +1 where "
    "whatever the head reads becomes likelier, −1 where it becomes less likely.",
}


@dataclass(frozen=True, eq=False)
class Scores:
    """A score for each head.

    Attributes:
        values: `[layer, head]`; NaN where it cannot be determined.
        labels: The heads' names, `["L0H0", "L0H1", …]`, in the order of `values.flatten()`.
        score: Which score it is.
        meaning: What it measures, in a sentence.
        low: The lower end of its scale.
        high: The upper end.
        prompt: The prompt; None for the mean of the prompts' scores.
        notes: What a reader of the figures should know, in sentences.
        model: The model's name.
    """

    values: Float[Tensor, "layer head"]
    labels: list[str]
    score: Score
    meaning: str
    low: float
    high: float
    prompt: int | None = None
    notes: list[str] = field(default_factory=list[str])
    model: str = ""

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The k heads whose scores are farthest from zero: name and score, the farthest first."""
        flat = self.values.flatten()
        far = flat.abs().nan_to_num(-1.0)  # heads without a score come last, and are left out
        chosen = far.topk(min(max(k, 0), int((far >= 0).sum()))).indices.tolist()
        return [(self.labels[i], float(flat[i])) for i in chosen]

    def to_frame(self) -> Any:
        """A pandas table: a row for each layer, a column for each head.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        layers, heads = self.values.shape
        index, columns = pd.RangeIndex(layers, name="layer"), pd.RangeIndex(heads, name="head")
        return pd.DataFrame(self.values.cpu().numpy(), index=index, columns=columns)

    def to_plotly(self) -> Any:
        """A plotly figure: layer × head, coloured over the whole of the score's scale.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed.
        """
        from residscope.export.maps import scores_figure

        return scores_figure(self)

    def __repr__(self) -> str:
        """A summary a person can read."""
        layers, heads = self.values.shape
        whose = "mean over prompts" if self.prompt is None else f"prompt {self.prompt}"
        whose = "" if self.score == "copying" else f", {whose}"
        strongest = ", ".join(f"{name} {value:.3g}" for name, value in self.top(3))
        notes = "".join(f"; note: {note}" for note in self.notes)
        return f'Scores("{self.score}", {layers} layers × {heads} heads{whose}; {strongest}{notes})'


def scores(
    cache: Any,
    score: Score,
    prompt: int | None = None,
    *,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: Any = None,
    model: Any = None,
) -> Scores:
    """How much each head is of a known kind.

    Args:
        cache: An `ActivationCache`.
        score: `"previous"`, `"duplicate"`, `"induction"`: the share of the attention that goes to the token before, to
            earlier occurrences of the same token, to the tokens after these (0 to 1). `"first"`: attention to the first
            token (0 to 1). `"entropy"`: in bits. `"copying"`: of the OV circuit's eigenvalues (−1 to 1; it needs no
            prompt). The definitions, with their sources, are in `docs/scores.md`.
        prompt: The prompt, or None for the mean of the prompts' scores.
        tokens: Token ids, where the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`; by default see `docs/padding.md`.
        model: The model, where `cache.model` is gone.

    Returns:
        The scores; `.values` is `[layer, head]`, NaN in layers without attention heads, or where the score cannot be
        told. Padding counts for nothing.

    Raises:
        ResidscopeError: If the score is not known, or cannot be determined for any head; the sentence says why.

    Source: TransformerLens' `head_detector` ("mul" measure, nothing excluded); Elhage et al., "A Mathematical Framework
    for Transformer Circuits" (2021); Olsson et al., "In-context Learning and Induction Heads" (2022); Xiao et al.,
    "Efficient Streaming Language Models with Attention Sinks" (2023).
    """
    if not isinstance(score, str) or score not in MEANINGS:  # pyright: ignore[reportUnnecessaryIsInstance]
        known = ", ".join(f'"{one}"' for one in MEANINGS)
        raise ResidscopeError("score", f'There is no score "{score}": use {known}.')
    looked = seen(cache, model)

    def work() -> Scores:
        view = CacheView(cache, model=model, tokens=tokens, seen=looked, attention_mask=attention_mask)
        return in_torch_context(view.stream.device, lambda: score_heads(view, score, view.check_prompt(prompt)))

    return steadily(cache, model, looked, work)


def score_heads(view: CacheView, score: Score, prompt: int | None) -> Scores:
    """`scores` for callers who hold a view already (the service)."""
    labels = [name(layer, head) for layer in range(view.n_layers) for head in range(view.n_heads)]
    if score == "copying":
        values, notes = copying.copying(view)
        notes = weights_changed(view) + notes
        return Scores(values, labels, score, MEANINGS[score], -1.0, 1.0, prompt, notes, view.model_name)
    spans = _spans(view, score)
    if prompt is not None:
        spans = {at: span for at, span in spans.items() if at == prompt}
    without = _without_attention(view)
    if not spans:
        raise ResidscopeError("too-short", "A prompt of one token leaves attention no choice: there is no score.")
    values = _each(view, score, spans, without).mean(0)
    notes = cache_changed(view)
    notes += [f"No attention was found in {named_layers(without)}."] if without else []
    high = math.log2(max(map(len, spans.values()))) if score == "entropy" else 1.0
    notes += padding.notes(view)
    return Scores(values, labels, score, MEANINGS[score], 0.0, high, prompt, notes, view.model_name)


def _without_attention(view: CacheView) -> list[int]:
    """The layers whose attention is not in the cache; refused, where that is all of them."""
    without = {layer: error for layer in range(view.n_layers) if (error := _refusal(view, layer)) is not None}
    if len(without) == view.n_layers:
        raise without[0]
    return list(without)


def _spans(view: CacheView, score: Score) -> dict[int, range]:
    """Each prompt's real positions, of prompts that have a score."""
    ends = zip(positions.first(view), positions.last(view), strict=True)
    spans = {at: range(first, last + 1) for at, (first, last) in enumerate(ends)}
    # The first destination has no choice.
    return {at: span for at, span in spans.items() if len(span) > 1 or score not in ("first", "entropy")}


def _each(
    view: CacheView, score: Score, spans: dict[int, range], without: list[int]
) -> Float[Tensor, "prompt layer head"]:
    """The prompts' scores; those of short ones are worked out for all at once, and kept."""
    every = _spans(view, score)
    if view.batch * view.n_heads * view.n_pos**2 <= _BLOCK:
        with suppress(ResidscopeError, UnknownError):  # one of the others may be the reason; or tokens of no kind known
            tokens = key_of(view.tokens if view.given_tokens else None)
            key = ("scores", score, tokens, *((at, span.start, span.stop) for at, span in every.items()))
            values = view.memo.once(key, lambda: _measured(view, score, every, without), size_of)
            return values[[number for number, at in enumerate(every) if at in spans]]
    return _measured(view, score, spans, without)


def _measured(
    view: CacheView, score: Score, spans: dict[int, range], without: list[int]
) -> Float[Tensor, "prompt layer head"]:
    """The prompts' scores; NaN in layers without attention.

    Prompts that begin and end at the same positions are taken together, as many as fit the budget.
    """
    place = {prompt: number for number, prompt in enumerate(spans)}
    values = view.like.new_full((len(spans), view.n_layers, view.n_heads), math.nan)
    for span in dict.fromkeys(spans.values()):
        own = [prompt for prompt, of in spans.items() if of == span]
        for prompts in blocks(own, CELLS // (view.n_heads * view.n_pos**2)):
            measure = _measure(view, score, prompts, span)
            for layer in range(view.n_layers):
                if layer in without:
                    continue
                report_progress(layer, view.n_layers)
                real = _some(whole_pattern(view, layer), prompts)[..., span.start : span.stop, span.start : span.stop]
                figures = _of_layer(real, measure)
                if not bool(figures.isfinite().all()):
                    raise ResidscopeError("not-finite", f"The attention in layer {layer} holds NaN or infinity.")
                values[[place[prompt] for prompt in prompts], layer, : figures.shape[1]] = figures.to(values)
    return values


def _of_layer(patterns: Float[Tensor, "prompt head pos pos"], measure: Measure) -> Float[Tensor, "prompt head"]:
    """A layer's scores, some heads and destinations at a time: no copy of a pattern is made."""
    import torch

    prompts, heads, _, sources = patterns.shape
    destinations = range(patterns.shape[2])
    scores: list[Tensor] = []
    for some in blocks(range(heads), _BLOCK // (prompts * len(destinations) * sources)):
        own = patterns[:, some[0] : some[-1] + 1]
        parts = [
            measure(own[:, :, rows[0] : rows[-1] + 1], slice(rows[0], rows[-1] + 1))
            for rows in blocks(destinations, _BLOCK // (prompts * len(some) * sources))
        ]
        found, of = (torch.stack(column).sum(0) for column in zip(*parts, strict=True))
        scores.append(found / of)
    return torch.cat(scores, dim=1)


def _some(patterns: Tensor, prompts: Sequence[int]) -> Tensor:
    """The patterns of some prompts; a run of them is not copied."""
    run = prompts[-1] - prompts[0] + 1 == len(prompts)
    return patterns[prompts[0] : prompts[-1] + 1] if run else patterns[list(prompts)]


def _refusal(view: CacheView, layer: int) -> ResidscopeError | None:
    try:
        whole_pattern(view, layer)
    except ResidscopeError as error:
        return error
    return None


Measure = Callable[["Tensor", slice], "tuple[Tensor, Tensor]"]
"""From some destinations' rows of patterns `[prompt, head, destination, source]`, and which these are, to two figures
for each head `[prompt, head]`: the score is the quotient of their sums."""


def _measure(view: CacheView, score: Score, prompts: Sequence[int], span: range) -> Measure:
    match score:
        case "entropy":
            return _entropy
        case "first":
            return _first
        case "previous" | "duplicate" | "induction" | "copying":
            wanted = detection.patterns(score, view, prompts, span)

            def share(pattern: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
                """TransformerLens' `compute_head_attention_similarity_score(…, error_measure="mul")`."""
                looked_for = dots(pattern.flatten(2), wanted[:, rows].flatten(1))
                return looked_for, pattern.sum((-1, -2), dtype=wanted.dtype)

            return share


def _first(pattern: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """The first destination has no choice, and is not counted."""
    later = working(_later(pattern, rows)[..., 0])
    return later.sum(-1), _count(later)


def _entropy(pattern: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """In bits; what a head with a sink of its own keeps back is not counted."""
    later = working(_later(pattern, rows))
    # Not the smallest float32: where a device counts such numbers as 0, their logarithm is infinite.
    return -(later * later.clamp(min=1e-30).log2()).sum((-1, -2)), _count(later)


def _later(pattern: Tensor, rows: slice) -> Tensor:
    return pattern[:, :, 1:] if rows.start == 0 else pattern


def _count(later: Tensor) -> Tensor:
    """How many destinations that are, for each prompt and head."""
    return later.new_full(later.shape[:2], later.shape[2])
