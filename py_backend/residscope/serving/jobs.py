"""Jobs: long work that reports its progress, lets short requests run in between, and can be cancelled.

A job runs in its own thread, and its code calls `report_progress` regularly. The requester gets the progress after a
moment, and sends the same request again. A job is cancelled by a cancel request, or if the request is not sent again.

An interrupt (Ctrl-C, a notebook's stop button) may come at any line of the main thread, and the next line then does not
run. So locks are held by `with`, and what a block changes is undone in a `finally`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from uuid import uuid4

from residscope.compute.progress import Progress, WorkCancelledError, set_listener
from residscope.compute.switch_interval import switching_often
from residscope.errors import ResidscopeError

T = TypeVar("T")

MOMENT = 0.1
"""A request waits this many seconds for its reply. Then it gets the progress instead."""

MOST = 64
"""The largest number of jobs at the same time, each in its own thread."""

PATIENCE = 5.0
"""A job is cancelled if its request is not sent again within this many seconds."""

LAST = 0.15
"""An interrupted caller waits at most this many seconds for its job to end."""


class FairLock:
    """Runs one piece of work at a time. A long job lets waiting work run in between."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[object] = set()
        self._owner: int | None = None

    def run(self, work: Callable[[], T]) -> T:
        """Wait for the lock, then do the work and return its result.

        Raises:
            ResidscopeError: If this thread has the lock. (A hook of the user sent a request during a run of the model.)
        """
        if self._owner == threading.get_ident():
            raise ResidscopeError("busy", "Another request about this cache is being answered here. Send it later.")
        me = object()
        try:
            self._waiting.add(me)
            with self._lock:
                self._waiting.discard(me)
                return self._owned(work)
        finally:
            self._waiting.discard(me)

    def _owned(self, work: Callable[[], T]) -> T:
        try:
            self._owner = threading.get_ident()
            return work()
        finally:
            self._owner = None

    def yield_to_waiting(self) -> None:
        """Release the lock for waiting work, then take it again. Never called on the main thread."""
        if self._waiting:
            self._owner = None
            self._lock.release()
            time.sleep(0.0005)  # without this, the same thread would take the lock again first
            self._lock.acquire()
            self._owner = threading.get_ident()


class Job:
    """One piece of work.

    Args:
        question: The request that this job answers.
        work: Computes the result.
        lock: The lock in which the work runs.
        is_wanted: Returns whether the cache still exists.

    Attributes:
        question: The request that this job answers.
        done: The number of steps that are done.
        total: The number of all steps. 0 if it is unknown.
        result: The result of the work, when the job has ended.
        error: The error that ended the job, without its traceback.
    """

    def __init__(
        self, question: Hashable, work: Callable[[], object], lock: FairLock, is_wanted: Callable[[], bool]
    ) -> None:
        self.question = question
        self.done, self.total = 0, 0
        self._work, self._fair_lock, self._is_wanted = work, lock, is_wanted
        self._asked, self._cancelled = time.monotonic(), False
        self._ended = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="residscope-work", daemon=True)
        self._thread.start()

    def wait(self) -> bool:
        """Wait a moment, and return whether the job has ended."""
        self._asked = time.monotonic()
        return self._ended.wait(MOMENT)

    @property
    def forgotten(self) -> bool:
        """Whether the job has ended, and its result was not fetched."""
        return self._ended.is_set() and time.monotonic() - self._asked > PATIENCE

    def cancel(self) -> None:
        """Make the job end at its next step."""
        self._cancelled = True

    def end(self) -> None:
        """Cancel the job, and wait a limited time until it has ended. The next step may take long."""
        self._cancelled = True
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(LAST)

    def step(self, done: int | None, total: int) -> None:
        """See `report_progress`."""
        if done is not None:
            self.done, self.total = done, total
        if self._cancelled or time.monotonic() - self._asked > PATIENCE or not self._is_wanted():
            raise WorkCancelledError
        self._fair_lock.yield_to_waiting()

    def _run(self) -> None:
        set_listener(self)
        try:
            self.result = switching_often(lambda: self._fair_lock.run(self._work))
        except BaseException as error:  # it is raised in `_result`
            _drop_frames(error)
            self.error = error
        finally:
            self._ended.set()
            del self._work, self._is_wanted  # they hold the cache


class JobQueue:
    """Runs the requests about one cache, one at a time.

    Args:
        is_wanted: Returns whether the cache still exists.
    """

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        self._is_wanted = is_wanted
        self._fair_lock = FairLock()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()  # requests arrive on several threads

    def run_short(self, work: Callable[[], T]) -> T:
        """Run work that takes only a moment, in the caller's thread."""
        return self._fair_lock.run(work)

    def run_to_end(self, work: Callable[[], T], on_progress: Callable[[Progress], None]) -> T:
        """Run long work to its end, and return its result. An interrupt or `cancel_all` ends it early.

        Args:
            work: Computes the result.
            on_progress: Called regularly with the progress.

        Raises:
            ResidscopeError: If the job was cancelled, or the work raised this error.
        """
        id, jobs = uuid4().hex, list[Job]()
        try:
            # A list, because an interrupt may come before a variable is assigned. The job would then keep running.
            jobs.append(self._job(id, None, work))
            while not jobs[0].wait():
                on_progress(Progress(jobs[0].done, jobs[0].total))
            return _result(jobs[0], "The panel was closed before this was done.")
        finally:
            self.cancel(id)
            # An interrupt's traceback keeps this list in a reference cycle. With a job in the list, the garbage
            # collector would free the job's thread. An interrupt at that moment is lost.
            while jobs:
                jobs.pop().end()

    def has(self, id: str) -> bool:
        """Whether there is a job with this id."""
        return id in self._jobs

    def run_long(self, id: str, question: Hashable, work: Callable[[], T]) -> T | Progress:
        """Return the result of a job, or its progress if it takes longer. The request is then sent again.

        Args:
            id: Identifies the job when the request is sent again.
            question: The whole request. Another request with this id never gets this job's result.
            work: Computes the result.

        Raises:
            ResidscopeError: If another request has a job with this id (that job continues), if too many jobs are
                running, if this job was cancelled, or if the work raised this error.
        """
        job = self._job(id, question, work)
        try:
            if not job.wait():
                return Progress(job.done, job.total)
        except KeyboardInterrupt:  # an interrupt of the wait also cancels the job
            self.cancel(id)
            raise
        with self._lock:
            if self._jobs.get(id) is job:
                del self._jobs[id]
        try:
            return _result(job, "This request was cancelled, because it was not sent again for a while. Send it again.")
        finally:
            del job  # an error's traceback holds this frame, and the job holds the error

    def _job(self, id: str, question: Hashable, work: Callable[[], object]) -> Job:
        with self._lock:
            self._jobs = {other: job for other, job in self._jobs.items() if not job.forgotten}
            job = self._jobs.get(id)
            if job is None and len(self._jobs) >= MOST:
                message = f"{MOST} long requests are running already: wait for one of them, or cancel one."
                raise ResidscopeError("busy", message)
            if job is None:
                job = self._jobs[id] = Job(question, work, self._fair_lock, self._is_wanted)
            elif job.question != question:
                message = "Another request with this id is still running: send this one with a new id."
                raise ResidscopeError("protocol", message)
            return job

    def cancel(self, id: str) -> None:
        """Cancel the job with this id, if there is one."""
        with self._lock:
            job = self._jobs.pop(id, None)
        if job is not None:
            job.cancel()

    def cancel_all(self) -> None:
        """Cancel all jobs."""
        for id in list(self._jobs):
            self.cancel(id)


def _result(job: Job, otherwise: str) -> Any:
    """Return the result of a job, or raise its error. A cancelled job has the error `otherwise`."""
    error = job.error
    try:
        if isinstance(error, WorkCancelledError):
            raise ResidscopeError("given-up", otherwise)
        if error is not None:
            raise error
        return job.result
    finally:
        del job, error  # an error's traceback holds this frame


def _drop_frames(error: BaseException) -> None:
    """Remove the tracebacks of an error and of the errors before it, because their frames hold the cache."""
    error.__traceback__ = None
    for before in (error.__cause__, error.__context__):
        if before is not None and before.__traceback__ is not None:
            _drop_frames(before)
