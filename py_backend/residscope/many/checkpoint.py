"""Saves results to a file of NumPy arrays with a JSON header. No code from the file runs when it is read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import IO, Any

import msgspec

from residscope.base.files import atomic_write
from residscope.errors import ResidscopeError
from residscope.many.accumulator import Accumulator, ItemResult, Spread, joined_values
from residscope.many.saved_file import InconsistentFileError, LayoutHeader, SavedFile, contents, form_of

_MIN_SECONDS = 30.0
"""At least this many seconds pass between two saves by `save_if_due`."""

_MIN_RATIO = 20
"""The time between two saves by `save_if_due` is at least this many times the duration of the last save."""


class Checkpoint:
    """Saves an accumulator to a file. Without a path it saves nothing.

    Args:
        path: The file.

    Raises:
        ResidscopeError: If the path is a folder, or the file's folder does not exist or cannot be written to.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._due = time.monotonic() + _MIN_SECONDS
        if path is not None and not path.parent.is_dir():
            raise ResidscopeError("resume", f"The folder of `resume={str(path)!r}` does not exist: make it first.")
        if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise ResidscopeError("resume", f"`resume={str(path)!r}` cannot be written: pass the name of a file.")

    def save_if_due(self, accumulator: Accumulator) -> None:
        """Save if the last save was long enough ago."""
        if self.path is not None and time.monotonic() >= self._due:
            self.save(accumulator)

    def save(self, accumulator: Accumulator) -> None:
        """Save now. Nothing is saved if there is no result.

        The file is always complete: a new file is written first, and then replaces the old one.
        """
        if self.path is None or not accumulator.results:
            return
        start = time.monotonic()
        with atomic_write(self.path) as file:
            write(file, accumulator)
        now = time.monotonic()
        self._due = now + max(_MIN_SECONDS, _MIN_RATIO * (now - start))


def write(file: IO[bytes], accumulator: Accumulator) -> None:
    """Write an accumulator, which must not be empty, to an open file."""
    import numpy as np

    layout, results, spread = accumulator.layout, dict(sorted(accumulator.results.items())), accumulator.spread
    assert layout is not None
    facts = list(dict.fromkeys(result.facts for result in results.values()))
    index_of = {item_facts: index for index, item_facts in enumerate(facts)}
    header = {
        "form": form_of(layout.by),
        "question": accumulator.question,
        "frame": msgspec.to_builtins(LayoutHeader.of(layout)),
        "facts": facts,
        "skipped": list(accumulator.skipped.items()),
        "count": 0 if spread is None else sum(result.prompts for result in results.values()),
    }
    names = [*layout.columns, *(["values"] if accumulator.keeps_values else [])]
    arrays = {name: joined_values(results.values(), name, layout).numpy() for name in names}
    if spread is not None:
        arrays |= {"mean": spread.mean.numpy(), "squares": spread.squares.numpy()}
        arrays |= {"counts": spread.count.numpy()} if layout.by == "ablation" else {}
    numbers = {
        "items": list(results),
        "prompts": [result.prompts for result in results.values()],
        "facts": [index_of[result.facts] for result in results.values()],
    }
    entries: dict[str, Any] = arrays | {name: np.array(listed) for name, listed in numbers.items()}
    entries["header"] = np.frombuffer(json.dumps(header, ensure_ascii=False).encode(errors="replace"), np.uint8)
    np.savez(file, **entries)


def read(path: Path, question: dict[str, str]) -> Accumulator:
    """Read a saved file. The file is not trusted (see `saved_file`).

    Args:
        path: A file that `write` wrote.
        question: The options of the present call (`fingerprint.question`).

    Raises:
        ResidscopeError: If `write` did not write this file, or it was made with other options.
    """
    try:
        saved = contents(path)
    except Exception as error:  # damaged bytes may raise anything
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        why = f"{why} cannot be right" if isinstance(error, InconsistentFileError) else why
        raise ResidscopeError(
            "resume",
            f"{str(path)!r} is not a file that `{_call(question)}` saved, or it is damaged ({why}): delete it to begin "
            "again, or give `resume` another name.",
        ) from error
    check_question(saved.header.question, question, f"The file {str(path)!r}")
    return _accumulator(saved)


def _accumulator(saved: SavedFile) -> Accumulator:
    import torch

    header, layout, arrays = saved.header, saved.layout, saved.arrays
    prompts = arrays["prompts"].tolist()

    def split(name: str) -> Any:
        if name not in arrays:
            return [None] * len(prompts)
        return torch.from_numpy(arrays[name]).split(prompts, layout.prompt_axis - (name != "values"))

    columns = [dict(zip(layout.columns, parts, strict=True)) for parts in zip(*map(split, layout.columns), strict=True)]
    indices = arrays["facts"].tolist()
    entries = zip(arrays["items"].tolist(), prompts, indices, columns, split("values"), strict=True)
    results = {
        number: ItemResult(count, own, values, header.facts[index]) for number, count, index, own, values in entries
    }
    spread = None
    if "mean" in arrays:
        mean, squares = (torch.from_numpy(arrays[name]) for name in ("mean", "squares"))
        if "counts" in arrays:
            counts = torch.from_numpy(arrays["counts"])
        else:  # an attribution has a value in every prompt, except at positions that no token follows
            has_value = ~torch.from_numpy(arrays["constant"]).isnan()
            counts = has_value.sum(layout.prompt_axis - 1).expand_as(mean).clone()
        spread = Spread(counts, mean, squares)
    return Accumulator(header.question, "values" in arrays, layout, dict(header.skipped), results, spread)


def check_question(saved: dict[str, str], question: dict[str, str], what: str) -> None:
    """Refuse to continue results that were computed with other options.

    Args:
        saved: The options of the saved results.
        question: The options of the present call.
        what: The file or result that is continued, as the beginning of a sentence.

    Raises:
        ResidscopeError: If another function made the results, or an option differs. The message names the functions, or
            the first such option.
    """
    calls = _call(saved), _call(question)
    if question and calls[0] != calls[1]:
        raise ResidscopeError(
            "resume", f"{what} was made with `{calls[0]}`, not with `{calls[1]}`: give `resume` another name."
        )
    for name, value in question.items():
        if saved.get(name) != value:
            raise ResidscopeError(
                "resume",
                f"{what} was made with `{name}={_short(saved.get(name, '?'))}`, not `{name}={_short(value)}`: use the "
                "same options, or give `resume` another name.",
            )


def _call(question: dict[str, str]) -> str:
    return "ablate_many" if question.get("by") == '"ablation"' else "attribute_many"


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
