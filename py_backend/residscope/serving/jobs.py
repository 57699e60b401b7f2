"""Work that takes longer than a view should wait for: it says how far it is, lets others between, can be given up.

It runs in a thread of its own, and the code that does it calls `report_progress` now and then. Whoever asked is told
after a moment how far it is, and asks again with the same question; who does not want it any more says so, or never
asks again.

An interrupt (Ctrl-C, a notebook's stop button) may come at any line of the main thread. So no line of it may leave
something behind that only the next line would undo: a lock is held by `with`, and what is counted is taken off in a
`finally` that stands around its being counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from uuid import uuid4

from residscope.compute.progress import GivenUpError, Progress, listen
from residscope.compute.switch_interval import switching_often
from residscope.errors import ResidscopeError

T = TypeVar("T")

MOMENT = 0.1
"""Seconds that a question waits for its answer before it is told how far the work is."""

MOST = 64
"""So many questions that take long are worked on at once, each in a thread of its own."""

PATIENCE = 5.0
"""Seconds after which work is given up that nobody asks about."""

LAST = 0.15
"""Seconds that an interrupted caller waits for its work to end, before it goes on."""


class FairLock:
    """One piece of work at a time; a long one lets those between that wait for their turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[object] = set()

    def mine(self, work: Callable[[], T]) -> T:
        """Wait for the turn, and do this in it."""
        me = object()
        try:
            self._waiting.add(me)
            with self._lock:
                self._waiting.discard(me)
                return work()
        finally:
            self._waiting.discard(me)

    def between(self) -> None:
        """Whoever has the turn lets the others go first; never called on the main thread."""
        if self._waiting:
            self._lock.release()
            time.sleep(0.0005)  # or else this thread takes the lock again before they can
            self._lock.acquire()


class Job:
    """One piece of work.

    Args:
        question: What it answers.
        work: Does it.
        turns: Whose turn it needs.
        wanted: Whether there is still something to work on.

    Attributes:
        question: What it answers.
        done: So many parts are done.
        total: Of so many; 0 where that is not known.
    """

    def __init__(
        self, question: Hashable, work: Callable[[], Any], turns: FairLock, wanted: Callable[[], bool]
    ) -> None:
        self.question = question
        self.done, self.total = 0, 0
        self._work, self._turns, self._wanted = work, turns, wanted
        self._asked, self._given_up = time.monotonic(), False
        self._over = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="residscope-work", daemon=True)
        self._thread.start()

    def wait(self) -> bool:
        """Wait a moment; whether it is over."""
        self._asked = time.monotonic()
        return self._over.wait(MOMENT)

    @property
    def forgotten(self) -> bool:
        """Whether it is over, and nobody came for the result."""
        return self._over.is_set() and time.monotonic() - self._asked > PATIENCE

    def result(self) -> Any:
        """What came of it; raises what the work raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def give_up(self) -> None:
        """At its next step it ends."""
        self._given_up = True

    def end(self) -> None:
        """Give it up, and wait until it has ended; not for long, since nobody knows when its next step comes."""
        self._given_up = True
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(LAST)

    def step(self, done: int | None, total: int) -> None:
        """See `report_progress`."""
        if done is not None:
            self.done, self.total = done, total
        if self._given_up or time.monotonic() - self._asked > PATIENCE or not self._wanted():
            raise GivenUpError
        self._turns.between()

    def _run(self) -> None:
        listen(self)
        try:
            self._result = switching_often(lambda: self._turns.mine(self._work))
        except BaseException as error:  # it is raised where the result is asked for
            self._error = error.with_traceback(None)  # its frames hold what was worked on
        finally:
            self._over.set()
            del self._work, self._wanted  # they hold what is worked on


class JobQueue:
    """Questions about one thing, answered one at a time.

    Args:
        wanted: Whether the thing is still there.
    """

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self._wanted = wanted
        self._turns = FairLock()
        self._tasks: dict[str, Job] = {}
        self._lock = threading.Lock()  # questions come in on several threads

    def short(self, work: Callable[[], T]) -> T:
        """For what takes a moment: wait for the turn, and do it."""
        return self._turns.mine(work)

    def whole(self, work: Callable[[], T], told: Callable[[Progress], None]) -> T:
        """What takes long, to its end, for who waits here: an interrupt, or `give_up_all`, ends it.

        Args:
            work: Finds the answer.
            told: Is told now and then how far it is.

        Raises:
            ResidscopeError: If it was given up; or what the work raised.
        """
        id, tasks = uuid4().hex, list[Job]()
        try:
            # In the list first: an interrupt before the name is bound would leave the work to itself.
            tasks.append(self._task(id, None, work))
            while not tasks[0].wait():
                told(Progress(tasks[0].done, tasks[0].total))
            return _result(tasks[0], "This was closed before it was done.")
        finally:
            self.give_up(id)
            while tasks:  # the traceback of an interrupt holds this list, and is garbage in a ring later on: a thread
                tasks.pop().end()  # in it would be collected by a call of Python code, which swallows an interrupt

    def known(self, id: str) -> bool:
        """Whether a question is being worked on."""
        return id in self._tasks

    def long(self, id: str, question: Hashable, work: Callable[[], T]) -> T | Progress:
        """The answer to a question, where it is there after a moment; else how far it is. The next one asks again.

        Args:
            id: Names the question when it is asked again.
            question: What is asked, all of it: whoever asks something else under this id never gets this answer.
            work: Finds the answer.

        Raises:
            ResidscopeError: If another question is being answered under this id, which goes on; if it was given up; or
                what the work raised.
        """
        task = self._task(id, question, work)
        try:
            if not task.wait():
                return Progress(task.done, task.total)
        except KeyboardInterrupt:  # who interrupts what waits for it does not want it
            self.give_up(id)
            raise
        with self._lock:
            if self._tasks.get(id) is task:
                del self._tasks[id]
        return _result(task, "This was cancelled: nobody asked for it for a while. Ask again.")

    def _task(self, id: str, question: Hashable, work: Callable[[], Any]) -> Job:
        with self._lock:
            self._tasks = {other: task for other, task in self._tasks.items() if not task.forgotten}
            task = self._tasks.get(id)
            if task is None and len(self._tasks) >= MOST:
                said = f"{MOST} long questions are being answered already: wait for one of them, or give one up."
                raise ResidscopeError("busy", said)
            if task is None:
                task = self._tasks[id] = Job(question, work, self._turns, self._wanted)
            elif task.question != question:
                said = "Another question is still being answered under this id: ask this one under an id of its own."
                raise ResidscopeError("protocol", said)
            return task

    def give_up(self, id: str) -> None:
        """An answer is not wanted any more."""
        with self._lock:
            task = self._tasks.pop(id, None)
        if task is not None:
            task.give_up()

    def give_up_all(self) -> None:
        """No answer is."""
        for id in list(self._tasks):
            self.give_up(id)


def _result(task: Job, otherwise: str) -> Any:
    try:
        return task.result()
    except GivenUpError:
        raise ResidscopeError("given-up", otherwise) from None
