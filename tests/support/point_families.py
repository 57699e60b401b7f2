"""Tests targets inside the model on every decoder family: what the rows leave unexplained, and whether rows are right.

The expected values come from the model's own forward pass. A component is removed from what a neuron or a head reads,
while the norm's scale is frozen. The target must then change by the component's row.

`python -m tests.support.point_families [families]` prints the table.
"""

from __future__ import annotations

import copy
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

import residscope
from tests.support import tiny
from tests.support.brute import Brute, logit_scale
from tests.support.score_families import COLUMNS as SCORES
from tests.support.score_families import score_columns

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
LAYER, NEURON, HEAD, SOURCE, LAST = 1, 3, 1, 4, 6
T = residscope.targets


@dataclass(frozen=True)
class Row:
    """The result for one target.

    Attributes:
        left: The largest unexplained value, relative to the largest row.
        off: The largest difference between a row and the change of the target when the row's component is removed,
            relative to the largest row. None if no component could be removed.
        said: The notes, or the message of the refusal.
        refused: Whether the target was refused.
    """

    left: float = 0.0
    off: float | None = None
    said: tuple[str, ...] = ()
    refused: bool = False

    @property
    def cell(self) -> str:
        """The text of this result in the table."""
        if self.refused:
            return "refused"
        left = f"{self.left:.0e}" if self.left < 1e-5 else f"**{self.left:.2g}**"
        if self.off is None:
            return f"{left} / –"
        return f"{left} / " + (f"{self.off:.0e}" if self.off < 1e-4 else f"**{self.off:.2g}**")


class Truth:
    """The model's own forward pass, with a component removed from what a sublayer reads.

    Args:
        model: A bridge.
        tokens: The tokens of the run.
        logits: The model's output.
        cache: The cache of the run.
        most: Only so many of the last components are removed, one at a time. None: all components.
    """

    def __init__(self, model: Any, tokens: torch.Tensor, logits: torch.Tensor, cache: Any, most: int | None) -> None:
        self.model, self.tokens, self.logits, self.cache, self.most = model, tokens, logits, cache, most

    def components(self, layer: int, *, mid: bool) -> dict[str, torch.Tensor]:
        """Return, by row, what was written before a layer's attention or MLP. Empty if the sum is not the stream."""
        cache = self.cache
        if "blocks.0.hook_resid_pre" not in cache:
            return {}
        found = {"embed": cache["blocks.0.hook_resid_pre"]}
        if cache["hook_embed"].shape != found["embed"].shape:
            return {}
        if "hook_pos_embed" in cache and torch.allclose(
            found["embed"], cache["hook_embed"] + cache["hook_pos_embed"], atol=1e-4
        ):
            found = {"embed": cache["hook_embed"], "pos_embed": cache["hook_pos_embed"].expand_as(cache["hook_embed"])}
        for at in range(layer + mid):
            block = f"blocks.{at}"
            for part in ("attn_out",) if mid and at == layer else ("attn_out", "mlp_out"):
                if f"{block}.hook_{part}" in cache:
                    found[f"{at}_{part}"] = cache[f"{block}.hook_{part}"]
                elif part == "attn_out" and f"{block}.hook_resid_mid" in cache:
                    found[f"{at}_mixer_out"] = cache[f"{block}.hook_resid_mid"] - cache[f"{block}.hook_resid_pre"]
            if mid and at == layer:
                break
            if f"{block}.post_per_layer_input_norm.hook_out" in cache:
                found[f"{at}_per_layer_out"] = cache[f"{block}.post_per_layer_input_norm.hook_out"]
            scalar = getattr(getattr(self.model.blocks[at], "original_component", None), "layer_scalar", None)
            found = found if scalar is None else {label: value * scalar for label, value in found.items()}
        stream = cache[f"blocks.{layer}.hook_resid_{'mid' if mid else 'pre'}"]
        whole = sum(found.values())
        summed = torch.allclose(whole, stream, atol=1e-4, rtol=1e-4)
        return dict(list(found.items())[-(self.most or len(found)) :]) if summed else {}

    def reads(self, layer: int, part: str) -> tuple[str | None, str]:
        """Return the names of the norm whose output a sublayer reads (None: no norm), and of the sublayer's input."""
        name = f"blocks.{layer}.{part}.hook_in"
        for norm in ("ln2", "ln1"):
            held = (
                self.cache[f"blocks.{layer}.{norm}.hook_out"] if self._has(f"blocks.{layer}.{norm}.hook_out") else None
            )
            if held is not None and torch.equal(held, self.cache[name]):
                return f"blocks.{layer}.{norm}", name
        return None, name

    def without(self, layer: int, part: str, position: int, component: torch.Tensor, read: str) -> torch.Tensor:
        """Return the activation `read` of a run in which a sublayer's input lacks a component, at one position."""
        norm, name = self.reads(layer, part)
        kept: dict[str, torch.Tensor] = {}
        hooks: list[tuple[str, Callable[..., Any]]] = []

        def take(value: torch.Tensor, **_: Any) -> torch.Tensor:
            value = value.clone()
            kept["before"] = value[:, position].double()
            value[:, position] -= component[:, position].to(value)
            kept["after"] = value[:, position].double()
            return value

        def pin(value: torch.Tensor, **_: Any) -> torch.Tensor:
            centres, bias, eps = self._norm(norm)
            before, after = (x - x.mean(-1, keepdim=True) if centres else x for x in (kept["before"], kept["after"]))
            if bias is None:  # the module does not divide
                return value
            ratio = ((after.pow(2).mean(-1, keepdim=True) + eps) / (before.pow(2).mean(-1, keepdim=True) + eps)).sqrt()
            value = value.clone()
            value[:, position] = (bias + (value[:, position].double() - bias) * ratio).to(value)
            return value

        def keep(value: torch.Tensor, **_: Any) -> None:
            kept["read"] = value.detach().clone()

        hooks += [(f"{norm}.hook_in", take), (f"{norm}.hook_out", pin)] if norm else [(name, take)]
        with torch.no_grad():
            self.model.run_with_hooks(self.tokens, fwd_hooks=[*hooks, (read, keep)])
        return kept["read"]

    def _norm(self, path: str) -> tuple[bool, torch.Tensor | None, float]:
        """Return whether a norm subtracts the mean, its bias, and its eps. All three are found from its outputs.

        If the module does not divide, the bias is None.
        """
        _, layer, name = path.split(".")
        module = copy.deepcopy(getattr(self.model.blocks[int(layer)], name).original_component).double()
        width = int(self.model.cfg.d_model)
        x = torch.randn(1, 1, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 1e4
        with torch.no_grad():
            there, back, twice, lifted = (module(v) for v in (x, -x, 2 * x, x + 1e4))
            if torch.allclose(twice, 2 * there, rtol=1e-5, atol=1e-3):
                return False, None, 0.0
            bias, centres = (there + back) / 2, torch.allclose(lifted, there, rtol=1e-4, atol=1e-4)
            # If a vector's variance is far below eps, the output is smaller by a factor of √(variance / eps).
            small = (module(x * 1e-10) - bias).norm() / (there - bias).norm()
        spread = (x - x.mean() if centres else x).pow(2).mean() * 1e-20
        return centres, bias[0, 0], float(spread * (1 / small**2 - 1)) if small > 0 else 0.0

    def _has(self, name: str) -> bool:
        return name in self.cache


def measured(name: str, most: int | None = None) -> dict[str, Row]:
    """Return the results for a family, by target. `most` limits the number of removed components."""
    model = tiny.boot(name)
    tokens, logits, cache = tiny.run(model)
    if not hasattr(model, "blocks"):
        try:
            residscope.attribute(cache, T.neuron((LAYER, NEURON)))
        except residscope.ResidscopeError as error:
            return dict.fromkeys(COLUMNS, Row(said=(str(error),), refused=True))
    truth, layer = Truth(model, tokens, logits, cache, most), _layer(model)
    return {column: _tried(lambda find=find: find(truth, layer)) for column, find in COLUMNS.items()}


def scores(name: str) -> dict[str, Row]:
    """Return the results for a family's attention scores: of each side alone, and as a log ratio of two sources."""
    found = score_columns(name)
    if "refused" in found:
        return dict.fromkeys(SCORES, Row(said=(found["refused"],), refused=True))
    said = (*found["notes"], *([found["refused in a layer"]] if "refused in a layer" in found else []))
    off = max(found["rows"], found["intervention"])
    return {column: Row(left, off, said) for column, left in found["sum"].items()}


def _layer(model: Any) -> int:
    """Return the second layer with attention, or `LAYER` if fewer than two layers have attention."""
    attends = [layer for layer, block in enumerate(model.blocks) if hasattr(block, "attn")]
    return attends[1] if len(attends) > 1 else LAYER


def neuron(truth: Truth, layer: int) -> Row:
    """Test a neuron's input."""
    return _neuron(truth, _layer_of_neurons(truth, layer), "pre")


def up(truth: Truth, layer: int) -> Row:
    """Test a gated neuron's linear factor. Without a gate: a neuron's input at another position."""
    layer = _layer_of_neurons(truth, layer)
    if f"blocks.{layer}.mlp.hook_pre_linear" not in truth.cache:
        return _neuron(truth, layer, "pre", position=2)
    return _neuron(truth, layer, "up")


def _neuron(truth: Truth, layer: int, part: str, position: int = LAST) -> Row:
    result = residscope.attribute(truth.cache, T.neuron((layer, NEURON), part), by="layer", position=position)
    rows = dict(zip(result.labels, result.values, strict=True))
    read = f"blocks.{layer}.mlp.hook_pre" + ("_linear" if part == "up" else "")
    mid = f"blocks.{layer}.hook_resid_mid" in truth.cache
    gaps = []
    for label, component in _some(truth.components(layer, mid=mid), rows):
        changed = truth.without(layer, "mlp", position, component, read)[:, position, NEURON]
        gaps.append(float((truth.cache[read][:, position, NEURON] - changed - rows[label]).abs().max()))
    return _row(result, gaps)


def _layer_of_neurons(truth: Truth, layer: int) -> int:
    """Return this layer if it has plain neurons. Otherwise return the first layer that has some."""
    plain = [
        at
        for at, block in enumerate(truth.model.blocks)
        if getattr(getattr(block, "mlp", None), "W_in", None) is not None
    ]
    return layer if layer in plain or not plain else plain[0]


def output(truth: Truth, layer: int) -> Row:
    """Test a head's source contribution to a logit difference."""
    target = T.output((layer, HEAD), of=ANSWERS, source=SOURCE)
    result = residscope.attribute(truth.cache, target, by="layer")
    rows = dict(zip(result.labels, result.values, strict=True))
    sources = residscope.attribute(truth.cache, ANSWERS, by="source", heads=[(layer, HEAD)])
    assert torch.allclose(result.measured, sources.values[SOURCE, 0], atol=1e-5, rtol=1e-5)
    v, gaps = f"blocks.{layer}.attn.hook_v", list[float]()
    values = truth.cache[v]
    group = HEAD * values.shape[2] // truth.cache[f"blocks.{layer}.attn.hook_pattern"].shape[1]
    slope = _slope(truth, layer, group)
    if slope is not None:
        for label, component in _some(truth.components(layer, mid=False), rows):
            changed = truth.without(layer, "attn", SOURCE, component, v)[:, SOURCE, group]
            moved = ((values[:, SOURCE, group] - changed) * slope).sum(-1)
            gaps.append(float((moved - rows[label]).abs().max()))
    return _row(result, gaps)


def _slope(truth: Truth, layer: int, group: int) -> torch.Tensor | None:
    """Return the derivative of the head's source contribution by its value vector. None if it is not known."""
    own_norms = ("v_norm.hook_out", "hook_kv_latent")  # the contribution is not linear in a value with its own norm
    if any(f"blocks.{layer}.attn.{norm}" in truth.cache for norm in own_norms):
        return None
    if not hasattr(truth.model, "ln_final"):
        return None
    pattern, z = (truth.cache[f"blocks.{layer}.attn.hook_{name}"] for name in ("pattern", "z"))
    try:
        brute = Brute(truth.model, truth.cache, ANSWERS, LAST, logit_scale(truth.logits, truth.cache))
        W_O = truth.model.blocks[layer].attn.W_O.detach()[HEAD]
        along = [brute.contribution(brute.written(layer, "ln1_post", row.expand(len(z), -1))) for row in W_O]
    except (KeyError, RuntimeError):  # the norm's scale is not cached, or the unembedding has another width
        return None
    attends = pattern[:, HEAD, LAST, SOURCE, None].double() * torch.stack(along, -1)
    reads = (pattern[:, HEAD, LAST, :, None] * truth.cache[f"blocks.{layer}.attn.hook_v"][:, :, group]).sum(1)
    gate = z[:, LAST, HEAD] / reads
    is_gated = not torch.allclose(gate, torch.ones_like(gate), atol=1e-2, rtol=1e-2)
    return attends * gate if is_gated else attends


def direction(truth: Truth, layer: int) -> Row:
    """Test a direction in the stream, before a layer and before its MLP."""
    u = torch.randn(int(truth.model.cfg.d_model), generator=torch.Generator().manual_seed(2))
    mid = f"blocks.{layer}.hook_resid_mid" in truth.cache
    worst, gaps, said = 0.0, list[float](), list[str]()
    for at in (f"{layer}_pre", f"{layer}_mid")[: 1 + mid]:
        result = residscope.attribute(truth.cache, T.direction(u, at=at), by="layer")
        rows = dict(zip(result.labels, result.values, strict=True))
        for label, component in _some(truth.components(layer, mid=at.endswith("mid")), rows):
            gaps.append(float((component[:, LAST] @ u - rows[label]).abs().max() / result.values.abs().max()))
        worst = max(worst, float(result.unexplained.abs().max() / result.values.abs().max()))
        said += result.notes
    return Row(worst, max(gaps, default=None), tuple(said))


COLUMNS: dict[str, Callable[[Truth, int], Row]] = {"neuron": neuron, "up": up, "output": output, "direction": direction}
"""The functions that test each kind of target, by the heading of the table's column."""


def _some(components: dict[str, torch.Tensor], rows: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the components that have their own row."""
    return ((label, component) for label, component in components.items() if label in rows)


def _row(result: Any, gaps: list[float]) -> Row:
    size = float(result.values.abs().max())
    off = max(gaps) / size if gaps else None
    return Row(float(result.unexplained.abs().max()) / size, off, tuple(result.notes))


def _tried(find: Callable[[], Row]) -> Row:
    try:
        return find()
    except residscope.ResidscopeError as error:
        return Row(said=(str(error),), refused=True)
    except Exception as error:  # a bug of Residscope or of this file, which the table must show
        return Row(left=float("nan"), said=(f"{type(error).__name__}: {error}",))


def main(families: list[str]) -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    columns = (*COLUMNS, *SCORES)
    print(f"| family | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    exact = dict.fromkeys(columns, 0)
    remarks: dict[str, list[str]] = {}
    for name in families:
        found = measured(name) | scores(name)
        print(f"| {name} | {' | '.join(row.cell for row in found.values())} |", flush=True)
        for column, row in found.items():
            exact[column] += not row.refused and row.left < 1e-5 and (row.off or 0.0) < 1e-4
            for note in row.said:
                remarks.setdefault(note, []).append(f"{name} {column}")
    print("\nexact:", exact, "of", len(families))
    for note, where in remarks.items():
        print(f"- {note} ({', '.join(where[:6])})")


if __name__ == "__main__":
    main(sys.argv[1:] or list(tiny.FAMILIES))
