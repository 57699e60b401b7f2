"""Times of targets inside the model: why a head reads a source, what the head moves, and what a neuron reads.

python -m tests.benchmarks.why
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tests.benchmarks.memory import forget_peak, peak
from tests.benchmarks.table import Row, markdown, seconds, side_by_side, spoken

SMALL = "1 × 1024, GPT-2-small shape"
LARGE = "1 × 256, Llama-3-8B's shape"
HEAD, DESTINATION, SOURCE = "L10H7", 1000, 500


def main() -> None:
    """Print the table. With `--child SHAPE`, print the numbers of the child process."""
    if "--child" in sys.argv:
        print(json.dumps(_large() if sys.argv[-1] == "large" else _small()))
        return
    print(markdown(rows()))


def rows() -> list[Row]:
    """Return the rows of both shapes. Each shape is measured in a separate process."""
    small, large = _child("small"), _child("large")
    made: list[Row] = []
    for name, (new, again, logits, extra) in small.items():
        goal = 0.1 if name == "pairs" else 0.01
        note = f"the same target again: {spoken(again)}; {extra / 1e6:.1f} MB extra"
        made.append(
            Row(f"{name}, {SMALL}", "heads of a logit difference", spoken(new), spoken(logits),
                f"{new / logits:.2g} × as long", f"≤ {spoken(goal)}, ≤ 10 MB", new <= goal and extra <= 10e6, note)
        )  # fmt: skip
    for name, (taken, extra) in large.items():
        figure = f"{extra / 1e6:.0f} MB extra"
        made.append(Row(f"{name}, {LARGE}", "memory budget", spoken(taken), "", figure, "≤ 256 MB", extra <= 256e6))
    return made


def _child(shape: str) -> dict[str, list[float]]:
    command = [sys.executable, "-m", "tests.benchmarks.why", "--child", shape]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _works(cache: Any, answers: Any, head: str, destination: int, source: int) -> dict[str, Callable[[int], object]]:
    """Return pieces of work. Each takes a number that changes the source or the neuron, and so the target."""
    import residscope
    from residscope import targets

    def reads(shift: int, **options: Any) -> Any:
        return targets.attention(head, destination=destination, source=source + shift, versus=0, **options)

    def rows_of(target: Any, by: Any = "head") -> object:
        return residscope.attribute(cache, target, by=by)

    return {
        "query side": lambda shift: rows_of(reads(shift)),
        "key side": lambda shift: rows_of(reads(shift, side="key")),
        "what a head moves": lambda shift: rows_of(targets.output(head, of=answers, source=source + shift)),
        "what a neuron reads": lambda shift: rows_of(targets.neuron(f"{head.split('H')[0]}N{shift}")),
        "pairs": lambda shift: residscope.pairs(cache, reads(shift)),
    }


def _small() -> dict[str, tuple[float, float, float, float]]:
    import residscope
    from tests.benchmarks import shapes

    model = shapes.gpt2_small()
    cache, answers = shapes.run(model, 1, 1024)
    pair = tuple(answers[0].tolist())
    turn = [0]

    def logits() -> object:
        turn[0] += 1
        return residscope.attribute(cache, (pair[0] + turn[0]) % model.cfg.d_vocab)

    found: dict[str, tuple[float, float, float, float]] = {}
    for name, work in _works(cache, pair, HEAD, DESTINATION, SOURCE).items():
        count = [0]

        def new(work: Callable[[int], object] = work, count: list[int] = count) -> object:
            count[0] += 1
            return work(count[0])

        def again(work: Callable[[int], object] = work) -> object:
            return work(1)

        taken, same, whole = side_by_side(9, new, again, logits, each=3)
        forget_peak()
        before = peak()
        new()
        found[name] = taken, same, whole, peak() - before
    return found


def _large() -> dict[str, tuple[float, float]]:
    import torch

    from tests.benchmarks import shapes

    model = shapes.llama3_8b()
    torch.manual_seed(1)
    tokens = torch.randint(0, 512, (1, 256))
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: "unembed" not in name)
    found: dict[str, tuple[float, float]] = {}
    for name, work in _works(cache, (5, 6), "L30H7", 250, 100).items():
        forget_peak()
        before = peak()
        found[name] = seconds(lambda work=work: work(1)), peak() - before
    return found


if __name__ == "__main__":
    main()
