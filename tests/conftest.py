"""For every test: what it runs with, in the report's first lines."""

from importlib.metadata import PackageNotFoundError, version


def pytest_report_header() -> str:
    """Name the versions that numbers depend on (from metadata: nothing heavy is imported)."""
    named = []
    for package in ("transformer-lens", "torch", "jupyterlab", "ipykernel", "anywidget"):
        try:
            named.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            named.append(f"{package} missing")
    return "with: " + ", ".join(named)
