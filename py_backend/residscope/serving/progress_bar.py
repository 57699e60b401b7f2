"""A progress bar (tqdm, as in `attribute_many`) for work that usually ends before a bar is useful."""

from __future__ import annotations

import time
from typing import Any

from residscope.compute.progress import Progress, progress_bar

AFTER = 1.0
"""The bar is shown after this many seconds, if the work will then need at least as many more.

Otherwise it is shown after twice this many seconds.
"""


class LateBar:
    """Shows a progress bar if work takes long, and removes it when the work ends.

    Args:
        name: The text before the bar.
        shown: Whether a bar may be shown at all.
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

    def update(self, progress: Progress) -> None:
        """Show this progress."""
        if not self._shown or not progress.total or (self._bar is None and self._is_soon(progress)):
            return
        if self._bar is None:
            self._bar = progress_bar(
                total=progress.total, initial=progress.done, desc=self._name, unit=" answers", leave=False
            )
        self._bar.total = progress.total
        self._bar.update(progress.done - self._bar.n)

    def _is_soon(self, progress: Progress) -> bool:
        """Whether it is too early for a bar, or the work will end soon. Showing a bar takes time, too."""
        taken = time.monotonic() - self._start
        ends = taken * (progress.total - progress.done) < AFTER * progress.done
        return taken < AFTER or (ends and taken < 2 * AFTER)
