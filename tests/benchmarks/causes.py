"""Compares the times of ablation of heads, patching and estimates with those of the model's own hooked runs.

The times are processor times of this process, because wall times depend on the other load of the machine.

python -m tests.benchmarks.causes
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from tests.benchmarks.table import Row, markdown, spoken

EVERY = 5
"""On the demo model, only the heads of every fifth layer are measured at every position, because all heads would take
minutes. So two fixed costs have more weight here: the replay, and the check that blocks can be called by themselves."""


def main() -> None:
    """Print the table."""
    print(markdown(rows()))


def rows() -> list[Row]:
    """Return rows: heads at every position and at the last one, the stream at each position, and the estimate."""
    import residscope
    from tests.benchmarks import shapes

    run = residscope.demo.ioi()
    gpt2 = shapes.gpt2_small()
    torch.manual_seed(1)
    tokens = torch.randint(0, gpt2.cfg.d_vocab, (8, 15))
    with torch.no_grad():
        cache = gpt2.run_with_cache(tokens)[1]
    made = _of_shape("GPT-2-small shape, 8 × 15", gpt2, cache, tokens, (5, 6), every=1, sweep=True)
    return made + _of_shape(
        "demo model, 8 × 15", run.model, run.cache, run.tokens, run.answers, every=EVERY, sweep=False
    )


def _of_shape(shape: str, model: Any, cache: Any, tokens: Any, answers: Any, *, every: int, sweep: bool) -> list[Row]:
    import residscope

    layers, heads = model.cfg.n_layers, range(model.cfg.n_heads)
    some = [(layer, head) for layer in range(every // 2, layers, every) for head in heads]
    with torch.no_grad():
        _, source = model.run_with_cache(tokens.roll(1, 0))
    quiet: dict[str, Any] = {"progress": False}

    def hooked(where: Any, name: str = "attn.hook_z") -> Callable[[], object]:
        def change(value: Any, hook: Any) -> Any:  # noqa: ARG001
            value[(slice(None), where, 3) if name == "attn.hook_z" else (slice(None), where)] = 0
            return value

        hook = (f"blocks.{layers // 2}.{name}", change)

        def one() -> None:
            with torch.no_grad():
                model.run_with_hooks(tokens, fwd_hooks=[hook])

        return one

    works = [
        (f"total effects of {len(some)} heads, every position", len(some), hooked(slice(None)), 2.0,
         lambda: residscope.ablate(cache, answers, some, **quiet)),
        (f"total effects of {layers * len(heads)} heads, last position", layers * len(heads), hooked(-1), 20.0,
         lambda: residscope.ablate(cache, answers, positions="last", **quiet)),
    ]  # fmt: skip
    if sweep:
        count = layers * tokens.shape[1]
        works.append(
            (f"the stream, {layers} layers × {tokens.shape[1]} positions", count, hooked(3, "hook_resid_pre"), 2.0,
             lambda: residscope.patch(cache, source, answers, at="resid_pre", positions="each", **quiet))
        )  # fmt: skip
    made: list[Row] = []
    for name, count, run, goal, work in works:
        theirs, ours = count * _theirs(run), _taken(work)
        theirs = (theirs + count * _theirs(run)) / 2  # measured before and after, so that a busy machine slows both
        made.append(_row(f"{name}, {shape}", f"{count} hooked runs (4 measured)", ours, theirs, goal))
    start = time.perf_counter()
    taken = _taken(lambda: residscope.estimate(cache, source, answers, positions="each"))
    waited = time.perf_counter() - start
    one = _theirs(hooked(-1))
    made.append(
        Row(f"estimate of all heads at each position, {shape}", "1 hooked run", spoken(taken), spoken(one),
            f"{spoken(waited)} on the clock", "≤ 2 s on the clock", waited <= 2)
    )  # fmt: skip
    return made


def _row(name: str, beside: str, ours: float, theirs: float, goal: float) -> Row:
    factor = theirs / ours
    return Row(name, beside, spoken(ours), spoken(theirs), f"{factor:.3g} ×", f"≥ {goal:g} ×", factor >= goal)


def _taken(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _theirs(work: Callable[[], object]) -> float:
    """Return the mean time of two runs."""
    return sum(_taken(work) for _ in range(2)) / 2


if __name__ == "__main__":
    main()
