"""The pictures of the gallery (`npm run pictures`): each view on the demo model, with a caption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

from playwright.sync_api import Locator, expect

from tests.support.lab import Lab

Look = Callable[[Lab, Locator], None]


def _nothing(_lab: Lab, _panel: Locator) -> None: ...


def _token(at: int) -> Look:
    """Return a function that points at a token of the text view."""

    def look(_lab: Lab, panel: Locator) -> None:
        panel.locator(f".rs-attention [data-position='{at}']").first.hover()

    return look


def _why(question: str) -> Look:
    """Return a function that asks why a head attends where it does."""

    def look(_lab: Lab, panel: Locator) -> None:
        panel.locator(".rs-ask-here").get_by_role("button", name=question).click()
        expect(panel.get_by_role("tab", selected=True)).to_have_attribute("data-tab", "why")

    return look


def _measured(_lab: Lab, panel: Locator) -> None:
    """Measure the effects of all heads."""
    panel.get_by_role("button", name="measure", exact=True).click()
    expect(panel.locator(".rs-heads .rs-replayed")).to_contain_text("✓ an unchanged run gives", timeout=MEASURES)
    expect(panel.locator(".rs-heads .rs-effects-state")).not_to_contain_text("measuring", timeout=MEASURES)
    panel.get_by_role("grid", name="Head map").locator("[data-head='L23H3']").hover()


def _cell(head: str) -> Look:
    """Return a function that points at a head in the map."""

    def look(_lab: Lab, panel: Locator) -> None:
        panel.get_by_role("grid", name="Head map").locator(f"[data-head='{head}']").hover()

    return look


@dataclass(frozen=True)
class Picture:
    """A picture: the selection, the position of the pointer, the part of the panel in the picture, and the caption."""

    name: str
    title: str
    words: str
    state: dict[str, Any]
    part: str = ".rs-lower"
    look: Look = field(default=_nothing)


class Code(str):
    """An expression that the notebook's kernel evaluates."""

    def __repr__(self) -> str:
        return str(self)


MEASURES = 600_000  # milliseconds; the runs of 270 heads, on a busy machine
PINS = ["L23H3", "L29H0"]
ALL = [
    Picture(
        "contribution",
        "What each source adds",
        "The attention of two heads, weighted by what each source adds to the logit difference at each destination.",
        {"weighting": "contribution"},
    ),
    Picture(
        "value",
        "Value-weighted attention",
        "The same heads, attention × ‖v W_O‖: the first token fades, because its value vectors are short.",
        {"weighting": "value"},
    ),
    Picture(
        "text",
        "Attention as text",
        "The prompt as a sentence: to which tokens the last token attends, and by which of the two heads.",
        {"presentation": "text"},
        look=_token(14),
    ),
    Picture(
        "all",
        "All heads",
        "Small maps of all heads. The one under the pointer is enlarged.",
        {"presentation": "all"},
    ),
    Picture(
        "scores",
        "Head scores",
        "The head map coloured by how much each head attends to the previous token.",
        {"score": "previous"},
        part=".rs-charts",
        look=_cell("L23H3"),
    ),
    Picture(
        "positions",
        "Position map",
        "The contribution of each layer's attention and MLP at every position.",
        {"tab": "positions"},
    ),
    Picture(
        "token-lens",
        "Token lens",
        "The most likely token at each layer and position, and the answer's rank.",
        {"tab": "token-lens"},
    ),
    Picture(
        "prompts",
        "Spread over prompts",
        "One bar per prompt for the head under the pointer, sorted, with mean and standard deviation.",
        {"tab": "prompts", "prompt": None},
        look=_cell("L23H3"),
    ),
    Picture(
        "why",
        "Why a head attends there",
        "Why L23H3 attends to the second “John” and not to another token: which components wrote it, on the side of "
        "the query and on the side of the key, and what the head moves.",
        {"heads": ["L23H3"]},
        look=_why("why here? L23H3 reads ·John₁₀"),
    ),
    Picture(
        "effects",
        "What if a head is taken out",
        "The head map coloured by total effects, measured in runs of the model: without L23H3, the logit difference "
        "falls by more than the head adds directly.",
        {"effect": "total"},
        part=".rs-charts",
        look=_measured,
    ),
    Picture(
        "compare",
        "Two prompts",
        "Prompt 0 (A) against prompt 1 (B): the difference of each head, and the bars and lens curves of both prompts.",
        {"against": 1},
        part=".rs-charts",
        look=_cell("L23H3"),
    ),
    Picture(
        "next-token",
        "What came next",
        "The target is the token that followed at each position. The strip shows what the head under the pointer adds "
        "to each token.",
        {"target": Code("targets.next_token()")},
        part=".rs-tokens",
        look=_cell("L23H3"),
    ),
]
START = {
    "weighting": "pattern",
    "presentation": "matrix",
    "score": None,
    "tab": "attention",
    "prompt": 0,
    "heads": PINS,
    "step": 0,
    "effect": "direct",
    "against": None,
    "target": Code("run.answers"),
}


def take(lab: Lab, panel: Locator, folder: Path) -> None:
    """Take every picture of the gallery from a drawn panel."""
    for picture in ALL:
        lab.page.mouse.move(0, 0)
        lab.python("0", before="".join(f"panel.{k} = {v!r}\n" for k, v in {**START, **picture.state}.items()))
        tab = picture.state.get("tab", "attention")
        expect(panel.get_by_role("tab", selected=True)).to_have_attribute("data-tab", tab)
        lab.ready(panel)
        picture.look(lab, panel)
        lab.ready(panel)
        part = panel.locator(picture.part)
        part.scroll_into_view_if_needed()
        part.screenshot(path=folder / f"gallery-{picture.name}.png", animations="disabled")
        print(folder / f"gallery-{picture.name}.png")


def page(pictures: str) -> str:
    """The gallery's document."""
    parts: list[str] = []
    for picture in ALL:
        image = f"![{picture.title}]({pictures}/gallery-{picture.name}.png)"
        parts.append(f"## {picture.title}\n\n{fill(picture.words, 118)}\n\n{image}\n")
    return "\n".join(["# Gallery", "", "Taken from the running program by `npm run pictures`.", "", *parts])
