"""For every test: what it runs with, in the report's first lines; and where processes find this package."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

# Kernels and other processes that a test starts import `tests.support`, as the tests do by pytest's `pythonpath`.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
pytest.register_assert_rewrite("tests.support")


def pytest_report_header() -> str:
    """Name the versions that numbers depend on (from metadata: nothing heavy is imported)."""
    named = []
    for package in ("transformer-lens", "torch", "jupyterlab", "ipykernel", "anywidget"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            named.append(f"{package} missing")
    return "with: " + ", ".join(named)
