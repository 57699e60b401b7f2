"""py_backend/docs/compatibility.md: which versions the tests were run with, from the records of these runs.

`RESIDSCOPE_RECORD=/path/to/runs.jsonl npm test` (or any other command that runs tests) adds a line for each run.
`python -m tests.documents.compatibility /path/to/runs.jsonl` merges these lines into compatibility.json, where a newer
run replaces an older one with the same versions, and writes the table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "py_backend/docs"
NAMES = {
    "python": "Python",
    "node": "Node",
    "transformer-lens": "TransformerLens",
    "torch": "PyTorch",
    "jupyterlab": "JupyterLab",
    "notebook": "Notebook",
    "marimo": "marimo",
    "sae-lens": "SAELens",
}
SUITES = {
    "tests/python": "mathematics, panel, exports",
    "tests/kernel": "real kernels",
    "tests/browser": "real pages",
    "tests/versions": "older TransformerLens",
    "tests/adapters": "peft, bitsandbytes",
    "tests/vscode": "VS Code (code-server)",
    "widgets/test": "views (vitest)",
    "extension/vscode/test": "VS Code extension (vitest)",
}
HEAD = """# Compatibility

What was run, with which versions. Each row is written by a run itself (`RESIDSCOPE_RECORD`, see
`tests/documents/compatibility.py`); do not edit. What is not in this table was not run.

| tests | versions | passed | skipped | failed | date |
|---|---|---|---|---|---|
"""


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all runs, sorted. Of several runs of the same tests, marks and versions, only the last one is kept."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run in [*old, *new]:
        found[(*run["what"], run.get("marks"), *(run.get(name) for name in NAMES))] = run
    places = {what: place for place, what in enumerate(SUITES)}
    return sorted(found.values(), key=lambda run: ([places.get(what, 99) for what in run["what"]], _versions(run)))


def markdown(runs: list[dict[str, Any]]) -> str:
    """Return the document."""
    rows: list[str] = []
    for run in runs:
        what = ", ".join(SUITES.get(what, what) for what in run["what"])
        what += f" (`{run['marks']}`)" if "marks" in run else ""
        failed = run.get("failed", 0) + run.get("error", 0)
        counts = f"{run['passed']:,} | {run.get('skipped', 0):,} | {failed:,}"
        rows.append(f"| {what} | {_versions(run)} | {counts} | {run['date']} |")
    return HEAD + "\n".join(rows) + "\n"


def main(new: list[dict[str, Any]]) -> None:
    """Merge new runs into the records, and write the document."""
    records = FOLDER / "compatibility.json"
    old = json.loads(records.read_text()) if records.exists() else []
    runs = merged(old, new)
    records.write_text("[\n" + ",\n".join(json.dumps(run) for run in runs) + "\n]\n")
    (FOLDER / "compatibility.md").write_text(markdown(runs))


def _versions(run: dict[str, Any]) -> str:
    named = [f"{NAMES[name]} {run[name]}" for name in NAMES if name in run]
    return ", ".join([*named, run.get("system", "")]).strip(", ")


if __name__ == "__main__":
    main([json.loads(line) for path in sys.argv[1:] for line in Path(path).read_text().splitlines()])
