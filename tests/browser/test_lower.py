"""Token lens and position map: the selected column is visible, rows are whole, an outlier does not make others pale."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.support.demo_panel import RUN
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, cell

CACHES = """
from tests.support import tiny
import torch
from transformer_lens.model_bridge import TransformerBridge
settings = {"d_model": 24, "d_head": 6, "n_layers": 20, "n_heads": 2, "n_ctx": 640, "d_mlp": 40, "d_vocab": 64}
model = TransformerBridge.boot_native(settings | {"seed": 0}, tokenizer=tiny._tokenizer())
torch.manual_seed(1)
with torch.no_grad():
    _, of_15 = model.run_with_cache(torch.randint(3, 64, (1, 15)))
    _, of_600 = model.run_with_cache(torch.randint(3, 64, (1, 600)))
"""
# Returns boxes in the browser: the visible part of a sheet, without its row names and tokens; the selected column; the
# rows that are at least partly visible. It also returns how far the elements around the sheet are scrolled, and the
# width of the sheet.
BOXES = """(view, [sheet, column, row, name]) => {
    const box = node => {
        const { left, right, top, bottom } = node.getBoundingClientRect();
        return { left, right, top, bottom };
    };
    const scroller = view.querySelector(sheet);
    const outer = box(scroller);
    const first = view.querySelector(name);
    const inside = {
        left: first ? box(first).right : outer.left, right: outer.left + scroller.clientWidth,
        top: box(scroller.querySelector(".rs-lens-head, .rs-sheet-own")).bottom,
        bottom: outer.top + scroller.clientHeight,
    };
    const partly = ({ top, bottom }) => bottom > inside.top + 0.5 && top < inside.bottom - 0.5;
    const rows = [...scroller.querySelectorAll(row)].map(box).filter(partly);
    const around = [];
    for (let node = scroller.parentElement; node; node = node.parentElement)
        around.push(node.scrollTop, node.scrollLeft);
    const node = scroller.querySelector(column);
    return { inside, column: node && !node.hidden ? box(node) : null, rows, around, wide: scroller.clientWidth };
}"""
SHEETS = {
    "Token lens": [".rs-lens-scroll", ".rs-lens-destination", ".rs-lens-name", ".rs-lens-name"],
    "Positions": [".rs-sheet-scroll", ".rs-frame:not(.rs-frame-cell)", ".rs-none", ".rs-sheet-names"],
}


def boxes(view: Locator, name: str) -> dict[str, Any]:
    return view.evaluate(BOXES, SHEETS[name])


def in_sight(found: dict[str, Any]) -> bool:
    column, inside = found["column"], found["inside"]
    return bool(column) and column["left"] >= inside["left"] - 0.6 and column["right"] <= inside["right"] + 0.6


def whole_rows(found: dict[str, Any]) -> bool:
    inside = found["inside"]
    return bool(found["rows"]) and all(
        row["top"] >= inside["top"] - 0.6 and row["bottom"] <= inside["bottom"] + 0.6 for row in found["rows"]
    )


@pytest.mark.parametrize("height", [900, 720])
def test_the_destination_is_visible_at_opening_and_after_each_change(lab: Lab, height: int) -> None:
    lab.page.set_viewport_size({"width": 1440, "height": height})
    lab.open(lab.write_notebook("lower.ipynb", CACHES))
    lab.open_sidebar()
    lab.run_all()
    expect(lab.caches).to_have_count(2, timeout=FOLLOWS)
    for name, positions in (("of_15", 15), ("of_600", 600)):
        view = lab.inspect(name)
        for tab in SHEETS:
            view.get_by_role("tab", name=tab, exact=True).click()
            lab.ready(view)
            found = lab.until(partial(boxes, view, tab), in_sight)
            assert found["wide"] < 500
            if tab == "Token lens":
                assert whole_rows(found), found
                expect(view.locator(".rs-lens-name").last).to_have_text("final_post")
            # A far destination is chosen in the strip: the sheet scrolls to it, but the elements around do not scroll.
            strip = view.get_by_role("listbox", name="Destination position").get_by_role("option")
            strip.first.dispatch_event("click")
            first = lab.until(partial(boxes, view, tab), in_sight)
            assert first["column"]["left"] - first["inside"]["left"] != pytest.approx(
                found["column"]["left"] - found["inside"]["left"], abs=1
            )
            assert first["around"] == found["around"]
            strip.last.dispatch_event("click")  # the prompt's last token, so that no destination is locked
            last = lab.until(partial(boxes, view, tab), in_sight)
            assert last["around"] == found["around"]
            assert tab != "Token lens" or whole_rows(last)
        strip = view.get_by_role("listbox", name="Destination position").get_by_role("option")
        expect(strip.last).to_have_attribute("data-position", str(positions - 1))


# Computes from TransformerLens' tensors, in float64, what each component adds at each position.
ORACLE = (
    f"{RUN}\n"
    + """import torch
model, cache, answers = run.model, run.cache, run.answers
panel = residscope.inspect(cache, answers=answers, prompt=0)
def by_hand(prompt):
    a, b = (model.to_single_token(text) for text in answers[prompt])
    u = model.ln_final.weight.double() * (model.W_U[:, a] - model.W_U[:, b]).double()
    x = cache["resid_post", 29][prompt].double()
    names = ["hook_embed"] + [f"blocks.{l}.hook_{what}_out" for l in range(30) for what in ("attn", "mlp")]
    scale = (x.pow(2).mean(-1) + model.cfg.eps).sqrt()
    return torch.stack([(cache[name][prompt].double() @ u) / scale for name in names])
"""
)
# Returns, for each cell, the colours of the pixels at its middle (where a dot is drawn) and beside the middle.
PIXELS = """(canvas, [rows, columns, cells]) => {
    const pen = canvas.getContext("2d");
    const [x, y] = [canvas.width / columns, canvas.height / rows];
    const at = (left, top) => [...pen.getImageData(Math.floor(left), Math.floor(top), 1, 1).data.slice(0, 3)].join();
    const beside = (row, column, by) => at((column + by) * x, (row + 0.5) * y);
    return cells.map(([row, column]) => [beside(row, column, 0.5), beside(row, column, 0.25)]);
}"""


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def test_an_outlier_is_marked_and_does_not_make_the_rest_pale(lab: Lab) -> None:
    lab.open(lab.write_notebook("clipped.ipynb", ORACLE))
    lab.run_all()
    panel = lab.panel()
    values: list[list[float]] = lab.python("by_hand(0).tolist()")
    rows, columns = len(values), len(values[0])
    assert (rows, columns) == (61, 15)
    peaks = [max(abs(row[column]) for row in values) for column in range(columns)]
    end = max(sorted(peaks[1:])[math.ceil(0.99 * (columns - 1)) - 1], peaks[-1])
    assert peaks[0] > 1.5 * end  # the demo's first position is an outlier
    far = [(r, c) for r in range(rows) for c in range(columns) if abs(values[r][c]) > end * (1 + 1e-5)]
    assert {c for _, c in far} == {0}

    panel.get_by_role("tab", name="Positions", exact=True).click()
    scale = panel.get_by_role("img", name=re.compile("^colours from "))
    low = "≤ " if any(values[r][c] < 0 for r, c in far) else ""
    high = "≥ " if any(values[r][c] > 0 for r, c in far) else ""
    said = f"{len(far)} cell{'' if len(far) == 1 else 's'}"
    expect(scale).to_have_attribute(
        "aria-label", f"colours from {low}{signed(-end)} to {high}{signed(end)}; beyond them {said}", timeout=FOLLOWS
    )
    expect(panel.locator(".rs-positions .rs-caption")).to_contain_text(
        f"A dot marks what lies beyond the colours: {said}."
    )
    lab.ready(panel)
    field = panel.get_by_role("application", name=re.compile("components at 15 positions"))
    near = [(r, c) for r in range(rows) for c in range(1, columns)][::37] + [(r, 0) for r in range(0, rows, 7)]
    near = [place for place in near if place not in far]
    pixels = field.locator("canvas").evaluate(PIXELS, [rows, columns, [*far, *near]])
    marked = [middle != beside and middle in ("0,0,0", "255,255,255") for middle, beside in pixels]
    assert marked == [True] * len(far) + [False] * len(near)

    # The sentence about the cell under the pointer has the true number.
    row, column = max(far, key=lambda place: abs(values[place[0]][place[1]]))
    field.scroll_into_view_if_needed()
    box = field.locator("canvas").bounding_box()
    assert box
    field.hover(position={"x": (column + 0.5) / columns * box["width"], "y": (row + 0.5) / rows * box["height"]})
    expect(field.locator(".rs-tip")).to_contain_text(f"{signed(values[row][column])}, beyond the colours")

    # The range is kept for another prompt, but not for another target.
    panel.get_by_role("button", name="hold the colours of the position map").click()
    panel.get_by_role("button", name="hold the colours of the head map").click()
    before = panel.locator(".rs-bar-scale").inner_text()
    lab.python("0", before="panel.prompt = 1")
    lab.ready(panel)
    here: list[list[float]] = lab.python("by_hand(1).tolist()")
    count = sum(abs(value) > end for row in here for value in row)
    words = re.compile(rf"{re.escape(signed(end))}, held" + (f"; beyond them {count} cell" if count else "$"))
    expect(scale).to_have_attribute("aria-label", words, timeout=FOLLOWS)
    ends = [re.findall(r"[+−][\d.]+", text) for text in (before, panel.locator(".rs-bar-scale").inner_text())]
    assert ends[0] == ends[1]
    assert len(ends[0]) == 2
    expect(panel.get_by_role("button", name="hold the colours of the head map")).to_have_attribute(
        "aria-pressed", "true"
    )
    lab.python("0", before="panel.target = answers[0][0]")
    expect(scale).not_to_have_attribute("aria-label", re.compile("held"), timeout=FOLLOWS)
    expect(panel.get_by_role("button", name="hold the colours of the head map")).to_have_attribute(
        "aria-pressed", "false"
    )


def test_in_a_narrow_panel_a_cards_sentence_is_not_cut_and_an_empty_card_has_one_line(lab: Lab) -> None:
    lab.page.set_viewport_size({"width": 1440, "height": 900})
    lab.open(lab.write_notebook("lower.ipynb", CACHES))
    lab.open_sidebar()
    lab.run_all()
    view = lab.inspect("of_15")
    placeholder = view.locator(".rs-cards > .rs-placeholder")
    expect(placeholder).to_be_visible()
    cell(view, "L3H1").click()
    lab.page.mouse.move(0, 0)
    reads = view.get_by_role("region", name="Attention L3H1", exact=True).locator(".rs-reads")
    expect(reads).to_contain_text(" reads ", timeout=FOLLOWS)
    expect(reads).to_have_attribute("title", reads.evaluate("line => line.textContent"))
    # For each part: whether any of it is visible, and whether all of it is.
    parts: list[tuple[bool, bool]] = reads.evaluate(
        """line => [...line.children].map(part => {
            const [around, own] = [line.getBoundingClientRect(), part.getBoundingClientRect()];
            const whole = part.scrollWidth <= part.clientWidth && own.right <= around.right + 0.5;
            return [own.top < around.bottom - 1, whole && own.bottom <= around.bottom + 1];
        })"""
    )
    assert parts[0][0]
    assert all(whole for seen, whole in parts if seen), parts
    # If only the pinned head is shown, the empty card has one line.
    box = placeholder.bounding_box()
    assert box
    assert box["height"] < 32
