"""`npm run pictures`: takes the README's and the gallery's pictures from the running program in a real JupyterLab.

python -m tests.browser.pictures [FOLDER]
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.browser import gallery
from tests.support.demo_panel import PARTIAL
from tests.support.lab import Lab
from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "py_backend/docs/pictures"
GALLERY = ROOT / "py_backend/docs/gallery.md"
SETUP = "import residscope\nfrom residscope import demo, targets\nrun = demo.ioi()\ncache = run.cache"
INSPECT = "panel = residscope.inspect(cache, run.answers, prompt=0, heads=['L23H3', 'L29H0'])"
RESEARCH = """from residscope.demo import demo_model_folder
from transformer_lens.model_bridge import TransformerBridge

model = TransformerBridge.boot_transformers(str(demo_model_folder()))
prompts = [
    "When John and Mary went to the shops, John gave the bag to",
    "When Tom and James went to the park, James gave the ball to",
    "When Dan and Sid went to the shops, Sid gave an apple to",
]
logits, cache = model.run_with_cache(model.to_tokens(prompts))"""
TRAINING = "runs = {'clean': cache, 'first': model.run_with_cache(model.to_tokens(prompts[:1]))[1]}"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
WIDTHS = {"wide": (1440, 1900), "narrow": (600, 3400)}


def main(folder: Path) -> None:
    """Take every picture, wide and narrow, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("RESIDSCOPE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as scratch, Server.started(Path(scratch)) as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(
            viewport={"width": 1440, "height": 1500}, device_scale_factor=1.5, reduced_motion="reduce"
        )
        page.add_init_script("localStorage.setItem('residscope:first-visit', 'seen')")  # without the first hint
        lab = Lab(page, server)
        lab.open(lab.write_notebook("pictures.ipynb", SETUP, INSPECT))
        lab.command("application:toggle-left-area")
        lab.run_all()
        panel = lab.panel()
        for width, (across, down) in WIDTHS.items():
            page.mouse.move(0, 0)
            lab.python("0", before=f"panel.heads = {['L23H3', 'L29H0'] if width == 'wide' else ['L23H3']}")
            page.set_viewport_size({"width": across, "height": down})
            for theme, name in THEMES.items():
                lab.command("apputils:change-theme", theme=name)
                attribute = "true" if theme == "light" else "false"
                expect(page.locator("body")).to_have_attribute("data-jp-theme-light", attribute)
                canvas = panel.get_by_role("region", name="Attention L23H3", exact=True).locator("canvas").first
                canvas.scroll_into_view_if_needed()
                box = canvas.bounding_box()
                assert box
                canvas.hover(position={"x": 10.5 / 15 * box["width"], "y": 14.5 / 15 * box["height"]})
                expect(panel.locator(".rs-sentence")).to_contain_text("contributes")
                expect(panel).to_have_attribute("data-state", "ready")
                panel.screenshot(path=folder / f"{width}-{theme}.png", animations="disabled")
                print(folder / f"{width}-{theme}.png")
        page.set_viewport_size({"width": 1440, "height": 1900})
        lab.command("apputils:change-theme", theme=THEMES["light"])
        gallery.take(lab, panel, folder)
        GALLERY.write_text(gallery.page("pictures"))
        sidebar(lab, folder)
        partial(lab, folder)
        server.shut_down_kernels()
        browser.close()


def sidebar(lab: Lab, folder: Path) -> None:
    """Take pictures of the narrow sidebar beside a notebook, and of its cache in the wide main area, light and dark."""
    page = lab.page
    page.set_viewport_size({"width": 1500, "height": 1250})
    lab.open(lab.write_notebook("research.ipynb", RESEARCH, TRAINING))
    lab.command("application:toggle-left-area")
    lab.run_all()
    lab.open_sidebar()
    expect(lab.caches.first).to_be_visible(timeout=60_000)
    view = lab.inspect("cache")
    view.get_by_role("button", name="Next prompt").click()
    page.mouse.move(600, 800)
    for theme, name in THEMES.items():
        lab.command("apputils:change-theme", theme=name)
        expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "true" if theme == "light" else "false")
        lab.ready(view)
        page.screenshot(path=folder / f"sidebar-narrow-{theme}.png", animations="disabled")
    for head in ("L23H3", "L29H0"):
        view.get_by_role("gridcell", name=re.compile(rf"^{head} ")).click()
    page.set_viewport_size({"width": 2100, "height": 1250})
    lab.command("residscope:open-in-main-area")
    wide = page.locator(".rs-view").get_by_role("region", name="Residscope", exact=True)
    for theme, name in THEMES.items():
        lab.command("apputils:change-theme", theme=name)
        expect(page.locator("body")).to_have_attribute("data-jp-theme-light", "true" if theme == "light" else "false")
        lab.ready(wide)
        page.screenshot(path=folder / f"sidebar-wide-{theme}.png", animations="disabled")


def partial(lab: Lab, folder: Path) -> None:
    """Take pictures of panels of filtered caches."""
    page = lab.page
    lab.command("apputils:change-theme", theme=THEMES["light"])
    page.set_viewport_size({"width": 1440, "height": 900})
    for name, accepts in PARTIAL.items():
        run = f"_, cache = run.model.run_with_cache(run.tokens, names_filter=lambda name: {accepts})"
        lab.open(lab.write_notebook(f"partial-{name}.ipynb", f"{SETUP}\n{run}", INSPECT))
        lab.command("application:toggle-left-area")
        lab.run_all()
        panel = lab.panel()
        expect(panel.get_by_role("region", name="Attention L23H3", exact=True)).to_be_visible()
        lab.ready(panel)
        page.mouse.move(0, 0)
        panel.scroll_into_view_if_needed()
        page.screenshot(path=folder / f"partial-{name}.png", animations="disabled")
        print(folder / f"partial-{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
