"""Measures the first rows of the benchmark on a GPU, in bfloat16, beside TransformerLens' own functions.

It also counts what a GPU makes slow: how often a request waits for the device, and how many bytes it copies to the
host. Without a GPU, it prints why nothing was measured. `--device cpu` tries the script itself, without these counts.

python -m tests.benchmarks.gpu [--device DEVICE] [CASE …]
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable

import torch

from tests.benchmarks import shapes
from tests.benchmarks.attribution import Work, case
from tests.benchmarks.table import Row, markdown, side_by_side, spoken

CASES = {
    "heads-last": "heads, 8 × 15, last position",
    "heads-all": "heads, 1 × 1024, every position",
    "heads-many": "heads, 64 × 128, last position",
    "neurons": "neurons, 8 × 15, last position, top 50",
}
ROUNDS = 9


def main() -> None:
    """Print the table, or why there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one or more of {', '.join(CASES)}; by default all")
    arguments = parser.parse_args()
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        print("PyTorch finds no CUDA device here, so nothing was measured.")
        return
    print(torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device)
    print(markdown(rows(arguments.device, arguments.cases or list(CASES))))


def rows(device: str, names: list[str]) -> list[Row]:
    """Return the rows of the named cases, on this device."""
    model = shapes.gpt2_small(device, torch.bfloat16)
    return [_row(name, device, model) for name in names]


def _row(name: str, device: str, model: object) -> Row:
    work = case(name, model)
    ends = torch.cuda.synchronize if device.startswith("cuda") else None

    def to_its_end(one: Work) -> Work:
        def run() -> None:
            one()
            if ends:
                ends()

        return run

    new, again, theirs = side_by_side(ROUNDS, *map(to_its_end, (work.new, work.again, work.other)))
    note = f"a repeated target: {spoken(again)}"
    if ends:
        ours, their = costs(work.new), costs(work.other)
        note += f"; waits for the device: {ours[0]} (TransformerLens {their[0]})"
        note += f"; copied to the host: {ours[1]:,} bytes in {ours[2]} copies ({their[1]:,} in {their[2]})"
    figure = f"{theirs / new:.3g} × faster"
    return Row(
        f"{CASES[name]}, bfloat16, a new target", "TransformerLens", *map(spoken, (new, theirs)), figure, "", None, note
    )


def costs(work: Callable[[], object]) -> tuple[int, int, int]:
    """Return how often the work waits for the device, and how many bytes it copies to the host in how many copies."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroniz" in str(warning.message) for warning in seen)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        work()
        torch.cuda.synchronize()
    copies = [event for event in profile.events() or [] if "Memcpy DtoH" in event.name]
    return waits, sum(int(getattr(event, "nbytes", 0) or 0) for event in copies), len(copies)


if __name__ == "__main__":
    main()
