"""Shared by the sidebar's tests: code that makes caches, functions that read a view, and expressions for the kernel."""

from __future__ import annotations

import re

from playwright.sync_api import Locator

from residscope.demo import demo_model_folder

FOLLOWS = 15_000  # milliseconds; long, because the machine may be busy

TINY = """
from tests.support import tiny
import torch
model = tiny.boot("llama")
tokens, logits, cache = tiny.run(model)
"""

REAL = f"""
from transformer_lens.model_bridge import TransformerBridge
model = TransformerBridge.boot_transformers({str(demo_model_folder())!r})
tokens = model.to_tokens([
    "When John and Mary went to the shops, John gave the bag to",
    "When Tom and James went to the park, James gave the ball to",
])
logits, cache = model.run_with_cache(tokens)
runs = {{"clean": cache}}
"""
"""Code of a researcher who does not use Residscope."""

TOP = "logits[:, -1].topk(2)"  # the model's own two top predictions
DIFFERENCE = f"{TOP}.values.diff().neg().mean().item()"


def contribution(head: str) -> str:
    """Return an expression for a head's contribution to the mean logit difference, in a model with RMSNorm."""
    layer, number = map(int, head[1:].split("H"))
    ids = f"{TOP}.indices"
    direction = f"(model.W_U[:, {ids}[:, 0]] - model.W_U[:, {ids}[:, 1]]).T * model.ln_final.weight"
    written = f"cache['z', {layer}][:, -1, {number}] @ model.W_O[{layer}, {number}]"
    return f"((({written}) * {direction}).sum(-1) / cache['ln_final.hook_scale'][:, -1, 0]).mean().item()"


# `OURS` lists the subshells of Residscope's comms, `SUBSHELLS` all subshells. `HELD` counts subshells and threads.
# (When a page is reloaded, JupyterLab does not delete its own subshell for widgets.)
OURS = (
    "[c._reply_subshell_id for c in __import__('comm').get_comm_manager().comms.values()"
    " if c.target_name == 'residscope']"
)
SUBSHELLS = "get_ipython().kernel.shell_channel_thread.manager.list_subshell()"
HELD = f"[len({OURS}), len({SUBSHELLS}), __import__('threading').active_count()]"


# The share of an element, 0 to 1, that is visible: inside the window, and not clipped by an ancestor.
SEEN = """node => {
    const box = node.getBoundingClientRect();
    let { left, top, right, bottom } = box;
    const cut = (l, t, r, b) => {
        [left, top, right, bottom] = [Math.max(left, l), Math.max(top, t), Math.min(right, r), Math.min(bottom, b)];
    };
    cut(0, 0, innerWidth, innerHeight);
    for (let over = node.parentElement; over && over !== document.body; over = over.parentElement) {
        if (getComputedStyle(over).overflow === "visible") continue;
        const { left: l, top: t, right: r, bottom: b } = over.getBoundingClientRect();
        cut(l, t, r, b);
    }
    return Math.max(0, right - left) * Math.max(0, bottom - top) / (box.width * box.height);
}"""


def cache_status(view: Locator) -> Locator:
    """Return the sentence in the header about the status of the cache."""
    return view.locator(".rs-facts [role=alert]")


def cell(view: Locator, head: str) -> Locator:
    """Return a head's cell in the head map."""
    return view.get_by_role("gridcell", name=re.compile(rf"^{head}( |$)"))


def cells(view: Locator) -> dict[str, float]:
    """Return the values in the head map by the names of its cells: L23H3 → 2.24. NaN while a value is awaited."""
    names = (
        view.get_by_role("grid", name="Head map")
        .get_by_role("gridcell")
        .evaluate_all("cells => cells.map(cell => cell.getAttribute('aria-label'))")
    )
    values = (name.replace("not known yet", "nan").split() for name in names)
    return {head: float(value.replace("−", "-")) for head, value in values}


def token_names(texts: list[str]) -> list[str]:
    """Return a prompt's tokens as sentences on screen name them. A repeated token is followed by its position."""
    marks = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    shown = [text.replace(" ", "·") for text in texts]
    return [text + str(at).translate(marks) * (shown.count(text) > 1) for at, text in enumerate(shown)]
