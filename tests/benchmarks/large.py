"""Times and memory of a view's requests for a large model: 32 layers × 32 heads × 2048 tokens, bfloat16.

python -m tests.benchmarks.large
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

from tests.benchmarks.memory import forget_peak, peak
from tests.benchmarks.table import Row, markdown, spoken

SHAPE = "32 layers × 32 heads × 2048 tokens, bfloat16, Llama-3-8B's shape"
PATTERNS = 6
"""The number of layers whose patterns are in memory: 268 MB each."""


def main() -> None:
    """Print the table. With `--child`, print the numbers of the child process."""
    if "--child" in sys.argv:
        print(json.dumps(figures()))
        return
    print(markdown(rows()))


def rows() -> list[Row]:
    """Return the rows, measured in a separate process, whose memory is observed."""
    command = [sys.executable, "-m", "tests.benchmarks.large", "--child"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    budget, limit = "memory budget", "≤ 256 MB"
    made = [
        Row(f"{SHAPE}: {name}", budget, spoken(taken), "", f"{extra / 1e6:.0f} MB extra", limit, extra <= 256e6, note)
        for name, (taken, extra, note) in found["works"].items()
    ]
    slow, between = found["given up"], found["between"]
    return [
        *made,
        Row(
            f"{SHAPE}: the longest of these requests, from its cancellation until the work ends",
            "",
            spoken(max(slow)),
            "",
            f"{max(slow) * 1e3:.0f} ms at most of {len(slow)}",
            "≤ 200 ms",
            max(slow) <= 0.2,
            f"during the work, a short request is answered after {spoken(max(between))} at most",
        ),
    ]


def figures() -> dict[str, Any]:
    """Return the time and memory of each piece of work, and how soon the work ends after a cancel request."""
    from residscope.serving.service import Service
    from tests.benchmarks import shapes

    model = shapes.llama3_8b()
    cache = shapes.llama3_cache(model, 2048, PATTERNS)
    served = Service(cache)
    target = {"contrasts": [{"answer": [{"id": 5, "text": ""}], "distractor": [{"id": 6, "text": ""}]}]}
    other = {"contrasts": [{"answer": [{"id": 7, "text": ""}], "distractor": [{"id": 8, "text": ""}]}]}
    works: dict[str, dict[str, Any]] = {
        "every head at the last position, the first target": {"kind": "attribute", "by": "head", "target": target},
        "every head at the last position, the second target": {"kind": "attribute", "by": "head", "target": other},
        "every head at the last position, another target": {"kind": "attribute", "by": "head", "target": _other(9)},
        "every layer at every position": {"kind": "positions", "by": "layer", "target": target},
        f"scores of the {PATTERNS * 32} heads that have patterns": {"kind": "scores", "score": "previous"},
        "one head's map, weighted by its contribution": {
            "kind": "attention", "layer": 3, "head": 4, "weighting": "contribution", "target": target,
        },
    }  # fmt: skip
    found: dict[str, Any] = {"works": {}, "given up": [], "between": []}
    ask(served, "small", {"kind": "tokens"})
    for name, work in works.items():
        forget_peak()
        before, start = peak(), time.perf_counter()
        told = ask(served, name, work)
        note = f"progress was reported {told} times" if told else ""
        found["works"][name] = time.perf_counter() - start, peak() - before, note
    for turn in range(5):
        work = {"kind": "attribute", "by": "head", "target": _other(20 + turn), "position": 1000 + turn}
        while served.answer({"id": f"long {turn}", "ask": work})[0]["reply"]["kind"] != "working":
            work["position"] += 10
        start = time.perf_counter()
        ask(served, f"short {turn}", {"kind": "tokens"})
        found["between"].append(time.perf_counter() - start)
        (worker,) = [thread for thread in threading.enumerate() if thread.name == "residscope-work"]
        start = time.perf_counter()
        ask(served, f"end {turn}", {"kind": "give-up", "id": f"long {turn}"})
        worker.join()
        found["given up"].append(time.perf_counter() - start)
    return found


def _other(id: int) -> dict[str, Any]:
    return {"contrasts": [{"answer": [{"id": id, "text": ""}], "distractor": []}]}


def ask(served: Any, id: str, work: dict[str, Any]) -> int:
    """Send a request until its reply comes, as a view does. Return how often progress came instead of the reply."""
    told = -1
    answer: dict[str, Any] = {"reply": {"kind": "working"}}
    while answer.get("reply", {}).get("kind") == "working":
        answer, _ = served.answer({"id": id, "ask": work})
        told += 1
    assert answer.get("failure") is None, answer["failure"]
    return told


if __name__ == "__main__":
    main()
