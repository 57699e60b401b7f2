"""Checks whether answers lack the leading space of a word inside a sentence. This is a common mistake with tokens.

The result is only a note, because a word at the start of a line has no space. The note appears if the same word with a
space is also one token, and has a much higher probability at the target's position.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.vocabulary import quote
from residscope.errors import ResidscopeError
from residscope.terms import Contrast, Target, Token

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_TIMES = 10.0
"""The word with a space must be this many times likelier, in the geometric mean over prompts and answers."""

_MOST = 64
"""At most this many prompts, and at most this many tokens, are checked."""


def without_space(
    targets: Targets, target: Target, where: Int[Tensor, " batch"] | None, logits: Tensor | None
) -> list[str]:
    """Return a note if answers are words without a space, but the model expects these words with a space.

    Args:
        targets: Resolves targets for the cache.
        target: The target that is attributed.
        where: The position in each prompt. None: every position (but only the last real token is checked).
        logits: The model's output, if the user passed it.
    """
    if target.own or target.direction is not None or target.inner is not None:
        return []
    where = positions.resolve(targets.view, "last") if where is None else where
    vocabulary, pairs, log_ratio = targets.vocabulary, dict[int, tuple[Token, Token]](), 0.0
    # The slow, exact method is needed only if the fast method finds a word.
    for spaced_tokens in (vocabulary.perhaps_spaced, vocabulary.each_spaced):
        previous, pairs = pairs, _pairs(targets, target, spaced_tokens)
        if not pairs:
            return []
        log_ratio = log_ratio if previous == pairs else _log_ratio(targets, target, pairs, where, logits)
        if not log_ratio > math.log(_TIMES):
            return []
    named = " and ".join(quote(bare.text) for bare, _ in list(pairs.values())[:2])
    bare, spaced = next(iter(pairs.values()))
    times = "" if log_ratio > 700 else f", on average {math.exp(log_ratio):.2g} times likelier"
    return [
        f"{named} {'is a token' if len(pairs) == 1 else 'are tokens'} without a leading space, and at this position "
        f"the model expects a word with one{times}. If you mean {quote(spaced.text)}, write {' ' + bare.text!r}."
    ]


def _log_ratio(
    targets: Targets,
    target: Target,
    pairs: dict[int, tuple[Token, Token]],
    where: Int[Tensor, " batch"] | None,
    logits: Tensor | None,
) -> float:
    """The mean logit of the words with a space, minus the mean logit of the words without. 0 if not known."""
    try:
        tokens = [token for pair in pairs.values() for token in pair]
        logits_of: list[list[float]] = _logits(targets, tokens, where, logits)[:_MOST].tolist()
    except ResidscopeError:  # the model's prediction at this position is not known
        return 0.0
    first_column = {id: 2 * column for column, id in enumerate(pairs)}
    shared = len(target.contrasts) == 1
    differences: list[float] = []
    for prompt, row in enumerate(logits_of):
        contrast = target.contrasts[0 if shared else prompt]
        tokens = (*contrast.answer, *contrast.distractor)
        columns = [first_column[token.id] for token in tokens if token.id in first_column]
        differences += [row[column + 1] - row[column] for column in columns]
    return sum(differences) / len(differences) if differences else 0.0


def _pairs(
    targets: Targets, target: Target, spaced: Callable[[list[Token]], list[Token | None]]
) -> dict[int, tuple[Token, Token]]:
    """The answers that begin a word without a space, each with the token of the same word with a space."""
    vocabulary = targets.vocabulary
    if vocabulary.tokenizer is None:
        return {}
    ids = (t.id for contrast in target.contrasts[:_MOST] for t in (*contrast.answer, *contrast.distractor))
    bare = [vocabulary.token(id) for id in list(dict.fromkeys(ids))[:_MOST]]
    return {one.id: (one, other) for one, other in zip(bare, spaced(bare), strict=True) if other is not None}


def _logits(
    targets: Targets, tokens: list[Token], where: Int[Tensor, " batch"] | None, given: Tensor | None
) -> Float[Tensor, "batch token"]:
    """The model's logits of some tokens, at one position of each prompt."""
    from residscope.attribution.model_value import written

    target = Target([Contrast(tokens, [])])
    if given is not None:
        return targets.chosen(target, targets.view.pick(targets.view.whole_logits(given), where))[:, 0]
    logits = written(targets, target, where)[0]
    if logits is None:
        raise ResidscopeError("no-logits", "The model's predictions are not known.")
    return targets.output(logits)[:, 0]
