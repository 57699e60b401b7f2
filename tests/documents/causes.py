"""`npm run docs`: replay and effects on every family, and direct and total effects of heads in a task.

The results for the families are written to `effects.md`. In `causes.md`, only the parts between marks are written.
"""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch

import residscope
from tests.support import tiny
from tests.support.cause_families import RIGHT, Row, measured

HEADS = {
    "L23H3": "lowers the wrong name, and later layers build on it",
    "L29H1": "the last layer: nothing can follow but its MLP",
    "L23H0": "writes the name, but the model compensates for it",
    "L23H2": "the same; without it, the model is even surer",
    "L20H0": "acts only through other components",
    "L1H4": "acts only through other components",
}
"""Heads of the demo model, with sentences on their effects. `check` compares the sentences with the numbers."""

READERS = {
    "L23H3": "reads the same positions, which have another name now",
    "L29H1": "reads the same positions, which have another name now",
    "L23H0": "reads other positions, because its query changes",
    "L24H4": "the same; its changed values have the opposite effect",
}
"""Heads of the demo model, with sentences on what they read. `check_parts` compares the sentences with the numbers."""

LAYERS = (0, 5, 10, 15, 20, 25, 29)
"""The layers whose incoming stream is patched, for a table of `causes.md`."""


def main(path: Path) -> None:
    """Run everything and write both documents."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    text = path.read_text("utf-8")
    run = residscope.demo.ioi()
    text = put(text, "heads", heads(run))
    text = put(text, "stream", stream(run))
    text = put(text, "parts", parts(run))
    path.write_text(text, "utf-8")
    print(path)
    families = path.with_name("effects.md")
    families.write_text("\n".join(written({name: measured(name) for name in tiny.FAMILIES})) + "\n", "utf-8")
    print(families)


def put(text: str, name: str, lines: list[str]) -> str:
    """Return the document with these lines between the marks of this name."""
    start, end = f"<!-- {name}: made by npm run docs -->\n", f"<!-- end of {name} -->"
    before, _, rest = text.partition(start)
    assert rest
    return before + start + "\n".join(["", *lines, "", ""]) + end + rest.partition(end)[2]


def between(text: str, name: str) -> str:
    """Return the text between the marks of this name."""
    found = re.search(f"<!-- {name}: .*?-->(.*)<!-- end of {name} -->", text, re.DOTALL)
    assert found is not None
    return found[1]


def number(value: Any, digits: int = 3) -> str:
    """Return a value as text, with its sign."""
    return f"{float(value):+.{digits}f}".replace("-", "−")


def heads(run: Any) -> list[str]:
    """Return total, direct and indirect effects of some heads."""
    found = residscope.ablate(run.cache, run.answers, list(HEADS), progress=False)
    total, direct, indirect = (found.of(effect).tolist() for effect in ("total", "direct", "indirect"))
    check({name: row for name, *row in zip(HEADS, total, direct, indirect, strict=True)})
    rows = zip(HEADS.items(), total, direct, indirect, strict=True)
    before = number(found.before.mean(), 2)
    return [
        f"On the demo model (mean over the eight prompts; the target is right name − wrong name, {before}):",
        "",
        "| head | total | direct | indirect | |",
        "|---|---|---|---|---|",
        *(f"| {name} | {' | '.join(map(number, row))} | {words} |" for (name, words), *row in rows),
    ]


def check(found: dict[str, list[float]]) -> None:
    """Check that the sentences of `HEADS` agree with the numbers (total, direct, indirect)."""
    total, direct, indirect = found["L23H3"]
    assert direct < -1
    assert indirect < 0
    assert abs(found["L29H1"][2]) < 0.01
    for name in ("L23H0", "L23H2"):
        total, direct, indirect = found[name]
        assert direct < -0.2
        assert indirect > 0.7 * abs(direct)
    assert found["L23H2"][0] > 0
    for name in ("L20H0", "L1H4"):
        total, direct, _ = found[name]
        assert abs(direct) < 0.1 * abs(total)


def stream(run: Any) -> list[str]:
    """Return the effects of the clean run's stream in the corrupted run, at two positions."""
    swapped = run.tokens[:2].flip(0)
    with torch.no_grad():
        clean, corrupted = (run.model.run_with_cache(tokens)[1] for tokens in (run.tokens[:2], swapped))
    [[giver]] = (run.tokens[:2] != swapped).any(0).nonzero().T.tolist()  # the only token that differs
    where = {"the giver's name": giver, "the last token": run.tokens.shape[1] - 1}
    lines = [
        "| position | " + " | ".join(f"layer {layer}" for layer in LAYERS) + " |",
        "|---" * (len(LAYERS) + 1) + "|",
    ]
    for name, at in where.items():
        found = residscope.patch(
            corrupted, source=clean, target=run.answers[:2], at="resid_pre", positions=[at], progress=False
        )
        values = found.of(normalized=True)
        assert values[LAYERS[0 if at == giver else -1]] > 0.8  # the text says this
        assert values[LAYERS[-1 if at == giver else 0]] < 0.2
        lines.append(f"| {name} ({at}) | " + " | ".join(number(values[layer], 2) for layer in LAYERS) + " |")
    return lines


def parts(run: Any) -> list[str]:
    """Return estimated effects of patching parts of some heads (z, q, k, v, pattern) into the corrupted run."""
    swapped = run.tokens[:2].flip(0)
    with torch.no_grad():
        clean, corrupted = (run.model.run_with_cache(tokens)[1] for tokens in (run.tokens[:2], swapped))
    kinds = ("z", "q", "k", "v", "pattern")
    found: dict[str, list[float]] = {name: [] for name in READERS}
    for at in kinds:
        estimates = residscope.estimate(corrupted, clean, run.answers[:2], at=at)
        values = dict(zip(estimates.labels, estimates.of().tolist(), strict=True))
        for name, row in found.items():
            row.append(values[name])
    check_parts(found)
    return [
        f"| head | {' | '.join(f'`{kind}`' for kind in kinds)} | |",
        "|---" * (len(kinds) + 2) + "|",
        *(f"| {name} | {' | '.join(map(number, row))} | {READERS[name]} |" for name, row in found.items()),
    ]


def check_parts(found: dict[str, list[float]]) -> None:
    """Check that the sentences of `READERS` agree with the numbers (z, q, k, v, pattern)."""
    for name in ("L23H3", "L29H1"):
        z, *others, v, pattern = found[name]
        assert abs(v - z) < 0.1 * abs(z)
        assert max(abs(other) for other in (*others, pattern)) < 0.1 * abs(z)
    for name in ("L23H0", "L24H4"):
        _, q, _, v, pattern = found[name]
        assert abs(q - pattern) < 0.1 * abs(pattern)
        assert v * q < 0


def written(found: dict[str, Row]) -> list[str]:
    """Return the document about the families."""
    remarks: dict[str, int] = {}
    lines: list[str] = []
    for family, row in found.items():
        numbers = ", ".join(str(remarks.setdefault(note, len(remarks) + 1)) for note in row.said)
        lines.append(f"| {family} | {row.replay} | {row.heads} | {row.stream} | {numbers} |")
    replayed = [row for row in found.values() if row.replay != "–"]
    exact = sum(row.replay == "to the last bit" for row in replayed)
    counts = {kind: sum(getattr(row, kind) == "agree" for row in found.values()) for kind in ("heads", "stream")}
    gap = max(row.gap for row in replayed)
    return [
        "# Replay and effects, family by family",
        "",
        f"On tiny random models of {len(found)} families, on a CPU in float32. Made by `npm run docs`; do not edit.",
        "",
        f"- **Replay**: {len(replayed)} families give every cached activation and the target again, {exact} of them",
        "  to the last bit. In the other families nothing is measured; the remarks give the reason.",
        f"- **Heads**: total effects of all heads, zeroed one by one (`ablate`), agree in {counts['heads']} families",
        "  with the model's own runs under TransformerLens' hooks.",
        f"- **Stream**: another run's stream before layer 1 (`patch`) agrees in {counts['stream']} families with such",
        "  a hooked run.",
        "",
        f"“Agree” means: the difference is below {RIGHT:g} of the largest effect. The largest difference is {gap:.1g}.",
        "",
        "| family | replay | heads | stream | remarks |",
        "|---|---|---|---|---|",
        *lines,
        "",
        *(line for note, number in remarks.items() for line in _item(f"{number}. {note}")),
    ]


def _item(text: str) -> list[str]:
    return wrap(text, 118, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2] / "py_backend/docs/causes.md")
