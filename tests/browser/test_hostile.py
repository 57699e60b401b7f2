"""Tokens that a careless page would run: shown as text in every view and every export, and nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import Lab
from playwright.sync_api import Page, expect
from sidebar import FOLLOWS

FOLDER = Path(__file__).parents[1] / "python"
HOSTILE = f"""
import sys; sys.path.insert(0, {str(FOLDER)!r})
import hostile, residscope
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
for by, more in (("head", {"position": None}), ("source", {"heads": heads})):
    attribution = residscope.attribute(cache, answers, by=by, **more)
    attribution.to_plotly(prompt=0, tokens=hostile.TOKENS).write_html(by + ".html")
"""
FILES = ["page", "patterns", "heads", "attention", "head", "source"]
STATES = [
    *({"presentation": name, "weighting": "contribution"} for name in ("matrix", "text", "all")),
    *({"tab": name} for name in ("positions", "token-lens")),
]


def nothing_ran(page: Page) -> None:
    """No token became an element, and none was run."""
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
