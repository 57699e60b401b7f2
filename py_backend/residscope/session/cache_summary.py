"""Makes a cache's row in the list of caches. It reads only metadata, no values, and runs no code of the model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec

from residscope.base.legible import encodable
from residscope.cache.view import CacheView
from residscope.errors import ResidscopeError
from residscope.session.change_tracking import TrackedCache
from residscope.session.class_kinds import peek
from residscope.wire.caches import CacheRef, CacheRow

_SETTINGS_READ = ("n_layers", "n_heads", "model_name", "attn_only")


def common_facts(view: CacheView) -> dict[str, Any]:
    """Return the facts about a cache that both the list and the cache's own view show."""
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
        names: The cache's names in the user's namespace.
        tracked: The tracked cache, already compared with the present state.
    """
    state, facts = tracked.kept.get("facts", ("", None))
    if state != tracked.state:
        facts = _row_without_names(cache)
        tracked.kept["facts"] = tracked.state, facts
    return msgspec.structs.replace(
        facts,
        ref=CacheRef(tracked.id, tracked.state),
        names=names,
        age=tracked.age,
        changed=tracked.changed,
        weights_changed=tracked.weights_changed or tracked.other_model,
    )


def summary(cache: object) -> str:
    """Return a summary of a cache in one line, for printing."""
    row = _row_without_names(cache)
    if row.problem:
        return row.problem
    shape = f"{row.layers} × {row.heads} heads, {row.prompts} prompts × {row.positions} positions"
    return f"{row.model}, {shape}, {row.dtype} on {row.device}, {row.bytes / 1e6:.1f} MB"


def _row_without_names(cache: Any) -> CacheRow:
    empty = CacheRow(CacheRef("", ""), [], _model_name(cache), 0, 0, 0, 0, "", "", 0, [], 0.0)
    try:
        import torch

        with torch._C.DisableTorchFunctionSubclass():  # pyright: ignore[reportPrivateUsage]
            view = CacheView(_metadata_copy(cache))
            return msgspec.structs.replace(empty, **common_facts(view))
    except ResidscopeError as error:
        return msgspec.structs.replace(empty, problem=str(error))
    except Exception as error:  # for example a cache without tensors, or with an unusual configuration
        why = f"Residscope cannot read this cache: {type(error).__name__}: {error}"
        return msgspec.structs.replace(empty, problem=why)


def _metadata_copy(cache: object) -> Any:
    """A copy of the attributes that the row needs, read from the dictionaries of the cache and its model."""
    copy = SimpleNamespace(cache_dict=dict.copy(peek(cache, "cache_dict")), model=None)
    if (has_batch_dim := peek(cache, "has_batch_dim")) is not None:
        copy.has_batch_dim = has_batch_dim
    model = peek(cache, "model")
    if model is None:
        return copy
    model_copy: Any = type(_class_name(model), (), {})()  # with the same class name, because messages show it
    copy.model = model_copy
    config = peek(model, "cfg")
    if config is not None:
        found = {name: peek(config, name) for name in _SETTINGS_READ}
        model_copy.cfg = SimpleNamespace(**{name: value for name, value in found.items() if value is not None})
    modules = peek(model, "_modules") or {}
    blocks = modules.get("blocks", peek(model, "blocks"))
    if blocks is not None:
        rows = peek(blocks, "_modules")
        model_copy.blocks = True if rows is None else range(len(rows))
    for name in ("encoder_blocks", "decoder_blocks"):
        if name in modules or peek(model, name) is not None:
            setattr(model_copy, name, True)
    return copy


def _model_name(cache: object) -> str:
    model = peek(cache, "model")
    name = peek(peek(model, "cfg"), "model_name")
    if type(name) is str and name:
        return encodable(name.replace("\\", "/").rstrip("/").rpartition("/")[2])
    return "" if model is None else _class_name(model)


def _class_name(value: object) -> str:
    return type.__dict__["__name__"].__get__(type(value))  # a metaclass may override `__name__`
