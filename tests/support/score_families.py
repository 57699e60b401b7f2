"""Makes the attention columns of `point_families`: it compares the scores in each family with `score_oracle`."""

from __future__ import annotations

from typing import Any

import torch

import residscope
from residscope import ResidscopeError, targets
from tests.support import score_oracle, tiny

HEAD, DESTINATION, SOURCE, OTHER = 1, 6, 5, 4
COLUMNS = ("query side", "key side", "log ratio")


def score_columns(name: str) -> dict[str, Any]:
    """Return the largest differences in one family, or the message of its refusal.

    Returns:
        A dictionary. `sum`: for each of `COLUMNS`, |rows + constant − measured| / the largest row. `rows`: the largest
        difference between a layer's rows and their value by the gradient, relative to the largest row. `intervention`:
        the largest difference between a layer's rows and the change when what the layer adds is removed, relative to
        the largest row. `compared`: how many layers were compared, for both sides. `notes`: all notes, except for those
        on layers after the tested one. `layer`: the tested layer. `refused in a layer`: the message, if another layer
        was refused. If all layers were refused, the only key is `refused`, the message.
    """
    model = tiny.boot(name)
    tokens, _, cache = tiny.run(model)
    if not hasattr(model, "blocks"):
        return {"refused": _refusal(cache, 0)}
    layers = [layer for layer in range(model.cfg.n_layers) if hasattr(model.blocks[layer], "attn")]
    refused = ""
    for layer in reversed(layers):
        try:
            return _columns(model, tokens, cache, layer) | ({"refused in a layer": refused} if refused else {})
        except ResidscopeError as error:
            refused = str(error)
    return {"refused": refused or _refusal(cache, 0)}


def _refusal(cache: Any, layer: int) -> str:
    try:
        residscope.attribute(cache, targets.attention((layer, 0), DESTINATION, SOURCE), by="layer")
    except ResidscopeError as error:
        return str(error)
    raise AssertionError("the target was not refused")


def _columns(model: Any, tokens: torch.Tensor, cache: Any, layer: int) -> dict[str, Any]:
    def side(which: str, versus: Any) -> Any:
        target = targets.attention((layer, HEAD), DESTINATION, SOURCE, versus, which)
        return residscope.attribute(cache, target, by="layer")

    sides = ("query", "key")
    results = {which: side(which, OTHER) for which in sides}  # not "most", which may be the destination
    gaps = {f"{which} side": _gap(side(which, None)) for which in sides}
    gaps["log ratio"] = max(_gap(side(which, versus)) for which in sides for versus in ("most", "mean", OTHER))
    versus = torch.full((len(tokens),), OTHER)
    run = score_oracle.Run(model, tokens, layer, HEAD, DESTINATION)
    value, gradient = run.gradient(SOURCE, versus)
    for result in results.values():
        capped = sum(part for row, part in zip(result.components, result.values, strict=True) if row.kind == "soft_cap")
        gaps["log ratio"] = max(gaps["log ratio"], _relative(result.measured - capped - value, result))
    each, where = torch.arange(len(tokens)), {"query": [torch.full_like(versus, DESTINATION)]}
    where["key"] = [torch.full_like(versus, SOURCE), versus]
    rows, intervention, compared = 0.0, 0.0, 0
    for which, result in results.items():
        mine = _by_layer(result)
        for key, stream in _written(model, cache, layer).items():
            expected = sum((gradient[each, at] * stream[each, at]).sum(-1) for at in where[which])
            rows = max(rows, _relative(mine[key] - expected, result))
            changed = sum(run.without(stream[each, at], at, SOURCE, versus) for at in where[which])
            intervention = max(intervention, _relative(mine[key] - changed, result))
            compared += 1
    notes = [note for result in results.values() for note in result.notes if "come after it" not in note]
    return {"sum": gaps, "rows": rows, "intervention": intervention, "compared": compared,
            "notes": list(dict.fromkeys(notes)), "layer": layer}  # fmt: skip


def _gap(result: Any) -> float:
    return _relative(result.values.sum(0) + result.constant - result.measured, result)


def _relative(difference: torch.Tensor, result: Any) -> float:
    return float(difference.abs().max() / result.values.abs().max())


def _by_layer(result: Any) -> dict[int, torch.Tensor]:
    """Return the sum of the rows of each layer. −1 stands for what enters layer 0."""
    rows: dict[int, torch.Tensor] = {}
    for component, value in zip(result.components, result.values, strict=True):
        if component.kind not in ("position_bias", "soft_cap"):
            place = -1 if component.layer is None else component.layer
            rows[place] = rows.get(place, 0) + value
    return rows


def _written(model: Any, cache: Any, layer: int) -> dict[int, torch.Tensor]:
    """Return, as parts of the stream before `layer`, what enters layer 0 (key −1) and what each earlier layer adds."""
    scalars = [_scalar(model.blocks[at]) for at in range(layer)]
    stream = [cache[f"blocks.{at}.hook_resid_pre"].double() for at in range(layer + 1)]
    written, carried = {}, 1.0
    for at in reversed(range(layer)):
        written[at] = carried * (stream[at + 1] - scalars[at] * stream[at])
        carried *= scalars[at]
    return written | {-1: carried * stream[0]}


def _scalar(block: Any) -> float:
    scalar = getattr(getattr(block, "original_component", None), "layer_scalar", None)
    return 1.0 if scalar is None else float(scalar)
