"""`npm run bench:sidebar`: from the click on a head to its drawn picture, idle and beside each kind of running cell.

In a real JupyterLab, on the demo model. Beside each: the plain round trip of an empty request on a comm of the same
kernel, in the same run. Prints a table; never asserts a time.

python tests/benchmarks/answer_times.py [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/browser"))

from lab import Lab  # noqa: E402 (found by the line above)
from server import Server  # noqa: E402 (likewise)

from conftest import CHROMIUM_FLAGS  # noqa: E402 (likewise)

CLICKS = 50
SETUP = "from residscope import demo\nrun = demo.ioi()\ncache = run.cache"
BUSY = {
    "idle": None,
    "time.sleep": "time.sleep(1)",
    "numpy loop": "np.linalg.svd(np.random.rand(200, 200))",
    "torch loop": "torch.randn(400, 400) @ torch.randn(400, 400)",
    "pure Python loop": "n += 1",
}

# The clicks are the browser's own events. A picture is drawn when the card is there, has its own numbers, and a frame
# has passed.
MEASURE = """async ([first, clicks]) => {
    const side = document.getElementById("residscope-sidebar");
    const frame = () => new Promise(done => requestAnimationFrame(() => done()));
    const cells = [...side.querySelectorAll("[role=gridcell]")];
    const click = async cell => {
        const name = cell.dataset.head;
        const start = performance.now();
        cell.click();
        for (;;) {
            const card = side.querySelector(`[aria-label="Attention ${name}"]`);
            const drawn = card && !card.classList.contains("rs-waiting") && card.querySelector("canvas").width > 0;
            await frame();
            if (drawn) break;
        }
        const time = performance.now() - start;
        cell.click();
        await frame();
        return time;
    };
    const notebook = [...window.jupyterapp.shell.widgets("main")].find(widget => widget.sessionContext);
    const kernel = notebook.sessionContext.session.kernel;
    const comm = (window.emptyComm ??= kernel.createComm("residscope"));
    await comm.subshellStarted;
    if (!window.emptyOpen) await comm.open({}).done;
    window.emptyOpen = true;
    const empty = () => new Promise(done => {
        const start = performance.now();
        comm.onMsg = () => done(performance.now() - start);
        comm.send({ id: "empty" });
    });
    const times = { clicks: [], empty: [] };
    for (let i = 0; i < clicks; i++) {
        times.clicks.push(await click(cells[first + i]));
        times.empty.push(await empty());
    }
    return times;
}"""


STATE = "window.jupyterapp.shell.currentWidget.content.activeCell.model.executionState"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    chromium = os.environ.get("RESIDSCOPE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with (
        tempfile.TemporaryDirectory() as folder,
        Server.started(Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        table = measure(Lab(page, server))
        browser.close()
    print(f"\n{CLICKS} clicks on heads not seen before, milliseconds; {os.cpu_count()} cores\n")
    print(f"{'beside':<18} {'click to picture':>24} {'empty request':>24}")
    print(f"{'':<18} {'median':>15} {'p95':>8} {'median':>15} {'p95':>8}")
    for name, row in table.items():
        click, empty = (f"{row[f'{what} median']:>15.0f} {row[f'{what} p95']:>8.0f}" for what in ("click", "empty"))
        print(f"{name:<18} {click} {empty}")
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2))


def measure(lab: Lab) -> dict[str, dict[str, float]]:
    """One row for every kind of cell that runs meanwhile."""
    lab.open(lab.write_notebook("times.ipynb", SETUP))
    lab.run_all()
    lab.open_sidebar()
    lab.inspect("cache")
    table: dict[str, dict[str, float]] = {}
    for index, (name, work) in enumerate(BUSY.items()):
        if work:
            lab.start_cell(f"import time, numpy as np, torch\nn = 0\nwhile True: {work}")
        times: dict[str, list[float]] = lab.evaluate(MEASURE, [index * CLICKS, CLICKS], 90_000)
        if work:
            lab.interrupt()
            lab.page.wait_for_function(f"() => {STATE} === 'idle'")
        print(f"{name}: measured", file=sys.stderr)
        table[name] = {**summary("click", times["clicks"]), **summary("empty", times["empty"])}
    return table


def summary(what: str, times: list[float]) -> dict[str, float]:
    """The median and the 95th percentile."""
    return {f"{what} median": statistics.median(times), f"{what} p95": statistics.quantiles(times, n=20)[-1]}


if __name__ == "__main__":
    main()
