"""Imports optional packages, with different messages for a missing package and for one that fails to import."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from residscope.errors import ResidscopeError


@contextmanager
def needed(package: str, what: str, install: str) -> Generator[None, None, None]:
    """A context for the import of an optional package, and for nothing else.

    Args:
        package: The name that is imported; in lower case it is the code of the error.
        what: What needs it, as the beginning of a sentence.
        install: The command that installs it.

    Raises:
        ResidscopeError: If it is not installed, or is installed but cannot be imported.
    """
    try:
        yield
    except Exception as error:  # incompatible packages may raise anything
        code = package.lower()
        if is_missing(error, package):
            raise ResidscopeError(code, f"{what} needs {package}: {install}.") from error
        raise ResidscopeError(
            code,
            f"{what} needs {package}, which is installed here but cannot be imported ({because(error)}). Two packages "
            "may be incompatible, one may be damaged or too old, or another file may have its name. Fix this cause, or "
            f"install {package} again: `pip install --force-reinstall {code}`.",
        ) from error


def is_missing(error: BaseException, package: str) -> bool:
    """Whether an import failed because this package itself is missing, not a submodule or a dependency of it."""
    return isinstance(error, ModuleNotFoundError) and error.name == package.lower()


def pandas() -> Any:
    """`pandas`.

    Raises:
        ResidscopeError: If it is not installed, or cannot be imported.
    """
    with needed("pandas", "A table", "`pip install pandas`"):
        import pandas as pd
        from pandas import DataFrame, MultiIndex

        del DataFrame, MultiIndex  # fails if a file of the user's has the name `pandas`
    return pd


def because(error: BaseException) -> str:
    """Why an import failed, for use inside a sentence: the error and its first cause."""
    first = cause = error
    seen = {id(error)}
    while (under := cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)) is not None:
        if id(under) in seen:
            break
        seen.add(id(under))
        cause = under
    text = _named(first)
    return text if cause is first or first_line(cause) in text else f"{text}; caused by {_named(cause)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, for use inside a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
