"""A panel on the demo model, as a notebook opens it."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from tests.support.sidebar import FOLLOWS

RUN = "from residscope import demo\nimport residscope\nfrom tests.support.demo_run import run"  # as `run = demo.ioi()`
SETUP = f"{RUN}\ncache, answers = run.cache, run.answers"
INSPECT = "panel = residscope.inspect(cache, answers=answers)"
PARTIAL = {
    "patterns": 'name.endswith("hook_pattern")',
    "z": 'name.endswith(("attn.hook_z", "ln_final.hook_scale"))',
    "resid-post": 'name.endswith("hook_resid_post")',
}
"""Conditions of filters (`names_filter`) that are often used."""


def settled(panel: Locator) -> None:
    """Wait until a panel has drawn everything that it requested."""
    expect(panel).to_have_attribute("data-state", "ready", timeout=FOLLOWS)
