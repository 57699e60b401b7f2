"""The measured value of a target: the model's own number, and the place where it was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.readout import Readout
from residscope.attribution.targets import COLUMN_VALUES, Targets
from residscope.cache.cells import place_of
from residscope.cache.norms import odd_final_norm
from residscope.cache.unembedding import READ_BY_UNEMBEDDING, final_vectors, unembedding, unembedding_of_stream
from residscope.cache.vocabulary import quote
from residscope.compute.precision import step_of
from residscope.compute.projection import dots
from residscope.errors import ResidscopeError
from residscope.terms import Target

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Measured:
    """The model's own value for a target.

    Attributes:
        value: `[batch, pos]`, in the target's unit. None if the cache holds nothing from which it can be read.
        cap_change: `[batch, pos]`, the change of the value by a soft-cap. 0 without a soft-cap.
        source: Where the value was read, in words.
        own: Whether the value was read from the logits, from the input of the unembedding, or, inside the model, from
            the target's own activation. If not, the value was computed from the stream with the model's weights, and
            lacks any other step of the model.
        before: How the value before a soft-cap was computed from the logits. None if it was read, or there is no
            soft-cap.
    """

    value: Float[Tensor, "batch pos"] | None
    cap_change: Float[Tensor, "batch pos"]
    source: str
    own: bool
    before: BeforeCap | None = None

    @property
    def before_cap(self) -> Float[Tensor, "batch pos"] | None:
        """The value before a soft-cap. None if it is not known, also if a logit is at the cap."""
        unknown = self.before is not None and bool(self.before.at_cap.any())
        return None if self.value is None or unknown else self.value - self.cap_change


@dataclass(frozen=True)
class BeforeCap:
    """The logits of a target's tokens before a soft-cap, computed from the model's output.

    Attributes:
        logits: These logits. Infinite where a logit is at the cap.
        at_cap: `[batch, pos, token]`: whether a logit may have been rounded to the cap.
        cap: The cap.
        rounding: How much the rounding of the given logits may change the target's value before the cap.
    """

    logits: Float[Tensor, "batch pos token"]
    at_cap: Bool[Tensor, "batch pos token"]
    cap: float
    rounding: float

    @classmethod
    def of(cls, given: Float[Tensor, "batch pos token"], cap: float, step: float, weights: Tensor) -> BeforeCap:
        """Undo a soft-cap.

        Args:
            given: The model's output.
            cap: The soft-cap.
            step: The relative rounding step of the model's output.
            weights: The weight of each token.
        """
        size = given.abs()
        error = step / 2 * size
        # cap · atanh(x / cap), written with a difference that is exact near the cap.
        most = cap / 2 * ((cap + size + error) / (cap - size - error)).log()
        at_cap = ~(size + error < cap)
        logits = cap * (given / cap).clamp(-1, 1).atanh()
        amplified = ((most - logits.abs()).clamp(min=0) * weights.abs().to(given.device)[:, None, :]).sum(-1)
        return cls(logits, at_cap, cap, float(amplified.masked_fill(at_cap.any(-1), 0).max()))


def check_before_cap(readout: Readout, targets: Targets, target: Target, before: BeforeCap | None) -> None:
    """Refuse a target whose value before the soft-cap cannot be computed, because a logit is at the cap.

    Raises:
        ResidscopeError: The message names the first prompt and position with such a logit.
    """
    if before is None or not bool(before.at_cap.any()):
        return
    view, positions, places = readout.view, readout.positions, before.at_cap.nonzero().tolist()
    prompt, read, token = places[0]
    where = place_of(view, prompt, read if positions is None else int(positions[prompt]))
    ids = targets.weights(target)[0]
    text = quote(targets.vocabulary.text(int(ids[prompt if len(ids) > 1 else 0, token])))
    others = len({(at, pos) for at, pos, _ in places}) - 1
    more = "" if not others else f" (and {others} other{'s' if others > 1 else ''})"
    raise ResidscopeError(
        "soft-cap",
        f"The logit of {text} is at the model's soft-cap ({before.cap:g}) at {where}{more}, so its "
        "value before the cap, which the rows explain, cannot be computed from `logits=`. Cache "
        f"`{READ_BY_UNEMBEDDING}` or the final stream (`blocks.{view.n_layers - 1}.hook_resid_post`), or choose "
        "another answer or position.",
    )


def model_value(readout: Readout, targets: Targets, target: Target, logits: Tensor | None) -> Measured:
    """Return the target's value, read from the given logits, the cached logits, or else the final stream."""
    view, positions = readout.view, readout.positions
    zero = readout.functional.constant * 0
    output = targets.output
    cached = view.first("unembed.hook_out", "hook_unembed")
    if target.direction is not None or (cached is None and output.cap == 0 and logits is None):
        # No soft-cap applies, so the functional of the final norm's output gives the value.
        vectors = final_vectors(view, positions)
        if vectors is None:
            return Measured(None, zero, _NOTHING, own=False)
        if vectors.shape[-1] != readout.directions.shape[-1]:
            unembedding_of_stream(view)  # refuses a model that projects the stream before its unembedding
        own = view.has(READ_BY_UNEMBEDDING)
        source = "the final norm's output, projected onto the given direction"
        if target.direction is None:
            source = _FROM_UNEMBEDDING if own else _FROM_STREAM
        return Measured(dots(vectors, readout.directions) + readout.offset[:, None], zero, source, own)

    given = None
    if logits is not None:
        given = targets.chosen(target, view.pick(view.whole_logits(logits), positions))
        if not bool(given.isfinite().all()):
            raise ResidscopeError("not-finite", "`logits=` has NaN or infinity for the answers' tokens.")
        if output.cap <= 0:
            return Measured(targets.mixed(target, given).to(zero), zero, _GIVEN, own=True)
    values, source, own = written(targets, target, positions)
    value = None if values is None else targets.mixed(target, output(values)).to(zero)
    # Σ α · cap · tanh(x / cap) is not linear in the stream. The rows explain Σ α · x, and `cap_change` is the rest.
    cap_change = zero
    if value is not None and values is not None and output.cap > 0:
        cap_change = value - targets.mixed(target, values * output.scale).to(zero)
    if logits is None or given is None:
        return Measured(value, cap_change, source, own)
    before = None
    if values is None:
        before = BeforeCap.of(given, output.cap, step_of(logits.dtype), targets.weights(target)[1])
        cap_change = (targets.mixed(target, given) - targets.mixed(target, before.logits)).to(zero)
    return Measured(targets.mixed(target, given).to(zero), cap_change, _GIVEN, own=True, before=before)


_GIVEN = "the given logits"
_FROM_UNEMBEDDING = f"what the unembedding read ({READ_BY_UNEMBEDDING})"
_FROM_STREAM = "the final stream, with the final norm and the unembedding"
_NOTHING = "nothing: the cache holds neither logits nor the final residual stream; pass `logits=`"


def written(
    targets: Targets, target: Target, positions: Int[Tensor, " batch"] | None
) -> tuple[Float[Tensor, "batch pos token"] | None, str, bool]:
    """Return the unembedding's output for the target's tokens, the place where it was read, and `Measured.own`."""
    import torch

    view = targets.view
    name = view.first("unembed.hook_out", "hook_unembed")
    if name is not None:
        logits = view.pick(view.get(name), positions)
        return targets.chosen(target, logits), f"the logits in the cache ({name})", True
    vectors = final_vectors(view, positions)
    if vectors is None:
        return None, _NOTHING, False
    W_U, b_U = unembedding(view)
    ids = targets.weights(target)[0].to(W_U.device)
    if len(ids) == 1:
        values = vectors @ W_U[:, ids[0]].to(vectors)
    else:
        step = max(1, COLUMN_VALUES // (ids.shape[1] * len(W_U)))
        values = torch.cat([
            rows @ rearrange(W_U[:, some].to(vectors), "d_model batch token -> batch d_model token")
            for rows, some in zip(vectors.split(step), ids.split(step), strict=True)
        ])  # fmt: skip
    if b_U is not None:
        values = values + b_U[ids][:, None].to(vectors)
    if view.has(READ_BY_UNEMBEDDING):
        return values, _FROM_UNEMBEDDING, True
    return values, _FROM_STREAM, False


_SCALED = "The model multiplies its logits by {:.4g}; the rows and the constant include this factor."


def output_notes(targets: Targets, target: Target, measured: Measured) -> list[str]:
    """Return notes on the steps between stream and logits in this model, and on the origin of `measured`."""
    if target.inner is not None:
        return []
    notes, output = odd_final_norm(targets.view), targets.output
    if target.through:
        if target.direction is None and output.scale != 1:
            notes.append(_SCALED.format(output.scale))
        if target.direction is None and output.cap > 0:
            notes.append(
                f"The model soft-caps its logits at {output.cap:g}: the head's contribution is given before the cap."
            )
        return notes
    if measured.value is None:
        notes.append(
            "There is nothing to measure against: the cache holds neither logits nor the final residual stream. Pass "
            "`logits=`, the model's output."
        )
    elif not measured.own:
        notes.append(
            "The cache holds no logits: `measured` was computed from the final residual stream with the "
            "final norm and the unembedding, as their weights are now. It is not the model's own output. Pass "
            "`logits=` to check against the model's output."
        )
    if target.direction is not None:
        return notes
    if output.scale != 1:
        notes.append(_SCALED.format(output.scale))
    if output.cap > 0:
        worst = float(measured.cap_change.abs().max())
        notes.append(
            f"The model soft-caps its logits at {output.cap:g}: the rows explain the value before the cap; "
            f"the change by the cap ({worst:.2g} at most) is part of the constant."
        )
    return notes
