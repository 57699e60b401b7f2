"""Checks the number of a prompt, and names prompts in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from residscope.errors import ResidscopeError


def check_prompt_number(prompt: int, count: int) -> int:
    """Return the index of a prompt, counted from the start. Negative numbers count from the end.

    Args:
        prompt: The number of the prompt.
        count: How many prompts there are.

    Raises:
        ResidscopeError: If there is no such prompt.
    """
    if not -count <= prompt < count:
        prompts = "there is only prompt 0" if count == 1 else f"the prompts are 0 to {count - 1}"
        raise ResidscopeError("prompt", f"There is no prompt {prompt}: {prompts}.")
    return prompt % count


def named_prompts(prompts: Sequence[int]) -> str:
    """Prompts in words: "prompt 3", "prompts 0, 1 and 4", "prompts 0 to 29", "prompts 0, 2, 4, 6 and 5 more"."""
    ordered = sorted(prompts)
    if len(ordered) == 1:
        return f"prompt {ordered[0]}"
    if len(ordered) > 3 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"prompts {ordered[0]} to {ordered[-1]}"
    if len(ordered) > _LISTED + 1:
        return f"prompts {', '.join(map(str, ordered[:_LISTED]))} and {len(ordered) - _LISTED} more"
    return f"prompts {', '.join(map(str, ordered[:-1]))} and {ordered[-1]}"


def some_prompts(numbers: Sequence[int], count: int) -> str:
    """Return some of `count` prompts in words: `2 of 3 prompts (1 and 2)`. If there is only one: `the prompt`."""
    if count == 1:
        return "the prompt"
    if len(numbers) > _LISTED + 1:
        listed = ", ".join(map(str, numbers[:_LISTED])) + ", …"
    else:
        listed = ", ".join(map(str, numbers[:-1])) + " and " * (len(numbers) > 1) + str(numbers[-1])
    return f"{len(numbers)} of {count} prompts ({listed})"


_LISTED = 4
"""At most this many prompts are named before "and … more"."""
