"""Path patching: the effect of what a component sends to a head's query, key or value, or to the logits.

1. The component's block is run with the component's activation replaced. The change of the sublayer's output is kept.
2. The stream carries this change to the receiver's layer. Everything that the layers between add to the stream is held
at its cached value.
3. The receiver's layer is run with this stream. This gives the receiver's query, key or value. Then the layer is run
with the unchanged stream, and only this query, key or value is put in. This gives the receiver's `z`. If there are
receivers in earlier layers, the stream that they have changed takes the place of the unchanged stream.
4. A run with this `z` gives the effect. Everything after the receiver runs as usual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, ClassVar

from residscope.causes.carry import Carry
from residscope.causes.path import Ends, last_layer, sharing
from residscope.causes.reads import Reads, capture, put
from residscope.causes.runner import Edit, Runner
from residscope.causes.sites import Place, Read, Site, SiteKind, held
from residscope.causes.sweep import FEW, Patch, Sweep, measure_some
from residscope.compute.precision import working
from residscope.errors import ResidscopeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass
class PathSweep(Sweep):
    """Runs in which a component is replaced only along the path to some receivers.

    Attributes:
        ends: The end of the path. If `direct` is set (only for the logits), the final norm's scale is frozen.
    """

    joins_layers: ClassVar[bool] = False
    ends: Ends = "logits"

    def __post_init__(self) -> None:
        super().__post_init__()
        of = self.measurement
        self._ready = False
        self._unchanged: dict[int, Tensor] = {}
        self.last = last_layer(of.view, self.ends)
        if self.kind == "resid_pre":
            raise ResidscopeError("path", 'A path begins at heads or sublayers, not at the stream (`at="resid_pre"`).')
        self._out: SiteKind = "attn_out" if self.kind == "z" else self.kind
        heads = {layer: site.inner[0] for (kind, layer), site in of.replay.sites.items() if kind == "z"}
        for one in () if self.ends == "logits" else self.ends:
            if one.head >= heads.get(one.layer, 0):
                raise ResidscopeError("path", f"`path=`: layer {one.layer} has no head {one.head} that could be run.")
        self.notes = sharing(of.view, self.ends, heads)

    def sends(self, layer: int) -> bool:
        """Return whether a component of this layer comes before a receiver, or before the logits."""
        return layer < self.last

    def steps(
        self, patches: Sequence[Patch], total: Tensor, direct: Tensor, most: Callable[[], int] | None = None
    ) -> Iterator[list[int]]:
        """See `Sweep.steps`."""
        self._prepare(patches)
        yield from super().steps(patches, total, direct, most)

    def together(self, patches: Sequence[Patch]) -> tuple[Tensor, Tensor]:
        """See `Sweep.together`. All components send at once."""
        self._prepare(patches)
        if self.direct is not None:
            total = super().together(patches)[1]
            return total, total * float("nan")
        sent: dict[int, Tensor] = {}
        for layer, own in groupby(sorted(patches, key=lambda one: one.layer), key=lambda one: one.layer):
            sent[layer] = self._sent(layer, self._select(self._site(layer), list(own)).any(0, keepdim=True))
        total = self._received(sent)[0]
        return total, total * float("nan")

    def _choose_runner(self, count: int) -> None:
        """Do nothing, because `_prepare` has chosen the runner."""

    def _of(self, patches: Sequence[Patch]) -> tuple[Tensor, Tensor]:
        site = self._site(patches[0].layer)
        select = self._select(site, patches)
        if self.direct is not None:
            before = held(self.measurement.view, site.kind, site.layer)
            change = self._change_at_target(site, select, self.replacement.of(site), before, 0)
            total = self.direct.effect(site.layer, change)
        else:
            total = self._received({site.layer: self._sent(site.layer, select)})
        return total, total * float("nan")

    def _prepare(self, patches: Sequence[Patch]) -> None:
        """Test the path, and record the unchanged outputs of the sending sublayers."""
        of, layers = self.measurement, sorted({patch.layer for patch in patches})
        if self.direct is not None or self._ready:
            return
        receivers = () if self.ends == "logits" else self.ends
        runner = self._runs = self.runner = Runner(of.replay, few=len(patches) <= FEW and not receivers)
        several = len({one.layer for one in receivers}) > 1
        if runner.chain is None and several:
            raise ResidscopeError(
                "path", f"`path=` can only name heads of one layer here, because {runner.why_whole}: blocks may pass "
                "more than the stream to each other."
            )  # fmt: skip
        for layer in layers:
            if of.site(self._out, layer) is None:
                raise ResidscopeError(
                    "path", f"A path cannot begin in layer {layer}: a run cannot be changed at its `hook_{self._out}`."
                )
        self._carry = Carry(of, runner, self._out, layers, self.last)
        self._reads = {layer: Reads(of, runner, layer) for layer in dict.fromkeys(one.layer for one in receivers)}
        for one in receivers:
            self._reads[one.layer].check(one.part)
        for layer, reads in self._reads.items():
            if reads.gate is not None:
                self.notes.append(
                    f"The heads of layer {layer} gate what they have read (`{reads.gate}`). The gate is not part of a "
                    "path, unless the model computes it with the query."
                )
        into: dict[int, list[Tensor]] = {layer: [] for layer in layers}
        edits: list[tuple[Place, Edit]] = [(self._site(layer, self._out), capture(into[layer])) for layer in layers]
        runner.changed(edits, 1, last=layers[-1])
        self._unchanged = {layer: kept[0] for layer, kept in into.items()}
        self._ready = True

    def _site(self, layer: int, kind: SiteKind | None = None) -> Site:
        site = self.measurement.site(kind or self.kind, layer)
        assert site is not None
        return site

    def _sent(self, layer: int, select: Tensor) -> Float[Tensor, "copy batch pos d_model"]:
        """The change of the sublayer's output if only the chosen activations are replaced."""
        site, out = self._site(layer), self._site(layer, self._out)
        into: list[Tensor] = []
        edit = self._edit(select, self.replacement.of(site), [])
        edits: list[tuple[Place, Edit]] = [(site, edit), (out, capture(into))]
        if site is out:  # the sublayer's output is replaced, so no run is needed
            before = self._unchanged[layer]
            into.append(edit(before.repeat(len(select), *[1] * (before.ndim - 1))))
        else:
            self._runs.changed(edits, len(select), last=layer)
        view = self.measurement.view
        changed = working(into[0]).reshape(len(select), view.batch, view.n_pos, *out.inner)
        return changed - working(self._unchanged[layer])[None]

    def _received(self, sent: dict[int, Tensor]) -> Float[Tensor, "copy batch"]:
        """The effect on the target of what the sublayers of some layers send."""
        of, (some, *_) = self.measurement, sent.values()
        if self.ends == "logits":
            final = of.readout.pick(of.replay.run.final[None])
            added = of.readout.pick(self._arriving(sent, of.view.n_layers))
            return of.where_read(of.readout.value(final + added) - of.readout.value(final))
        active = [one for one in self.ends if one.layer > min(sent)]
        stream: Tensor | None = None
        layers = sorted({one.layer for one in active})
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            reads, arriving = self._reads[layer], self._arriving(sent, layer)
            by_head: dict[int, frozenset[Read]] = {}
            for one in active:
                if one.layer == layer:
                    by_head[one.head] = by_head.get(one.head, frozenset[Read]()).union((one.part,))
            read = reads.of(sorted({part for parts in by_head.values() for part in parts}), arriving)
            z: dict[int, Tensor] = {}
            for parts in set(by_head.values()):
                own = reads.z_of({part: read[part] for part in parts}, len(some), stream)
                z |= {head: own[:, :, head] for head, wanted in by_head.items() if wanted == parts}
            edits: list[tuple[Place, Edit]] = [(reads.z, _put_heads(z))]
            edits += [(reads.stream, put(stream))] if stream is not None else []
            into: list[Tensor] = []
            edits += [(self._reads[following].stream, capture(into))] if following is not None else []
            final = self._runs.changed(edits, len(some), last=following)
            stream = into[0] if into else None
        return of.readout.value(of.readout.pick(final)) - of.before  # pyright: ignore[reportPossiblyUnboundVariable]

    def _arriving(self, sent: dict[int, Tensor], until: int) -> Tensor:
        """What the sent changes add to the stream before a layer."""
        import torch

        parts = [part * self._carry.factor(layer, until) for layer, part in sent.items() if layer < until]
        return torch.stack(parts).sum(0)


def _put_heads(z: dict[int, Tensor]) -> Edit:
    def edit(held: Tensor) -> Tensor:
        held = held.clone()
        for head, value in z.items():
            held[:, :, head] = value.to(held)
        return held

    return edit


def along_path(sweep: PathSweep, patches: Sequence[Patch], *, shown: bool, name: str) -> tuple[Tensor, list[int]]:
    """Return the effects of all patches, `[patch, batch]`, and the rows that were measured.

    In the other rows, the component does not come before the end of the path, and the effects are NaN. If the runs are
    interrupted, the exception gets the effects measured so far, as in `measure_some`.

    Raises:
        ResidscopeError: If no component comes before the end of the path.
    """
    rows = [row for row, patch in enumerate(patches) if sweep.sends(patch.layer)]
    if not rows:
        raise ResidscopeError("path", "No component comes before what `path=` names.")
    effects = sweep.unmeasured(len(patches))[0]
    measure_some(sweep, patches, rows, effects, shown=shown, name=name)
    return effects, rows
