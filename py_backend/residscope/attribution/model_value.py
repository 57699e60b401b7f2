"""The model's own figure for a target, and where it was read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from einops import rearrange

from residscope.attribution.readout import Readout
from residscope.attribution.targets import Targets
from residscope.cache.norms import odd_final_norm
from residscope.cache.unembedding import READ_BY_UNEMBEDDING, final_vectors, unembedding
from residscope.compute.projection import dots
from residscope.errors import ResidscopeError
from residscope.terms import Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Measured:
    """The model's own figure.

    Attributes:
        value: `[batch, pos]`, logits; None where there is nothing to read it from.
        bent: `[batch, pos]`, what a soft-cap adds to the figure that stands before it (0 where there is none).
        source: Where it was read, in words.
        own: Whether it is the model's own output, or from what the unembedding read; else it is what the final stream
            gives by the final norm and the unembedding, and what the model does beside them is not in it.
    """

    value: Float[Tensor, "batch pos"] | None
    bent: Float[Tensor, "batch pos"]
    source: str
    own: bool


def model_value(readout: Readout, targets: Targets, target: Target, logits: Tensor | None) -> Measured:
    """Read the target off the given logits, else the cache's, else the final norm's output and the unembedding."""
    view, positions = readout.view, readout.positions
    none = readout.functional.constant * 0
    output = targets.output
    held = view.first("unembed.hook_out", "hook_unembed")
    if target.direction is not None or (held is None and output.cap == 0 and logits is None):
        # No soft-cap bends it: the functional of the final norm's output is all there is to read.
        vectors = final_vectors(view, positions)
        if vectors is None:
            return Measured(None, none, _NOTHING, own=False)
        own = view.has(READ_BY_UNEMBEDDING)
        source = "the final norm's output, on the given direction"
        if target.direction is None:
            source = _FROM_UNEMBEDDING if own else _FROM_STREAM
        return Measured(dots(vectors, readout.directions) + readout.offset[:, None], none, source, own)

    found, source, own = written(targets, target, positions)
    value = None if found is None else targets.mixed(target, output(found)).to(none)
    # Σ α · cap · tanh(x / cap) is no linear functional of the stream: the rows explain Σ α · x, the rest is the cap's.
    bent = none
    if value is not None and found is not None and output.cap > 0:
        bent = value - targets.mixed(target, found * output.scale).to(none)
    if logits is not None:
        given = targets.chosen(target, view.pick(view.whole_logits(logits), positions))
        if not bool(given.isfinite().all()):
            raise ResidscopeError("not-finite", "`logits=` holds NaN or infinity for the answers' tokens.")
        if found is None and output.cap > 0:  # the way back through the cap
            uncapped = output.cap * (given / output.cap).clamp(-1, 1).atanh()
            bent = (targets.mixed(target, given) - targets.mixed(target, uncapped)).to(none)
        return Measured(targets.mixed(target, given).to(none), bent, "the given logits", own=True)
    return Measured(value, bent, source, own)


_FROM_UNEMBEDDING = f"what the unembedding read ({READ_BY_UNEMBEDDING})"
_FROM_STREAM = "the final stream, by the final norm and the unembedding"
_NOTHING = "nothing: the cache holds neither logits nor the final residual stream; pass `logits=`"


def written(
    targets: Targets, target: Target, positions: Int[Tensor, " batch"] | None
) -> tuple[Float[Tensor, "batch pos token"] | None, str, bool]:
    """What the unembedding writes for the target's tokens, where it was read, and whether that is the model's own."""
    view = targets.view
    name = view.first("unembed.hook_out", "hook_unembed")
    if name is not None:
        logits = view.pick(view.get(name), positions)
        return targets.chosen(target, logits), f"the logits in the cache ({name})", True
    vectors = final_vectors(view, positions)
    if vectors is None:
        return None, _NOTHING, False
    W_U, b_U = unembedding(view)
    ids = targets.weights(target)[0].to(W_U.device).expand(view.batch, -1)
    columns = rearrange(W_U[:, ids].to(vectors), "d_model batch token -> batch d_model token")
    figures = vectors @ columns
    if b_U is not None:
        figures = figures + b_U[ids][:, None].to(vectors)
    if view.has(READ_BY_UNEMBEDDING):
        return figures, _FROM_UNEMBEDDING, True
    return figures, _FROM_STREAM, False


def notes(targets: Targets, target: Target, measured: Measured) -> list[str]:
    """What a reader of the figures should know about this model's way from the stream to its logits."""
    said = odd_final_norm(targets.view)
    if measured.value is None:
        said.append(
            "There is nothing to measure against: the cache holds neither logits nor the final residual stream. Pass "
            "`logits=`, the model's output."
        )
    elif not measured.own:
        said.append(
            "The cache holds no logits: `measured` is what the final residual stream gives by the final norm and the "
            "unembedding, as their weights are now, not the model's own output. Pass `logits=` to check against that."
        )
    if target.direction is not None:
        return said
    output = targets.output
    if output.scale != 1:
        said.append(f"The model multiplies its logits by {output.scale:.4g}; the rows and the constant are after that.")
    if output.cap > 0:
        worst = float(measured.bent.abs().max())
        said.append(
            f"The model soft-caps its logits at {output.cap:g}: the rows explain the figure before the cap; "
            f"what the cap changes ({worst:.2g} at most) is part of the constant."
        )
    return said
