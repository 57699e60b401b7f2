"""Notes on differences between two runs: their tokens, their answers, and the notes of each run."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from residscope.attribution.attention_score import HeadScore
from residscope.comparison.alignment import Alignment, Pairs, listed
from residscope.comparison.runs import Run
from residscope.comparison.same_shape import same_vocabulary
from residscope.terms import AttentionScore, Target


def named_positions(target: Target) -> list[int]:
    """Return the positions that are a part of the target."""
    places = [one.source for one in target.through]
    if isinstance(target.inner, AttentionScore):
        places += [at for at in (target.inner.destination, target.inner.source, target.inner.versus) if at is not None]
    return [at for at in places if isinstance(at, int)]


def of_runs(one: Sequence[str], two: Sequence[str]) -> list[str]:
    """Return the notes of both runs. Each note names its run."""
    both = [f"Both runs: {note}" for note in one if note in two]
    return [
        *both,
        *(f"First run: {note}" for note in one if note not in two),
        *(f"Second run: {note}" for note in two if note not in one),
    ]


def token_notes(
    first: Run, second: Run, targets: tuple[Target, Target], where: Pairs, pairs: Pairs | None, axes: Sequence[str]
) -> list[str]:
    """Return notes on different tokens at the compared positions."""
    notes: list[str] = []
    batch = first.view.batch
    if where:
        notes += different_tokens(first, second, [[pair] for pair in where], "position that is compared")
    if pairs is not None:
        sources = "source" in axes and "destination" not in axes
        notes += different_tokens(
            first, second, [pairs] * batch, "sources" if sources else "positions that are compared"
        )
    named = [
        [at % run.view.n_pos for at in named_positions(target)]
        for run, target in zip((first, second), targets, strict=True)
    ]
    beside = list(zip(*named, strict=True))
    if beside:
        notes += different_tokens(first, second, [beside] * batch, "positions that the target names")
    return notes


def target_notes(
    targets: tuple[Target, Target], scores: tuple[HeadScore | None, HeadScore | None], alignment: Alignment
) -> list[str]:
    """Return notes on a target that differs between the runs."""
    notes: list[str] = []
    if targets[0].contrasts != targets[1].contrasts:
        notes.append(
            "The two runs have different answers. The part of the difference that comes from this is in the "
            "comparison's `read` values."
        )
    if scores[0] is not None and scores[1] is not None:
        notes += _versus_note(scores[0], scores[1], alignment)
    return notes


def _versus_note(one: HeadScore, two: HeadScore, alignment: Alignment) -> list[str]:
    """A note if the source with which a score is compared differs between the runs."""
    if one.target.versus != "most" or one.versus is None or two.versus is None:
        return []
    pairs = list(zip(one.versus.tolist(), two.versus.tolist(), strict=True))
    differ = [prompt for prompt, (at, other) in enumerate(pairs) if alignment.of_prompt(prompt).get(at) != other]
    if not differ:
        return []
    at, other = pairs[differ[0]]
    this, example = "This", ""
    if len(pairs) > 1:
        this = f"In {len(differ)} of {len(pairs)} prompts, this"
        example = f"{', for example' if len(differ) > 1 else ','} in prompt {differ[0]}"
    return [
        f"The score is compared with the other source that has the most attention. {this} source is not at matched "
        f"positions in the two runs{example}: position {at} in the first, position {other} in the second. To ask both "
        "runs the same question, name the other source (`versus=…`)."
    ]


def different_tokens(first: Run, second: Run, compared: Sequence[Sequence[tuple[int, int]]], what: str) -> list[str]:
    """Return a note on positions at which the two runs have different tokens.

    Args:
        first: The first run.
        second: The second run.
        compared: The pairs of positions that are compared, for each prompt.
        what: What these positions are, in words, such as "sources".
    """
    differ = places_that_differ(first, second, compared)
    places = sorted({at for some in differ for at in some})
    if not places:
        return []
    count, prompts = sum(map(bool, differ)), len(differ)
    where = f" in {count} of {prompts} prompts" if prompts > 1 else ""
    return [f"The two runs have different tokens at the {what}{where}: {listed(places)} of the first run."]


def places_that_differ(first: Run, second: Run, compared: Sequence[Sequence[tuple[int, int]]]) -> list[list[int]]:
    """The positions of the first run, in each prompt, whose matched position in the second run has another token.

    There are none if the tokens of a run are not known.
    """
    rows, others = first.tokens(as_texts=False), second.tokens(as_texts=False)
    if rows is None or others is None:
        return [[] for _ in compared]
    differs = operator.ne if same_vocabulary(first.view, second.view) else _names_differ(first, second)
    return [
        [at for at, beside in pairs if differs(rows[prompt][at], others[prompt][beside])]
        for prompt, pairs in enumerate(compared)
    ]


def _names_differ(first: Run, second: Run) -> Callable[[Any, Any], bool]:
    """Return a function that compares the texts of two ids, each in its own vocabulary. Each id is decoded once."""
    own, other = (cache(run.targets.vocabulary.text) for run in (first, second))
    return lambda one, two: own(one) != other(two)
