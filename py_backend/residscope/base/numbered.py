"""Names layers and prompts in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def named_layers(layers: Iterable[int]) -> str:
    """Layers in words: "layer 3", "layers 0, 1 and 4", "layers 0 to 29"."""
    return _named("layer", sorted(layers))


def named_prompts(prompts: Iterable[int]) -> str:
    """Prompts in words: "prompt 3", "prompts 0, 1 and 4", "prompts 0 to 29", "prompts 0, 2, 4, 6 and 5 more"."""
    return _named("prompt", sorted(prompts), most=_PROMPTS)


def some_prompts(numbers: Sequence[int], count: int) -> str:
    """Return some of `count` prompts in words: `2 of 3 prompts (1 and 2)`. If there is only one: `the prompt`."""
    return "the prompt" if count == 1 else f"{len(numbers)} of {count} prompts ({_listed(numbers, most=_PROMPTS)})"


def _named(noun: str, numbers: Sequence[int], most: int | None = None) -> str:
    if len(numbers) == 1:
        return f"{noun} {numbers[0]}"
    if len(numbers) > 3 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{noun}s {numbers[0]} to {numbers[-1]}"
    return f"{noun}s {_listed(numbers, most)}"


def _listed(numbers: Sequence[int], most: int | None) -> str:
    words = [str(number) for number in numbers]
    if most is not None and len(words) > most + 1:
        words[most:] = [f"{len(words) - most} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


_PROMPTS = 4
"""At most this many prompts are named before "and … more"."""
