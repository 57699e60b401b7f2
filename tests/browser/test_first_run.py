"""What somebody sees first: the hint for a first visit, and Help, which is part of the package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, TINY, cell

DOCS = Path(__file__).resolve().parents[2] / "py_backend" / "docs"
INSPECT = "import residscope\npanel = residscope.inspect(cache, show=True)"
HINT = "Move over a cell of the head map; click to pin it."


def title(chapter: str) -> str:
    return (DOCS / f"{chapter}.md").read_text("utf-8").splitlines()[0].removeprefix("# ")


def shows(page: Page, chapter: str) -> Locator:
    """Wait until the help tab is in front and shows a chapter. Return its text."""
    article = page.locator(".rs-help-page:visible .rs-chapter")
    expect(article.get_by_role("heading", level=1).first).to_have_text(title(chapter), timeout=FOLLOWS)
    return article


@pytest.fixture
def opened(lab: Lab) -> tuple[Lab, Locator]:
    """A notebook with a panel of a small cache, in a window of the size of a laptop's."""
    lab.page.set_viewport_size({"width": 1440, "height": 900})
    lab.open(lab.write_notebook("first.ipynb", TINY, INSPECT))
    lab.run_all()
    return lab, lab.panel()


@pytest.fixture
def elsewhere(page: Page, server) -> Iterator[list[str]]:
    """The addresses outside the server that the page requests."""
    own = urlsplit(server.url).netloc
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url) if _host(request.url) not in ("", own) else None)
    yield found
    assert not found


def _host(url: str) -> str:
    return "" if url.startswith(("data:", "blob:")) else urlsplit(url).netloc


def test_the_hint_moves_nothing_and_does_not_come_back(opened: tuple[Lab, Locator], tmp_path: Path) -> None:
    lab, panel = opened
    hint = panel.get_by_text(HINT)
    expect(hint).to_be_visible()
    grid = panel.get_by_role("grid", name="Head map")
    before = grid.bounding_box()
    saved = tmp_path / "page.html"
    lab.python("0", before=f"panel.save({str(saved)!r})")
    cell(panel, "L0H1").hover()  # the sentence about the head takes the place of the hint
    expect(hint).to_be_hidden()
    cell(panel, "L0H1").click()
    expect(cell(panel, "L0H1")).to_have_attribute("aria-selected", "true")
    expect(hint).to_be_hidden()
    assert grid.bounding_box() == before
    cell(panel, "L0H1").press("Escape")  # unpinned
    lab.becomes("panel.heads", [])

    lab.command("docmanager:save")
    assert HINT not in (lab.server.root / "first.ipynb").read_text("utf-8")
    lab.page.goto(saved.as_uri())  # its origin has no memory of the visit
    expect(lab.page.get_by_role("grid", name="Head map")).to_be_visible()
    expect(lab.page.get_by_text(HINT)).to_be_hidden()
    lab.page.get_by_role("button", name="Help", exact=True).click()
    dialog = lab.page.get_by_role("dialog", name="Help")
    expect(dialog.get_by_role("heading", level=1)).to_have_text(title("panel"))
    dialog.get_by_role("combobox").select_option("why")
    expect(dialog.get_by_role("alert")).to_contain_text("part of this page")

    lab.open("first.ipynb")
    lab.run_all()
    expect(lab.panel().get_by_text(HINT)).to_be_hidden()


def test_the_hint_goes_away_by_its_button_in_every_view(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    lab.open_sidebar()
    view = lab.inspect("cache")
    expect(view.get_by_text(HINT)).to_be_visible()
    view.get_by_role("button", name="Hide this hint").click()
    expect(view.get_by_text(HINT)).to_be_hidden()
    expect(panel.get_by_text(HINT)).to_be_hidden()


def test_help_opens_the_chapter_on_what_has_the_focus(opened: tuple[Lab, Locator], elsewhere: list[str]) -> None:
    lab, panel = opened
    panel.get_by_role("button", name="Help", exact=True).click()
    shows(lab.page, "panel").get_by_role("link", name="causes", exact=True).click()
    shows(lab.page, "causes")
    lab.command("application:activate-previous-tab")
    tab = panel.get_by_role("tab", name="Why")
    tab.click()
    tab.press("?")
    article = shows(lab.page, "why")
    assert lab.page.locator(".rs-help-page").count() == 1  # the same tab
    expect(article.get_by_role("table").first).to_be_visible()

    # Any part of the page can send the event: only chapters are opened.
    lab.page.get_by_role("combobox", name="Chapter").select_option("limits")
    shows(lab.page, "limits")
    for name in ("__proto__", "../install", "<b>"):
        event = "new CustomEvent('residscope-help', { detail: name, bubbles: true, cancelable: true })"
        assert lab.page.evaluate(f"name => document.body.dispatchEvent({event})", name)  # nothing handled it
    shows(lab.page, "limits")
    assert not elsewhere


def test_help_without_a_kernel_and_from_the_menu(lab: Lab) -> None:
    lab.start()
    lab.open_sidebar().get_by_role("button", name="Help", exact=True).click()
    shows(lab.page, "sidebar")
    lab.page.locator(".lm-MenuBar-item", has_text="Help").click()
    lab.page.locator(".lm-Menu-item", has_text="Residscope Reference").click()
    shows(lab.page, "panel")
    lab.command("residscope:help", chapter="long-prompts")
    shows(lab.page, "long-prompts")
    lab.until(
        lambda: str(lab.server.request("/lab/api/workspaces/default")),
        lambda text: "residscope-help" in text and "long-prompts" in text,
    )
    lab.page.goto(f"{lab.server.url}/lab")
    shows(lab.page, "long-prompts")


def test_in_other_hosts_help_is_shown_over_the_panel(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    lab.page.evaluate("window.addEventListener('residscope-help', event => event.stopImmediatePropagation(), true)")
    panel.get_by_role("tab", name="Why").click()
    panel.get_by_role("button", name="Help", exact=True).click()
    dialog = panel.get_by_role("dialog", name="Help")
    expect(dialog.get_by_role("heading", level=1).first).to_have_text(title("why"), timeout=FOLLOWS)  # from the kernel
    dialog.get_by_role("combobox").press("Escape")
    expect(dialog).to_be_hidden()
    expect(panel.get_by_role("button", name=re.compile("^Help"))).to_be_focused()
