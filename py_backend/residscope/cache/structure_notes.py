"""Notes on why outputs do not add up as expected: possible causes, training mode, too coarse numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from residscope.base.numbered import named_layers
from residscope.cache.view import CacheView

POSSIBLE_CAUSES = (
    ": the model adds something else, a hook changed it, or the weights have changed since the cache was made "
    "(training, compatibility mode)."
)


SCALED = " (the model scales them or adds something else, or a hook did)"


TRAINING = (
    "The model is in training mode. If it was also in training mode when this cache was made, dropout may have changed "
    "the outputs of components at random. This may explain the other notes. Call `model.eval()` and make the "
    "cache again."
)


def in_training(model: object) -> bool:
    """Whether a model, or the Hugging Face model in it, is in training mode."""
    return any(getattr(one, "training", False) is True for one in (model, getattr(model, "original_model", None)))


def float8(view: CacheView, layers: Iterable[int]) -> str:
    """A note if each of these layers has activations in float8. Otherwise an empty string."""
    import torch

    kinds: set[torch.dtype] = set()
    for layer in layers:
        own = (tensor.dtype for name, tensor in view.activations.items() if name.startswith(f"blocks.{layer}."))
        eight_bits = {kind for kind in own if kind.is_floating_point and kind.itemsize == 1}
        if not eight_bits:
            return ""
        kinds |= eight_bits
    if not kinds:
        return ""
    named = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    error = max(torch.finfo(kind).eps for kind in kinds) / 2
    return (
        f"This cache was kept in {named}, numbers of 8 bits with a rounding error of up to {error:.0%}: too coarse to "
        "check sums of components. Make the cache again and keep it in bfloat16 (`.to(torch.bfloat16)`) or finer."
    )


def unsplit_heads(view: CacheView, layers: Sequence[int]) -> str:
    """A note on layers whose heads do not add up to the attention's output."""
    where, too_coarse = f"In {named_layers(layers)} the heads (z @ W_O) and the bias", float8(view, layers)
    if too_coarse:
        return f"{too_coarse} {where} do not add up to `hook_attn_out`."
    return f"{where} are not all of `hook_attn_out`{POSSIBLE_CAUSES}"
