"""The run that the views compare with: another prompt, or another cache of the user's namespace."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeAlias, TypeVar
from uuid import uuid4

from residscope.attribution.targets import Targets
from residscope.cache.view import CacheView
from residscope.comparison.alignment import HOW, alignment_of
from residscope.comparison.runs import Run, chosen_prompts
from residscope.compute.memo import size_of
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError
from residscope.serving.request_context import RequestContext
from residscope.session.change_notes import steady
from residscope.session.change_tracking import track
from residscope.session.class_kinds import peek
from residscope.session.discovery import named
from residscope.terms import Against, Target
from residscope.wire.envelope import Buffers

_ONE_PROMPT = "The mean over all prompts cannot be compared with one prompt: choose a prompt, or end the comparison."
_ITSELF = "This comparison names neither another cache nor another prompt: choose what to compare with."

_OTHER_COUNT = "The two caches have different numbers of prompts"
_CHOOSE_ONE = (
    "choose one prompt here, which is compared with the prompt of the same number in the other cache, or with its only "
    "prompt. In Python you can choose the prompt of the other cache: `panel.against = (other, 2)`, or "
    "`compare(cache, other, …, prompt=0, with_prompt=2)`."
)

_BY_TOKEN = (
    "“Align by token” matches the tokens that occur in both prompts in the same order. Or select the last token: it is "
    "compared with the last token of the other run."
)

Key: TypeAlias = "tuple[Hashable, ...] | None"
T = TypeVar("T")


def of_two(
    context: RequestContext,
    against: Against,
    what_if: object,
    key: Key,
    make: Callable[[RequestContext], tuple[T, Buffers]],
) -> tuple[T, Buffers]:
    """Call `make` with the other run of the comparison.

    The reply depends on the states of both caches, so it is memoised for this pair of states. If the other cache
    changes meanwhile, the reply is computed again. The service does the same for the first cache.
    """
    memo = context.view.memo

    def kept(state: str, make: Callable[[], tuple[T, Buffers]]) -> tuple[T, Buffers]:
        return make() if key is None else memo.once(("compared", state, *key), make, lambda reply: size_of(reply[1]))

    name = against.cache
    cache = what_if
    if cache is None:
        if name is None:
            return kept("", lambda: make(context))
        cache = named(name)
    if cache is None:
        raise ResidscopeError(
            "against",
            f"There is no activation cache `{name}` in the notebook: run the cell that makes it, or compare with "
            "another run.",
        )
    model = context.view.model if peek(cache, "model") is None else None  # if the other cache's model was deleted
    other = track(cache, model)

    def work() -> tuple[T, Buffers]:
        view = CacheView(cache, model=model, seen=other)
        view.padding_is_real = context.view.padding_is_real
        second = RequestContext(Targets.of(view, context.targets.directions), None)
        return in_torch_context(view.stream.device, lambda: make(second))

    # An id of the other cache's present state. It is kept in that cache's memo, which is emptied when the cache
    # changes. The changed cache gets a new id, so a reply for its former state is never used again.
    state: str = other.memo[0].once(("state",), lambda: uuid4().hex)
    return kept(state, lambda: steady(lambda quick: other.compare(cache, model, quick=quick), work, other))


def prompts_of(
    first: RequestContext, second: RequestContext, against: Against, shown: int | None
) -> tuple[int | None, int | None]:
    """The prompt of each run; None for each if all prompts are compared, one by one."""
    if against.cache is None and against.prompt is None and not against.without:
        raise ResidscopeError("against", _ITSELF)
    prompt = first.view.check_prompt(shown)
    if prompt is None and against.prompt is not None and first.view.batch > 1:
        raise ResidscopeError("against", _ONE_PROMPT)
    try:
        return chosen_prompts(first.view, second.view, prompt, against.prompt, same=first is second)
    except ResidscopeError as error:
        if error.code != "prompts":
            raise
        counts = f"{first.view.batch} and {second.view.batch}"
        raise ResidscopeError("against", f"{_OTHER_COUNT} ({counts}): {_CHOOSE_ONE}") from error


def check_by_index(first: Targets, second: Targets, against: Against) -> None:
    """Refuse an alignment that matches a position with a position of another index.

    A run of the model replaces an activation by the one with the same index in the other run, in every prompt.

    Raises:
        ResidscopeError: If the alignment matches positions of different indices.
    """
    if against.align is None:
        return
    given = second.view.check_prompt(against.prompt)
    for prompt in range(first.view.batch):
        other = 0 if second.view.batch == 1 else prompt if given is None else given
        run, _ = Run(first).only(prompt, Target([]))
        beside, _ = Run(second).only(other, Target([]))
        pairs = (alignment_of(run, beside, against.align).pairs or [[]])[0]
        moved = [pair for pair in pairs if pair[0] != pair[1]]
        if moved:
            which = f" (prompt {prompt})" if first.view.batch > 1 else ""
            raise ResidscopeError(
                "aligned",
                f"Runs of the model put in the activation with the same index, but by token, position {moved[0][0]} is "
                f"matched with position {moved[0][1]} of the other run{which}. End the alignment to put activations in "
                "by index, or compare with a prompt whose tokens are at the same positions.",
            )


def on_screen(error: ResidscopeError, against: Against) -> ResidscopeError:
    """Return the error with advice for the screen in place of advice about `align=`.

    The code "align" means that a click on “align by token” helps, "aligned" that it does not.
    """
    if error.code != "align":
        return error
    reason = str(error).removesuffix(f": {HOW}")
    if against.align is None:
        return ResidscopeError("align", f"{reason}. {_BY_TOKEN}")
    if reason == str(error):
        return ResidscopeError("aligned", reason)
    return ResidscopeError("aligned", f"{reason}: select a token that is matched.")
