"""A lens given to `inspect`: charts and token lens show its values. A switch shows those of the plain logit lens.

Expected: computed by hand in float64.
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.support.lab import Lab

SETUP = """
from tests.support import tiny
import residscope, torch
model = tiny.boot("llama")
tokens, logits, cache = tiny.run(model)
torch.manual_seed(3)
lens = [torch.nn.Linear(24, 24) for _ in range(3)]
panel = residscope.inspect(cache, (5, 6), prompt=0, lens=residscope.LensMaps(lens, name="my lens"))
def by_hand(transported):
    import copy
    norm, unembed = (copy.deepcopy(part.original_component).double() for part in (model.ln_final, model.unembed))
    found = []
    with torch.no_grad():
        for layer in range(3):
            h = cache[f"blocks.{layer}.hook_resid_pre"][0].double()
            if transported:
                h = h + h @ lens[layer].weight.double().T + lens[layer].bias.double()
            p = unembed(norm(h)).softmax(-1)
            top = p.max(-1)
            found.append([[f"w{id}" for id in top.indices.tolist()], top.values.tolist()])
    return found
def charts(transported):
    import copy
    norm, unembed = (copy.deepcopy(part.original_component).double() for part in (model.ln_final, model.unembed))
    found = []
    with torch.no_grad():
        for name in ("blocks.0.hook_resid_pre", "blocks.2.hook_resid_post"):
            h = cache[name][0, -1].double()
            if transported and "pre" in name:
                h = h + h @ lens[0].weight.double().T + lens[0].bias.double()
            y = unembed(norm(h))
            found.append(f"{float(y[5] - y[6]):+.2f}".replace("-", "−"))
    return found
"""


def labels(panel: Locator) -> list[list[str]]:
    """Return the labels of the cells of each row: "w5 0.08, answer rank 3"."""
    rows: list[list[str]] = panel.locator(".rs-lens-scroll").evaluate(
        """grid => {
            const cells = [...grid.querySelectorAll(".rs-lens-cell")].map(cell => {
                const { top, left } = cell.getBoundingClientRect();
                return { top: Math.round(top), left, label: cell.ariaLabel };
            });
            const rows = new Map();
            for (const cell of cells) rows.set(cell.top, [...(rows.get(cell.top) ?? []), cell]);
            return [...rows.keys()].sort((a, b) => a - b).map(
                top => rows.get(top).sort((a, b) => a.left - b.left).map(cell => cell.label));
        }"""
    )
    return rows


def matches(rows: list[list[str]], expected: list[Any]) -> bool:
    """Compare the likeliest token of each cell and its probability, which is shown with two or three digits."""
    for row, (tokens, likely) in zip(rows, expected, strict=False):
        found = [label.split(",")[0].partition(" ") for label in row]
        if [token for token, _, _ in found] != tokens:
            return False
        if [float(p or "nan") for _, _, p in found] != pytest.approx(likely, abs=6e-4, rel=0.051):
            return False
    return len(rows) >= len(expected)


def test_the_lens_and_the_plain_one_show_their_values_in_float64(lab: Lab) -> None:
    lab.page.set_viewport_size({"width": 1440, "height": 1400})
    lab.open(lab.write_notebook("lens.ipynb", SETUP))
    lab.run_all()
    panel = lab.panel()
    panel.get_by_role("tab", name="Token lens", exact=True).click()
    lab.ready(panel)
    switch = panel.get_by_role("group", name="Lens")
    expect(switch.get_by_role("button", name="transported")).to_have_attribute("aria-pressed", "true")
    caption = panel.locator(".rs-caption", has_text="likeliest next token")
    expect(caption).to_contain_text("Transported: h + A h + b is read in place of the stream h (my lens).")
    expected = lab.python("by_hand(True)")
    lab.until(partial(labels, panel), partial(matches, expected=expected))
    choice = panel.get_by_role("combobox", name="Norm of the logit lens")
    choice.select_option(label="transported, recomputed")
    chart = panel.get_by_label("Logit lens: ")
    first, last = lab.python("charts(True)")
    expect(chart).to_have_attribute("aria-label", re.compile(f"from {re.escape(first)} at 0_pre to {re.escape(last)}"))
    if folder := os.environ.get("RESIDSCOPE_LOOK"):
        panel.screenshot(path=f"{folder}/lens.png")
    plain = switch.get_by_role("button", name="plain")
    plain.click()
    lab.ready(panel)
    expect(caption).not_to_contain_text("Transported")
    expected = lab.python("by_hand(False)")
    lab.until(partial(labels, panel), partial(matches, expected=expected))
    lab.becomes("panel.transport", "plain")
    expect(choice).to_have_value("recomputed")
    first, last = lab.python("charts(False)")
    expect(chart).to_have_attribute("aria-label", re.compile(f"from {re.escape(first)} at 0_pre to {re.escape(last)}"))
    lab.python("0", before="panel.transport = 'transported'")
    expect(switch.get_by_role("button", name="transported")).to_have_attribute("aria-pressed", "true")
