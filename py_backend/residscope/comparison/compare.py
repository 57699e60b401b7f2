"""`compare`: how the target differs between two runs, component by component.

A row is r · g: the vector r that a component wrote, times the target's gradient g. Both r and g differ between runs.
The part (r₂ − r₁)·ḡ comes from different writing, and the part r̄·(g₂ − g₁) from different reading. r̄ and ḡ are means
of both runs. The sum of the two parts is exactly r₂·g₂ − r₁·g₁. The parts are computed from r₂·g₁ and r₁·g₂: one
run's rows times the gradient of the other run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from residscope.attribution.decompose import Query
from residscope.attribution.predictions import top_two
from residscope.cache.positions import Positions
from residscope.comparison.alignment import Align
from residscope.comparison.result import Comparison
from residscope.comparison.runs import Given, Run, chosen_prompts, told_of, with_runs
from residscope.comparison.same_shape import check_same_ids, check_shapes
from residscope.comparison.two_runs import compared
from residscope.terms import Answers, By, CacheLike, Heads, MaskLike, ModelLike, NormConvention, Target

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

__all__ = ["Comparison", "compare"]


def compare(
    cache: CacheLike,
    other: CacheLike = None,
    answers: Answers = None,
    *,
    by: By = "head",
    position: Positions = "last",
    prompt: int | None = None,
    with_prompt: int | None = None,
    align: Align | None = None,
    norm: NormConvention = "frozen",
    layers: int | Sequence[int] | None = None,
    heads: Heads = None,
    logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    attention_mask: MaskLike = None,
    model: ModelLike = None,
    other_logits: Float[Tensor, "batch pos d_vocab"] | None = None,
    other_tokens: Int[Tensor, "batch pos"] | None = None,
    other_attention_mask: MaskLike = None,
    other_model: ModelLike = None,
) -> Comparison:
    """Compare two runs: the difference of each component's contribution, and the two parts of this difference.

    One part comes from what the component wrote differently, the other from how the target reads it differently.

    The runs may be of clean and corrupted prompts, of two checkpoints, of a fine-tuned model and its base, or before
    and after a hook: any two caches of models of the same shape. The model is not run. The first prompt of one run is
    compared with the first prompt of the other run, the second with the second, and so on.

    Args:
        cache: The first run, an `ActivationCache`.
        other: The second run. None: another prompt of `cache`, named by `with_prompt=`.
        answers: The target in both runs, as in `attribute`. By default the two top predictions of the first run. A list
            has one answer for each prompt, and is used in both runs.
        by: The rows, as in `attribute`.
        position: Where the target is read, as in `attribute`. `"last"` is each prompt's own last real token. Any other
            position is a position of the first run. In the second run, the target is read at the matched position (see
            `align`).
        prompt: Compare only this prompt of the first run.
        with_prompt: The prompt of the second run. By default `prompt`, or the only prompt of `other`.
        align: Which positions are matched. By default positions with the same index, counted from the first real token,
            if the prompts have the same length. Or give pairs `[(first, second), …]`, or `"by token"`: the tokens that
            both prompts have in the same order. The alignment holds for the positions of the rows, their sources, and
            the positions that a target names.
        norm: As in `attribute`.
        layers: As in `attribute`.
        heads: As in `attribute`.
        logits: The output of the first run, if the cache does not hold it. `measured` is then read from these logits.
        tokens: Token ids of the first run, if the cache does not hold them.
        attention_mask: The mask of the first run, `[batch, pos]`.
        model: The model of the first run, if `cache.model` was deleted.
        other_logits: The output of the second run.
        other_tokens: Token ids of the second run.
        other_attention_mask: The mask of the second run.
        other_model: The model of the second run.

    Returns:
        The difference, second − first, in the unit of the target. `.values` has the shape of `attribute`'s values, and
        equals `.written` + `.read`. `.read_total` is the sum of `.read` over all rows (with `by="accumulated"`, its
        last row), plus the change of the constant.

    Raises:
        ResidscopeError: With a message that says what is wrong, in which run, and what to do.
    """
    query = Query(Target([]), by, None, norm, layers, heads)  # refuses options that contradict each other
    given = Given(cache, logits, tokens, attention_mask, model)
    others = given.other(Given(other, other_logits, other_tokens, other_attention_mask, other_model))

    def work(first: Run, second: Run) -> Comparison:
        check_shapes(first.view, second.view)
        one, two = chosen_prompts(first.view, second.view, prompt, with_prompt, same=others is given)
        targets = resolved(first, second, answers, (one, two))
        runs = first.only(one, targets[0]), second.only(two, targets[1])
        return compared(*runs, query, position, align)

    return with_runs(given, others, work)


def resolved(
    first: Run, second: Run, answers: object, prompts: tuple[int | None, int | None] = (None, None)
) -> tuple[Target, Target]:
    """Return the target in the first run and in the second. `prompts` are the prompts that will be compared."""
    if answers is None:
        run, target = first.only(prompts[0], Target([]))
        target = top_two(run.view, run.logits)
        check_same_ids(target, first.targets.vocabulary, second.targets.vocabulary)
        return target, target
    target = first.targets.resolve(answers)
    if prompts[0] is not None and len(target.contrasts) > 1 and first.view.batch != second.view.batch:
        # One answer for each prompt of the first run: in the second run, the answer of the compared prompt is used.
        _, of_prompt = first.only(prompts[0], target)
        check_same_ids(of_prompt, first.targets.vocabulary, second.targets.vocabulary)
        return target, of_prompt
    with told_of("second"):
        return target, second.targets.resolve(answers)
