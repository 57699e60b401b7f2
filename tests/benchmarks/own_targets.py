"""Each token's own target at 1,024 positions, beside one target at every position and one read of the activations.

Positions with the same next token share a direction. So there is a prompt of random tokens, and one of a text's words.

python -m tests.benchmarks.run own_targets
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.table import Row, side_by_side, spoken

POSITIONS = 1024
TEXT = Path(__file__).resolve().parents[2] / "py_backend/docs/why.md"


def rows() -> list[Row]:
    """Return the rows. One target and own targets are both of a new cache object each time."""
    import residscope
    from tests.benchmarks import shapes

    model = shapes.gpt2_small()
    random, pair = shapes.run(model, 1, POSITIONS)
    asked = [pair]

    def another(cache: Any) -> Any:
        return type(cache)(dict(cache.cache_dict), model)

    def one(cache: Any, by: Any) -> object:
        asked[0] = (asked[0] + 1) % model.cfg.d_vocab
        return residscope.attribute(cache, asked[0], by=by, position="all")

    def own(cache: Any, by: Any) -> object:
        return residscope.attribute(another(cache), residscope.targets.next_token(), by=by, position="all")

    made = [_of_one_target(lambda: one(random, "head"), _read(random, model))]
    text = _text()
    with torch.no_grad():
        written = model.run_with_cache(text)[1]
    distinct = len(set(text[0].tolist()))
    for cache, by, words in (
        (random, "layer", "random tokens"),
        (random, "head", "random tokens"),
        (written, "head", f"a text with {distinct} different tokens"),
    ):
        each, single = side_by_side(
            7, lambda cache=cache, by=by: own(cache, by), lambda cache=cache, by=by: one(another(cache), by)
        )
        ratio = each / single
        made.append(
            Row(
                f"{by}s, 1 × {POSITIONS}, every position, {words}: each token's own target",
                "one target",
                spoken(each),
                spoken(single),
                f"{ratio:.1f} × its time",
                "≤ 3 ×",
                ratio <= 3,
            )
        )
    return made


def _of_one_target(new: Callable[[], object], read: Callable[[], object]) -> Row:
    ours, once = side_by_side(9, new, read)
    ratio = ours / once
    return Row(
        f"heads, 1 × {POSITIONS}, every position: a new target",
        "one read of `z`, the MLPs' outputs and `W_O` (`sum`)",
        spoken(ours),
        spoken(once),
        f"{ratio:.1f} × its time",
        "≤ 2 ×",
        ratio <= 2,
    )


def _read(cache: Any, model: Any) -> Callable[[], object]:
    layers = range(model.cfg.n_layers)
    held = [cache[f"blocks.{layer}.{name}"] for layer in layers for name in ("attn.hook_z", "hook_mlp_out")]
    held += [model.blocks[layer].attn.W_O.detach() for layer in layers]
    return lambda: [tensor.sum() for tensor in held]


def _text() -> torch.Tensor:
    """The first words and marks of a page, each with an id of its own, as a prompt."""
    ids: dict[str, int] = {}
    words = re.findall(r"\w+|[^\w\s]", TEXT.read_text("utf8"))[:POSITIONS]
    return torch.tensor([[ids.setdefault(word, len(ids)) for word in words]])
