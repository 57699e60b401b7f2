"""The tab "Features" in the panel and in the sidebar. Expected: computed in float64 from cache, weights and SAE."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.support.demo_panel import SETUP, settled
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS

SAES = """
import torch

class Sae:
    def __init__(self, site, features=60, seed=0, **more):
        made = torch.Generator().manual_seed(seed)
        self.cfg = {"hook_name": site, **more}
        self.W_enc = torch.randn(576, features, generator=made) / 24
        self.W_dec = self.W_enc.T.clone()
        self.b_enc = torch.zeros(features)
        self.b_dec = torch.randn(576, generator=made) * 0.02

    def encode(self, x):
        return ((x - self.b_dec) @ self.W_enc + self.b_enc).relu()

    def decode(self, acts):
        return acts @ self.W_dec + self.b_dec

class Broken(Sae):
    def encode(self, x):
        return super().encode(x) * float("nan")

sae = Sae("blocks.23.hook_mlp_out", neuronpedia_id="smollm2/23-test")
early = Sae("blocks.12.hook_resid_pre", seed=1)
"""
BY_HAND = """
ids = [run.model.to_single_token(word) for word in (" Mary", " John")]
U = run.model.W_U.detach().double()
g = (U[:, ids[0]] - U[:, ids[1]]) * run.model.ln_final.weight.detach().double()
g = g / cache["ln_final.hook_scale"][0, 14].double()
x = cache["blocks.23.hook_mlp_out"][0]
acts = sae.encode(x)
by_feature = (acts[14].double() * (sae.W_dec.double() @ g)).tolist()
strongest = sorted(range(60), key=lambda f: -abs(by_feature[f]))[:10]
of_error = float((x[14] - sae.decode(acts[14])).double() @ g)
of_bias = float(sae.b_dec.double() @ g)
whole = float(x[14].double() @ g)
"""
INSPECT = """
saes = {"sae": sae, "early": early, "broken": Broken("blocks.5.hook_mlp_out")}
panel = residscope.inspect(cache, answers=answers, prompt=0, sae=saes)
"""


def rows(view: Locator) -> dict[str, tuple[float | None, float]]:
    """Return activation and contribution of each row, by its name."""
    found: dict[str, tuple[float | None, float]] = {}
    for label in view.locator(".rs-features [data-row]").evaluate_all("rows => rows.map(row => row.ariaLabel)"):
        match = re.fullmatch(r"(.+?)(?:, activation ([\d.]+))?, adds ([+−]?[\d.]+)", label)
        assert match, label
        found[match[1]] = (None if match[2] is None else float(match[2]), float(match[3].replace("−", "-")))
    return found


def test_the_rows_of_an_sae_are_shown_and_a_feature_colours_the_tokens_and_becomes_the_target(lab: Lab) -> None:
    lab.open(lab.write_notebook("features.ipynb", SETUP, SAES, BY_HAND, INSPECT))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    panel.get_by_role("tab", name="Features").click()
    settled(panel)
    strongest, by_feature = lab.python("[strongest, by_feature]")
    acts, of_error, of_bias, whole = lab.python("[acts.tolist(), of_error, of_bias, whole]")
    site = "blocks.23.hook_mlp_out"
    shown = rows(panel)
    assert list(shown) == ["error", "b_dec", *(f"feature {f} of {site}" for f in strongest)]
    assert shown["error"][1] == pytest.approx(of_error, abs=6e-4)
    assert shown["b_dec"][1] == pytest.approx(of_bias, abs=6e-4)
    for f in strongest:
        activation, value = shown[f"feature {f} of {site}"]
        assert value == pytest.approx(by_feature[f], abs=6e-4)
        assert activation == pytest.approx(acts[14][f], abs=6e-3)
    badge = panel.locator(".rs-feature-sum")
    expect(badge).to_contain_text("the row MLP 23")
    number = re.search(r"✓ rows sum to ([+−][\d.]+),", badge.inner_text())
    assert number
    assert float(number[1].replace("−", "-")) == pytest.approx(whole, abs=6e-5 if abs(whole) < 0.1 else 6e-4)

    panel.locator(f'.rs-features [data-row="F{strongest[1]}"]').click()
    settled(panel)
    lab.becomes("panel.feature", strongest[1])
    tokens = panel.locator(".rs-token[data-value]").evaluate_all("all => all.map(one => Number(one.dataset.value))")
    assert tokens == pytest.approx([row[strongest[1]] for row in acts], abs=1e-3)
    focus = panel.locator(".rs-feature-focus")
    expect(focus).to_contain_text(f"feature {strongest[1]} of {site}")
    link = focus.get_by_role("link", name="Neuronpedia")
    expect(link).to_have_attribute("href", f"https://www.neuronpedia.org/smollm2/23-test/{strongest[1]}")
    expect(link).to_have_attribute("rel", re.compile("noopener"))
    focus.get_by_role("button", name="why is it on?").click()
    expect(focus.get_by_role("alert")).to_contain_text("neither the stream, nor what an MLP or attention reads")

    # A broken SAE has an error sentence. The rest of the panel and the other SAEs are shown as before.
    panel.get_by_label("SAE", exact=True).select_option("broken")
    expect(panel.locator(".rs-features .rs-view-trouble")).to_contain_text("gives NaN or infinity")
    expect(panel.locator(".rs-badge").first).to_contain_text("✓ rows sum to")
    panel.get_by_label("SAE", exact=True).select_option("early")
    settled(panel)
    expect(badge).to_contain_text("all rows before 12_pre")
    expect(focus).to_contain_text("Click a feature")

    first = panel.locator(".rs-features [data-row^=F]").first
    feature = int((first.get_attribute("data-row") or "F").removeprefix("F"))
    first.focus()
    lab.page.keyboard.press("w")
    settled(panel)
    trail = panel.get_by_role("navigation", name="Trail of targets")
    expect(trail.locator("[aria-current=step]")).to_contain_text(f"feature {feature} of blocks.12.hook_resid_pre")
    read = lab.python(
        f"float((cache['blocks.12.hook_resid_pre'][0, 14] - early.b_dec).double() @ early.W_enc[:, {feature}].double())"
    )
    total = panel.locator("[data-column=whole] h4 .rs-number").inner_text()
    assert float(total.replace("−", "-")) == pytest.approx(read, abs=6e-3)


def test_no_row_moves_under_the_pointer(lab: Lab) -> None:
    lab.open(lab.write_notebook("still.ipynb", SETUP, SAES, INSPECT))
    lab.run_all()
    panel = lab.panel()
    panel.get_by_role("tab", name="Features").click()
    settled(panel)
    listed = panel.locator(".rs-features [data-row^=F]")
    name = panel.locator(".rs-feature-name")
    for width in (1440, 1000, 640):
        lab.page.set_viewport_size({"width": width, "height": 900})
        for at in (2, 9, 5):
            feature = str(listed.nth(at).get_attribute("data-row"))
            row = panel.locator(f".rs-features [data-row={feature}]")
            row.hover()  # its sentence, and the page, are then in their places
            settled(panel)
            before = row.bounding_box()
            row.click()
            expect(name).to_contain_text(f"feature {feature[1:]} ")
            settled(panel)
            assert row.bounding_box() == before, (width, "chosen")
            row.press("w")  # an MLP's output is refused: the reason takes the place of the activations
            expect(panel.locator(".rs-feature-failed")).to_contain_text("neither the stream, nor what an MLP")
            assert row.bounding_box() == before, (width, "refused")
            panel.get_by_role("button", name="Choose no feature").click()
            expect(name).to_have_count(0)
            assert row.bounding_box() == before, (width, "not chosen")
        if width == 1440:
            top, bottom = panel.bounding_box(), panel.locator(".rs-feature-rest").bounding_box()
            assert top
            assert bottom
            assert bottom["y"] + bottom["height"] - top["y"] < 700  # a notebook shows so much at 1440 × 900


def test_the_sidebar_shows_the_features_of_an_sae_that_a_cell_makes(lab: Lab) -> None:
    lab.open(lab.write_notebook("sidebar-features.ipynb", SETUP))
    lab.run_all()
    lab.open_sidebar()
    expect(lab.caches).to_have_count(1, timeout=FOLLOWS)
    view = lab.inspect("cache")
    tab = view.get_by_role("tab", name="Features")
    expect(tab).to_have_count(0)
    lab.run_cell(SAES)
    expect(tab).to_be_visible(timeout=FOLLOWS)
    tab.click()
    lab.ready(view)
    assert list(rows(view))[:2] == ["error", "b_dec"]
    expect(view.locator(".rs-feature-sum")).to_contain_text("✓ rows sum to")
    # The list follows the SAE by itself, after a cell has replaced it, and after a change that PyTorch does not count.
    for cell in ("sae = Sae('blocks.23.hook_mlp_out', seed=5)", "sae.W_dec.data.neg_()"):
        before = view.locator(".rs-features [data-row]").evaluate_all("rows => rows.map(row => row.ariaLabel)")
        lab.run_cell(cell)
        first = view.locator(".rs-features [data-row=error]")
        expect(first).not_to_have_attribute("aria-label", before[0], timeout=FOLLOWS)
        lab.ready(view)
        target = "residscope.inspect(cache, show=False).target"
        error = lab.python(f'float(residscope.attribute(cache, {target}, by="feature", sae=sae).mean()[0])')
        assert rows(view)["error"][1] == pytest.approx(error, abs=6e-4)
    width = view.evaluate("node => [node.scrollWidth, node.clientWidth]")
    assert width[0] <= width[1]
    # All tabs are on one line, which scrolls to the selected one.
    tabs = view.get_by_role("tab")
    assert len({round(tabs.nth(at).evaluate("tab => tab.getBoundingClientRect().top")) for at in range(6)}) == 1
    for each in ("Attention", "Features"):
        view.get_by_role("tab", name=each).click()
        seen = "tab => document.elementFromPoint(tab.getBoundingClientRect().x + 3, tab.getBoundingClientRect().y + 9)"
        for edge in (seen, seen.replace("x + 3", "right - 3")):
            assert view.get_by_role("tab", name=each).evaluate(f"tab => tab.contains(({edge})(tab))"), each
