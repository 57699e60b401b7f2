"""Identifies caches, and tracks whether a cache or its model's weights changed since Residscope first saw it.

Changes of activations are noticed by metadata only: which tensors there are, and PyTorch's version counter of each.
For weights, some values of each are compared, too (`samples`), because optimizers change weights without counting. Also
compared is how the layers use the weights (`layer_state`). Nothing is kept alive: tensors are identified by their
addresses. A weak reference reports when a tensor is deleted, because its address may then be used again.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, compress
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from residscope.cache.layer_state import SCALARS, Layers, LayerState, attributes, differ, is_read
from residscope.compute.memo import CACHES, Memo, NoKeyError, ResultStore, unique_id
from residscope.compute.samples import Samples
from residscope.session.discovery import peek

if TYPE_CHECKING:
    from torch import Tensor

_Key = tuple[tuple[object, ...], ...]

_lock = threading.RLock()
_tracked: dict[int, TrackedCache] = {}
_models: dict[int, _Weights] = {}


class _Snapshot:
    """The state of some tensors at one time. It does not keep them alive.

    Args:
        tensors: The tensors.
        key: The key of the tensors (`_key`).
        extra: Another value that must stay the same.
        on_deleted: Called when one of the tensors is deleted.
    """

    def __init__(
        self, tensors: list[Tensor], key: _Key, extra: object = None, on_deleted: Callable[[], None] = lambda: None
    ) -> None:
        self.key, self.extra = key, extra
        self._deleted, self._on_deleted = False, on_deleted
        self._references: list[object] = []
        for tensor in tensors:
            with suppress(TypeError):  # other objects may not allow weak references
                self._references.append(weakref.ref(tensor, self._mark_deleted))

    def _mark_deleted(self, _tensor: object) -> None:
        self._deleted = True
        self._on_deleted()

    @property
    def counted(self) -> bool:
        """Whether PyTorch counts the changes of all these tensors."""
        return None not in self.key[2]

    def matches(self, key: _Key, extra: object = None) -> bool:
        """Return whether the present tensors, which have this key, are the same and unchanged."""
        return not self._deleted and extra == self.extra and key == self.key

    def is_prefix_of(self, key: _Key, extra: object) -> bool:
        """Return whether these tensors are unchanged. Others may have been added after them."""
        pairs = zip(self.key, key, strict=True)
        return not self._deleted and extra == self.extra and all(now[: len(then)] == then for then, now in pairs)


class _Weights:
    """The last seen state of a model's weights and layers.

    `written` counts how many times the weights were found changed. `state` counts how many times the weights or the
    layers were found changed. `facts` keeps values that were read from the modules. They may refer to weights, so they
    are dropped when a weight is deleted or changes.
    """

    def __init__(self, model: Any, forget: Callable[[object], None]) -> None:
        self.model = weakref.ref(model, forget)
        self.id = _new_id()
        self.state = self.written = 0
        self.layers: LayerState = {}
        self._training: tuple[bool, ...] = ()
        self._settings: tuple[object, ...] | None = None
        self._settings_number = 0
        self._settings_are_current = False
        self._known_modules: _Modules | None = None
        self.facts = Memo()
        self._last: _Snapshot | None = None
        self._samples = Samples([])

    def compare(self, model: Any, quick: bool = False) -> int:
        """Compare with the present weights and layers, and return `state`. `quick`: compare only the counters."""
        self._settings_are_current = False
        modules = self._known_modules
        tensors = None if modules is None else modules.weights(quick=quick)
        if modules is None or tensors is None:
            modules = self._known_modules = _Modules(_modules(model))
            tensors = modules.weights() or []
            self.facts = Memo()  # a new module may have the same weights, or none
        key, first = _key(tensors, with_address=True), self._last is None
        if self._last is None or not self._last.matches(key):
            self._last = _Snapshot(tensors, key, on_deleted=partial(_drop_facts, weakref.ref(self)))
            self._samples = Samples(tensors, modules.read_among(tensors))
            self._samples.changed(tensors)
            written = True
        elif quick:
            return self.state
        else:
            written = self._samples.changed(tensors)
        layers, self._training = modules.layers.state(model)
        layers_changed = differ(layers, self.layers)
        if layers != self.layers:  # an equal state is kept, because comparing the same object is faster
            self.layers = layers
        if written or layers_changed:
            self.facts = Memo()
            self.written += written and not first
            self.state += not first
        if not self._last.counted:
            self.facts = Memo()
        return self.state

    def settings(self) -> int:
        """Return a number that changes with the model's settings (`settings_of`) and its layers' training modes.

        The settings are read at the first call after `compare`.

        Raises:
            NoKeyError: If they cannot be determined.
        """
        if not self._settings_are_current:
            now = self._training, settings_of(self.model())
            if now != self._settings:
                self._settings, self._settings_number = now, self._settings_number + 1
            self._settings_are_current = True
        return self._settings_number

    @property
    def counted(self) -> bool:
        """Whether PyTorch counts the changes of all weights."""
        return self._last is not None and self._last.counted


def _drop_facts(weights: Callable[[], _Weights | None]) -> None:
    known = weights()
    if known is not None:
        known.facts = Memo()


@dataclass(eq=False)
class TrackedCache:
    """What is known about a cache since Residscope first saw it. It is dropped together with the cache.

    Attributes:
        id: Identifies the cache. No other cache ever has this id.
        since: When the cache was first seen, on the clock of `time.monotonic`.
        state: `CACHE.WEIGHTS.ADDED`, as in `protocol.CacheRef`.
        changed: Whether an activation was replaced, written to or removed since then. Adding one is not a change.
        weights_changed: Whether the weights of the cache's present model, or how the layers use them, differ from those
            at the first comparison.
        other_model: Whether the present model is another one than at the first comparison.
        kept: Values that other modules keep here as long as the cache exists.
    """

    id: str = field(default_factory=lambda: _new_id())
    since: float = field(default_factory=time.monotonic)
    state: str = ""
    changed: bool = False
    weights_changed: bool = False
    other_model: bool = False
    kept: dict[str, Any] = field(default_factory=dict[str, Any])
    _cache: Callable[[], Any] = lambda: None
    _last: _Snapshot | None = None
    _count: int = 0
    _added: int = 0
    _models_seen: dict[str, tuple[int, LayerState]] = field(default_factory=dict[str, tuple[int, LayerState]])
    _weights: Callable[[], _Weights | None] | None = None
    _uncached: tuple[object, Memo] = ("", Memo())

    @property
    def cache(self) -> Any:
        """The cache. None if it was deleted."""
        return self._cache()

    @property
    def memo(self) -> tuple[Memo, Memo]:
        """Two memos: of results for the present state of cache, weights and settings, and of values from the modules.

        If PyTorch does not count changes of the tensors, nothing is kept: the memos are new and empty each time.
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
        # A plain dictionary: its deletion cannot be noticed, so its results are kept in this object, not in CACHES.
        if self._uncached[0] != (self.state, settings):
            self._uncached = (self.state, settings), Memo()
        return self._uncached[1], facts

    @property
    def current_state(self) -> tuple[object, ...]:
        """What results depend on, at the last comparison: the states of activations, weights and settings."""
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
        self, cache: Any, model: Any = None, seen: dict[int, int] | None = None, *, quick: bool = False
    ) -> TrackedCache:
        """Compare the last known state with the present cache and model, and return this object.

        Args:
            cache: The cache.
            model: The model, if it is not `cache.model`.
            seen: The states of models that were already compared for the same list of caches, by address. This
                dictionary is extended.
            quick: Whether to compare only the counters, because the values have just been compared.
        """
        with _lock:
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

    def changes(self, cache: Any) -> int:
        """Compare only the activations, which is fast. Return how many times they were found changed."""
        held = _activations(cache)
        if held is None:
            with _lock:
                self._last = None
                return self._count
        tensors, has_batch_dim = list(held.values()), peek(cache, "has_batch_dim")
        key = _key(tensors, tuple(held))
        with _lock:
            if self._last is None or not self._last.matches(key, has_batch_dim):
                if self._last is not None and self._last.is_prefix_of(key, has_batch_dim):
                    self._added += 1
                elif self._last is not None:
                    self._count += 1
                    self.changed = True
                self._last = _Snapshot(tensors, key, has_batch_dim)
            return self._count


def track(cache: Any, model: Any = None, seen: dict[int, int] | None = None) -> TrackedCache:
    """Return the tracked cache, compared with the present state (see `TrackedCache.compare`)."""
    with _lock:
        known = _tracked.get(id(cache))
        if known is None:
            known = _begin(cache)
        return known.compare(cache, model, seen)


SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id", "padding_side")


def settings_of(model: Any) -> tuple[object, ...]:
    """Return what results depend on in addition to activations and weights: tokenizer, configuration and mode.

    For the tokenizer these are its identity, special tokens, padding side and number of tokens. If two tokens swap
    their ids, this is not noticed here. Requests with texts are kept by the token ids that the texts have at that time.

    Raises:
        NoKeyError: If the tokenizer cannot be identified, or raises.
    """
    tokenizer: Any = getattr(model, "tokenizer", None)
    inner = getattr(getattr(model, "original_model", None), "config", None)
    try:
        size = len(tokenizer) if hasattr(tokenizer, "__len__") else None
        special = tuple(_plain(getattr(tokenizer, name, None)) for name in SPECIAL)
    except Exception as error:  # it is the user's code
        raise NoKeyError from error
    models = model, getattr(model, "original_model", None)
    modes = tuple(getattr(module, "training", None) is True for module in models)
    return unique_id(tokenizer), size, special, modes, _scalars(getattr(model, "cfg", None)), _scalars(inner)


def _scalars(config: Any) -> tuple[object, ...]:
    held: dict[str, Any] = dict(getattr(config, "__dict__", {}))
    kinds = list(map(type, held.values()))
    return tuple(compress(zip(held, kinds, held.values(), strict=True), map(_KINDS.__contains__, kinds)))


_KINDS = frozenset(SCALARS)


def _plain(value: Any) -> object:
    return value if type(value) in SCALARS else str(value)


def known(id: str) -> TrackedCache | None:
    """Return the tracked cache with this id. None if the cache was deleted."""
    return next((tracked for tracked in list(_tracked.values()) if tracked.id == id), None)


def _begin(cache: Any) -> TrackedCache:
    """Begin to track a cache."""
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


def _compare_model(model: Any, seen: dict[int, int], quick: bool = False) -> tuple[str, int] | None:
    """The id of the model, and the state of its weights. None if there is no model, or it cannot be tracked."""
    key = id(model)
    weights = _models.get(key)
    if weights is None:
        if peek(model, "_modules") is None:
            return None
        weights = _models[key] = _Weights(model, partial(_forget, _models, key))
    if key not in seen:
        seen[key] = weights.compare(model, quick)
    return weights.id, seen[key]


_PARAMETERS = "_parameters"


class _Modules:
    """The modules of a model. They are kept, so that they need not be searched at every comparison.

    They are weak references: some modules refer to the model, which must not be kept alive.
    """

    def __init__(self, found: list[tuple[str, Any]]) -> None:
        modules = [module for _, module in found]
        self._modules = list(map(weakref.ref, modules))
        held = list(map(attributes(), modules))
        self._inner = _ids(_entries(held, "_modules"))
        self._with_weights = [
            module
            for module, own in zip(self._modules, held, strict=True)
            if any(weight is not None for weight in _entries([own], _PARAMETERS))
        ]
        self._read = [
            (there, [name for name in own[_PARAMETERS] if is_read(place, name)])
            for (place, _), there, own in zip(found, self._modules, held, strict=True)
            if own.get(_PARAMETERS)
        ]
        self.layers = Layers(found)
        self._last: tuple[tuple[int, ...], Callable[[list[Any]], Sequence[Tensor]]] | None = None

    def read_among(self, weights: list[Tensor]) -> list[int]:
        """Return the indices of the weights that results may depend on."""
        own, read = attributes(), set[int]()
        for there, names in self._read:
            module = there()
            if module is not None:
                read.update(id(own(module)[_PARAMETERS].get(name)) for name in names)
        return [index for index, weight in enumerate(weights) if id(weight) in read]

    def weights(self, quick: bool = False) -> list[Tensor] | None:
        """Return all parameters. None if the model has other modules now.

        With `quick`, only the deletion of a module that had parameters is noticed.
        """
        try:
            held = list(map(attributes(), map(weakref.ref.__call__, self._with_weights if quick else self._modules)))
        except TypeError:  # one of them was deleted
            return None
        if not quick and _ids(_entries(held, "_modules")) != self._inner:
            return None
        weights = _entries(held, _PARAMETERS)
        ids = _ids(weights)
        if self._last is None or ids != self._last[0]:
            # The first place of each weight; several modules may hold the same one.
            places = dict(zip(reversed(ids), reversed(range(len(ids))), strict=True))
            places.pop(id(None), None)
            self._last = ids, _picker(sorted(places.values()))
        return list(self._last[1](weights))


def _picker(places: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """A function that returns the items of a list at these places."""
    return itemgetter(*places) if len(places) > 1 else lambda items: [items[place] for place in places]


def _modules(model: Any) -> list[tuple[str, Any]]:
    """All modules of a model with their paths, found level by level in the modules' own dictionaries.

    None of the user's code runs.
    """
    hook = getattr(sys.modules.get("transformer_lens.hook_points"), "HookPoint", None)  # most modules, without weights
    found: dict[int, tuple[str, Any]] = {id(model): ("", model)}
    level: list[tuple[str, Any]] = [("", model)]
    while level:
        held = list(map(attributes(), (module for _, module in level)))
        inner: dict[int, tuple[str, Any]] = {}
        for (place, _), own in zip(level, held, strict=True):
            for name, module in list(own["_modules"].items()):
                if id(module) not in found and type(module) not in (hook, type(None)):
                    inner.setdefault(id(module), (f"{place}.{name}", module))
        found.update(inner)
        level = list(inner.values())
    return list(found.values())


def _entries(attributes: list[dict[str, Any]], name: str) -> list[Any]:
    # Only C code runs here, so that no running cell can add a module at the same time.
    return list(chain.from_iterable(map(dict.values, filter(None, map(itemgetter(name), attributes)))))


def _ids(things: list[Any]) -> tuple[int, ...]:
    return tuple(map(id, things))


def _key(tensors: list[Tensor], names: tuple[str, ...] = (), *, with_address: bool = False) -> _Key:
    """The key of these tensors. It differs after a change. `with_address` adds the addresses of their values."""
    import torch

    version: Callable[[Tensor], int] = torch.Tensor._version.__get__  # pyright: ignore
    # Tensor subclasses of the user may override each of these.
    with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage]
        try:
            versions = tuple(map(version, tensors))
        except (RuntimeError, TypeError):  # PyTorch does not count changes of tensors that were made in inference mode
            versions = tuple(_or_none(version, tensor) for tensor in tensors)
        try:
            addresses = tuple(map(torch.Tensor.data_ptr, tensors)) if with_address else ()
        except (RuntimeError, TypeError):  # a tensor without memory
            addresses = tuple(_or_none(torch.Tensor.data_ptr, tensor) for tensor in tensors)
    return names, tuple(map(id, tensors)), versions, addresses


def _or_none(read: Callable[[Tensor], int], tensor: Tensor) -> int | None:
    try:
        return read(tensor)
    except (RuntimeError, TypeError):
        return None


def _new_id() -> str:
    return uuid4().hex[:12]
