"""`npm run bench`: what things cost, measured side by side in one run. Prints a table; never asserts a time.

python tests/benchmarks/run.py [--json FILE]
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "py_backend/residscope/static"


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    figures = {"machine": machine(), "import": import_times(), "bundle": bundle(), **on_the_demo_model()}
    for name, rows in figures.items():
        print(f"\n{name}")
        for row, value in rows.items():
            print(f"  {row:<58} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


def machine() -> dict[str, object]:
    """What this ran on."""
    names = ("torch", "transformer-lens", "jupyterlab", "anywidget")
    return {"python": platform.python_version(), "cores": os.cpu_count(), **{name: version(name) for name in names}}


def import_times() -> dict[str, str]:
    """`import residscope` in a fresh interpreter, beside an interpreter that imports nothing; median of 7."""

    def start(code: str) -> float:
        def once() -> None:
            subprocess.run([sys.executable, "-c", code], check=True)

        return seconds(once, 7)

    bare, ours = start("pass"), start("import residscope")
    return {"import residscope (interpreter's own start taken off)": f"{ours - bare:.3f} s"}


def bundle() -> dict[str, str]:
    """The front end, as the browser gets it."""
    rows = {}
    for path in sorted(STATIC.glob("panel.*")):
        data = path.read_bytes()
        rows[path.name] = f"{len(data) / 1000:.1f} kB, {len(gzip.compress(data)) / 1000:.1f} kB gzipped"
    return rows


def on_the_demo_model() -> dict[str, dict[str, str]]:
    """Heads beside TransformerLens' own way, and each request's time and bytes."""
    import msgspec
    import torch

    import residscope
    from residscope import demo
    from residscope.service import Service

    run = demo.ioi()
    directions = run.model.tokens_to_residual_directions(run.answer_tokens)
    difference = (directions[:, 0] - directions[:, 1]) * run.model.ln_final.weight

    def theirs() -> None:
        with torch.no_grad():
            cache = type(run.cache)(dict(run.cache.cache_dict), run.model)  # their way adds hook_result to it
            stack = cache.stack_head_results(layer=-1, pos_slice=-1)
            (cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1) * difference).sum(-1)

    def ours() -> None:
        residscope.attribute(run.cache, run.answer_tokens, by="head")

    their, our = side_by_side(theirs, ours, 15)
    shape = "30 layers × 9 heads, 8 × 15, last position"
    work = {
        f"heads, {shape}: stack_head_results + apply_ln_to_stack": f"{their * 1e3:.1f} ms",
        f"heads, {shape}: residscope (heads, MLPs, check)": f"{our * 1e3:.1f} ms",
        "ratio": f"{their / our:.1f} ×",
    }
    service = Service(run.cache)
    target = msgspec.to_builtins(service.targets().resolve(run.answers))
    asks: dict[str, dict[str, object]] = {
        "describe": {"kind": "describe"},
        "tokens": {"kind": "tokens"},
        "attribute, accumulated": {"kind": "attribute", "by": "accumulated", "target": target},
        "attribute, layer": {"kind": "attribute", "by": "layer", "target": target},
        "attribute, head": {"kind": "attribute", "by": "head", "target": target},
        "attention": {"kind": "attention", "layer": 23, "head": 3, "target": target},
        "suggest": {"kind": "suggest"},
    }
    replies = {}
    for name, ask in asks.items():
        content, buffers = service.answer({"id": "1", "ask": ask})
        spent = seconds(lambda ask=ask: service.answer({"id": "1", "ask": ask}), 9)
        size = f"{len(msgspec.json.encode(content))} B + {sum(map(len, buffers))} B binary"
        replies[name] = f"{spent * 1e3:5.1f} ms   {size}"
    return {"attribution": work, "replies (kernel time; JSON + buffers)": replies}


def seconds(work: Callable[[], object], times: int) -> float:
    """The median time of `work` in seconds, after one run that is not counted."""
    return side_by_side(work, lambda: None, times)[0]


def side_by_side(one: Callable[[], object], other: Callable[[], object], times: int) -> tuple[float, float]:
    """The median times of two pieces of work in seconds, run in turn so that a busy machine slows both alike."""

    def once(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    one(), other()
    pairs = [(once(one), once(other)) for _ in range(times)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


if __name__ == "__main__":
    main()
