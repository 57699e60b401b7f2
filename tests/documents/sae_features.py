"""`npm run docs`: runs the code of the page on features of SAEs, and writes its numbers into the page."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any

import residscope
from tests.documents.causes import number, put
from tests.support import pages

PAGE = "py_backend/docs/sae-features.md"
_STRONGEST = 3


def main(path: Path) -> None:
    """Run the code of the page, and write its numbers into it."""
    text = path.read_text("utf-8")
    names = pages.run_page(PAGE, residscope.demo.ioi())
    for name, lines in numbers(names).items():
        text = put(text, name, lines)
    path.write_text(text, "utf-8")
    print(path)


def numbers(names: dict[str, Any]) -> dict[str, list[str]]:
    """Return the lines between the marks of the page, from the variables of its code."""
    return {"rows": rows(names), "why": why(names)}


def rows(names: dict[str, Any]) -> list[str]:
    """Return a table of the rows of prompt 4 that replace the MLP's row."""
    run, result, values = names["run"], names["result"], names["rows"]
    layers = residscope.attribute(run.cache, run.answers, by="layer")
    site = float(layers.values[layers.labels.index("23_mlp_out"), 4])
    table = dict(zip(result.labels, values.tolist(), strict=True))
    active = [row.label for row in result.components if row.kind == "feature" and table[row.label] != 0]
    assert len(active) == 1
    shown = ["error", *active, "b_dec"]
    summed = sum(table[label] for label in shown)
    assert abs(summed - site) < 1e-5
    assert abs(float(values.sum() + result.constant[4] - result.measured[4])) < 1e-4
    prompt, place = divmod(int(active[0][1:]), run.tokens.shape[1] - 1)
    token = run.model.tokenizer.decode([int(run.tokens[prompt, place + 1])]).strip()
    words = {"error": "what this feature leaves over", "b_dec": "the mean over all tokens of the examples"}
    words[active[0]] = f"like “{token}” at position {place + 1} of prompt {prompt}"
    return [
        "At the last token of prompt 4, the target is right name − wrong name:",
        "",
        "| row | contribution | |",
        "|---|---|---|",
        *(f"| `{label}` | {number(table[label])} | {words[label]} |" for label in shown),
        f'| sum | {number(summed)} | the row `23_mlp_out` of `by="layer"`: {number(site)} |',
        "",
        *wrap(result.notes[0], 118),
    ]


def why(names: dict[str, Any]) -> list[str]:
    """Return a sentence on the heads that contribute most to a feature's input."""
    found = names["why"]
    measured, total = float(found.measured.mean()), float((found.values.sum(0) + found.constant).mean())
    assert abs(measured - total) < 1e-3 * abs(measured)
    strongest = ", ".join(f"{label} {number(value, 1)}" for label, value in found.top(_STRONGEST)[:_STRONGEST])
    return [
        f"At the last token this feature reads {number(measured, 1)} (mean over the prompts). The rows and the",
        f"constant sum to {number(total, 1)}. The strongest heads: {strongest}.",
    ]
