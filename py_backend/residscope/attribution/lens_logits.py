"""The logits that points of the residual stream would give, through the final norm and the unembedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residscope.cache.lens_maps import StreamMaps
from residscope.cache.norms import Norm
from residscope.cache.points import FINAL, Point
from residscope.cache.structure import Structure
from residscope.cache.unembedding import Output, unembedding_of_stream
from residscope.cache.view import CacheView
from residscope.compute.precision import working
from residscope.terms import Component, NormConvention

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


_MOST_LOGITS = 6_000_000
"""At most this many logits are computed at once: 24 MB, so that each step is short."""


class Reader:
    """Turns points of the stream into logits.

    Attributes:
        view: The cache.
        norm: Whether the final norm's scale is frozen or recomputed.
        maps: The maps of the stream to its end. None: the stream is read as it is.
        rows: The number of rows of logits that are computed at once.
    """

    def __init__(self, view: CacheView, norm: NormConvention, maps: StreamMaps | None = None) -> None:
        self.view, self.norm, self.maps, self._frozen = view, norm, maps, norm == "frozen"
        self._W_U, self._b_U = unembedding_of_stream(view)
        self._output = Output.of(view.model)
        self._norm = Norm.of(getattr(view.model, "ln_final", None), view)
        self._carries = Structure(view).carries
        self.rows = max(1, _MOST_LOGITS // self._W_U.shape[1])

    def __call__(
        self, points: Sequence[Component], positions: Sequence[int], prompts: range
    ) -> Float[Tensor, "prompt point position d_vocab"]:
        """Return the logits at some points, positions and prompts."""
        import torch

        part, at = self.view.only(prompts), list(positions)
        stream = torch.stack([self._stream(part, point, at) for point in points], dim=1)
        divisor = FINAL.scale(part, self._norm, None)[:, None, at] if self._frozen else self._norm.scale(stream)
        rows = self._norm.centre(stream) / divisor[..., None]
        rows = rows if self._norm.weight is None else rows * self._norm.weight
        rows = rows if self._norm.bias is None else rows + self._norm.bias
        return self._output(self._unembedded(rows.to(self._W_U.device)))

    def output_notes(self, position: int) -> list[str]:
        """Return a note if the stream's end does not give the model's output, or if this cannot be checked.

        Only `position` of the first prompt is compared.
        """
        name = self.view.first("unembed.hook_out", "hook_unembed")
        if name is None:
            return [
                "The cache holds no logits: it was not checked whether the last row is the model's own prediction. A "
                "hook on the final norm or the unembedding, or a change of the logits by the model, would be missing."
            ]
        own = self._output(working(self.view.get(name)[0, position])).softmax(-1)
        gap = float(
            (self([Component("final_post")], [position], range(1)).flatten().softmax(-1).to(own) - own).abs().max()
        )
        if gap <= max(1e-3, 4 * self.view.rounding_step(name, f"blocks.{self.view.n_layers - 1}.hook_resid_post")):
            return []
        return [
            "The last row is computed from the stream with the final norm and the unembedding. The model's own "
            f"probabilities differ by up to {gap:.2g}: the model does more after the stream, or its weights were "
            "changed since the cache was made."
        ]

    def _stream(self, part: CacheView, point: Component, at: list[int]) -> Float[Tensor, "batch read d_model"]:
        layer = None if point.layer is None else part.check_layer(point.layer)
        stream = part.rows(Point(point).stream(part), None)[:, at]
        if self.maps is not None:
            mapped = self.maps(point, stream)
            if self.maps.is_mapped(point):
                return mapped
        if layer is None:
            return stream
        # As in `by="accumulated"`: with a frozen scale, the stream is multiplied by the factors of later layers.
        return stream * self._carries[layer] if self._frozen else stream

    def _unembedded(self, rows: Tensor) -> Tensor:
        """Return rows @ W_U + b_U, in float32 or float64. A W_U in half precision is converted in blocks of columns."""
        import torch

        W_U, b_U = self._W_U, self._b_U
        rows = working(rows)
        if W_U.dtype == rows.dtype:
            logits = rows @ W_U
        else:
            width = max(1, _MOST_LOGITS // W_U.shape[0])
            logits = torch.cat([rows @ W_U[:, i : i + width].to(rows) for i in range(0, W_U.shape[1], width)], dim=-1)
        return logits if b_U is None else logits + b_U.to(logits)
