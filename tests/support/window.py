"""Starts a code-server (VS Code in a browser) for the tests, and uses it like a person."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from jupyter_client.blocking.client import BlockingKernelClient
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import FrameLocator, Locator, Page, expect

from tests.support import nursery as nursery_program
from tests.support.beside import value
from tests.support.server import add_kernel, end, environment_in, write_notebook

T = TypeVar("T")
STARTING = 120.0  # seconds
FOLLOWS = 20_000  # milliseconds; long, because the machine may be busy

SETTINGS = {
    "workbench.startupEditor": "none",
    "workbench.tips.enabled": False,
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "chat.disableAIFeatures": True,
    "security.workspace.trust.enabled": False,
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "extensions.autoUpdate": False,
    "extensions.autoCheckUpdates": False,
    "extensions.ignoreRecommendations": True,
    "workbench.enableExperiments": False,
    "window.commandCenter": False,
    "workbench.activityBar.iconClickBehavior": "focus",  # a click on the icon of an open view must not close it
    "notebook.experimental.remoteSave": False,
    "files.simpleDialog.enable": True,
    "git.enabled": False,
}


@contextmanager
def kernels(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the environment of a program whose kernels have their files in `folder`.

    A nursery starts the kernels that are named `tests`.
    """
    socket = folder / "socket"
    process = subprocess.Popen(
        [sys.executable, nursery_program.SOURCE, "serve", str(socket)],
        env=nursery_program.environment(),
        start_new_session=True,
    )
    add_kernel(folder / "data", "tests", "Python", argv=[nursery_program.__file__, "kernel", str(socket)])
    without = "import sys; sys.path[:] = [folder for folder in sys.path if not folder.endswith('py_backend')]"
    add_kernel(folder / "data", "bare", "Python without Residscope", without)
    try:
        yield {**environment_in(folder), "STAND_IN_PYTHON": sys.executable}
    finally:
        end(process)


@dataclass
class CodeServer:
    """A running code-server. All its files are in temporary folders."""

    url: str
    root: Path
    runtime: Path
    user: Path
    log: Path

    @classmethod
    @contextmanager
    def started(cls, folder: Path, environment: dict[str, str], *extensions: Path) -> Iterator[CodeServer]:
        """Start code-server with these extensions, and end it with all its children."""
        program: list[str] = json.loads(os.environ["RESIDSCOPE_CODE_SERVER"])
        root, log, user = folder / "work", folder / "code-server.log", folder / "user"
        root.mkdir(parents=True)
        (user / "User").mkdir(parents=True)
        (user / "User" / "settings.json").write_text(json.dumps(SETTINGS))
        folders = [f"--user-data-dir={user}", f"--extensions-dir={folder / 'extensions'}"]
        for extension in extensions:
            command = [*program, *folders, "--install-extension", str(extension)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=STARTING)
            assert done.returncode == 0, done.stdout + done.stderr
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        quiet = [
            "--disable-telemetry",
            "--disable-update-check",
            "--disable-workspace-trust",
            "--disable-getting-started-override",
            "--enable-proposed-api=ms-toolsai.jupyter",  # the Jupyter extension needs it to show extensions' requests
        ]
        command = [*program, *folders, "--auth=none", f"--bind-addr=127.0.0.1:{port}", *quiet, str(root)]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        server = cls(f"http://127.0.0.1:{port}", root, Path(environment["JUPYTER_RUNTIME_DIR"]), user, log)
        try:
            server._wait(process)
            yield server
        finally:
            end(process)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + STARTING
        while process.poll() is None and time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{self.url}/healthz", timeout=5).close()
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)  # between two attempts
            else:
                return
        raise RuntimeError(f"code-server did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def write_notebook(self, name: str, *cells: str, kernel: str = "tests") -> str:
        """Write a notebook of code cells into the folder that is open."""
        write_notebook(self.root / name, cells, kernel)
        return name

    def pictures(self) -> list[str]:
        """Return the pictures that Residscope keeps for the time after a reload, as the texts of their files."""
        return [file.read_text() for file in self.user.glob("User/workspaceStorage/*/residscope.residscope/pictures/*")]


class Runs(NamedTuple):
    """How many cells run or have ended, in all notebooks of a window."""

    running: int = 0
    succeeded: int = 0
    failed: int = 0
    requests: int = 0
    """The number of extensions' requests. During each, the toolbar shows Interrupt for a short time."""

    @property
    def ended(self) -> int:
        """The number of cells that have ended."""
        return self.succeeded + self.failed


@dataclass
class Code:
    """A window of VS Code in a page."""

    page: Page
    server: CodeServer
    known: set[Path] = field(default_factory=set)

    def start(self) -> None:
        """Load the window."""
        self.known = set(self.server.runtime.glob("kernel-*.json"))
        self.page.goto(f"{self.server.url}/?folder={self.server.root}")
        self.ready()
        expect(self.page.locator(".explorer-folders-view")).to_be_visible(timeout=FOLLOWS)

    def ready(self) -> None:
        """Wait until the window accepts commands."""
        # Residscope's icon shows that the extensions are loaded. Before that, a notebook would open as JSON.
        expect(self.page.locator(".activitybar .action-label[aria-label^=Residscope]")).to_be_visible(timeout=60_000)

    def command(self, title: str) -> None:
        """Choose a command from the palette."""
        box = self.page.locator(".quick-input-widget input[type=text]")
        row = self.page.locator(".quick-input-list .monaco-list-row").filter(has_text=title).first

        def is_offered() -> bool:
            # Just after loading, a window does not know its extensions' commands yet, and may close the palette.
            with suppress(AssertionError, PlaywrightError):
                self.page.keyboard.press("F1")
                box.fill(f">{title}", timeout=3000)
                expect(row).to_be_visible(timeout=3000)
                return True
            self.page.keyboard.press("Escape")
            return False

        self.until(is_offered, bool)
        row.click()

    def open(self, name: str) -> None:
        """Open a notebook with a double click on its row in the explorer."""
        self.page.locator(".explorer-folders-view .monaco-list-row").filter(has_text=name).first.dblclick()
        expect(self.page.locator(".notebook-editor .cell-list-container:visible").first).to_be_visible(timeout=FOLLOWS)
        expect(self.tab(name)).to_be_visible()

    def tab(self, name: str) -> Locator:
        """An editor's tab."""
        return self.page.locator(".tabs-container .tab").filter(has_text=name).first

    def run_all(self) -> None:
        """Run all cells of the active notebook, and wait until all have succeeded."""
        before = self.runs()
        self.start_all()
        runs = self.until(self.runs, lambda runs: not runs.running and runs.ended > before.ended, timeout=90)
        assert runs.failed == before.failed, self.page.locator(".notebook-editor").first.inner_text()

    def start_all(self) -> None:
        """Start running all cells, and do not wait for their end."""
        self.page.locator(".notebook-toolbar-container").get_by_role("button", name="Run All").first.click()

    def runs(self) -> Runs:
        """Return how many cells run or wait, and how many have ended. The Jupyter extension's stand-in shows this."""
        for text in self.page.locator(".statusbar-item").all_inner_texts():
            if found := re.search(r"Stand-in: (\d+) running, (\d+) succeeded, (\d+) failed, (\d+) requests", text):
                return Runs(*map(int, found.groups()))
        return Runs()  # the stand-in has not started yet

    # --- Residscope ---------------------------------------------------------------------------------------------------
    def open_sidebar(self) -> Locator:
        """Open the sidebar (or focus it) by its icon in the activity bar, and return its content."""
        self.page.locator(".activitybar .action-label[aria-label^=Residscope]").first.click()
        return self.sidebar

    @property
    def sidebar(self) -> Locator:
        """The content of the sidebar."""
        return self._frame(".rs-sidebar:not(.rs-view-link)").locator(".rs-sidebar").first

    @property
    def tab_view(self) -> Locator:
        """The view in an editor tab."""
        return self._frame(".rs-view-link").get_by_role("region", name="Residscope", exact=True)

    @property
    def tab_page(self) -> Locator:
        """The whole page in an editor tab."""
        return self._frame(".rs-view-link").locator("main")

    @property
    def output_view(self) -> Locator:
        """The view in a notebook's output."""
        return self._frame("#container .residscope").get_by_role("region", name="Residscope", exact=True)

    def _frame(self, selector: str) -> FrameLocator:
        """Return the page that contains an element with this selector. It is a frame inside a webview's frame."""
        frames = self.page.locator("iframe.webview")

        def find() -> FrameLocator | None:
            for frame in frames.all():
                inner = frame.content_frame.locator("iframe#active-frame")
                if inner.count() and inner.content_frame.locator(selector).count():
                    return inner.content_frame
            return None

        found = self.until(find, lambda frame: frame is not None)
        assert found is not None
        return found

    @property
    def caches(self) -> Locator:
        """The rows of the sidebar's list, even if the list is collapsed."""
        part = self.sidebar.locator(".rs-part:not([hidden])")
        rows = part.get_by_role("list", name="Activation caches", include_hidden=True)
        return rows.get_by_role("listitem", include_hidden=True)

    def inspect(self, name: str) -> Locator:
        """Choose a cache in the sidebar, unless it is already shown. Wait for its view, and return the view."""
        view = self.sidebar.get_by_role("region", name="Residscope", exact=True)
        chosen = view.locator("button.rs-named")
        row = self.caches.filter(has_text=re.compile(rf"^\s*{re.escape(name)}\b"))
        expect(row).to_have_count(1)
        if self.caches.count() == 1:  # if there is only one cache, the sidebar opens it
            expect(chosen).to_have_attribute("aria-expanded", "false", timeout=FOLLOWS)
        if not chosen.is_visible() or chosen.inner_text() != name:
            if chosen.is_visible():
                chosen.click()
            row.locator(".rs-cache-main").click()
        return self.drawn(view)

    def drawn(self, view: Locator) -> Locator:
        """Wait until a view is ready, and return it."""
        expect(view).to_have_attribute("data-state", "ready", timeout=FOLLOWS)
        return view

    def answer(self, button: str) -> None:
        """Click a button of the modal dialog."""
        self.page.locator(".monaco-dialog-box .monaco-button").filter(has_text=button).click(timeout=FOLLOWS)

    # --- Python state -------------------------------------------------------------------------------------------------
    def python(self, expression: str) -> Any:
        """Return the value of an expression in the newest kernel. This leaves no name, no history and no `In[n]`."""
        files = sorted(
            set(self.server.runtime.glob("kernel-*.json")) - self.known, key=lambda file: file.stat().st_mtime
        )
        client = BlockingKernelClient(connection_file=str(files[-1]))
        client.load_connection_file()
        client.start_channels()
        try:
            return value(client, expression)
        finally:
            client.stop_channels()

    def until(self, read: Callable[[], T], good: Callable[[T], bool], timeout: float = 30.0) -> T:
        """Call `read` repeatedly until `good` accepts its result, and return that result."""
        end_time = time.monotonic() + timeout
        while not good(value := read()):
            assert time.monotonic() < end_time, f"still {value!r} after {timeout:.0f} s"
            self.page.wait_for_timeout(50)  # between two reads
        return value
