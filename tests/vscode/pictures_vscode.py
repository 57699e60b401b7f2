"""`npm run pictures:vscode`: takes pictures of VS Code on the demo model, and measures the times of clicks.

The pictures are saved as py_backend/docs/pictures/vscode-*.png. The times are printed, and never asserted.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path

from playwright.sync_api import Locator, expect, sync_playwright

from tests.support.lab import CHROMIUM_FLAGS
from tests.support.sidebar import cell, cells
from tests.support.window import FOLLOWS, Code, CodeServer, kernels

PICTURES = Path(__file__).resolve().parents[2] / "py_backend/docs/pictures"
VSIX = Path(os.environ["RESIDSCOPE_VSIX"])
CELLS = ("from residscope import demo\nrun = demo.ioi()\nmodel, cache = run.model, run.cache", "print(cache)")
CLICKS = """async (view, heads) => {
    const painted = () => new Promise(done => requestAnimationFrame(() => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = () => done();
        port2.postMessage(0);
    }));
    const isDrawn = name => {
        const card = view.querySelector(`[aria-label="Attention ${name}"]`);
        return card && !card.classList.contains("rs-waiting") && card.querySelector("canvas").width > 0;
    };
    const drawn = name => new Promise(done => {
        if (isDrawn(name)) return done();
        const observer = new MutationObserver(() => isDrawn(name) && (observer.disconnect(), done()));
        observer.observe(view, { subtree: true, childList: true, attributes: true, attributeFilter: ["class"] });
    });
    const times = [];
    for (const name of heads) {
        const cell = view.querySelector(`[role=gridcell][data-head="${name}"]`);
        const start = performance.now();
        cell.click();
        await drawn(name);
        await painted();
        times.push(performance.now() - start);
        cell.click();
        await new Promise(done => setTimeout(done, 60));
    }
    return times;
}"""


def main() -> None:
    """Open VS Code, look at the demo's cache in both layouts and themes, and click through thirty heads."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, kernels(Path(folder)) as environment:
        extensions = (VSIX / "stand-in.vsix", VSIX / "residscope.vsix")
        with CodeServer.started(Path(folder) / "code", environment, *extensions) as server, sync_playwright() as tool:
            browser = tool.chromium.launch(executable_path=os.environ["RESIDSCOPE_CHROMIUM"], args=CHROMIUM_FLAGS)
            page = browser.new_context(viewport={"width": 1500, "height": 1000}, reduced_motion="reduce").new_page()
            _show(Code(page, server))
            browser.close()


def _show(code: Code) -> None:
    code.server.write_notebook("ioi.ipynb", *CELLS)
    code.start()
    code.open("ioi.ipynb")
    code.command("Stand-in: Allow Access")
    code.run_all()
    code.open_sidebar()
    expect(code.caches).not_to_have_count(0, timeout=FOLLOWS)
    view = code.inspect("cache")
    strongest = sorted(heads := cells(view), key=lambda head: -abs(heads[head]))
    unseen = strongest[60:120:2]  # leaves out the strongest heads, which were requested ahead
    times = sorted(view.evaluate(CLICKS, unseen))
    print(
        f"click on a head, cold, to its painted picture in VS Code: median {statistics.median(times):.0f} ms, "
        f"p95 {times[int(0.95 * len(times))]:.0f} ms, {len(times)} clicks"
    )
    cell(view, strongest[0]).click()
    code.drawn(view)
    for _ in range(2):
        code.page.screenshot(path=PICTURES / f"vscode-narrow-{view.get_attribute('data-theme')}.png")
        _change_theme(code, view)
    code.command("Residscope: Open in an Editor Tab")
    wide = code.drawn(code.tab_view)
    code.command("View: Toggle Primary Side Bar Visibility")
    code.command("View: Move Editor into Previous Group")
    wide = code.drawn(code.tab_view)
    for _ in range(2):
        code.page.screenshot(path=PICTURES / f"vscode-wide-{wide.get_attribute('data-theme')}.png")
        _change_theme(code, wide)


def _change_theme(code: Code, view: Locator) -> None:
    before = view.get_attribute("data-theme") or ""
    code.command("Preferences: Toggle between Light/Dark Themes")
    expect(view).not_to_have_attribute("data-theme", before, timeout=FOLLOWS)
    code.drawn(view)


if __name__ == "__main__":
    main()
