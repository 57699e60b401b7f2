"""marimo shows the panel, and other cells react to its selection."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.lab import MODEL
from tests.support.server import STARTING, end
from tests.support.sidebar import cell, cells

APP = """
import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo
    import residscope
    from tests.support import tiny

    tokens, logits, cache = tiny.run(tiny.boot("llama"))
    return cache, mo, residscope


@app.cell
def _(cache, mo, residscope):
    panel = mo.ui.anywidget(residscope.inspect(cache))
    panel
    return (panel,)


@app.cell
def _(cache, mo, panel, residscope):
    result = residscope.attribute(cache, panel.target, by="head")
    figures = [round(value, 2) for value in result.grid.mean(-1).flatten().tolist()]
    mo.plain_text(f"pinned {panel.value['heads']} of {figures}")
    return


if __name__ == "__main__":
    app.run()
"""


@pytest.fixture
def marimo(tmp_path: Path) -> Iterator[str]:
    """The address of a running app."""
    (tmp_path / "app.py").write_text(APP)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "marimo", "-q", "run", "app.py", "--headless", "--no-token", "-p", str(port)]
    with (tmp_path / "marimo.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env={
                **os.environ,
                "HOME": str(tmp_path),
                "XDG_CONFIG_HOME": str(tmp_path),
                "MARIMO_SKIP_UPDATE_CHECK": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + STARTING
    while process.poll() is None and time.monotonic() < until:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)  # between two attempts
    yield f"http://127.0.0.1:{port}"
    end(process)


def test_the_panel_is_drawn_and_its_selection_updates_other_cells(page: Page, marimo: str) -> None:
    page.goto(marimo)
    panel = page.get_by_role("region", name="Residscope", exact=True)
    expect(panel).to_have_attribute("data-state", "ready", timeout=MODEL)
    told = page.get_by_text(re.compile(r"^pinned \["))
    expect(told).to_contain_text("pinned [] of")
    figures = [float(text) for text in re.findall(r"-?\d+\.\d+", told.inner_text())]
    assert list(cells(panel).values()) == pytest.approx(figures, abs=0.011)

    cell(panel, "L2H1").click()
    card = panel.get_by_role("region", name="Attention L2H1", exact=True)
    expect(card).to_be_visible()
    expect(told).to_contain_text("pinned ['L2H1'] of")
    card.locator("canvas").first.hover(position={"x": 4, "y": 4})
    expect(panel.locator(".rs-sentence")).to_contain_text("(destination 0) reads")
