"""Uses VS Code like a person, with a stand-in for the Jupyter extension (see stub/), real kernels and a small model."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.support.sidebar import DIFFERENCE, TINY, cache_status, cell, cells, contribution
from tests.support.window import FOLLOWS, Code, CodeServer

NAMES = "sorted(name for name in globals() if not name.startswith('_') and name not in ('In', 'Out', 'exit', 'quit'))"
STATE = f"[{NAMES}, get_ipython().execution_count, len(In), list(Out)]"


def test_after_consent_the_sidebar_lists_and_shows_a_cache_without_a_trace(code: Code) -> None:
    code.server.write_notebook("first.ipynb", TINY, "1 + 1")
    code.start()
    code.open("first.ipynb")
    code.open_sidebar()
    expect(code.sidebar).to_contain_text("No kernel is known for this notebook", timeout=FOLLOWS)
    code.run_all()
    before = code.python(STATE)
    code.answer("Deny")
    expect(code.sidebar.get_by_role("alert")).to_contain_text("did not let Residscope run code", timeout=FOLLOWS)
    code.command("Stand-in: Allow Access")
    code.sidebar.get_by_role("button", name="Try again").click()
    expect(code.caches).to_have_count(1, timeout=FOLLOWS)
    expect(code.caches.first).to_contain_text("3 × 4 heads")

    view = code.inspect("cache")
    top = code.python(DIFFERENCE)
    expect(view.get_by_role("status")).to_contain_text(f"✓ rows sum to {top:+.3f} · the model’s own mean logit")
    shown = cells(view)
    best = max(shown, key=lambda head: abs(shown[head]))
    cell(view, best).click()
    expect(view.get_by_role("region", name=f"Attention {best}", exact=True)).to_be_visible(timeout=FOLLOWS)
    assert shown[best] == pytest.approx(code.python(contribution(best)), abs=5e-3)

    assert code.python(STATE) == before
    expect(code.page.locator(".cell-output-container, .output-inner-container")).not_to_contain_text(["residscope"])


def test_the_sidebar_follows_a_restart_a_dead_kernel_and_refused_access(small: Code) -> None:
    view = small.inspect("cache")
    small.command("Stand-in: Restart Kernel")
    expect(small.sidebar).to_contain_text("was restarted and has not run a cell", timeout=FOLLOWS)
    small.run_all()
    expect(cache_status(view)).to_contain_text("was lost when the kernel restarted", timeout=FOLLOWS)
    view.get_by_role("button", name="Show the new one").click()
    small.drawn(view)
    expect(cache_status(view)).to_have_count(0)

    small.command("Stand-in: Revoke Access")
    cell(view, "L0H1").click()
    expect(small.sidebar.locator(".rs-link").get_by_role("alert")).to_contain_text("did not let", timeout=FOLLOWS)
    small.command("Stand-in: Allow Access")
    small.sidebar.get_by_role("button", name="Try again").click()
    small.drawn(view)

    small.command("Stand-in: Kill Kernel")
    expect(small.sidebar.locator(".rs-link")).to_contain_text("kernel has died", timeout=FOLLOWS)
    expect(view.get_by_role("grid", name="Head map")).to_be_visible()  # the last picture stays


def test_the_sidebar_waits_for_a_running_cell_and_says_so(code: Code) -> None:
    stop = code.server.root / "stop"
    wait = f"import os, time\nwhile not os.path.exists({str(stop)!r}): time.sleep(0.02)"
    code.server.write_notebook("busy.ipynb", TINY, wait)
    stop.touch()
    code.start()
    code.open("busy.ipynb")
    code.command("Stand-in: Allow Access")
    code.run_all()
    code.open_sidebar()
    view = code.inspect("cache")
    before = cells(view)
    stop.unlink()
    code.start_all()
    code.until(code.runs, lambda runs: runs.running == 1)  # the first of the two cells has ended
    cell(view, "L1H1").click()
    expect(view.locator(".rs-notice")).to_contain_text(["", "Waiting for the kernel"], timeout=FOLLOWS)
    assert cells(view) == before
    stop.touch()
    code.until(code.runs, lambda runs: runs.running == 0)
    # The cell ran again and assigned another cache to the name.
    expect(cache_status(view)).to_contain_text("now another cache", timeout=FOLLOWS)
    stop.unlink()


def test_the_sidebar_shows_the_kernel_of_the_selected_notebook(small: Code) -> None:
    small.server.write_notebook("other.ipynb", TINY.replace("cache = tiny", "second = tiny"))
    small.page.locator(".activitybar .action-label[aria-label^=Explorer]").click()
    small.open("other.ipynb")
    small.run_all()
    small.open_sidebar()
    expect(small.caches).to_contain_text(["second"], timeout=FOLLOWS)
    small.tab("small.ipynb").click()
    expect(small.caches).to_contain_text(["cache"], timeout=FOLLOWS)


def test_a_kernel_without_the_package_gets_the_line_to_run(code: Code) -> None:
    code.server.write_notebook("bare.ipynb", "x = 1", kernel="bare")
    code.start()
    code.open("bare.ipynb")
    code.command("Stand-in: Allow Access")
    code.run_all()
    code.open_sidebar()
    expect(code.sidebar.get_by_role("alert")).to_contain_text("has no Residscope", timeout=FOLLOWS)
    expect(code.sidebar.locator(".rs-line code")).to_contain_text("%pip install residscope")


def test_the_wide_view_and_the_sidebar_come_back_after_a_reload(small: Code) -> None:
    view = small.inspect("cache")
    cell(view, "L1H0").click()
    expect(view.locator(".rs-card")).not_to_have_count(0)
    small.command("Residscope: Open in an Editor Tab")
    wide = small.drawn(small.tab_view)
    assert cells(wide) == cells(view)
    # A reload restarts the extension and ends the kernel.
    small.command("Developer: Reload Window")
    expect(small.page.locator("iframe.webview")).to_have_count(0)
    small.ready()
    expect(small.tab("cache · small.ipynb")).to_be_visible(timeout=FOLLOWS)
    small.command("Stand-in: Allow Access")
    small.page.locator(".tabs-container .tab[data-resource-name='small.ipynb']").click()
    small.run_all()
    wide = small.drawn(small.tab_view)
    expect(wide.get_by_role("region", name="Attention L1H0", exact=True)).to_be_visible(timeout=FOLLOWS)
    view = small.drawn(small.sidebar.get_by_role("region", name="Residscope", exact=True))
    expect(view.get_by_role("region", name="Attention L1H0", exact=True)).to_be_visible(timeout=FOLLOWS)


def test_keys_choose_heads_and_an_interrupt_loses_no_request(small: Code) -> None:
    view = small.inspect("cache")
    first, second, third = sorted(heads := cells(view), key=lambda head: -abs(heads[head]))[:3]
    cell(view, first).focus()
    small.page.keyboard.press("Alt+Shift+J")
    expect(view.get_by_role("region", name=f"Attention {second}", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.command("Stand-in: Interrupt Kernel")
    small.command("Residscope: Next Head")
    expect(view.get_by_role("region", name=f"Attention {third}", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.drawn(view)


def test_without_the_jupyter_extension_a_message_names_it(page: Page, without_jupyter: CodeServer) -> None:
    code = Code(page, without_jupyter)
    without_jupyter.write_notebook("alone.ipynb", "x = 1")
    code.start()
    code.open("alone.ipynb")
    code.open_sidebar()
    expect(code.sidebar.get_by_role("alert")).to_contain_text("ms-toolsai.jupyter", timeout=FOLLOWS)


def test_an_inline_panel_in_a_notebooks_output(code: Code) -> None:
    """The output is a saved page, because only the real Jupyter extension supports live widgets in outputs."""
    lines = ("import residscope", "from IPython.display import HTML, display", "panel = residscope.inspect(cache)")
    code.server.write_notebook("inline.ipynb", TINY, "\n".join([*lines, "display(HTML(panel.to_html()))"]))
    requests: list[str] = []
    own = code.page.main_frame  # its requests are those of VS Code itself, for example to its marketplace
    code.page.on("request", lambda request: request.frame == own or requests.append(request.url))
    code.start()
    code.open("inline.ipynb")
    code.run_all()
    view = code.output_view
    code.drawn(view)
    sizes = view.evaluate(
        """async node => {
            const sizes = [];
            for (let frame = 0; frame < 120; frame += 1) {
                await new Promise(requestAnimationFrame);
                const { width, height } = node.getBoundingClientRect();
                sizes.push(`${width} × ${height}`);
            }
            return [...new Set(sizes)];
        }"""
    )
    assert len(sizes) == 1
    # As in the real output page, JupyterLab's colours are those of the light theme.
    fixed = view.evaluate("() => getComputedStyle(document.documentElement).getPropertyValue('--jp-layout-color1')")
    assert fixed == "white"
    colours = view.evaluate(
        """node => [getComputedStyle(node.querySelector(".rs-box")).backgroundColor,
            getComputedStyle(document.documentElement).getPropertyValue("--vscode-editor-background")]"""
    )
    assert _rgb(colours[1]) == colours[0]
    assert requests
    # VS Code serves an extension's files to its pages under this name, by a service worker without a network.
    served = re.compile(r"127\.0\.0\.1|localhost|.*\.vscode-resource\.vscode-cdn\.net")
    assert not [url for url in requests if (host := urlsplit(url).hostname) and not served.fullmatch(host)]


def _rgb(hexadecimal: str) -> str:
    return f"rgb({', '.join(str(int(hexadecimal.strip()[at : at + 2], 16)) for at in (1, 3, 5))})"


def test_help_is_a_preview_of_a_chapter_that_came_with_the_extension(small: Code) -> None:
    view = small.inspect("cache")
    view.get_by_role("tab", name="Why").click()
    small.sidebar.get_by_role("button", name="Help", exact=True).click()
    expect(small.tab("why.md")).to_be_visible(timeout=FOLLOWS)
    preview = small._frame("body.vscode-body .code-line")
    expect(preview.get_by_role("heading", level=1).first).to_have_text("Why: two stories, number by number")
    small.command("Residscope: Help")
    expect(small.tab("why.md")).to_be_visible()
