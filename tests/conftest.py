"""Settings of all tests: where processes find `tests.support`, the versions in the report, and the record of a run."""

import os
import shlex
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

# Kernels and other processes that a test starts can then import `tests.support`. (Tests find it by `pythonpath`.)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
pytest.register_assert_rewrite("tests.support")

_started = time.monotonic()
_record = os.environ.pop("RESIDSCOPE_RECORD", "")  # removed, so that runs which a test starts are not recorded


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Record the run, if `RESIDSCOPE_RECORD` names a file and all tests ran (tests/support/recorded_run.py)."""
    if not _record or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    from tests.support.recorded_run import record

    counts = {outcome: len(reports) for outcome, reports in terminalreporter.stats.items()}
    args = [os.path.relpath(arg, config.rootpath) for arg in config.args]
    options = {"-m": config.option.markexpr, "-k": config.option.keyword}
    chosen = " ".join(f"{option} {shlex.quote(value)}" for option, value in options.items() if value)
    record(_record, args, chosen, counts, time.monotonic() - _started)


def pytest_report_header() -> str:
    """Return a line with the versions on which numbers depend, read from metadata without an import."""
    named = []
    for package in ("transformer-lens", "torch", "jupyterlab", "ipykernel", "anywidget"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            named.append(f"{package} missing")
    return "with: " + ", ".join(named)
