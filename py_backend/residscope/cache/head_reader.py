"""Reads one head's queries, keys, scores and pattern from a cache, and the projections that make queries and keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from einops import rearrange

from residscope.base.numbered import named_layers
from residscope.cache.attention_maps import WORDS, HeadMap, SideName, head_map
from residscope.cache.finite import check_finite
from residscope.cache.norms import Norm
from residscope.cache.padding import Padding, padding
from residscope.cache.points import Point, attention_point
from residscope.cache.view import CacheView
from residscope.cache.view_refusals import not_cached
from residscope.compute.precision import step_of, working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

MASKED = -1e4
"""Scores below this value count as masked."""


class Projected(NamedTuple):
    """How the model computes a head's queries or keys from y, the input of attention: `y @ matrix * factor + bias`.

    Attributes:
        map: The matrix and the bias.
        factor: The factor by which the model multiplies y @ matrix, found by comparison with the cache.
    """

    map: HeadMap
    factor: float


@dataclass(frozen=True)
class HeadReader:
    """Reads one head's queries, keys and scores.

    Attributes:
        view: The cache.
        layer: The layer.
        head: The head.

    Raises:
        ResidscopeError: When `heads` is read, if the layer has no such head, or its scores cannot be attributed.
    """

    view: CacheView
    layer: int
    head: int

    def name(self, ending: str) -> str:
        """The full name of an activation of this layer's attention."""
        return f"blocks.{self.layer}.attn.{ending}"

    def only(self, prompts: range) -> HeadReader:
        """A reader of the same head for these prompts only."""
        return replace(self, view=self.view.only(prompts))

    # --- shape -------------------------------------------------------------------------------------------------------
    @cached_property
    def heads(self) -> int:
        """The number of heads in this layer."""
        view = self.view
        if not hasattr(view.model.blocks[self.layer], "attn"):
            others = [layer for layer, block in enumerate(view.model.blocks) if hasattr(block, "attn")]
            hint = f" Choose a head of {named_layers(others)}." if others else " No layer of this model has attention."
            raise ResidscopeError(
                "no-heads", f"Layer {self.layer} has no attention, so there are no attention scores.{hint}"
            )
        known = view.first(self.name("hook_pattern"), self.name("hook_attn_scores"))
        if known is None:
            raise not_cached(self.name("hook_pattern"))
        shape = view.get(known).shape
        if tuple(shape[-2:]) != (view.n_pos, view.n_pos):
            raise ResidscopeError(
                "pos-slice",
                f"`{known}` has {shape[-2]} destinations and {shape[-1]} sources, but {view.n_pos} positions were "
                "cached. To attribute an attention score, cache all positions of the prompt: leave out `pos_slice` in "
                "`run_with_cache`, and run the whole prompt at once, not after past keys.",
            )
        count = int(shape[1])
        if self.head >= count:
            raise ResidscopeError("head", f"Layer {self.layer} of this model has only {count} heads.")
        attention = view.model.blocks[self.layer].attn
        if view.has(self.name("hook_kv_latent")) or hasattr(attention, "kv_a_proj_with_mqa"):
            raise ResidscopeError(
                "attention",
                f"Layer {self.layer} has latent attention (it compresses keys and values): its attention scores cannot "
                "be attributed yet. Its patterns, and the heads' contributions to logits, can be shown.",
            )
        if not view.has(self.name("hook_k")) and view.has(self.name("hook_q")) and not _has_keys(attention):
            raise ResidscopeError(
                "attention",
                f"Layer {self.layer} has no keys of its own: it reads those of an earlier layer. Its attention scores "
                "cannot be attributed yet. Choose a head of a layer that has its own keys.",
            )
        return count

    @cached_property
    def width(self) -> int:
        """The width of a head's queries and keys."""
        for name in (self.name("hook_k"), self.name("hook_q")):
            if self.view.has(name) and self.view.get(name).ndim == 4:
                return int(self.view.get(name).shape[-1])
        return int(self.view.cfg.d_head)

    @cached_property
    def groups(self) -> int:
        """The number of key/value heads."""
        name = self.name("hook_k")
        if self.view.has(name):
            keys = self.view.get(name)
            units = int(keys.shape[2:].numel())
        else:
            attention, units = self.view.model.blocks[self.layer].attn, 0
            count = getattr(self.view.cfg, "n_key_value_heads", None) or self.heads
            units = int(count) * self.width
            if not hasattr(attention, "k") and not hasattr(attention, "W_K"):
                raise not_cached(name)
        if units % self.width or self.heads % max(units // self.width, 1):
            raise ResidscopeError(
                "attention",
                f"The keys of layer {self.layer} have {units} numbers at each position, which cannot be divided into "
                f"{self.heads} heads of width {self.width}: its attention scores cannot be attributed.",
            )
        return units // self.width

    def index(self, side: SideName) -> int:
        """The index of the head in the layer's queries, or the index of its group in the layer's keys."""
        return self.head if side == "q" else self.head * self.groups // self.heads

    def count(self, side: SideName) -> int:
        """The number of heads in the layer's queries, or in its keys."""
        return self.heads if side == "q" else self.groups

    # --- queries and keys --------------------------------------------------------------------------------------------
    def raw(self, side: SideName, positions: Int[Tensor, "batch read"]) -> Float[Tensor, "batch read d_head"]:
        """The output of the projection: cached, or computed from the stream and the weights."""
        name = self.name(f"hook_{side}")
        if self.view.has(name):
            return self.every(side, positions)[:, :, self.index(side)]
        found = self.projected(side)
        return self.project(found, self.stream(positions), positions)

    def every(self, side: SideName, positions: Int[Tensor, "batch read"]) -> Float[Tensor, "batch read head d_head"]:
        """The queries or keys of all heads of the layer."""
        vectors = gather(self.view.get(self.name(f"hook_{side}")), positions)
        units = vectors.reshape(*vectors.shape[:2], -1)
        each = units.shape[-1] // self.count(side)
        if units.shape[-1] % self.count(side) or each < self.width:
            raise ResidscopeError(
                "attention",
                f"`{self.name(f'hook_{side}')}` cannot be divided into {self.count(side)} heads of width {self.width}: "
                "the attention scores of this layer cannot be attributed.",
            )
        units = rearrange(units, "batch read (head unit) -> batch read head unit", unit=each)
        return units[..., : self.width]  # a gate may follow each head's queries

    def map(self, side: SideName) -> HeadMap:
        """The projection's weights."""
        return head_map(self.view, self.layer, side, self.index(side), self.count(side), self.width)

    @cached_property
    def point(self) -> Point:
        """The point of the stream that attention reads, and the norm through which it is read."""
        return attention_point(self.view, self.layer)

    @cached_property
    def norm(self) -> Norm:
        """The norm before attention. If there is none, a `Norm` that leaves the stream unchanged."""
        return self.point.parameters(self.view)

    def stream(self, positions: Int[Tensor, "batch read"]) -> Float[Tensor, "batch read d_model"]:
        """The stream before the layer."""
        return gather(self.view.get(self.point.stream(self.view)), positions)

    def scale(self, positions: Int[Tensor, "batch read"]) -> Float[Tensor, "batch read"]:
        """The scale of the norm before attention."""
        if not self.point.has_scale(self.view):
            return self.norm.scale(self.stream(positions))
        return gather(self.view.get(self.point.scale_name), positions).squeeze(-1)

    def read(self, x: Float[Tensor, "batch read d_model"], positions: Int[Tensor, "batch read"]) -> Tensor:
        """The input of the projection: the norm's output for `x`, with the norm's scale frozen as in this run."""
        norm = self.norm
        if not norm.divides:
            return x
        return norm.weighted(norm.centre(x) / self.scale(positions).unsqueeze(-1))

    def project(self, found: Projected, x: Tensor, positions: Int[Tensor, "batch read"]) -> Tensor:
        """The queries or keys that the projection computes from vectors `x` of the stream."""
        units = self.read(x, positions) @ found.map.matrix.to(x) * found.factor
        return units if found.map.bias is None else units + found.map.bias.to(units)

    def projected(self, side: SideName) -> Projected:
        """Return the map from the stream to this head's queries or keys, checked against the cached queries or keys.

        Raises:
            ResidscopeError: If the cached queries or keys do not follow from the stream and the weights.
        """
        run = replace(self, view=self.view.root)
        # The weights themselves are not kept, because the user may change or free them.
        factor = run.view.memo.once(("projected", self.layer, self.head, side), lambda: (run._factor(side),))[0]
        return Projected(self.map(side), factor)

    def _factor(self, side: SideName) -> float:
        """The factor by which the model multiplies y @ matrix: 1, unless the cache shows another one."""
        name, weights = self.name(f"hook_{side}"), self.map(side)
        if not self.view.has(name):
            return 1.0
        some = self.only(prompts_of(self.view))
        positions = sampled(some.view, _SOME)
        written = some.read(some.stream(positions), positions) @ weights.matrix.to(some.view.like)
        cached = some.raw(side, positions)
        target = cached if weights.bias is None else cached - weights.bias.to(cached)
        step = some.view.rounding_step(name, self.point.stream(self.view))
        size, factor, error = cached.norm().clamp(min=1e-30), 1.0, float("inf")
        for _ in range(2):
            error = float((written * factor - target).norm() / size)
            if error != error:
                check_finite(self.view, cached, written)
            if error <= max(2e-5, 4 * step):
                return factor
            factor = float((written * target).sum() / written.pow(2).sum().clamp(min=1e-30))
        raise ResidscopeError(
            "attention",
            f"The {WORDS[side]} in this cache (`{name}`) do not follow from the weights and the stream before layer "
            f"{self.layer} (relative error {error:.2g}): the weights have changed since the cache was made, a hook "
            "changed the activations, or the model computes them in another way. Make the cache again with the "
            "present weights.",
        )

    # --- scores ------------------------------------------------------------------------------------------------------
    @cached_property
    def truth(self) -> str:
        """The name of the activation that scores are taken from: `hook_attn_scores`, or else `hook_pattern`.

        For a pattern, the logarithm is used. If `hook_attn_scores` holds the pattern itself, `hook_pattern` is used.
        """
        run = replace(self, view=self.view.root)
        return run.view.memo.once(("truth", self.layer), lambda: (run._truth(),))[0]

    def _truth(self) -> str:
        scores, pattern = self.name("hook_attn_scores"), self.name("hook_pattern")
        if not self.view.has(scores):
            return pattern
        few = slice(None, None, max(1, self.view.n_pos // _SOME))  # only some destinations of a long prompt
        held = self.view.get(scores)[:_PROMPTS, :, few]
        rows = working(held)
        positive = bool((rows >= 0).all()) and bool(rows.isfinite().all())
        sums_to_one = positive and float((rows.sum(-1) - 1).abs().max()) <= max(1e-3, 8 * step_of(held.dtype))
        if self.view.has(pattern):
            paid = working(self.view.get(pattern)[:_PROMPTS, :, few])
            if (positive and float((paid - rows).abs().max()) < 1e-6) or (sums_to_one and held.shape[-1] > 1):
                return pattern
            return scores
        return pattern if sums_to_one else scores

    @property
    def from_pattern(self) -> bool:
        """Whether scores are logarithms of the pattern: each row then differs from the true scores by a constant."""
        return self.truth.endswith("hook_pattern")

    def scores(
        self, destinations: Int[Tensor, "batch read"], *, without_nan: bool = False
    ) -> tuple[Float[Tensor, "batch read source"], Bool[Tensor, "batch read source"]]:
        """The scores at some destinations, and which sources are not masked.

        NaN is refused. With `without_nan`, it counts as masked instead.
        """
        rows = self._rows(self.truth, destinations)
        known = self.visible(destinations, without_nan=without_nan)
        if self.from_pattern:
            rows = rows.clamp(min=smallest_attention(self.view.get(self.truth).dtype)).log()
        return rows.masked_fill(~known, 0.0), known

    def attention(self, destinations: Int[Tensor, "batch read"]) -> Float[Tensor, "batch read source"]:
        """The attention that the head pays to each source at some destinations."""
        name = self.name("hook_pattern")
        if self.view.has(name):
            return self._rows(name, destinations)
        if not self.view.has(self.name("hook_attn_scores")):
            raise not_cached(name)
        rows = self._rows(self.name("hook_attn_scores"), destinations)
        known = (rows > MASKED) & rows.isfinite()
        return rows.masked_fill(~known, float("-inf")).softmax(-1)

    @cached_property
    def ends(self) -> Padding:
        """Where each prompt begins and ends."""
        return padding(self.view)

    def visible(
        self, destinations: Int[Tensor, "batch read"], *, without_nan: bool = False
    ) -> Bool[Tensor, "batch read source"]:
        """Which sources the head may attend to: those that are neither masked nor padding.

        NaN is refused. With `without_nan`, it counts as masked instead.
        """
        rows = self._rows(self.truth, destinations)
        if not without_nan:
            self._check_nan(self.truth, rows, destinations)
        if self.from_pattern:
            known = rows > smallest_attention(self.view.get(self.truth).dtype)
        else:
            known = (rows > MASKED) & rows.isfinite()
            if self.view.has(self.name("hook_pattern")):
                paid = self._rows(self.name("hook_pattern"), destinations)
                if not without_nan:
                    self._check_nan(self.name("hook_pattern"), paid, destinations)
                known &= paid > 0
        return known & self.ends.mask.to(rows.device)[:, None]

    def _check_nan(self, name: str, rows: Tensor, destinations: Int[Tensor, "batch read"]) -> None:
        """Refuse NaN between real tokens. It would count as masked."""
        real = self.ends.mask.to(rows.device)
        between = real.gather(1, destinations.to(rows.device))[..., None] & real[:, None]
        bad = rows.isnan() & between
        if bool(bad.any()):
            prompt, row, source = bad.nonzero()[0].tolist()
            raise ResidscopeError(
                "not-finite",
                f"`{name}` holds NaN for L{self.layer}H{self.head}, from {int(destinations[prompt, row])} to {source}: "
                "the scores of this head cannot be attributed.",
            )

    def _rows(self, name: str, destinations: Int[Tensor, "batch read"]) -> Tensor:
        import torch

        held = self.view.get(name)
        prompts = torch.arange(held.shape[0], device=held.device)[:, None]
        return working(held[prompts, self.head, destinations.to(held.device)])


def smallest_attention(kind: object) -> float:
    """The value up to which attention in this dtype is too small for a useful logarithm."""
    import torch

    return 6e-5 if kind is torch.float16 else 1e-30


def _has_keys(attention: object) -> bool:
    module = getattr(attention, "k", None)
    return getattr(module, "original_component", module) is not None or hasattr(attention, "_W_K")


_SOME = 8
"""About this many positions of a prompt are compared."""

_PROMPTS = 4
"""The largest number of prompts that are compared."""


def prompts_of(view: CacheView) -> range:
    """The first prompts, at most `_PROMPTS`."""
    return range(min(view.batch, _PROMPTS))


def sampled(view: CacheView, most: int) -> Int[Tensor, "batch read"]:
    """`most` evenly spread real positions of each prompt, from the first to the last. Positions may repeat."""
    import torch

    ends = padding(view)
    rows = [
        [round(begin + (end - begin) * step / max(most - 1, 1)) for step in range(most)]
        for begin, end in zip(ends.first, ends.last, strict=True)
    ]
    return torch.tensor(rows, device="cpu")


def gather(
    tensor: Float[Tensor, "batch pos ..."], positions: Int[Tensor, "batch read"]
) -> Float[Tensor, "batch read ..."]:
    """Rows at some positions of each prompt, in the working precision."""
    import torch

    prompts = torch.arange(tensor.shape[0], device=tensor.device)[:, None]
    return working(tensor[prompts, positions.to(tensor.device)])
