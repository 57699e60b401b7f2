"""How a target is read from the stream: the functional at its point, and the model's value there.

Logits and directions at the end are read at the end of the stream. A target inside the model is read at an earlier
point. If the target is what a head contributes, it is read at the source s of this head: the direction there is
A[d, s] · W_V W_O g, where g is the direction of the outer target at the destination d.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import msgspec

from residscope.attribution.attention_score import HeadScore, ScorePart, only_part
from residscope.attribution.head_inputs import ALL, gated, read_names
from residscope.attribution.head_split import Checked, check_split, unchecked
from residscope.attribution.model_value import Measured, model_value
from residscope.attribution.readout import Readout
from residscope.attribution.rounding import SMALLEST, floor_of, source_tolerance
from residscope.attribution.sources import contributions_along, not_from_sources
from residscope.attribution.sublayer_parts import head_directions
from residscope.attribution.target_words import in_words, sentence
from residscope.attribution.targets import Targets
from residscope.cache.component_names import name, parse_point
from residscope.cache.input_maps import latent_values, neuron_map, value_map
from residscope.cache.norms import Norm
from residscope.cache.points import FINAL, Point, attention_point, mlp_point, raw_point
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.compute.projection import dots
from residscope.errors import ResidscopeError
from residscope.terms import AttentionScore, Component, FeatureInput, NeuronInput, StreamDirection, Target, Through

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


Explained = tuple[Readout, "Tensor | None"]
"""A readout, and the value that its rows must sum to. None if this value is not known."""


@dataclass(frozen=True)
class TargetReading:
    """How a target is read: value = (what is read at the point) · directions · weights + offset.

    Attributes:
        view: The cache.
        point: The point, and the norm there.
        positions: The position of each prompt that is read. None: every position.
        directions: The target as a functional u of what is read.
        offset: β, what biases add to the target: for each prompt, or for each position that is read.
        weights: A factor of u for each position that is read. None: 1.
        measured_in: The activations that hold the target's value. None: the logits.
        value: The cached value at the positions that are read. None if it was not cached. Logits are measured by
            `model_value` instead.
        source: Where the value was read, in words.
        axis: The name of the axis of the positions that are read, if there are several.
        floor: Differences up to this between the sum of the rows and the model's value are not reported. If 0, the
            limit is a share of the summed numbers (see `rounding`).
        notes: Notes on the target.
    """

    view: CacheView
    point: Point
    positions: Int[Tensor, " batch"] | None
    directions: Float[Tensor, "batch d_model"]
    offset: Float[Tensor, " batch *read"]
    weights: Float[Tensor, "batch read"] | None = None
    measured_in: tuple[str, ...] | None = None
    value: Float[Tensor, "batch read"] | None = None
    source: str = ""
    axis: Literal["pos", "source"] = "pos"
    floor: float = SMALLEST
    notes: list[str] = field(default_factory=list[str])

    def readout(self, *, frozen: bool = True) -> Readout:
        """Return the readout of this target."""
        return Readout(
            self.view,
            self.positions,
            self.directions,
            self.offset,
            frozen=frozen,
            point=self.point,
            weights=self.weights,
            measured_in=self.measured_in,
            floor=self.floor,
        )

    def everywhere(self) -> TargetReading:
        """Return the same target, read at every position. Positions that the target does not read have weight 0."""
        if self.positions is None:
            return self
        here = self.view.like.new_zeros(self.view.batch, self.view.n_pos)
        here[range(self.view.batch), self.positions.to(here.device)] = 1
        offset = self.offset if self.offset.ndim == 2 else self.offset[:, None]
        value = None if self.value is None else here * self.value
        weights = here if self.weights is None else here * self.weights
        return replace(self, positions=None, weights=weights, offset=here * offset, value=value)

    def at(self, where: Int[Tensor, " batch"]) -> TargetReading:
        """Return the same target, read at only one position of each prompt."""
        if self.positions is not None or self.weights is None:
            return replace(self, positions=where)

        def taken(values: Tensor) -> Tensor:
            return self.view.pick(values, where)

        offset = taken(self.offset) if self.offset.ndim == 2 else self.offset
        value = None if self.value is None else taken(self.value)
        return replace(self, positions=where, weights=taken(self.weights), offset=offset, value=value)


def target_reading(
    targets: Targets,
    target: Target,
    where: Int[Tensor, " batch"] | None,
    logits: Tensor | None = None,
    part: ScorePart | None = None,
) -> TargetReading:
    """Return how a target is read.

    Args:
        targets: Resolves targets.
        target: The target.
        where: The destination in each prompt. None: every position.
        logits: The model's output, if it was given.
        part: For an attention score: the part that is read at one position.

    Raises:
        ResidscopeError: If a needed activation was not cached, a weight cannot be read, or the target has no value at
            these positions.
    """
    view = targets.view
    reading = _base(targets, target, where, part)
    outer = msgspec.structs.replace(target, through=[])
    for step, through in enumerate(target.through):
        if reading.positions is None:
            raise ResidscopeError(
                "position",
                f"What {name(through.layer, through.head)} contributes is read at one destination of each prompt: "
                '`position="all"` is not possible. Give one position, or one for each prompt.',
            )
        readout = reading.readout()

        def explained(reading: TargetReading = reading, readout: Readout = readout, outer: Target = outer) -> Explained:
            before = measured_value(reading, readout, targets, outer, logits).before_cap
            return readout, None if before is None else before - readout.functional.constant

        # All sources of the same outer target share one object, so that layers are compared only once.
        key = ("outer checked", msgspec.msgpack.encode(outer), tuple(reading.positions.tolist()))
        checked = Checked() if logits is not None else view.memo.once(key, Checked)
        about = sentence(in_words(outer))
        notes = reading.notes + [f"{about}: {note}" for note in check_split(view, [through.layer], checked, explained)]
        # A score may be read at several positions. A head's source is refused only if it is after the latest of them.
        latest = reading.positions if part is None or step else part.score.latest
        reading = _through(view, readout, through, notes, latest)
        outer = msgspec.structs.replace(target, through=target.through[: step + 1])
    return reading


def measured_value(
    reading: TargetReading, readout: Readout, targets: Targets, target: Target, logits: Tensor | None
) -> Measured:
    """Return the model's value for a target, and where it was read."""
    if reading.measured_in is None:
        return model_value(readout, targets, target, logits)
    zero = readout.functional.constant.new_zeros(readout.functional.constant.shape)
    if reading.value is not None:
        return Measured(reading.value, zero, reading.source, own=True)
    if not reading.view.has(readout.stream):
        return Measured(None, zero, f"nothing: the cache holds neither {reading.source} nor the stream", own=False)
    value = readout.functional(reading.view.raw(readout.stream, reading.positions)) + readout.functional.constant
    return Measured(value, zero, f"the stream (`{readout.stream}`), with the norm and the weights", own=False)


def reading_notes(reading: TargetReading, measured: Measured) -> list[str]:
    """Return notes on a target inside the model, and on the origin of `measured`."""
    notes = list(reading.notes)
    if reading.measured_in is None or measured.own:
        return notes
    lacks = " and ".join(f"`{one}`" for one in reading.measured_in[:1])
    if measured.value is None:
        return [*notes, f"There is nothing to measure against: the cache holds neither {lacks} nor the stream there."]
    return [
        *notes,
        f"The cache lacks {lacks}: `measured` was computed from the stream at `{reading.point.place.label}` with the "
        "norm and the weights as they are now. It is not the model's own value.",
    ]


def _base(
    targets: Targets, target: Target, where: Int[Tensor, " batch"] | None, part: ScorePart | None
) -> TargetReading:
    """How the target at the end of the path is read, without the heads of the path."""
    view = targets.view
    match target.inner:
        case None:
            return TargetReading(view, FINAL, where, *targets.functional(target), floor=floor_of(target))
        case NeuronInput():
            return _neuron(view, target.inner, where)
        case StreamDirection():
            return _direction(targets, target.inner, where)
        case AttentionScore():
            return _score(part or only_part(HeadScore(view, target.inner)))


def _neuron(view: CacheView, neuron: NeuronInput, where: Int[Tensor, " batch"] | None) -> TargetReading:
    read = neuron_map(view, neuron.layer, neuron.index, neuron.part)
    held = view.first(*read.names)
    value = None if held is None else working(view.raw(held, where)[..., neuron.index])
    label = Component("neuron", neuron.layer, neuron.index).label
    return TargetReading(
        view,
        mlp_point(view, neuron.layer),
        where,
        read.weight[None].expand(view.batch, -1),
        read.weight.new_full((view.batch,), read.bias),
        measured_in=(held or read.names[0],),
        value=value,
        source=f"`{held or read.names[0]}`, neuron {label}",
        floor=0.0,
    )


def _score(part: ScorePart) -> TargetReading:
    score, reading = part.score, part.score.readings[part.index]
    return TargetReading(
        score.view,
        score.scores.reader.point,
        reading.positions,
        reading.direction,
        reading.offset,
        measured_in=score.activations,
        value=score.part_values[part.index][:, None],
        source=score.measured_from,
    )


def _feature(
    targets: Targets, direction: StreamDirection, feature: FeatureInput, where: Int[Tensor, " batch"] | None
) -> TargetReading:
    view, u = targets.view, targets.given_direction(direction.key)
    value = None
    if view.has(feature.read):
        value = dots(view.raw(feature.read, where), u) + feature.offset
    return TargetReading(
        view,
        Point(parse_point(direction.at), feature.norm or None, feature.unweighted),
        where,
        u,
        u.new_full((len(u),), feature.offset),
        measured_in=(feature.read,),
        value=value,
        source=f"`{feature.read}`, as feature F{feature.index} of the SAE `{feature.sae}` reads it",
        floor=0.0,
    )


def _direction(targets: Targets, direction: StreamDirection, where: Int[Tensor, " batch"] | None) -> TargetReading:
    if direction.feature is not None:
        return _feature(targets, direction, direction.feature, where)
    view, u = targets.view, targets.given_direction(direction.key)
    point = raw_point(view, parse_point(direction.at))
    stream = point.stream(view)
    value = dots(view.raw(stream, where), u) if view.has(stream) else None
    source = f"the stream at `{direction.at}` (`{stream}`), projected onto the given direction"
    return TargetReading(
        view, point, where, u, u.new_zeros(len(u)), measured_in=(stream,), value=value, source=source, floor=0.0
    )


def _through(
    view: CacheView, outer: Readout, through: Through, notes: list[str], latest: Int[Tensor, " batch"]
) -> TargetReading:
    """A head's contribution to a target, read at the head's source. A source after `latest` is refused."""
    layer, head = through.layer, through.head
    direction, divisor, _ = head_directions(outer, layer)
    found = contributions_along(view, outer.positions, direction, divisor, layer, [head])
    unit, read = found.unit[:, 0], found.read
    if read.gate is not None:
        unit = unit * read.gate[:, 0, 0]
    value = found.part(ALL, ALL, ALL)[:, 0, 0]  # [batch, source]
    others = float((value.sum(-1) - found.measured[:, 0, 0]).abs().max())
    if others > source_tolerance(view.rounding_step(*read_names(view, layer)), value, -1, outer.floor):
        notes = [*notes, not_from_sources(others)]
    attends = read.part(ALL, ALL, ALL)[:, 0, 0] / divisor
    _check_source(view, through, attends, latest)
    directions, weights, constant = _before_values(view, through, tuple(direction.shape[1:]), unit, attends)
    reading = TargetReading(
        view,
        attention_point(view, layer),
        None,
        directions,
        constant,
        weights,
        measured_in=tuple(one for one in read_names(view, layer) if view.has(one)),
        value=value,
        source=f"the source contribution of {name(layer, head)}, from its cached pattern and values",
        axis="source",
        floor=0.0,
        notes=notes + gated(view, [layer]) + unchecked(view, [layer]),
    )
    return reading if through.source is None else _at_source(reading, weights, constant, value, through.source)


def _at_source(reading: TargetReading, weights: Tensor, constant: Tensor, value: Tensor, source: int) -> TargetReading:
    """The same target, read at one source of each prompt."""
    import torch

    source = source % reading.view.n_pos
    return replace(
        reading,
        positions=torch.full((reading.view.batch,), source, device="cpu"),
        offset=constant[:, source],
        weights=weights[:, source, None],  # the direction is the same for all sources, so its projections are reused
        value=value[:, source, None],
        axis="pos",
    )


def _before_values(
    view: CacheView, through: Through, shape: tuple[int, ...], unit: Tensor, attends: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The target as a functional of what attention reads: direction, weights and offset. W_V is applied here."""
    layer, (count, width) = through.layer, shape
    latent = latent_values(view, layer, through.head, (count, width))
    if latent is not None:
        constant = attends.new_zeros(attends.shape)
        if latent.up_bias is not None:
            constant = constant + attends * (unit @ latent.up_bias.to(unit))[:, None]
        unit = unit @ latent.up.to(unit).T
        if latent.norm.bias is not None:
            constant = constant + attends * (unit @ latent.norm.bias)[:, None]
        unit = latent.norm.centre(unit if latent.norm.weight is None else unit * latent.norm.weight)
        weights, weight, bias = attends / latent.scale(view), latent.down, latent.down_bias
    else:
        values = value_map(view, layer, width)
        group = through.head * len(values.weight) // count
        unit, weights, constant = _before_norm(view, layer, group, len(values.weight), unit, attends)
        weight, bias = values.weight[group], None if values.bias is None else values.bias[group]
    if bias is not None:
        constant = constant + weights * (unit @ bias.to(unit))[:, None]
    return unit @ weight.to(unit).T, weights, constant


def _before_norm(
    view: CacheView, layer: int, group: int, groups: int, unit: Tensor, attends: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The target as a functional of values before the norm on values: direction, weights and offset.

    The norm's scale at each source is frozen at the cached value. Without such a norm, the functional stays the same.
    """
    attention = view.model.blocks[layer].attn
    zero = attends.new_zeros(attends.shape)
    prefix = f"blocks.{layer}.attn.v_norm"
    if not hasattr(attention, "v_norm") and not view.has(f"{prefix}.hook_out"):
        return unit, attends, zero
    norm = Norm.of(getattr(attention, "v_norm", None), view)
    held = view.first(f"{prefix}.hook_in") or f"blocks.{layer}.attn.hook_v"
    raw = view.rows(held, None)
    if raw.ndim != 4 or raw.shape[2] != groups:
        raise ResidscopeError(
            "head-inputs", f"The norm on the values of layer {layer} does not normalise each head's value separately."
        )
    scale = norm.scale(raw[:, :, group])
    bias = zero if norm.bias is None else attends * (unit @ norm.bias)[:, None]
    unit = unit if norm.weight is None else unit * norm.weight
    return norm.centre(unit), attends / scale, bias


def _check_source(view: CacheView, through: Through, attends: Tensor, destinations: Int[Tensor, " batch"]) -> None:
    """Refuse a source after the destination, because the head does not read it."""
    if through.source is None:
        return
    source = through.source % view.n_pos
    later = [prompt for prompt, at in enumerate(destinations.tolist()) if at < source]
    if later and not bool(attends[later, source].any()):
        raise ResidscopeError(
            "position",
            f"Source {source} is after the destination {int(destinations[later[0]])} of prompt {later[0]}: "
            f"{name(through.layer, through.head)} does not read it.",
        )
