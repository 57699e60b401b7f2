"""Reads the target from the final stream of a run. Only the logits of the answers' tokens are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from einops import rearrange

from residscope.attribution.readout import Readout
from residscope.attribution.target_reading import measured_value, target_reading
from residscope.attribution.targets import Targets
from residscope.cache.norms import Norm
from residscope.cache.unembedding import unembedding_of_stream
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.errors import ResidscopeError
from residscope.terms import Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class RunReadout:
    """Reads a target from final streams.

    Attributes:
        view: The cache.
        targets: Resolves targets for the cache.
        target: The target.
        where: The position of each prompt at which the target is read.
        frozen: The readout of the cached run.
        norm: The final norm.
        scale: The scale of the final norm in the cached run, `[batch]`.
        columns: Functionals of the norm's output: one for the target. If the logits are soft-capped, one for each
            answer token.
        offset: The number that is added to each functional.
        weights: The weight of each token in the target. None if there is one functional for the target.
    """

    view: CacheView
    targets: Targets
    target: Target
    where: Int[Tensor, " batch"]
    frozen: Readout
    norm: Norm
    scale: Float[Tensor, " batch"]
    columns: Float[Tensor, "batch d_model token"]
    offset: Float[Tensor, "batch token"]
    weights: Float[Tensor, "batch token"] | None = None

    @classmethod
    def of(cls, targets: Targets, target: Target, where: Int[Tensor, " batch"] | None) -> RunReadout:
        """Return the readout of a target.

        Raises:
            ResidscopeError: If the target is inside the model, or is not read at one position of each prompt.
        """
        if target.inner is not None or target.through:
            raise ResidscopeError(
                "causes",
                "Causes are measured for logits, and for directions at the end of the stream (`final_post`): a target "
                "inside the model is read before the last block, and is not supported.",
            )
        if where is None:
            raise ResidscopeError(
                "position", 'Causes are measured at one position of each prompt, not with `position="all"`: give one.'
            )
        view = targets.view
        readout = target_reading(targets, target, where).readout()
        scale = readout.point.scale(view, readout.norm, where)[:, 0]
        common = (view, targets, target, where, readout, readout.norm, scale)
        if target.direction is not None or targets.output.cap == 0:
            return cls(*common, readout.directions[..., None], readout.offset[:, None])
        W_U, b_U = unembedding_of_stream(view)
        ids, alpha = (part.expand(view.batch, -1) for part in targets.weights(target))
        columns = rearrange(working(W_U)[:, ids.to(W_U.device)], "d_model batch token -> batch d_model token")
        offset = columns.new_zeros(ids.shape) if b_U is None else working(b_U)[ids.to(b_U.device)]
        return cls(*common, columns.to(view.like), offset.to(view.like), alpha.to(view.like))

    def pick(
        self, final: Float[Tensor, "copy batch pos d_model"], window: slice = slice(0, None)
    ) -> Float[Tensor, "copy batch d_model"]:
        """Return the final streams at the positions where the target is read, in working precision.

        Args:
            final: The final streams.
            window: The positions of these final streams.
        """
        import torch

        prompts = torch.arange(self.view.batch, device=final.device)
        return working(final[:, prompts, self.where.to(final.device) - window.start]).to(self.view.like)

    def value(
        self, stream: Float[Tensor, "copy batch d_model"], *, frozen: bool = False
    ) -> Float[Tensor, "copy batch"]:
        """Return the target. The norm's scale is computed from each stream, or frozen at its cached value."""
        norm, scale = self.norm, self.scale if frozen else self.norm.scale(stream)
        read = norm.centre(stream) / scale[..., None]
        read = read if norm.weight is None else read * norm.weight
        read = read if norm.bias is None else read + norm.bias
        values = (read[..., None] * self.columns).sum(-2) if self.columns.shape[-1] == 1 else self._many(read)
        values = values + self.offset
        if self.weights is None:
            return values[..., 0]
        return (self.targets.output(values) * self.weights).sum(-1)

    def _many(self, read: Tensor) -> Tensor:
        return (read[..., None, :] @ self.columns)[..., 0, :]

    def without_inference_tensors(self) -> RunReadout:
        """Return this readout with copies of all tensors from `torch.inference_mode()`, which autograd cannot use."""

        def plain(tensor: Tensor | None) -> Any:
            return tensor.clone() if tensor is not None and tensor.is_inference() else tensor

        norm = replace(self.norm, weight=plain(self.norm.weight), bias=plain(self.norm.bias))
        columns, offset, weights = plain(self.columns), plain(self.offset), plain(self.weights)
        return replace(self, norm=norm, columns=columns, offset=offset, weights=weights)

    def measured(self) -> Float[Tensor, " batch"] | None:
        """Return the target's value in the cached run. None if the cache does not give it."""
        reading = target_reading(self.targets, self.target, self.where)
        found = measured_value(reading, self.frozen, self.targets, self.target, None)
        return None if found.value is None else found.value[:, 0]

    @property
    def notes(self) -> list[str]:
        """Return notes on the target's value in runs."""
        if self.weights is None:
            return []
        return [f"The model soft-caps its logits at {self.targets.output.cap:g}: all values are after the cap."]
