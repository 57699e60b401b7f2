"""`npm run bench`: measures the costs of Residscope, most of them compared with something else in the same run.

The program prints a table, and never asserts a time. The parts run one after another, each in a separate process.

python -m tests.benchmarks.run [--json FILE] [PART …]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.table import Row, markdown

PARTS = {
    "attribution": "heads, neurons and sources, beside TransformerLens",
    "own_targets": "each token's own target, beside one target",
    "listing": "the list of 1,000 caches",
    "why": "targets inside the model: sides, pairs, what a head moves",
    "segments": "a long trace in segments, beside one read of its patterns",
    "large": "a large model: memory, progress, cancelling",
    "attention_pictures": "attention views in a browser, beside CircuitsVis",
    "answer_times": "from a click to its picture in JupyterLab",
    "effect_times": "from a click to measured effects in JupyterLab, and stopping them",
    "first_picture": "the first picture in JupyterLab, beside CircuitsVis and plotly",
    "causes": "effects of heads and of the stream, beside hooked runs",
    "compare": "two runs compared, beside one attribution",
    "many": "ten thousand prompts",
    "sizes": "import, wheel, bundle, replies",
}


def main() -> None:
    """Measure everything, or the named parts, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # for the child process
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one or more of {', '.join(PARTS)}; by default all")
    arguments = parser.parse_args()
    if arguments.part:
        rows: list[Row] = importlib.import_module(f"tests.benchmarks.{arguments.part}").rows()
        arguments.json.write_text(json.dumps([row.__dict__ for row in rows]))
        return
    found: dict[str, list[Row]] = {}
    print(", ".join(f"{name} {value}" for name, value in machine().items()), flush=True)
    for part in arguments.parts or PARTS:
        start = time.perf_counter()
        found[part] = measured(part)
        print(f"\n### {PARTS[part]}\n\n{markdown(found[part])}", flush=True)
        print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if arguments.json:
        tables = {part: [row.__dict__ for row in rows] for part, rows in found.items()}
        arguments.json.write_text(json.dumps({"machine": machine(), **tables}, indent=2))


def measured(part: str) -> list[Row]:
    """Return the rows of one part, from a separate process."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "tests.benchmarks.run", "--part", part, "--json", str(file)]
        ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if ended.returncode != 0:  # a failing part must not hide the others
            print(ended.stdout[-3000:], file=sys.stderr)
            return [Row(part, "", "", "", "failed", "", None, "see above")]
        return [Row(**row) for row in json.loads(file.read_text())]


def machine() -> dict[str, object]:
    """Return a description of this machine."""
    names = ("torch", "transformer-lens", "circuitsvis", "plotly", "jupyterlab", "anywidget")
    known = {name: version(name) for name in names}
    return {"cores": os.cpu_count(), "processor": _processor(), "python": platform.python_version(), **known}


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
