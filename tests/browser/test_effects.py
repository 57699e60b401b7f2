"""Effects that are measured in runs of the user's model, and runs without some heads, in the panel and the sidebar.

Expected: values from TransformerLens' own `run_with_hooks`, with the outputs of heads set to zero. The test of the mean
over the prompts compares with numbers that are written in it.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.support.demo_panel import SETUP, settled
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS

ONE = "import torch\nwith torch.no_grad(): _, cache = run.model.run_with_cache(run.tokens[:1])"
INSPECT = "panel = residscope.inspect(cache, answers=(' Mary', ' John'))"
BY_HAND = """
import torch
a, b = (run.model.to_single_token(word) for word in (" Mary", " John"))
tokens = run.tokens[: cache["z", 0].shape[0]]
def difference(logits):
    last = logits[:, 14].double()
    return float((last[:, a] - last[:, b]).mean())
def without(*heads):
    def zero(z, hook):
        layer = int(hook.name.split(".")[1])
        for at, head in heads:
            if at == layer:
                z[:, :, head] = 0
        return z
    names = {f"blocks.{layer}.attn.hook_z" for layer, _ in heads}
    with torch.no_grad():
        return run.model.run_with_hooks(tokens, fwd_hooks=[(name, zero) for name in names])
def total(layer, head):
    return difference(cache["unembed.hook_out"]) - difference(without((layer, head)))
"""
MEASURES = 300_000  # milliseconds; long, because the machine may be busy
STATE = (
    "[sorted(n for n in globals() if not n.startswith('_')), run.model.training, torch.is_grad_enabled(), "
    "torch.get_rng_state().sum().item(), sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in "
    "run.model.modules()), float(cache['z', 23].double().sum()), get_ipython().execution_count]"
)


@pytest.fixture
def opened(lab: Lab) -> tuple[Lab, Locator]:
    """A notebook with a drawn panel of one prompt. Its kernel has the functions that compute the expected values."""
    lab.open(lab.write_notebook("effects.ipynb", SETUP, ONE, BY_HAND, INSPECT))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    return lab, panel


def words(panel: Locator, head: str) -> str:
    """Return the text of a head's cell."""
    return panel.locator(f'[role=gridcell][data-head="{head}"]').get_attribute("aria-label") or ""


def numbers(panel: Locator, head: str) -> dict[str, float]:
    """Return the effects in a head's cell, by their names."""
    found = re.findall(r"(total|direct|indirect) ([+−]?[\d.]+)", words(panel, head))
    return {name: float(value.replace("−", "-")) for name, value in found}


def is_measured(panel: Locator, head: str, timeout: float = MEASURES) -> None:
    """Wait until the total effect of a head is measured."""
    cell = panel.locator(f'[role=gridcell][data-head="{head}"]')
    expect(cell).to_have_attribute("aria-label", re.compile("total "), timeout=timeout)


def progress(panel: Locator) -> Locator:
    """The line with the progress of the runs."""
    return panel.locator(".rs-heads .rs-effects-state")


def test_total_and_direct_effects_by_a_click(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    before = lab.python(STATE)
    panel.get_by_role("button", name="total", exact=True).click()
    lab.becomes("panel.effect", "total")
    expect(panel.locator(".rs-heads .rs-replayed")).to_contain_text("✓ an unchanged run gives", timeout=MEASURES)
    for layer, head in ((23, 3), (29, 1), (23, 0)):  # the strongest heads are measured first
        is_measured(panel, f"L{layer}H{head}")
        shown = numbers(panel, f"L{layer}H{head}")
        assert shown["total"] == pytest.approx(lab.python(f"total({layer}, {head})"), abs=2e-3)
        assert shown["indirect"] == pytest.approx(shown["total"] - shown["direct"], abs=2e-3)
    panel.get_by_role("button", name="stop", exact=True).click()
    assert lab.python(STATE) == before

    # The first head of the ranking has at least the total effect of L23H3. Direct effects can be shown again.
    top = panel.locator(".rs-ranking .rs-name").first.inner_text()
    assert numbers(panel, top)["total"] >= numbers(panel, "L23H3")["total"]
    direct = numbers(panel, "L23H3")["direct"]
    panel.get_by_role("button", name="direct", exact=True).click()
    shown = re.search(r"[+−][\d.]+", words(panel, "L23H3"))
    assert shown
    assert float(shown[0].replace("−", "-")) == pytest.approx(direct, abs=6e-3)


def test_the_mean_over_the_prompts_of_the_demo(lab: Lab) -> None:
    lab.open(lab.write_notebook("mean.ipynb", SETUP, "panel = residscope.inspect(cache, answers=run.answers)"))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    panel.get_by_role("button", name="total", exact=True).click()
    for head, total, direct in (("L23H3", 2.650, 2.240), ("L23H0", 0.095, 0.774)):
        is_measured(panel, head, 2 * MEASURES)
        assert numbers(panel, head)["total"] == pytest.approx(total, abs=2e-3)
        assert numbers(panel, head)["direct"] == pytest.approx(direct, abs=2e-3)


def test_measuring_can_be_stopped_and_goes_on(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    panel.get_by_role("button", name="total", exact=True).click()
    expect(progress(panel)).to_contain_text(re.compile(r"measuring [1-9]"), timeout=MEASURES)
    panel.get_by_role("button", name="stop", exact=True).click()
    expect(progress(panel)).to_contain_text("measured", timeout=1000)
    expect(panel.get_by_role("button", name="go on")).to_be_visible()
    # The user's next cell runs at once, and the panel does not continue without a click.
    lab.run_cell("after_the_stop = 1")
    lab.becomes("after_the_stop", 1)
    said = progress(panel).inner_text()
    assert 0 < int(said.split(" of ")[0]) < 270
    lab.run_cell("import time; time.sleep(1)")
    assert progress(panel).inner_text() == said
    assert "(estimate)" in words(panel, "L0H0")

    # A change of the position also ends the measurement, and no run is made for the new position.
    panel.get_by_role("button", name="go on").click()
    expect(progress(panel)).to_contain_text("measuring")
    panel.locator(".rs-token").nth(10).click()
    expect(panel.locator(".rs-heads").get_by_role("button", name="measure")).to_be_visible()


@pytest.mark.parametrize(
    "cell",
    [
        "import time; time.sleep(4); ended.append(1)",
        "import asyncio; await asyncio.sleep(4); ended.append(1)",
        "import time; time.sleep(4); ended.append(1); 1 / 0",  # the kernel then cancels the queued requests
    ],
    ids=["a cell", "an async cell", "a cell that fails"],
)
def test_measuring_waits_for_the_running_cell(opened: tuple[Lab, Locator], cell: str) -> None:
    lab, panel = opened
    lab.run_cell("ended = []")
    lab.start_cell(cell)
    panel.get_by_role("button", name="total", exact=True).click()
    expect(progress(panel)).to_contain_text("waits for the running cell", timeout=3000)
    assert "total" not in words(panel, "L23H3")
    expect(progress(panel)).to_contain_text("measuring", timeout=30_000)
    assert lab.python("ended") == [1]
    panel.get_by_role("button", name="stop", exact=True).click()


def test_a_run_without_heads_is_compared_with_the_cache(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    panel.locator('[role=gridcell][data-head="L23H3"]').click()
    panel.locator(".rs-take-out").click()
    badge = panel.locator(".rs-badge")
    expect(badge).to_contain_text("an unchanged run gives", timeout=MEASURES)
    settled(panel)
    lab.becomes("panel.against['without']", ["L23H3"])
    own = re.search(r"\(([+−][\d.]+) → ([+−][\d.]+)\)", badge.inner_text())
    assert own
    panel.locator("[data-run=second]").click()
    settled(panel)
    measured = re.search(r"rows(?: and constant)? sum to ([+−][\d.]+)", badge.inner_text())
    assert measured
    wanted = lab.python("difference(without((23, 3)))")
    assert float(measured[1].replace("−", "-")) == pytest.approx(wanted, abs=2e-3)
    cached = lab.python("difference(without())")
    assert [float(one.replace("−", "-")) for one in own.groups()] == pytest.approx([cached, wanted], abs=2e-3)

    # The key `t` leaves out a second head. Then the first head is restored. Restoring the second ends the comparison.
    panel.locator('[role=gridcell][data-head="L29H1"]').click()
    panel.locator('[role=gridcell][data-head="L29H1"]').focus()
    lab.page.keyboard.press("t")
    lab.becomes("panel.against['without']", ["L23H3", "L29H1"])
    settled(panel)
    wanted = lab.python("difference(without((23, 3), (29, 1)))")
    expect(badge).to_contain_text(re.compile(rf"sum to .{abs(wanted):.3f}"), timeout=MEASURES)
    panel.get_by_role("button", name="Put L23H3 back").click()
    settled(panel)
    panel.get_by_role("button", name="Put L29H1 back").click()
    lab.becomes("panel.against", None)
    expect(badge).to_contain_text("the model’s own logit difference")


def test_in_the_sidebar_measuring_does_not_count_as_a_cell_and_a_reload_runs_nothing(lab: Lab) -> None:
    lab.open(lab.write_notebook("sidebar.ipynb", SETUP, ONE, BY_HAND))
    lab.open_sidebar()
    lab.run_all()
    expect(lab.caches).to_have_count(2, timeout=FOLLOWS)  # `cache` and `run.cache`
    view = lab.inspect("cache")
    listed = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
    lab.page.evaluate(
        f"""() => {{
            window.asked = [];
            {listed}.anyMessage.connect((_, {{ msg, direction }}) => {{
                if (direction === "send" && msg.content?.data?.ask) window.asked.push(msg.content.data.ask.kind);
            }});
        }}"""
    )
    view.get_by_label("What colours the head map").select_option("effect total")
    state = progress(view)
    expect(state).to_contain_text(re.compile(r"measuring [1-9]"), timeout=MEASURES)
    is_measured(view, "L23H3")
    view.get_by_role("button", name="stop", exact=True).click()
    # The sidebar's target is the model's own two top predictions.
    wanted = lab.python("total(23, 3)", before='a, b = cache["unembed.hook_out"][0, 14].topk(2).indices.tolist()')
    assert numbers(view, "L23H3")["total"] == pytest.approx(wanted, abs=2e-3)
    asked = lab.page.evaluate("() => window.asked")
    assert asked.count("effects") > 1
    assert asked.count("caches") <= 1  # after a cell, the sidebar would request the list again

    lab.reload('"effect": "total"')
    view = lab.sidebar.get_by_role("region", name="Residscope", exact=True)
    lab.ready(view)
    expect(progress(view)).to_be_visible()
    expect(progress(view)).not_to_contain_text("measuring")
