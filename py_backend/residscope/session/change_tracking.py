"""Identifies caches, and tracks whether a cache or its model's weights changed since Residscope first saw it.

Changes of activations are noticed by metadata only: the set of tensors, and PyTorch's version counter of each tensor.
For weights, some values of each weight are compared, too (`samples`), because optimizers change weights without raising
the counter. The way in which layers use the weights is also compared (`layer_state`). Nothing is kept alive, because
tensors are identified by their addresses. A weak reference reports when a tensor is deleted, because its address may be
reused.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from residscope.cache.layer_state import LayerState, differ
from residscope.compute.memo import CACHES, Memo, NoKeyError, ResultStore
from residscope.session.class_kinds import peek
from residscope.session.tensor_snapshot import Snapshot, key_of_tensors
from residscope.session.weights_state import WeightsState, new_id
from residscope.terms import CacheLike, ModelLike

if TYPE_CHECKING:
    from torch import Tensor

_lock = threading.RLock()
_tracked: dict[int, TrackedCache] = {}
_models: dict[int, WeightsState] = {}
_comparisons = count(1)


@dataclass(eq=False)
class TrackedCache:
    """What is known about a cache since Residscope first saw it. It is dropped together with the cache.

    Attributes:
        id: Identifies the cache. No other cache ever has this id.
        since: When the cache was first seen, on the clock of `time.monotonic`.
        state: `CACHE.WEIGHTS.ADDED`, as in `protocol.CacheRef`.
        changed: Whether an activation was replaced, written to or removed since then. Added activations do not count.
        weights_changed: Whether the weights of the cache's present model, or how the layers use them, differ from those
            at the first comparison.
        other_model: Whether the cache had another model at the first comparison.
        compared: The number of the last comparison (`next_comparison`). 0 if there was none.
        kept: Values that other modules keep here as long as the cache exists.
    """

    id: str = field(default_factory=lambda: new_id())
    since: float = field(default_factory=time.monotonic)
    state: str = ""
    changed: bool = False
    weights_changed: bool = False
    other_model: bool = False
    compared: int = 0
    kept: dict[str, Any] = field(default_factory=dict[str, Any])
    _cache: Callable[[], Any] = lambda: None
    _last: Snapshot | None = None
    _count: int = 0
    _added: int = 0
    _models_seen: dict[str, tuple[int, LayerState]] = field(default_factory=dict[str, tuple[int, LayerState]])
    _weights: Callable[[], WeightsState | None] | None = None
    _uncached: tuple[object, Memo] = ("", Memo())

    @property
    def cache(self) -> Any:
        """The cache. None if it was deleted."""
        return self._cache()

    @property
    def activations(self) -> int:
        """The number of activations at the last comparison."""
        return 0 if self._last is None else len(self._last.key[0])

    @property
    def memo(self) -> tuple[Memo, Memo]:
        """Two memos: results for the present state of cache, weights and settings; and values read from the modules.

        If PyTorch does not count the changes of all activations and weights, the first memo is new and empty each time.
        If the weights or the settings cannot be tracked, both memos are new and empty each time.
        """
        weights = None if self._weights is None else self._weights()
        if weights is None:
            return Memo(), Memo()
        try:
            settings = weights.settings()
        except NoKeyError:
            return Memo(), Memo()
        facts = weights.facts.part(settings)
        if self._last is None or not self._last.counted or not weights.counted:
            return Memo(), facts
        if self.cache is not None:
            return Memo(CACHES, (self.id, self.state, settings)), facts
        # For a plain dictionary, whose deletion cannot be noticed, results are kept in this object, not in CACHES.
        if self._uncached[0] != (self.state, settings):
            self._uncached = (self.state, settings), Memo()
        return self._uncached[1], facts

    @property
    def current_state(self) -> tuple[object, ...]:
        """The state that results depend on, at the last comparison: activations, weights and settings."""
        weights = None if self._weights is None else self._weights()
        try:
            settings = None if weights is None else weights.settings()
        except NoKeyError:
            settings = None
        activations, model, _ = self.state.split(".")  # added activations do not change results
        return activations, model, settings

    @property
    def age(self) -> float:
        """Seconds since the cache was first seen."""
        return time.monotonic() - self.since

    def compare(
        self, cache: CacheLike, model: ModelLike = None, seen: dict[int, int] | None = None, *, quick: bool = False
    ) -> TrackedCache:
        """Compare the last known state with the present cache and model. Return this object.

        Args:
            cache: The cache.
            model: The model, if it is not `cache.model`.
            seen: The states of the models that were already compared for this list of caches, by the model's address.
                This model is added.
            quick: Whether to compare only the counters, because the values have just been compared.
        """
        with _lock:
            self.compared = next_comparison()
            changes = self.changes(cache)
            model = peek(cache, "model") if model is None else model
            weights = _compare_model(model, {} if seen is None else seen, quick)
            known = _models.get(id(model))
            self._weights = None if known is None else weakref.ref(known)
            if weights is not None and known is not None:  # the weights of a deleted model are not known
                model_id, _ = weights
                written, layers = self._models_seen.setdefault(model_id, (known.written, known.layers))
                self.weights_changed = written != known.written or differ(layers, known.layers)
                self.other_model = next(iter(self._models_seen)) != model_id
            state = f"{changes}.{'-'.join(map(str, weights or ()))}.{self._added}"
            if state != self.state:
                CACHES.drop(self.id)
            self.state = state
        return self

    def changes(self, cache: object) -> int:
        """Compare only the activations, which is fast. Return how many times they were found changed."""
        held = _activations(cache)
        if held is None:
            with _lock:
                self._last = None
                return self._count
        tensors, has_batch_dim = list(held.values()), peek(cache, "has_batch_dim")
        key = key_of_tensors(tensors, tuple(held))
        with _lock:
            if self._last is None or not self._last.matches(key, has_batch_dim):
                if self._last is not None and self._last.is_prefix_of(key, has_batch_dim):
                    self._added += 1
                elif self._last is not None:
                    self._count += 1
                    self.changed = True
                self._last = Snapshot(tensors, key, has_batch_dim)
            return self._count


def next_comparison() -> int:
    """Return a number for a comparison. It is larger than the number of each earlier comparison."""
    return next(_comparisons)


def track(cache: object, model: object = None, seen: dict[int, int] | None = None) -> TrackedCache:
    """Return the tracked cache, compared with the present state (see `TrackedCache.compare`)."""
    with _lock:
        known = _tracked.get(id(cache))
        if known is None:
            known = _begin(cache)
        return known.compare(cache, model, seen)


def tracked(cache: object) -> TrackedCache:
    """Return the tracked cache as it was at the last comparison. Nothing is compared."""
    with _lock:
        return _tracked.get(id(cache)) or _begin(cache)


def known(id: str) -> TrackedCache | None:
    """Return the tracked cache with this id. None if the cache was deleted."""
    return next((tracked for tracked in list(_tracked.values()) if tracked.id == id), None)


def _begin(cache: object) -> TrackedCache:
    tracked, key = TrackedCache(), id(cache)
    try:
        tracked._cache = weakref.ref(cache, partial(_drop, _tracked, CACHES, key, tracked.id))  # pyright: ignore[reportPrivateUsage]
        _tracked[key] = tracked
    except TypeError:  # a plain dictionary allows no weak references: only the caller keeps the result
        pass
    return tracked


def _drop(register: dict[int, Any], memory: ResultStore, key: int, id: str, _gone: object) -> None:
    register.pop(key, None)
    memory.drop(id)


def _forget(register: dict[int, Any], key: int, _gone: object) -> None:
    register.pop(key, None)  # without the lock, because garbage collection may call this while the thread holds it


def _activations(cache: Any) -> dict[str, Tensor] | None:
    """The activations by name, copied from a cache, a mapping, or an object like a cache (`inspect` accepts these).

    None for a mapping that creates new tensors at each access: the addresses of its tensors do not show changes.
    """
    held = peek(cache, "cache_dict")
    if held is None:
        held = getattr(cache, "cache_dict", cache)
    if issubclass(type(held), dict):
        return dict.copy(held)
    found = dict(held)
    return None if any(held[name] is not found[name] for name in list(found)[:1]) else found


def _compare_model(model: object, seen: dict[int, int], quick: bool = False) -> tuple[str, int] | None:
    """The id of the model, and the state of its weights. None if there is no model, or it cannot be tracked."""
    key = id(model)
    weights = _models.get(key)
    if weights is None:
        if peek(model, "_modules") is None:
            return None
        weights = _models[key] = WeightsState(model, partial(_forget, _models, key))
    if key not in seen:
        seen[key] = weights.compare(model, quick)
    return weights.id, seen[key]
