"""`scores`: how much each head behaves like a known kind of head. `docs/scores.md` has definitions and sources."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from residscope.attribution.head_inputs import whole_pattern
from residscope.base.numbered import named_layers, named_prompts
from residscope.base.packages import pandas
from residscope.cache import padding, positions
from residscope.cache.component_names import name
from residscope.cache.view import CacheView
from residscope.compute.batching import blocks
from residscope.compute.farthest import farthest_first
from residscope.compute.memo import NoKeyError, key_of, size_of
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.compute.projection import dots
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.patterns import copying, detection
from residscope.patterns.weighting import CELLS
from residscope.session.change_notes import cache_changed, seen, steadily, weights_changed
from residscope.terms import CacheLike, MaskLike, ModelLike, Score

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor

__all__ = ["MEANINGS", "Scores", "score_heads", "scores"]

_BLOCK = 1_000_000
"""At most this many cells of attention are processed at once."""

MEANINGS: dict[Score, str] = {
    "previous": "Previous-token score: the share of a head's attention that goes to the token just before "
    "(TransformerLens' `head_detector`).",
    "first": "First-token score: the attention that goes to the prompt's first token, averaged over all later "
    "destinations (attention sinks: Xiao et al. 2023).",
    "duplicate": "Duplicate-token score: the share of a head's attention that goes to earlier occurrences of the same "
    "token (TransformerLens' `head_detector`).",
    "induction": "Induction score: the share of a head's attention that goes to the token after an earlier occurrence "
    "of the same token (TransformerLens' `head_detector`; Olsson et al. 2022).",
    "entropy": "Entropy of attention over the sources in bits, averaged over all destinations but the first: 0 if a "
    "head attends to a single token, 3 if it attends to eight equally.",
    "copying": "Copying score: Σ Re λ / Σ |λ| over the eigenvalues of W_E W_V W_O W_U (Elhage et al. 2021): +1 if the "
    "head makes every token that it attends to more likely, −1 if less likely.",
}


@dataclass(frozen=True, eq=False)
class Scores:
    """A score for each head.

    Attributes:
        values: `[layer, head]`. NaN if the score cannot be determined.
        labels: The heads' names, `["L0H0", "L0H1", …]`, in the order of `values.flatten()`.
        score: The name of the score.
        meaning: What the score measures, in a sentence.
        low: The lower end of the score's scale.
        high: The upper end of the score's scale.
        prompt: The prompt, or None for the mean of the prompts' scores.
        notes: Notes on these values, in sentences.
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
        """Return the k heads whose scores are farthest from 0, as pairs (name, score), the farthest first."""
        flat = self.values.flatten()
        return [(self.labels[i], float(flat[i])) for i in farthest_first(flat, k)]  # without heads that have no score

    def to_frame(self) -> DataFrame:
        """Return a pandas table with a row for each layer and a column for each head.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        layers, heads = self.values.shape
        index, columns = pd.RangeIndex(layers, name="layer"), pd.RangeIndex(heads, name="head")
        return pd.DataFrame(self.values.cpu().numpy(), index=index, columns=columns)

    def to_plotly(self) -> Figure:
        """Return a plotly figure, layer × head, whose colours cover the whole scale of the score.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed.
        """
        from residscope.export.maps import scores_figure

        return scores_figure(self)

    def __repr__(self) -> str:
        """Return a readable summary."""
        layers, heads = self.values.shape
        prompt = "mean over prompts" if self.prompt is None else f"prompt {self.prompt}"
        prompt = "" if self.score == "copying" else f", {prompt}"
        strongest = ", ".join(f"{name} {value:.3g}" for name, value in self.top(3))
        notes = "".join(f"; note: {note}" for note in self.notes)
        return f'Scores("{self.score}", {layers} layers × {heads} heads{prompt}; {strongest}{notes})'


def scores(
    cache: CacheLike,
    score: Score,
    prompt: int | None = None,
    *,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
) -> Scores:
    """Compute how much each head behaves like a known kind of head.

    Args:
        cache: An `ActivationCache`.
        score: `"previous"`: the share of attention that goes to the token before. `"duplicate"`: to earlier occurrences
            of the same token. `"induction"`: to the tokens after such occurrences. `"first"`: to the prompt's first
            token. These four are 0 to 1. `"entropy"`: entropy of the attention to real tokens in bits. `"copying"`:
            from the OV circuit's eigenvalues (−1 to 1), which do not depend on a prompt. Definitions and sources are
            in `docs/scores.md`.
        prompt: The prompt, or None for the mean of the prompts' scores. A prompt with nothing to score is left out,
            with a note: a prompt of one token, and for `"duplicate"` and `"induction"` one in which no token is
            repeated.
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected (see
            `docs/padding.md`).
        model: The model, if `cache.model` was deleted.

    Returns:
        The scores. `.values` is `[layer, head]`. A value is NaN if its layer has no attention heads, or if the score
        cannot be determined (a head attends to no real token). Padding is ignored.

    Raises:
        ResidscopeError: If there is no such score, or if the score cannot be determined for any head. The message says
            why.

    Source: TransformerLens' `head_detector` ("mul" measure, nothing excluded); Elhage et al., "A Mathematical Framework
    for Transformer Circuits" (2021); Olsson et al., "In-context Learning and Induction Heads" (2022); Xiao et al.,
    "Efficient Streaming Language Models with Attention Sinks" (2023).
    """
    if not isinstance(score, str) or score not in MEANINGS:  # pyright: ignore[reportUnnecessaryIsInstance]
        known = ", ".join(f'"{name}"' for name in MEANINGS)
        raise ResidscopeError("score", f'There is no score "{score}": use {known}.')
    tracked = seen(cache, model)

    def work() -> Scores:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)
        return in_torch_context(view.stream.device, lambda: score_heads(view, score, view.check_prompt(prompt)))

    return steadily(cache, model, tracked, work)


def score_heads(view: CacheView, score: Score, prompt: int | None) -> Scores:
    """Return the result of `scores`, for a caller that already has a `CacheView` (the service)."""
    labels = [name(layer, head) for layer in range(view.n_layers) for head in range(view.n_heads)]
    if score == "copying":
        values, notes = copying.copying(view)
        notes = weights_changed(view) + notes
        return Scores(values, labels, score, MEANINGS[score], -1.0, 1.0, prompt, notes, view.model_name)
    without = _without_attention(view)
    every = _spans(view, score)
    wanted = range(view.batch) if prompt is None else [prompt]
    spans = {at: every[at] for at in wanted if at in every}
    if not spans:
        raise _nothing_to_score(view, score, prompt)
    values = _by_prompt(view, score, spans, every, without).mean(0)
    notes = cache_changed(view) + _left_out(score, [at for at in wanted if at not in spans])
    notes += [f"No attention was found in {named_layers(without)}."] if without else []
    high = math.log2(max(map(len, spans.values()))) if score == "entropy" else 1.0
    notes += padding.notes(view) + [_OF_REAL_TOKENS] * (score == "entropy" and padding.was_attended_to(view))
    return Scores(values, labels, score, MEANINGS[score], 0.0, high, prompt, notes, view.model_name)


_OF_REAL_TOKENS = (
    "The entropy is that of the attention to real tokens: attention to padding is left out, and the rest is divided by "
    "its sum."
)


def _without_attention(view: CacheView) -> list[int]:
    """The layers whose attention is not in the cache. Raises an error if the cache has no attention at all."""
    without = [layer for layer in range(view.n_layers) if not _has_pattern(view, layer)]
    if len(without) == view.n_layers:
        whole_pattern(view, 0)  # raises the error
    return without


def _spans(view: CacheView, score: Score) -> dict[int, range]:
    """The real positions of each prompt that has something to score."""
    ends = zip(positions.first(view), positions.last(view), strict=True)
    spans = {at: range(first, last + 1) for at, (first, last) in enumerate(ends)}
    if score in _COMPARING:
        rows: list[list[int]] = detection.compared_tokens(view).tolist()
        return {at: span for at, span in spans.items() if len({*rows[at][span.start : span.stop]}) < len(span)}
    # A prompt's first destination can only attend to itself, so the other scores need a second one.
    return {at: span for at, span in spans.items() if len(span) > 1}


_COMPARING = ("duplicate", "induction")
"""These scores look at destinations whose token occurred before."""


def _nothing_to_score(view: CacheView, score: Score, prompt: int | None) -> ResidscopeError:
    if score in _COMPARING:
        which = "any prompt" if prompt is None and view.batch > 1 else f"prompt {prompt or 0}"
        return ResidscopeError(
            "no-repeats",
            f"No token is repeated in {which}, so there is no earlier occurrence that a head could attend to: there is "
            "no score.",
        )
    return ResidscopeError(
        "too-short", "In a prompt of one token, attention can only go to that token: there is no score."
    )


def _left_out(score: Score, prompts: Sequence[int]) -> list[str]:
    """A note on the prompts that are not in the mean."""
    if not prompts:
        return []
    which = named_prompts(prompts)
    is_one = len(prompts) == 1
    why = "no token is repeated there" if score in _COMPARING else f"{'it has' if is_one else 'they have'} one token"
    return [f"{which[0].upper()}{which[1:]} {'is' if is_one else 'are'} left out of the mean, because {why}."]


def _by_prompt(
    view: CacheView, score: Score, spans: dict[int, range], every: dict[int, range], without: list[int]
) -> Float[Tensor, "prompt layer head"]:
    """The scores of the prompts in `spans`.

    If patterns are small, the scores of all prompts in `every` are computed at once and memoised.
    """
    if view.batch * view.n_heads * view.n_pos**2 <= _BLOCK:
        with suppress(ResidscopeError, NoKeyError):  # another prompt is unreadable, or `tokens=` has no key
            tokens = key_of(view.tokens if view.given_tokens else None)
            key = ("scores", score, tokens, *((at, span.start, span.stop) for at, span in every.items()))
            values = view.memo.once(key, lambda: _compute_by_prompt(view, score, every, without), size_of)
            return values[[number for number, at in enumerate(every) if at in spans]]
    return _compute_by_prompt(view, score, spans, without)


def _compute_by_prompt(
    view: CacheView, score: Score, spans: dict[int, range], without: list[int]
) -> Float[Tensor, "prompt layer head"]:
    """The prompts' scores. NaN in layers without attention.

    Prompts with the same real positions are computed together, as many as fit in memory.
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
                patterns = _patterns_of(whole_pattern(view, layer), prompts)
                real = patterns[..., span.start : span.stop, span.start : span.stop]
                numerator, denominator = _of_layer(real, measure)
                if not bool((numerator.isfinite() & denominator.isfinite()).all()):
                    raise ResidscopeError("not-finite", f"The attention in layer {layer} holds NaN or infinity.")
                scores = numerator / denominator  # NaN for a head that attends to no real token
                values[[place[prompt] for prompt in prompts], layer, : scores.shape[1]] = scores.to(values)
    return values


def _of_layer(
    patterns: Float[Tensor, "prompt head pos pos"], measure: Measure
) -> tuple[Float[Tensor, "prompt head"], Float[Tensor, "prompt head"]]:
    """The numerators and denominators of a layer's scores.

    Few heads and destinations are used at a time, so that no whole pattern is copied.
    """
    import torch

    prompts, heads, _, sources = patterns.shape
    destinations = range(patterns.shape[2])
    sums: list[Tensor] = []
    for some in blocks(range(heads), _BLOCK // (prompts * len(destinations) * sources)):
        own = patterns[:, some[0] : some[-1] + 1]
        quotients = [
            measure(own[:, :, rows[0] : rows[-1] + 1], slice(rows[0], rows[-1] + 1))
            for rows in blocks(destinations, _BLOCK // (prompts * len(some) * sources))
        ]
        sums.append(torch.stack([torch.stack(column).sum(0) for column in zip(*quotients, strict=True)]))
    numerator, denominator = torch.cat(sums, dim=-1)
    return numerator, denominator


def _patterns_of(patterns: Tensor, prompts: Sequence[int]) -> Tensor:
    """The patterns of some prompts. Consecutive prompts are not copied."""
    consecutive = prompts[-1] - prompts[0] + 1 == len(prompts)
    return patterns[prompts[0] : prompts[-1] + 1] if consecutive else patterns[list(prompts)]


def _has_pattern(view: CacheView, layer: int) -> bool:
    try:
        whole_pattern(view, layer)
    except ResidscopeError:
        return False
    return True


Measure = Callable[["Tensor", slice], "tuple[Tensor, Tensor]"]
"""Takes patterns `[prompt, head, destination, source]` of some destinations, and the slice of these destinations.
Returns a numerator and a denominator for each head `[prompt, head]`. The score is the sum of the numerators over all
destinations, divided by the sum of the denominators."""


def _measure(view: CacheView, score: Score, prompts: Sequence[int], span: range) -> Measure:
    match score:
        case "entropy":
            return _entropy
        case "first":
            return _first
        case "previous" | "duplicate" | "induction" | "copying":
            ideal = detection.patterns(score, view, prompts, span)

            def share(pattern: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
                """TransformerLens' `compute_head_attention_similarity_score(…, error_measure="mul")`."""
                matching = dots(pattern.flatten(2), ideal[:, rows].flatten(1))
                return matching, pattern.sum((-1, -2), dtype=ideal.dtype)

            return share


def _first(pattern: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """The attention to the first token. The first destination is left out, because it can only attend to itself."""
    later = working(_later(pattern, rows)[..., 0])
    return later.sum(-1), _count(later)


def _entropy(pattern: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """The entropy of the attention to real tokens, in bits.

    A destination may also attend to padding, or to a learned sink, which is not a source. So the attention
    to real tokens is divided by its sum. A destination that attends to no real token is left out.
    """
    later = working(_later(pattern, rows))
    whole = later.sum(-1, keepdim=True)
    attends = whole != 0  # true for NaN, which is refused later
    share = later / whole.where(attends, 1)
    # 1e-30, not the smallest float32: some devices treat the smallest float32 as 0, whose logarithm is infinite.
    return -(share * share.clamp(min=1e-30).log2()).sum((-1, -2)), attends.sum((-1, -2)).to(later)


def _later(pattern: Tensor, rows: slice) -> Tensor:
    return pattern[:, :, 1:] if rows.start == 0 else pattern


def _count(later: Tensor) -> Tensor:
    """The number of destinations, for each prompt and head."""
    return later.new_full(later.shape[:2], later.shape[2])
