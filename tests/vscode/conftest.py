"""A real code-server with the packaged extension. A stand-in for the Jupyter extension runs real kernels."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.support.lab import CHROMIUM_FLAGS
from tests.support.sidebar import TINY
from tests.support.window import FOLLOWS, Code, CodeServer, kernels

PICTURES = Path("test-results")
VSIX = Path(os.environ.get("RESIDSCOPE_VSIX", "dist"))


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a code-server, with settings for its kernels."""
    with kernels(tmp_path_factory.mktemp("jupyter")) as variables:
        yield variables


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[CodeServer]:
    """VS Code with Residscope and the stand-in for the Jupyter extension."""
    extensions = (VSIX / "stand-in.vsix", VSIX / "residscope.vsix")
    with CodeServer.started(tmp_path_factory.mktemp("code"), environment, *extensions) as running:
        yield running


@pytest.fixture(scope="session")
def without_jupyter(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[CodeServer]:
    """VS Code with Residscope but without the Jupyter extension."""
    with CodeServer.started(tmp_path_factory.mktemp("alone"), environment, VSIX / "residscope.vsix") as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium that `npm run test:vscode` found."""
    path = os.environ.get("RESIDSCOPE_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new page. If a test fails, a picture of the page is kept in `test-results/`, and cell outputs are printed."""
    context = browser.new_context(
        viewport={"width": 1440, "height": 1000}, reduced_motion="reduce", accept_downloads=True
    )
    page = context.new_page()
    failed = request.session.testsfailed
    yield page
    if request.session.testsfailed > failed:
        PICTURES.mkdir(exist_ok=True)
        page.screenshot(path=PICTURES / ("vscode-" + re.sub(r"[^\w.-]+", "-", request.node.name) + ".png"))
        print(page.locator(".cell-statusbar-container").evaluate_all("nodes => nodes.map(node => node.outerHTML)"))
    context.close()


@pytest.fixture
def code(page: Page, server: CodeServer) -> Code:
    """A window of VS Code on a folder without notebooks."""
    for left in server.root.iterdir():
        left.unlink()
    return Code(page, server)


@pytest.fixture
def small(code: Code) -> Code:
    """A notebook whose kernel has one cache, with the sidebar beside it. Residscope's access is already allowed."""
    code.server.write_notebook("small.ipynb", TINY)
    code.start()
    code.open("small.ipynb")
    code.command("Stand-in: Allow Access")
    code.run_all()
    code.open_sidebar()
    expect(code.caches).to_have_count(1, timeout=FOLLOWS)
    return code
