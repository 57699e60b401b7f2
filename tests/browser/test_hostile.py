"""Tokens and names that could inject code or cover other text stay in their boxes, and no code in them is run."""

from __future__ import annotations

import base64
import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, TINY

HOSTILE = """
from tests.support import hostile
import residscope
model, cache = hostile.cache()
answers = (hostile.TOKENS[0], hostile.TOKENS[1])
panel = residscope.inspect(cache, answers, prompt=0, heads=['1.1'])
"""
EXPORTS = """
from pathlib import Path
heads = ["1.1", "2.0"]
panel.save("page.html")
for view in ("patterns", "heads"):
    Path(view + ".html").write_text(residscope.to_circuitsvis(cache, heads, view=view).local_src)
residscope.attention(cache, heads, prompt=0).to_plotly().write_html("attention.html")
for by, more in (("head", {"position": "all"}), ("source", {"heads": heads})):
    attribution = residscope.attribute(cache, answers, by=by, **more)
    attribution.to_plotly(prompt=0, tokens=hostile.TOKENS).write_html(by + ".html")
"""
FILES = ["page", "patterns", "heads", "attention", "head", "source"]
STATES = [
    *({"presentation": name, "weighting": "contribution"} for name in ("matrix", "text", "all")),
    *({"tab": name} for name in ("positions", "token-lens")),
]


def nothing_ran(page: Page) -> None:
    """Check that no token became an element, and no code in a token was run."""
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("img[src='x'], svg[onload]").count() == 0


def test_hostile_tokens_are_text_in_every_view_and_export(lab: Lab, page: Page) -> None:
    lab.open(lab.write_notebook("hostile.ipynb", HOSTILE, EXPORTS))
    lab.run_all()
    panel = lab.panel()
    strip = panel.get_by_role("listbox", name="Destination position")
    for text in ("<img·src=x", "</script><script>", "<b>bold</b>", "&lt;i&gt;", "שלום", "🙂", "↵", "<0xE2>", "=1+1"):
        expect(strip).to_contain_text(text)
    wide = panel.bounding_box()
    assert wide
    for state in STATES:
        lab.python("0", before="".join(f"panel.{name} = {value!r}\n" for name, value in state.items()))
        if "tab" in state:
            expect(panel.get_by_role("tab", selected=True)).to_have_attribute("data-tab", state["tab"], timeout=FOLLOWS)
        lab.ready(panel)
        for option in strip.get_by_role("option").all()[::4]:
            option.hover()
        box = panel.bounding_box()
        assert box
        assert box["width"] == pytest.approx(wide["width"])
        assert panel.evaluate("view => view.scrollWidth <= view.clientWidth + 1"), f"something sticks out in {state}"
        nothing_ran(page)

    page.context.set_offline(True)
    for name in FILES:
        page.goto((lab.server.root / f"{name}.html").as_uri())
        page.wait_for_load_state("load")
        nothing_ran(page)
        if name == "heads":  # draws its tokens on a canvas
            expect(page.locator("canvas").first).to_be_visible(timeout=FOLLOWS)
        else:
            expect(page.locator("body")).to_contain_text("bold", timeout=FOLLOWS)
        nothing_ran(page)
    page.context.set_offline(False)


NAMES = """
import residscope
again = lambda: type(cache)(dict(cache.cache_dict), model)
globals()["x" + "\\u0301" * 450] = again()
globals()["<b>\\u202egnirts\\u200b\\n"] = again()
runs = {"y" + "\\u0e49" * 450: again(), "\\u2067z" + "\\u20dd" * 30: again()}
panel = residscope.inspect(cache, name="\\u202ep" + "\\u0336\\u0301" * 225)
del cache
"""
BESIDE = ".rs-badge-text, .rs-cache-facts, .rs-target, .rs-at, .rs-facts .rs-dotted"
"""The elements beside a name."""


DIFFERENCE = """async pictures => {
    const [one, other] = await Promise.all(pictures.map(async data => {
        const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
        const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
        const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d");
        context.drawImage(picture, 0, 0);
        return context.getImageData(0, 0, picture.width, picture.height).data;
    }));
    return one.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i])), 0);
}"""
"""Returns the largest difference of two pictures, 0 to 255. (Edges between pixels are painted slightly differently.)"""


def drawn(page: Page, box: dict[str, float]) -> str:
    """Return the picture of a place in base64."""
    clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]}
    return base64.b64encode(page.screenshot(clip=clip, animations="disabled")).decode()


def stays_in_its_box(page: Page, name: Locator, around: Locator) -> None:
    """Check that a name has few combining marks and no control characters, and paints nothing outside its box."""
    text = name.inner_text()
    assert not re.search(r"[\u0000-\u001f\u200b-\u200f\u202a-\u202e]", text), ascii(text)
    assert not re.search(r"[\u0300-\u036f\u0e31-\u0e4e\u20d0-\u20f0]{5}", text), ascii(text)
    box, whole = name.bounding_box(), around.bounding_box()
    assert box
    assert whole
    assert box["x"] >= whole["x"]
    assert box["x"] + box["width"] <= whole["x"] + whole["width"] + 0.5
    assert name.evaluate(WHOLE_OR_CUT)
    shown = {other: drawn(page, other.bounding_box()) for other in around.locator(BESIDE).all() if other.is_visible()}
    assert shown
    name.evaluate("b => b.style.color = 'transparent'")
    for other, before in shown.items():
        after = drawn(page, other.bounding_box())
        assert page.evaluate(DIFFERENCE, [before, after]) < 64, f"{text!a} is painted over {other}"
    name.evaluate("b => b.style.color = ''")


WHOLE_OR_CUT = """b => {
    const { textWrapMode, textOverflow, overflowX, overflowY } = getComputedStyle(b);
    const clipped = overflowX === "clip" && overflowY === "clip";
    const cut = clipped && textWrapMode === "nowrap" && textOverflow === "ellipsis";
    return cut || (b.scrollWidth <= b.clientWidth && b.scrollHeight <= b.clientHeight + 1);
}"""
"""Whether a name with only one line (in the narrow header) ends with an ellipsis, and any other name is whole."""


AT_ITS_CENTRE = """badge => {
    const { x, y, width, height } = badge.getBoundingClientRect();
    return badge.contains(document.elementFromPoint(x + width / 2, y + height / 2));
}"""


def test_a_name_covers_and_hides_nothing_and_reverses_no_text(lab: Lab, page: Page) -> None:
    lab.open(lab.write_notebook("names.ipynb", TINY, NAMES))
    lab.run_all()
    panel = lab.panel()
    lab.open_sidebar()
    expect(lab.caches).to_have_count(4, timeout=FOLLOWS)
    for nth in range(5):
        view = panel
        if nth < 4:
            row = lab.caches.nth(nth)
            lab.open_list()
            stays_in_its_box(page, row.locator(".rs-cache"), row)
            row.locator(".rs-cache-main").click()
            expect(row.locator("[aria-current=true]")).to_have_count(1)
            view = lab.ready(lab.sidebar.get_by_role("region", name="Residscope", exact=True))
        badge = view.locator(".rs-badge")
        expect(badge).to_contain_text("sum to", timeout=FOLLOWS)
        badge.scroll_into_view_if_needed()
        page.mouse.move(0, 0)
        assert badge.evaluate(AT_ITS_CENTRE)
        stays_in_its_box(page, view.locator(".rs-facts .rs-cache").first, view.locator(".rs-header"))
        assert view.evaluate("view => view.scrollWidth <= view.clientWidth + 1")
    nothing_ran(page)
