"""The copying score: whether a head raises the probability of the tokens that it attends to.

A head's full OV circuit W_E W_V W_O W_U gives the effect of each attended token on the logit of each predicted token.
If its eigenvalues are positive, tokens raise their own logits. The circuit is a vocabulary × vocabulary matrix, but its
rank is at most d_head. Its eigenvalues other than 0 are those of the small matrix W_O (W_U W_E) W_V. W_U W_E is the
same for all heads.
Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), "Detecting copying behavior".
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.head_inputs import is_gated
from residscope.attribution.head_split import adds_up
from residscope.attribution.reconcile import differ_clearly
from residscope.base.numbered import named_layers
from residscope.cache.linear_maps import call_conditions, embedding_rows, linear_map_of
from residscope.cache.norms import Norm, norms_outputs, output_norm
from residscope.cache.output_maps import out_weight, why_unread
from residscope.cache.unembedding import Output, unembedding, vocabulary_size
from residscope.cache.view import CacheView
from residscope.cache.weights import is_plain, stored_values, tensor_of, unusable, weight_of, wrapped
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_VOCABULARY_ROWS = 8192
"""This many tokens of the vocabulary are used at a time."""


def copying(view: CacheView) -> tuple[Float[Tensor, "layer head"], list[str]]:
    """Return Σ Re λ / Σ |λ| over the eigenvalues λ of every head's OV circuit, and notes.

    A layer has a fixed OV circuit if its `W_V` and `W_O` act on every token in the same way. Other layers get NaN.

    The norms' weights and centring are folded in. If the logits have no soft-cap, the mean over the vocabulary is
    subtracted from `W_U`. This changes no prediction. So a model has the same scores with raw weights as in
    compatibility mode. The scales of the norms are left out, because they are positive and do not change the sign.
    The scores are memoised until the weights change.

    Raises:
        ResidscopeError: If no layer has a fixed OV circuit, or weights cannot be read or hold NaN or infinity.
    """
    # The shape of `hook_z` helps to read the weights, so the result depends on the layers in which `hook_z` is cached.
    has_z = tuple(view.has(f"blocks.{layer}.attn.hook_z") for layer in range(view.n_layers))
    called = tuple(call_conditions(getattr(getattr(b, "attn", None), "v", None), view) for b in view.model.blocks)
    key = ("copying", norms_outputs(view), view.n_heads, has_z, called)
    values, notes = view.facts.once(key, lambda: _copying(view))
    return values.clone(), [*notes, *view.root.memo.once(("circuit",), lambda: tuple(_differences(view.root)))]


def _differences(view: CacheView) -> list[str]:
    """Notes if cached values do not follow from the weights, because of a hook or changed weights."""
    layers = range(view.n_layers)
    differing = {
        "outputs of heads (z @ W_O + the bias differs from `hook_attn_out`)": [
            layer for layer in layers if adds_up(view, layer) is False
        ],
        "values of heads (`attn.v.hook_in` @ W_V + the bias differs from `hook_v`)": [
            layer for layer in layers if not _values_match(view, layer)
        ],
    }
    notes = [
        f"In {named_layers(found)} the {what} do not follow from the weights alone: the model adds something else, a "
        "hook changed them, or the weights have changed since the cache was made. The score is computed from "
        "the weights alone."
        for what, found in differing.items()
        if found
    ]
    if not _embeddings_match(view):
        notes.append(
            "`hook_embed` is not `W_E` of these tokens times a positive factor: the model adds something else, a "
            "hook changed it, or the weights have changed since the cache was made. The score is computed from "
            "the weights alone."
        )
    return notes


_COMPARED = 64
"""About this many vectors of a run, evenly spread, are compared with the weights. If there are fewer, all are."""


def _values_match(view: CacheView, layer: int) -> bool:
    """Whether the cached values of a layer's heads follow from its weights. True if this cannot be checked."""
    input_name, output_name = f"blocks.{layer}.attn.v.hook_in", f"blocks.{layer}.attn.hook_v"
    try:
        W_V = _values(view, getattr(view.model.blocks[layer], "attn", None))
    except ResidscopeError:
        return True
    if W_V is None or W_V.ndim != 3 or not (view.has(input_name) and view.has(output_name)):
        return True
    inputs, v = _rows(view.get(input_name), 2), _rows(view.get(output_name), 2)
    if inputs.shape[-1] != W_V.shape[1] or v.shape[-1] != W_V.shape[0] * W_V.shape[2]:
        return True
    expected = inputs @ rearrange(W_V, "head d_model d_head -> d_model (head d_head)").to(inputs)
    # Subtracting the first vector removes the bias, which is the same in all vectors.
    step = view.rounding_step(input_name, output_name)
    return not differ_clearly(v - v[:1], expected - expected[:1], 0.0, step)


def _embeddings_match(view: CacheView) -> bool:
    """Whether cached embeddings are rows of `W_E` times one positive factor. True if this cannot be checked."""
    ids, cached = view.activations.get("embed.hook_in"), view.activations.get("hook_embed")
    W_E = _embedding(view)
    if (
        W_E is None
        or ids is None
        or cached is None
        or ids.is_floating_point()
        or ids.numel() * W_E.shape[1] != cached.numel()
    ):
        return True
    embeddings = _rows(view.get("hook_embed"), 2)
    rows = working(W_E[_rows(view.get("embed.hook_in"), 2)[..., 0].long()]).to(embeddings)
    factor = ((embeddings * rows).sum() / rows.pow(2).sum().clamp(min=1e-30)).clamp(min=0)
    return not differ_clearly(embeddings, rows * factor, 0.0, view.rounding_step("hook_embed"))


def _rows(tensor: Tensor, axes: int) -> Float[Tensor, "row width"]:
    """Some of a tensor's vectors, evenly spread over prompts and positions."""
    flat = tensor.flatten(axes) if tensor.ndim > axes else tensor[..., None]
    flat = flat.flatten(0, axes - 1)
    return working(flat[:: max(1, len(flat) // _COMPARED)])


def _copying(view: CacheView) -> tuple[Tensor, list[str]]:
    import torch

    W_UE = _unembedding_times_embedding(view)
    values = W_UE.new_full((view.n_layers, view.n_heads), math.nan)
    without: list[int] = []
    normalises_outputs = norms_outputs(view)
    for layer in range(view.n_layers):
        report_progress(layer, view.n_layers)
        weights = _circuit(view, layer, normalises_outputs)
        if weights is None:
            without.append(layer)
            continue
        W_V, W_O = (weight.to(W_UE) for weight in weights)
        final = Norm.of(getattr(view.model, "ln_final", None), view)
        small = (_scaled(final, W_O) @ W_UE @ W_V).cpu().double()
        if not bool(small.isfinite().all()):
            raise ResidscopeError("not-finite", f"The weights of layer {layer} hold NaN or infinity.")
        eigenvalues = torch.linalg.eigvals(small)
        values[layer, : len(small)] = (eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1)).to(values)
    if len(without) == view.n_layers:
        raise ResidscopeError(
            "no-ov",
            "There is no copying score: no layer of this model has a `W_V` and a `W_O` that act on every token in the "
            "same way (latent attention, gated heads and recurrent layers do not have these).",
        )
    return values, [f"There is no fixed OV circuit in {named_layers(without)}."] if without else []


def _unembedding_times_embedding(view: CacheView) -> Float[Tensor, "d_model d_model"]:
    """W_U W_E, summed over blocks of the vocabulary.

    Without a soft-cap, the mean over the vocabulary is subtracted from W_U first.
    """
    W_U, _ = unembedding(view)
    W_E = _embedding(view)
    if W_E is None or W_E.shape != W_U.T.shape or W_E.shape[1] != int(view.cfg.d_model):
        raise ResidscopeError(
            "no-ov",
            "The copying score compares attended tokens with predicted tokens. But this model has no `W_E`, or its "
            "`W_E` and `W_U` have different tokens, or their width is not that of the residual stream.",
        )
    total = working(W_U[:0, :0]).new_zeros(W_U.shape[0], W_U.shape[0])
    mean, summed = total.new_zeros(W_U.shape[0]), total.new_zeros(W_U.shape[0])
    for start in range(0, W_E.shape[0], _VOCABULARY_ROWS):
        report_progress()
        write, read = (
            working(W_U[:, start : start + _VOCABULARY_ROWS]),
            working(W_E[start : start + _VOCABULARY_ROWS]).to(total),
        )
        total += write @ read
        mean += write.sum(-1) / W_E.shape[0]
        summed += read.sum(0)
    return total if Output.of(view.model).cap > 0 else total - mean[:, None] * summed


def _embedding(view: CacheView) -> Float[Tensor, "d_vocab d_model"] | None:
    """The model's embedding, up to a positive factor, which does not change the score. None if there is no `W_E`."""
    from torch.nn import Embedding

    module, W_E = getattr(view.model, "embed", None), weight_of(view.model, "embed", "W_E")
    layer = wrapped(module)
    scaled = isinstance(layer, Embedding) and len(list(layer.modules())) == 1 and "forward" not in vars(layer)
    if layer is module or is_plain(layer) or (scaled and unusable(W_E) is None):
        return None if W_E is None else stored_values(module, "W_E", W_E)
    return embedding_rows(module, view, vocabulary_size(view.model))


def _values(view: CacheView, attention: object) -> Float[Tensor, "head d_model d_head"] | None:
    """The value weights of a layer's heads. None if the layer has no such weights."""
    module = getattr(attention, "v", None)
    if module is not None and not is_plain(module):
        matrix = linear_map_of(module, view, int(view.cfg.d_model)).matrix
        groups = int(getattr(view.cfg, "n_key_value_heads", None) or view.cfg.n_heads)
        if matrix.shape[1] % groups:
            return None
        return rearrange(matrix, "d_model (head d_head) -> head d_model d_head", head=groups)
    own = None
    with suppress(Exception):  # TransformerLens raises if a layer has no such weight
        own = tensor_of(getattr(attention, "W_V", None))
    return None if own is None else stored_values(attention if module is None else module, "W_V", own)


def _circuit(
    view: CacheView, layer: int, normalises_outputs: bool
) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head d_model"]] | None:
    """W_V and W_O of every head, with the norms before and after attention folded in. None without a fixed circuit."""
    block, output_weight = view.model.blocks[layer], out_weight(view, layer)
    attention = getattr(block, "attn", None)
    why = why_unread(view, layer, "attn")
    if why is not None:
        raise ResidscopeError("no-ov", why)
    value_weight = _values(view, attention)
    if (
        output_weight is None
        or value_weight is None
        or value_weight.ndim != 3
        or value_weight.shape[-1] != output_weight.shape[1]
        or is_gated(view, layer)
    ):
        return None
    output_weight, value_weight = working(output_weight), working(value_weight)
    groups = [head * len(value_weight) // len(output_weight) for head in range(len(output_weight))]
    after = output_norm(view, layer, "attn", behind=normalises_outputs)
    if after is not None:
        output_weight = _scaled(Norm.of(getattr(block, after), view), output_weight)
    value_norm = Norm.of(getattr(attention, "v_norm", None), view)
    if value_norm.weight is not None:
        value_weight = value_weight * value_norm.weight.to(value_weight)
    if after != "ln1":  # `W_V` reads the output of the norm before attention
        before = Norm.of(getattr(block, "ln1", None), view)
        by_unit = rearrange(value_weight, "head d_model d_head -> head d_head d_model")
        scaled = _scaled(before, by_unit, are_readers=True)
        value_weight = rearrange(scaled, "head d_head d_model -> head d_model d_head")
    return value_weight[groups], output_weight


def _scaled(
    norm: Norm, vectors: Float[Tensor, "... d_model"], *, are_readers: bool = False
) -> Float[Tensor, "... d_model"]:
    """Fold a norm's weight and centring, without its scale, into vectors.

    Args:
        norm: The norm.
        vectors: The vectors.
        are_readers: True: the vectors are directions that read the norm's output. False: they are inputs of the norm.
    """
    weight = None if norm.weight is None else norm.weight.to(vectors)
    if are_readers:
        return norm.centre(vectors if weight is None else vectors * weight)
    vectors = norm.centre(vectors)
    return vectors if weight is None else vectors * weight
