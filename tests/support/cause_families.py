"""Measures effects on a family and compares them with the model's own hooked runs, or reports the refusal."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

import residscope
from residscope import ResidscopeError
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
RIGHT = 1e-4
"""A smaller difference from the model's own hooked run, as a share of the largest effect, counts as rounding."""


@dataclass
class Row:
    """The result for a family.

    Attributes:
        replay: How the replay equals the cached run: "to the last bit", "up to rounding", or "–" (not compared).
        heads: Whether the effects of heads "agree" or "differ", or are "refused".
        stream: The same words for patching: the stream before layer 1 is replaced by that of another run.
        gap: The largest difference from hooked runs, as a share of the largest effect.
        said: Refusals and notes.
    """

    replay: str = "–"
    heads: str = "refused"
    stream: str = "refused"
    gap: float = 0.0
    said: list[str] = field(default_factory=list)


def difference(logits: torch.Tensor) -> torch.Tensor:
    """Return answer − distractor at the last position, `[batch]`."""
    chosen = logits[:, -1].gather(1, ANSWERS)
    return chosen[:, 0] - chosen[:, 1]


def measured(name: str) -> Row:
    """Return the result for a family."""
    row, model = Row(), tiny.boot(name)
    tokens, logits, cache = tiny.run(model)
    with torch.no_grad():
        _, other = model.run_with_cache(tokens.flip(1))
    for kind, work in (("heads", _heads), ("stream", _stream)):
        try:
            replayed, pairs, notes = work(model, tokens, logits, cache, other)
        except ResidscopeError as error:
            row.said.append(_short(str(error)))
            continue
        row.replay = "up to rounding" if "rounding" in replayed else "to the last bit"
        largest = max(float(theirs.abs().max()) for _, theirs in pairs)
        gap = max(float((ours - theirs).abs().max()) for ours, theirs in pairs) / max(largest, 1e-30)
        row.gap = max(row.gap, gap)
        setattr(row, kind, "agree" if gap <= RIGHT else "differ")
        row.said += [note for note in notes if "whole model" in note]
    row.said = list(dict.fromkeys(row.said))
    return row


Measured = tuple[str, list[tuple[torch.Tensor, torch.Tensor]], list[str]]


def _hooked(model: Any, tokens: torch.Tensor, logits: torch.Tensor, name: str, change: Any) -> torch.Tensor:
    with torch.no_grad():
        return difference(model.run_with_hooks(tokens, fwd_hooks=[(name, change)])) - difference(logits)


def _heads(model: Any, tokens: torch.Tensor, logits: torch.Tensor, cache: Any, _other: Any) -> Measured:
    found = residscope.ablate(cache, ANSWERS, progress=False)
    there = ~found.total.isnan().any(-1)

    def without(z: torch.Tensor, hook: Any, head: int, count: int) -> torch.Tensor:  # noqa: ARG001
        own = z.flatten(2).unflatten(2, (count, -1)).clone()
        own[:, :, head] = 0
        return own.reshape(z.shape)

    pairs: list[tuple[torch.Tensor, torch.Tensor]] = []
    for layer, head in there.nonzero().tolist():
        change = partial(without, head=head, count=int(there[layer].sum()))
        theirs = _hooked(model, tokens, logits, f"blocks.{layer}.attn.hook_z", change)
        pairs.append((found.total[layer, head], theirs))
    return found.replayed, pairs, found.notes


def _stream(model: Any, tokens: torch.Tensor, logits: torch.Tensor, cache: Any, other: Any) -> Measured:
    found = residscope.patch(cache, other, ANSWERS, at="resid_pre", progress=False)
    name = "blocks.1.hook_resid_pre"
    theirs = _hooked(model, tokens, logits, name, lambda stream, hook: other[name].reshape(stream.shape))  # noqa: ARG005
    return found.replayed, [(found.effects[1], theirs)], found.notes


def _short(sentence: str) -> str:
    return sentence if len(sentence) <= 200 else sentence[:200].rsplit(" ", 1)[0] + " …"
