"""What the sidebar's tests share: a small cache to look at, how a view is read, what the kernel still holds."""

from __future__ import annotations

import re

from playwright.sync_api import Locator

from residscope.demo import demo_model_folder

FOLLOWS = 15_000  # milliseconds; the machine may be busy, the gesture is not

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
"""What a researcher has run, without a word of Residscope."""

TOP = "logits[:, -1].topk(2)"  # the model's own two top predictions
DIFFERENCE = f"{TOP}.values.diff().neg().mean().item()"


def worth(head: str) -> str:
    """What a head adds to the mean difference of these two, worked out by hand from the cache of an RMSNorm model."""
    layer, number = map(int, head[1:].split("H"))
    ids = f"{TOP}.indices"
    direction = f"(model.W_U[:, {ids}[:, 0]] - model.W_U[:, {ids}[:, 1]]).T * model.ln_final.weight"
    written = f"cache['z', {layer}][:, -1, {number}] @ model.W_O[{layer}, {number}]"
    return f"((({written}) * {direction}).sum(-1) / cache['ln_final.hook_scale'][:, -1, 0]).mean().item()"


# The subshell of each of Residscope's comms; all subshells; how many there are of these, and of threads. (JupyterLab
# leaves a subshell of its own for widgets behind when a page is reloaded.)
OURS = (
    "[c._reply_subshell_id for c in __import__('comm').get_comm_manager().comms.values()"
    " if c.target_name == 'residscope']"
)
SUBSHELLS = "get_ipython().kernel.shell_channel_thread.manager.list_subshell()"
HELD = f"[len({OURS}), len({SUBSHELLS}), __import__('threading').active_count()]"


# How much of an element is inside the window and inside every ancestor that cuts it off, 0 to 1.
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


def standing(view: Locator) -> Locator:
    """What the header says has become of the cache."""
    return view.locator(".rs-facts [role=alert]")


def cell(view: Locator, head: str) -> Locator:
    """A head's cell in the map."""
    return view.get_by_role("gridcell", name=re.compile(rf"^{head}( |$)"))


def cells(view: Locator) -> dict[str, float]:
    """The head map as it is named: L23H3 → 2.24."""
    names = (
        view.get_by_role("grid", name="Head map")
        .get_by_role("gridcell")
        .evaluate_all("cells => cells.map(cell => cell.getAttribute('aria-label'))")
    )
    return {head: float(value.replace("−", "-")) for head, value in (name.split() for name in names)}


def token_names(texts: list[str]) -> list[str]:
    """The tokens of a prompt as sentences name them: where the same one stands twice, with its position."""
    marks = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    shown = [text.replace(" ", "·") for text in texts]
    return [text + str(at).translate(marks) * (shown.count(text) > 1) for at, text in enumerate(shown)]
