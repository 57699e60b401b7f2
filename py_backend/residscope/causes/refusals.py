"""Errors for runs that differ from the cached run. They name the reasons that were found, else possible ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from residscope.cache.structure_notes import in_training
from residscope.cache.view import CacheView
from residscope.causes.hooks import all_modules
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


def check_before(view: CacheView) -> Tensor:
    """Check what can be checked before a run. Return the token ids on the model's device.

    Raises:
        ResidscopeError: If there are no token ids, the model draws random numbers, or the cache holds only a part of
            the prompt.
    """
    import torch

    model = view.model
    dropout = [part for part in all_modules(model) if _draws(part)]
    if dropout:
        raise ResidscopeError(
            "replay",
            f"The model is in training mode, and its dropout (`{type(dropout[0]).__name__}`) draws random numbers, so "
            "no run equals the cached one. Call `model.eval()`, make the cache again, and then measure.",
        )
    cut = view.cut()
    if cut is not None:
        raise ResidscopeError("replay", f"The run cannot be repeated. {cut} Cache the whole prompt.")
    tokens = view.tokens
    if tokens is None:
        raise ResidscopeError(
            "replay",
            "The run cannot be repeated: the cache holds no token ids (`embed.hook_in`), and they cannot be recovered "
            "from `hook_embed`. Pass `tokens=`. A run from embeddings (`inputs_embeds`) cannot be repeated.",
        )
    weight = next(iter(model.parameters()), None) if hasattr(model, "parameters") else None
    device = view.stream.device if weight is None or weight.device.type == "meta" else weight.device
    return tokens.to(device=device, dtype=torch.long)


def differs(view: CacheView, gap: float, final: Tensor | None, masks: list[Any]) -> ResidscopeError:
    """Return the error for a run that differs from the cached run.

    Args:
        view: The cache.
        gap: The largest difference from a cached activation, relative to the root mean square of this activation.
        final: The final stream of the run.
        masks: The attention masks that were tried. A None in this list stands for a run without a mask.
    """
    reasons = [*_weights(view), *_hooks(view), *_training(view), *_kinds(view, final)]
    if view.other_tokens:
        reasons.append("`tokens=` differs from the token ids in the cache.")
    if any(mask is not None for mask in masks):
        which = "the attention mask that was given" if view.attention_mask is not None else "an attention mask"
        reasons.append(
            f"The prompts are padded: the model was run with and without {which}. If the cached run had another, pass "
            "it."
        )
    likely = " ".join(reasons) or (
        "No reason was found. Possible ones: weights or hooks that were changed after the cache was made, another "
        "attention mask or other position ids, `autocast`, a key/value cache."
    )
    return ResidscopeError(
        "replay",
        "The model, run again on the cache's tokens, does not give the cached activations (they differ by up to "
        f"{gap:.2g} of their size). So an effect measured now would not hold for this cache. {likely} Make the cache "
        "again.",
    )


def changed_since(view: CacheView, gap: float) -> ResidscopeError:
    """Return the error for a run that gives the cached activations, but another value of the target.

    Args:
        view: The cache.
        gap: The difference of the target from its cached value.
    """
    reasons = " ".join([*_weights(view), *_hooks(view)]) or (
        "The final norm, the unembedding, a layer whose activations this cache does not hold, or a hook on one of them "
        "was changed since the cache was made."
    )
    return ResidscopeError(
        "replay",
        "The target, read from the final stream of a new run, is the model's present value, but differs from the "
        f"cached value by {gap:.2g}. {reasons} Make the cache again.",
    )


def not_compared() -> ResidscopeError:
    """Return the error for a cache that holds nothing to compare a run with."""
    return ResidscopeError(
        "replay",
        "Whether a run equals the cached run cannot be checked: the cache holds none of the activations that are "
        "compared (`hook_resid_pre`, `hook_resid_post`, `hook_z`, `hook_attn_out`, `hook_mlp_out`). Cache some.",
    )


def _draws(module: object) -> bool:
    from torch.nn.modules.dropout import _DropoutNd  # pyright: ignore[reportPrivateUsage]

    return isinstance(module, _DropoutNd) and module.training and module.p > 0


def _weights(view: CacheView) -> list[str]:
    if view.seen is None:
        return []
    changed = ["The model's weights were changed after this cache was first seen."] * view.seen.weights_changed
    changed += ["This cache was first seen with another model."] * view.seen.other_model
    return changed + ["The cache was changed after it was first seen."] * view.seen.changed


def _training(view: CacheView) -> list[str]:
    return ["The model is in training mode."] * in_training(view.model)


def _hooks(view: CacheView) -> list[str]:
    """A reason if TransformerLens' hook points have forward hooks. Other hooks are not looked for."""
    named = [name for name, part in view.model.named_modules() if getattr(part, "fwd_hooks", None)]
    if not named:
        return []
    shown = ", ".join(f"`{name}`" for name in named[:3]) + ", …" * (len(named) > 3)
    return [f"There are hooks on the model ({shown}): they change each run. If the cached run had none, remove them."]


def _kinds(view: CacheView, final: Tensor | None) -> list[str]:
    """A reason if the cached activations have another precision than this run.

    Either the cached run was computed in that precision, or the cache was converted later.
    """
    endings = ("hook_resid_pre", "hook_resid_post", "hook_z", "hook_attn_out", "hook_mlp_out")
    kinds = {tensor.dtype for name, tensor in view.activations.items() if name.endswith(endings)}
    if final is None or kinds <= {final.dtype}:
        return []
    own = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    mine = str(final.dtype).removeprefix("torch.")
    return [
        f"The run computes in {mine}, but the cache holds {own} (`autocast`, or converted later): cache without "
        "`autocast`."
    ]
