"""An inline panel in the output of each host has the colours of the page, and its size does not change.

Expected: WCAG's contrast of the colours that the browser computed, VS Code's own themes, and the boxes in each frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

import residscope
from tests.support import tiny
from tests.support.output_page import THEMES, WIDGETS, OutputPage, as_output, in_vscode
from tests.support.sidebar import FOLLOWS, SEEN, cache_status, cell

# Returns every visible text with its contrast to its background: the colours of all elements behind it, mixed by alpha.
CONTRASTS = """view => {
    const parse = text => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return /^color\\(srgb/.test(text) ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
    const light = colour => {
        const linear = c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const [r, g, b] = colour.map(byte => linear(byte / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const painted = node => {
        const chain = [];
        for (let at = node; at; at = at.parentElement ?? at.getRootNode().host ?? null) chain.unshift(at);
        return chain.reduce((ground, at) => {
            const style = getComputedStyle(at);
            return style.backgroundColor === "transparent" ? ground : over(parse(style.backgroundColor), ground);
        }, [255, 255, 255]);
    };
    const found = [];
    for (const node of view.querySelectorAll("*")) {
        const texts = [...node.childNodes].filter(child => child.nodeType === 3);
        const own = texts.map(child => child.textContent.trim()).join(" ");
        if (own.trim() === "" || !node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        if (node.closest(":disabled, [inert], .rs-padding, .rs-unseen, option")) continue;
        const style = getComputedStyle(node);
        if (style.clipPath !== "none" || style.backgroundImage !== "none") continue; // unknown background
        const ground = painted(node);
        const [a, b] = [light(over(parse(style.color), ground)), light(ground)];
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), own.slice(0, 40), style.color, node.className]);
    }
    return found;
}"""
GROUNDS = """view => {
    const box = getComputedStyle(view.querySelector(".rs-box"));
    const around = document.querySelector(".cell-output-ipywidget-background");
    const { color, fontFamily } = getComputedStyle(view);
    return {
        ground: box.backgroundColor, ink: color, font: fontFamily, rule: box.borderTopColor,
        around: around && getComputedStyle(around).backgroundColor, theme: view.dataset.theme,
        cell: getComputedStyle(view.querySelector("[role=gridcell]")).backgroundColor,
    };
}"""


@pytest.fixture(scope="module")
def run() -> tuple[Any, Any, Any]:
    """A model, token ids and a cache, in the test's process."""
    model = tiny.boot("llama")
    tokens, _, cache = tiny.run(model)
    return model, tokens, cache


@pytest.fixture
def output(page: Page, run: tuple[Any, Any, Any]) -> Iterator[OutputPage]:
    """A page for a panel of the cache. The test opens it."""
    panel = residscope.inspect(run[2], show=False)
    yield OutputPage(page, panel)
    panel.close()


@pytest.fixture
def timed(timed_page: Page, run: tuple[Any, Any, Any]) -> Iterator[OutputPage]:
    """Like `output`, with a clock that the test moves."""
    panel = residscope.inspect(run[2], show=False)
    yield OutputPage(timed_page, panel)
    panel.close()


def rgb(hexadecimal: str) -> str:
    return f"rgb({', '.join(str(int(hexadecimal[at : at + 2], 16)) for at in (1, 3, 5))})"


def readable(view: Locator) -> None:
    """Check that all text has enough contrast."""
    found = view.evaluate(CONTRASTS)
    assert len(found) > 40
    assert [one for one in found if one[0] < 4.5] == []


def explored(view: Locator) -> None:
    """Pin a head and point at another one, so that a card, a preview and the sentence about a head are shown."""
    cell(view, "L1H1").click()
    cell(view, "L2H1").hover()
    expect(view.get_by_role("region", name="Attention L2H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    expect(view).to_have_attribute("data-state", "ready", timeout=FOLLOWS)


@pytest.mark.parametrize("theme", THEMES)
def test_in_vs_code_the_themes_colours_win_over_those_of_ipywidgets(output: OutputPage, theme: str) -> None:
    colours = THEMES[theme]["colours"]
    for name, value in in_vscode(theme).items():
        setattr(output, name, value)
    output.open(as_output)
    view = output.ready()
    explored(view)
    found = view.evaluate(GROUNDS)
    assert found["ground"] == rgb(colours["--vscode-editor-background"])
    assert found["ink"] == rgb(colours["--vscode-editor-foreground"])
    assert found["font"].split(",")[0] == colours["--vscode-font-family"].split(",")[0]
    assert found["around"] == "rgba(0, 0, 0, 0)"
    assert found["theme"] == ("light" if "light" in THEMES[theme]["kind"] else "dark")
    readable(view)
    view.get_by_role("status").get_by_role("button").click()
    readable(view)
    view.get_by_role("button", name="Neurons", exact=True).focus()
    output.page.keyboard.press("Shift+Tab")
    output.page.keyboard.press("Tab")
    outline = output.page.evaluate("() => getComputedStyle(document.activeElement).outlineColor")
    if edge := colours.get("--vscode-contrastBorder"):
        assert found["rule"] == rgb(edge)
        assert outline == rgb(colours["--vscode-focusBorder"])
        edges = view.locator(".rs-switch").first.evaluate("node => getComputedStyle(node).boxShadow")
        assert rgb(edge) in edges


def test_an_open_panel_follows_a_change_of_the_theme(output: OutputPage) -> None:
    for name, value in in_vscode("Light 2026").items():
        setattr(output, name, value)
    output.open(as_output)
    light = output.ready().evaluate(GROUNDS)
    dark = THEMES["Dark 2026"]
    output.page.evaluate(
        """({ colours, kind, ...look }) => {
            const { style } = document.documentElement;
            for (const [name, value] of Object.entries(colours)) style.setProperty(name, value);
            document.body.className = look.class;
            document.body.dataset.vscodeThemeKind = kind;
        }""",
        dark,
    )
    expect(output.view).to_have_attribute("data-theme", "dark")
    now = output.view.evaluate(GROUNDS)
    assert now["ground"] == rgb(dark["colours"]["--vscode-editor-background"])
    assert now["cell"] != light["cell"]  # the colours of the head map change, too


def test_the_white_background_stays_if_other_widgets_need_it(output: OutputPage) -> None:
    for name, value in in_vscode("Dark 2026").items():
        setattr(output, name, value)
    slider = '<div class="jupyter-widgets widget-box">{}<div class="jupyter-widgets widget-slider">x</div></div>'
    output.open(lambda element: as_output(slider.format(element)))
    found = output.ready().evaluate(GROUNDS)
    assert found["around"] == "rgb(255, 255, 255)"
    assert found["ground"] == rgb(THEMES["Dark 2026"]["colours"]["--vscode-editor-background"])
    readable(output.view)


DARK = """--jp-content-font-color1: #eee; --jp-content-font-color2: #bbb; --jp-layout-color1: #111;
    --jp-border-color2: #555; background: #111"""
JUPYTER = "data-jp-theme-light"
# The page's styles; whether JupyterLab's theme is light (empty outside JupyterLab); the system's theme; the expected
# theme and background of the panel (None: not checked).
OTHERS: dict[str, tuple[str, str, str, str, str | None]] = {
    "JupyterLab, dark": (f"{WIDGETS} body {{ {DARK}; }}", "false", "light", "dark", "rgb(17, 17, 17)"),
    "JupyterLab, light, on a dark system": (WIDGETS, "true", "dark", "light", "rgb(255, 255, 255)"),
    "a dark document with ipywidgets' bundle": (
        f"{WIDGETS} html {{ background: #1f1f1f; }}",
        "",
        "light",
        "dark",
        None,
    ),
    "a light document on a dark system": (f"{WIDGETS} body {{ background: #fff; }}", "", "dark", "light", None),
    "a document without a background on a dark system": (WIDGETS, "", "dark", "light", None),
    "a document that follows a dark system": ("html { color-scheme: light dark; }", "", "dark", "dark", None),
}


@pytest.mark.parametrize("host", OTHERS)
def test_in_other_pages_texts_are_readable_and_the_theme_is_the_pages(output: OutputPage, host: str) -> None:
    styles, jupyter, system, theme, ground = OTHERS[host]
    output.head = f"<style>{styles}</style>"
    output.attributes = f'{JUPYTER}="{jupyter}"' if jupyter else ""
    output.page.emulate_media(color_scheme="dark" if system == "dark" else "light")
    output.open()
    view = output.ready()
    explored(view)
    found = view.evaluate(GROUNDS)
    assert found["theme"] == theme
    if ground:
        assert found["ground"] == ground
    readable(view)


# --- the size of the panel --------------------------------------------------------------------------------------------
HEADS = ["L0H1", "L1H1", "L2H1", "L0H2", "L1H2", "L2H2", "L0H3"]


@pytest.mark.parametrize("width", [1400, 1180, 1000, 700])
def test_the_box_has_the_same_height_while_loading_and_with_any_number_of_pinned_heads(
    output: OutputPage, width: int
) -> None:
    output.page.set_viewport_size({"width": width, "height": 1200})
    output.silent = True
    view = output.open()
    expect(view).to_have_attribute("data-state", "loading")
    output.page.wait_for_function("() => window.shown.length > 2")
    output.answer()
    output.ready()
    for count, head in enumerate(HEADS, 1):
        cell(view, head).click()
        expect(view.get_by_role("gridcell", selected=True)).to_have_count(count)
        pinned = view.get_by_role("region", name=f"Attention {head}", exact=True)
        expect(pinned).to_be_visible(timeout=FOLLOWS)
        expect(view).to_have_attribute("data-state", "ready", timeout=FOLLOWS)
        # The head that was just pinned is visible.
        assert pinned.evaluate(SEEN) >= 0.98, head
    cell(view, "L2H0").hover()
    preview = view.get_by_role("region", name="Attention L2H0", exact=True)
    expect(preview).to_be_visible(timeout=FOLLOWS)
    assert preview.evaluate(SEEN) >= 0.98
    cell(view, HEADS[0]).hover()  # a pinned head is scrolled into view
    expect(preview).to_have_count(0)
    assert view.get_by_role("region", name=f"Attention {HEADS[0]}", exact=True).evaluate(SEEN) >= 0.98
    heights = {round(height, 1) for height, _ in output.page.evaluate("() => window.shown")}
    assert len(heights) == 1, heights


@pytest.mark.parametrize("against", [None, {"prompt": 1}], ids=["one run", "two runs"])
def test_the_target_has_one_line_and_no_control_leaves_the_header(output: OutputPage, against: Any) -> None:
    beyond = """header => [...header.querySelectorAll(".rs-controls button")].filter(button => {
        const [inner, outer] = [button.getBoundingClientRect(), header.getBoundingClientRect()];
        return button.checkVisibility() && (inner.left < outer.left - 8 || inner.right > outer.right + 1);
    }).map(button => button.textContent)"""
    output.open()
    view = output.ready()
    output.page.evaluate("against => window.model.set('against', against)", against)
    for width in (330, 559, 560, 700, 759, 760, 899, 900, 1200):
        output.page.set_viewport_size({"width": width + 20, "height": 900})
        output.ready()
        assert view.locator(".rs-target-line").evaluate("node => node.getBoundingClientRect().height") < 32, width
        assert view.locator(".rs-header").evaluate(beyond) == [], width
    answer = view.locator("[data-side=answer]")
    name = answer.get_attribute("aria-label")
    assert name
    assert name.removeprefix("answer: ") in (answer.get_attribute("title") or "")


# --- notices in a scrolled panel --------------------------------------------------------------------------------------
# Returns the box of each control, and whether the control is on top at its centre, so that a click reaches it.
CONTROLS = """view => {
    const found = {};
    const all = "button, select, input, [role=tab], [role=option], [role=gridcell], canvas";
    [...view.querySelectorAll(all)].forEach((node, nth) => {
        const { left, top, width, height } = node.getBoundingClientRect();
        const at = document.elementFromPoint(left + width / 2, top + height / 2);
        found[nth] = [...[left, top, width, height].map(Math.round), Boolean(at && node.contains(at))];
    });
    return found;
}"""
REFUSAL = (
    "This cache holds no residual stream at blocks.3. Run the model again with run_with_cache and no names_filter."
)


def scrolled(page: Page, share: float) -> None:
    page.evaluate("share => window.scrollTo(0, share * (document.body.scrollHeight - window.innerHeight))", share)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize("what", ["waiting", "error"])
@pytest.mark.parametrize("width", [330, 1400])
def test_a_notice_takes_the_place_of_the_hint_for_a_first_visit(output: OutputPage, width: int, what: str) -> None:
    output.page.set_viewport_size({"width": width, "height": 900})
    output.open()
    view = output.ready()
    close = view.get_by_role("button", name="Hide this hint")
    notice = view.locator(".rs-notice p")
    close.click(trial=True)
    output.silent = what == "waiting"
    output.refused |= {"tokens": REFUSAL} if what == "error" else {}
    output.page.evaluate("() => window.emit('change:facts')")
    expect(notice).to_have_count(1, timeout=FOLLOWS)
    expect(close).to_be_hidden()
    output.refused.clear()
    output.answer()
    if what == "error":
        output.page.evaluate("() => window.emit('change:facts')")
    expect(notice).to_have_count(0, timeout=FOLLOWS)
    close.click()
    expect(close).to_be_hidden()


@pytest.mark.parametrize("what", ["waiting", "error"])
@pytest.mark.parametrize("width", [330, 700, 1400])
def test_a_notice_is_visible_wherever_the_panel_is_scrolled_and_moves_and_covers_nothing(
    output: OutputPage, width: int, what: str
) -> None:
    output.page.set_viewport_size({"width": width, "height": 420})
    output.open()
    view = output.ready()
    view.get_by_role("button", name="Hide this hint").click()  # otherwise a notice would take the hint's place
    notice = view.locator(".rs-notice p")
    for share in (0.0, 0.3, 0.6, 1.0):
        output.page.mouse.move(1, 1)
        scrolled(output.page, share)
        before = view.evaluate(CONTROLS)
        if what == "waiting":
            output.silent = True
        else:
            output.refused["tokens"] = REFUSAL
        # Python can send a new description of the cache at any time. Then all views send their requests again.
        output.page.evaluate("() => window.emit('change:facts')")
        expect(notice).to_have_count(1, timeout=FOLLOWS)
        expect(notice).to_contain_text("Waiting for the kernel" if what == "waiting" else "holds no residual stream")
        assert notice.evaluate(SEEN) >= 0.98, share
        assert notice.evaluate("node => node.scrollWidth <= node.clientWidth + 1")
        assert view.evaluate(CONTROLS) == before
        output.refused.clear()
        output.answer()
        if what == "error":
            output.page.evaluate("() => window.emit('change:facts')")
        output.ready()
        expect(notice).to_have_count(0)


@pytest.mark.parametrize("above", [0, 300, 600])
def test_a_notice_is_visible_in_an_output_that_its_host_scrolls(output: OutputPage, above: int) -> None:
    for name, value in in_vscode("Dark 2026").items():
        setattr(output, name, value)
    output.page.set_viewport_size({"width": 1000, "height": 420})
    output.open(as_output)
    view = output.ready()
    height = view.evaluate("node => node.getBoundingClientRect().height")
    move = "above => { document.getElementById('container').style.transform = `translateY(-${above}px)`; }"
    output.page.evaluate(move, above)
    output.silent = True
    output.page.evaluate("() => window.model.set('prompt', 1)")
    notice = view.locator(".rs-notice p")
    expect(notice).to_contain_text("Waiting for the kernel", timeout=FOLLOWS)
    output.page.wait_for_function(f"node => ({SEEN})(node) >= 0.98", arg=notice.element_handle())
    assert view.evaluate("node => node.getBoundingClientRect().height") == height
    output.answer()
    expect(notice).to_have_count(0)
    assert view.locator(".rs-says").evaluate("node => node.style.translate") == ""


# --- a kernel that does not answer ------------------------------------------------------------------------------------
def test_a_silent_kernel_counts_as_lost_in_a_host_that_reports_nothing(timed: OutputPage) -> None:
    for name, value in in_vscode("Light 2026").items():
        setattr(timed, name, value)
    timed.open(as_output)
    view = timed.ready()
    expect(view.get_by_role("status")).to_contain_text("✓")
    timed.silent = True
    view.get_by_role("button", name="Next prompt").click()
    timed.page.clock.run_for(2000)
    expect(view.get_by_text("Waiting for the kernel")).to_be_visible(timeout=FOLLOWS)
    asked = [question["id"] for question in timed.held]
    timed.page.clock.run_for(10_000)
    assert [question["id"] for question in timed.held] == asked * 2  # each request was sent once more
    expect(cache_status(view)).to_have_count(0)
    timed.page.clock.run_for(10_000)
    expect(cache_status(view)).to_contain_text("its kernel was restarted, or is running a long cell")
    expect(cache_status(view)).to_contain_text("run the cell again")
    expect(view.get_by_text("Waiting for the kernel")).to_have_count(0)
    expect(view.get_by_role("status")).not_to_contain_text("✓")
    expect(view).to_have_attribute("data-state", "error")
    # The kernel was only running a long cell, and answers now.
    timed.answer()
    timed.page.clock.run_for(1000)
    timed.ready()
    expect(cache_status(view)).to_have_count(0)
    expect(view.get_by_role("status")).to_contain_text("✓")


def test_pointing_at_a_panel_without_a_kernel_brings_a_message(timed: OutputPage) -> None:
    for name, value in in_vscode("Light 2026").items():
        setattr(timed, name, value)
    timed.page.mouse.move(1, 1)
    timed.open(as_output)
    view = timed.ready()
    timed.silent = True
    timed.page.clock.run_for(15_000)
    view.locator(".rs-rank").hover()
    timed.page.clock.run_for(25_000)
    expect(cache_status(view)).to_contain_text("run the cell again")
    expect(view.get_by_role("status")).not_to_contain_text("✓")


def test_while_a_cell_visibly_runs_the_panel_waits_for_its_end(timed: OutputPage) -> None:
    timed.attributes = 'data-jp-theme-light="true"'
    timed.open('<div class="jp-Notebook"><div class="jp-InputArea-prompt">[*]:</div>{}</div>'.format)
    view = timed.ready()
    timed.silent = True
    view.get_by_role("button", name="Next prompt").click()
    timed.page.clock.run_for(120_000)
    expect(view.get_by_text("Waiting for the kernel")).to_be_visible()
    expect(cache_status(view)).to_have_count(0)
    timed.page.locator(".jp-InputArea-prompt").evaluate("node => { node.textContent = '[1]:'; }")
    timed.page.clock.run_for(25_000)
    expect(cache_status(view)).to_contain_text("run the cell again")
