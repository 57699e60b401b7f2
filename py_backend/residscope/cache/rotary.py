"""The stages between a head's projection and its scores: norms and rotations of queries and keys.

The scales of norms are frozen as in the run. No code here depends on a model's name. `kinds` lists the rotations that
the cache and the modules allow, and `score_rule_search` compares their results with the cached scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from residscope.cache.view import CacheView

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """A rotation of pairs of a head's dimensions by angles that depend on the position.

    Attributes:
        first: The first dimension of each pair.
        second: The second dimension of each pair.
        cos: The cosines: one row for all prompts, or one for each prompt.
        sin: The sines. The sign of the sines gives the direction of the rotation.
    """

    first: Int[Tensor, " pair"]
    second: Int[Tensor, " pair"]
    cos: Float[Tensor, "#batch pos pair"]
    sin: Float[Tensor, "#batch pos pair"]

    def at(self, prompts: range, positions: Int[Tensor, "#batch read"]) -> Rotation:
        """Return the rotation at some positions of some prompts."""
        import torch

        tables = (
            table if table.shape[0] == 1 else table[prompts.start : prompts.stop] for table in (self.cos, self.sin)
        )
        where = positions.to(self.cos.device)
        cos, sin = (table[torch.arange(table.shape[0], device=table.device)[:, None], where] for table in tables)
        return Rotation(self.first, self.second, cos, sin)

    def apply(self, x: Float[Tensor, "batch read ... d_head"]) -> Float[Tensor, "batch read ... d_head"]:
        """Rotate vectors."""
        return self._turned(x, self.sin)

    def transpose(self, x: Float[Tensor, "batch read ... d_head"]) -> Float[Tensor, "batch read ... d_head"]:
        """Apply the transposed rotation.

        For every vector v: x · apply(v) = transpose(x) · v.
        """
        return self._turned(x, -self.sin)

    def _turned(self, x: Tensor, sin: Tensor) -> Tensor:
        cos, turned = self.cos, x.clone()
        for _ in range(x.ndim - 3):
            cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
        a, b = x[..., self.first], x[..., self.second]
        turned[..., self.first], turned[..., self.second] = a * cos - b * sin, a * sin + b * cos
        return turned


@dataclass(frozen=True)
class FrozenNorm:
    """A norm on one head's queries or keys, with its scale frozen.

    Attributes:
        centres: Whether it subtracts the mean.
        weight: Its weight for this head, if it has one.
        bias: Its bias for this head, if it has one.
        scale: The scale that the norm divides by, at each position.
    """

    centres: bool
    weight: Float[Tensor, " d_head"] | None
    bias: Float[Tensor, " d_head"] | None
    scale: Float[Tensor, "batch read"]

    def apply(self, x: Float[Tensor, "batch read ... d_head"]) -> Float[Tensor, "batch read ... d_head"]:
        """Return the norm's output for `x`, without the norm's bias."""
        x = (x - x.mean(-1, keepdim=True) if self.centres else x) / self._scale(x)
        return x if self.weight is None else x * self.weight

    def transpose(self, x: Float[Tensor, "batch read ... d_head"]) -> Float[Tensor, "batch read ... d_head"]:
        """Apply the transposed norm.

        For every vector v: x · apply(v) = transpose(x) · v.
        """
        x = x if self.weight is None else x * self.weight
        return (x - x.mean(-1, keepdim=True) if self.centres else x) / self._scale(x)

    def _scale(self, x: Tensor) -> Tensor:
        return self.scale.reshape(*self.scale.shape, *[1] * (x.ndim - 2))


Stage = Rotation | FrozenNorm


@dataclass(frozen=True)
class HeadVectors:
    """The queries or keys of one head at some positions, as the model uses them in scores.

    Attributes:
        raw: The output of the projection.
        stages: The norms and rotations after the projection, in the model's order.
    """

    raw: Float[Tensor, "batch read d_head"]
    stages: tuple[Stage, ...]

    @property
    def used(self) -> Float[Tensor, "batch read d_head"]:
        """The queries or keys after all stages, as in the scores."""
        return self.linear(self.raw) + self.added

    @property
    def added(self) -> Float[Tensor, "batch read d_head"]:
        """The part of `used` that comes from the biases of norms."""
        x = self.raw * 0
        for stage in self.stages:
            x = stage.apply(x)
            if isinstance(stage, FrozenNorm) and stage.bias is not None:
                x = x + stage.bias
        return x

    def linear(self, x: Float[Tensor, "batch read ... d_head"]) -> Float[Tensor, "batch read ... d_head"]:
        """Apply all stages, without biases, to vectors that are terms of the projection's output."""
        for stage in self.stages:
            x = stage.apply(x)
        return x

    def pull(self, u: Float[Tensor, "batch read d_head"]) -> Float[Tensor, "batch read d_head"]:
        """Return a functional of `used` as a functional of the projection's output, without biases."""
        for stage in reversed(self.stages):
            u = stage.transpose(u)
        return u

    def pull_apart(
        self, u: Float[Tensor, "batch d_head"]
    ) -> tuple[Float[Tensor, "batch d_head"], Float[Tensor, "batch read"]] | None:
        """Return the result of `pull` as one vector for all positions, and a factor for each position.

        None if there is a rotation, because each position then needs its own vector.
        """
        factor = u.new_ones(self.raw.shape[:2])
        for stage in reversed(self.stages):
            if isinstance(stage, Rotation):
                return None
            factor = factor / stage.scale
            u = replace(stage, scale=u.new_ones(len(u), 1)).transpose(u[:, None])[:, 0]
        return u, factor


# --- candidates ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RotationKind:
    """A kind of rotation: the table of its angles, its pairs of dimensions, and its direction.

    Attributes:
        table: The key of the table in the result of `tables`.
        adjacent: Whether the two dimensions of a pair are neighbours. If not, they are half the rotated width apart.
        at_end: Whether the last dimensions of the head are rotated instead of the first, if only some are rotated.
        reverse: Whether the angles have the opposite sign.
    """

    table: str
    adjacent: bool
    at_end: bool
    reverse: bool


def kinds(names: list[str], tables: dict[str, tuple[Tensor, Tensor]], width: int) -> Iterator[RotationKind]:
    """Yield the rotations that these tables allow for heads of this width, the usual ones first."""
    for name in names:
        partial = 2 * tables[name][0].shape[-1] < width
        for reverse in (False, True):
            for at_end in (False, True)[: 1 + partial]:
                for adjacent in (False, True):
                    yield RotationKind(name, adjacent, at_end, reverse)


def rotation(kind: RotationKind, tables: dict[str, tuple[Tensor, Tensor]], width: int) -> Rotation:
    """Return the rotation of this kind, with the angles of its table."""
    import torch

    cos, sin = tables[kind.table]
    count = cos.shape[-1]
    start = width - 2 * count if kind.at_end else 0
    each = torch.arange(count, device=cos.device)
    first = start + (2 * each if kind.adjacent else each)
    return Rotation(first, first + (1 if kind.adjacent else count), cos, -sin if kind.reverse else sin)


IN_CACHE = "cache"
"""The key of the cached table in the result of `tables`."""


def tables(view: CacheView, layer: int, width: int, only: str | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return cosines and sines `[#batch, pos, pair]` that a layer may use. Their keys say where they were found.

    Args:
        view: The cache.
        layer: The layer.
        width: The width of a head.
        only: The key of the table that is needed, if it is known. For `IN_CACHE`, only the cached table is returned,
            and no module is read. For any other key, all tables are returned.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}
    names = [f"blocks.{layer}.attn.hook_{part}" for part in ("cos", "sin")]
    if all(map(view.has, names)):
        cached = [t for t in (_whole(view, name) for name in names) if t is not None]
        if len(cached) == 2 and all(t.shape[1] == view.n_pos for t in cached):
            found[IN_CACHE] = _halved(cached[0]), _halved(cached[1])
    if only != IN_CACHE:
        found |= view.root.memo.once(("rotary tables", view.n_pos), lambda: _of_modules(view))
        own = getattr(view.model.blocks[layer], "attn", None)
        buffers = [_buffer(own, f"rotary_{part}") for part in ("cos", "sin")]
        kept = [t[None, : view.n_pos].to(view.like) for t in buffers if t is not None and t.ndim == 2]
        if len(kept) == 2 and all(t.shape[1] == view.n_pos for t in kept):
            found["buffers"] = _halved(kept[0]), _halved(kept[1])
    return {name: pair for name, pair in found.items() if 0 < 2 * pair[0].shape[-1] <= width}


def _whole(view: CacheView, name: str) -> Tensor | None:
    """A cached table with an axis of prompts. None if the table has neither two nor three axes."""
    tensor = view.activations[name].detach()
    tensor = tensor if tensor.ndim == 3 else tensor[None] if tensor.ndim == 2 else None
    return None if tensor is None else tensor.to(view.like)


def _halved(table: Tensor) -> Tensor:
    """One column for each pair of dimensions. The table may hold each angle twice."""
    import torch

    count = table.shape[-1]
    if count % 2 == 0:
        if torch.equal(table[..., : count // 2], table[..., count // 2 :]):
            return table[..., : count // 2]
        if torch.equal(table[..., 0::2], table[..., 1::2]):
            return table[..., 0::2]
    return table


def _buffer(module: object, name: str) -> Tensor | None:
    """A buffer of a module, or of the layer that a bridge's component wraps. None if neither has it."""
    for owner in (module, getattr(module, "original_component", None)):
        held = getattr(owner, "__dict__", {}).get("_buffers") or {}
        value = held.get(name)
        if value is not None and not value.is_meta:
            return value.detach()
    return None


def _of_modules(view: CacheView) -> dict[str, tuple[Tensor, Tensor]]:
    """Tables from frequencies and buffers in the model's modules, and then tables of the usual frequencies."""
    import torch

    found: dict[str, tuple[Tensor, Tensor]] = {}
    positions = torch.arange(view.n_pos, device=view.like.device, dtype=torch.float32)
    seen: set[tuple[float, ...]] = set()

    def add(name: str, frequencies: Tensor, factor: float = 1.0) -> None:
        key = (factor, *frequencies.tolist())
        if key in seen or len(found) >= _MOST_TABLES:
            return
        seen.add(key)
        angles = positions[:, None] * frequencies.to(positions)
        found[name] = (angles.cos()[None] * factor).to(view.like), (angles.sin()[None] * factor).to(view.like)

    for path, module in _modules(getattr(view.model, "original_model", None), view.model):
        for name, buffer in list((module.__dict__.get("_buffers") or {}).items()):
            if buffer is None or buffer.is_meta or not buffer.is_floating_point():
                continue
            if name.endswith("inv_freq") and "original" not in name and buffer.ndim == 1:
                factor = getattr(module, name.replace("inv_freq", "attention_scaling"), None)
                factor = getattr(module, "attention_scaling", 1.0) if factor is None else factor
                add(f"{path}.{name}", buffer, float(factor) if isinstance(factor, int | float) else 1.0)
            elif name == "embed_positions" and buffer.ndim == 2 and len(buffer) >= view.n_pos:
                half = buffer.shape[-1] // 2  # GPT-J keeps sines, then cosines
                table = buffer[None, : view.n_pos].to(view.like)
                found.setdefault("sinusoids", (table[..., half:], table[..., :half]))
    cfg, bases = view.cfg, [10000.0]
    for name in ("rotary_base", "rope_theta"):
        value = getattr(cfg, name, None)
        if isinstance(value, int | float) and value > 1:
            bases.insert(0, float(value))
    widths = [getattr(cfg, name, None) for name in ("rotary_dim", "d_head")]
    for base in dict.fromkeys(bases):
        for width in dict.fromkeys(w for w in widths if isinstance(w, int) and w > 1):
            add(
                f"base {base:g}, {width} dimensions", base ** (-torch.arange(0, width, 2, device="cpu").float() / width)
            )
    return found


def _modules(*roots: object) -> Iterator[tuple[str, Any]]:
    """These modules and all modules inside them, each once, with its path. A bridge holds the wrapped model twice."""
    stack, seen = [("", root) for root in reversed(roots) if hasattr(root, "named_modules")], set[int]()
    while stack:
        path, module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        parts = list((module.__dict__.get("_modules") or {}).items())
        stack += [(f"{path}.{name}" if path else name, part) for name, part in reversed(parts) if part is not None]


_MOST_TABLES = 8
"""Once `_of_modules` has this many tables, it computes no more from frequencies."""
