"""Records a run as a cache: the outputs of hook points, under the names in the user's cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from residscope.cache.view import CacheView
from residscope.causes.hooks import Hooks, hook_state, hooks
from residscope.causes.replay import Replay, tolerance, whole_run
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

Change = Callable[[Hooks], None]
"""Adds the hooks that change a run."""


def recorded_run(replay: Replay, change: Change) -> tuple[dict[str, Tensor], list[str]]:
    """Run the whole model with changes, and record the activations that the cache holds.

    The unchanged run is recorded, too. If an activation of this run differs from the cached one, the result does not
    hold this activation, because its name would mean something else than in the cache.

    Args:
        replay: The cached run.
        change: Adds the hooks that change the run.

    Returns:
        The activations of the changed run, with the shapes, dtypes and devices of the cache, and notes.

    Raises:
        ResidscopeError: If the model has no hook points.
    """
    view = replay.view
    kept = view.memo.once(("recorded alike", hook_state(view.model)), lambda: _names(replay))
    values = _record(replay, change, lambda name, value: _like(value, view.activations[name]), kept)
    left_out = sorted(set(view.activations) - set(values))
    notes: list[str] = []
    if left_out:
        shown = ", ".join(f"`{name}`" for name in left_out[:3]) + ", …" * (len(left_out) > 3)
        notes.append(f"The new run has no {shown}: not even an unchanged run gives them as they are in the cache.")
    return values, notes


def _names(replay: Replay) -> frozenset[str]:
    """The names of the activations that an unchanged run gives as they are in the cache."""
    cached = replay.view.activations
    same = _record(replay, lambda _: None, lambda name, value: _is_cached(replay.view, value, cached[name]))
    return frozenset(name for name, is_same in same.items() if is_same)


def _record(
    replay: Replay, change: Change, keep: Callable[[str, Tensor], T], names: Iterable[str] | None = None
) -> dict[str, T]:
    """What `keep` returns for each activation of a run. An activation that is computed several times is left out."""
    points = getattr(replay.view.model, "hook_dict", None)
    if not isinstance(points, dict):
        raise ResidscopeError("replay", "This model has no `hook_dict`, so its run cannot be recorded as a cache.")
    found: dict[str, T] = {}
    twice: set[str] = set()

    def record(name: str, point: object) -> Callable[[Tensor], None]:
        def hook(output: Tensor) -> None:
            conversion = getattr(point, "hook_conversion", None)
            if name in found:
                twice.add(name)
            found[name] = keep(name, (output if conversion is None else conversion.convert(output)).detach())

        return hook

    with hooks() as own:
        change(own)
        for name in replay.view.activations if names is None else names:
            if name in points:
                own.after(points[name], record(name, points[name]))
        whole_run(replay.view, replay.tokens, replay.mask, own, record=False, keep=False)
    return {name: value for name, value in found.items() if name not in twice}


def _is_cached(view: CacheView, value: Tensor, cached: Tensor) -> bool:
    """Whether a value equals the cached activation, up to rounding."""
    if value.numel() != cached.numel():
        return False
    own = cached.detach().reshape(value.shape)
    if own.dtype == value.dtype and own.device == value.device and bool((own == value).all()):
        return True
    mine, own = working(value).flatten(), working(cached.detach()).flatten().to(value.device)
    size = own.nan_to_num(0.0, 0.0, 0.0).pow(2).mean().sqrt().clamp(min=1e-30)
    same = (mine == own) | (mine.isnan() & own.isnan())  # the difference of two equal infinite values is NaN
    gap = (mine - own).abs().masked_fill(same, 0).max() / size
    return bool(gap <= tolerance(view))


def _like(value: Tensor, cached: Tensor) -> Tensor:
    """The value with the cached activation's shape, device and dtype."""
    return value.reshape(cached.shape).to(device=cached.device, dtype=cached.dtype, copy=True)
