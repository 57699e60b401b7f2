"""Driving JupyterLab from a test: by its commands, waiting for its states, never for a time."""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import platformdirs
from playwright.sync_api import Locator, Page, expect

T = TypeVar("T")
STARTING = 120.0  # seconds; a first start on a small machine compiles a great deal
MODEL = 300_000.0  # milliseconds; importing TransformerLens and loading the demo model included


@dataclass
class Server:
    """A running JupyterLab."""

    url: str
    token: str
    root: Path
    log: Path
    data: Path

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Server]:
        """Start JupyterLab with everything it reads and writes inside `folder`, and end it afterwards."""
        root, log = folder / "notebooks", folder / "jupyterlab.log"
        root.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = cls(f"http://127.0.0.1:{port}", secrets.token_hex(16), root, log, folder / "data")
        server.add_kernel("tests", "Python of the tests")  # a name that no host claims for its own
        without = "import sys; sys.path[:] = [folder for folder in sys.path if not folder.endswith('py_backend')]"
        server.add_kernel("bare", "Python without Residscope", without)
        host = os.environ.get("RESIDSCOPE_HOST_PYTHON", sys.executable)  # see .dev/hosts.mjs
        program = os.environ.get("RESIDSCOPE_HOST_PROGRAM", "jupyterlab")
        command = [host, "-m", program, "--no-browser", "--allow-root", "--expose-app-in-browser"]
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
        command += ["--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={server.token}"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=root,
                env=_environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            server._wait(process)
            yield server
        finally:
            _end(process)

    def add_kernel(self, name: str, title: str, before: str = "") -> None:
        """Add a kernel that runs in this very environment, whichever one JupyterLab runs in.

        `before` is Python code that runs before ipykernel is imported.
        """
        start = f"{before}\nfrom ipykernel.kernelapp import launch_new_instance\nlaunch_new_instance()"
        spec = {
            "argv": [sys.executable, "-c", start, "-f", "{connection_file}"],
            "display_name": title,
            "language": "python",
            "metadata": {"debugger": False},
        }
        folder = self.data / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps(spec))

    def request(self, path: str, method: str = "GET") -> Any:
        """Ask the server's REST interface."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(self.url + path, method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.loads(reply.read() or b"null")

    def shut_down_kernels(self) -> None:
        """End every session and its kernel."""
        for session in self.request("/api/sessions"):
            self.request(f"/api/sessions/{session['id']}", "DELETE")

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + STARTING
        while process.poll() is None and time.monotonic() < until:
            try:
                self.request("/api/status")
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)  # between two attempts
            else:
                return
        end = "ended" if process.poll() is not None else f"was not ready in {STARTING:.0f} s"
        raise RuntimeError(f"JupyterLab {end}:\n{self.log.read_text(errors='replace')[-4000:]}")


def _environment(folder: Path) -> dict[str, str]:
    """The environment of JupyterLab and its kernels: nothing of the user's, but what is dear to download again."""
    settings = folder / "config" / "labconfig"
    settings.mkdir(parents=True)
    quiet = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}
    (settings / "default_setting_overrides.json").write_text(json.dumps(quiet))
    home = folder / "home"
    home.mkdir()
    return {
        **os.environ,
        "RESIDSCOPE_CACHE": os.environ.get("RESIDSCOPE_CACHE") or str(platformdirs.user_cache_path("residscope")),
        "HF_HOME": os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface"),
        "HOME": str(home),
        "USERPROFILE": str(home),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    """End JupyterLab and all its children, kindly first."""

    def send(kind: signal.Signals) -> None:
        if hasattr(os, "killpg"):
            os.killpg(process.pid, kind)
        else:
            process.terminate()

    if process.poll() is None:
        send(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            send(getattr(signal, "SIGKILL", signal.SIGTERM))
            process.wait(15)


class Lab:
    """JupyterLab in a page."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server

    # --- places -------------------------------------------------------------------------------------------------

    def start(self, path: str = "") -> None:
        """Load JupyterLab with an empty workspace, at a file if one is named."""
        tree = f"/tree/{quote(path)}" if path else ""
        self.page.goto(f"{self.server.url}/lab{tree}?reset&token={self.server.token}")
        self.page.wait_for_function("() => window.jupyterapp !== undefined", timeout=60_000)
        self.page.evaluate("() => window.jupyterapp.restored")
        self.page.wait_for_function("() => window.jupyterapp.shell.currentWidget !== null")  # the launcher, or the file

    def open(self, path: str) -> None:
        """Load JupyterLab at a notebook (relative to `server.root`) and wait for its kernel."""
        self.start(path)
        self.wait_for_notebook(path)

    def wait_for_notebook(self, path: str) -> None:
        """Wait until the notebook is the current widget, is loaded, and its kernel has answered."""
        self.page.wait_for_function(
            "path => window.jupyterapp.shell.currentWidget?.context?.path === path", arg=path, timeout=60_000
        )
        self._kernel_ready()

    def write_notebook(self, path: str, *cells: str, kernel: str = "tests") -> str:
        """Write a notebook of code cells into the server's folder and return its path, ready for `open`."""
        code = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        notebook = {
            "cells": [{**code, "id": f"cell-{number}", "source": source} for number, source in enumerate(cells)],
            "metadata": {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (self.server.root / path).write_text(json.dumps(notebook))
        return path

    # --- commands -----------------------------------------------------------------------------------------------

    def command(self, name: str, **args: Any) -> None:
        """Execute a command of JupyterLab's and wait for its end."""
        self.evaluate("async ([name, args]) => { await window.jupyterapp.commands.execute(name, args); }", [name, args])

    def run_all(self) -> None:
        """Run all cells and wait for the last; a cell that fails fails the test, with its traceback."""
        self._kernel_ready()  # or else JupyterLab asks which kernel to use, and waits for an answer
        self.command("notebook:run-all-cells")
        failures = self.page.evaluate(
            """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.flatMap(cell =>
                (cell.toJSON().outputs ?? []).filter(output => output.output_type === "error")
                    .map(output => output.traceback.join("\\n")))"""
        )
        assert not failures, "a cell failed:\n" + "\n".join(failures)

    def start_all(self) -> None:
        """Start running all cells and do not wait for their end."""
        self._kernel_ready()
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def evaluate(self, function: str, arg: Any = None, timeout: float = MODEL) -> Any:
        """Call an async function in the page; unlike the page's own `evaluate`, this ends when the promise does not."""
        script = f"""async ([arg, timeout]) => {{
            let timer;
            const late = new Promise((_, reject) => {{
                timer = setTimeout(() => reject(new Error(`no answer in ${{timeout / 1000}} s`)), timeout);
            }});
            try {{
                return await Promise.race([({function})(arg), late]);
            }} finally {{
                clearTimeout(timer);
            }}
        }}"""
        return self.page.evaluate(script, [arg, timeout])

    def _kernel_ready(self) -> None:
        """Wait until the current notebook is loaded and its kernel has answered."""
        self.page.wait_for_function("() => window.jupyterapp.shell.currentWidget?.sessionContext", timeout=60_000)
        self.evaluate(
            """async () => {
                const { context, sessionContext } = window.jupyterapp.shell.currentWidget;
                await context.ready;
                await sessionContext.ready;
                await sessionContext.session.kernel.info;
            }""",
            timeout=60_000,
        )

    # --- Python state -------------------------------------------------------------------------------------------

    def python(self, expression: str, before: str = "") -> Any:
        """Evaluate an expression in the notebook's kernel and return its value (anything JSON can carry).

        The current notebook's, or that of the first one that is open. Statements go into `before`. Leaves no name, no
        history and no `In[n]` behind.
        """
        reply = self.evaluate(
            """async ([code, value]) => {
                const widgets = [window.jupyterapp.shell.currentWidget, ...window.jupyterapp.shell.widgets("main")];
                const { kernel } = widgets.find(widget => widget?.sessionContext).sessionContext.session;
                const options = { code, silent: true, store_history: false, allow_stdin: false, stop_on_error: false };
                const future = kernel.requestExecute({ ...options, user_expressions: { value } });
                return (await future.done).content;
            }""",
            [before, f"__import__('json').dumps({expression})"],
        )
        value = reply.get("user_expressions", {}).get("value", {})
        for part in (reply, value):
            if part.get("status") != "ok":
                trace = "\n".join([f"{part.get('ename')}: {part.get('evalue')}", *(part.get("traceback") or [])])
                raise AssertionError(f"{expression!r} in the kernel: {trace}")
        return json.loads(ast.literal_eval(value["data"]["text/plain"]))

    def becomes(self, expression: str, expected: Any, timeout: float = 15.0) -> None:
        """Wait until an expression has a value in the kernel: a gesture travels there on its own time."""
        # Not `wait_for_function`, which takes the promise of an answer for a yes.
        self.until(lambda: self.python(expression), lambda value: value == expected, timeout)

    def until(self, read: Callable[[], T], good: Callable[[T], bool], timeout: float = 15.0) -> T:
        """Read something again and again until it is good."""
        end = time.monotonic() + timeout
        while not good(value := read()):
            assert time.monotonic() < end, f"still {value!r} after {timeout:.0f} s"
            self.page.wait_for_timeout(50)  # between two looks
        return value

    # --- the sidebar --------------------------------------------------------------------------------------------

    @property
    def sidebar(self) -> Locator:
        """The sidebar."""
        return self.page.get_by_role("region", name="Residscope sidebar", exact=True)

    def open_sidebar(self) -> Locator:
        """Open the sidebar by its tab, and return it."""
        if not self.sidebar.is_visible():
            self.page.get_by_role("tab", name="Residscope", exact=True).click()
        expect(self.sidebar).to_be_visible()
        return self.sidebar

    @property
    def caches(self) -> Locator:
        """The rows of the sidebar's list."""
        return self.sidebar.get_by_role("list", name="Activation caches").get_by_role("listitem")

    def inspect(self, name: str) -> Locator:
        """Click the row of a cache in the sidebar, and return its view once it is drawn."""
        self.caches.filter(has_text=re.compile(rf"^\s*{re.escape(name)}\b")).click()
        return self.ready(self.sidebar.get_by_role("region", name="Residscope", exact=True))

    def ready(self, view: Locator, timeout: float = 30_000) -> Locator:
        """A view, once it is ready; its own words when it is in error."""
        expect(view.and_(self.page.locator("[data-state=ready], [data-state=error]"))).to_be_visible(timeout=timeout)
        if view.get_attribute("data-state") == "error":
            raise AssertionError(f"the view is in error: {view.inner_text()}")
        return view

    # --- the panel ----------------------------------------------------------------------------------------------

    def panel(self, nth: int = 0) -> Locator:
        """The panel in the notebook's output, once it is ready; its own words when it is in error."""
        return self.ready(self.page.get_by_role("region", name="Residscope", exact=True).nth(nth), MODEL)
