"""`npm run docs`: the page on a generated answer of the demo model, token by token.

This program runs the code of the page. The numbers are compared with the run's logits and with values in float64.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Any

import torch

import residscope

GENERATE = """
import torch
import residscope
from residscope import demo, targets

model = demo.ioi().model
chat = "<|im_start|>user\\nWhat is the capital of France?<|im_end|>\\n<|im_start|>assistant\\n"
prompt = model.tokenizer(chat, return_tensors="pt", add_special_tokens=False)["input_ids"]
with torch.no_grad():
    tokens, cache = model.generate(prompt, max_new_tokens=12, do_sample=False, return_cache=True, verbose=False)
"""
PREDICTED = """
words = model.to_str_tokens(tokens[0])
followed = residscope.next_tokens(cache)
"""
ADDED = """
added = residscope.attribute(cache, targets.next_token(), by="head", position="all")
"""
VERSUS = """
at = words.index(" Paris") - 1
versus = residscope.attribute(cache, targets.next_token(versus="runner-up"), by="head", position=at)
versus.top(3)
"""
SOURCES = """
name = versus.top(1)[0][0]
sources = residscope.attribute(cache, targets.next_token(), by="source", heads=[name], position=at)
"""
PANEL = """
residscope.inspect(cache, targets.next_token(), generated_from=prompt.shape[1])
"""


def main(path: Path) -> None:
    """Run everything and write the document."""
    path.write_text(page(run()), encoding="utf-8")
    print(path)


def run() -> dict[str, Any]:
    """Run the code of the page, except the panel. Return its variables."""
    names: dict[str, Any] = {}
    for code in (GENERATE, PREDICTED, ADDED, VERSUS, SOURCES):
        exec(code, names)
    check(names)
    return names


def check(names: dict[str, Any]) -> None:
    """Compare the numbers of the page with the run's own logits, and one head's row with a value in float64."""
    cache, model, tokens = names["cache"], names["model"], names["tokens"][0]
    logits = cache["unembed.hook_out"][0].double()
    own = logits[:-1].gather(1, tokens[1:, None])
    log_prob = own[:, 0] - logits[:-1].logsumexp(-1)
    torch.testing.assert_close(names["followed"].log_prob[0, :-1].double(), log_prob, atol=1e-4, rtol=1e-4)
    assert names["followed"].rank[0, :-1].tolist() == (1 + (logits[:-1] > own).sum(-1)).tolist()
    added = names["added"]
    total = (added.values.sum(0) + added.constant)[0, :-1].double()
    torch.testing.assert_close(total, own[:, 0], atol=1e-3, rtol=1e-4)
    layer, head = map(int, names["name"][1:].split("H"))
    scale = cache["ln_final.hook_scale"][0, :-1].double()
    toward = model.W_U[:, tokens[1:]].T.double() * model.ln_final.weight.double() / scale
    by_hand = ((cache["z", layer][0, :-1, head].double() @ model.W_O[layer, head].double()) * toward).sum(-1)
    torch.testing.assert_close(added.grid[layer, head, 0, :-1].double(), by_hand, atol=1e-4, rtol=1e-4)
    sources = names["sources"]
    torch.testing.assert_close(sources.values[:, 0, 0].sum().double(), by_hand[names["at"]], atol=1e-4, rtol=1e-4)


def page(names: dict[str, Any]) -> str:
    """Return the text of the page."""
    words, followed, added, at = names["words"], names["followed"], names["added"], names["at"]
    start, count = names["prompt"].shape[1], len(words) - 1
    gap, adding = added.unexplained[0, :-1].abs(), int((added.unexplained[0, :-1].abs() <= added.tolerance).sum())
    top, name = names["versus"].top(3), names["name"]
    values = names["sources"].values[:, 0, 0]
    source = int(values.abs().argmax())
    unsure = start + int(followed.log_prob[0, start:count].argmin())
    text = names["model"].tokenizer.decode
    heads = [f"{label} {number(value)}" for label, value in top]
    lines = [
        "# A generated answer, token by token",
        "",
        "An answer has many tokens, and each has its own reasons. With the target `targets.next_token()`, each ",
        "position is asked about the token that really followed it. This page reads one answer of the demo model. Made",
        "by `npm run docs`; do not edit.",
        "",
        "## An answer, and its cache",
        "",
        "TransformerLens' `generate(return_cache=True)` returns the cache of prompt and answer together:",
        "",
        *code(GENERATE),
        f"The answer begins at position {start}: “{''.join(words[start:-1])}”, then `{words[-1]}`.",
        "",
        "## How sure was the model of each token?",
        "",
        *code(PREDICTED),
        "| token | p | rank | runner-up |",
        "|---|---:|---:|---|",
        *(
            f"| {in_cell(words[p + 1])} | {float(followed.log_prob[0, p].exp()):.3f} | "
            f"{int(followed.rank[0, p])} | "
            f"{in_cell(text([int(followed.runner_up[0, p])]))} |"
            for p in range(start - 1, count)
        ),
        "",
        "The runner-up is the likeliest other token at that position. After the first token, the model was least sure",
        f"of {quoted(words[unsure + 1])}. The last token has no next token in the cache, so it has no row.",
        "",
        "## What wrote each token?",
        "",
        *code(ADDED),
        "One pass gives a direction to each position: `added.values` is `[component, batch, pos]`, and the values of",
        "position p are about the token at p + 1. At each position the rows and the constant sum to the logit of the",
        f"token that followed: at {adding} of {count} positions (the largest gap is {float(gap.max()):.0e}). The head",
        "that adds most to each token of the answer:",
        "",
        "| token | head | adds |",
        "|---|---|---:|",
        *(strongest(names, p) for p in range(start - 1, count)),
        "",
        f"## Why {quoted(words[at + 1])}, and not {quoted(text([int(followed.runner_up[0, at])]))}?",
        "",
        'With `versus="runner-up"`, the logit of the likeliest other token is subtracted at each position. The heads',
        f"of each sign that matter most at {quoted(words[at])}:",
        "",
        *code(VERSUS),
        f"They are {', '.join(heads[:-1])} and {heads[-1]}. What does {name} read there?",
        "",
        *code(SOURCES),
        f"Of the {number(values.sum())} that it adds to the logit of {quoted(words[at + 1])}, {number(values[source])}",
        f"comes from {quoted(words[source])} at position {source}.",
        "",
        "## On screen",
        "",
        *code(PANEL),
        "The target is “what came next”; in the list of targets it is under “At each position”. The tokens are",
        "coloured by their surprise, −log p. While the pointer is on a head or a layer, or a head is pinned, they are",
        "coloured by what it adds to each of them. A click on a token asks what wrote it: all views then show the",
        "position before this token, and the position map has a column for each token that was written. The badge",
        f"counts the positions that add up: {adding} of {count}. Special tokens have a frame, and a line marks where",
        "the answer begins. With `generated_from`, the colours of the tokens and of the position map are scaled to the",
        "answer; what lies beyond them in the prompt is marked in the key.",
    ]
    return "\n".join(wrapped(lines)) + "\n"


def wrapped(lines: list[str]) -> list[str]:
    """Return the text with each paragraph in lines of at most 118 columns."""
    found: list[str] = []
    text: list[str] = []
    inside = False
    for line in [*lines, ""]:
        inside = inside != line.startswith("```")
        if line and not inside and not line.startswith(("#", "|", "```")):
            text.append(line.strip())
            continue
        if text:
            found += wrap(" ".join(text), 118, break_long_words=False, break_on_hyphens=False)
            text = []
        found.append(line)
    return found[:-1]


def strongest(names: dict[str, Any], position: int) -> str:
    """Return a row of the table: the head that adds most to the token after a position."""
    grid = names["added"].grid[:, :, 0, position]
    best = int(grid.argmax())
    label = "L{}H{}".format(*divmod(best, grid.shape[1]))
    return f"| {in_cell(names['words'][position + 1])} | {label} | {number(grid.flatten()[best])} |"


def code(text: str) -> list[str]:
    """Return a block of code and an empty line."""
    return ["```python", *text.strip().split("\n"), "```", ""]


def number(value: Any) -> str:
    """Return a value as text, with its sign."""
    return f"{float(value):+.2f}".replace("-", "−")


def in_cell(token: str) -> str:
    """Return a token for a cell of a table, in which a bar is escaped."""
    return quoted(token).replace("|", "\\|")


def quoted(token: str) -> str:
    """Return a token as it is shown on screen."""
    return "`" + token.replace("\n", "↵").replace(" ", "·") + "`"


if __name__ == "__main__":
    main(Path(residscope.__file__).parents[1] / "docs/next-token.md")
