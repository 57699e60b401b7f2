"""What every measurement needs: the replay, the target, its readout, and its value before any change."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import index
from typing import TYPE_CHECKING, Any

from residscope.attribution.rounding import SMALLEST
from residscope.attribution.targets import Targets
from residscope.base.arrays import as_list
from residscope.base.signed import signed
from residscope.cache import positions
from residscope.cache.finite import check_finite
from residscope.cache.positions import Positions
from residscope.cache.view import CacheView
from residscope.causes import refusals
from residscope.causes.left_out import LEFT_OUT
from residscope.causes.readout import RunReadout
from residscope.causes.replay import Replay, replay
from residscope.causes.sites import Site, SiteKind
from residscope.causes.tape import Tape
from residscope.compute.precision import step_of
from residscope.errors import ResidscopeError
from residscope.session.change_notes import changed
from residscope.terms import Answers, Target

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass
class Measurement:
    """A cached run that was replayed, and the target in it.

    Attributes:
        view: The cache.
        targets: Resolves targets for the cache.
        target: The target.
        where: The position of each prompt at which the target is read.
        replay: The replayed run.
        readout: Reads the target from the final stream of a run.
        before: The target in the unchanged run, `[batch]`. NaN where it is read at padding.
        notes: Notes on the target and the cache.
        slopes: The target's gradient at each site, `[batch, pos, *inner]`. Empty if it was not computed.
        padded: In which prompts the target is read at padding. There are no effects there (NaN). None: in no prompt.
    """

    view: CacheView
    targets: Targets
    target: Target
    where: Int[Tensor, " batch"]
    replay: Replay
    readout: RunReadout
    before: Float[Tensor, " batch"]
    notes: list[str] = field(default_factory=list[str])
    slopes: dict[tuple[SiteKind, int], Tensor] = field(default_factory=dict)
    padded: Bool[Tensor, " batch"] | None = None

    @classmethod
    def of(
        cls,
        view: CacheView,
        answers: Answers,
        position: Positions,
        targets: Targets | None = None,
        *,
        slopes_at: SiteKind | None = None,
        changed_at: Bool[Tensor, "batch pos"] | None = None,
    ) -> Measurement:
        """Replay the cached run, and check the target.

        Args:
            view: The cache.
            answers: The target, as in `ablate`.
            position: Where the target is read.
            targets: Resolves targets for the cache. None: new ones.
            slopes_at: The kind of sites at which the target's gradient is computed, if possible. None: no gradient.
            changed_at: The positions that the runs will change. If this is only the position at which the target is
                read, the replay keeps the model's key/value cache. None: not known.

        Raises:
            ResidscopeError: If the replay differs from the cached run, or its target differs from the cached value or
                from the model's own value.
        """
        targets = Targets.of(view) if targets is None else targets
        where = positions.resolve(view, position)
        target = targets.resolve(answers)
        readout = RunReadout.of(targets, target, where)
        tape = None if slopes_at is None else Tape(slopes_at)
        only_there = changed_at is not None and common_position(changed_at, readout.where) is not None
        again = replay(view, None if target.direction is not None else where, tape, keeps_past=only_there)
        before = readout.value(readout.pick(again.run.final[None]))[0]
        notes = targets.notes + changed(view) + readout.notes
        _check_target(readout, again, before)
        notes += _padding_notes(view, position, readout.where)
        padded = positions.are_padding(view, readout.where)
        found = cls(view, targets, target, readout.where, again, readout, before, notes, padded=padded)
        found.before = found.where_read(before)
        if tape is not None and tape.final is not None:
            found._differentiate(tape)
        return found

    def _differentiate(self, tape: Tape) -> None:
        """Fill `slopes` from the recorded replay."""
        sites = [site for (kind, _), site in self.replay.sites.items() if kind == tape.kind]
        readout = self.readout.without_inference_tensors()
        found = tape.slopes(sites, lambda final: readout.value(readout.pick(final[None]))[0], self.view.batch)
        if found is not None:
            self.slopes = {(site.kind, site.layer): slope for site, slope in zip(sites, found, strict=True)}

    def where_read(self, values: Float[Tensor, "*row batch"]) -> Float[Tensor, "*row batch"]:
        """Return values of the target with NaN in the prompts in which it is read at padding."""
        return values if self.padded is None else values.masked_fill(self.padded.to(values.device), float("nan"))

    @property
    def replayed(self) -> str:
        """The comparison of the replay with the cache, in words: `an unchanged run gives +4.724, as in the cache`."""
        return replayed_words(self.before, self.replay.gap)

    def site(self, kind: SiteKind, layer: int) -> Site | None:
        """Return a site. None if this layer has no such site."""
        return self.replay.sites.get((kind, layer))

    def layers(self, kind: SiteKind) -> list[int]:
        """Return the layers that have a site of this kind.

        Raises:
            ResidscopeError: If no layer has one.
        """
        found = [layer for layer in range(self.view.n_layers) if self.site(kind, layer) is not None]
        if not found:
            name = {"z": "attn.hook_z"}.get(kind, f"hook_{kind}")
            raise ResidscopeError(
                "causes",
                f"`{name}` is not in this cache, or a run of this model cannot be changed there: no layer calls a "
                "module with this output.",
            )
        return found


def common_position(changed_at: Bool[Tensor, "batch pos"], where: Int[Tensor, " batch"]) -> int | None:
    """Return the position at which every prompt's target is read, if nothing is changed elsewhere. Else None."""
    places = set(where.tolist())
    if len(places) != 1 or not bool((changed_at.sum(1) == 1).all() and changed_at[:, where].all()):
        return None
    return places.pop()


AS_CACHED = "as in the cache"
"""The words for an unchanged run that gives the cached values."""


def replayed_words(before: Tensor, gap: float, prompt: int | None = None) -> str:
    """Return the comparison of an unchanged run with the cache, in words.

    Args:
        before: The target in the run, `[batch]`.
        gap: The largest difference from the cache, relative to an activation's size.
        prompt: The prompt whose target is named. None: the mean over prompts.
    """
    exact = "" if gap == 0 else f", up to rounding ({gap:.1g} of an activation's size)"
    words = value_words(before if prompt is None else before[prompt : prompt + 1])
    return f"an unchanged run {f'gives {words},' if words else 'is'} {AS_CACHED}{exact}"


def value_words(before: Tensor) -> str:
    """Return the mean of the target over the prompts in which it is known. Empty if it is known in none."""
    known = before[~before.isnan()]
    if len(known) == 0:
        return ""
    value = float(known.mean())
    count = "prompts" if len(known) == len(before) else f"{len(known)} of {len(before)} prompts"
    return signed(value, abs(value)) + f" (mean over {count})" * (len(before) > 1)


def _padding_notes(view: CacheView, position: Positions, where: Int[Tensor, " batch"]) -> list[str]:
    """Notes on padding. That of a single prompt, which is read at padding, adds that it has no effects."""
    alone = positions.padding_note(view, where) if view.batch == 1 else []
    notes = positions.notes_on(view, position, where)
    return [f"{note} {LEFT_OUT}" if note in alone else note for note in notes]


def _check_target(readout: RunReadout, again: Replay, before: Tensor) -> None:
    """Check that the target in the replay equals the cached value and the model's own value.

    Raises:
        ResidscopeError: If the target differs from one of them.
    """
    view, targets = readout.view, readout.targets
    step = max(view.rounding_step(), step_of(view.stream.dtype))  # the user may have converted the cache
    tolerance = max(SMALLEST, 8 * step * float(readout.frozen.products))
    compared = [readout.measured()]
    if again.run.logits is not None:
        chosen = targets.chosen(readout.target, again.run.logits[:, None])
        compared.append(targets.mixed(readout.target, chosen)[:, 0])
    gaps = [0.0 if value is None else float((value.to(before) - before).abs().max()) for value in compared]
    for number, gap in enumerate(gaps):
        if not gap <= tolerance:
            if gap != gap:
                check_finite(view, before, *compared)
            what = ("the cached value", "what the model itself computes")[number]
            if number == 0 and len(gaps) > 1 and gaps[1] <= tolerance:
                raise refusals.changed_since(view, gap)
            raise ResidscopeError(
                "replay",
                f"The target, read from the final stream of a run, differs from {what} by {gap:.2g}: this model does "
                "more after its last block than a norm and an unembedding, so causes cannot be measured in it.",
            )


def chosen_positions(view: CacheView, given: Any) -> Bool[Tensor, "batch pos"]:
    """Return the positions that are changed in each prompt. Padding is never changed.

    Args:
        view: The cache.
        given: `"all"`, `"last"` (each prompt's last real token), a position, or several.

    Raises:
        ResidscopeError: If `given` does not name positions of this cache, or only padding.
    """
    import torch

    real = positions.real(view)
    if isinstance(given, str):
        if given == "all":
            return real
        if given == "last":
            return torch.arange(view.n_pos, device="cpu") == torch.tensor(positions.last(view), device="cpu")[:, None]
        raise ResidscopeError("positions", f'`positions="{given}"` is not known: use "all", "last", or positions.')
    if isinstance(given, range | set | frozenset):
        given = sorted(given)
    listed = as_list(given)
    listed = listed if isinstance(listed, list | tuple) else [listed]
    chosen = torch.zeros(view.n_pos, dtype=torch.bool, device="cpu")
    for place in listed:
        is_whole = not isinstance(place, bool) and hasattr(place, "__index__")
        if not is_whole:
            raise ResidscopeError("positions", f"`positions={given!r}`: give whole numbers, which all prompts share.")
        place = index(place)
        if not -view.n_pos <= place < view.n_pos:
            raise ResidscopeError(
                "positions", f"Position {place} is outside the prompt, which has positions 0 to {view.n_pos - 1}."
            )
        chosen[place] = True
    if not bool(chosen.any()):
        raise ResidscopeError("positions", "`positions=` names no position.")
    if not bool((real & chosen).any()):
        raise ResidscopeError(
            "positions",
            f"`positions={given!r}` are padding in every prompt, so nothing would be replaced.",
        )
    return real & chosen
