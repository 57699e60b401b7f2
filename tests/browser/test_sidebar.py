"""The sidebar in a real JupyterLab attaches to running kernels, even while a cell runs, and lists their caches."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.lab import MODEL, Lab
from tests.support.server import Server
from tests.support.sidebar import DIFFERENCE, FOLLOWS, OURS, REAL, TINY, cell, cells, contribution


# --- attaching and listing ------------------------------------------------------------------------------------------
def test_the_sidebar_attaches_lists_and_shows_a_cache_and_leaves_no_trace(lab: Lab) -> None:
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
    top = lab.python(DIFFERENCE)
    expect(view.get_by_role("status")).to_contain_text(
        f"✓ rows sum to {top:+.3f} · the model’s own mean logit difference"
    )
    shown = cells(view)
    best = max(shown, key=lambda head: abs(shown[head]))
    cell(view, best).click()
    card = view.get_by_role("region", name=f"Attention {best}", exact=True)
    expect(card).to_be_visible(timeout=FOLLOWS)
    assert shown[best] == pytest.approx(lab.python(contribution(best)), abs=5e-3)

    assert lab.python(everything) == before
    lab.command("docmanager:save")
    assert (lab.server.root / path).read_bytes() == file


def test_a_kernel_without_the_package_says_what_to_run(lab: Lab) -> None:
    lab.open(lab.write_notebook("bare.ipynb", "x = 1", kernel="bare"))
    sidebar = lab.open_sidebar()
    expect(sidebar.get_by_role("alert")).to_contain_text("has no Residscope", timeout=FOLLOWS)
    expect(sidebar.get_by_text("%pip install residscope-")).to_be_visible()
    # After the package can be imported, one click attaches.
    root = Path(__file__).parents[2] / "py_backend"
    lab.python("0", before=f"import sys; sys.path.append({str(root)!r}); del sys")
    sidebar.get_by_role("button", name="Try again").click()
    expect(sidebar.get_by_text("This kernel has no activation cache yet")).to_be_visible(timeout=FOLLOWS)


def test_a_second_cache_and_one_level_of_containers(small: Lab) -> None:
    small.run_cell("other = tiny.run(model)[2]\nkept = [other, model.run_with_cache(tokens[:1])[1]]")
    expect(small.caches).to_have_count(3, timeout=FOLLOWS)
    names = [" ".join(text.split()) for text in small.caches.all_inner_texts()]
    assert names[0].startswith("cache ")
    assert names[1].startswith("other also kept[0]")
    assert names[2].startswith("kept[1] ")
    assert "1 prompt × " in names[2]
    small.inspect("other")
    small.open_list()
    expect(small.caches.nth(1).get_by_role("button", name=re.compile("^other"))).to_have_attribute(
        "aria-current", "true"
    )


def test_two_notebooks_a_console_and_a_kernel_that_is_not_open(small: Lab) -> None:
    view = small.inspect("cache")
    cell(view, "L1H1").click()
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.command("docmanager:open", path=small.write_notebook("second.ipynb", TINY.replace("cache =", "second =")))
    small.wait_for_notebook("second.ipynb")
    expect(small.sidebar.get_by_label("Kernel")).to_contain_text("second.ipynb (the one in focus)")
    expect(small.sidebar.get_by_text("This kernel has no activation cache yet")).to_be_visible(timeout=FOLLOWS)
    small.run_all()
    expect(small.caches).to_have_count(1, timeout=FOLLOWS)
    expect(small.caches).to_contain_text("second")

    # Focusing a notebook, or choosing it in the menu, shows its kernel again with the unchanged picture.
    small.command("docmanager:open", path="small.ipynb")
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible()
    choice = small.sidebar.get_by_role("combobox", name="Kernel")
    choice.select_option("=second.ipynb")
    expect(small.caches).to_contain_text("second")

    # After a notebook is closed, its kernel continues to run, and its cache is still shown.
    small.command("docmanager:open", path="second.ipynb")
    small.command("docmanager:save")
    small.command("application:close")
    expect(small.caches).to_contain_text("second")
    expect(small.chosen).to_have_text("second")
    expect(small.shown).to_have_attribute("data-state", "ready", timeout=FOLLOWS)  # over a separate connection

    small.command("console:create", path="", kernelPreference={"name": "tests"}, activate=True)
    choice.select_option("")
    expect(choice).to_contain_text("console", ignore_case=True)
    expect(small.sidebar.get_by_text("This kernel has no activation cache yet").filter(visible=True)).to_be_visible(
        timeout=MODEL
    )
    # Now no view shows a cache of the closed notebook's kernel, so the connection to this kernel is closed.
    expect(small.sidebar.locator(".rs-part")).to_have_count(2)


def test_a_renamed_notebook_keeps_its_view(small: Lab) -> None:
    view = small.inspect("cache")
    cell(view, "L1H1").click()
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.evaluate("async () => { await window.jupyterapp.shell.currentWidget.context.rename('renamed.ipynb'); }")
    expect(small.sidebar.get_by_label("Kernel")).to_contain_text("renamed.ipynb (the one in focus)")
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    small.ready(view)
    expect(small.caches).to_have_count(1)
    assert len(small.python(OURS)) == 1


# --- while a cell runs ----------------------------------------------------------------------------------------------
LOOPS = {
    "sleep": "time.sleep(0.2)",
    "numpy": "np.sort(np.random.rand(300_000))",
    "torch": "torch.randn(300, 300) @ torch.randn(300, 300)",
    "python": "sum(range(50_000))",
}


def test_the_sidebar_gets_answers_while_a_cell_runs(small: Lab) -> None:
    view = small.inspect("cache")
    running = "window.jupyterapp.shell.currentWidget.content.activeCell.model.executionState"
    for head, loop in zip(
        ("L0H0", "L0H1", "L1H0", "L1H1"), LOOPS.values(), strict=True
    ):  # heads that were not shown before
        small.start_cell(f"import time, numpy as np\nwhile True: {loop}")
        cell(view, head).click()
        card = view.get_by_role("region", name=f"Attention {head}", exact=True)
        expect(card).to_be_visible(timeout=FOLLOWS)
        expect(card).not_to_have_class(re.compile("rs-waiting"), timeout=FOLLOWS)
        small.ready(view)
        assert small.page.evaluate(f"() => {running}") == "running"
        small.interrupt()
        small.page.wait_for_function(f"() => {running} === 'idle'")


def test_the_sidebar_attaches_to_a_kernel_that_is_busy_when_the_page_is_loaded(small: Lab) -> None:
    small.start_cell("import time\nwhile True: time.sleep(0.2)")
    small.reload()
    small.open_sidebar()
    expect(small.caches).to_have_count(1, timeout=FOLLOWS)
    view = small.inspect("cache")
    assert len(cells(view)) > 0
    small.interrupt()


@pytest.fixture
def old_kernel(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A kernel without subshells: ipykernel 6 comes first on the path."""
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
    lab.start_cell("import time\nfor _ in range(60): time.sleep(0.1)")
    sidebar = lab.open_sidebar()
    expect(sidebar.get_by_text("Waiting for the running cell")).to_be_visible(timeout=FOLLOWS)
    expect(lab.caches).to_have_count(1, timeout=FOLLOWS)
    view = lab.inspect("cache")
    lab.start_cell("for _ in range(40): time.sleep(0.1)")
    cell(view, "L2H0").click()
    expect(view.get_by_text("Waiting for the kernel: it may be running a cell")).to_be_visible(timeout=FOLLOWS)
    expect(view.get_by_text("Waiting for the kernel")).to_be_hidden(timeout=FOLLOWS)
    lab.ready(view)


def heads_asked(lab: Lab) -> Callable[[], list[str]]:
    """Return a function that lists the heads whose attention the page requests from now on."""
    lab.evaluate(
        """async () => {
            window.heads = [];
            const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
            kernel.anyMessage.connect((_, { msg, direction }) => {
                const ask = direction === "send" ? msg.content.data?.ask : undefined;
                if (ask?.kind === "attention") window.heads.push(`L${ask.layer}H${ask.head}`);
            });
        }"""
    )

    return lambda: lab.page.evaluate("() => window.heads")


def test_heads_are_requested_ahead_while_the_kernel_is_idle_and_not_while_a_cell_runs(small: Lab) -> None:
    view = small.inspect("cache")
    asked = heads_asked(small)
    small.start_cell("import time\nwhile True: time.sleep(0.01)")
    for head in ("L0H0", "L1H2"):
        cell(view, head).hover()
        expect(view.get_by_role("region", name=f"Attention {head}")).not_to_have_class(re.compile("rs-waiting"))
    assert asked() == ["L0H0", "L1H2"]
    small.interrupt()  # the pointer does not move
    small.until(asked, lambda heads: {"L0H2", "L2H2", "L1H1"} <= set(heads))
    assert len(asked()) <= 2 + 4 + 4  # two heads under the pointer, the neighbours of L1H2, the strongest heads
    cell(view, "L0H1").hover()
    small.until(asked, lambda heads: {"L0H1", "L1H1", "L0H2"} <= set(heads))
    heads = asked()  # read once, because more may be requested meanwhile
    assert len(heads) == len(set(heads))


def test_heads_are_requested_ahead_after_the_kernel_was_busy_without_a_cell(lab: Lab) -> None:
    slow = "class Slow:\n    def __repr__(self): return str(__import__('time').sleep(3))\nslow = Slow()"
    lab.open(lab.write_notebook("small.ipynb", f"{TINY}\n{slow}"))
    lab.run_all()
    lab.evaluate(
        """async () => {
            const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
            void kernel.requestInspect({ code: "slow", cursor_pos: 4, detail_level: 0 });
        }"""
    )
    lab.page.wait_for_function(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'busy'"
    )
    lab.open_sidebar()
    view = lab.inspect("cache")
    asked = heads_asked(lab)
    cell(view, "L1H1").hover()
    lab.until(asked, lambda heads: {"L1H1", "L0H1", "L2H1", "L1H0", "L1H2"} <= set(heads))


# --- the target ------------------------------------------------------------------------------------------------------
VARIABLES = """
answer_tokens = torch.tensor([[5, 6], [7, 8], [9, 10]])
too_many = torch.zeros(4, 2, dtype=torch.long)
direction = model.W_U[:, 5] - model.W_U[:, 6]
globals()["<img src=x onerror=alert(1)>"] = globals()["\\u202egnirts"] = [5, 7, 9]
"""
CHOSEN = "logits[:, -1].gather(1, answer_tokens).diff(dim=1).neg().mean().item()"


def signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def test_the_targets_menu_offers_variables_of_the_notebook(small: Lab) -> None:
    small.run_cell(VARIABLES)
    view = small.inspect("cache")
    small.start_cell("import time\nwhile True: time.sleep(0.01)")
    view.get_by_role("button", name="answer:").click()
    offered = view.get_by_role("group", name="From the notebook").get_by_role("option")
    expect(offered).to_have_text(
        [
            "answer_tokens[3, 2] ids",
            "direction[24] direction",
            'globals()["<img src=x onerror…3 ids',
            'globals()["\\u202egnirts"]3 ids',
        ],
        timeout=FOLLOWS,
    )
    view.get_by_role("combobox", name="Token for the answer").fill("ANSWER_")
    expect(offered).to_have_count(1)
    offered.first.click()
    expect(view.get_by_role("button", name="answer: each prompt’s answer")).to_be_focused(timeout=FOLLOWS)
    running = "window.jupyterapp.shell.currentWidget.content.activeCell.model.executionState"
    assert small.page.evaluate(f"() => {running}") == "running"
    small.interrupt()
    small.page.wait_for_function(f"() => {running} === 'idle'")
    expected = small.python(CHOSEN)
    badge = view.get_by_role("status")
    expect(badge).to_contain_text(
        f"✓ rows sum to {signed(expected)} · the model’s own mean logit difference", timeout=FOLLOWS
    )
    view.get_by_role("button", name="answer:").click()
    offered.filter(has_text="direction").click()
    expect(view.locator(".rs-target-line")).to_contain_text("value along direction")
    along = "((cache['ln_final.hook_normalized'] * model.ln_final.weight)[:, -1] @ direction).mean().item()"
    expect(badge).to_contain_text(f"✓ rows sum to {signed(small.python(along))}", timeout=FOLLOWS)


def test_one_answer_for_all_prompts_is_a_plain_logit_and_a_message_says_so(small: Lab) -> None:
    view = small.inspect("cache")
    view.get_by_role("button", name="answer: each prompt’s top token").click()
    view.get_by_role("listbox", name="Tokens").get_by_role("option").filter(has_not_text="what came next").nth(
        1
    ).click()
    said = view.locator(".rs-target-said")
    expect(said).to_contain_text("Each prompt’s second token was dropped")
    expect(view.get_by_role("button", name="minus …")).to_be_visible()
    token = small.python("logits[:, -1].softmax(-1).mean(0).topk(2).indices[1].item()")
    expected = small.python(f"logits[:, -1, {token}].mean().item()")
    expect(view.get_by_role("status")).to_contain_text(
        f"✓ rows sum to {signed(expected)} · the model’s own mean logit", timeout=FOLLOWS
    )
    said.get_by_role("button", name="Dismiss").click()
    expect(said).to_be_hidden()


# --- many caches, and the collapsed list ------------------------------------------------------------------------------
def test_a_single_cache_is_shown_when_the_sidebar_is_opened_and_not_earlier(lab: Lab) -> None:
    lab.open(lab.write_notebook("small.ipynb", TINY))
    lab.run_all()
    assert lab.python("'residscope' in __import__('sys').modules") is False
    lab.open_sidebar()  # the only click
    expect(lab.shown.get_by_role("grid", name="Head map")).to_be_visible(timeout=FOLLOWS)
    assert len(cells(lab.ready(lab.shown))) > 0
    expect(lab.sidebar.get_by_role("list", name="Activation caches")).to_be_hidden()


def test_of_two_caches_none_is_opened_and_a_sentence_explains_the_sidebar(lab: Lab) -> None:
    lab.open(lab.write_notebook("two.ipynb", TINY, "other = tiny.run(model)[2]"))
    sidebar = lab.open_sidebar()
    first = sidebar.locator(".rs-first")
    expect(first).to_contain_text("contributes to a model’s prediction", timeout=FOLLOWS)
    expect(first).to_be_visible()
    lab.run_all()
    expect(lab.caches).to_have_count(2, timeout=FOLLOWS)
    expect(sidebar.get_by_role("list", name="Activation caches")).to_be_visible()
    expect(first).to_contain_text("choose a cache")
    expect(first).to_be_visible()
    expect(lab.shown).to_have_count(0)
    lab.inspect("other")
    expect(first).to_be_hidden()


def test_the_list_can_be_collapsed_and_the_header_has_three_lines(small: Lab) -> None:
    small.run_cell("other = tiny.run(model)[2]")
    view = small.inspect("other")
    folded = small.sidebar.get_by_role("list", name="Activation caches")
    expect(folded).to_be_hidden()
    expect(small.chosen).to_be_focused()  # the clicked row is no longer visible
    expect(view.locator(".rs-count")).to_have_text("2 of 2")
    header = view.locator(".rs-header").bounding_box()
    assert header
    assert header["height"] <= 3 * 30
    before = view.get_by_role("grid", name="Head map").bounding_box()
    for leave in ("Escape", "elsewhere", "the button"):
        small.open_list()
        assert view.get_by_role("grid", name="Head map").bounding_box() == before  # the list covers the view
        expect(folded.get_by_role("button", name=re.compile("^other"))).to_be_focused()
        if leave == "Escape":
            small.page.keyboard.press("Escape")
        elif leave == "elsewhere":
            view.locator(".rs-rank h3").click()
        else:
            small.chosen.click()
        expect(folded).to_be_hidden()
    small.open_list()
    small.page.keyboard.press("ArrowUp")
    small.page.keyboard.press("Enter")
    expect(small.chosen).to_have_text("cache", timeout=FOLLOWS)
    expect(folded).to_be_hidden()


def test_each_of_thirty_caches_has_one_line_and_the_list_can_be_filtered(lab: Lab) -> None:
    runs = "runs = {f'seed {i}': type(cache)(dict(cache.cache_dict), model) for i in range(29)}"
    lab.open(lab.write_notebook("many.ipynb", TINY, runs))
    lab.run_all()
    sidebar = lab.open_sidebar()
    expect(lab.caches).to_have_count(30, timeout=FOLLOWS)
    expect(sidebar.get_by_text("30 caches")).to_be_visible()
    tall = [row.bounding_box() for row in lab.caches.all()]
    assert all(box and box["height"] < 26 for box in tall)
    field = sidebar.get_by_role("searchbox", name="Filter the caches")
    field.fill("seed 2")
    expect(lab.caches).to_have_count(11)  # 2, 12, 20 to 28
    expect(sidebar.get_by_text("11 of 30")).to_be_visible()
    field.press("ArrowDown")
    lab.page.keyboard.type("7")  # a typed character goes into the field
    expect(lab.caches).to_have_count(1)
    field.press("Enter")
    expect(lab.chosen).to_have_text('runs["seed 27"]', timeout=FOLLOWS)
    lab.ready(lab.shown)
    lab.open_list()
    expect(lab.caches).to_have_count(30)
    expect(lab.caches.filter(has=lab.page.locator("[aria-current=true]"))).to_contain_text("3 × 4 heads")
    lab.page.keyboard.press("Escape")
    expect(lab.chosen).to_be_focused()
