"""Encodes and decodes activations with sparse autoencoders (SAEs) and transcoders of any class.

The SAE's own methods are used: `encode(x)` returns the activations `a` of its features, and `decode(a)` returns the
reconstruction. This module checks that `decode` is linear in the features, because only then does each feature have a
contribution of its own: decode(a) = s · (a @ W_dec) + decode(0). Here s is 1, or one scale for each vector if the SAE
normalises its input.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from residscope.cache.dictionary_calls import called, called_on_copy, copy_of
from residscope.cache.dictionary_sites import Site, held_as, kind_of_sae, parts_of, setting, site_of
from residscope.cache.view import CacheView
from residscope.cache.weights import tensor_of, unusable
from residscope.compute.precision import step_of, working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

_LARGEST = 1 << 24
"""At most this many activations of features are computed at once: 64 MB in float32."""

_COMPARED = 4
"""At most this many vectors are encoded twice: together, and one by one."""


@dataclass(frozen=True)
class Code:
    """What an SAE computes from some vectors. All tensors are on the cache's device, in working precision.

    Attributes:
        features: The features that are active for at least one of the vectors.
        activations: The activations of these features for each vector, times the scale s of the vector.
        directions: The vector that each of these features adds to the reconstruction at an activation of 1.
        normalised: Whether `directions` are the rows of `W_dec` divided by their length, as in some TopK SAEs.
        bias: The output of `decode` if no feature is active.
        reconstruction: `decode(encode(x))`.
        skip: The output of a transcoder's skip connection. None without a skip connection.
    """

    features: Int[Tensor, " feature"]
    activations: Float[Tensor, "row feature"]
    directions: Float[Tensor, "feature width"]
    normalised: bool
    bias: Float[Tensor, "row width"]
    reconstruction: Float[Tensor, "row width"]
    skip: Float[Tensor, "row width"] | None


@dataclass(frozen=True)
class Dictionary:
    """An SAE or a transcoder, and its site: the activations that it encodes and reconstructs.

    Attributes:
        sae: The SAE itself.
        site: Its site.
        read: The name under which the cache holds the encoded activation.
        written: The name under which the cache holds the reconstructed activation.
        width: The width of the reconstructed activation.
        like: An empty tensor with the cache's device and working precision.
    """

    sae: Any
    site: Site
    read: str
    written: str
    width: int
    like: Tensor

    @classmethod
    def of(cls, view: CacheView, given: object) -> Dictionary:
        """Return the dictionary for the value that a user gave as `sae=`.

        Raises:
            ResidscopeError: If the value is not an SAE, if the SAE does not fit this cache, or if it has hooks.
        """
        sae, read, written = parts_of(given)
        for name in ("encode", "decode"):
            if not callable(getattr(sae, name, None)):
                raise ResidscopeError(
                    "sae", f"`sae=` needs `encode`, `decode` and `W_dec`, but `{type(sae).__name__}` has no `{name}`."
                )
        site = site_of(view, sae, read, written)
        held, encoded = held_as(view, site.written), held_as(view, site.read)
        found = cls(sae, site, encoded, held, view.get(held)[0, 0].numel(), view.like)
        found._check_weights(view.get(encoded)[0, 0].numel())
        found._refuse_hooks()
        return found

    @property
    def name(self) -> str:
        """This SAE in words, for messages: its class, and the activation that it reconstructs."""
        return f"{kind_of_sae(self.sae)} of `{self.site.written}`"

    @property
    def decoder(self) -> Float[Tensor, "feature width"]:
        """The decoder's weights, as the SAE stores them."""
        return self.sae.W_dec.detach()

    def _check_weights(self, width: int) -> None:
        weight = tensor_of(getattr(self.sae, "W_dec", None))
        if weight is None:
            raise ResidscopeError("sae", f"The {self.name} has no tensor `W_dec` [feature, {self.width}].")
        if (why := unusable(weight)) is not None:
            raise ResidscopeError("sae", f"The {self.name} cannot be read: its `W_dec` {why}.")
        if weight.ndim != 2 or weight.shape[1] != self.width:
            raise ResidscopeError(
                "sae",
                f"The {self.name} has a `W_dec` of shape {list(weight.shape)}, but `{self.site.written}` is "
                f"{self.width} wide (`W_dec` is [feature, width]). It belongs to another model or another activation.",
            )
        into = setting(self.sae, "d_in")
        if isinstance(into, int) and into != width:
            raise ResidscopeError(
                "sae",
                f"The {self.name} encodes vectors of width {into} (`cfg.d_in`), but `{self.read}` is {width} wide. It "
                "belongs to another model or another activation.",
            )

    def _refuse_hooks(self) -> None:
        """Refuse an SAE with hooks, because hooks may change what its methods return."""
        modules: Callable[[], Any] | None = getattr(self.sae, "modules", None)
        for module in modules() if callable(modules) else ():
            if getattr(module, "_forward_hooks", None) or getattr(module, "_forward_pre_hooks", None):
                raise ResidscopeError(
                    "sae",
                    f"There are hooks on the {self.name}, which may change what it does. Remove them "
                    "(`sae.reset_hooks()`).",
                )

    @contextmanager
    def on_copy(self) -> Generator[Dictionary, None, None]:
        """This dictionary with a copy of its SAE. Only a copy's methods are called, so that the SAE is not changed."""
        with called_on_copy(self.sae) as copied:
            yield replace(self, sae=copied)

    def codes(self, rows: Float[Tensor, " row *width"]) -> Iterator[tuple[slice, Code]]:
        """Encode and decode vectors in blocks. The SAE itself is not changed.

        Args:
            rows: The vectors that the SAE encodes, `[row, width]`. Those of `hook_z` are `[row, head, d_head]`.

        Yields:
            The range of the rows in a block, and the code of these rows.

        Raises:
            ResidscopeError: If `encode` or `decode` fails, or `decode` is not linear in the features.
        """
        each = max(1, _LARGEST // len(self.decoder))
        for start in range(0, len(rows), each):
            part = slice(start, min(start + each, len(rows)))
            with self.on_copy() as copied:
                code = copied._code(rows[part])
            yield part, code

    def encode(self, rows: Float[Tensor, " row *width"]) -> Float[Tensor, "row feature"]:
        """Return the activations of all features, in the SAE's own precision.

        Raises:
            ResidscopeError: If `encode` fails, or does not return one activation for each feature.
        """
        count, features = len(rows), len(self.decoder)
        shape = [1, count, features]
        if rows.ndim == 3 and not self._reshapes:
            rows = rows.flatten(1)
        given = rows.to(self.decoder)[None]
        found = called(self.name, self.sae, "encode", given, f"{shape} activations")
        if tuple(found.shape) != (1, count, features):
            raise ResidscopeError(
                "sae",
                f"The {self.name}: `encode` returns the shape {list(found.shape)}. For vectors of the shape "
                f"{list(given.shape)}, it should return {shape}: one activation for each row of `W_dec`.",
            )
        return found[0]

    @property
    def _reshapes(self) -> bool:
        """Whether the SAE joins the heads of `hook_z` itself (as SAELens does)."""
        mode = getattr(self.sae, "hook_z_reshaping_mode", None)
        return mode if isinstance(mode, bool) else setting(self.sae, "reshape_activations") == "hook_z"

    def _decode(self, activations: Tensor) -> Tensor:
        found = called(self.name, self.sae, "decode", activations[None], f"vectors of width {self.width}")
        if found.numel() != len(activations) * self.width:
            raise ResidscopeError(
                "sae",
                f"The {self.name}: `decode` returns the shape {list(found.shape)}, but `{self.site.written}` is "
                f"{self.width} wide.",
            )
        return working(found.reshape(-1, self.width)).to(self.like)

    def _code(self, rows: Tensor) -> Code:
        activations = self.encode(rows)
        # An SAE that normalises its input stores the scale in `encode` and deletes it in `decode`. `decode` is called
        # twice, so it is first called on another copy.
        reconstruction = replace(self, sae=copy_of(self.sae))._decode(activations)
        bias = self._decode(activations.new_zeros(activations.shape))
        self._check_finite(activations, reconstruction, bias)
        features = (activations != 0).any(0).nonzero().flatten()
        active = working(activations[:, features]).to(self.like)
        scale, normalised, directions = self._linear(active, features, reconstruction, bias)
        skip = self._skip(rows, reconstruction) if self.site.is_transcoder else None
        features = features.to(self.like.device)
        return Code(features, active * scale, directions, normalised, bias, reconstruction, skip)

    def directions(self, features: Int[Tensor, " feature"], *, normalised: bool) -> Float[Tensor, "feature width"]:
        """Return the decoder's weights of some features, in working precision.

        Args:
            features: The features.
            normalised: Whether the weights of each feature are divided by their length.
        """
        weights = working(self.decoder[features.to(self.decoder.device)]).to(self.like)
        return weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-30) if normalised else weights

    def _linear(
        self, active: Tensor, features: Tensor, reconstruction: Tensor, bias: Tensor
    ) -> tuple[Tensor, bool, Tensor]:
        """Find the scales of the vectors and the directions of the features that give the reconstruction.

        Returns:
            The scales, whether the directions are normalised, and the directions.
        """
        linear, share = reconstruction - bias, self.rounding
        sizes = reconstruction.norm(dim=1) + bias.norm(dim=1)
        worst = 0.0
        for normalised in (False, True):  # some TopK SAEs divide the rows of `W_dec` by their length
            directions = self.directions(features, normalised=normalised)
            summed = active @ directions
            square = summed.pow(2).sum(1)
            scale = ((linear * summed).sum(1) / square.clamp(min=1e-30)).where(square > 0, 1.0)
            scale = scale if float((scale - 1).abs().max()) > share else scale.new_ones(scale.shape)
            difference = (linear - scale[:, None] * summed).norm(dim=1)
            if bool((difference <= share * (sizes + summed.norm(dim=1))).all()):
                return scale[:, None], normalised, directions
            worst = worst or float((difference / sizes.clamp(min=1e-30)).max())
        raise ResidscopeError(
            "sae",
            f"The {self.name}: its `decode` is not linear in the features, so features have no contributions of their "
            "own. Even with the best scale s for each vector, decode(a) differs from s · (a @ W_dec) + decode(0) by up "
            f"to {worst:.2g} · (|decode(a)| + |decode(0)|).",
        )

    @property
    def rounding(self) -> float:
        """The largest relative error that counts as rounding. It allows for TF32, which is coarser than float32."""
        return max(2e-3, 4 * step_of(self.decoder.dtype))

    def _skip(self, rows: Tensor, reconstruction: Tensor) -> Tensor | None:
        """The output of the skip connection, x @ W_skip.T, checked against `forward`. None without `W_skip`."""
        weight = tensor_of(getattr(self.sae, "W_skip", None))
        if weight is None:
            return None
        given = rows.to(self.decoder)
        if tuple(weight.shape) != (self.width, given.shape[1]):
            raise ResidscopeError(
                "sae",
                f"The {self.name} has a `W_skip` of shape {list(weight.shape)}, not {[self.width, given.shape[1]]} "
                "(the width of its output, the width of its input).",
            )
        skip = working(given @ weight.T.to(given)).to(self.like)
        if callable(getattr(self.sae, "forward", None)):
            found = called(self.name, self.sae, "forward", given[None], f"vectors of width {self.width}")
            whole = working(found.reshape(-1, self.width)).to(self.like)
            difference = (whole - reconstruction - skip).norm(dim=1)
            if not bool((difference <= self.rounding * (whole.norm(dim=1) + reconstruction.norm(dim=1))).all()):
                raise ResidscopeError(
                    "sae",
                    f"The {self.name} has a `W_skip`, but its `forward(x)` is not `decode(encode(x)) + x @ W_skip.T`.",
                )
        return skip

    def _check_finite(self, activations: Tensor, *decoded: Tensor) -> None:
        if bool(activations.isfinite().all()) and all(bool(one.isfinite().all()) for one in decoded):
            return
        bad = (~self.decoder.isfinite()).any(1).nonzero().flatten().tolist()
        where = (
            f"its `W_dec` holds NaN or infinity in feature {bad[0]}"
            if bad
            else "`encode` or `decode` returns such values, although its `W_dec` is finite"
        )
        raise ResidscopeError("sae", f"The {self.name} gives NaN or infinity: {where}. Load the SAE again.")

    def check_each_alone(self, rows: Float[Tensor, " row *width"]) -> None:
        """Refuse an SAE if its activations for a vector depend on the other vectors, or on chance.

        Args:
            rows: Vectors that the SAE encodes.

        Raises:
            ResidscopeError: If vectors have different activations when they are encoded together and one by one.
        """
        import torch

        some = rows[:: max(1, len(rows) // _COMPARED)][:_COMPARED]
        with self.on_copy() as copied:
            together = working(copied.encode(some))
            alone = [working(copied.encode(row[None])[0]) for row in some]
        one, other = torch.stack(alone), together
        differs = (one - other).abs() > max(1e-2, 16 * step_of(self.decoder.dtype)) * one.abs().amax(1, keepdim=True)
        # Rounding may turn a feature near its threshold on or off. If two features are equally active, a TopK SAE may
        # keep either of them.
        exact = self.decoder.device.type == "cpu" and step_of(self.decoder.dtype) < 1e-6
        allowed = 2 if exact else max(8, 0.1 * int((one != 0).sum()))
        if int(differs.sum()) > allowed:
            raise ResidscopeError(
                "sae",
                f"The {self.name} gives a vector different activations when other vectors are encoded with it. The "
                "activations depend on other positions (a BatchTopK SAE in training, attention over positions) or on "
                "chance (dropout). Use this SAE's form for inference.",
            )
