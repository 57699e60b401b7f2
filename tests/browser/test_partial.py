"""Panels of filtered caches: some views show exact numbers, and every other view says why it has none."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.support.demo_panel import PARTIAL
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, TINY, cell, cells

INSPECT = "import residscope\npanel = residscope.inspect(some, (5, 6), prompt=0, tokens=tokens)"
DIRECTION = "(model.W_U[:, 5] - model.W_U[:, 6]) * model.ln_final.weight / cache['ln_final.hook_scale'][0, -1]"


def opened(lab: Lab, kept: str, inspect: str = INSPECT) -> Locator:
    """Open a panel of a filtered cache, and return it. The kernel also has the whole cache, for comparison."""
    some = f"_, some = model.run_with_cache(tokens, names_filter=lambda name: {PARTIAL[kept]})"
    lab.open(lab.write_notebook(f"{kept}.ipynb", TINY + some, inspect))
    lab.run_all()
    return lab.panel()


def reasons(panel: Locator) -> dict[str, str]:
    """Return the text of each chart that has no picture."""
    places = {"lens": ".rs-lens-place .rs-view-trouble", "layers": ".rs-layers-place .rs-view-trouble"}
    places |= {"heads": ".rs-map-refusal", "ranking": ".rs-rank .rs-none"}
    found = {name: panel.locator(place) for name, place in places.items()}
    return {name: place.inner_text() for name, place in found.items() if place.count() and place.is_visible()}


def nothing_floats(panel: Locator) -> None:
    """Check that no notice covers the panel."""
    expect(panel.locator(".rs-notice p")).to_have_count(0)
    expect(panel).to_have_attribute("data-state", "ready")


def pattern(lab: Lab, panel: Locator, head: str) -> None:
    """Pin a head. Check that its attention is drawn, and that a cell has the number of the whole cache."""
    cell(panel, head).click()
    card = panel.get_by_role("region", name=f"Attention {head}", exact=True)
    canvas = card.locator("canvas").first
    box = canvas.bounding_box()
    assert box
    canvas.hover(position={"x": 2.5 / 7 * box["width"], "y": 5.5 / 7 * box["height"]})
    layer, number = map(int, head[1:].split("H"))
    true = lab.python(f"cache['pattern', {layer}][0, {number}, 5, 2].item()")
    expect(panel.locator(".rs-sentence")).to_contain_text(f"{true:.2f}", timeout=FOLLOWS)


@pytest.mark.parametrize("target", [True, False], ids=["with a target", "without a target"])
def test_a_cache_of_patterns_alone(lab: Lab, target: bool) -> None:
    panel = opened(lab, "patterns", INSPECT if target else INSPECT.replace("(5, 6), ", ""))
    said = reasons(panel)
    assert set(said) == {"lens", "layers", "heads", "ranking"}
    names = {"lens": "hook_resid_post", "layers": "hook_mlp_out", "heads": "attn.hook_z", "ranking": "attn.hook_z"}
    assert all((name in said[view] and "names_filter" in said[view]) or not target for view, name in names.items())
    assert target or all("No target" in words or "answers=" in words for words in said.values())
    expect(panel.get_by_role("status").first).to_have_text(
        "rows not complete: attention, MLPs, heads and embeddings missing"
    )
    pattern(lab, panel, "L1H1")
    panel.get_by_role("combobox", name="What colours the head map").select_option("previous")
    true = lab.python("(cache['pattern', 1][0, 1].diagonal(-1, -2, -1).sum() / 7).item()")
    expect(cell(panel, "L1H1")).to_have_attribute("aria-label", f"L1H1 previous-token {true:.2f}", timeout=FOLLOWS)
    nothing_floats(panel)


def test_a_cache_of_heads_without_mlps(lab: Lab) -> None:
    panel = opened(lab, "z")
    said = reasons(panel)
    assert set(said) == {"lens", "layers"}
    assert "hook_resid_post" in said["lens"]
    assert "`" not in said["layers"]
    assert "hook_mlp_out" in said["layers"]
    each = f"(cache['z', l][0, -1, h] @ model.W_O[l, h] @ ({DIRECTION})).item()"
    worth = f"[[{each} for h in range(4)] for l in range(3)]"
    true = {f"L{i}H{j}": value for i, row in enumerate(lab.python(worth)) for j, value in enumerate(row)}
    assert cells(panel) == pytest.approx(true, abs=0.0051)
    expect(panel.get_by_role("status").first).to_contain_text("rows not complete: MLPs and embeddings missing")
    cell(panel, "L1H1").click()
    card = panel.get_by_role("region", name="Attention L1H1", exact=True)
    expect(card.locator(".rs-trouble")).to_contain_text("blocks.1.attn.hook_pattern", timeout=FOLLOWS)
    nothing_floats(panel)


def test_a_cache_of_the_stream_after_each_layer(lab: Lab) -> None:
    panel = opened(lab, "resid-post")
    said = reasons(panel)
    assert set(said) == {"heads", "ranking"}
    assert "attn.hook_z" in said["heads"]
    points = lab.python(f"[(cache['resid_post', l][0, -1] @ ({DIRECTION})).item() for l in range(3)]")
    lens = panel.locator(".rs-lens .rs-plot")
    end = f"{points[-1]:+.2f}".replace("-", "−")
    expect(lens).to_have_attribute("aria-label", re.compile(rf"at 1_pre to {re.escape(end)} at final_post"))
    layers = panel.locator(".rs-layers .rs-plot")
    layers.focus()
    layers.press("End")
    last = f"{points[2] - points[1]:+.2f}".replace("-", "−")
    expect(panel.locator(".rs-sentence")).to_contain_text(last)
    panel.get_by_role("tab", name="Token lens", exact=True).click()
    expect(panel.get_by_role("tabpanel", name="Token lens").locator(".rs-view-trouble")).to_be_hidden()
    nothing_floats(panel)
