"""Labels positions: by the token of one prompt, or by the tokens of all prompts at the position."""

from __future__ import annotations

from collections.abc import Callable

from residscope.cache import positions
from residscope.cache.special_tokens import special_ids
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.terms import TokenLabel

_VARIES = "∗"


def token_labels(view: CacheView, prompt: int | None) -> list[TokenLabel]:
    """Return the labels of one prompt's tokens.

    With `prompt=None`, a label is the token that all prompts have there, or up to 12 of their different tokens.
    Without token ids, the labels are the numbers of the positions.
    """
    tokens = view.tokens
    if tokens is None:
        return [TokenLabel(str(position)) for position in range(view.n_pos)]
    text, special = Vocabulary(view.model).text, special_ids(view)
    if prompt is None and view.batch > 1:
        return [_common(column, text, special) for column in tokens.T.tolist()]
    row, at = tokens[prompt or 0].tolist(), prompt or 0
    real = range(positions.first(view)[at], positions.last(view)[at] + 1)
    return [
        TokenLabel(text(id), id, padding=position not in real, special=id in special) for position, id in enumerate(row)
    ]


def token_texts(view: CacheView, prompt: int | None) -> list[str]:
    """Return the labels of `token_labels` as strings. A label is an asterisk where prompts differ, as in the panel."""
    return [_VARIES if label.varies and not label.text else label.text for label in token_labels(view, prompt)]


def mean_of_padded(view: CacheView, prompt: int | None, window: range | None = None) -> list[str]:
    """Return notes on a mean of attention maps over prompts: which padding was left out, and how it was recognised."""
    if prompt is not None or view.batch == 1:
        return []
    cells = "a cell is the mean over the prompts in which neither its destination nor its source is padding"
    return padding_in_mean(view, prompt, window, cells) + positions.assumed(view)


def padding_in_mean(
    view: CacheView,
    prompt: int | None,
    window: range | None = None,
    means: str = "the mean at a position is over the prompts in which it is not padding",
) -> list[str]:
    """Return a note if the mean over prompts at some position leaves out the prompts that have padding there.

    Args:
        view: The cache.
        prompt: The prompt. None: the mean.
        window: The positions that are shown. None: all positions.
        means: Over which prompts the mean is taken, in words.
    """
    if prompt is not None or view.batch == 1:
        return []
    window = window or range(view.n_pos)
    first, last = positions.first(view), positions.last(view)
    padded = sum(window.start < begin or window.stop - 1 > end for begin, end in zip(first, last, strict=True))
    if not padded:
        return []
    note = f"{padded} of {view.batch} prompts are padded: {means}."
    other = next((at for at, begin in enumerate(first) if begin != first[0]), None)
    if other is not None:
        at = max(first[0], first[other])
        note += (
            f" Because of padding, prompts begin at different positions: position {at} is token {at - first[0]} of "
            f"prompt 0, but token {at - first[other]} of prompt {other} (counted from 0)."
        )
    return [note]


def _common(column: list[int], text: Callable[[int], str], special: frozenset[int]) -> TokenLabel:
    """The label of one position in all prompts: the common token, or up to 12 of the different tokens."""
    different = list(dict.fromkeys(column))
    if len(different) == 1:
        return TokenLabel(text(different[0]), different[0], special=different[0] in special)
    return TokenLabel("", varies=[text(id) for id in different[:12]])
