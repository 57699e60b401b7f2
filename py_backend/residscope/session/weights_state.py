"""Tracks whether a model's weights changed, or how its layers use them."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from residscope.cache.layer_state import Layers, LayerState, attributes, differ, is_read
from residscope.compute.memo import Memo
from residscope.compute.samples import Samples
from residscope.session.model_settings import settings_of
from residscope.session.tensor_snapshot import Snapshot, key_of_tensors
from residscope.terms import ModelLike

if TYPE_CHECKING:
    from torch import Tensor


class WeightsState:
    """The last seen state of a model's weights and layers.

    `written` counts how many times the weights were found changed. `state` counts how many times the weights or the
    layers were found changed. `facts` keeps values that were read from the modules. These may refer to weights, so
    they are dropped when a weight is deleted or changed.
    """

    def __init__(self, model: object, forget: Callable[[object], None]) -> None:
        self.model = weakref.ref(model, forget)
        self.id = new_id()
        self.state = self.written = 0
        self.layers: LayerState = {}
        self._training: tuple[bool, ...] = ()
        self._settings: tuple[object, ...] | None = None
        self._settings_number = 0
        self._settings_are_current = False
        self._known_modules: _Modules | None = None
        self.facts = Memo()
        self._last: Snapshot | None = None
        self._samples = Samples([])

    def compare(self, model: ModelLike, quick: bool = False) -> int:
        """Compare with the present weights and layers. Return `state`. `quick`: compare only the counters."""
        self._settings_are_current = False
        modules = self._known_modules
        tensors = None if modules is None else modules.weights(quick=quick)
        if modules is None or tensors is None:
            modules = self._known_modules = _Modules(_modules(model))
            tensors = modules.weights() or []
            self.facts = Memo()  # a module may have changed although the weights are the same
        key, first = key_of_tensors(tensors, with_address=True), self._last is None
        if self._last is None or not self._last.matches(key):
            self._last = Snapshot(tensors, key, on_deleted=partial(_drop_facts, weakref.ref(self)))
            self._samples = Samples(tensors, modules.read_among(tensors))
            self._samples.changed(tensors)
            written = True
        elif quick:
            return self.state
        else:
            written = self._samples.changed(tensors)
        layers, self._training = modules.layers.state(model)
        layers_changed = differ(layers, self.layers)
        if layers != self.layers:  # an equal state is not replaced, because comparing the same object is faster
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
            NoKeyError: If the settings cannot be determined.
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


def _drop_facts(weights: Callable[[], WeightsState | None]) -> None:
    known = weights()
    if known is not None:
        known.facts = Memo()


_PARAMETERS = "_parameters"


class _Modules:
    """The modules of a model, kept so that they need not be searched at every comparison.

    Only weak references are kept, because some modules refer to the model, which must not be kept alive.
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
        except TypeError:  # a module was deleted
            return None
        if not quick and _ids(_entries(held, "_modules")) != self._inner:
            return None
        weights = _entries(held, _PARAMETERS)
        ids = _ids(weights)
        if self._last is None or ids != self._last[0]:
            # The first place of each weight. Several modules may share a weight.
            places = dict(zip(reversed(ids), reversed(range(len(ids))), strict=True))
            places.pop(id(None), None)
            self._last = ids, _picker(sorted(places.values()))
        return list(self._last[1](weights))


def _picker(places: list[int]) -> Callable[[list[Any]], Sequence[Any]]:
    """A function that returns the items of a list at these places."""
    return itemgetter(*places) if len(places) > 1 else lambda items: [items[place] for place in places]


def _modules(model: object) -> list[tuple[str, Any]]:
    """All modules of a model except hook points, with their paths, found level by level in the modules' dictionaries.

    None of the user's code runs.
    """
    # Most modules are hook points. They have no weights.
    hook = getattr(sys.modules.get("transformer_lens.hook_points"), "HookPoint", None)
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


def _entries(attributes: list[dict[str, object]], name: str) -> list[object]:
    # Only C code runs here, so that no running cell can add a module at the same time.
    return list(chain.from_iterable(map(dict.values, filter(None, map(itemgetter(name), attributes)))))


def _ids(things: list[object]) -> tuple[int, ...]:
    return tuple(map(id, things))


def new_id() -> str:
    """A new id. No other cache or model ever has this id."""
    return uuid4().hex[:12]
