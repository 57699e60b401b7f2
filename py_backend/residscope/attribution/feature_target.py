"""What a feature of an SAE or a transcoder reads, as a functional of the stream: x · W_enc[:, feature] plus biases.

Nothing is assumed about the SAE's class. SAEs use their biases and scales in several ways. Each known way is compared
with the SAE's own `encode`, at vectors where the feature is active.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from math import exp
from operator import index
from typing import TYPE_CHECKING, Any

from residscope.cache.dictionaries import Dictionary
from residscope.cache.dictionary_sites import point_of_stream
from residscope.cache.points import Point, attention_point, mlp_point, raw_point
from residscope.cache.view import CacheView
from residscope.cache.weights import tensor_of
from residscope.compute.precision import step_of, working
from residscope.errors import ResidscopeError
from residscope.terms import MOST_OF_NAME, Component, FeatureInput

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

_SOME = 64
"""Fewer than twice this many vectors of the cache are compared."""


def feature_input(
    view: CacheView, given: object, feature: object
) -> tuple[Component, Float[Tensor, " d_model"], FeatureInput, list[str]]:
    """Return the point of the stream that a feature reads, its encoder's direction, facts about it, and notes.

    Args:
        view: The cache.
        given: The SAE, as a user gave it.
        feature: The feature, as a user gave it.

    Raises:
        ResidscopeError: If there is no such feature, the SAE does not read the stream, or the feature's value before
            its nonlinearity is not an affine function of what the SAE encodes.
    """
    dictionary = Dictionary.of(view, given)
    number = _number(dictionary, feature)
    point = _point(view, dictionary)
    rows = view.get(dictionary.read).flatten(0, 1).flatten(1)
    weight, offset, notes = _affine(dictionary, number, working(rows[:: max(1, len(rows) // _SOME)]))
    kind, norm = type(dictionary.sae).__name__[:MOST_OF_NAME], point.norm or ""
    facts = FeatureInput(number, kind, dictionary.read, norm, point.unweighted, offset)
    return point.place, weight, facts, notes


def _number(dictionary: Dictionary, feature: Any) -> int:
    count = len(dictionary.decoder)
    try:
        text = feature.removeprefix("F") if isinstance(feature, str) else feature
        if isinstance(text, bool):
            raise TypeError
        number = int(text) if isinstance(text, str) else index(text)
    except (TypeError, ValueError):
        raise ResidscopeError("feature", f'{feature!r} is not a feature: write 1234 or "F1234".') from None
    if not 0 <= number < count:
        raise ResidscopeError(
            "feature", f"The {dictionary.name} has no feature {number}: it has {count:,}, 0 to {count - 1}."
        )
    return number


def _point(view: CacheView, dictionary: Dictionary) -> Point:
    """The point of the stream from which the SAE's input comes, with the norm between the stream and this input."""
    name = dictionary.site.read
    place = point_of_stream(view, name) or point_of_stream(view, dictionary.read)
    if place is not None:
        return raw_point(view, place)
    layer = re.match(r"blocks\.(\d+)\.(?!hook_attn_out|hook_mlp_out|attn\.hook_z)", name)
    held = working(view.get(dictionary.read).flatten(0, 1).flatten(1))
    points = [find(view, int(layer[1])) for find in (mlp_point, attention_point)] if layer else []
    for point in [*points, *(replace(point, unweighted=True) for point in points if point.norm)]:
        stream = point.stream(view)
        if not view.has(stream) or view.get(stream)[0, 0].numel() != held.shape[1]:
            continue
        read = point.read(view, working(view.get(stream).flatten(0, 1)).to(view.like))
        step = view.rounding_step(dictionary.read, stream)
        if float((read - held.to(read)).norm()) <= max(1e-3, 4 * step) * float(held.norm()):
            return point
    raise ResidscopeError(
        "sae",
        f"The {dictionary.name} encodes `{name}`. This is neither the stream, nor what an MLP or attention reads from "
        "the stream through a norm. So what its features read cannot be decomposed into components.",
    )


def _affine(dictionary: Dictionary, feature: int, rows: Float[Tensor, "row d_in"]) -> tuple[Tensor, float, list[str]]:
    """The weight, the bias, and notes. Where the feature is active, its activation is x · weight + bias."""
    import torch

    name, like = dictionary.name, dictionary.like
    encoder = tensor_of(getattr(dictionary.sae, "W_enc", None))
    if encoder is None or tuple(encoder.shape) != (rows.shape[1], len(dictionary.decoder)):
        shape = [rows.shape[1], len(dictionary.decoder)]
        raise ResidscopeError("sae", f"The {name} has no `W_enc` {shape}, so what its features read is not known.")
    column = working(encoder[:, feature]).to(like)
    # If a feature is never active in the cache, vectors that are moved far along its encoder usually activate it.
    rows = rows.to(like)
    away = column / column.norm().clamp(min=1e-30) * rows.norm(dim=1).mean()
    far = torch.cat([rows[:4] + away * factor for factor in (3.0, 10.0, 30.0)])
    rows = torch.cat([rows, far])
    with dictionary.on_copy() as copied:
        activations = working(copied.encode(rows))[:, feature].to(like)
    active = activations != 0
    if not bool(active.any()):
        raise ResidscopeError(
            "sae",
            f"Feature F{feature} of the {name} is not active at any vector that was tried, so what it reads cannot be "
            "checked.",
        )
    found: list[tuple[float, Tensor, float, Tensor]] = []
    for weight, offset in _ways(dictionary.sae, feature, column):
        expected = rows @ weight + offset
        size = (rows * weight).norm(dim=1) + abs(offset)
        found.append((float(((expected - activations).abs() / size)[active].max()), weight, offset, expected))
    gap, weight, offset, expected = min(found, key=lambda way: way[0])
    if gap <= max(1e-3, 8 * step_of(dictionary.decoder.dtype)):
        off = float(expected[~active].max()) if not bool(active.all()) else 0.0
        return weight, offset, _when_on(dictionary, feature, off)
    raise ResidscopeError(
        "sae",
        f"Feature F{feature} of the {name}: where it is active, its activation is not x · W_enc + biases (for "
        "example because the SAE normalises its input). So what it reads has no exact decomposition.",
    )


def _when_on(dictionary: Dictionary, feature: int, off: float) -> list[str]:
    """A note on when the feature is active. `off` is the largest value at which it is inactive."""
    if off <= 1e-6:
        return []
    threshold = tensor_of(getattr(dictionary.sae, "threshold", None))
    if threshold is not None and threshold.ndim == 1 and len(threshold) > feature:
        return [f"Feature F{feature} is active only above its threshold, {float(threshold[feature]):.4g}."]
    return [
        f"Feature F{feature} may be inactive although what it reads is above 0 (up to {off:.3g} in the vectors that "
        "were tried): only the k largest features are active (TopK), or a gate decides. The rows explain what this "
        "feature reads, not whether it is active."
    ]


def _ways(sae: Any, feature: int, column: Tensor) -> Iterator[tuple[Tensor, float]]:
    """The known ways in which SAEs use a feature's weights and biases: for each way, one weight and one bias."""

    def entry(name: str) -> float | None:
        found = tensor_of(getattr(sae, name, None))
        return None if found is None or found.ndim != 1 or len(found) <= feature else float(found[feature])

    plain = (1.0, entry("b_enc") or 0.0)
    length = float(working(sae.W_dec[feature].detach()).norm())
    scaled = [plain, (length, plain[1] * length)]
    gate, magnitude = entry("r_mag"), entry("b_mag")
    if gate is not None and magnitude is not None:
        scaled.append((exp(gate), magnitude))
    centre = tensor_of(getattr(sae, "b_dec", None))
    for factor, bias in scaled:
        weight = column * factor
        yield weight, bias
        if centre is not None and centre.shape == weight.shape:
            yield weight, bias - float(working(centre).to(weight) @ weight)
