"""`attribute`: what each part of the model writes into the target, in logits.

Σ rows + constant + unexplained = measured, for each prompt (for `"accumulated"` the last row stands for the sum);
`unexplained` is rounding where the rows cover all that the model does, and where they do not, a note says why.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from residscope.attribution.decompose import Query, decompose
from residscope.attribution.result import Attribution
from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.positions import Positions
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.compute.memo import UnknownError, key_of
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.session.change_notes import seen, steadily
from residscope.terms import By, NormConvention

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["Attribution", "attribute"]


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
            query = Query(targets.resolve(answers), by, where, norm, layers, heads)
            result = decompose(view, targets, query, output)
            assumed = positions.assumed(view) if isinstance(position, str) else positions.on_padding(view, position)
            result = replace(result, notes=targets.notes + result.notes + assumed)
            size = result.values.numel() * result.values.element_size()
            if asked is not None and size <= _KEPT:
                view.memo.put(*asked, value=_copy(result), size=size)
            return result

        return in_torch_context(view.stream.device, found)

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
        components=list(result.components),
        measured=measured,
        constant=constant,
        unexplained=unexplained,
        notes=list(result.notes),
        heads=list(result.heads),
        missing=list(result.missing),
    )
