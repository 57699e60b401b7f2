"""Finds the user's variables that may be answers for a cache, by class and shape. The target menu lists them.

No code of the user runs (see `discovery`). An object is read only if its class is itself a class of Python, PyTorch or
NumPy, because a subclass may override how it is read. Only texts, whole numbers, and pairs and sets of these are read
from an object.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from residscope.base.legible import shown
from residscope.errors import ResidscopeError
from residscope.session import discovery
from residscope.terms import MOST_OF_NAME, MOST_OF_SIDE

MAX_LISTED = 200
"""At most this many variables are listed."""

MAX_CHECKED = 5_000
"""At most this many lists, tuples, arrays and tensors are checked."""

_FIRST_ENTRIES = 4
"""Only this many first entries of a variable (and of each side of a pair) are checked for the list. All entries are
checked when the user chooses the variable."""

_MAX_TOKEN_LENGTH = 64
"""A list with longer texts holds prompts, not tokens."""

_INTEGERS = ("uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64")
_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Fit(NamedTuple):
    """A variable that fits: its description, such as `[8, 2] ids`, and its answers for `Targets.resolve`."""

    description: str
    answers: object


class Listed(NamedTuple):
    """The variables that fit, as pairs (expression, description), and notes on what was not checked."""

    variables: list[tuple[str, str]]
    notes: list[str]


def fitting(batch: int, d_model: int) -> Listed:
    """Return the user's variables that may be answers for this number of prompts, in the namespace's order."""
    found: list[tuple[str, str]] = []
    for checked, (name, value, check) in enumerate(_candidates(batch, d_model)):
        if len(found) == MAX_LISTED or checked == MAX_CHECKED:
            return Listed(found, [f"Only the first {checked:,} lists, tuples, arrays and tensors were checked."])
        fit = check(value, _FIRST_ENTRIES)
        # A shortened name cannot be looked up again, and a request cannot hold a very long one.
        if fit is not None and len(expression := name()) <= MOST_OF_NAME and "…" not in expression:
            found.append((expression, fit.description))
    return Listed(found, [])


def answers_in(name: str, batch: int, d_model: int) -> object:
    """Return the answers that the variable with this listed name holds now.

    Raises:
        ResidscopeError: If there is no such variable, or it does not fit.
    """
    candidates = _candidates(batch, d_model)
    fit = next((check(value, None) for name_of, value, check in candidates if name_of() == name), None)
    if fit is None:
        s = "" if batch == 1 else "s"
        raise ResidscopeError(
            "answers",
            f"`{shown(name).replace('`', 'ˋ')}` was deleted, or some of its entries are not answers for "
            f"{batch} prompt{s}: each must be a token as text or id, or a pair of these.",
        )
    return fit.answers


_Check = Callable[[Any, int | None], Fit | None]
"""Returns the fit of an object, or None. The second argument is the number of entries that are checked (None: all)."""


def _candidates(batch: int, d_model: int) -> Iterator[tuple[Callable[[], str], object, _Check]]:
    """The user's variables of the classes that can fit.

    With each variable comes a function that returns its name, and a function that checks whether it fits.
    """
    fit = partial(_fit_of_array, batch=batch, d_model=d_model)
    classes: list[tuple[type, _Check]] = [(list, partial(_fit_of_list, batch=batch)), (tuple, _fit_of_tuple)]
    if "numpy" in sys.modules:
        classes.append((sys.modules["numpy"].ndarray, fit))
    if "torch" in sys.modules:
        torch: Any = sys.modules["torch"]
        classes += [(torch.Tensor, fit), (torch.nn.Parameter, fit)]
    return discovery.of_classes(classes)


def _fit_of_list(value: list[Any], most: int | None, batch: int) -> Fit | None:
    if len(value) != batch:
        return None
    return _rows(list(islice(value, most)), most, str(batch), plural=batch != 1)


def _fit_of_tuple(value: tuple[Any, ...], _most: int | None) -> Fit | None:
    """A tuple fits if it is one pair of texts for all prompts. A pair of numbers does not fit: it may mean anything."""
    is_pair = len(value) == 2 and all(type(side) is str and _is_token(side) for side in value)
    return Fit("a pair for all prompts", value) if is_pair else None


def _fit_of_array(value: Any, most: int | None, batch: int, d_model: int) -> Fit | None:
    kind = _kind(value)
    shape = [] if kind is None else list(value.shape)
    if kind == "floats" and shape in ([d_model], [batch, d_model]):
        return Fit(f"{shape} direction", value)
    if shape not in ([batch], [batch, 2]):
        return None
    if kind == "ids":
        return Fit(f"{shape} ids", value)
    if kind == "texts":
        rows = value[:most].tolist()
        return _rows([tuple(row) for row in rows] if len(shape) == 2 else rows, most, str(shape))
    return None


def _kind(array: Any) -> str | None:
    """What the entries of a tensor or an array are: ids, floats or texts. None for anything else."""
    kind = getattr(array.dtype, "kind", None)
    if kind is not None:  # an array of NumPy
        return {"i": "ids", "u": "ids", "f": "floats", "U": "texts", "T": "texts", "O": "texts"}.get(kind)
    import torch

    # A nested tensor has no shape. Tensors of other layouts or on `meta` have no values that can be read.
    if array.is_nested or array.layout is not torch.strided or array.is_meta:
        return None
    dtype = str(array.dtype).removeprefix("torch.")
    return "ids" if dtype in _INTEGERS else "floats" if dtype in _FLOATS else None


def _rows(entries: list[Any], most: int | None, count: str, *, plural: bool = True) -> Fit | None:
    """The fit of a list with one answer for each prompt."""
    rows = [_copy(entry, most) if type(entry) is tuple else entry for entry in entries]
    s = "s" if plural else ""
    if all(type(row) is tuple and _is_pair(row) for row in rows):
        return Fit(f"{count} pair{s}", rows)
    if not all(map(_is_token, rows)):
        return None
    return Fit(f"{count} {'id' if all(type(row) is int for row in rows) else 'text'}{s}", rows)


def _copy(pair: tuple[Any, ...], most: int | None) -> tuple[Any, ...]:
    """A copy of a pair and of its lists and sets, because the user's code may change them after the check."""
    most = MOST_OF_SIDE + 1 if most is None else most
    return tuple(list(islice(side, most)) if _is_collection(side) else side for side in pair[:3])


def _is_collection(side: object) -> bool:
    return type(side) is list or type(side) is set or type(side) is frozenset  # `is`: a metaclass may define `==`


def _is_pair(value: tuple[Any, ...]) -> bool:
    return len(value) == 2 and all(map(_is_side, value))


def _is_side(value: object) -> bool:
    """Whether this is a token, or several tokens, whose mean is used."""
    if type(value) is list:
        return 0 < len(value) <= MOST_OF_SIDE and all(map(_is_token, value))
    return _is_token(value)


def _is_token(value: object) -> bool:
    return (type(value) is str and len(value) <= _MAX_TOKEN_LENGTH) or (type(value) is int and value.bit_length() < 63)
