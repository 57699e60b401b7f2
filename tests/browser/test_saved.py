"""A panel without its kernel: a stand-alone page that is opened offline, and a notebook that is opened again later."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

import residscope
from residscope import demo
from residscope.export import snapshot
from tests.support import hostile, tiny
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, TINY, cell, cells

MIME = "application/vnd.residscope.panel+json"
Open = Callable[[residscope.Panel], Page]


@pytest.fixture(scope="module")
def run() -> demo.Ioi:
    return demo.ioi()


@pytest.fixture
def offline(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """A function that saves a panel and opens its page offline. Console messages and other requests fail the test."""
    monkeypatch.setattr(snapshot, "PATIENCE", 600.0)
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce")
    context.set_offline(True)
    wrong: list[str] = []

    def opened(panel: residscope.Panel) -> Page:
        url = panel.save(tmp_path / "ein Bild.html", holds="all").as_uri()
        page = context.new_page()
        page.on("dialog", lambda dialog: wrong.append(dialog.message) or dialog.dismiss())
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: request.url == url or wrong.append(request.url))
        page.goto(url)
        expect(view(page)).to_have_attribute("data-state", "ready", timeout=FOLLOWS)
        return page

    yield opened
    context.close()
    assert not wrong


def view(page: Page) -> Locator:
    return page.get_by_role("region", name="Residscope", exact=True)


def line(page: Page) -> Locator:
    return page.locator(".rs-saved")


def attention(panel: Locator, head: str) -> Locator:
    return panel.get_by_role("region", name=f"Attention {head}", exact=True)


def grid(run: Any, prompt: int | None, position: int | None = None) -> dict[str, Any]:
    at = "last" if position is None else position
    values = residscope.attribute(run.cache, run.answers, position=at).grid
    shown = values.mean(-1) if prompt is None else values[..., prompt]
    rows = shown.tolist()
    return {f"L{i}H{j}": pytest.approx(v, abs=6e-3) for i, row in enumerate(rows) for j, v in enumerate(row)}


def point_at(panel: Locator, head: str, q: int, k: int) -> None:
    canvas = attention(panel, head).locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    canvas.hover(position={"x": (k + 0.5) / 15 * box["width"], "y": (q + 0.5) / 15 * box["height"]})


def test_a_saved_page_works_offline_and_shows_what_python_computes(offline: Open, run: demo.Ioi) -> None:
    saved = residscope.inspect(run.cache, run.answers, prompt=0, heads=["23.3"], name="<cache>", show=False)
    page = offline(saved)
    panel = view(page)
    expect(page).to_have_title("<cache>: logit of “Mary” minus “John” · Residscope")
    expect(line(page)).to_contain_text("Saved from <cache> on")
    expect(line(page)).not_to_contain_text("Without")  # the page holds all views
    assert cells(panel) == grid(run, 0)
    expect(panel.get_by_role("status").first).to_contain_text("rows summed to +4.616 · from an earlier picture")

    # A pinned head, a head that was not shown before, and the pinned head in another prompt.
    for prompt, head in ((0, "L23H3"), (0, "L5H2"), (1, "L23H3")):
        if prompt == 1:
            panel.get_by_role("button", name="Next prompt").click()
            expect(panel.get_by_label("Prompt number")).to_have_value("1")
        cell(panel, head).hover()
        expect(attention(panel, head)).not_to_have_class(re.compile("rs-waiting"))
        point_at(panel, head, 14, 4)
        layer, index = residscope.cache.component_names.parse(head)
        value = float(run.cache["pattern", layer][prompt, index, 14, 4])
        expect(panel.locator(".rs-sentence")).to_contain_text(f"(source 4): attention {value:.2f}", timeout=FOLLOWS)
    assert cells(panel) == grid(run, 1)

    panel.get_by_role("button", name=re.compile("mean of 8")).click()
    expect(panel.get_by_role("status").first).to_contain_text("rows summed to +4.724 · from an earlier picture")
    assert cells(panel) == grid(run, None)
    panel.get_by_label("Prompt number").fill("0")
    panel.get_by_label("Prompt number").press("Enter")
    panel.get_by_role("listbox", name="Destination position").get_by_role("option").nth(10).click()
    expect(panel.get_by_role("option", name="Mary, position 4")).to_be_visible()
    panel.get_by_role("combobox", name="Norm of the logit lens").select_option("recomputed")
    assert cells(panel) == grid(run, 0, 10)

    # If the page does not hold a view, a message says so, the selection is restored, and there is no error.
    panel.get_by_role("button", name="Swap answer and distractor").click()
    expect(line(page)).to_contain_text("This page was saved without this target; open the cache in a notebook")
    expect(panel.get_by_role("button", name="answer: ·Mary")).to_be_visible()
    expect(panel).to_have_attribute("data-state", "ready")


def test_every_view_finds_its_replies_on_a_saved_page(offline: Open) -> None:
    _, _, cache = tiny.run(tiny.boot("llama"))
    page = offline(residscope.inspect(cache, (5, 6), heads=["1.1", "2.0"], show=False))
    panel = view(page)

    def found() -> None:
        expect(panel).to_have_attribute("data-state", "ready", timeout=FOLLOWS)
        expect(line(page)).to_have_attribute("class", "rs-saved")
        expect(panel.get_by_role("alert").filter(has_text=re.compile("."))).to_have_count(0)

    for tab in ("Positions", "Token lens", "Prompts", "Attention"):
        panel.get_by_role("tab", name=tab).click()
        found()
        switches = panel.locator(".rs-lower-controls:visible button:visible")
        for number in range(switches.count()):
            switches.nth(number).click()
            found()
    for head in ("L0H0", "L2H3"):
        cell(panel, head).hover()
        expect(attention(panel, head)).to_be_visible()
        found()
    scores = panel.get_by_role("combobox", name="What colours the head map")
    for score in scores.locator("option").evaluate_all("options => options.map(option => option.value)"):
        scores.select_option(score)
        found()
    panel.get_by_role("button", name="Neurons", exact=True).click()
    found()
    for name in ("Matrix", "Attention"):  # the page holds fewer views of other prompts
        panel.locator(".rs-lower-controls").get_by_role("button", name=name, exact=True).click()
    panel.get_by_role("button", name="Next prompt").click()
    found()
    panel.get_by_role("button", name=re.compile("^answer: ")).click()
    expect(panel.get_by_role("option").filter(has_text="%").first).to_be_visible()


def test_a_saved_answer_to_why_lacks_nothing(offline: Open, run: demo.Ioi) -> None:
    panel = residscope.inspect(run.cache, run.answers, prompt=0, heads=["L23H3"], show=False)
    panel.target = residscope.targets.attention("L23H3", destination=14, source=10, versus=0)
    panel.tab = "why"
    page = offline(panel)
    expect(view(page)).to_contain_text("What it moves")
    expect(line(page)).to_have_attribute("class", "rs-saved")


def test_hostile_tokens_do_nothing_on_a_saved_page(offline: Open) -> None:
    _, cache = hostile.cache()
    page = offline(residscope.inspect(cache, heads=["1.1"], name='</title><script>"', show=False))
    panel = view(page)
    strip = panel.get_by_role("listbox", name="Destination position")
    expect(strip).to_contain_text("<img·src=x·onerror=window.hacked=true>")
    for head in ("L0H0", "L1H1"):
        cell(panel, head).hover()
        expect(attention(panel, head)).to_be_visible()
    for token in range(len(hostile.TOKENS)):
        strip.get_by_role("option").nth(token).hover()
    assert page.evaluate("window.hacked") is None
    assert (
        page.locator("img, iframe, [onerror], [onload]").or_(page.locator("b").get_by_text("bold", exact=True)).count()
        == 0
    )
    assert page.locator("script").count() == 2


def outputs(lab: Lab, path: str) -> list[dict[str, Any]]:
    """Return the outputs of the cells in the notebook's file."""
    notebook = json.loads((lab.server.root / path).read_text())
    return [output["data"] for cell in notebook["cells"] for output in cell["outputs"] if "data" in output]


def test_a_notebook_shows_its_last_picture_without_its_kernel(lab: Lab) -> None:
    inspect = "import residscope, ipywidgets\npanel = residscope.inspect(cache, heads=['1.1'], prompt=1)"
    path = lab.write_notebook("kept.ipynb", TINY, inspect, "ipywidgets.VBox([panel])")
    lab.open(path)
    lab.run_all()
    panel = lab.panel()
    lab.panel(1)  # the panel in the box
    cell(panel, "L2H1").click()
    expect(attention(panel, "L2H1")).not_to_have_class(re.compile("rs-waiting"))
    lab.becomes("panel.heads", ["L1H1", "L2H1"])
    lab.ready(panel)
    before = cells(panel)
    same = panel.element_handle()
    lab.command("docmanager:save")
    assert same.evaluate("node => node.isConnected && node.dataset.state") == "ready"  # the live view was not touched
    assert not lab.page.evaluate("() => window.jupyterapp.shell.currentWidget.context.model.dirty")
    [data, box] = outputs(lab, path)
    assert MIME not in box
    assert len(json.dumps(data)) < 100_000
    assert "Residscope" in "".join(data["text/html"])  # for hosts that do not know the MIME type

    lab.open(path)  # the kernel still runs, so the panel is live again
    expect(lab.page.locator(".rs-saved")).to_have_count(0, timeout=FOLLOWS)
    cell(lab.panel(), "L1H1").click()
    lab.becomes("panel.heads", ["L2H1"])

    lab.server.shut_down_kernels()
    lab.open(path)
    said = lab.page.locator(".rs-saved")
    expect(said).to_contain_text("Saved picture of", timeout=FOLLOWS)
    expect(said).to_contain_text("run the cell again for more")
    panel = lab.panel()
    assert cells(panel) == before
    for head in ("L1H1", "L2H1"):
        expect(attention(panel, head)).not_to_have_class(re.compile("rs-waiting"))
    expect(panel.get_by_label("Prompt number")).to_have_value("1")
    panel.get_by_role("button", name="Previous prompt").click()
    expect(said).to_contain_text(re.compile("saved without .*prompt 0; run the cell again"))
    assert cells(panel) == before

    lab.run_all()
    expect(said).to_have_count(0)
    panel = lab.panel()
    cell(panel, "L0H1").click()
    lab.becomes("panel.heads", ["L1H1", "L0H1"])


def test_a_panel_in_the_place_of_an_equal_one_is_stored_too(lab: Lab) -> None:
    show = """
from IPython.display import publish_display_data
import residscope
def show(update):
    bundle, *_ = residscope.inspect(cache, show=False)._repr_mimebundle_()
    publish_display_data(bundle, transient={"display_id": "place"}, update=update)
show(False)
"""
    path = lab.write_notebook("replaced.ipynb", TINY, show)
    lab.open(path)
    lab.run_all()
    first = lab.panel().element_handle()
    lab.command("docmanager:save")
    [before] = outputs(lab, path)
    lab.run_cell("show(True)")
    lab.until(lambda: first.evaluate("node => node.isConnected"), lambda there: not there)
    lab.panel()
    lab.command("docmanager:save")
    [after] = outputs(lab, path)
    assert after[MIME]["model_id"] != before[MIME]["model_id"]
    assert "snapshot" in after[MIME]
