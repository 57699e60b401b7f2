"""Targets of which each position has its own: the token that follows there.

All positions are decomposed in one pass. Each position becomes a prompt of one position: the same activations in
another shape, without a copy. Then every position may have its own direction, as every prompt may.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

from residscope.attribution.decompose import Query, decompose
from residscope.attribution.result import Attribution
from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.unembedding import written_logits
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.errors import ResidscopeError
from residscope.terms import Contrast, NextToken, Target

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class NextTokens:
    """The token that follows each position, and how the model predicted it. At positions without one, see `real`.

    Attributes:
        ids: Its id; 0 where there is none.
        real: Whether there is one: the position and the next one are both real tokens of the prompt.
        log_prob: The logarithm of the probability that the model gave it; NaN where there is none.
        rank: How many tokens the model found likelier; −1 where there is none.
        runner_up: The id of the most likely other token.
    """

    ids: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    log_prob: Float[Tensor, "batch pos"]
    rank: Int[Tensor, "batch pos"]
    runner_up: Int[Tensor, "batch pos"]


def next_tokens(targets: Targets, logits: Tensor | None = None) -> NextTokens:
    """The tokens that follow, and how the model predicted them.

    Raises:
        ResidscopeError: If there are no token ids, or neither logits nor the final stream.
    """
    import torch

    view, (ids, real) = targets.view, following(targets.view)
    log_prob = torch.full(ids.shape, float("nan"), device=ids.device)
    rank, runner_up = torch.full_like(ids, -1), torch.zeros_like(ids)
    for prompt in range(view.batch):
        for start in range(0, view.n_pos, _BLOCK):
            report_progress()
            part = slice(start, start + _BLOCK)
            rows = targets.output(_logits(view, prompt, part, logits)).to(ids.device)
            own = rows.gather(-1, ids[prompt, part, None])
            here = real[prompt, part]
            log_prob[prompt, part] = (own[:, 0] - rows.logsumexp(-1)).float().masked_fill(~here, float("nan"))
            rank[prompt, part] = (rows > own).sum(-1).masked_fill(~here, -1)
            runner_up[prompt, part] = rows.scatter(-1, ids[prompt, part, None], float("-inf")).argmax(-1)
    return NextTokens(ids, real, log_prob, rank, runner_up)


_BLOCK = 256
"""Positions of which all logits are read at once."""


def _logits(view: CacheView, prompt: int, part: slice, given: Tensor | None) -> Float[Tensor, "pos d_vocab"]:
    """What the unembedding wrote at some positions of a prompt."""
    if given is not None:
        return working(given[prompt, part])
    name = view.first("unembed.hook_out", "hook_unembed")
    if name is not None:
        return working(view.get(name)[prompt, part])
    return written_logits(_cells(view, prompt, part), None)[:, 0]


def following(view: CacheView) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """The id of the token after each position, and whether there is one.

    Raises:
        ResidscopeError: If the cache shows no token ids.
    """
    import torch

    tokens = view.tokens
    if tokens is None:
        raise ResidscopeError(
            "tokens",
            "Which token follows is not known, because the cache holds no token ids (`embed.hook_in`), and they do not "
            "follow from `hook_embed`. Pass them: `tokens=`.",
        )
    tokens = tokens.to(device=view.like.device, dtype=torch.long)
    ids = tokens.roll(-1, 1)
    at = torch.arange(view.n_pos, device=tokens.device)
    first, last = (
        torch.tensor(ends(view), device=tokens.device)[:, None] for ends in (positions.first, positions.last)
    )
    real = (first <= at) & (at < last)
    return ids.masked_fill(~real, 0), real


def decomposed(view: CacheView, targets: Targets, query: Query, logits: Tensor | None = None) -> Attribution:
    """`decompose`, also for a target of which each position has its own.

    Raises:
        ResidscopeError: As for `decompose`; or if a position has no next token.
    """
    own = query.target.next_token
    if own is None:
        return decompose(view, targets, query, logits)
    if query.where is not None:
        target = at_position(targets, own, query.where, logits)
        found = decompose(view, targets, replace(query, target=target), logits)
        return replace(found, target=query.target)
    if query.by == "source":
        raise ResidscopeError(
            "position",
            "The sources of each position's own next token are not computed for all positions at once: give one "
            'position, or use `by="head"`.',
        )
    return _everywhere(view, targets, query, own, logits)


def at_position(targets: Targets, own: NextToken, where: Int[Tensor, " batch"], logits: Tensor | None) -> Target:
    """The same target at one position of each prompt, as contrasts.

    Raises:
        ResidscopeError: If a prompt has no next token there.
    """
    ids, real = following(targets.view)
    prompts, places = range(targets.view.batch), where.tolist()
    for prompt, at in zip(prompts, places, strict=True):
        if not bool(real[prompt, at]):
            raise ResidscopeError(
                "position",
                f"Position {at} of prompt {prompt} has no next token: it is the last token of the prompt, or padding. "
                'Give an earlier position, or `position="all"`.',
            )
    second = None if own.versus is None else next_tokens(targets, logits).runner_up
    token = targets.vocabulary.token

    def contrast(prompt: int, at: int) -> Contrast:
        other = [] if second is None else [token(int(second[prompt, at]))]
        return Contrast([token(int(ids[prompt, at]))], other)

    return Target([contrast(prompt, at) for prompt, at in zip(prompts, places, strict=True)])


def _everywhere(view: CacheView, targets: Targets, query: Query, own: NextToken, logits: Tensor | None) -> Attribution:
    """Every position with its own direction."""
    import torch

    ids, real = following(view)
    second = None if own.versus is None else next_tokens(targets, logits).runner_up
    cells = _cells(view)
    each = Targets(cells, targets.vocabulary, targets.directions)
    flat = None if logits is None else logits.reshape(-1, 1, logits.shape[-1])
    token = targets.vocabulary.token
    names = {
        id: token(id) for id in set(ids.flatten().tolist() + ([] if second is None else second.flatten().tolist()))
    }
    others = [[]] * ids.numel() if second is None else [[names[id]] for id in second.flatten().tolist()]
    contrasts = [Contrast([names[id]], other) for id, other in zip(ids.flatten().tolist(), others, strict=True)]
    where = torch.zeros(cells.batch, dtype=torch.long)
    found = decompose(cells, each, replace(query, target=Target(contrasts), where=where), flat)
    gone = ~real.flatten()
    shape = (view.batch, view.n_pos)

    def placed(values: Tensor) -> Tensor:
        return values.masked_fill(gone.to(values.device), float("nan")).unflatten(-1, shape)

    notes = [note for note in found.notes if note not in targets.notes]
    notes.append(_LAST)
    return replace(
        found,
        values=placed(found.values),
        measured=placed(found.measured),
        constant=placed(found.constant),
        unexplained=placed(found.unexplained),
        axes=("component", "batch", "pos"),
        target=query.target,
        notes=notes,
    )


_LAST = "The last token of each prompt has no next token in the cache: its values, and those of padding, are NaN."


def _cells(view: CacheView, prompt: int | None = None, part: slice = slice(None)) -> CacheView:
    """Every position as a prompt of one position: a view of the same activations. Those between positions are left out.

    Args:
        view: The cache.
        prompt: A prompt; None is all.
        part: Its positions.
    """
    held: dict[str, Tensor] = {}
    for name in view.activations:
        if name.startswith("rotary_emb.") or name.rpartition(".")[2] in _BETWEEN:
            continue
        tensor = view.get(name)
        if tensor.ndim < 2 or tuple(tensor.shape[:2]) != (view.batch, view.n_pos):
            continue
        tensor = tensor if prompt is None else tensor[prompt : prompt + 1, part]
        held[name] = tensor.reshape(-1, 1, *tensor.shape[2:])
    like = SimpleNamespace(cache_dict=held, model=view.model, has_batch_dim=True)
    cells = CacheView(like, model=view.model)
    cells.facts, cells.padding_is_real = view.facts, True
    return cells


_BETWEEN = frozenset(("hook_pattern", "hook_attn_scores", "hook_cos", "hook_sin"))
"""Activations of pairs of positions."""
