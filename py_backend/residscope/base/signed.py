"""Formats numbers in logits: with a sign, and with the decimals that the number farthest from zero needs.

`widgets/src/base/format.ts` does the same; `tests/texts/figures.json` tests both.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_HALF_UP, Decimal

_SMALL, _LARGE = 1e-4, 1e7
"""Numbers below `_SMALL` and from `_LARGE` on are written with a power of ten."""
_LATER = 2
"""How many more decimals a small number among large ones may have to show its first digit."""


def signed(value: float, largest: float, more: int = 0) -> str:
    """A number with its sign, and a real minus: `+4.62`, `−0.003`. What rounds to zero has no sign: `0.00`.

    Args:
        value: The number.
        largest: The number farthest from zero of those that are shown together.
        more: Additional decimals.
    """
    text = _plain(value, largest, more)
    if not math.isfinite(value) or not re.search("[1-9]", text):
        return text
    return ("−" if value < 0 else "+") + text


def _plain(value: float, largest: float, more: int) -> str:
    if not math.isfinite(value):
        return "not known"
    size = abs(value)
    most = max(size, abs(largest) if math.isfinite(largest) else 0.0)
    if most >= _LARGE or 0 < most < _SMALL:
        text = f"{size:.{1 + max(0, more)}e}" if size else "0"
        return re.sub(r"e([+-])0?", r"e\1", text).replace("-", "−")
    digits = max(0, _decimals(most) + more)
    rounded = _rounded(size, digits)
    if re.search("[1-9]", rounded) or size < 0.5 * 10 ** -(digits + _LATER):
        return f"{int(rounded):,}" if digits == 0 and len(rounded) > 4 else rounded
    return _rounded(size, math.ceil(-math.log10(size)))


def _decimals(largest: float) -> int:
    """The number of decimals: 2 for usual values (0.1 to 100), more for smaller ones, fewer for larger ones."""
    if largest >= 100:
        return 0 if largest >= 1000 else 1
    return 2 + (sum(largest < bound for bound in (0.1, 0.01, 0.001)) if largest > 0 else 0)


def _rounded(size: float, digits: int) -> str:
    """Rounded half up, as browsers do, because bfloat16 often gives ties."""
    return f"{Decimal(size).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP):f}"
