"""The one exception of Residscope: a stable code for programs, a sentence with the remedy for people."""

from __future__ import annotations


class ResidscopeError(ValueError):
    """Something Residscope was asked cannot be done as asked.

    Attributes:
        code: A stable word for programs, such as `"missing-activation"`.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
