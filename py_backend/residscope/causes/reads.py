"""What a head reads: the queries, keys and values of its layer, as the model computes them in a run.

They are the outputs of `hook_q`, `hook_k` and `hook_v`. A test shows whether a head's `z` follows from them. First,
noise is added to the stream before the layer, and the resulting queries, keys and values are recorded. If these alone
are put into the layer, they must give the same `z`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from residscope.attribution.head_inputs import gate_name
from residscope.cache.view import CacheView
from residscope.causes.measurement import Measurement
from residscope.causes.runner import Edit, Runner, noise
from residscope.causes.sites import Place, Read, Site
from residscope.compute.precision import step_of, working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

WORDS: dict[Read, str] = {"q": "query", "k": "key", "v": "value"}


@dataclass(frozen=True)
class ReadSite:
    """A module whose output is recorded or replaced, such as the queries of all heads of a layer.

    Attributes:
        layer: The layer.
        module: The module.
        name: The name of the activation.
    """

    layer: int
    module: Any
    name: str

    def change(self, edit: Callable[[Tensor], Tensor], prompts: int) -> Callable[[Tensor], Tensor]:
        """Return an edit of the module's output. `edit` gets this output as `[prompt, number]`."""
        return lambda output: edit(output.reshape(prompts, -1)).reshape(output.shape)


def capture(into: list[Tensor]) -> Edit:
    """Return an edit that changes nothing, and records the activation."""

    def edit(held: Tensor) -> Tensor:
        into.append(held.detach().clone())  # a copy, because a later module may write into `held`
        return held

    return edit


def put(value: Tensor) -> Edit:
    """Return an edit that replaces the run's own activation by `value`."""
    return lambda held: value.to(held).reshape(held.shape)


class Reads:
    """The inputs of the heads of one layer: queries, keys and values.

    Args:
        measurement: The cached run.
        runner: Makes the runs.
        layer: The layer.

    Attributes:
        stream: The stream before the layer.
        z: The heads' `z`.
        gate: The name of the gate of the layer's heads, if they have one.

    Raises:
        ResidscopeError: If the inputs of the layer's heads cannot be changed.
    """

    def __init__(self, measurement: Measurement, runner: Runner, layer: int) -> None:
        self._measurement, self._runner, self.layer = measurement, runner, layer
        stream, z = measurement.site("resid_pre", layer), measurement.site("z", layer)
        if stream is None or z is None:
            raise _not_found(layer, "hook_resid_pre" if stream is None else "attn.hook_z")
        self.stream: Site = stream
        self.z: Site = z
        view, self.gate = measurement.view, gate_name(measurement.view, layer)
        self._sites: dict[Read, ReadSite] = {}
        for part in WORDS:
            site = _site(view, layer, f"attn.hook_{part}")
            if site is not None:
                self._sites[part] = site
        self._test()

    def check(self, part: Read) -> None:
        """Check that the input `part` of the layer's heads can be changed.

        Raises:
            ResidscopeError: If the input cannot be changed.
        """
        if part not in self._sites:
            raise _not_found(self.layer, f"attn.hook_{part}")

    def of(
        self, parts: Iterable[Read], added: Float[Tensor, "copy batch pos d_model"]
    ) -> dict[Read, Float[Tensor, "prompt number"]]:
        """Return the inputs `parts` of all heads, if `added` is added to the cached stream before the layer."""
        found: dict[Read, list[Tensor]] = {part: [] for part in parts}
        edits: list[tuple[Place, Edit]] = [(self.stream, _add(added))]
        edits += [(self._sites[part], capture(into)) for part, into in found.items()]
        self._runner.changed(edits, len(added), last=self.layer)
        return {part: into[0] for part, into in found.items()}

    def z_of(
        self, read: Mapping[Read, Tensor], copies: int, stream: Tensor | None = None
    ) -> Float[Tensor, "prompt pos head d_head"]:
        """Return the `z` of all heads for the inputs in `read`. The others come from `stream` (None: as cached)."""
        into: list[Tensor] = []
        edits: list[tuple[Place, Edit]] = [(self._sites[part], put(value)) for part, value in read.items()]
        edits += [(self.stream, put(stream))] if stream is not None else []
        self._runner.changed([*edits, (self.z, capture(into))], copies, last=self.layer)
        return into[0]

    def _test(self) -> None:
        """Run the test that this module's docstring describes. The output of a gate's module is put in, too.

        Raises:
            ResidscopeError: If `z` differs.
        """
        view, before = self._measurement.view, self._measurement.replay.run.streams[self.layer]
        whole: dict[str, tuple[ReadSite, list[Tensor]]] = {site.name: (site, []) for site in self._sites.values()}
        gate = None if self.gate is None else _site(view, self.layer, self.gate.split(".", 2)[2])
        if gate is not None:
            whole[gate.name] = gate, []
        clean: list[Tensor] = []
        noisy: list[Tensor] = []
        again: list[Tensor] = []
        recorded: list[tuple[Place, Edit]] = [(site, capture(into)) for site, into in whole.values()]
        added = noise(before)[None]
        self._runner.changed([(self.z, capture(clean))], 1, last=self.layer)
        self._runner.changed([(self.stream, _add(added)), *recorded, (self.z, capture(noisy))], 1, last=self.layer)
        fires = all(len(into) == 1 for _, into in whole.values())
        if fires:
            edits: list[tuple[Place, Edit]] = [(site, put(into[0])) for site, into in whole.values()]
            self._runner.changed([*edits, (self.z, capture(again))], 1, last=self.layer)
            effect = (working(noisy[0]) - working(clean[0])).norm().clamp(min=1e-30)
            error = (working(again[0]) - working(noisy[0])).norm() / effect
            if bool(error <= max(1e-3, 32 * step_of(noisy[0].dtype))):
                return
        raise ResidscopeError(
            "path",
            f"In layer {self.layer} a path to a head's query, key or value cannot be followed: what its heads write "
            "does not follow from `hook_q`, `hook_k` and `hook_v` alone.",
        )


def _add(added: Tensor) -> Edit:
    return lambda held: (working(held) + added.to(working(held)).reshape(held.shape)).to(held)


def _site(view: CacheView, layer: int, path: str) -> ReadSite | None:
    """The module of a cached activation. None if there is none."""
    from torch.nn import Module

    name = f"blocks.{layer}.{path}"
    module = reduce(lambda owner, part: getattr(owner, part, None), path.split("."), view.model.blocks[layer])
    return ReadSite(layer, module, name) if isinstance(module, Module) and name in view.activations else None


def _not_found(layer: int, path: str) -> ResidscopeError:
    return ResidscopeError(
        "path",
        f"A path cannot end in layer {layer}: `blocks.{layer}.{path}` is not in the cache, or a run of this model "
        "cannot be changed there.",
    )
