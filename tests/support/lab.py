"""Controls JupyterLab by its commands. The functions wait for states of JupyterLab, not for fixed times."""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Locator, Page, expect

from tests.support.server import Server, write_notebook

T = TypeVar("T")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
MODEL = 300_000.0  # milliseconds; long enough to import TransformerLens and to load the demo model


class Lab:
    """JupyterLab in a page."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.server = server

    # --- places -------------------------------------------------------------------------------------------------

    def start(self, path: str = "") -> None:
        """Load JupyterLab with an empty workspace, and open the file `path` if it is given."""
        tree = f"/tree/{quote(path)}" if path else ""
        self.page.goto(f"{self.server.url}/lab{tree}?reset&token={self.server.token}")
        self.page.wait_for_function("() => window.jupyterapp !== undefined", timeout=60_000)
        self.page.evaluate("() => window.jupyterapp.restored")
        self.page.wait_for_function("() => window.jupyterapp.shell.currentWidget !== null")  # the launcher or the file

    def open(self, path: str) -> None:
        """Load JupyterLab at a notebook (relative to `server.root`) and wait for its kernel."""
        self.start(path)
        self.wait_for_notebook(path)

    def wait_for_notebook(self, path: str) -> None:
        """Wait until the notebook is the current widget and is loaded, and until its kernel has answered."""
        self.page.wait_for_function(
            "path => window.jupyterapp.shell.currentWidget?.context?.path === path", arg=path, timeout=60_000
        )
        self._kernel_ready()

    def reload(self, *saved: str) -> None:
        """Reload the page as soon as JupyterLab has saved a workspace that contains these texts (as JSON).

        JupyterLab saves its workspace some time after a change. A page that is reloaded before that has an older state.
        """
        self.until(
            lambda: json.dumps(self.server.request("/lab/api/workspaces/default")),
            lambda workspace: all(text in workspace for text in saved),
        )
        self.page.reload()
        self.page.wait_for_function("() => window.jupyterapp !== undefined", timeout=60_000)
        self.page.evaluate("() => window.jupyterapp.restored")

    def write_notebook(self, path: str, *cells: str, kernel: str = "tests") -> str:
        """Write a notebook of code cells into the server's folder. Return its path, which `open` takes.

        If a cell imports the demo's run, the notebook gets a kernel that has it already.
        """
        if kernel == "tests" and any("tests.support.demo_run" in cell for cell in cells):
            kernel = "demo"
        write_notebook(self.server.root / path, cells, kernel)
        return path

    # --- commands -----------------------------------------------------------------------------------------------

    def command(self, name: str, **args: Any) -> None:
        """Execute a command of JupyterLab and wait for its end."""
        self.evaluate("async ([name, args]) => { await window.jupyterapp.commands.execute(name, args); }", [name, args])

    def run_all(self) -> None:
        """Run all cells and wait for the last one. If a cell fails, the test fails with its traceback."""
        self._kernel_ready()  # otherwise JupyterLab would ask which kernel to use, and wait for the user
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

    def run_cell(self, code: str) -> None:
        """Run code as a new cell after the active one, and wait for its end."""
        self._new_cell(code)
        self.command("notebook:run-cell")

    def start_cell(self, code: str) -> None:
        """Start code as a new cell after the active one, and wait until it runs and has the focus.

        JupyterLab 4.4 gives it the focus only after the kernel is busy, and so closes a menu that a test has opened.
        """
        self._new_cell(code)
        self.page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-cell'); }")
        self.page.wait_for_function(
            """() => {
                const { content, sessionContext } = window.jupyterapp.shell.currentWidget;
                const isBusy = sessionContext.session.kernel.status === "busy";
                return isBusy && document.activeElement === content.activeCell.node;
            }"""
        )

    def interrupt(self) -> None:
        """Interrupt the kernels of all open notebooks."""
        self.page.evaluate(
            """() => {
                const { shell } = window.jupyterapp;
                for (const widget of shell.widgets("main")) widget.sessionContext?.session?.kernel.interrupt();
            }"""
        )

    def _new_cell(self, code: str) -> None:
        self.command("notebook:insert-cell-below")
        self.page.evaluate(
            """code => {
                window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.setSource(code);
            }""",
            code,
        )

    def evaluate(self, function: str, arg: Any = None, timeout: float = MODEL) -> Any:
        """Call an async function in the page. Unlike Playwright's `evaluate`, it has a time limit."""
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
        try:
            self.evaluate(
                """async () => {
                    const { context, sessionContext } = window.jupyterapp.shell.currentWidget;
                    await context.ready;
                    await sessionContext.ready;
                    await sessionContext.session.kernel.info;
                }""",
                timeout=60_000,
            )
        except PlaywrightError as error:
            states = self.page.evaluate(
                """() => {
                    const { context, sessionContext } = window.jupyterapp.shell.currentWidget;
                    const { status, connectionStatus } = sessionContext.session?.kernel ?? {};
                    return [context.isReady, sessionContext.isReady, status, connectionStatus].join(", ");
                }"""
            )
            log = self.server.log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"{error}\nnotebook, session, kernel, connection: {states}\n{log}") from error

    # --- Python state -------------------------------------------------------------------------------------------

    def python(self, expression: str, before: str = "") -> Any:
        """Evaluate an expression in a notebook's kernel, and return its value, which must be valid in JSON.

        The notebook is the current widget or, if that is no notebook, the first open one. `before` has statements to
        run before the expression. The evaluation leaves no name, no history and no `In[n]`.
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
        """Wait until an expression has this value in the kernel. (A click reaches the kernel with a delay.)"""
        # `wait_for_function` cannot do this: it takes a promise for a true value.
        self.until(lambda: self.python(expression), lambda value: value == expected, timeout)

    def until(self, read: Callable[[], T], good: Callable[[T], bool], timeout: float = 15.0) -> T:
        """Call `read` repeatedly until `good` accepts its result, and return that result."""
        end = time.monotonic() + timeout
        while not good(value := read()):
            assert time.monotonic() < end, f"still {value!r} after {timeout:.0f} s"
            self.page.wait_for_timeout(50)  # between two reads
        return value

    # --- the sidebar --------------------------------------------------------------------------------------------

    @property
    def sidebar(self) -> Locator:
        """The sidebar."""
        return self.page.get_by_role("region", name="Residscope sidebar", exact=True)

    def open_sidebar(self) -> Locator:
        """Open the sidebar by its tab, and return it."""
        tab = self.page.get_by_role("tab", name="Residscope", exact=True)
        if not self.sidebar.is_visible():
            tab.click()
        try:
            expect(self.sidebar).to_be_visible()
        except AssertionError:  # after a reload, JupyterLab may open it just before the click, which then closes it
            tab.click()
            expect(self.sidebar).to_be_visible()
        return self.sidebar

    @property
    def caches(self) -> Locator:
        """The rows of the sidebar's list, even if the list is collapsed."""
        part = self.sidebar.locator(".rs-part:not([hidden])")
        rows = part.get_by_role("list", name="Activation caches", include_hidden=True)
        return rows.get_by_role("listitem", include_hidden=True)

    @property
    def shown(self) -> Locator:
        """The view in the sidebar."""
        return self.sidebar.get_by_role("region", name="Residscope", exact=True)

    @property
    def chosen(self) -> Locator:
        """The button with the shown cache's name, which opens the list."""
        return self.shown.locator("button.rs-named")

    def open_list(self) -> Locator:
        """Open the sidebar's list, if it is collapsed, and return it."""
        if self.chosen.is_visible() and self.chosen.get_attribute("aria-expanded") == "false":
            self.chosen.click()
        found = self.sidebar.get_by_role("list", name="Activation caches")
        expect(found).to_be_visible()
        return found

    def inspect(self, name: str) -> Locator:
        """Choose a cache in the sidebar, unless it is already shown. Wait for its view, and return the view."""
        row = self.caches.filter(has_text=re.compile(rf"^\s*{re.escape(name)}\b"))
        expect(row).to_have_count(1)
        # If there is only one cache, the sidebar opens it automatically.
        if self.caches.count() == 1:
            expect(self.chosen).to_have_attribute("aria-expanded", "false", timeout=30_000)
        if not self.chosen.is_visible() or self.chosen.inner_text() != name:
            self.open_list()
            row.get_by_role("button", name=name).first.click()
            expect(self.chosen).to_have_attribute("aria-expanded", "false", timeout=30_000)
        return self.ready(self.shown)

    def ready(self, view: Locator, timeout: float = 30_000) -> Locator:
        """Wait until a view is ready, and return it. If the view shows an error, fail with its text."""
        expect(view.and_(self.page.locator("[data-state=ready], [data-state=error]"))).to_be_visible(timeout=timeout)
        if view.get_attribute("data-state") == "error":
            raise AssertionError(f"the view is in error: {view.inner_text()}")
        return view

    # --- the panel ----------------------------------------------------------------------------------------------

    def panel(self, nth: int = 0) -> Locator:
        """Wait until the panel in the notebook's output is ready, and return the panel. If it shows an error, fail."""
        return self.ready(self.page.get_by_role("region", name="Residscope", exact=True).nth(nth), MODEL)
