"""What is done, in a file: NumPy arrays and a header in JSON; nothing in it is ever run when it is read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import IO, Any

import msgspec

from residscope.base.files import in_place_of
from residscope.errors import ResidscopeError
from residscope.many.accumulator import Accumulator, Part, Spread
from residscope.many.kept import FORM, FrameHeader, Kept, UnfitError, contents
from residscope.many.result import joined

_EVERY = 30.0  # seconds between two savings
_SHARE = 20  # … and at least so many times as long as the last one took


class Store:
    """Keeps a tally in a file; without a path it keeps nothing.

    Args:
        path: The file.

    Raises:
        ResidscopeError: If its folder is not there, or cannot be written to.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._due = time.monotonic() + _EVERY
        if path is not None and not path.parent.is_dir():
            raise ResidscopeError("resume", f"The folder of `resume={str(path)!r}` is not there: make it first.")
        if path is not None and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise ResidscopeError("resume", f"`resume={str(path)!r}` cannot be written: it takes a file's name.")

    def keep(self, tally: Accumulator) -> None:
        """Save, if it is time to."""
        if self.path is not None and time.monotonic() >= self._due:
            self.save(tally)

    def save(self, tally: Accumulator) -> None:
        """Save now. The file is always a whole one: the new one takes the old one's place when it is written."""
        if self.path is None or not tally.parts:
            return
        start = time.monotonic()
        with in_place_of(self.path) as file:
            write(file, tally)
        now = time.monotonic()
        self._due = now + max(_EVERY, _SHARE * (now - start))


def write(file: IO[bytes], tally: Accumulator) -> None:
    """Write a tally that is not empty."""
    import numpy as np

    frame, parts, spread = tally.frame, dict(sorted(tally.parts.items())), tally.spread
    assert frame is not None
    told = list(dict.fromkeys(part.told for part in parts.values()))
    place = {one: index for index, one in enumerate(told)}
    header = {
        "form": FORM,
        "question": tally.question,
        "frame": msgspec.to_builtins(FrameHeader.of(frame)),
        "told": told,
        "skipped": list(tally.skipped.items()),
        "count": 0 if spread is None else spread.count,
    }
    names = ["measured", "constant", "unexplained", *(["values"] if tally.keeps_values else [])]
    arrays = {name: joined(parts.values(), name, frame).numpy() for name in names}
    if spread is not None:
        arrays |= {"mean": spread.mean.numpy(), "squares": spread.squares.numpy()}
    numbers = {
        "items": list(parts),
        "prompts": [part.prompts for part in parts.values()],
        "said": [place[part.told] for part in parts.values()],
    }
    entries: dict[str, Any] = arrays | {name: np.array(listed) for name, listed in numbers.items()}
    entries["header"] = np.frombuffer(json.dumps(header, ensure_ascii=False).encode(errors="replace"), np.uint8)
    np.savez(file, **entries)


def read(path: Path, question: dict[str, str]) -> Accumulator:
    """Read what was kept. The file is not trusted: see `kept`.

    Args:
        path: A file that `write` wrote.
        question: What is asked now.

    Raises:
        ResidscopeError: If it is no such file, or was made for another question.
    """
    try:
        kept = contents(path)
    except Exception as error:  # whatever is wrong with its bytes
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        said = f"{why} cannot be right" if isinstance(error, UnfitError) else why
        raise ResidscopeError(
            "resume",
            f"{str(path)!r} is not a file that `attribute_many` kept, or was damaged since ({said}): delete it to "
            "begin again, or give `resume` another name.",
        ) from error
    check_question(kept.header.question, question, f"The file {str(path)!r}")
    return _tally(kept)


def _tally(kept: Kept) -> Accumulator:
    import torch

    header, frame, arrays = kept.header, kept.frame, kept.arrays
    prompts = arrays["prompts"].tolist()

    def split(name: str) -> Any:
        if name not in arrays:
            return [None] * len(prompts)
        return torch.from_numpy(arrays[name]).split(prompts, frame.prompts - (name != "values"))

    figures = zip(*(split(name) for name in ("measured", "constant", "unexplained", "values")), strict=True)
    entries = zip(arrays["items"].tolist(), prompts, arrays["said"].tolist(), figures, strict=True)
    parts = {
        number: Part(count, measured, constant, unexplained, values, header.told[said])
        for number, count, said, (measured, constant, unexplained, values) in entries
    }
    spread = None
    if "mean" in arrays:
        spread = Spread(header.count, torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["squares"]))
    return Accumulator(header.question, "values" in arrays, frame, dict(header.skipped), parts, spread)


def check_question(kept: dict[str, str], asked: dict[str, str], what: str) -> None:
    """Refuse to go on with another question.

    Raises:
        ResidscopeError: The sentence names what differs.
    """
    for name, value in asked.items():
        if kept.get(name) != value:
            raise ResidscopeError(
                "resume",
                f"{what} was made with `{name}={_short(kept.get(name, '?'))}`, not `{name}={_short(value)}`: ask "
                "the same question, or give `resume` another name.",
            )


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}…"
