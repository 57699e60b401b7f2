"""The rows of each decomposition: what a part of the model writes into the target.

Weights are projected onto the target's direction first, so no tensor has a `d_model` axis per head or per neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from einops import rearrange

from residscope.attribution.readout import Functional, Readout
from residscope.cache.norms import Norm
from residscope.cache.structure import (
    Pieces,
    Structure,
    Terms,
    coarse,
    float8,
    neuron_weight,
    out_bias,
    out_weight,
    why_unread,
)
from residscope.cache.view import CacheView, not_cached
from residscope.compute.memo import size_of
from residscope.compute.progress import report_progress
from residscope.compute.projection import distinct, dots, project
from residscope.errors import ResidscopeError
from residscope.terms import By, Component, ComponentKind

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows; the first `parts` of them are what was asked for (heads, neurons), the others the rest.

    `missing` names the activations whose rows are left out, since they were not cached.
    """

    components: list[Component]
    values: Float[Tensor, "component batch pos"]
    parts: int | None = None
    step: Float[Tensor, "component 1 1"] | float = 0.0
    """The relative rounding step of each row, by the precision of what it was read from; 0 where it was not asked."""
    missing: tuple[str, ...] = ()
    split: tuple[int, ...] = ()
    """The layers whose parts were told apart."""

    @property
    def rest(self) -> list[Component]:
        """The rows beside what was asked for; all, where nothing was told apart."""
        return self.components[self.parts or 0 :]

    def sum(self, layer: int, *kinds: ComponentKind) -> Float[Tensor, "batch pos"] | None:
        """What the rows of a layer, or those of these kinds in it, add up to; None where there is none."""
        own = self._of_layer.get(layer, ())
        places = [i for i in own if self.components[i].kind in kinds] if kinds else [*own]
        return self.values[places].sum(0) if places else None

    @cached_property
    def _of_layer(self) -> dict[int | None, list[int]]:
        found: dict[int | None, list[int]] = {}
        for i, row in enumerate(self.components):
            found.setdefault(row.layer, []).append(i)
        return found


@dataclass(frozen=True)
class Plan:
    """Which rows a decomposition has.

    Attributes:
        pieces: Pieces of the stream, a row each.
        split: Layers that are told apart into heads or neurons; these rows come first, then the layers' biases.
        part: What is split: attention into heads, or the MLP into neurons.
        recomputed: Whether the final norm is computed afresh from each piece.
        missing: The activations whose rows are left out, since they were not cached.
    """

    pieces: Pieces
    split: tuple[int, ...] = ()
    part: Literal["attn", "mlp"] = "attn"
    recomputed: bool = False
    missing: tuple[str, ...] = ()

    def cached(self, view: CacheView) -> Plan:
        """The same rows, as far as their activations were cached.

        Raises:
            ResidscopeError: If there is none; the sentence names the activations.
        """
        lacks = {row: [n for n, _ in terms if not view.has(n)] for row, terms in self.pieces.items()}
        missing = tuple(dict.fromkeys([*self.missing, *(name for names in lacks.values() for name in names)]))
        pieces = {row: terms for row, terms in self.pieces.items() if not lacks[row]}
        if not pieces and not self.split:
            raise not_cached(*missing)
        return replace(self, pieces=pieces, missing=missing)


def reads(view: CacheView, by: By) -> list[str]:
    """The activations that a decomposition is made from, as far as every model has them."""

    def every(*names: str) -> list[str]:
        return [f"blocks.{layer}.{name}" for name in names for layer in range(view.n_layers)]

    match by:
        case "head":
            return every("attn.hook_z")
        case "source":
            return every("attn.hook_pattern", "attn.hook_v", "attn.hook_z")
        case "neuron":
            return every("mlp.hook_post")
        case "layer":
            return every("hook_attn_out", "hook_mlp_out")
        case "accumulated":
            return [] if view.points() else every("hook_resid_post")


def accumulated(structure: Structure, *, recomputed: bool) -> Plan:
    """The stream before each layer, between its sublayers (where the model has such a point), and at the end."""
    view, carries = structure.view, structure.carries
    if not view.points():
        raise not_cached(*(f"blocks.{layer}.hook_resid_post" for layer in range(view.n_layers)))
    pieces: Pieces = {}
    for layer in range(view.n_layers):
        # Recomputed, the norm makes good any factor; held, the layers' own factors are held, too.
        carried = 1.0 if recomputed else carries[layer]
        pieces[Component("pre", layer)] = ((view.before(layer), carried),)
        if view.has(f"blocks.{layer}.hook_resid_mid"):  # blocks with attention and MLP side by side have none
            pieces[Component("mid", layer)] = ((f"blocks.{layer}.hook_resid_mid", carried),)
    pieces[Component("final_post")] = ((f"blocks.{view.n_layers - 1}.hook_resid_post", 1.0),)
    return Plan(pieces, recomputed=recomputed).cached(view)


def layers(structure: Structure) -> Plan:
    """The embeddings, and each layer's attention and MLP output."""
    view, count = structure.view, structure.view.n_layers
    added = [structure.cached(layer) for layer in range(count)]
    pieces = structure.embeddings()
    # What was written before the first point of the stream that was cached is one row, where its parts were not.
    start = next((layer for layer in range(count) if view.has(view.before(layer))), 0)
    if not all(structure.has(terms) for part in (pieces, *added[:start]) for terms in part.values()) and start > 0:
        whole: Terms = ((view.before(start), structure.carries[start]),)
        pieces, added = {Component("pre", start): whole}, added[start:]
    if not any(structure.has(terms) for part in added for terms in part.values()):  # the embeddings alone say nothing
        every = [name for part in (pieces, *added) for terms in part.values() for name, _ in terms]
        raise not_cached(*(name for name in every if not view.has(name)))
    for part in added:
        pieces |= part
    return Plan(pieces).cached(view)


def heads(structure: Structure) -> Plan:
    """Every head (layer-major), each layer's attention bias, then all other sublayers and the embeddings.

    Raises:
        ResidscopeError: If no layer has heads that add up to what it writes.
    """
    wanted = [layer for layer in range(structure.view.n_layers) if structure.splits_attention(layer)]
    if not wanted:
        why = "Its layers have no attention with a `W_O` and a `hook_z`."
        raise ResidscopeError("no-heads", _refusal(structure, "attention heads", why))
    return _split(structure, wanted, "attn", "attn.hook_z")


def neurons(structure: Structure, wanted: Sequence[int]) -> Plan:
    """Every MLP neuron of the wanted layers, their MLP biases, then all other sublayers and the embeddings.

    Raises:
        ResidscopeError: If no wanted layer has neurons that add up to what it writes.
    """
    wanted = [layer for layer in sorted(set(wanted)) if structure.splits_mlp(layer)]
    if not wanted:
        why = "Its layers have no MLP with a single W_out; a mixture of experts has several."
        raise ResidscopeError("no-neurons", _refusal(structure, "MLP neurons", why))
    return _split(structure, wanted, "mlp", "mlp.hook_post")


def _split(structure: Structure, wanted: Sequence[int], part: Literal["attn", "mlp"], read: str) -> Plan:
    """The parts of these layers' sublayers, their biases, then every other piece as a whole.

    Raises:
        ResidscopeError: If what the parts are read from was cached in none of these layers.
    """
    view = structure.view
    missing = [f"blocks.{layer}.{read}" for layer in wanted if not view.has(f"blocks.{layer}.{read}")]
    if len(missing) == len(wanted):
        raise not_cached(missing[0])
    there = [layer for layer in wanted if f"blocks.{layer}.{read}" not in missing]
    pieces: Pieces = {}
    for layer in range(view.n_layers):
        pieces |= structure.cached(layer, without=part) if layer in there else structure.cached(layer)
    return Plan(pieces | structure.embeddings(), tuple(there), part, missing=tuple(missing)).cached(view)


PART: dict[Literal["attn", "mlp"], Literal["head", "neuron"]] = {"attn": "head", "mlp": "neuron"}
"""The parts of a sublayer."""

BIAS: dict[Literal["attn", "mlp"], Literal["attn_bias", "mlp_bias"]] = {"attn": "attn_bias", "mlp": "mlp_bias"}
"""What a sublayer adds beside its parts."""


@cache
def parts_of(layer: int, part: Literal["attn", "mlp"], count: int) -> tuple[Component, ...]:
    """A layer's heads or neurons. There may be a hundred thousand neurons."""
    return tuple(Component(PART[part], layer, index) for index in range(count))


def rows_of(readout: Readout, plan: Plan) -> Rows:
    """The rows of a plan, each read off the activations by its projection onto the target."""
    import torch

    split = {"attn": layer_heads, "mlp": layer_neurons}[plan.part]
    parts: list[Component] = []
    values: list[Tensor] = []
    biases: dict[Component, Tensor] = {}
    total = len(plan.split) + len(plan.pieces)
    for layer in plan.split:
        report_progress(len(values), total)
        worth, bias = split(readout, layer)
        values.append(worth)
        parts += parts_of(layer, plan.part, worth.shape[0])
        if bias is not None:
            biases[Component(BIAS[plan.part], layer)] = bias
    worth = readout.recomputed if plan.recomputed else readout.functional
    rows = [*values, *(bias.unsqueeze(0) for bias in biases.values())]
    if plan.pieces:
        rows.append(worth_of(readout, worth, plan.pieces.values(), len(plan.split)))
    return Rows([*parts, *biases, *plan.pieces], torch.cat(rows), len(parts) if plan.split else None)


Worth = Callable[["Tensor"], "Tensor"]


def layer_heads(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "head batch pos"], Float[Tensor, "batch pos"] | None]:
    """What each head of a layer is worth, and the layer's bias row, if it has one."""
    direction, divisor, bias = head_directions(readout, layer)
    z = head_outputs(readout.view, readout.positions, layer, tuple(direction.shape[1:]))
    return dots(z, direction) / divisor, bias


def layer_neurons(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "neuron batch pos"], Float[Tensor, "batch pos"] | None]:
    """What each neuron of a layer is worth, and the MLP's bias row, if it has one."""
    direction, divisor, bias = neuron_directions(readout, layer)
    post = readout.view.rows(f"blocks.{layer}.mlp.hook_post", readout.positions)
    worth = post * rearrange(direction, "batch neuron -> batch 1 neuron")
    return rearrange(worth, "batch pos neuron -> neuron batch pos") / divisor, bias


def head_outputs(
    view: CacheView, positions: Int[Tensor, " batch"] | None, layer: int, cut: tuple[int, ...]
) -> Float[Tensor, "batch pos head d_head"]:
    """`hook_z`, cut into heads as the weights are: latent attention has values of another width than its keys."""
    z = view.raw(f"blocks.{layer}.attn.hook_z", positions)
    if tuple(z.shape[-2:]) == cut:
        return z
    units = rearrange(z, "batch pos head d_head -> batch pos (head d_head)")
    return rearrange(units, "batch pos (head d_head) -> batch pos head d_head", head=cut[0], d_head=cut[1])


def head_directions(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "batch head d_head"], Float[Tensor, "batch pos"], Float[Tensor, "batch pos"] | None]:
    """What each unit of `z` is worth, W_O[h] @ g; what to divide by; and the layer's bias row, if it has one."""
    view, functional = readout.view, readout.writer(layer, "attn")
    W_O = out_weight(view, layer)
    if W_O is None:
        why = why_unread(view, layer, "attn") or f"Layer {layer} has no attention heads."
        raise ResidscopeError("no-heads", f'{why} Use `by="layer"` for layer {layer} as a whole.')
    units = rearrange(W_O, "head d_head d_model -> (head d_head) d_model")
    direction = _projected(view, layer, units, functional.vector)
    direction = rearrange(direction, "batch (head d_head) -> batch head d_head", head=W_O.shape[0])
    return direction, functional.divisor, _bias(readout, layer, functional, "attn")


def _projected(view: CacheView, layer: int, weight: Tensor, vector: Tensor) -> Tensor:
    """`project`, kept: what a target makes of a layer's heads is the same at every position."""
    if vector.device.type != "cpu":  # to look at it would take longer
        return project(weight, vector)
    # A digest: the vectors of many prompts are many bytes, and a key is kept beside what it stands for.
    digest = blake2b(distinct(vector).contiguous().numpy().tobytes(), digest_size=16).digest()
    key = ("projected", layer, vector.dtype, tuple(vector.shape), digest)
    return view.root.memo.once(key, lambda: project(weight, vector), size_of)


def neuron_directions(
    readout: Readout, layer: int
) -> tuple[Float[Tensor, "batch d_mlp"], Float[Tensor, "batch pos"], Float[Tensor, "batch pos"] | None]:
    """What each unit of `post` is worth, W_out @ g; what to divide by; and the MLP's bias row, if it has one."""
    view, functional = readout.view, readout.writer(layer, "mlp")
    W_out = neuron_weight(view, layer)
    if W_out is None:
        why = why_unread(view, layer, "mlp") or f"Layer {layer} has no MLP of plain neurons."
        raise ResidscopeError("no-neurons", why)
    direction = project(W_out, functional.vector)
    return direction, functional.divisor, _bias(readout, layer, functional, "mlp")


def worth_of(
    readout: Readout, worth: Worth, pieces: Collection[Terms], before: int = 0
) -> Float[Tensor, "piece batch pos"]:
    """The worth of pieces of the stream; `before` parts of the work are done already."""
    import torch

    def read(name: str, factor: float) -> Tensor:
        value = worth(readout.view.raw(name, readout.positions))
        return value if factor == 1 else value * factor

    values: list[Tensor] = []
    for terms in pieces:
        report_progress(before + len(values), before + len(pieces))
        values.append(sum_of(read(*term) for term in terms))
    return torch.stack(values)


def with_steps(view: CacheView, plan: Plan, rows: Rows) -> Rows:
    """The same rows, with the precision of what each was read from."""
    key = ("steps", plan.part, plan.split, tuple(plan.pieces.items()), len(rows.components))
    steps = view.memo.once(key, lambda: tuple(_steps(view, plan, len(rows.components))))
    if len(steps) == 1:
        return replace(rows, step=steps[0])
    return replace(rows, step=rows.values.new_tensor(steps)[:, None, None])


def _steps(view: CacheView, plan: Plan, count: int) -> list[float]:
    """The relative rounding step of each of so many rows; one for all where they have the same, as in most caches."""
    name = {"attn": "attn.hook_z", "mlp": "mlp.hook_post"}[plan.part]
    split = {
        layer: max(view.rounding_step(f"blocks.{layer}.{name}"), coarse(view, layer, plan.part)) for layer in plan.split
    }
    pieces = [view.rounding_step(*(name for name, _ in terms)) for terms in plan.pieces.values()]
    if len(steps := {*split.values(), *pieces}) == 1:
        return [*steps]
    weights = {layer: (out_weight if plan.part == "attn" else neuron_weight)(view, layer) for layer in split}
    of_parts = [step for layer, step in split.items() for _ in weights[layer]]  # pyright: ignore[reportOptionalIterable]
    biases = count - len(of_parts) - len(pieces)  # a bias is exact, or as coarse as the model's weights
    return [*of_parts, *[view.rounding_step()] * biases, *pieces]


def sum_of(terms: Iterable[Tensor]) -> Tensor:
    """Their sum."""
    first, *others = terms
    return sum(others, start=first)


def wanted_layers(view: CacheView, wanted: Any) -> list[int]:
    """The layers whose neurons are asked for; None is all that have some.

    Raises:
        ResidscopeError: If there is no such layer, or one that was named has no neurons.
    """
    if wanted is None:
        return list(range(view.n_layers))
    wanted = wanted.tolist() if hasattr(wanted, "tolist") else wanted
    alone = isinstance(wanted, str) or not isinstance(wanted, Iterable)
    named = [view.check_layer(layer) for layer in ([wanted] if alone else wanted)]
    if not named:
        raise ResidscopeError("layers", "`layers=` names no layer: give one, several, or None for all.")
    for layer in named:
        if neuron_weight(view, layer) is None:
            why = why_unread(view, layer, "mlp") or (
                "It has no single W_out (as in a mixture of experts), so there are no neurons to list."
            )
            raise ResidscopeError(
                "no-neurons", f'The MLP of layer {layer} cannot be split. {why} `by="layer"` has it as a whole.'
            )
    return named


def _refusal(structure: Structure, parts: str, otherwise: str) -> str:
    view, part = structure.view, "attn" if parts.endswith("heads") else "mlp"
    unread = (why_unread(view, layer, part) for layer in range(view.n_layers))
    why = " ".join(structure.notes()) or next(filter(None, unread), otherwise)
    whose = "cache" if float8(view, range(view.n_layers)) else "model"
    return f'No layer of this {whose} can be split into {parts}. {why} Use `by="layer"` or `by="accumulated"`.'


def bias_of(readout: Readout, layer: int, part: Literal["attn", "mlp"]) -> tuple[Tensor | None, Tensor | None]:
    """The bias that a sublayer adds to what its parts write, and that of the norm on its output; None where none is."""
    view, block = readout.view, readout.view.model.blocks[layer]

    norm = readout.output_norm(layer, part)
    return out_bias(view, layer, part), None if norm is None else Norm.of(getattr(block, norm), view).bias


def _bias(readout: Readout, layer: int, functional: Functional, part: Literal["attn", "mlp"]) -> Tensor | None:
    """What a sublayer's bias adds, with that of the norm on its output, whose bias is the functional's constant."""
    bias, behind = bias_of(readout, layer, part)
    if bias is not None:
        added = (distinct(functional.vector) * bias.to(functional.vector)).sum(-1)
        return functional.constant + added[:, None] / functional.divisor
    return None if behind is None else functional.constant
