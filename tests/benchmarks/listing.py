"""The list of caches after a cell, of a notebook with 1,000 caches.

python -m tests.benchmarks.run listing
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from tests.benchmarks.table import Row, side_by_side, spoken

CACHES, ACTIVATIONS = 1000, 151
GOAL = 0.020


def rows() -> list[Row]:
    """Return the row of the list, compared with reading the version counters of all activations once."""
    from residscope.serving.dispatcher import listed
    from tests.support import tiny

    model = tiny.boot("gpt2")
    _, _, first = tiny.run(model)
    caches = [_another(first, model) for _ in range(CACHES)]
    shell = SimpleNamespace(user_ns={"runs": caches})
    every = [tensor for cache in caches for tensor in cache.cache_dict.values()]
    with patch("IPython.core.getipython.get_ipython", lambda: shell):
        if len(listed().caches) != CACHES:
            raise RuntimeError("Not all caches are listed.")
        ours, counters = side_by_side(9, lambda: listed(0), lambda: [tensor._version for tensor in every])
    return [
        Row(
            f"list of {CACHES:,} caches of {ACTIVATIONS} activations each, after a cell",
            "one read of all their version counters",
            spoken(ours),
            spoken(counters),
            spoken(ours),
            "≤ 20 ms",
            ours <= GOAL,
            "it compares some of the caches; further lists, which follow at once, compare the others",
        )
    ]


def _another(cache: Any, model: Any) -> Any:
    """A cache with the same shapes, and with `ACTIVATIONS` activations."""
    held = {name: torch.zeros_like(tensor) for name, tensor in cache.cache_dict.items()}
    held |= {f"blocks.0.added_{n}": torch.zeros(1) for n in range(ACTIVATIONS - len(held))}
    return type(cache)(held, model)
