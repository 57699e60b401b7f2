"""Packages that not everybody has: one that is missing is told from one that is there and fails, with the cause."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from residscope.errors import ResidscopeError


@contextmanager
def needed(package: str, what: str, install: str) -> Generator[None, None, None]:
    """Around an import, and nothing else.

    Args:
        package: Its name, as it is imported; in small letters it is the refusal's code.
        what: What it is needed for, as the beginning of a sentence.
        install: The command that installs it.

    Raises:
        ResidscopeError: If it is not installed; or if it is, and cannot be imported.
    """
    try:
        yield
    except Exception as error:  # a package that does not fit another one raises whatever it meets first
        code = package.lower()
        if is_missing(error, package):
            raise ResidscopeError(code, f"{what} needs {package}: {install}.") from error
        raise ResidscopeError(
            code,
            f"{what} needs {package}, which is installed here and cannot be imported ({because(error)}): two packages "
            "do not fit each other, one is not whole or too old, or another file bears its name. Mend what is named, "
            f"or install {package} afresh: `pip install --force-reinstall {code}`.",
        ) from error


def is_missing(error: BaseException, package: str) -> bool:
    """Whether an import failed since this package is not there; not for a part of it, or for what it needs."""
    return isinstance(error, ModuleNotFoundError) and error.name == package.lower()


def pandas() -> Any:
    """`pandas`.

    Raises:
        ResidscopeError: If it is not installed, or cannot be imported.
    """
    with needed("pandas", "A table", "`pip install pandas`"):
        import pandas as pd
        from pandas import DataFrame, MultiIndex

        del DataFrame, MultiIndex  # a file of the user's that bears the name has none
    return pd


def because(error: BaseException) -> str:
    """Why an import failed, for the inside of a sentence: what was raised, and what that came from."""
    first = cause = error
    seen = {id(error)}
    while (under := cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)) is not None:
        if id(under) in seen:
            break
        seen.add(id(under))
        cause = under
    said = _named(first)
    return said if cause is first or first_line(cause) in said else f"{said}; behind it {_named(cause)}"


def first_line(error: BaseException) -> str:
    """The first line of a message, to be quoted within a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
