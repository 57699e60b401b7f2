"""The token that really follows each position, and the model's prediction of this token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.cells import cells_of
from residscope.cache.unembedding import vocabulary_size, written_logits
from residscope.cache.view import CacheView
from residscope.cache.weights import embedding_size
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.session.change_notes import seen, steadily
from residscope.terms import CacheLike, MaskLike, ModelLike

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class NextTokens:
    """The token that follows each position, and the model's prediction of this token.

    Attributes:
        ids: The token's id. 0 where no token follows.
        real: Whether a token follows: this position and the next one are both real tokens of the prompt.
        log_prob: The natural logarithm of the token's probability. NaN where no token follows.
        rank: The rank of the token in the prediction. 1 is the most likely token. 0 where no token follows.
        runner_up: The id of the most likely token other than the one that follows. Meaningless where no token follows.
    """

    ids: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    log_prob: Float[Tensor, "batch pos"]
    rank: Int[Tensor, "batch pos"]
    runner_up: Int[Tensor, "batch pos"]


def next_tokens(
    cache: CacheLike,
    *,
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
) -> NextTokens:
    """Return the token that really follows each position, and the model's prediction of this token.

    Args:
        cache: An `ActivationCache`. The model is not run.
        logits: The model's output, if the cache does not hold it.
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected, see
            `docs/padding.md`.
        model: The model, if `cache.model` was deleted.

    Raises:
        ResidscopeError: If there are no token ids, or neither logits nor the final stream.
    """
    tracked = seen(cache, model)

    def work() -> NextTokens:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)

        def computed() -> NextTokens:
            return predicted(Targets.of(view), None if logits is None else view.whole_logits(logits))

        return in_torch_context(view.stream.device, computed)

    return steadily(cache, model, tracked, work)


def predicted(targets: Targets, logits: Tensor | None = None) -> NextTokens:
    """Return the tokens that follow, and the model's predictions of them.

    Raises:
        ResidscopeError: If there are no token ids, or neither logits nor the final stream.
    """
    import torch

    view, (ids, real) = targets.view, following(targets.view)
    if logits is not None:
        targets.check_width(logits)
    log_prob = torch.full(ids.shape, float("nan"), device=ids.device)
    rank, runner_up = torch.zeros_like(ids), torch.zeros_like(ids)
    for prompt in range(view.batch):
        for start in range(0, view.n_pos, _BLOCK):
            report_progress()
            part = slice(start, start + _BLOCK)
            rows = _logits(targets, prompt, part, logits).to(ids.device)
            own = rows.gather(-1, ids[prompt, part, None])
            here = real[prompt, part]
            log_prob[prompt, part] = (own[:, 0] - rows.logsumexp(-1)).float().masked_fill(~here, float("nan"))
            rank[prompt, part] = ((rows > own).sum(-1) + 1).masked_fill(~here, 0)
            runner_up[prompt, part] = rows.scatter(-1, ids[prompt, part, None], float("-inf")).argmax(-1)
    return NextTokens(ids, real, log_prob, rank, runner_up)


_BLOCK = 256
"""The number of positions whose logits are computed at once."""


def _logits(targets: Targets, prompt: int, part: slice, given: Tensor | None) -> Float[Tensor, "pos d_vocab"]:
    """The model's logits at some positions of a prompt."""
    view = targets.view
    if given is not None:  # the model's output, so scale and soft-cap are in it already
        return working(given[prompt, part])
    name = view.first("unembed.hook_out", "hook_unembed")
    if name is not None:
        return targets.output(working(view.get(name)[prompt, part]))
    return targets.output(written_logits(cells_of(view, prompt, part), None)[:, 0])


def _check_predicted(ids: Int[Tensor, "batch pos"], wanted: Bool[Tensor, "batch pos"], size: int) -> None:
    """Refuse next tokens that the model embeds, but has no logits for."""
    beyond = ((ids >= size) & wanted).nonzero().tolist()
    if beyond:
        prompt, position = beyond[0]
        raise ResidscopeError(
            "token-id",
            f"The token {int(ids[prompt, position])} at position {position + 1} of prompt {prompt} has no logit: the "
            f"model predicts only {size} tokens (0 to {size - 1}).",
        )


def following(
    view: CacheView, wanted: Bool[Tensor, "batch pos"] | None = None
) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Return the id of the token after each position, and whether there is one.

    Some models embed more tokens than they predict. At positions that are not wanted, a token without a
    logit counts as no token.

    Args:
        view: The cache.
        wanted: The positions whose next token is used. None: all positions.

    Raises:
        ResidscopeError: If the token ids are not known, or a wanted token has no logit.
    """
    import torch

    tokens = view.tokens
    if tokens is None:
        raise ResidscopeError(
            "tokens",
            "The token that follows is not known: the cache holds no token ids (`embed.hook_in`), and they cannot be "
            "recovered from `hook_embed`. Pass `tokens=`.",
        )
    tokens = tokens.to(device=view.like.device, dtype=torch.long)
    ids = tokens.roll(-1, 1)
    real = positions.real(view).to(tokens.device)
    real = real & real.roll(-1, 1)
    real[:, -1] = False  # no token follows the last position
    if embedding_size(view.model) != (size := vocabulary_size(view.model)):
        _check_predicted(ids, real if wanted is None else real & wanted.to(real.device), size)
        real &= ids < size
    return ids.masked_fill(~real, 0), real
