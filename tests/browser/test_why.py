"""Why a head reads a token, and which components wrote what the head moves: by clicks and by keyboard.

Expected: computed in float64 from TransformerLens' cache and weights.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.test_attention import number, point_at
from tests.support.demo_panel import SETUP, settled
from tests.support.lab import Lab

INSPECT = "panel = residscope.inspect(cache, answers=answers, prompt=0)"
# `moved` returns what L23H3 adds to the logit difference at position 14 by moving a vector from position 10.
# In this model, three query heads share a key-value head, and norms only scale.
BY_HAND = """
import torch
ids = [run.model.to_single_token(word) for word in (" Mary", " John")]
U = run.model.W_U.detach().double()
final = run.model.ln_final.weight.detach().double() / cache["ln_final.hook_scale"][0, 14].double()
g = (U[:, ids[0]] - U[:, ids[1]]) * final
block = run.model.blocks[23]
V = block.attn.v.weight.detach().double().reshape(3, 64, -1)[1] if block.attn.v.weight.ndim == 2 else None
O = run.model.W_O[23, 3].detach().double()
reads = cache["pattern", 23][0, 3, 14].double()
norm = block.ln1.weight.detach().double() / cache["blocks.23.ln1.hook_scale"][0, 10].double()
def moved(vector):
    return float(reads[10] * (V @ (vector.double() * norm)) @ O @ g)
of_mlp_0 = moved(cache["blocks.0.hook_mlp_out"][0, 10])
of_all = moved(cache["blocks.23.hook_resid_pre"][0, 10] if "blocks.23.hook_resid_pre" in cache
               else cache["blocks.23.hook_in"][0, 10])
log_ratio = float((reads[10] / reads[0]).log())
"""


@pytest.fixture
def opened(lab: Lab) -> tuple[Lab, Locator]:
    """A notebook with a drawn panel, no pinned head, and one prompt. The expected values are in its kernel."""
    lab.open(lab.write_notebook("why.ipynb", SETUP, BY_HAND, INSPECT))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    return lab, panel


def total(panel: Locator, column: str) -> float:
    return number(panel.locator(f"[data-column={column}] h4 .rs-number").inner_text(), r"([+−][\d.]+)")


def row(panel: Locator, column: str, name: str) -> float:
    line = panel.locator(f"[data-column={column}] .rs-why-line").filter(has=panel.page.get_by_text(name, exact=True))
    return number(line.locator(".rs-number").inner_text(), r"([+−][\d.]+)")


def test_clicks_lead_from_the_head_map_to_the_components_that_wrote_what_a_head_moves(
    opened: tuple[Lab, Locator],
) -> None:
    lab, panel = opened
    log_ratio, of_mlp_0, of_all = lab.python("[log_ratio, of_mlp_0, of_all]")
    trail = panel.get_by_role("navigation", name="Trail of targets")
    badge = panel.locator(".rs-badge")
    expect(trail).to_be_hidden()

    panel.locator('[role=gridcell][data-head="L23H3"]').click()
    settled(panel)
    panel.locator(".rs-ask-here").get_by_role("button", name="why here? L23H3 reads ·John₁₀").click()
    settled(panel)
    expect(trail).to_contain_text("L23H3 reads ·John₁₀ and not ·Mary")  # the other ordinary token that it reads most
    panel.get_by_label("What the source is compared with").select_option("most")
    settled(panel)
    expect(trail).to_contain_text("L23H3 reads ·John₁₀ and not <|im_start|>")
    expect(badge).to_contain_text("rows sum to +1.000 · log of 0.60 / 0.22, as cached")
    for column in ("query", "key"):
        assert total(panel, column) == pytest.approx(log_ratio, abs=0.006)
    assert total(panel, "moved") == pytest.approx(of_all, abs=0.006)
    assert row(panel, "moved", "MLP 0") == pytest.approx(of_mlp_0, abs=0.006)
    late = panel.locator('[role=gridcell][data-head="L23H0"]')
    expect(late).to_have_attribute("aria-label", "L23H0 not before the point")

    panel.get_by_role("button", name="pair map").click()
    settled(panel)
    pairs = panel.get_by_role("grid", name="Pairs of components")
    assert number(pairs.get_by_label("all: ").inner_text(), r"([+−][\d.]+)") == pytest.approx(log_ratio, abs=0.006)
    panel.get_by_role("button", name="sides", exact=True).click()
    panel.get_by_label("What the source is compared with").select_option("none")
    settled(panel)
    expect(badge).to_contain_text("rows sum to +3.185, as cached")
    panel.get_by_label("What the source is compared with").select_option("most")
    settled(panel)

    panel.locator("[data-column=moved] button.rs-why-name").click()
    settled(panel)
    expect(badge).to_contain_text("what L23H3 contributes from ·John₁₀")
    expect(trail.get_by_role("listitem")).to_have_count(3)
    assert total(panel, "whole") == pytest.approx(of_all, abs=0.006)
    assert row(panel, "whole", "MLP 0") == pytest.approx(of_mlp_0, abs=0.006)
    assert lab.python("panel.step") == 2

    trail.get_by_role("button", name="step 1: ·Mary − ·John at ·to₁₄").click()
    settled(panel)
    expect(badge).to_contain_text("the model’s own logit difference")
    assert lab.python("[panel.step, list(panel.target[0])]") == [0, [" Mary", " John"]]
    trail.get_by_role("button", name="Forward").click()
    settled(panel)
    expect(trail.locator("[aria-current=step]")).to_contain_text("L23H3 reads ·John₁₀")

    # A click on a cell of a card selects another source.
    trail.get_by_role("button", name="Back").click()
    panel.get_by_role("tab", name="Attention").click()
    settled(panel)
    point_at(panel, "L23H3", 14, 4)
    canvas = panel.get_by_role("region", name="Attention L23H3", exact=True).locator("canvas").first
    box = canvas.bounding_box()
    assert box
    canvas.click(position={"x": 4.5 / 15 * box["width"], "y": 14.5 / 15 * box["height"]})
    asks = panel.get_by_role("group", name="Ask about this cell")
    asks.get_by_role("button", name="who put it? what L23H3 moves from ·Mary").click()
    settled(panel)
    expect(trail.locator("[aria-current=step]")).to_contain_text("what L23H3 moves from ·Mary")
    expect(trail.get_by_role("listitem")).to_have_count(2)  # the later steps were removed


def test_keys_lead_from_the_head_map_to_the_components_that_wrote_what_a_head_moves(
    opened: tuple[Lab, Locator],
) -> None:
    lab, panel = opened
    of_mlp_0 = lab.python("of_mlp_0")
    keyboard = lab.page.keyboard
    trail = panel.get_by_role("navigation", name="Trail of targets")
    panel.locator('[role=gridcell][data-head="L23H3"]').focus()
    settled(panel)
    keyboard.press("w")
    settled(panel)
    expect(trail.locator("[aria-current=step]")).to_contain_text("L23H3 reads ·John₁₀")
    moves = panel.locator("[data-column=moved] button.rs-why-name")
    for _ in range(60):
        if moves.evaluate("node => node === document.activeElement"):
            break
        keyboard.press("Tab")
    keyboard.press("Enter")
    settled(panel)
    expect(trail.locator("[aria-current=step]")).to_contain_text("what L23H3 moves from ·John₁₀")
    assert row(panel, "whole", "MLP 0") == pytest.approx(of_mlp_0, abs=0.006)
    for at, words in ((1, "L23H3 reads ·John₁₀"), (0, "·Mary − ·John")):
        keyboard.press("Alt+ArrowLeft")
        expect(trail.locator("[aria-current=step]")).to_contain_text(words)
        lab.becomes("panel.step", at)
    keyboard.press("Alt+ArrowRight")
    expect(trail.locator("[aria-current=step]")).to_contain_text("L23H3 reads ·John₁₀")
