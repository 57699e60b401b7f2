"""A cache's row in the list of caches, from metadata alone: no tensor's values are read, no code of the model runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from residscope.base.legible import encodable
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.session.change_tracking import TrackedCache
from residscope.session.discovery import peek
from residscope.wire.protocol import CacheRef, CacheRow

_CONFIGURED = ("n_layers", "n_heads", "model_name", "attn_only")


def basics(view: CacheView) -> dict[str, Any]:
    """Return the facts that both the list and the view of a cache show."""
    stream = view.stream
    return {
        "layers": view.n_layers,
        "heads": view.n_heads,
        "prompts": view.batch,
        "positions": view.n_pos,
        "dtype": str(stream.dtype).removeprefix("torch."),
        "device": str(stream.device),
        "bytes": view.nbytes,
        "missing": view.missing(),
    }


def row(cache: Any, names: list[str], tracked: TrackedCache) -> CacheRow:
    """Return a cache's row in the list. If the cache cannot be read, `problem` says why.

    Args:
        cache: The cache.
        names: Its names in the user's namespace.
        tracked: The tracked cache, just compared with the present state.
    """
    state, facts = tracked.kept.get("facts", ("", None))
    if state != tracked.state:
        facts = _facts(cache)
        tracked.kept["facts"] = tracked.state, facts
    return msgspec.structs.replace(
        facts,
        ref=CacheRef(tracked.id, tracked.state),
        names=names,
        age=tracked.age,
        changed=tracked.changed,
        weights_changed=tracked.weights_changed or tracked.other_model,
    )


def summary(cache: Any) -> str:
    """Return a one-line summary of a cache, for printing."""
    row = _facts(cache)
    if row.problem:
        return row.problem
    shape = f"{row.layers} × {row.heads} heads, {row.prompts} prompts × {row.positions} positions"
    return f"{row.model}, {shape}, {row.dtype} on {row.device}, {row.bytes / 1e6:.1f} MB"


def _facts(cache: Any) -> CacheRow:
    empty = CacheRow(CacheRef("", ""), [], _model_name(cache), 0, 0, 0, 0, "", "", 0, [], 0.0)
    try:
        import torch

        with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage]
            view = CacheView(_copy(cache))
            return msgspec.structs.replace(empty, **basics(view))
    except ResidscopeError as error:
        return msgspec.structs.replace(empty, problem=str(error))
    except Exception as error:  # such as a cache without tensors, or an unusual configuration
        why = f"Residscope cannot read this cache: {type(error).__name__}: {error}"
        return msgspec.structs.replace(empty, problem=why)


def _copy(cache: Any) -> Any:
    """A copy of those attributes of a cache and its model that the facts need, read off their own dictionaries."""
    copy = SimpleNamespace(cache_dict=dict.copy(peek(cache, "cache_dict")), model=None)
    if (has := peek(cache, "has_batch_dim")) is not None:
        copy.has_batch_dim = has
    model = peek(cache, "model")
    if model is None:
        return copy
    of_model: Any = type(_class_name(model), (), {})()  # with the same class name, because messages show it
    copy.model = of_model
    config = peek(model, "cfg")
    if config is not None:
        found = {name: peek(config, name) for name in _CONFIGURED}
        of_model.cfg = SimpleNamespace(**{name: value for name, value in found.items() if value is not None})
    modules = peek(model, "_modules") or {}
    blocks = modules.get("blocks", peek(model, "blocks"))
    if blocks is not None:
        rows = peek(blocks, "_modules")
        of_model.blocks = True if rows is None else range(len(rows))
    for name in ("encoder_blocks", "decoder_blocks"):
        if name in modules or peek(model, name) is not None:
            setattr(of_model, name, True)
    return copy


def _model_name(cache: Any) -> str:
    model = peek(cache, "model")
    name = peek(peek(model, "cfg"), "model_name")
    if type(name) is str and name:
        return encodable(name.replace("\\", "/").rstrip("/").rpartition("/")[2])
    return "" if model is None else _class_name(model)


def _class_name(value: Any) -> str:
    return type.__dict__["__name__"].__get__(type(value))  # a metaclass may override `__name__`
