"""The vector that each row adds to the residual stream, at one position of each prompt.

The vectors do not depend on the target. If the vectors are memoised, a new target needs only one product. Vectors at
all positions would take gigabytes, so they are computed only at one position of each prompt.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.plan import BIAS_KIND, Plan, Rows, components_in
from residscope.attribution.readout import Readout
from residscope.attribution.row_values import projected_before, rows_of, sum_of, with_steps
from residscope.attribution.sublayer_parts import bias_of, head_outputs
from residscope.cache.output_maps import out_weight
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.compute.projection import prompt_by_prompt
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

LARGEST = 24_000_000
"""The most bytes of vectors that are kept for one query."""


@dataclass(frozen=True)
class Vectors:
    """What each row of a plan adds to the stream. For the accumulated stream: the stream at each point.

    `parts` is the number of requested components, as in `Rows`.
    """

    components: list[Component]
    values: Float[Tensor, "batch component d_model"]
    parts: int | None

    def rows(self, readout: Readout, *, recomputed: bool) -> Rows:
        """Return the contributions of the vectors to a target. If `recomputed`, each vector gets its own norm scale."""
        divisor = readout.functional.divisor
        divisor = readout.norm.scale(self.values) * divisor if recomputed else divisor
        contributions = prompt_by_prompt(self.values, readout.functional.vector) / divisor  # [batch, component]
        return Rows(self.components, rearrange(contributions, "batch component -> component batch 1"), self.parts)


def read_rows(readout: Readout, plan: Plan, *, again: bool = False) -> Rows:
    """Return the rows of a plan, from memoised vectors or from the activations.

    If `again`, the choice between the two does not depend on earlier requests, so equal caches give bitwise equal rows.
    """
    rows = known_rows(readout, plan, again=again) or rows_of(readout, plan)
    return with_steps(readout.view, plan, replace(rows, missing=plan.missing, split=plan.split))


def known_rows(readout: Readout, plan: Plan, *, again: bool) -> Rows | None:
    """Return the rows of a plan, from memoised vectors. None if vectors are too large, or would not save time.

    For a single target, vectors save no time. So they are computed and kept only from the second target on. For targets
    inside the model, they are computed from the third target on, because the second one often differs only in the
    source of one head. If the target's directions are memoised, reading the activations is faster, so no vectors are
    computed. If `again`, vectors of heads are computed for the first target, too.
    """
    view, positions = readout.view, readout.positions
    if positions is None or plan.part != "attn" or plan.maps is not None or size_of_vectors(view, plan) > LARGEST:
        return None
    key = _key(readout, plan)
    held: Vectors | int = view.memo.get(*key) or 0
    if again and not plan.split:
        return None  # without heads, reading the activations is faster even for two targets
    if isinstance(held, int) and not again:
        enough = 1 if readout.measured_in is None else 2
        if held < enough:
            view.memo.put(*key, value=held + 1)
        if held < enough or projected_before(readout, plan):
            return None
    return vectors_of(readout, plan).rows(readout, recomputed=plan.recomputed)


def size_of_vectors(view: CacheView, plan: Plan) -> int:
    """Return the size in bytes of the vectors of a plan, at one position of each prompt."""
    count = len(plan.terms) + len(plan.split) * (view.n_heads + 1)
    return count * view.batch * int(view.cfg.d_model) * view.like.element_size()


def vectors_of(readout: Readout, plan: Plan) -> Vectors:
    """Return what each row of a plan adds to the stream, at one position of each prompt. Small results are kept."""
    view, key, size = readout.view, _key(readout, plan), size_of_vectors(readout.view, plan)
    known = view.memo.get(*key)
    if isinstance(known, Vectors):
        return known
    vectors = _computed(readout, plan)
    if size <= LARGEST:
        view.memo.put(*key, value=vectors, size=size)
    return vectors


def _key(readout: Readout, plan: Plan) -> tuple[Hashable, ...]:
    positions, carries = readout.positions, tuple(readout.structure.carries)
    assert positions is not None
    return "vectors", tuple(positions.tolist()), plan.split, tuple(plan.terms.items()), carries


def _computed(readout: Readout, plan: Plan) -> Vectors:
    view, positions = readout.view, readout.positions
    components: list[Component] = []
    heads: list[Tensor] = []
    biases: dict[Component, Tensor] = {}
    for layer in plan.split:
        report_progress(len(heads), len(plan.split))
        W_O, path = out_weight(view, layer), readout.output_path(layer, "attn")
        assert W_O is not None  # because the layer is split
        z = working(head_outputs(view, positions, layer, (W_O.shape[0], W_O.shape[1])))
        heads.append(path.push(rearrange(z, "batch 1 head d_head -> head batch d_head") @ W_O.to(z)))
        components += components_in(view, layer, "attn", len(W_O))
        added, norm_bias = bias_of(readout, layer, "attn")
        if added is None and norm_bias is None:
            continue
        bias = heads[-1].new_zeros(1, *heads[-1].shape[1:])
        bias = bias if added is None else path.push(bias + added.to(bias))
        biases[Component(BIAS_KIND["attn"], layer)] = bias if norm_bias is None else bias + path.factor * norm_bias
    rest = [
        sum_of(view.rows(name, positions).squeeze(1) * factor for name, factor in terms).unsqueeze(0)
        for terms in plan.terms.values()
    ]
    parts = [*heads, *biases.values(), *rest]
    values = parts[0].new_empty(view.batch, sum(map(len, parts)), parts[0].shape[-1])
    end = 0
    for part in parts:  # each is written to its place, so that all are copied only once
        start, end = end, end + len(part)
        values[:, start:end] = rearrange(part, "component batch d_model -> batch component d_model")
    return Vectors([*components, *biases, *plan.terms], values, len(components) if plan.split else None)
