"""Two compared runs, chosen by clicks and by keyboard, in the panel and in the sidebar.

Expected: computed in float64 from TransformerLens' cache and weights. The norm of this model only scales, and its heads
write z @ W_O.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.test_attention import number
from tests.support.demo_panel import SETUP, settled
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS

INSPECT = "panel = residscope.inspect(cache, answers=(' Mary', ' John'), prompt=2)"
BY_HAND = """
import torch
a, b = (run.model.to_single_token(word) for word in (" Mary", " John"))
U = (run.model.W_U[:, a] - run.model.W_U[:, b]).detach().double()
w = run.model.ln_final.weight.detach().double()
def heads(cache, prompt):
    g = U * w / cache["ln_final.hook_scale"][prompt, 14].double()
    z = torch.stack([cache["z", layer][prompt, 14].double() for layer in range(30)])
    return torch.einsum("lhd,lhdm,m->lh", z, run.model.W_O.detach().double(), g)
def difference(cache, prompt):
    logits = cache["unembed.hook_out"][prompt, 14].double()
    return float(logits[a] - logits[b])
def written(layer, head, first, second):
    z = [cache["z", layer][prompt, 14, head].double() for prompt in (first, second)]
    g = sum(U * w / cache["ln_final.hook_scale"][prompt, 14].double() for prompt in (first, second)) / 2
    return float((z[1] - z[0]) @ run.model.W_O[layer, head].detach().double() @ g)
first, second = heads(cache, 2), heads(cache, 1)
"""


@pytest.fixture
def opened(lab: Lab) -> tuple[Lab, Locator]:
    """A notebook with a drawn panel at prompt 2. The expected values are in its kernel."""
    lab.open(lab.write_notebook("compare.ipynb", SETUP, BY_HAND, INSPECT))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    return lab, panel


def numbers(panel: Locator, head: str) -> list[float]:
    """Return the numbers of a cell: the shown one, then those of A and B."""
    label = panel.locator(f'[role=gridcell][data-head="{head}"]').get_attribute("aria-label") or ""
    return [float(found.replace("−", "-")) for found in re.findall(r"[+−][\d.]+", label)]


def test_prompt_2_against_prompt_1_by_clicks(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    first, second = lab.python("[first.tolist(), second.tolist()]")
    whole = lab.python("difference(cache, 1) - difference(cache, 2)")
    badge = panel.locator(".rs-badge")

    panel.get_by_role("button", name="Compare with another run").click()
    panel.get_by_role("option", name="prompt 1").click()
    settled(panel)
    lab.becomes("[(panel.against or {}).get(name, 9) for name in ('cache', 'prompt')]", [None, 1])
    expect(badge).to_contain_text("the difference of the two runs’ own logit differences")
    assert number(badge.inner_text(), r"✓ rows sum to ([+−][\d.]+)") == pytest.approx(whole, abs=6e-4)
    for layer, head in ((23, 3), (23, 1), (29, 0), (24, 4)):
        shown, in_a, in_b = numbers(panel, f"L{layer}H{head}")
        assert in_a == pytest.approx(first[layer][head], abs=6e-3)
        assert in_b == pytest.approx(second[layer][head], abs=6e-3)
        assert shown == pytest.approx(second[layer][head] - first[layer][head], abs=6e-3)

    # The ranking is by the size of the difference.
    names = panel.locator(".rs-ranking .rs-name").all_inner_texts()
    gaps = {f"L{layer}H{head}": second[layer][head] - first[layer][head] for layer in range(30) for head in range(9)}
    assert names == sorted(gaps, key=lambda name: -abs(gaps[name]))[: len(names)]

    # A difference has two parts. Heads write other vectors (checked for one head), and the target is read from the
    # vectors in another way (the line shows the sum of this part over all rows).
    values = lab.python(
        "[float(residscope.compare(cache, answers=(' Mary', ' John'), prompt=2, with_prompt=1).written["
        "23 * 9 + 3, 0]), written(23, 3, 2, 1)]"
    )
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    expect(panel.locator(".rs-read-line")).to_contain_text("is due to the norm or the target, not to what is written")

    for run, rows, name in (("second", second, "run B’s own logit difference"), ("first", first, "the model’s own")):
        panel.locator(f"[data-run={run}]").click()
        settled(panel)
        expect(badge).to_contain_text(name)
        assert numbers(panel, "L29H1")[0] == pytest.approx(rows[29][1], abs=6e-3)
    assert lab.python("panel.run") == "first"

    # Another prompt is compared with the same prompt 1, and a pinned head stays.
    panel.locator("[data-run=difference]").click()
    panel.locator('[role=gridcell][data-head="L23H3"]').click()
    panel.get_by_role("button", name="Next prompt").click()
    settled(panel)
    third, whole = lab.python("[heads(cache, 3).tolist(), difference(cache, 1) - difference(cache, 3)]")
    assert number(badge.inner_text(), r"✓ rows sum to ([+−][\d.]+)") == pytest.approx(whole, abs=6e-4)
    assert numbers(panel, "L23H3")[1] == pytest.approx(third[23][3], abs=6e-3)

    panel.get_by_role("button", name="End the comparison").click()
    settled(panel)
    expect(badge).to_contain_text("the model’s own logit difference")
    lab.becomes("panel.against", None)
    lab.python("0", before="panel.against = 1")
    settled(panel)
    expect(badge).to_contain_text("the difference of the two runs’")


def test_keys_alone_choose_another_cache_and_its_changes_are_noticed(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    keyboard = lab.page.keyboard
    lab.python("0", before="with torch.no_grad(): _, corrupted = run.model.run_with_cache(run.tokens.roll(1, 0))")
    panel.get_by_role("button", name="Next prompt").focus()
    for _ in range(20):
        if panel.get_by_role("button", name="Compare with another run").evaluate("n => n === document.activeElement"):
            break
        keyboard.press("Tab")
    keyboard.press("Enter")
    field = panel.get_by_role("combobox", name="Compare with")
    expect(field).to_be_focused()
    runs = panel.get_by_role("listbox", name="Runs to compare with").get_by_role("option")
    expect(runs).to_have_count(8)
    keyboard.type("corr")
    expect(runs).to_have_count(1)
    expect(runs).to_contain_text("corrupted")
    keyboard.press("Enter")
    settled(panel)
    badge = panel.locator(".rs-badge")
    whole = lab.python("difference(corrupted, 2) - difference(cache, 2)")
    assert number(badge.inner_text(), r"✓ rows sum to ([+−][\d.]+)") == pytest.approx(whole, abs=6e-4)
    expect(panel.get_by_role("button", name="Compared with corrupted")).to_be_focused()
    keyboard.press("Tab")
    keyboard.press("Tab")
    keyboard.press("Tab")
    keyboard.press("Enter")  # chooses B
    settled(panel)
    lab.becomes("panel.run", "second")
    assert numbers(panel, "L23H3")[0] == pytest.approx(lab.python("float(heads(corrupted, 2)[23, 3])"), abs=6e-3)

    # A change of the second run is noticed. After its deletion, a message says that there is no such cache.
    change = (
        "with torch.no_grad(): _, third = run.model.run_with_cache(run.tokens.roll(3, 0))\n"
        "for name, tensor in corrupted.cache_dict.items(): tensor.copy_(third[name])"
    )
    before = numbers(panel, "L23H3")[0]
    lab.python("0", before=change)
    panel.get_by_role("button", name="Next prompt").click()
    panel.get_by_role("button", name="Previous prompt").click()
    settled(panel)
    assert numbers(panel, "L23H3")[0] == pytest.approx(lab.python("float(heads(third, 2)[23, 3])"), abs=6e-3)
    assert abs(numbers(panel, "L23H3")[0] - before) > 0.1
    lab.python("0", before="del corrupted")
    panel.get_by_role("button", name="Previous prompt").click()
    settled(panel)
    expect(panel.locator(".rs-map-refusal")).to_contain_text("There is no activation cache corrupted in the notebook")


def test_the_two_runs_head_by_head_and_in_the_sidebar_after_a_reload(lab: Lab) -> None:
    run = "import torch\nwith torch.no_grad(): _, corrupted = run.model.run_with_cache(run.tokens.roll(1, 0))"
    lab.open(lab.write_notebook("runs.ipynb", SETUP, run, BY_HAND))
    lab.open_sidebar()
    lab.run_all()
    view = lab.inspect("cache")
    view.get_by_role("button", name="Next prompt").click()
    view.get_by_role("button", name="Compare with another run").click()
    view.get_by_role("option", name="corrupted").click()
    lab.ready(view)
    view.get_by_role("tab", name="Runs").click()
    plot = view.get_by_role("application", name="What each head adds in both runs.")
    expect(plot).to_be_visible()
    plot.focus()
    lab.page.keyboard.press("Home")
    lab.page.keyboard.press("Enter")
    pinned = view.locator('[role=gridcell][aria-selected="true"]')
    expect(pinned).to_have_count(1)
    head = pinned.get_attribute("data-head") or ""
    layer, index = map(int, head[1:].split("H"))
    shown = numbers(view, head)
    view.get_by_role("group", name="What is compared").get_by_role("button", name="Attention").click()
    lab.ready(view)
    maps = view.locator(".rs-run-row").first
    maps.focus()
    lab.page.keyboard.press("ArrowRight")  # the first source at the destination
    first, second = lab.python(f"[float(run['pattern', {layer}][0, {index}, 14, 0]) for run in (cache, corrupted)]")
    expect(view.locator(".rs-sentence")).to_contain_text(f"{first:.2f} in A, {second:.2f} in B")

    # A reload restores the comparison together with the layout.
    lab.reload('"cache": "corrupted"', '"tab": "runs"', f'"heads": ["{head}"]')
    view = lab.sidebar.get_by_role("region", name="Residscope", exact=True)
    expect(view.get_by_role("button", name="Compared with corrupted")).to_be_visible(timeout=FOLLOWS)
    lab.ready(view)
    assert numbers(view, head) == shown


def test_a_cell_that_makes_both_caches_again_mixes_no_old_run_with_a_new_one(lab: Lab) -> None:
    make = "\n".join(
        [
            "def made(*order):",
            "    with torch.no_grad():",
            "        return run.model.run_with_cache(tokens[list(order)])[1]",
            "tokens = run.tokens[:4]",
            "cache, clean = made(0, 1), made(2, 3)",
        ]
    )
    values = (
        "[[difference(cache, 0) for cache in (panel.cache, clean)], "
        "[(difference(cache, 0) + difference(cache, 1)) / 2 for cache in (panel.cache, clean)]]"
    )
    show = "panel = residscope.inspect(cache, answers=(' Mary', ' John'))\npanel.against = 'clean'"
    lab.open(lab.write_notebook("again.ipynb", SETUP, BY_HAND, make, show))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    badge, sums = panel.locator(".rs-badge"), re.compile(r"✓[^+−]*([+−][\d.]+)")
    old = lab.python(values)

    def has(expected: float) -> None:
        def read() -> float:
            found = sums.search(badge.inner_text())
            return float(found[1].replace("−", "-")) if found else float("nan")

        lab.until(read, lambda value: abs(value - expected) < 2e-3)

    has(old[1][1] - old[1][0])
    lab.run_cell("cache, clean = made(2, 3), made(1, 3)")
    new = lab.python(values)
    assert new[1][0] == pytest.approx(old[1][0])  # the panel has its own cache
    assert abs(new[1][1] - old[1][1]) > 0.01
    has(new[1][1] - new[1][0])  # at once
    expect(panel.locator(".rs-standing")).to_contain_text("This panel shows the earlier one")
    expect(badge).to_contain_text("A is the earlier cache")
    panel.get_by_text("prompt", exact=True).first.click()
    has(new[0][1] - new[0][0])
    lab.run_cell("del clean")
    expect(badge).to_contain_text("the rows cannot be added up")
    panel.locator('[role=gridcell][data-head="L23H3"]').hover()
    expect(panel.locator(".rs-sentence")).to_contain_text("L23H3 adds")
    expect(panel.locator(".rs-sentence")).not_to_contain_text("in B")
    expect(panel.locator(".rs-map-tip")).to_be_hidden()
