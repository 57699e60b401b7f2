"""In a real VS Code, the sidebar says when a kernel starts, restarts, ends or is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from playwright.sync_api import Error as PlaywrightError
from playwright.sync_api import Locator, expect

from tests.support.sidebar import TINY, cache_status, cell, cells
from tests.support.window import FOLLOWS, Code

DIED = "The kernel has died"
# Collects all texts of an element from now on.
WATCH = """node => {
    window.said = [];
    const note = () => window.said.push(node.innerText.trim());
    new MutationObserver(note).observe(node, { subtree: true, childList: true, characterData: true });
    note();
}"""


def waiting(code: Code, name: str) -> Callable[[], None]:
    """Write a notebook with a cell that waits, and return a function that lets the cell end."""
    stop = code.server.root / "stop"
    wait = f"import os, time\nwhile not os.path.exists({str(stop)!r}): time.sleep(0.02)"
    code.server.write_notebook(name, f"{wait}\n{TINY}")
    return stop.touch


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("Stand-in: Restart Kernel", "The kernel was restarted and has not run a cell since"),
        ("Stand-in: Choose Another Kernel", "no cell has been run since"),
    ],
)
def test_a_restarted_or_another_kernel_is_not_called_dead(small: Code, command: str, said: str) -> None:
    view = small.inspect("cache")
    link = small.sidebar.locator(".rs-part:not([hidden]) .rs-link")
    link.evaluate(WATCH)
    badge = view.get_by_role("status").first
    badge.evaluate("""node => {
        window.badges = [];
        const note = () => window.badges.push(node.innerText);
        new MutationObserver(note).observe(node, { subtree: true, childList: true });
    }""")
    small.command(command)
    expect(link).to_contain_text(said, timeout=FOLLOWS)
    small.run_all()
    expect(cache_status(view)).to_contain_text("was lost when the kernel restarted", timeout=FOLLOWS)
    history = link.evaluate("() => window.said")
    assert any("Attaching" in words for words in history), history
    assert not [words for words in history if DIED in words]
    assert not [words for words in badge.evaluate("() => window.badges") if "✓" in words]  # the kernel has ended
    view.get_by_role("button", name="Show the new one").click()
    small.drawn(view)


def test_after_a_reload_the_last_picture_stays_with_a_reason(small: Code) -> None:
    view = small.inspect("cache")
    cell(view, "L1H0").click()
    expect(view.get_by_role("region", name="Attention L1H0", exact=True)).to_be_visible(timeout=FOLLOWS)
    before = cells(view)
    small.command("Residscope: Open in an Editor Tab")
    small.drawn(small.tab_view)
    small.until(small.server.pictures, lambda files: any("L1H0" in text for text in files))
    small.command("Developer: Reload Window")
    expect(small.page.locator("iframe.webview")).to_have_count(0)
    small.ready()
    small.open_sidebar()
    link = small.sidebar.locator(".rs-part:not([hidden]) .rs-link")
    why = "The kernel ended with the window. Run the cell that makes cache again"
    expect(link).to_contain_text(why, timeout=FOLLOWS)
    for place in (small.sidebar, small.tab_page):
        view = place.get_by_role("region", name="Residscope", exact=True)
        small.drawn(view)
        assert cells(view) == before
        expect(place.locator(".rs-saved")).to_contain_text("Saved picture")
        expect(view.get_by_role("status").first).not_to_contain_text("✓")
    small.command("Stand-in: Allow Access")
    small.page.locator(".tabs-container .tab[data-resource-name='small.ipynb']").click()
    small.run_all()
    expect(small.sidebar.locator(".rs-saved")).to_have_count(0, timeout=FOLLOWS)
    view = small.drawn(small.sidebar.get_by_role("region", name="Residscope", exact=True))
    expect(view.get_by_role("region", name="Attention L1H0", exact=True)).to_be_visible(timeout=FOLLOWS)


def test_a_tab_without_its_cache_says_so(small: Code) -> None:
    small.inspect("cache")
    small.command("Residscope: Open in an Editor Tab")
    small.drawn(small.tab_view)
    small.server.write_notebook("small.ipynb", TINY.replace("cache = tiny", "second = tiny"))
    small.command("Developer: Reload Window")
    expect(small.page.locator("iframe.webview")).to_have_count(0)
    small.ready()
    small.command("Stand-in: Allow Access")
    small.page.locator(".tabs-container .tab[data-resource-name='small.ipynb']").click()
    small.run_all()
    said = small.tab_page.locator(".rs-absent")
    expect(said).to_contain_text("This kernel has no cache named cache", timeout=FOLLOWS)
    expect(said).to_contain_text("second")


def test_a_resting_pointer_causes_at_most_two_requests(small: Code) -> None:
    """More requests would be annoying, because each request changes the notebook's toolbar for a moment."""
    view = small.inspect("cache")
    counts = [still(small)]
    for head in ("L1H1", "L1H2", "L2H2"):
        cell(view, head).hover()
        expect(view.get_by_role("region", name=f"Attention {head}", exact=True)).to_be_visible(timeout=FOLLOWS)
        counts.append(still(small))
    made = [after - before for before, after in pairwise(counts)]
    print("requests of each hover:", made)
    assert made[0] == 2, made  # one for the head, one for all heads that are requested ahead
    assert max(made) <= 2, made


def still(code: Code) -> int:
    """Wait until no request was sent for longer than the pointer's delay. Return the number of requests."""
    seen: list[int] = []

    def settled(requests: int) -> bool:
        seen.append(requests)
        return len(seen) > 25 and len(set(seen[-25:])) == 1  # `until` calls this every 50 ms

    return code.until(lambda: code.runs().requests, settled)


def test_a_refused_access_is_remembered_and_manage_access_can_change_it(code: Code) -> None:
    code.server.write_notebook("first.ipynb", TINY)
    code.start()
    code.open("first.ipynb")
    code.open_sidebar()
    expect(code.sidebar).to_contain_text("No kernel is known for this notebook", timeout=FOLLOWS)
    code.run_all()
    expect(code.page.locator(".monaco-dialog-box")).to_be_visible(timeout=FOLLOWS)
    link = code.sidebar.locator(".rs-part:not([hidden]) .rs-link")
    expect(link).to_contain_text("VS Code asks whether Residscope may use this kernel", timeout=FOLLOWS)
    expect(link).not_to_contain_text("did not let")
    code.answer("Cancel")
    alert = link.get_by_role("alert")
    expect(alert).to_contain_text("did not let Residscope run code", timeout=FOLLOWS)
    expect(alert).to_contain_text("does not ask again")
    link.get_by_role("button", name="Try again").click()
    expect(alert).to_contain_text("does not ask again", timeout=FOLLOWS)
    link.get_by_role("button", name="Manage access").click()
    widget = code.page.locator(".quick-input-widget")
    expect(widget).to_contain_text("Manage Access To Jupyter Kernels", timeout=FOLLOWS)
    widget.get_by_role("checkbox", name=re.compile("Residscope")).first.check()
    widget.get_by_role("button", name="OK").click()
    expect(code.caches).to_have_count(1, timeout=FOLLOWS)


@pytest.mark.parametrize("opened", ["before the cell runs", "while it runs"])
def test_the_sidebar_waits_for_the_first_cell(code: Code, opened: str) -> None:
    end = waiting(code, "long.ipynb")
    code.start()
    code.open("long.ipynb")
    code.command("Stand-in: Allow Access")
    if opened == "before the cell runs":
        code.open_sidebar()
        expect(code.sidebar).to_contain_text("No kernel is known for this notebook", timeout=FOLLOWS)
    code.start_all()
    toolbar = code.page.locator(".notebook-toolbar-container")
    expect(toolbar.get_by_role("button", name="Interrupt").first).to_be_visible(timeout=FOLLOWS)
    link = code.open_sidebar().locator(".rs-part:not([hidden]) .rs-link")
    expect(link).to_contain_text("Waiting for the running cell", timeout=FOLLOWS)
    end()
    expect(code.caches).to_have_count(1, timeout=FOLLOWS)


def test_a_renamed_notebook_keeps_what_was_selected(small: Code) -> None:
    view = small.inspect("cache")
    cell(view, "L1H0").click()
    expect(view.get_by_role("region", name="Attention L1H0", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.page.locator(".activitybar .action-label[aria-label^=Explorer]").click()
    row = small.page.locator(".explorer-folders-view .monaco-list-row").filter(has_text="small.ipynb")
    name = small.page.locator(".explorer-folders-view input")

    def is_named() -> bool:
        # The click also opens the notebook, which may take the focus before the key is pressed.
        with suppress(PlaywrightError):
            row.click(timeout=3000)
            row.press("F2", timeout=3000)
            name.fill("other.ipynb", timeout=3000)
            return True
        return False

    small.until(is_named, bool)
    small.page.keyboard.press("Enter")
    expect(small.tab("other.ipynb")).to_be_visible(timeout=FOLLOWS)
    small.tab("other.ipynb").click()
    small.open_sidebar()
    small.run_all()
    view = small.drawn(_region(small))
    expect(view.get_by_role("region", name="Attention L1H0", exact=True)).to_be_visible(timeout=FOLLOWS)


def _region(code: Code) -> Locator:
    return code.sidebar.locator(".rs-part:not([hidden])").get_by_role("region", name="Residscope", exact=True)
