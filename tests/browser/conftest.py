"""A real JupyterLab and a real browser.

`server` is one JupyterLab for all tests, in temporary folders. `lab` is a new browser page of this server, with the
helpers of `lab.py`. A test fails if its page reports an error of Residscope.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    ViewportSize,
    expect,
    sync_playwright,
)
from playwright.sync_api import Error as PlaywrightError

from tests.support.lab import CHROMIUM_FLAGS, Lab
from tests.support.nursery import AVAILABLE, SOURCE, environment
from tests.support.server import Server, end
from tests.support.sidebar import FOLLOWS, TINY

PICTURES = Path("test-results")
VIEWPORT: ViewportSize = {"width": 1440, "height": 1000}


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """The socket of a process that starts kernels quickly (see `nursery.py`), or None if it is not available."""
    if not AVAILABLE:
        yield None
        return
    path = tmp_path_factory.mktemp("nursery") / "socket"
    process = subprocess.Popen([sys.executable, SOURCE, "serve", str(path)], env=environment(), start_new_session=True)
    yield path
    end(process)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, nursery: Path | None) -> Iterator[Server]:
    """A running JupyterLab; `server.root` is its folder of notebooks."""
    with Server.started(tmp_path_factory.mktemp("jupyterlab"), nursery) as running:
        yield running


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrowserContext]:
    """A running Chromium: the one that `npm test` found, or one on the path, or Playwright's own.

    All pages of JupyterLab have the same profile, because a profile keeps compiled scripts: JupyterLab then needs a
    third less processor time to start. Whatever else a page stored is deleted after each test.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = os.environ.get("RESIDSCOPE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        try:
            running = playwright.chromium.launch_persistent_context(
                tmp_path_factory.mktemp("chromium"),
                executable_path=path,
                args=CHROMIUM_FLAGS,
                viewport=VIEWPORT,
                reduced_motion="reduce",
            )
        except PlaywrightError as error:
            pytest.fail(f"Chromium cannot start. `npm test -- browser` finds or installs it.\n{error}", pytrace=False)
        yield running
        running.close()


@pytest.fixture(scope="session")
def browser(profile: BrowserContext) -> Browser:
    """The same Chromium, for pages with a new, empty profile."""
    assert profile.browser
    return profile.browser


def forget(profile: BrowserContext) -> None:
    """Close the pages of a test, and delete what they stored and what the test allowed them."""
    first, *others = profile.pages  # `first` is the empty page with which Chromium starts
    for page in others:
        page.close()
    profile.clear_permissions()
    profile.set_offline(False)
    session = profile.new_cdp_session(first)
    session.send("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})
    session.detach()


@contextmanager
def watched(page: Page, request: pytest.FixtureRequest) -> Generator[Page]:
    """Check that the page reports no error. If the test fails, a picture of the page is kept in `test-results/`."""
    errors: list[str] = []

    def note(text: str, where: str) -> None:
        if "residscope" in f"{text} {where}".lower() or "blob:" in where:  # anywidget loads modules from blobs
            errors.append(f"{text} ({where})")

    def note_message(message: ConsoleMessage) -> None:
        if message.type == "error":
            note(message.text, message.location.get("url", ""))

    page.on("console", note_message)
    page.on("pageerror", lambda error: note(str(error), error.stack or ""))
    yield page
    if request.session.testsfailed > request.config.stash.get(FAILED_BEFORE, 0):
        PICTURES.mkdir(exist_ok=True)
        page.screenshot(path=PICTURES / (re.sub(r"[^\w.-]+", "-", request.node.name) + ".png"))
    assert not errors, "the page reported errors of Residscope:\n" + "\n".join(errors)


@pytest.fixture
def page(profile: BrowserContext, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new, watched page."""
    try:
        with watched(profile.new_page(), request) as page:
            yield page
    finally:
        forget(profile)


@pytest.fixture
def timed_page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new, watched page whose clock the test moves.

    A clock holds for all pages of a context, also for later ones, and cannot be removed. So this page has its own.
    """
    context = browser.new_context(viewport=VIEWPORT, reduced_motion="reduce")
    with context, watched(context.new_page(), request) as page:
        page.clock.install()
        yield page


@pytest.fixture
def lab(page: Page, server: Server) -> Iterator[Lab]:
    """JupyterLab in a page, with its initial settings. The kernels that the test started end after the test."""
    server.forget_settings()
    yield Lab(page, server)
    server.shut_down_kernels()


@pytest.fixture
def small(lab: Lab) -> Lab:
    """A notebook whose kernel has one small cache, and the sidebar beside the notebook."""
    lab.open(lab.write_notebook("small.ipynb", TINY))
    lab.open_sidebar()
    lab.run_all()
    expect(lab.caches).to_have_count(1, timeout=FOLLOWS)
    return lab


FAILED_BEFORE = pytest.StashKey[int]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Store the number of failed tests, so that `page` can tell whether this test failed."""
    item.config.stash[FAILED_BEFORE] = item.session.testsfailed
