"""Ablation of heads, patching and estimates, beside the model's own hooked runs, one by one.

Processor time of the process is compared, because wall time depends on what else the machine does.

python -m tests.benchmarks.causes
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.benchmarks.table import Row, markdown, spoken

SHAPE = "demo model, 8 × 15"
EVERY = 5
"""All positions: heads of every fifth layer, since all of them take minutes. The replay and the test of the blocks,
which are part of the time, weigh more then."""


def main() -> None:
    """Print the table."""
    print(markdown(rows()))


def rows() -> list[Row]:
    """Effects of heads at every position and at the last one, the stream at each position, and the estimate."""
    import residscope

    run = residscope.demo.ioi()
    cache, answers, model = run.cache, run.answers, run.model
    layers, heads = range(EVERY // 2, model.cfg.n_layers, EVERY), range(model.cfg.n_heads)
    some = [(layer, head) for layer in layers for head in heads]
    other = run.tokens.roll(1, 0)
    _, source = model.run_with_cache(other)
    quiet: dict[str, Any] = {"progress": False}

    def hooked(where: Any) -> Callable[[], object]:
        def change(z: Any, hook: Any, head: int) -> Any:  # noqa: ARG001
            z[:, where, head] = 0
            return z

        hook = ("blocks.23.attn.hook_z", partial(change, head=3))
        return lambda: model.run_with_hooks(run.tokens, fwd_hooks=[hook])

    works = [
        (f"total effects of {len(some)} heads, every position", len(some), slice(None), 2.0,
         lambda: residscope.ablate(cache, answers, some, **quiet)),
        (f"total effects of {model.cfg.n_layers * len(heads)} heads, last position", model.cfg.n_layers * len(heads),
         -1, 20.0, lambda: residscope.ablate(cache, answers, positions="last", **quiet)),
    ]  # fmt: skip
    made: list[Row] = []
    for name, count, where, goal, work in works:
        theirs, ours = count * _theirs(hooked(where)), _taken(work)
        theirs = (theirs + count * _theirs(hooked(where))) / 2  # before and after, so that a busy machine slows both
        made.append(_row(name, f"{count} hooked runs (from 4)", ours, theirs, goal))
    taken = _taken(lambda: residscope.estimate(cache, source, answers, positions="each"))
    one = _theirs(hooked(-1))
    made.append(
        Row(f"estimate of all heads at each position, {SHAPE}", "1 hooked run", spoken(taken), spoken(one),
            spoken(taken), "≤ 2 s", taken <= 2)
    )  # fmt: skip
    return made


def _row(name: str, beside: str, ours: float, theirs: float, goal: float) -> Row:
    factor = theirs / ours
    return Row(
        f"{name}, {SHAPE}", beside, spoken(ours), spoken(theirs), f"{factor:.3g} ×", f"≥ {goal:g} ×", factor >= goal
    )


def _taken(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _theirs(work: Callable[[], object]) -> float:
    """The time of one run, from two."""
    return sum(_taken(work) for _ in range(2)) / 2


if __name__ == "__main__":
    main()
