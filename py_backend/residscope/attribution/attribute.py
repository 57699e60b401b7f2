"""`attribute`: the contribution of each component to the target.

Σ rows + constant + unexplained = measured, for each prompt (for `"accumulated"` the last row replaces the sum).
If the rows cover everything that the model does, `unexplained` is only rounding. Otherwise a note gives the reason.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from residscope.attribution.decompose import Query
from residscope.attribution.inner_targets import Output
from residscope.attribution.on_padding import check_not_on_padding, shared_places
from residscope.attribution.own_targets import decomposed
from residscope.attribution.result import Attribution
from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.lens_maps import LensMaps
from residscope.cache.positions import Positions
from residscope.cache.view import CacheView
from residscope.cache.vocabulary import Vocabulary
from residscope.compute.memo import NoKeyError, key_of
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.session.change_notes import seen, steadily
from residscope.terms import (
    Answers,
    AttentionScore,
    By,
    CacheLike,
    Heads,
    MaskLike,
    ModelLike,
    NormConvention,
    SaeLike,
    Target,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["Attribution", "attribute"]


def attribute(
    cache: CacheLike,
    answers: Answers,
    *,
    by: By = "head",
    position: Positions = "last",
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    norm: NormConvention = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Heads = None,
    sae: SaeLike = None,
    lens: object = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
) -> Attribution:
    """Decompose a number of the model into contributions of its components.

    For an answer's logit this is direct logit attribution. A target inside the model (`residscope.targets`) is read at
    an earlier point of the stream: the input of a neuron, the projection on a direction, or what a head moves from one
    source. The cache may come from any model of TransformerLens, with LayerNorm or RMSNorm: a `TransformerBridge`, in
    compatibility mode or not, or a `HookedTransformer`. The cache, the model and the grad mode stay unchanged.

    Args:
        cache: An `ActivationCache`.
        answers: A token, a pair `(answer, distractor)`, a list of either (one per prompt), ids `[batch]` or
            `[batch, 2]`, or a direction `[d_model]` (see `targets.Targets.resolve`). Or a target inside the model:
            `targets.neuron`, `targets.feature`, `targets.direction`, `targets.output`, `targets.attention`.
        by: `"head"`: every head, attention biases, MLPs, embeddings. `"layer"`: attention and MLP of each layer,
            embeddings. `"accumulated"`: the residual stream at each point (the logit lens), up to the point where the
            target is read. `"neuron"`: every MLP neuron of `layers`, MLP biases, attention, embeddings.
            `"source"`: the contribution of each source token through each of `heads`. `"feature"`: every active
            feature of `sae`, its error, its bias, and the rows of `"layer"` for all that `sae` does not reconstruct.
        position: `"last"` (each prompt's last real token), one position, one per prompt, or `"all"` for every position.
            Neurons and directions are read at this position. For `targets.output`, it is the destination, and `"all"`
            is refused. An attention score has its own destination, so any position is refused.
        logits: The model's output, if the cache does not hold it. `measured` is then read from these logits.
        norm: For `"accumulated"`: the scale of the norm through which the target is read (for logits, the final norm).
            `"frozen"`: the cached scale for all points. The differences between points then equal the rows of
            `"layer"`. `"recomputed"`: a scale computed from the stream at each point. The values are then what the
            model would predict if it stopped at this point.
        layers: For `"neuron"`: one layer, several, or None for all.
        heads: For `"source"`: heads such as `["9.9", "L9H6", (10, 7)]`.
        sae: For `"feature"`: an SAE or a transcoder of any class with `encode`, `decode` and `W_dec`, such as those of
            SAELens. Its `cfg` (`hook_name`) says which activations it encodes and reconstructs. Or you name them:
            `(sae, "blocks.5.hook_mlp_out")`, `(transcoder, READ, RECONSTRUCTED)`. It may reconstruct `hook_resid_pre`,
            `hook_resid_mid`, `hook_resid_post`, `hook_attn_out`, `hook_mlp_out` or `attn.hook_z` of a layer.
        lens: For `"accumulated"`: a tuned lens, a Jacobian lens or your own, as one map of the stream for each layer: a
            list of matrices A `[d_model, d_model]` (the stream h is replaced by A h), of pairs `(A, b)` (A h + b), or
            of `torch.nn.Linear` (h + A h + b, as the translators of tuned-lens). Map i is for the stream before layer
            i. `residscope.LensMaps` has other conventions. The target is then read from the mapped stream, and points
            without a map (after each layer's attention) are left out. None: the plain logit lens.
        tokens: Token ids, if the cache does not hold them. They are used to find padding.
        attention_mask: 1 for each real token, 0 for padding, `[batch, pos]`. By default padding is detected, see
            `docs/padding.md`.
        model: The model, if `cache.model` was deleted.

    Returns:
        The decomposition (rows + constant + unexplained = measured), in logits or in the unit of the target (a neuron's
        input, an attention score). `.values` is `[component, batch]`, with `position="all"` `[component, batch, pos]`.
        For `"source"` it is `[source, head, batch]`, with `position="all"` `[source, destination, head, batch]`. The
        sum over sources is then the head's contribution. (With `targets.next_token()` this result may have at most
        2 GB.) For a target inside the model, `measured` is the cached value, and rows of components after the target's
        point are 0. `targets.output` without a source has the axes `[component, batch, source]`.

    Raises:
        ResidscopeError: With a message that says what is wrong and what to do.

    Source: TransformerLens' `logit_attrs`, `decompose_resid`, `stack_head_results`, `stack_neuron_results` and
    `accumulated_resid`, made exact for unfolded norms; "A Mathematical Framework for Transformer Circuits".
    """
    seen_cache = seen(cache, model)
    used_model = model if model is not None else getattr(cache, "model", None)
    maps = LensMaps.of(lens)
    key = _key(used_model, answers, by, position, norm, layers, heads, sae, maps, logits, tokens, attention_mask)
    known = None if seen_cache is None or key is None else seen_cache.memo[0].get(*key)
    if known is not None:
        return _copy(known)

    def work() -> Attribution:
        view = CacheView(cache, model=model, tokens=tokens, seen=seen_cache, attention_mask=attention_mask)

        def computed() -> Attribution:
            targets = Targets.of(view)
            where = positions.resolve(view, position)
            output = None if logits is None else view.whole_logits(logits)
            target = targets.resolve(answers)
            check_asked(view, target, where, position)
            query = Query(target, by, where, norm, layers, heads, sae, maps)
            result = decomposed(view, targets, query, output)
            result = with_notes(targets, result, position, output)
            if where is not None:
                result = replace(result, padding=positions.are_padding(view, where))
            elif "pos" in result.axes or "destination" in result.axes:
                result = replace(result, padding=~positions.real(view))
            size = result.values.numel() * result.values.element_size()
            if key is not None and size <= _KEPT:
                view.cache_memo.put(*key, value=_copy(result), size=size)
            return result

        return in_torch_context(view.stream.device, computed)

    return steadily(cache, model, seen_cache, work)


def check_asked(view: CacheView, target: Target, where: Int[Tensor, " batch"] | None, position: Positions) -> None:
    """Refuse a target that has no value at the given positions.

    Args:
        view: The cache.
        target: The target.
        where: The position in each prompt. None: every position.
        position: The position as the user gave it.

    Raises:
        ResidscopeError: If a position was given for an attention score, or a head of the target reads padding.
    """
    if isinstance(target.inner, AttentionScore) and (not isinstance(position, str) or position != "last"):
        raise ResidscopeError(
            "position",
            "An attention score has its own destination: leave out `position=`, and give the destination to "
            "`targets.attention`.",
        )
    check_not_on_padding(view, target, where)


def with_notes(targets: Targets, result: Attribution, position: Positions, logits: Tensor | None) -> Attribution:
    """Return the result with notes on how answers, position and logits were understood."""
    target, view = result.target, targets.view
    unused = [] if logits is None or target is None or target.inner is None else [_LOGITS_UNUSED]
    assumed = positions.notes_on(view, position, positions.resolve(view, position))
    shared = [] if target is None else shared_places(view, target)
    return replace(result, notes=targets.notes + unused + result.notes + shared + assumed)


_LOGITS_UNUSED = "`logits=` was not used: this target is measured inside the model, not in the logits."

_KEPT = 16_000_000
"""Results with more bytes are not memoised."""


def _key(model: object, answers: object, *options: object) -> tuple[Hashable, ...] | None:
    """A key for the result. None if one of the arguments has no key.

    For answers given as texts, the key contains the tokens of these texts in the current tokenizer.
    """
    try:
        key = tuple(map(key_of, (answers, *options)))
        words = words_in(answers)
        if not words:
            return "attribute", *key
        vocabulary = Vocabulary(model)
        checks = (vocabulary.check(word) for word in words)
        return "attribute", *key, *((check.message, *(token.id for token in check.tokens)) for check in checks)
    except (NoKeyError, ResidscopeError):
        return None


def words_in(value: Any) -> list[str]:
    """Return all texts in some answers, in order. Texts of a set are in alphabetical order."""
    value = value.tolist() if getattr(getattr(value, "dtype", None), "kind", None) in ("O", "U", "S", "T") else value
    if isinstance(value, Output):
        return words_in(value.of)
    if isinstance(value, str):
        return [value]
    if isinstance(value, set | frozenset):
        return sorted(word for part in value for word in words_in(part))  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, tuple | list):
        return [word for part in value for word in words_in(part)]  # pyright: ignore[reportUnknownVariableType]
    return []


def _copy(result: Attribution) -> Attribution:
    """A copy with its own tensors, so that the user cannot change the memoised result."""
    values, measured, constant, unexplained = (
        tensor.clone() for tensor in (result.values, result.measured, result.constant, result.unexplained)
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
        padding=None if result.padding is None else result.padding.clone(),
    )
