"""Runs of the user's model that views requested. They are made step by step, in turns (see `turns`)."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Literal, TypeVar
from uuid import uuid4

from residscope.causes.user_state import keeping_user_state
from residscope.compute.progress import WorkCancelledError, listening
from residscope.errors import ResidscopeError, copied
from residscope.serving import turns

R = TypeVar("R")

_log = logging.getLogger("residscope")

TURN = 0.1
"""The length of a turn in seconds. A single long step may exceed it."""

_STEP = 0.08
"""The intended length of a step in seconds. If a step takes more than twice as long, the next one is smaller."""

_MOST = 4
"""The largest number of measurements of effects that are kept for one cache."""

_UNTRACKED: weakref.WeakSet[SteppedRun[Any]] = weakref.WeakSet()
"""Runs that need a cache whose deletion is not noticed."""


class Pace:
    """Decides how many runs one step makes. Large steps are efficient, but the user's next cell must not wait long."""

    def __init__(self) -> None:
        self._most = 2

    def most(self) -> int:
        """Return the largest number of runs in the next step."""
        return self._most

    def measure(self, seconds: float, runs: int) -> None:
        """Adapt to a step that made this many runs in this many seconds."""
        if runs and seconds > 2 * _STEP:
            self._most = max(1, self._most // 2)
        elif runs == self._most and seconds < _STEP:
            self._most *= 2


@dataclass(eq=False)
class SteppedRun(Generic[R]):
    """Work in several steps, and its result so far.

    Attributes:
        result: The result so far.
        state: Whether the work waits for its turn, is done, was stopped, or failed.
        error: The reason if the work failed.
        token: The token with which a turn of this work is taken.
    """

    result: R
    model: Callable[[], Any]
    make: Callable[[R, Pace], Iterator[None]]
    run_alone: Callable[[Callable[[], None]], None]
    is_same: Callable[[], bool]
    state: Literal["waiting", "done", "stopped", "failed"] = "waiting"
    error: ResidscopeError | None = None
    token: str = field(default_factory=lambda: uuid4().hex)
    _pace: Pace = field(default_factory=Pace)
    _steps: Iterator[None] | None = None
    _caches: list[weakref.ref[Any]] = field(default_factory=list[weakref.ref[Any]])
    _is_cancelled: bool = False
    _is_told: bool = False
    _forgets: bool = False
    _is_running: bool = False

    def __post_init__(self) -> None:
        turns.register(self.token, self)

    def step(self) -> None:
        """Take a turn: run the model for a moment."""
        try:
            self.run_alone(self._turn)
        except KeyboardInterrupt:
            self._end("stopped")

    def stop(self) -> None:
        """Make no more runs. A running step ends at its next report of progress."""
        self._is_cancelled = True

    def go_on(self) -> None:
        """Continue a stopped run, if a view was told that it stopped.

        After an interrupt, no view was told yet. Then the run stays stopped, and the reply says so.
        """
        if self.state == "stopped" and self._is_told:
            self.state, self._is_cancelled, self._is_told = "waiting", False, False

    def settle(self) -> None:
        """Carry out a stop, and note that a view is told the state. Called when no step is running."""
        if self._is_cancelled and self.state == "waiting":
            self._end("stopped")
        self._is_told = self.state in ("stopped", "failed")

    @property
    def is_over(self) -> bool:
        """Whether the work failed, and a view has been told why. The next request then begins again."""
        return self.state == "failed" and self._is_told

    def needs(self, cache: object) -> None:
        """When this cache is deleted, release the steps. They hold its tensors, and the next turn may never come."""
        try:
            self._caches.append(weakref.ref(cache, partial(_forget_steps, weakref.ref(self))))
        except TypeError:  # a plain dictionary allows no weak references
            _UNTRACKED.add(self)

    def forget_steps(self) -> None:
        """Release the steps and the tensors that they hold. The next turn continues from the result so far.

        If another thread calls this during a turn, they are released at the end of the turn.
        """
        self._forgets = True
        if not self._is_running:
            self._steps = None

    def _turn(self) -> None:
        if self.state != "waiting" or self._is_cancelled:
            return
        try:
            if not self.is_same():
                raise ResidscopeError("run-changed", _CHANGED)
            model = self.model()
            tensors = iter(model.parameters()) if hasattr(model, "parameters") else iter(())
            device = next((tensor.device for tensor in tensors), "cpu")
            with listening(_Listener(self)):
                keeping_user_state(model, device, self._work)
        except WorkCancelledError:
            self._end("stopped")
        except KeyboardInterrupt:
            self._end("stopped")
            raise
        except ResidscopeError as error:
            self.error = copied(error)
            self._end("failed")
        except BaseException as error:  # in a hook of the user, for example
            _log.exception("A run of the model failed.")
            self.error = ResidscopeError("run", f"The run of the model failed: {type(error).__name__}: {error}")
            self._end("failed")

    def _work(self) -> None:
        try:
            self._forgets, self._is_running = False, True
            self._take_steps()
        finally:
            self._is_running = False
            if self._forgets:
                self._steps = None

    def _take_steps(self) -> None:
        steps = self._steps
        if steps is None:
            steps = self._steps = self.make(self.result, self._pace)
        end = time.monotonic() + TURN
        while self.state == "waiting" and not self._is_cancelled:
            start, done = time.monotonic(), getattr(self.result, "done", 0)
            if next(steps, _END) is _END:
                self._end("done")
            now = time.monotonic()
            self._pace.measure(now - start, getattr(self.result, "done", 0) - done)
            if now > end:
                return

    def _end(self, state: Literal["done", "stopped", "failed"]) -> None:
        self.state, self._steps = state, None


def _forget_steps(run: weakref.ref[SteppedRun[Any]], _gone: object) -> None:
    found = run()
    if found is not None:
        found.forget_steps()


def pause_untracked() -> None:
    """Release the steps of runs whose caches the user may have deleted without notice."""
    for run in list(_UNTRACKED):
        run.forget_steps()


_END = object()
_CHANGED = "The model, its hooks or the cache were changed while it was measured: measure again."


class _Listener:
    """Stops a cancelled step at its next report."""

    def __init__(self, run: SteppedRun[Any]) -> None:
        self._run = run

    def step(self, done: int | None, total: int) -> None:  # noqa: ARG002 - the names are those of `Listener`
        """See `report_progress`."""
        if self._run._is_cancelled:  # pyright: ignore[reportPrivateUsage]
            raise WorkCancelledError


class Measuring:
    """The runs for one cache. When a run begins, the other runs release their steps (`forget_steps`)."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, SteppedRun[Any]] = OrderedDict()
        self._lock = threading.Lock()  # requests arrive on several threads

    def find(self, key: Hashable) -> SteppedRun[Any] | None:
        """Return the run of a request, if there is one."""
        with self._lock:
            run = self._runs.get(key)
            if run is not None:
                self._runs.move_to_end(key)
            return run

    def begin(self, key: Hashable, run: SteppedRun[Any]) -> SteppedRun[Any]:
        """Keep a new run, and release the steps of the others."""
        with self._lock:
            for other in self._runs.values():
                other.forget_steps()
            self._runs[key] = run
            effects = [key for key in self._runs if _kind(key) == "effects"]
            for oldest in effects[: max(0, len(effects) - _MOST)]:
                self._runs.pop(oldest).stop()
            return run

    def drop(self, kind: str) -> None:
        """Release the runs whose keys begin with this word."""
        with self._lock:
            for key in [key for key in self._runs if _kind(key) == kind]:
                self._runs.pop(key).stop()

    def forget(self) -> None:
        """Release everything."""
        with self._lock:
            for run in self._runs.values():
                run.stop()
            self._runs.clear()

    def pause(self) -> None:
        """Release the steps of all runs."""
        with self._lock:
            for run in self._runs.values():
                run.forget_steps()


def _kind(key: Hashable) -> object:
    return key[0] if isinstance(key, tuple) else None
