"""Answers the requests of the view "features": the rows of an SAE, and the activations of one of its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from residscope.attribution.feature_activations import activations_at, activations_of
from residscope.attribution.inner_targets import feature as feature_input
from residscope.attribution.on_padding import check_not_on_padding
from residscope.attribution.result import Attribution
from residscope.base.legible import shown
from residscope.cache import positions
from residscope.cache.dictionaries import Dictionary
from residscope.errors import ResidscopeError
from residscope.serving.request_context import RequestContext
from residscope.serving.shown_prompts import ShownPrompts
from residscope.terms import MOST_OF_NAME, AttentionScore, Component, ComponentTable, Target
from residscope.wire.envelope import Buffers, float32, number
from residscope.wire.features import (
    ChooseFeature,
    FeaturesReply,
    FeatureTargetReply,
    FeatureTokensReply,
    ReadFeatures,
    ReadFeatureTokens,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

Saes = Mapping[str, Any]
"""The SAEs that are known for a cache, by name, each in a form that `sae=` accepts."""

_NO_FEATURES = ("error", "b_dec", "skip", "attn_bias")
"""The rows that come before the features, in this order."""

MOST_POSITIONS = 65_536
"""The largest number of positions, of all prompts together, that are encoded for one picture."""


def features(context: RequestContext, saes: Saes, request: ReadFeatures) -> tuple[FeaturesReply, Buffers]:
    """Answer with the rows of an SAE at one position: first the rows that are not features, then the features."""
    import torch

    view, prompt = context.view, context.view.check_prompt(request.prompt)
    name, given = _chosen(saes, request.sae)
    _check_target(request.target)
    target, where = context.asked(request.target, request.position, prompt)
    assert where is not None  # a view shows one position
    check_not_on_padding(view, target, where, prompt)
    prompts = ShownPrompts.at(view, request, where, prompt)
    dictionary = Dictionary.of(view, given)
    result = context.decomposed(target, "feature", where, sae=given)
    layers, refusal = _layers(context, target, where)
    elsewhere = set() if layers is None else set(layers.components)
    own = [i for i, row in enumerate(result.components) if row not in elsewhere and _is_of_sae(row, dictionary)]
    place = {row.index: i for i, row in enumerate(result.components) if row.kind == "feature"}
    sums = result.values[own].sum(0)
    measured = None if layers is None else _sum_of_site(layers, result)

    values = prompts.of(result.values)
    encoded = activations_at(view, dictionary, where)
    activations = prompts.of(encoded.T)
    is_on = (prompts.each(encoded.T) != 0).any(-1)
    on: list[int] = is_on.nonzero().flatten().tolist()
    active = [feature for feature in on if feature in place]
    strength = {feature: abs(float(values[place[feature]])) for feature in active}
    listed = sorted(active, key=lambda one: -strength[one])[: request.k]
    others = [i for kind in _NO_FEATURES for i in own if result.components[i].kind == kind]
    rows = [*others, *(place[feature] for feature in listed)]
    listed_rows = set(rows)
    reply = FeaturesReply(
        sae=name,
        cls=type(dictionary.sae).__name__[:MOST_OF_NAME],
        read=dictionary.site.read,
        site=dictionary.site.written,
        row=ComponentTable.of([dictionary.site.row(view)]),
        components=ComponentTable.of(result.components[i] for i in rows),
        links=["" for _ in others] + [result.link(feature) or "" for feature in listed],
        active=len(on),
        others=float(values[[i for i in own if i not in listed_rows]].sum()),
        total=float(prompts.of(sums)),
        measured=None if measured is None else number(prompts.of(measured)),
        worst=None if measured is None else number(prompts.worst(sums - measured)),
        tolerance=result.tolerance,
        prompts=prompts.count,
        notes=result.notes + refusal + list(prompts.notes),
    )
    nothing = torch.full((len(others),), float("nan"), dtype=activations.dtype, device=activations.device)
    return reply, [float32(values[rows]), float32(torch.cat([nothing, activations[listed]]))]


def feature_tokens(
    context: RequestContext, saes: Saes, request: ReadFeatureTokens
) -> tuple[FeatureTokensReply, Buffers]:
    """Answer with the activation of one feature at each position."""
    view, prompt = context.view, context.view.check_prompt(request.prompt)
    name, given = _chosen(saes, request.sae)
    prompts = view.batch if prompt is None else 1
    if prompts * view.n_pos > MOST_POSITIONS:
        asked = f"{prompts} prompts of {view.n_pos:,} positions" if prompts > 1 else f"{view.n_pos:,} positions"
        one = "show one prompt, or " if prompts > 1 and view.n_pos <= MOST_POSITIONS else ""
        raise ResidscopeError(
            "too-large",
            f"{asked} are too many to encode for one picture (at most {MOST_POSITIONS:,} positions): {one}use the "
            "SAE's `encode` in Python.",
        )
    dictionary = Dictionary.of(view, given)
    count = len(dictionary.decoder)
    if not 0 <= request.feature < count:
        raise ResidscopeError(
            "feature", f"The {dictionary.name} has no feature {request.feature}: it has {count:,}, 0 to {count - 1}."
        )
    found = activations_of(view, dictionary, request.feature, prompt)
    real = positions.real(view).to(found.device)
    real = real if prompt is None else real[prompt : prompt + 1]
    mean = found.masked_fill(~real, 0).sum(0) / real.sum(0)  # NaN if all prompts have padding there
    notes = (
        ["Where some prompts have padding, the mean is over the other prompts."]
        if not bool(real.all()) and len(real) > 1
        else []
    )
    reply = FeatureTokensReply(name, dictionary.site.written, request.feature, view.n_pos, notes)
    return reply, [float32(mean)]


def feature_target(context: RequestContext, saes: Saes, request: ChooseFeature) -> FeatureTargetReply:
    """Answer with the target that is the input of a feature."""
    _, given = _chosen(saes, request.sae)
    target = context.targets.resolve(feature_input(given, request.feature))
    return FeatureTargetReply(target, list(context.targets.notes))


def _check_target(target: Target) -> None:
    """Refuse targets that are not read at the shown position, because activations are shown for this position."""
    if target.through or isinstance(target.inner, AttentionScore):
        raise ResidscopeError(
            "features",
            "This target reads the stream at other positions than the shown one, for example at a head's source. The "
            "features there are not shown. In Python, `residscope.attribute` has their contributions "
            '(`by="feature"`).',
        )


def _chosen(saes: Saes, name: str | None) -> tuple[str, Any]:
    """The SAE with this name (None: the first one), and its name."""
    if name is None and saes:
        return next(iter(saes.items()))
    if name is not None and name in saes:
        return name, saes[name]
    if not saes:
        raise ResidscopeError(
            "no-sae",
            "No SAE or transcoder is known for this cache. Give it to the panel, `residscope.inspect(cache, sae=sae)`, "
            "or assign it to a variable, as `sae` or as `(sae, hook_name)`. An SAE alone must name an activation of "
            "this model in its configuration (`cfg.hook_name`).",
        )
    raise ResidscopeError(
        "no-sae", f"There is no SAE `{shown(str(name))}` any more, or it does not fit this model: choose another one."
    )


def _layers(
    context: RequestContext, target: Target, where: Int[Tensor, " batch"]
) -> tuple[Attribution | None, list[str]]:
    """The decomposition by layer, with which the sum of the SAE's rows is compared. If it is refused: None, and why."""
    try:
        return context.decomposed(target, "layer", where), []
    except ResidscopeError as error:
        return None, [str(error)]


def _is_of_sae(row: Component, dictionary: Dictionary) -> bool:
    if row.kind == "attn_bias":  # of the attention whose heads are reconstructed
        return dictionary.site.kind == "attn.hook_z" and row.layer == dictionary.site.layer
    return row.kind in ("feature", "error", "b_dec", "skip", "other_features")


def _sum_of_site(layers: Attribution, result: Attribution) -> Float[Tensor, " batch"]:
    """The sum of those rows by layer that the SAE's rows replace."""
    kept = set(result.components)
    return layers.values[[i for i, row in enumerate(layers.components) if row not in kept]].sum(0)
