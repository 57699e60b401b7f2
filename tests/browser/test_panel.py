"""The panel in a real JupyterLab on the real demo model: gestures, pictures, and the panel's values in Python."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.support.demo_panel import INSPECT, SETUP, settled
from tests.support.lab import MODEL, Lab
from tests.support.sidebar import FOLLOWS, TINY, cache_status, cell, cells, token_names


@pytest.fixture
def opened(lab: Lab) -> tuple[Lab, Locator]:
    """A notebook with a drawn panel."""
    lab.open(lab.write_notebook("panel.ipynb", SETUP, INSPECT))
    lab.run_all()
    return lab, lab.panel()


def size(panel: Locator) -> tuple[float, float]:
    box = panel.bounding_box()
    assert box
    return box["width"], box["height"]


def sentence(panel: Locator) -> Locator:
    return panel.locator(".rs-sentence")


def said(panel: Locator) -> list[str]:
    """Return the texts of the head map's cells."""
    return (
        panel.get_by_role("grid", name="Head map")
        .get_by_role("gridcell")
        .evaluate_all("cells => cells.map(cell => cell.getAttribute('aria-label'))")
    )


def in_python(lab: Lab, expression: str, expected: Any) -> None:
    """Wait until an expression has this value in the kernel. (A gesture reaches the kernel with a delay.)"""
    lab.becomes(f"repr({expression})", repr(expected))


def point_at(panel: Locator, head: str, q: int, k: int, positions: int = 15) -> None:
    """Move the pointer to a cell of a head's attention matrix."""
    canvas = panel.get_by_role("region", name=f"Attention {head}", exact=True).locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    x, y = (k + 0.5) / positions * box["width"], (q + 0.5) / positions * box["height"]
    canvas.hover(position={"x": x, "y": y})


def test_from_the_strongest_head_to_its_attention_and_to_python(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    expect(panel.get_by_role("status")).to_contain_text("rows sum to +4.724")
    values = cells(panel)
    grid = lab.python("residscope.attribute(cache, answers).grid.mean(-1).tolist()")
    assert values == {f"L{i}H{j}": pytest.approx(v, abs=5e-3) for i, row in enumerate(grid) for j, v in enumerate(row)}

    strongest = max(values, key=values.__getitem__)
    assert strongest == "L23H3"
    cell(panel, strongest).hover()  # previews
    card = panel.get_by_role("region", name="Attention L23H3", exact=True)
    expect(card).to_be_visible(timeout=FOLLOWS)
    cell(panel, strongest).click()  # pins
    expect(cell(panel, strongest)).to_have_attribute("aria-selected", "true")
    in_python(lab, "panel.heads", ["L23H3"])
    expect(card).to_have_count(1)

    panel.get_by_role("button", name="Next prompt").click()
    in_python(lab, "panel.prompt", 0)
    settled(panel)
    expect(panel.get_by_role("status")).to_contain_text("rows sum to +4.616")
    for q, k in [(14, 10), (14, 4), (8, 2), (3, 3)]:
        names = token_names(lab.python("run.model.to_str_tokens(run.tokens[0])"))
        attention = lab.python(f"float(cache['pattern', 23][0, 3, {q}, {k}])")
        point_at(panel, "L23H3", q, k)
        expect(sentence(panel)).to_contain_text(
            f"L23H3: “{names[q]}” (destination {q}) reads “{names[k]}” (source {k}): attention {attention:.2f}"
        )
    point_at(panel, "L23H3", 14, 10)
    expect(sentence(panel)).to_contain_text("contributes +1.83 to the logit difference")
    assert cells(panel)["L23H3"] == pytest.approx(1.73)

    cell(panel, "L23H3").click()  # unpins
    in_python(lab, "panel.heads", [])


@pytest.mark.parametrize(
    "selection",
    ["", "panel.prompt, panel.position, panel.heads, panel.norm = 1, 3, ['1.2', '0.0'], 'recomputed'",
     "panel.ranking, panel.layer, panel.score, panel.weighting, panel.heads = 'neurons', 1, 'first', 'value', '2.1'"],
)  # fmt: skip
def test_a_panel_draws_the_prefetched_replies_and_requests_no_values(lab: Lab, selection: str) -> None:
    made = f"import residscope\npanel = residscope.inspect(cache, show=False)\n{selection}\npanel.prepare()"
    lab.open(lab.write_notebook("opening.ipynb", TINY, made))
    lab.run_all()
    lab.evaluate(
        """async () => {
            window.asked = [];
            const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
            kernel.anyMessage.connect((_, { msg, direction }) => {
                const ask = direction === "send" ? msg.content.data?.content?.ask : undefined;
                if (ask) window.asked.push(ask.kind);
            });
        }"""
    )
    lab.run_cell("panel.show()")
    first = lab.panel()
    in_python(lab, "panel.opening", {})
    assert lab.page.evaluate("() => window.asked") == ["presence"]  # only reports that the view is shown
    figures = said(first)
    assert figures
    assert not any("not known" in figure for figure in figures)

    lab.run_cell("panel.show()")  # the second view sends requests; its JavaScript is already in the page
    second = lab.panel(1)
    assert said(second) == figures
    assert lab.page.evaluate("() => window.asked").count("attribute") == 3
    shared = "() => Object.getOwnPropertySymbols(window).map(String).filter(name => name.includes('residscope')).length"
    assert lab.page.evaluate(shared) == 1


def test_the_view_follows_python(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    lab.python("panel.heads", before="panel.heads = ['23.3', (29, 0)]")
    for head in ("L23H3", "L29H0"):
        expect(panel.get_by_role("region", name=f"Attention {head}", exact=True)).to_be_visible(timeout=FOLLOWS)
        expect(cell(panel, head)).to_have_attribute("aria-selected", "true")
    lab.python("0", before="panel.prompt = 4; panel.target = (' Sid', ' Dan'); panel.position = 11")
    expected = lab.python("float(residscope.attribute(cache, (' Sid', ' Dan'), position=11).measured[4])")
    expect(panel.get_by_role("status")).to_contain_text(f"{expected:+.3f}".replace("-", "−"), timeout=FOLLOWS)
    strip = panel.get_by_role("listbox", name="Destination position")
    expect(strip.get_by_role("option", selected=True)).to_have_attribute("aria-label", "gave, position 11")
    lab.python("0", before="panel.prompt = None; panel.target = answers; panel.position = 'last'")
    expect(panel.get_by_role("status")).to_contain_text("rows sum to +4.724", timeout=FOLLOWS)


def test_neurons_of_a_layer_and_the_badge_in_words(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    panel.get_by_role("button", name="Neurons", exact=True).click()
    listed = panel.get_by_role("list", name="Top neurons")
    expect(listed.get_by_role("listitem").first).to_be_visible(timeout=FOLLOWS)
    in_python(lab, "panel.ranking", "neurons")
    lab.python("0", before="panel.layer = 29")
    top = lab.python("residscope.attribute(cache, answers, by='neuron', layers=29).top(5)")
    for name, value in top:
        item = listed.get_by_role("listitem").filter(has_text=re.compile(rf"{name}\b"))
        expect(item).to_contain_text(f"{value:+.2f}".replace("-", "−"), timeout=FOLLOWS)
    settled(panel)
    panel.get_by_role("status").get_by_role("button").click()
    words = panel.get_by_role("group", name="How the rows add up")
    expect(words).to_contain_text("add up to the model’s own")
    expect(words).to_contain_text("unembed.hook_out")


def test_a_model_without_heads_in_some_layers_says_so(lab: Lab) -> None:
    setup = "import residscope\nfrom tests.support import tiny\n_, _, cache = tiny.run(tiny.boot('qwen3_5_text'))"
    lab.open(lab.write_notebook("hybrid.ipynb", setup, "panel = residscope.inspect(cache, (5, 6))"))
    lab.run_all()
    panel = lab.panel()
    expect(panel.get_by_role("gridcell", name="L0H0 no attention")).to_be_visible()
    expect(panel.get_by_role("gridcell", name=re.compile(r"^L1H0 [+−]"))).to_be_visible()
    expect(panel.get_by_role("status")).to_contain_text("the model’s own mean logit difference")
    expect(panel.get_by_role("status")).to_contain_text("note")
    cell(panel, "L1H0").click()
    note = panel.get_by_role("region", name="Attention L1H0", exact=True).get_by_role("note")
    note.focus()
    expect(sentence(panel)).to_contain_text("gate what they have read")


def test_a_new_target_is_typed_and_checked(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    lab.python("0", before="panel.prompt = 0")
    expect(panel.get_by_role("status")).to_contain_text("rows sum to +4.616", timeout=FOLLOWS)
    panel.get_by_role("button", name="distractor: ·John").click()
    box = panel.get_by_role("combobox", name=re.compile("^Token for"))
    box.fill(" Josephine")
    expect(panel.get_by_text("is 2 tokens in this model")).to_be_visible(timeout=FOLLOWS)
    box.press("Enter")  # its first token is suggested, but not chosen
    expect(panel.get_by_text("is 2 tokens in this model")).to_be_visible()
    assert lab.python("panel.target[0]") == [" Mary", " John"]
    box.fill(" his")
    panel.get_by_role("option", name=re.compile("·his")).first.wait_for(timeout=FOLLOWS)
    box.press("Enter")
    in_python(lab, "panel.target[0]", (" Mary", " his"))
    in_python(lab, "panel.target[1]", (" John", " Mary"))  # the other prompts keep their answers
    expected = lab.python("float(residscope.attribute(cache, (' Mary', ' his')).measured[0])")
    expect(panel.get_by_role("status")).to_contain_text(f"{expected:+.3f}", timeout=FOLLOWS)


def test_enter_takes_what_was_typed_however_fast(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    lab.python("0", before="panel.target = (' Sid', ' John')")
    panel.get_by_role("button", name="answer: ·Sid").click()
    box = panel.get_by_role("combobox", name=re.compile("^Token for"))
    expect(panel.get_by_role("option").first).to_be_visible(timeout=FOLLOWS)  # the predictions have arrived
    box.press_sequentially(" M")
    box.press("Enter")
    in_python(lab, "panel.target", (" M", " John"))
    panel.get_by_role("button", name="answer: ·M").click()
    box.fill("Mary")
    expect(panel.get_by_text("This token has no leading space. Inside a sentence the token is “·Mary”.")).to_be_visible(
        timeout=FOLLOWS
    )


def test_keys_of_the_panel_do_not_move_or_cut_cells_of_the_notebook(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    active = """() => {
        const { content } = window.jupyterapp.shell.currentWidget;
        return [content.activeCellIndex, content.widgets.length];
    }"""
    before = lab.page.evaluate(active)
    ranking = panel.get_by_role("list", name="Top heads")
    ranking.get_by_role("button").first.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "x", "b", "d", "d"):
        lab.page.keyboard.press(key)
    expect(ranking.get_by_role("button").nth(1)).to_be_focused()
    cell(panel, "L0H0").focus()
    for key in ("x", "a", "ArrowDown"):
        lab.page.keyboard.press(key)
    expect(cell(panel, "L1H0")).to_be_focused()
    assert lab.page.evaluate(active) == before


@pytest.mark.parametrize("focused", ["a head", "the target"])
def test_a_click_on_the_prompt_of_the_cell_leaves_the_panel(opened: tuple[Lab, Locator], focused: str) -> None:
    lab, panel = opened
    cells = "() => window.jupyterapp.shell.currentWidget.content.widgets.length"
    before = lab.page.evaluate(cells)
    # Whether the cell is the active one makes a difference to JupyterLab. After this click, it is.
    (cell(panel, "L0H0") if focused == "a head" else panel.locator("[data-side=answer]")).click()
    around = lab.page.locator(".jp-CodeCell").filter(has=panel)
    around.locator(".jp-InputPrompt").click()
    expect(panel.locator(":focus")).to_have_count(0)
    expect(around).to_be_focused()
    lab.page.keyboard.press("b")
    lab.page.wait_for_function(f"count => ({cells})() === count + 1", arg=before)


def test_a_click_beside_the_output_leaves_the_panel(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    cell(panel, "L0H0").click()
    expect(panel.locator(":focus")).to_have_count(1)
    around = lab.page.locator(".jp-CodeCell").filter(has=panel)
    around.locator(".jp-OutputArea-promptOverlay").first.click(position={"x": 5, "y": 5})
    expect(panel.locator(":focus")).to_have_count(0)


def test_layer_labels_stand_beside_their_rows_on_a_small_model(lab: Lab) -> None:
    setup = "import residscope\nfrom tests.support import tiny\n_, _, cache = tiny.run(tiny.boot('gpt2'))"
    lab.open(lab.write_notebook("tiny.ipynb", setup, "panel = residscope.inspect(cache, (5, 6))"))
    lab.run_all()
    panel = lab.panel()
    labels = panel.locator(".rs-map-rows span")
    expect(labels).to_have_text(["0", "1", "2"])
    for layer in range(3):
        label, row = labels.nth(layer).bounding_box(), cell(panel, f"L{layer}H0").bounding_box()
        assert label
        assert row
        assert label["y"] + label["height"] / 2 == pytest.approx(row["y"] + row["height"] / 2, abs=2)


def test_heads_and_positions_can_be_chosen_by_keyboard(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    keyboard = lab.page.keyboard
    grid = panel.get_by_role("grid", name="Head map")
    grid.locator("[tabindex='0']").focus()
    keyboard.press("Control+Home")
    for _ in range(23):
        keyboard.press("ArrowDown")
    for _ in range(3):
        keyboard.press("ArrowRight")
    expect(cell(panel, "L23H3")).to_be_focused()
    expect(sentence(panel)).to_contain_text("L23H3 adds +2.24")
    keyboard.press("Enter")
    in_python(lab, "panel.heads", ["L23H3"])
    keyboard.press("ArrowLeft")
    keyboard.press("Space")
    in_python(lab, "panel.heads", ["L23H3", "L23H2"])
    keyboard.press("Escape")
    in_python(lab, "panel.heads", [])
    expect(panel.get_by_role("region", name=re.compile("^Attention L"))).to_have_count(0)

    strip = panel.get_by_role("listbox", name="Destination position")
    strip.get_by_role("option", selected=True).focus()
    for _ in range(4):
        keyboard.press("ArrowLeft")
    keyboard.press("Enter")
    in_python(lab, "panel.position", 10)
    settled(panel)
    expected = lab.python("residscope.attribute(cache, answers, position=10).grid[23, 3].mean().item()")
    assert cells(panel)["L23H3"] == pytest.approx(expected, abs=5e-3)
    keyboard.press("Escape")
    in_python(lab, "panel.position", 14)


def test_the_box_keeps_its_size_while_heads_are_previewed(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    for width, pinned in product([1900, 1440, 1100, 700], [[], ["L3H3"], ["L3H3", "L4H4"]]):
        lab.page.set_viewport_size({"width": width, "height": 1000})
        lab.python("0", before=f"panel.heads = {pinned}")
        expect(panel.get_by_role("gridcell", selected=True)).to_have_count(len(pinned))
        # An empty card, unless the pinned cards, or a single pinned card, use all the space.
        full = ".rs-cards:is(.rs-more, .rs-alone:not(:has(> .rs-placeholder:first-child)))"
        expect(panel.locator(f"{full}, .rs-cards > .rs-placeholder:visible")).to_have_count(1)
        slots = panel.locator(".rs-cards.rs-slots").count()
        sizes = [size(panel)] if slots or not pinned else []  # below the map, an empty card has only one line
        for head in ("L0H0", "L29H1", "L12H5"):
            cell(panel, head).hover()
            expect(panel.get_by_role("region", name=f"Attention {head}", exact=True)).to_be_visible(timeout=FOLLOWS)
            settled(panel)
            sizes.append(size(panel))
        assert sizes[1:] == [pytest.approx(sizes[0], abs=0.1)] * (len(sizes) - 1)
        lab.page.mouse.move(0, 0)
        cell(panel, "L0H0").focus()
        lab.page.keyboard.press("Escape")  # removes the pins and the preview
        in_python(lab, "panel.heads", [])  # else the kernel may read this gesture after the next round's assignment


def test_the_example_notebook_runs_to_its_end(lab: Lab) -> None:
    lab.start()
    lab.command("residscope:open-example", cwd="")
    lab.run_all()
    panel = lab.panel()
    expect(panel.get_by_role("region", name=re.compile("^Attention L"))).to_have_count(2, timeout=FOLLOWS)
    assert lab.python("[panel.heads, panel.prompt, panel.position]") == [["L23H3", "L29H0"], None, 14]


def test_the_panel_draws_while_its_cell_runs_and_says_that_it_waits(lab: Lab) -> None:
    lab.open(lab.write_notebook("busy.ipynb", SETUP, INSPECT + "\nimport time\nwhile True: time.sleep(0.05)"))
    lab.start_all()
    panel = lab.page.get_by_role("region", name="Residscope", exact=True)
    expect(panel.get_by_role("status")).to_contain_text("rows sum to +4.724", timeout=MODEL)
    panel.get_by_role("button", name="Next prompt").click()
    expect(panel.get_by_text("Waiting for the kernel")).to_be_visible(timeout=FOLLOWS)
    lab.interrupt()
    expect(panel.get_by_role("status")).to_contain_text("rows sum to +4.616", timeout=FOLLOWS)
    expect(panel.get_by_text("Waiting for the kernel")).to_be_hidden()


def test_a_restarted_kernel_leaves_the_last_picture_and_says_what_to_do(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    expect(panel.get_by_role("status")).to_contain_text("✓")
    lab.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    # The message comes before the panel has sent a request.
    expect(cache_status(panel)).to_contain_text("was lost when the kernel restarted", timeout=FOLLOWS)
    expect(cache_status(panel)).to_contain_text("Run the cell again")
    expect(panel.get_by_role("status")).not_to_contain_text("✓")
    expect(panel.get_by_role("status")).to_contain_text("from an earlier picture")
    expect(panel).to_have_attribute("data-state", "error")
    values = cells(panel)
    assert len(values) == 270
    cell(panel, "L0H0").click()
    # The last picture is not shown as that of another prompt. It comes back with its own selection.
    panel.get_by_role("button", name="Next prompt").click()
    expect(panel.get_by_text("Waiting for the kernel")).to_have_count(0)
    expect(panel.get_by_role("gridcell", name=re.compile("^L[0-9]+H[0-9]+ not known$"))).to_have_count(270)
    expect(panel.get_by_role("status")).to_contain_text("this selection was not read")
    panel.locator(".rs-prompt").get_by_role("button", name=re.compile("^mean")).click()
    expect(panel.get_by_role("status")).to_contain_text("from an earlier picture")
    assert cells(panel) == values
    lab.run_all()
    expect(lab.panel().get_by_role("status")).to_contain_text("✓")
