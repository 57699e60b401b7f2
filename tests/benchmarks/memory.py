"""The memory of this process."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak() -> float:
    """Return the most bytes that this process has held since `forget_peak`, or since its start if not on Linux."""
    for line in Path("/proc/self/status").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("VmHWM:"):
            return float(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def forget_peak() -> None:
    """Begin to measure the peak again, if the system allows."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")
