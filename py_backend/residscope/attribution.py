"""`attribute`: what each part of the model writes into the target, in logits.

Σ rows + constant + unexplained = measured, for each prompt (for `"accumulated"` the last row stands for the sum);
`unexplained` is rounding where the rows cover all that the model does, and where they do not, a note says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import components
from .cache import CacheView, Position
from .calm import calm
from .errors import ResidscopeError
from .heads import name
from .measure import measure, notes
from .protocol import By, Norm, Target
from .readout import Readout
from .reasons import reasons
from .result import Attribution
from .sources import sources, wanted_heads
from .targets import Targets

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["Attribution", "attribute", "decompose"]


def attribute(
    cache: Any,
    answers: Any,
    *,
    by: By = "head",
    position: Position = "last",
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    norm: Norm = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Any = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    model: Any = None,
) -> Attribution:
    """Which parts of the model write the answer (direct logit attribution).

    The cache is taken as it is: a raw bridge, compatibility mode, LayerNorm or RMSNorm, folded or not. Neither the
    cache, nor the model, nor the grad mode is changed.

    Args:
        cache: An `ActivationCache`.
        answers: A token, a pair `(answer, distractor)`, a list of either (one per prompt), ids `[batch]` or
            `[batch, 2]`, or a direction `[d_model]` (see `targets.Targets.resolve`).
        by: `"head"`: every head, attention biases, MLPs, embeddings. `"layer"`: attention and MLP of each layer,
            embeddings. `"accumulated"`: the residual stream up to each point (the logit lens). `"neuron"`: every MLP
            neuron of `layers`, MLP biases, attention, embeddings. `"source"`: what each source token brings through
            each of `heads`.
        position: `"last"` (each prompt's last real token), one position, one per prompt, or None for every position.
        logits: The model's output, where the cache does not hold it, to measure against.
        norm: For `"accumulated"`: the final norm's scale held `"frozen"` (the steps are the layer rows), or
            `"recomputed"` at each point (what the model would say if it stopped there).
        layers: For `"neuron"`: one layer, several, or None for all.
        heads: For `"source"`: heads such as `["9.9", "L9H6", (10, 7)]`.
        tokens: Token ids, where the cache does not hold them; used to tell padding.
        model: The model, where `cache.model` is gone.

    Returns:
        The decomposition; rows + constant + unexplained = measured, in logits. `.values` is `[component, batch]`, with
        `position=None` `[component, batch, pos]`; for `"source"` `[source, head, batch]`, with `position=None`
        `[source, destination, head, batch]`, and the sum over sources is the head's own value.

    Raises:
        ResidscopeError: With a sentence that says what is wrong and what to do.

    Source: TransformerLens' `logit_attrs`, `decompose_resid`, `stack_head_results`, `stack_neuron_results`,
    `accumulated_resid`, made exact for unfolded norms; the mathematics of "A Mathematical Framework for Transformer
    Circuits".
    """
    view = CacheView(cache, model=model, tokens=tokens)
    with calm(view.stream.device):
        targets = Targets.of(view)
        where = view.positions(position)
        return decompose(view, targets, targets.resolve(answers), by, where, logits, norm, layers, heads)


def decompose(
    view: CacheView,
    targets: Targets,
    target: Target,
    by: By,
    positions: Int[Tensor, " batch"] | None,
    logits: Tensor | None = None,
    norm: Norm = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Any = None,
) -> Attribution:
    """`attribute` for callers who hold the parts already (the service)."""
    _check(by, norm, layers, heads)
    readout = Readout(view, positions, *targets.functional(target))
    if by == "source":
        return _sources(readout, heads)
    match by:
        case "accumulated":
            rows = components.accumulated(readout, readout.recomputed if norm == "recomputed" else readout.functional)
        case "layer":
            rows = components.layers(readout)
        case "neuron":
            rows = components.neurons(readout, components.layers_with_neurons(view, layers))
        case _:
            rows = components.heads(readout)
    measured = measure(readout, targets, target, logits)
    constant = readout.functional.constant + measured.bent
    explained = (rows.values[-1] if by == "accumulated" else rows.values.sum(0)) + constant
    _check_finite(view, rows.values, explained, measured.value)
    value = explained.new_full(explained.shape, float("nan")) if measured.value is None else measured.value
    unexplained = value - explained
    # Rounding errors of the rows are independent: they add up like their squares. 1e-4 is below what anyone is shown.
    added = rows.values[-1].abs() if by == "accumulated" else rows.values.pow(2).sum(0).sqrt()
    tolerance = max(1e-4, 2 * view.rounding_step() * float(added.max()))
    cut = view.cut()
    said = notes(readout, target, measured) + ([cut] if cut else [])
    if by == "neuron" and layers is None:
        said += components.without_neurons(view, components.layers_with_neurons(view))
    if by not in ("accumulated",) and bool((unexplained.abs() > tolerance).any()):
        said += reasons(readout, rows, value - constant, tolerance)
    columns = (rows.values, value, constant, unexplained)
    columns = columns if positions is None else tuple(t.squeeze(-1) for t in columns)
    return Attribution(
        columns[0],
        rows.labels,
        *columns[1:],
        by=by,
        measured_from=measured.source,
        tolerance=tolerance,
        notes=said,
        axes=("component", "batch", "pos") if positions is None else ("component", "batch"),
        _parts=rows.parts,
        _grid=(view.n_layers, view.n_heads) if by == "head" else None,
    )


def _sources(readout: Readout, heads: Any) -> Attribution:
    """What heads bring from each source; measured against what they are worth by their `z`."""
    view = readout.view
    wanted = wanted_heads(view, heads)
    values, measured = sources(readout, wanted)  # [source, destination, head, batch], [destination, head, batch]
    _check_finite(view, values, measured)
    tolerance = max(1e-4, 2 * view.rounding_step() * float(values.pow(2).sum(0).sqrt().max()))
    unexplained = measured - values.sum(0)
    said: list[str] = []
    if bool((unexplained.abs() > tolerance).any()):
        said.append(
            f"{float(unexplained.abs().max()):.2g} of a head's worth is not pattern @ v: this attention changes "
            "`hook_z` after it has read the sources, or reads from something else, too."
        )
    if readout.positions is not None:
        values, measured, unexplained = values.squeeze(1), measured.squeeze(0), unexplained.squeeze(0)
    return Attribution(
        values,
        [str(position) for position in range(view.n_pos)],
        measured,
        measured * 0,
        unexplained,
        by="source",
        measured_from="what each head is worth by its own output (hook_z)",
        tolerance=tolerance,
        notes=said,
        axes=("source", "destination", "head", "batch") if readout.positions is None else ("source", "head", "batch"),
        heads=[name(*head) for head in wanted],
    )


def _check(by: str, norm: str, layers: Any, heads: Any) -> None:
    """Refuse options that do not go together."""
    known = ("accumulated", "layer", "head", "neuron", "source")
    if by not in known:
        choice = ", ".join(f'"{name}"' for name in known)
        raise ResidscopeError("by", f'`by="{by}"` is not known: use {choice}.')
    if norm not in ("frozen", "recomputed"):
        raise ResidscopeError("norm", f'`norm="{norm}"` is not known: use "frozen" or "recomputed".')
    if norm == "recomputed" and by != "accumulated":
        raise ResidscopeError(
            "norm", f'`norm="recomputed"` is a convention of the logit lens (`by="accumulated"`); `by="{by}"` has none.'
        )
    if layers is not None and by != "neuron":
        raise ResidscopeError("layers", f'`layers=` chooses neurons (`by="neuron"`); `by="{by}"` takes all layers.')
    if heads is not None and by != "source":
        raise ResidscopeError("heads", f'`heads=` chooses whose sources are told (`by="source"`), not `by="{by}"`.')


def _check_finite(view: CacheView, *figures: Tensor | None) -> None:
    if not all(bool(figure.isfinite().all()) for figure in figures if figure is not None):
        place = view.first_not_finite() or "its values overflow when they are summed"
        raise ResidscopeError(
            "not-finite", f"The cache holds NaN or infinity: {place}. Attributions of it would mean nothing."
        )
