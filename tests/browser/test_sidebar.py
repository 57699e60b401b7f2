"""The sidebar in a real JupyterLab: it attaches to kernels that run, lists their caches, and shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from lab import MODEL, Lab, Server
from playwright.sync_api import Locator, expect

from residscope.demo import demo_model_folder

FOLLOWS = 15_000  # milliseconds; the machine may be busy, the gesture is not

# What a researcher has run, without a word of Residscope.
REAL = f"""
from transformer_lens.model_bridge import TransformerBridge
model = TransformerBridge.boot_transformers({str(demo_model_folder())!r})
tokens = model.to_tokens([
    "When John and Mary went to the shops, John gave the bag to",
    "When Tom and James went to the park, James gave the ball to",
])
logits, cache = model.run_with_cache(tokens)
runs = {{"clean": cache}}
"""
TINY = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1] / "python")!r})
import tiny, torch
model = tiny.boot("llama")
tokens, logits, cache = tiny.run(model)
"""


@pytest.fixture
def small(lab: Lab) -> Lab:
    """A notebook whose kernel holds one small cache, and the sidebar beside it."""
    lab.open(lab.write_notebook("small.ipynb", TINY))
    lab.open_sidebar()
    lab.run_all()
    expect(lab.caches).to_have_count(1, timeout=FOLLOWS)
    return lab


def run(lab: Lab, code: str) -> None:
    """Run code as a new cell at the notebook's end."""
    lab.command("notebook:insert-cell-below")
    lab.page.evaluate(
        "code => window.jupyterapp.shell.currentWidget.content.activeCell.model.sharedModel.setSource(code)", code
    )
    lab.command("notebook:run-cell")


def start(lab: Lab, code: str) -> None:
    """Start a new cell at the notebook's end, and wait until it runs."""
    lab.command("notebook:insert-cell-below")
    lab.page.evaluate(
        """code => {
            const { content, sessionContext } = window.jupyterapp.shell.currentWidget;
            content.activeCell.model.sharedModel.setSource(code);
            window.jupyterapp.commands.execute('notebook:run-cell');
        }""",
        code,
    )
    lab.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'"
    )


def standing(view: Locator) -> Locator:
    """What the header says has become of the cache."""
    return view.locator(".rs-facts [role=alert]")


def cell(view: Locator, head: str) -> Locator:
    return view.get_by_role("gridcell", name=re.compile(rf"^{head}( |$)"))


def values(view: Locator) -> dict[str, float]:
    names = view.get_by_role("gridcell").evaluate_all("cells => cells.map(cell => cell.getAttribute('aria-label'))")
    return {head: float(value.replace("−", "-")) for head, value in (name.split() for name in names)}


# The subshell of each of Residscope's comms; all subshells; how many there are of these, and of threads. (JupyterLab
# leaves a subshell of its own for widgets behind when a page is reloaded.)
OURS = (
    "[c._reply_subshell_id for c in __import__('comm').get_comm_manager().comms.values()"
    " if c.target_name == 'residscope']"
)
SUBSHELLS = "get_ipython().kernel.shell_channel_thread.manager.list_subshell()"
HELD = f"[len({OURS}), len({SUBSHELLS}), __import__('threading').active_count()]"
INTERRUPT = """() => {
    for (const widget of window.jupyterapp.shell.widgets("main")) widget.sessionContext?.session?.kernel.interrupt();
}"""


# --- attaching and listing ------------------------------------------------------------------------------------------
def test_attaches_lists_and_shows_a_cache_and_leaves_no_trace(lab: Lab) -> None:
    path = lab.write_notebook("ioi.ipynb", REAL)
    lab.open(path)
    lab.run_all()
    lab.command("docmanager:save")
    file = (lab.server.root / path).read_bytes()
    everything = "[sorted(get_ipython().user_ns), get_ipython().execution_count, len(get_ipython().user_ns['In'])]"
    before = lab.python(everything)
    assert lab.python("'residscope' in __import__('sys').modules") is False

    lab.open_sidebar()
    expect(lab.caches).to_have_count(1, timeout=FOLLOWS)
    words = " ".join(lab.caches.first.inner_text().split())
    storages = "{s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in cache.cache_dict.values())}"
    size = lab.python(f"round(sum({storages}.values()) / 1e6)")
    assert words.startswith('cache also runs["clean"]')
    for fact in (
        "SmolLM2-135M-Instruct",
        "30 × 9 heads",
        "2 prompts × 15 positions",
        "float32 on cpu",
        f"{size} MB",
        "first seen just now",
    ):
        assert fact in words

    view = lab.inspect("cache")
    top = lab.python("logits[:, -1].topk(2).values.diff().neg().mean().item()")  # the model's own two top predictions
    expect(view.get_by_role("status")).to_contain_text(
        f"✓ rows sum to {top:+.3f} · the model’s own mean logit difference"
    )
    shown = values(view)
    best = max(shown, key=lambda head: abs(shown[head]))
    cell(view, best).click()
    card = view.get_by_role("region", name=f"Attention {best}", exact=True)
    expect(card).to_be_visible(timeout=FOLLOWS)
    layer, head = map(int, best[1:].split("H"))
    ids = "logits[:, -1].topk(2).indices"
    direction = f"(model.W_U[:, {ids}[:, 0]] - model.W_U[:, {ids}[:, 1]]).T * model.ln_final.weight"
    worth = (
        f"((cache['z', {layer}][:, -1, {head}] @ model.W_O[{layer}, {head}]) * {direction}).sum(-1)"
        " / cache['ln_final.hook_scale'][:, -1, 0]"
    )
    exact = lab.python(f"({worth}).mean().item()")
    assert shown[best] == pytest.approx(exact, abs=5e-3)

    assert lab.python(everything) == before
    lab.command("docmanager:save")
    assert (lab.server.root / path).read_bytes() == file


def test_a_kernel_without_the_package_says_what_to_run(lab: Lab) -> None:
    lab.open(lab.write_notebook("bare.ipynb", "x = 1", kernel="bare"))
    sidebar = lab.open_sidebar()
    expect(sidebar.get_by_role("alert")).to_contain_text("has no Residscope", timeout=FOLLOWS)
    expect(sidebar.get_by_text("%pip install residscope==")).to_be_visible()
    # What was missing is there now: one click, and it attaches.
    root = Path(__file__).parents[2] / "py_backend"
    lab.python("0", before=f"import sys; sys.path.append({str(root)!r}); del sys")
    sidebar.get_by_role("button", name="Try again").click()
    expect(sidebar.get_by_text("No activation cache in this kernel yet")).to_be_visible(timeout=FOLLOWS)


def test_a_second_cache_and_one_level_of_containers(small: Lab) -> None:
    run(small, "other = tiny.run(model)[2]\nkept = [other, model.run_with_cache(tokens[:1])[1]]")
    expect(small.caches).to_have_count(3, timeout=FOLLOWS)
    names = [" ".join(text.split()) for text in small.caches.all_inner_texts()]
    assert names[0].startswith("cache ")
    assert names[1].startswith("other also kept[0]")
    assert names[2].startswith("kept[1] ")
    assert "1 prompt × " in names[2]
    small.inspect("other")
    expect(small.caches.nth(1).get_by_role("button", name=re.compile("^other"))).to_have_attribute(
        "aria-current", "true"
    )


def test_two_notebooks_a_console_and_a_kernel_that_is_not_open(small: Lab) -> None:
    view = small.inspect("cache")
    cell(view, "L1H1").click()
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.command("docmanager:open", path=small.write_notebook("second.ipynb", TINY.replace("cache", "second")))
    small.wait_for_notebook("second.ipynb")
    expect(small.sidebar.get_by_label("Kernel")).to_contain_text("second.ipynb (the one in focus)")
    expect(small.sidebar.get_by_text("No activation cache in this kernel yet")).to_be_visible(timeout=FOLLOWS)
    small.run_all()
    expect(small.caches.filter(visible=True)).to_have_count(1, timeout=FOLLOWS)
    expect(small.caches.filter(visible=True)).to_contain_text("second")

    # Back by the focus: the picture is as it was left. Then by the choice.
    small.command("docmanager:open", path="small.ipynb")
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible()
    choice = small.sidebar.get_by_role("combobox", name="Kernel")
    choice.select_option("=second.ipynb")
    expect(small.caches.filter(visible=True)).to_contain_text("second")

    # A notebook that is closed: its kernel runs on, and so does what is seen of it.
    small.command("docmanager:open", path="second.ipynb")
    small.command("docmanager:save")
    small.command("application:close")
    expect(small.caches.filter(visible=True)).to_contain_text("second")
    small.inspect("second")

    small.command("console:create", path="", kernelPreference={"name": "tests"}, activate=True)
    choice.select_option("")
    expect(choice).to_contain_text("console", ignore_case=True)
    expect(small.sidebar.get_by_text("No activation cache in this kernel yet").filter(visible=True)).to_be_visible(
        timeout=MODEL
    )


# --- what becomes of a cache ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "words", "label"),
    [
        ("cache = tiny.run(model)[2]", "is another cache now", "Show the new one"),
        ("cache.cache_dict['ln_final.hook_scale'] *= 2", "was changed in place", "Read it anew"),
        (
            "with torch.no_grad(): [p.mul_(1.5) for p in model.parameters()]",
            "weights have changed",
            "Read it anew",
        ),
    ],
    ids=["bound anew", "changed in place", "weights"],
)
def test_what_has_become_of_a_cache_is_said_and_the_new_one_taken(
    small: Lab, code: str, words: str, label: str
) -> None:
    view = small.inspect("cache")
    cell(view, "L1H1").click()
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    before = values(view)
    run(small, code)
    expect(standing(view)).to_contain_text(words, timeout=FOLLOWS)
    expect(small.caches.filter(has_text=re.compile("another cache now|changed"))).to_have_count(1)
    assert values(view) == before  # the last picture
    view.get_by_role("button", name=label).click()
    expect(standing(view)).to_have_count(0, timeout=FOLLOWS)
    small.ready(view)
    expect(cell(view, "L1H1")).to_have_attribute("aria-selected", "true")  # what was selected stays
    if "weights" in words:  # the activations are still the old model's, and the badge tells
        expect(view.get_by_role("status")).to_contain_text("rows miss", timeout=FOLLOWS)
    elif "changed" in words:
        assert values(view) != before


def test_deleting_the_variable_frees_the_tensors_however_many_views_are_open(small: Lab) -> None:
    view = small.inspect("cache")
    small.command("residscope:open-in-main-area")
    wide = small.ready(small.page.locator(".rs-view").get_by_role("region", name="Residscope", exact=True))
    for panel in (view, wide):
        cell(panel, "L2H1").click()
        expect(panel.get_by_role("region", name="Attention L2H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    before = values(wide)
    # The notebook's own hold of it goes, too: what remains is Residscope's, and that is none.
    small.command("docmanager:open", path="small.ipynb")
    run(small, "import weakref; gone = [weakref.ref(cache), weakref.ref(cache['z', 1])]; del cache")
    for panel in (view, wide):
        expect(standing(panel)).to_contain_text("is not in memory any more", timeout=FOLLOWS)
    expect(small.caches.first).to_contain_text("deleted; its last picture stays")
    assert small.python("[ref() is None for ref in gone]") == [True, True]
    assert values(wide) == before


@pytest.mark.parametrize("by", ["the notebook", "somebody else"])
def test_a_restarted_kernel_keeps_the_picture_and_the_new_cache_is_one_click_away(small: Lab, by: str) -> None:
    view = small.inspect("cache")
    before = values(view)
    if by == "the notebook":
        small.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    else:
        [session] = small.server.request("/api/sessions")
        small.server.request(f"/api/kernels/{session['kernel']['id']}/restart", "POST")
        small.run_all()
    expect(standing(view)).to_contain_text("went with its kernel", timeout=FOLLOWS)
    assert values(view) == before
    small.run_all()
    view.get_by_role("button", name="Show the new one").click()
    expect(standing(view)).to_have_count(0, timeout=FOLLOWS)
    small.ready(view)
    assert values(view) == pytest.approx(before)
    assert small.python(HELD)[0] == 1  # one link, to the kernel that is there


def test_an_inline_panel_lets_go_of_its_cache_when_its_output_goes(small: Lab) -> None:
    run(
        small,
        "import residscope, weakref\nlone = tiny.run(model)[2]\ngone = weakref.ref(lone)\n"
        "residscope.inspect(lone); del lone",
    )
    panel = small.ready(small.page.locator(".jp-OutputArea").get_by_role("region", name="Residscope", exact=True))
    cell(panel, "L1H0").click()
    expect(panel.get_by_role("region", name="Attention L1H0", exact=True)).to_be_visible(timeout=FOLLOWS)
    assert small.python("gone() is not None")
    small.command("notebook:clear-all-cell-outputs")
    expect(panel).to_have_count(0)
    small.becomes("gone() is None", True)


# --- while a cell runs ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "loop",
    [
        "time.sleep(0.2)",
        "np.sort(np.random.rand(300_000))",
        "torch.randn(300, 300) @ torch.randn(300, 300)",
        "sum(range(50_000))",
    ],
    ids=["sleep", "numpy", "torch", "python"],
)
def test_answers_while_a_cell_runs(small: Lab, loop: str) -> None:
    start(small, f"import time, numpy as np\nstop = False\nwhile not stop: {loop}")
    view = small.inspect("cache")
    cell(view, "L2H0").click()
    expect(view.get_by_role("region", name="Attention L2H0", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.ready(view)
    assert (
        small.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.activeCell.model.executionState")
        == "running"
    )
    small.page.evaluate(INTERRUPT)


def test_attaches_to_a_kernel_that_is_busy_when_the_page_is_loaded(small: Lab) -> None:
    start(small, "import time\nwhile True: time.sleep(0.2)")
    small.page.reload()
    small.page.wait_for_function("() => window.jupyterapp !== undefined")
    small.page.evaluate("() => window.jupyterapp.restored")
    small.open_sidebar()
    expect(small.caches).to_have_count(1, timeout=FOLLOWS)
    view = small.inspect("cache")
    assert len(values(view)) > 0
    small.page.evaluate(INTERRUPT)


@pytest.fixture
def old_kernel(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A kernel without subshells: ipykernel 6, before this environment's own on the path."""
    import subprocess
    import sys

    if not (server.data / "kernels" / "old").exists():
        folder = tmp_path_factory.mktemp("ipykernel-6")
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(folder),
            "ipykernel==6.31.0",
        ]
        subprocess.run(install, check=True)
        server.add_kernel("old", "Python with ipykernel 6", f"import sys; sys.path.insert(0, {str(folder)!r})")
    return "old"


def test_a_kernel_without_subshells_says_that_it_waits(lab: Lab, old_kernel: str) -> None:
    lab.open(lab.write_notebook("old.ipynb", TINY, kernel=old_kernel))
    lab.run_all()
    assert lab.python("__import__('ipykernel').__version__") == "6.31.0"
    start(lab, "import time\nfor _ in range(60): time.sleep(0.1)")
    sidebar = lab.open_sidebar()
    expect(sidebar.get_by_text("Waiting for the running cell")).to_be_visible(timeout=FOLLOWS)
    expect(lab.caches).to_have_count(1, timeout=FOLLOWS)
    view = lab.inspect("cache")
    start(lab, "for _ in range(40): time.sleep(0.1)")
    cell(view, "L2H0").click()
    expect(view.get_by_text("Waiting for the kernel: it may be running a cell")).to_be_visible(timeout=FOLLOWS)
    expect(view.get_by_text("Waiting for the kernel")).to_be_hidden(timeout=FOLLOWS)
    lab.ready(view)


# --- places, keys, what is put back ---------------------------------------------------------------------------------
def test_layout_and_selection_are_put_back_and_nothing_leaks_over_a_reload(small: Lab) -> None:
    view = small.inspect("cache")
    cell(view, "L1H1").click()
    small.command("residscope:open-in-main-area")
    wide = small.page.locator(".rs-view").get_by_role("region", name="Residscope", exact=True)
    small.ready(wide)
    cell(wide, "L0H1").click()
    expect(wide.get_by_role("region", name="Attention L0H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    [ours] = small.python(OURS)
    small.command("docmanager:save-all")
    saved = small.until(
        lambda: json.dumps(small.server.request("/lab/api/workspaces/default")),
        lambda text: "residscope-view" in text and '"L1H1", "L0H1"' in text,
    )
    assert "@residscope/jupyterlab:sidebar" in saved
    small.page.goto(f"{small.server.url}/lab")
    small.page.wait_for_function("() => window.jupyterapp !== undefined")
    small.page.evaluate("() => window.jupyterapp.restored")
    for panel, heads in ((view, ["L1H1"]), (wide, ["L1H1", "L0H1"])):
        small.ready(panel)
        for head in heads:
            expect(panel.get_by_role("region", name=f"Attention {head}", exact=True)).to_be_visible(timeout=FOLLOWS)
    assert len(small.python(OURS)) == 1  # one comm, in spite of the reload; and its old subshell is gone
    small.becomes(f"{ours!r} in {SUBSHELLS}", False)


def test_by_the_keyboard_from_the_palette_to_the_next_head(small: Lab) -> None:
    page = small.page
    small.command("apputils:activate-command-palette")
    palette = page.locator("#modal-command-palette")
    palette.get_by_role("textbox").fill("inspect activation")
    palette.get_by_text("Residscope: Inspect Activation Cache").click()
    view = small.ready(small.sidebar.get_by_role("region", name="Residscope", exact=True))
    row = small.caches.get_by_role("button", name=re.compile("^cache"))
    expect(row).to_be_focused()
    shown = values(view)
    order = sorted(shown, key=lambda head: -abs(shown[head]))
    for head in order[:2]:
        small.command("residscope:next-head")
        expect(view.get_by_role("region", name=f"Attention {head}", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.command("residscope:previous-head")
    expect(view.get_by_role("region", name=f"Attention {order[0]}", exact=True)).to_be_visible(timeout=FOLLOWS)
    page.keyboard.press("Tab")
    expect(small.caches.get_by_role("button", name="Open cache in the main area")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".rs-view").get_by_role("grid", name="Head map")).to_be_visible(timeout=FOLLOWS)


def test_the_settings_move_the_sidebar_and_poll(small: Lab) -> None:
    def set_to(**settings: object) -> None:
        small.evaluate(
            """async settings => {
                const { serviceManager } = window.jupyterapp;
                await serviceManager.settings.save("@residscope/jupyterlab:sidebar", JSON.stringify(settings));
            }""",
            settings,
        )
        small.start("small.ipynb")
        small.wait_for_notebook("small.ipynb")
        small.open_sidebar()
        expect(small.caches.first).to_be_visible(timeout=FOLLOWS)

    def left_of_the_notebook() -> bool:
        side, notebook = small.sidebar.bounding_box(), small.page.locator(".jp-NotebookPanel").bounding_box()
        assert side
        assert notebook
        return side["x"] < notebook["x"]

    try:
        assert not left_of_the_notebook()
        set_to(side="left", refresh="poll", pollSeconds=0.5)
        assert left_of_the_notebook()
        start(small, "import time\nmore = tiny.run(model)[2]\nwhile True: time.sleep(0.1)")
        expect(small.caches).to_have_count(2, timeout=FOLLOWS)  # the cell has not ended
        small.page.evaluate(INTERRUPT)
    finally:
        set_to()


# --- over and over --------------------------------------------------------------------------------------------------
def test_a_dropped_connection_is_mended_and_leaves_nothing_in_the_kernel(small: Lab) -> None:
    view = small.inspect("cache")
    before = small.python(HELD)
    assert before[0] == 1
    for index, head in enumerate(("L0H0", "L0H1", "L1H0")):
        # Dropped with a question under way: it is asked again.
        small.page.evaluate(
            """head => {
                document.querySelector(`#residscope-sidebar [data-head=${head}]`).click();
                window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.reconnect();
            }""",
            head,
        )
        expect(view.get_by_role("region", name=re.compile("^Attention"))).to_have_count(index + 1, timeout=FOLLOWS)
        small.ready(view)
    expect(small.sidebar.locator("[data-link=ready]")).to_have_count(1, timeout=FOLLOWS)
    expect(view.locator(".rs-waiting")).to_have_count(0, timeout=FOLLOWS)
    small.becomes(HELD, before)
