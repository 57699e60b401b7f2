"""The positions of an attention score: its destination, its source and the source that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from residscope.cache.component_names import name
from residscope.cache.positions import last
from residscope.cache.score_rule import HeadScores
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.terms import AttentionScore

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class ScorePositions:
    """The positions of an attention score in each prompt of a cache. They are checked against the head's own attention.

    Attributes:
        view: The cache.
        target: The layer, the head, and the positions of the score.
    """

    view: CacheView
    target: AttentionScore

    @cached_property
    def scores(self) -> HeadScores:
        """The head's scores."""
        return HeadScores.of(self.view, self.target.layer, self.target.head)

    @cached_property
    def destination(self) -> Int[Tensor, " batch"]:
        """The destination in each prompt."""
        import torch

        given = self.target.destination
        places = last(self.view) if given == "last" else [self._inside(given, "destination")] * self.view.batch
        return torch.tensor(places, device="cpu")

    @cached_property
    def source(self) -> Int[Tensor, " batch"]:
        """The source in each prompt."""
        import torch

        return torch.full((self.view.batch,), self._inside(self.target.source, "source"), device="cpu")

    @cached_property
    def versus(self) -> Int[Tensor, " batch"] | None:
        """The other source in each prompt. None if the score is not compared, or is compared with the mean."""
        import torch

        if self.target.versus is None or self.target.versus == "mean":
            return None
        if self.target.versus != "most":
            other = self._inside(self.target.versus, "versus")
            if other == int(self.source[0]):
                raise ResidscopeError(
                    "versus", f"The source {other} is compared with itself: choose another one, or `versus=None`."
                )
            return torch.full((self.view.batch,), other, device="cpu")
        paid = self._attention.masked_fill(~self._visible, -1.0).clone()
        paid[torch.arange(len(paid), device=paid.device), self.source.to(paid.device)] = -1.0
        best = paid.max(-1)
        self._check_destination()
        if bool((best.values < 0).any()):
            raise ResidscopeError(
                "versus",
                f"At destination {int(self.destination[best.values < 0][0])} the head can attend to one source only, "
                "so there is no other one to compare it with: use `versus=None`, or choose a later destination.",
            )
        return best.indices.cpu()

    def _inside(self, position: int, what: str) -> int:
        count = self.view.n_pos
        if not -count <= position < count:
            raise ResidscopeError(
                "position", f"{what.capitalize()} {position} is outside the prompt, which has {count} positions."
            )
        return position % count

    def check(self) -> None:
        """Refuse a source that the head cannot attend to from the destination."""
        import torch

        self._check_destination()
        ends, visible = self.scores.reader.ends, self._visible.cpu()
        head = name(self.target.layer, self.target.head)
        for what, places in (("source", self.source), ("other source", self.versus)):
            if places is None:
                continue
            for prompt in torch.nonzero(~visible[torch.arange(len(places), device="cpu"), places]).flatten().tolist():
                s, d = int(places[prompt]), int(self.destination[prompt])
                where = f" in prompt {prompt}" if self.view.batch > 1 else ""
                begin, end = ends.first[prompt], ends.last[prompt]
                if not begin <= s <= end:
                    raise ResidscopeError(
                        "source",
                        f"The {what} is padding{where} (its tokens are {begin} to {end}): choose a token of the "
                        "prompt.",
                    )
                if s > d:
                    raise ResidscopeError(
                        "source", f"{head} cannot attend from {d} to {s}{where}: a source is never after its "
                        "destination."
                    )  # fmt: skip
                raise ResidscopeError(
                    "source",
                    f"{head} does not attend from {d} to {s}{where}: that source is masked there (a sliding window "
                    "or another mask), a hook edited the scores or the pattern, or the attention is too small for its "
                    "number format.",
                )

    def _check_destination(self) -> None:
        """Refuse a destination in the padding before a prompt, because it attends to no token of the prompt."""
        first = self.scores.reader.ends.first
        for prompt, (begin, at) in enumerate(zip(first, self.destination.tolist(), strict=True)):
            if at < begin:
                where = f" in prompt {prompt}" if self.view.batch > 1 else ""
                raise ResidscopeError(
                    "position",
                    f"The destination is padding{where} (its tokens begin at {begin}): choose a token of the prompt.",
                )

    @property
    def _pattern(self) -> str:
        return self.scores.reader.name("hook_pattern")

    @cached_property
    def _attention(self) -> Float[Tensor, "batch source"]:
        return self.scores.reader.attention(self.destination[:, None])[:, 0]

    @cached_property
    def _visible(self) -> Tensor:
        return self.scores.reader.visible(self.destination[:, None])[:, 0]
