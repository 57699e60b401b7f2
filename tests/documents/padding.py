"""Padding: every way that a tokenizer pads, and whether each figure is that of the prompts run alone."""

from __future__ import annotations

from pathlib import Path

from tests.support import padded

RIGHT, NOTED, SILENT = "right", "noted", "**silent**"


def main(path: Path) -> None:
    """Run every way, and write the tables."""
    ways = {way: [verdict(right, notes) for _, right, notes in padded.measured(way)] for way in WAYS}
    lines = [*head([one for found in ways.values() for one in found])]
    lines += ["", *table("longest padded too", [row(way, ways[way]) for way in padded.WAYS])]
    lines += ["", *ONE, "", *table("every prompt", [row(way, ways[way]) for way in padded.ONE])]
    path.write_text("\n".join(lines) + "\n")
    print(path)


WAYS = padded.WAYS + padded.ONE

ONE = [
    "## One token",
    "",
    "The smallest padding there is, of which ids tell least: the shorter prompts, or all of them, are filled up with "
    "exactly",
    "one token, the tokenizer's padding token or another one by hand (`0` is what `pad_sequence` fills with).",
    "",
    "A single token that nobody calls padding is read as real. A note says that it could be padding where something "
    "speaks",
    "for it, and none where prompts of one length just end differently. At the end of some prompts and not of others "
    "that is:",
    "token 0; a special token; a full stop or another sign without a letter, where others end with a word; any token "
    "that",
    "begins no word and stands nowhere else, where it follows what another prompt ends with, or different words in "
    "several",
    "prompts. Where every prompt begins with one BOS that is also the padding token, it is noted if the tokenizer pads "
    "on the",
    "left, or if BOS is padding and not end of text. GPT-2 as everybody uses it (one token for all three, padded on "
    "the",
    "right) is neither: a prompt behind such a token is the same to the model, whether it is called BOS or padding.",
    "",
    "What no evidence tells: every prompt filled by hand with the same ordinary token, and one prompt with one such "
    "token.",
]  # fmt: skip


def row(way: padded.Way, found: list[str]) -> str:
    """One way, and what came of it."""
    special = way.special if way.filling == "pad" else f"{way.special}, filled with {way.filling}"
    told = ["yes" if told else "–" for told in (way.bos, way.eos, way.fixed, way.masked)]
    return f"| {special} | {way.side} | {' | '.join(told)} | {' | '.join(found)} |"


def table(fixed: str, rows: list[str]) -> list[str]:
    """Rows under their heads; `fixed` says what is padded."""
    heads = ["special tokens", "side", "BOS", "EOS", fixed, "mask given to the model", *padded.FIGURES]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows]


def verdict(right: bool, notes: list[str]) -> str:
    """Whether a figure is right; if it is not, whether a note says what was assumed."""
    return RIGHT if right else NOTED if notes else SILENT


def head(verdicts: list[str]) -> list[str]:
    """What was run, and what came of it."""
    count = {kind: verdicts.count(kind) for kind in (RIGHT, NOTED, SILENT)}
    return [
        "# Padding",
        "",
        "Where each prompt begins and ends is decided in one place (`residscope/cache/padding.py`, which has the "
        "rules), from the",
        "evidence in this order: `attention_mask=`, the mask that the cached attention shows, runs of the padding "
        "token, ids.",
        "Wherever something was taken for padding, or could be, the notes of the result say how many tokens that are, "
        "and where",
        "each prompt is read. To change it, pass `attention_mask=` (a tensor, an",
        "array, lists, or what the tokenizer returned) or `position=`; in the panel one click counts the tokens as "
        "real.",
        "",
        "A mask shows in the cached attention as zeros: nobody reads a masked token, in no layer and no head, whatever "
        "token",
        "it is. Sharp attention rounds to exactly 0, too. So of each layer and head it is counted how often it does so "
        "among",
        "the real tokens; where that many zeros together could be chance (more often than once in ten thousand, as "
        "with one",
        "layer or one head cached), nothing is left out, and a note says that it could be either. Without token ids, "
        "and with",
        "no mask to be seen, every mean over several prompts says that padding cannot be determined. A note also says "
        "where",
        "`attention_mask=` is not the mask that the attention shows, and where a position counted from the end, such "
        "as",
        "`position=-1`, lies on padding.",
        "",
        f"Below, a tiny model and three prompts in {len(WAYS)} ways to pad them, each figure held against the same "
        f"prompts run alone.",
        "**right**: it is theirs. **noted**: it is not, and a note says what was assumed: ids alone cannot tell "
        "whether a padding",
        "token that is also end of text (or BOS) is the prompt's own; and a model that was run without a mask has read "
        "what stands",
        "before a prompt, so no figure of that run is the prompt's alone.",
        f"**{count[RIGHT]} right, {count[NOTED]} noted, {count[SILENT]} silently wrong.** Made by `npm run docs`; do "
        f"not edit.",
    ]  # fmt: skip
