"""Whether answers lack the space that stands before a word inside a sentence: the commonest mistake with tokens.

It is a note, and never more: a word may well stand at the start of a line. The rule: the token of the same word with a
space exists, and the model itself, where the target is read, holds it for much likelier than the one that was given.
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
"""So many times likelier the word with a space must be, in the (geometric) mean over prompts and answers."""

_MOST = 64
"""Of so many prompts, and so many tokens, this is looked at."""


def without_space(
    targets: Targets, target: Target, where: Int[Tensor, " batch"] | None, logits: Tensor | None
) -> list[str]:
    """A note, where answers are words without a space and the model expects them with one.

    Args:
        targets: Resolves targets for the cache.
        target: What is attributed.
        where: Where it is read; None is every position, of which each prompt's last is looked at.
        logits: The model's output, where it was given.
    """
    if target.own or target.direction is not None:
        return []
    where = positions.resolve(targets.view, "last") if where is None else where
    vocabulary, pairs, more = targets.vocabulary, dict[int, tuple[Token, Token]](), 0.0
    for way in (vocabulary.perhaps_spaced, vocabulary.each_spaced):  # exactly only where there is something to say
        again, pairs = pairs, _pairs(targets, target, way)
        if not pairs:
            return []
        more = more if again == pairs else _likelier(targets, target, pairs, where, logits)
        if not more > math.log(_TIMES):
            return []
    named = " and ".join(quote(bare.text) for bare, _ in list(pairs.values())[:2])
    bare, spaced = next(iter(pairs.values()))
    times = "" if more > 700 else f", on average {math.exp(more):.2g} times likelier"
    return [
        f"{named} {'is a token' if len(pairs) == 1 else 'are tokens'} without a leading space, and where this is read "
        f"the model expects a word with one{times}: write {' ' + bare.text!r} for {quote(spaced.text)}, if that is "
        "meant."
    ]


def _likelier(
    targets: Targets,
    target: Target,
    pairs: dict[int, tuple[Token, Token]],
    where: Int[Tensor, " batch"] | None,
    logits: Tensor | None,
) -> float:
    """By how much the words with a space are likelier than those without, in logits; 0 where it is not known."""
    try:
        asked = [token for pair in pairs.values() for token in pair]
        figures: list[list[float]] = _logits(targets, asked, where, logits)[:_MOST].tolist()
    except ResidscopeError:  # what the model predicts there is not known
        return 0.0
    at = {id: 2 * column for column, id in enumerate(pairs)}
    shared = len(target.contrasts) == 1
    differences: list[float] = []
    for prompt, figure in enumerate(figures):
        contrast = target.contrasts[0 if shared else prompt]
        columns = [at[token.id] for token in (*contrast.answer, *contrast.distractor) if token.id in at]
        differences += [figure[column + 1] - figure[column] for column in columns]
    return sum(differences) / len(differences) if differences else 0.0


def _pairs(
    targets: Targets, target: Target, spaced: Callable[[list[Token]], list[Token | None]]
) -> dict[int, tuple[Token, Token]]:
    """The answers that begin a word without a space, each with the token that has one."""
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

    asked = Target([Contrast(tokens, [])])
    if given is not None:
        return targets.chosen(asked, targets.view.pick(targets.view.whole_logits(given), where))[:, 0]
    figures = written(targets, asked, where)[0]
    if figures is None:
        raise ResidscopeError("no-logits", "The model's predictions are not known.")
    return targets.output(figures)[:, 0]
