"""The two runs of a comparison: some prompts of a cache, and some of another cache or of the same cache."""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from residscope.attribution.targets import Targets
from residscope.cache.view import CacheView
from residscope.compute.torch_context import in_torch_context
from residscope.errors import ResidscopeError, without_frames
from residscope.session.change_notes import seen, steadily
from residscope.terms import CacheLike, MaskLike, ModelLike, Target

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """One of the two runs.

    Attributes:
        targets: Resolves targets for the run's cache.
        logits: The model's output, if it was given.
    """

    targets: Targets
    logits: Tensor | None = None

    @property
    def view(self) -> CacheView:
        """The run's cache."""
        return self.targets.view

    def only(self, prompt: int | None, target: Target) -> tuple[Run, Target]:
        """Return the run of one prompt, and its target. The whole run if `prompt` is None."""
        if prompt is None:
            return self, target
        one = range(prompt, prompt + 1)
        targets, target = self.targets.only(target, one)
        logits = None if self.logits is None else self.logits[prompt : prompt + 1]
        return Run(replace(targets, notes=self.targets.notes), logits), target

    def tokens(self, *, as_texts: bool) -> list[list[Hashable]] | None:
        """Return the token at each position of each prompt, as id or text. None if the token ids are not known."""
        tokens = self.view.tokens
        if tokens is None:
            return None
        rows: list[list[Any]] = tokens.tolist()
        if not as_texts:
            return rows
        names: dict[int, Hashable] = {id: self.targets.vocabulary.text(id) for id in {id for row in rows for id in row}}
        return [[names[id] for id in row] for row in rows]


@dataclass(frozen=True)
class Given:
    """A cache and the other arguments that the user passed with it."""

    cache: CacheLike
    logits: Tensor | None = None
    tokens: Tensor | None = None
    attention_mask: MaskLike = None
    model: ModelLike = None

    def other(self, given: Given) -> Given:
        """Return the second run, or this run if none was given. A cache without a model gets this run's model.

        Raises:
            ResidscopeError: If arguments were given for the second run, but no cache.
        """
        if given.cache is None:
            named = [name for name in _OF_OTHER if getattr(given, name) is not None]
            if named:
                listed = ", ".join(f"`other_{name}=`" for name in named)
                raise ResidscopeError(
                    "compare",
                    f"{listed}: there is no other cache, so both runs are prompts of the first one. Give the other "
                    "cache, `compare(cache, other, …)`, or leave this out.",
                )
            return self
        known = given.model is not None or getattr(given.cache, "model", None) is not None
        model = given.model if known else self.model if self.model is not None else getattr(self.cache, "model", None)
        return replace(given, model=model)


_OF_OTHER = ("logits", "tokens", "attention_mask", "model")


def with_runs(given: Given, other: Given, work: Callable[[Run, Run], T]) -> T:
    """Call `work` with both runs. If one of the caches changes during the call, call `work` again."""
    caches = [(one, seen(one.cache, one.model)) for one in (given, other)]

    def opened() -> T:
        views = [
            CacheView(one.cache, model=one.model, tokens=one.tokens, seen=tracked, attention_mask=one.attention_mask)
            for one, tracked in (caches[:1] if other is given else caches)
        ]
        first, second = views[0], views[-1]

        def computed() -> T:
            runs = [
                Run(Targets.of(view), None if one.logits is None else view.whole_logits(one.logits))
                for view, one in ((first, given), (second, other))
            ]
            return work(*runs)

        return in_torch_context(first.stream.device, lambda: in_torch_context(second.stream.device, computed))

    def steady_in_second() -> T:
        return opened() if other is given else steadily(other.cache, other.model, caches[1][1], opened)

    return steadily(given.cache, given.model, caches[0][1], steady_in_second)


def chosen_prompts(
    first: CacheView, second: CacheView, prompt: int | None, with_prompt: int | None, *, same: bool
) -> tuple[int | None, int | None]:
    """Return the prompt of each run. Both are None if all prompts are compared, in their order.

    Args:
        first: The first cache.
        second: The second cache.
        prompt: The prompt of the first run.
        with_prompt: The prompt of the second run.
        same: Whether both runs are from one cache, because no other cache was given.

    Raises:
        ResidscopeError: If there is no such prompt, or it is not clear which prompts are compared.
    """
    if same and with_prompt is None:
        raise ResidscopeError(
            "compare",
            "A comparison needs two runs: give another cache, `compare(cache, other, …)`, or two prompts of this one, "
            "`compare(cache, answers=…, prompt=0, with_prompt=1)`.",
        )
    if prompt is None and with_prompt is None:
        if first.batch != second.batch:
            counts = " and ".join(
                f"the {which} {view.batch} prompt{'' if view.batch == 1 else 's'}"
                for which, view in (("first run has", first), ("second", second))
            )
            raise ResidscopeError(
                "prompts",
                f"{counts[0].upper()}{counts[1:]}. Compare one prompt of each, such as `prompt=0, with_prompt=0` "
                "(`prompt=` of the first run, `with_prompt=` of the second), or runs with the same number of prompts.",
            )
        return None, None
    if prompt is None and first.batch > 1:
        raise ResidscopeError("prompts", f"`with_prompt={with_prompt}` needs `prompt=`, the prompt of the first run.")
    prompt = first.check_prompt(prompt or 0)
    if with_prompt is None:
        with_prompt = 0 if second.batch == 1 else prompt
    with told_of("second"):
        return prompt, second.check_prompt(with_prompt)


@contextmanager
def told_of(which: Literal["first", "second"]) -> Generator[None, None, None]:
    """If the block raises an error, raise it again, with the name of this run at the beginning of the message."""
    try:
        yield
    except ResidscopeError as error:
        without_frames(error)
        raise ResidscopeError(error.code, f"In the {which} run: {error}", error.names) from None
