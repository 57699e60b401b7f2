"""Padding: every way that a tokenizer pads, and whether each figure is that of the prompts run alone."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
import padded

RIGHT, NOTED, SILENT = "right", "noted", "**silent**"


def main(path: Path) -> None:
    """Run every way, and write the table."""
    rows: list[str] = []
    verdicts: list[str] = []
    for special, side, bos, eos in product(padded.SPECIAL, ("right", "left"), (True, False), (True, False)):
        for fixed, masked in product((False, True), (False, True)):
            way = padded.Way(special, side, bos, eos, fixed, masked)
            found = [verdict(right, notes) for _, right, notes in padded.measured(way)]
            verdicts += found
            told = ["yes" if told else "–" for told in (bos, eos, fixed, masked)]
            rows.append(f"| {special} | {side} | {' | '.join(told)} | {' | '.join(found)} |")
    path.write_text("\n".join([*head(verdicts), *rows]) + "\n")
    print(path)


def verdict(right: bool, notes: list[str]) -> str:
    """Whether a figure is right; if it is not, whether a note says what was assumed."""
    return RIGHT if right else NOTED if notes else SILENT


def head(verdicts: list[str]) -> list[str]:
    """What was run, and what came of it."""
    count = {kind: verdicts.count(kind) for kind in (RIGHT, NOTED, SILENT)}
    ways = len(verdicts) // len(padded.FIGURES)
    return [
        "# Padding",
        "",
        "Where each prompt begins and ends is decided in one place (`residscope/padding.py`, which has the rules), from the",
        "evidence in this order: `attention_mask=`, the mask that the cached attention shows, runs of the padding token, ids.",
        "Wherever something was taken for padding, or could be, the notes of the result say how many tokens that are, and where",
        "each prompt is read. To change it, pass `attention_mask=` (a tensor, an",
        "array, lists, or what the tokenizer returned) or `position=`; in the panel one click counts the tokens as real.",
        "",
        f"Below, a tiny model and three prompts in {ways} ways to pad them, each figure held against the same prompts run alone.",
        "**right**: it is theirs. **noted**: it is not, and a note says what was assumed: ids alone cannot tell whether a padding",
        "token that is also end of text (or BOS) is the prompt's own; and a model that was run without a mask has read what stands",
        "before a prompt, so no figure of that run is the prompt's alone.",
        f"**{count[RIGHT]} right, {count[NOTED]} noted, {count[SILENT]} silently wrong.** Made by `npm run docs`; do not edit.",
        "",
        "| special tokens | side | BOS | EOS | longest padded too | mask given to the model | "
        + " | ".join(padded.FIGURES) + " |",
        "|---" * (6 + len(padded.FIGURES)) + "|",
    ]  # fmt: skip
