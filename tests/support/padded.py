"""Prompts with all kinds of padding that tokenizers make. Expected values come from runs of each prompt alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from itertools import product
from typing import Any

import torch
from tokenizers import models

import residscope
from residscope.cache.positions import last
from residscope.cache.view import CacheView
from tests.support import tiny

PROMPTS = [[5, 6, 7, 5, 6], [9, 10, 9], [11, 12, 11, 12]]
BY_ONE = [[5, 6, 7, 5, 6], [9, 10, 9, 10], [11, 12, 11, 12]]
EACH_BY_ONE = [[5, 6, 7, 5], *BY_ONE[1:]]
ANSWERS = (21, 22)
SCORES = ("previous", "first", "duplicate", "induction", "entropy")
FIGURES = ("last position", "logits", *SCORES)

SPECIAL = {  # the ids of pad, bos and eos
    "all differ": (0, 1, 2),
    "pad = eos": (2, 1, 2),
    "pad = bos": (1, 1, 2),
    "bos = eos": (0, 2, 2),
    "pad = bos = eos": (2, 2, 2),
}
FILLINGS = {"pad": None, "0": 0, "`.`": 30}
"""The token that fills the rows: None for the tokenizer's padding token, or the id of another token."""


@dataclass(frozen=True)
class Case:
    """A way to pad prompts."""

    special: str
    """The key in `SPECIAL`."""
    side: str
    bos: bool
    """Whether each prompt begins with BOS."""
    eos: bool
    """Whether each prompt ends with EOS."""
    fixed: bool
    """Whether the longest prompt is padded, too."""
    masked: bool
    """Whether the model got the attention mask."""
    one: bool = False
    """Whether a padded prompt has exactly one padding token."""
    filling: str = "pad"
    """The key in `FILLINGS`."""


WAYS = [
    Case(*of) for of in product(SPECIAL, ("right", "left"), (True, False), (True, False), (False, True), (False, True))
]
ONE = [
    Case(special, side, bos, False, fixed, masked, one=True)
    for special, side, bos, fixed, masked in product(
        SPECIAL, ("right", "left"), (True, False), (False, True), (False, True)
    )
] + [
    Case("pad = bos = eos", side, bos, False, fixed=False, masked=masked, one=True, filling=filling)
    for filling, side, bos, masked in product(("0", "`.`"), ("right", "left"), (True, False), (False, True))
]
"""Cases in which a padded prompt has one padding token. This is the weakest evidence of padding in token ids."""
assert (len(WAYS), len(ONE)) == (160, 96)
assert len(fields(Case)) == 8


def prompts(case: Case) -> tuple[list[list[int]], torch.Tensor, torch.Tensor]:
    """Return the prompts without padding, the padded rows, and their mask."""
    pad, bos, eos = SPECIAL[case.special]
    chosen = FILLINGS[case.filling]
    pad = pad if chosen is None else chosen
    texts = PROMPTS if not case.one else EACH_BY_ONE if case.fixed else BY_ONE
    alone = [[bos] * case.bos + prompt + [eos] * case.eos for prompt in texts]
    width = max(map(len, alone)) + (1 if case.one else 3) * case.fixed
    rows, mask = [], []
    for prompt in alone:
        fill = width - len(prompt)
        left = fill if case.side == "left" else 0
        rows.append([pad] * left + prompt + [pad] * (fill - left))
        mask.append([0] * left + [1] * len(prompt) + [0] * (fill - left))
    return alone, torch.tensor(rows), torch.tensor(mask)


@cache
def measured(
    case: Case, *, given: bool = False, blind: bool = False, one: bool = False
) -> list[tuple[str, bool, list[str]]]:
    """Return for each value its name, whether it equals the value from runs of each prompt alone, and its notes.

    Args:
        case: How the prompts are padded.
        given: Whether Residscope gets the mask.
        blind: Whether the cache holds no token ids.
        one: Whether the run has only the second prompt.
    """
    return list(_measured(case, given, blind, one))


def named(case: Case, notes: list[str], *, one: bool = False) -> bool:
    """Return whether the notes name two numbers for each padded prompt.

    These are the number of its padding tokens, and a position: of its first token if the padding is on the left, of its
    last token if the padding is on the right.
    """
    _, _, mask = prompts(case)
    mask = mask[1:2] if one else mask
    numbers = {int(number) for number in re.findall(r"\d+", " ".join(notes))}
    wanted: set[int] = set()
    for row in mask.tolist():
        if 0 in row:
            wanted |= {row.count(0), row.index(1) if case.side == "left" else sum(row) - 1}
    return wanted <= numbers


def _measured(case: Case, given: bool, blind: bool, one: bool) -> Iterator[tuple[str, bool, list[str]]]:
    model = _model()
    pad, bos, eos = SPECIAL[case.special]
    model.tokenizer.pad_token_id, model.tokenizer.bos_token_id, model.tokenizer.eos_token_id = pad, bos, eos
    model.tokenizer.padding_side = case.side
    alone, tokens, mask = prompts(case)
    if one:
        alone, tokens, mask = alone[1:2], tokens[1:2], mask[1:2]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, **({"attention_mask": mask} if case.masked else {}))
    options: dict[str, Any] = {"attention_mask": mask} if given else {}
    if blind:
        cache = {name: held for name, held in cache.items() if name not in ("embed.hook_in", "hook_embed")}
        options["model"] = model
    expected = [_run_alone(tuple(prompt)) for prompt in alone]
    ends = [(mask.shape[1] - 1 - row.flip(0).argmax()).item() for row in mask]
    result = residscope.attribute(cache, ANSWERS, by="layer", **options)
    yield "last position", last(CacheView(cache, **options)) == ends, result.notes
    yield "logits", _same(result.measured, torch.stack([logits for logits, _ in expected])), result.notes
    for score in SCORES:
        if blind and score in ("duplicate", "induction"):
            continue  # these scores need token ids
        found = residscope.scores(cache, score, **options)  # the mean of the prompts' scores
        is_right = _same(found.values, torch.stack([scores[score] for _, scores in expected]).mean(0))
        yield score, is_right, found.notes


@cache
def _run_alone(prompt: tuple[int, ...]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the logit difference at the end of the prompt, and the scores of the heads by TransformerLens."""
    with torch.no_grad():
        logits, cache = _model().run_with_cache(torch.tensor([prompt]))
    patterns = torch.stack([cache["pattern", layer][0] for layer in range(3)])  # [layer, head, pos, pos]
    return logits[0, -1, ANSWERS[0]] - logits[0, -1, ANSWERS[1]], {s: _score(s, patterns, prompt) for s in SCORES}


def _score(score: str, patterns: torch.Tensor, prompt: tuple[int, ...]) -> torch.Tensor:
    from transformer_lens import head_detector

    if score == "first":
        return patterns[..., 1:, 0].mean(-1)
    if score == "entropy":
        return -torch.special.xlogy(patterns, patterns).sum(-1)[..., 1:].mean(-1) / torch.tensor(2.0).log()
    names = {"previous": "previous_token", "duplicate": "duplicate_token", "induction": "induction"}
    wanted = getattr(head_detector, f"get_{names[score]}_head_detection_pattern")(torch.tensor([prompt]))
    return (patterns * wanted).sum((-1, -2)) / patterns.sum((-1, -2))


def _same(found: torch.Tensor, true: torch.Tensor) -> bool:
    return torch.allclose(found, true.to(found), atol=1e-4)


@cache
def _model() -> Any:
    model = tiny.boot("llama")
    words = model.tokenizer.get_vocab()
    words["."] = words.pop("w30")
    model.tokenizer._tokenizer.model = models.WordLevel(words, unk_token="<pad>")
    return model
