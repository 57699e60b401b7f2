"""Reads the last steps to logits: the final norm's output, the unembedding, and its scaling and soft-cap.

Some models multiply the unembedding's output (Cohere, Granite) or soft-cap it (Gemma 2). A bridge's `unembed.hook_out`
holds the values before this scaling or soft-cap, so logits are computed from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from residscope.cache.linear_maps import call_conditions, kept_map
from residscope.cache.norms import Norm, normalized_is_output
from residscope.cache.view import CacheView
from residscope.cache.weights import is_plain, parameter, stored_values, weight_of, wrapped
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Output:
    """How the model turns the unembedding's output into logits: by a factor, and perhaps by a soft-cap.

    A soft-cap of x is cap · tanh(x / cap).

    Attributes:
        scale: The factor. 1 in most models.
        cap: The limit of the soft-cap, in logits. 0 if there is none.
    """

    scale: float = 1.0
    cap: float = 0.0

    def __call__(self, written: Tensor) -> Tensor:
        """Return the model's logits, given the unembedding's output."""
        scaled = written if self.scale == 1 else written * self.scale
        return self.cap * (scaled / self.cap).tanh() if self.cap > 0 else scaled

    @classmethod
    def of(cls, model: Any) -> Output:
        """Read scale and soft-cap from the model, or from its TransformerLens adapter."""
        declared = getattr(getattr(model, "adapter", None), "apply_output_logits_transform", None)
        scale = _slope(declared) if declared else 1.0
        cap = float(getattr(model.cfg, "output_logits_soft_cap", None) or 0.0)
        # The Hugging Face model reads its own settings, which may have changed since the bridge was made.
        inner = getattr(model, "original_model", None)
        config = getattr(inner, "config", None)
        for name in ("final_logit_softcapping", "logits_soft_cap"):
            held = getattr(config, name, None)
            if hasattr(config, name) and (held is None or _is_number(held)):
                cap = float(held or 0.0)
        if _is_number(getattr(inner, "logit_scale", None)):
            scale = float(getattr(inner, "logit_scale", 1.0))
        elif _is_number(getattr(config, "logits_scaling", None)):
            scale = 1 / float(getattr(config, "logits_scaling", None) or 1.0)
        return cls(scale, max(cap, 0.0))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _slope(transform: Callable[[Tensor], Tensor]) -> float:
    """The factor of a transform of logits: its slope at 0, where a soft-cap has no effect."""
    import torch

    step = torch.tensor([2.0**-20], dtype=torch.float64, device="cpu")
    slope = float(transform(step)) / float(step)
    return 1.0 if abs(slope - 1) < 1e-9 else slope


READ_BY_UNEMBEDDING = "unembed.hook_in"
"""The activation that the unembedding reads."""


def final_vectors(
    view: CacheView, positions: Int[Tensor, " batch"] | None
) -> Float[Tensor, "batch pos d_model"] | None:
    """Return the final norm's output, cached or computed from the final stream. None if neither is possible."""
    module = getattr(view.model, "ln_final", None)
    name = view.first(READ_BY_UNEMBEDDING, "ln_final.hook_out")
    if name is not None:
        return view.rows(name, positions)
    norm = Norm.of(module, view)
    normalized, final = "ln_final.hook_normalized", f"blocks.{view.n_layers - 1}.hook_resid_post"
    is_held = view.has(normalized) and not hasattr(module, "weight")  # only a bridge's norm has `weight`
    if is_held and norm.weight is None:
        return view.rows(normalized, positions)
    if view.has(final):
        stream = view.rows(final, positions)
        return norm.weighted(norm.centre(stream) / norm.scale(stream)[..., None])
    if not is_held:
        return None
    key = ("normalized is output", *call_conditions(module, view))
    is_output = view.facts.once(key, lambda: (normalized_is_output(module, view),))[0]
    if is_output is None:
        return None
    output = view.rows(normalized, positions)
    return output if is_output else norm.weighted(output)


def written_logits(view: CacheView, positions: Int[Tensor, " batch"] | None) -> Float[Tensor, "batch pos d_vocab"]:
    """Return the unembedding's output at these positions, cached or computed from the stream.

    Raises:
        ResidscopeError: If the cache holds neither logits nor the final stream.
    """
    name = view.first("unembed.hook_out", "hook_unembed")
    if name is not None:
        return view.rows(name, positions)
    W_U, b_U = unembedding(view)
    vectors = final_vectors(view, positions)
    if vectors is None:
        raise ResidscopeError(
            "no-logits",
            "The cache holds neither logits nor the final residual stream, so the model's predictions are unknown. "
            "Pass `logits=` (the model's output) or `answers=`.",
        )
    weight = working(W_U)
    logits = vectors.to(weight) @ weight
    return logits if b_U is None else logits + b_U


def unembedding_of_stream(view: CacheView) -> tuple[Float[Tensor, "d_model d_vocab"], Float[Tensor, " d_vocab"] | None]:
    """Return the weight of the unembedding, and its bias or None.

    The unembedding must read the normalised residual stream.

    Raises:
        ResidscopeError: If the unembedding reads vectors of another width.
    """
    W_U, b_U = unembedding(view)
    if W_U.shape[0] != view.cfg.d_model:
        raise ResidscopeError(
            "unembedding",
            f"This model's unembedding reads vectors of width {W_U.shape[0]}, but its residual stream has width "
            f"{view.cfg.d_model}: the model projects the stream in between, which Residscope does not support.",
        )
    return W_U, b_U


def unembedding(view: CacheView) -> tuple[Float[Tensor, "d_model d_vocab"], Float[Tensor, " d_vocab"] | None]:
    """Return the weight of the unembedding, and its bias or None. Both are detached.

    Raises:
        ResidscopeError: If the model has no unembedding, or its linear map cannot be read.
    """
    module = getattr(view.model, "unembed", None)
    plain = view.facts.once(("plain", "unembed"), lambda: (is_plain(_inner(module)),))[0]
    if not plain:
        found = kept_map(view, ("unembedding",), module, int(view.cfg.d_model))
        return found.matrix, None if found.bias is None else working(found.bias)
    own = weight_of(view.model, "unembed", "W_U")
    loaded = own is not None and own.is_meta  # read from accelerate
    return view.facts.once(("unembedding",), lambda: _unembedding(view), lambda kept: kept[0].nbytes * loaded)


def _inner(module: object) -> object:
    """A bridge's unembedding. None for that of a `HookedTransformer`, whose weight is `W_U`."""
    return module if hasattr(module, "original_component") else None


def _unembedding(view: CacheView) -> tuple[Tensor, Tensor | None]:
    model = view.model
    W_U = weight_of(model, "unembed", "W_U")
    if W_U is None:
        raise ResidscopeError("no-unembedding", "This model has no `W_U`: Residscope does not know its unembedding.")
    values = stored_values(getattr(model, "unembed", None), "W_U", W_U)
    return values, parameter(getattr(model, "unembed", None), working(values[:0]), "b_U")


def vocabulary_size(model: object) -> int:
    """Return the number of tokens that the model has logits for.

    Raises:
        ResidscopeError: If this number is not known.
    """
    layer = wrapped(getattr(model, "unembed", None))
    declared = getattr(layer, "out_features", None)
    if isinstance(declared, int):
        return declared
    W_U = weight_of(model, "unembed", "W_U")
    if W_U is not None:
        return int(W_U.shape[-1])
    declared = getattr(getattr(model, "cfg", None), "d_vocab", None)
    if isinstance(declared, int) and declared > 0:
        return declared
    raise ResidscopeError("no-unembedding", "This model has no `W_U`: Residscope does not know its unembedding.")
