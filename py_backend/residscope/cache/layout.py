"""The layout of a cache: which entries are tensors, what their axes are, and how many prompts and positions there are.

A cache may have thousands of names, and many requests read it, so the `Layout` of an unchanged cache is kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from residscope.base.arrays import kind_of, tensor_of, unreadable_kind
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


class Layout(NamedTuple):
    """The names and shapes of a cache. A layout does not keep activations in memory.

    Attributes:
        names: All keys of the cache, in order.
        left_out: Keys that are not strings, and keys of entries that are not tensors.
        others: Names of these entries, each with its type in words.
        arrays: Names of NumPy arrays, which are read as tensors.
        has_saes: Whether the cache holds outputs of SAEs that were attached to the model.
        has_batch_dim: Whether activations have an axis of prompts.
        extent: Number of prompts and of positions.
    """

    names: tuple[object, ...]
    left_out: frozenset[object]
    others: dict[str, str]
    arrays: tuple[str, ...]
    has_saes: bool
    has_batch_dim: bool
    extent: tuple[int, int]

    def tensors(self, held: dict[Any, Any]) -> dict[str, Tensor]:
        """Return the tensors of a dictionary that has this layout."""
        found = {name: value for name, value in held.items() if name not in self.left_out} if self.left_out else held
        found = {**found, **{name: tensor_of(found[name]) for name in self.arrays}}
        return found | _sae_outputs(found) if self.has_saes else found


def split(held: dict[Any, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Split a dictionary into its tensors and its other entries. Return the tensors, and the types of the others.

    The output of an SAE is also returned under the name of the activation that it replaced.

    Raises:
        ResidscopeError: If the dictionary holds no tensors, or an activation that cannot be read.
    """
    found, others = _tensors(held)
    for name in others:
        if name in held and _kind(name) is not None and (kind := _unreadable(held[name])) is not None:
            raise ResidscopeError(
                "unreadable",
                f"`{name}` is a {kind}, but Residscope reads plain tensors. Replace it, or run the model again.",
            )
    if not found:
        name, kind = next(iter(others.items()), ("", "nothing"))
        raise ResidscopeError(
            "no-cache",
            f"This dictionary holds no activations: `{name}` is a {kind}. Residscope needs an "
            "ActivationCache, or a dictionary of tensors under TransformerLens' names.",
        )
    return found | _sae_outputs(found), others


def layout_of(
    held: dict[Any, Any],
    activations: dict[str, Tensor],
    others: dict[str, str],
    has_batch_dim: bool | None,
    cfg: object,
) -> Layout:
    """Return the layout of a cache.

    Args:
        held: All entries of the cache.
        activations: Its tensors (from `split`).
        others: The types of its other entries (from `split`).
        has_batch_dim: The cache's attribute `has_batch_dim`. None if the cache has no such attribute.
        cfg: The model's configuration.

    Raises:
        ResidscopeError: If the number of prompts and positions is unknown or 0, or activations contradict each other.
    """
    is_batch = _has_batch_dim(activations, cfg) if has_batch_dim is None else bool(has_batch_dim)
    extent = _extent(activations, is_batch)
    _check_shapes(activations, is_batch, *extent)
    left_out = frozenset(name for name in held if not isinstance(name, str) or name not in activations)
    arrays = tuple(name for name in activations if type(held.get(name)).__module__ == "numpy")
    has_saes = any(name.endswith(_SAE) for name in activations)
    return Layout(tuple(held), left_out, others, arrays, has_saes, is_batch, extent)


def holds_every_prompt(name: str) -> bool:
    """Whether an activation with this name always has a row for each prompt."""
    kind = _kind(name)
    return kind is not None and kind.order != _OTHER


def _extent(activations: Mapping[str, Tensor], has_batch_dim: bool) -> tuple[int, int]:
    """The number of prompts and of positions, read from the activation whose shape is most reliable."""
    known = {name: kind for name, kind in ((name, _kind(name)) for name in activations) if kind is not None}
    for name, kind in sorted(known.items(), key=lambda known: known[1].order):
        tensor = activations[name]
        shape = tuple(tensor.shape) if has_batch_dim else (1, *tensor.shape)
        if len(shape) > max(kind.position, 1):
            return int(shape[0]), int(shape[kind.position])
    names = ", ".join(f"`{name}`" for name in list(activations)[:3])
    raise ResidscopeError(
        "no-positions",
        f"This cache holds only {names}{', …' if len(activations) > 3 else ''}, which does not show how many "
        "prompts and positions were run. Cache at least one activation of a layer, such as "
        '`names_filter=lambda name: name.endswith("hook_resid_post")`.',
    )


def _check_shapes(activations: Mapping[str, Tensor], has_batch_dim: bool, batch: int, n_pos: int) -> None:
    """Refuse a cache without prompts or positions, or with activations from different runs or models.

    Only the stream and the patterns are checked, because their axes are the same in every model.
    """
    if not batch or not n_pos:
        raise ResidscopeError(
            "empty-cache",
            f"This cache holds {batch} prompts of {n_pos} positions: there is nothing to read.",
        )
    widths: dict[int, str] = {}
    for name, tensor in activations.items():
        kind, stream = _kind(name), name.rpartition(".")[2].startswith("hook_resid_")
        if kind is None or not (stream or name.endswith("hook_pattern")):
            continue
        shape = tuple(tensor.shape) if has_batch_dim else (1, *tensor.shape)
        if len(shape) != kind.axes:
            raise ResidscopeError(
                "shape", f"`{name}` has the shape {list(tensor.shape)} in this cache: too few or too many axes."
            )
        if shape[kind.position] != n_pos:
            raise ResidscopeError(
                "shape",
                f"`{name}` has {shape[kind.position]} positions, but other activations in this cache have "
                f"{n_pos}: they are from different runs.",
            )
        if stream:
            widths.setdefault(shape[-1], name)
        if len(widths) > 1:
            wide, other = list(widths)[:2]
            raise ResidscopeError(
                "shape",
                f"`{widths[wide]}` has width {wide}, but `{widths[other]}` has width {other}: they are from different "
                "models.",
            )


def _tensors(held: dict[Any, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a dictionary by name (arrays as tensors), and the types of its other entries."""
    found: dict[str, Tensor] = {}
    others: dict[str, str] = {}
    for name, value in held.items():
        tensor = _tensor(value) if isinstance(name, str) else None
        if tensor is None:
            others[str(name)] = kind_of(value)
        else:
            found[name] = tensor
    return found, others


def _unreadable(value: object) -> str | None:
    """The kind of a tensor that cannot be used as an activation, in words. None for all other values."""
    complex_ = getattr(value, "is_complex", None)
    return unreadable_kind(value) or ("tensor of complex numbers" if complex_ is not None and complex_() else None)


def _tensor(value: object) -> Tensor | None:
    """An entry of a cache as a tensor. None if it is something else, such as a text, or if it cannot be read.

    A NumPy array becomes a tensor that shares its memory: nothing is copied.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return None if _unreadable(value) else value
    if type(value).__module__ == "numpy" and getattr(getattr(value, "dtype", None), "kind", "") in "fiu":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about read-only arrays: we never write to them
            with suppress(TypeError):
                return tensor_of(value)
    return None


class _Kind(NamedTuple):
    """The shape of activations whose names have the same ending.

    Attributes:
        order: 0 for the most reliable shape. If activations contradict each other, the one with the lowest order
            decides.
        axes: The number of axes, including the axis of prompts. None if it differs between models.
        position: The axis of positions.
    """

    order: int
    axes: int | None
    position: int


@lru_cache(16_384)
def _kind(name: str) -> _Kind | None:
    """The shape of an activation, inferred from its name. None if the name is not known."""
    ending = name.rpartition(".")[2]
    if ending in ("hook_pattern", "hook_attn_scores"):
        return _Kind(_PATTERN, 4, 2)  # [batch, head, destination, source]
    if name.startswith(("hook_pos_embed", "encoder")) or ending in ("hook_cos", "hook_sin"):
        return None  # such activations may have a single row for all prompts
    if ending.startswith("hook_resid_") or ending in ("hook_attn_out", "hook_mlp_out", "hook_embed"):
        return _Kind(_STREAM, 3, 1)
    if ending == "hook_scale":
        return _Kind(_SCALE, None if ".attn." in name else 3, 1)  # norms on queries and keys have an axis of heads
    if ending == "hook_z":
        return _Kind(_Z, None, 1)
    if ending in ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k"):
        return _Kind(_QKV, None, 1)
    if ending.startswith("hook_") and name.startswith(("blocks.", "ln_final.", "embed.", "unembed.", "hook_unembed")):
        return _Kind(_OTHER, None, 1)
    return None


_STREAM, _SCALE, _Z, _PATTERN, _QKV, _OTHER = range(6)
"""Kinds of activations. The kinds with the most reliable shapes come first."""


def _sae_outputs(activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of SAEs, under the names of the activations that they replaced (cached as `NAME.hook_sae_output`)."""
    spliced = ((name.removesuffix(_SAE), tensor) for name, tensor in activations.items() if name.endswith(_SAE))
    return {name: tensor for name, tensor in spliced if name not in activations}


_SAE = ".hook_sae_output"


def _has_batch_dim(activations: Mapping[str, Tensor], cfg: object) -> bool:
    """Whether the activations of a plain dictionary have an axis of prompts, inferred from their number of axes."""
    known = [(kind, tensor) for name, tensor in activations.items() if (kind := _kind(name)) is not None]
    for kind, tensor in known:
        if kind.axes is not None:
            return tensor.ndim >= kind.axes
    for kind, tensor in known:
        if kind.order in (_Z, _QKV):  # heads have their own axis, or are joined in the last axis
            has_head_axis = tensor.shape[-1] == getattr(cfg, "d_head", None)
            return tensor.ndim > (3 if has_head_axis else 2)
    return True
