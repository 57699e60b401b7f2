"""The processes that share the items, as Hugging Face `accelerate` started them; one alone without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from residscope.errors import ResidscopeError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """Who this process is among how many.

    Attributes:
        accelerator: An `accelerate.Accelerator` (or `PartialState`); None for a process of its own.
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
        """How many there are."""
        return 1 if self.accelerator is None else int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        """The number of this one."""
        return 0 if self.accelerator is None else int(self.accelerator.process_index)

    def own(self, path: Path | None) -> Path | None:
        """This process's own file beside `path`; alone, `path` itself."""
        if path is None or self.count == 1:
            return path
        return path.with_name(f"{path.stem}.process-{self.rank}-of-{self.count}{path.suffix}")

    def together(self, work: Callable[[], T]) -> list[T]:
        """What `work` gives in each process, in all of them. Where it fails in one it fails in all: nobody waits.

        Raises:
            ResidscopeError: If it failed in another process; the sentence is that one's.
        """
        if self.count == 1:
            return [work()]
        from accelerate.utils import gather_object

        failure: Exception | None = None
        outcome: tuple[T | None, str] = (None, "")
        try:
            outcome = (work(), "")
        except Exception as error:
            failure, outcome = error, (None, f"{type(error).__name__}: {error}")
        outcomes: list[tuple[Any, str]] = gather_object([outcome])
        if failure is not None:
            raise failure
        for rank, (_, said) in enumerate(outcomes):
            if said:
                raise ResidscopeError("process", f"Process {rank} of {self.count} failed. {said}")
        return [result for result, _ in outcomes]


def left_by_processes(path: Path) -> list[Path]:
    """The files of processes that were interrupted, beside `path`."""
    beside = f"{path.stem}.process-"
    return sorted(
        one for one in path.parent.iterdir() if one.name.startswith(beside) and one.name.endswith(path.suffix)
    )
