"""Points of the residual stream, and the norms through which they are read.

A sublayer reads y = (x − mean(x)) / s ⊙ w + c. Here x is the stream at a point, and s, w and c are the scale, the
weight and the bias of a norm. RMSNorm subtracts no mean. In some models a sublayer reads x unchanged, because the
norms come after the sublayers. If the cache holds the sublayer's input, we choose the point and the norm that give
this input. If no point gives it, or if the input was not cached, the model's modules and configuration decide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from residscope.cache.norms import Norm, norms_outputs
from residscope.cache.view import CacheView
from residscope.cache.view_refusals import not_cached
from residscope.compute.precision import working
from residscope.errors import ResidscopeError
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

END = Component("final_post")
"""The place of the stream after the last layer."""


@dataclass(frozen=True)
class Point:
    """A point of the stream, and the norm through which it is read.

    Attributes:
        place: The place in the stream: before a layer (`pre`), before the layer's MLP (`mid`), or the end
            (`final_post`).
        norm: The path of the norm's module (`blocks.3.ln1`, `ln_final`). None: the stream is read without a norm.
        unweighted: Whether the norm is used without its weight and bias, as in a bridge's `ln1.hook_normalized`.
    """

    place: Component
    norm: str | None = None
    unweighted: bool = False

    def stream(self, view: CacheView) -> str:
        """Return the name of the stream's activation.

        If only the norm's input was cached, return its name, because it is the same vector.
        """
        if self.place.kind == "final_post":
            return f"blocks.{view.n_layers - 1}.hook_resid_post"
        own = view.before(self.layer) if self.place.kind == "pre" else f"blocks.{self.layer}.hook_resid_mid"
        if self.norm is None or view.has(own) or not _is_by_position(view, f"{self.norm}.hook_in"):
            return own
        return f"{self.norm}.hook_in"

    @property
    def layer(self) -> int:
        """The layer of a `pre` or `mid` point."""
        assert self.place.layer is not None
        return self.place.layer

    @property
    def scale_name(self) -> str:
        """The name of the activation that holds the norm's scale. Empty without a norm."""
        return "" if self.norm is None else f"{self.norm}.hook_scale"

    def parameters(self, view: CacheView) -> Norm:
        """Return the parameters of the norm. Without a norm, parameters that leave the stream unchanged."""
        module = None
        if self.norm == "ln_final":
            module = getattr(view.model, "ln_final", None)
        elif self.norm is not None:
            module = getattr(view.model.blocks[self.layer], self.norm.rpartition(".")[2], None)
        found = Norm.of(module, view)
        return replace(found, weight=None, bias=None) if self.unweighted else found

    def has_scale(self, view: CacheView) -> bool:
        """Return whether the cache holds one scale for each position. Some models have one for each head's input."""
        one_each = view.root.batch * view.n_pos
        return _is_by_position(view, self.scale_name) and view.activations[self.scale_name].numel() == one_each

    def scale(
        self, view: CacheView, norm: Norm, positions: Int[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch read"]:
        """Return the norm's scale: cached, or computed from the cached stream.

        Raises:
            ResidscopeError: If neither was cached. The message names the scale.
        """
        if not norm.divides:
            return view.like.new_ones(view.batch, view.n_pos if positions is None else 1)
        if self.has_scale(view):
            return view.rows(self.scale_name, positions).squeeze(-1)
        name = self.stream(view)
        if not view.has(name):
            raise not_cached(self.scale_name)
        return norm.scale(view.rows(name, positions))

    def read(self, view: CacheView, rows: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """Return the norm's output for vectors of the stream. The norm's scale is computed from each vector."""
        norm = self.parameters(view)
        return norm.weighted(norm.centre(rows) / norm.scale(rows)[:, None])


FINAL = Point(END, "ln_final")
"""The end of the stream, read through the final norm."""


def raw_point(view: CacheView, place: Component) -> Point:
    """Return a point where the stream is read without a norm.

    Raises:
        ResidscopeError: If this model has no such point.
    """
    if place.layer is not None:
        view.check_layer(place.layer)
    point = Point(place)
    if place.kind == "mid" and not view.has(point.stream(view)) and mlp_point(view, point.layer).place != place:
        raise ResidscopeError(
            "points",
            f"Layer {place.layer} of this model has no point `{place.label}`: there is nothing between its attention "
            f"and its MLP. Use `{place.layer}_pre`, or cache `blocks.{place.layer}.hook_resid_mid` if it exists.",
        )
    return point


def attention_point(view: CacheView, layer: int) -> Point:
    """Return the point and the norm through which a layer's attention reads the stream."""
    before, inputs = Component("pre", layer), ("attn.v.hook_in", "attn.hook_in", "attn.qkv.hook_in")
    norms = _norms_of(view, layer, "ln1")
    return _found(view, layer, "attn", inputs, [Point(before, norm) for norm in (*norms, None)])


def mlp_point(view: CacheView, layer: int) -> Point:
    """Return the point and the norm through which a layer's MLP reads the stream.

    In blocks with parallel attention and MLP, both read the stream before the layer.
    """
    before, between = Component("pre", layer), Component("mid", layer)
    norms, shared = _norms_of(view, layer, "ln2"), _norms_of(view, layer, "ln1")
    later = [Point(between, norm) for norm in norms] or [Point(between)]
    earlier = [Point(before, norm) for norm in (*norms, *shared)]
    both = [*earlier, *later] if _is_parallel(view, layer) else [*later, *earlier]
    endings = ("in.hook_in", "gate.hook_in", "dense_in.hook_in", "hook_in")
    inputs = tuple(f"mlp.{name}" for name in endings)
    return _found(view, layer, "mlp", inputs, list(dict.fromkeys([*both, Point(between), Point(before)])))


def parallel_layers(view: CacheView) -> list[int]:
    """Return the layers whose MLP reads the stream before the layer, as the layer's attention does.

    A layer whose `hook_resid_mid` was cached is not one of them.
    """
    without_mid = (layer for layer in range(view.n_layers) if not view.has(f"blocks.{layer}.hook_resid_mid"))
    return [layer for layer in without_mid if _reads_before(view, layer)]


def _reads_before(view: CacheView, layer: int) -> bool:
    try:
        return mlp_point(view, layer).place.kind == "pre"
    except ResidscopeError:  # for example if the weights of the norms hold no values
        return _is_parallel(view, layer)


def _is_parallel(view: CacheView, layer: int) -> bool:
    """Whether a layer's attention and MLP seem to read the same point of the stream. `_found` checks this."""
    if view.has(f"blocks.{layer}.hook_resid_mid"):
        return False
    return bool(getattr(view.cfg, "parallel_attn_mlp", False)) or not hasattr(view.model.blocks[layer], "attn")


def _norms_of(view: CacheView, layer: int, name: str) -> list[str]:
    """The path of a block's norm, in a list. Empty if the block has no norm of this name before the sublayer."""
    behind = norms_outputs(view)
    return [] if behind or not hasattr(view.model.blocks[layer], name) else [f"blocks.{layer}.{name}"]


def _found(
    view: CacheView, layer: int, part: Literal["attn", "mlp"], inputs: tuple[str, ...], candidates: list[Point]
) -> Point:
    """The first candidate that gives the sublayer's cached input. If none does, the first candidate."""
    run = view.root
    return run.memo.once(("point", part, layer), lambda: _decided(run, layer, inputs, candidates))


_SOME = 16
"""At least this many rows are compared, and fewer than twice as many. If there are fewer rows, all are compared."""


def _decided(view: CacheView, layer: int, inputs: tuple[str, ...], candidates: list[Point]) -> Point:
    width = int(view.cfg.d_model)
    name = view.first(*(f"blocks.{layer}.{ending}" for ending in inputs))
    if name is None or view.activations[name].numel() != view.batch * view.n_pos * width:
        return candidates[0]
    held = _some_rows(view, name, width)
    for point in candidates:
        stream = point.stream(view)
        if not view.has(stream) or view.activations[stream].numel() != width * view.batch * view.n_pos:
            continue
        expected = point.read(view, _some_rows(view, stream, width)).to(held)
        error = float((expected - held).norm() / held.norm().clamp(min=1e-30))
        if error <= max(1e-3, 4 * view.rounding_step(name, stream)):
            return point
    return candidates[0]


def _is_by_position(view: CacheView, name: str) -> bool:
    """Whether an activation was cached with axes for prompts and positions. Some models flatten the MLP's input."""
    held = view.activations.get(name)
    extent = (view.root.batch, view.n_pos) if view.has_batch_dim else (view.n_pos,)
    return held is not None and tuple(held.shape[: len(extent)]) == extent


def _some_rows(view: CacheView, name: str, width: int) -> Float[Tensor, "row d_model"]:
    """Some vectors of an activation, evenly spread over prompts and positions."""
    rows = view.activations[name].detach().reshape(-1, width)
    return working(rows[:: max(1, len(rows) // _SOME)]).to(view.like)
