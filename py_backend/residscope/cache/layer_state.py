"""Reads all that decides what a model's layers compute, except weights: classes, attributes and settings.

Switching an adapter off, setting a scale or replacing a `forward` changes what the model computes without changing any
weight. Attributes of layers are read from the modules' dictionaries, so no code of the user runs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import repeat
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from residscope.cache.weights import known_layers
from residscope.compute.memo import NoKeyError, unique_id
from residscope.compute.samples import MAX_SAMPLES, samples

if TYPE_CHECKING:
    from torch import Tensor

LayerState = dict[tuple[str, str], object]
"""Values that can be compared, by (path of the module, name of the attribute)."""

SCALARS = (int, float, bool, str, type(None))

_ATTRIBUTES = (
    "eps", "variance_epsilon", "uses_weight_offset", "logit_scale", "layer_scalar", "attn_out_multiplier",
    "down_multiplier",
)  # fmt: skip
_SETTINGS = (
    "output_logits_soft_cap", "residual_multiplier", "eps", "normalization_type", "final_rms", "rmsnorm_uses_offset",
    "attn_only", "positional_embedding_type",
)  # fmt: skip
_WRAPPED_SETTINGS = ("final_logit_softcapping", "logits_soft_cap", "logits_scaling")
"""Settings in the Hugging Face model's configuration that the model reads when it runs."""
_TRANSFORM = "apply_output_logits_transform"
_READ = (
    "o", "q", "k", "v", "qkv", "in", "gate", "dense_in", "dense_gate", "out", "embed", "unembed", "ln1", "ln2",
    "ln1_post", "ln2_post", "ln_final", "q_norm", "k_norm", "qk_norm", "v_norm",
)  # fmt: skip
"""TransformerLens' names of the layers whose linear maps or norms are read for results."""

_UNREAD = frozenset(("pos_embed", "W_pos"))
"""Layers and weights that no result depends on, because their outputs are in the cache.

Any other name counts as read. `test_each_weight_is_compared_or_no_value_depends_on_it` checks this.
"""

_WRAPPED = ("_original_component", "original_component")
_DEEP, _LONG = 4, 64
"""Containers of at most `_LONG` items are compared down to the depth `_DEEP`, others only by type and length."""

VOLATILE: object = object()
"""Stands for a value that changes with every call of the layer, such as a counter of calls. `differ` ignores it."""

_volatile: weakref.WeakKeyDictionary[object, set[str]] = weakref.WeakKeyDictionary()


def is_read(place: str, name: str) -> bool:
    """Return whether results may depend on a weight.

    Args:
        place: The path of the weight's module, such as `.blocks.0.attn.q`.
        name: The weight's name in the module.
    """
    return name not in _UNREAD and _UNREAD.isdisjoint(place.split("."))


def differ(one: LayerState, other: LayerState) -> bool:
    """Return whether two states differ in any value that is not volatile."""
    if one is other or one == other:
        return False
    pairs = [(one.get(key), other.get(key)) for key in one.keys() | other.keys()]
    return any(then != now and then is not VOLATILE and now is not VOLATILE for then, now in pairs)


class Layers:
    """A model's modules whose attributes affect results, as weak references."""

    def __init__(self, modules: list[tuple[str, Any]]) -> None:
        own = attributes()
        inner: dict[int, list[tuple[str, Any]]] = {id(module): list(own(module)["_modules"].items())
                                                   for _, module in modules}  # fmt: skip
        places = {id(module): place for place, module in modules}
        read: set[int] = set()
        for _, module in modules:
            for name, child in inner[id(module)]:
                if name in _READ and id(child) in inner:
                    _gather(_wrapped(child, inner), inner, read)
        self._watched: list[_Watched] = []
        for _, module in modules:
            held = own(module)
            names = tuple(name for name in _ATTRIBUTES if name in held or name in (held.get("_buffers") or {}))
            whole = id(module) in read
            if whole or names or any(weight is not None for weight in list((held.get("_parameters") or {}).values())):
                self._watched.append(_Watched(weakref.ref(module), places[id(module)], whole, names))
        self._references = [watched.module for watched in self._watched]
        self._last: _Compared | None = None

    def state(self, model: object) -> tuple[LayerState, tuple[bool, ...]]:
        """Return the present state of modules and settings, and which modules are in training mode.

        For modules of which only some attributes are compared, the training mode is left out. If the state has not
        changed, it is the same object as in the last call.
        """
        own = attributes()
        try:
            modules = list(map(weakref.ref.__call__, self._references))
            held = list(map(own, modules))
        except TypeError:  # a module was deleted
            pairs = [(watched, watched.module()) for watched in self._watched]
            present = [(watched, module) for watched, module in pairs if module is not None]
            if len(present) == len(pairs):
                raise
            self._watched = [watched for watched, _ in present]
            self._references, self._last = [watched.module for watched in self._watched], None
            return self.state(model)
        last = self._last
        if last is None or not last.matches(modules, held):
            last = self._last = _Compared(self._watched, modules, held)
        found, training = _Held(own), list[bool]()
        for at, whole in last.others:
            if whole:
                training.append(held[at].get("training") is True)
            self._watched[at].put_into(found, modules[at], held[at], whole=whole)
        _put_settings(found, model)
        others = found.all()
        if last.found is None or others != last.found:
            last.found, last.state = others, {**last.plain, **others}
        return last.state, tuple(training)


class _Watched(NamedTuple):
    """A module whose attributes are compared.

    Attributes:
        module: A weak reference to the module.
        place: The module's path.
        whole: Whether all attributes are compared. This is ignored if the module's class is in `_plain()`.
        names: The attributes that are always compared.
    """

    module: weakref.ref[Any]
    place: str
    whole: bool
    names: tuple[str, ...]

    def put_into(self, found: _Held, module: object, held: dict[str, Any], *, whole: bool) -> None:
        """Add the module's present attributes to `found`: all of them if `whole`."""
        if "forward" in held:
            found.put((self.place, "forward"), held["forward"])
        if whole:
            _put_all(found, self.place, module)
        else:
            buffers: dict[str, Any] = held.get("_buffers") or {}
            for name in self.names:
                found.put((self.place, name), held.get(name, buffers.get(name)))


class _Compared:
    """What a call of `Layers.state` read from the modules.

    Most modules hold only plain values (`SCALARS`). A later call compares these values and all classes (`matches`),
    which is fast, and reads the modules in `others` again. Classes and plain values are kept in memory, but no other
    objects of the user.

    Attributes:
        others: The index of each module that is read in each call, and whether all its attributes are read.
        plain: The state of all other modules, and the classes of all modules.
        found: The state of `others` and of the settings in the last call.
        state: `plain` and `found` together.
    """

    def __init__(self, watched: list[_Watched], modules: list[Any], held: list[dict[str, Any]]) -> None:
        self._known = _plain()
        self._kinds = list(map(type, modules))
        self._replaced = list(map(dict.__contains__, held, repeat("forward")))
        self._attributes: list[tuple[int, str]] = []
        self._values: list[object] = []
        self.others: list[tuple[int, bool]] = []
        self.plain: LayerState = {}
        self.found: LayerState | None = None
        self.state: LayerState = {}
        for at, (one, kind, own) in enumerate(zip(watched, self._kinds, held, strict=True)):
            self.plain[one.place, "its kind"] = unique_id(kind)
            whole = one.whole and not any(kind is known for known in self._known)
            values = [own.get(name) for name in one.names]
            if whole or self._replaced[at] or any(value is None or type(value) not in SCALARS for value in values):
                self.others.append((at, whole))
                continue
            for name, value in zip(one.names, values, strict=True):
                self._attributes.append((at, name))
                self._values.append(value)
                self.plain[one.place, name] = type(value), value

    def matches(self, modules: list[Any], held: list[dict[str, Any]]) -> bool:
        """Return whether classes and plain attributes are still the same objects."""
        # Objects are compared by identity, so no code of the user runs. The earlier classes and values are still in
        # memory, so no new object can have the address of one of them.
        return (
            self._known == _plain()
            and all(map(is_, map(type, modules), self._kinds))
            and self._replaced == list(map(dict.__contains__, held, repeat("forward")))
            and all(map(is_, [held[at].get(name) for at, name in self._attributes], self._values))
        )


def _put_settings(found: _Held, model: object) -> None:
    """Add the settings of the model, its adapter and its configurations to `found`."""
    inner, adapter = getattr(model, "original_model", None), getattr(model, "adapter", None)
    wrapped = getattr(inner, "config", None)
    # These two decide what the model does to its logits (`unembedding.Output`). A bridge does not list the Hugging Face
    # model as a module.
    for place, owner, name in (("model", inner, "logit_scale"), ("adapter", adapter, _TRANSFORM)):
        found.put((place, name), getattr(owner, "__dict__", {}).get(name))
    for place, owner, names in (
        ("cfg", getattr(model, "cfg", None), _SETTINGS),
        ("config", wrapped, _WRAPPED_SETTINGS),
    ):
        settings = getattr(owner, "__dict__", {})
        for name in names:
            value = settings.get(name)
            found.put((place, name), value if type(value) in SCALARS else None)


@contextmanager
def probing(copied: Any, layer: Any) -> Generator[None, None, None]:
    """Watch calls of a copied layer. Attributes that these calls change count as volatile in the original layer.

    Args:
        copied: The copy of the layer, which is called.
        layer: The original layer.
    """
    inner: list[tuple[Any, Any]] = list(zip(copied.modules(), layer.modules(), strict=True))
    before = [_held(module) for module, _ in inner]
    try:
        yield
    finally:
        for (module, original), then in zip(inner, before, strict=True):
            now = _held(module)
            changed = {
                name for place, name in then.keys() | now.keys() if then.get((place, name)) != now.get((place, name))
            }
            if changed:
                _volatile.setdefault(original, set()).update(changed)


def _held(module: object) -> LayerState:
    found = _Held(attributes())
    _put_all(found, "", module)
    return found.all()


def _put_all(found: _Held, place: str, module: object) -> None:
    held, volatile = found.own(module), _volatile.get(module, ())
    buffers: dict[str, Any] = held.get("_buffers") or {}
    for name in [*(held.keys() - _usual()), *buffers]:
        if name in volatile:
            found.known[place, name] = VOLATILE
        else:
            found.put((place, name), held.get(name, buffers.get(name)))


class _Held:
    """Collects comparable values. Tensors are sampled together at the end, which is faster."""

    def __init__(self, own: Callable[[Any], dict[str, Any]]) -> None:
        from torch import Tensor, device, dtype

        self.own = own
        self.known: LayerState = {}
        self._kinds = Tensor, (dtype, device)
        self._tensors: list[Tensor] = []
        self._of: list[tuple[str, str]] = []

    def put(self, key: tuple[str, str], value: object) -> None:
        kind = type(value)
        self.known[key] = (kind, value) if kind in SCALARS else self._frozen(key, value, _DEEP)

    def all(self) -> LayerState:
        for key, tensor, sample in zip(self._of, self._tensors, samples(self._tensors), strict=True):
            self.known[key] = self.known[key], _state(tensor, sample)
        return self.known

    def _frozen(self, key: tuple[str, str], value: Any, depth: int) -> object:
        kind: Any = type(value)
        tensor, named = self._kinds
        if kind in SCALARS:
            return kind, value
        if issubclass(kind, tensor):
            self._tensors.append(value)
            self._of.append(key)
            return "tensor"
        if issubclass(kind, named):
            return str(value)
        if kind.__module__ == "numpy" and hasattr(kind, "nbytes") and value.nbytes <= 8 * MAX_SAMPLES:
            return str(value.dtype), value.tobytes()
        each = _entries(kind, value)
        if each is not None and (len(each) > _LONG or not depth):
            return kind.__name__, len(each)
        if each is not None:
            frozen = [self._frozen(key, one, depth - 1) for one in each]
            return frozenset(frozen) if issubclass(kind, set | frozenset) else (kind.__name__, tuple(frozen))
        try:
            return unique_id(value)
        except NoKeyError:  # no weak references; the address is unique while the module keeps the value
            return id(value)


def _entries(kind: Any, value: object) -> list[object] | None:
    """The items of a built-in container, read without calling overridden methods. None for all other values."""
    if issubclass(kind, dict):
        return list(dict.items(cast("dict[Any, Any]", value)))
    for known in (tuple, list, set, frozenset):
        if issubclass(kind, known):
            return list(cast("Any", known).__iter__(value))
    return None


def _state(tensor: Tensor, sample: bytes | None) -> object:
    """What shows that a tensor was changed: all values of a small tensor; samples, id and version of a large one."""
    import torch

    with torch._C.DisableTorchFunction():  # pyright: ignore[reportPrivateUsage]
        what = tuple(tensor.shape), tensor.dtype, tensor.device
        if sample is not None and tensor.numel() <= MAX_SAMPLES:
            return what, sample
        return what, sample, id(tensor), -1 if tensor.is_inference() else tensor._version


def _wrapped(module: object, inner: dict[int, list[tuple[str, Any]]]) -> Any:
    """The layer that a bridge's component wraps. Any other module is returned unchanged."""
    for _ in range(8):
        within = next((child for name, child in inner[id(module)] if name in _WRAPPED and id(child) in inner), None)
        if within is None:
            break
        module = within
    return module


def _gather(module: object, inner: dict[int, list[tuple[str, Any]]], found: set[int]) -> None:
    """Add the ids of a module and of all modules inside it to `found`."""
    if id(module) in found or id(module) not in inner:
        return
    found.add(id(module))
    for _, child in inner[id(module)]:
        _gather(child, inner, found)


def attributes() -> Callable[[object], dict[str, Any]]:
    """Return a function that reads a module's `__dict__` without running overridden code."""
    from torch.nn import Module

    return Module.__dict__["__dict__"].__get__


_names: list[frozenset[str]] = []


def _usual() -> frozenset[str]:
    """Attribute names that every module has, and names that TransformerLens, transformers and accelerate add."""
    if not _names:
        from torch.nn import Module

        _names.append(
            frozenset(vars(Module()))
            | {"hook_dict", "mod_dict", "_hf_hook", "_is_hf_initialized", "_old_forward", "cfg", "config", "forward"}
        )
    return _names[0]


def _plain() -> tuple[type, ...]:
    """Classes whose output depends only on `_ATTRIBUTES` and their weights."""
    from torch import nn

    return *known_layers(), nn.LayerNorm, getattr(nn, "RMSNorm", nn.LayerNorm)
