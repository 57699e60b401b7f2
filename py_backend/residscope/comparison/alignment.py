"""The alignment of two runs: which position of the second run is matched with which position of the first."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any, Literal

import msgspec

from residscope.base.arrays import as_list
from residscope.base.legible import cut
from residscope.cache.padding import padding
from residscope.comparison.runs import Run
from residscope.comparison.same_shape import same_vocabulary
from residscope.errors import ResidscopeError
from residscope.terms import AttentionScore, Target

Pairs = list[tuple[int, int]]
"""Pairs of a position of the first run and the matched position of the second, in the order of the first."""

Align = Sequence[tuple[int, int]] | Literal["by token"]
"""Pairs of positions (first run, second run), or `"by token"`: the tokens that both prompts have in the same order."""


@dataclass(frozen=True)
class Alignment:
    """The matched positions of the two runs.

    Attributes:
        pairs: The pairs of each prompt. None if the lengths differ and no alignment was given.
        lengths: The number of positions in each run.
        is_index: Whether every position is matched with the position of the same index.
        why: The reason why there are no pairs, as the beginning of a sentence.
        notes: Notes on how the positions were matched.
    """

    pairs: list[Pairs] | None
    lengths: tuple[int, int]
    is_index: bool = False
    why: str = ""
    notes: list[str] = field(default_factory=list[str])

    def of_prompt(self, prompt: int) -> dict[int, int]:
        """Return the pairs of one prompt as a mapping from positions of the first run to positions of the second.

        Raises:
            ResidscopeError: If there are no pairs.
        """
        if self.pairs is None:
            raise ResidscopeError("align", f"{self.why}: {HOW}")
        return dict(self.pairs[prompt])

    def second(self, prompt: int, position: int) -> int:
        """Return the position in the second run that is matched with a position in the first.

        Raises:
            ResidscopeError: If no position of the second run is matched with `position`.
        """
        found = self.of_prompt(prompt).get(position)
        if found is None:
            raise ResidscopeError(
                "align", f"Position {position} of the first run is not matched with a position of the second: {HOW}"
            )
        return found

    def common(self) -> Pairs:
        """Return the pairs that all prompts have.

        Raises:
            ResidscopeError: If the pairs differ between prompts, or there are none.
        """
        if self.pairs is None:
            raise ResidscopeError("align", f"{self.why}: {HOW}")
        first = self.pairs[0]
        if any(pairs != first for pairs in self.pairs):
            raise ResidscopeError(
                "align",
                "The matched positions differ from prompt to prompt (in their tokens, or in their padding): compare "
                "one prompt at a time (`prompt=`), or give `align=` pairs that hold for all.",
            )
        if not first:
            raise ResidscopeError("align", f"No position of the first run is matched with one of the second: {HOW}")
        return first

    def left_out(self) -> list[str]:
        """Return a note on positions that are not matched. The pairs must be the same in all prompts."""
        pairs = self.common()
        left = [sorted(set(range(count)) - {pair[at] for pair in pairs}) for at, count in enumerate(self.lengths)]
        if not any(left):
            return []
        which = [
            f"{listed(some)} of the {name} run" for name, some in zip(("first", "second"), left, strict=True) if some
        ]
        return [f"{len(pairs)} pairs of positions are compared. Positions without a match are left out: "
                f"{' and '.join(which)}."]  # fmt: skip

    def of_target(self, target: Target) -> Target:
        """Return the target in the second run. Each position in it is replaced by the matched position.

        Raises:
            ResidscopeError: If a position has no match, or different matches in different prompts.
        """
        if self.is_index:
            return target
        inner, length = target.inner, self.lengths[0]

        def moved(position: int) -> int:
            found = {self.second(prompt, position % length) for prompt in range(len(self.pairs or [()]))}
            if len(found) > 1:
                raise ResidscopeError(
                    "align",
                    f"Position {position} is matched with different positions of the second run in different prompts: "
                    "compare one prompt at a time (`prompt=`).",
                )
            return found.pop()

        if isinstance(inner, AttentionScore):
            places = {name: getattr(inner, name) for name in ("destination", "source", "versus")}
            inner = msgspec.structs.replace(
                inner, **{name: moved(at) for name, at in places.items() if isinstance(at, int)}
            )
        through = [
            one if one.source is None else msgspec.structs.replace(one, source=moved(one.source))
            for one in target.through
        ]
        return msgspec.structs.replace(target, inner=inner, through=through)


HOW = (
    'give `align=`, pairs of positions `[(first, second), …]`, or `align="by token"` for the tokens that both prompts '
    "have in the same order."
)


def alignment_of(first: Run, second: Run, align: Align | None) -> Alignment:
    """Return the given alignment. If none was given, match prompts of the same length by index.

    If the padding of the two runs differs, the index is counted from the first real token, and padding is left out. If
    two prompts without their padding have different lengths, the alignment has no pairs.

    Raises:
        ResidscopeError: If `align` is not an alignment of these prompts.
    """
    lengths = first.view.n_pos, second.view.n_pos
    if align is not None and isinstance(align, str):
        if align != "by token":
            raise ResidscopeError("align", f'`align="{align}"` is not known: {HOW}')
        return Alignment(_by_token(first, second), lengths)
    if align is not None:
        pairs = _given(align, lengths)
        return Alignment([pairs] * first.view.batch, lengths)
    ends = [padding(run.view) for run in (first, second)]
    if lengths[0] == lengths[1] and (ends[0].first, ends[0].last) == (ends[1].first, ends[1].last):
        every = [(at, at) for at in range(lengths[0])]
        return Alignment([every] * first.view.batch, lengths, is_index=True)
    real = [[range(*_span(one, at)) for at in range(first.view.batch)] for one in ends]
    for prompt, (one, two) in enumerate(zip(*real, strict=True)):
        if len(one) != len(two):
            where = f" in prompt {prompt}" if first.view.batch > 1 else ""
            counts = f"{len(one)} and {len(two)} tokens{where}"
            why = f"The prompts have {counts}, so their positions cannot be matched by index"
            return Alignment(None, lengths, why=why)
    pairs = [list(zip(one, two, strict=True)) for one, two in zip(*real, strict=True)]
    note = (
        "The padding of the two runs differs: positions are matched by their place in the prompt without its padding."
    )
    return Alignment(pairs, lengths, notes=[note])


def _span(ends: Any, prompt: int) -> tuple[int, int]:
    return ends.first[prompt], ends.last[prompt] + 1


def _given(align: Any, lengths: tuple[int, int]) -> Pairs:
    """The pairs that a user wrote, in the order of the first run. Negative positions are counted from the end."""
    try:
        given = as_list(align)
        pairs = [(index(one), index(two)) for one, two in given]
    except (TypeError, ValueError):
        raise ResidscopeError("align", f"`align={cut(repr(align), 80)}` is not an alignment: {HOW}") from None
    for at, name in enumerate(("first", "second")):
        for pair in pairs:
            if not -lengths[at] <= pair[at] < lengths[at]:
                raise ResidscopeError(
                    "align", f"`align=` names position {pair[at]} of the {name} run, which has {lengths[at]} positions."
                )
    pairs = [(one % lengths[0], two % lengths[1]) for one, two in pairs]
    for at, name in enumerate(("first", "second")):
        twice = _repeated(pair[at] for pair in pairs)
        if twice is not None:
            raise ResidscopeError("align", f"`align=` names position {twice} of the {name} run twice.")
    if not pairs:
        raise ResidscopeError("align", f"`align=` is empty: {HOW}")
    return sorted(pairs)


def _repeated(values: Iterable[int]) -> int | None:
    seen: set[int] = set()
    return next((value for value in values if value in seen or seen.add(value)), None)


def _by_token(first: Run, second: Run) -> list[Pairs]:
    """For each prompt, the longest sequence of tokens that both runs have in the same order, possibly with gaps."""
    texts = not same_vocabulary(first.view, second.view)
    rows = [run.tokens(as_texts=texts) for run in (first, second)]
    if rows[0] is None or rows[1] is None:
        which = "first" if rows[0] is None else "second"
        raise ResidscopeError(
            "align",
            f'`align="by token"` needs the token ids of both runs, and those of the {which} are not known: pass '
            f"`{'tokens' if which == 'first' else 'other_tokens'}=`.",
        )
    found: list[Pairs] = []
    for prompt, (one, two) in enumerate(zip(rows[0], rows[1], strict=True)):
        spans = [_span(padding(run.view), prompt) for run in (first, second)]
        pairs = _common(one[slice(*spans[0])], two[slice(*spans[1])])
        found.append([(i + spans[0][0], j + spans[1][0]) for i, j in pairs])
    return found


def _common(one: list[Hashable], two: list[Hashable]) -> Pairs:
    """A longest common subsequence. If `one` and `two` are exchanged, only the sides of the pairs are exchanged."""
    shortest = min(len(one), len(two))
    start = next((i for i in range(shortest) if one[i] != two[i]), shortest)
    left = shortest - start
    end = next((i for i in range(left) if one[-1 - i] != two[-1 - i]), left)
    middle = _common_middle(one[start : len(one) - end], two[start : len(two) - end])
    pairs = [(i, i) for i in range(start)] + [(i + start, j + start) for i, j in middle]
    return pairs + [(len(one) - end + i, len(two) - end + i) for i in range(end)]


_MOST_CELLS = 4_000_000
"""The largest number of cells of the table for finding common tokens. Filling such a table takes about a second."""


def _common_middle(one: list[Hashable], two: list[Hashable]) -> Pairs:
    if (len(one), [str(token) for token in one]) > (len(two), [str(token) for token in two]):
        return [(j, i) for i, j in _common_middle(two, one)]
    if len(one) * len(two) > _MOST_CELLS:
        raise ResidscopeError(
            "align",
            f"{len(one):,} and {len(two):,} tokens lie between the first and the last difference of the prompts: too "
            "many to be matched by token. Give `align=` as pairs of positions.",
        )
    best = [[0] * (len(two) + 1) for _ in range(len(one) + 1)]
    for i in range(len(one) - 1, -1, -1):
        row, below = best[i], best[i + 1]
        for j in range(len(two) - 1, -1, -1):
            row[j] = below[j + 1] + 1 if one[i] == two[j] else max(below[j], row[j + 1])
    pairs, i, j = Pairs(), 0, 0
    while i < len(one) and j < len(two):
        if one[i] == two[j]:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif best[i + 1][j] >= best[i][j + 1]:
            i += 1
        else:
            j += 1
    return pairs


def listed(positions: Sequence[int]) -> str:
    """Return positions in words, at most eight of them."""
    some = ", ".join(map(str, positions[:8]))
    more = f" and {len(positions) - 8} more" if len(positions) > 8 else ""
    return f"position{'s' if len(positions) > 1 else ''} {some}{more}"
