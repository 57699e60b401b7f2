"""`npm run docs`: all ways of padding, and whether values equal those of the prompts when each is run alone."""

from __future__ import annotations

from pathlib import Path

from tests.support import padded

RIGHT, NOTED, SILENT = "right", "noted", "**silent**"


def main(path: Path) -> None:
    """Measure all ways of padding, and write the tables."""
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
    "The smallest possible padding, about which token ids show the least: the shorter prompts, or all of them, are "
    "padded with exactly",
    "one token, the tokenizer's padding token or, by hand, another one (`pad_sequence` pads with `0`).",
    "",
    "A single token that is not declared as padding is treated as real, except before the BOS of some prompts, if the "
    "others begin with BOS. A note says that it could be padding if there is evidence",
    "for that, but not if prompts of the same length just end differently. Evidence at the end of some prompts, but "
    "not of all, is:",
    "token 0; a special token; a full stop or another sign without a letter, if others end with a word; any token that",
    "does not begin a word and occurs nowhere else, if it follows the last token of another prompt, or different words "
    "in several",
    "prompts. If every prompt begins with one BOS that is also the padding token, a note says so if the tokenizer pads "
    "on the",
    "left, or if BOS is the padding token but not the end of text. GPT-2 in its usual setup (one token for all three, "
    "padded on the",
    "right) is neither: a prompt after such a token is the same for the model, whether the token is called BOS or "
    "padding.",
    "",
    "No evidence can show: every prompt padded by hand with the same ordinary token, or a single prompt with one such "
    "token.",
]  # fmt: skip


def row(way: padded.Case, found: list[str]) -> str:
    """Return the row of one way of padding, with its results."""
    special = way.special if way.filling == "pad" else f"{way.special}, filled with {way.filling}"
    told = ["yes" if told else "–" for told in (way.bos, way.eos, way.fixed, way.masked)]
    return f"| {special} | {way.side} | {' | '.join(told)} | {' | '.join(found)} |"


def table(fixed: str, rows: list[str]) -> list[str]:
    """Return rows with their header. `fixed` is the heading of the column on what is padded."""
    heads = ["special tokens", "side", "BOS", "EOS", fixed, "mask given to the model", *padded.FIGURES]
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows]


def verdict(right: bool, notes: list[str]) -> str:
    """Return whether a value is right, wrong with a note on what was assumed, or wrong without a note."""
    return RIGHT if right else NOTED if notes else SILENT


def head(verdicts: list[str]) -> list[str]:
    """Return the text before the tables: what was run, and the results."""
    count = {kind: verdicts.count(kind) for kind in (RIGHT, NOTED, SILENT)}
    return [
        "# Padding",
        "",
        "One module decides where each prompt begins and ends (`residscope/cache/padding.py`, which has the rules). It "
        "uses this",
        "evidence, in this order: `attention_mask=`, the mask that shows in the cached attention, runs of the padding "
        "token, token ids.",
        "If tokens were treated as padding, or could be padding, the notes of the result say how many tokens these "
        "are, and where",
        "each prompt ends. To change it, pass `attention_mask=` (a tensor, an",
        "array, lists, or what the tokenizer returned); in the panel one click counts the tokens as real.",
        "",
        "A mask shows in the cached attention as zeros: no token attends to a masked token, in any layer or head, "
        "whatever token",
        "it is. Sharp attention also rounds to exactly 0. So the share of such zeros among the real tokens is counted "
        "for each head",
        "of each layer. If that many zeros could be chance (with a probability above 1 in 10,000, as with only one",
        "layer or one head cached), nothing is left out, and a note names both explanations. Without token ids, and if",
        "no mask shows, every mean over several prompts has a note that padding cannot be determined. A note also says "
        "if",
        "`attention_mask=` differs from the mask that the attention shows, and if a position counted from the end, "
        "such as",
        "`position=-1`, is on padding.",
        "",
        f"Below, a tiny model and three prompts in {len(WAYS)} ways to pad them. Each value is compared with that of "
        f"the same prompts run alone.",
        "**right**: it is equal. **noted**: it differs, and a note says what was assumed. Token ids alone cannot show "
        "whether a padding",
        "token that is also end of text (or BOS) is the prompt's own. And a model that was run without a mask has "
        "attended to tokens",
        "before a prompt, so no value of that run is that of the prompt alone.",
        f"**{count[RIGHT]} right, {count[NOTED]} noted, {count[SILENT]} silently wrong.** Made by `npm run docs`; do "
        f"not edit.",
    ]  # fmt: skip
