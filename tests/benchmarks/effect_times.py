"""`npm run bench:effects`: times from the click on *total* to the first colours, and from *stop* to “measured”.

After each stop, the time until the kernel has run an empty cell is also measured: until then, the model still runs.
The page is an inline panel of the demo model (8 prompts × 15 tokens) in a real JupyterLab. All times are by the
browser's clock; those of colours and of stops last until the frame is painted. Before each click on *total*
a new cache is made, for which nothing is memoised. With `--against FOLDER`, an older checkout with its built bundles is
measured in turn with this one, so that a busy machine slows both. The program prints the times, and never asserts one.

python -m tests.benchmarks.effect_times [--rounds N] [--against FOLDER]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.benchmarks.answer_times import chromium
from tests.benchmarks.table import Row, markdown
from tests.support.lab import CHROMIUM_FLAGS, Lab
from tests.support.server import Server

SETUP = "from residscope import demo\nimport residscope\nrun = demo.ioi()\ncache = run.cache"
PANEL = """
if "panel" in globals(): panel.close()
cache = type(run.cache)(dict(run.cache.cache_dict), run.model)
panel = residscope.inspect(cache, answers=(" Mary", " John"), show=False)
from IPython.display import display
display(panel)
"""

MEASURE = """async () => {
    const all = [...document.querySelectorAll('[aria-label="Residscope"]')].filter(node => node.offsetParent);
    const panel = all.at(-1);
    panel.scrollIntoView();
    const painted = () => new Promise(done => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => done();
        port2.postMessage(0);
    }));
    const until = holds => new Promise(done => {
        if (holds()) return done();
        const observer = new MutationObserver(() => holds() && (observer.disconnect(), done()));
        observer.observe(panel, { subtree: true, childList: true, attributes: true, characterData: true });
    });
    const pause = ms => new Promise(done => setTimeout(done, ms));
    const button = words => [...panel.querySelectorAll(".rs-heads button")].find(
        node => node.textContent.trim() === words);
    const state = () => panel.querySelector(".rs-heads .rs-effects-state")?.textContent ?? "";
    const notebook = [...window.jupyterapp.shell.widgets("main")].find(widget => widget.sessionContext);
    const { kernel } = notebook.sessionContext.session;
    const times = { first: 0, stops: [], free: [] };
    let start = performance.now();
    button("total").click();
    await until(() => panel.querySelector(".rs-cell.rs-estimate"));
    await painted();
    times.first = performance.now() - start;
    // The first stop comes while the runs are being prepared, the others at different moments of the runs.
    for (const wait of [0, 137, 450, 900, 61, 333]) {
        await until(() => button("stop"));
        if (wait > 0) await until(() => /measuring/.test(state()));
        await pause(wait);
        if (!button("stop")) break;
        start = performance.now();
        button("stop").click();
        const free = kernel.requestExecute({ code: "0", silent: true }).done.then(() => performance.now() - start);
        await until(() => !button("stop") && !/measuring|running/.test(state()));
        await painted();
        times.stops.push(performance.now() - start);
        times.free.push(await free);
        await pause(400);
        const again = button("go on") ?? button("measure");
        if (!again) break;
        again.click();
    }
    await until(() => button("stop"));
    button("stop")?.click();
    return times;
}"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--against", type=Path, help="the folder of an older checkout")
    arguments = parser.parse_args()
    folders = {"this one": Path(__file__).parents[2]}
    if arguments.against:
        folders["older"] = arguments.against.resolve()
    table = measured(folders, arguments.rounds)
    for name, (first, stops, free) in table.items():
        print(f"\n{name}: click to first colours {text(first)}")
        print(f"{name}: stop to “measured” {text(stops)}")
        print(f"{name}: stop until the kernel has run an empty cell {text(free)}")
    print("\n" + markdown(as_rows(table["this one"])))


def text(times: list[float]) -> str:
    """Return the median, the worst and all times in milliseconds, as text."""
    each = " ".join(f"{time:.0f}" for time in times)
    return f"median {statistics.median(times):.0f} ms, worst {max(times):.0f} ms of {len(times)} ({each})"


def rows() -> list[Row]:
    """Return the rows for the table of all benchmarks."""
    return as_rows(measured({"this one": Path(__file__).parents[2]}, 4)["this one"])


def as_rows(times: tuple[list[float], list[float], list[float]]) -> list[Row]:
    """Return the rows of the goals."""
    first, stops, _ = (statistics.median(some) for some in times)
    return [
        Row(
            "click on *total* to the first colours (estimates), 8 × 15",
            "",
            f"{first / 1000:.1f} s",
            "",
            "",
            "≤ 2 s",
            first <= 2000,
            f"worst {max(times[0]) / 1000:.1f} s",
        ),
        Row(
            "click on *stop* to “measured” painted, runs under way",
            "",
            f"{stops:.0f} ms",
            "",
            "",
            "≤ 200 ms",
            max(times[1]) <= 200,
            f"worst of {len(times[1])}: {max(times[1]):.0f} ms",
        ),
    ]


Times = tuple[list[float], list[float], list[float]]


def measured(folders: dict[str, Path], rounds: int) -> dict[str, Times]:
    """Return the times of each checkout, measured in turn, each in a separate JupyterLab."""
    found: dict[str, Times] = {name: ([], [], []) for name in folders}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_FLAGS)
        labs: dict[str, Lab] = {}
        with _servers(folders) as servers:
            for name, server in servers.items():
                context = browser.new_context(viewport={"width": 1440, "height": 1000})
                labs[name] = Lab(context.new_page(), server)
                labs[name].open(labs[name].write_notebook("times.ipynb", SETUP))
                labs[name].run_all()
            for at in range(rounds + 1):
                for name, lab in labs.items():
                    lab.run_cell(PANEL)
                    lab.panel()
                    times = lab.evaluate(MEASURE, timeout=300_000)
                    lab.command("notebook:clear-all-cell-outputs")
                    if at > 0:  # in the first round, modules are imported
                        found[name][0].append(times["first"])
                        found[name][1].extend(times["stops"])
                        found[name][2].extend(times["free"])
        browser.close()
    return found


@contextmanager
def _servers(folders: dict[str, Path]) -> Iterator[dict[str, Server]]:
    """Start a JupyterLab for each checkout, and yield all of them."""
    before = os.environ.get("PYTHONPATH")
    started: dict[str, Server] = {}
    managers = []
    try:
        for name, folder in folders.items():
            os.environ["PYTHONPATH"] = os.pathsep.join([str(folder / "py_backend"), str(folder)])
            place = tempfile.TemporaryDirectory()
            server = Server.started(Path(place.name))
            started[name] = server.__enter__()
            managers.append((server, place))
        yield started
    finally:
        for server, place in reversed(managers):
            server.__exit__(None, None, None)
            place.cleanup()
        if before is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = before


if __name__ == "__main__":
    main()
