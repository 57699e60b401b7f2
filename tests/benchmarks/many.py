"""`attribute_many` on 10,000 prompts: its time and that of the runs alone, its memory and that of holding the caches.

python -m tests.benchmarks.many

Each piece of work has a separate process. Extra memory is the peak of the process's resident memory, minus its memory
after the first two batches. So the model, the libraries and a batch's buffers are not counted. (Linux only.)
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.benchmarks.table import Row, markdown

PROMPTS, BATCH, POSITIONS, VOCAB = 10_000, 100, 16, 1000
HELD = 1000
"""For comparison, the caches of this many prompts are held at once. All caches would take ten times as much memory."""
SIZES = {"d_model": 64, "d_head": 16, "n_layers": 4, "n_heads": 4, "n_ctx": POSITIONS, "d_mlp": 256, "d_vocab": VOCAB}
SHAPE = "4 layers × 4 heads, d_model 64, 16 tokens a prompt, 100 prompts a batch"


def rows() -> list[Row]:
    """Return the table's rows."""
    many, neurons = child("many", PROMPTS), child("neurons", PROMPTS)
    few, held = child("many", HELD), child("hold", HELD)
    library = f"TransformerLens {version('transformer-lens')}"
    return [
        Row(
            f"10,000 prompts, every head ({SHAPE}), runs included",
            f"the runs' part of it, {library}, batch by batch in the same process",
            f"{many['seconds']:.0f} s, {PROMPTS / many['seconds']:.0f} prompts/s",
            f"{many['runs']:.0f} s, {PROMPTS / many['runs']:.0f} prompts/s",
            f"+{many['seconds'] / many['runs'] - 1:.0%}",
            "",
            None,
            "the model is small, and the time of `attribute` for a batch does not shrink with the model",
        ),
        Row(
            f"extra memory, {HELD:,} prompts",
            f"a list of their caches, {library}, each attributed",
            f"{few['extra'] / 1e6:.0f} MB",
            f"{held['extra'] / 1e6:.0f} MB",
            f"{held['extra'] / max(few['extra'], 1):.0f} ×",
            "",
            None,
        ),
        Row(
            "extra memory, 10,000 prompts, every head's value kept",
            f"{HELD:,} prompts",
            f"{many['extra'] / 1e6:.0f} MB",
            f"{few['extra'] / 1e6:.0f} MB",
            f"{(many['extra'] - few['extra']) / 1e6:+.0f} MB",
            "constant",
            many["extra"] - few["extra"] < 50e6,
            f"the values themselves, [{many['rows']}, 10,000] in float32, are {many['rows'] * 4e4 / 1e6:.1f} MB",
        ),
        Row(
            'extra memory, 10,000 prompts, every neuron, keep="summary"',
            'all values, keep="values" (computed, not measured)',
            f"{neurons['extra'] / 1e6:.0f} MB",
            f"{neurons['rows'] * 4e4 / 1e6:.0f} MB",
            f"{neurons['rows'] * 4e4 / max(neurons['extra'], 1):.1f} ×",
            "",
            None,
        ),
    ]


def child(work: str, prompts: int) -> dict[str, float]:
    """Return the results of a child process: seconds, seconds of the model's runs, extra bytes, rows."""
    command = [sys.executable, "-m", "tests.benchmarks.many", work, str(prompts)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(work: str, prompts: int) -> dict[str, float]:
    """Do the work, in the child process."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    import residscope

    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    model: Any = TransformerBridge.boot_native(SIZES | {"seed": 0})

    spent = 0.0

    def batches(count: int) -> Iterator[tuple[Any, Any]]:
        nonlocal spent
        generator = torch.Generator().manual_seed(1)
        for _ in range(count // BATCH):
            tokens = torch.randint(0, VOCAB, (BATCH, POSITIONS), generator=generator)
            start = time.perf_counter()
            batch = [model.run_with_cache(tokens)[1]]
            spent += time.perf_counter() - start
            yield batch.pop(), torch.randint(0, VOCAB, (BATCH, 2), generator=generator)

    def many(count: int) -> int:
        return len(residscope.attribute_many(batches(count), progress=False).labels)

    def neurons(count: int) -> int:
        return len(residscope.attribute_many(batches(count), by="neuron", keep="summary", progress=False).labels)

    def hold(count: int) -> int:
        pairs = list(batches(count))
        return len([residscope.attribute(cache, answers) for cache, answers in pairs])

    do = {"many": many, "neurons": neurons, "hold": hold}[work]
    do(2 * BATCH)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    start, spent = time.perf_counter(), 0.0
    count = do(prompts)
    return {"seconds": time.perf_counter() - start, "runs": spent, "extra": resident("VmHWM") - before, "rows": count}


def resident(name: str) -> int:
    """Return the bytes of memory of this process, as Linux counts them."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measured(sys.argv[1], int(sys.argv[2]))))
    else:
        print(markdown(rows()))
