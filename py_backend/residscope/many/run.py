"""`attribute_many`: one item after another, none kept, what is done safe from interrupts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from ..attribution import attribute
from ..errors import ResidscopeError
from ..positions import Position
from ..protocol import By, Norm
from .file import Store, check_question, read
from .items import END, Items, opened
from .processes import Processes, left_by_processes
from .question import mark, question
from .result import AttributionSummary, ManyAttribution, result_of
from .tally import Frame, Part, Tally, Told

if TYPE_CHECKING:
    from ..result import Attribution

Resume = str | PathLike[str] | ManyAttribution | AttributionSummary | None
_ASKED_WRONG = ("by", "heads", "layers", "norm")  # what is wrong with the question is wrong with every item


@overload
def attribute_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Any = None,
    *,
    by: By = "head",
    position: Position = "last",
    norm: Norm = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Any = None,
    model: Any = None,
    keep: Literal["values"] = "values",
    resume: Resume = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    total: int | None = None,
    accelerator: Any = None,
    split: bool = True,
) -> ManyAttribution: ...


@overload
def attribute_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Any = None,
    *,
    by: By = "head",
    position: Position = "last",
    norm: Norm = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Any = None,
    model: Any = None,
    keep: Literal["summary"],
    resume: Resume = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    total: int | None = None,
    accelerator: Any = None,
    split: bool = True,
) -> AttributionSummary: ...


def attribute_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Any = None,
    *,
    by: By = "head",
    position: Position = "last",
    norm: Norm = "frozen",
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
            `(cache, answers)`, a triple `(cache, answers, options)` with `attribute`'s `logits`, `tokens` or `position`
            of this item, or a function without arguments that makes one of these: it is called only when the item's
            turn has come, and never for an item that is done or another process's.
        answers: The answers of items that bring none (see `attribute`).
        by: The decomposition (see `attribute`).
        position: The position (see `attribute`); with None all prompts must have the same length.
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
        source.check_anew()
    alone = processes.count == 1
    own = base if alone else Tally(asked, base.keeps_values, base.frame)
    store = Store(processes.own(path))
    ask = partial(attribute, by=by, position=position, norm=norm, layers=layers, heads=heads, model=model)
    places = (processes.rank, 1 if alone else processes.count)
    walk = partial(_walk, source, base, own, partial(_part, ask, answers, model), store, on_error == "skip")

    def work() -> Tally:
        bar = _bar(progress and processes.rank == 0, source.count if total is None else total, base, places, split)
        try:
            walk(bar, places, split)
            store.save(own)
        except BaseException as error:
            _leave_safe(error, base if alone else base.joined([own]), own, store)
            raise
        finally:
            bar.close()
        return own

    tallies = processes.together(work)
    if alone:
        return result_of(own)
    whole = base.joined(tallies)
    _into_one(path, whole, processes)
    return result_of(whole)


def _begun(resume: Resume, path: Path | None, asked: dict[str, str], keeps_values: bool, processes: Processes) -> Tally:
    """What is done already: the same in all processes."""
    fresh = Tally(asked, keeps_values)
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

    def look() -> list[Tally]:
        return [read(one, asked) for one in [path, *left_by_processes(path)] if one.exists()]

    base = fresh.joined(itertools.chain.from_iterable(processes.together(look)))
    base.skipped.clear()  # they are tried again
    _into_one(path, base, processes)
    return base


def _into_one(path: Path | None, whole: Tally, processes: Processes) -> None:
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


def _walk(
    source: Items,
    base: Tally,
    own: Tally,
    make: Callable[[Any], tuple[Frame, Part]],
    store: Store,
    skip: bool,
    bar: Any,
    places: tuple[int, int],
    split: bool,
) -> None:
    """Do this process's items that are not done."""
    done = frozenset(base.parts)
    known = {part.told.model for part in base.parts.values()}
    first, step = places
    prompts = 0
    for place in itertools.count():
        number = first + place * step
        if number in done:
            continue
        item = source.take(number if split else place)
        if item is END:
            if split:
                source.check_reaches(base.reach)
            return
        holder = [item]
        del item
        try:
            frame, part = make(holder)
            if len(known) == 1 and part.told.model not in known:
                raise ResidscopeError(
                    "resume",
                    "What is resumed was made with another model, or its weights were changed since: give `resume` "
                    "another name.",
                )
            known.clear()
            own.add(number, frame, part)
            own.skipped.pop(number, None)
            prompts += part.prompts
        except ResidscopeError as error:
            if not skip or error.code in (*_ASKED_WRONG, "resume"):
                raise ResidscopeError(error.code, f"Item {number}: {error}") from error
            own.skipped[number] = str(error)
        except Exception as error:
            _add_note(error, f"This was item {number} of `attribute_many`.")
            raise
        store.keep(own)
        bar.set_postfix_str(f"{prompts} prompts", refresh=False)
        bar.update()


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
    told = Told(result.measured_from, result.own, result.tolerance, tuple(result.notes), mark(cache, model))
    return Frame.of(result), Part(
        result.values.shape[result.axes.index("batch")], measured, constant, unexplained, values, told
    )


def _leave_safe(error: BaseException, whole: Tally, own: Tally, store: Store) -> None:
    """Save what is done, and hang it on what ended the call."""
    if not whole.parts:
        return
    store.save(own)
    with suppress(Exception):
        error.partial = result_of(whole)  # pyright: ignore[reportAttributeAccessIssue]
    where = (
        f"kept in {str(store.path)!r}: the same call goes on after them"
        if store.path is not None
        else "in this exception's `.partial` (in a notebook `sys.last_value.partial`): "
        "`attribute_many(…, resume=…)` goes on after them"
    )
    _add_note(error, f"{len(whole.parts)} items were done; they are {where}.")


def _add_note(error: BaseException, note: str) -> None:
    add: Callable[[str], None] | None = getattr(error, "add_note", None)  # Python 3.11
    if add is not None:
        add(note)


def _bar(shown: bool, total: int | None, base: Tally, places: tuple[int, int], split: bool) -> Any:
    """The progress bar, over this process's items."""
    from tqdm.auto import tqdm

    first, step = places
    done = sum(number % step == first for number in base.parts)
    if total is not None and split:
        total = len(range(first, total, step))
    return tqdm(total=total, initial=done, unit=" items", desc="attribute_many", disable=not shown)
