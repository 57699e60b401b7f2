"""`ablate_many`: measures effects item by item without keeping caches, and computes their spread over prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from residscope.cache.positions import Positions, is_about_mean
from residscope.causes.ablate import Ablated, ablate
from residscope.causes.ablation import EFFECTS, Ablation
from residscope.causes.left_out import LEFT_OUT
from residscope.causes.measurement import AS_CACHED
from residscope.errors import ResidscopeError
from residscope.many.ablation_result import AblationSummary, ManyAblation, ablation_of
from residscope.many.accumulator import ItemFacts, ItemResult, ResultLayout, copied
from residscope.many.engine import Call, Resumable, Schedule, run_call
from residscope.many.fingerprint import model_fingerprint, question, tokenizer_fingerprint
from residscope.many.items import cache_and_options, naming_answers
from residscope.terms import Answers, Heads, ModelLike, NormConvention, PositionsLike, ReplacementLike

_NEVER_SKIPPED = ("of", "heads", "layers", "norm", "resume")
_OPTIONS = ("attention_mask", "position", "positions", "replace", "tokens")

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    class _Options(TypedDict, total=False):
        """The options other than `keep`. Their defaults are those of `ablate_many`."""

        replace: object
        positions: Any
        of: Ablated
        layers: int | Sequence[int] | None
        position: Positions
        together: bool
        norm: NormConvention
        model: Any
        resume: Resumable
        on_error: Literal["raise", "skip"]
        progress: bool
        total: int | None
        accelerator: Any
        split: bool


@overload
def ablate_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Answers = None,
    heads: Heads = None,
    *,
    keep: Literal["values"] = "values",
    **options: Unpack[_Options],
) -> ManyAblation: ...
@overload
def ablate_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Answers = None,
    heads: Heads = None,
    *,
    keep: Literal["summary"],
    **options: Unpack[_Options],
) -> AblationSummary: ...


def ablate_many(
    items: Iterable[Any] | Sequence[Any],
    answers: Answers = None,
    heads: Heads = None,
    *,
    replace: ReplacementLike = "zero",
    positions: PositionsLike = "all",
    of: Ablated = "z",
    layers: int | Sequence[int] | None = None,
    position: Positions = "last",
    together: bool = False,
    norm: NormConvention = "frozen",
    model: ModelLike = None,
    keep: Literal["values", "summary"] = "values",
    resume: Resumable = None,
    on_error: Literal["raise", "skip"] = "raise",
    progress: bool = True,
    total: int | None = None,
    accelerator: object = None,
    split: bool = True,
) -> ManyAblation | AblationSummary:
    """Call `ablate` for many caches, one after another, so that memory does not grow with their number.

    Items, files to resume, and several processes work as in `attribute_many`.

    Args:
        items: A list, another sequence or an iterator of items, as in `attribute_many`. An item's own options may be
            `ablate`'s `attention_mask`, `position`, `positions`, `replace` and `tokens`: `replace` is then, for
            example, the cache of this item's corrupted prompts.
        answers: The answers for items without their own (see `attribute`).
        heads: See `ablate`.
        replace: See `ablate`. With `"mean"`, the mean is over the prompts of each item.
        positions: See `ablate`.
        of: See `ablate`.
        layers: See `ablate`.
        position: See `ablate`.
        together: See `ablate`.
        norm: See `ablate`.
        model: The model, if `cache.model` was deleted.
        keep: `"values"`: keep the effects in every prompt. `"summary"`: keep only their mean and spread.
        resume: The name of a file in which results are saved, or the `.partial` of an interrupted call, as in
            `attribute_many`. An item that was interrupted is measured again.
        on_error: `"skip"` leaves out items in which nothing can be measured, and adds a note.
        progress: Whether to show a progress bar (tqdm).
        total: The number of items for the progress bar, if `items` has no length.
        accelerator: An `accelerate.Accelerator()`, as in `attribute_many`.
        split: Whether the processes share `items`, as in `attribute_many`.

    Returns:
        A `ManyAblation`, which is an `Ablation` of all prompts, or with `keep="summary"` an `AblationSummary`. Both
        have `.mean(effect)`, `.std(effect)` and `.sem(effect)` (the standard error of the mean), and are on the CPU.
        A prompt in which all `positions` are padding, or the target's `position` is, has no effect (NaN). Means leave
        it out, and a note says so.

    Raises:
        ResidscopeError: If nothing can be measured in an item: the message names the item. If the call differs from the
            resumed results: the message names the difference. Any exception that ends the call early, also a
            KeyboardInterrupt, has an attribute `.partial`: the result of the items that are done.
    """
    if keep not in ("values", "summary"):
        raise ResidscopeError("keep", f'`keep="{keep}"` is not known: use "values" or "summary".')
    schedule = Schedule(resume, on_error, progress, total, accelerator, split)
    options: dict[str, Any] = {
        "heads": heads, "replace": replace, "positions": positions, "of": of, "layers": layers, "position": position,
        "together": together, "norm": norm,
    }  # fmt: skip
    call = Call(
        "ablate_many",
        question(answers, by="ablation", **options, keep=keep),
        keep == "values",
        partial(_ablate_item, partial(ablate, **options, model=model, progress=False), replace, answers, model),
        ablation_of,
        _NEVER_SKIPPED,
    )
    return run_call(call, items, schedule)


def _ablate_item(
    ablate_cache: Callable[..., Ablation], replace: object, answers: object, model: object, holder: list[object]
) -> tuple[ResultLayout, ItemResult]:
    """The result of one item, on the CPU. The item is removed from `holder`, so that nothing keeps it in memory."""
    import torch

    cache, wanted, options = cache_and_options(holder.pop(), answers, _OPTIONS)
    try:
        with naming_answers(are_common=wanted is answers):
            result = ablate_cache(cache, wanted, **options)
    except BaseException as error:
        with suppress(AttributeError):
            del error.partial  # pyright: ignore[reportAttributeAccessIssue]: it holds effects of this item only
        raise
    effects = torch.stack([getattr(result, effect) for effect in EFFECTS], -1)
    prompts = len(result.before)
    grid = (result.total.shape[0], result.total.shape[1]) if len(result.axes) == 3 else None
    axes = ("set" if len(result.axes) == 1 else "component", "batch", "effect")
    layout = ResultLayout("ablation", result.components, axes, (len(EFFECTS),), [], None, grid)
    # The result of all items has its own notes on prompts without effects.
    notes = [note for note in result.notes if not (note.endswith(LEFT_OUT) or is_about_mean(note))]
    if isinstance(by := options.get("replace", replace), str) and by == "mean":
        notes.append('With `replace="mean"` the mean is over the prompts of each item, not over those of all items.')
    facts = ItemFacts(
        result.replaced_by, True, 0.0, tuple(notes), model_fingerprint(cache, model),
        tokenizer_fingerprint(cache, model, answers), result.replayed.partition(AS_CACHED)[2],
    )  # fmt: skip
    values = copied(effects.reshape(-1, prompts, len(EFFECTS)))
    return layout, ItemResult(prompts, {"before": copied(result.before)}, values, facts)
