"""`npm run docs`: errors of attributions in half precision, compared with float64 with the same rounded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import residscope
from residscope import demo
from tests.support import tiny

WAYS = ("accumulated", "layer", "head", "neuron", "source")
FAMILIES = ("gpt2", "llama", "gemma2", "qwen3", "olmo2")
DTYPES = (torch.bfloat16, torch.float16)


def main(path: Path) -> None:
    """Measure the demo model and some tiny ones, and write the table."""
    with torch.no_grad():
        rows = [row for dtype in DTYPES for row in the_demo(dtype)]
        rows += [row for dtype in DTYPES for family in FAMILIES for row in a_family(family, dtype)]
    path.write_text("\n".join([*HEAD, *rows]) + "\n")
    print(path)


HEAD = [
    "# Half precision",
    "",
    "A model and its cache in bfloat16 or float16, compared with the same model with the same rounded weights in "
    "float64.",
    "Residscope reads the cache in its own precision and sums in float32, so nothing overflows. The errors come from "
    "the model's",
    "own rounding. Made by `npm run docs`; do not edit.",
    "",
    "- **error**: the largest difference between a row of any prompt and the float64 model's row, in logits; then "
    "relative to",
    "  the largest row, and in rounding steps of the precision.",
    "- **own**: the same difference for the sums alone, from float64 rows of the *same* rounded cache: Residscope's "
    "own rounding.",
    "- **unexplained**: `unexplained` in the worst prompt, and `tolerance`, below which the badge calls it rounding.",
    "",
    "| model | precision | by | error (logits) | of the largest row | in steps | own | unexplained | tolerance |",
    "|---|---|---|---:|---:|---:|---:|---:|---:|",
]


def the_demo(dtype: torch.dtype) -> list[str]:
    """Return lines for the demo model: eight prompts."""
    run = demo.ioi()
    exact, half = demo.load().to(dtype).to(torch.float64), demo.load().to(dtype)
    caches = [model.run_with_cache(run.tokens)[1] for model in (half, exact)]
    top = residscope.attribute(run.cache, run.answers).top(1)[0][0]
    return lines("demo", dtype, half, *caches, run.answer_tokens, top)


def a_family(name: str, dtype: torch.dtype) -> list[str]:
    """Return lines for a tiny random model."""
    half, exact = tiny.boot(name).to(dtype), tiny.boot(name).to(dtype).to(torch.float64)
    tokens, _, cache = tiny.run(half)
    truth = exact.run_with_cache(tokens)[1]
    return lines(name, dtype, half, cache, truth, torch.tensor([[5, 6], [7, 8], [9, 10]]), "L1H1")


def lines(
    name: str, dtype: torch.dtype, half: Any, cache: Any, truth: Any, answers: torch.Tensor, head: str
) -> list[str]:
    """Return a line for each decomposition."""
    widened = {key: t.double() if t.is_floating_point() else t for key, t in cache.items()}
    said = []
    for by in WAYS:
        options = {"heads": [head]} if by == "source" else {}
        result = residscope.attribute(cache, answers, by=by, **options)
        exact = residscope.attribute(truth, answers, by=by, **options)
        own = residscope.attribute(widened, answers, by=by, model=half, **options)
        off = float((result.values - exact.values).abs().max())
        part = off / float(exact.values.abs().max())
        figures = [f"{off:.1e}", f"{part:.1e}", f"{part / torch.finfo(dtype).eps:.1f}"]
        figures.append(f"{float((result.values - own.values).abs().max()):.0e}")
        figures += [f"{float(result.unexplained.abs().max()):.1e}", f"{result.tolerance:.1e}"]
        said.append(f"| {name} | {str(dtype).removeprefix('torch.')} | {by} | {' | '.join(figures)} |")
    return said


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2] / "py_backend/docs/precision.md")
