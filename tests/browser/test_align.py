"""Two runs of different lengths, aligned by token with one click, and the token lens of both runs.

Expected: `residscope.compare(…, align="by token")` in the notebook's kernel, and values by hand in float64 from
TransformerLens' cache and weights. The norm of this model only scales, and its heads write z @ W_O.
"""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.test_attention import number
from tests.browser.test_compare import BY_HAND, INSPECT, numbers
from tests.support.demo_panel import SETUP, settled
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS

LONGER = """
import torch
ids = run.tokens[2].tolist()
more = [run.model.tokenizer.encode(word, add_special_tokens=False)[0] for word in (" yesterday", " quickly")]
ids = ids[:1] + more[:1] + ids[1:5] + more[1:] + ids[5:]
with torch.no_grad(): _, longer = run.model.run_with_cache(torch.tensor([ids]))
"""
TRUTH = """
def rows(cache, prompt, at):
    g = U * w / cache["ln_final.hook_scale"][prompt, at].double()
    z = torch.stack([cache["z", layer][prompt, at].double() for layer in range(30)])
    return torch.einsum("lhd,lhdm,m->lh", z, run.model.W_O.detach().double(), g)
def lens(cache, prompt, at, layer):
    x = cache["resid_pre", layer][prompt, at].double()
    return ((x / (x.square().mean() + 1e-5).sqrt() * w) @ run.model.W_U.detach().double()).softmax(-1)
aligned = residscope.compare(cache, longer, (" Mary", " John"), prompt=2, with_prompt=0, position=9, align="by token")
"""
BESIDE = {0: 0, 1: 2, 4: 5, 5: 7, 9: 11, 14: 16}


@pytest.fixture
def opened(lab: Lab) -> tuple[Lab, Locator]:
    """A panel at prompt 2, compared with a cache of one prompt that is two tokens longer."""
    lab.open(lab.write_notebook("align.ipynb", SETUP, BY_HAND, LONGER, TRUTH, INSPECT))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    panel.get_by_role("button", name="Compare with another run").click()
    panel.get_by_role("option", name="longer").click()
    settled(panel)
    return lab, panel


def test_two_lengths_are_aligned_by_token_with_one_click(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    badge = panel.locator(".rs-badge")
    whole = lab.python(
        "float((lambda l: l[a] - l[b])(longer['unembed.hook_out'][0, 16].double())) - difference(cache, 2)"
    )
    assert number(badge.inner_text(), r"✓ rows sum to ([+−][\d.]+)") == pytest.approx(
        whole, abs=6e-4
    )  # at the last tokens
    expect(panel.locator(".rs-pairing")).to_contain_text("15 tokens in A, 17 in B: not paired")

    panel.locator(".rs-tokens [data-position='9']").click()
    refusal = panel.locator(".rs-map-refusal")
    expect(refusal).to_contain_text("15 and 17 tokens")
    refusal.get_by_role("button", name="align by token").click()
    settled(panel)
    expect(refusal).to_be_hidden()
    lab.becomes("panel.against.get('align')", "by token")
    expect(panel.locator(".rs-pairing")).to_contain_text("15 of 15 tokens paired with B by token, 2 of B left out")
    for first, second in BESIDE.items():
        token = panel.locator(f".rs-tokens [data-position='{first}']")
        beside = f"position {second} in B" if first != second else f"position {first}"
        expect(token).to_have_attribute("title", re.compile(rf"{beside}(, special token)?$"))

    in_a, in_b, shown, measured = lab.python(
        "[rows(cache, 2, 9).tolist(), rows(longer, 0, 11).tolist(), aligned.grid[..., 0].tolist(), "
        "float(aligned.measured)]"
    )
    assert number(badge.inner_text(), r"✓ rows sum to ([+−][\d.]+)") == pytest.approx(measured, abs=6e-4)
    for layer, head in ((23, 3), (23, 5), (29, 0), (13, 2)):
        difference, first, second = numbers(panel, f"L{layer}H{head}")
        assert first == pytest.approx(in_a[layer][head], abs=6e-3)
        assert second == pytest.approx(in_b[layer][head], abs=6e-3)
        assert difference == pytest.approx(shown[layer][head], abs=6e-3)
        assert difference == pytest.approx(in_b[layer][head] - in_a[layer][head], abs=6e-3)

    # The attention of a head at the pairs of positions.
    panel.locator('[role=gridcell][data-head="L23H3"]').click()
    panel.get_by_role("tab", name="Runs").click()
    panel.get_by_role("group", name="What is compared").get_by_role("button", name="Attention").click()
    lab.ready(panel)
    panel.locator(".rs-run-row").first.focus()
    lab.page.keyboard.press("ArrowRight")  # the first source at the destination
    lab.page.keyboard.press("ArrowRight")  # “When”: position 1 in A, 2 in B
    first, second = lab.python("[float(cache['pattern', 23][2, 3, 9, 1]), float(longer['pattern', 23][0, 3, 11, 2])]")
    expect(panel.locator(".rs-sentence")).to_contain_text(f"{first:.2f} in A, {second:.2f} in B")

    # Exported code and pages say how the runs were aligned.
    code = lab.python(
        "panel._service.reply(WriteCode('heads', panel.shown))[0].code",
        before="from residscope.wire.shown import WriteCode",
    )
    assert 'align="by token"' in code
    page = lab.server.root / "aligned.html"
    lab.python("0", before=f"with open({str(page)!r}, 'w') as f: f.write(panel.to_html(holds='view'))")
    saved = lab.page.context.new_page()
    saved.goto(page.as_uri())
    words = "15 of 15 tokens paired with B by token"
    expect(saved.locator(".rs-pairing")).to_contain_text(words, timeout=FOLLOWS)
    assert numbers(saved.locator("body"), "L23H3") == numbers(panel, "L23H3")
    saved.close()
    panel.locator(".rs-pairing").get_by_role("button", name="do not align").click()
    expect(refusal).to_contain_text("15 and 17 tokens")
    lab.becomes("panel.against.get('align')", None)


def test_the_token_lens_of_both_runs(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    panel.get_by_role("tab", name="Token lens").click()
    trouble = panel.locator(".rs-token-lens .rs-view-trouble")
    expect(trouble).to_contain_text("15 and 17 tokens")
    trouble.get_by_role("button", name="align by token").click()
    lab.ready(panel)
    a, b = lab.python("[lens(cache, 2, 14, 26)[a].item(), lens(longer, 0, 16, 26)[a].item()]")
    cell = panel.locator(".rs-lens-cell[data-row='26'][data-column='14']")
    expect(cell).to_have_attribute("aria-label", re.compile("answer [+−]"), timeout=FOLLOWS)
    said = (cell.get_attribute("aria-label") or "").replace("−", "-").replace("+", "")
    assert float(said.split(",")[0].removeprefix("answer ")) == pytest.approx(b - a, rel=0.06, abs=1e-3)
    cell.hover()
    sentence = panel.locator(".rs-sentence")
    expect(sentence).to_contain_text("in A, ")
    found = re.search(
        r"the answer ([\d.e-]+) \(rank (\d+)\) in A, ([\d.e-]+) \(rank (\d+)\) in B", sentence.inner_text()
    )
    assert found
    assert [float(found[1]), float(found[3])] == pytest.approx([a, b], rel=0.06, abs=1e-3)
    ranks = lab.python("[int((p > p[a]).sum()) + 1 for p in (lens(cache, 2, 14, 26), lens(longer, 0, 16, 26))]")
    assert [int(found[2]), int(found[4])] == ranks

    for run, cache in (("first", "cache, 2, 14"), ("second", "longer, 0, 16")):
        panel.locator(f"[data-run={run}]").click()
        lab.ready(panel)
        top, p = lab.python(
            f"(lambda p: [run.model.tokenizer.decode([int(p.argmax())]), float(p.max())])(lens({cache}, 26))"
        )
        expect(cell).to_have_attribute("aria-label", re.compile(re.escape(top.replace(" ", "·"))))
        shown = (cell.get_attribute("aria-label") or "").split(",")[0].split()[-1]
        assert float(shown) == pytest.approx(p, abs=6e-3)


def test_an_alignment_is_restored_in_the_sidebar(lab: Lab) -> None:
    short = "with torch.no_grad(): _, short = run.model.run_with_cache(run.tokens[2:3])"
    lab.open(lab.write_notebook("aligned.ipynb", SETUP, LONGER, short))
    lab.open_sidebar()
    lab.run_all()
    view = lab.inspect("longer")
    view.get_by_role("button", name="Compare with another run").click()
    view.get_by_role("option", name="short").click()
    pairing = view.locator(".rs-pairing")
    expect(pairing).to_contain_text("17 tokens in A, 15 in B: not paired")
    view.get_by_role("button", name="Compared with short").click()
    view.get_by_role("combobox", name="Compare with").press("Escape")
    pairing.get_by_role("button", name="align by token").click()
    lab.ready(view)
    crossed = view.locator(".rs-unpaired")
    expect(crossed).not_to_have_count(0)
    places = crossed.evaluate_all("all => all.map(n => Number(n.dataset.position))")
    lab.command("docmanager:save-all")
    lab.reload('"align": "by token"')
    view = lab.sidebar.get_by_role("region", name="Residscope", exact=True)
    expect(view.locator(".rs-pairing")).to_contain_text("paired with B by token", timeout=FOLLOWS)
    assert view.locator(".rs-unpaired").evaluate_all("all => all.map(n => Number(n.dataset.position))") == places
    view.locator(f".rs-tokens [data-position='{places[0]}']").click()
    expect(view.locator(".rs-map-refusal")).to_contain_text("select a token that is matched")
