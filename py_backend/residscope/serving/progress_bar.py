"""A progress bar (tqdm, as `attribute_many` has one) for what is mostly done before anybody would look at one."""

from __future__ import annotations

import time
from typing import Any

from residscope.compute.progress import Progress

AFTER = 1.0
"""Seconds after which the bar is shown, where as many more are to come; after twice as many in any case."""


class LateBar:
    """Shows how far something is, where it takes longer; when it ends, the bar goes.

    Args:
        name: What it stands before the bar.
        shown: Whether to show it at all.
    """

    def __init__(self, name: str, *, shown: bool) -> None:
        self._name, self._shown = name, shown
        self._start = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> LateBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def told(self, progress: Progress) -> None:
        """So far it is."""
        if not self._shown or not progress.total or (self._bar is None and self._is_soon(progress)):
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=progress.total, initial=progress.done, desc=self._name, unit=" answers", leave=False)
        self._bar.total = progress.total
        self._bar.update(progress.done - self._bar.n)

    def _is_soon(self, progress: Progress) -> bool:
        """Whether nobody would look yet, or it seems to end in a moment: in a notebook a bar takes half a second."""
        taken = time.monotonic() - self._start
        ends = taken * (progress.total - progress.done) < AFTER * progress.done
        return taken < AFTER or (ends and taken < 2 * AFTER)
