"""Next-token targets on screen: tokens are coloured by what a head or layer adds to their logits, or by surprise.

Expected: computed in float64 from TransformerLens' cache and weights, and from the logits of the run.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.test_attention import number
from tests.support.demo_panel import SETUP, settled
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS

INSPECT = "panel = residscope.inspect(cache, answers=answers, prompt=0)"
# What L23H3 and layer 29 add to the logit of the token after each position, and how likely that token was.
BY_HAND = """
import torch
ids = run.tokens[0]
logits = cache["unembed.hook_out"][0].double()
U = run.model.W_U.detach().double()
final = run.model.ln_final.weight.detach().double() / cache["ln_final.hook_scale"][0].double()
toward = U[:, ids[1:]].T * final[:-1]
by_head = ((cache["z", 23][0, :-1, 3].double() @ run.model.W_O[23, 3].detach().double()) * toward).sum(-1).tolist()
v = cache["v", 23][0].double()
v = v[:, 3 * v.shape[1] // run.model.cfg.n_heads]  # heads share values
by_source = cache["pattern", 23][0, 3, 9].double() * (v @ run.model.W_O[23, 3].detach().double() @ toward[9])
by_layer = ((cache["blocks.29.hook_attn_out"] + cache["blocks.29.hook_mlp_out"])[0, :-1].double() * toward).sum(-1)
by_layer = by_layer.tolist()
chosen = logits[:-1].gather(1, ids[1:, None])
log_prob = (logits[:-1].log_softmax(-1).gather(1, ids[1:, None]))[:, 0].tolist()
rank = (1 + (logits[:-1] > chosen).sum(-1)).tolist()
chosen = chosen[:, 0].tolist()
other = logits[:-1].scatter(1, ids[1:, None], float("-inf")).amax(-1).tolist()
"""


@pytest.fixture
def opened(lab: Lab) -> tuple[Lab, Locator]:
    """A notebook with a drawn panel, whose target is the next token."""
    lab.open(lab.write_notebook("next.ipynb", SETUP, BY_HAND, INSPECT))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    ask_what_came_next(panel)
    return lab, panel


def ask_what_came_next(panel: Locator, words: str = "what came next") -> None:
    panel.locator(".rs-target [data-side=answer]").click()
    panel.get_by_role("option", name=words, exact=False).first.click()
    panel.locator(".rs-facts").hover()  # away from the head map
    settled(panel)


def values(panel: Locator) -> list[float]:
    """Return the value that colours each token, from the second token on."""
    tokens = panel.locator(".rs-tokens [data-position]")
    read = "nodes => nodes.map(node => node.dataset.value === undefined ? null : Number(node.dataset.value))"
    first, *others = tokens.evaluate_all(read)
    assert first is None  # no position predicts the first token
    return others


def head(panel: Locator, name: str) -> Locator:
    return panel.locator(f'[role=gridcell][data-head="{name}"]')


def test_tokens_are_coloured_by_their_surprise_and_by_what_a_head_or_layer_adds_to_each(
    opened: tuple[Lab, Locator],
) -> None:
    lab, panel = opened
    by_head, by_layer, log_prob, rank = lab.python("[by_head, by_layer, log_prob, rank]")
    key = panel.locator(".rs-next-key")
    expect(key).to_contain_text("surprise")
    assert values(panel) == pytest.approx([-value for value in log_prob], abs=2e-3)
    for at in (1, 5, 14):
        title = panel.locator(f".rs-tokens [data-position='{at}']").get_attribute("title") or ""
        assert f"rank {rank[at - 1]}" in title
        assert number(title, r"p ([\d.e-]+)") == pytest.approx(2.718281828 ** log_prob[at - 1], rel=0.5, abs=0.006)
    head(panel, "L23H3").hover()
    expect(key).to_contain_text("L23H3 adds to each token")
    assert values(panel) == pytest.approx(by_head, abs=2e-3)
    head(panel, "L23H3").click()
    panel.locator(".rs-facts").hover()
    expect(key).to_contain_text("L23H3 adds to each token")  # because the head is pinned
    panel.page.keyboard.press("Escape")
    layer = panel.locator(".rs-layers .rs-plot")
    box = layer.bounding_box()
    assert box
    rows = lab.python("run.model.cfg.n_layers")
    layer.hover(position={"x": box["width"] / 2, "y": box["height"] - 0.5 * box["height"] / (rows + 1)})
    expect(key).to_contain_text(f"layer {rows - 1} adds to each token")
    assert values(panel) == pytest.approx(by_layer, abs=5e-3)


def test_a_click_on_a_token_asks_what_wrote_it(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    chosen, other, by_head = lab.python("[chosen, other, by_head]")
    badge = panel.locator(".rs-badge")
    expect(badge).to_contain_text("14 of 14 positions add up")
    assert number(badge.inner_text(), r"sum to ([+−][\d.]+)") == pytest.approx(chosen[13], abs=0.006)
    assert lab.python("panel.position") == 13
    panel.locator(".rs-tokens [data-position='5']").click()
    settled(panel)
    lab.becomes("panel.position", 4)
    assert number(badge.inner_text(), r"sum to ([+−][\d.]+)") == pytest.approx(chosen[4], abs=0.006)
    label = head(panel, "L23H3").get_attribute("aria-label") or ""
    assert number(label, r"([+−][\d.]+)") == pytest.approx(by_head[4], abs=0.006)
    selected = panel.locator(".rs-tokens [aria-selected=true]")
    expect(selected).to_have_attribute("data-position", "5")
    first = panel.locator(".rs-tokens [data-position='0']")
    first.hover()
    expect(panel.locator("[data-part=sentence]")).to_contain_text("nothing came before it")
    first.click(force=True)  # has no effect, because the token is disabled
    assert lab.python("panel.position") == 4

    minus = panel.get_by_role("button", name="minus runner-up")
    cut = "node => node.innerText.trim() === 'minus' || node.scrollWidth > node.clientWidth"
    for width in (330, 480, 560, 759, 760, 830, 900, 970, 1100):
        panel.evaluate("(node, width) => node.style.width = `${width}px`", width)
        assert not minus.evaluate(cut), width
    panel.evaluate("node => node.removeAttribute('style')")
    minus.click()
    settled(panel)
    assert number(badge.inner_text(), r"sum to ([+−][\d.]+)") == pytest.approx(chosen[4] - other[4], abs=0.006)
    assert lab.python("repr(panel.target)") == "targets.next_token(versus='runner-up')"
    lab.python("1", "panel.target = (' Mary', ' John')")
    settled(panel)
    expect(panel.locator(".rs-next-key")).to_be_hidden()
    lab.becomes("panel.position", 4)


def test_the_last_position_depends_on_the_target(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    assert lab.python("panel.position") == 13
    panel.get_by_role("button", name="answer: what came next").click()
    field = panel.get_by_role("combobox", name="Token for the answer")
    field.fill(" Mary")
    field.press("Enter")
    settled(panel)
    lab.becomes("panel.position", 14)
    lab.python("1", "panel.target = residscope.targets.next_token()")
    settled(panel)
    lab.becomes("panel.position", 13)
    expect(panel.locator(".rs-tokens [aria-selected=true]")).to_have_attribute("data-position", "14")


def test_the_position_map_is_about_the_token_after_each_position(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    by_head, chosen = lab.python("[by_head, chosen]")
    panel.get_by_role("tab", name="Positions").click()
    settled(panel)
    head(panel, "L23H3").click()
    panel.locator(".rs-positions-controls, .rs-lower-controls:not([hidden])").get_by_role(
        "button", name="heads", exact=True
    ).click()
    settled(panel)
    field = panel.get_by_role("application", name="components at")
    field.focus()
    field.press("Home")  # the first key only shows the cursor
    field.press("Home")
    field.press("PageUp")
    for _ in range(4):
        field.press("ArrowRight")
    sentence = panel.locator("[data-part=sentence]")
    expect(sentence).to_contain_text("of the next token")
    assert number(sentence.inner_text(), r"([+−][\d.]+)") == pytest.approx(by_head[4], abs=0.006)
    expect(panel.locator(".rs-tokens .rs-lit")).to_have_attribute("data-position", "5")
    field.press("ArrowUp")
    assert number(sentence.inner_text(), r"([+−][\d.]+)") == pytest.approx(chosen[4], abs=0.006)
    field.press("Enter")
    lab.becomes("panel.position", 4)


def test_why_and_what_a_head_moves_are_asked_about_the_next_token(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    by_head, by_source = lab.python("[by_head, by_source.tolist()]")
    assert sum(by_source) == pytest.approx(by_head[9], abs=1e-3)
    panel.locator(".rs-tokens [data-position='10']").click()
    settled(panel)
    head(panel, "L23H3").click()
    settled(panel)
    panel.locator(".rs-ask-here [data-ask=who]").click()
    settled(panel)
    trail = panel.get_by_role("navigation", name="Trail of targets")
    expect(trail).to_contain_text("what came next at")
    whole = panel.locator("[data-column=whole] h4 .rs-number").inner_text()
    [through] = lab.python("panel.wire_target['through']")
    assert number(whole, r"([+−][\d.]+)") == pytest.approx(by_source[through["source"]], abs=0.006)
    trail.get_by_role("button", name="Back").click()
    settled(panel)
    panel.locator(".rs-ask-here [data-ask=why]").click()
    settled(panel)
    expect(trail.locator("[aria-current=step]")).to_contain_text("L23H3 reads")
    assert lab.python("panel.wire_target['inner']['destination']") == 9


PADDED = """
import torch
tokens = run.tokens[:2].clone()
pad = run.model.tokenizer.pad_token_id if run.model.tokenizer.pad_token_id is not None else 0
shorter = torch.cat([tokens[1, :10], torch.full((5,), pad)])
batch = torch.stack([tokens[0], shorter])
mask = torch.ones_like(batch)
mask[1, 10:] = 0
with torch.no_grad():
    full, padded = run.model.run_with_cache(batch, attention_mask=mask)
panel = residscope.inspect(padded, prompt=1, attention_mask=mask, answers=residscope.targets.next_token())
log_prob = full[1, :9].double().log_softmax(-1).gather(1, batch[1, 1:10, None])[:, 0].tolist()
chosen = full[1, :9].double().gather(1, batch[1, 1:10, None])[:, 0].tolist()
"""


def test_a_padded_prompt_has_no_target_at_padding(lab: Lab) -> None:
    lab.open(lab.write_notebook("next-padded.ipynb", SETUP, PADDED))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    log_prob, chosen = lab.python("[log_prob, chosen]")
    coloured = values(panel)
    assert coloured[:9] == pytest.approx([-value for value in log_prob], abs=2e-3)
    assert coloured[9:] == [None] * 5
    badge = panel.locator(".rs-badge")
    expect(badge).to_contain_text("9 of 9 positions add up", timeout=FOLLOWS)
    assert number(badge.inner_text(), r"sum to ([+−][\d.]+)") == pytest.approx(chosen[8], abs=0.006)
    panel.locator(".rs-tokens [data-position='12']").hover()
    expect(panel.locator("[data-part=sentence]")).to_contain_text("padding")
