"""The target of a panel, the position where it is read, and the trail of targets. Setting one may change the others.

`target` is the readable form, which exists only in Python. `wire_target` is the form that the views share.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Literal, cast

import msgspec
import traitlets

from residscope.attribution.own_targets import last_places
from residscope.attribution.targets import Targets, as_answers
from residscope.base.legible import shown
from residscope.cache import positions
from residscope.errors import ResidscopeError
from residscope.hosts.destination import at_destination, at_new_end
from residscope.hosts.selection_checks import CheckedSelection, Checks, Moved, in_every_cache
from residscope.hosts.traits import ReadableTarget
from residscope.serving.request_context import check_one_source
from residscope.serving.service import Service
from residscope.terms import AttentionScore, Position, Target, is_chosen
from residscope.wire.refusals import refusal
from residscope.wire.shown import MOST_OF_TRAIL, Step


class TargetTrail(CheckedSelection):
    """The traits `target`, `wire_target`, `position`, `padding`, `trail` and `step` of a panel, which move together."""

    wire_target = traitlets.Dict().tag(sync=True)
    target = ReadableTarget()

    def __init__(self, **state: object) -> None:
        self._resolved = Target([])
        self._steps: list[Step] = []  # the trail; `_readable` are its targets in the form that a user would write
        self._readable: list[Any] = []
        self._follows = False  # whether a trait is set because another trait was set
        self._moves_end = False  # whether the last position was selected, and the new target has another last position
        self._former: Step | None = None  # the target and the position before the present target was set
        super().__init__(**state)

    def _checks(self, service: Service, moved: Moved) -> Checks:
        targets = service.targets()

        def check(target: Target) -> None:
            if is_chosen(target) and not target.own:
                targets.resolve(target)

        return super()._checks(service, moved) | {
            "target": lambda: check(moved.present.target),
            "trail": lambda: [check(step.target) for step in moved.trail],
            "position": in_every_cache,  # a position that the cache does not have was replaced by the last one
            "step": in_every_cache,
        }

    # --- another last position ---------------------------------------------------------------------------------------
    def _moved(self, ends: set[int], service: Service) -> Moved:
        """Return the target, its position and the trail, after another position has become the last one.

        Args:
            ends: The former last position of each prompt.
            service: The service of the present cache, or of another one. Another cache has its own default target.
        """
        view = service.view(self.padding)
        is_other = service is not self._service

        def moved(step: Step) -> Step:
            chosen = is_chosen(step.target) and not step.target.own
            target = step.target if chosen or not is_other else service.default_target()
            return at_new_end(msgspec.structs.replace(step, target=target), ends, view)

        present, *trail = map(moved, [Step(self._resolved, self._selected_position), *self._steps])
        return Moved(present, trail if all(is_chosen(step.target) for step in trail) else [])

    def _take(self, moved: Moved) -> None:
        """Show the present target of `moved` at its position, and its trail."""
        with self.hold_sync(), self._following():
            if moved.present.target != self._resolved:
                self.target = moved.present.target if is_chosen(moved.present.target) else None
            self.position = moved.present.position
            if moved.trail != self._steps:
                self.trail = moved.trail
                self.send_state("trail")  # traitlets compares only the readable form, which has no positions

    def _follow_end(self, ends: set[int]) -> None:
        """Move everything that was at the former last positions `ends` to the present one."""
        self._take(self._moved(ends, self._service))

    # --- the position ------------------------------------------------------------------------------------------------
    def whole_position(self, position: Any) -> int | Literal["last"]:
        """Return a position counted from the start, or "last" if prompts end at different positions."""
        view = self._service.view(self.padding)
        if position == "last":
            last = set(last_places(view, self._resolved))
            return last.pop() if len(last) == 1 else "last"
        at = positions.resolve(view, position)
        if at is None or len(set(at.tolist())) > 1:
            raise ResidscopeError("position", "The panel shows one position at a time: give one number.")
        return int(at[0])

    @traitlets.validate("position")
    def _check_position(self, proposal: traitlets.Bunch) -> int | Literal["last"]:
        """Refuse a position that cannot be the destination of the shown attention score."""
        self._asked_at(proposal.value)
        return proposal.value

    @traitlets.observe("position")
    def _ask_there(self, change: traitlets.Bunch) -> None:
        """If an attention score is shown, move it to the new destination."""
        asked = self._asked_at(change.new)
        if asked != self._resolved:
            self.target = asked

    def _asked_at(self, position: Position) -> Target:
        """The target at this destination. The unchanged target if the position was not set in Python."""
        if self._follows or self._received or not self._is_made:
            return self._resolved
        return at_destination(self._resolved, position, positions.last(self._service.view(self.padding)))

    @traitlets.observe("padding")
    def _count_padding(self, change: traitlets.Bunch) -> None:
        """Move what is at the last position to the new last position."""
        self._follow_end(set(positions.last(self._service.view(change.old))))

    def _ends(self, facts: dict[str, Any]) -> set[int]:
        """The last position of each prompt of a cache with this description."""
        return set(facts["last"] if self.padding == "found" else [facts["positions"] - 1])

    # --- the target --------------------------------------------------------------------------------------------------
    def readable_target(self, answers: object) -> Any:
        """Resolve answers, store the target, and return it in the form that a user would write."""
        targets = self._service.targets()
        resolved = self._service.default_target() if answers is None else targets.resolve(answers)
        check_one_source(resolved)
        # If several traits are set at once, traitlets validates the readable form again. This form does not show
        # whether the target is the default one (`own`).
        if resolved != msgspec.structs.replace(self._resolved, own=False):
            if is_chosen(self._resolved):
                self._former = Step(self._resolved, self._position_of(self._resolved))
            ends = last_places(self._service.view(self.padding), self._resolved)
            differs = (self._resolved.next_token is None) != (resolved.next_token is None)
            self._moves_end = differs and self._is_made and (self.position == "last" or set(ends) == {self.position})
            self._resolved = resolved
        self._service.choose(self._resolved)
        return _as_written(self._resolved, targets)

    @traitlets.observe("target")
    def _send_target(self, _change: object) -> None:
        with self.hold_sync():
            self.wire_target = msgspec.to_builtins(self._resolved)
            if self._moves_end:  # no token follows the last one, so a next-token target has an earlier last position
                self._moves_end = False
                with self._following():
                    self.position = "last"
            if self._follows:
                return
            if not (self.step < len(self._steps) and self._steps[self.step].target == self._resolved):
                self._lengthen_trail()
            if isinstance(self._resolved.inner, AttentionScore) and not self._resolved.through:
                self.position = self._resolved.inner.destination

    @traitlets.observe("wire_target")
    def _receive_target(self, change: traitlets.Bunch) -> None:
        try:
            received = msgspec.convert(change.new, Target)
            if received != self._resolved:
                self.target = received
        except ValueError as error:  # not a target of this model: keep the former one, and send that to the view
            self.wire_target = msgspec.to_builtins(self._resolved)
            if isinstance(error, msgspec.ValidationError):
                failure = refusal(error, change.new)
                raise ResidscopeError(failure.code, failure.message) from error
            raise

    # --- the trail ---------------------------------------------------------------------------------------------------
    @property
    def _selected_position(self) -> Position:
        return cast("Position", self.position)  # the trait's type is not known to the checker

    def _position_of(self, target: Target) -> Position:
        """The position of a step of the trail. An attention score has its own destination."""
        if isinstance(target.inner, AttentionScore) and not target.through:
            return target.inner.destination
        return self._selected_position

    def _lengthen_trail(self) -> None:
        """Append a target inside the model to the trail, after the former target. Logits empty the trail."""
        former, resolved = self._former, self._resolved
        if former is None or not (resolved.inner or resolved.through):
            self.trail, self.step = [], 0
            return
        # The former target is the present step of the trail, unless the trail has other targets.
        on_trail = self.step < len(self._steps) and self._steps[self.step].target == former.target
        before = self._steps[: self.step] if on_trail else []
        steps = [*before, former, Step(resolved, self._position_of(resolved))]
        with self._following():
            # The first target stays, because all others explain it.
            self.trail = steps[:1] + steps[max(1, len(steps) - MOST_OF_TRAIL + 1) :]
            self.step = len(self._steps) - 1

    def readable_trail(self, given: object) -> list[Any]:
        """Resolve a list of targets or of steps, store the steps, and return the targets in their readable form.

        Raises:
            ResidscopeError: If it is not a list, is too long, or has an entry that is not a target of this model.
        """
        if not isinstance(given, list | tuple):
            raise ResidscopeError("trail", f"`trail` is a list of targets, not {shown(repr(given))}.")
        entries: list[Any] = list(given)  # pyright: ignore[reportUnknownArgumentType]
        if len(entries) > MOST_OF_TRAIL:
            raise ResidscopeError("trail", f"A trail has at most {MOST_OF_TRAIL} targets, not {len(entries)}.")
        targets, known = self._service.targets(), list(zip(self._readable, self._steps, strict=True))
        # A target that was on the trail keeps its position.
        steps = [next((step for was, step in known if was is entry), None) or self._step(entry, targets)
                 for entry in entries]  # fmt: skip
        self._steps = steps
        self._readable = [_as_written(step.target, targets) for step in steps]
        return list(self._readable)

    def _step(self, entry: Any, targets: Targets) -> Step:
        if isinstance(entry, Step):
            return Step(targets.resolve(entry.target), entry.position)
        target = targets.resolve(entry)
        check_one_source(target)
        return Step(target, self._position_of(target))

    def wire_trail(self) -> list[Any]:
        """The trail's steps as plain data."""
        return msgspec.to_builtins(self._steps)

    @traitlets.observe("trail")
    def _show_last(self, _change: object) -> None:
        """After the trail was set in Python, show its last target. A view sets step and target itself."""
        if self._follows or self._received:
            return
        with self.hold_sync():
            self.step = max(len(self._steps) - 1, 0)
            self._go_to_step()

    @traitlets.validate("step")
    def _check_step(self, proposal: traitlets.Bunch) -> int:
        if proposal.value and proposal.value >= len(self._steps):
            count = len(self._steps)
            raise ResidscopeError("trail", f"There is no step {proposal.value}: the trail has {count} targets.")
        return proposal.value

    @traitlets.observe("step")
    def _go_to_step(self, _change: object = None) -> None:
        if self._received or not self.step < len(self._steps):
            return
        step = self._steps[self.step]
        with self.hold_sync(), self._following():
            self.target, self.position = step.target, step.position

    @contextmanager
    def _following(self) -> Generator[None]:
        before, self._follows = self._follows, True
        try:
            yield
        finally:
            self._follows = before


def _as_written(target: Target, targets: Targets) -> Any:
    """A target in the form that a user would write. None if it is empty."""
    return as_answers(target, targets.vocabulary, targets.given_direction) if is_chosen(target) else None
