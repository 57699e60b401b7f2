"""Notebook 7 runs the same extension and the same panel as JupyterLab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.hostile_notebooks import notebooks
from tests.support.lab import Lab
from tests.support.server import Server
from tests.support.sidebar import FOLLOWS, TINY, cache_status, cell, cells


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, nursery: Path | None) -> Iterator[Server]:
    """Notebook 7 instead of JupyterLab."""
    with Server.started(tmp_path_factory.mktemp("notebook7"), nursery, program="notebook") as running:
        yield running


def test_the_panel_and_the_sidebar(page: Page, server: Server) -> None:
    lab = Lab(page, server)
    path = lab.write_notebook("small.ipynb", TINY, "import residscope\npanel = residscope.inspect(cache)")
    page.goto(f"{server.url}/notebooks/{path}?token={server.token}")
    page.wait_for_function("() => window.jupyterapp !== undefined", timeout=60_000)
    page.evaluate("() => window.jupyterapp.restored")
    lab.wait_for_notebook(path)
    lab.run_all()

    panel = lab.panel()
    grid = lab.python("residscope.attribute(cache, panel.target).grid.mean(-1).flatten().tolist()")
    assert list(cells(panel).values()) == pytest.approx(grid, abs=5e-3)
    cell(panel, "L0H1").click()
    expect(panel.get_by_role("region", name="Attention L0H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    lab.becomes("panel.heads", ["L0H1"])

    panel.get_by_role("button", name="Help", exact=True).click()  # a dialog, because there are no tabs
    dialog = page.get_by_role("dialog").filter(has_text="Residscope Help")
    expect(dialog.get_by_role("heading", name="The panel: gestures and keys")).to_be_visible(timeout=FOLLOWS)
    dialog.get_by_role("button", name="Close").last.click()

    lab.command("residscope:inspect-cache")
    expect(lab.sidebar).to_be_visible()
    expect(lab.caches).to_have_count(1, timeout=FOLLOWS)
    view = lab.inspect("cache")
    assert cells(view) == cells(panel)
    cell(view, "L1H1").click()
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    lab.run_cell("panel.close(); del cache, panel")
    expect(cache_status(view)).to_contain_text("was deleted: no variable refers to it", timeout=FOLLOWS)
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    expect(cache_status(view)).to_contain_text("was lost when the kernel restarted", timeout=FOLLOWS)


def test_a_hostile_notebook_runs_nothing(page: Page, server: Server) -> None:
    lab = Lab(page, server)
    (server.root / "hostile.ipynb").write_text(dict(notebooks())["widget, no picture"].text())
    page.goto(f"{server.url}/notebooks/hostile.ipynb?token={server.token}")
    expect(page.locator(".rs-output-words")).to_contain_text("a notebook that is not trusted", timeout=FOLLOWS)
    lab.wait_for_notebook("hostile.ipynb")  # until its widgets would be restored
    expect(page.locator(".rs-output-words")).to_be_visible()
    assert page.evaluate("() => window.hacked") is None
