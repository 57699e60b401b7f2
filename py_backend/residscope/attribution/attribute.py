"""`attribute`: what each part of the model writes into the target, in logits.

Σ rows + constant + unexplained = measured, for each prompt (for `"accumulated"` the last row stands for the sum);
`unexplained` is rounding where the rows cover all that the model does, and where they do not, a note says why.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from residscope.attribution import components
from residscope.attribution.component_vectors import read_rows
from residscope.attribution.components import Plan, Rows
from residscope.attribution.head_inputs import gated, read_names
from residscope.attribution.head_split import Checked, check_split, unchecked
from residscope.attribution.missing import absent, check_cached
from residscope.attribution.model_value import measure, notes
from residscope.attribution.readout import Readout
from residscope.attribution.reconcile import fit, gap, reasons, rounding, stream_goal
from residscope.attribution.result import Attribution
from residscope.attribution.sources import not_by_reading, rounding_in, sources, wanted_heads
from residscope.attribution.targets import Targets
from residscope.attribution.word_spaces import without_space
from residscope.cache import positions
from residscope.cache.finite import check_finite
from residscope.cache.head_names import name
from residscope.cache.norms import odd_final_norm
from residscope.cache.positions import Positions
from residscope.cache.structure import Structure, named_layers, neuron_weight, out_weight, why_unread
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.compute.memo import UnknownError, key_of
from residscope.compute.torch_context import calm
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed, seen, steadily
from residscope.terms import By, NormConvention, Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["Attribution", "attribute", "decompose"]


def attribute(
    cache: Any,
    answers: Any,
    *,
    by: By = "head",
    position: Positions = "last",
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    norm: NormConvention = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Any = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: Any = None,
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
        position: `"last"` (each prompt's last real token), one position, one per prompt, or `"all"` for every position.
        logits: The model's output, where the cache does not hold it, to measure against.
        norm: For `"accumulated"`: the final norm's scale held `"frozen"` (the steps are the layer rows), or
            `"recomputed"` at each point (what the model would say if it stopped there).
        layers: For `"neuron"`: one layer, several, or None for all.
        heads: For `"source"`: heads such as `["9.9", "L9H6", (10, 7)]`.
        tokens: Token ids, where the cache does not hold them; used to tell padding.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`; by default see `docs/padding.md`.
        model: The model, where `cache.model` is gone.

    Returns:
        The decomposition; rows + constant + unexplained = measured, in logits. `.values` is `[component, batch]`, with
        `position="all"` `[component, batch, pos]`; for `"source"` `[source, head, batch]`, with `position="all"`
        `[source, destination, head, batch]`, and the sum over sources is the head's own value.

    Raises:
        ResidscopeError: With a sentence that says what is wrong and what to do.

    Source: TransformerLens' `logit_attrs`, `decompose_resid`, `stack_head_results`, `stack_neuron_results`,
    `accumulated_resid`, made exact for unfolded norms; the mathematics of "A Mathematical Framework for Transformer
    Circuits".
    """
    looked = seen(cache, model)
    of = model if model is not None else getattr(cache, "model", None)
    asked = _key(of, answers, by, position, norm, layers, heads, logits, tokens, attention_mask)
    known = None if looked is None or asked is None else looked.memo[0].get(*asked)
    if known is not None:
        return _copy(known)

    def work() -> Attribution:
        view = CacheView(cache, model=model, tokens=tokens, seen=looked, attention_mask=attention_mask)

        def found() -> Attribution:
            targets = Targets.of(view)
            where = positions.resolve(view, position)
            output = None if logits is None else view.whole_logits(logits)
            result = decompose(view, targets, targets.resolve(answers), by, where, output, norm, layers, heads)
            assumed = positions.assumed(view) if isinstance(position, str) else positions.on_padding(view, position)
            result = replace(result, notes=targets.said + result.notes + assumed)
            size = result.values.numel() * result.values.element_size()
            if asked is not None and size <= _KEPT:
                view.memo.put(*asked, value=_copy(result), size=size)
            return result

        return calm(view.stream.device, found)

    return steadily(cache, model, looked, work)


_KEPT = 16_000_000
"""A result of more bytes is not kept."""


def _key(model: Any, answers: Any, *options: Any) -> tuple[Hashable, ...] | None:
    """What stands for a question; None where nothing does.

    Answers in words stand for what the tokenizer makes of them now.
    """
    try:
        key = tuple(map(key_of, (answers, *options)))
        words = words_in(answers)
        if not words:
            return "attribute", *key
        vocabulary = Vocabulary(model)
        checks = (vocabulary.check(word) for word in words)
        return "attribute", *key, *((check.message, *(token.id for token in check.tokens)) for check in checks)
    except (UnknownError, ResidscopeError):
        return None


def words_in(value: Any) -> list[str]:
    """All texts in a question, in their order; of a set, in that of the alphabet."""
    value = value.tolist() if getattr(getattr(value, "dtype", None), "kind", None) in ("O", "U", "S", "T") else value
    if isinstance(value, str):
        return [value]
    if isinstance(value, set | frozenset):
        return sorted(word for part in value for word in words_in(part))  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, tuple | list):
        return [word for part in value for word in words_in(part)]  # pyright: ignore[reportUnknownVariableType]
    return []


def _copy(result: Attribution) -> Attribution:
    """The same in tensors of its own: what the user writes into them stays theirs."""
    values, measured, constant, unexplained = (
        figure.clone() for figure in (result.values, result.measured, result.constant, result.unexplained)
    )
    return replace(
        result,
        values=values,
        labels=list(result.labels),
        measured=measured,
        constant=constant,
        unexplained=unexplained,
        notes=list(result.notes),
        heads=list(result.heads),
        missing=list(result.missing),
    )


def decompose(
    view: CacheView,
    targets: Targets,
    target: Target,
    by: By,
    where: Int[Tensor, " batch"] | None,
    logits: Tensor | None = None,
    norm: NormConvention = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Any = None,
    checked: Checked | None = None,
) -> Attribution:
    """`attribute` for callers who hold the parts already (the service)."""
    _check(by, norm, layers, heads)
    # Recomputed at each point, the norm's scale at the end is not needed, and a run that stopped early has none.
    held = not (by == "accumulated" and norm == "recomputed")
    check_cached(view, by, held=held)
    readout = Readout(view, where, *targets.functional(target), held=held)
    measured = measure(readout, targets, target, logits)
    constant = readout.functional.constant + measured.bent
    if by == "source":
        brought = _sources(readout, heads, None if measured.value is None else measured.value - constant, checked)
        said = brought.notes + without_space(targets, target, where, logits)
        return replace(brought, notes=said, target=target, model=view.model_name)
    wanted = components.wanted_layers(view, layers) if by == "neuron" else []
    own = None if measured.value is None else measured.value - constant
    if by == "accumulated":
        structure = readout.structure
        rows = read_rows(readout, components.accumulated(structure, recomputed=norm == "recomputed"))
        total = rows.values[-1]
        if "final_post" not in rows.labels:  # what the model says at its end is not what it would say here
            own = None
        left = gap(own, total)
        finite = math.isfinite(left) and bool(rows.values.isfinite().all())  # the last one is not their sum
        tolerance = rounding(readout, total, logits)
    else:
        fitted = fit(readout, partial(_rows, readout, by, wanted), stream_goal(readout, own), own, logits)
        structure, rows, tolerance, left = fitted.structure, fitted.rows, fitted.tolerance, fitted.left
        total, finite = rows.values.sum(0), fitted.finite
    if not finite:
        check_finite(view, rows.values, total, constant, measured.value)
    value = total.new_full(constant.shape, float("nan")) if measured.value is None else measured.value
    unexplained = value - total - constant
    said = changed(view) + without_space(targets, target, where, logits) + notes(targets, target, measured)
    said += structure.notes() + _without(structure, by, wanted) + absent(structure, by, rows)
    said += view.memo.once(("cut",), lambda: ([cut for cut in (view.cut(),) if cut],))[0]
    if norm == "frozen" and left > tolerance:
        why = reasons(readout, structure, value - constant, tolerance, None if by == "accumulated" else rows)
        said += [reason for reason in why if reason not in said]
    columns = (rows.values, value, constant, unexplained)
    columns = columns if where is None else tuple(t.squeeze(-1) for t in columns)
    return Attribution(
        columns[0],
        rows.labels,
        *columns[1:],
        by=by,
        measured_from=measured.source,
        own=measured.own,
        tolerance=tolerance,
        notes=said,
        axes=("component", "batch", "pos") if where is None else ("component", "batch"),
        missing=list(rows.missing),
        target=target,
        model=view.model_name,
        _parts=rows.parts,
        _grid=(view.n_layers, view.n_heads) if by == "head" else None,
    )


def _sources(readout: Readout, heads: Any, own: Tensor | None, checked: Checked | None) -> Attribution:
    """What heads bring from each source; measured against what they are worth by their `z`."""
    view = readout.view
    wanted = wanted_heads(view, heads)
    layers = sorted({layer for layer, _ in wanted})
    said = changed(view) + check_split(view, layers, checked or Checked(), lambda: (readout, own))
    values, measured = sources(readout, wanted)  # [source, destination, head, batch], [destination, head, batch]
    unexplained = measured - values.sum(0)
    check_finite(view, unexplained)  # a figure that is none leaves none in its sum
    tolerance = rounding_in(view.rounding_step(*(name for at in layers for name in read_names(view, at))), values, 0)
    said += gated(view, layers) + unchecked(view, layers) + odd_final_norm(view)
    if bool((unexplained.abs() > tolerance).any()):
        said.append(not_by_reading(float(unexplained.abs().max())))
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


def _rows(readout: Readout, by: By, wanted: Sequence[int], structure: Structure) -> Rows:
    """The rows of a decomposition into parts."""

    def plan() -> Plan:
        match by:
            case "layer":
                return components.layers(structure)
            case "neuron":
                return components.neurons(structure, wanted)
            case _:
                return components.heads(structure)

    return read_rows(readout, readout.view.memo.once(("plan", by, *wanted, structure.key), plan))


def _without(structure: Structure, by: By, wanted: Sequence[int]) -> list[str]:
    """A note on the layers that have no such parts at all."""
    view = structure.view
    return list(view.memo.once(("without", by, *wanted), lambda: tuple(_none_in(view, by, wanted))))


def _none_in(view: CacheView, by: By, wanted: Sequence[int]) -> list[str]:
    if by == "head":
        others = [layer for layer in range(view.n_layers) if out_weight(view, layer) is None]
        said = "There are no attention heads in {}: what mixes there is one row."
        unread = {layer: why_unread(view, layer, "attn") for layer in others}
    else:
        others = [layer for layer in wanted if neuron_weight(view, layer) is None]
        said = "There are no plain neurons in {}: the MLP is one row."
        unread = {layer: why_unread(view, layer, "mlp") for layer in others}
    notes = [said.format(named_layers(bare))] if (bare := [layer for layer in others if not unread[layer]]) else []
    closed = [layer for layer in others if unread[layer]]
    return [*notes, f"In {named_layers(closed)} this is one row: {unread[closed[0]]}"] if closed else notes


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
