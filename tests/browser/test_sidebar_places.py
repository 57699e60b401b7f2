"""The sidebar's places in the window, keys and settings, and its state after a reload or a lost connection."""

from __future__ import annotations

import json
import re

from playwright.sync_api import expect

from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, HELD, OURS, SUBSHELLS, cell, cells


def test_a_reload_restores_layout_and_selection_and_leaks_nothing(small: Lab) -> None:
    view = small.inspect("cache")
    cell(view, "L1H1").click()
    small.command("residscope:open-in-main-area")
    wide = small.page.locator(".rs-view").get_by_role("region", name="Residscope", exact=True)
    small.ready(wide)
    cell(wide, "L0H1").click()
    expect(wide.get_by_role("region", name="Attention L0H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    [ours] = small.python(OURS)
    small.command("docmanager:save-all")
    saved = small.until(
        lambda: json.dumps(small.server.request("/lab/api/workspaces/default")),
        lambda text: "residscope-view" in text and '"L1H1", "L0H1"' in text,
    )
    assert "@residscope/jupyterlab:sidebar" in saved
    small.page.goto(f"{small.server.url}/lab")
    small.page.wait_for_function("() => window.jupyterapp !== undefined")
    small.page.evaluate("() => window.jupyterapp.restored")
    for panel, heads in ((view, ["L1H1"]), (wide, ["L1H1", "L0H1"])):
        small.ready(panel)
        for head in heads:
            expect(panel.get_by_role("region", name=f"Attention {head}", exact=True)).to_be_visible(timeout=FOLLOWS)
    assert len(small.python(OURS)) == 1  # after the reload there is one comm; the old subshell has ended
    small.becomes(f"{ours!r} in {SUBSHELLS}", False)


def test_by_the_keyboard_from_the_palette_to_the_next_head(small: Lab) -> None:
    page = small.page
    small.command("apputils:activate-command-palette")
    palette = page.locator("#modal-command-palette")
    palette.get_by_role("textbox").fill("inspect activation")
    palette.get_by_text("Residscope: Inspect Activation Cache").click()
    view = small.ready(small.sidebar.get_by_role("region", name="Residscope", exact=True))
    expect(small.chosen).to_be_focused()
    shown = cells(view)
    order = sorted(shown, key=lambda head: -abs(shown[head]))
    for head in order[:2]:
        small.command("residscope:next-head")
        expect(view.get_by_role("region", name=f"Attention {head}", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.command("residscope:previous-head")
    expect(view.get_by_role("region", name=f"Attention {order[0]}", exact=True)).to_be_visible(timeout=FOLLOWS)
    # Keys open the list over the view, move in it and close it. Then they open a cache in the main area.
    page.keyboard.press("Enter")
    row = small.caches.get_by_role("button", name=re.compile("^cache"))
    expect(row).to_be_focused()
    page.keyboard.press("Escape")
    expect(small.chosen).to_be_focused()
    expect(small.chosen).to_have_attribute("aria-expanded", "false")
    page.keyboard.press("ArrowDown")
    expect(row).to_be_focused()
    page.keyboard.press("Tab")
    expect(small.caches.get_by_role("button", name="Open cache in the main area")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".rs-view").get_by_role("grid", name="Head map")).to_be_visible(timeout=FOLLOWS)


def test_settings_move_the_sidebar_and_make_it_poll(small: Lab) -> None:
    def set_to(**settings: object) -> None:
        small.evaluate(
            """async settings => {
                const { serviceManager } = window.jupyterapp;
                await serviceManager.settings.save("@residscope/jupyterlab:sidebar", JSON.stringify(settings));
            }""",
            settings,
        )
        small.start("small.ipynb")
        small.wait_for_notebook("small.ipynb")
        small.open_sidebar()
        expect(small.caches.first).to_be_attached(timeout=FOLLOWS)

    def left_of_the_notebook() -> bool:
        side, notebook = small.sidebar.bounding_box(), small.page.locator(".jp-NotebookPanel").bounding_box()
        assert side
        assert notebook
        return side["x"] < notebook["x"]

    try:
        assert not left_of_the_notebook()
        set_to(side="left", refresh="poll", pollSeconds=0.5)
        assert left_of_the_notebook()
        small.start_cell("import time\nmore = tiny.run(model)[2]\nwhile True: time.sleep(0.1)")
        expect(small.caches).to_have_count(2, timeout=FOLLOWS)  # the cell has not ended
        small.interrupt()
    finally:
        set_to()


def test_a_lost_connection_is_renewed_and_leaves_nothing_in_the_kernel(small: Lab) -> None:
    view = small.inspect("cache")
    before = small.python(HELD)
    assert before[0] == 1
    for index, head in enumerate(("L0H0", "L0H1", "L1H0")):
        # The connection is lost during a request. Then the request is sent again.
        small.page.evaluate(
            """head => {
                document.querySelector(`#residscope-sidebar [data-head=${head}]`).click();
                window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.reconnect();
            }""",
            head,
        )
        expect(view.get_by_role("region", name=re.compile("^Attention"))).to_have_count(index + 1, timeout=FOLLOWS)
        small.ready(view)
    expect(small.sidebar.locator("[data-link=ready]")).to_have_count(1, timeout=FOLLOWS)
    expect(view.locator(".rs-waiting")).to_have_count(0, timeout=FOLLOWS)
    small.becomes(HELD, before)
