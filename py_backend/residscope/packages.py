"""Packages that not everybody has: one that is missing is told from one that is there and fails, with the cause."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from .errors import ResidscopeError


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
            f"do not fit each other, or one is not whole. Mend what is named, or install {package} afresh: {install}.",
        ) from error


def is_missing(error: BaseException, package: str) -> bool:
    """Whether an import failed since this package, or that part of it, is not there; and not for what it needs."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return name is not None and name.partition(".")[0] == package.lower()


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
