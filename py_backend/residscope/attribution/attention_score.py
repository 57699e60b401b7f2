"""An attention score as a functional of the stream before its layer, at the destination or at the source.

score(d, s) = τ · q̂_d · k̂_s for destination d and source s. Here q̂ and k̂ are the query and the key after norms and
rotations, and τ is the scale of the scores. With fixed keys, the score is an affine functional of the stream at the
destination. With a fixed query, the score is an affine functional of the stream at the source. The rows of either side
sum to the whole score. The difference between the scores of two sources s and s′ is log A(d, s) − log A(d, s′), because
the softmax divides both by the same number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from residscope.attribution.score_positions import ScorePositions
from residscope.cache.component_names import name
from residscope.cache.head_reader import Projected, smallest_attention
from residscope.cache.rotary import HeadVectors
from residscope.compute.precision import step_of
from residscope.errors import ResidscopeError
from residscope.terms import Component, InnerFacts, Side

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

SIDE: dict[Side, Literal["q", "k"]] = {"query": "q", "key": "k"}


@dataclass(frozen=True)
class Reading:
    """An affine functional of the vector that attention reads at one position of each prompt.

    Attributes:
        positions: The position in each prompt.
        direction: The direction, at the output of the norm before attention.
        offset: The contribution of biases.
    """

    positions: Int[Tensor, " batch"]
    direction: Float[Tensor, "batch d_model"]
    offset: Float[Tensor, " batch"]


@dataclass(frozen=True)
class HeadScore(ScorePositions):
    """The score of a head in a cache, alone, or compared with another source or with the mean.

    Attributes:
        view: The cache.
        target: The layer, the head, and the positions of the score.

    Raises:
        ResidscopeError: Raised by properties and methods, if the head cannot attend to the source, or its scores
            cannot be attributed.
    """

    def only(self, prompts: range) -> HeadScore:
        """Return the same score for only some prompts. Each of these prompts keeps its other source (`versus`)."""
        return replace(self, view=self.view.only(prompts))

    @property
    def reads_all(self) -> bool:
        """Whether the score is read at all sources: on the key side, for a score that is compared with the mean."""
        return self.target.side == "key" and self.target.versus == "mean"

    # --- queries and keys --------------------------------------------------------------------------------------------
    @cached_property
    def queries(self) -> HeadVectors:
        """The query at the destination."""
        return self.scores.vectors("q", self.destination[:, None])

    @cached_property
    def keys(self) -> HeadVectors:
        """The keys at `key_positions`."""
        return self.scores.vectors("k", self.key_positions)

    @cached_property
    def key_positions(self) -> Int[Tensor, "batch read"]:
        """The sources whose keys make the score: the source, then the other source. For the mean: all sources."""
        import torch

        if self.target.versus == "mean":
            return torch.arange(self.view.n_pos, device="cpu")[None].expand(self.view.batch, -1)
        places = [self.source] if self.versus is None else [self.source, self.versus]
        return torch.stack(places, 1)

    @cached_property
    def weights(self) -> Float[Tensor, "batch read"]:
        """The weight of each key of `key_positions`: 1 for the source, −1 for the other source.

        For the mean: minus the attention to each source, plus 1 for the source of the score.
        """
        like = self.view.like
        if self.target.versus == "mean":
            import torch

            paid = self._attention.masked_fill(~self._visible, 0.0)
            weights = -(paid / paid.sum(-1, keepdim=True)).to(like)
            weights[torch.arange(len(weights), device=weights.device), self.source.to(weights.device)] += 1
            return weights
        count = self.key_positions.shape[1]
        return like.new_tensor([1.0, -1.0][:count]).expand(self.view.batch, -1)

    @cached_property
    def scale(self) -> Float[Tensor, " batch"]:
        """τ at the destination."""
        return self.scores.scales(self.destination)

    @cached_property
    def compared_key(self) -> Float[Tensor, "batch 1 d_head"]:
        """The weighted sum of the keys: the key at the source, minus the key at the other source or the mean key."""
        return (self.keys.used * self.weights[..., None]).sum(1, keepdim=True)

    # --- functionals -------------------------------------------------------------------------------------------------
    def projected(self, side: Side) -> Projected:
        """How the stream becomes queries or keys of this head."""
        return self.scores.reader.projected(SIDE[side])

    @property
    def query_functional(self) -> Float[Tensor, "batch 1 d_head"]:
        """The score as a functional of the query."""
        return self.compared_key * self.scale[:, None, None]

    @property
    def query_alone(self) -> Float[Tensor, "batch d_head"]:
        """The functional that gives a key's score: the query at the destination, times τ."""
        return self.queries.used[:, 0] * self.scale[:, None]

    @property
    def key_functionals(self) -> Float[Tensor, "batch read d_head"]:
        """The score as a functional of the key at each of `key_positions`."""
        return self.query_alone[:, None] * self.weights[..., None]

    @cached_property
    def readings(self) -> list[Reading]:
        """The functionals whose values, together with `extra`, add up to the score. Not used if `reads_all`."""
        side = self.target.side
        found = self.projected(side)
        if side == "query":
            vectors, functionals, positions = self.queries, self.query_functional, self.destination[:, None]
        else:
            vectors, functionals, positions = self.keys, self.key_functionals, self.key_positions
        raw = vectors.pull(functionals)
        offset = self.offsets(vectors, functionals, raw, found)
        matrix = found.map.matrix.T.to(raw)
        # One position at a time: PyTorch would use several threads for two rows, which is slow on a busy machine.
        directions = [raw[:, i] @ matrix * found.factor for i in range(positions.shape[1])]
        return [Reading(positions[:, i], one, offset[:, i]) for i, one in enumerate(directions)]

    @property
    def latest(self) -> Int[Tensor, " batch"]:
        """The latest position of each prompt at which the score is read."""
        return self.destination if self.target.side == "query" else self.key_positions.max(1).values

    def offsets(
        self, vectors: HeadVectors, functionals: Tensor, raw: Tensor, found: Projected
    ) -> Float[Tensor, "batch read"]:
        """What the biases of the projection and of the norms after it add to the score at each position."""
        offset = (functionals * vectors.added).sum(-1)
        return offset if found.map.bias is None else offset + raw @ found.map.bias.to(raw)

    # --- the value to explain ----------------------------------------------------------------------------------------
    @cached_property
    def _products(self) -> Float[Tensor, "batch read"]:
        """τ · q̂ · k̂ for each of `key_positions`."""
        return (self.queries.used * self.keys.used).sum(-1) * self.scale[:, None]

    @cached_property
    def position_bias(self) -> Float[Tensor, " batch"] | None:
        """The contribution of a position bias (ALiBi) to the score. None without a position bias."""
        slope = self.scores.rule.slope
        if not slope:
            return None
        bias = slope * self.key_positions.to(self._products)
        if self.target.versus is None:
            bias = bias + self._bias_offset
        return (bias * self.weights).sum(-1)

    @cached_property
    def _bias_offset(self) -> Float[Tensor, "batch 1"]:
        """The part of the position bias that is the same for all sources of the destination."""
        import torch

        reader, some = self.scores.reader, self.destination[:, None]
        if reader.from_pattern:
            return self.view.like.new_zeros(self.view.batch, 1)
        truth, known = reader.scores(some)
        every = torch.arange(truth.shape[-1], device="cpu")[None].expand(self.view.batch, -1)
        made = (self.queries.used @ self.scores.vectors("k", every).used.transpose(-1, -2)) * self.scale[:, None, None]
        left = (truth - made - self.scores.rule.slope * every[:, None].to(made)).masked_fill(~known, 0)
        return left.sum(-1) / known.sum(-1)

    @cached_property
    def soft_cap(self) -> Float[Tensor, " batch"] | None:
        """The change of the score by a soft-cap. None without a soft-cap."""
        cap = self.scores.rule.cap
        if not cap:
            return None
        return ((cap * (self._products / cap).tanh() - self._products) * self.weights).sum(-1)

    @property
    def own(self) -> bool:
        """Whether `measured` is the model's own value.

        False for a score that is compared with nothing, if the cache holds only the pattern.
        """
        return not (self.scores.reader.from_pattern and self.target.versus is None)

    @cached_property
    def measured(self) -> Float[Tensor, " batch"]:
        """The model's own value. If `own` is False: the value computed from the cached queries and keys."""
        reader = self.scores.reader
        if not self.own:
            made = (self._products * self.weights).sum(-1)
            return sum(self.extra.values(), start=made)
        truth, known = reader.scores(self.destination[:, None])
        truth, known = truth[:, 0].masked_fill(~known[:, 0], 0.0), known[:, 0]
        if self.target.versus == "mean":
            return (truth * self.weights.masked_fill(~known, 0)).sum(-1)
        picked = truth.gather(1, self.key_positions.to(truth.device))
        return (picked * self.weights).sum(-1)

    @cached_property
    def part_values(self) -> list[Float[Tensor, " batch"]]:
        """The value of each reading. The last one is a remainder: the values and `extra` sum to `measured` exactly."""
        values = [self._products[:, i] * self.weights[:, i] for i in range(len(self.readings) - 1)]
        others = sum((*values, *self.extra.values()), start=self.measured * 0)
        return [*values, self.measured - others]

    @property
    def measured_from(self) -> str:
        """The activations from which `measured` was read, in words."""
        reader = self.scores.reader
        if not self.own:
            return f"the cached queries and keys ({reader.name('hook_q')}, {reader.name('hook_k')})"
        if reader.from_pattern:
            return f"the logarithm of the attention in the cache ({reader.truth})"
        return f"the scores in the cache ({reader.truth})"

    @property
    def activations(self) -> tuple[str, ...]:
        """The cached activations from which the score and `measured` are computed."""
        reader = self.scores.reader
        names = ("hook_q", "hook_k", reader.truth.rpartition("attn.")[2])
        return tuple(name for name in map(reader.name, names) if self.view.has(name))

    def notes(self) -> list[str]:
        """Notes on this score."""
        rule, notes = self.scores.rule, list[str]()
        head = name(self.target.layer, self.target.head)
        if not self.own:
            scores = self.scores.reader.name("hook_attn_scores")
            lacks = f"`{scores}` holds the pattern" if self.view.has(scores) else f"`{scores}` is not in this cache"
            notes.append(
                f"`measured` was computed from the cached queries and keys, because {lacks}. A pattern shows a score "
                'only up to a constant. For a comparison with another source (`versus="most"`), the pattern is used.'
            )
        if rule.slope:
            notes.append(
                f"The scores of {head} have a position bias (ALiBi, or a hook), measured in the cache: "
                f"{rule.slope:+.4g} for each position of the source. This is the row `position_bias`."
            )
        if rule.cap:
            notes.append(
                f"The model soft-caps its attention scores at {rule.cap:g}. The rows of components explain the score "
                "before the cap. The change by the cap is the row `soft_cap`."
            )
        if rule.scale is None:
            notes.append(
                f"The scale of the scores of {head} differs between destinations. The scale at the destination of this "
                "score is used."
            )
        return notes + self._mean_note() + self._pattern_note()

    def _mean_note(self) -> list[str]:
        """A note if the attention weights of the mean do not add up to 1."""
        if self.target.versus != "mean":
            return []
        paid = self._attention.masked_fill(~self._visible, 0.0).sum(-1)
        names = [one for one in (self._pattern, self.scores.reader.truth) if self.view.has(one)]
        most = int((paid - 1).abs().argmax())
        if abs(float(paid[most]) - 1) <= max(1e-3, 8 * max(step_of(self.view.get(one).dtype) for one in names)):
            return []
        where = f" in prompt {most}" if self.view.batch > 1 else ""
        return [
            f"The attention of {name(self.target.layer, self.target.head)} to the tokens adds up to "
            f"{float(paid[most]):.3g}{where}, not to 1 (an attention sink, or a hook that edited the pattern). For the "
            "mean, this attention is divided by its sum."
        ]

    def _pattern_note(self) -> list[str]:
        """A note if the pattern in the cache is not the softmax of the scores."""
        reader = self.scores.reader
        if reader.from_pattern or self.target.versus is None or not self.view.has(self._pattern):
            return []
        weights, paid = self._weighted_pattern
        # Very small attention has no exact logarithm. In a mean, this matters only at the source, because other sources
        # with very small attention have very small weights.
        floor = 2 * smallest_attention(self.view.get(self._pattern).dtype)
        exact = (paid > floor) | (weights <= 0) if self.target.versus == "mean" else paid > floor
        logs = paid.clamp(min=1e-30).log().mul(weights).sum(-1)
        step = max(step_of(self.view.get(n).dtype) for n in (self._pattern, reader.truth))
        difference = (logs - self.measured).abs().masked_fill(~exact.all(-1), 0.0)
        if not bool((difference > (16 * step * (1 + self.measured.abs())).clamp(min=1e-3)).any()):
            return []
        most = int(difference.argmax())
        where = f" in prompt {most}" if self.view.batch > 1 else ""
        return [
            "The pattern in this cache is not the softmax of its scores: log A differs by "
            f"{float(difference[most]):.2g} from the difference of the scores{where}. A hook changed the scores or the "
            "pattern, or the model has another step between them."
        ]

    @property
    def _weighted_pattern(self) -> tuple[Float[Tensor, "batch read"], Float[Tensor, "batch read"]]:
        """The weight of each key position, and the attention to it. For the mean, masked sources have weight 0."""
        paid = self._attention.gather(1, self.key_positions.to(self._attention.device))
        weights = self.weights.to(paid)
        return (weights.masked_fill(~self._visible, 0.0) if self.target.versus == "mean" else weights), paid

    # --- rows that no component writes ---------------------------------------------------------------------------
    @property
    def extra(self) -> dict[Component, Float[Tensor, " batch"]]:
        """The rows that no component of the stream writes: the position bias, and the change by the soft-cap."""
        found = {Component("position_bias"): self.position_bias, Component("soft_cap"): self.soft_cap}
        return {row: value for row, value in found.items() if value is not None}

    # --- what is shown -----------------------------------------------------------------------------------------------
    def facts(self, prompt: int) -> InnerFacts:
        """Return the facts about the score in one prompt."""
        source, destination = int(self.source[prompt]), int(self.destination[prompt])
        versus = None if self.versus is None else int(self.versus[prompt])
        paid = self._attention[prompt]
        other = None if versus is None else float(paid[versus])
        return InnerFacts(self.scores.reader.point.place.label, destination, source, versus, float(paid[source]), other)


@dataclass(frozen=True)
class ScorePart:
    """One of the readings that add up to a score.

    Attributes:
        score: The score.
        index: The index of the reading.
    """

    score: HeadScore
    index: int = 0


def only_part(score: HeadScore) -> ScorePart:
    """Return the only part of a score that is read at a single position.

    Raises:
        ResidscopeError: If the score is read at several positions.
    """
    score.check()
    if score.target.side == "key" and score.target.versus is not None:
        raise ResidscopeError(
            "attention",
            "On the key side a score that is compared with another source is read at several positions. Use "
            '`side="query"`, or `versus=None`.',
        )
    return ScorePart(score)
