"""The copying score: whether what a head reads becomes likelier by it, whatever it is.

A head's full OV circuit W_E W_V W_O W_U says what each token that is read does to each token that is predicted. Where
its eigenvalues are positive, tokens raise themselves. The circuit is vocabulary × vocabulary, but of rank d_head: its
eigenvalues other than 0 are those of W_O (W_U W_E) W_V, and the middle is the same for all heads.
Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021), "Detecting copying behavior".
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from einops import rearrange

from residscope.attribution.head_inputs import is_gated
from residscope.attribution.head_split import adds_up
from residscope.attribution.reconcile import other_structure
from residscope.cache.linear_maps import applied, applied_rows
from residscope.cache.norms import Norm, norms_outputs, output_norm
from residscope.cache.structure import named_layers, out_weight, why_unread
from residscope.cache.unembedding import Output, unembedding, vocabulary_size
from residscope.cache.view import CacheView
from residscope.cache.weights import figures, is_plain, tensor_of, unusable, weight_of, wrapped
from residscope.compute.precision import working
from residscope.compute.progress import report_progress
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_ROWS = 8192  # of the vocabulary at a time


def copying(view: CacheView) -> tuple[Float[Tensor, "layer head"], list[str]]:
    """Σ Re λ / Σ |λ| of every head's OV circuit, and notes; computed once for a model and the state of its weights.

    The norms' weights and centring are folded in, and the mean over the vocabulary is taken from `W_U` (where no
    soft-cap follows), which changes no prediction: so a raw model has the scores that it has in compatibility mode.
    What norms divide by is left out: it is positive, and no matter for the sign.

    Raises:
        ResidscopeError: If the model has no such weights.
    """
    # A cache helps to read the weights, and one that was filtered may help less.
    held = tuple(view.has(f"blocks.{layer}.attn.hook_z") for layer in range(view.n_layers))
    values, notes = view.facts.once(("copying", norms_outputs(view), held), lambda: _copying(view))
    return values.clone(), [*notes, *view.root.memo.once(("circuit",), lambda: tuple(_not_so(view.root)))]


def _not_so(view: CacheView) -> list[str]:
    """Notes, where this run did something else than the weights say: a hook, or weights that are not its own."""
    layers = range(view.n_layers)
    odd = {
        "write (`hook_attn_out` is not z @ W_O and the bias)": [at for at in layers if adds_up(view, at) is False],
        "read (`hook_v` is not `attn.v.hook_in` @ W_V and the bias)": [at for at in layers if not _reads_so(view, at)],
    }
    said = [
        f"What heads in {named_layers(found)} {what} is not by their weights alone: the model does more there, a hook "
        "changed it, or the weights are not those of the cache any more. The score is that of the weights."
        for what, found in odd.items()
        if found
    ]
    if not _embeds_so(view):
        said.append(
            "`hook_embed` is not, up to a positive factor, what `W_E` has for these tokens: the model does more there, "
            "a hook changed it, or the weights are not those of the cache any more. The score is that of the weights."
        )
    return said


_SOME = 64
"""So many vectors of a run are held against the weights."""


def _reads_so(view: CacheView, layer: int) -> bool:
    """Whether a layer's values are what its weights make of what they read; also where that is not known."""
    name, out = f"blocks.{layer}.attn.v.hook_in", f"blocks.{layer}.attn.hook_v"
    try:
        W_V = _values(view, getattr(view.model.blocks[layer], "attn", None))
    except ResidscopeError:
        return True
    if W_V is None or W_V.ndim != 3 or not (view.has(name) and view.has(out)):
        return True
    read, v = (_rows(view.get(one), count) for one, count in ((name, 2), (out, 2)))
    if read.shape[-1] != W_V.shape[1] or v.shape[-1] != W_V.shape[0] * W_V.shape[2]:
        return True
    given = read @ rearrange(W_V, "head d_model d_head -> d_model (head d_head)").to(read)
    # The bias is the same for all, and goes with the first of them.
    return not other_structure(v - v[:1], given - given[:1], 0.0, view.rounding_step(name, out))


def _embeds_so(view: CacheView) -> bool:
    """Whether what is embedded has the directions of the weights; also where that is not known."""
    ids, held = view.activations.get("embed.hook_in"), view.activations.get("hook_embed")
    W_E = _embedding(view)
    if (
        W_E is None
        or ids is None
        or held is None
        or ids.is_floating_point()
        or ids.numel() * W_E.shape[1] != held.numel()
    ):
        return True
    own = _rows(view.get("hook_embed"), 2)
    rows = working(W_E[_rows(view.get("embed.hook_in"), 2)[..., 0].long()]).to(own)
    factor = ((own * rows).sum() / rows.pow(2).sum().clamp(min=1e-30)).clamp(min=0)
    return not other_structure(own, rows * factor, 0.0, view.rounding_step("hook_embed"))


def _rows(tensor: Tensor, axes: int) -> Float[Tensor, "row width"]:
    """Some of a tensor's vectors, evenly spread over prompts and positions."""
    flat = tensor.flatten(axes) if tensor.ndim > axes else tensor[..., None]
    flat = flat.flatten(0, axes - 1)
    return working(flat[:: max(1, len(flat) // _SOME)])


def _copying(view: CacheView) -> tuple[Tensor, list[str]]:
    import torch

    middle = _middle(view)
    values = middle.new_full((view.n_layers, view.n_heads), math.nan)
    without: list[int] = []
    behind = norms_outputs(view)
    for layer in range(view.n_layers):
        report_progress(layer, view.n_layers)
        weights = _circuit(view, layer, behind)
        if weights is None:
            without.append(layer)
            continue
        W_V, W_O = (weight.to(middle) for weight in weights)
        final = Norm.of(getattr(view.model, "ln_final", None), view)
        small = (_scaled(final, W_O) @ middle @ W_V).double().cpu()
        if not bool(small.isfinite().all()):
            raise ResidscopeError("not-finite", f"The weights of layer {layer} hold NaN or infinity.")
        eigenvalues = torch.linalg.eigvals(small)
        values[layer, : len(small)] = (eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1)).to(values)
    if len(without) == view.n_layers:
        raise ResidscopeError(
            "no-ov",
            "No layer of this model has a `W_V` and a `W_O` that do the same to every token (latent attention, gated "
            "heads and recurrent layers have not): there is no copying score.",
        )
    said = f"There is no fixed OV circuit in {named_layers(without)}." if without else ""
    return values, [said] if said else []


def _middle(view: CacheView) -> Float[Tensor, "d_model d_model"]:
    """W_U W_E, some rows of the vocabulary at a time."""
    W_U, _ = unembedding(view)
    W_E = _embedding(view)
    if W_E is None or W_E.shape != W_U.T.shape or W_E.shape[1] != int(view.cfg.d_model):
        raise ResidscopeError(
            "no-ov",
            "The copying score compares the tokens that are read with those that are predicted, and this model's `W_E` "
            "and `W_U` do not have the same tokens, or are not of the width of its stream.",
        )
    total = working(W_U[:0, :0]).new_zeros(W_U.shape[0], W_U.shape[0])
    mean, summed = total.new_zeros(W_U.shape[0]), total.new_zeros(W_U.shape[0])
    for start in range(0, W_E.shape[0], _ROWS):
        report_progress()
        write, read = working(W_U[:, start : start + _ROWS]), working(W_E[start : start + _ROWS]).to(total)
        total += write @ read
        mean += write.sum(-1) / W_E.shape[0]
        summed += read.sum(0)
    return total if Output.of(view.model).cap > 0 else total - mean[:, None] * summed


def _embedding(view: CacheView) -> Float[Tensor, "d_vocab d_model"] | None:
    """What the model embeds with; as far as the score can tell, which no positive factor changes."""
    from torch.nn import Embedding

    module, W_E = getattr(view.model, "embed", None), weight_of(view.model, "embed", "W_E")
    layer = wrapped(module)
    scaled = isinstance(layer, Embedding) and len(list(layer.modules())) == 1 and "forward" not in vars(layer)
    if layer is module or is_plain(layer) or (scaled and unusable(W_E) is None):
        return None if W_E is None else figures(module, "W_E", W_E)
    return applied_rows(module, view, vocabulary_size(view.model))


def _values(view: CacheView, attention: Any) -> Float[Tensor, "head d_model d_head"] | None:
    """The weights that heads read values with; None where there are no such weights."""
    module = getattr(attention, "v", None)
    if module is not None and not is_plain(module):
        matrix = applied(module, view, int(view.cfg.d_model)).matrix
        groups = int(getattr(view.cfg, "n_key_value_heads", None) or view.cfg.n_heads)
        if matrix.shape[1] % groups:
            return None
        return rearrange(matrix, "d_model (head d_head) -> head d_model d_head", head=groups)
    with suppress(Exception):  # TransformerLens refuses it where a layer has no such weight
        read = tensor_of(getattr(attention, "W_V", None))
        return None if read is None else figures(module, "W_V", read)
    return None


def _circuit(
    view: CacheView, layer: int, behind: bool
) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head d_model"]] | None:
    """W_V and W_O of every head, with the norms before and behind attention folded in; None where not fixed."""
    block, written = view.model.blocks[layer], out_weight(view, layer)
    attention = getattr(block, "attn", None)
    why = why_unread(view, layer, "attn")
    if why is not None:
        raise ResidscopeError("no-ov", why)
    read = _values(view, attention)
    if written is None or read is None or read.ndim != 3 or read.shape[-1] != written.shape[1] or is_gated(view, layer):
        return None
    written, read = working(written), working(read)
    groups = [head * len(read) // len(written) for head in range(len(written))]
    after = output_norm(view, layer, "attn", behind=behind)
    if after is not None:
        written = _scaled(Norm.of(getattr(block, after), view), written)
    values = Norm.of(getattr(attention, "v_norm", None), view)
    if values.weight is not None:
        read = read * values.weight.to(read)
    if after != "ln1":  # rows of W_V read what the norm before attention gives
        before = Norm.of(getattr(block, "ln1", None), view)
        by_unit = rearrange(read, "head d_model d_head -> head d_head d_model")
        read = rearrange(_scaled(before, by_unit, into=True), "head d_head d_model -> head d_model d_head")
    return read[groups], written


def _scaled(norm: Norm, vectors: Float[Tensor, "... d_model"], *, into: bool = False) -> Float[Tensor, "... d_model"]:
    """What a norm makes of vectors that come out of it, or of directions that read `into` it; its scale left out."""
    weight = None if norm.weight is None else norm.weight.to(vectors)
    if into:
        return norm.centre(vectors if weight is None else vectors * weight)
    vectors = norm.centre(vectors)
    return vectors if weight is None else vectors * weight
