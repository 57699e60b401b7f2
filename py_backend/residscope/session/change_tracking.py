"""Which cache is which, and whether it or its model's weights were changed since Residscope first saw it.

Activations are told by metadata alone: which tensors there are, and how often PyTorch says that each was written to.
Weights also by some figures of each (`samples`), since optimizers write past PyTorch's count; and by what the layers
make of them (`layer_state`). Nothing is kept alive: tensors are known by their addresses, and a weak reference tells
when one goes, since its address may be another's a moment later.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from residscope.cache.layer_state import SCALARS, Figures, Layers, attributes, differ, is_read
from residscope.compute.memo import CACHES, Memo, Store, UnknownError, number_of
from residscope.compute.samples import Samples
from residscope.session.discovery import peek

if TYPE_CHECKING:
    from torch import Tensor

_Key = tuple[tuple[object, ...], ...]

_lock = threading.RLock()
_tracked: dict[int, TrackedCache] = {}
_models: dict[int, _Weights] = {}


class _Snapshot:
    """Some tensors as they were, told by their key and by what else must be the same.

    Only weak references are kept, and they tell when one of the tensors goes.
    """

    def __init__(
        self, tensors: list[Tensor], key: _Key, more: object = None, lost: Callable[[], None] = lambda: None
    ) -> None:
        self.key, self.more = key, more
        self._gone, self._lost = False, lost
        self._watched: list[object] = []
        for tensor in tensors:
            with suppress(TypeError):  # what is no tensor may know no weak references
                self._watched.append(weakref.ref(tensor, self._lose))

    def _lose(self, _tensor: object) -> None:
        self._gone = True
        self._lost()

    @property
    def counted(self) -> bool:
        """Whether PyTorch counts what is written to each of the tensors."""
        return None not in self.key[2]

    def holds(self, key: _Key, more: object = None) -> bool:
        """Whether all of this, and nothing else, is there now."""
        return not self._gone and more == self.more and key == self.key

    def holds_at_least(self, key: _Key, more: object) -> bool:
        """Whether all of this is there now, with something more behind it, perhaps."""
        own = zip(self.key, key, strict=True)
        return not self._gone and more == self.more and all(now[: len(then)] == then for then, now in own)


class _Weights:
    """A model's weights, and what its layers make of them, as they were last seen.

    `written` counts how often the weights were found changed, `state` how often these or the layers were. `facts` is
    what was read off the modules; it may refer to weights, and goes with the first that goes or changes.
    """

    def __init__(self, model: Any, forget: Callable[[object], None]) -> None:
        self.model = weakref.ref(model, forget)
        self.id = _new_id()
        self.state = self.written = 0
        self.layers: Figures = {}
        self._training: tuple[bool, ...] = ()
        self._settings: tuple[object, ...] | None = None
        self._number = 0
        self._looked = False
        self._tree: _Tree | None = None
        self.facts = Memo()
        self._last: _Snapshot | None = None
        self._samples, self._read = Samples([]), ()

    def look(self, model: Any, quick: bool = False) -> int:
        """Look again; quickly: at the counters alone."""
        self._looked = False
        tree = self._tree
        tensors = None if tree is None else tree.weights(quick=quick)
        if tree is None or tensors is None:
            tree = self._tree = _Tree(_modules(model))
            tensors = tree.weights() or []
            self.facts = Memo()  # another module may have the same weights, or none
        key, first = _key(tensors, where=True), self._last is None
        if self._last is None or not self._last.holds(key):
            self._last = _Snapshot(tensors, key, lost=partial(_let_go, weakref.ref(self)))
            self._samples = Samples(tensors, tree.read_among(tensors))
            read, written = self._samples.read(tensors), True
        elif quick:
            return self.state
        else:
            read = self._samples.read(tensors)
            written = read != self._read
        layers, self._training = tree.layers.figures(model)
        otherwise = differ(layers, self.layers)
        self._read = read
        if layers != self.layers:  # what is the very same need not be compared again
            self.layers = layers
        if written or otherwise:
            self.facts = Memo()
            self.written += written and not first
            self.state += not first
        if not self._last.counted:
            self.facts = Memo()
        return self.state

    def settings(self) -> int:
        """What else of the model answers depend on (see `settings_of`), and which of its layers are in training.

        As it was when it was first asked for after the last look: a number, which is another once something changed.

        Raises:
            UnknownError: If that cannot be determined.
        """
        if not self._looked:
            now = self._training, settings_of(self.model())
            if now != self._settings:
                self._settings, self._number = now, self._number + 1
            self._looked = True
        return self._number

    @property
    def counted(self) -> bool:
        """Whether what is written to each of them is counted."""
        return self._last is not None and self._last.counted


def _let_go(weights: Callable[[], _Weights | None]) -> None:
    known = weights()
    if known is not None:
        known.facts = Memo()


@dataclass(eq=False)
class TrackedCache:
    """A cache as Residscope first saw it. It goes with the cache.

    Attributes:
        id: Names the cache; no other one ever has this id.
        since: When it was first seen, on `time.monotonic`'s clock.
        state: `CACHE.WEIGHTS.ADDED`, as in `protocol.CacheRef`.
        changed: Whether an activation was replaced, written to or taken out since then. One more is no change.
        weights_changed: Whether the weights of the model that it is now looked at with, or what its layers make of
            them, are not those that it was first looked at with.
        other_model: Whether that is another model than the one that it was first looked at with.
        kept: What others keep with the cache, to go with it.
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
    _met: dict[str, tuple[int, Figures]] = field(default_factory=dict[str, tuple[int, Figures]])
    _weights: Callable[[], _Weights | None] | None = None
    _own: tuple[object, Memo] = ("", Memo())

    @property
    def cache(self) -> Any:
        """The cache, while it is in memory; else None."""
        return self._cache()

    @property
    def memo(self) -> tuple[Memo, Memo]:
        """What is kept for this cache, these weights and settings as they are, and what was read off the modules.

        Both are empty, and forgotten at once, where PyTorch does not count what is written.
        """
        weights = None if self._weights is None else self._weights()
        if weights is None:
            return Memo(), Memo()
        try:
            settings = weights.settings()
        except UnknownError:
            return Memo(), Memo()
        facts = weights.facts.part(settings)
        if self._last is None or not self._last.counted or not weights.counted:
            return Memo(), facts
        if self.cache is not None:
            return Memo(CACHES, (self.id, self.state, settings)), facts
        # A plain dictionary: nobody tells when it goes, so what belongs to it stays with whoever asks.
        if self._own[0] != (self.state, settings):
            self._own = (self.state, settings), Memo()
        return self._own[1], facts

    @property
    def now(self) -> tuple[object, ...]:
        """What answers depend on, as it was when last looked at: activations, weights, and settings of the model."""
        weights = None if self._weights is None else self._weights()
        try:
            settings = None if weights is None else weights.settings()
        except UnknownError:
            settings = None
        activations, of, _ = self.state.split(".")  # what was added changes nothing
        return activations, of, settings

    @property
    def age(self) -> float:
        """Seconds since it was first seen."""
        return time.monotonic() - self.since

    def look(
        self, cache: Any, model: Any = None, seen: dict[int, int] | None = None, *, quick: bool = False
    ) -> TrackedCache:
        """Compare with what is there now.

        Args:
            cache: The cache.
            model: The model, where `cache.model` is not it.
            seen: Looks at models that count for this one, too: one list of caches looks at each model once.
            quick: Whether what PyTorch does not count was compared a moment ago.
        """
        with _lock:
            changes = self.changes(cache)
            model = peek(cache, "model") if model is None else model
            weights = _look_at(model, {} if seen is None else seen, quick)
            known = _models.get(id(model))
            self._weights = None if known is None else weakref.ref(known)
            if weights is not None and known is not None:  # a model that is gone says nothing of its weights
                which, _ = weights
                written, layers = self._met.setdefault(which, (known.written, known.layers))
                self.weights_changed = written != known.written or differ(layers, known.layers)
                self.other_model = next(iter(self._met)) != which
            state = f"{changes}.{'-'.join(map(str, weights or ()))}.{self._added}"
            if state != self.state:
                CACHES.drop(self.id)
            self.state = state
        return self

    def changes(self, cache: Any) -> int:
        """How often the activations were found changed; the weights are not looked at, which takes longer."""
        held = _activations(cache)
        if held is None:
            with _lock:
                self._last = None
                return self._count
        tensors, more = list(held.values()), peek(cache, "has_batch_dim")
        key = _key(tensors, tuple(held))
        with _lock:
            if self._last is None or not self._last.holds(key, more):
                if self._last is not None and self._last.holds_at_least(key, more):
                    self._added += 1
                elif self._last is not None:
                    self._count += 1
                    self.changed = True
                self._last = _Snapshot(tensors, key, more)
            return self._count


def track(cache: Any, model: Any = None, seen: dict[int, int] | None = None) -> TrackedCache:
    """What is known of a cache, compared with what is there now (see `TrackedCache.look`)."""
    with _lock:
        known = _tracked.get(id(cache))
        if known is None:
            known = _first(cache)
        return known.look(cache, model, seen)


SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id", "padding_side")


def settings_of(model: Any) -> tuple[object, ...]:
    """What answers depend on beside activations and weights: the model's tokenizer, configuration and mode.

    Of the tokenizer: which one it is, its special tokens, the side of its padding and the number of its words. Words
    that change places leave no mark here; a question that is asked in words is known by the tokens that they are now.

    Raises:
        UnknownError: If the tokenizer is of a kind that cannot be distinguished from another, or raises.
    """
    tokenizer: Any = getattr(model, "tokenizer", None)
    inner = getattr(getattr(model, "original_model", None), "config", None)
    try:
        words = len(tokenizer) if hasattr(tokenizer, "__len__") else None
        special = tuple(_plain(getattr(tokenizer, name, None)) for name in SPECIAL)
    except Exception as error:  # it is the user's code
        raise UnknownError from error
    modes = tuple(getattr(part, "training", None) is True for part in (model, getattr(model, "original_model", None)))
    return number_of(tokenizer), words, special, modes, _scalars(getattr(model, "cfg", None)), _scalars(inner)


def _scalars(config: Any) -> tuple[object, ...]:
    held = getattr(config, "__dict__", {})
    return tuple([(name, type(value), value) for name, value in list(held.items()) if type(value) in SCALARS])


def _plain(value: Any) -> object:
    return value if type(value) in SCALARS else str(value)


def known(id: str) -> TrackedCache | None:
    """The cache with this id, as long as it is in memory."""
    return next((tracked for tracked in list(_tracked.values()) if tracked.id == id), None)


def _first(cache: Any) -> TrackedCache:
    made, key = TrackedCache(), id(cache)
    try:
        made._cache = weakref.ref(cache, partial(_lose, _tracked, CACHES, key, made.id))  # pyright: ignore[reportPrivateUsage]
        _tracked[key] = made
    except TypeError:  # a plain dictionary of activations: known to whoever asked, and to no one else
        pass
    return made


def _lose(register: dict[int, Any], memory: Store, key: int, id: str, _gone: object) -> None:
    register.pop(key, None)
    memory.drop(id)


def _forget(register: dict[int, Any], key: int, _gone: object) -> None:
    register.pop(key, None)  # without the lock: a collection may come while this very thread holds it


def _activations(cache: Any) -> dict[str, Tensor] | None:
    """A snapshot; what is given to `inspect` may also be a mapping, or something that is only like a cache.

    None where a mapping makes its tensors when they are asked for: others each time, which says nothing of a change.
    """
    held = peek(cache, "cache_dict")
    if held is None:
        held = getattr(cache, "cache_dict", cache)
    if issubclass(type(held), dict):
        return dict.copy(held)
    found = dict(held)
    return None if any(held[name] is not found[name] for name in list(found)[:1]) else found


def _look_at(model: Any, seen: dict[int, int], quick: bool = False) -> tuple[str, int] | None:
    """Which model, and the state of its weights; None where there is none, or it cannot be followed."""
    key = id(model)
    weights = _models.get(key)
    if weights is None:
        if peek(model, "_modules") is None:
            return None
        weights = _models[key] = _Weights(model, partial(_forget, _models, key))
    if key not in seen:
        seen[key] = weights.look(model, quick)
    return weights.id, seen[key]


_PARAMETERS = "_parameters"


class _Tree:
    """A model's modules as they were found, so that they need not be searched for at every look.

    They are held weakly: some refer to the model, which must be free to go.
    """

    def __init__(self, found: list[tuple[str, Any]]) -> None:
        modules = [module for _, module in found]
        self._modules = list(map(weakref.ref, modules))
        held = list(map(attributes(), modules))
        self._inner = _ids(_entries(held, "_modules"))
        self._bearing = [
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

    def read_among(self, weights: list[Tensor]) -> list[int]:
        """The places of those weights that answers may read."""
        own, read = attributes(), set[int]()
        for there, names in self._read:
            module = there()
            if module is not None:
                read.update(id(own(module)[_PARAMETERS].get(name)) for name in names)
        return [index for index, weight in enumerate(weights) if id(weight) in read]

    def weights(self, quick: bool = False) -> list[Tensor] | None:
        """All parameters; None where there are other modules now: quickly, where one of those that had some is gone."""
        try:
            held = list(map(attributes(), map(weakref.ref.__call__, self._bearing if quick else self._modules)))
        except TypeError:  # one of them is gone
            return None
        if not quick and _ids(_entries(held, "_modules")) != self._inner:
            return None
        weights = _entries(held, _PARAMETERS)
        found = dict(zip(_ids(weights), weights, strict=True))
        found.pop(id(None), None)
        return list(found.values())


def _modules(model: Any) -> list[tuple[str, Any]]:
    """All modules of a model with their places, level by level through their own dictionaries: no code is run."""
    hook = getattr(sys.modules.get("transformer_lens.hook_points"), "HookPoint", None)  # most modules, without weights
    met: dict[int, tuple[str, Any]] = {id(model): ("", model)}
    level: list[tuple[str, Any]] = [("", model)]
    while level:
        held = list(map(attributes(), (module for _, module in level)))
        inner: dict[int, tuple[str, Any]] = {}
        for (place, _), own in zip(level, held, strict=True):
            for name, module in list(own["_modules"].items()):
                if id(module) not in met and type(module) not in (hook, type(None)):
                    inner.setdefault(id(module), (f"{place}.{name}", module))
        met.update(inner)
        level = list(inner.values())
    return list(met.values())


def _entries(attributes: list[dict[str, Any]], name: str) -> list[Any]:
    # No line of Python runs on the way, so no running cell adds a module meanwhile.
    return list(chain.from_iterable(map(dict.values, filter(None, map(itemgetter(name), attributes)))))


def _ids(things: list[Any]) -> tuple[int, ...]:
    return tuple(map(id, things))


def _key(tensors: list[Tensor], names: tuple[str, ...] = (), *, where: bool = False) -> _Key:
    """What tells tensors from others, and from themselves after a change; `where` adds where their numbers lie."""
    import torch

    version: Callable[[Tensor], int] = torch.Tensor._version.__get__  # pyright: ignore
    # The user's subclasses of tensors may bring code of their own for each of these.
    with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage]
        try:
            versions = tuple(map(version, tensors))
        except (RuntimeError, TypeError):  # PyTorch does not count for tensors made in inference mode
            versions = tuple(_or_none(version, tensor) for tensor in tensors)
        try:
            places = tuple(map(torch.Tensor.data_ptr, tensors)) if where else ()
        except (RuntimeError, TypeError):  # a tensor that lies nowhere
            places = tuple(_or_none(torch.Tensor.data_ptr, tensor) for tensor in tensors)
    return names, tuple(map(id, tensors)), versions, places


def _or_none(read: Callable[[Tensor], int], tensor: Tensor) -> int | None:
    try:
        return read(tensor)
    except (RuntimeError, TypeError):
        return None


def _new_id() -> str:
    return uuid4().hex[:12]
