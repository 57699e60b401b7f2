"""The attention tab in a real JupyterLab on the real demo model: its numbers, its gestures, and the size of its box."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.support.demo_panel import SETUP, settled
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, token_names

INSPECT = "panel = residscope.inspect(cache, answers=answers, prompt=0, heads=['L23H3', 'L29H0'])"
CELLS = [(14, 10), (14, 4), (8, 2), (3, 3)]
# Expected values, from TransformerLens' cache and weights. Three query heads share a key-value head in this model.
LENGTH = (
    "(cache['pattern', {0}][0, {1}, {2}, {3}] * (cache['v', {0}][0, {3}, {1} // 3] @ run.model.W_O[{0}, {1}]).norm())"
)
SOURCES = "residscope.attribute(cache, answers, by='source', heads=['L{0}H{1}'], position='all').values[{3}, {2}, 0, 0]"
# Changes the width and height of the element around the panel a little in every frame, for ten seconds. (VS Code sets
# the height of an output to the measured height of its content.) Returns the observed sizes of the box: its height, and
# the gap between the widths of its column and of the box.
WATCH = """(box) => new Promise((resolve) => {
    const host = box.closest(".residscope").parentElement;
    const column = box.closest(".rs-lower");
    const before = host.style.cssText;
    const width = host.clientWidth;
    const seen = new Set();
    const start = performance.now();
    let frame = 0;
    const step = () => {
        frame += 1;
        host.style.width = `${width - (frame % 7)}px`;
        host.style.height = `${host.firstElementChild.getBoundingClientRect().height + (frame % 5) - 2}px`;
        window.dispatchEvent(new Event("resize"));
        const { width: across, height } = box.getBoundingClientRect();
        seen.add(`${height} ${(column.getBoundingClientRect().width - across).toFixed(2)}`);
        if (performance.now() - start < 10_000) return requestAnimationFrame(step);
        host.style.cssText = before;
        resolve({ frames: frame, seen: [...seen] });
    };
    requestAnimationFrame(step);
})"""


@pytest.fixture
def opened(lab: Lab) -> tuple[Lab, Locator]:
    """A notebook with a drawn panel of one prompt, with two pinned heads."""
    lab.open(lab.write_notebook("attention.ipynb", SETUP, INSPECT))
    lab.run_all()
    return lab, lab.panel()


def card(panel: Locator, head: str) -> Locator:
    return panel.get_by_role("region", name=f"Attention {head}", exact=True)


def sentence(panel: Locator) -> Locator:
    return panel.locator(".rs-sentence")


def switch(panel: Locator, group: str, to: str) -> None:
    panel.get_by_role("group", name=group, exact=True).get_by_role("button", name=to, exact=True).click()


def number(text: str | None, pattern: str) -> float:
    found = re.search(pattern, text or "")
    assert found, f"{pattern!r} is not in {text!r}"
    return float(found[1].replace("−", "-") or "nan")


def point_at(panel: Locator, head: str, q: int, k: int, positions: int = 15) -> None:
    """Move the pointer to a cell of a head's matrix."""
    canvas = card(panel, head).locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    x, y = (k + 0.5) / positions * box["width"], (q + 0.5) / positions * box["height"]
    canvas.hover(position={"x": x, "y": y})


def painted(strip: Locator) -> list[float]:
    """Return the attention that each token of the strip shows."""
    return strip.get_by_role("option").evaluate_all("all => all.map(one => Number(one.dataset.attention))")


def near(true: list[float], shown: list[float]) -> bool:
    return shown == pytest.approx(true, abs=6e-5)


def figure(lab: Lab, expression: str, *at: int) -> float:
    return lab.python(f"float({expression.format(*at)})")


def test_a_cells_sentence_has_all_weightings_and_each_source_has_a_bar(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    lab.python("0", before="panel.weighting = 'pattern'")
    for weighting, label in [("value", "Value-weighted"), ("contribution", "Contribution"), ("pattern", "Attention")]:
        switch(panel, "Weighting", label)
        lab.becomes("panel.weighting", weighting)
        settled(panel)
        expect(card(panel, "L23H3").locator("canvas").first).to_have_attribute("aria-label", re.compile(f"^{label} of"))
        for q, k in CELLS:
            names = token_names(lab.python("run.model.to_str_tokens(run.tokens[0])"))
            to, source = names[q], names[k]
            point_at(panel, "L23H3", q, k)
            expect(sentence(panel)).to_contain_text(
                f"L23H3: “{to}” (destination {q}) reads “{source}” (source {k}): attention "
            )
            said = sentence(panel).inner_text()
            attention = figure(lab, "cache['pattern', {0}][0, {1}, {2}, {3}]", 23, 3, q, k)
            assert number(said, r"attention (\d\.\d\d)") == pytest.approx(attention, abs=0.006)
            contributes = figure(lab, SOURCES, 23, 3, q, k)
            assert number(said, r"contributes ([+−][\d.]+) to the logit difference") == pytest.approx(
                contributes, abs=0.006
            )
            if weighting == "value":
                assert number(said, r"value-weighted ([\d.]+)") == pytest.approx(
                    figure(lab, LENGTH, 23, 3, q, k), rel=0.06
                )
    # Keys move in the strip of sources, too. While the pointer is on a row of one card, both cards show this row.
    strip = card(panel, "L29H0").get_by_label("What each source contributes through L29H0")
    strip.focus()
    lab.page.keyboard.press("End")
    expect(sentence(panel)).to_contain_text("L29H0: “·to₁₄” (destination 14) reads “·to₁₄” (source 14)")
    said = sentence(panel).inner_text()
    assert number(said, r"contributes ([+−][\d.]+)") == pytest.approx(figure(lab, SOURCES, 29, 0, 14, 14), abs=0.006)
    point_at(panel, "L23H3", 8, 2)
    expect(card(panel, "L29H0").locator(".rs-reads")).to_contain_text("“·shops” reads ")
    # The token strip shows the row and the head under the pointer. Otherwise it shows the last pinned head.
    strip_of_tokens = panel.get_by_role("listbox", name="Destination position")
    for layer, head, q in ((23, 3, 8), (29, 0, 11), (29, 0, 14)):
        if q < 14:
            point_at(panel, f"L{layer}H{head}", q, 2)
        else:
            sentence(panel).hover()
        true = lab.python(f"cache['pattern', {layer}][0, {head}, {q}].tolist()")
        expect(strip_of_tokens).to_have_attribute("data-head", f"L{layer}H{head}")
        lab.until(lambda: painted(strip_of_tokens), partial(near, true))


def test_a_card_is_enlarged_and_zoomed_and_its_scale_is_shown(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    one = card(panel, "L23H3")
    canvas = one.locator("canvas").first
    before = canvas.bounding_box()
    one.get_by_role("button", name="enlarge L23H3").click()
    after = canvas.bounding_box()
    assert before
    assert after
    assert after["width"] > 1.3 * before["width"]
    canvas.focus()
    lab.page.keyboard.press("Home")
    for _ in range(4):
        lab.page.keyboard.press("+")
    show_all = one.get_by_role("button", name=re.compile("show all"))
    expect(show_all).to_have_text("×3.8 · show all")  # 4 of 15 positions
    lab.page.keyboard.press("ArrowUp")
    expect(sentence(panel)).to_contain_text("(destination 13) reads “<|im_start|>” (source 0)")
    canvas.dblclick()
    expect(show_all).to_have_count(0)
    point_at(panel, "L23H3", 14, 10)
    lab.page.keyboard.down("Control")
    lab.page.mouse.wheel(0, -240)
    lab.page.keyboard.up("Control")
    expect(show_all).to_be_visible()
    point_at(panel, "L23H3", 2, 2, 4)
    expect(sentence(panel)).to_contain_text("reads “")
    show_all.click()

    switch(panel, "Colour range", "own")
    expect(one.locator(".rs-own")).to_have_text("0 … 1.00")
    switch(panel, "Weighting", "Contribution")
    largest = lab.python(
        "float(residscope.attribute(cache, answers, by='source', heads=['29.0'], position='all')"
        ".values[:, :, 0, 0].abs().max())"
    )
    expect(card(panel, "L29H0").locator(".rs-own")).to_have_text(f"−{largest:.2f} … +{largest:.2f}", timeout=FOLLOWS)


def shades(panel: Locator) -> list[dict[str, Any]]:
    """Return the name of each token of the text, and how light its background is."""
    return panel.locator(".rs-word").evaluate_all(
        """words => words.map(word => {
            const ground = getComputedStyle(word.querySelector(".rs-word-text")).backgroundColor;
            const [r, g, b, a = 1] = ground.match(/[\\d.]+/g).map(Number);
            return { name: word.getAttribute("aria-label"), light: a === 0 ? 255 : (r + g + b) / 3 };
        })"""
    )


def test_the_text_is_shaded_by_what_a_token_reads_and_its_box_keeps_its_size(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    switch(panel, "Presentation", "Text")
    lab.becomes("panel.presentation", "text")
    settled(panel)
    line, words = panel.locator(".rs-text-line"), panel.locator(".rs-word")
    expect(line).to_contain_text("mean of L23H3 and L29H0: “·to₁₄” reads ")

    def compare(expression: str) -> None:
        expected: list[float] = lab.python(f"({expression}).tolist()")
        seen = shades(panel)
        for at, (word, value) in enumerate(zip(seen, expected, strict=True)):
            assert f"position {at}, " in word["name"]
            if "not seen" not in word["name"]:
                assert number(word["name"], r"attention (\d\.\d\d)$") == pytest.approx(value, abs=0.006)
            else:
                assert value == pytest.approx(0, abs=1e-6)
        darkest = min(range(15), key=lambda at: seen[at]["light"])
        assert darkest == max(range(15), key=expected.__getitem__)

    mean = "(cache['pattern', 23][0, 3] + cache['pattern', 29][0, 0]) / 2"
    compare(f"({mean})[14]")
    words.nth(8).hover()
    expect(line).to_contain_text("“·shops” reads ")
    compare(f"({mean})[8]")
    words.nth(10).click()  # locks the token
    lab.page.mouse.move(0, 0)
    expect(words.nth(10)).to_have_attribute("aria-selected", "true")
    compare(f"({mean})[10]")
    words.nth(4).hover()
    pair = lab.python("[float(cache['pattern', 23][0, 3, 10, 4]), float(cache['pattern', 29][0, 0, 10, 4])]")
    expect(sentence(panel)).to_contain_text(f"(L23H3 {pair[0]:.2f}, L29H0 {pair[1]:.2f})")
    switch(panel, "Direction", "is read by")
    compare(f"({mean})[:, 10]")
    panel.get_by_role("button", name="L29H0", exact=True).click()  # leaves out this head
    expect(line).to_contain_text("L23H3: “·John₁₀” is read by ")
    compare("cache['pattern', 23][0, 3, :, 10]")
    words.nth(10).click()  # unlocks the token
    expect(words.nth(10)).to_have_attribute("aria-selected", "false")
    lab.page.mouse.move(0, 0)
    switch(panel, "Direction", "reads")
    panel.get_by_role("button", name="all heads", exact=True).click()
    expect(line).to_contain_text("mean of all 270 heads: “·to₁₄” reads ", timeout=FOLLOWS)
    compare("sum(cache['pattern', layer][0].sum(0) for layer in range(30))[14] / 270")
    lab.becomes("panel.heads", ["L23H3", "L29H0"])

    box = panel.get_by_role("listbox", name="Prompt", exact=True)
    sizes = box.evaluate(WATCH)
    assert sizes["frames"] > 50
    assert len(sizes["seen"]) == 1, sizes["seen"]


def test_thumbnails_are_named_enlarged_and_pinned(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    switch(panel, "Presentation", "All heads")
    lab.becomes("panel.presentation", "all")
    everything = panel.get_by_role("group", name="All heads", exact=True)
    expect(everything.locator(".rs-thumb")).to_have_count(270)
    far = everything.locator('[data-head="L28H1"]')
    expect(far).to_have_attribute("aria-label", "L28H1, attention thumbnail")  # not in view, so not requested
    maps = {
        "Attention": "cache['pattern', 23][0, 1]",
        "Value-weighted": "cache['pattern', 23][0, 1] * (cache['v', 23][0, :, 0] @ run.model.W_O[23, 1]).norm(dim=-1)",
        "Contribution": "residscope.attribute(cache, answers, by='source', heads=[(23, 1)], position='all')"
        ".values[..., 0]",
    }
    for label, values in maps.items():
        switch(panel, "Weighting", label)
        thumb = everything.locator('[data-head="L23H1"]')
        thumb.scroll_into_view_if_needed()
        expected = lab.python(f"(lambda v: float(v.flatten()[v.abs().argmax()]))({values})")
        lab.until(
            lambda thumb=thumb: number(thumb.get_attribute("aria-label"), r"thumbnail(?:, largest )?([+−]?[\d.]*)$"),
            lambda value, expected=expected: value == pytest.approx(expected, rel=0.06, abs=0.006),
        )
    thumb = everything.locator('[data-head="L23H1"]')
    thumb.focus()
    expect(card(panel, "L23H1")).to_be_visible(timeout=FOLLOWS)
    lab.page.keyboard.press("ArrowRight")
    expect(card(panel, "L23H2")).to_be_visible(timeout=FOLLOWS)
    lab.page.keyboard.press("Enter")
    lab.becomes("panel.heads", ["L23H3", "L29H0", "L23H2"])
    thumb.click()
    lab.becomes("panel.heads", ["L23H3", "L29H0", "L23H2", "L23H1"])
    expect(thumb).to_have_attribute("aria-pressed", "true")


def test_a_single_card_uses_the_room_and_no_label_leaves_a_card(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    lab.page.set_viewport_size({"width": 1440, "height": 900})
    lab.python("0", before="panel.heads = []")
    expect(panel.get_by_role("region", name=re.compile("^Attention L"))).to_have_count(0)
    panel.evaluate("node => node.scrollIntoView({ block: 'start' })")
    side = "card => card.querySelector('.rs-matrix').clientWidth"
    leaving = """card => [...card.querySelectorAll('.rs-sources > span, .rs-destinations > span')].filter(label => {
        const [own, around] = [label.getBoundingClientRect(), card.getBoundingClientRect()];
        return own.right > around.right + 18 || own.left < around.left;
    }).map(label => label.textContent)"""
    unlabelled = "card => card.querySelectorAll('.rs-destinations > span').length"

    hovered = panel.get_by_role("gridcell", name=re.compile("^L23H3 "))
    hovered.hover()
    single = card(panel, "L23H3")
    lab.until(lambda: single.evaluate(side), lambda pixels: pixels >= 264)
    assert single.evaluate(unlabelled) == lab.python("cache['pattern', 23].shape[-1]")  # no label is skipped
    assert single.evaluate(leaving) == []
    large = single.evaluate(side)
    hovered.click()
    expect(single.get_by_role("button", name="unpin L23H3")).to_be_visible()
    assert single.evaluate(side) == large
    panel.get_by_role("gridcell", name=re.compile("^L29H0 ")).hover()  # two cards, to compare
    both = (single, card(panel, "L29H0"))
    lab.until(lambda: [one.evaluate(side) for one in both], lambda sides: sides[0] == sides[1] < large)
    for one in both:
        assert one.evaluate(leaving) == []
    hovered.hover()
    lab.until(lambda: single.evaluate(side), lambda pixels: pixels == large)
