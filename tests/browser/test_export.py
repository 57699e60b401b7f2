"""The export menu in JupyterLab: the browser saves files, and copied code computes the shown values."""

from __future__ import annotations

import base64
import csv
import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Locator, expect

from tests.support.demo_panel import INSPECT, SETUP, settled
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, TINY

PICTURES = ["Logit lens", "Layers", "Heads", "Top heads", "Attention L23H3, L29H0"]


def open_menu(panel: Locator) -> Locator:
    panel.get_by_role("button", name="Export", exact=True).click()
    return panel.get_by_role("dialog", name="Export")


def saved(lab: Lab, menu: Locator, button: str) -> tuple[str, bytes]:
    """Click a button of the menu, and return name and content of the file that the browser saves."""
    with lab.page.expect_download() as download:
        menu.get_by_role("button", name=button, exact=True).click()
    name = download.value.suggested_filename
    expect(menu.get_by_role("status")).to_have_text(f"{name} given to the browser to save", timeout=FOLLOWS)
    return name, Path(download.value.path()).read_bytes()


def records(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode(), newline="")))


def copied(lab: Lab, menu: Locator, picture: str) -> str:
    menu.get_by_role("button", name=f"{picture}: Code", exact=True).click()
    expect(menu.get_by_role("status")).to_contain_text("Code copied", timeout=FOLLOWS)
    return lab.page.evaluate("navigator.clipboard.readText()")


@pytest.fixture
def shown(lab: Lab) -> tuple[Lab, Locator]:
    """A panel with two pinned heads on the demo model's first prompt."""
    lab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    lab.open(lab.write_notebook("export.ipynb", SETUP, f"{INSPECT[:-1]}, heads=['23.3', '29.0'], prompt=0)"))
    lab.run_all()
    panel = lab.panel()
    for head in ("L23H3", "L29H0"):
        expect(panel.get_by_role("region", name=f"Attention {head}", exact=True)).to_be_visible(timeout=FOLLOWS)
    settled(panel)
    return lab, panel


def test_tables_and_figures_hold_the_values_of_python(shown: tuple[Lab, Locator]) -> None:
    lab, panel = shown
    menu = open_menu(panel)
    expect(menu.get_by_role("rowheader")).to_have_text(PICTURES)

    name, data = saved(lab, menu, "Heads: CSV")
    assert name == "cache-Mary-John-prompt0-heads.csv"
    grid = lab.python("residscope.attribute(cache, answers).grid[..., 0].tolist()")
    rows = records(data)
    assert [(int(r["layer"]), int(r["head"])) for r in rows] == [(i, j) for i in range(30) for j in range(9)]
    flat = [v for row in grid for v in row]
    # The panel's request reads activations. Later requests read memoised vectors and sum them in another order.
    assert [float(r["value"]) for r in rows] == pytest.approx(flat, rel=0, abs=1e-6 * max(map(abs, flat)))

    rows = records(saved(lab, menu, "Attention L23H3, L29H0: CSV")[1])
    pattern = lab.python(
        "[cache['pattern', 23][0, 3].flatten().tolist(), cache['pattern', 29][0, 0].flatten().tolist()]"
    )
    assert [float(r["attention"]) for r in rows] == pytest.approx(
        [v for head in pattern for v in head], rel=1e-3, abs=1e-6
    )
    tokens = lab.python("run.model.to_str_tokens(run.tokens[0])")
    assert [r["source_token"] for r in rows[:15]] == tokens

    for picture in PICTURES:
        name, data = saved(lab, menu, f"{picture}: SVG")
        assert name.endswith(".svg")
        ElementTree.fromstring(data)  # well-formed
        page = lab.page.context.new_page()
        page.goto("data:image/svg+xml;base64," + base64.b64encode(data).decode())
        box = page.locator("svg").bounding_box()
        assert box
        assert box["width"] >= 60 / 25.4 * 96  # 60 mm or more
        assert page.locator("parsererror").count() == 0
        page.close()
    name, data = saved(lab, menu, "Heads: PNG")
    assert (name, data[:8]) == ("cache-Mary-John-prompt0-heads.png", b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert width == pytest.approx(85 / 25.4 * 600, abs=2)  # one column of a paper
    assert width * height <= 16_000_000
    resolution = data[33:54]  # the second chunk: dots per metre, horizontally and vertically
    assert resolution[:8] == b"\0\0\0\x09pHYs"
    dots = round(width / 0.085)  # the picture is 85 mm wide in a word processor
    assert struct.unpack(">IIB", resolution[8:17]) == (dots, dots, 1)
    assert struct.unpack(">I", resolution[17:])[0] == zlib.crc32(resolution[4:17])

    lab.page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    expect(panel.get_by_role("button", name="Export", exact=True)).to_be_focused()
    assert lab.python("panel.heads") == ["L23H3", "L29H0"]


def test_copied_code_gives_in_a_new_cell_what_is_shown(shown: tuple[Lab, Locator]) -> None:
    lab, panel = shown
    menu = open_menu(panel)
    columns = {"Logit lens": "value", "Layers": "value", "Heads": "value", "Top heads": "value"}
    columns["Attention L23H3, L29H0"] = "attention"
    for picture, column in columns.items():
        if menu.is_hidden():  # because a new cell took the focus
            menu = open_menu(panel)
        expected = [float(row[column]) for row in records(saved(lab, menu, f"{picture}: CSV")[1])]
        code = copied(lab, menu, picture)
        lab.python("0", before="globals().pop('values', None)")
        lab.run_cell(code)
        values: Any = lab.python("__import__('torch').as_tensor(values).flatten().tolist()")
        largest = max(1.0, *map(abs, expected))
        close = {"rel": 1e-3 if column == "attention" else 1e-5, "abs": 1e-6 * largest}  # attention may be float16
        assert values == pytest.approx(expected, **close), code


def test_the_stand_alone_page_is_saved_and_says_so(shown: tuple[Lab, Locator]) -> None:
    lab, panel = shown
    menu = open_menu(panel)
    name, data = saved(lab, menu, "Stand-alone page (.html)")
    assert name == "cache-Mary-John-prompt0.html"
    assert data.lstrip().lower().startswith(b"<!doctype html>")


def test_ctrl_z_restores_what_esc_cleared_and_does_not_change_the_notebook(shown: tuple[Lab, Locator]) -> None:
    lab, panel = shown
    cells = lab.page.locator(".jp-Notebook .jp-Cell").count()
    said = panel.locator(".rs-sentence")
    panel.get_by_role("option").nth(10).click()
    lab.becomes("panel.position", 10)
    lab.page.keyboard.press("Escape")  # unlocks the token; the next Escape removes the pins
    lab.becomes("panel.position", 14)
    expect(said).to_have_text("Cleared: position 10, “·John₁₀”. Ctrl+Z restores it.")
    lab.page.keyboard.press("Escape")
    lab.becomes("panel.heads", [])
    lab.page.keyboard.press("Control+z")
    lab.becomes("panel.heads", ["L23H3", "L29H0"])
    expect(said).to_have_text("Restored: L23H3 and L29H0. Ctrl+Z goes one step further back.")
    lab.page.keyboard.press("Control+z")
    lab.becomes("panel.position", 10)
    lab.page.keyboard.press("Control+z")
    expect(said).to_have_text("Nothing to restore.")
    assert lab.page.locator(".jp-Notebook .jp-Cell").count() == cells


def test_the_export_button_is_never_alone_on_a_line(shown: tuple[Lab, Locator]) -> None:
    _, panel = shown
    button = panel.get_by_role("button", name="Export", exact=True)
    beside = panel.locator(".rs-header :is(.rs-target, .rs-prompt, .rs-facts, .rs-name-line)")
    for width in (560, 600, 680, 760, 900, 1200):
        panel.evaluate("(panel, width) => (panel.parentElement.style.width = `${width + 2}px`)", width)
        box = button.bounding_box()
        assert box
        middle = box["y"] + box["height"] / 2
        others = [other for each in beside.all() if (other := each.bounding_box()) and other["width"] > 0]
        assert any(other["y"] <= middle <= other["y"] + other["height"] for other in others), width


def test_code_that_may_not_be_copied_is_shown(lab: Lab) -> None:
    lab.open(lab.write_notebook("denied.ipynb", TINY, "import residscope\npanel = residscope.inspect(cache)"))
    lab.page.evaluate(
        """() => {
            Object.defineProperty(navigator, "clipboard", { value: undefined });
            document.execCommand = () => false;
        }"""
    )
    lab.run_all()
    menu = open_menu(lab.panel())
    menu.get_by_role("button", name="Heads: Code", exact=True).click()
    code = menu.get_by_role("textbox", name="Code to copy")
    expect(code).to_be_focused(timeout=FOLLOWS)
    expect(code).to_have_value(re.compile("residscope.attribute"))
    expect(menu.get_by_role("status")).to_contain_text("Copy the code by hand")
