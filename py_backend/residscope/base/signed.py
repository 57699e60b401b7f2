"""Formats numbers with a sign. The number farthest from zero determines the number of decimals.

`widgets/src/base/format.ts` does the same; `tests/texts/figures.json` tests both.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_UP, Decimal

_SMALL, _LARGE = 1e-4, 1e7
"""If the largest of the numbers is below `_SMALL`, or at least `_LARGE`, they are written with a power of ten."""
_EXTRA_DECIMALS = 2
"""A small number among large ones has more decimals, so that its first digit is shown. But a number that would be 0
even with this many more decimals is written as 0."""


def signed(value: float, largest: float, more_decimals: int = 0) -> str:
    """Return a number with its sign, `+4.62` or `−0.003`. A number that is rounded to zero has no sign: `0.00`.

    For NaN and infinity, return "not known".

    Args:
        value: The number.
        largest: The number farthest from zero among the numbers that are shown together.
        more_decimals: The number of additional decimals.
    """
    text = _unsigned(value, largest, more_decimals)
    if not math.isfinite(value) or not re.search("[1-9]", text):
        return text
    return ("−" if value < 0 else "+") + text


def _unsigned(value: float, largest: float, more_decimals: int) -> str:
    if not math.isfinite(value):
        return "not known"
    size = abs(value)
    largest_size = max(size, abs(largest) if math.isfinite(largest) else 0.0)
    if largest_size >= _LARGE or 0 < largest_size < _SMALL:
        text = f"{size:.{1 + max(0, more_decimals)}e}" if size else "0"
        return re.sub(r"e([+-])0?", r"e\1", text).replace("-", "−")
    decimals = max(0, _decimals(largest_size) + more_decimals)
    rounded = _rounded(size, decimals)
    if re.search("[1-9]", rounded) or size < 0.5 * 10 ** -(decimals + _EXTRA_DECIMALS):
        return f"{int(rounded):,}" if decimals == 0 and len(rounded) > 4 else rounded
    return _rounded(size, math.ceil(-math.log10(size)))


def _decimals(largest: float) -> int:
    """The number of decimals: 2 for values from 0.1 to 100, more for smaller ones, fewer for larger ones."""
    if largest >= 100:
        return 0 if largest >= 1000 else 1
    return 2 + (sum(largest < bound for bound in (0.1, 0.01, 0.001)) if largest > 0 else 0)


def _rounded(size: float, decimals: int) -> str:
    """The number with this many decimals. Halves, which bfloat16 often gives, are rounded up as in browsers."""
    return f"{Decimal(size).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):f}"
