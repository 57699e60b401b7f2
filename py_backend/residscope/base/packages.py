"""Imports optional packages. The error says whether a package is missing, or is installed but cannot be imported."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from residscope.errors import ResidscopeError


@contextmanager
def importing(package: str, what: str, install: str) -> Generator[None, None, None]:
    """Turn a failed import of an optional package into a `ResidscopeError`. The block must contain only the import.

    Args:
        package: The name of the package. In lower case it is the code of the error.
        what: What needs the package, as the beginning of a sentence.
        install: The command that installs the package.

    Raises:
        ResidscopeError: If the package is not installed, or is installed but cannot be imported.
    """
    try:
        yield
    except Exception as error:  # incompatible packages may raise anything
        code = package.lower()
        if is_missing(error, package):
            raise ResidscopeError(code, f"{what} needs {package}: {install}.") from error
        raise ResidscopeError(
            code,
            f"{what} needs {package}, which is installed here but cannot be imported ({import_failure(error)}). Two "
            "packages may be incompatible, one may be damaged or too old, or another file may have the same name. Fix "
            f"this, or install {package} again: `pip install --force-reinstall {code}`.",
        ) from error


def is_missing(error: BaseException, package: str) -> bool:
    """Return whether an import failed because the package itself is missing, not a submodule or a dependency."""
    return isinstance(error, ModuleNotFoundError) and error.name == package.lower()


def pandas() -> Any:
    """Import and return pandas.

    Raises:
        ResidscopeError: If pandas is not installed, or cannot be imported.
    """
    with importing("pandas", "A table", "`pip install pandas`"):
        import pandas as pd
        from pandas import DataFrame, MultiIndex

        del DataFrame, MultiIndex  # importing them fails if the user has another file named `pandas`
    return pd


def import_failure(error: BaseException) -> str:
    """Return why an import failed, for use inside a sentence: the error and its root cause."""
    first_cause = error
    visited = {id(error)}
    while (
        cause := first_cause.__cause__ or (None if first_cause.__suppress_context__ else first_cause.__context__)
    ) is not None:
        if id(cause) in visited:
            break
        visited.add(id(cause))
        first_cause = cause
    text = _type_and_message(error)
    if first_cause is error or first_line(first_cause) in text:
        return text
    return f"{text}; caused by {_type_and_message(first_cause)}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, for use inside a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _type_and_message(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
