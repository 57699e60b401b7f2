"""`attribute_many`: one item after another, none kept, what is done safe from interrupts."""

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
from residscope.many.accumulator import Accumulator, Frame, ItemFacts, Part
from residscope.many.checkpoint import Store, check_question, read
from residscope.many.fingerprint import mark, question, tokenizer_mark, what_differs
from residscope.many.items import END, Items, opened
from residscope.many.processes import Processes, left_by_processes
from residscope.many.result import AttributionSummary, ManyAttribution, result_of
from residscope.terms import By, NormConvention

Resume = str | PathLike[str] | ManyAttribution | AttributionSummary | None
_NEVER_SKIPPED = ("by", "heads", "layers", "norm", "resume")  # what is wrong with the question is wrong with every item

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from residscope.attribution.result import Attribution

    class _Options(TypedDict, total=False):
        """What may be given whatever is kept; its defaults are those of the function itself."""

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
    """`attribute` for many caches, one after another: none is kept, so memory does not grow with their number.

    Args:
        items: A list, another sequence (with `len` and `items[i]`) or an iterator. An item is a cache, a pair
            `(cache, answers)`, a triple `(cache, answers, options)` with `attribute`'s `logits`, `tokens`,
            `attention_mask` or `position` of this item, or a function without arguments that makes one of these: it is
            called only when the item's turn has come, and never for an item that is done or another process's.
        answers: The answers of items that bring none (see `attribute`).
        by: The decomposition (see `attribute`).
        position: The position (see `attribute`); with `"all"` all prompts must have the same length.
        norm: See `attribute`.
        layers: See `attribute`.
        heads: See `attribute`.
        model: The model, where `cache.model` is gone.
        keep: `"values"`: every prompt's rows. `"summary"`: their mean and spread alone, for decompositions of many
            rows (neurons, every position); what is `measured` and `unexplained` is kept for every prompt all the same.
        resume: A file's name: what is done is kept there, every half minute and when the call ends in whatever way, and
            a call that finds the file goes on after it. Or what an interrupted call had: the exception's `.partial`.
        on_error: `"skip"` leaves out items that cannot be attributed, and says so in the notes; errors of an iterator
            or a function that makes an item are always raised.
        progress: Whether to show a progress bar (tqdm).
        total: The number of items, for the bar, where it is not known.
        accelerator: An `accelerate.Accelerator()`, in a script that `accelerate launch` started: each process does
            every n-th item, on the device where that item's cache is, and all get the whole result, in the items'
            order.
        split: Whether the processes share `items`; False where each was given its own already (its k-th item then
            stands at place k · processes + its number).

    Returns:
        A `ManyAttribution`, an `Attribution` of all prompts (`values` is `[component, batch]`); with `keep="summary"`
        an `AttributionSummary`. Both on the CPU.

    Raises:
        ResidscopeError: With the number of the item that cannot be attributed, or what differs from what is resumed.
            Whatever ends the call early, also a KeyboardInterrupt, has the result of the items before it as `.partial`.
    """
    if keep not in ("values", "summary"):
        raise ResidscopeError("keep", f'`keep="{keep}"` is not known: use "values" or "summary".')
    if on_error not in ("raise", "skip"):
        raise ResidscopeError("on-error", f'`on_error="{on_error}"` is not known: use "raise" or "skip".')
    asked = question(answers, by=by, position=position, norm=norm, layers=layers, heads=heads, keep=keep)
    source, processes = Items(items), Processes(accelerator)
    path = Path(fspath(resume)).expanduser() if isinstance(resume, str | PathLike) else None
    base = _begun(resume, path, asked, keep == "values", processes)
    if base.parts:
        source.check_again()
    alone = processes.count == 1
    own = base if alone else Accumulator(asked, base.keeps_values, base.frame)
    ask = partial(attribute, by=by, position=position, norm=norm, layers=layers, heads=heads, model=model)
    run = _Run(
        source,
        partial(_part, ask, answers, model),
        base,
        own,
        Store(processes.own(path)),
        on_error == "skip",
        range(processes.rank, sys.maxsize, processes.count),
        split,
    )
    shown = progress and processes.rank == 0
    tallies = processes.together(lambda: run.guarded(source.count if total is None else total, shown))
    if alone:
        return result_of(own)
    whole = base.joined(tallies)
    _into_one(path, whole, processes)
    return result_of(whole)


def _begun(
    resume: Resume, path: Path | None, asked: dict[str, str], keeps_values: bool, processes: Processes
) -> Accumulator:
    """What is done already: the same in all processes."""
    fresh = Accumulator(asked, keeps_values)
    if isinstance(resume, ManyAttribution | AttributionSummary):
        tally = resume._tally  # pyright: ignore[reportPrivateUsage]
        if tally is None:
            raise ResidscopeError("resume", "`resume=` takes what an interrupted `attribute_many` had, as it is.")
        check_question(tally.question, asked, "What `resume` has")
        return fresh.joined([tally])
    if path is None:
        if resume is not None:
            raise ResidscopeError(
                "resume", f"`resume=` takes a file's name or `.partial`, but was given {type(resume).__name__}."
            )
        return fresh
    Store(path)  # refused now, not after the work

    def look() -> list[Accumulator]:
        return [read(one, asked) for one in [path, *left_by_processes(path)] if one.exists()]

    base = fresh.joined(itertools.chain.from_iterable(processes.together(look)))
    base.skipped.clear()  # they are tried again
    _into_one(path, base, processes)
    return base


def _into_one(path: Path | None, whole: Accumulator, processes: Processes) -> None:
    """Put what the processes have done into one file, and only then take theirs away."""
    if path is None:
        return

    def put() -> None:
        if left and processes.rank == 0:
            Store(path).save(whole)

    def clear() -> None:
        for one in left:
            one.unlink(missing_ok=True)

    found = processes.together(lambda: left_by_processes(path))  # on several hosts each may see its own only
    left = [one for seen in found for one in seen]
    processes.together(put)
    processes.together(clear)


@dataclass
class _Run:
    """This process's items, one after another.

    Attributes:
        source: The items.
        make: An item, in a list of its own, to its figures.
        base: What was done before.
        own: What this process does; alone, `base` itself.
        store: Where that is kept.
        skip: Whether to leave out what cannot be attributed.
        numbers: The numbers of this process's items.
        split: Whether the processes share the items.
    """

    source: Items
    make: Callable[[list[Any]], tuple[Frame, Part]]
    base: Accumulator
    own: Accumulator
    store: Store
    skip: bool
    numbers: range
    split: bool

    def guarded(self, total: int | None, shown: bool) -> Accumulator:
        """Do what is not done, under a progress bar; whatever ends it early takes along what is done."""
        from tqdm.auto import tqdm

        done = sum(number in self.numbers for number in self.base.parts)
        if total is not None and self.split:
            total = len(range(self.numbers.start, total, self.numbers.step))
        bar = tqdm(total=total, initial=done, unit=" items", desc="attribute_many", disable=not shown)
        try:
            self.walk(bar)
            self.store.save(self.own)
        except BaseException as error:
            self.leave_safe(error)
            raise
        finally:
            bar.close()
        return self.own

    def walk(self, bar: Any) -> None:
        """Do what is not done."""
        done = frozenset(self.base.parts)
        models = {part.told.model for part in self.base.parts.values()}
        tokenizers = {part.told.tokenizer for part in self.base.parts.values()} - {()}
        prompts = 0
        for place, number in enumerate(self.numbers):
            if number in done:
                continue
            item = [self.source.take(number if self.split else place)]  # in a list, which `make` empties: not held here
            if item[0] is END:
                break
            try:
                frame, part = self.make(item)
                if len(models) == 1 and part.told.model not in models:
                    raise ResidscopeError(
                        "resume",
                        "What is resumed was made with another model, or its weights were changed since: give `resume` "
                        "another name.",
                    )
                if len(tokenizers) == 1 and part.told.tokenizer not in tokenizers:
                    differs = what_differs(tokenizers.pop(), part.told.tokenizer)
                    raise ResidscopeError(
                        "resume",
                        f"What is resumed was made with another tokenizer: {differs}. Set it as it was, or give "
                        "`resume` another name.",
                    )
                models.clear()  # the first item tells; later ones may be another model's, as a note then says
                tokenizers.clear()
                self.own.add(number, frame, part)
                prompts += part.prompts
            except ResidscopeError as error:
                if not self.skip or error.code in _NEVER_SKIPPED:
                    raise ResidscopeError(error.code, f"Item {number}: {error}") from error
                self.own.skipped[number] = str(error)
            except Exception as error:
                _add_note(error, f"This was item {number} of `attribute_many`.")
                raise
            self.store.keep(self.own)
            bar.set_postfix_str(f"{prompts} prompts", refresh=False)
            bar.update()
        if self.split:
            self.source.check_reaches(self.base.reach)

    def leave_safe(self, error: BaseException) -> None:
        """Save what is done, and hang it on what ended the call."""
        whole = self.base if self.own is self.base else self.base.joined([self.own])
        count, path = len(whole.parts), self.store.path
        if count == 0:
            return
        self.store.save(self.own)
        with suppress(Exception):
            error.partial = result_of(whole)  # pyright: ignore[reportAttributeAccessIssue]
        where = (
            f"kept in {str(path)!r}, and the same call goes on after them"
            if path is not None
            else "in this exception's `.partial` (in a notebook `sys.last_value.partial`), and "
            "`attribute_many(…, resume=…)` with it goes on after them"
        )
        _add_note(error, f"{count} item{'' if count == 1 else 's'} done: {where}.")


def _part(ask: Callable[..., Attribution], answers: Any, model: Any, holder: list[Any]) -> tuple[Frame, Part]:
    """One item's figures, on the CPU. `holder` is emptied: nobody holds the item when this returns."""
    cache, wanted, options = opened(holder.pop(), answers)
    try:
        result = ask(cache, wanted, **options)
    except ResidscopeError as error:
        if error.code == "answers-length" and wanted is answers:
            raise ResidscopeError(
                error.code,
                f"{error} To give each item its own: `zip(caches, answers)`, or (cache, answers) as the item.",
            ) from error
        raise
    measured, constant, unexplained, values = (
        tensor.detach().cpu().clone()  # a view would keep all that it is a view of
        for tensor in (result.measured, result.constant, result.unexplained, result.values)
    )
    told = ItemFacts(
        result.measured_from, result.own, result.tolerance, tuple(result.notes), mark(cache, model),
        tokenizer_mark(cache, model, answers),
    )  # fmt: skip
    return Frame.of(result), Part(
        result.values.shape[result.axes.index("batch")], measured, constant, unexplained, values, told
    )


def _add_note(error: BaseException, note: str) -> None:
    add: Callable[[str], None] | None = getattr(error, "add_note", None)  # Python 3.11
    if add is not None:
        add(note)
