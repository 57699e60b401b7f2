"""The exception of Residscope, with a stable code for programs and a message for users."""

from __future__ import annotations


class ResidscopeError(ValueError):
    """A request that Residscope cannot fulfil; the message says why and what to do.

    Attributes:
        code: A stable word for programs, such as `"missing-activation"`.
        names: The activations that were not cached, if that is the reason for the error.
    """

    def __init__(self, code: str, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.names = names


def copied(error: ResidscopeError) -> ResidscopeError:
    """Return an equal error without a traceback. An error that is kept to be raised later is kept as such a copy.

    The frames of a traceback hold tensors. If a frame also holds the error, only the garbage collector frees both.
    """
    return ResidscopeError(error.code, str(error), error.names)


def without_frames(error: ResidscopeError) -> None:
    """Remove the traceback of an error in whose place a `@contextmanager` raises another one.

    From Python 3.12 on, the frame of `contextlib` keeps such an error, and the error's traceback keeps this frame.
    """
    error.__traceback__ = None
