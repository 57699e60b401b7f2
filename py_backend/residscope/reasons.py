"""Why something is left over: the places where the cache's own residual stream and the rows part."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .components import Rows
from .readout import Readout

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def reasons(readout: Readout, rows: Rows, target: Float[Tensor, "batch pos"] | None, tolerance: float) -> list[str]:
    """Sentences that say where `unexplained` arises, each with how much of it, the largest gap of any prompt.

    The stream in the cache is cut before each layer; each piece is worth what its rows say, or more was added there.

    Args:
        readout: The way to the target.
        rows: The rows of a decomposition into parts (not of the accumulated stream).
        target: The model's own figure less the constant; None where it is not known.
        tolerance: What counts as rounding.
    """
    view = readout.view
    before = [_worth(readout, f"blocks.{layer}.hook_resid_pre") for layer in range(view.n_layers)]
    after = [_worth(readout, f"blocks.{layer}.hook_resid_post") for layer in range(view.n_layers)]
    said: list[str] = []

    gap = _gap(before[0], _sum(rows, lambda label: _layer_of(label) is None))
    if gap > tolerance:
        said.append(
            f"{gap:.2g} arises before layer 0: what enters it (`blocks.0.hook_resid_pre`) is not the sum of the "
            f"embeddings in the cache ({_names(rows, lambda label: _layer_of(label) is None)})."
        )
    inside: dict[str, dict[int, float]] = {}  # why → in which layers, and how much
    for layer, (start, end) in enumerate(zip(before, after, strict=True)):
        added = None if start is None or end is None else end - start
        gap = _gap(added, _sum(rows, lambda label, here=layer: _layer_of(label) == here))
        if gap > tolerance:
            inside.setdefault(_within(readout, rows, layer, tolerance), {})[layer] = gap
    for layer in range(1, view.n_layers):
        gap = _gap(before[layer], after[layer - 1])
        if gap > tolerance:
            inside.setdefault("the model changes the stream before it enters.", {})[layer] = gap
    for why, gaps in inside.items():
        where = f"layer {next(iter(gaps))}" if len(gaps) == 1 else f"the layers {', '.join(map(str, gaps))}"
        said.append(f"{max(gaps.values()):.2g} arises in {where}: {why}")
    gap = _gap(target, after[-1])
    if gap > tolerance:
        said.append(
            f"{gap:.2g} arises after the last layer: the final norm and the unembedding do not give the model's own "
            "figure from `hook_resid_post`."
        )
    return said


def _within(readout: Readout, rows: Rows, layer: int, tolerance: float) -> str:
    """Which sublayer's rows fall short, where they are split."""
    for part, of, what in (("attn", "H", "heads (z @ W_O)"), ("mlp", "N", "neurons (post @ W_out)")):
        split = [label for label in rows.labels if label.startswith((f"L{layer}{of}", f"{layer}_{part}_bias"))]
        output = _worth(readout, f"blocks.{layer}.hook_{part}_out")
        if split and _gap(output, _sum(rows, set(split).__contains__)) > tolerance:
            return f"its {what} and bias are not all of `hook_{part}_out`."
    return "what it adds to the stream is more than the outputs of its sublayers in the cache."


def _worth(readout: Readout, name: str) -> Tensor | None:
    view = readout.view
    return readout.functional(view.rows(name, readout.positions)) if view.has(name) else None


def _sum(rows: Rows, chosen: Callable[[str], bool]) -> Tensor:
    picked = [row for row, label in enumerate(rows.labels) if chosen(label)]
    return rows.values[picked].sum(0)


def _names(rows: Rows, chosen: Callable[[str], bool]) -> str:
    return ", ".join(f"`hook_{label}`" for label in rows.labels if chosen(label))


def _gap(measured: Tensor | None, said: Tensor | None) -> float:
    return 0.0 if measured is None or said is None else float((measured - said).abs().max())


def _layer_of(label: str) -> int | None:
    """The layer of a row's label, `L5H3`, `L5N12`, `5_attn_bias`, `5_mlp_out`; None for the embeddings."""
    digits = label[1:].split("H")[0].split("N")[0] if label.startswith("L") else label.split("_")[0]
    return int(digits) if digits.isdigit() else None
