"""`without`: runs the cached prompts again with some heads replaced, and returns this run as a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residscope.cache.component_names import parse_heads
from residscope.cache.view import CacheView
from residscope.causes.hooks import Hooks
from residscope.causes.measurement import chosen_positions
from residscope.causes.recording import recorded_run
from residscope.causes.replacement import replacement
from residscope.causes.replay import Replay, replay
from residscope.causes.unchanged import from_padding
from residscope.causes.user_state import keeping_user_state
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed, seen, steadily
from residscope.terms import CacheLike, Heads, MaskLike, ModelLike, PositionsLike, ReplacementLike

if TYPE_CHECKING:
    from jaxtyping import Bool, Int
    from torch import Tensor
    from transformer_lens import ActivationCache


def without(
    cache: CacheLike,
    heads: Heads,
    *,
    replace: ReplacementLike = "zero",
    positions: PositionsLike = "all",
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
) -> ActivationCache | dict[str, Tensor]:
    """Run the model once more with heads replaced, all at once, and return this run as a cache.

    The result holds what `run_with_cache` returns with hooks on these heads, under the names in `cache`. Activations
    are left out if even an unchanged run gives other values than `cache`. Show the result with `residscope.inspect`, or
    compare it with the cached run: `residscope.compare(cache, residscope.without(cache, ["L23H3"]), target)`.

    Args:
        cache: An `ActivationCache`.
        heads: Heads such as `["9.9", "L9H6", (10, 7)]`.
        replace: What takes the place of the heads' outputs, as in `ablate`.
        positions: The positions at which the outputs are replaced, as in `ablate`. A prompt in which all of them are
            padding is run unchanged.
        tokens: Token ids, if the cache does not hold them.
        attention_mask: 1 for each real token, 0 for padding, as in `ablate`.
        model: The model, if `cache.model` was deleted.

    Returns:
        A cache of the class of `cache`.

    Raises:
        ResidscopeError: As for `ablate`.
    """
    tracked = seen(cache, model)

    def work() -> ActivationCache | dict[str, Tensor]:
        view = CacheView(cache, model=model, tokens=tokens, seen=tracked, attention_mask=attention_mask)

        def run() -> dict[str, Tensor]:
            found = replay(view)
            return changed_run(found, parse_heads(heads), replace, chosen_positions(view, positions))[0]

        return as_cache(keeping_user_state(view.model, view.stream.device, run), cache, view.model)

    return steadily(cache, model, tracked, work)


def changed_run(
    found: Replay, heads: Sequence[tuple[int, int]], replace: object, where: Bool[Tensor, "batch pos"]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the activations of a run in which heads are replaced, all at once, and notes.

    Args:
        found: The cached run.
        heads: Layer and index of each head.
        replace: As in `ablate`.
        where: The positions at which the heads' outputs are replaced.

    Raises:
        ResidscopeError: If the outputs of a head cannot be replaced, or `replace` does not fit the cache.
    """
    import torch

    view = found.view
    by_layer: dict[int, list[int]] = {}
    for layer, head in heads:
        view.check_head(layer, head)
        if ("z", layer) not in found.sites:
            raise ResidscopeError("layer", f"Layer {layer} has no `attn.hook_z` that could be replaced.")
        by_layer.setdefault(layer, []).append(head)
    sites = [found.sites["z", layer] for layer in by_layer]
    by = replacement(found, replace, sites)
    if (by_padding := from_padding(where, by)) is not None:
        raise ResidscopeError("replace", f"{by_padding} Choose other `positions=`, or prompts of the same length.")

    def change(own: Hooks) -> None:
        for site in sites:
            chosen = torch.zeros(site.inner[0], dtype=torch.bool, device="cpu")
            chosen[by_layer[site.layer]] = True
            select = (where[:, :, None] & chosen)[..., None]
            value = by.of(site)

            def edit(held: Tensor, select: Tensor = select, value: Tensor = value) -> Tensor:
                return torch.where(select.to(held.device), value.to(held), held)

            own.after(site.module, site.change(edit, view.batch))

    values, notes = recorded_run(found, change)
    return values, [*changed(view), *by.notes, *notes]


def as_cache(values: dict[str, Tensor], like: object, model: object) -> ActivationCache | dict[str, Tensor]:
    """Return activations as a cache of the class of `like`. If `like` is a dictionary, return a dictionary."""
    if not hasattr(like, "cache_dict"):
        return values
    from transformer_lens import ActivationCache

    kind = type(like) if isinstance(like, ActivationCache) else ActivationCache
    return kind(values, model, has_batch_dim=bool(getattr(like, "has_batch_dim", True)))
