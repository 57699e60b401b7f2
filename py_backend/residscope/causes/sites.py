"""Sites: activations at which a run of the model can be changed, such as the `z` of a layer's heads.

A test finds the module whose output is the activation: the replay must call it once, and its output must equal the
cached activation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from residscope.cache.output_maps import out_weight
from residscope.cache.view import CacheView

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SiteKind = Literal["z", "attn_out", "mlp_out", "resid_pre"]
"""The kind of activation at a site: the `z` of heads, the output of a sublayer, or the stream before a layer."""

Read = Literal["q", "k", "v"]
"""An input of a head: its query, key or value."""

Part = Read | Literal["pattern"]
"""What a head's `z` is computed from."""

PARTS: tuple[Part, ...] = ("q", "k", "v", "pattern")

KINDS: tuple[SiteKind, ...] = ("z", "attn_out", "mlp_out", "resid_pre")

_PATHS: dict[SiteKind, str] = {
    "z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "resid_pre": "hook_resid_pre",
}
_SUBLAYERS: dict[SiteKind, str] = {"attn_out": "attn", "mlp_out": "mlp"}


def activation(kind: SiteKind, layer: int) -> str:
    """Return the name of a site's activation in the cache."""
    return f"blocks.{layer}.{_PATHS[kind]}"


class Place(Protocol):
    """The output of a module in one layer, at which a run is changed or recorded."""

    @property
    def layer(self) -> int:
        """The layer."""
        ...

    @property
    def module(self) -> Any:
        """The module."""
        ...

    def change(self, edit: Callable[[Tensor], Tensor], prompts: int) -> Callable[[Tensor], Tensor]:
        """Return an edit of the module's output. `edit` gets the activation, for this many prompts."""
        ...


class Source(Protocol):
    """An activation of one layer that may be taken from another run."""

    @property
    def kind(self) -> SiteKind | Part:
        """The kind of the activation."""
        ...

    @property
    def layer(self) -> int:
        """The layer."""
        ...

    @property
    def module(self) -> Any:
        """The module whose output holds the activation."""
        ...

    @property
    def inner(self) -> tuple[int, ...]:
        """The shape of the activation at one position."""
        ...

    def held(self, view: CacheView) -> Tensor:
        """The activation in a cache, `[batch, pos, *inner]`."""
        ...

    def read(self, output: Tensor, prompts: int) -> Tensor:
        """The activation, from the module's output."""
        ...


@dataclass(frozen=True)
class Site:
    """An activation at which a run can be changed.

    Attributes:
        kind: The kind of the activation.
        layer: The layer.
        module: The module whose output holds the activation.
        inner: The shape of the activation at one position: `(head, d_head)` or `(d_model,)`.
        factor: The activation divided by the module's output. 1 if the module is the hook itself.
    """

    kind: SiteKind
    layer: int
    module: Any
    inner: tuple[int, ...]
    factor: float = 1.0

    def held(self, view: CacheView) -> Float[Tensor, "batch pos *inner"]:
        """The activation in a cache.

        Raises:
            ResidscopeError: If it was not cached.
        """
        return held(view, self.kind, self.layer)

    def read(self, output: Tensor, prompts: int) -> Float[Tensor, "prompt pos *inner"]:
        """The activation, from the module's output."""
        own = output.reshape(prompts, -1, *self.inner)
        return own * self.factor if self.factor != 1 else own

    def change(self, edit: Callable[[Tensor], Tensor], prompts: int) -> Callable[[Tensor], Tensor]:
        """Return an edit of the module's output. `edit` gets the activation, `[prompt, pos, *inner]`."""

        def changed(output: Tensor) -> Tensor:
            held = output.reshape(prompts, -1, *self.inner)
            if self.factor == 1:
                return edit(held).reshape(output.shape)
            return (edit(held * self.factor) / self.factor).reshape(output.shape)

        return changed


@dataclass(frozen=True)
class Candidate:
    """A module that may be a site. `factor` is as in `Site`."""

    kind: SiteKind
    layer: int
    module: Any
    factor: float = 1.0


def candidates(view: CacheView) -> list[Candidate]:
    """Return the modules that may be sites. For each site, the most likely module comes first."""
    from torch.nn import Module

    found: list[Candidate] = []
    multiplier = float(getattr(view.cfg, "residual_multiplier", None) or 1.0)
    for layer, block in enumerate(view.model.blocks):
        for kind, path in _PATHS.items():
            module = _at(block, path)
            if isinstance(module, Module):
                found.append(Candidate(kind, layer, module))
            sublayer = getattr(block, _SUBLAYERS.get(kind, ""), None)
            if isinstance(sublayer, Module):  # some blocks do not call the hook in every run
                found += [Candidate(kind, layer, sublayer, factor) for factor in dict.fromkeys((multiplier, 1.0))]
    return found


def _at(block: object, path: str) -> object:
    for name in path.split("."):
        block = getattr(block, name, None)
    return block


def inner_shape(view: CacheView, kind: SiteKind, layer: int) -> tuple[int, ...] | None:
    """Return the shape of a site's activation at one position. None if the cache does not give it."""
    return view.root.memo.once(("inner shape", kind, layer), lambda: (_inner_shape(view.root, kind, layer),))[0]


def _inner_shape(view: CacheView, kind: SiteKind, layer: int) -> tuple[int, ...] | None:
    tensor = view.activations.get(activation(kind, layer))
    places = view.batch * view.n_pos
    if tensor is None or not tensor.is_floating_point() or tensor.numel() % places:
        return None
    width = tensor.numel() // places
    if kind != "z":
        return (width,) if tensor.shape[-1] == width else None
    # The width of a head is that of `W_O`. In latent attention, values may have another width than keys, and the cache
    # cuts `z` by the width of keys.
    W_O = out_weight(view, layer)
    shape = tuple(tensor.shape[-2:]) if W_O is None else tuple(W_O.shape[:2])
    return shape if shape[0] * shape[1] == width else None


def held(view: CacheView, kind: SiteKind, layer: int) -> Float[Tensor, "batch pos *inner"]:
    """Return a site's cached activation, with axes for prompts and positions.

    Raises:
        ResidscopeError: If it was not cached.
    """
    tensor, inner = view.activations.get(activation(kind, layer)), inner_shape(view, kind, layer)
    if tensor is None or inner is None:
        return view.get(activation(kind, layer))
    return tensor.detach().reshape(view.batch, view.n_pos, *inner)
