"""Writes down which tests ran with which versions, for the table in py_backend/docs/compatibility.md.

A run is recorded if `RESIDSCOPE_RECORD` names a file. Each run that was not interrupted adds one line of JSON.
"""

from __future__ import annotations

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("transformer-lens", "torch", "transformers", "numpy", "jupyterlab", "notebook", "marimo", "ipykernel"),
    *("anywidget", "sae-lens", "peft", "bitsandbytes"),
)


def versions() -> dict[str, str]:
    """Return the installed versions, read from metadata without an import."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if host := os.environ.get("RESIDSCOPE_HOST_JUPYTERLAB"):
        found["jupyterlab"] = host  # another release serves the page; this Python has only the kernel
    if command := os.environ.get("RESIDSCOPE_CODE_SERVER"):  # Node and its program, see .dev/vscode.mjs
        package = Path(json.loads(command)[1]).parents[2] / "package.json"
        found["code-server"] = json.loads(package.read_text("utf-8"))["version"]
    return found


def record(path: str, args: list[str], chosen: str, counts: dict[str, int], seconds: float) -> None:
    """Add a run to a file.

    Args:
        path: The file.
        args: The tests that were asked for, as paths of folders or files, with or without `::` and a name.
        chosen: The options that chose some of them, such as `-m alone`. May be empty.
        counts: How many tests had each outcome.
        seconds: The time that the run took.
    """
    line: dict[str, Any] = {
        "what": sorted({Path(arg.split("::")[0]).as_posix() for arg in args}),
        **({"chosen": chosen} if chosen else {}),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **versions(),
        **{outcome: counts.get(outcome, 0) for outcome in ("passed", "skipped", "failed", "error")},
        "seconds": round(seconds),
        "date": time.strftime("%Y-%m-%d"),
    }
    with Path(path).open("a") as file:
        file.write(json.dumps(line) + "\n")
