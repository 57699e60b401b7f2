"""The activations of some features of an SAE, as its own `encode` returns them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from residscope.cache.dictionaries import Dictionary
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_BLOCK = 1 << 22
"""About this many activations are computed at once: 16 MB in float32. The work can be cancelled after each block."""


def activations_at(view: CacheView, dictionary: Dictionary, where: Int[Tensor, " batch"]) -> Float[Tensor, "batch f"]:
    """Return the activations of all features at one position of each prompt.

    `by="feature"` must have accepted the SAE before: this function does not check that each vector is encoded alone.

    Args:
        view: The cache.
        dictionary: The SAE.
        where: The position in each prompt.

    Raises:
        ResidscopeError: If `encode` fails, or returns NaN or infinity.
    """
    rows = view.raw(dictionary.read, where).flatten(0, 1)
    return _encoded(dictionary, rows, slice(None))


def activations_of(view: CacheView, dictionary: Dictionary, feature: int, prompt: int | None) -> Float[Tensor, "b pos"]:
    """Return the activations of one feature at every position of one prompt. With `prompt=None`, of all prompts.

    Raises:
        ResidscopeError: If `encode` fails, or returns NaN or infinity.
    """
    given = view.get(dictionary.read)
    given = given if prompt is None else given[prompt : prompt + 1]
    dictionary.check_each_alone(given.flatten(0, 1))
    return _encoded(dictionary, given.flatten(0, 1), slice(feature, feature + 1)).reshape(given.shape[:2])


def _encoded(dictionary: Dictionary, rows: Float[Tensor, " row *width"], which: slice) -> Float[Tensor, "row some"]:
    import torch

    each = max(1, _BLOCK // len(dictionary.decoder))
    blocks: list[Tensor] = []
    for start in range(0, len(rows), each):
        report_progress(start, len(rows))
        with dictionary.on_copy() as copied:
            found = copied.encode(rows[start : start + each])
        if not bool(found.isfinite().all()):
            raise ResidscopeError(
                "sae", f"The {dictionary.name} gives NaN or infinity: its `encode` returns it. Load the SAE again."
            )
        blocks.append(working(found[:, which]).to(dictionary.like))
    return torch.cat(blocks)
