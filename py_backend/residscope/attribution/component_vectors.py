"""The vectors behind the rows, at one position of each prompt.

They do not depend on the target: kept, they make a new target one product with them. At one position of some prompts
they are small; at every position they would be gigabytes, and are never made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.components import (
    BIAS,
    Plan,
    Rows,
    bias_of,
    head_outputs,
    parts_of,
    rows_of,
    sum_of,
    with_steps,
)
from residscope.attribution.readout import Readout
from residscope.cache.structure import out_weight
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.compute.projection import dots
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

LARGEST = 24_000_000
"""So many bytes of vectors are kept for one question at most."""


@dataclass(frozen=True)
class Vectors:
    """What each row of a plan adds to the stream (or, of the accumulated stream, what it is)."""

    components: list[Component]
    values: Float[Tensor, "batch component d_model"]
    parts: int | None

    def rows(self, readout: Readout, *, recomputed: bool) -> Rows:
        """Their worth for a target."""
        divisor = readout.norm.scale(self.values) if recomputed else readout.functional.divisor
        worth = dots(self.values, readout.functional.vector) / divisor  # [batch, component]
        return Rows(self.components, rearrange(worth, "batch component -> component batch 1"), self.parts)


def read_rows(readout: Readout, plan: Plan) -> Rows:
    """The rows of a plan, from vectors that are kept, or from the activations."""
    found = known_rows(readout, plan) or rows_of(readout, plan)
    return with_steps(readout.view, plan, replace(found, missing=plan.missing, split=plan.split))


def known_rows(readout: Readout, plan: Plan) -> Rows | None:
    """The rows of a plan, read off vectors that are kept; None where that would not pay.

    A first target is read off the activations, which is as fast. With the second the vectors are made and kept.
    """
    view, positions = readout.view, readout.positions
    if positions is None or plan.part != "attn":
        return None
    count = len(plan.pieces) + len(plan.split) * (view.n_heads + 1)
    size = count * view.batch * int(view.cfg.d_model) * view.like.element_size()
    if size > LARGEST:
        return None
    key = ("vectors", tuple(positions.tolist()), plan.split, tuple(plan.pieces.items()))
    vectors: Vectors | bool | None = view.memo.get(*key)
    if vectors is None:
        view.memo.put(*key, value=True)
        return None
    if not isinstance(vectors, Vectors):
        vectors = _made(readout, plan)
        view.memo.put(*key, value=vectors, size=size)
    return vectors.rows(readout, recomputed=plan.recomputed)


def _made(readout: Readout, plan: Plan) -> Vectors:
    import torch

    view, positions = readout.view, readout.positions
    parts: list[Component] = []
    heads: list[Tensor] = []
    biases: dict[Component, Tensor] = {}
    for layer in plan.split:
        report_progress(len(heads), len(plan.split))
        W_O, way = out_weight(view, layer), readout.way(layer, "attn")
        assert W_O is not None  # or else the layer is not split
        z = working(head_outputs(view, positions, layer, (W_O.shape[0], W_O.shape[1])))
        heads.append(way.push(rearrange(z, "batch 1 head d_head -> head batch d_head") @ W_O.to(z)))
        parts += parts_of(layer, "attn", len(W_O))
        added, behind = bias_of(readout, layer, "attn")
        if added is None and behind is None:
            continue
        bias = heads[-1].new_zeros(1, *heads[-1].shape[1:])
        bias = bias if added is None else way.push(bias + added.to(bias))
        biases[Component(BIAS["attn"], layer)] = bias if behind is None else bias + way.factor * behind
    rest = [
        sum_of(view.rows(name, positions).squeeze(1) * factor for name, factor in terms).unsqueeze(0)
        for terms in plan.pieces.values()
    ]
    values = torch.cat([*heads, *biases.values(), *rest])
    values = rearrange(values, "component batch d_model -> batch component d_model").contiguous()
    return Vectors([*parts, *biases, *plan.pieces], values, len(parts) if plan.split else None)
