"""A prompt of 1024 tokens in a real JupyterLab: the down-sampled map, a zoomed part of it, the numbers in its text."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS

LONG = """
from tests.support import tiny
import torch, residscope
from transformer_lens.model_bridge import TransformerBridge
settings = {"d_model": 24, "d_head": 6, "n_layers": 1, "n_heads": 2, "n_ctx": 1024, "d_mlp": 40, "d_vocab": 64}
model = TransformerBridge.boot_native(settings | {"seed": 0}, tokenizer=tiny._tokenizer())
torch.manual_seed(1)
with torch.no_grad():
    logits, cache = model.run_with_cache(torch.randint(3, 64, (1, 1024)))
cache["pattern", 0][0, 1, 700, 300] = 0.875  # a single bright cell
panel = residscope.inspect(cache, (5, 6), heads=["0.1"])
"""


def test_a_long_prompt_loses_no_peak_and_is_exact_where_it_is_zoomed(lab: Lab) -> None:
    lab.open(lab.write_notebook("long.ipynb", LONG))
    lab.run_all()
    panel = lab.panel()
    card = panel.get_by_role("region", name="Attention L0H1", exact=True)
    sentence, matrix, pooled = panel.locator(".rs-sentence"), card.locator("canvas").first, card.locator(".rs-pooled")
    expect(pooled).to_have_text("strongest of 2 × 2", timeout=FOLLOWS)

    def point_at(q: float, k: float, top: int, left: int, span: int) -> None:
        matrix.scroll_into_view_if_needed()
        box = matrix.bounding_box()
        assert box
        x, y = (k + 0.5 - left) / span * box["width"], (q + 0.5 - top) / span * box["height"]
        matrix.hover(position={"x": x, "y": y})

    card.get_by_role("button", name="enlarge L0H1").click()
    point_at(700.5, 300.5, 0, 0, 1024)
    expect(sentence).to_have_text(
        "L0H1: positions 700–701 read 300–301: strongest attention 0.88 · zoom in for single tokens"
    )
    for _ in range(24):  # zooms in around the pointer, which stays on its cell
        lab.page.keyboard.down("Control")
        lab.page.mouse.wheel(0, -60)
        lab.page.keyboard.up("Control")
    expect(pooled).to_have_count(0, timeout=FOLLOWS)
    expect(sentence).to_contain_text("(destination 700) reads ", timeout=FOLLOWS)
    expect(sentence).to_contain_text("(source 300): attention 0.88")
    window = card.get_by_label(re.compile("^In view: destinations "))
    expect(window).to_be_visible()
    matrix.focus()
    lab.page.keyboard.press("ArrowLeft")
    found = re.search(r"\(destination (\d+)\) reads .* \(source (\d+)\): attention (\d\.\d\d)", sentence.inner_text())
    assert found
    q, k, said = int(found[1]), int(found[2]), float(found[3])
    assert abs(said - lab.python(f"float(cache['pattern', 0][0, 1, {q}, {k}])")) < 0.006
    window.focus()
    lab.page.keyboard.press("End")
    expect(window).to_have_attribute("aria-label", re.compile("to 1023, sources .* to 1023, of 1024"))

    # The text below the matrix is exact: it names the last position's strongest sources, not blocks.
    lab.page.mouse.move(0, 0)
    best = lab.python("[[int(i), round(float(v), 2)] for v, i in zip(*cache['pattern', 0][0, 1, 1023].topk(2))]")
    for at, value in best:
        place = str(at).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))
        expect(card.locator(".rs-reads")).to_contain_text(f"{place}” {value:.2f}", timeout=FOLLOWS)
    assert panel.locator(".rs-tokens .rs-token").count() == 256


def test_the_strip_shows_what_a_head_reads_and_the_page_does_not_move(lab: Lab) -> None:
    code = LONG.replace("1, 700, 300] = 0.875", "1, 1023, 100] = 0.9").replace(', heads=["0.1"]', "") + "panel"
    lab.open(lab.write_notebook("read.ipynb", code))
    lab.run_all()
    panel = lab.panel()
    panel.evaluate("node => node.scrollIntoView({ block: 'start' })")
    strip = panel.get_by_role("listbox", name="Destination position")
    visible = """(strip, position) => {
        const token = strip.querySelector(`[data-position="${position}"]`);
        if (token === null) return false;
        const [own, around] = [token.getBoundingClientRect(), strip.getBoundingClientRect()];
        return own.top >= around.top && own.bottom <= around.bottom + 1;
    }"""
    lab.until(lambda: strip.evaluate(visible, 1023), bool)
    lab.page.evaluate("() => { window.moved = 0; document.addEventListener('scroll', () => { window.moved += 1; }); }")
    panel.get_by_role("gridcell", name=re.compile("^L0H1 ")).hover()
    expect(panel.locator(".rs-sentence")).to_contain_text(" 0.90", timeout=FOLLOWS)
    lab.until(lambda: strip.evaluate(visible, 100), bool)
    assert lab.page.evaluate("() => window.moved") == 0
    share = "strip => strip.clientWidth / strip.parentElement.clientWidth"
    assert strip.evaluate(share) > 0.7
