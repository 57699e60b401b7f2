"""Opening a hostile notebook runs none of its code, sends requests only to the server, and never blocks the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from nbformat import reads
from nbformat.sign import NotebookNotary
from playwright.sync_api import Page, expect

from tests.support.hostile_notebooks import Hostile, notebooks
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS

ANSWERS_WITHIN = 2_000  # milliseconds

# Opens a notebook on a given kernel, or on a new one. Waits until the notebook's output is drawn, for 15 seconds at
# most. Returns what the page shows.
OPEN = """async ([path, kernel]) => {
    const { commands, shell } = window.jupyterapp;
    delete window.hacked;
    let [last, longest] = [performance.now(), 0];
    const tick = setInterval(() => {
        const now = performance.now();
        [last, longest] = [now, Math.max(longest, now - last)];
    }, 10);
    const started = performance.now();
    const given = kernel ? { kernel } : {};
    const widget = await commands.execute("docmanager:open", { path, factory: "Notebook", ...given });
    await widget.context.ready;
    await widget.revealed;
    const output = () => widget.node.querySelector(".jp-OutputArea-output");
    const ended = ".rs-output-words, .residscope:is([data-state=ready], [data-state=error])";
    const drawn = () => output()?.querySelector(ended);
    const shown = () => drawn() ?? output()?.querySelector(".jupyter-widgets");
    while (!shown() && performance.now() - started < 15000) await new Promise(settle => setTimeout(settle, 20));
    for (let turn = 0; turn < 3; turn += 1) await new Promise(settle => setTimeout(settle, 60)); // for images
    clearInterval(tick);
    const place = output();
    const box = place?.getBoundingClientRect();
    const clipped = node => {
        for (let over = node.parentElement; over && over !== place.parentElement; over = over.parentElement)
            if (getComputedStyle(over).overflow !== "visible") return true;
        return false;
    };
    const outside = [...(place?.querySelectorAll("*") ?? [])].filter(node => {
        const { left, right, top, bottom, width } = node.getBoundingClientRect();
        if (getComputedStyle(node).position === "fixed") return true;
        const within = left >= box.left - 1 && right <= box.right + 1 && top >= box.top - 1 && bottom <= box.bottom + 1;
        return width > 0 && !clipped(node) && !within;
    });
    const foreign = "img, iframe, object, embed, script, link, style, a[href]";
    return {
        trusted: widget.content.widgets[0].model.trusted,
        hacked: window.hacked !== undefined,
        picture: !!place?.querySelector(".rs-saved"),
        words: place?.querySelector(".rs-output-words")?.textContent ?? "",
        line: place?.querySelector(".rs-saved")?.textContent ?? "",
        badge: place?.querySelector(".rs-badge")?.textContent ?? "",
        drawn: !!drawn(),
        state: place?.querySelector(".residscope[data-state]")?.dataset.state ?? "",
        foreign: [...(place?.querySelectorAll(foreign) ?? [])].map(node => node.outerHTML.slice(0, 80)),
        outside: outside.map(node => node.className).slice(0, 5),
        longest,
    };
}"""
CLOSE = "() => { window.jupyterapp.shell.currentWidget.dispose(); return window.hacked !== undefined; }"


@pytest.fixture(scope="module")
def hostile() -> dict[str, Hostile]:
    return dict(notebooks())


@pytest.fixture
def asked(page: Page) -> list[str]:
    """A list that collects the addresses that the page requests."""
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    return addresses


def kernel_of(lab: Lab) -> Any:
    """Start a kernel, and return its id and name. All notebooks can use it."""
    lab.open(lab.write_notebook("first.ipynb", "1"))
    return lab.page.evaluate(
        "() => { const { id, name } = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;"
        " return { id, name }; }"
    )


def sign(lab: Lab, path: str) -> None:
    """Trust a notebook, as a user does."""
    notary = NotebookNotary(data_dir=str(lab.server.data))
    notary.sign(reads((lab.server.root / path).read_text(), 4))
    notary.store.close()


@pytest.mark.alone
@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "trusted"])
def test_a_hostile_notebook_does_no_harm(
    lab: Lab, hostile: dict[str, Hostile], asked: list[str], trusted: bool
) -> None:
    kernel = kernel_of(lab)
    wrong: list[str] = []
    assert len(hostile) >= 30
    for number, (name, notebook) in enumerate(hostile.items()):
        path = f"hostile-{number}.ipynb"
        (lab.server.root / path).write_text(notebook.text())
        if trusted:
            if notebook.live and not notebook.drawn:
                continue  # JupyterLab itself runs a live widget in a trusted notebook
            sign(lab, path)
        asked.clear()
        # ipywidgets restores a notebook's widgets only if the notebook has its own kernel.
        found = lab.evaluate(OPEN, [path, None if notebook.live else kernel], timeout=60_000)
        late = lab.page.evaluate(CLOSE)
        wrong += [f"{name}: {what}" for what in faults(found, notebook, trusted, late)]
        wrong += [f"{name}: asked for {url}" for url in asked if not url.startswith((lab.server.url, "data:", "blob:"))]
    assert not wrong, "\n".join(wrong)


def faults(found: dict[str, Any], notebook: Hostile, trusted: bool, late: bool) -> Iterator[str]:
    """Yield the differences from the expected state."""
    if found["trusted"] != trusted:
        yield f"trusted is {found['trusted']}"
    if found["hacked"] or late:
        yield "a script has run"
    if found["foreign"]:
        yield f"holds {found['foreign']}"
    if found["outside"]:
        yield f"sticks out: {found['outside']}"
    if found["longest"] > ANSWERS_WITHIN:
        yield f"blocked the page for {found['longest']:.0f} ms"
    if found["picture"] != notebook.drawn:
        yield f"a picture: {found['picture']} ({found['words']})"
    if not notebook.drawn and not found["words"].startswith("A Residscope panel. "):
        yield f"said {found['words']!r}"
    if notebook.drawn and not found["line"].startswith("Saved picture of "):
        yield f"does not say that it is saved: {found['line']!r}"
    if notebook.drawn and ("✓" in found["badge"] or found["state"] != "ready"):
        yield f"is {found['state']}, with the badge {found['badge']!r}"


def test_a_forged_sum_is_computed_again(lab: Lab, hostile: dict[str, Hostile]) -> None:
    kernel = kernel_of(lab)
    for name, badge in {
        "honest": "rows summed to +… · from an earlier picture",
        "forged, a tick": "rows sum to +0.016, not to the +9.999 in the same reply",
        "forged, a tolerance": "rows sum to +0.016, not to the +9.999 in the same reply",
    }.items():
        path = lab.server.root / "forged.ipynb"
        path.write_text(hostile[name].text())
        found = lab.evaluate(OPEN, [path.name, kernel], timeout=60_000)
        lab.page.evaluate(CLOSE)
        start, _, end = badge.partition("…")
        assert found["badge"].startswith(start), name
        assert found["badge"].endswith(end), name


def test_code_and_pages_are_never_taken_from_a_notebook(lab: Lab, hostile: dict[str, Hostile]) -> None:
    kernel = kernel_of(lab)
    lab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    path = lab.server.root / "code.ipynb"
    path.write_text(hostile["forged, code and a page"].text())
    lab.evaluate(OPEN, [path.name, kernel], timeout=60_000)
    lab.page.evaluate("() => navigator.clipboard.writeText('as before')")
    output = lab.page.locator(".rs-output")
    downloads: list[str] = []
    lab.page.on("download", lambda download: downloads.append(download.suggested_filename))
    output.get_by_role("button", name="Export", exact=True).click()
    menu = output.get_by_role("dialog", name="Export")
    entries = [menu.get_by_role("button", name=re.compile(": Code$")).nth(number) for number in range(3)]
    for entry, what in [
        *((code, "the code for this") for code in entries),
        (menu.locator(".rs-export-page"), "a page"),
    ]:
        entry.click()
        expect(menu.get_by_role("status")).to_contain_text(f"saved without {what}", timeout=FOLLOWS)
    assert lab.page.evaluate("() => navigator.clipboard.readText()") == "as before"
    assert downloads == []


def test_no_widget_runs_before_the_notebook_is_trusted(lab: Lab, hostile: dict[str, Hostile]) -> None:
    """An output without a picture, its pasted copy, and an output with a broken picture all show only a sentence."""
    kernel_of(lab)
    path = lab.server.root / "later.ipynb"
    path.write_text(hostile["widget, no picture"].text())
    found = lab.evaluate(OPEN, [path.name, None], timeout=60_000)
    assert not found["hacked"]
    words = lab.page.locator(".rs-output-words")
    for command in ("notebook:copy-cell", "notebook:paste-cell-below"):
        lab.command(command)
    expect(words).to_have_count(2)
    assert lab.page.evaluate("() => window.hacked") is None
    # The output gets a picture, and then a broken one.
    whole = hostile["honest"].data
    for data, count in ((whole, 1), (hostile["size, 1e308 layers"].data, 2)):
        lab.page.evaluate(
            """data => {
                const { widgets } = window.jupyterapp.shell.currentWidget.content;
                widgets[0].model.outputs.get(0).setData({ data });
            }""",
            data,
        )
        expect(words).to_have_count(count)
    assert lab.page.evaluate("() => window.hacked") is None
