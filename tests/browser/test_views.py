"""Head scores, position map, token lens and the values of all prompts, compared with TransformerLens."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from tests.support.demo_panel import RUN
from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, cell, token_names

SETUP = f"""
{RUN}
import torch
model, cache, answers = run.model, run.cache, run.answers
ids = torch.as_tensor([[model.to_single_token(text) for text in pair] for pair in answers])
last = cache["resid_post", 29].shape[1] - 1
"""
INSPECT = "panel = residscope.inspect(cache, answers=answers)"
# Computed from TransformerLens' tensors: the model's logits, a head's contribution in float64, and the probabilities if
# the model stopped at a point of the stream.
LOGITS = "model.unembed(model.ln_final(cache['resid_post', 29])).float()"
WORTH = """
def worth(layer, head):
    r = cache["z", layer][:, last, head].double() @ model.W_O[layer, head].double()
    u = model.W_U.double()[:, ids[:, 0]] - model.W_U.double()[:, ids[:, 1]]
    g = model.ln_final.weight.double()[:, None] * u
    x = cache["resid_post", 29][:, last].double()
    return (r * g.T).sum(-1) / (x.pow(2).mean(-1) + model.cfg.eps).sqrt()
def stopped(stream):
    return model.unembed(model.ln_final(stream)).float().softmax(-1)
"""


@pytest.fixture
def opened(lab: Lab) -> tuple[Lab, Locator]:
    """A notebook with a drawn panel. Its kernel has functions for the expected values."""
    lab.open(lab.write_notebook("views.ipynb", SETUP + WORTH, INSPECT))
    lab.run_all()
    return lab, lab.panel()


def sentence(panel: Locator) -> Locator:
    return panel.locator(".rs-sentence")


def signed(value: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")


def tab(panel: Locator, name: str) -> Locator:
    """Open a tab, and return its content."""
    panel.get_by_role("tab", name=name, exact=True).click()
    return panel.get_by_role("tabpanel", name=name, exact=True)


def figure(text: str) -> float:
    found = re.search(r"[+−]\d+(\.\d+)?", text)
    assert found, text
    return float(found[0].replace("−", "-"))


def says(panel: Locator, start: str, expected: float, end: str) -> None:
    """Check the sentence, and that its number is right up to the rounding to two digits."""
    expect(sentence(panel)).to_contain_text(start, timeout=FOLLOWS)
    text = sentence(panel).inner_text()
    assert figure(text.removeprefix(start)) == pytest.approx(expected, abs=0.0051)
    assert end in text


def test_four_views_and_the_charts_show_the_models_own_values(opened: tuple[Lab, Locator]) -> None:
    lab, panel = opened
    spread(lab, panel)
    scores(lab, panel)
    prompts(lab, panel)
    panel.get_by_role("button", name="Next prompt").click()
    lab.becomes("panel.prompt", 1)
    lab.python("0", before="panel.prompt = 0")
    lab.ready(panel)
    positions(lab, panel)
    token_lens(lab, panel)


def spread(lab: Lab, panel: Locator) -> None:
    mean, std = lab.python("[worth(23, 3).mean().item(), worth(23, 3).std().item()]")
    line = panel.get_by_role("list", name="Top heads").get_by_role("button", name=re.compile(r"^L23H3 "))
    expect(line).to_have_attribute("aria-label", f"L23H3 {signed(mean)} ± {std:.2f} over 8 prompts")
    cell(panel, "L23H3").hover()
    expect(line.locator(".rs-dots path")).to_have_attribute("d", re.compile(r"^(M[\d.]+ 5h0){8}$"))
    says(panel, "L23H3 adds ", mean, f" ± {std:.2f}")


def scores(lab: Lab, panel: Locator) -> None:
    choice = panel.get_by_role("combobox", name="What colours the head map")
    choice.select_option("previous")
    expect(cell(panel, "L0H0")).to_have_attribute("aria-label", re.compile("previous-token"), timeout=FOLLOWS)
    lab.becomes("panel.score", "previous")
    share = "cache['pattern', layer].float().diagonal(-1, -2, -1).sum(-1).mean(0) / cache['pattern', layer].shape[-1]"
    shares: list[list[float]] = lab.python(f"[({share}).tolist() for layer in range(30)]")
    names = panel.get_by_role("grid", name="Head map").get_by_role("gridcell")
    shown = names.evaluate_all("cells => cells.map(cell => cell.getAttribute('aria-label'))")
    expected = [f"L{i}H{j} previous-token" for i in range(30) for j in range(9)]
    assert [name.rsplit(" ", 1)[0] for name in shown] == expected
    flat = [share for layer in shares for share in layer]
    assert [float(name.rsplit(" ", 1)[1]) for name in shown] == pytest.approx(flat, abs=0.0051)
    best = max(range(270), key=flat.__getitem__)
    head = f"L{best // 9}H{best % 9}"
    cell(panel, head).hover()
    expect(sentence(panel)).to_contain_text(f"previous-token {shown[best].rsplit(' ', 1)[1]}: the share")
    expect(sentence(panel)).to_contain_text(f"{head} adds ")
    expect(sentence(panel)).to_contain_text("goes to the token just before")
    expect(panel.get_by_role("list", name="Top heads").get_by_role("button").first).to_contain_text("L23H3")
    lab.python("0", before="panel.score = None")
    expect(cell(panel, "L23H3")).to_have_attribute("aria-label", re.compile(r"^L23H3 \+2"), timeout=FOLLOWS)


def prompts(lab: Lab, panel: Locator) -> None:
    view = tab(panel, "Prompts")
    listed = view.get_by_role("listbox", name="Prompts").get_by_role("option")

    def shown() -> list[float]:
        return [figure(text) for text in listed.locator(".rs-number").all_inner_texts()]

    panel.get_by_role("button", name="logit difference", exact=True).click()
    whole = lab.python(f"({LOGITS}[:, last].gather(1, ids) @ torch.tensor([1.0, -1.0])).tolist()")
    expect(listed).to_have_count(8, timeout=FOLLOWS)
    assert shown() == pytest.approx(whole, abs=0.0051)
    expect(listed.nth(3)).to_contain_text("gave", timeout=FOLLOWS)  # a word of the prompt's text
    cell(panel, "L23H3").hover()
    view.page.get_by_role("button", name="L23H3", exact=True).click()
    each = lab.python("worth(23, 3).tolist()")
    assert shown() == pytest.approx(each, abs=0.0051)
    panel.get_by_role("button", name="by value", exact=True).click()
    assert shown() == sorted(shown(), reverse=True)
    best = max(range(8), key=each.__getitem__)
    listed.first.hover()
    says(panel, f"prompt {best}: L23H3 adds ", each[best], "over 8 prompts) · click to open it")
    view.get_by_role("listbox", name="Prompts").focus()
    lab.page.keyboard.press("Home")
    lab.page.keyboard.press("Enter")
    lab.becomes("panel.prompt", best)
    expect(listed).to_have_count(8)
    expect(listed.and_(view.get_by_role("option", selected=True))).to_contain_text(str(best))
    lab.page.keyboard.press("Enter")
    lab.becomes("panel.prompt", None)
    panel.get_by_role("button", name="Previous prompt").click()
    lab.becomes("panel.prompt", best)
    lab.python("0", before="panel.prompt = 0")
    lab.becomes("panel.prompt", 0)


def positions(lab: Lab, panel: Locator) -> None:
    view = tab(panel, "Positions")
    field = view.get_by_role("application")
    expect(field).to_have_attribute("aria-label", re.compile("at 15 positions"), timeout=FOLLOWS)
    lab.ready(panel)
    found = lab.python(
        "[rows.labels, rows.values[:, 0].tolist()]",
        before="rows = residscope.attribute(cache, answers, by='layer', position='all')",
    )
    labels, values = found
    names = token_names(lab.python("model.to_str_tokens(run.tokens[0])"))

    def point(row: int, column: int) -> None:
        field.scroll_into_view_if_needed()
        box = field.locator("canvas").bounding_box()
        assert box
        field.hover(position={"x": (column + 0.5) / 15 * box["width"], "y": (row + 0.5) / len(labels) * box["height"]})

    for label, column in [("23_attn_out", 14), ("29_mlp_out", 14), ("10_attn_out", 7), ("0_mlp_out", 3)]:
        row = labels.index(label)
        point(row, column)
        value = values[row][column]
        says(panel, f"{label} adds ", value, f"the logit difference at “{names[column]}” (position {column})")
    own = lab.python(f"({LOGITS}[0, :, ids[0, 0]] - {LOGITS}[0, :, ids[0, 1]]).tolist()")
    lab.page.mouse.move(0, 0)
    field.focus()
    for key in ("ArrowUp", "PageUp", "ArrowUp"):  # moves up in the destination's column, to the model's own value
        lab.page.keyboard.press(key)
    says(panel, "The model’s own logit difference at “·to₁₄” (position 14): ", own[14], "")
    lab.page.keyboard.press("ArrowLeft")
    says(panel, "The model’s own logit difference at “·bag” (position 13): ", own[13], "")
    lab.page.keyboard.press("Enter")
    lab.becomes("panel.position", 13)
    lab.page.keyboard.press("Enter")
    lab.becomes("panel.position", 14)
    lab.ready(panel)

    view_controls = panel.get_by_role("group", name="Rows of the position map")
    view_controls.get_by_role("button", name="heads").click()
    head = view.get_by_role("button", name=re.compile("^L23H3 "))
    expect(head).to_be_visible(timeout=FOLLOWS)
    head.click()
    lab.becomes("panel.heads", ["L23H3"])
    expect(head).to_have_attribute("aria-pressed", "true")
    lab.python("0", before="panel.heads = []")
    view_controls.get_by_role("button", name="layers").click()


def token_lens(lab: Lab, panel: Locator) -> None:
    view = tab(panel, "Token lens")
    grid = view.get_by_role("grid", name="Token lens")
    expect(grid.get_by_role("gridcell", name="loading")).to_have_count(0, timeout=FOLLOWS)
    lab.ready(panel)

    def told(point: str, column: int) -> Any:
        stream = "cache['resid_post', 29]" if point == "final_post" else f"cache['resid_pre', {point.split('_')[0]}]"
        p = f"stopped({stream}[0, {column}])"
        rank = f"int(({p} > {p}[ids[0, 0]]).sum()) + 1"
        return lab.python(
            f"[model.tokenizer.decode([int({p}.argmax())]), float({p}.max()), float({p}[ids[0, 0]]), {rank}]"
        )

    def written(p: float) -> str:
        return f"{p:.2f}" if p >= 0.0995 else f"{p:.3f}" if p >= 0.00095 else re.sub("e-0", "e-", f"{p:.0e}")

    lab.page.mouse.move(0, 0)
    grid.focus()
    lab.page.keyboard.press("End")
    for _ in range(3):
        lab.page.keyboard.press("ArrowUp")
    # In each cell, the key moves to the next cell of this list.
    for point, column, key in [
        ("27_pre", 14, "ArrowDown"),
        ("28_pre", 14, "ArrowDown"),
        ("29_pre", 14, "ArrowDown"),
        ("final_post", 14, "ArrowLeft"),
        ("final_post", 13, "ArrowUp"),
    ]:
        top, p, answer, rank = told(point, column)
        first = top.replace(" ", "·")
        words = f"it would predict “{first}” {written(p)}; the answer “·Mary” {written(answer)}, rank {rank}"
        expect(sentence(panel)).to_contain_text(f"({point}) at “")
        expect(sentence(panel)).to_contain_text(f"(position {column}), {words}", timeout=FOLLOWS)
        active = view.locator(f"[id='{grid.get_attribute('aria-activedescendant')}']")
        assert active.get_attribute("data-rank") == (str(rank) if rank <= 10 else None)
        expect(view.get_by_role("group", name="Likeliest tokens")).to_contain_text(written(p))
        lab.page.keyboard.press(key)
    lab.page.keyboard.press("Control+Home")
    expect(sentence(panel)).to_contain_text(
        "If the model stopped before the first layer (0_pre) at “<|im_start|>” (position 0)", timeout=FOLLOWS
    )
    panel.get_by_role("button", name="with mid", exact=True).click()
    expect(grid.get_by_role("rowheader", name="29_mid")).to_be_visible(timeout=FOLLOWS)
