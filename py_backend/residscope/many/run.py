"""`attribute_many`: attributes one item after another without keeping caches, and saves the results meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, overload

from residscope.attribution.attribute import attribute
from residscope.cache.positions import Positions, is_about_mean
from residscope.errors import ResidscopeError
from residscope.many.accumulator import ItemFacts, ItemResult, ResultLayout, copied
from residscope.many.engine import Call, Schedule, run_call
from residscope.many.fingerprint import model_fingerprint, question, tokenizer_fingerprint
from residscope.many.items import cache_and_options, naming_answers
from residscope.many.result import AttributionSummary, ManyAttribution, result_of
from residscope.terms import Answers, By, Heads, ModelLike, NormConvention

Resume = str | PathLike[str] | ManyAttribution | AttributionSummary | None
_NEVER_SKIPPED = ("by", "heads", "layers", "norm", "resume")

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
    answers: Answers = None,
    *,
    keep: Literal["values"] = "values",
    **options: Unpack[_Options],
) -> ManyAttribution: ...
@overload
def attribute_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Answers = None,
    *,
    keep: Literal["summary"],
    **options: Unpack[_Options],
) -> AttributionSummary: ...


def attribute_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Answers = None,
    *,
    by: By = "head",
    position: Positions = "last",
    norm: NormConvention = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Heads = None,
    model: ModelLike = None,
    keep: Literal["values", "summary"] = "values",
    resume: Resume = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    total: int | None = None,
    accelerator: object = None,
    split: bool = True,
) -> ManyAttribution | AttributionSummary:
    """Call `attribute` for many caches, one after another, so that memory does not grow with their number.

    Args:
        items: A list, another sequence (with `len` and `items[i]`) or an iterator. An item is a cache, a pair
            `(cache, answers)` or a triple `(cache, answers, options)`. Options are `attribute`'s `logits`, `tokens`,
            `attention_mask` and `position` for this item. An item may also be a function without arguments that returns
            one of these. The function is called just before its item is attributed, and never for an item that is
            already done or belongs to another process.
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
        resume: The name of a file. Results are saved there about every half minute, and when the call ends for any
            reason. If the file exists, the call continues after its results. `resume` may also be the `.partial` of the
            exception that ended an interrupted call.
        on_error: `"skip"` leaves out items that raise a `ResidscopeError`, and adds a note. All other exceptions, and
            all errors of an iterator, are raised.
        progress: Whether to show a progress bar (tqdm).
        total: The number of items for the progress bar, if `items` has no length.
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
            resumed results: the message names the difference. Any exception that ends the call early, also a
            KeyboardInterrupt, has an attribute `.partial`: the result of the items that are done.
    """
    if keep not in ("values", "summary"):
        raise ResidscopeError("keep", f'`keep="{keep}"` is not known: use "values" or "summary".')
    schedule = Schedule(resume, on_error, progress, total, accelerator, split)
    attribute_cache = partial(attribute, by=by, position=position, norm=norm, layers=layers, heads=heads, model=model)
    call = Call(
        "attribute_many",
        question(answers, by=by, position=position, norm=norm, layers=layers, heads=heads, keep=keep),
        keep == "values",
        partial(_attribute_item, attribute_cache, answers, model),
        result_of,
        _NEVER_SKIPPED,
    )
    return run_call(call, items, schedule)


def _attribute_item(
    attribute_cache: Callable[..., Attribution], answers: object, model: object, holder: list[object]
) -> tuple[ResultLayout, ItemResult]:
    """The result of one item, on the CPU. The item is removed from `holder`, so that nothing keeps it in memory."""
    cache, wanted, options = cache_and_options(holder.pop(), answers)
    with naming_answers(are_common=wanted is answers):
        result = attribute_cache(cache, wanted, **options)
    layout = ResultLayout.of(result)
    columns = {name: copied(getattr(result, name)) for name in layout.columns}
    padding = result.padding
    is_padded = padding is not None and bool(padding.any())
    if padding is not None and "pos" in result.axes:  # for next tokens, padding has no values: means leave it out
        is_padded = is_padded and not bool(result.constant.isnan().to(padding.device)[padding].all())
    notes = tuple(note for note in result.notes if not is_about_mean(note))
    notes = (*notes, _WITH_PADDING) if is_padded else notes
    facts = ItemFacts(
        result.measured_from, result.own, result.tolerance, notes, model_fingerprint(cache, model),
        tokenizer_fingerprint(cache, model, answers),
    )  # fmt: skip
    prompts = result.values.shape[result.axes.index("batch")]
    return layout, ItemResult(prompts, columns, copied(result.values), facts)


_WITH_PADDING = (
    "Some positions are padding in some prompts. Means over prompts include them. (Those of `residscope.attribute` for "
    "one cache do not.) For means of real tokens, give one position of each prompt."
)
