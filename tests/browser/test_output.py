"""An inline panel in a notebook's output, wherever that is: its colours are the page's, and its room is kept.

Truth: WCAG's contrast of the colours that the browser computed, the values of VS Code's own themes, and boxes frame by frame.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from output_page import THEMES, WIDGETS, OutputPage, as_output, in_vscode
from playwright.sync_api import Locator, Page, expect
from sidebar import FOLLOWS, cell

import residscope

sys.path.insert(0, str(Path(__file__).parents[1] / "python"))
import tiny

# Every text that is seen, with its contrast to what is painted behind it: alpha is composed, from the page's ground on.
CONTRASTS = """view => {
    const parse = text => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return /^color\\(srgb/.test(text) ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
    const light = colour => {
        const [r, g, b] = colour.map(byte => byte / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
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
        const own = [...node.childNodes].filter(child => child.nodeType === 3).map(child => child.textContent.trim()).join(" ");
        if (own.trim() === "" || !node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        if (node.closest(":disabled, [inert], .rs-padding, .rs-unseen, option")) continue;
        const style = getComputedStyle(node);
        if (style.clipPath !== "none" || style.backgroundImage !== "none") continue; // its ink is chosen for its colour
        const ground = painted(node);
        const [a, b] = [light(over(parse(style.color), ground)), light(ground)];
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), own.slice(0, 40), style.color, node.className]);
    }
    return found;
}"""
GROUNDS = """view => {
    const box = getComputedStyle(view.querySelector(".rs-box"));
    const around = document.querySelector(".cell-output-ipywidget-background");
    return {
        ground: box.backgroundColor, ink: getComputedStyle(view).color, font: getComputedStyle(view).fontFamily, rule: box.borderTopColor,
        around: around && getComputedStyle(around).backgroundColor, theme: view.dataset.theme,
        cell: getComputedStyle(view.querySelector("[role=gridcell]")).backgroundColor,
    };
}"""


@pytest.fixture(scope="module")
def run() -> tuple[Any, Any, Any]:
    """A model, ids and a cache, in this process."""
    model = tiny.boot("llama")
    tokens, _, cache = tiny.run(model)
    return model, tokens, cache


@pytest.fixture
def output(page: Page, run: tuple[Any, Any, Any]) -> Iterator[OutputPage]:
    """A page that shows a panel of that cache, once it is opened."""
    panel = residscope.inspect(run[2], show=False)
    yield OutputPage(page, panel)
    panel.close()


def rgb(hexadecimal: str) -> str:
    return f"rgb({', '.join(str(int(hexadecimal[at : at + 2], 16)) for at in (1, 3, 5))})"


def readable(view: Locator) -> None:
    """All that is written is read."""
    found = view.evaluate(CONTRASTS)
    assert len(found) > 40
    assert [one for one in found if one[0] < 4.5] == []


def explored(view: Locator) -> None:
    """What is read: a pinned head, one that is pointed at, and how the rows add up."""
    cell(view, "L1H1").click()
    cell(view, "L2H1").hover()
    expect(view.get_by_role("region", name="Attention L2H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    expect(view).to_have_attribute("data-state", "ready", timeout=FOLLOWS)


@pytest.mark.parametrize("theme", THEMES)
def test_in_vs_code_the_themes_colours_are_taken_whatever_ipywidgets_sets(output: OutputPage, theme: str) -> None:
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


def test_another_theme_is_followed_while_the_panel_is_open(output: OutputPage) -> None:
    for name, value in in_vscode("Light 2026").items():
        setattr(output, name, value)
    output.open(as_output)
    light = output.ready().evaluate(GROUNDS)
    dark = THEMES["Dark 2026"]
    output.page.evaluate(
        """({ colours, kind, ...look }) => {
            for (const [name, value] of Object.entries(colours)) document.documentElement.style.setProperty(name, value);
            document.body.className = look.class;
            document.body.dataset.vscodeThemeKind = kind;
        }""",
        dark,
    )
    expect(output.view).to_have_attribute("data-theme", "dark")
    now = output.view.evaluate(GROUNDS)
    assert now["ground"] == rgb(dark["colours"]["--vscode-editor-background"])
    assert now["cell"] != light["cell"]  # what is painted, too


def test_beside_widgets_that_were_drawn_for_white_the_white_stays(output: OutputPage) -> None:
    for name, value in in_vscode("Dark 2026").items():
        setattr(output, name, value)
    slider = '<div class="lm-Widget jupyter-widgets widget-box">{}<div class="jupyter-widgets widget-slider">x</div></div>'
    output.open(lambda element: as_output(slider.format(element)))
    found = output.ready().evaluate(GROUNDS)
    assert found["around"] == "rgb(255, 255, 255)"
    assert found["ground"] == rgb(THEMES["Dark 2026"]["colours"]["--vscode-editor-background"])
    readable(output.view)


DARK = "--jp-content-font-color1: #eee; --jp-content-font-color2: #bbb; --jp-layout-color1: #111; --jp-border-color2: #555"
OTHERS = {
    "JupyterLab, dark": (f"<style>{WIDGETS} body {{ {DARK}; background: #111; }}</style>", 'data-jp-theme-light="false"', "light", "dark", "rgb(17, 17, 17)"),
    "JupyterLab, light, of a dark system": (f"<style>{WIDGETS}</style>", 'data-jp-theme-light="true"', "dark", "light", "rgb(255, 255, 255)"),
    "a dark document with ipywidgets' bundle": (f"<style>{WIDGETS} html {{ background: #1f1f1f; }}</style>", "", "light", "dark", None),
    "a light document on a dark system": (f"<style>{WIDGETS} body {{ background: #fff; }}</style>", "", "dark", "light", None),
    "a document without a ground on a dark system": (f"<style>{WIDGETS}</style>", "", "dark", "light", None),
    "a document that follows a dark system": ("<style>html { color-scheme: light dark; }</style>", "", "dark", "dark", None),
}  # fmt: skip


@pytest.mark.parametrize("host", OTHERS)
def test_in_other_pages_what_is_written_is_read_and_light_and_dark_are_the_pages_own(output: OutputPage, host: str) -> None:
    output.head, output.attributes, system, theme, ground = OTHERS[host]
    output.page.emulate_media(color_scheme="dark" if system == "dark" else "light")
    output.open()
    view = output.ready()
    explored(view)
    found = view.evaluate(GROUNDS)
    assert found["theme"] == theme
    if ground:
        assert found["ground"] == ground
    readable(view)
