"""The processes that share the items. Hugging Face `accelerate` starts them. Without it there is one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from residscope.errors import ResidscopeError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The processes, and the rank of the present one.

    Attributes:
        accelerator: An `accelerate.Accelerator` (or `PartialState`). None for a single process.
    """

    accelerator: Any = None

    def __post_init__(self) -> None:
        if self.accelerator is not None and not hasattr(self.accelerator, "num_processes"):
            raise ResidscopeError(
                "accelerator",
                f"`accelerator=` takes an `accelerate.Accelerator()`, but was given {type(self.accelerator).__name__}.",
            )

    @property
    def count(self) -> int:
        """The number of processes."""
        return 1 if self.accelerator is None else int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        """The rank of this process."""
        return 0 if self.accelerator is None else int(self.accelerator.process_index)

    def own(self, path: Path | None) -> Path | None:
        """Return the file in which this process saves, next to `path`. A single process uses `path` itself."""
        if path is None or self.count == 1:
            return path
        return path.with_name(f"{path.stem}.process-{self.rank}-of-{self.count}{path.suffix}")

    def together(self, work: Callable[[], T]) -> list[T]:
        """Call `work` in each process, and return all results. If one process fails, all of them raise.

        An interrupt counts as a failure. The other processes would otherwise wait for this one. They learn of it when
        their own work is done. A second interrupt ends this process at once.

        Raises:
            ResidscopeError: If `work` failed in another process. The message names that process and its error.
        """
        if self.count == 1:
            return [work()]
        from accelerate.utils import gather_object

        failure: BaseException | None = None
        outcome: tuple[T | None, str] = (None, "")
        try:
            outcome = (work(), "")
        except BaseException as error:
            failure, outcome = error, (None, named(error))
        try:
            outcomes: list[tuple[Any, str]] = gather_object([outcome])
        finally:
            try:
                if failure is not None:
                    raise failure  # also if a second interrupt came meanwhile
            finally:
                del failure  # the traceback holds this frame
        for rank, (_, message) in enumerate(outcomes):
            if message:
                raise ResidscopeError("process", f"Process {rank} of {self.count} failed. {message}")
        return [result for result, _ in outcomes]


def named(error: BaseException) -> str:
    """Return the type of an exception, and its message if it has one."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def files_of_processes(path: Path) -> list[Path]:
    """Return the files next to `path` in which single processes have saved. Such files remain after an interrupt."""
    prefix = f"{path.stem}.process-"
    return sorted(
        file for file in path.parent.iterdir() if file.name.startswith(prefix) and file.name.endswith(path.suffix)
    )
