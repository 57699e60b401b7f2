"""Notes on the results of many items, in sentences."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from residscope.many.accumulator import Accumulator, ItemResult

_NOTES_SHOWN = 10


def notes_of(accumulator: Accumulator, results: dict[int, ItemResult]) -> list[str]:
    """The items' notes. Notes that differ only in numbers are merged. A note on only some items names these items."""
    by_kind: dict[str, dict[str, list[int]]] = {}
    for number, result in results.items():
        for note in result.facts.notes:
            by_kind.setdefault(_kind(note), {}).setdefault(note, []).append(number)
    notes: list[str] = []
    for items_by_note in list(by_kind.values())[:_NOTES_SHOWN]:
        note, numbers = next(iter(items_by_note)), sorted(itertools.chain.from_iterable(items_by_note.values()))
        if len(items_by_note) > 1:  # the numbers in the note are true for one item only
            notes.append(f"{_items(numbers)}, such as item {items_by_note[note][0]}: {note}")
        else:
            notes.append(note if len(numbers) == len(results) else f"{_items(numbers)}: {note}")
    if len(by_kind) > _NOTES_SHOWN:
        notes.append(f"There are {len(by_kind) - _NOTES_SHOWN} more notes on the items.")
    if len({result.facts.model for result in results.values()}) > 1:
        notes.append("The items come from several models, or the weights were changed between two items.")
    if len({result.facts.tokenizer for result in results.values()} - {()}) > 1:
        notes.append(
            "The items were read with several tokenizers, or the tokenizer was changed between two items: which tokens "
            "count as padding, and the tokens of words, may differ."
        )
    if accumulator.skipped:
        number, why = min(accumulator.skipped.items())
        were = "was" if len(accumulator.skipped) == 1 else "were"
        items = _items(sorted(accumulator.skipped))
        notes.append(f"{items} {were} left out (`.skipped` says why). Item {number}: {why}")
    return notes


_PADDED = re.compile("treated as (padded|real)|is on padding in|this prompt is padding|begin at different positions")


def _kind(note: str) -> str:
    """A note with its numbers replaced by `#`, so that notes of the same kind are equal."""
    bare = re.sub(r"[\d.,+−-]+(?:e[+−-]?\d+)?", "#", note)
    return re.sub(r"#(?: #)*(?: and #)?", "#", bare) if _PADDED.search(note) else bare


def _items(numbers: Sequence[int]) -> str:
    """The items with these numbers, in words."""
    if len(numbers) == 1:
        return f"Item {numbers[0]}"
    shown = ", ".join(map(str, numbers[:5]))
    return f"{len(numbers)} items ({shown}{', …' if len(numbers) > 5 else ''})"
