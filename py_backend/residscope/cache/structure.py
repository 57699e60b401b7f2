"""How a model's residual stream is put together, as its modules and its cache show it: which pieces add up to it.

Most models add `hook_attn_out` and `hook_mlp_out` to the embeddings, layer by layer. Some do not: mixers without
attention, outputs that are multiplied in a way the cache does not show, embeddings that are changed before they enter.
There the residual stream itself says what was added: the difference of two of its points.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from einops import rearrange

from residscope.cache.linear_maps import LinearMap, applied, not_so
from residscope.cache.view import CacheView
from residscope.cache.weights import figures, is_plain, tensor_of
from residscope.compute.precision import working
from residscope.errors import ResidscopeError
from residscope.terms import Component

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Terms = tuple[tuple[str, float], ...]
"""A sum of activations times factors."""

Pieces = dict[Component, Terms]
"""What rows are read from."""

OUT: dict[Literal["attn", "mlp"], Literal["attn_out", "mlp_out"]] = {"attn": "attn_out", "mlp": "mlp_out"}
"""The row of a sublayer as a whole."""


_PERHAPS = (
    ": the model does more there, a hook changed it, or the weights are not those of the cache any more (training, "
    "compatibility mode)."
)


_SCALED = " (the model scales them, or adds something else, or a hook did)"

TRAINING = (
    "The model is in training mode: if it was so when this cache was made, and has dropout, that changed at random "
    "what its parts added, and what follows may come of that. Call `model.eval()` and make the cache again."
)


def in_training(model: Any) -> bool:
    """Whether a model, or the Hugging Face model in it, is in training mode."""
    return any(getattr(part, "training", False) is True for part in (model, getattr(model, "original_model", None)))


@dataclass(frozen=True)
class Structure:
    """Which pieces a decomposition is made of.

    Attributes:
        view: The cache.
        whole: Layers whose sublayers' outputs are not what they add: shown whole, as the difference of the stream.
        entered: Whether the embeddings are read off the stream that enters layer 0, not off `hook_embed`.
        unsplit_attn: Layers whose heads do not add up to their attention's output: shown as that output.
        unsplit_mlp: Layers whose neurons do not add up to their MLP's output: shown as that output.
    """

    view: CacheView
    whole: frozenset[int] = field(default_factory=frozenset[int])
    entered: bool = False
    unsplit_attn: frozenset[int] = field(default_factory=frozenset[int])
    unsplit_mlp: frozenset[int] = field(default_factory=frozenset[int])

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from other structures of the same cache."""
        return self.whole, self.entered, self.unsplit_attn, self.unsplit_mlp, tuple(self.carries)

    def embeddings(self) -> Pieces:
        """What enters layer 0."""
        carried = self.carries[0]
        if self.entered or self.read_where_it_enters:
            return {Component("embed"): (("blocks.0.hook_resid_pre", carried),)}
        pieces: Pieces = {Component("embed"): (("hook_embed", carried),)}
        # "Shortformer" positions are added to what heads look by, and never enter the stream.
        kind = getattr(self.view.cfg, "positional_embedding_type", None)
        learned = kind == "standard" and hasattr(self.view.model, "pos_embed")
        if kind != "shortformer" and (self.view.has("hook_pos_embed") or learned):
            pieces[Component("pos_embed")] = (("hook_pos_embed", carried),)
        return pieces

    @property
    def read_where_it_enters(self) -> bool:
        """Whether what enters layer 0 was cached, and the embeddings that it comes from were not."""
        names = ["hook_embed"] + ["hook_pos_embed"] * (
            getattr(self.view.cfg, "positional_embedding_type", None) == "standard"
            and hasattr(self.view.model, "pos_embed")
        )
        return self.view.has("blocks.0.hook_resid_pre") and not all(map(self.view.has, names))

    def sublayers(self, layer: int) -> Pieces:
        """What a layer adds: attention, or what stands in its place or beside it, MLP, and what else it adds."""
        view, block, carried = self.view, self.view.model.blocks[layer], self.carries[layer]
        before, after = self.added(layer)
        if layer in self.whole:
            return {Component("layer_out", layer): (after, before)}
        mid = (f"blocks.{layer}.hook_resid_mid", carried)
        attn_out = (f"blocks.{layer}.hook_attn_out", carried * output_factor(view, layer, "attn"))
        mlp_out = (f"blocks.{layer}.hook_mlp_out", carried)
        pieces: Pieces = {}
        attends = hasattr(block, "attn") or view.has(attn_out[0])
        feeds = not getattr(view.cfg, "attn_only", False) and (hasattr(block, "mlp") or view.has(mid[0]))
        if attends:
            pieces[Component("attn_out", layer)] = (attn_out,)
        if not attends or mixes_beside(view, layer):
            end = mid if view.has(mid[0]) else after
            others = [attn_out] * attends + [mlp_out] * (feeds and end is after)
            pieces[Component("mixer_out", layer)] = (end, before, *((name, -factor) for name, factor in others))
        if feeds:
            known = hasattr(block, "mlp") or view.has(mlp_out[0])
            pieces[Component("mlp_out", layer)] = (mlp_out,) if known else (after, (mid[0], -carried))
        beside = f"blocks.{layer}.post_per_layer_input_norm.hook_out"  # an embedding of the token for each layer
        if view.has(beside):
            pieces[Component("per_layer_out", layer)] = ((beside, carried),)
        return pieces

    def cached(self, layer: int, *, without: Literal["attn", "mlp"] | None = None) -> Pieces:
        """What a layer adds, as far as it was cached: its sublayers, else what they change in the stream, in all.

        Args:
            layer: The layer.
            without: A sublayer that is told otherwise, such as `"attn"`; then the layer is not shown as a whole.
        """
        pieces = self.sublayers(layer)
        before, after = (
            (self.view.before(layer), -self.carries[layer]),
            (self.view.after(layer), self.carries[layer + 1]),
        )
        mid, carried = f"blocks.{layer}.hook_resid_mid", self.carries[layer]
        # The stream between the sublayers tells both of them, where nothing else is added.
        attn, mlp = Component("attn_out", layer), Component("mlp_out", layer)
        told: Pieces = {attn: ((mid, carried), before), mlp: (after, (mid, -carried))}
        if pieces.keys() <= told.keys():
            pieces = {
                row: terms if self.has(terms) or not self.has(told[row]) else told[row] for row, terms in pieces.items()
            }
        if without:
            pieces.pop(Component(OUT[without], layer), None)
        elif not all(map(self.has, pieces.values())) and self.has((before, after)):
            return {Component("layer_out", layer): (after, before)}
        return pieces

    def has(self, terms: Terms) -> bool:
        """Whether all activations of a piece were cached."""
        return all(self.view.has(name) for name, _ in terms)

    def added(self, layer: int) -> tuple[tuple[str, float], tuple[str, float]]:
        """What a layer adds to the stream in all, as a difference: less the stream before it, plus that after it."""
        before = (f"blocks.{layer}.hook_resid_pre", -self.carries[layer])
        return before, (f"blocks.{layer}.hook_resid_post", self.carries[layer + 1])

    @cached_property
    def carries(self) -> list[float]:
        """By what the layers from each one on multiply the whole stream (1 in most models); at the end 1."""
        blocks = list(self.view.model.blocks)
        if not self.view.facts.once(("scaled",), lambda: (any(_scalar(block) is not None for block in blocks),))[0]:
            return [1.0] * (len(blocks) + 1)
        products = [1.0]
        for block in reversed(blocks):
            scalar = _scalar(block)
            products.append(products[-1] * (1.0 if scalar is None else float(scalar)))
        return products[::-1]

    def splits_attention(self, layer: int) -> bool:
        """Whether the rows of this layer can be its heads."""
        return layer not in self.whole | self.unsplit_attn and out_weight(self.view, layer) is not None

    def splits_mlp(self, layer: int) -> bool:
        """Whether the rows of this layer can be its neurons."""
        return layer not in self.whole | self.unsplit_mlp and neuron_weight(self.view, layer) is not None

    def notes(self) -> list[str]:
        """What is not as in most models, in sentences."""
        said: list[str] = []
        odd = self.whole | self.unsplit_attn | self.unsplit_mlp | ({0} if self.entered else set[int]())
        rough = float8(self.view, odd)
        fall, perhaps, scaled = "are not all of", _PERHAPS, _SCALED
        changed = ": this model changes `hook_embed` before that, or adds more to it."
        if rough:  # what else it could be, nobody can tell
            fall, perhaps, scaled, changed = "do not add up to", ".", "", ", and not what `hook_embed` and so on hold."
            said.append(rough)
        if (self.entered or self.whole or self.unsplit_attn or self.unsplit_mlp) and in_training(self.view.model):
            said.append(TRAINING)
        if self.entered:
            said.append(f"The row `embed` is all that enters layer 0 (`blocks.0.hook_resid_pre`){changed}")
        if self.whole:
            said.append(
                f"In {named_layers(self.whole)} the outputs of attention and MLP in the cache are not what is added to "
                f"the stream{scaled}: `…_layer_out` is the layer as a whole."
            )
        if self.unsplit_attn:
            said.append(
                f"In {named_layers(self.unsplit_attn)} the heads (z @ W_O) and the bias {fall} "
                f"`hook_attn_out`, which is shown as a whole{perhaps}"
            )
        if self.unsplit_mlp:
            said.append(
                f"In {named_layers(self.unsplit_mlp)} the neurons (post @ W_out) and the bias {fall} "
                f"`hook_mlp_out`, which is shown as a whole{perhaps}"
            )
        return said


def float8(view: CacheView, layers: Iterable[int]) -> str:
    """A sentence, where activations of each of these layers were kept in float8; else nothing."""
    import torch

    kinds: set[torch.dtype] = set()
    for layer in layers:
        own = (tensor.dtype for name, tensor in view.activations.items() if name.startswith(f"blocks.{layer}."))
        found = {kind for kind in own if kind.is_floating_point and kind.itemsize == 1}
        if not found:
            return ""
        kinds |= found
    if not kinds:
        return ""
    named = " and ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
    off = max(torch.finfo(kind).eps for kind in kinds) / 2
    return (
        f"This cache was kept in {named}, numbers of 8 bits, each up to {off:.0%} off: too coarse to tell whether "
        "parts add up to a whole. Make it again and keep it in bfloat16 (`.to(torch.bfloat16)`) or finer."
    )


def unsplit_heads(view: CacheView, layers: Sequence[int]) -> str:
    """What to say of layers whose heads do not add up to what attention writes."""
    where, rough = f"In {named_layers(layers)} the heads (z @ W_O) and the bias", float8(view, layers)
    if rough:
        return f"{rough} {where} do not add up to `hook_attn_out`."
    return f"{where} are not all of `hook_attn_out`{_PERHAPS}"


def _scalar(block: Any) -> Any:
    return getattr(getattr(block, "original_component", None), "layer_scalar", None)


def output_factor(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> float:
    """By what a layer multiplies what `hook_attn_out`, or `mlp.hook_post` @ W_out, holds, before it adds it."""
    block = view.model.blocks[layer]
    owner = block if part == "attn" else getattr(block, "mlp", None)
    name = {"attn": "attn_out_multiplier", "mlp": "down_multiplier"}[part]
    factor = getattr(getattr(owner, "original_component", None), name, None)
    return float(factor) if isinstance(factor, int | float) else 1.0


def mixes_beside(view: CacheView, layer: int) -> bool:
    """Whether another mixer stands beside attention and adds its own output."""
    block = view.model.blocks[layer]
    return hasattr(block, "attn") and any(
        view.has(f"blocks.{layer}.{name}.hook_out") for name in ("mamba", "mixer", "ssm")
    )


def out_weight(view: CacheView, layer: int) -> Float[Tensor, "head d_head d_model"] | None:
    """The weights that heads write with; None where a layer has no heads, or they cannot be read (`why_unread`)."""
    return _writes(view, layer, "attn")[0]


def out_bias(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> Float[Tensor, " d_model"] | None:
    """The bias that a sublayer adds to what its parts write."""
    return _writes(view, layer, part)[1]


def why_unread(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> str | None:
    """Why the weights that a sublayer writes with cannot be read, in a sentence; None where they can, or are not."""
    return _writes(view, layer, part)[2]


def coarse(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> float:
    """How far what a sublayer writes may be from that, relatively, where its own arithmetic is coarse."""
    return _writes(view, layer, part)[3]


_Written = tuple["Tensor | None", "Tensor | None", str | None, float, int]


def _writes(view: CacheView, layer: int, part: Literal["attn", "mlp"]) -> _Written:
    """The weight that a sublayer writes with, its bias, why they cannot be read, how coarse it is, and its bytes."""
    z = view.activations.get(f"blocks.{layer}.attn.hook_z") if part == "attn" else None
    shape = None if z is None else tuple(z.shape[-2:])
    sublayer = getattr(view.model.blocks[layer], part, None)
    module = getattr(sublayer, {"attn": "o", "mlp": "out"}[part], None)
    plain = view.facts.once(("plain", layer, part), lambda: (module is None or is_plain(module),))[0]
    key = ("writes", layer, part, shape)
    odd = None if plain else module
    found = view.facts.once(key, lambda: _read(view, part, sublayer, odd, shape), lambda kept: kept[-1])
    if found[0] is None or not found[4]:
        return found
    # What a layer does to vectors that are made up, it need not do to those that it read in this run.
    run, matrix = view.root, found[0].flatten(0, -2)
    tried = ("tried", *key)
    why = run.memo.once(tried, lambda: (_tried(run, layer, part, odd, LinearMap(matrix, found[1])),))[0]
    return found if why is None else (None, None, why, 0.0, 0)


def _tried(view: CacheView, layer: int, part: Literal["attn", "mlp"], odd: Any, found: LinearMap) -> str | None:
    name = f"blocks.{layer}.{'attn.hook_z' if part == 'attn' else 'mlp.hook_post'}"
    read = view.activations.get(name)
    if read is None or read.numel() == 0 or read.numel() % found.matrix.shape[0]:
        return None
    return not_so(odd, view, found, working(read.detach()).reshape(-1, found.matrix.shape[0]))


def _read(
    view: CacheView, part: Literal["attn", "mlp"], sublayer: Any, odd: Any, shape: tuple[int, ...] | None
) -> _Written:
    try:
        if odd is not None:
            found = applied(odd, view, None if shape is None else shape[0] * shape[1])
            matrix = found.matrix
            if part == "attn":
                heads = int(view.cfg.n_heads) if shape is None else shape[0]
                if matrix.shape[0] % heads:
                    return None, None, None, 0.0, 0
                matrix = rearrange(matrix, "(head d_head) d_model -> head d_head d_model", head=heads)
            return matrix, found.bias, None, found.coarse, found.size
        name = {"attn": "b_O", "mlp": "b_out"}[part]
        bias = tensor_of(getattr(sublayer, name, None))
        matrix = _out_weight(sublayer, shape) if part == "attn" else _neuron_weight(sublayer)
        for tensor in (matrix, bias):
            if tensor is not None:
                figures(sublayer, {"attn": "W_O", "mlp": "W_out"}[part], tensor)
        return matrix, bias, None, 0.0, 0
    except ResidscopeError as error:
        if error.code != "weights":
            raise
        return None, None, str(error), 0.0, 0


def _out_weight(attention: Any, shape: tuple[int, ...] | None) -> Tensor | None:
    with suppress(Exception):  # TransformerLens refuses it where layers differ in their number or width of heads
        W_O = tensor_of(getattr(attention, "W_O", None))
        if W_O is not None and W_O.ndim == 3:
            return W_O
    weight = tensor_of(getattr(getattr(attention, "o", None), "weight", None))
    if weight is None or shape is None or weight.shape[-1] != shape[0] * shape[1]:
        return None
    return rearrange(weight, "d_model (head d_head) -> head d_head d_model", head=shape[0])


def neuron_weight(view: CacheView, layer: int) -> Float[Tensor, "d_mlp d_model"] | None:
    """The weights that neurons write with; None where an MLP is not one matrix of them (a mixture of experts)."""
    return _writes(view, layer, "mlp")[0]


def _neuron_weight(mlp: Any) -> Tensor | None:
    W_out = None
    with suppress(NotImplementedError):  # TransformerLens shows no packed weight
        W_out = tensor_of(getattr(mlp, "W_out", None))
    return W_out if W_out is not None and W_out.ndim == 2 else None


def named_layers(layers: Iterable[int]) -> str:
    """Layers in words: "layer 3", "the layers 0, 1, 2", "the layers 0 to 29"."""
    ordered = sorted(layers)
    if len(ordered) == 1:
        return f"layer {ordered[0]}"
    if len(ordered) > 3 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"the layers {ordered[0]} to {ordered[-1]}"
    return f"the layers {', '.join(map(str, ordered))}"
