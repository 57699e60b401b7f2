"""`token_lens`: what the model would predict at each position if its layers ended at some point of the stream.

Source: nostalgebraist, "interpreting GPT: the logit lens" (2020); TransformerLens' `accumulated_resid(apply_ln=True)`,
made exact for norms that are not folded, and with the model's logit scale and soft-cap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from residscope.attribution.next_tokens import following
from residscope.attribution.predictions import top_two
from residscope.attribution.targets import Targets
from residscope.attribution.word_spaces import without_space
from residscope.base.packages import pandas
from residscope.cache.component_names import parse_point
from residscope.cache.finite import check_finite
from residscope.cache.lens_maps import LensMaps, StreamMaps
from residscope.cache.norms import Norm, odd_final_norm
from residscope.cache.points import FINAL
from residscope.cache.positions import assumed, on_padding, resolve
from residscope.cache.structure import Structure
from residscope.cache.token_labels import padding_in_mean
from residscope.cache.unembedding import Output, unembedding_of_stream
from residscope.cache.view import CacheView
from residscope.cache.view_refusals import not_cached
from residscope.compute.batching import blocks
from residscope.compute.precision import working
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

_MOST_LOGITS = 6_000_000
"""At most this many logits are computed at once: 24 MB, so that each step is short."""


@dataclass(frozen=True, eq=False)
class TokenLens:
    """The most likely tokens at points of the residual stream.

    For the mean over prompts, probabilities are averaged.

    Attributes:
        points: The points along the first axis: `"3_pre"`, `"3_mid"`, `"final_post"`.
        positions: The positions along the second axis.
        tokens: The texts of the most likely tokens, most likely first: `tokens[point][position][k]`.
        ids: `[point, position, k]`, the ids of these tokens.
        probabilities: `[point, position, k]`, the probabilities of these tokens, 0 to 1.
        answer_probability: `[point, position]`, the answer's probability. If a prompt has several answers, the
            probability of the most likely one. NaN if no token follows in one of these prompts. None if there is no
            answer token, for example for a direction.
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
        """Return a readable summary."""
        last = self.tokens[-1][-1][0], float(self.probabilities[-1, -1, 0])
        answer = ""
        if self.answer_probability is not None and self.rank is not None:
            answer = f", the answer {float(self.answer_probability[-1, -1]):.3f} (rank {int(self.rank[-1, -1])})"
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
    answers = _answers(targets.view, target) if has_answer else None
    columns = [_column(reader, wanted, block, answers, k) for block in blocks(positions, reader.rows)]

    def joined(name: str) -> Tensor:
        return torch.cat([torch.stack([getattr(cells, name) for cells in column]) for column in columns], dim=1)

    ids, probabilities = joined("ids"), joined("probabilities")
    named = {id: targets.vocabulary.text(id) for id in set(ids.flatten().tolist())}
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


@dataclass(frozen=True)
class _Cells:
    """Some cells of the lens. Each cell is a point and a position."""

    ids: Int[Tensor, "*point position k"]
    probabilities: Float[Tensor, "*point position k"]
    answer: Float[Tensor, "*point position"] | None
    rank: Int[Tensor, "*point position"] | None

    def __getitem__(self, point: int) -> _Cells:
        """Return the cells of one point."""
        answer, rank = (None if part is None else part[point] for part in (self.answer, self.rank))
        return _Cells(self.ids[point], self.probabilities[point], answer, rank)


def _column(
    reader: Reader,
    points: Sequence[Component],
    positions: Sequence[int],
    answers: Int[Tensor, "batch read token"] | None,
    k: int,
) -> list[_Cells]:
    """The cells of each point. They are memoised, because a view may request more points later."""
    asked = None if answers is None else (answers.shape[1], tuple(answers.flatten().tolist()))
    maps = None if reader.maps is None else reader.maps.key
    key = ("lens", reader.norm, k, asked, maps, tuple(positions))
    memo = reader.view.memo.part(*key)
    known: dict[Component, _Cells] = {point: cells for point in points if (cells := memo.get(point)) is not None}
    for point_block in blocks([point for point in points if point not in known], reader.rows // len(positions)):
        cells = _cells(reader, point_block, positions, answers, k)
        for number, point in enumerate(point_block):
            known[point] = cells[number]
            memo.put(point, value=cells[number], size=16 * len(positions) * (k + 1))
    return [known[point] for point in points]


def _cells(
    reader: Reader,
    points: Sequence[Component],
    positions: Sequence[int],
    answers: Int[Tensor, "batch read token"] | None,
    k: int,
) -> _Cells:
    """The cells of some points and positions. Probabilities are summed over blocks of prompts that fit in memory."""
    import torch

    batch = reader.view.batch
    total: Tensor | None = None
    answer_shares: list[Tensor] = []
    ranks: list[Tensor] = []
    for prompts in blocks(range(batch), reader.rows // (len(points) * len(positions))):
        logits = reader(points, positions, range(prompts[0], prompts[-1] + 1))
        shares = logits.softmax(-1)
        if answers is not None:
            ids = answers[prompts[0] : prompts[-1] + 1].to(logits.device)
            ids = (ids if ids.shape[1] == 1 else ids[:, list(positions)])[:, None].expand(*logits.shape[:3], -1)
            none, ids = ids[..., 0] < 0, ids.clamp(min=0)
            answer_shares.append(shares.gather(-1, ids).amax(-1).masked_fill(none, math.nan))
            best = logits.gather(-1, ids).amax(-1)
            # Ranks come from logits, because all very small probabilities round to 0. 32 bits are enough for a count.
            rank = 1 + (logits > best[..., None]).sum(-1, dtype=torch.int32).long()
            ranks.append(rank.masked_fill(none, 0))
        part = shares[0] if len(prompts) == 1 else shares.sum(0)
        total = part if total is None else total.add_(part)
    if total is None or not bool(total.isfinite().all()):
        check_finite(reader.view, total)
        raise ResidscopeError("no-residual", "This cache contains no prompt.")
    top = total.topk(min(max(k, 1), total.shape[-1]))
    answer = torch.cat(answer_shares).mean(0) if answer_shares else None
    rank = None if answer is None else torch.cat(ranks).median(0).values.masked_fill(answer.isnan(), 0)
    return _Cells(top.indices, top.values / batch, answer, rank)


class Reader:
    """Turns points of the stream into logits.

    Args:
        view: The cache.
        norm: Whether the final norm's scale is frozen or recomputed.
        maps: The maps of the stream to its end. None: the stream is read as it is.

    Attributes:
        view: The cache.
        norm: The convention of the final norm's scale.
        maps: The maps of the stream to its end, if there are any.
        rows: The number of rows of logits that are computed at once.
    """

    def __init__(self, view: CacheView, norm: NormConvention, maps: StreamMaps | None = None) -> None:
        self.view, self.norm, self.maps, self._frozen = view, norm, maps, norm == "frozen"
        self._W_U, self._b_U = unembedding_of_stream(view)
        self._output = Output.of(view.model)
        self._norm = Norm.of(getattr(view.model, "ln_final", None), view)
        self._carries = Structure(view).carries
        self.rows = max(1, _MOST_LOGITS // self._W_U.shape[1])

    def __call__(
        self, points: Sequence[Component], positions: Sequence[int], prompts: range
    ) -> Float[Tensor, "prompt point position d_vocab"]:
        """Return the logits at some points, positions and prompts."""
        import torch

        part, at = self.view.only(prompts), list(positions)
        stream = torch.stack([self._stream(part, point, at) for point in points], dim=1)
        divisor = FINAL.scale(part, self._norm, None)[:, None, at] if self._frozen else self._norm.scale(stream)
        rows = self._norm.centre(stream) / divisor[..., None]
        rows = rows if self._norm.weight is None else rows * self._norm.weight
        rows = rows if self._norm.bias is None else rows + self._norm.bias
        return self._output(self._unembedded(rows.to(self._W_U.device)))

    def output_notes(self, position: int) -> list[str]:
        """Return a note if the stream's end does not give the model's output, in the first prompt at `position`."""
        name = self.view.first("unembed.hook_out", "hook_unembed")
        if name is None:
            return [
                "The cache holds no logits: it was not checked whether the last row is the model's own prediction. A "
                "hook on the final norm or the unembedding, or a change of the logits by the model, would be missing."
            ]
        own = self._output(working(self.view.get(name)[0, position])).softmax(-1)
        gap = float(
            (self([Component("final_post")], [position], range(1)).flatten().softmax(-1).to(own) - own).abs().max()
        )
        if gap <= max(1e-3, 4 * self.view.rounding_step(name, f"blocks.{self.view.n_layers - 1}.hook_resid_post")):
            return []
        return [
            "The last row is computed from the stream with the final norm and the unembedding. The model's own "
            f"probabilities differ by up to {gap:.2g}: the model does more after the stream, or its weights were "
            "changed since the cache was made."
        ]

    def _stream(self, part: CacheView, point: Component, at: list[int]) -> Float[Tensor, "batch read d_model"]:
        layer = None if point.layer is None else part.check_layer(point.layer)
        if layer is None:  # `final_post`
            name = f"blocks.{part.n_layers - 1}.hook_resid_post"
        else:
            name = part.before(layer) if point.kind == "pre" else f"blocks.{layer}.hook_resid_mid"
        stream = part.rows(name, None)[:, at]
        if self.maps is not None:
            mapped = self.maps(point, stream)
            if self.maps.is_mapped(point):
                return mapped
        if layer is None:
            return stream
        # As in `by="accumulated"`: with a frozen scale, the stream is multiplied by the factors of later layers.
        return stream * self._carries[layer] if self._frozen else stream

    def _unembedded(self, rows: Tensor) -> Tensor:
        """Return rows @ W_U + b_U, in float32 or float64. A W_U in half precision is converted in blocks of columns."""
        import torch

        W_U, b_U = self._W_U, self._b_U
        rows = working(rows)
        if W_U.dtype == rows.dtype:
            logits = rows @ W_U
        else:
            width = max(1, _MOST_LOGITS // W_U.shape[0])
            logits = torch.cat([rows @ W_U[:, i : i + width].to(rows) for i in range(0, W_U.shape[1], width)], dim=-1)
        return logits if b_U is None else logits + b_U.to(logits)


def all_points(view: CacheView, maps: StreamMaps | None = None) -> list[Component]:
    """Return every cached point of the stream, in order. With `maps`, only those that have a map."""
    points = [point for point in view.points() if maps is None or point in maps.maps]
    if not points:
        raise not_cached(f"blocks.{view.n_layers - 1}.hook_resid_post")
    return points


def _answers(view: CacheView, target: Target) -> Int[Tensor, "batch read token"]:
    """The ids of each prompt's answers, without the distractors.

    If the answers are the same at all positions, the axis `read` has length 1. If each position has its own answer, −1
    means that there is no answer.
    """
    import torch

    if target.next_token is not None:
        ids, real = following(view)
        return ids.masked_fill(~real, -1)[..., None]
    rows = [[token.id for token in contrast.answer] for contrast in target.contrasts]
    width = max(map(len, rows))
    ids = torch.tensor([row + row[:1] * (width - len(row)) for row in rows], device="cpu")
    return ids.expand(view.batch, -1)[:, None]


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
        ResidscopeError: If `wanted` holds anything else than positions of the prompt.
    """
    if wanted is None:
        return list(range(view.n_pos))
    wanted = wanted.tolist() if hasattr(wanted, "tolist") else wanted
    wanted = list(wanted) if isinstance(wanted, Iterable) and not isinstance(wanted, str) else [wanted]
    if any(isinstance(at, str) for at in wanted):  # "last" may be another position in each prompt
        raise ResidscopeError("position", "The token lens' positions are numbers, such as `positions=[0, 1]` or −1.")
    return [int(resolved[0]) for at in wanted if (resolved := resolve(view, at)) is not None]
