"""The attention scores of a head, computed from its queries and keys by the rule that the cache shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from residscope.cache.attention_maps import SideName
from residscope.cache.head_reader import HeadReader
from residscope.cache.rotary import HeadVectors
from residscope.cache.score_kinds import Rule
from residscope.cache.score_rule_search import centred, find_rule
from residscope.cache.score_vectors import head_vectors
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class HeadScores:
    """The scores of one head, computed from its queries and keys.

    Attributes:
        reader: Reads the head's activations.
        rule: The rule by which the scores are computed.
    """

    reader: HeadReader
    rule: Rule

    @classmethod
    def of(cls, view: CacheView, layer: int, head: int) -> HeadScores:
        """Return the head's scores, with the rule that was found.

        Raises:
            ResidscopeError: If no rule gives the scores in the cache, or a needed activation was not cached.
        """
        view.check_head(layer, head)
        run = HeadReader(view.root, layer, head)
        _ = run.heads  # refuses a layer without heads
        rule = run.view.memo.once(("score rule", layer, head), lambda: find_rule(run))
        return cls(HeadReader(view, layer, head), rule)

    def vectors(
        self, side: SideName, positions: Int[Tensor, "batch read"], other: HeadReader | None = None
    ) -> HeadVectors:
        """Return the head's queries or keys at some positions. With `other`, they are those of another run."""
        return head_vectors(other or self.reader, self.rule.kind, side, positions, self.reader)

    def scales(self, destination: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return τ, the factor of the products of queries and keys, at one destination of each prompt.

        Raises:
            ResidscopeError: If τ differs between destinations, and this destination has too few sources to find τ.
        """
        like = self.reader.view.like
        if self.rule.scale is not None:
            return like.new_full((len(destination),), self.rule.scale)
        import torch

        some = destination[:, None]
        truth, known = self.reader.scores(some)
        every = torch.arange(truth.shape[-1], device="cpu")[None].expand(len(destination), -1)
        q, k = self.vectors("q", some).used, self.vectors("k", every).used
        products = q @ k.transpose(-1, -2)
        if int(known.sum(-1).min()) < 3:
            raise ResidscopeError(
                "attention",
                "The scale of this head's scores differs between destinations, and this destination has fewer than 3 "
                "sources, too few to find the scale: choose a later destination.",
            )
        a, b = centred(products, known), centred(truth, known)
        return ((a * b).sum(-1) / a.pow(2).sum(-1).clamp(min=1e-30)).squeeze(-1)
