"""`token_lens`: what the model would predict at each position if its layers ended at some point of the stream.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020); TransformerLens' `accumulated_resid(apply_ln=True)`,
made exact for norms that are not folded, and with the model's logit scale and soft-cap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from residscope.attribution.lens_cells import answers_of, read_cells
from residscope.attribution.lens_logits import Reader
from residscope.attribution.predictions import top_two
from residscope.attribution.targets import Targets
from residscope.attribution.word_spaces import without_space
from residscope.base.packages import pandas
from residscope.cache.component_names import parse_point
from residscope.cache.lens_maps import LensMaps, StreamMaps
from residscope.cache.norms import odd_final_norm
from residscope.cache.positions import assumed, on_padding, resolve
from residscope.cache.token_labels import padding_in_mean
from residscope.cache.view import CacheView
from residscope.cache.view_refusals import not_cached
from residscope.compute.batching import blocks
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed, seen, steadily
from residscope.terms import Answers, CacheLike, Component, MaskLike, ModelLike, NormConvention, Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import Tensor

__all__ = ["TokenLens", "read_lens", "token_lens"]

NO_TOKEN = "no token follows"
"""Takes the place of the answer's probability where it is NaN."""


@dataclass(frozen=True, eq=False)
class TokenLens:
    """The most likely tokens at points of the residual stream.

    In the mean over prompts, probabilities are averaged. At each position, padding is left out.

    Attributes:
        points: The points along the first axis: `"3_pre"`, `"3_mid"`, `"final_post"`.
        positions: The positions along the second axis.
        tokens: The texts of the most likely tokens, most likely first: `tokens[point][position][k]`.
        ids: `[point, position, k]`, the ids of these tokens. In the mean, −1 where every prompt has padding.
        probabilities: `[point, position, k]`, the probabilities of these tokens, 0 to 1; NaN where ids are −1.
        answer_probability: `[point, position]`, the answer's probability. If a prompt has several answers, the
            probability of the most likely one. NaN where no token follows. In the mean, such prompts are left out.
            None if there is no answer token, for example for a direction.
        rank: `[point, position]`, the answer's rank. 1 is the most likely token. For the mean over prompts: the median
            of the prompts' ranks (the better one of two middle ranks). 0 where `answer_probability` is NaN. None if
            there is no answer token.
        norm: Whether the final norm's scale is `"frozen"` or `"recomputed"` at each point.
        notes: Notes on these values, in sentences.
        target: The target whose answers are compared.
        model: The model's name.
    """

    points: list[str]
    positions: list[int]
    tokens: list[list[list[str]]]
    ids: Int[Tensor, "point position k"]
    probabilities: Float[Tensor, "point position k"]
    answer_probability: Float[Tensor, "point position"] | None
    rank: Int[Tensor, "point position"] | None
    norm: NormConvention
    notes: list[str] = field(default_factory=list)
    target: Target | None = None
    model: str = ""

    def to_frame(self) -> DataFrame:
        """Return a pandas table of the most likely tokens: a row for each point, a column for each position.

        Raises:
            ResidscopeError: If pandas is not installed, or cannot be imported.
        """
        pd = pandas()
        columns = pd.Index(self.positions, name="position")
        rows = [[tokens[0] for tokens in row] for row in self.tokens]
        return pd.DataFrame(rows, index=pd.Index(self.points, name="point"), columns=columns)

    def to_plotly(self) -> Figure:
        """Return a plotly figure with the most likely token in each cell. The colour shows this token's probability.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ResidscopeError: If plotly is not installed.
        """
        from residscope.export.maps import token_lens_figure

        return token_lens_figure(self)

    def __repr__(self) -> str:
        last = self.tokens[-1][-1][0], float(self.probabilities[-1, -1, 0])
        answer = ""
        if self.answer_probability is not None and self.rank is not None:
            probability = float(self.answer_probability[-1, -1])
            known = f"the answer {probability:.3f} (rank {int(self.rank[-1, -1])})"
            answer = f", {NO_TOKEN if math.isnan(probability) else known}"
        return (
            f'TokenLens({len(self.points)} points × {len(self.positions)} positions, norm="{self.norm}"; '
            f"at {self.points[-1]}, position {self.positions[-1]}: {last[0]!r} {last[1]:.3f}{answer}"
            f"{''.join(f'; note: {note}' for note in self.notes)})"
        )


def token_lens(
    cache: CacheLike,
    answers: Answers = None,
    *,
    prompt: int | None = None,
    k: int = 5,
    points: Sequence[str] | str | None = None,
    positions: Sequence[int] | int | None = None,
    norm: NormConvention = "recomputed",
    lens: Any = None,
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
) -> TokenLens:
    """Compute what the model would predict if its layers ended at points of the residual stream (logit lens).

    The stream at each point passes the model's own final norm, unembedding, logit scale and soft-cap.

    Args:
        cache: An `ActivationCache`.
        answers: The tokens whose probability and rank are computed, as in `attribute` (from a pair, only the answer).
            With `targets.next_token()`, the answer at each position is the token that follows (NaN and rank 0 where
            no token follows). By default the answer is the model's top prediction at each prompt's last token.
        prompt: The prompt. None: the probabilities are averaged over prompts.
        k: The number of tokens in each cell.
        points: Points such as `["3_pre", "3_mid", "final_post"]`. None: all points.
        positions: The positions. None: all positions.
        norm: The scale of the final norm: `"recomputed"` from the stream at each point (what the model would predict
            there), or `"frozen"` at its value at the end of the stream.
        lens: A tuned lens, a Jacobian lens or your own, as in `attribute`: the stream at each point is first mapped to
            the end of the stream. By default, `points` are then those that have a map. None: the plain logit lens.
        logits: The model's output. Needed if the cache does not hold it and no answers are given.
        tokens: Token ids, if the cache does not hold them. They are used to find padding.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected, see
            `docs/padding.md`.
        model: The model, if `cache.model` was deleted.

    Returns:
        The most likely tokens, their probabilities, and the answer's probability and rank.

    Raises:
        ResidscopeError: With a message that says what is wrong and what to do.

    Source: nostalgebraist's logit lens (2020); TransformerLens' `accumulated_resid(apply_ln=True)`.
    """
    tracked, given_maps = seen(cache, model), LensMaps.of(lens)

    def work() -> TokenLens:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)

        def result() -> TokenLens:
            targets, chosen_prompt = Targets.of(view), view.check_prompt(prompt)
            given = None if logits is None else view.whole_logits(logits)
            notes = []
            try:
                target = top_two(view, given) if answers is None else targets.resolve(answers)
            except ResidscopeError as error:
                if error.code != "no-logits":
                    raise
                # Without a target, the most likely tokens at each point can still be computed.
                target, notes = Target([]), [_NO_ANSWER]
            maps = None if given_maps is None else given_maps.on(view)
            chosen = _named_points(points) if points is not None else [p.label for p in all_points(view, maps)]
            places = positions_from_start(view, positions)
            computed = read_lens(targets, target, chosen, places, chosen_prompt, k, norm, maps)
            notes = targets.notes + without_space(targets, target, None, given) + notes
            return replace(computed, notes=notes + computed.notes + padding_notes(view, positions))

        return in_torch_context(view.stream.device, result)

    return steadily(cache, model, tracked, work)


_NO_ANSWER = (
    "No answer was given, and the model's own answer is not known, because the cache holds neither logits nor the "
    "final residual stream: to get an answer's probability and rank, pass `answers=` or `logits=`."
)


def read_lens(
    targets: Targets,
    target: Target,
    points: Sequence[str],
    positions: Sequence[int],
    prompt: int | None,
    k: int,
    norm: NormConvention,
    maps: StreamMaps | None = None,
) -> TokenLens:
    """Compute `token_lens` for a resolved target. `positions` are counted from the start."""
    import torch

    view = targets.view
    if norm not in ("frozen", "recomputed"):
        raise ResidscopeError("norm", f'`norm="{norm}"` is not known: use "frozen" or "recomputed".')
    if not is_count(k):
        raise ResidscopeError("k", f"`k={k!r}` is not a number of tokens: give a whole number.")
    if not points or not positions:
        raise ResidscopeError("points", "The token lens needs at least one point and one position.")
    wanted = [parse_point(name) for name in points]
    notes = changed(view) + odd_final_norm(view) + assumed(view)
    notes += padding_in_mean(view, prompt, range(min(positions), max(positions) + 1))
    if prompt is not None:
        targets, target = targets.only(target, range(prompt, prompt + 1))
    notes += [] if maps is None else maps.notes()
    reader = Reader(targets.view, norm, maps)
    has_answer = target.direction is None and bool(target.contrasts or target.next_token)
    answers = answers_of(targets.view, target, positions) if has_answer else None
    columns = [read_cells(reader, wanted, block, answers, k) for block in blocks(positions, reader.rows)]

    def joined(name: str) -> Tensor:
        return torch.cat([torch.stack([getattr(cells, name) for cells in column]) for column in columns], dim=1)

    ids, probabilities = joined("ids"), joined("probabilities")
    named = {id: "" if id < 0 else targets.vocabulary.text(id) for id in set(ids.flatten().tolist())}
    texts = [[[named[id] for id in cell] for cell in row] for row in ids.tolist()]
    answer, rank = (None, None) if answers is None else (joined("answer"), joined("rank"))
    if Component("final_post") in wanted and not (maps is not None and maps.is_mapped(Component("final_post"))):
        notes += reader.output_notes(positions[-1])
    return TokenLens(
        [point.label for point in wanted],
        list(positions),
        texts,
        ids,
        probabilities,
        answer,
        rank,
        norm,
        notes,
        target,
        view.model_name,
    )


def all_points(view: CacheView, maps: StreamMaps | None = None) -> list[Component]:
    """Return every cached point of the stream, in order. With `maps`, only those that have a map."""
    points = [point for point in view.points() if maps is None or point in maps.maps]
    if not points:
        raise not_cached(f"blocks.{view.n_layers - 1}.hook_resid_post")
    return points


def is_count(value: object) -> bool:
    """Return whether a value is a whole number, of Python or from an array."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _named_points(wanted: object) -> list[str]:
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(wanted, Iterable):
        raise ResidscopeError(
            "points", f'`points={wanted!r}` is not a list of points: give names, such as `["3_pre"]`.'
        )
    return list(wanted)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def padding_notes(view: CacheView, wanted: Any) -> list[str]:
    """Return notes on positions that the user counted from the end and that are padding."""
    wanted = wanted.tolist() if hasattr(wanted, "tolist") else wanted
    listed = list(wanted) if isinstance(wanted, Iterable) else [] if wanted is None else [wanted]
    return [note for at in listed for note in on_padding(view, at)]


def positions_from_start(view: CacheView, wanted: Any) -> list[int]:
    """Return the positions that a user gave, counted from the start. None: all positions.

    Raises:
        ResidscopeError: If `wanted` holds anything other than positions of the prompt.
    """
    if wanted is None:
        return list(range(view.n_pos))
    wanted = wanted.tolist() if hasattr(wanted, "tolist") else wanted
    wanted = list(wanted) if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
    if any(isinstance(at, str) for at in wanted):  # "last" may be another position in each prompt
        raise ResidscopeError("position", "The token lens' positions are numbers, such as `positions=[0, 1]` or −1.")
    return [int(resolved[0]) for at in wanted if (resolved := resolve(view, at)) is not None]
