"""The sidebar in Notebook 7; run by `npm run test:hosts`, which starts that instead of JupyterLab."""

from __future__ import annotations

from lab import Lab
from playwright.sync_api import expect
from sidebar import FOLLOWS, TINY, cell, cells, standing


def test_attaches_lists_shows_and_follows(lab: Lab) -> None:
    path = lab.write_notebook("small.ipynb", TINY)
    lab.page.goto(f"{lab.server.url}/notebooks/{path}?token={lab.server.token}")
    lab.page.wait_for_function("() => window.jupyterapp !== undefined", timeout=60_000)
    lab.page.evaluate("() => window.jupyterapp.restored")
    lab.wait_for_notebook(path)
    lab.run_all()
    lab.command("residscope:inspect-cache")
    expect(lab.sidebar).to_be_visible()
    expect(lab.caches).to_have_count(1, timeout=FOLLOWS)
    expect(lab.caches.first).to_contain_text("cache")
    view = lab.inspect("cache")
    assert len(cells(view)) == lab.python("model.cfg.n_layers * model.cfg.n_heads")
    cell(view, "L1H1").click()
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    lab.run_cell("del cache")
    expect(standing(view)).to_contain_text("is not in memory any more", timeout=FOLLOWS)
    lab.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    expect(standing(view)).to_contain_text("went with its kernel", timeout=FOLLOWS)
