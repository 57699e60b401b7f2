"""Checks the number of a prompt."""

from __future__ import annotations

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
