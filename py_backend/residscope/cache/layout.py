"""What a cache holds: which of it are tensors, what names say of axes, how many prompts and positions there are.

There may be thousands of names, and requests are many: `Layout` is what is kept of a cache that stays as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from residscope.base.arrays import kind_of, tensor_of, unreadable
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor


class Layout(NamedTuple):
    """The names and shapes of a cache. It keeps no activation alive.

    Attributes:
        names: All keys, in their order.
        left_out: The keys of what is not read.
        others: The same by their names, each with the kind of thing that it is.
        arrays: The names of arrays that are read as tensors.
        has_saes: Whether SAEs are attached.
        has_batch_dim: Whether activations have an axis of prompts.
        extent: How many prompts and positions there are.
    """

    names: tuple[Any, ...]
    left_out: frozenset[Any]
    others: dict[str, str]
    arrays: tuple[str, ...]
    has_saes: bool
    has_batch_dim: bool
    extent: tuple[int, int]

    def again(self, held: dict[Any, Any]) -> dict[str, Tensor]:
        """The tensors of a dictionary that has this layout."""
        found = {name: value for name, value in held.items() if name not in self.left_out} if self.left_out else held
        found = {**found, **{name: tensor_of(found[name]) for name in self.arrays}}
        return found | _behind_saes(found) if self.has_saes else found


def split(held: dict[Any, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a dictionary by their names, those behind SAEs too; and what else it holds, by the kinds of it.

    Raises:
        ResidscopeError: If it holds none, or one that cannot be read.
    """
    found, others = _tensors(held)
    for name in others:
        if name in held and _kind(name) is not None and (kind := _unreadable(held[name])) is not None:
            raise ResidscopeError(
                "unreadable",
                f"`{name}` is a {kind}: Residscope reads plain tensors. Put one in its place, or run the model again.",
            )
    if not found:
        name, kind = next(iter(others.items()), ("", "nothing"))
        raise ResidscopeError(
            "no-cache",
            f"This dictionary holds no activations by name: `{name}` is a {kind}. Residscope needs an "
            "ActivationCache, or a dictionary of tensors under TransformerLens' names.",
        )
    return found | _behind_saes(found), others


def layout_of(
    held: dict[Any, Any], activations: dict[str, Tensor], others: dict[str, str], has_batch_dim: bool | None, cfg: Any
) -> Layout:
    """The layout of what was `split`.

    Args:
        held: All that the cache holds.
        activations: Its tensors.
        others: What else it holds.
        has_batch_dim: What the cache says of itself; None where it says nothing.
        cfg: The model's configuration.

    Raises:
        ResidscopeError: If nothing tells how many prompts and positions there are, there are none, or activations
            contradict each other.
    """
    is_batch = _has_batch_dim(activations, cfg) if has_batch_dim is None else bool(has_batch_dim)
    extent = _extent(activations, is_batch)
    _check_shapes(activations, is_batch, *extent)
    left_out = frozenset(name for name in held if not isinstance(name, str) or name not in activations)
    arrays = tuple(name for name in activations if type(held.get(name)).__module__ == "numpy")
    has_saes = any(name.endswith(_SAE) for name in activations)
    return Layout(tuple(held), left_out, others, arrays, has_saes, is_batch, extent)


def holds_every_prompt(name: str) -> bool:
    """Whether an activation of this name is known to have a row for each prompt."""
    kind = _kind(name)
    return kind is not None and kind.order != _OTHER


def _extent(activations: Mapping[str, Tensor], has_batch_dim: bool) -> tuple[int, int]:
    """The number of prompts and of positions, read off whatever is there."""
    known = {name: kind for name, kind in ((name, _kind(name)) for name in activations) if kind is not None}
    for name, kind in sorted(known.items(), key=lambda known: known[1].order):
        tensor = activations[name]
        shape = tuple(tensor.shape) if has_batch_dim else (1, *tensor.shape)
        if len(shape) > max(kind.position, 1):
            return int(shape[0]), int(shape[kind.position])
    names = ", ".join(f"`{name}`" for name in list(activations)[:3])
    raise ResidscopeError(
        "no-positions",
        f"This cache holds only {names}{', …' if len(activations) > 3 else ''}: nothing in it tells how many "
        "prompts and positions were run. Cache at least one activation of a layer, such as "
        '`names_filter=lambda name: name.endswith("hook_resid_post")`.',
    )


def _check_shapes(activations: Mapping[str, Tensor], has_batch_dim: bool, batch: int, n_pos: int) -> None:
    """Refuse a cache of no prompts or positions, and one that was put together from runs of different lengths.

    Only activations whose axes are always the same are looked at.
    """
    if not batch or not n_pos:
        raise ResidscopeError(
            "empty-cache",
            f"This cache holds {batch} prompts of {n_pos} positions: nothing to read.",
        )
    widths: dict[int, str] = {}
    for name, tensor in activations.items():
        kind, stream = _kind(name), name.rpartition(".")[2].startswith("hook_resid_")
        if kind is None or not (stream or name.endswith("hook_pattern")):
            continue
        shape = tuple(tensor.shape) if has_batch_dim else (1, *tensor.shape)
        if len(shape) != kind.axes:
            raise ResidscopeError(
                "shape", f"`{name}` has the shape {list(tensor.shape)} in this cache: an axis too few, or too many."
            )
        if shape[kind.position] != n_pos:
            raise ResidscopeError(
                "shape",
                f"`{name}` has {shape[kind.position]} positions, and other activations in this cache have "
                f"{n_pos}: they are of different runs.",
            )
        if stream:
            widths.setdefault(shape[-1], name)
        if len(widths) > 1:
            wide, other = list(widths)[:2]
            raise ResidscopeError(
                "shape",
                f"`{widths[wide]}` is {wide} wide, and `{widths[other]}` {other}: they are of different models.",
            )


def _tensors(held: dict[Any, Any]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a dictionary by their names (arrays as tensors), and what else it holds, by the kinds of it."""
    found: dict[str, Tensor] = {}
    others: dict[str, str] = {}
    for name, value in held.items():
        tensor = _tensor(value) if isinstance(name, str) else None
        if tensor is None:
            others[str(name)] = kind_of(value)
        else:
            found[name] = tensor
    return found, others


def _unreadable(value: Any) -> str | None:
    """What kind of tensor it is, where it cannot be an activation that is summed; else None."""
    complex_ = getattr(value, "is_complex", None)
    return unreadable(value) or ("tensor of complex numbers" if complex_ is not None and complex_() else None)


def _tensor(value: Any) -> Tensor | None:
    """What a cache holds under a name, as a tensor; None where it is something else (a prompt, a loss, a note).

    Arrays are read where they are: nothing is copied.
    """
    import torch

    if isinstance(value, torch.Tensor):
        return None if _unreadable(value) else value
    if type(value).__module__ == "numpy" and getattr(getattr(value, "dtype", None), "kind", "") in "fiu":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arrays that nobody may write to: nobody does
            with suppress(TypeError):
                return tensor_of(value)
    return None


class _Kind(NamedTuple):
    """How activations with names of one ending are shaped.

    Attributes:
        order: The lower, the sooner it is believed where activations differ.
        axes: How many axes they have, with the prompts' axis; None where that is not always the same.
        position: The axis of positions.
    """

    order: int
    axes: int | None
    position: int


@lru_cache(16_384)
def _kind(name: str) -> _Kind | None:
    """What is known of an activation's shape by its name; None where nothing is."""
    ending = name.rpartition(".")[2]
    if ending in ("hook_pattern", "hook_attn_scores"):
        return _Kind(_PATTERN, 4, 2)  # [batch, head, destination, source]
    if name.startswith(("hook_pos_embed", "encoder")) or ending in ("hook_cos", "hook_sin"):
        return None  # may have one row for all prompts
    if ending.startswith("hook_resid_") or ending in ("hook_attn_out", "hook_mlp_out", "hook_embed"):
        return _Kind(_STREAM, 3, 1)
    if ending == "hook_scale":
        return _Kind(_SCALE, None if ".attn." in name else 3, 1)  # a norm on queries and keys has one for each head
    if ending == "hook_z":
        return _Kind(_Z, None, 1)
    if ending in ("hook_q", "hook_k", "hook_v", "hook_rot_q", "hook_rot_k"):
        return _Kind(_QKV, None, 1)
    if ending.startswith("hook_") and name.startswith(("blocks.", "ln_final.", "embed.", "unembed.", "hook_unembed")):
        return _Kind(_OTHER, None, 1)
    return None


_STREAM, _SCALE, _Z, _PATTERN, _QKV, _OTHER = range(6)
"""Kinds of activations, the most regular ones first."""


def _behind_saes(activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Activations where an SAE stands: it keeps what goes on through the model as `NAME.hook_sae_output`."""
    spliced = ((name.removesuffix(_SAE), tensor) for name, tensor in activations.items() if name.endswith(_SAE))
    return {name: tensor for name, tensor in spliced if name not in activations}


_SAE = ".hook_sae_output"


def _has_batch_dim(activations: Mapping[str, Tensor], cfg: Any) -> bool:
    """Whether a plain dictionary of activations has one, as the number of their axes tells."""
    known = [(kind, tensor) for name, tensor in activations.items() if (kind := _kind(name)) is not None]
    for kind, tensor in known:
        if kind.axes is not None:
            return tensor.ndim >= kind.axes
    for kind, tensor in known:
        if kind.order in (_Z, _QKV):  # heads stand apart, or side by side in the last axis
            apart = tensor.shape[-1] == getattr(cfg, "d_head", None)
            return tensor.ndim > (3 if apart else 2)
    return True
