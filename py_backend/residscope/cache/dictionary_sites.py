"""Finds the activations that a sparse autoencoder (SAE) or transcoder encodes and reconstructs.

The names of both activations are given by the user, or read from the SAE's configuration in SAELens' format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from residscope.base.legible import cut
from residscope.cache.view import CacheView
from residscope.cache.view_refusals import not_cached
from residscope.errors import ResidscopeError
from residscope.terms import Component

SiteKind = Literal[
    "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z"
]

_SITE = re.compile(rf"blocks\.(\d{{1,6}})\.({'|'.join(map(re.escape, get_args(SiteKind)))})")
_HOW = 'Give the name of the activation, too: `sae=(sae, "blocks.5.hook_mlp_out")`.'
_KNOWN = ", ".join(f"`{kind}`" for kind in get_args(SiteKind))


@dataclass(frozen=True)
class Site:
    """The activations that an SAE or a transcoder encodes and reconstructs.

    Attributes:
        layer: The layer of the reconstructed activation.
        kind: The name of the reconstructed activation within its layer.
        read: The name of the encoded activation. An SAE encodes and reconstructs the same activation. A transcoder
            does not.
    """

    layer: int
    kind: SiteKind
    read: str

    @property
    def written(self) -> str:
        """The name of the reconstructed activation."""
        return f"blocks.{self.layer}.{self.kind}"

    @property
    def is_transcoder(self) -> bool:
        """Whether the encoded and the reconstructed activation are different ones."""
        return self.read != self.written

    def point(self, view: CacheView) -> Component | None:
        """Return the point of the stream that is reconstructed. None if the site is not a point of the stream."""
        return point_of_stream(view, self.written)

    def row(self, view: CacheView) -> Component:
        """Return the row of `by="layer"`, or the point of the stream, that the rows of the features replace."""
        at = self.point(view)
        return at or Component("mlp_out" if self.kind == "hook_mlp_out" else "attn_out", self.layer)


def layer_of_site(name: str) -> int | None:
    """Return the layer of an activation whose reconstruction can be attributed. None for another activation."""
    found = _SITE.fullmatch(name)
    return None if found is None else int(found[1])


def point_of_stream(view: CacheView, name: str) -> Component | None:
    """Return the point of the stream whose activation has this name. None for the name of another activation."""
    found = _SITE.fullmatch(name)
    if found is None:
        return None
    layer, kind = int(found[1]), found[2]
    if kind == "hook_resid_post":
        return Component("final_post") if layer == view.n_layers - 1 else Component("pre", layer + 1)
    kinds: dict[str, Literal["pre", "mid"]] = {"hook_resid_pre": "pre", "hook_resid_mid": "mid"}
    return Component(kinds[kind], layer) if kind in kinds else None


def held_as(view: CacheView, name: str) -> str:
    """Return the name under which the cache holds an activation. Several names may mean the same activation.

    Raises:
        ResidscopeError: If the activation was not cached, was replaced by an SAE in this run, or has other axes than
            `[batch, pos, …]`.
    """
    if any(held.startswith(f"{name}.hook_sae_") for held in view.activations):
        raise ResidscopeError(
            "sae",
            f"This cache is of a run in which an SAE was in the place of `{name}` (it holds `{name}.hook_sae_…`). "
            "Features are read from the model's own activations: take the SAE out of the model (`reset_saes()`), and "
            "make the cache again.",
        )
    layer, _, ending = name.removeprefix("blocks.").partition(".")
    others = {"hook_mlp_in": f"blocks.{layer}.hook_resid_mid"}  # the input of the MLP's norm
    if ending == "hook_resid_pre" and layer.isdecimal():
        others[ending] = view.before(int(layer))
    if ending == "hook_resid_post" and layer.isdecimal():
        others[ending] = view.after(int(layer))
    held = view.first(name, others.get(ending, name))
    if held is None:
        raise not_cached(name)
    shape = view.get(held).shape
    if len(shape) < 3 or tuple(shape[:2]) != (view.batch, view.n_pos):
        raise ResidscopeError("sae", f"`{held}` has the shape {list(shape)} in this cache, not [batch, pos, width].")
    return held


def parts_of(given: object) -> tuple[object, str | None, str | None]:
    """Return the SAE, and the names of the encoded and the reconstructed activation (None if not given).

    Raises:
        ResidscopeError: If no SAE was given, or if a tuple does not have one or two names after the SAE.
    """
    read, written = None, None
    if isinstance(given, tuple | list):
        given, *names = cast("list[Any]", list(given) or [None])
        if not 1 <= len(names) <= 2 or not all(isinstance(name, str) for name in names):
            hint = " `from_pretrained` returns several things: give the first." if names else ""
            raise ResidscopeError(
                "sae",
                "`sae=` takes an SAE, `(sae, NAME)`, or for a transcoder `(transcoder, NAME READ, NAME RECONSTRUCTED)`,"
                f" with names of activations.{hint}",
            )
        read, written = names[0], names[-1]
    if given is None or isinstance(given, str | Mapping | type):
        what = "a name" if isinstance(given, str) else "nothing" if given is None else f"a {type(given).__name__}"
        if isinstance(given, type):
            what = f"the class `{given.__name__}`"
        raise ResidscopeError(
            "sae",
            f"`sae=` takes a loaded SAE or transcoder, an object with `encode`, `decode` and `W_dec`, but was given "
            f"{what}.",
        )
    return given, read, written


def site_of(view: CacheView, sae: object, read: str | None, written: str | None) -> Site:
    """Return the site of an SAE or a transcoder, from the given names, or else from its configuration.

    Raises:
        ResidscopeError: If the site is not known, is not supported, or is in a layer that the model does not have.
    """
    what = f"The {kind_of_sae(sae)}"
    if read is None:
        read = setting(sae, "hook_name") or setting(sae, "hook_point")
        written = setting(sae, "hook_name_out") or read
        layer = setting(sae, "hook_layer")
        read, written = (
            name.replace("{layer}", str(layer)) if isinstance(name, str) else None for name in (read, written)
        )
        if read is None or written is None:
            raise ResidscopeError("sae", f"{what} has no `hook_name` in its configuration. {_HOW}")
    assert written is not None
    if setting(sae, "hook_head_index") is not None:
        raise ResidscopeError(
            "sae", f"{what} is of one head (`hook_head_index`). Only SAEs of all heads together can be attributed."
        )
    found = _SITE.fullmatch(written)
    if found is None:
        raise ResidscopeError(
            "sae",
            f"{what} reconstructs `{cut(written, 80)}`, whose contribution to the stream is not known. Features can be "
            f"attributed where an SAE or a transcoder reconstructs {_KNOWN} of a layer (`blocks.5.…`). If the name is "
            f"wrong: {_HOW[0].lower()}{_HOW[1:]}",
        )
    layer = int(found[1])
    if layer >= view.n_layers:
        raise ResidscopeError(
            "sae",
            f"{what} reconstructs `{written}`, but this model has only {view.n_layers} layers: it belongs to another "
            "model.",
        )
    return Site(layer, cast("SiteKind", found[2]), read)


def kind_of_sae(sae: object) -> str:
    """Return an SAE in words, for messages, with its class: "SAE `StandardSAE`"."""
    return f"SAE `{type(sae).__name__}`"


def setting(sae: object, name: str) -> Any:
    """Return a field of an SAE's configuration, or of its `metadata` (newer SAELens). None if it has no such field."""
    cfg = getattr(sae, "cfg", None)
    for owner in (cfg, _field(cfg, "metadata")):
        value = _field(owner, name)
        if value is not None:
            return value
    return None


def _field(owner: object, name: str) -> object:
    return cast("Mapping[str, Any]", owner).get(name) if isinstance(owner, Mapping) else getattr(owner, name, None)


_NEURONPEDIA = re.compile(r"[\w.-]+(/[\w.-]+)+")


def neuronpedia_id(sae: object) -> str:
    """Return the id of an SAE on Neuronpedia, such as `gpt2-small/8-res-jb`. Empty if its configuration has none."""
    found = setting(sae, "neuronpedia_id")
    is_id = isinstance(found, str) and _NEURONPEDIA.fullmatch(found) and ".." not in found
    return found if is_id else ""
