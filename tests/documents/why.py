"""`npm run docs`: the page on why heads read what they read, with numbers of the demo model.

It has two stories: the indirect object identification task, and an induction head. All numbers come from a run of this
program, which also chooses the heads, components and positions that the sentences name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import Any

import torch

import residscope
from residscope import Attribution, demo, targets
from residscope.attribution.head_tokens import HeadTokens, head_tokens
from residscope.attribution.targets import Targets
from residscope.cache.view import CacheView

_LISTED = 6
"""The number of rows in a table. The other rows are summed in one line."""


_TASK = """\
import torch
import residscope
from residscope import demo, targets

run = demo.ioi()
model, cache, answers = run.model, run.cache, run.answers
"""
_REPEATED = """\
once = torch.randint(1000, 20000, (24,), generator=torch.Generator().manual_seed(0))
tokens = torch.cat([torch.tensor([model.tokenizer.bos_token_id]), once, once])[None]
cache = model.run_with_cache(tokens)[1]
"""


def main(path: Path) -> None:
    """Run everything and write the document."""
    path.write_text(page(demo.ioi()), "utf-8")
    print(path)


def page(run: demo.Ioi) -> str:
    """Return the text of the page."""
    with torch.no_grad():
        repeated = repeated_tokens(run.model)
        story = [*head(run), *Task(run.model, run.cache, run.answers).story(), *repeated.story()]
    return "\n".join(wrapped(story)) + "\n"


def wrapped(lines: list[str]) -> list[str]:
    """Return the document with each paragraph in lines of at most `_WIDTH` columns."""
    found: list[str] = []
    for kind, some in groupby(lines, _kind):
        texts = list(some)
        if kind == "text":
            found += wrap(" ".join(texts), _WIDTH, break_long_words=False, break_on_hyphens=False)
        elif kind == "item":
            parts = " ".join(text.strip() for text in texts).split("- **")[1:]
            for part in parts:
                found += wrap(f"- **{part.strip()}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        else:
            found += texts
    return found


_WIDTH = 118


def _kind(line: str) -> str:
    """Return the kind of text to which a line of the document belongs."""
    if line.startswith(("- ", "  ")):
        return "item"
    return "other" if not line or line.startswith(("#", "|", "```")) or line in _CODE else "text"


_CODE: set[str] = set()
"""Lines of code, which are not wrapped."""


def head(run: demo.Ioi) -> list[str]:
    """Return the introduction of the page."""
    return [
        "# Why: two stories, number by number",
        "",
        f"The demo model ({run.model.cfg.n_layers} layers × {run.model.cfg.n_heads} heads) answers, and",
        "Residscope says where the answer comes from. Then each",
        "number is asked where *it* comes from. This page needs nothing but the caches of two runs. Made by `npm run "
        "docs`; do not edit.",
        "",
        "Three facts are enough to read it:",
        "",
        "- **Rows sum to the number that the model had.** Every table ends with the sum of all other rows, and the "
        "total is the cached number.",
        "- **An attention score has two sides.** It is a product of a query (what the destination looks for) and a key "
        "(what the source offers). With the keys held fixed, the score is a sum over what was written at the "
        "destination; with the queries held fixed, over what was written at the source. Each side sums to the *whole* "
        "score, not to half of it.",
        "- **Scores only count in comparison.** The softmax turns differences of scores into ratios of attention: "
        "score(d, s) − score(d, s′) = log A(d, s) − log A(d, s′). So the question is always why the head reads s "
        "*rather than* s′.",
        "",
        "The code of this page begins with:",
        *code(*_TASK.splitlines()),
    ]


@dataclass(frozen=True)
class Prompt:
    """One prompt of a run: the model, the cache and the tokens."""

    model: Any
    cache: Any

    @property
    def tokens(self) -> list[str]:
        """The texts of the first prompt's tokens."""
        return self.model.to_str_tokens(self.cache["embed.hook_in"][0])

    def named(self, at: int) -> str:
        """Return a token with its position, as on screen."""
        return f"`{self.tokens[at].replace(' ', '·')}`{str(at).translate(_SUBSCRIPT)}"

    def attention(self, layer: int, head: int, destination: int, source: int) -> float:
        """Return the attention from a destination to a source."""
        return float(self.cache["pattern", layer][0, head, destination, source])

    def written(self, layer: int, head: int, destination: int, source: int) -> HeadTokens:
        """Return the tokens for which a head writes the highest and the lowest logits (see `HeadTokens`)."""
        resolver = Targets.of(CacheView(self.cache))
        return head_tokens(resolver, (layer, head), 0, destination, source, 3)


_SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def number(value: Any) -> str:
    """Return a value as text, with its sign."""
    return f"{float(value):+.2f}".replace("-", "−")


def strongest(result: Attribution, count: int = 1) -> list[tuple[str, float]]:
    """Return the rows farthest from 0, of any kind, in the first prompt."""
    values = result.values[:, 0]
    chosen = values.abs().topk(min(count, len(values))).indices.tolist()
    return [(result.labels[i], float(values[i])) for i in chosen]


def table(result: Attribution, title: str) -> list[str]:
    """Return the strongest rows, the sum of all others, and the total."""
    rows = strongest(result, _LISTED)
    rest = float(result.values[:, 0].sum()) - sum(value for _, value in rows)
    count = int((result.values[:, 0] != 0).sum()) - len(rows)  # rows after the point are 0
    lines = [f"| `{label}` | {number(value)} |" for label, value in rows]
    lines.append(f"| {count} others | {number(rest)} |")
    if abs(float(result.constant[0])) > 5e-3:
        lines.append(f"| biases | {number(result.constant[0])} |")
    return ["", f"| {title} | |", "|---|---:|", *lines, f"| **sum** | **{number(result.measured[0])}** |"]


def code(*lines: str) -> list[str]:
    """Return lines of Python code."""
    _CODE.update(lines)
    return ["", "```python", *lines, "```"]


def tokens_in_words(entries: Sequence[Any]) -> str:
    """Return tokens with their logits."""
    return ", ".join(f"`{token.text.replace(' ', '·')}` {number(value)}" for token, value in entries)


@dataclass(frozen=True)
class Task(Prompt):
    """The indirect object identification task."""

    answers: Any

    def story(self) -> list[str]:
        """Return the story from the logit difference to the component that wrote what the strongest head moves."""
        answer, distractor = self.answers[0]
        pair = f"“{answer.replace(' ', '·')}” − “{distractor.replace(' ', '·')}”"
        heads = residscope.attribute(self.cache, self.answers)
        (layer, index), values = self.best(heads)
        name, d = f"L{layer}H{index}", len(self.tokens) - 1
        sources = residscope.attribute(self.cache, self.answers, by="source", heads=[name]).values[:, 0, 0]
        s = int(sources.abs().argmax())
        sides = {
            side: residscope.attribute(self.cache, targets.attention(name, d, s, side=side))
            for side in ("query", "key")
        }
        pattern = self.cache["pattern", layer][0, index, d].clone()
        paid = float(pattern[s])
        pattern[s] = -1
        other = int(pattern.argmax())
        moved = residscope.attribute(self.cache, targets.output(name, of=self.answers, source=s))
        [(first, most)] = strongest(moved)
        then = residscope.attribute(self.cache, targets.output(name, of=self.answers, source=s), by="accumulated")
        early = then.labels.index("1_pre")
        written = self.written(layer, index, d, s)
        assert written.of_source is not None
        # Checks of the sentences below.
        assert float(sources[s]) > 0.8 * values
        assert abs(strongest(sides["key"])[0][1]) > float(sides["key"].measured[0])
        assert float(then.values[early, 0]) > 0.6 * float(sources[s])
        rival = int((-sources * sources[s].sign()).argmax())
        return [
            "",
            f"## Who writes {pair}?",
            "",
            f"The prompt is “{''.join(self.tokens[1:])}”. At {self.named(d)} the model's logit difference {pair} is "
            f"{number(heads.measured[0])}: it",
            "continues with the name that stands once. The heads that write most of it:",
            *code("heads = residscope.attribute(cache, answers)", "heads.top(3, prompt=0)"),
            "",
            "| head | contribution |",
            "|---|---:|",
            *(f"| {label} | {number(value)} |" for label, value in heads.top(3, prompt=0)),
            "",
            f"## What does {name} read?",
            *code(f'residscope.attribute(cache, answers, by="source", heads=["{name}"])'),
            "",
            f"Of its {number(values)}, {number(sources[s])} comes from {self.named(s)}, and",
            f"{number(sources[rival])} from "
            f"{self.named(rival)}: almost all of what this head adds",
            f"is moved from a single token. What it would write for {self.named(s)} (W_OV of what it reads",
            "there, through "
            "the final norm as",
            f"cached) is, at the top, {tokens_in_words(written.of_source.top)}; at the bottom, "
            f"{tokens_in_words(written.of_source.bottom)}.",
            self.sentence(written, answer, distractor),
            "",
            f"## Why there, and not {self.named(other)}?",
            "",
            f"From {self.named(d)}, {name} pays {paid:.2f} of its attention to {self.named(s)}, and",
            f"{float(pattern[other]):.2f} "
            f"to {self.named(other)}, the next in order. The",
            f"log of the ratio is {number(sides['query'].measured[0])}. Asked by the query, which components made "
            f"{self.named(d)} look for {self.named(s)}?",
            *code(f'query = targets.attention("{name}", destination={d}, source={s}, versus={other}, side="query")',
                  "residscope.attribute(cache, query)"),
            *table(sides["query"], f"query side, at {self.named(d)}"),
            "",
            f"Asked by the key, which components made {self.named(s)} findable, compared with {self.named(other)}?",
            *code(f'key = targets.attention("{name}", destination={d}, source={s}, versus={other}, side="key")',
                  "residscope.attribute(cache, key)"),
            *table(sides["key"], f"key side, at {self.named(s)} minus at {self.named(other)}"),
            "",
            "Both tables have the same sum. No single component decides: the score is a small difference of",
            "many large "
            "rows, and the",
            f"strongest of either side, `{strongest(sides['query'])[0][0]}` and `{strongest(sides['key'])[0][0]}`, "
            f"{self.together(sides)}.",
            "`residscope.pairs(cache, query)` shows which component of the query meets which of the key.",
            "",
            "## Who put there what it moves?",
            "",
            f"The attention is now held fixed at {paid:.2f}. What {name} moves from {self.named(s)},",
            f"{number(sources[s])}, is "
            "a sum over what was written at",
            f"{self.named(s)} before layer {layer}:",
            *code(f'moved = targets.output("{name}", of=answers, source={s})', "residscope.attribute(cache, moved)"),
            *table(moved, f"written at {self.named(s)}"),
            "",
            f"`{first}` wrote {number(most)} of {number(sources[s])}; all that was written before layer 1 is "
            f"{number(then.values[early, 0])}. At that depth the token knows",
            f"little more than itself: {name} moves the token's *identity*, not something that later layers",
            "have found out "
            "about it.",
            "In the panel, pin the head and choose *who put it?*; the trail in the header leads back. *Why here?*",
            "compares with the other ordinary token that the head reads most; *compared with* has all others, such as",
            f"{self.named(other)}.",
        ]  # fmt: skip

    def best(self, heads: Attribution) -> tuple[tuple[int, int], float]:
        """Return the head with the largest contribution in the first prompt, and this contribution."""
        at = int(heads.grid[..., 0].argmax())
        layer, index = divmod(at, heads.grid.shape[1])
        return (layer, index), float(heads.grid[layer, index, 0])

    def sentence(self, written: HeadTokens, answer: str, distractor: str) -> str:
        """Return a sentence on what the head's tokens show. The numbers decide which sentence."""
        assert written.of_source is not None
        top = [token.text for token, _ in written.of_source.top]
        bottom = [token.text for token, _ in written.of_source.bottom]
        if distractor in bottom:
            return "It lowers the name that it reads. That raises the other one in comparison."
        if answer in top:
            return "It raises the answer."
        return "Neither name is at an end of the list: the difference between the two is what counts here."

    def together(self, sides: dict[str, Attribution]) -> str:
        """Return words on whether the strongest row of each side raises or lowers the score."""
        signs = {float(strongest(side)[0][1]) * float(side.measured[0]) > 0 for side in sides.values()}
        return (
            {True: "both raise it", False: "both lower it"}[signs.pop()]
            if len(signs) == 1
            else "pull in opposite directions"
        )


@dataclass(frozen=True)
class Repeated(Prompt):
    """A sequence of random tokens, twice, which an induction head needs."""

    length: int

    def story(self) -> list[str]:
        """Return the story from the head with the highest induction score to the head that feeds its key."""
        scores = residscope.scores(self.cache, "induction")
        name = scores.labels[int(scores.values.flatten().nan_to_num().argmax())]
        layer, index = (int(part) for part in name[1:].split("H"))
        rows = range(self.length + 2, 2 * self.length + 1)
        d = max(rows, key=lambda at: self.attention(layer, index, at, at - self.length + 1))
        s = d - self.length + 1
        sides = {
            side: residscope.attribute(self.cache, targets.attention(name, d, s, side=side))
            for side in ("query", "key")
        }
        pattern = self.cache["pattern", layer][0, index, d].clone()
        paid = float(pattern[s])
        pattern[s] = -1
        other = int(pattern.argmax())
        feeder, fed = next((label, value) for label, value in sides["key"].top(1, prompt=0))
        at, head = (int(part) for part in feeder[1:].split("H"))
        previous = residscope.scores(self.cache, "previous")
        rank = int((previous.values > previous.values[at, head]).sum()) + 1
        raw = targets.attention(name, d, s, versus=None, side="key")
        moved = residscope.attribute(self.cache, targets.output(feeder, of=raw, source=s - 1))
        whole = residscope.attribute(self.cache, raw)
        own = float(whole.values[whole.labels.index(feeder), 0])
        [(first, most)] = strongest(moved)
        assert (paid > 0.5, self.tokens[s - 1], rank) == (True, self.tokens[d], 1)  # the sentences below say this
        return [
            "",
            "# An induction head",
            "",
            f"The prompt is {self.length} random tokens, and then the same {self.length} tokens again. An",
            "induction head "
            "reads, from a token of the second",
            "half, the token that followed its first occurrence, and so predicts the repetition. The score "
            '`residscope.scores(cache,',
            f'"induction")` is highest for **{name}**, {float(scores.values[layer, index]):.2f}.',
            *code(*_REPEATED.splitlines()),
            "",
            f"## What does {name} read?",
            "",
            f"From {self.named(d)} it pays {paid:.2f} of its attention to {self.named(s)}. The token before that is "
            f"{self.named(s - 1)}: the same as the one it",
            f"reads from. The next in order is {self.named(other)}, with {float(pattern[other]):.2f}; the log",
            f"of the ratio is "
            f"{number(sides['key'].measured[0])}.",
            "",
            "## Why there? The key",
            "",
            f"How can {name} know, at {self.named(s)}, what stood *before* it? Something must have written it there:",
            *code(f'key = targets.attention("{name}", destination={d}, source={s}, side="key")',
                  "residscope.attribute(cache, key)"),
            *table(sides["key"], f"key side, at {self.named(s)} minus at {self.named(other)}"),
            "",
            f"The head that raises it most is **{feeder}**, {number(fed)}. It is a previous-token head: its score "
            f'`residscope.scores(cache, "previous")` is',
            f"{float(previous.values[at, head]):.2f} ({_ordinal(rank)} of all heads), and from {self.named(s)}",
            f"it pays "
            f"{self.attention(at, head, s, s - 1):.2f} of its attention to {self.named(s - 1)}.",
            "",
            f"## What does {feeder} move into that key?",
            "",
            "Here the target is the score itself, not compared with another source, so that it is read at one",
            "position: "
            f"{feeder}",
            f"contributes {number(own)} to it, of which {number(moved.measured[0])} comes from",
            f"{self.named(s - 1)}. Who wrote "
            "what it moves?",
            *code(f'key = targets.attention("{name}", destination={d}, source={s}, versus=None, side="key")',
                  f'residscope.attribute(cache, targets.output("{feeder}", of=key, source={s - 1}))'),
            *table(moved, f"written at {self.named(s - 1)}"),
            "",
            f"The strongest row is `{first}`, {number(most)}: {self.reading(first)}",
            "",
            "## And the query",
            "",
            f"On the other side stands {self.named(d)}, which looks for a key that says “the token before me was "
            f"{self.tokens[d].strip()}”:",
            *table(sides["query"], f"query side, at {self.named(d)}"),
            "",
            f"That is the circuit of two heads of the literature, on this prompt and with its numbers: {feeder}",
            "writes the "
            "previous token into",
            f"the key of {name} (K-composition), and {name} reads it. Source: Olsson et al., “In-context Learning and "
            "Induction Heads” (2022).",
        ]  # fmt: skip

    def reading(self, row: str) -> str:
        """Return words on the strongest row: whether it is from the embedding or a sublayer of layer 0."""
        early = row == "embed" or row.startswith("0_")
        if early:
            return "the token itself, before any later layer has changed what stands there."
        return "not the bare token, but what this component has made of it."


def _ordinal(rank: int) -> str:
    return {1: "the highest", 2: "the second highest", 3: "the third highest"}.get(rank, f"number {rank}")


def repeated_tokens(model: Any) -> Repeated:
    """Return a run on a sequence of random tokens that is repeated once."""
    names: dict[str, Any] = {"torch": torch, "model": model}
    exec(_REPEATED, names)
    return Repeated(model, names["cache"], len(names["once"]))


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2] / "py_backend/docs/why.md")
