"""`compare_attention` and `compare_token_lens`: the attention of two runs, and their predictions layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from residscope.attribution.token_lens import NO_TOKEN, TokenLens, padding_notes, positions_from_start, token_lens
from residscope.base.packages import pandas
from residscope.cache.token_labels import mean_of_padded
from residscope.cache.view import CacheView
from residscope.comparison.alignment import Align, Alignment, Pairs, alignment_of
from residscope.comparison.compare import resolved
from residscope.comparison.notes import different_tokens, of_runs
from residscope.comparison.runs import Given, Run, chosen_prompts, told_of, with_runs
from residscope.comparison.same_shape import check_same_ids, check_shapes
from residscope.errors import ResidscopeError
from residscope.patterns.maps import Attention, attention
from residscope.terms import Answers, CacheLike, Heads, MaskLike, ModelLike, NormConvention, Target, Weighting

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor

__all__ = ["AttentionComparison", "TokenLensComparison", "compare_attention", "compare_token_lens"]


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionComparison(Attention):
    """The difference of attention maps: `values` is `second.values − first.values`, `[head, destination, source]`.

    Attributes:
        first: The maps of the first run, at the matched positions.
        second: The maps of the second run, at the matched positions.
        positions: Pairs of a position of the first run and the matched position of the second.
    """

    first: Attention
    second: Attention
    positions: list[tuple[int, int]] = field(default_factory=list)

    def __repr__(self) -> str:
        """Return a readable summary."""
        return Attention.__repr__(self).replace("Attention(", "AttentionComparison(second - first; ", 1)


@dataclass(frozen=True, eq=False)
class TokenLensComparison:
    """The token lens of two runs at the same points.

    Attributes:
        points: The points: the first axis.
        positions: Pairs of a position of the first run and the matched position of the second: the second axis.
        answer_probability: `[point, position]`, the answer's probability, second − first. None if the target has no
            answer token.
        rank: `[point, position]`, the answer's rank, second − first. 0 where `answer_probability` is NaN. None if the
            target has no answer token.
        same: `[point, position]`, whether the likeliest token is the same in both runs.
        first: The lens of the first run.
        second: The lens of the second run.
        notes: Notes on these values, in sentences.
    """

    points: list[str]
    positions: list[tuple[int, int]]
    answer_probability: Float[Tensor, "point position"] | None
    rank: Int[Tensor, "point position"] | None
    same: Bool[Tensor, "point position"]
    first: TokenLens
    second: TokenLens
    notes: list[str] = field(default_factory=list)

    def to_frame(self) -> DataFrame:
        """Return a pandas table with a row for each point and position.

        The columns are the likeliest token, and the answer's probability and rank, in both runs.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        index = pd.MultiIndex.from_product(
            [self.points, [one for one, _ in self.positions]], names=["point", "position"]
        )
        columns: dict[str, Any] = {}
        for name, lens in (("first", self.first), ("second", self.second)):
            columns[f"{name} token"] = [cell[0] for row in lens.tokens for cell in row]
            if lens.answer_probability is not None and lens.rank is not None:
                columns[f"{name} probability"] = lens.answer_probability.flatten().tolist()
                columns[f"{name} rank"] = lens.rank.flatten().tolist()
        return pd.DataFrame(columns, index=index)

    def to_plotly(self) -> Figure:
        """Return a plotly figure of the difference of the answer's probability.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed, or the target has no answer token.
        """
        from residscope.export.maps import compared_lens_figure

        return compared_lens_figure(self)

    def __repr__(self) -> str:
        """Return a readable summary."""
        answer = ""
        if self.answer_probability is not None:
            difference = float(self.answer_probability[-1, -1])
            answer = f", {NO_TOKEN if math.isnan(difference) else f'the answer {difference:+.3f}'}"
        one, two = (lens.tokens[-1][-1][0] for lens in (self.first, self.second))
        return (
            f"TokenLensComparison({len(self.points)} points × {len(self.positions)} positions; second - first at "
            f"{self.points[-1]}, position {self.positions[-1][0]}: {one!r} → {two!r}{answer}"
            f"{''.join(f'; note: {note}' for note in self.notes)})"
        )


def compare_attention(
    cache: CacheLike,
    other: CacheLike = None,
    heads: Heads = None,
    *,
    prompt: int | None = None,
    with_prompt: int | None = None,
    align: Align | None = None,
    weighting: Weighting = "pattern",
    answers: Answers = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    other_tokens: Int[Tensor, "batch pos"] | None = None,
    other_attention_mask: MaskLike = None,
    other_model: ModelLike = None,
) -> AttentionComparison:
    """Compare the attention of heads in two runs, weighted in one of three ways.

    Args:
        cache: The first run, an `ActivationCache`.
        other: The second run. None: another prompt of `cache`.
        heads: Heads such as `["9.9", "L9H6", (10, 7)]`, or a single one.
        prompt: The prompt of the first run. None: the mean over prompts, in both runs.
        with_prompt: The prompt of the second run. By default the same as `prompt`.
        align: Which positions are matched, as in `compare`.
        weighting: As in `attention`.
        answers: The target of `"contribution"`. By default the two top predictions of the first run.
        tokens: Token ids of the first run, if the cache does not hold them.
        attention_mask: The mask of the first run.
        model: The model of the first run, if `cache.model` was deleted.
        other_tokens: Token ids of the second run.
        other_attention_mask: The mask of the second run.
        other_model: The model of the second run.

    Returns:
        The difference, second − first. `.values` is `[head, destination, source]`.

    Raises:
        ResidscopeError: With a message that says what is wrong, in which run, and what to do.
    """
    given = Given(cache, None, tokens, attention_mask, model)
    others = given.other(Given(other, None, other_tokens, other_attention_mask, other_model))

    def work(first: Run, second: Run) -> AttentionComparison:
        prompts, alignment, notes = _paired(first, second, prompt, with_prompt, align, same=others is given)
        targets = (None, None)
        if weighting == "contribution":
            found = resolved(first, second, answers, prompts)
            notes += check_same_ids(found[0], first.targets.vocabulary, second.targets.vocabulary)
            targets = found if answers is None or _of_one(found) else (answers, answers)

        def maps(one: Given, at: int) -> Attention:
            return attention(
                one.cache,
                heads,
                prompt=prompts[at],
                weighting=weighting,
                answers=targets[at],
                tokens=one.tokens,
                attention_mask=one.attention_mask,
                model=one.model,
            )

        one = maps(given, 0)
        with told_of("second"):
            two = maps(others, 1)
        pairs, square = alignment.common(), one.values.shape[-1] == alignment.lengths[0]
        if not alignment.is_index:
            notes += alignment.notes + alignment.left_out()
            if not square or two.values.shape[-1] != alignment.lengths[1]:
                raise ResidscopeError(
                    "align", "One of the caches has more sources than positions (past keys, or `pos_slice`): its "
                    "patterns cannot be matched with those of prompts of another length."
                )  # fmt: skip
            one = _at(one, [pair[0] for pair in pairs], first.view, prompts[0])
            two = _at(two, [pair[1] for pair in pairs], second.view, prompts[1])
        if one.values.shape != two.values.shape:
            raise ResidscopeError(
                "compare-shapes",
                f"The patterns of the first run have the shape {list(one.values.shape)} and those of the second "
                f"{list(two.values.shape)}: run both prompts in the same way (past keys, `pos_slice`).",
            )
        return AttentionComparison(
            two.values.to(one.values) - one.values,
            one.heads,
            one.tokens,
            one.weighting,
            f"{one.meaning}, second run minus first",
            one.prompt,
            notes + of_runs(one.notes, two.notes),
            one.sources,
            one.target,
            one.model,
            first=one,
            second=two,
            positions=pairs,
        )

    return with_runs(given, others, work)


def compare_token_lens(
    cache: CacheLike,
    other: CacheLike = None,
    answers: Answers = None,
    *,
    prompt: int | None = None,
    with_prompt: int | None = None,
    align: Align | None = None,
    k: int = 5,
    points: Sequence[str] | str | None = None,
    positions: Sequence[int] | int | None = None,
    norm: NormConvention = "recomputed",
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    other_logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    other_tokens: Int[Tensor, "batch pos"] | None = None,
    other_attention_mask: MaskLike = None,
    other_model: ModelLike = None,
) -> TokenLensComparison:
    """Compare what two runs would predict if their layers ended at points of the residual stream (logit lens).

    For the lens of the target's value, use `compare(…, by="accumulated")`.

    Args:
        cache: The first run, an `ActivationCache`.
        other: The second run. None: another prompt of `cache`.
        answers: The tokens whose probability and rank are compared. By default the top prediction of the first run.
        prompt: The prompt of the first run. None: the mean over prompts, in both runs.
        with_prompt: The prompt of the second run. By default the same as `prompt`.
        align: Which positions are matched, as in `compare`.
        k: The number of tokens in each cell.
        points: Points such as `["3_pre", "3_mid", "final_post"]`. None: all points that both caches hold.
        positions: Positions of the first run. None: all positions with a match in the second run.
        norm: As in `token_lens`.
        logits: The output of the first run.
        tokens: Token ids of the first run, if the cache does not hold them.
        attention_mask: The mask of the first run.
        model: The model of the first run, if `cache.model` was deleted.
        other_logits: The output of the second run.
        other_tokens: Token ids of the second run.
        other_attention_mask: The mask of the second run.
        other_model: The model of the second run.

    Returns:
        Both lenses, and the difference of the answer's probability and rank, second − first.

    Raises:
        ResidscopeError: With a message that says what is wrong, in which run, and what to do.
    """
    given = Given(cache, logits, tokens, attention_mask, model)
    others = given.other(Given(other, other_logits, other_tokens, other_attention_mask, other_model))

    def work(first: Run, second: Run) -> TokenLensComparison:
        prompts, alignment, notes = _paired(first, second, prompt, with_prompt, align, same=others is given)
        found = resolved(first, second, answers, prompts)
        notes += check_same_ids(found[0], first.targets.vocabulary, second.targets.vocabulary)
        targets = found if answers is None or _of_one(found) else (answers, answers)
        pairs = alignment.common()
        if positions is not None:
            pairs = [(at, alignment.second(0, at)) for at in positions_from_start(first.view, positions)]
            notes += padding_notes(first.view, positions)
        elif not alignment.is_index:
            notes += alignment.left_out()
        notes += alignment.notes
        labels = points
        if labels is None:
            known = {point.label for point in second.view.points()}
            labels = [point.label for point in first.view.points() if point.label in known]

        def lens(one: Given, target: Target | Any, at: int) -> TokenLens:
            return token_lens(
                one.cache,
                target,
                prompt=prompts[at],
                k=k,
                points=labels,
                positions=[pair[at] for pair in pairs],
                norm=norm,
                logits=one.logits,
                tokens=one.tokens,
                attention_mask=one.attention_mask,
                model=one.model,
            )

        one = lens(given, targets[0], 0)
        with told_of("second"):
            two = lens(others, targets[1], 1)
        same = [[a[0] == b[0] for a, b in zip(*rows, strict=True)] for rows in zip(one.tokens, two.tokens, strict=True)]
        probability, rank = (
            None if a is None or b is None else b.to(a.device) - a
            for a, b in ((one.answer_probability, two.answer_probability), (one.rank, two.rank))
        )
        if probability is not None and rank is not None:  # where a run has no answer, its rank is 0
            rank = rank.masked_fill(probability.isnan(), 0)
        notes += of_runs(one.notes, two.notes)
        return TokenLensComparison(one.points, pairs, probability, rank, _bools(same), one, two, notes)

    return with_runs(given, others, work)


def _of_one(found: tuple[Target, Target]) -> bool:
    """Whether the second run is asked only for the answer of the compared prompt (see `resolved`)."""
    return len(found[0].contrasts) != len(found[1].contrasts)


def _bools(rows: list[list[bool]]) -> Bool[Tensor, "point position"]:
    import torch

    return torch.tensor(rows, dtype=torch.bool, device="cpu")


def _paired(
    first: Run, second: Run, prompt: int | None, with_prompt: int | None, align: Align | None, *, same: bool
) -> tuple[tuple[int | None, int | None], Alignment, list[str]]:
    """The prompt of each run, their matched positions, and notes on their tokens."""
    check_shapes(first.view, second.view)
    prompts = chosen_prompts(first.view, second.view, prompt, with_prompt, same=same)
    nothing = Target([])
    (one, _), (two, _) = first.only(prompts[0], nothing), second.only(prompts[1], nothing)
    alignment = alignment_of(one, two, align)
    pairs: Pairs = alignment.common()
    notes = different_tokens(one, two, [pairs] * one.view.batch, "positions that are compared")
    return prompts, alignment, notes


def _at(maps: Attention, places: list[int], view: CacheView, prompt: int | None) -> Attention:
    """The maps at some positions only, in this order. Notes on padding are made for the range of these positions."""
    whole = mean_of_padded(view, prompt)
    notes = [note for note in maps.notes if note not in whole]
    notes += mean_of_padded(view, prompt, range(min(places), max(places) + 1))
    values = maps.values[:, places][:, :, places]
    labels = [maps.tokens[at] for at in places]
    sources = [maps.sources[at] for at in places]
    return replace(maps, values=values, tokens=labels, sources=sources, notes=notes)
