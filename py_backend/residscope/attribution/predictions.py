"""The model's predictions, and the default target, which is made from the two most likely tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residscope.cache import positions
from residscope.cache.unembedding import Output, written_logits
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.errors import ResidscopeError
from residscope.terms import Contrast, Position, Prediction, Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def predicted(view: CacheView, position: Position, given: Tensor | None) -> Float[Tensor, "batch d_vocab"]:
    """Return all logits at one position of each prompt: given, cached, or else computed from the stream.

    Args:
        view: The cache.
        position: The position.
        given: The model's output `[batch, pos, d_vocab]`, if the user passed it.
    """
    return logits_at(view, positions.resolve(view, position), given)


def logits_at(
    view: CacheView, where: Int[Tensor, " batch"] | None, given: Tensor | None
) -> Float[Tensor, "batch d_vocab"]:
    """Return all logits at the given position of each prompt, as `predicted` does."""
    logits = view.take(given, where) if given is not None else Output.of(view.model)(written_logits(view, where))
    return logits.squeeze(1)


def suggestions(
    view: CacheView, prompt: int | None, position: Position, k: int, given: Tensor | None
) -> list[Prediction]:
    """Return the model's `k` top predictions (at most 100), most likely first.

    If `prompt` is None, probabilities are averaged over the prompts in which the position is not padding.

    Raises:
        ResidscopeError: If the position is padding in all of them, or logits are NaN or infinite.
    """
    where = positions.resolve(view, position)
    assert where is not None  # a view shows one position
    padded = positions.left_out(view, where, prompt)
    logits = logits_at(view, where, given)
    rows = logits if prompt is None else logits[prompt, None]
    row = (rows if padded is None else rows[~padded.to(rows.device)]).softmax(-1).mean(0)
    if not bool(row.isfinite().all()):
        raise ResidscopeError("not-finite", "The logits contain NaN or infinity: the model predicts nothing here.")
    top = row.topk(min(max(k, 1), 100, row.shape[0]))
    token = Vocabulary(view.model).token
    return [Prediction(token(id), p) for id, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)]


def top_two(view: CacheView, given: Tensor | None = None) -> Target:
    """Return the default target: in each prompt, the top prediction minus the second one, at the last real token."""
    top = predicted(view, "last", given).topk(2, dim=-1).indices.tolist()
    token = Vocabulary(view.model).token
    return Target([Contrast([token(first)], [token(second)]) for first, second in top], own=True)
