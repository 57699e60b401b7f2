"""The common part of `attribute_many` and `ablate_many`: computes item after item, and saves the results meanwhile."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal

from residscope.compute.progress import progress_bar
from residscope.errors import ResidscopeError
from residscope.many.accumulator import Accumulator, ItemResult, ResultLayout
from residscope.many.checkpoint import Checkpoint, check_question, read
from residscope.many.fingerprint import what_differs
from residscope.many.items import END, Items
from residscope.many.processes import Processes, files_of_processes, named

Resumable = str | PathLike[str] | Any | None
"""The name of a file, a result of the same call (the `.partial` of an exception), or None."""


@dataclass(frozen=True)
class Call:
    """What a call does with each item.

    Attributes:
        name: The name of the called function: `attribute_many` or `ablate_many`.
        question: The options as text (`fingerprint.question`).
        keeps_values: Whether the rows of each prompt are kept. If not, only their mean and spread are kept.
        make: Computes the result of an item. It gets the item in a list, and removes the item from this list.
        result_of: Makes the result of all items.
        never_skipped: The codes of errors in the options. Such errors are the same for every item, so
            `on_error="skip"` does not apply to them.
    """

    name: str
    question: dict[str, str]
    keeps_values: bool
    make: Callable[[list[Any]], tuple[ResultLayout, ItemResult]]
    result_of: Callable[[Accumulator], object]
    never_skipped: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """The options that results do not depend on. See `attribute_many`."""

    resume: Resumable = None
    on_error: Literal["raise", "skip"] = "raise"
    progress: bool = True
    total: int | None = None
    accelerator: Any = None
    split: bool = True

    def __post_init__(self) -> None:
        if self.on_error not in ("raise", "skip"):
            raise ResidscopeError("on-error", f'`on_error="{self.on_error}"` is not known: use "raise" or "skip".')


def run_call(call: Call, items: object, schedule: Schedule) -> Any:
    """Compute the results of all items that are not done. Return them together with the resumed results.

    Raises:
        ResidscopeError: See `attribute_many`.
    """
    source, processes, resume = Items(items, call.name), Processes(schedule.accelerator), schedule.resume
    path = Path(fspath(resume)).expanduser() if isinstance(resume, str | PathLike) else None
    resumed = _resumed(call, resume, path, processes)
    if resumed.results:
        source.check_again()
    is_alone = processes.count == 1
    own = resumed if is_alone else Accumulator(call.question, resumed.keeps_values, resumed.layout)
    numbers = range(processes.rank, sys.maxsize, processes.count)
    skips = schedule.on_error == "skip"
    run = _Run(call, source, resumed, own, Checkpoint(processes.own(path)), skips, numbers, schedule.split)
    shown = schedule.progress and processes.rank == 0
    total = source.count if schedule.total is None else schedule.total
    if is_alone:
        return call.result_of(run.run_all(total, shown))
    union: Accumulator | None = None
    try:
        union = resumed.joined(processes.together(lambda: run.run_all(total, shown)))
        _merge_files(path, union, processes)
    except BaseException as error:  # maybe of another process, or of saving
        if not hasattr(error, "partial"):
            with suppress(Exception):
                done = resumed.joined([own]) if union is None else union
                error.partial = call.result_of(done)  # pyright: ignore[reportAttributeAccessIssue]
        raise
    return call.result_of(union)


def _resumed(call: Call, resume: Resumable, path: Path | None, processes: Processes) -> Accumulator:
    """The results that are already done, the same in all processes."""
    fresh = Accumulator(call.question, call.keeps_values)
    if hasattr(resume, "_accumulator"):
        accumulator = resume._accumulator  # pyright: ignore
        if accumulator is None:
            raise ResidscopeError(
                "resume", f"`resume=` takes the unmodified `.partial` of an interrupted `{call.name}`."
            )
        check_question(accumulator.question, call.question, "The result in `resume`")
        resumed = fresh.joined([accumulator])
        resumed.skipped.clear()  # skipped items are tried again
        return resumed
    if path is None:
        if resume is not None:
            raise ResidscopeError(
                "resume", f"`resume=` takes a file's name or `.partial`, but was given {type(resume).__name__}."
            )
        return fresh
    Checkpoint(path)  # raises now, not after the work, if the file cannot be written

    def read_files() -> list[Accumulator]:
        return [read(file, call.question) for file in [path, *files_of_processes(path)] if file.exists()]

    resumed = fresh.joined(itertools.chain.from_iterable(processes.together(read_files)))
    resumed.skipped.clear()  # skipped items are tried again
    _merge_files(path, resumed, processes)
    return resumed


def _merge_files(path: Path | None, union: Accumulator, processes: Processes) -> None:
    """Save the results of all processes in one file. Only then delete the files of single processes."""
    if path is None:
        return

    def save() -> None:
        if files and processes.rank == 0:
            Checkpoint(path).save(union)

    def delete() -> None:
        for file in files:
            file.unlink(missing_ok=True)

    found = processes.together(lambda: files_of_processes(path))  # each host may have only its own files
    files = [*itertools.chain.from_iterable(found)]
    processes.together(save)
    processes.together(delete)


@dataclass
class _Run:
    """Goes through the items of this process, one after another.

    Attributes:
        call: What is done with each item.
        source: The items.
        resumed: The results that were resumed.
        own: The results of this process. For a single process, `resumed` itself.
        checkpoint: The file in which `own` is saved.
        skips: Whether items with errors are left out.
        numbers: The numbers of this process's items.
        split: Whether the processes share the items.
    """

    call: Call
    source: Items
    resumed: Accumulator
    own: Accumulator
    checkpoint: Checkpoint
    skips: bool
    numbers: range
    split: bool

    def run_all(self, total: int | None, shown: bool) -> Accumulator:
        """Compute the remaining items with a progress bar. An exception that ends the work gets `.partial`."""
        done = sum(number in self.numbers for number in self.resumed.results)
        if total is not None and self.split:
            total = len(range(self.numbers.start, total, self.numbers.step))
        bar = progress_bar(total=total, initial=done, unit=" items", desc=self.call.name, disable=not shown)
        try:
            self.run_items(bar)
            self.checkpoint.save(self.own)
        except BaseException as error:
            self.save_on_error(error)
            raise
        finally:
            bar.close()
        return self.own

    def run_items(self, bar: Any) -> None:
        """Compute the remaining items."""
        done = frozenset(self.resumed.results)
        models = {result.facts.model for result in self.resumed.results.values()}
        tokenizers = {result.facts.tokenizer for result in self.resumed.results.values()} - {()}
        prompts = 0
        for place, number in enumerate(self.numbers):
            if number in done:
                continue
            # `make` removes the item from this list, so that this function does not keep the item alive.
            item = [self.source.take(number if self.split else place)]
            if item[0] is END:
                break
            try:
                layout, result = self.call.make(item)
                if len(models) == 1 and result.facts.model not in models:
                    raise ResidscopeError(
                        "resume",
                        "The resumed results were made with another model, or its weights have changed since then: "
                        "give `resume` another name.",
                    )
                if len(tokenizers) == 1 and result.facts.tokenizer not in tokenizers:
                    difference = what_differs(tokenizers.pop(), result.facts.tokenizer)
                    raise ResidscopeError(
                        "resume",
                        f"The resumed results were made with another tokenizer: {difference}. Restore it, or give "
                        "`resume` another name.",
                    )
                models.clear()  # only the first item is compared; a note reports other models of later items
                tokenizers.clear()
                self.own.add(number, layout, result)
                prompts += result.prompts
            except ResidscopeError as error:
                if not self.skips or error.code in self.call.never_skipped:
                    raise ResidscopeError(error.code, f"Item {number}: {error}") from error
                self.own.skipped[number] = str(error)
            except Exception as error:
                _add_note(error, f"This was item {number} of `{self.call.name}`.")
                raise
            self.checkpoint.save_if_due(self.own)
            bar.set_postfix_str(f"{prompts} prompts", refresh=False)
            bar.update()
        if self.split:
            self.source.check_reaches(self.resumed.next_number)

    def save_on_error(self, error: BaseException) -> None:
        """Attach the results to the exception as `.partial`, and save them, if there are any.

        If saving fails, a note on the exception says so.
        """
        union = self.resumed if self.own is self.resumed else self.resumed.joined([self.own])
        count, path = len(union.results), self.checkpoint.path
        if count == 0:
            return
        with suppress(Exception):
            error.partial = self.call.result_of(union)  # pyright: ignore[reportAttributeAccessIssue]
        where = (
            "in this exception's `.partial` (in a notebook `sys.last_value.partial`), and "
            f"`{self.call.name}(…, resume=…)` with it continues after them"
        )
        unsaved = ""
        if path is not None:
            try:
                self.checkpoint.save(self.own)
                where = f"saved in {str(path)!r}, and the same call continues after them"
            except BaseException as failure:  # the disk is full, for example, or a second interrupt came
                unsaved = f" They could not be saved in {str(path)!r} ({named(failure)})."
        _add_note(error, f"{count} item{'' if count == 1 else 's'} done: {where}.{unsaved}")


def _add_note(error: BaseException, note: str) -> None:
    add: Callable[[str], None] | None = getattr(error, "add_note", None)  # since Python 3.11
    if add is not None:
        add(note)
