"""Compares the time of `compare` (of two prompts, or of two checkpoints) with that of attributing one run.

The times are processor times. Each call uses a new cache object, for which nothing is memoised.

python -m tests.benchmarks.compare
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch

from tests.benchmarks.table import Row, markdown, spoken

GOAL, TIMES = 3.0, 5


def main() -> None:
    """Print the table."""
    print(markdown(rows()))


def rows() -> list[Row]:
    """Return rows for heads and layers, of the demo model and of GPT-2-small's shape."""
    import residscope
    from tests.benchmarks import shapes

    made: list[Row] = []
    demo = residscope.demo.ioi()
    gpt2 = shapes.gpt2_small()
    with torch.no_grad():
        cached = gpt2.run_with_cache(torch.randint(0, gpt2.cfg.d_vocab, (8, 64)))[1]
    pair = (5, 6)
    for name, model, cache, answers in (
        ("demo model, 8 × 15", demo.model, demo.cache, demo.answers[0]),
        ("GPT-2-small shape, 8 × 64", gpt2, cached, pair),
    ):
        changed = copy.deepcopy(model)
        with torch.no_grad():
            changed.unembed.original_component.weight.mul_(1.01)
            changed.blocks[1].mlp.out.original_component.weight.mul_(1.1)
            other = changed.run_with_cache(cache["embed.hook_in"])[1]
        for by in ("head", "layer"):
            made += _beside(name, cache, other, answers, by)
    return made


def _beside(name: str, cache: Any, other: Any, answers: Any, by: str) -> list[Row]:
    import residscope

    def alone() -> Any:
        return residscope.attribute(_fresh(cache), answers, by=by)

    def prompts() -> Any:
        return residscope.compare(_fresh(cache), answers=answers, by=by, prompt=0, with_prompt=1)

    def checkpoints() -> Any:
        return residscope.compare(_fresh(cache), _fresh(other), answers, by=by)

    made: list[Row] = []
    one = _taken(alone)
    for what, work in (("two prompts", prompts), ("two checkpoints", checkpoints)):
        taken = _taken(work)
        one = (one + _taken(alone)) / 2  # measured before and after, so that a busy machine slows both
        factor = taken / one
        made.append(
            Row(f"compare {what} by {by}, {name}", "attribute", spoken(taken), spoken(one),
                f"{factor:.2g} × as long", f"≤ {GOAL:g} ×", factor <= GOAL)
        )  # fmt: skip
    return made


def _fresh(cache: Any) -> Any:
    """Return a new cache with the same activations, for which nothing is memoised."""
    return type(cache)(dict(cache.cache_dict), cache.model)


def _taken(work: Callable[[], object]) -> float:
    """Return the shortest of a few times."""
    found: list[float] = []
    for _ in range(TIMES):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


if __name__ == "__main__":
    main()
