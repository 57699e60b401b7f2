"""`attribute_many`: attributes one item after another without keeping caches, and saves results against interrupts."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from residscope.attribution.attribute import attribute
from residscope.cache.positions import Positions
from residscope.errors import ResidscopeError
from residscope.many.accumulator import Accumulator, ItemFacts, ItemResult, ResultLayout
from residscope.many.checkpoint import Checkpoint, check_question, read
from residscope.many.fingerprint import model_fingerprint, question, tokenizer_fingerprint, what_differs
from residscope.many.items import END, Items, cache_and_options
from residscope.many.processes import Processes, files_of_processes
from residscope.many.result import AttributionSummary, ManyAttribution, result_of
from residscope.terms import By, NormConvention

Resume = str | PathLike[str] | ManyAttribution | AttributionSummary | None
_NEVER_SKIPPED = ("by", "heads", "layers", "norm", "resume")
"""The codes of errors in the options. They are the same for every item, so `on_error="skip"` does not apply to them."""

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from residscope.attribution.result import Attribution

    class _Options(TypedDict, total=False):
        """The options other than `keep`. Their defaults are those of `attribute_many`."""

        by: By
        position: Positions
        norm: NormConvention
        layers: int | Sequence[int] | None
        heads: Any
        model: Any
        resume: Resume
        on_error: Literal["raise", "skip"]
        progress: bool
        total: int | None
        accelerator: Any
        split: bool


@overload
def attribute_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Any = None,
    *,
    keep: Literal["values"] = "values",
    **options: Unpack[_Options],
) -> ManyAttribution: ...
@overload
def attribute_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Any = None,
    *,
    keep: Literal["summary"],
    **options: Unpack[_Options],
) -> AttributionSummary: ...


def attribute_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Any = None,
    *,
    by: By = "head",
    position: Positions = "last",
    norm: NormConvention = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Any = None,
    model: Any = None,
    keep: Literal["values", "summary"] = "values",
    resume: Resume = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    total: int | None = None,
    accelerator: Any = None,
    split: bool = True,
) -> ManyAttribution | AttributionSummary:
    """Call `attribute` for many caches, one after another, so that memory does not grow with their number.

    Args:
        items: A list, another sequence (with `len` and `items[i]`) or an iterator. An item is a cache, a pair
            `(cache, answers)`, a triple `(cache, answers, options)` with `attribute`'s `logits`, `tokens`,
            `attention_mask` or `position` for this item, or a function without arguments that returns one of these.
            The function is called just before its item is attributed, and never for an item that is already done or
            belongs to another process.
        answers: The answers for items without their own (see `attribute`).
        by: The decomposition (see `attribute`).
        position: The position (see `attribute`). With `"all"`, all prompts must have the same length.
        norm: See `attribute`.
        layers: See `attribute`.
        heads: See `attribute`.
        model: The model, if `cache.model` was deleted.
        keep: `"values"`: keep the rows of every prompt. `"summary"`: keep only their mean and spread, for
            decompositions with many rows (neurons, every position). `measured` and `unexplained` are kept for every
            prompt in both cases.
        resume: The name of a file. Results are saved there every half minute, and when the call ends for any reason. A
            call that finds the file continues after these results. `resume` may also be the `.partial` of the exception
            that ended an interrupted call.
        on_error: `"skip"` leaves out items that cannot be attributed, and says so in the notes. Errors of an iterator
            or of a function that makes an item are always raised.
        progress: Whether to show a progress bar (tqdm).
        total: The number of items for the progress bar, if it is not known.
        accelerator: An `accelerate.Accelerator()`, in a script that `accelerate launch` started. Each of n processes
            attributes every n-th item, on the device of that item's cache. All processes get the complete result, in
            the items' order.
        split: Whether the processes share `items`. False if each process was given different items: item k of a process
            then has the number k · processes + rank.

    Returns:
        A `ManyAttribution`, which is an `Attribution` of all prompts (`values` is `[component, batch]`), or with
        `keep="summary"` an `AttributionSummary`. Both are on the CPU.

    Raises:
        ResidscopeError: If an item cannot be attributed: the message names the item. If the call differs from the
            resumed results: the message says in what. Any exception that ends the call early, also a KeyboardInterrupt,
            has the result of the items before it as `.partial`.
    """
    if keep not in ("values", "summary"):
        raise ResidscopeError("keep", f'`keep="{keep}"` is not known: use "values" or "summary".')
    if on_error not in ("raise", "skip"):
        raise ResidscopeError("on-error", f'`on_error="{on_error}"` is not known: use "raise" or "skip".')
    options_text = question(answers, by=by, position=position, norm=norm, layers=layers, heads=heads, keep=keep)
    source, processes = Items(items), Processes(accelerator)
    path = Path(fspath(resume)).expanduser() if isinstance(resume, str | PathLike) else None
    resumed = _resumed(resume, path, options_text, keep == "values", processes)
    if resumed.results:
        source.check_again()
    is_alone = processes.count == 1
    own = resumed if is_alone else Accumulator(options_text, resumed.keeps_values, resumed.layout)
    attribute_cache = partial(attribute, by=by, position=position, norm=norm, layers=layers, heads=heads, model=model)
    run = _Run(
        source,
        partial(_attribute_item, attribute_cache, answers, model),
        resumed,
        own,
        Checkpoint(processes.own(path)),
        on_error == "skip",
        range(processes.rank, sys.maxsize, processes.count),
        split,
    )
    shown = progress and processes.rank == 0
    accumulators = processes.together(lambda: run.run_all(source.count if total is None else total, shown))
    if is_alone:
        return result_of(own)
    union = resumed.joined(accumulators)
    _merge_files(path, union, processes)
    return result_of(union)


def _resumed(
    resume: Resume, path: Path | None, options_text: dict[str, str], keeps_values: bool, processes: Processes
) -> Accumulator:
    """The results that are already done. They are the same in all processes."""
    fresh = Accumulator(options_text, keeps_values)
    if isinstance(resume, ManyAttribution | AttributionSummary):
        accumulator = resume._accumulator  # pyright: ignore[reportPrivateUsage]
        if accumulator is None:
            raise ResidscopeError(
                "resume", "`resume=` takes the unmodified `.partial` of an interrupted `attribute_many`."
            )
        check_question(accumulator.question, options_text, "The result in `resume`")
        return fresh.joined([accumulator])
    if path is None:
        if resume is not None:
            raise ResidscopeError(
                "resume", f"`resume=` takes a file's name or `.partial`, but was given {type(resume).__name__}."
            )
        return fresh
    Checkpoint(path)  # if the file cannot be written, this raises now, not after the work

    def read_files() -> list[Accumulator]:
        return [read(file, options_text) for file in [path, *files_of_processes(path)] if file.exists()]

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

    found = processes.together(lambda: files_of_processes(path))  # each host may see only its own files
    files = [*itertools.chain.from_iterable(found)]
    processes.together(save)
    processes.together(delete)


@dataclass
class _Run:
    """Attributes the items of this process, one after another.

    Attributes:
        source: The items.
        make: Computes the result of an item. It takes the item out of a list.
        resumed: The results that were resumed.
        own: The results of this process. For a single process, `resumed` itself.
        checkpoint: The file in which `own` is saved.
        skips: Whether items that cannot be attributed are left out.
        numbers: The numbers of this process's items.
        split: Whether the processes share the items.
    """

    source: Items
    make: Callable[[list[Any]], tuple[ResultLayout, ItemResult]]
    resumed: Accumulator
    own: Accumulator
    checkpoint: Checkpoint
    skips: bool
    numbers: range
    split: bool

    def run_all(self, total: int | None, shown: bool) -> Accumulator:
        """Attribute the remaining items with a progress bar. If an exception ends this, it gets `.partial`."""
        from tqdm.auto import tqdm

        done = sum(number in self.numbers for number in self.resumed.results)
        if total is not None and self.split:
            total = len(range(self.numbers.start, total, self.numbers.step))
        bar = tqdm(total=total, initial=done, unit=" items", desc="attribute_many", disable=not shown)
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
        """Attribute the remaining items."""
        done = frozenset(self.resumed.results)
        models = {result.facts.model for result in self.resumed.results.values()}
        tokenizers = {result.facts.tokenizer for result in self.resumed.results.values()} - {()}
        prompts = 0
        for place, number in enumerate(self.numbers):
            if number in done:
                continue
            # In a list that `make` empties, so that this function does not keep the item alive.
            item = [self.source.take(number if self.split else place)]
            if item[0] is END:
                break
            try:
                layout, result = self.make(item)
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
                models.clear()  # only the first item is compared; if later items have other models, a note says so
                tokenizers.clear()
                self.own.add(number, layout, result)
                prompts += result.prompts
            except ResidscopeError as error:
                if not self.skips or error.code in _NEVER_SKIPPED:
                    raise ResidscopeError(error.code, f"Item {number}: {error}") from error
                self.own.skipped[number] = str(error)
            except Exception as error:
                _add_note(error, f"This was item {number} of `attribute_many`.")
                raise
            self.checkpoint.save_if_due(self.own)
            bar.set_postfix_str(f"{prompts} prompts", refresh=False)
            bar.update()
        if self.split:
            self.source.check_reaches(self.resumed.next_number)

    def save_on_error(self, error: BaseException) -> None:
        """Save the results, and attach them to the exception as `.partial`."""
        union = self.resumed if self.own is self.resumed else self.resumed.joined([self.own])
        count, path = len(union.results), self.checkpoint.path
        if count == 0:
            return
        self.checkpoint.save(self.own)
        with suppress(Exception):
            error.partial = result_of(union)  # pyright: ignore[reportAttributeAccessIssue]
        where = (
            f"saved in {str(path)!r}, and the same call continues after them"
            if path is not None
            else "in this exception's `.partial` (in a notebook `sys.last_value.partial`), and "
            "`attribute_many(…, resume=…)` with it continues after them"
        )
        _add_note(error, f"{count} item{'' if count == 1 else 's'} done: {where}.")


def _attribute_item(
    attribute_cache: Callable[..., Attribution], answers: Any, model: Any, holder: list[Any]
) -> tuple[ResultLayout, ItemResult]:
    """The result of one item, on the CPU. The item is removed from `holder`, so that nothing keeps it alive."""
    cache, wanted, options = cache_and_options(holder.pop(), answers)
    try:
        result = attribute_cache(cache, wanted, **options)
    except ResidscopeError as error:
        if error.code == "answers-length" and wanted is answers:
            raise ResidscopeError(
                error.code,
                f"{error} To give each item its own: `zip(caches, answers)`, or (cache, answers) as the item.",
            ) from error
        raise
    measured, constant, unexplained, values = (
        tensor.detach().cpu().clone()  # a copy, because a view would keep the whole tensor alive
        for tensor in (result.measured, result.constant, result.unexplained, result.values)
    )
    facts = ItemFacts(
        result.measured_from, result.own, result.tolerance, tuple(result.notes), model_fingerprint(cache, model),
        tokenizer_fingerprint(cache, model, answers),
    )  # fmt: skip
    prompts = result.values.shape[result.axes.index("batch")]
    return ResultLayout.of(result), ItemResult(prompts, measured, constant, unexplained, values, facts)


def _add_note(error: BaseException, note: str) -> None:
    add: Callable[[str], None] | None = getattr(error, "add_note", None)  # Python 3.11
    if add is not None:
        add(note)
