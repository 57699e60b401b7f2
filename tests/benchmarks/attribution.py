"""Compares attribution with TransformerLens' own functions, on models of known shapes with random weights.

python -m tests.benchmarks.attribution [NAME …]
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from tests.benchmarks.memory import forget_peak, peak
from tests.benchmarks.table import Row, markdown, side_by_side, spoken

Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One piece of work, done by different functions.

    Attributes:
        new: Residscope with a new target.
        again: Residscope with a target that was requested before.
        other: The same work by TransformerLens' functions, or by the definition.
        read: One read of the activations that the work needs.
    """

    new: Work
    again: Work
    other: Work
    read: Work


def main() -> None:
    """Print the table. With `--memory CASE SIDE`, do the work of a child process."""
    if "--memory" in sys.argv:
        print(json.dumps(_grown(*sys.argv[-2:])))
        return
    print(markdown(rows(set(sys.argv[1:]))))


def rows(only: set[str] | None = None) -> list[Row]:
    """Return all rows, or those of the named cases."""
    made = {"heads-last": _heads_last, "heads-all": _heads_all, "heads-many": _heads_many, "neurons": _neurons}
    made |= {"sources": _sources}
    found: list[Row] = []
    for name, make in made.items():
        if not only or name in only:
            found += make()
            gc.collect()
    return found


# --- the cases -------------------------------------------------------------------------------------------------------
def case(name: str, model: Any = None) -> Case:
    """Return the functions of a case. Without a model, they use one of GPT-2's shape in float32, on the CPU."""
    import torch

    import residscope
    from tests.benchmarks import shapes

    batch, positions = {"heads-last": (8, 15), "heads-all": (1, 1024), "heads-many": (64, 128)}.get(name, (8, 15))
    batch, positions = (1, 1024) if name == "sources" else (batch, positions)
    model = model or shapes.gpt2_small()
    cache, answers = shapes.run(model, batch, positions)
    every, one = name == "heads-all", name == "neurons"
    where: dict[str, Any] = {} if every else {"pos_slice": -1}
    asked = [tuple(answers[0].tolist()) if one else answers]
    options: dict[str, Any] = {"by": "neuron"} if one else {"by": "head", "position": "all" if every else "last"}
    if name == "sources":
        options = {"by": "source", "heads": [(9, head) for head in range(12)], "position": "all"}

    def attribute(target: Any) -> Any:
        found = residscope.attribute(cache, target, **options)
        return found.top(50) if one else found

    def new() -> Any:
        pair = torch.as_tensor(asked[0])
        pair = (pair + 1) % model.cfg.d_vocab
        asked[0] = tuple(pair.tolist()) if one else pair
        return attribute(asked[0])

    def directions() -> Any:
        pairs = torch.as_tensor(asked[0]).reshape(-1, 2)
        found = model.tokens_to_residual_directions(pairs)
        return (found[:, 0] - found[:, 1]).to(model.cfg.dtype) * model.ln_final.weight

    def heads() -> Any:
        own = type(cache)(dict(cache.cache_dict), model)  # a copy, because TransformerLens adds `hook_result`
        stack = own.stack_head_results(layer=-1, **where)
        stack = own.apply_ln_to_stack(stack, layer=-1, **where)
        return torch.einsum("c b ... d, b d -> c b ...", stack.float(), directions().float())

    def neurons() -> Any:
        own = type(cache)(dict(cache.cache_dict), model)
        found = own.get_full_resid_decomposition(
            expand_neurons=True, apply_ln=True, pos_slice=-1, project_output_onto=directions()[0]
        )
        return found.mean(1).topk(50), found.mean(1).topk(50, largest=False)

    def sources() -> Any:  # by the definition: each source adds a vector to the stream at each destination
        v, pattern, scale = cache["v", 9][0], cache["pattern", 9][0], cache["ln_final.hook_scale"][0]
        W_O, direction = model.blocks[9].attn.W_O, directions()[0]
        maps = []
        for head in range(12):
            written = v[:, head] @ W_O[head]
            added = pattern[head][..., None] * written  # [destination, source, d_model]
            added -= added.mean(-1, keepdim=True)
            maps.append(added @ direction / scale)
        return torch.stack(maps)

    reads = {"neurons": "mlp.hook_post", "sources": "attn.hook_pattern"}.get(name, "attn.hook_z")
    layers = [9] if name == "sources" else range(model.cfg.n_layers)
    tensors = [cache[f"blocks.{layer}.{reads}"] for layer in layers]

    def quietly(work: Work) -> Work:
        def run() -> object:
            with torch.no_grad():
                return work()

        return run

    other = {"neurons": neurons, "sources": sources}.get(name, heads)
    return Case(new, lambda: attribute(asked[0]), quietly(other), lambda: [tensor.sum() for tensor in tensors])


def _heads_last() -> list[Row]:
    work = case("heads-last")
    new, again, theirs = side_by_side(9, work.new, work.again, work.other, each=5)
    first = side_by_side(5, _first_of_all(), each=3)[0]
    name = "heads, 8 × 15, last position, GPT-2-small shape"
    note = (
        "a new target, for a cache with earlier requests; the first request for a cache takes "
        f"{spoken(first)}, {theirs / first:.1f} × faster"
    )
    return [
        _row(f"{name}: a new target", _THEIRS, new, theirs, 6, note),
        _row(f"{name}: a repeated target", _THEIRS, again, theirs, 40),
    ]


def _first_of_all() -> Work:
    """Return work that sends the first request for a cache. Only facts about its model are already memoised."""
    import residscope
    from tests.benchmarks import shapes

    model = shapes.gpt2_small()
    cache, answers = shapes.run(model, 8, 15)
    asked = [answers]

    def first() -> object:
        asked[0] = (asked[0] + 1) % model.cfg.d_vocab
        return residscope.attribute(type(cache)(dict(cache.cache_dict), model), asked[0])

    return first


def _heads_all() -> list[Row]:
    work = case("heads-all")
    new, theirs, read = side_by_side(5, work.new, work.other, work.read)
    name = "heads, 1 × 1024, every position"
    ratio = new / read
    return [
        _row(name, _THEIRS, new, theirs, 200),
        _memory("heads-all", name, 200),
        Row(
            name,
            "one read of the same z (`sum`)",
            spoken(new),
            spoken(read),
            f"{ratio:.1f} × its time",
            "≤ 6 ×",
            ratio <= 6,
        ),
    ]


def _heads_many() -> list[Row]:
    work = case("heads-many")
    new, theirs = side_by_side(3, work.new, work.other)
    name = "heads, 64 × 128, last position"
    return [_row(name, _THEIRS, new, theirs, 250), _memory("heads-many", name, 200)]


def _neurons() -> list[Row]:
    work = case("neurons")
    new, again, theirs = side_by_side(7, work.new, work.again, work.other)
    beside = f"`get_full_resid_decomposition(project_output_onto=…)`, TransformerLens {version('transformer-lens')}"
    note = f"a repeated target: {spoken(again)}, {theirs / again:.0f} ×"
    return [_row("neurons, 8 × 15, last position, top 50", beside, new, theirs, 5, note)]


def _sources() -> list[Row]:
    work = case("sources")
    new, theirs = side_by_side(2, work.new, work.other)
    name, beside = "source map, 12 heads × 1024 tokens", "the definition, with a d_model axis, a head at a time"
    return [_row(name, beside, new, theirs, 100), _memory("sources", name, 1)]


_THEIRS = f"`stack_head_results` + `apply_ln_to_stack` + einsum, TransformerLens {version('transformer-lens')}"


def _row(work: str, beside: str, ours: float, theirs: float, goal: float, note: str = "") -> Row:
    ratio = theirs / ours
    return Row(
        work, beside, spoken(ours), spoken(theirs), f"{ratio:.3g} × faster", f"≥ {goal:g} ×", ratio >= goal, note
    )


# --- memory ----------------------------------------------------------------------------------------------------------
def _memory(name: str, work: str, goal: float) -> Row:
    """Return a row that compares the extra memory of both sides: peak minus initial memory, each in a child process."""

    def child(side: str) -> float:
        command = [sys.executable, "-m", "tests.benchmarks.attribution", "--memory", name, side]
        environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        return float(json.loads(done.stdout.splitlines()[-1]))

    ours, theirs = child("ours"), child("theirs")
    ratio = theirs / max(ours, 1)
    shown = (f"{size / 1e6:.1f} MB" for size in (ours, theirs))
    return Row(f"{work}: extra memory", "the same", *shown, f"{ratio:.3g} × less", f"≥ {goal:g} × less", ratio >= goal)


def _grown(name: str, side: str) -> float:
    """Return how many bytes this process grew at most during the work. A small case is run before it."""
    import residscope
    from tests.benchmarks import shapes

    work = case(name)
    small, answers = shapes.run(shapes.gpt2_small(), 2, 4)
    residscope.attribute(small, answers)
    small.stack_head_results(layer=-1, pos_slice=-1)
    del small
    gc.collect()
    forget_peak()
    before = peak()
    work.new() if side == "ours" else work.other()
    return peak() - before


if __name__ == "__main__":
    main()
