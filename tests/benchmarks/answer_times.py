"""`npm run bench:sidebar`: the time from a click on a head to its drawn picture, idle and during each kind of cell.

The times are measured in a real JupyterLab, on the demo model, by the browser's clock. There are two kinds of clicks
on heads:

- cold: the pointer has never touched the head, so that none of its data were requested before
- by hand: the pointer crosses two heads, 40 ms on each, stays on the next head for 100 ms, and clicks on this head

Between these clicks, clicks on *why here?* are measured, and round trips of an empty request on a comm of the kernel.
Each time is measured twice: until the result arrives (pixels in the canvas, or a reply), and until the browser has
painted the next frame (an animation frame, and the task after it). The goal compares painted times. The program prints
a table, and never asserts a time.

python -m tests.benchmarks.answer_times [--json FILE] [--only idle]
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
from typing import Any

from playwright.sync_api import sync_playwright

from tests.benchmarks.table import Row, markdown
from tests.support.lab import CHROMIUM_FLAGS, Lab
from tests.support.server import Server

Times = dict[str, list[list[float]]]
"""By kind of gesture, two times of each gesture in milliseconds: until its result arrives, and until it is painted."""

ROUNDS = 3
ANEW = "cache{} = type(cache)(dict(cache.cache_dict), run.model)"
SETUP = "from residscope import demo\nrun = demo.ioi()\ncache = run.cache"
BUSY = {
    "idle": None,
    "time.sleep": "time.sleep(1)",
    "numpy loop": "np.linalg.svd(np.random.rand(200, 200))",
    "torch loop": "torch.randn(400, 400) @ torch.randn(400, 400)",
    "pure Python loop": "n += 1",
}

# A script in the page makes the clicks. A picture is drawn when the head's card exists and does not wait for numbers.
SHARED = """
    const side = document.getElementById("residscope-sidebar");
    const painted = () => new Promise(done => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => done();
        port2.postMessage(0);
    }));
    const cellOf = name => side.querySelector(`[role=gridcell][data-head="${name}"]`);
    const isDrawn = name => {
        const card = side.querySelector(`[aria-label="Attention ${name}"]`);
        return card && !card.classList.contains("rs-waiting") && card.querySelector("canvas").width > 0;
    };
    const drawn = name => new Promise(done => {
        if (isDrawn(name)) return done();
        const observer = new MutationObserver(() => isDrawn(name) && (observer.disconnect(), done()));
        observer.observe(side, { subtree: true, childList: true, attributes: true, attributeFilter: ["class"] });
    });
    const took = async (start, work) => {
        await work;
        const raw = performance.now() - start;
        await painted();
        return [raw, performance.now() - start];
    };
"""
MEASURE = f"""async ({{ cold, ways }}) => {{
    {SHARED}
    const pause = ms => new Promise(done => setTimeout(done, ms));
    const rest = () => new Promise(done => requestIdleCallback(done, {{ timeout: 200 }}));
    const notebook = [...window.jupyterapp.shell.widgets("main")].find(widget => widget.sessionContext);
    const kernel = notebook.sessionContext.session.kernel;
    const comm = (window.emptyComm ??= kernel.createComm("residscope"));
    await comm.subshellStarted;
    if (!window.emptyOpen) await comm.open({{}}).done;
    window.emptyOpen = true;
    const empty = () => took(performance.now(), new Promise(done => {{
        comm.onMsg = () => done();
        comm.send({{ id: "empty" }});
    }}));
    const click = name => {{
        const start = performance.now();
        cellOf(name).click();
        return took(start, drawn(name));
    }};
    const column = id => side.querySelector(`[data-column=${{id}}] .rs-why-rows [data-label]`);
    const isAsked = () => column("query") && column("key");
    const until = holds => new Promise(done => {{
        if (holds()) return done();
        const observer = new MutationObserver(() => holds() && (observer.disconnect(), done()));
        observer.observe(side, {{ subtree: true, childList: true, attributes: true, characterData: true }});
    }});
    const why = async name => {{
        const ask = () => side.querySelector(`[data-ask=why][aria-label*="${{name}} reads"]`);
        await until(ask);
        const start = performance.now();
        ask().click();
        const taken = await took(start, until(isAsked));
        side.querySelector('.rs-trail [aria-label="Back"]').click();
        await until(() => !isAsked());
        return taken;
    }};
    const point = (name, type) => {{
        const {{ x: clientX, y: clientY }} = cellOf(name).getBoundingClientRect(); // where the cell is now
        cellOf(name).dispatchEvent(new PointerEvent(type, {{ bubbles: true, clientX, clientY }}));
    }};
    const times = {{ cold: [], hand: [], why: [], empty: [] }};
    // The strongest heads may have been requested ahead.
    const strong = new Set([...side.querySelectorAll(".rs-rank-line")].map(line => line.dataset.head));
    const unseen = cold.filter(name => !strong.has(name));
    for (const [at, way] of ways.entries()) {{
        const cold = unseen[at];
        times.cold.push(await click(cold));
        await pause(30); await rest();
        times.why.push(await why(cold));
        side.querySelector('[role=tab][data-tab=attention], [role=tab]').click();
        await pause(30); await rest();
        cellOf(cold).click();
        await pause(30); await rest();
        times.empty.push(await empty());
        await pause(30); await rest();
        for (const name of way) {{
            point(name, "pointerover");
            await pause(name === way.at(-1) ? 100 : 40);
        }}
        times.hand.push(await click(way.at(-1)));
        cellOf(way.at(-1)).click();
        side.querySelector(".rs-grid").dispatchEvent(new PointerEvent("pointerleave"));
        await pause(30); await rest();
    }}
    return times;
}}"""

KINDS = {"cold": "cold click", "hand": "click by hand", "why": "why here?", "empty": "empty request"}

WHY = "click on *why here?* to both sides drawn, 15 tokens"

STATE = "window.jupyterapp.shell.currentWidget.content.activeCell.model.executionState"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--only", choices=list(BUSY), help="only during this kind of cell")
    arguments = parser.parse_args()
    table = measured([arguments.only] if arguments.only else list(BUSY))
    count = ROUNDS * len(heads()["ways"])
    print(f"\n{count} clicks of each kind on heads not seen before, milliseconds; {os.cpu_count()} cores")
    for at, what in enumerate(("result", "painted")):
        print(f"\n{what:<18} " + " ".join(f"{kind:>24}" for kind in KINDS.values()))
        print(f"{'beside':<18} " + " ".join(f"{'median':>15} {'p95':>8}" for _ in KINDS))
        for name, times in table.items():
            both = (summary([time[at] for time in times[kind]]) for kind in KINDS)
            print(f"{name:<18} " + " ".join(f"{median:>15.0f} {p95:>8.0f}" for median, p95 in both))
    print("\n" + markdown(as_rows(table)))
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=2))


def rows() -> list[Row]:
    """Return the rows for the table of all benchmarks, measured with an idle kernel."""
    return as_rows(measured(["idle"]))


def as_rows(table: dict[str, Times]) -> list[Row]:
    """Return rows that compare the medians of painted times with the goal."""
    found: list[Row] = []
    for name, times in table.items():
        empty = [summary([time[at] for time in times["empty"]])[0] for at in (0, 1)]
        for kind in ("hand", "cold", "why"):
            own = [summary([time[at] for time in times[kind]])[0] for at in (0, 1)]
            how = {"hand": "after the pointer came to it", "cold": "cold, never pointed at"}.get(kind, "")
            gesture = f"click on a head to attention drawn, 15 tokens, {how}" if how else WHY
            beside = "" if name == "idle" else f", beside a {name}"
            ratio = own[1] / empty[1]
            found.append(
                Row(
                    f"{gesture}{beside}",
                    "an empty request's round trip",
                    f"{own[1]:.0f} ms",
                    f"{empty[1]:.0f} ms",
                    f"{ratio:.2f} ×",
                    "≤ 1.3 ×",
                    ratio <= 1.3,
                    f"times to the painted frame; times to the result: {own[0]:.0f} and {empty[0]:.0f} ms",
                )
            )
    return found


def measured(kinds: list[str]) -> dict[str, Times]:
    """Return the times during each kind of cell, measured in a separate JupyterLab and browser."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Server.started(Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 1000})
        table = measure(Lab(page, server), kinds)
        browser.close()
    return table


def chromium() -> str | None:
    """Return the path of Chromium or Chrome, or None."""
    return os.environ.get("RESIDSCOPE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def measure(lab: Lab, kinds: list[str]) -> dict[str, Times]:
    """Return the times for each kind of cell that runs during the clicks."""
    lab.open(lab.write_notebook("times.ipynb", SETUP))
    lab.run_all()
    lab.open_sidebar()
    table: dict[str, Times] = {name: {kind: [] for kind in KINDS} for name in kinds}
    number = 0
    for name in kinds:
        for _ in range(ROUNDS):
            number += 1
            lab.run_cell(ANEW.format(number))  # makes a new cache, for which nothing was computed yet
            lab.inspect(f"cache{number}")
            work = BUSY[name]
            if work:
                lab.start_cell(f"import time, numpy as np, torch\nn = 0\nwhile True: {work}")
            times: Times = lab.evaluate(MEASURE, heads(), 120_000)
            if work:
                lab.interrupt()
                lab.page.wait_for_function(f"() => {STATE} === 'idle'")
            for kind in KINDS:
                table[name][kind] += times[kind]
        print(f"{name}: measured", file=sys.stderr)
    return table


def heads() -> dict[str, list[Any]]:
    """Return the heads that the pointer crosses (upper half of the map) and those of cold clicks (lower half)."""
    ways = [[f"L{layer}H{head + step}" for step in range(3)] for layer in range(0, 16, 2) for head in (0, 5)]
    return {"cold": [f"L{layer}H{head}" for layer in range(18, 30) for head in range(0, 9, 2)], "ways": ways}


def summary(times: list[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile."""
    return statistics.median(times), statistics.quantiles(times, n=20)[-1]


if __name__ == "__main__":
    main()
