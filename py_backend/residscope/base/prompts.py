"""Numbers of prompts: checked, and in words."""

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


_LISTED = 5
"""At most this many prompts are listed one by one."""


def some_prompts(numbers: Sequence[int], count: int) -> str:
    """Return some of `count` prompts in words: `2 of 3 prompts (1 and 2)`. If there is only one: `the prompt`."""
    if count == 1:
        return "the prompt"
    if len(numbers) > _LISTED:
        listed = ", ".join(map(str, numbers[:_LISTED])) + ", …"
    else:
        listed = ", ".join(map(str, numbers[:-1])) + " and " * (len(numbers) > 1) + str(numbers[-1])
    return f"{len(numbers)} of {count} prompts ({listed})"
