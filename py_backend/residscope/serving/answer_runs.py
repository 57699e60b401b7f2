"""Answers the requests that run the user's model: effects of replacing activations, and a run without some heads."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from residscope.attribution.own_targets import at_position, places_of
from residscope.attribution.targets import Targets
from residscope.cache import positions
from residscope.cache.component_names import parse_heads
from residscope.cache.view import CacheView
from residscope.causes.hooks import hook_state
from residscope.causes.measurement import chosen_positions
from residscope.causes.replacement import Replacement, of_other_cache, replacement
from residscope.causes.replay import Replay, replay
from residscope.causes.stepped import Measured, steps
from residscope.causes.without import as_cache, changed_run
from residscope.errors import ResidscopeError, copied
from residscope.serving import turns
from residscope.serving.measuring import Measuring, Pace, SteppedRun
from residscope.serving.second_run import check_by_index
from residscope.serving.shown_prompts import ShownPrompts
from residscope.session.change_tracking import track
from residscope.session.class_kinds import peek
from residscope.session.discovery import named
from residscope.terms import Against, Padding
from residscope.wire.causes import EffectsReply, MeasureEffects, RunWithout, WithoutReply
from residscope.wire.envelope import Buffers, float32, number

_RUN_FIRST = "There is no run without these heads yet, or the cache was changed since. Press “run again”."
_NO_OTHER = "There is no other run whose activations could be put in: choose one in “against …”."
_INTERRUPTED = "The run was interrupted. Make it again."
_APART = (
    "The prompts end at different positions, and each position has its own target: choose a prompt, or a position that "
    "all prompts have."
)
_NO_EFFECTS = ", so there are no effects: choose another position."
_ONE_PROMPT = "The activations of one prompt cannot be put into the mean over all prompts: choose a prompt."


R = TypeVar("R")
T = TypeVar("T")


class Alone(Protocol):
    """Does some work while no other request about this cache is computed, and returns its result."""

    def __call__(self, work: Callable[[], T], /) -> T:
        """Do the work."""
        ...


@dataclass
class WhatIf:
    """A run without some heads.

    Attributes:
        cache: The run as a cache. None until the run is done.
        replayed: The comparison of the unchanged run with the cache, in words.
        notes: Notes on the run.
    """

    cache: Any = None
    replayed: str = ""
    notes: list[str] = field(default_factory=list[str])


class RunRequests:
    """The runs that views requested for one cache.

    Args:
        opened: Opens the cache in its present state.
        targets: Resolves targets for the cache.
        state: Compares cache, weights and settings with their last state. Returns their present state.
        alone: Does some work while no other request about this cache is computed.
        cache: Returns the user's cache.
    """

    def __init__(
        self,
        opened: Callable[[Padding], CacheView],
        targets: Callable[[CacheView], Targets],
        state: Callable[[], Hashable],
        alone: Alone,
        cache: Callable[[], Any],
    ) -> None:
        self._opened, self._targets, self._state, self._alone = opened, targets, state, alone
        self._cache, self.measuring = cache, Measuring()

    def effects(self, ask: MeasureEffects, *, gives_turns: bool) -> tuple[EffectsReply, Buffers]:
        """Answer with the effects that are known so far. Take a turn (see `turns`) unless `gives_turns` is set."""
        if ask.replaced_by == "other":
            if ask.against is None:
                raise ResidscopeError("against", _NO_OTHER)
            if ask.prompt is None and ask.against.cache is None and not ask.against.without:
                raise ResidscopeError("prompt", _ONE_PROMPT)
        ask = self._asked(ask)
        if ask.measure:
            self._alone(lambda: self._prompts(ask))  # refuses a position without effects before the model is run
        at = self._conditions(ask.padding, ask.against)
        key = self._key_of(ask, at)

        def make(into: Measured, pace: Pace) -> Iterator[None]:
            view = self._opened(ask.padding)
            return steps(
                self._targets(view), ask.target, ask.position, ask.of, self._source(ask, view), into, pace.most
            )

        run = self.measuring.find(key)
        if not ask.measure:
            if run is not None and ask.stop:
                run.stop()
        elif run is None or run.is_over:
            run = self.measuring.begin(key, self._stepped(Measured(), make, at, ask.padding, ask.against))
        else:
            run.go_on()
        if ask.measure:
            self._take_turn(run, gives_turns)
        return self._alone(lambda: self._effects(ask, run))

    def known(self, ask: MeasureEffects) -> tuple[EffectsReply, Buffers]:
        """Answer with the effects that are known so far, for a saved picture. Nothing is started."""
        ask = self._asked(ask)
        at = self._conditions(ask.padding, ask.against)
        return self._effects(ask, self.measuring.find(self._key_of(ask, at)), tells=False)

    def _asked(self, ask: MeasureEffects) -> MeasureEffects:
        """The request, in which a next-token target is replaced by the token that follows the requested position.

        Raises:
            ResidscopeError: If the position differs between prompts, or a prompt has no next token there.
        """
        if ask.target.next_token is None:
            return ask
        view = self._opened(ask.padding)
        targets, prompt = self._targets(view), view.check_prompt(ask.prompt)
        where = places_of(view, ask.target, ask.position)
        assert where is not None  # the position of a request is one position
        at: list[int] = where.tolist()
        if prompt is None and len(set(at)) > 1:
            raise ResidscopeError("position", _APART)
        place = at[prompt or 0]
        there = where.new_full((view.batch,), place)
        target = at_position(targets, targets.resolve(ask.target), there, None, prompt)
        return msgspec.structs.replace(ask, target=target, position=place)

    def _prompts(self, ask: MeasureEffects) -> ShownPrompts:
        """The prompts that a reply is about. A mean leaves out the prompts in which the target's position is padding.

        Raises:
            ResidscopeError: If the position is padding in the shown prompt, or in all prompts.
        """
        view = self._opened(ask.padding)
        where, prompt = positions.resolve(view, ask.position), view.check_prompt(ask.prompt)
        if where is None:
            return ShownPrompts(view.batch, prompt)
        padded, notes = positions.left_out(view, where, prompt), positions.padding_note(view, where, prompt)
        if padded is None and notes:
            raise ResidscopeError("position", f"{notes[0].removesuffix('.')}{_NO_EFFECTS}")
        return ShownPrompts(view.batch, prompt, padded)

    def without(self, ask: RunWithout, *, gives_turns: bool) -> WithoutReply:
        """Answer whether there is a run without these heads. Take a turn unless `gives_turns` is set."""
        key = self._key_without(ask.against, ask.padding)
        if not ask.against.without:  # the view needs no such run any more
            self.measuring.drop("without")
            return WithoutReply("done", None, "", [])

        def make(into: WhatIf, _: Pace) -> Iterator[None]:
            return self._run_without(ask.against, ask.padding, into)

        run = self.measuring.find(key)
        if run is None or run.is_over:
            self.measuring.drop("without")  # an earlier run may be as large as the cache
            at = self._conditions(ask.padding)
            run = self.measuring.begin(key, self._stepped(WhatIf(), make, at, ask.padding))
        run.go_on()
        self._take_turn(run, gives_turns)
        run.settle()
        if run.error is not None:
            raise copied(run.error)
        if run.state == "stopped":
            raise ResidscopeError("stopped", _INTERRUPTED)
        found: WhatIf = run.result
        if run.state == "done":
            return WithoutReply("done", None, found.replayed, found.notes)
        return WithoutReply("waiting", run.token, found.replayed, found.notes)

    def what_if(self, against: Against, padding: Padding) -> Any:
        """Return the cache of a run without some heads. None if `against` names no heads.

        Raises:
            ResidscopeError: If this run has not been made yet.
        """
        if not against.without:
            return None
        run = self.measuring.find(self._key_without(against, padding))
        if run is None or run.state != "done":
            raise ResidscopeError("run-first", _RUN_FIRST)
        return run.result.cache

    # --- what the runs need -------------------------------------------------------------------------------------------
    def _conditions(self, padding: Padding, against: Against | None = None) -> Hashable:
        """The state that a run depends on. If it changes, earlier measurements belong to another run."""
        return self._state(), hook_state(self._opened(padding).model), self._other_state(against, padding)

    def _other_state(self, against: Against | None, padding: Padding) -> Hashable:
        """The state of the run whose activations are put in."""
        if against is None:
            return None
        if against.without:
            run = self.measuring.find(self._key_without(against, padding))
            return None if run is None else run.token
        other = None if against.cache is None else named(against.cache)
        if other is None:
            return None
        known = track(other, self._opened(padding).model if peek(other, "model") is None else None)
        return known.id, known.current_state

    def _key_of(self, ask: MeasureEffects, conditions: Hashable) -> Hashable:
        """The key of a measurement. All prompts are measured at once, so the key is the same for each of them."""
        asked = msgspec.structs.replace(ask, prompt=None, measure=True, stop=False)
        return "effects", conditions, msgspec.msgpack.encode(asked)

    def _key_without(self, against: Against, padding: Padding) -> Hashable:
        return "without", self._conditions(padding), msgspec.msgpack.encode(against)

    def _stepped(
        self,
        result: R,
        make: Callable[[R, Pace], Iterator[None]],
        at: Hashable,
        padding: Padding,
        against: Against | None = None,
    ) -> SteppedRun[R]:
        def is_same() -> bool:
            return self._conditions(padding, against) == at

        run = SteppedRun(result, lambda: self._opened(padding).model, make, self._alone, is_same)
        run.needs(self._cache())
        if against is not None and against.cache is not None:
            run.needs(named(against.cache))
        return run

    def _take_turn(self, run: SteppedRun[Any] | None, gives_turns: bool) -> None:
        if run is not None and run.state == "waiting" and not gives_turns and turns.is_granted():
            run.step()

    def _source(self, ask: MeasureEffects, view: CacheView) -> Callable[[Replay], Replacement]:
        """A function that makes the replacement of the activations."""
        if ask.replaced_by != "other":
            return lambda found: replacement(found, ask.replaced_by, [], "replaced_by")
        against = ask.against
        assert against is not None
        other = self.what_if(against, ask.padding)
        if other is None and against.cache is not None:
            other = named(against.cache)
            if other is None:
                raise ResidscopeError("against", f"There is no activation cache `{against.cache}` in the notebook.")
        own = None if other is None else peek(other, "model")
        second = view if other is None else CacheView(other, model=view.model if own is None else own)
        second.padding_is_real = view.padding_is_real
        is_other = own is not None and own is not view.model
        prompt = None if against.prompt is None else second.check_prompt(against.prompt)
        if other is None or (second.n_pos == view.n_pos and not against.without):
            check_by_index(self._targets(view), Targets.of(second), against)
        return lambda _: of_other_cache(view, second, "against", other_model=is_other, prompt=prompt)

    def _run_without(self, against: Against, padding: Padding, into: WhatIf) -> Iterator[None]:
        view = self._opened(padding)
        found = replay(view)
        rounding = f", up to rounding ({found.gap:.1g} of an activation's size)" if found.gap else ""
        into.replayed = f"an unchanged run gives the cached values{rounding}"
        yield
        where = chosen_positions(view, "all")
        values, notes = changed_run(found, parse_heads(against.without), against.replaced_by, where)
        into.cache, into.notes = as_cache(values, self._cache(), view.model), notes

    # --- the reply ----------------------------------------------------------------------------------------------------
    def _effects(
        self, ask: MeasureEffects, run: SteppedRun[Any] | None, *, tells: bool = True
    ) -> tuple[EffectsReply, Buffers]:
        prompts = self._prompts(ask)
        prompt = prompts.prompt
        if run is not None:
            if tells:
                run.settle()
            if run.error is not None:
                raise copied(run.error)
        found: Measured = Measured() if run is None else run.result
        sign = 1 if ask.replaced_by == "other" else -1  # -1: what a component adds is minus the effect of replacing it
        grids = (found.grid(values, prompt) for values in (found.total, found.direct, found.estimate))
        before = None if found.before is None else prompts.of(found.before)
        waits = run is not None and run.state == "waiting"
        reply = EffectsReply(
            of=ask.of,
            state="stopped" if run is None else "waiting" if waits else "done" if run.state == "done" else "stopped",
            turn=run.token if waits and run is not None else None,
            done=found.done,
            total=found.count,
            before=None if before is None else number(before),
            replayed=found.replayed(prompt),
            replaced_by=found.replaced_by,
            prompts=prompts.count,
            notes=[note for note in found.notes if prompt is None or not positions.is_about_mean(note)],
        )
        return reply, [b"" if values is None else float32(sign * values) for values in grids]
