"""Segments on screen: the folded token strip, and the tab that shows which segments a head reads.

Expected: computed by hand, mostly in float64, from TransformerLens' cache and weights. Only `whole` is from
`residscope.attribute`.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, expect

from tests.support.demo_panel import settled
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS

# The demo model generated the beginning of this answer greedily in one run. The later turns repeat the answer.
CHAT = """
import torch, residscope
from residscope.demo import demo_model_folder
from transformer_lens.model_bridge import TransformerBridge
model = TransformerBridge.boot_transformers(str(demo_model_folder()))
answer = (
    "One day, Mary and John went to the store. They bought a new car, which was a luxury item for Mary. They also "
    "bought a beautiful, handmade wooden sculpture made by John's friend, a local artist.\\n\\nThe sculpture was a "
    "beautiful, intricate piece of art that Mary and John loved. They decided to present it to John, who was a kind "
    "and generous person."
)
ask = "Mary went to the store with John. What is a good present for a friend? Tell me a short story about it."
turns = [("system", "You are a helpful assistant."), ("user", ask), ("assistant", answer)]
for question in ("Who made the sculpture?", "And who bought the car?", "Tell the story again, please.", "Again."):
    turns += [("user", question), ("assistant", answer)]
turns += [("user", "One more time."), ("assistant", answer)]
chat = [{"role": role, "content": content} for role, content in turns]
tokenizer = model.tokenizer
text = tokenizer.apply_chat_template(chat, tokenize=False)
ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])[:, :600]
with torch.no_grad():
    logits, cache = model.run_with_cache(ids)
panel = residscope.inspect(cache, (" John", " Mary"), heads=["L23H3"])
"""
BY_HAND = """
opens = (ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")).nonzero().flatten().tolist()
cuts = list(zip(opens, opens[1:] + [ids.shape[1]]))
pattern = torch.stack([cache["pattern", layer][0] for layer in range(30)])
rows = pattern[23, 3].double()
john, mary = (tokenizer(name, add_special_tokens=False)["input_ids"][0] for name in (" John", " Mary"))
toward = (model.W_U[:, john] - model.W_U[:, mary]).detach()
toward = toward.double() * model.ln_final.weight.detach().double() / cache["ln_final.hook_scale"][0, -1].double()
moved = (cache["v", 23][0, :, 1].double() @ model.W_O[23, 3].detach().double()) @ toward  # head 3 uses key-value head 1
reads = [rows[-1, start:end].sum().item() for start, end in cuts]
adds = [(rows[-1] * moved)[start:end].sum().item() for start, end in cuts]
cells = [[rows[a:b, start:end].sum().item() / (b - a) for start, end in cuts] for a, b in cuts]
later = [rows[end:, start:end].sum(1).mean().item() for start, end in cuts[:-1]]
def best(a, b, start, end):
    whole = pattern[..., a:b, start:end].sum((-2, -1)).double() / (b - a)
    top = whole.flatten().topk(3)
    return [f"L{at // 9}H{at % 9}" for at in top.indices.tolist()], top.values.tolist()
whole = residscope.attribute(cache, (" John", " Mary")).values[:270].sum().item()
"""


def chips(panel: Locator, what: str = "added") -> list[float]:
    """Return the sums that colour the chips of the segments: contributions or attention."""
    return panel.locator(".rs-tokens [data-segment]").evaluate_all(
        "(nodes, what) => nodes.map(node => Number(node.dataset[what]))", what
    )


def opened(lab: Lab, name: str, *cells: str) -> Locator:
    lab.open(lab.write_notebook(name, *cells))
    lab.run_all()
    panel = lab.panel()
    settled(panel)
    return panel


def ranked(panel: Locator) -> tuple[list[str], list[float]]:
    lines = panel.locator(".rs-segment-head")
    return (
        lines.evaluate_all("nodes => nodes.map(node => node.dataset.head)"),
        lines.evaluate_all("nodes => nodes.map(node => Number(node.dataset.value))"),
    )


def test_a_chat_of_600_tokens_is_folded_into_its_turns(lab: Lab) -> None:
    panel = opened(lab, "chat.ipynb", CHAT, BY_HAND)
    cuts, reads, adds, cells, later, whole = lab.python("[cuts, reads, adds, cells, later, whole]")
    assert 590 <= cuts[-1][1] <= 600
    strip = panel.locator(".rs-tokens")
    choice = panel.get_by_role("combobox", name="How the tokens are folded")
    expect(choice.locator("option").nth(1)).to_have_text(f"{len(cuts)} turns")

    choice.select_option("turn")
    expect(strip.locator("[data-segment]")).to_have_count(len(cuts))
    expect(strip.locator("[data-position]")).to_have_count(0)
    settled(panel)
    lab.becomes("panel.segments", "turn")
    expect(strip.locator("[data-segment]").nth(1)).to_have_text(f"user{cuts[1][1] - cuts[1][0]}")
    assert chips(panel, "attention") == pytest.approx(reads, abs=1e-3)
    assert sum(chips(panel, "attention")) == pytest.approx(1, abs=1e-3)
    assert chips(panel) == pytest.approx(adds, abs=1e-3)
    strip.locator("[data-segment='1']").hover()
    expect(panel.locator("[data-part=sentence]")).to_contain_text("reads “user”")

    strip.locator("[data-segment='1']").click()
    start, end = cuts[1]
    tokens = strip.locator("[data-position]")
    expect(tokens).to_have_count(end - start)
    expect(tokens.first).to_have_attribute("data-position", str(start))
    strip.locator("[data-segment='1']").press("ArrowRight")
    expect(tokens.first).to_be_focused()
    tokens.first.press("ArrowLeft")
    strip.locator("[data-segment='1']").press("Enter")
    expect(tokens).to_have_count(0)

    panel.get_by_role("tab", name="Segments").click()
    settled(panel)
    last = len(cuts) - 1
    for to in range(len(cuts)):
        for source in range(to + 1):
            cell = panel.locator(f"[data-cell='{to} {source}']")
            assert float(cell.get_attribute("data-value") or "") == pytest.approx(cells[to][source], abs=1e-4)
    for source, value in enumerate(later):
        cell = panel.locator(f"[data-cell='later {source}']")
        assert float(cell.get_attribute("data-value") or "") == pytest.approx(value, abs=1e-4)
    expect(panel.locator(".rs-segment-title")).to_contain_text("through these heads (of 270)")
    for cell, place in [(f"{last} 2", (*cuts[last], *cuts[2])), ("2 1", (*cuts[2], *cuts[1]))]:
        panel.locator(f"[data-cell='{cell}']").click()
        expect(panel.locator(f"[data-cell='{cell}']")).to_have_attribute("aria-selected", "true")
        settled(panel)
        names, values = lab.python(f"best(*{place})")
        found = ranked(panel)
        assert (found[0][:3], found[1][:3]) == (names, pytest.approx(values, abs=1e-4))
    panel.locator(".rs-segment-head").first.click()
    lab.becomes("panel.heads", ["L23H3", names[0]])

    # Without a head in focus, the chips show what all heads together add.
    lab.python("1", "panel.heads = []")
    panel.locator(".rs-facts").hover()
    panel.page.keyboard.press("Escape")
    expect(strip.locator("[data-segment][data-attention]")).to_have_count(0)
    settled(panel)
    assert sum(chips(panel)) == pytest.approx(whole, abs=5e-3)

    choice.select_option("")
    expect(strip.locator("[data-segment]")).to_have_count(0)
    lab.becomes("panel.segments", None)
    with_turns = strip.locator(".rs-turn").evaluate_all("nodes => nodes.map(node => Number(node.dataset.position))")
    assert with_turns
    assert set(with_turns) <= {start for start, _ in cuts}


LONG = """
import torch, residscope
from transformer_lens.model_bridge import TransformerBridge
sizes = {"d_model": 32, "d_head": 8, "n_layers": 2, "n_heads": 4, "d_mlp": 16, "d_vocab": 64, "n_ctx": 4096}
model = TransformerBridge.boot_native({**sizes, "seed": 0})
torch.manual_seed(0)
ids = torch.randint(3, 64, (1, 4000))
with torch.no_grad():
    _, cache = model.run_with_cache(ids, names_filter=lambda name: "scores" not in name)
ranges = [(f"part {at}", 200 * at, 200 * at + 200) for at in range(20)]
panel = residscope.inspect(cache, (5, 6), heads=["L1H2"], segments=ranges)
pattern = torch.cat([cache["pattern", layer][0] for layer in range(2)]).double()
reads = pattern[6, -1].reshape(20, 200).sum(1).tolist()
pair = pattern[:, 3800:, 800:1000].sum((1, 2)) / 200
order = pair.argsort(descending=True).tolist()
names, values = [f"L{at // 4}H{at % 4}" for at in order], pair[order].tolist()
"""


def test_a_trace_of_4000_tokens_in_20_segments_is_read_as_20_chips(lab: Lab) -> None:
    panel = opened(lab, "trace.ipynb", LONG)
    reads, names, values = lab.python("[reads, names, values]")
    strip = panel.locator(".rs-tokens")
    expect(strip.locator("[data-segment]")).to_have_count(20)
    expect(strip.locator("[role=option]")).to_have_count(20)
    expect(strip.locator("[data-segment][data-attention]")).to_have_count(20, timeout=FOLLOWS)
    assert chips(panel, "attention") == pytest.approx(reads, abs=1e-3)
    strip.locator("[data-segment='4']").click()
    expect(strip.locator("[data-position]")).to_have_count(200)
    expect(strip.locator("[data-position='800']")).to_be_visible()
    for index in ("5", "6"):  # with more than 512 tokens unfolded, only a stretch is shown
        strip.locator(f"[data-segment='{index}']").click()
    expect(strip.locator("[data-position]")).to_have_count(256)
    expect(panel.locator(".rs-strip .rs-stretch")).to_contain_text("of 4000")
    expect(strip.locator("[data-position='1200']")).to_have_count(1)  # the segment that was unfolded last
    for index in ("4", "5", "6"):
        strip.locator(f"[data-segment='{index}']").click()
    expect(strip.locator("[data-position]")).to_have_count(0)

    panel.get_by_role("tab", name="Segments").click()
    expect(panel.locator(".rs-segment-cell")).to_have_count(20 * 21, timeout=FOLLOWS)
    settled(panel)
    panel.locator("[data-cell='19 4']").click()
    expect(panel.locator(".rs-segment-title")).to_contain_text("part 19 reads part 4", timeout=FOLLOWS)
    settled(panel)
    found = ranked(panel)
    assert (found[0], found[1]) == (names, pytest.approx(values, abs=1e-5))
