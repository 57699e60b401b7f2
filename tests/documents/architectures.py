"""`npm run docs`: what Residscope and TransformerLens' functions leave unexplained, for each family of models."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import residscope
from tests.support import tiny

ANSWERS = torch.tensor([[5, 6], [7, 8], [9, 10]])
REFUSED = "refused"


def main(path: Path) -> None:
    """Measure every family and write the table."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows, remarks = [], {}
    for name in tiny.FAMILIES:
        cells, said = measured(name)
        rows.append(f"| {name} | {' | '.join(cells)} | {references(said, remarks)} |")
        print(rows[-1])
    exact = sum(not any(odd in cell for odd in (REFUSED, "**") for cell in row.split("|")[2:5]) for row in rows)
    path.write_text("\n".join([*head(len(rows), exact), *rows, "", *foot(remarks)]) + "\n")
    print(path)


def measured(name: str) -> tuple[list[str], list[str]]:
    """Return the cells of a family's row, and Residscope's notes and errors on the family."""
    model = tiny.boot(name)
    _, logits, cache = tiny.run(model)
    said: list[str] = []
    results: dict[str, Any] = {}
    refusals: dict[str, list[str]] = {}
    for by in ("accumulated", "layer", "head", "neuron", "source"):
        try:
            options = {"heads": ["1.1"]} if by == "source" else {}
            results[by] = residscope.attribute(cache, ANSWERS, by=by, **options)
            said += results[by].notes
        except residscope.ResidscopeError as error:
            results[by] = None
            refusals.setdefault(str(error), []).append(by)
    said += [f"{', '.join(ways)} refused: {why}" for why, ways in refusals.items()]
    cells = [REFUSED if results[by] is None else shown(relative(results[by])) for by in ("layer", "head")]
    cells.append(heads_in_layers(results["head"], results["layer"]))
    cells += [
        REFUSED if results[by] is None else shown(relative(results[by])) for by in ("neuron", "source", "accumulated")
    ]
    own = logits[:, -1].gather(1, ANSWERS)
    cells.append(tried(lambda: attribution(model, cache, own[:, 0] - own[:, 1])))
    cells.append(tried(lambda: compatible(name)))
    cells.append(tried(lambda: stack_of_heads(model, cache)))
    return cells, said


def relative(result: residscope.Attribution) -> float:
    """Return the largest unexplained value, relative to the largest row."""
    return float(result.unexplained.abs().max() / result.values.abs().max())


def shown(gap: float) -> str:
    """Return a difference as text, in bold if it is more than rounding."""
    return f"{gap:.0e}" if gap < 1e-5 else f"**{gap:.2g}**"


def heads_in_layers(heads: Any, layers: Any) -> str:
    """Return the largest relative gap between a layer's attention row and the sum of its heads and bias."""
    if heads is None or layers is None:
        return "–"
    rows = dict(zip(layers.labels, layers.values, strict=True))
    gaps = []
    for label, attention in rows.items():
        if not label.endswith("_attn_out"):
            continue
        layer = label.split("_")[0]
        mine = [i for i, own in enumerate(heads.labels) if own.startswith((f"L{layer}H", f"{layer}_attn_bias"))]
        if mine:
            gaps.append(float((heads.values[mine].sum(0) - attention).abs().max() / heads.values[mine].abs().max()))
    return shown(max(gaps)) if gaps else "–"


def tried(work: Callable[[], float]) -> str:
    """Return the result of `work` as text, or the name of the error that it raised."""
    try:
        return shown(work())
    except Exception as error:
        return type(error).__name__


def attribution(model: Any, cache: Any, own: torch.Tensor) -> float:
    """Return what TransformerLens' `direct_logit_attribution` leaves unexplained, after adding b_U (relative)."""
    from transformer_lens.tools.analysis.direct_logit_attribution import direct_logit_attribution

    result = direct_logit_attribution(model, answer_tokens=ANSWERS[:, 0], incorrect_tokens=ANSWERS[:, 1], cache=cache)
    b_U = getattr(model, "b_U", None)
    bias = 0.0 if b_U is None else (b_U[ANSWERS[:, 0]] - b_U[ANSWERS[:, 1]]).detach()
    return float((result.attribution.sum(0) + bias - own).abs().max() / result.attribution.abs().max())


def compatible(name: str) -> float:
    """Return the same as `attribution`, in the compatibility mode that `direct_logit_attribution` needs."""
    model = tiny.boot(name, compatible=True)
    _, logits, cache = tiny.run(model)
    own = logits[:, -1].gather(1, ANSWERS)
    return attribution(model, cache, own[:, 0] - own[:, 1])


def stack_of_heads(model: Any, cache: Any) -> float:
    """Return the largest relative difference between TransformerLens' head results with b_O and `attn_out`."""
    cache = type(cache)(dict(cache.items()), model)  # a copy, because stack_head_results adds entries to its cache
    stack = cache.stack_head_results(layer=-1, pos_slice=-1).unflatten(0, (model.cfg.n_layers, model.cfg.n_heads))
    gaps = []
    for layer in range(model.cfg.n_layers):
        b_O = getattr(model.blocks[layer].attn, "b_O", None)
        total = stack[layer].sum(0) + (0 if b_O is None else b_O)
        written = cache[f"blocks.{layer}.hook_attn_out"][:, -1]
        gaps.append(float((total - written).abs().max() / written.abs().max()))
    return max(gaps)


def references(said: list[str], remarks: dict[str, str]) -> str:
    """Return the numbers of the remarks. Sentences that differ only in numbers are the same remark."""
    figures = [
        (r"^[\d.e+-]+ (arises|of a head)", r"… \1"),
        (r"\([\d.e-]+ at most\)", "(… at most)"),
        (r"(by|at) [\d.]+(?=[;:])", r"\1 …"),
        (r"(?:[Tt]he )?[Ll]ayers \d[\d, ]*( to \d+)?(?=\W)|[Ll]ayer [1-9]", "layer N"),
        (r"layer N(?=[a-z])", "layer N "),
        (r"blocks\.\d+\.", "blocks.N."),
        (r"L\dH\d", "L1H1"),
        (
            r"reads vectors of width \d+, but its residual stream has width \d+",
            "reads narrower vectors than its residual stream",
        ),
    ]
    numbers = []
    for note in dict.fromkeys(said):
        for figure, dots in figures:
            note = re.sub(figure, dots, note)
        numbers.append(remarks.setdefault(note, str(len(remarks) + 1)))
    return ", ".join(dict.fromkeys(numbers))


def head(families: int, exact: int) -> list[str]:
    """Return the text before the table."""
    lens, transformers = version("transformer-lens"), version("transformers")
    return [
        "# Architectures",
        "",
        f"Tiny random models of {families} decoder families and variants: all that TransformerLens {lens} supports and "
        f"that a model",
        f"can be built for without a hub (transformers {transformers}). They have norm weights far from 1, biases "
        f"far from 0, logit scales, soft-caps,",
        "residual and embedding multipliers, mixtures of experts, parallel blocks, grouped and multi-query attention, "
        "windows.",
        "Raw bridges: nothing folded, no compatibility mode. Made by `npm run docs`; do not edit.",
        "",
        "Residscope's columns: `unexplained` for a logit difference in the worst of three prompts, relative to",
        "the largest row (answers: tokens 5, 7, 9 against 6, 8, 10; sources: those of L1H1). “Σ heads” is the largest "
        "difference between the sum of a layer's heads and bias and its attention row. Rounding is",
        f"below 1e-5. Larger values are **bold**, always with a reason. {exact} of {families} are exact for layers and "
        f"for heads.",
        "",
        "TransformerLens' columns, on the same models: `direct_logit_attribution` on the raw bridge, the same in "
        "compatibility",
        "mode (the unexplained rest, with b_U added), and the relative difference between `stack_head_results` + b_O "
        "and a layer's `attn_out`.",
        "The name of an exception means that the function raised it. On raw bridges, `direct_logit_attribution` raises "
        "by design: it requires compatibility mode.",
        "",
        "| family | layer | head | Σ heads | neuron | source | accumulated | `direct_logit_attribution`, raw | "
        "compatible | `stack_head_results` | remarks |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]


def foot(remarks: dict[str, str]) -> list[str]:
    """Return Residscope's notes and errors, and the families that could not be built."""
    return [
        "## Remarks: Residscope's notes and errors",
        "",
        *(f"{number}. {kind}" for kind, number in remarks.items()),
        "",
        "## Not built",
        "",
        *(f"- {name}: {why}" for name, why in tiny.NOT_BOOTED.items()),
    ]


if __name__ == "__main__":
    main(Path(__file__).resolve().parents[2] / "py_backend/docs/architectures.md")
