"""The ideal attention patterns of known kinds of heads, as TransformerLens' `head_detector` defines them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.terms import Score

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


def patterns(
    score: Score, view: CacheView, prompts: Sequence[int], span: range
) -> Float[Tensor, "prompt destination source"]:
    """Return ideal attention patterns of the real tokens: 1 where a head of this kind attends, 0 elsewhere.

    Args:
        score: `"previous"`, `"duplicate"` or `"induction"`.
        view: The cache.
        prompts: The prompts.
        span: The real positions, which are the same in all of these prompts.

    Raises:
        ResidscopeError: If the score compares tokens, but the cache holds no token ids.

    Source: TransformerLens' `head_detector.get_previous_token_head_detection_pattern` and similar functions.
    """
    import torch

    if score == "previous":
        tokens = torch.zeros(view.batch, view.n_pos, dtype=torch.long, device="cpu")
    else:
        tokens = compared_tokens(view)
    rows = tokens[list(prompts), span.start : span.stop].cpu()
    detect = _pattern_function(score)
    with torch.device("cpu"):  # because `rows` is on the CPU, but the user may have set another default device
        cells = torch.stack([detect(row[None]) for row in rows])
    return cells.to(view.like)


def compared_tokens(view: CacheView) -> Int[Tensor, "batch pos"]:
    """Return the token ids.

    Raises:
        ResidscopeError: If they are not known.
    """
    if view.tokens is None:
        raise ResidscopeError(
            "no-tokens", "This score compares tokens, but the cache holds no token ids: pass `tokens=` [batch, pos]."
        )
    return view.tokens


def _pattern_function(score: Score) -> Callable[[Tensor], Tensor]:
    """TransformerLens' function for this score. If the installed release lacks it, this module's own."""
    try:
        from transformer_lens import head_detector

        names = {"previous": "previous_token", "duplicate": "duplicate_token", "induction": "induction"}
        return getattr(head_detector, f"get_{names[score]}_head_detection_pattern")
    except (ImportError, AttributeError):
        return {"previous": previous, "duplicate": duplicate, "induction": induction}[score]


def previous(tokens: Int[Tensor, "1 pos"]) -> Float[Tensor, "pos pos"]:
    """Return the pattern of attention to the token just before."""
    import torch

    count, device = tokens.shape[-1], tokens.device
    return torch.ones(count - 1, device=device).diag(-1) if count > 1 else torch.zeros(1, 1, device=device)


def duplicate(tokens: Int[Tensor, "1 pos"]) -> Float[Tensor, "pos pos"]:
    """Return the pattern of attention to earlier occurrences of the same token."""
    return (tokens == tokens.T).float().tril(-1)


def induction(tokens: Int[Tensor, "1 pos"]) -> Float[Tensor, "pos pos"]:
    """Return the pattern of attention to the token after an earlier occurrence of the same token."""
    shifted = duplicate(tokens).roll(1, dims=1)
    shifted[:, 0] = 0
    return shifted.tril()
