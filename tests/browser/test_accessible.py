"""axe-core finds nothing serious in the views of the panel that `STATES` shows, and in the sidebar, in both themes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, expect

from tests.support.lab import Lab
from tests.support.sidebar import FOLLOWS, TINY, cell

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"
THEMES = ("JupyterLab Light", "JupyterLab Dark")
SAE = "from tests.support import saes\nsae = saes.TopK(24, hook_name='blocks.1.hook_mlp_out')"
STATES: list[dict[str, Any]] = [
    {},
    {"weighting": "contribution", "score": "induction"},
    {"presentation": "text", "weighting": "value", "ranking": "neurons"},
    {"presentation": "all", "score": "copying", "prompt": 1},
    {"tab": "positions", "score": None},
    {"tab": "token-lens"},
    {"tab": "prompts", "prompt": None},
    {"tab": "why"},
    {"prompt": 0, "against": 1},
    {"prompt": 0, "against": 1, "run": "second", "tab": "runs"},
    {"prompt": 0, "segments": [("question", 0, 3), ("answer", 3, 7)], "tab": "segments"},
    {"prompt": 0, "tab": "features"},
]
START: dict[str, Any] = {
    "weighting": "pattern",
    "score": None,
    "presentation": "matrix",
    "ranking": "heads",
    "prompt": None,
    "segments": None,
    "against": None,
    "run": "difference",
    "tab": "attention",
}


def findings(view: Locator) -> list[str]:
    """Return the findings of axe-core in a view that are serious or worse, each with its element."""
    results = view.evaluate("view => window.axe.run(view, { resultTypes: ['violations'] })")
    return [
        f"{found['id']} ({found['impact']}): {found['help']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for found in results["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]


def test_axe_finds_nothing_serious_in_any_view(lab: Lab) -> None:
    inspect = "import residscope\npanel = residscope.inspect(cache, heads=['1.1', '2.0'])"
    lab.open(lab.write_notebook("small.ipynb", TINY, "mine = [5, 6, 7]", SAE, inspect))
    lab.open_sidebar()
    lab.run_all()
    panel = lab.panel()
    narrow = lab.inspect("cache")
    cell(narrow, "L1H1").click()
    expect(narrow.get_by_role("region", name="Attention L1H1", exact=True)).to_be_visible(timeout=FOLLOWS)
    lab.page.add_script_tag(path=str(AXE))
    found: list[str] = []
    for theme in THEMES:
        lab.command("apputils:change-theme", theme=theme)
        expect(panel).to_have_attribute("data-theme", "dark" if "Dark" in theme else "light", timeout=FOLLOWS)
        for state in STATES:
            lab.python("0", before="".join(f"panel.{name} = {value!r}\n" for name, value in {**START, **state}.items()))
            # Wait until the panel has received the state, and then the replies to its requests.
            tab = panel.locator(".rs-tabs [aria-selected=true]")
            expect(tab).to_have_attribute("data-tab", state.get("tab", "attention"), timeout=FOLLOWS)
            lab.ready(panel)
            found += [f"{theme} {state}: {finding}" for finding in findings(panel)]
        found += [f"{theme}, sidebar: {finding}" for finding in findings(lab.sidebar)]
        narrow.get_by_role("button", name="answer:").click()
        expect(narrow.get_by_role("group", name="From the notebook")).to_be_visible(timeout=FOLLOWS)
        found += [f"{theme}, the target's menu: {finding}" for finding in findings(lab.sidebar)]
        lab.page.keyboard.press("Escape")
    assert not found, "\n".join(found)
