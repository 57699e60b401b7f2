"""Settings of all tests: where processes find `tests.support`, the versions in the report, and the record of a run."""

import os
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

# Kernels and other processes that a test starts can then import `tests.support`. (Tests find it by `pythonpath`.)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
pytest.register_assert_rewrite("tests.support")

_started = time.monotonic()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Record the run, if `RESIDSCOPE_RECORD` names a file (tests/support/recorded_run.py)."""
    from tests.support.recorded_run import record

    counts = {outcome: len(reports) for outcome, reports in terminalreporter.stats.items()}
    args = [os.path.relpath(arg, config.rootpath) for arg in config.args]
    record(args, config.option.markexpr, counts, time.monotonic() - _started)


def pytest_report_header() -> str:
    """Return a line with the versions on which numbers depend, read from metadata without an import."""
    named = []
    for package in ("transformer-lens", "torch", "jupyterlab", "ipykernel", "anywidget"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            named.append(f"{package} missing")
    return "with: " + ", ".join(named)
