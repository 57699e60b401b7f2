"""The time from executing a cell to the first picture on screen, in a real JupyterLab: Residscope, CircuitsVis, plotly.

The kernel is warm: all libraries are imported. Each cell is run several times, in turn with the others: on a page that
was just loaded (cold), and again on the same page (warm), after its outputs were cleared.

- `residscope.inspect(cache, answers, heads=[one])`, until its head map is coloured, and until its attention is drawn
- plotly `imshow` of the same head map, with values computed before, and with values computed in the cell
- CircuitsVis `attention_patterns` of the same head's layer, with the JavaScript from its package, as without a network.
  CircuitsVis' check for a network is skipped.

A picture counts as shown when its elements are in the page and the browser has painted the next frame. All times are
by the browser's clock. The program never asserts a time.

python -m tests.benchmarks.first_picture [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.benchmarks.answer_times import chromium
from tests.benchmarks.table import Row, markdown, plain, spoken
from tests.support.lab import CHROMIUM_FLAGS, Lab
from tests.support.server import Server

TIMES = 5
SETUP = """
import circuitsvis, plotly.express as px, residscope
import circuitsvis.utils.render
from residscope import demo
circuitsvis.utils.render.internet_on = lambda: False  # so that the JavaScript comes from the package
run = demo.ioi()
cache, answers = run.cache, run.answers
tokens = run.model.to_str_tokens(cache["embed.hook_in"][0])
figures = residscope.attribute(cache, answers, by="head").grid.mean(-1)
"""
DRAW = 'px.imshow({}, color_continuous_scale="RdBu", color_continuous_midpoint=0).show()'
CELLS = {
    "residscope": "panel = residscope.inspect(cache, answers, heads=['23.3'])",
    "plotly": DRAW.format("figures"),
    "plotly, computed in the cell": DRAW.format('residscope.attribute(cache, answers, by="head").grid.mean(-1)'),
    "circuitsvis": 'circuitsvis.attention.attention_patterns(tokens, cache["pattern", 23][0])',
}
# The element that must be in the output for each picture.
PICTURES = {
    "residscope": {
        "map": "node.querySelector('.rs-grid .rs-cell')?.style.backgroundColor",
        "card": "node.querySelector('.rs-card:not(.rs-placeholder):not(.rs-waiting) canvas')",
    },
    "plotly": {"map": "node.querySelector('.heatmaplayer image')?.href.baseVal"},
    "plotly, computed in the cell": {"map": "node.querySelector('.heatmaplayer image')?.href.baseVal"},
    "circuitsvis": {"card": "node.querySelector('[id^=circuits-vis] canvas, [id^=circuits-vis] table')"},
}
MEASURE = """async ([code, pictures]) => {
    const notebook = window.jupyterapp.shell.currentWidget;
    const { commands } = window.jupyterapp;
    await commands.execute("notebook:clear-all-cell-outputs");
    notebook.content.activeCell.model.sharedModel.setSource(code);
    const node = notebook.content.activeCell.node;
    await new Promise(done => requestIdleCallback(done));
    const painted = () => new Promise(done => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => done();
        port2.postMessage(0);
    }));
    const start = performance.now();
    const there = Object.entries(pictures).map(async ([name, code]) => {
        const look = new Function("node", `return !!(${code})`);
        await new Promise(done => {
            const observer = new MutationObserver(() => look(node) && (observer.disconnect(), done()));
            observer.observe(node, { subtree: true, childList: true, attributes: true });
        });
        await painted();
        return [name, performance.now() - start];
    });
    const ran = commands.execute("notebook:run-cell");
    const times = Object.fromEntries(await Promise.all(there));
    await ran;
    return times;
}"""

Times = dict[str, dict[str, dict[str, list[float]]]]
"""Milliseconds, by page (cold or warm), cell and picture."""


def measured() -> Times:
    """Return the times, measured in a separate JupyterLab and browser."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Server.started(Path(folder)) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        lab = Lab(browser.new_page(viewport={"width": 1440, "height": 1000}), server)
        path = lab.write_notebook("first.ipynb", SETUP)
        lab.open(path)
        lab.run_all()
        times: Times = {page: {cell: {} for cell in CELLS} for page in ("cold", "warm")}
        for turn in range(TIMES + 1):
            for cell, code in CELLS.items():
                lab.open(path)  # a page that was just loaded
                lab.command("notebook:insert-cell-below")
                for page in times:
                    found: dict[str, float] = lab.evaluate(MEASURE, [code, PICTURES[cell]], 60_000)
                    for picture, taken in found.items():
                        if turn:  # the first turn warms the kernel and the browser's cache
                            times[page][cell].setdefault(picture, []).append(taken)
            print(f"turn {turn}", file=sys.stderr)
        browser.close()
    return times


def as_rows(times: Times) -> list[Row]:
    """Return rows that compare Residscope with each other library, on a cold and on a warm page."""
    found: list[Row] = []
    others = [
        ("map", "head map", "plotly", f"plotly {version('plotly')} `imshow` of values that were computed before"),
        ("map", "head map", "plotly, computed in the cell", f"plotly {version('plotly')} `imshow`, computing them"),
        ("card", "a head's attention", "circuitsvis", f"CircuitsVis {version('circuitsvis')} `attention_patterns`"),
    ]
    for page in times:
        for picture, what, cell, beside in others:
            own, other = (statistics.median(times[page][of][picture]) / 1e3 for of in ("residscope", cell))
            found.append(
                Row(
                    f"`inspect` to first picture, {what}, {page} page",
                    beside,
                    spoken(own),
                    spoken(other),
                    f"{other / own:.2f} ×",
                    "faster" if "computing" not in beside else "",
                    own < other if "computing" not in beside else None,
                )
            )
    return found


def rows() -> list[Row]:
    """Return rows for the table of all benchmarks."""
    return as_rows(measured())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    times = measured()
    table = as_rows(times)
    print(markdown(table))
    if arguments.json:
        figures: dict[str, Any] = {"rows": plain(table), "milliseconds": times}
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
