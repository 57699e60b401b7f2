"""How the stream carries a component's output to a later layer, if everything between is held at its cached values.

The stream multiplies the output by a factor (`Carry.factor`). A test checks these factors. It makes a run in which
everything that layers add to the stream is held at its cached value, plus noise on the tested outputs. The stream
before each layer must then differ from the cached stream by the sum of these noises, each times its factor.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import TYPE_CHECKING, Any

from residscope.cache.structure import Structure, output_factor
from residscope.causes.measurement import Measurement
from residscope.causes.reads import ReadSite, capture, put
from residscope.causes.runner import Edit, Runner, noise
from residscope.causes.sites import Place, SiteKind, held
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from torch import Tensor

_HELD = ("mixer", "mamba", "ssm", "linear_attn", "conv", "moe", "shared_mlp", "post_per_layer_input_norm")
"""The names of other modules that add to the stream in the blocks of some models."""


class Carry:
    """How the stream carries the outputs of sublayers.

    Args:
        measurement: The cached run.
        runner: Makes the runs.
        kind: The sublayers, `"attn_out"` or `"mlp_out"`.
        layers: The layers of these sublayers.
        until: The layer before which the stream is read. The number of layers means the end of the stream.

    Raises:
        ResidscopeError: If the outputs of these sublayers do not arrive as expected.
    """

    def __init__(
        self, measurement: Measurement, runner: Runner, kind: SiteKind, layers: Iterable[int], until: int
    ) -> None:
        self._measurement, self._runner, self._kind = measurement, runner, kind
        self._carries = Structure(measurement.view).carries
        self._test(sorted(layers), until)

    def factor(self, layer: int, until: int) -> float:
        """Return the factor by which a sublayer's output is multiplied in the stream before the layer `until`."""
        view = self._measurement.view
        own = output_factor(view, layer, "attn") if self._kind == "attn_out" else 1.0
        return own * self._carries[layer] / self._carries[until]

    def _test(self, layers: list[int], until: int) -> None:
        of, view = self._measurement, self._measurement.view
        added = {layer: working(noise(of.replay.run.streams[layer])) for layer in layers}
        edits: list[tuple[Place, Edit]] = []
        arrived: dict[int, list[Tensor]] = {}
        for layer in range(layers[0], until):
            edits += self._frozen(layer, added.get(layer))
            site = of.site("resid_pre", layer + 1)
            if site is not None and layer + 1 < view.n_layers:
                arrived[layer + 1] = []
                edits.append((site, capture(arrived[layer + 1])))
        final = self._runner.changed(edits, 1, last=min(until, view.n_layers - 1))
        if until == view.n_layers:
            arrived[until] = [final[0]]
        for at, (stream, *_) in arrived.items():
            own = working(of.replay.run.streams[at])
            expected = sum(part * self.factor(layer, at) for layer, part in added.items() if layer < at)
            error = (working(stream) - own - expected).norm() / working(own * 0 + expected).norm().clamp(min=1e-30)
            if not bool(error <= max(1e-3, 32 * view.rounding_step())):
                raise ResidscopeError(
                    "path",
                    f"A path through the stream before layer {at} cannot be followed: with the outputs of attention "
                    f"and MLP held, layer {at - 1} does not pass on what earlier layers add.",
                )

    def _frozen(self, layer: int, added: Tensor | None) -> list[tuple[Place, Edit]]:
        """Edits that hold all that a layer adds at its cached value. `added`: noise on the tested output, if any."""
        view, edits = self._measurement.view, list[tuple[Place, Edit]]()
        kinds: tuple[SiteKind, ...] = ("attn_out", "mlp_out")
        for kind in kinds:
            site = self._measurement.site(kind, layer)
            if site is not None:
                value = working(held(view, kind, layer))
                edits.append((site, put(value if kind != self._kind or added is None else value + added.to(value))))
        for name in _HELD:
            path = f"{name}.hook_out"
            module: Any = reduce(lambda one, part: getattr(one, part, None), path.split("."), view.model.blocks[layer])
            cached = view.activations.get(f"blocks.{layer}.{path}")
            if module is not None and cached is not None:
                edits.append((ReadSite(layer, module, path), put(cached)))
        return edits
