"""py_backend/docs/compatibility.md: which versions the tests were run with, from the records of these runs.

`RESIDSCOPE_RECORD=/path/to/runs.jsonl npm test` (or any other command that runs tests) adds a line for each run of
pytest and vitest, and for a build.
`python -m tests.documents.compatibility /path/to/runs.jsonl` merges these lines into compatibility.json, where a newer
run replaces an older one with the same versions, and writes the table.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "py_backend/docs"
NAMES = {
    "python": "Python",
    "node": "Node",
    "transformer-lens": "TransformerLens",
    "torch": "PyTorch",
    "transformers": "transformers",
    "ipykernel": "ipykernel",
    "jupyterlab": "JupyterLab",
    "notebook": "Notebook",
    "marimo": "marimo",
    "sae-lens": "SAELens",
    "peft": "peft",
    "bitsandbytes": "bitsandbytes",
    "code-server": "code-server",
}
MATHEMATICS = ("python", "transformer-lens", "torch", "transformers")
SUITES = {
    "tests/python": ("mathematics, panel, exports", MATHEMATICS),
    "tests/kernel": ("real kernels", (*MATHEMATICS, "ipykernel")),
    "tests/browser": ("real pages", (*MATHEMATICS, "ipykernel", "jupyterlab", "notebook", "marimo")),
    "tests/versions": ("older TransformerLens", (*MATHEMATICS, "sae-lens")),
    "tests/adapters": ("peft, bitsandbytes", (*MATHEMATICS, "peft", "bitsandbytes")),
    "tests/vscode": ("VS Code (code-server)", (*MATHEMATICS, "ipykernel", "code-server")),
    "build": ("build of both bundles", ("node",)),
    "widgets/test": ("views (vitest)", ("node",)),
    "extension/vscode/test": ("VS Code extension (vitest)", ("node",)),
}
"""What each folder of tests is about, and the programs that its tests use: others are installed, but not tested."""

ONLY_IN = {"notebook": "test_notebook7.py", "marimo": "test_marimo.py"}
"""Programs that a single file of tests uses."""

HEAD = """# Compatibility

What was run, with which versions. Each row was written by the run itself (`tests/documents/compatibility.py`), by one
command. What is not in this table was not run.

| tests | with | passed | skipped | failed | date |
|---|---|---|---|---|---|
"""


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return all runs, sorted. Of several runs of the same tests with the same versions, only the last one is kept."""
    found = {(*run["what"], run.get("chosen"), run["system"], *used(run).items()): run for run in [*old, *new]}
    places = {what: place for place, what in enumerate(SUITES)}

    def place(run: dict[str, Any]) -> tuple[Any, ...]:
        numbers = [[int(part) for part in re.findall(r"\d+", version)] for version in used(run).values()]
        return [places.get(suite, 99) for suite in _parts(run)], run["what"], numbers, run.get("chosen", "")

    return sorted(found.values(), key=place)


def used(run: dict[str, Any]) -> dict[str, str]:
    """Return the versions of the programs that the tests of a run use."""
    uses = {name for suite in _parts(run) for name in SUITES.get(suite, ("", tuple(NAMES)))[1]}
    files = {file for files in _parts(run).values() for file in files}
    left_out = {name for name, file in ONLY_IN.items() if files and file not in files}
    return {name: run[name] for name in NAMES if name in run and name in uses - left_out}


def markdown(runs: list[dict[str, Any]]) -> str:
    """Return the document."""
    rows: list[str] = []
    for run in runs:
        suites = _parts(run).items()
        what = "; ".join(f"`{suite}`: {SUITES.get(suite, (suite,))[0]}{_only(files)}" for suite, files in suites)
        what += f" (`{run['chosen']}`)" if "chosen" in run else ""
        versions = ", ".join(f"{NAMES[name]} {version}" for name, version in used(run).items())
        failed = run.get("failed", 0) + run.get("error", 0)
        counts = f"{run['passed']:,} | {run.get('skipped', 0):,} | {failed:,}"
        rows.append(f"| {what} | {versions}; {run['system']} | {counts} | {run['date']} |")
    return HEAD + "\n".join(rows) + "\n"


def _parts(run: dict[str, Any]) -> dict[str, list[str]]:
    """The folders of a run's tests, whole ones first. For each, the files of which tests ran; none stands for all."""
    whole = [what for what in SUITES if what in run["what"]]
    found: dict[str, list[str]] = {what: [] for what in [*whole, *run["what"]] if not what.endswith(".py")}
    for what in run["what"]:
        folder, _, file = what.rpartition("/")
        if what.endswith(".py") and folder not in run["what"]:
            found.setdefault(folder, []).append(file)
    return found


def _only(files: list[str]) -> str:
    return f", only tests in {', '.join(f'`{file}`' for file in files)}" if files else ""


def main(new: list[dict[str, Any]]) -> None:
    """Merge new runs into the records, and write the document."""
    records = FOLDER / "compatibility.json"
    old = json.loads(records.read_text()) if records.exists() else []
    runs = merged(old, new)
    records.write_text("[\n" + ",\n".join(json.dumps(run) for run in runs) + "\n]\n")
    (FOLDER / "compatibility.md").write_text(markdown(runs))


if __name__ == "__main__":
    main([json.loads(line) for path in sys.argv[1:] for line in Path(path).read_text().splitlines()])
