"""If a cache is deleted or changed, the sidebar says so, keeps the last picture, and keeps no tensor alive."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, HELD, TINY, cache_status, cell, cells, contribution


@pytest.mark.parametrize(
    ("code", "words", "label"),
    [
        ("cache = tiny.run(model)[2]", "is now another cache", "Show the new one"),
        ("cache.cache_dict['ln_final.hook_scale'] *= 2", "was changed in place", "Read it again"),
        (
            "with torch.no_grad(): [p.mul_(1.5) for p in model.parameters()]",
            "weights have changed",
            "Read it again",
        ),
    ],
    ids=["variable bound again", "changed in place", "weights changed"],
)
def test_a_message_tells_the_status_of_a_cache_and_offers_the_new_cache(
    small: Lab, code: str, words: str, label: str
) -> None:
    view = small.inspect("cache")
    cell(view, "L1H1").click()
    expect(view.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    before = cells(view)
    small.run_cell(code)
    expect(cache_status(view)).to_contain_text(words, timeout=FOLLOWS)
    expect(small.caches.filter(has_text=re.compile("now another cache|changed"))).to_have_count(1)
    assert cells(view) == before  # the last picture stays
    view.get_by_role("button", name=label).click()
    expect(cache_status(view)).to_have_count(0, timeout=FOLLOWS)
    small.ready(view)
    expect(cell(view, "L1H1")).to_have_attribute("aria-selected", "true")  # the selection stays
    if "weights" in words:  # the cache still holds activations of the old weights, so its rows do not add up
        expect(view.get_by_role("status")).to_contain_text("rows miss", timeout=FOLLOWS)
    elif "changed" in words:
        assert cells(view) != before


def test_a_cache_with_a_new_variable_is_shown_under_the_new_name(small: Lab) -> None:
    view = small.inspect("cache")
    before = cells(view)
    small.run_cell("import types\nrun = types.SimpleNamespace(cache=cache)\ncache = tiny.run(model)[2]")
    expect(view.locator(".rs-cache")).to_have_text("run.cache", timeout=FOLLOWS)
    expect(cache_status(view)).to_have_count(0)
    small.ready(view)
    assert cells(view) == before


def test_deleting_the_variable_frees_the_tensors_however_many_views_are_open(small: Lab) -> None:
    small.page.set_viewport_size({"width": 2000, "height": 1000})  # room beside the notebook
    view = small.inspect("cache")
    small.command("residscope:open-in-main-area")
    wide = small.ready(small.page.locator(".rs-view").get_by_role("region", name="Residscope", exact=True))
    for panel in (view, wide):
        cell(panel, "L2H1").click()
        expect(panel.get_by_role("region", name="Attention L2H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    before = cells(wide)
    # The notebook deletes its only reference. Residscope must not hold another one.
    small.command("docmanager:open", path="small.ipynb")
    small.run_cell("import weakref; gone = [weakref.ref(cache), weakref.ref(cache['z', 1])]; del cache")
    for panel in (view, wide):
        expect(cache_status(panel)).to_contain_text("was deleted: no variable refers to it", timeout=FOLLOWS)
    expect(small.caches.first).to_contain_text("deleted; its last picture stays")
    small.becomes("[ref() is None for ref in gone]", [True, True])  # a request may still be answered
    assert cells(wide) == before


@pytest.mark.parametrize("by", ["the notebook", "somebody else"])
def test_a_restarted_kernel_keeps_the_picture_and_the_new_cache_is_one_click_away(small: Lab, by: str) -> None:
    view = small.inspect("cache")
    before = cells(view)
    if by == "the notebook":
        small.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    else:
        [session] = small.server.request("/api/sessions")
        small.server.request(f"/api/kernels/{session['kernel']['id']}/restart", "POST")
        small.run_all()
    expect(cache_status(view)).to_contain_text("was lost when the kernel restarted", timeout=FOLLOWS)
    assert cells(view) == before
    small.run_all()
    view.get_by_role("button", name="Show the new one").click()
    expect(cache_status(view)).to_have_count(0, timeout=FOLLOWS)
    small.ready(view)
    assert cells(view) == pytest.approx(before)
    assert small.python(HELD)[0] == 1  # one connection, to the running kernel


def test_a_request_that_was_lost_on_the_way_is_sent_again(lab: Lab) -> None:
    lab.open(lab.write_notebook("lost.ipynb", TINY))
    lab.run_all()
    lab.evaluate(
        """async () => {
            const { kernel } = window.jupyterapp.shell.currentWidget.sessionContext.session;
            const send = kernel.sendControlMessage.bind(kernel);
            window.lost = 0;
            kernel.sendControlMessage = (message, ...how) =>
                message.header.msg_type === "create_subshell_request" && window.lost++ === 0
                    ? { done: new Promise(() => undefined) }
                    : send(message, ...how);
        }"""
    )
    lab.open_sidebar()
    expect(lab.caches).to_have_count(1, timeout=FOLLOWS)
    assert lab.page.evaluate("() => window.lost") == 2
    lab.inspect("cache")


def test_an_inline_panel_releases_its_cache_when_its_output_is_removed(small: Lab) -> None:
    small.run_cell(
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


FOLLOW = re.compile("^Follow")


def test_following_a_variable_shows_each_new_cache_automatically(small: Lab) -> None:
    view = small.inspect("cache")
    cell(view, "L1H1").click()
    pin = view.get_by_role("button", name=FOLLOW)
    expect(pin).to_have_attribute("aria-pressed", "false")
    pin.click()
    expect(pin).to_have_attribute("aria-pressed", "true")
    # The new cache is also shown if a variable still holds the old cache, and after a restart of the kernel.
    for kept in ("", "old = cache\n"):
        before = cells(view)
        small.run_cell(f"{kept}logits, cache = model.run_with_cache((tokens + {len(kept) + 1}) % 50)")
        expected = small.python(contribution("L1H1"))
        small.until(lambda: cells(view)["L1H1"], lambda value, x=expected: abs(value - x) < 5e-3, FOLLOWS / 1000)
        assert cells(view) != before
        expect(small.chosen).to_have_text("cache")
        expect(cache_status(view)).to_have_count(0)
        expect(cell(view, "L1H1")).to_have_attribute("aria-selected", "true")
    small.page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()")
    expect(cache_status(view)).to_contain_text("was lost when the kernel restarted", timeout=FOLLOWS)
    small.run_all()
    expect(cache_status(view)).to_have_count(0, timeout=FOLLOWS)
    expected = small.python(contribution("L1H1"))
    small.until(lambda: cells(view)["L1H1"], lambda value: abs(value - expected) < 5e-3, FOLLOWS / 1000)


def test_following_is_remembered_only_for_its_variable(small: Lab) -> None:
    view = small.inspect("cache")
    view.get_by_role("button", name=FOLLOW).click()
    small.run_cell("other = tiny.run(model)[2]")
    small.inspect("other")
    expect(view.get_by_role("button", name=FOLLOW)).to_have_attribute("aria-pressed", "false")
    small.inspect("cache")
    expect(view.get_by_role("button", name=FOLLOW)).to_have_attribute("aria-pressed", "true")
    small.command("docmanager:save-all")
    small.reload('"follow": "cache"')
    small.open_sidebar()
    expect(view.get_by_role("button", name=FOLLOW)).to_have_attribute("aria-pressed", "true", timeout=FOLLOWS)
    small.run_cell("del other\nlogits, cache = model.run_with_cache((tokens + 1) % 50)")
    expect(small.caches).to_have_count(1, timeout=FOLLOWS)
    small.ready(view)
    expected = small.python(contribution("L1H1"))
    small.until(lambda: cells(view)["L1H1"], lambda value: abs(value - expected) < 5e-3, FOLLOWS / 1000)
    expect(cache_status(view)).to_have_count(0)
