"""Head map, token strip and sentence are visible together in every layout, so that a user sees what a hover changes.

Checked: the visible shares of the boxes in the browser. Expected attention: TransformerLens' pattern.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, REAL, SEEN, cell

MEASURES = 120_000  # milliseconds; long enough for runs of the model on a busy machine

SIZES = {"1440 × 900": (1440, 900), "1280 × 720": (1280, 720), "1920 × 1080": (1920, 1080)}
HEADS = ("L23H3", "L29H0", "L2H5")


def all_in_sight(view: Locator) -> dict[str, float]:
    """Return the visible shares of map, strip and sentence, 0 to 1."""
    parts = {
        "map": view.get_by_role("grid", name="Head map"),
        "strip": view.get_by_role("listbox", name="Destination position"),
        "sentence": view.locator("[data-part=sentence]"),
    }
    return {name: part.evaluate(SEEN) for name, part in parts.items()}


def reads(lab: Lab, view: Locator, head: str) -> None:
    """Point at a head. Check that the strip shows this head's attention, and that the sentence names the head."""
    cell(view, head).hover()
    strip = view.get_by_role("listbox", name="Destination position")
    expect(strip).to_have_attribute("data-head", head, timeout=FOLLOWS)
    painted = strip.get_by_role("option").evaluate_all("all => all.map(one => Number(one.dataset.attention))")
    layer, number = head[1:].split("H")
    true = lab.python(f"cache['pattern', {layer}][:, {number}, -1].float().mean(0).tolist()")
    assert painted == pytest.approx(true, abs=6e-5)
    expect(view.locator("[data-part=sentence]")).to_contain_text(f"{head} ")


def widen(lab: Lab, width: int) -> None:
    """Drag the sidebar's edge until the sidebar has this width."""
    box = lab.sidebar.bounding_box()
    assert box
    by = width - box["width"]
    y = box["y"] + 300
    lab.page.mouse.move(box["x"] - 2, y)
    lab.page.mouse.down()
    lab.page.mouse.move(box["x"] - 2 - by, y, steps=4)
    lab.page.mouse.up()
    lab.until(lambda: (lab.sidebar.bounding_box() or {})["width"], lambda now: abs(now - width) < 12)


@pytest.fixture
def ioi(lab: Lab) -> Lab:
    lab.open(lab.write_notebook("sight.ipynb", REAL))
    lab.run_all()
    return lab


@pytest.mark.parametrize("size", ["1440 × 900", "1280 × 720"])
def test_map_strip_and_sentence_are_visible_in_the_sidebar(ioi: Lab, size: str) -> None:
    width, height = SIZES[size]
    ioi.page.set_viewport_size({"width": width, "height": height})
    ioi.open_sidebar()
    view = ioi.inspect("cache")
    for wide in (330, 380, 500):
        widen(ioi, wide)
        for head in HEADS:
            reads(ioi, view, head)
            assert min(all_in_sight(view).values()) >= 0.98, (wide, head, all_in_sight(view))
            added = view.locator("[data-part=sentence] .rs-which-adds + *")  # what the most read token adds
            assert added.evaluate(SEEN) >= 0.98, (wide, head)
    # A key that moves to another head scrolls map, strip and sentence back into view.
    view.get_by_role("tablist", name="Views").scroll_into_view_if_needed()
    ioi.page.keyboard.press("Alt+Shift+J")
    ioi.until(lambda: min(all_in_sight(view).values()), lambda seen: seen >= 0.98)


@pytest.mark.parametrize(
    ("size", "place"),
    [
        ("1440 × 900", "inline"),
        *((size, place) for size in ("1440 × 900", "1920 × 1080") for place in ("alone", "beside")),
    ],
)
def test_map_strip_and_sentence_are_visible_in_notebook_and_main_area(ioi: Lab, size: str, place: str) -> None:
    width, height = SIZES[size]
    ioi.page.set_viewport_size({"width": width, "height": height})
    if place == "inline":
        ioi.run_cell("import residscope\npanel = residscope.inspect(cache)\npanel")
        view = ioi.panel()
        view.evaluate("node => node.scrollIntoView({ block: 'start' })")
    else:
        ioi.open_sidebar()
        ioi.inspect("cache")
        ioi.sidebar.get_by_role("button", name="Open cache in the main area").click()
        view = ioi.ready(ioi.page.locator(".rs-view").get_by_role("region", name="Residscope", exact=True))
        ioi.command("application:toggle-right-area")
        if place == "alone":
            ioi.command("application:toggle-mode")
    for head in HEADS:
        reads(ioi, view, head)
        seen: dict[str, Any] = all_in_sight(view)
        assert min(seen.values()) >= 0.98, (head, seen)


OVERLAPPING = """controls => {
    const parts = [...controls.children].filter(part => part.offsetWidth > 0);
    const boxes = [...parts, ...controls.querySelector(".rs-against-line").children].map(part => ({
        name: part.className, box: part.getBoundingClientRect(), part
    }));
    const beside = (one, two) => one.box.right <= two.box.left + 1 || two.box.right <= one.box.left + 1 ||
        one.box.bottom <= two.box.top + 1 || two.box.bottom <= one.box.top + 1;
    const edge = controls.getBoundingClientRect().right + 1;
    return boxes.flatMap((one, i) => [
        ...(one.box.right > edge ? [`${one.name} is too wide`] : []),
        ...boxes.slice(i + 1).filter(two => !one.part.contains(two.part) && !beside(one, two))
            .map(two => `${one.name} overlaps ${two.name}`)
    ]);
}"""
WRONG_IN_TOP = """top => {
    const name = top.querySelector(".rs-cache");
    const [line, facts, badge, help] = [".rs-name-line", ".rs-what", ".rs-badge-text", ".rs-help-place"]
        .map(part => top.querySelector(part).getBoundingClientRect());
    const whole = top.querySelector(".rs-badge-text");
    return [
        ...(name.getBoundingClientRect().height > 24 ? ["the name has more than one line"] : []),
        ...(name.scrollWidth > name.clientWidth ? ["the name is cut off"] : []),
        ...(top.getBoundingClientRect().height > 44 ? ["the header is too high"] : []),
        ...(whole.scrollWidth > whole.clientWidth ? ["the badge is cut off"] : []),
        ...(line.right > facts.left + 1 || facts.right > badge.left + 1 || badge.right > help.left + 1
            ? ["parts overlap"] : [])
    ];
}"""
CLIPPED = "nodes => nodes.filter(node => node.scrollWidth > node.clientWidth).map(node => node.textContent)"


def test_target_and_position_are_not_cut_off_beside_the_sidebar(ioi: Lab) -> None:
    """A notebook beside the narrow sidebar on a small screen: target and position are the most important words."""
    ioi.page.set_viewport_size({"width": 1280, "height": 720})
    ioi.run_cell("import residscope\npanel = residscope.inspect(cache)\npanel")
    ioi.open_sidebar()
    for view in (ioi.panel(), ioi.inspect("cache")):
        for button in ("One prompt", re.compile("mean")):
            view.get_by_role("group", name="Prompt").get_by_role("button", name=button).click()
            ioi.ready(view)
            words = view.locator(".rs-target-line .rs-chip, .rs-at:visible")
            assert words.evaluate_all(CLIPPED) == []


@pytest.mark.parametrize("target", ["run.answers", "(' disappearance', ' Elizabeth')"])
def test_the_target_is_not_cut_off_while_heads_are_taken_out(lab: Lab, target: str) -> None:
    """At every width of a panel with a wide header, other words give way to the target, and nothing overlaps.

    Long tokens may be shortened.
    """
    lab.page.set_viewport_size({"width": 1700, "height": 900})
    setup = "import residscope\nfrom residscope import demo\nrun = demo.ioi()\ncache = run.cache"
    lab.open(lab.write_notebook("out.ipynb", setup, f"panel = residscope.inspect(cache, {target})\npanel"))
    lab.run_all()
    lab.command("application:toggle-left-area")
    view = lab.panel()

    def is_whole(state: str) -> None:
        for width in (560, 640, 759, 760, 899, 900, 959, 960, 970, 1099, 1100, 1240, 1400):
            style = "(node, width) => Object.assign(node.style, { boxSizing: 'content-box', width: `${width}px` })"
            view.evaluate(style, width)
            if target == "run.answers":
                assert view.locator(".rs-target-line .rs-chip").evaluate_all(CLIPPED) == [], (state, width)
            assert view.locator(".rs-controls").evaluate(OVERLAPPING) == [], (state, width)
            assert view.locator(".rs-top").evaluate(WRONG_IN_TOP) == [], (state, width)

    def in_a_prompt_and_in_the_mean(state: str) -> None:
        for button in ("One prompt", re.compile("mean")):
            view.get_by_role("group", name="Prompt").get_by_role("button", name=button).click()
            expect(view.locator(".rs-badge")).to_contain_text("an unchanged run gives", timeout=MEASURES)
            lab.ready(view)
            is_whole(f"{state}, {button}")

    is_whole("plain")
    cell(view, "L23H3").click()
    view.locator(".rs-take-out").click()
    expect(view.locator(".rs-badge")).to_contain_text("an unchanged run gives", timeout=MEASURES)
    in_a_prompt_and_in_the_mean("taken out")
    lab.start_cell("import time\nwhile True: time.sleep(0.05)")
    cell(view, "L29H1").click()
    view.locator(".rs-take-out").click()
    expect(view.locator(".rs-run-state")).to_have_text("waits for the running cell", timeout=FOLLOWS)
    is_whole("waits")
    lab.interrupt()
    in_a_prompt_and_in_the_mean("two are taken out")


def test_a_long_name_is_shortened_on_its_line(lab: Lab) -> None:
    """The name of a cache never breaks, and keeps room for the badge; its tooltip has the whole name."""
    name = "cache_of_the_corrupted_prompts_with_many_names_in_them"
    setup = f"import residscope\nfrom residscope import demo\nrun = demo.ioi()\n{name} = run.cache"
    lab.open(lab.write_notebook("long-name.ipynb", setup, f"panel = residscope.inspect({name})\npanel"))
    lab.run_all()
    lab.command("application:toggle-left-area")
    view = lab.panel()
    for width in (560, 640, 899, 900, 1100):
        style = "(node, width) => Object.assign(node.style, { boxSizing: 'content-box', width: `${width}px` })"
        view.evaluate(style, width)
        assert view.locator(".rs-top").evaluate(WRONG_IN_TOP) in ([], ["the name is cut off"]), width
    assert view.locator(".rs-cache").get_attribute("title") == name


def test_words_of_the_target_menu_the_lens_and_the_effects_are_not_cut_off(ioi: Lab) -> None:
    ioi.run_cell("import residscope\nother = cache\npanel = residscope.inspect(cache)\npanel.against = 1\npanel")
    view = ioi.panel()
    ioi.python("0", before="panel.prompt = 0\npanel.against = 1")
    expect(view.locator(".rs-lens .rs-run-key")).to_be_attached(timeout=FOLLOWS)
    view.locator("[data-effect=total], .rs-heads select").first.evaluate(
        "node => node instanceof HTMLSelectElement ? null : node.click()"
    )
    replayed = view.locator(".rs-heads .rs-replayed")
    expect(replayed).to_contain_text("an unchanged run gives", timeout=MEASURES)
    cut = """place => [...place.children].filter(part => {
        const [own, around] = [part.getBoundingClientRect(), place.getBoundingClientRect()];
        const isLeftOut = own.width === 0 || own.top >= around.bottom - 1;  // a part without room is left out
        return !isLeftOut && (own.right > around.right + 1 || part.scrollWidth > part.clientWidth + 1);
    }).map(part => part.textContent)"""
    for width in (330, 480, 570, 640, 700, 900, 1100):
        view.evaluate("(node, width) => node.style.width = `${width}px`", width)
        view.locator(".rs-target-line [data-side=answer]").click()
        field = view.get_by_role("combobox", name="Token for the answer")
        room = """input => {
            const ink = document.createElement("canvas").getContext("2d");
            ink.font = getComputedStyle(input).font;
            return input.clientWidth - 16 - ink.measureText(input.placeholder).width;
        }"""
        assert field.evaluate(room) >= 0, width
        names = view.get_by_role("group", name="At each position").locator(".rs-name")
        assert names.evaluate_all(CLIPPED) == [], width
        ioi.page.keyboard.press("Escape")
        for place in (".rs-lens .rs-chart-name", ".rs-heads .rs-replayed"):
            assert view.locator(place).evaluate(cut) == [], (place, width)


def test_three_heads_are_read_with_one_click_and_three_moves_of_the_pointer(ioi: Lab) -> None:
    """From opening the notebook to reading the third head: no scrolling, and no other click."""
    ioi.page.set_viewport_size({"width": 1280, "height": 720})
    ioi.page.evaluate(
        "() => { window.scrolled = 0; document.addEventListener('scroll', () => { window.scrolled += 1; }, true); }"
    )
    ioi.open_sidebar()
    view = ioi.ready(ioi.sidebar.get_by_role("region", name="Residscope", exact=True))
    for head in HEADS:
        reads(ioi, view, head)
    assert ioi.page.evaluate("() => window.scrolled") == 0


@pytest.mark.parametrize("place", ["inline", "sidebar", "wide"])
def test_the_sentence_and_the_cache_status_are_visible_wherever_the_view_is_scrolled(ioi: Lab, place: str) -> None:
    ioi.page.set_viewport_size({"width": 1280, "height": 620})
    if place == "inline":
        ioi.run_cell("import residscope\npanel = residscope.inspect(cache)\npanel")
        view = ioi.panel()
    else:
        ioi.open_sidebar()
        view = ioi.inspect("cache")
        if place == "wide":
            ioi.sidebar.get_by_role("button", name="Open cache in the main area").click()
            view = ioi.ready(ioi.page.locator(".rs-view").get_by_role("region", name="Residscope", exact=True))
        else:
            widen(ioi, 330)
    sentence = view.locator("[data-part=sentence]")
    lowest = view.get_by_role("list", name="Top heads").get_by_role("button").last
    lowest.evaluate("node => node.scrollIntoView({ block: 'end' })")
    assert view.get_by_role("status").evaluate(SEEN) == 0  # the badge is scrolled out of view
    assert sentence.evaluate(SEEN) >= 0.98
    ioi.page.evaluate(
        """() => {
            const notebook = [...window.jupyterapp.shell.widgets("main")].find(widget => widget.sessionContext);
            return notebook.sessionContext.restartKernel();
        }"""
    )
    gone = view.locator(".rs-alert p")
    expect(gone).to_contain_text("was lost when the kernel restarted", timeout=FOLLOWS)
    assert gone.evaluate(SEEN) >= 0.98
